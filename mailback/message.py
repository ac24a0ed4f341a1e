"""The bytes of a message to its headers, parts and text: lazy, linear in the size of the input, bounded, never raising.

`parse` looks at the header block only; parts are found, decoded and made text when they are asked for. Whatever the
bytes are, `parse` and everything on what it returns gives an answer: damaged mail is read the way its writer most
likely meant it, and what was guessed or left out stands in `Message.notes`. Past a cap of `Limits` the rest is left
out and `Message.truncated` is set; both are complete only for what has been read by then, since reading is lazy.

Three decisions that the rest of the house builds on:

- Files with LF, CRLF and CR read the same. Text has LF; `Part.body`, `Part.content`, `Headers.block` and
  `Message.raw` are the bytes as they stand, which signatures need (a file with bare CR is rewritten once, to LF).
- `Message.parts` does not enter a message that is attached to it (RFC 2046 section 5.2): what a report returns is
  `Part.message`, so that the text of a bounce is never mistaken for the text that bounced.
- No regular expression here backtracks without end: repetitions are possessive or short. Where a search could fail
  at the same text again and again, its failures are counted or its range is cut.

Emits no log events: the notes say what an operator would want to know, and the callers log or store them.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, KeysView, Sequence
from dataclasses import dataclass
from encodings.aliases import aliases as _python_aliases
from functools import lru_cache
from itertools import islice
from typing import Final
from urllib.parse import unquote_to_bytes

from mailback.html import html_to_text

__all__ = [
    "LIMITS",
    "Headers",
    "Limits",
    "Message",
    "Part",
    "decode_words",
    "fields",
    "html_to_text",
    "parse",
]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of one message is read."""

    max_parts: int = 1_000
    """In the whole message, messages attached to it included."""
    max_depth: int = 50
    """Containers within containers; an attached message is a container."""
    max_header_bytes: int = 1024 * 1024
    """In the whole message, its parts and attached messages included, so that nesting cannot multiply them."""
    max_headers: int = 2_000
    """Fields of one header block."""
    max_text_bytes: int = 1024 * 1024
    """Octets of one part that are made into text."""
    max_groups: int = 20_000
    """Groups of fields that `fields` returns: recipients of one report."""


LIMITS: Final = Limits()

_MAX_NOTES = 20
_MAX_FIELDS_OF_GROUPS = 200_000  # of one report: 20,000 recipients with ten fields each
_MAX_PARAMETER_BYTES = 16 * 1024  # of one Content-Type or Content-Disposition
_MAX_BOUNDARY = 1_000  # RFC 2046 section 5.1.1 allows 70; some writers do not count
_MAX_FALSE_BOUNDARIES = 10_000  # lines that begin like a delimiter and are none
_MAX_GUESSES = 50  # lines looked at in search of an undeclared boundary


class _Reading:
    """What reading one message has used up and found out; shared by its parts and the messages attached to it."""

    __slots__ = ("header_bytes", "limits", "notes", "parts", "truncated")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.notes: list[str] = []
        self.truncated = False
        self.parts = limits.max_parts
        self.header_bytes = limits.max_header_bytes

    def note(self, text: str) -> None:
        if text not in self.notes and len(self.notes) < _MAX_NOTES:
            self.notes.append(text)

    def cut(self, text: str) -> None:
        self.truncated = True
        self.note(text)


# --- Character sets -------------------------------------------------------------------------------------------------


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _squash(charset: str) -> str:
    return "".join(filter(str.isalnum, charset.lower()))


# Names that mail uses and Python does not know, or takes too literally: declared is the standard, written is the
# superset that the writer's software had (Microsoft's code pages, GB 18030 for every GB).
_MAIL_CHARSETS: Final = {
    "utf_8": "utf utf8mb4 utf8mb3 uft8 xutf8 unicode11utf8 unicode20utf8",
    "utf_7": "unicode11utf7 unicode20utf7 xunicode11utf7 xunicode20utf7",
    "cp1250": "win1250 xcp1250 xwindows1250",
    "cp1251": "win1251 xcp1251 xwindows1251",
    # Its 27 additions are control characters in ISO 8859-1, which nobody ever mailed.
    "cp1252": "iso88591 88591 latin1 latin l1 cp819 ibm819 isoir100 csisolatin1 ansi win1252 xcp1252 xwindows1252",
    "iso8859_6": "iso88596i iso88596e",
    "iso8859_8": "iso88598i iso88598e visual logical",
    "cp874": "windows874 xwindows874 dos874 tis620 iso885911",
    "koi8_r": "koi koi8 xkoi8r",
    "koi8_u": "koi8ru xkoi8u",
    "iso2022_jp_ext": "iso2022jp iso2022jp1 csiso2022jp jis iso2022jpms cp50220 cp50221",
    "cp932": "shiftjis sjis xsjis csshiftjis mskanji windows31j xmscp932 cp943 cp943c ibm943",
    "euc_jp": "xeuc xeucjp cseucpkdfmtjapanese",
    "gb18030": "gb gb2312 xgb2312 gb231280 csgb2312 chinese euccn xeuccn gbk xgbk cp936 ms936",
    "cp950": "big5 xbig5 xxbig5 cnbig5 csbig5 big5eten",
    "cp949": "euckr cseuckr ksc5601 ksc56011987 ksc56011989 csksc56011987 ksx1001 korean isoir149 windows949"
    " xwindows949",
    "mac_roman": "mac macintosh xmacroman",
    "mac_cyrillic": "xmaccyrillic",
}

# Only codecs that ship with Python and turn bytes into text in linear time. Asking `codecs.lookup` instead would import
# by a name that the sender chose, remember every unknown one for ever, and offer `idna` and `unicode_escape`.
_NOT_CHARSETS = _names(
    "base64_codec bz2_codec hex_codec idna mbcs oem punycode quopri_codec raw_unicode_escape rot_13 tactis undefined"
    " unicode_escape uu_codec zlib_codec"
)
_CODECS: Final[dict[str, str]] = {
    _squash(name): codec
    for name, codec in (*_python_aliases.items(), *((codec, codec) for codec in _python_aliases.values()))
    if codec not in _NOT_CHARSETS
} | {name: codec for codec, names in _MAIL_CHARSETS.items() for name in names.split()}


_MAX_CHARSET_NAME = 64


@lru_cache(maxsize=512)
def _codec(charset: str) -> str | None:
    """Python's codec for a declared charset; None where the declaration says nothing (`unknown-8bit`, junk)."""
    name = _squash(charset)
    # `charset=3D"utf-8"`: a quoted-printable escape that was never decoded.
    return _CODECS.get(name) or (_CODECS.get(name[2:]) if name.startswith("3d") else None)


def _decode_undeclared(data: bytes) -> str:
    """Text whose charset is not told or is told as ASCII: ISO 2022 by its escapes, else UTF-8, else Windows-1252."""
    if b"\x1b$" in data or b"\x1b(J" in data:
        return data.decode("iso2022_jp_ext", "replace")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _decode_damaged_utf8(data)


def _decode_damaged_utf8(data: bytes) -> str:
    """UTF-8 with a few bad octets (cut off in mid-character, say) stays UTF-8; what is mostly bad never was."""
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    good = len(text) - bad - len(text.encode("ascii", "ignore"))
    return text if good > bad else _decode_western(data)


def _decode_western(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # every octet has a character, so this is the end of the line


# What servers write under another name than it has; tried, strictly, when the declared one does not fit.
_CONFUSED_WITH: Final = {
    "utf_8": (),
    "iso2022_jp_ext": ("utf_8", "euc_jp", "cp932"),
    "euc_jp": ("utf_8", "cp932"),
    "cp932": ("utf_8", "euc_jp"),
    "iso2022_kr": ("utf_8", "cp949"),
    "hz": ("utf_8", "gb18030"),
}


def _decode(data: bytes, charset: str) -> str:
    """`data` as text; never raises, never leaves a lone surrogate, which no database would take."""
    codec = _codec(charset) if 0 < len(charset) <= _MAX_CHARSET_NAME else None
    if codec is None or codec == "ascii":
        return _decode_undeclared(data)
    if codec == "cp1252":
        return _decode_western(data)
    if codec.startswith(("utf_16", "utf_32")) and b"\0" not in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _decode_undeclared(data)  # declared wide, written narrow
    text = _decode_declared(data, codec)
    if codec == "utf_7":  # Python's decoder lets half a surrogate pair through
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _decode_declared(data: bytes, codec: str) -> str:
    for candidate in (codec, *_CONFUSED_WITH.get(codec, ("utf_8",))):
        try:
            return data.decode(candidate)
        except UnicodeDecodeError:
            continue
    return _decode_damaged_utf8(data) if codec == "utf_8" else data.decode(codec, "replace")


def _as_text(decoded: str) -> str:
    """Line ends as LF; no byte order mark and no NUL, which text never means and databases refuse."""
    if "\r" in decoded:
        decoded = decoded.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in decoded:
        decoded = decoded.replace("\0", "")
    return decoded.removeprefix("\ufeff")


# --- Content transfer encodings (RFC 2045 section 6) --------------------------------------------------------------

_BASE64_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_BASE64 = bytes(sorted(set(range(256)) - set(_BASE64_ALPHABET)))
_BASE64_LINES = _BASE64_ALPHABET + b"=\r\n\0"
_MAX_BASE64_PIECES = 1_000
_SOFT_BREAK_WITH_SPACE = re.compile(rb"=[ \t]++(?=\r?\n)")


def _base64(data: bytes) -> bytes:
    """Decode base64 as far as it goes: noise is passed over, missing padding made up for.

    Text after the padding is left out (footers that a gateway glued on) unless it is base64 itself (pieces encoded
    one by one). Data that is plainly not base64 is returned as it is: the declaration was wrong.
    """
    head, _, tail = data.partition(b"=")
    # Spaces count as foreign: encoders write none, prose is full of them.
    foreign = len(head.translate(None, _BASE64_LINES))
    if foreign * 8 > len(head):
        return data
    if not tail.strip(b"= \t\r\n"):
        return _base64_piece(head)
    if not tail.translate(None, _BASE64_LINES + b" \t"):
        pieces = data.split(b"=", _MAX_BASE64_PIECES)
    elif len(head.translate(None, _NOT_BASE64)) % 4 >= 2:
        pieces = [head]  # where padding belongs
    else:
        pieces = [data]  # a `=` among the noise
    return b"".join(map(_base64_piece, pieces))


def _base64_piece(data: bytes) -> bytes:
    data = data.translate(None, _NOT_BASE64)
    if len(data) % 4 == 1:
        data = data[:-1]  # six bits make no octet
    return binascii.a2b_base64(data + b"==")


def _quoted_printable(data: bytes) -> bytes:
    """Decode quoted-printable; escapes that are none stay as they stand (RFC 2045 section 6.7, note 2)."""
    if b"= " in data or b"=\t" in data:
        data = _SOFT_BREAK_WITH_SPACE.sub(b"=", data)
    return binascii.a2b_qp(data)


@lru_cache(maxsize=256)
def _transfer_encoding(declared: str) -> str:
    """`base64`, `quoted-printable` or the empty string for everything that is not encoded. Few are ever declared."""
    initial = declared.strip(" \t\"'").lower()
    if initial.startswith("base"):
        return "base64"
    return "quoted-printable" if initial.startswith(("quoted", "qp")) else ""


# --- Header fields --------------------------------------------------------------------------------------------------

_SPACE = " \t\r\n\v\f\0"  # not `str.strip()` as it comes: in octets read as Latin-1 it would take the end of "à" away

# One line after another, each either a field with its folded lines (RFC 5322 section 2.2) or junk. Names are narrower
# than the RFC's: without its specials, `<user@example.net>: no such user` is a line of text, as it is everywhere in
# bounces; and a name directly before `//` is a URL.
_NAME = r"([!#-'*+.0-9A-Z^-z|~-]++)[ \t]*+:(?!//)"
_LINES = re.compile(_NAME + r"([^\n]*+(?:\n[ \t][^\n]*+)*+)\n?|([^\n]*+)\n?")
_Line = tuple[str, str, str]

# Where a block has lines that are no field, these names tell whether it goes on: a broken fold has them behind it, a
# body that began without its empty line has not.
_HEADER_NAMES = _names(
    "auto-submitted bcc cc date delivered-to from in-reply-to list-id message-id mime-version precedence received"
    " references reply-to return-path sender subject thread-index thread-topic to user-agent"
)
_LONG_TOKEN = re.compile(r"(?![a-z]{1,8}+://)[!-~]{40,}+\s*+\Z")
_NOT_BLANK = re.compile(rb"[^\s]")
_MBOX_LINE = ("From ", ">From ")
# What may stand before the first field of a message: a byte order mark, empty lines, the separator line of an mbox.
_LEAD = re.compile(rb"(?:\xef\xbb\xbf)?+(?:[ \t]*+\r?\n)*+(>?From [^\n]*+\n)?+")
_FIRST_FIELD = re.compile(_NAME.encode("ascii"))


def _is_header_name(name: str) -> bool:
    name = name.lower()
    return name in _HEADER_NAMES or name.startswith(("x-", "content-", "resent-", "arc-", "dkim-"))


class Headers:
    """The fields of one header block, in order. Names compare without case; of several of one name, `get` and `raw`
    give the first. Values are decoded when asked for, never before."""

    __slots__ = ("_first", "_lines", "_text")

    def __init__(self, text: str, lines: list[_Line], first: dict[str, str]) -> None:
        # Octets as Latin-1: a str is as fast to search as bytes are, and what is ASCII needs no decoding any more.
        self._text = text
        self._lines = lines
        self._first = first

    @property
    def block(self) -> bytes:
        """The header bytes as they stand, without the empty line that ends them."""
        return self._text.encode("latin-1")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._first

    @property
    def names(self) -> KeysView[str]:
        """The names that occur, in lower case: for questions about several names at once."""
        return self._first.keys()

    def __len__(self) -> int:
        return len(self._lines)

    def __repr__(self) -> str:
        return f"<Headers: {len(self._lines)} fields>"

    def get(self, name: str) -> str | None:
        """Decoded (RFC 2047, raw UTF-8 as RFC 6532 allows, other 8-bit text by guess), unfolded, on one line."""
        value = self._first.get(name.lower())
        return None if value is None else self._decoded(value)

    def get_all(self, name: str) -> list[str]:
        return [self._decoded(value) for value in self._values(name)]

    def raw(self, name: str) -> bytes | None:
        """The value's octets, unfolded, not decoded."""
        value = self._first.get(name.lower())
        return None if value is None else _unfold(value).encode("latin-1")

    def raw_all(self, name: str) -> list[bytes]:
        return [_unfold(value).encode("latin-1") for value in self._values(name)]

    def items(self) -> list[tuple[str, str]]:
        """Names as they are written and values as of `get`."""
        return [(name, self._decoded(value)) for name, value, _ in self._lines]

    def written(self, name: str) -> str:
        """The value unfolded but not decoded, octets as Latin-1, without NUL; empty when there is none. For the syntax
        of MIME; `name` is in lower case."""
        value = self._first.get(name)
        return "" if value is None else _unfold(value).replace("\0", "")

    def _values(self, name: str) -> list[str]:
        name = name.lower()
        if name not in self._first:
            return []
        return [value for written, value, _ in self._lines if written.lower() == name]

    def _decoded(self, value: str) -> str:
        value = _unfold(value)
        if value.isascii():
            if "=?" not in value and value.isprintable():
                return value
            charset = ""
        else:
            charset = _parameters(self.written("content-type")).get("charset", "")
        return _header_text(value.encode("latin-1"), charset)


def _unfold(value: str) -> str:
    """A fold and the white space around it become one space."""
    if "\n" not in value:
        return value.strip(_SPACE)
    return " ".join([text for line in value.split("\n") if (text := line.strip(_SPACE))])


def _first_values(lines: Sequence[_Line]) -> dict[str, str]:
    first: dict[str, str] = {}
    for name, value, _ in lines:
        first.setdefault(name.lower(), value)
    return first


_NO_HEADERS: Final = Headers("", [], {})


def _read_block(text: str, reading: _Reading, behind: tuple[bytes, int, int]) -> tuple[Headers, int]:
    """The fields of a header block, and how much of it is header: less than all where the body began in it. `behind`
    is what comes after the empty line: data, from where (negative when there is no empty line), to where."""
    lines = _LINES.findall(text)
    lines.pop()  # the empty match at the end
    first = _first_values(lines)
    length = len(text)
    if "" in first:  # lines that are no field
        data, begin, end = behind
        goes_on = begin >= 0 and _NOT_BLANK.search(data, begin, end) is not None
        lines, length = _mend(text, lines, reading, goes_on=goes_on)
        first = _first_values(lines)
        text = text[:length]
    allowed = reading.limits.max_headers
    if len(lines) > allowed:
        reading.cut(f"a header of more than {allowed} fields: the rest are left out")
        lines = lines[:allowed]
        first = _first_values(lines)
    return Headers(text, lines, first), length


def _mend(text: str, lines: list[_Line], reading: _Reading, *, goes_on: bool) -> tuple[list[_Line], int]:
    """Part a block that has junk lines into fields and the beginning of a body.

    Junk with a header field behind it is a fold whose white space got lost: it goes to the field before. Junk with
    none behind it, and a line that looks like a MIME delimiter, is where the body began without an empty line.
    """
    last_field = max((i for i, line in enumerate(lines) if line[0] and _is_header_name(line[0])), default=-1)
    wrapped = False
    for index, (name, _, junk) in enumerate(lines):
        if name or not junk.strip(_SPACE) or junk.startswith(_MBOX_LINE):
            continue
        if _begins_body(lines, index, last_field, goes_on=goes_on):
            if index:
                reading.note("the body follows the header fields without an empty line")
            begins = next(islice(_LINES.finditer(text), index, None)).start()
            return _join_broken_folds(lines[:index]), begins
        wrapped = True
    if wrapped:
        reading.note("header lines that were wrapped without indentation are joined")
    return _join_broken_folds(lines), len(text)


def _begins_body(lines: list[_Line], index: int, last_field: int, *, goes_on: bool) -> bool:
    """Whether the junk line at `index` is body already."""
    junk = lines[index][2]
    if junk.startswith("--"):
        return True
    if index == 0:
        return not (junk.startswith((" ", "\t")) and last_field > 0)
    if index < last_field:
        return False
    # Behind the last field: the rest of a parameter list, or of a token too long for a line, is still header.
    _, value, wrapped = lines[index - 1]
    if (value or wrapped).rstrip(_SPACE).endswith(";"):
        return False
    return not (goes_on and _LONG_TOKEN.match(junk))


def _join_broken_folds(lines: Iterable[_Line]) -> list[_Line]:
    """Every line that is no field becomes part of the field before it; before the first there is nothing to join."""
    joined: list[tuple[str, list[str]]] = []
    for name, value, junk in lines:
        if name:
            joined.append((name, [value]))
        elif joined and not junk.startswith(_MBOX_LINE):
            joined[-1][1].append(junk)
    return [(name, "\n ".join(values), "") for name, values in joined]


# --- Encoded words (RFC 2047) ---------------------------------------------------------------------------------------

# A word without its closing `?=` runs to the next word or the end of the value; spaces within are let pass.
_WORD = re.compile(
    r"=\?([^?\s=]{1,64}+)\?([BbQq])\?"
    r"((?:[^?=]++|\?(?!=)|=(?!\?[^?\s=]{1,64}+\?[BbQq]\?))*+)(\?=)?"
)


def decode_words(value: str | bytes) -> str:
    """`value` with its encoded words decoded (RFC 2047) and other 8-bit text read as UTF-8, else Windows-1252; on one
    line. Words that part a multi-byte character between them are put together first. Never raises."""
    if isinstance(value, bytes):
        return _header_text(value, "")
    return _one_line(_decode_words(value))


def _header_text(value: bytes, charset: str) -> str:
    """8-bit text in a header: UTF-8 (RFC 6532), else the charset that the message declares for its body."""
    try:
        text = _decode_undeclared(value) if b"\x1b" in value else value.decode()
    except UnicodeDecodeError:
        text = _decode(value, charset)
    return _one_line(_decode_words(text))


def _one_line(text: str) -> str:
    """An encoded word may hold line breaks, which must not come out of a header as lines of their own."""
    if text.isprintable():
        return text
    return text.translate(_LINE_BREAKS).strip()


_LINE_BREAKS: Final = dict.fromkeys(map(ord, "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"), " ") | {0: ""}


def _decode_words(text: str) -> str:
    if "=?" not in text:
        return text
    out: list[str] = []
    octets: list[bytes] = []  # of adjacent words in one charset
    charset = ""
    position = 0
    for word in _WORD.finditer(text):
        between = text[position : word.start()]
        position = word.end()
        if octets and (between.strip() or word[1].lower() != charset):
            out.append(_decode_octets(octets, charset))
            octets = []
            if not between.strip():
                between = ""
        elif octets:
            between = ""  # white space between encoded words is theirs (section 6.2)
        out.append(between)
        charset = word[1].lower()
        content, rest = _word_content(word)
        octets.append(content)
        if rest:
            out.extend((_decode_octets(octets, charset), rest))
            octets = []
    if octets:
        out.append(_decode_octets(octets, charset))
    out.append(text[position:])
    return "".join(out)


def _word_content(word: re.Match[str]) -> tuple[bytes, str]:
    """The octets of an encoded word; and of one that never ends, in base64, the text after it."""
    encoded, rest = word[3], ""
    if word[2] in "Bb":
        if word[4] is None:
            encoded, space, rest = encoded.partition(" ")
            rest = space + rest
        return _base64(encoded.encode("utf-8", "replace")), rest
    return binascii.a2b_qp(encoded.encode("utf-8", "replace"), header=True), rest


def _decode_octets(octets: list[bytes], charset: str) -> str:
    return _decode(b"".join(octets), charset.partition("*")[0])  # `utf-8*en`: RFC 2231 section 5


# --- Parameters (RFC 2045 section 5.1, RFC 2231) ------------------------------------------------------------------

_TYPE = re.compile(r"[\s\"']*+([^\s;,/\"'()]++)[ \t]*+/[ \t]*+([^\s;,/\"'()]++)")
# A value ends at the semicolon, or where another `name=` follows although the semicolon is missing.
_PARAMETER = re.compile(
    r'([^\s=;"]++)(?:[ \t]*+=[ \t]*+(?:"((?:[^"\\]++|\\.)*+)"|([^;\s]*+(?:[ \t]++(?![^\s=;"]++=)[^;\s]++)*+)))?+',
    re.DOTALL,
)
_MAX_TYPE = 200
_MAX_ENCODING = 100
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_EXTENDED_NAME = re.compile(r"([^*]++)(?:\*([0-9]{1,4}+))?+(\*)?+\Z")


@lru_cache(maxsize=1024)
def _declared_type(content_type: str) -> str:
    """The type that a Content-Type begins with, lower case; empty where it is none. Few differ but for the boundary."""
    declared = _TYPE.match(content_type)
    return f"{declared[1]}/{declared[2]}".lower() if declared else ""


def _parameters(value: str) -> dict[str, str]:
    """The parameters in `value` by lower-case name, octets as Latin-1 still; the first of a name counts. What stands
    before them has no `=` and is passed over."""
    found: dict[str, str] = {}
    for name, quoted, bare in _PARAMETER.findall(value[:_MAX_PARAMETER_BYTES]):
        if quoted or bare:
            text = _ESCAPED.sub(r"\1", quoted) if "\\" in quoted else quoted or bare.strip('"')
            found.setdefault(name.lower(), text)
    return found


def _decoded_parameters(value: str) -> dict[str, str]:
    """Parameters with RFC 2231's continuations put together and every value decoded, RFC 2047's words too, which the
    RFC forbids there and half the world writes."""
    plain = _parameters(value)
    extended: dict[str, dict[int, tuple[str, bool]]] = {}
    for name in [name for name in plain if "*" in name]:
        if parsed := _EXTENDED_NAME.match(name):
            segment = (plain.pop(name), bool(parsed[3]))
            extended.setdefault(parsed[1], {}).setdefault(int(parsed[2] or 0), segment)
    decoded = {name: _parameter_text(text) for name, text in plain.items()}
    return decoded | {name: _extended_value(segments) for name, segments in extended.items()}


@lru_cache(maxsize=1024)
def _charset(content_type: str) -> str:
    """The charset that a Content-Type declares, lower case; empty where it declares none. Those of texts are few."""
    return _decoded_parameters(content_type).get("charset", "").strip(" \t\"'").lower()


def _parameter_text(text: str) -> str:
    return text if text.isascii() and "=?" not in text else _header_text(text.encode("latin-1"), "")


def _extended_value(segments: dict[int, tuple[str, bool]]) -> str:
    """RFC 2231 sections 3 and 4: segments in order, the first of which may say `charset'language'`."""
    charset: str | None = None
    octets: list[bytes] = []
    for number in sorted(segments):
        text, percent = segments[number]
        if percent and charset is None:
            declared, quote, rest = text.partition("'")
            charset = declared if quote else ""
            text = rest.partition("'")[2] if quote else text
        octets.append(unquote_to_bytes(text.encode("latin-1")) if percent else text.encode("latin-1"))
    return _one_line(_decode_words(_decode(b"".join(octets), charset or "")))


# --- Where the header block ends --------------------------------------------------------------------------------------

_LINE_FEED, _CARRIAGE_RETURN = 10, 13
_LEADS = (b"From ", b">From ", b"\xef\xbb\xbf", b"\n", b"\r", b" ", b"\t")


def _split_head(data: bytes, start: int, end: int, reading: _Reading) -> tuple[Headers, int]:
    """The header block that begins at `start`, and where the body begins.

    The block ends at the first empty line (RFC 5322 section 2.1), where `_mend` finds that the body began before it,
    or at `end`. What does not begin with a field is all body.
    """
    if start >= end or data[start] == _LINE_FEED or data.startswith(b"\r\n", start, end):
        return _NO_HEADERS, min(end, start + 2 if data[start : start + 1] == b"\r" else start + 1)
    limit = min(end, start + reading.header_bytes)
    stop, body = _empty_line(data, start, limit)
    if body < 0 and limit < end:
        return _split_long_head(data, start, limit, end, reading)
    headers, length = _read_block(data[start:stop].decode("latin-1"), reading, (data, body, end))
    reading.header_bytes -= length
    if length < stop - start:
        return headers, start + length
    return headers, end if body < 0 else body


def _split_long_head(data: bytes, start: int, limit: int, end: int, reading: _Reading) -> tuple[Headers, int]:
    """What `_split_head` gives where no empty line comes before `limit`: the whole lines before it are read."""
    if not _FIRST_FIELD.match(data, start, end):
        return _NO_HEADERS, start
    stop = data.rfind(b"\n", start, limit) + 1 or limit
    body = _empty_line(data, max(start, limit - 2), end)[1]
    headers, length = _read_block(data[start:stop].decode("latin-1"), reading, (data, body, end))
    reading.header_bytes -= length
    if headers and length < stop - start:
        return headers, start + length
    reading.cut(f"more than {reading.limits.max_header_bytes} octets of header fields: the rest are left out")
    return headers, end if body < 0 else body


def _empty_line(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the lines before the first empty line end and where those after it begin; `(end, -1)` without one."""
    found = _EMPTY_LINE.search(data, start, end)
    return (found.start() + 1, found.end()) if found else (end, -1)


_EMPTY_LINE = re.compile(rb"\n\r?\n")


def _skip_lead(data: bytes, start: int, end: int) -> int:
    """Where the first field of a message stands, past what may be before it: a byte order mark, empty lines, the
    `From ` line of an mbox. Empty lines are skipped only before a name that headers have: a body may begin with
    some."""
    if not data.startswith(_LEADS, start, end):
        return start
    lead = _LEAD.match(data, start, end)
    if lead is None or lead.end() == start:
        return start
    field = _FIRST_FIELD.match(data, lead.end(), end)
    if field and (lead[1] or _is_header_name(field[1].decode("ascii"))):
        return lead.end()
    return start


def _with_line_feeds(raw: bytes) -> bytes:
    """`raw` as it is, unless its first line ends in a bare CR or in CR CR LF: then with LF and CRLF."""
    feed = raw.find(b"\n")
    first = raw.find(b"\r", 0, feed + 1 if feed >= 0 else len(raw))
    if first < 0 or first == feed - 1:
        return raw
    if raw.startswith(b"\r\r\n", first):
        return raw.replace(b"\r\r\n", b"\r\n")
    # A stray CR within the first line is not its end: what follows a line end is a field, a fold or an empty line.
    if _AFTER_BARE_CR.match(raw, first + 1) or (feed < 0 and _FIRST_FIELD.match(raw)):
        return raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return raw


_AFTER_BARE_CR = re.compile(rb"[\r \t]|" + _FIRST_FIELD.pattern)


# --- Multiparts (RFC 2046 section 5.1) --------------------------------------------------------------------------------

_DELIMITER_END = re.compile(rb"(--)?+[ \t]*+\r?(?:\n|\Z)")
_MIME_FIELD = re.compile(rb"content-[a-z-]{1,40}+[ \t]*+:", re.IGNORECASE)


def _spans(data: bytes, start: int, end: int, boundary: bytes, reading: _Reading) -> list[tuple[int, int]]:
    """Where the parts between the delimiter lines of `boundary` begin and end, header blocks included.

    A longer boundary that begins like this one is not this one (its line goes on), and a closing delimiter closes
    nothing when another part follows it. A part that nothing closes runs to `end`.
    """
    delimiter = b"--" + boundary
    spans: list[tuple[int, int]] = []
    begin, false_hits = -1, 0
    at = data.find(delimiter, start, end)
    while at >= 0:
        after = at + len(delimiter)
        line = _DELIMITER_END.match(data, after, end) if at == start or data[at - 1] == _LINE_FEED else None
        if line:
            if begin >= 0:
                spans.append((begin, _before_line_end(data, begin, at)))
            begin = -1 if line[1] else line.end()
            if len(spans) > reading.parts:
                return spans
        else:
            false_hits += 1
            if false_hits > _MAX_FALSE_BOUNDARIES:
                reading.cut("a multipart has too many lines that only resemble its delimiter")
                break
        at = data.find(delimiter, after, end)
    if begin >= 0:
        reading.note("a multipart ends without its closing delimiter")
        spans.append((begin, end))
    return spans


def _before_line_end(data: bytes, begin: int, at: int) -> int:
    """The line end before a delimiter belongs to the delimiter (RFC 2046 section 5.1.1)."""
    stop = at - 1
    if stop > begin and data[stop - 1] == _CARRIAGE_RETURN:
        stop -= 1
    return max(begin, stop)


def _guess_boundary(data: bytes, start: int, end: int) -> bytes:
    """The boundary of a multipart that declares none, or another: the first line that begins with `--` and is followed
    by a MIME field. Empty when there is none."""
    at = start if data.startswith(b"--", start, end) else data.find(b"\n--", start, end) + 1
    for _ in range(_MAX_GUESSES):
        if at < start or (at == 0 and not data.startswith(b"--")):
            return b""
        stop = data.find(b"\n", at, min(end, at + _MAX_BOUNDARY))
        if stop >= 0 and _MIME_FIELD.match(data, stop + 1, end):
            return data[at + 2 : stop].rstrip()
        at = data.find(b"\n--", at, end) + 1
    return b""


# --- Parts ------------------------------------------------------------------------------------------------------------

_MESSAGE_TYPES = frozenset({"message/rfc822", "message/global", "message/news"})
_HEADER_TYPES = frozenset(
    {"text/rfc822-headers", "text/rfc822-header", "message/rfc822-headers", "message/global-headers"}
)
_ATTACHED_TYPES = _MESSAGE_TYPES | _HEADER_TYPES
_META_CHARSET = re.compile(rb"<meta[^<>]{1,200}?charset\s{0,9}=[\s\"']{0,9}([A-Za-z0-9_:-]{1,40})", re.IGNORECASE)


class Part:
    """One node of the MIME tree: a container (`children`) or a leaf (`content`, `text`)."""

    __slots__ = (
        "_begin",
        "_children",
        "_content",
        "_content_type",
        "_data",
        "_end",
        "_message",
        "_params",
        "_reading",
        "_text",
        "depth",
        "headers",
        "is_container",
        "type",
    )

    def __init__(
        self,
        data: bytes,
        head: tuple[Headers, int],
        end: int,
        reading: _Reading,
        depth: int,
        *,
        implied_type: str = "text/plain",
    ) -> None:
        """A part whose header block has been split off; `implied_type` is what it is without a Content-Type."""
        self.headers, self._begin = head
        self.depth = depth
        """0 for the root of a message; attached messages count on from the part that they are attached as."""
        self.type = implied_type
        """`text/plain`, `message/delivery-status`, ...; lower case. Where no Content-Type can be read: text/plain, or
        message/rfc822 in a digest (RFC 2046 section 5.1.5)."""
        self._content_type = self.headers.written("content-type")
        if self._content_type:
            self.type = _declared_type(self._content_type[:_MAX_TYPE]) or implied_type
        self.is_container = self.type.startswith("multipart/")
        """Whether it is a multipart."""
        self._data = data
        self._end = end
        self._reading = reading
        self._params: dict[str, str] | None = None
        self._children: tuple[Part, ...] | None = None
        self._content: bytes | None = None
        self._text: str | None = None
        self._message: Message | None = None

    def __repr__(self) -> str:
        return f"<Part {self.type}, {self._end - self._begin} octets>"

    @property
    def params(self) -> dict[str, str]:
        """The parameters of Content-Type by lower-case name, decoded (RFC 2231)."""
        if self._params is None:
            self._params = _decoded_parameters(self._content_type)
        return self._params

    @property
    def charset(self) -> str:
        """The declared charset in lower case; empty when none is declared."""
        declared = self._content_type
        return _charset(declared) if len(declared) <= _MAX_TYPE else _charset.__wrapped__(declared)

    @property
    def disposition(self) -> str:
        """`attachment`, `inline`, ... (RFC 2183); lower case, empty when not told."""
        return self.headers.written("content-disposition").partition(";")[0].strip(_SPACE).lower()

    @property
    def filename(self) -> str:
        """The name that the sender gave the part; empty when none. It is text to show, not a path to write to."""
        disposition = self.headers.written("content-disposition")
        return _decoded_parameters(disposition).get("filename") or self.params.get("name", "")

    @property
    def body(self) -> bytes:
        """The octets after the header block, still in their transfer encoding."""
        return self._data[self._begin : self._end]

    @property
    def content(self) -> bytes:
        """The octets with their transfer encoding undone. What was not encoded is not kept a second time."""
        if self._content is None:
            encoding = self._encoding
            content = self._decoded_body(self._end, encoding)
            if not encoding:
                return content
            self._content = content
        return self._content

    @property
    def text(self) -> str:
        """The content as text with LF, HTML with its tags, `Limits.max_text_bytes` octets at most; a container has
        none."""
        if self._text is None:
            self._text = "" if self.is_container else self._read_text()
        return self._text

    @property
    def children(self) -> tuple[Part, ...]:
        """The parts of a multipart, in order; empty for a leaf. A multipart in which no delimiter can be found has one
        child, text/plain, with everything."""
        if self._children is None:
            self._children = tuple(self._split()) if self.is_container else ()
        return self._children

    @property
    def message(self) -> Message | None:
        """The attached message of message/rfc822 and message/global, and, with no or little body, of
        text/rfc822-headers and message/global-headers; None for other types and beyond `Limits.max_depth`."""
        if self._message is None and self.type in _ATTACHED_TYPES:
            self._message = self._attached()
        return self._message

    @property
    def _encoding(self) -> str:
        return _transfer_encoding(self.headers.written("content-transfer-encoding")[:_MAX_ENCODING])

    def _decoded_body(self, end: int, encoding: str) -> bytes:
        body = self._data[self._begin : end]
        if encoding == "base64":
            return _base64(body)
        return _quoted_printable(body) if encoding == "quoted-printable" else body

    def _read_text(self) -> str:
        limit = self._reading.limits.max_text_bytes
        if self._end - self._begin <= limit:
            content = self.content
        else:
            # At most three octets encode one, so what is beyond three times the limit need not even be decoded.
            content = self._decoded_body(min(self._end, self._begin + 3 * limit), self._encoding)
        if len(content) > limit:
            self._reading.cut(f"the text of a part is cut after {limit} octets")
            content = content[:limit]
        charset = self.charset
        if not charset and self.type == "text/html" and (meta := _META_CHARSET.search(content, 0, 2048)):
            charset = meta[1].decode("ascii")
        return _as_text(_decode(content, charset))

    def _attached(self) -> Message | None:
        reading = self._reading
        if self.depth >= reading.limits.max_depth:
            reading.cut(f"nested deeper than {reading.limits.max_depth}: the rest is left out")
            return None
        if self._encoding:  # RFC 2046 section 5.2.1 forbids it; some do it
            content = _with_line_feeds(self.content)
            return Message(content, 0, len(content), reading, self.depth + 1)
        return Message(self._data, self._begin, self._end, reading, self.depth + 1)

    def _split(self) -> list[Part]:
        reading, depth = self._reading, self.depth + 1
        if self.depth >= reading.limits.max_depth:
            reading.cut(f"nested deeper than {reading.limits.max_depth}: the rest is left out")
            return []
        data, spans = self._delimited()
        if spans is None:
            begin, end = (self._begin, self._end) if data is self._data else (0, len(data))
            if begin >= end:
                return []
            reading.note("a multipart without delimiter lines is read as text")
            return [Part(data, (_NO_HEADERS, begin), end, reading, depth)]
        implied = "message/rfc822" if self.type == "multipart/digest" else "text/plain"
        children: list[Part] = []
        for start, stop in spans:
            if not reading.parts:
                reading.cut(f"more than {reading.limits.max_parts} parts: the rest are left out")
                break
            reading.parts -= 1
            children.append(
                Part(data, _split_head(data, start, stop, reading), stop, reading, depth, implied_type=implied)
            )
        return children

    def _delimited(self) -> tuple[bytes, list[tuple[int, int]] | None]:
        """The data that the parts lie in, and where; None instead when nothing delimits any."""
        data, start, end = self._data, self._begin, self._end
        boundary = self._boundary()
        if boundary and (spans := _spans(data, start, end, boundary, self._reading)):
            return data, spans
        if self._encoding:  # the container was encoded as a whole, which RFC 2045 section 6.4 forbids
            data = _with_line_feeds(self.content)
            start, end = 0, len(data)
            if boundary and (spans := _spans(data, start, end, boundary, self._reading)):
                return data, spans
        if guess := _guess_boundary(data, start, end):
            self._reading.note("a multipart has another boundary than it declares")
            return data, _spans(data, start, end, guess, self._reading)
        return data, None

    def _boundary(self) -> bytes:
        """The declared boundary in octets; empty when there is none or it is beyond all measure."""
        declared = _parameters(self._content_type).get("boundary")
        boundary = declared.encode("latin-1") if declared else self.params.get("boundary", "").encode()
        boundary = boundary.rstrip()
        return boundary if len(boundary) <= _MAX_BOUNDARY else b""


# --- Messages ---------------------------------------------------------------------------------------------------------

_PLAIN = frozenset({"text/plain"})
_HTML = frozenset({"text/html"})
_READABLE = _PLAIN | _HTML


class Message:
    """A message, or one attached to another. See the head of this module for what reading lazily means."""

    __slots__ = ("_data", "_end", "_parts", "_reading", "_start", "_text", "root")

    def __init__(self, data: bytes, start: int, end: int, reading: _Reading, depth: int) -> None:
        self._data = data
        self._start = start
        self._end = end
        self._reading = reading
        self._parts: tuple[Part, ...] | None = None
        self._text: str | None = None
        head = _split_head(data, _skip_lead(data, start, end), end, reading)
        self.root = Part(data, head, end, reading, depth)
        """The message as a part: its header block is the message's own."""

    def __repr__(self) -> str:
        return f"<Message {self.root.type}, {self._end - self._start} octets>"

    @property
    def raw(self) -> bytes:
        """The whole message as it stands."""
        return self._data[self._start : self._end]

    @property
    def headers(self) -> Headers:
        return self.root.headers

    @property
    def notes(self) -> list[str]:
        """What was damaged, guessed or left out, in what has been read so far; shared with attached messages."""
        return self._reading.notes

    @property
    def truncated(self) -> bool:
        """Whether a limit left something out, in what has been read so far."""
        return self._reading.truncated

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts, depth first, the root and other containers included, without those of attached messages."""
        if self._parts is None:
            self._parts = _walk(self.root) if self.root.is_container else (self.root,)
        return self._parts

    @property
    def text(self) -> str:
        """What a person reads first: the first text/plain or text/html body that is not empty, HTML made visible text.
        Of alternatives the plain one counts, unless it is empty. The empty string when there is none."""
        if self._text is None:
            self._text = _first_text(self.root)
        return self._text

    def header(self, name: str) -> str:
        """The decoded value of the first field `name`; empty when there is none."""
        return self.root.headers.get(name) or ""


# Both walks keep their own stack: how deep mail may nest is a setting, how deep Python may call is not.


def _walk(root: Part) -> tuple[Part, ...]:
    walked: list[Part] = []
    ahead = [root]
    while ahead:
        part = ahead.pop()
        walked.append(part)
        if part.is_container:
            ahead.extend(reversed(part.children))
    return tuple(walked)


def _first_text(root: Part) -> str:
    """The first readable text. An alternative is searched for plain text, then again for HTML; what lies within it is
    not searched twice once more, so that nested alternatives do not multiply the work."""
    ahead = [(root, _READABLE)]
    while ahead:
        part, types = ahead.pop()
        if part.type in types:
            if text := _visible_text(part):
                return text
            continue
        orders = (_HTML, _PLAIN) if part.type == "multipart/alternative" and types == _READABLE else (types,)
        for order in orders:  # last in, first out
            ahead.extend((child, order) for child in reversed(part.children))
    return ""


def _visible_text(part: Part) -> str:
    if part.depth and part.disposition == "attachment":
        return ""
    text = part.text if part.type in _PLAIN else html_to_text(part.text)
    return "" if text.isspace() else text


def parse(raw: bytes, limits: Limits = LIMITS) -> Message:
    """Read a message. Never raises, whatever the bytes; linear in their number; see `Limits` for what is left out."""
    data = _with_line_feeds(raw)
    return Message(data, 0, len(data), _Reading(limits), 0)


# --- Groups of fields -------------------------------------------------------------------------------------------------

_EMPTY_LINES = re.compile(r"\n(?:[ \t]*+\r?\n)++")


def fields(block: bytes, limits: Limits = LIMITS) -> list[Headers]:
    """The groups of fields in `block`, parted by empty lines: the body of message/delivery-status (RFC 3464 section
    2.1), message/feedback-report (RFC 5965), message/disposition-notification (RFC 8098).

    Lines that are no field continue the field before them: a diagnostic that a server wrapped without indenting. A
    group without any field is left out, and so is what is beyond `max_groups` or 200,000 fields. Never raises.
    """
    text = _with_line_feeds(block).decode("latin-1").lstrip(_SPACE)
    groups: list[Headers] = []
    room = _MAX_FIELDS_OF_GROUPS
    for group in _EMPTY_LINES.split(text, limits.max_groups)[: limits.max_groups]:
        lines = _LINES.findall(group[: limits.max_header_bytes])
        lines.pop()
        first = _first_values(lines)
        if "" in first:
            lines = _join_broken_folds(lines)
            first = _first_values(lines)
        if lines:
            groups.append(Headers(group, lines, first))
        room -= len(lines)
        if room <= 0:
            break
    return groups

"""A header block: where it ends, its fields, and how one is mended that mail on its way has damaged.

Emits no log events: what was mended is noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, KeysView, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from mailback.mime.charsets import name_set
from mailback.mime.limits import Reading
from mailback.mime.parameters import parameters
from mailback.mime.words import header_text

SPACE = " \t\r\n\v\f\0"  # not `str.strip()` as it comes: in octets read as Latin-1 it would take the end of "à" away

# One line after another, each either a field with its folded lines (RFC 5322 section 2.2) or junk. Names are narrower
# than the RFC's: without its specials, `<user@example.net>: no such user` is a line of text, as it is everywhere in
# bounces; and a name directly before `//` is a URL.
_NAME = r"([!#-'*+.0-9A-Z^-z|~-]++)[ \t]*+:(?!//)"
LINES = re.compile(_NAME + r"([^\n]*+(?:\n[ \t][^\n]*+)*+)\n?|([^\n]*+)\n?")
_Line = tuple[str, str, str]

# Where a block has lines that are no field, these names tell whether it goes on: a broken fold has them behind it, a
# body that began without its empty line has not.
_HEADER_NAMES = name_set(
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
        if value is None:
            return None
        plain = value.strip(SPACE)
        # Nearly all: nothing to unfold and nothing to decode.
        return plain if plain.isprintable() and plain.isascii() and "=?" not in plain else self._decoded(value)

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
        if value is None:
            return ""
        plain = value.strip(SPACE)
        return plain if plain.isprintable() else _unfold(value).replace("\0", "")

    def cut(self, count: int) -> Headers:
        """The first so many fields."""
        lines = self._lines[:count]
        return Headers(self._text, lines, first_values(lines))

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
            charset = parameters(self.written("content-type")).get("charset", "")
        return header_text(value.encode("latin-1"), charset)


def _unfold(value: str) -> str:
    """A fold and the white space around it become one space."""
    if "\n" not in value:
        return value.strip(SPACE)
    return " ".join([text for line in value.split("\n") if (text := line.strip(SPACE))])


def first_values(lines: Sequence[_Line]) -> dict[str, str]:
    """The first value of each name, in lower case."""
    return {name.lower(): value for name, value, _ in reversed(lines)}


NO_HEADERS: Final = Headers("", [], {})


def _read_block(text: str, reading: Reading, behind: tuple[bytes, int, int]) -> tuple[Headers, int]:
    """The fields of a header block, and how much of it is header: less than all where the body began in it. `behind`
    is what comes after the empty line: data, from where (negative when there is no empty line), to where."""
    headers = _small_block(text) if len(text) <= _SMALL else _block(text)
    length = len(text)
    if "" in headers.names:  # lines that are no field
        data, begin, end = behind
        goes_on = begin >= 0 and _NOT_BLANK.search(data, begin, end) is not None
        lines, length = _mend(text, LINES.findall(text)[:-1], reading, goes_on=goes_on)
        headers = Headers(text[:length], lines, first_values(lines))
    allowed = reading.limits.max_headers
    if len(headers) > allowed:
        reading.cut(f"a header of more than {allowed} fields: the rest are left out")
        headers = headers.cut(allowed)
    return headers, length


def _block(text: str) -> Headers:
    """A block as it stands, under the name `""` what is no field."""
    lines = LINES.findall(text)
    lines.pop()  # the empty match at the end
    return Headers(text, lines, first_values(lines))


_SMALL = 256  # octets
_small_block = lru_cache(maxsize=1024)(_block)
"""Blocks of parts are few: half of them say `Content-Type: message/delivery-status`, or the like, and no more."""


def _mend(text: str, lines: list[_Line], reading: Reading, *, goes_on: bool) -> tuple[list[_Line], int]:
    """Part a block that has junk lines into fields and the beginning of a body.

    Junk with a header field behind it is a fold whose white space got lost: it goes to the field before. Junk with
    none behind it, and a line that looks like a MIME delimiter, is where the body began without an empty line.
    """
    last_field = max((i for i, line in enumerate(lines) if line[0] and _is_header_name(line[0])), default=-1)
    wrapped = False
    for index, (name, _, junk) in enumerate(lines):
        if name or not junk.strip(SPACE) or junk.startswith(_MBOX_LINE):
            continue
        if _begins_body(lines, index, last_field, goes_on=goes_on):
            if index:
                reading.note("the body follows the header fields without an empty line")
            begins = next(islice(LINES.finditer(text), index, None)).start()
            return join_broken_folds(lines[:index]), begins
        wrapped = True
    if wrapped:
        reading.note("header lines that were wrapped without indentation are joined")
    return join_broken_folds(lines), len(text)


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
    if (value or wrapped).rstrip(SPACE).endswith(";"):
        return False
    return not (goes_on and _LONG_TOKEN.match(junk))


def join_broken_folds(lines: Iterable[_Line]) -> list[_Line]:
    """Every line that is no field becomes part of the field before it; before the first there is nothing to join."""
    joined: list[tuple[str, list[str]]] = []
    for name, value, junk in lines:
        if name:
            joined.append((name, [value]))
        elif joined and not junk.startswith(_MBOX_LINE):
            joined[-1][1].append(junk)
    return [(name, "\n ".join(values), "") for name, values in joined]


LINE_FEED, CARRIAGE_RETURN = 10, 13
_LEADS = (b"From ", b">From ", b"\xef\xbb\xbf", b"\n", b"\r", b" ", b"\t")


def split_head(data: bytes, start: int, end: int, reading: Reading) -> tuple[Headers, int]:
    """The header block that begins at `start`, and where the body begins.

    The block ends at the first empty line (RFC 5322 section 2.1), where `_mend` finds that the body began before it,
    or at `end`. What does not begin with a field is all body.
    """
    if start >= end or data[start] == LINE_FEED or data.startswith(b"\r\n", start, end):
        return NO_HEADERS, min(end, start + 2 if data[start : start + 1] == b"\r" else start + 1)
    limit = start + reading.header_bytes
    limit = min(limit, end)
    stop, body = _empty_line(data, start, limit)
    if body < 0 and limit < end:
        return _split_long_head(data, start, limit, end, reading)
    headers, length = _read_block(data[start:stop].decode("latin-1"), reading, (data, body, end))
    reading.header_bytes -= length
    if length < stop - start:
        return headers, start + length
    return headers, end if body < 0 else body


def _split_long_head(data: bytes, start: int, limit: int, end: int, reading: Reading) -> tuple[Headers, int]:
    """What `split_head` gives where no empty line comes before `limit`: the whole lines before it are read."""
    if not _FIRST_FIELD.match(data, start, end):
        return NO_HEADERS, start
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


def skip_lead(data: bytes, start: int, end: int) -> int:
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


def with_line_feeds(raw: bytes) -> bytes:
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

"""Octets to text: by the charset that is declared, by the one that the writer had, or by guess.

Nothing here raises on any octets. Emits no log events.
"""

from __future__ import annotations

from encodings.aliases import aliases as _python_aliases
from functools import lru_cache
from typing import Final


def name_set(words: str) -> frozenset[str]:
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
_NOT_CHARSETS = name_set(
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


def decode_undeclared(data: bytes) -> str:
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


def decode(data: bytes, charset: str) -> str:
    """`data` as text; never raises, never leaves a lone surrogate, which no database would take."""
    codec = _codec(charset) if 0 < len(charset) <= _MAX_CHARSET_NAME else None
    if codec is None or codec == "ascii":
        return decode_undeclared(data)
    if codec == "cp1252":
        return _decode_western(data)
    if codec.startswith(("utf_16", "utf_32")) and b"\0" not in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return decode_undeclared(data)  # declared wide, written narrow
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


def as_text(decoded: str) -> str:
    """Line ends as LF; no byte order mark and no NUL, which text never means and databases refuse."""
    if "\r" in decoded:
        decoded = decoded.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in decoded:
        decoded = decoded.replace("\0", "")
    return decoded.removeprefix("\ufeff")

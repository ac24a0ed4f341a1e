"""Encoded words (RFC 2047) and other text in header fields that is not ASCII. Emits no log events."""

from __future__ import annotations

import binascii
import re
from typing import Final

from mailback.mime.charsets import decode, decode_undeclared
from mailback.mime.transfer import decode_base64

# A word without its closing `?=` runs to the next word or the end of the value; spaces within are let pass.
_WORD = re.compile(
    r"=\?([^?\s=]{1,64}+)\?([BbQq])\?"
    r"((?:[^?=]++|\?(?!=)|=(?!\?[^?\s=]{1,64}+\?[BbQq]\?))*+)(\?=)?"
)


def decode_words(value: str | bytes) -> str:
    """`value` with its encoded words decoded (RFC 2047) and other 8-bit text read as UTF-8, else Windows-1252; on one
    line. Words that part a multi-byte character between them are put together first. Never raises."""
    if isinstance(value, bytes):
        return header_text(value, "")
    return one_line(decoded_words(value))


def header_text(value: bytes, charset: str) -> str:
    """8-bit text in a header: UTF-8 (RFC 6532), else the charset that the message declares for its body."""
    try:
        text = decode_undeclared(value) if b"\x1b" in value else value.decode()
    except UnicodeDecodeError:
        text = decode(value, charset)
    return one_line(decoded_words(text))


def one_line(text: str) -> str:
    """An encoded word may hold line breaks, which must not come out of a header as lines of their own."""
    if text.isprintable():
        return text
    return text.translate(_LINE_BREAKS).strip()


_LINE_BREAKS: Final = dict.fromkeys(map(ord, "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"), " ") | {0: ""}


def decoded_words(text: str) -> str:
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
        return decode_base64(encoded.encode("utf-8", "replace")), rest
    return binascii.a2b_qp(encoded.encode("utf-8", "replace"), header=True), rest


def _decode_octets(octets: list[bytes], charset: str) -> str:
    return decode(b"".join(octets), charset.partition("*")[0])  # `utf-8*en`: RFC 2231 section 5

"""Content transfer encodings (RFC 2045 section 6) undone, as far as they go. Emits no log events."""

from __future__ import annotations

import binascii
import re
from functools import lru_cache

_BASE64_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_BASE64 = bytes(sorted(set(range(256)) - set(_BASE64_ALPHABET)))
_BASE64_LINES = _BASE64_ALPHABET + b"=\r\n\0"
_MAX_BASE64_PIECES = 1_000
_SOFT_BREAK_WITH_SPACE = re.compile(rb"=[ \t]++(?=\r?\n)")


def decode_base64(data: bytes) -> bytes:
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


def decode_quoted_printable(data: bytes) -> bytes:
    """Decode quoted-printable; escapes that are none stay as they stand (RFC 2045 section 6.7, note 2)."""
    if b"= " in data or b"=\t" in data:
        data = _SOFT_BREAK_WITH_SPACE.sub(b"=", data)
    return binascii.a2b_qp(data)


@lru_cache(maxsize=256)
def transfer_encoding(declared: str) -> str:
    """`base64`, `quoted-printable` or the empty string for everything that is not encoded. Few are ever declared."""
    initial = declared.strip(" \t\"'").lower()
    if initial.startswith("base"):
        return "base64"
    return "quoted-printable" if initial.startswith(("quoted", "qp")) else ""

"""A message as signatures see it: its fields octet for octet, and the canonical forms of RFC 6376 section 3.4.

Stricter than `mailback.message`, on purpose: that one reads damaged mail the way its writer meant it, this one may read
nothing into what was signed. Everything is linear in the size of the message; the canonical body is worked out once for
all signatures. Line ends become CRLF, since what a door hands over may have LF. Emits no log events.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Final

Field = tuple[str, bytes]
"""Name as written, and everything between the colon and the line end that closes the field, folds included."""

_MAX_HEADER_OCTETS = 1024 * 1024
_MAX_FIELDS = 2_000

_FIELD = re.compile(rb"([!-9;-~]++)([ \t]*+):([^\n]*+(?:\n[ \t][^\n]*+)*+)\n")
_MBOX_LINE = re.compile(rb">?From (?![ \t]*+:)[^\n]*+\n")  # `From : x` is a field, and some readers show it
_SPACES = re.compile(rb"[ \t]{2,}+|\t")
_FOLD = re.compile(rb"\r?\n")
_CLOSING_LINES = re.compile(rb"(?:\n\r)*+")  # of a body that is read backwards

RELAXED: Final = "relaxed"
SIMPLE: Final = "simple"


class HeaderError(ValueError):
    """No header that could have been signed; the text says what is wrong."""


class SignedMessage:
    """The fields and the body of a message, for as many signatures as it has."""

    __slots__ = ("_bodies", "_body", "_digests", "_places", "_relaxed", "fields")

    def __init__(self, fields: Sequence[Field], body: bytes) -> None:
        self.fields = fields
        self._body = body
        self._bodies: dict[str, bytes] = {}
        self._digests: dict[str, bytes] = {}
        self._relaxed: dict[int, bytes] = {}
        self._places: dict[str, list[int]] = {}
        for place, (name, _) in enumerate(fields):
            self._places.setdefault(name.strip().lower(), []).append(place)

    def named(self, name: str) -> list[Field]:
        """All fields of one name (lower case), the topmost first."""
        return [self.fields[place] for place in self._places.get(name, ())]

    def count(self, name: str) -> int:
        return len(self._places.get(name, ()))

    def body(self, canonicalization: str) -> bytes:
        """The body in canonical form (RFC 6376 sections 3.4.3 and 3.4.4)."""
        if canonicalization not in self._bodies:
            make = _relaxed_body if canonicalization == RELAXED else _simple_body
            self._bodies[canonicalization] = make(with_crlf(self._body))
        return self._bodies[canonicalization]

    def body_digest(self, canonicalization: str) -> bytes:
        """The SHA-256 of the canonical body; worked out once, since a message may have many signatures."""
        if canonicalization not in self._digests:
            self._digests[canonicalization] = hashlib.sha256(self.body(canonicalization)).digest()
        return self._digests[canonicalization]

    def selected(self, names: Iterable[str], canonicalization: str) -> list[bytes]:
        """The fields that a signature lists, in its order and canonical form.

        Of several of one name the lowest is taken first; a name listed more often than the field is there selects
        nothing, which is how a signer guards against fields added later (RFC 6376 section 5.4.2).
        """
        left = {name: list(places) for name, places in self._places.items()}
        chosen = [left[name].pop() for name in names if left.get(name)]
        return [self._canonical(place, canonicalization) for place in chosen]

    def _canonical(self, place: int, canonicalization: str) -> bytes:
        if canonicalization != RELAXED:
            return canonical_field(self.fields[place], SIMPLE)
        if place not in self._relaxed:
            self._relaxed[place] = canonical_field(self.fields[place], RELAXED)
        return self._relaxed[place]


def split(raw: bytes) -> SignedMessage:
    """The message in `raw`. Raises HeaderError when it has lines that are no field, or more than one may have."""
    start = _mbox_line_end(raw)
    stop, body = _empty_line(raw, start)
    return SignedMessage(split_fields(raw[start:stop]), raw[body:])


def split_fields(block: bytes) -> list[Field]:
    """The fields of a header block, with or without the line end of its last line. Raises HeaderError."""
    if len(block) > _MAX_HEADER_OCTETS:
        raise HeaderError(f"more than {_MAX_HEADER_OCTETS} octets of header fields")
    block = with_crlf(block)
    if block and not block.endswith(b"\n"):
        block += b"\r\n"
    fields: list[Field] = []
    position = 0
    while position < len(block):
        found = _FIELD.match(block, position)
        if found is None:
            raise HeaderError("a line of the header is no field")
        if len(fields) == _MAX_FIELDS:
            raise HeaderError(f"more than {_MAX_FIELDS} header fields")
        name, gap, value = found.groups()
        fields.append(((name + gap).decode("ascii"), value.removesuffix(b"\r")))
        position = found.end()
    return fields


def _mbox_line_end(raw: bytes) -> int:
    found = _MBOX_LINE.match(raw)
    return found.end() if found else 0


def _empty_line(raw: bytes, start: int) -> tuple[int, int]:
    """Where the header ends and where the body begins; without an empty line all is header."""
    if raw.startswith((b"\r\n", b"\n"), start):
        return start, start + (2 if raw[start : start + 1] == b"\r" else 1)
    limit = start + _MAX_HEADER_OCTETS + 4  # beyond it the header is refused anyway
    ends = [(at + 1, at + len(mark)) for mark in (b"\n\r\n", b"\n\n") if (at := raw.find(mark, start, limit)) >= 0]
    return min(ends, default=(len(raw), len(raw)))


def with_crlf(data: bytes) -> bytes:
    """`data` with every line end as CRLF."""
    if data.count(b"\n") == data.count(b"\r\n"):
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def unfolded(value: bytes) -> bytes:
    """The value on one line, with single spaces (RFC 6376 section 3.4.2)."""
    return _SPACES.sub(b" ", _FOLD.sub(b"", value)).strip(b" ")


def canonical_field(field: Field, canonicalization: str) -> bytes:
    """One field with its line end (RFC 6376 sections 3.4.1 and 3.4.2)."""
    name, value = field
    if canonicalization == RELAXED:
        return name.strip().lower().encode("ascii") + b":" + unfolded(value) + b"\r\n"
    return name.encode("ascii") + b":" + value + b"\r\n"


def _simple_body(body: bytes) -> bytes:
    return _without_closing_lines(body) + b"\r\n"


def _relaxed_body(body: bytes) -> bytes:
    if not body.endswith(b"\r\n"):
        body += b"\r\n"
    reduced = _SPACES.sub(b" ", body).replace(b" \r\n", b"\r\n")
    kept = _without_closing_lines(reduced)
    return kept + b"\r\n" if kept else b""


def _without_closing_lines(body: bytes) -> bytes:
    """`body` without the line ends at its end, the last line's own included.

    `rstrip` would take a lone CR as well, and a search for `(CRLF)*` at the end takes quadratic time.
    """
    tail = body[len(body.rstrip(b"\r\n")) :]
    closing = _CLOSING_LINES.match(tail[::-1])
    return body[: len(body) - (closing.end() if closing else 0)]

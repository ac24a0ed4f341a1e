"""Messages of an mbox file, each with the octets that it takes.

Messages are split at `From ` lines that carry a date and follow an empty line; `>From ` is put back (mboxrd, which also
undoes what most mboxo writers did).

Emits no log events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple

from mailback.ingest.logfiles import TAIL

MESSAGE_LIMIT = 256 * 1024 * 1024
"""Octets of one message that are kept in memory; what is longer is cut there, as its reader stops long before."""

_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
_FROM_LINE = re.compile(rb"From (\S.{0,300}?\d\d:\d\d.*)", re.DOTALL)
"""An envelope sender, then a date: what every writer of an mbox puts there, and what prose that begins so lacks."""
_LINE_LIMIT = 1 << 20
_DATE = "%a %b %d %H:%M:%S %Y"


class Message(NamedTuple):
    """One message of an mbox."""

    raw: bytes
    sender: str
    """Envelope sender of its `From ` line."""
    at: datetime | None
    """When it was put there, as that line says; such times have no zone, and count as UTC."""
    end: int | None
    """Where the next message begins; None for the last one, which may still be being written."""
    tail: bytes
    """The last octets before that, by which `logfiles.resume` knows the place again."""


def is_mbox(first_line: bytes) -> bool:
    """Whether a file that begins so is an mbox."""
    return first_line.startswith(b"From ")


def split(stream: BinaryIO, first_line: bytes, begin: int = 0, before: bytes = b"") -> Iterator[Message]:
    """The messages of a stream whose next line, the `From ` line of the first, was read; `begin` is where that stood,
    and `before` the octets before it.

    Raises OSError for a file that fails while it is read.
    """
    lines: list[bytes] = []
    size = 0
    after_blank = False
    from_line, at = first_line, begin + len(first_line)
    tail = before + first_line
    while line := stream.readline(_LINE_LIMIT):
        if after_blank and _FROM_LINE.match(line):
            yield _message(from_line, lines[:-1], at, tail)
            from_line, lines, size, after_blank = line, [], 0, False
            at += len(line)
            tail = (tail + line)[-TAIL:]
            continue
        at += len(line)
        tail = (tail + line)[-TAIL:]
        after_blank = line in (b"\n", b"\r\n")
        size += len(line)
        if size <= MESSAGE_LIMIT:
            lines.append(line)
    if after_blank and lines:
        lines.pop()
    yield _message(from_line, lines, None, tail)


def _message(from_line: bytes, lines: list[bytes], end: int | None, tail: bytes) -> Message:
    raw = b"".join(lines)
    sender, _, written = from_line[5:].decode("utf-8", "replace").strip().partition(" ")
    return Message(_QUOTED_FROM.sub(rb"\1", raw) if b">From " in raw else raw, sender, _date(written), end, tail)


def _date(written: str) -> datetime | None:
    try:
        return datetime.strptime(" ".join(written.split()[:5]), _DATE).replace(tzinfo=UTC)
    except ValueError:
        return None

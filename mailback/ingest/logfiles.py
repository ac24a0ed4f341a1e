"""Log files in pieces: plain or compressed by gzip, xz or bzip2, each piece ending at a line end, with its place.

A log is known by its first line, whatever it is called: rotated to `mail.log.1` and compressed to `mail.log.2.gz` it is
still the log that was read half. The place of a log is how many octets of it (not compressed) were read, with a hash of
the last of them: where that does not fit, it is another log with the same first line, and is read from its beginning.

Emits no log events. Raises OSError for a file that cannot be read, `Damaged` where compressed data is broken.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

PIECE = 512 * 1024
"""Octets of one piece, about: some hundred messages."""
LONGEST_LINE = 1024 * 1024
"""A line that is longer is no log line; it is passed over."""
_FIRST_LINE = 1024
TAIL = 256
"""Octets before a place that are hashed to know it again."""
_OPENERS: dict[bytes, Callable[[BinaryIO], AbstractContextManager[object]]] = {
    b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open, b"BZh": bz2.open,
}  # fmt: skip
_BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


class Damaged(Exception):  # noqa: N818 - a condition of the file
    """Compressed data that ends too early or cannot be unpacked; what stood before it was read."""


class Piece(NamedTuple):
    """Some whole lines."""

    data: bytes
    end: int
    """Where reading goes on after it."""
    tail: str
    """Hash of the last octets before that."""


@contextmanager
def open_log(path: str) -> Iterator[tuple[BinaryIO, bool]]:
    """The log at `path`, unpacked, and whether it can be positioned; `-` is standard input.

    What it is packed with is told by its first octets, whatever its name. A pipe cannot be positioned.
    """
    with ExitStack() as stack:
        raw = sys.stdin.buffer if path == "-" else stack.enter_context(Path(path).open("rb"))
        head = raw.peek(6)[:6] if isinstance(raw, io.BufferedReader) else b""
        opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
        stream = raw if opener is None else stack.enter_context(opener(raw))
        yield cast("BinaryIO", stream), raw.seekable()


def fingerprint(first: bytes) -> str | None:
    """What a log is known by, from its beginning; None while its first line is not complete."""
    line, end, _ = first[:_FIRST_LINE].partition(b"\n")
    if not line or not (end or len(first) >= _FIRST_LINE):
        return None
    return hashlib.sha256(line).hexdigest()[:32]


def first_octets(stream: BinaryIO) -> bytes:
    """The beginning of a log that can be positioned; it stands at its beginning afterwards."""
    try:
        first = stream.read(_FIRST_LINE)
    except _BROKEN as error:
        raise Damaged(str(error)) from error
    stream.seek(0)
    return first


def resume(stream: BinaryIO, position: Mapping[str, object]) -> int:
    """Position a log where reading ended, and say where that is; at its beginning where it is not that log."""
    offset, tail = position.get("offset"), position.get("tail")
    if isinstance(offset, int) and offset > 0:
        begin = max(0, offset - TAIL)
        try:
            stream.seek(begin)
            if hash_of(stream.read(offset - begin)) == tail:
                return offset
        except _BROKEN as error:
            raise Damaged(str(error)) from error
    stream.seek(0)
    return 0


def hash_of(octets: bytes) -> str:
    """The hash of the last octets that were read."""
    return hashlib.sha256(octets[-TAIL:]).hexdigest()[:32]


def pieces(stream: BinaryIO, start: int = 0, *, separator: bytes = b"\n", to_end: bool = False) -> Iterator[Piece]:
    """The rest of a log. A last line without its end is given only with `to_end`, and its place is before it: it may
    still be being written, and is read again then."""
    rest, at = b"", start
    while True:
        try:
            data = stream.read(PIECE)
        except _BROKEN as error:
            raise Damaged(str(error)) from error
        if not data:
            break
        data = rest + data
        cut = data.rfind(separator) + len(separator)
        if cut < len(separator):
            if len(data) > LONGEST_LINE:  # passed over
                at, data = at + len(data), b""
            rest = data
            continue
        whole, rest = data[:cut], data[cut:]
        at += len(whole)
        yield Piece(whole, at, hash_of(whole))
    if rest and to_end:
        yield Piece(rest, at, "")

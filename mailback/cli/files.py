"""Files that commands take and give: read as text, written so that nobody ever sees half of one, counted.

Emits no log events.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO

NEW_FILE_MODE = 0o640
"""Exports hold addresses: nothing for everybody."""


@contextmanager
def reading(file: Path, *, errors: str = "strict") -> Iterator[TextIO]:
    """A text in UTF-8, without a byte order mark and with its line ends as they are; `-` is standard input, whatever
    the locale says of it. `errors` as `open` takes it: what to do with octets that are no UTF-8."""
    if str(file) != "-":
        with file.open(encoding="utf-8-sig", errors=errors, newline="") as stream:
            yield stream
        return
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors=errors, newline="")
    yield sys.stdin


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that is synced and renamed onto it at the end, or removed on an error.

    It takes over mode and owner of the file it replaces, so that Postfix can go on reading what it could read before.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    beside, descriptor = create_beside(path, NEW_FILE_MODE)
    try:
        with os.fdopen(descriptor, "w+b", closefd=False) as file:
            yield file
            if not file.closed:
                file.flush()
        _take_after(path, descriptor)
        os.fsync(descriptor)
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def create_beside(path: Path, mode: int) -> tuple[Path, int]:
    """A new file in the folder of `path`, to be renamed onto it, and its descriptor.

    Raises OSError about `path`: nobody knows the name of the other one.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        return beside, os.open(beside, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _take_after(path: Path, descriptor: int) -> None:
    try:
        before = path.stat()
    except FileNotFoundError:
        return
    os.fchmod(descriptor, before.st_mode & 0o777)
    if os.geteuid() == 0:
        os.fchown(descriptor, before.st_uid, before.st_gid)


def lines_in(file: Path) -> int | None:
    """How many lines a file has, for the progress bar; None for what can be read only once."""
    if not file.is_file():
        return None
    with file.open("rb") as raw:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: raw.read(1 << 20), b""))

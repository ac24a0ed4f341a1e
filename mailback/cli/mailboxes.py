"""Where messages lie: files, mbox files, Maildir folders, standard input; read as a stream, one message at a time.

An mbox is told by its first line, `From ` (`mailback.ingest.mbox` splits it). A file called `.eml` holds one message
whatever its lines look like: a bounce may return a message with such a line. Emits no log events.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from mailback.ingest import mbox

_LINE_LIMIT = 1 << 20
_OPENED = frozenset({Path("/dev/stdin"), Path("/dev/fd"), Path("/proc/self/fd")})
"""Where a shell's `<(command)` lies: a pipe, but one that has its writer."""


@dataclass(frozen=True, slots=True)
class Found:
    """One message, or why it could not be read."""

    source: str
    """A path, `path#3` for the third message of an mbox, `-` for standard input."""
    raw: bytes = b""
    error: str | None = None


def read_all(paths: Iterable[str]) -> Iterator[Found]:
    """Every message below the paths, in order; never raises for one that cannot be read."""
    for path in paths:
        if path == "-":
            yield from _read_stream("-", sys.stdin.buffer)
        elif not path:  # an unset variable of a script, and not the folder that it happens to run in
            yield Found(path, error="an empty name")
        else:
            yield from _read_path(Path(path), path)


def _read_path(path: Path, name: str) -> Iterator[Found]:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            entries = _messages_of(path)
        elif not stat.S_ISREG(mode) and _OPENED.isdisjoint((path, path.parent)):
            yield Found(name, error="no file but a named pipe, a socket or a device")
            return
        else:
            with path.open("rb") as file:
                yield from _read_stream(name, file)
            return
    except OSError as error:
        yield Found(name, error=error.strerror or str(error))
        return
    for entry in entries:
        yield from _read_path(entry, str(entry))


def _messages_of(folder: Path) -> list[Path]:
    """The messages of a Maildir (new, then cur), or every file and folder of any other; hidden ones left out."""
    parts = [folder / name for name in ("new", "cur") if (folder / name).is_dir()]
    return [entry for part in parts or [folder] for entry in sorted(part.iterdir()) if _may_hold_mail(entry)]


def _may_hold_mail(entry: Path) -> bool:
    """Not what is hidden, nor a named pipe or device, which could keep a reader waiting for ever.

    A link that leads nowhere stays in: that it cannot be read is told.
    """
    if entry.name.startswith("."):
        return False
    return entry.is_file() or entry.is_dir() or not entry.exists()


def _read_stream(name: str, stream: BinaryIO) -> Iterator[Found]:
    """A single message, or those of an mbox. Raises OSError for a file that fails while it is read."""
    first = stream.readline(_LINE_LIMIT)
    if not mbox.is_mbox(first) or name.endswith(".eml"):
        rest = stream.read(mbox.MESSAGE_LIMIT - len(first))
        yield Found(name, first + rest)
        return
    messages = mbox.split(stream, first)
    only = next(messages)
    second = next(messages, None)
    if second is None:  # a message as a mail server stored it: nothing to number
        yield Found(name, only.raw)
        return
    for number, message in enumerate(chain((only, second), messages), 1):
        yield Found(f"{name}#{number}", message.raw)

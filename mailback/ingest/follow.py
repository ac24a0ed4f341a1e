"""Logs as they are written: a file across its rotations, or systemd's journal; read on where the last process left it.

A file is told to be rotated when its path leads to another inode (renamed) or it is shorter than what was read of it
(copytruncate). What had not been read of the old one is read first: by the open file, which may be written to for a
while yet, or from the copy that rotation left beside it, packed or not. So after an outage of days, with several
rotations, every file since is read in its order; a log is known by its first line, not by its name.

A file that was never read is read from its beginning, the journal from a day ago: mail that is on its way when
following begins has its Message-ID there. Nothing is recorded twice.

The journal is read by `journalctl`, because its files have no other stable reader; its cursor is the place.

Log events, and what to do about each:
`follow.reading`    a log is read, `log`, from octet `at` on. Nothing.
`follow.rotated`    `log` was rotated (`how`: renamed, truncated); the old one is read to its end. Nothing.
`follow.missing`    `log` is not there or cannot be read (`reason`); it is tried again. Correct follow.files, or let
                    Mailback's user read the file: `usermod -aG adm mailback` on Debian.
`follow.gap`        `log` was rotated while nothing followed it, and the file that was read last is gone: what it held
                    beyond that is lost. Keep more rotated files (`rotate` in logrotate.conf), if outages last.
`follow.journal`    journalctl was started. Nothing.
`follow.journal_ended`     journalctl ended (`reason`); it is started again. Read the reason: a missing right needs
                    `usermod -aG systemd-journal mailback`.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from mailback.ingest import logfiles, syslog
from mailback.ingest.log_import import PLACE, LogReader, read_log
from mailback.ingest.logfiles import Damaged, Piece
from mailback.service.log import get_logger

if TYPE_CHECKING:
    from mailback.store import Store

LINGER_S: Final = 120.0
"""How long a renamed file is read on: its writer is told only after the renaming."""
_FOLLOWED: Final = "follow:"
"""How the names of places begin that tell which log a path led to."""
_TAIL_OCTETS: Final = 256
_PIPE_OCTETS: Final = 512 * 1024
_RESTART_S: Final = 5.0

_log = get_logger("follow")


class _OpenLog:
    """A log file that is open, and how far it was read."""

    def __init__(self, stream: BinaryIO, name: str, at: int, tail: bytes) -> None:
        self.stream = stream
        self.name = name
        self.at = at
        self._tail = tail
        self._rest = b""
        status = os.fstat(stream.fileno())
        self.identity = (status.st_dev, status.st_ino)

    def piece(self) -> Piece | None:
        """The whole lines that came since, or None."""
        data = self._rest + self.stream.read(logfiles.PIECE)
        cut = data.rfind(b"\n") + 1
        self._rest = data[cut:]
        if not cut:
            if len(data) > logfiles.LONGEST_LINE:
                self.at, self._rest = self.at + len(data), b""
            return None
        whole = data[:cut]
        self.at += cut
        self._tail = (self._tail + whole)[-_TAIL_OCTETS:]
        return Piece(whole, self.at, logfiles.hash_of(self._tail))

    @property
    def size(self) -> int:
        return os.fstat(self.stream.fileno()).st_size

    @property
    def reached(self) -> int:
        """Up to where its octets were taken, an unfinished line included."""
        return self.at + len(self._rest)

    def still_begins_the_same(self) -> bool:
        """Whether it is the log that was opened; one that was truncated and written anew may be longer already."""
        first = os.pread(self.stream.fileno(), 1024, 0)
        return logfiles.fingerprint(first) == self.name.removeprefix(PLACE)

    def close(self) -> None:
        self.stream.close()


class FileFollower:
    """One path."""

    def __init__(self, path: Path, store: Store, reader: LogReader, zone: tzinfo | None) -> None:
        self._path = path
        self._store = store
        self._reader = reader
        self._zone = zone
        self._clock = syslog.Clock(datetime.now(UTC), zone)
        self._lines = syslog.Lines(self._clock)
        self._current: _OpenLog | None = None
        self._old: list[tuple[_OpenLog, float]] = []
        self._complained = False
        self._caught_up = False

    def poll(self) -> bool:
        """Read what is there now; whether there was anything. Raises StoreUnavailable."""
        self._clock.reference = datetime.now(UTC)
        read = sum(self._read(log) for log, _ in self._old) > 0
        self._let_go()
        if self._current is not None:
            read |= self._read(self._current)
            self._look_for_rotation(self._current)
        if self._current is None:
            self._current = self._open()
            read |= self._current is not None
        return read

    def close(self) -> None:
        for log in (self._current, *(old for old, _ in self._old)):
            if log is not None:
                log.close()

    def _read(self, log: _OpenLog) -> bool:
        read = False
        while (piece := log.piece()) is not None:
            position = {"offset": piece.end, "tail": piece.tail, "path": str(self._path)}
            self._reader.take(self._reader.outcomes(piece, self._lines), log.name, position)
            read = True
        return read

    def _let_go(self) -> None:
        now = time.monotonic()
        for log, until in self._old:
            if until <= now:
                log.close()
        self._old = [(log, until) for log, until in self._old if until > now]

    def _look_for_rotation(self, log: _OpenLog) -> None:
        try:
            status = self._path.stat()
        except OSError:
            return  # between two steps of a rotation; the open file is read on meanwhile
        if (status.st_dev, status.st_ino) != log.identity:
            _log.info("follow.rotated", log=str(self._path), how="renamed")
            self._old.append((log, time.monotonic() + LINGER_S))
            self._current = None
        elif status.st_size < log.reached or not log.still_begins_the_same():
            _log.info("follow.rotated", log=str(self._path), how="truncated")
            log.close()
            self._current = None
            self._caught_up = False  # what was not read of it lies in the copy

    def _open(self) -> _OpenLog | None:
        """The log that the path leads to now, once it has a line; what was rotated away before it is read first."""
        try:
            stream = self._path.open("rb", buffering=0)
        except OSError as error:
            self._complain(error.strerror or str(error))
            return None
        try:
            opened = self._positioned(stream)
        except OSError as error:
            self._complain(error.strerror or str(error))
            opened = None
        if opened is None:
            stream.close()
            return None
        self._complained = False
        _log.info("follow.reading", log=str(self._path), at=opened.at)
        self._read(opened)
        return opened

    def _positioned(self, stream: BinaryIO) -> _OpenLog | None:
        known = logfiles.fingerprint(logfiles.first_octets(stream))
        if known is None:
            return None
        name = PLACE + known
        self._reader.finish()  # places that are still under way are asked for now
        if not self._caught_up:
            self._catch_up(name)
            self._caught_up = True
        place = self._store.place(name)
        at = logfiles.resume(stream, place.position) if place is not None else 0
        begin = max(0, at - _TAIL_OCTETS)
        stream.seek(begin)
        tail = stream.read(at - begin)
        stream.seek(at)
        self._reader.take([], _FOLLOWED + str(self._path), {"log": name})
        return _OpenLog(stream, name, at, tail)

    def _catch_up(self, name: str) -> None:
        """Read what was rotated away since this path was last followed."""
        place = self._store.place(_FOLLOWED + str(self._path))
        before = place.position.get("log") if place is not None else None
        if before is None or before == name:
            return
        rotated = [(path, known) for path, known in self._rotated() if known != name]
        begin = next((n for n, (_, known) in enumerate(rotated) if known == before), None)
        if begin is None:
            _log.warning("follow.gap", log=str(self._path))
            return
        for path, _ in rotated[begin:]:
            with contextlib.suppress(OSError, Damaged):
                read_log(self._reader, self._store, str(path), zone=self._zone)

    def _rotated(self) -> list[tuple[Path, str]]:
        """The files that rotation left beside the path, oldest first, each with the name of its place."""
        found: list[tuple[float, Path, str]] = []
        for path in _siblings(self._path):
            try:
                with logfiles.open_log(str(path)) as (stream, _):
                    known = logfiles.fingerprint(logfiles.first_octets(stream))
                written = path.stat().st_mtime
            except (OSError, Damaged):
                continue
            if known is not None:
                found.append((written, path, PLACE + known))
        return [(path, known) for _, path, known in sorted(found)]

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            _log.warning("follow.missing", log=str(self._path), reason=reason)


def _siblings(path: Path) -> Iterable[Path]:
    """`mail.log.1`, `mail.log.2.gz`, `mail.log-20261125`, `mail-20261125.log`: how logrotate and Postfix name them."""
    try:
        entries = sorted(path.parent.iterdir())
    except OSError:
        return []
    begins = (f"{path.name}.", f"{path.name}-", f"{path.stem}-", f"{path.stem}.")
    return [entry for entry in entries if entry.name.startswith(begins) and entry != path and entry.is_file()]


class JournalFollower:
    """systemd's journal, by journalctl(1)."""

    def __init__(self, matches: Iterable[str], store: Store, reader: LogReader, command: Iterable[str] = ()) -> None:
        self._matches = tuple(matches)
        self._store = store
        self._reader = reader
        self._command = tuple(command) or ("journalctl",)
        self._lines = syslog.Lines(syslog.Clock(datetime.now(UTC)))
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._again_at = 0.0

    @property
    def place(self) -> str:
        return f"journal:{' '.join(self._matches)}"

    def poll(self) -> bool:
        """Read what is there now; whether there was anything. Raises StoreUnavailable."""
        if self._process is None:
            if time.monotonic() < self._again_at:
                return False
            self._start()
        process = self._process
        if process is None or process.stdout is None:
            return False
        data = self._available(process.stdout)
        if data is None:
            self._ended(process)
            return False
        if not data:
            return False
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if newline:
            piece = Piece(whole + b"\n", 0, "")
            observations = self._reader.outcomes(piece, self._lines)
            position = {"cursor": cursor} if (cursor := _cursor(whole)) else {}
            self._reader.take(observations, self.place if position else None, position)
        return True

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()
            self._process = None

    def _start(self) -> None:
        place = self._store.place(self.place)
        cursor = place.position.get("cursor") if place is not None else None
        begin = [f"--after-cursor={cursor}"] if cursor else ["--since=1 day ago"]
        command = [*self._command, "--output=json", "--follow", "--lines=all", "--no-pager", *begin, *self._matches]
        self._rest = b""
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            self._again(error.strerror or str(error))
            return
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        _log.info("follow.journal", matches=" ".join(self._matches))

    def _available(self, pipe: Any) -> bytes | None:
        """What is in the pipe; None at its end."""
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            if not selector.select(0):
                return b""
        data = os.read(pipe.fileno(), _PIPE_OCTETS)
        return data or None

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        _, said = process.communicate()
        self._process = None
        self._again(said.decode(errors="replace").strip()[-500:] or f"exit code {process.returncode}")

    def _again(self, reason: str) -> None:
        self._again_at = time.monotonic() + _RESTART_S
        _log.warning("follow.journal_ended", reason=reason)


def _cursor(whole: bytes) -> str | None:
    """The cursor of the last entry."""
    try:
        found = json.loads(whole[whole.rfind(b"\n") + 1 :]).get("__CURSOR")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None

"""Why the store cannot do what was asked, in words for the operator: what is wrong, and what to do.

Everything the database throws that is not the fault of one unit of work becomes a `StoreUnavailable`. The doors answer
it with `451 4.3.0`, so the peer keeps the mail; nothing is lost, and the writer goes on by itself once the cause is
gone.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple


class StoreUnavailable(Exception):  # noqa: N818 - the name the doors and the documents use
    """The store cannot commit or read now. `reason` says why, `advice` what the operator should do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason, advice)
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.reason}: {self.advice}"


class _Trouble(NamedTuple):
    reason: str
    advice: str


# Keyed by SQLite's primary result code (the low byte); {path} and {folder} are filled in.
_TROUBLES: dict[int, _Trouble] = {
    sqlite3.SQLITE_FULL: _Trouble(
        "disk full at {folder}", "free space there (or raise the quota); the store goes on by itself"
    ),
    sqlite3.SQLITE_READONLY: _Trouble(
        "{path} is read-only",
        "make the file, its -wal and -shm and the folder writable for the user Mailback runs as, and look for a disk "
        "that was remounted read-only after an error (dmesg)",
    ),
    sqlite3.SQLITE_PERM: _Trouble("no permission for {path}", "give it to the user Mailback runs as"),
    sqlite3.SQLITE_CANTOPEN: _Trouble(
        "cannot open {path}",
        "check that the folder exists, that the user Mailback runs as may write to it, and the limit of open files",
    ),
    sqlite3.SQLITE_CORRUPT: _Trouble(
        "{path} is damaged", "stop Mailback and restore the last backup, see docs/operations.md"
    ),
    sqlite3.SQLITE_NOTADB: _Trouble(
        "{path} is not a database", "check [store] url, or restore the last backup, see docs/operations.md"
    ),
    sqlite3.SQLITE_IOERR: _Trouble(
        "the disk under {folder} fails", "look at dmesg and the state of the disk; free space if it is full"
    ),
    sqlite3.SQLITE_NOMEM: _Trouble("out of memory", "give the service more memory or lower the limits"),
    sqlite3.SQLITE_PROTOCOL: _Trouble(
        "locking fails at {folder}", "keep the database on a local disk: SQLite does not work on network file systems"
    ),
}
TRANSIENT = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
"""Result codes that mean: another connection is at work, try again."""


def primary_code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code of an error; None where the driver itself complains (wrong arguments)."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_transient(error: sqlite3.Error) -> bool:
    return primary_code(error) in TRANSIENT


def concerns_database(error: sqlite3.Error) -> bool:
    """True when the database itself is in trouble, not the statement of one unit of work."""
    code = primary_code(error)
    return code in TRANSIENT or code in _TROUBLES


def unavailable(error: sqlite3.Error, path: Path) -> StoreUnavailable:
    """The operator's words for a driver error on the database at `path`."""
    code = primary_code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnavailable(
            f"{path} is locked by {lock_holders(path) or 'another connection'}",
            "end what holds it (a sqlite3 shell with an open transaction, a backup that copies the live file)",
        )
    if code == sqlite3.SQLITE_ERROR and "no such table" in str(error):
        return StoreUnavailable(f"{path} has no Mailback tables", "run: mailback store upgrade")
    trouble = _TROUBLES.get(code) if code is not None else None
    if trouble is None:
        return StoreUnavailable(f"{path}: {error}", "see docs/operations.md")
    words = {"path": str(path), "folder": str(path.parent)}
    return StoreUnavailable(f"{trouble.reason.format(**words)} ({error})", trouble.advice.format(**words))


def nothing_yet(path: Path) -> StoreUnavailable:
    """For a question to a database that is not there: on a new host it has yet to be made, elsewhere it was lost."""
    return StoreUnavailable(
        f"nothing is recorded yet, there is no database at {path}",
        "start mailback serve, or run mailback store upgrade; where there was one, restore the last backup "
        "(docs/operations.md)",
    )


def lock_holders(path: Path) -> str:
    """Who holds locks on the database, as "pid 123 (sqlite3), pid 456 (python)"; empty where that cannot be told.

    In WAL mode the write lock is a byte range of the `-shm` file, so both inodes are looked for in /proc/locks.
    """
    inodes = set()
    for name in (path, path.with_name(path.name + "-shm")):
        try:
            inodes.add(str(name.stat().st_ino))
        except OSError:
            continue
    try:
        rows = [row.split() for row in Path("/proc/locks").read_text("ascii").splitlines()]
    except (OSError, UnicodeDecodeError):
        return ""
    # "1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 120 120"
    held = {row[4] for row in rows if len(row) == 8 and row[3] == "WRITE" and row[5].rpartition(":")[2] in inodes}
    return ", ".join(f"pid {pid}{_program(pid)}" for pid in sorted(held, key=int))


def _program(pid: str) -> str:
    try:
        return f" ({Path('/proc', pid, 'comm').read_text().strip()})"
    except OSError:
        return ""

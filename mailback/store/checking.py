"""Is the database sound: file, rights, disk, schema, structure, audit chain? For `doctor` and `store check`."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mailback.store import upgrade
from mailback.store.audit import Verification
from mailback.store.errors import StoreUnavailable
from mailback.store.readers import ReaderPool

LOW_DISK_BYTES = 256 * 1024 * 1024
"""Below this much free space the store is in danger; a write-ahead log alone may reach tens of megabytes."""

_RESTORE = "stop Mailback and restore the last backup, see docs/operations.md"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the database, and what to do about it."""

    what: str
    advice: str
    in_data: bool = True
    """False where only the surroundings are wrong, rights or space: what is recorded may be whole all the same."""

    def __str__(self) -> str:
        return f"{self.what}: {self.advice}"


def problems(path: Path, readers: ReaderPool, verify_audit: Callable[[], Verification]) -> list[Problem]:
    """Each problem once. Reads the whole database; a broken one never raises."""
    try:
        readers.fetch("PRAGMA schema_version")
    except StoreUnavailable as trouble:
        return [_told(trouble), *space(path.parent)]
    found = [*_file(path), *space(path.parent)]
    looks: list[Callable[[], Iterator[Problem]]] = [
        lambda: _schema(path, readers),
        lambda: _structure(path, readers),
        lambda: _audit(verify_audit),
    ]
    for look in looks:
        try:
            found += look()
        except StoreUnavailable as trouble:
            found.append(_told(trouble))
    return list(dict.fromkeys(found))  # a missing table is told once, not by every look


def _told(trouble: StoreUnavailable) -> Problem:
    return Problem(trouble.reason, trouble.advice)


def _file(path: Path) -> Iterator[Problem]:
    for part in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        if not part.exists():
            continue
        if not os.access(part, os.R_OK | os.W_OK, effective_ids=True):
            what = f"{part} is not writable for uid {os.geteuid()}"
            yield Problem(what, "chown it to the user Mailback runs as", in_data=False)
        if part.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            yield Problem(f"{part} can be read by everybody and holds addresses", f"chmod o= {part}", in_data=False)
    if path.exists() and not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        what = f"{path.parent} is not writable for uid {os.geteuid()}"
        yield Problem(what, "SQLite keeps its log there: chown it to the user Mailback runs as", in_data=False)


def space(folder: Path) -> Iterator[Problem]:
    """Too little room for the database's folder to go on growing."""
    if folder.is_dir() and (free := shutil.disk_usage(folder).free) < LOW_DISK_BYTES:
        what = f"{free >> 20} MB free at {folder}, less than {LOW_DISK_BYTES >> 20}"
        yield Problem(what, "free space: while the store cannot commit mail is answered 451", in_data=False)


def _schema(path: Path, readers: ReaderPool) -> Iterator[Problem]:
    rows = readers.fetch("SELECT version_num FROM alembic_version")
    try:
        upgrade.require_head(rows[0][0] if rows else None, path)
    except StoreUnavailable as trouble:
        yield _told(trouble)


def _structure(path: Path, readers: ReaderPool) -> Iterator[Problem]:
    for (line,) in readers.fetch("PRAGMA integrity_check(10)"):
        if line != "ok":
            yield Problem(f"{path} is damaged ({line})", _RESTORE)
    [(mode,)] = readers.fetch("PRAGMA journal_mode")
    # What may only be read is opened as a snapshot where there is no log, and says "delete" whatever it is.
    if mode != "wal" and os.access(path, os.W_OK, effective_ids=True):
        what = f"{path} is in journal mode {mode}, not wal"
        yield Problem(what, "run mailback store upgrade while nothing else has it open", in_data=False)


def _audit(verify_audit: Callable[[], Verification]) -> Iterator[Problem]:
    verification = verify_audit()
    if not verification.holds:
        what = f"audit row {verification.broken_at} {verification.problem}"
        yield Problem(what, "somebody wrote to the database by hand; compare with a backup")

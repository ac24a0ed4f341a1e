"""Is the database sound: file, rights, disk, schema, structure, audit chain? For `doctor` and `store check`."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from mailback.store import upgrade
from mailback.store.audit import Verification
from mailback.store.errors import StoreUnavailable
from mailback.store.readers import ReaderPool

_LOW_DISK_BYTES = 256 * 1024 * 1024
_RESTORE = "stop Mailback and restore the last backup, see docs/operations.md"


def problems(path: Path, readers: ReaderPool, verify_audit: Callable[[], Verification]) -> list[str]:
    """Each problem as "what is wrong: what to do". Reads the whole database; a broken one never raises."""
    try:
        readers.fetch("PRAGMA schema_version")
    except StoreUnavailable as trouble:
        return [str(trouble)]
    found = list(_file(path))
    looks: list[Callable[[], Iterator[str]]] = [
        lambda: _schema(path, readers),
        lambda: _structure(path, readers),
        lambda: _audit(verify_audit),
    ]
    for look in looks:
        try:
            found += look()
        except StoreUnavailable as trouble:
            found.append(str(trouble))
    return list(dict.fromkeys(found))  # a missing table is told once, not by every look


def _file(path: Path) -> Iterator[str]:
    for part in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        if not part.exists():
            continue
        if not os.access(part, os.R_OK | os.W_OK, effective_ids=True):
            yield f"{part} is not writable for uid {os.geteuid()}: chown it to the user Mailback runs as"
        if part.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            yield f"{part} can be read by everybody and holds addresses: chmod o= {part}"
    if path.exists() and not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        yield f"{path.parent} is not writable for uid {os.geteuid()}: SQLite keeps its log there, chown it"
    if shutil.disk_usage(path.parent).free < _LOW_DISK_BYTES:
        yield f"less than {_LOW_DISK_BYTES >> 20} MB free at {path.parent}: free space, or mail will be answered 451"


def _schema(path: Path, readers: ReaderPool) -> Iterator[str]:
    rows = readers.fetch("SELECT version_num FROM alembic_version")
    try:
        upgrade.require_head(rows[0][0] if rows else None, path)
    except StoreUnavailable as trouble:
        yield str(trouble)


def _structure(path: Path, readers: ReaderPool) -> Iterator[str]:
    for (line,) in readers.fetch("PRAGMA integrity_check(10)"):
        if line != "ok":
            yield f"{path} is damaged ({line}): {_RESTORE}"
    [(mode,)] = readers.fetch("PRAGMA journal_mode")
    if mode != "wal":
        yield f"{path} is in journal mode {mode}, not wal: run mailback store upgrade while nothing else has it open"


def _audit(verify_audit: Callable[[], Verification]) -> Iterator[str]:
    verification = verify_audit()
    if not verification.holds:
        yield (
            f"audit row {verification.broken_at} {verification.problem}: somebody wrote to the database by hand;"
            " compare with a backup"
        )

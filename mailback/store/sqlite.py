"""How the SQLite file is named, created and opened; the only place that knows its pragmas.

Two kinds of connection, both on the bare driver in autocommit mode (transactions are always spelled out):

- *writing*: one per process, used by the writer thread. WAL, synchronous=FULL: a COMMIT returns after the fsync.
- *reading*: `query_only`, opened read-write all the same where the rights allow it: the first reader may have to make
  `-shm`. Where file or folder cannot be written it is opened in a way that makes no file, because `-wal` and `-shm`
  made by the wrong user lock the writer out (`_read_only`). Postfix itself gets answers from the daemon or an exported
  table, never this file.

`check_same_thread=False` throughout: the doors read on whichever thread is free. A connection is used by one thread at
a time; the pool in `readers` sees to that.

The database file is never opened by anything but SQLite in this process: closing any other descriptor of the same file
would drop SQLite's POSIX locks. Hence `stat` by path, and creation before the first connection.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from mailback.store.errors import StoreUnavailable, unavailable

_SCHEME = "sqlite://"
_FILE_MODE = 0o640
_CACHE_KIB = 8 * 1024
BULK_CACHE_KIB = 32 * 1024
"""Of who reads logs and tables: each event changes pages all over the file, and finds them here the second time."""
_WAL_KEPT_BYTES = 64 * 1024 * 1024
_LOG_PAGES = 4000
"""Of 4 kB, after which the log is folded back: most pages of a busy hour are changed again and again, and go back once.
Not more, because a look-up goes through an index of the log, which has one block for so many."""
_CLAIM_TIMEOUT_MS = 1000
_WRITER_POLL_MS = 20
"""SQLite's own wait for a lock; short, because the writer's loop waits on with jitter until its deadline."""
_BESIDE_A_WRITER = "mode=ro&readonly_shm=1"
"""Reads the log that another process keeps. Without `readonly_shm` SQLite would try to make an index of its own."""
_IMMUTABLE = "mode=ro&immutable=1"
"""The file as it stands, without lock or log. Such a connection never learns that somebody begins to write."""

Identity = tuple[int, int]


def database_path(url: str) -> Path:
    """The file behind `sqlite:////absolute/path` (or `sqlite:///relative`); StoreUnavailable for other schemes."""
    if url.startswith(_SCHEME + "/"):
        path = url[len(_SCHEME) + 1 :]
        if path and path != ":memory:":
            return Path(path)
        raise StoreUnavailable("[store] url names no file", "write it as sqlite:////var/lib/mailback/mailback.db")
    if url.startswith(("postgresql:", "postgresql+", "postgres:")):
        raise StoreUnavailable(
            "this version of Mailback has no PostgreSQL store yet",
            "use sqlite:////var/lib/mailback/mailback.db as [store] url",
        )
    raise StoreUnavailable(
        f"[store] url has an unknown scheme: {url.partition(':')[0]!r}",
        "write it as sqlite:////var/lib/mailback/mailback.db",
    )


def identity(path: Path) -> Identity:
    """What tells this file from another one of the same name; StoreUnavailable when it is missing.

    A connection to a file that was deleted goes on "committing" into the unlinked inode, so it is compared before every
    batch.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - half the cost of Path.stat on the path of every look-up
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise StoreUnavailable(f"cannot reach {path} ({error.strerror})", "check the path and permissions") from None
    return status.st_dev, status.st_ino


def create(path: Path) -> None:
    """Make an empty database file, 0640 less the umask, if there is none; safe when several processes try at once.

    What root makes belongs to the owner of the folder: a command that root ran first must not lock the service out.
    """
    folder = path.parent
    if not folder.is_dir():
        raise StoreUnavailable(
            f"the folder {folder} does not exist", f"create it for the user Mailback runs as: mkdir -p -m 750 {folder}"
        )
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        # SQLite makes -wal and -shm beside the database, so the folder itself must be writable.
        raise StoreUnavailable(
            f"the folder {folder} is not writable for {_user()}", f"chown it, or run Mailback as the owner of {folder}"
        )
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _FILE_MODE)
        try:
            # Not where it is root's anyway: the unit's sandbox allows no chown.
            if os.geteuid() == 0 and (owner := folder.stat()).st_uid != 0:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)  # by descriptor: the folder may be a stranger's
        finally:
            os.close(descriptor)
    except FileExistsError:
        return
    except OSError as error:
        raise StoreUnavailable(
            f"cannot create {path} ({error.strerror})", "check the folder's disk and rights"
        ) from None


def connect_writing(path: Path) -> sqlite3.Connection:
    """The writer's connection to an existing database. Raises sqlite3.Error or StoreUnavailable."""
    connection = _connect(path, _WRITER_POLL_MS / 1000)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def claiming(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction of its own, beside the writer's, for what only one of all processes may have.

    Raises StoreUnavailable when it cannot be written within a second: whoever waits for a claim keeps all others of
    its worker waiting.
    """
    try:
        with closing(connect_writing(path)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {_CLAIM_TIMEOUT_MS}")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise unavailable(error, path) from error


def fold(path: Path) -> bool:
    """Checkpoint and optimise; False when readers kept part of the log in use. Raises StoreUnavailable."""
    try:
        with closing(connect_writing(path)) as connection:
            connection.execute("PRAGMA busy_timeout = 5000")
            connection.execute("PRAGMA optimize")
            [(busy, _, _)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise unavailable(error, path) from error
    return not busy


def connect_reading(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection that never writes. Raises StoreUnavailable."""
    return connect_reading_for(path, busy_timeout_s)[0]


def connect_reading_for(path: Path, busy_timeout_s: float) -> tuple[sqlite3.Connection, bool]:
    """As `connect_reading`, and whether the connection sees what is committed later: if not, it serves one read."""
    identity(path)
    mode = "mode=rw" if _writable(path) else _read_only(path)
    try:
        connection = _open(path, mode, busy_timeout_s)
    except sqlite3.Error as error:
        raise unavailable(error, path) from error
    try:
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        connection.close()
        raise unavailable(error, path) from error
    return connection, mode != _IMMUTABLE


def _writable(path: Path) -> bool:
    may = os.access(path, os.R_OK | os.W_OK, effective_ids=True)
    return may and os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True)


def _read_only(path: Path) -> str:
    """How to open a database that this user may only read, making no file beside it. Raises StoreUnavailable.

    While another process has it open, `-wal` and `-shm` are there and are read with it. Once the last one closed it
    they are gone and the file holds everything; nothing is locked then, as nothing can be. A log without its index, or
    one that may not be read, would hide what was committed last: that is refused.
    """
    log, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    if all(os.access(part, os.R_OK, effective_ids=True) for part in (path, log, index)):
        return _BESIDE_A_WRITER
    logged = log.stat().st_size if log.exists() else 0
    if os.access(path, os.R_OK, effective_ids=True) and not index.exists() and logged == 0:
        return _IMMUTABLE
    raise _not_ours(path)


def _connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        # SQLite would fall back to reading, and make -wal and -shm as unwritable as the file is now: they would stay
        # so, and the store with them, after the file's own mode was put right.
        raise _not_ours(path)
    return _open(path, "mode=rw", timeout_s)


def _open(path: Path, mode: str, timeout_s: float) -> sqlite3.Connection:
    # No mode creates: an empty database in place of a lost one would let mail go out to suppressed addresses.
    name = f"file:{quote(os.fspath(path.absolute()))}?{mode}"
    return sqlite3.connect(
        name, uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False, cached_statements=64
    )


def _not_ours(path: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"{path} is read-only for {_user()}, or its -wal and -shm cannot be read",
        "make it writable for the user Mailback runs as (or run this as that user), and look for a disk that was "
        "remounted read-only after an error (dmesg)",
    )


def _missing(path: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"there is no database at {path}",
        "restore it from a backup (docs/operations.md), or begin an empty one: mailback store upgrade",
    )


def _user() -> str:
    return f"uid {os.geteuid()}"

"""How the SQLite file is named, created and opened; the only place that knows its pragmas.

Two kinds of connection, both on the bare driver in autocommit mode (transactions are always spelled out):

- *writing*: one per process, used by the writer thread. WAL, synchronous=FULL: a COMMIT returns after the fsync.
- *reading*: `query_only`, opened read-write all the same. A WAL database whose `-shm` file is missing cannot be opened
  by a truly read-only connection (it may not create the file), and one that creates `-shm` as another user locks the
  writer out; so readers must run as the user that owns the database. Postfix itself gets answers from the daemon or
  an exported table, never this file.

`check_same_thread=False` throughout: the doors read on whichever thread is free. A connection is used by one thread at
a time; the pool in `readers` sees to that.

The database file is never opened by anything but SQLite in this process: closing any other descriptor of the same file
would drop SQLite's POSIX locks. Hence `stat` by path, and creation before the first connection.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from mailback.store.errors import StoreUnavailable, unavailable

_SCHEME = "sqlite://"
_FILE_MODE = 0o640
_CACHE_KIB = 8 * 1024
_WAL_KEPT_BYTES = 64 * 1024 * 1024
_WRITER_POLL_MS = 20
"""SQLite's own wait for a lock; short, because the writer's loop waits on with jitter until its deadline."""

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
    """Make an empty database file, 0640 less the umask, if there is none; safe when several processes try at once."""
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
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _FILE_MODE))
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
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reading(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection that never writes. Raises StoreUnavailable."""
    identity(path)
    try:
        connection = _connect(path, busy_timeout_s)
    except sqlite3.Error as error:
        raise unavailable(error, path) from error
    try:
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        connection.close()
        raise unavailable(error, path) from error
    return connection


def _connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        # SQLite would fall back to reading, and make -wal and -shm as unwritable as the file is now: they would stay
        # so, and the store with them, after the file's own mode was put right.
        raise _not_ours(path)
    # mode=rw never creates: an empty database in place of a lost one would let mail go out to suppressed addresses.
    name = f"file:{quote(os.fspath(path.absolute()))}?mode=rw"
    return sqlite3.connect(
        name, uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False, cached_statements=64
    )


def _not_ours(path: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"{path} is read-only for {_user()}",
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

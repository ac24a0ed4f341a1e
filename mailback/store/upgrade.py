"""Bring a database to this version's schema: Alembic, set up in code, run by the server and `mailback store upgrade`.

Safe when several processes start at once: the whole upgrade is one transaction that takes SQLite's write lock first,
so the second process waits, reads the new revision and finds nothing to do. A failed upgrade leaves the database as it
was.

Alembic and SQLAlchemy's engine are imported only when there is something to do: a worker that starts on a current
database reads one row.
"""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from mailback.store import errors, sqlite
from mailback.store.errors import StoreUnavailable

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Engine

HEAD = "0018"
"""The revision this version reads and writes; a test holds it to the newest migration."""

_FOLDER = Path(__file__).parent / "migrations"
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
_ALWAYS_OURS = frozenset({"alembic_version", "event", "suppression", "audit"})
"""Tables that every revision has."""
_TABLES_TOLD = 5
_WAIT_S = 60.0
"""How long to wait for another process's upgrade; a long one rebuilds tables."""


def revision(connection: sqlite3.Connection) -> str | None:
    """The revision of a database; None for one without Mailback's tables."""
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    return str(row[0]) if row else None


def require_current(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreUnavailable unless the database has exactly the schema this version knows."""
    require_head(revision(connection), path)


def require_head(found: str | None, path: Path) -> None:
    """Raise StoreUnavailable unless `found`, the revision of the database at `path`, is this version's."""
    if found == HEAD:
        return
    if found is None:
        raise StoreUnavailable(f"{path} has no Mailback tables", "run: mailback store upgrade")
    if found in _known_revisions():
        raise StoreUnavailable(f"{path} has schema {found}, this version needs {HEAD}", "run: mailback store upgrade")
    raise StoreUnavailable(
        f"{path} was written by a newer Mailback (schema {found}; this one knows {HEAD})",
        "install that version again, or restore the backup made before its upgrade",
    )


def upgrade(path: Path) -> bool:
    """Create the database if there is none and migrate it. True when anything changed. Raises StoreUnavailable."""
    sqlite.create(path)
    _require_ours(path)
    try:
        connection = _open_when_free(path)
        try:
            found = revision(connection)
        finally:
            connection.close()
        if found == HEAD:
            return False
        if found is not None and found not in _known_revisions():
            require_head(found, path)
        _migrate(path)
    except sqlite3.Error as error:
        raise errors.unavailable(error, path) from error
    return True


def _require_ours(path: Path) -> None:
    """Raise StoreUnavailable for a database of something else, before anything of it is changed, its journal mode
    included."""
    with closing(sqlite.connect_reading(path, _WAIT_S)) as connection:
        try:
            tables = {str(name) for (name,) in connection.execute(_TABLES)}
            ours = not tables or tables >= _ALWAYS_OURS
        except sqlite3.Error as error:
            raise errors.unavailable(error, path) from error
    if not ours:
        told = ", ".join(sorted(tables)[:_TABLES_TOLD]) + (", ..." if len(tables) > _TABLES_TOLD else "")
        raise StoreUnavailable(
            f"{path} is a database of something else: it has tables ({told}) that are not Mailback's",
            "name a file of its own in [store] url",
        )


def _open_when_free(path: Path) -> sqlite3.Connection:
    # Turning WAL on needs the file for a moment alone, and SQLite does not wait for that by itself.
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            return sqlite.connect_writing(path)
        except sqlite3.Error as error:
            if not errors.is_transient(error) or time.monotonic() >= deadline:
                raise
        time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - jitter, no secret


def _migrate(path: Path) -> None:
    from alembic import command
    from sqlalchemy import exc

    config = _config()
    engine = _engine(path)
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except exc.DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise error.orig from error
        raise
    finally:
        engine.dispose()


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _engine(path: Path) -> Engine:
    """An engine whose every transaction starts with the write lock; the driver itself stays in autocommit mode."""
    from sqlalchemy import Connection, create_engine, event
    from sqlalchemy.pool import NullPool

    def connect() -> sqlite3.Connection:
        connection = sqlite.connect_writing(path)
        connection.execute(f"PRAGMA busy_timeout = {int(_WAIT_S * 1000)}")
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def take_write_lock(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _known_revisions() -> frozenset[str]:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config())
    return frozenset(script.revision for script in scripts.walk_revisions())

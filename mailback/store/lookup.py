"""The question behind every outgoing message: is this address suppressed? One indexed read, on the caller's thread.

Standard library only, so that `mailback check` answers in a fraction of what importing SQLAlchemy costs.

Connections are kept in a small last-in-first-out pool and belong to nobody between two look-ups: libmilter moves the
callbacks of one connection between threads. Each look-up compares the file with the one its connection opened, so a
restored or replaced database is read at once; a missing one raises `StoreUnavailable`, never "not suppressed".
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from datetime import datetime

from mailback.store import codec, sqlite
from mailback.store.errors import StoreUnavailable, unavailable
from mailback.store.records import Suppression

_IDLE_CONNECTIONS = 8
_MOST_SCOPES = 100

# The columns of `suppression` in the table's order; a test holds this to the schema.
_COLUMNS = (
    "address_key, address, scope, reason, type, subcategory, source, since, until, event_id, suggestion,"
    " lifted_at, lifted_by, lifted_reason"
)


def _query(scopes: int) -> str:
    marks = ",".join("?" * scopes)
    return (
        f"SELECT {_COLUMNS} FROM suppression WHERE address_key = ? AND scope IN ({marks})"
        " AND lifted_at IS NULL AND (until IS NULL OR until > ?)"
    )


_QUERIES = [_query(scopes) for scopes in range(_MOST_SCOPES + 1)]


class SuppressionLookup:
    """The suppression list of the database at `url`, for reading. Thread-safe; opens nothing until first asked."""

    def __init__(self, url: str, *, busy_timeout_s: float = 5.0) -> None:
        self.path = sqlite.database_path(url)
        self._busy_timeout_s = busy_timeout_s
        self._idle: list[tuple[sqlite.Identity, sqlite3.Connection]] = []
        self._process = os.getpid()

    def lookup(self, key: str, scopes: Sequence[str] = ("all",), now: datetime | None = None) -> Suppression | None:
        """What holds mail to `key` back in any of `scopes`; the one that lasts longest when there are several.

        `key` is `mailback.address.key(address)`. Raises StoreUnavailable when the list cannot be read: the caller
        decides whether mail waits then.
        """
        if len(scopes) > _MOST_SCOPES:
            raise ValueError(f"at most {_MOST_SCOPES} scopes can be asked for at once")
        at = time.time_ns() // 1000 if now is None else codec.ticks(now)
        there, connection = self._acquire()
        try:
            rows = connection.execute(_QUERIES[len(scopes)], (key, *scopes, at)).fetchall()
        except sqlite3.Error as error:
            connection.close()
            raise unavailable(error, self.path) from error
        self._release(there, connection)
        if not rows:
            return None
        return _longest([codec.suppression_of(row) for row in rows])

    def close(self) -> None:
        """Close the idle connections. A look-up after that opens a new one."""
        while self._idle:
            self._idle.pop()[1].close()

    def __enter__(self) -> SuppressionLookup:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _acquire(self) -> tuple[sqlite.Identity, sqlite3.Connection]:
        if os.getpid() != self._process:
            raise StoreUnavailable("the suppression list was opened before a fork", "open it in the worker process")
        there = sqlite.identity(self.path)
        while True:
            try:
                opened, connection = self._idle.pop()  # atomic, so no lock
            except IndexError:
                return there, sqlite.connect_reading(self.path, self._busy_timeout_s)
            if opened == there:
                return there, connection
            connection.close()

    def _release(self, there: sqlite.Identity, connection: sqlite3.Connection) -> None:
        if len(self._idle) < _IDLE_CONNECTIONS:
            self._idle.append((there, connection))
        else:
            connection.close()


def _longest(found: list[Suppression]) -> Suppression:
    for suppression in found:
        if suppression.until is None:
            return suppression
    return max(found, key=lambda s: (s.until is not None and s.until.timestamp()) or 0.0)

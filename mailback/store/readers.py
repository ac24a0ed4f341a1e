"""Connections for reading, in a small last-in-first-out pool. Standard library only.

Between two reads a connection belongs to no thread, so any of the doors' threads may read. Each time one is taken the
file is compared with the one it was opened on, so a restored database is read at once.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from mailback.store import sqlite
from mailback.store.errors import StoreUnavailable, unavailable

_IDLE_CONNECTIONS = 8


class ReaderPool:
    """Connections to the database at `path`; opens none until first asked. Thread-safe, not to be taken over a fork."""

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._idle: list[tuple[sqlite.Identity, sqlite3.Connection]] = []
        self._process = os.getpid()

    def fetch(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of one query. Raises StoreUnavailable."""
        there, connection, lasting = self._acquire()
        try:
            rows = connection.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            connection.close()
            raise unavailable(error, self.path) from error
        # Appending and popping are atomic, so the pool needs no lock; one connection too many does no harm.
        if lasting and len(self._idle) < _IDLE_CONNECTIONS:
            self._idle.append((there, connection))
        else:
            connection.close()
        return rows

    def close(self) -> None:
        """Close the idle connections. A read after that opens a new one."""
        while self._idle:
            self._idle.pop()[1].close()

    def _acquire(self) -> tuple[sqlite.Identity, sqlite3.Connection, bool]:
        """A connection, what it was opened on, and whether it may be used again."""
        if os.getpid() != self._process:
            raise StoreUnavailable("the database was opened before a fork", "open it in the worker process")
        there = sqlite.identity(self.path)
        while True:
            try:
                opened, connection = self._idle.pop()
            except IndexError:
                return there, *sqlite.connect_reading_for(self.path, self._busy_timeout_s)
            if opened == there:
                return there, connection, True
            connection.close()

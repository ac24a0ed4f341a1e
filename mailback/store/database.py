"""The front of the store: open it in the process that uses it, submit work, ask questions.

    store = Store.open("sqlite:////var/lib/mailback/mailback.db")
    store.upgrade()
    recorded = store.submit(lambda transaction: transaction.record(event)).result()

Opening touches no file and starts no thread; both happen at first use. A store must be opened after a fork.

Told to the `report` callback: see `writer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from mailback.store import sqlite
from mailback.store import upgrade as migration
from mailback.store.errors import StoreUnavailable
from mailback.store.lookup import SuppressionLookup
from mailback.store.records import Suppression
from mailback.store.transaction import Transaction
from mailback.store.writer import Report, Writer

T = TypeVar("T")

_WAITING_UNITS = 4096


class Store:
    """One process's way to the database. Thread-safe."""

    def __init__(
        self, url: str, *, busy_timeout_s: float = 5.0, batch: int = 500, report: Report | None = None
    ) -> None:
        self.path: Path = sqlite.database_path(url)
        self._lookup = SuppressionLookup(url, busy_timeout_s=busy_timeout_s)
        self._writer = Writer(
            self.path, busy_timeout_s=busy_timeout_s, batch=batch, capacity=_WAITING_UNITS, report=report
        )

    @classmethod
    def open(
        cls, url: str, *, busy_timeout_s: float = 5.0, batch: int = 500, report: Report | None = None
    ) -> Store:
        """The store at `url`. Raises StoreUnavailable for a URL that cannot be used; touches no file yet."""
        return cls(url, busy_timeout_s=busy_timeout_s, batch=batch, report=report)

    def close(self) -> None:
        """Commit what is queued and let go of the database. Safe to call twice."""
        self._writer.close()
        self._lookup.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def upgrade(self) -> bool:
        """Create the database if there is none, and bring it to this version's schema. True when anything changed."""
        return migration.upgrade(self.path)

    @property
    def trouble(self) -> StoreUnavailable | None:
        """Why the last commit failed; None while all is well."""
        return self._writer.trouble

    def submit(self, work: Callable[[Transaction], T]) -> Future[T]:
        """Run `work` on the writer thread, in a transaction shared with whatever else waits.

        The future resolves with what `work` returned, after the COMMIT reached the disk; with the exception `work`
        raised (its changes undone, the others' kept); or with StoreUnavailable, and then nothing was kept.
        """
        return self._writer.submit(work)

    def lookup(self, key: str, scopes: Sequence[str] = ("all",), now: datetime | None = None) -> Suppression | None:
        """See `SuppressionLookup.lookup`."""
        return self._lookup.lookup(key, scopes, now)

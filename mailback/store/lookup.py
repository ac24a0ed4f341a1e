"""The question behind every outgoing message: is this address suppressed? One indexed read, on the caller's thread.

Standard library only, so that `mailback check` answers in a fraction of what importing SQLAlchemy costs.

Reading never changes the database; whose rights let them only read it are answered too, where that is safe (`sqlite`
says when). A missing database raises `StoreUnavailable`, never "not suppressed".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from mailback.store import codec, sqlite
from mailback.store.erasure import Erased
from mailback.store.readers import ReaderPool
from mailback.store.records import Suppression

_MOST_SCOPES = 100

# The columns of `suppression` in the table's order; a test holds this to the schema.
_COLUMNS = (
    "address_key, address, scope, reason, type, subcategory, source, since, until, event_id, suggestion,"
    " lifted_at, lifted_by, lifted_reason"
)


def _query(scopes: int, *, over: bool = False) -> str:
    marks = ",".join("?" * scopes)
    standing = "" if over else " AND (until IS NULL OR until > ?)"
    return (
        f"SELECT {_COLUMNS} FROM suppression WHERE address_key = ? AND scope IN ({marks}) AND lifted_at IS NULL"
        f"{standing}"
    )


_QUERIES = tuple(map(_query, range(_MOST_SCOPES + 1)))
_ALSO_OVER = tuple(_query(scopes, over=True) for scopes in range(_MOST_SCOPES + 1))


class SuppressionLookup:
    """The suppression list of the database at `url`, for reading. Thread-safe; opens nothing until first asked."""

    def __init__(self, url: str, *, busy_timeout_s: float = 5.0) -> None:
        self.path = sqlite.database_path(url)
        self._readers = ReaderPool(self.path, busy_timeout_s=busy_timeout_s)
        self._erased = Erased(self.path)

    def lookup(self, key: str, scopes: Sequence[str] = ("all",), now: datetime | None = None) -> Suppression | None:
        """What holds mail to `key` back in any of `scopes`; the one that lasts longest when there are several.

        `key` is `mailback.address.key(address)`. Raises StoreUnavailable when the list cannot be read: the caller
        decides whether mail waits then.
        """
        if len(scopes) > _MOST_SCOPES:
            raise ValueError(f"at most {_MOST_SCOPES} scopes can be asked for at once")
        at = time.time_ns() // 1000 if now is None else codec.ticks(now)
        rows = self._readers.fetch(_QUERIES[len(scopes)], (key, *scopes, at))
        if not rows and (hashed := self._erased.hashed(key)) is not None:
            rows = self._readers.fetch(_QUERIES[len(scopes)], (hashed, *scopes, at))
        return _longest([codec.suppression_of(row) for row in rows]) if rows else None

    def last(self, key: str, scopes: Sequence[str] = ("all",), now: datetime | None = None) -> Suppression | None:
        """The same, and where nothing holds mail back any more what did so last: `active` tells which it is."""
        if len(scopes) > _MOST_SCOPES:
            raise ValueError(f"at most {_MOST_SCOPES} scopes can be asked for at once")
        rows = self._readers.fetch(_ALSO_OVER[len(scopes)], (key, *scopes))
        if rows:
            return _longest([codec.suppression_of(row) for row in rows])
        return self.lookup(key, scopes, now) if self._erased.hashed(key) is not None else None

    def hashed(self, key: str) -> str | None:
        """What stands in the place of an erased address; None where nothing was erased yet."""
        return self._erased.hashed(key)

    def close(self) -> None:
        """Close the idle connections. A look-up after that opens a new one."""
        self._readers.close()

    def __enter__(self) -> SuppressionLookup:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _longest(found: list[Suppression]) -> Suppression:
    return max(
        found, key=lambda suppression: float("inf") if suppression.until is None else suppression.until.timestamp()
    )

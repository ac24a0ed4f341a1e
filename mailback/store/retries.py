"""Messages that are worth sending again, one row a message and recipient, within the store's transaction.

A row is opened by a failure that heals and closed by a delivery, a permanent failure, the application or the rules. Who
is suppressed is looked up when somebody asks what is due, not written here: a suppression that ends, or is taken back,
needs no second place to be undone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from mailback.store import codec
from mailback.store.journal import Fetch
from mailback.store.records import Retry
from mailback.store.traces import LEDGER, RETRY, Traces

_COLUMNS = (
    "id, address_key, address, thread, message_id, retried_as, event_id, campaign, list_id, provider, type,"
    " subcategory, failures, first_at, failed_at, due_at, state, because, closed_at"
)
_VALUES = (
    "address_key", "address", "thread", "message_id", "retried_as", "event_id", "campaign", "list_id", "provider",
    "type", "subcategory", "failures", "first_at", "failed_at", "due_at", "state", "because", "closed_at",
)  # fmt: skip
_PUT = (
    f"INSERT INTO retry ({', '.join(_VALUES)}) VALUES ({','.join('?' * len(_VALUES))})"
    f" ON CONFLICT (address_key, thread) DO UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in _VALUES[1:])}"
)
_OF_MESSAGE = (
    f"SELECT {_COLUMNS} FROM retry WHERE address_key = ?1 AND (thread = ?2 OR message_id = ?2 OR retried_as = ?2)"
    " ORDER BY id LIMIT 1"
)
_SENT_AGAIN = (
    f"SELECT {_COLUMNS} FROM retry WHERE address_key = ? AND state = 'sent' AND campaign = ? AND retried_as IS NULL"
    " ORDER BY id LIMIT 1"
)
_DELIVERED = (
    "SELECT 1 FROM event WHERE recipient_key = ? AND at >= ? AND kind = 'delivered' AND original_message_id = ? LIMIT 1"
)
_CLOSE = (
    "UPDATE retry SET state = ?, because = ?, closed_at = ?, due_at = NULL WHERE id = ? AND state IN ('open', 'sent')"
)
_CLOSE_ALL = (
    "UPDATE retry SET state = 'closed', because = ?, closed_at = ? WHERE address_key = ? AND state IN ('open', 'sent')"
)
# Only who waited to be sent again has a time for it.
_REOPEN_ALL = (
    "UPDATE retry SET state = CASE WHEN due_at IS NULL THEN 'sent' ELSE 'open' END, because = ?, closed_at = NULL"
    " WHERE address_key = ? AND state = 'closed' AND because = ? AND closed_at = ?"
)
_READER = (
    "SELECT 1 FROM score WHERE address_key = ? AND step = 'alive' AND day BETWEEN ? AND ?"
    " AND cause IN ('open', 'click', 'reply') LIMIT 1"
)
_MAY_GO = (
    " NOT EXISTS (SELECT 1 FROM suppression AS s WHERE s.address_key = retry.address_key AND s.scope IN"
    " ('all', 'list:' || retry.list_id, 'campaign:' || retry.campaign) AND s.lifted_at IS NULL"
    " AND (s.until IS NULL OR s.until > ?))"
)
DUE = f"SELECT {_COLUMNS} FROM retry WHERE state = 'open' AND due_at <= ? AND{_MAY_GO} ORDER BY due_at, id LIMIT ?"
LISTED = f"SELECT {_COLUMNS} FROM retry WHERE state IN ('open', 'sent') AND id > ? ORDER BY id LIMIT ?"
OF_ADDRESS = f"SELECT {_COLUMNS} FROM retry WHERE address_key = ? ORDER BY id"
_FIND = f"SELECT {_COLUMNS} FROM retry WHERE id = ?"
_DAY_US = 86_400_000_000


def retry_of(row: codec.Row) -> Retry:
    """The record behind a row of `_COLUMNS`."""
    values: dict[str, Any] = dict(zip(Retry.__slots__, row, strict=True))
    for name in ("first_at", "failed_at", "due_at", "closed_at"):
        values[name] = codec.optional_moment(values[name])
    return Retry(**values)


def due(fetch: Fetch, now: datetime, most: int) -> list[Retry]:
    """What should be sent again now, to recipients that may be mailed; the longest due first."""
    at = codec.ticks(now)
    return [retry_of(row) for row in fetch(DUE, (at, at, most))]


def find(fetch: Fetch, number: int) -> Retry | None:
    rows = fetch(_FIND, (number,))
    return retry_of(rows[0]) if rows else None


class Retries:
    """The table within one unit of work."""

    __slots__ = ("_connection", "_traces")

    def __init__(self, connection: sqlite3.Connection, traces: Traces) -> None:
        self._connection = connection
        self._traces = traces

    def any_of(self, key: str) -> bool:
        """Whether there may be a row of this address, whatever became of it."""
        return bool(self._traces.of(key) & RETRY)

    def of_message(self, key: str, message: str) -> Retry | None:
        """The row of a message to a recipient: by what it was, or by the Message-ID that it was sent again under."""
        return self._one(_OF_MESSAGE, (key, message)) if self.any_of(key) else None

    def sent_again(self, key: str, campaign: str) -> Retry | None:
        """A row of the campaign that was sent again, the application did not say under which Message-ID."""
        return self._one(_SENT_AGAIN, (key, campaign)) if self.any_of(key) else None

    def find(self, number: int) -> Retry | None:
        return self._one(_FIND, (number,))

    def put(self, retry: Retry) -> None:
        """Write a row; its number stays where there is one for this message and recipient."""
        self._connection.execute(
            _PUT,
            (
                retry.address_key, codec.text(retry.address), retry.thread, retry.message_id, retry.retried_as,
                retry.event_id, retry.campaign, retry.list_id, retry.provider, retry.type, retry.subcategory,
                retry.failures, codec.ticks(retry.first_at), codec.ticks(retry.failed_at),
                codec.optional_ticks(retry.due_at), retry.state, retry.because, codec.optional_ticks(retry.closed_at),
            ),
        )  # fmt: skip
        self._traces.left(retry.address_key, RETRY)

    def close(self, number: int, state: str, because: str, at: datetime) -> bool:
        """End a row that is open or was sent again; False where it is neither."""
        done = self._connection.execute(_CLOSE, (state, codec.text(because), codec.ticks(at), number))
        return done.rowcount == 1

    def close_all(self, key: str, because: str, at: datetime) -> int:
        """End all rows of an address; how many there were."""
        if not self.any_of(key):
            return 0
        return self._connection.execute(_CLOSE_ALL, (because, codec.ticks(at), key)).rowcount

    def reopen_all(self, key: str, because: str, at: datetime, reason: str) -> int:
        """Take back `close_all` with the same words and time; how many rows it had ended."""
        if not self.any_of(key):
            return 0
        return self._connection.execute(_REOPEN_ALL, (reason, key, because, codec.ticks(at))).rowcount

    def delivered(self, key: str, message_ids: Sequence[str], since: datetime) -> bool:
        """Whether one of these messages was delivered to the address since then."""
        return any(
            self._connection.execute(_DELIVERED, (key, codec.ticks(since), message_id)).fetchone() is not None
            for message_id in message_ids
        )

    def reader(self, key: str, at: datetime, days: int) -> bool:
        """Whether the address opened, clicked or replied within the days before."""
        if not self._traces.of(key) & LEDGER:
            return False
        day = codec.ticks(at) // _DAY_US
        return self._connection.execute(_READER, (key, day - days, day)).fetchone() is not None

    def forget(self, before: datetime) -> int:
        """Remove rows whose last failure was before that time; how many there were."""
        return self._connection.execute("DELETE FROM retry WHERE failed_at < ?", (codec.ticks(before),)).rowcount

    def _one(self, query: str, parameters: tuple[object, ...]) -> Retry | None:
        row = self._connection.execute(query, parameters).fetchone()
        return retry_of(row) if row else None

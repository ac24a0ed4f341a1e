"""Who is on a list: a row an address and list, within the store's transaction; every change is in `subscriber_change`.

What a row says follows from facts that never go back: the latest opt-in, the latest opt-out by the person, and what the
score ledger comes to. So imports may be repeated, old or in any order. A person's own word outweighs everything: a row
that is out by it is left alone by bounces, and says nothing of them. One that is in is out while its bounces are hard,
by the date on which they became so, and in again once the address is proven to live.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mailback.store import codec
from mailback.store.records import Subscriber, SubscriberChange
from mailback.store.traces import SUBSCRIBER, Traces

if TYPE_CHECKING:
    from mailback.store.journal import Fetch

_NAMES = (
    "address_key", "list_id", "address", "external_id", "source", "status", "opt_in_at", "opt_out_at", "out_by",
    "bounce_status", "bounce_count", "bounce_until", "own_out_at", "own_out_by", "hard_since",
)  # fmt: skip
_COLUMNS = ", ".join(_NAMES)
_TIMES = ("opt_in_at", "opt_out_at", "bounce_until", "own_out_at", "hard_since")
_PUT = f"INSERT OR REPLACE INTO subscriber ({_COLUMNS}) VALUES ({','.join('?' * len(_NAMES))})"
_FIND = f"SELECT {_COLUMNS} FROM subscriber WHERE address_key = ? AND list_id = ?"
_OF_ADDRESS = f"SELECT {_COLUMNS} FROM subscriber WHERE address_key = ? ORDER BY list_id"
_BY_ID = f"SELECT {_COLUMNS} FROM subscriber WHERE external_id = ? ORDER BY list_id LIMIT 1"
_DECAYED = f"SELECT {_COLUMNS} FROM subscriber WHERE bounce_status = 'soft' AND bounce_until <= ?"
_PAGE = f"SELECT {_COLUMNS} FROM subscriber WHERE (address_key, list_id) > (?, ?) ORDER BY address_key, list_id LIMIT ?"
_CHANGE_NAMES = (
    "address_key", "list_id", "at", "actor", "reason", "status", "opt_in_at", "opt_out_at", "out_by", "bounce_status",
    "bounce_count",
)  # fmt: skip
_TELL = f"INSERT INTO subscriber_change ({', '.join(_CHANGE_NAMES)}) VALUES ({','.join('?' * len(_CHANGE_NAMES))})"
_CHANGES = f"SELECT {', '.join(_CHANGE_NAMES)} FROM subscriber_change WHERE address_key = ? ORDER BY id"
_ROWS = 500

BY_BOUNCE = "bounce"
"""Why a subscriber is out whose bounces are hard."""


@dataclass(frozen=True, slots=True)
class Bounces:
    """What the score ledger of an address comes to."""

    status: str = "none"
    """`none`, `soft` or `hard`."""
    count: int = 0
    """Soft bounces in a row."""
    until: datetime | None = None
    """When a soft status decays."""
    hard_since: datetime | None = None


NO_BOUNCES = Bounces()


def subscriber_of(row: codec.Row) -> Subscriber:
    """The record behind a row of the table."""
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    for name in _TIMES:
        values[name] = codec.optional_moment(values[name])
    return Subscriber(**values)


def change_of(row: codec.Row) -> SubscriberChange:
    values: dict[str, Any] = dict(zip(_CHANGE_NAMES, row, strict=True))
    for name in ("at", "opt_in_at", "opt_out_at"):
        values[name] = codec.optional_moment(values[name])
    return SubscriberChange(**values)


def of_address(fetch: Fetch, key: str) -> list[Subscriber]:
    return [subscriber_of(row) for row in fetch(_OF_ADDRESS, (key,))]


def changes(fetch: Fetch, key: str) -> list[SubscriberChange]:
    """What became of an address on all its lists, oldest first."""
    return [change_of(row) for row in fetch(_CHANGES, (key,))]


def by_id(fetch: Fetch, external_id: str) -> Subscriber | None:
    """Whom another system knows by this id."""
    rows = fetch(_BY_ID, (external_id,))
    return subscriber_of(rows[0]) if rows else None


def everybody(fetch: Fetch) -> Iterator[Subscriber]:
    """All rows by address, page by page, each page a read of its own."""
    place = ("", "")
    while rows := fetch(_PAGE, (*place, _ROWS)):
        yield from map(subscriber_of, rows)
        place = (rows[-1][0], rows[-1][1])


class Subscribers:
    """The table within one unit of work."""

    __slots__ = ("_connection", "_traces")

    def __init__(self, connection: sqlite3.Connection, traces: Traces) -> None:
        self._connection = connection
        self._traces = traces

    def find(self, key: str, list_id: str = "") -> Subscriber | None:
        row = self._connection.execute(_FIND, (key, list_id)).fetchone()
        return subscriber_of(row) if row else None

    def of_address(self, key: str) -> list[Subscriber]:
        if not self._traces.of(key) & SUBSCRIBER:
            return []
        return [subscriber_of(row) for row in self._connection.execute(_OF_ADDRESS, (key,))]

    def put(self, facts: Subscriber, *, actor: str, reason: str) -> bool:
        """Add what is known of a subscriber to what was known before; True when that changed anything.

        Of `facts` only what somebody told counts (address, id, source, opt-in, own opt-out): the rest is derived. The
        latest opt-in and the latest opt-out stand; the source stays the first.
        """
        before = self.find(facts.address_key, facts.list_id)
        if before is None:
            return self._write(None, facts, actor, reason)
        out_at = _latest(before.own_out_at, facts.own_out_at)
        after = replace(
            before,
            external_id=facts.external_id or before.external_id,
            source=before.source or facts.source,
            opt_in_at=_latest(before.opt_in_at, facts.opt_in_at),
            own_out_at=out_at,
            own_out_by=before.own_out_by if out_at == before.own_out_at else facts.own_out_by,
        )
        return self._write(before, after, actor, reason)

    def opted_out(self, key: str, at: datetime, by: str, *, list_id: str | None, actor: str, reason: str) -> None:
        """A person's own word: out of this list, of every list when None. A row without a list's name is any list's.

        Told after an opt-in of a later day it counts all the same, from that day on: only one that is told after it
        ends it.
        """
        for before in self.of_address(key):
            if list_id is None or before.list_id in ("", list_id):
                since = max(at, before.opt_in_at or at)
                if before.own_out_at is None or since > before.own_out_at:
                    self._write(before, replace(before, own_out_at=since, own_out_by=by), actor, reason)

    def bounced(self, key: str, bounces: Bounces, *, actor: str, reason: str) -> None:
        """What the score ledger of an address comes to now. Who is out by own word stays as is."""
        for before in self.of_address(key):
            if not before.own_out:
                told = replace(
                    before, bounce_status=bounces.status, bounce_count=bounces.count, bounce_until=bounces.until,
                    hard_since=bounces.hard_since,
                )  # fmt: skip
                self._write(before, told, actor, reason)

    def dead(self, key: str, since: datetime, *, actor: str, reason: str) -> None:
        """The address was suppressed for ever by a bounce."""
        for before in self.of_address(key):
            if not before.own_out and (before.hard_since is None or since < before.hard_since):
                told = replace(before, bounce_status="hard", bounce_until=None, hard_since=since)
                self._write(before, told, actor, reason)

    def decay(self, now: datetime) -> int:
        """Write down which soft bounces count no more; how many rows had such."""
        rows = self._connection.execute(_DECAYED, (codec.ticks(now),)).fetchall()
        for before in map(subscriber_of, rows):
            told = replace(before, bounce_status="none", bounce_count=0, bounce_until=None)
            self._write(before, told, "mailback", "its soft bounces have decayed")
        return len(rows)

    def _write(self, before: Subscriber | None, facts: Subscriber, actor: str, reason: str) -> bool:
        after = _derived(facts)
        if after == before:
            return False
        row = [getattr(after, name) for name in _NAMES]
        self._connection.execute(_PUT, tuple(map(_stored, row)))
        self._traces.left(after.address_key, SUBSCRIBER)
        if before is None or _shown(after) != _shown(before):
            told = {"at": datetime.now(UTC), "actor": actor, "reason": reason}
            change = [told[name] if name in told else getattr(after, name) for name in _CHANGE_NAMES]
            self._connection.execute(_TELL, tuple(map(_stored, change)))
        return True


def _derived(facts: Subscriber) -> Subscriber:
    """Status, dates and bounce status as they follow from the facts."""
    if facts.own_out:
        return replace(
            facts, status="out", opt_out_at=facts.own_out_at, out_by=facts.own_out_by, bounce_status="none",
            bounce_count=0, bounce_until=None, hard_since=None,
        )  # fmt: skip
    if facts.hard_since is not None:
        return replace(facts, status="out", opt_out_at=facts.hard_since, out_by=BY_BOUNCE)
    return replace(facts, status="in", opt_out_at=None, out_by=None)


def _shown(subscriber: Subscriber) -> tuple[object, ...]:
    return (
        subscriber.status, subscriber.opt_in_at, subscriber.opt_out_at, subscriber.out_by, subscriber.bounce_status,
        subscriber.bounce_count,
    )  # fmt: skip


def _latest(one: datetime | None, other: datetime | None) -> datetime | None:
    return max(filter(None, (one, other)), default=None)


def _stored(value: object) -> object:
    if isinstance(value, datetime):
        return codec.ticks(value)
    return codec.text(value) if isinstance(value, str) else value

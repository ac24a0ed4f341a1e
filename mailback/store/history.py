"""What is known of many addresses at once, for lists: a handful of indexed queries for hundreds of addresses.

Each query is one short read, so a list of a million lines holds no snapshot open and mail goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from mailback.store import codec
from mailback.store.records import Suppression

Fetch = Callable[[str, tuple[object, ...]], list[tuple[Any, ...]]]

MOST = 500
"""Addresses that are asked for at once; SQLite takes some thousands of parameters at least."""

_SUPPRESSIONS = (
    "SELECT address_key, address, scope, reason, type, subcategory, source, since, until, event_id, suggestion,"
    " lifted_at, lifted_by, lifted_reason FROM suppression WHERE address_key IN ({})"
)
_SUBSCRIBED = (
    "SELECT address_key, list_id, status, out_by, opt_out_at FROM subscriber WHERE address_key IN ({})"
    " ORDER BY address_key, list_id"
)
_ENGAGEMENT = (
    "SELECT address_key, sent, opens, clicks, last_sent, max(coalesce(last_open, 0), coalesce(last_click, 0))"
    " FROM engagement WHERE address_key IN ({})"
)
_MAILED = "SELECT recipient_key, max(at) FROM journal_recipient WHERE recipient_key IN ({}) GROUP BY recipient_key"
_EVENTS = (
    "SELECT recipient_key, kind, max(at) FROM event WHERE recipient_key IN ({})"
    " AND kind IN ('bounce', 'delivered', 'reply', 'unsubscribe')"
    " AND (kind <> 'bounce' OR coalesce(fault, '') NOT IN ('sender', 'receiver', 'network'))"
    " GROUP BY recipient_key, kind"
)


class Subscribed(NamedTuple):
    """How an address stands on one list."""

    list_id: str
    out: bool
    out_by: str | None
    out_at: datetime | None


@dataclass(slots=True)
class History:
    """One address, as far as anything is known of it."""

    suppressions: tuple[Suppression, ...] = ()
    """In force, over or lifted."""
    lists: tuple[Subscribed, ...] = ()
    sent: int = 0
    """Messages that arrived, where deliveries are told."""
    opens: int = 0
    clicks: int = 0
    last_read: datetime | None = None
    """When the recipient last opened or clicked."""
    last_mailed: datetime | None = None
    last_delivered: datetime | None = None
    last_bounce: datetime | None = None
    """The last that was not somebody else's fault."""
    last_reply: datetime | None = None

    @property
    def last_sign(self) -> datetime | None:
        """When a person last showed to be there."""
        return max(filter(None, (self.last_read, self.last_reply)), default=None)

    @property
    def last_contact(self) -> datetime | None:
        """When we last mailed it, or heard of it."""
        told = (self.last_mailed, self.last_delivered, self.last_bounce, self.last_sign)
        return max(filter(None, told), default=None)


def of(fetch: Fetch, keys: Sequence[str]) -> dict[str, History]:
    """What is known of each of up to `MOST` addresses; who is not in it is not known. Raises StoreUnavailable."""
    asked = tuple(keys)
    marks = ",".join("?" * len(asked))
    found: dict[str, History] = {}

    def one(key: str) -> History:
        return found.setdefault(key, History())

    for row in fetch(_SUPPRESSIONS.format(marks), asked):
        suppression = codec.suppression_of(row)
        one(suppression.address_key).suppressions += (suppression,)
    for key, list_id, status, out_by, out_at in fetch(_SUBSCRIBED.format(marks), asked):
        one(key).lists += (Subscribed(list_id, status == "out", out_by, codec.optional_moment(out_at)),)
    for key, sent, opens, clicks, last_sent, last_read in fetch(_ENGAGEMENT.format(marks), asked):
        history = one(key)
        history.sent, history.opens, history.clicks = sent, opens, clicks
        history.last_delivered = codec.optional_moment(last_sent)
        history.last_read = codec.moment(last_read) if last_read else None
    for key, at in fetch(_MAILED.format(marks), asked):
        one(key).last_mailed = codec.moment(at)
    for key, kind, at in fetch(_EVENTS.format(marks), asked):
        _heard(one(key), kind, codec.moment(at))
    return found


def _heard(history: History, kind: str, at: datetime) -> None:
    if kind == "bounce":
        history.last_bounce = at
    elif kind == "delivered":
        history.last_delivered = max(at, history.last_delivered or at)
    elif kind == "reply":
        history.last_reply = at

"""What recipients did with our mail: messages that arrived, opens, clicks, the last of each, by address.

Counts are sums of facts, each counted once, and times the latest of each: no order of arrival, no file read twice and
no crash changes them. That a message arrived is an event, which is known by its identity; opens and clicks are no
events, so their identities are kept here, as hashes that name nobody.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from datetime import datetime

from mailback.store import codec
from mailback.store.journal import Fetch
from mailback.store.records import Engagement, Reading

_FIND = (
    "SELECT address_key, sent, opens, clicks, last_sent, last_open, last_click FROM engagement WHERE address_key = ?"
)
_FIND_ALL = _FIND.replace("= ?", "IN (SELECT value FROM json_each(?))")
_ALIVE = "SELECT 1 FROM engagement WHERE address_key = ? AND (last_sent >= ? OR last_open >= ? OR last_click >= ?)"
_SEEN = "INSERT INTO engagement_fact (identity, at) VALUES (?, ?) ON CONFLICT (identity) DO NOTHING"
_LAST_SENT = (
    "UPDATE engagement SET last_sent = (SELECT at FROM event WHERE recipient_key = ? AND kind = 'delivered'"
    " ORDER BY at DESC LIMIT 1) WHERE address_key = ? AND last_sent = ?"
)
_COLUMNS = {"sent": "sent", Reading.OPEN: "opens", Reading.CLICK: "clicks"}


def _add(column: str, last: str) -> str:
    return (
        f"INSERT INTO engagement (address_key, sent, opens, clicks, {last})"
        f" VALUES (?, {int(column == 'sent')}, {int(column == 'opens')}, {int(column == 'clicks')}, ?)"
        f" ON CONFLICT (address_key) DO UPDATE SET {column} = {column} + 1,"
        f" {last} = max(coalesce({last}, excluded.{last}), excluded.{last})"
    )


_ADD = {what: _add(column, f"last_{what}") for what, column in _COLUMNS.items()}


def find(fetch: Fetch, key: str) -> Engagement | None:
    """What is known of an address; None where nothing is."""
    rows = fetch(_FIND, (key,))
    return _engagement_of(rows[0]) if rows else None


def find_all(fetch: Fetch, keys: Iterable[str]) -> dict[str, Engagement]:
    """The same of many addresses, in one look-up."""
    return {row[0]: _engagement_of(row) for row in fetch(_FIND_ALL, (json.dumps(list(keys)),))}


def _engagement_of(row: codec.Row) -> Engagement:
    key, sent, opens, clicks, *last = row
    return Engagement(key, sent, opens, clicks, *map(codec.optional_moment, last))


def alive(fetch: Fetch, key: str, since: datetime) -> bool:
    """Whether a delivery, an open or a click from `since` on shows that an address takes mail."""
    return bool(fetch(_ALIVE, (key, *[codec.ticks(since)] * 3)))


def arrived(connection: sqlite3.Connection, key: str, at: datetime) -> None:
    """One more message that arrived; called once for each event."""
    connection.execute(_ADD["sent"], (key, codec.ticks(at)))


def backdate(connection: sqlite3.Connection, key: str, was: datetime) -> None:
    """Reckon the last arrival anew: the message that arrived then turns out to have arrived earlier."""
    connection.execute(_LAST_SENT, (key, key, codec.ticks(was)))


def read(connection: sqlite3.Connection, key: str, what: Reading, at: datetime, identity: str) -> bool:
    """One more open or click; False where this one was counted before."""
    ticks = codec.ticks(at)
    hashed = hashlib.sha256(f"{what}\0{identity}".encode("utf-8", "surrogatepass")).digest()[:16]
    if connection.execute(_SEEN, (hashed, ticks)).rowcount != 1:
        return False
    connection.execute(_ADD[what], (key, ticks))
    return True

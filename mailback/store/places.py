"""Places: how far a log, a mailbox or a table was read, written in the transaction that holds what was read.

So after a crash reading goes on exactly there: nothing is lost between place and events, and nothing is read twice. A
source names its places itself; names with a common beginning can be read together.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mailback.store import codec
from mailback.store.records import Place

if TYPE_CHECKING:
    from mailback.store.journal import Fetch  # brings SQLAlchemy along, which a look-up does without

_FIND = "SELECT name, position, at FROM place WHERE name = ?"
_BELOW = "SELECT name, position, at FROM place WHERE name >= ? AND name < ? ORDER BY name"
_PUT = (
    "INSERT INTO place (name, position, at) VALUES (?, ?, ?)"
    " ON CONFLICT (name) DO UPDATE SET position = excluded.position, at = excluded.at"
)
_LAST = "\U0010ffff"
QUEUED = "postfix-queue:"
"""How the names of places begin that hold messages in a queue, with whom they go to."""


def find(fetch: Fetch, name: str) -> Place | None:
    rows = fetch(_FIND, (name,))
    return _place(rows[0]) if rows else None


def below(fetch: Fetch, prefix: str) -> list[Place]:
    """The places whose names begin so, by name."""
    return [_place(row) for row in fetch(_BELOW, (prefix, prefix + _LAST))]


def put(connection: sqlite3.Connection, name: str, position: Mapping[str, object]) -> None:
    at = codec.ticks(datetime.now(UTC))
    connection.execute(_PUT, (codec.text(name), codec.canonical_json(position), at))


def forget(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM place WHERE name = ?", (name,))


def forget_before(connection: sqlite3.Connection, before: datetime) -> int:
    """Remove places that were last put before that time; how many there were."""
    return connection.execute("DELETE FROM place WHERE at < ?", (codec.ticks(before),)).rowcount


def _place(row: codec.Row) -> Place:
    name, position, at = row
    return Place(name, json.loads(position), codec.moment(at))

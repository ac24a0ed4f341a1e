"""The messages that try addresses whose hold has run out, one an address: claimed by whichever front asks first.

A claim is a transaction of its own, so that of all processes that answer recipients one lets one message through, and a
restart forgets nothing. Standard library only. Emits no log events.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from mailback.store import codec, sqlite
from mailback.store.records import Probe

FIND = "SELECT address_key, hold_until, at, token, tries FROM probe WHERE address_key = ?"
ANY = "SELECT 1 FROM probe LIMIT 1"
_PUT = "INSERT OR REPLACE INTO probe (address_key, hold_until, at, token, tries) VALUES (?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM probe WHERE at < ?"
LIVES = (
    "SELECT 1 FROM engagement WHERE address_key = ?1 AND (last_sent > ?2 OR last_open > ?2 OR last_click > ?2)"
    " UNION ALL SELECT 1 FROM score WHERE address_key = ?1 AND step = 'alive' AND at > ?2 LIMIT 1"
)
"""Anything that shows since a time that an address takes mail."""
BOUNCED = "SELECT 1 FROM event WHERE recipient_key = ? AND at >= ? AND kind = 'bounce' LIMIT 1"


def probe_of(row: codec.Row) -> Probe:
    key, hold_until, at, token, tries = row
    return Probe(key, codec.moment(hold_until), codec.moment(at), token, tries)


def claim(path: Path, key: str, step: Callable[[Probe | None], Probe | None]) -> Probe | None:
    """Keep what `step` makes of the last message that tried an address; None where `step` lets none through.

    Raises StoreUnavailable when that cannot be written within a second.
    """
    with sqlite.claiming(path) as connection:
        return take(connection, key, step)


def take(connection: sqlite3.Connection, key: str, step: Callable[[Probe | None], Probe | None]) -> Probe | None:
    """The same within the caller's transaction."""
    row = connection.execute(FIND, (key,)).fetchone()
    before = probe_of(row) if row else None
    then = step(before)
    if then is not None and then is not before:
        connection.execute(
            _PUT, (key, codec.ticks(then.hold_until), codec.ticks(then.at), codec.text(then.token), then.tries)
        )
    return then


def forget(connection: sqlite3.Connection, before: datetime) -> int:
    """Remove claims from before that time; how many."""
    return connection.execute(_FORGET, (codec.ticks(before),)).rowcount

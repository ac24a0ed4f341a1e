"""What is past its retention, removed a page a transaction, so that mail goes on being recorded meanwhile.

What stands on an event keeps it: whoever asks why an address is suppressed is told, however long ago that was. A review
that was closed goes with its event, because it holds what a person wrote; one that a person corrected stays, because a
model learns from it. Standard library only. Emits no log events.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any, NamedTuple

from mailback.store import codec


class Page(NamedTuple):
    """What became of a page of rows."""

    removed: int
    last: tuple[Any, ...] | None
    """Where the next page begins; None after the last one."""


class Sweep(NamedTuple):
    """A table without an index on its time, which is walked along its key."""

    table: str
    key: str
    kept: str = ""
    """Which rows stay, however old."""
    start: str | bytes = ""


LEDGER = Sweep(
    "score",
    "address_key",
    " AND NOT EXISTS (SELECT 1 FROM suppression AS s WHERE s.address_key = score.address_key AND s.lifted_at IS NULL"
    " AND s.until IS NULL)",
)
"""Lines of the score ledger, but of who is suppressed for ever: his next bounce would find nothing that it rests on."""
READINGS = Sweep("engagement_fact", "identity", start=b"")
"""Hashes of opens and clicks; the counts stay."""


START = (-(2**62), "")
"""Where the first page begins."""
_OLD = (
    "SELECT at, id,"
    " EXISTS (SELECT 1 FROM suppression AS s WHERE s.address_key = event.recipient_key AND s.event_id = event.id"
    " AND s.lifted_at IS NULL AND (s.until IS NULL OR s.until > ?1))"
    " OR EXISTS (SELECT 1 FROM review AS r WHERE r.event_id = event.id AND r.state = 'open')"
    " OR EXISTS (SELECT 1 FROM retry AS t WHERE t.address_key = event.recipient_key AND t.event_id = event.id"
    " AND t.state IN ('open', 'sent'))"
    " FROM event WHERE (at, id) > (?2, ?3) AND at < ?4 ORDER BY at, id LIMIT ?5"
)
_WITH_IT = (
    "DELETE FROM event WHERE id = ?",
    "DELETE FROM suggestion WHERE event_id = ?",
    "DELETE FROM review WHERE event_id = ? AND right_type IS NULL AND right_intent IS NULL",
)


def events(connection: sqlite3.Connection, before: datetime, now: datetime, after: tuple[Any, ...], most: int) -> Page:
    """Look at up to `most` events from before that time, the oldest beyond `after` first; remove what may go."""
    rows = connection.execute(_OLD, (codec.ticks(now), *after, codec.ticks(before), most)).fetchall()
    old = [(number,) for _, number, needed in rows if not needed]
    for statement in _WITH_IT:
        connection.executemany(statement, old)
    return Page(len(old), (rows[-1][0], rows[-1][1]) if len(rows) == most else None)


def sweep(connection: sqlite3.Connection, which: Sweep, before: datetime, after: tuple[Any, ...], most: int) -> Page:
    """Remove what is from before that time among about `most` rows beyond the key `after`."""
    table, key, kept, _ = which
    row = connection.execute(
        f"SELECT {key} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT 1 OFFSET ?", (*after, most - 1)
    ).fetchone()
    within, until = (f" AND {key} <= ?", row) if row is not None else ("", ())
    removed = connection.execute(
        f"DELETE FROM {table} WHERE {key} > ?{within} AND at < ?{kept}", (*after, *until, codec.ticks(before))
    ).rowcount
    return Page(removed, row)

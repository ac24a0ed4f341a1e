"""Events that are past their retention, removed a page a transaction, so that mail goes on being recorded meanwhile.

What stands on an event keeps it: whoever asks why an address is suppressed is told, however long ago that was. A review
that was closed goes with its event, because it holds what a person wrote; one that a person corrected stays, because a
model learns from it. Standard library only. Emits no log events.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import NamedTuple

from mailback.store import codec


class Page(NamedTuple):
    """What became of a page of old events."""

    removed: int
    last: tuple[int, str] | None
    """Where the next page begins; None after the last one."""


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


def forget(connection: sqlite3.Connection, before: datetime, now: datetime, after: tuple[int, str], most: int) -> Page:
    """Look at up to `most` events from before that time, the oldest beyond `after` first; remove what may go."""
    rows = connection.execute(_OLD, (codec.ticks(now), *after, codec.ticks(before), most)).fetchall()
    old = [(number,) for _, number, needed in rows if not needed]
    for statement in _WITH_IT:
        connection.executemany(statement, old)
    return Page(len(old), (rows[-1][0], rows[-1][1]) if len(rows) == most else None)

"""Waves, within the store's transaction: freezing, and all undone or confirmed at once.

A wave remembers the suppressions it made and those that it would have made. Undoing it lifts what it made and brings
back what stood before, as the history tells it; confirming it, also after it was undone, makes them all. Whatever a
person or another event has changed since is left alone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime

from mailback.store import codec
from mailback.store.rates import HOUR_US, hour_of
from mailback.store.records import GONE, SCORE, Suppression, SuppressionChange, Wave

_WAVE = (
    "SELECT id, provider, subcategory, opened_at, closed_at, state, normal,"
    " (SELECT count(*) FROM wave_member WHERE wave_id = wave.id) FROM wave"
)
_ALREADY = (
    "SELECT suppression.* FROM event JOIN suppression ON suppression.address_key = event.recipient_key"
    " AND suppression.event_id = event.id WHERE event.at >= ? AND event.at < ?"
    " AND coalesce(event.provider, event.domain) = ? AND event.kind = 'bounce'"
    " AND suppression.lifted_at IS NULL AND suppression.until IS NULL"
)
# What changed no suppression, as another stood already, counts in the ledger all the same.
_COUNTED = (
    "SELECT event.recipient_key, event.recipient, event.type, event.subcategory, event.at, event.id FROM event"
    " JOIN score ON score.address_key = event.recipient_key AND score.fact = event.id"
    " WHERE event.at >= ? AND event.at < ? AND coalesce(event.provider, event.domain) = ? AND event.kind = 'bounce'"
    f" AND score.cause = '{GONE}' AND NOT EXISTS (SELECT 1 FROM suppression"
    " WHERE suppression.address_key = event.recipient_key AND suppression.event_id = event.id)"
)
# The first stands: what the wave made is told by its event, and must be found when it is undone.
_PUT_MEMBER = (
    "INSERT INTO wave_member (wave_id, address_key, scope, event_id, suppression, frozen) VALUES (?,?,?,?,?,?)"
    " ON CONFLICT (wave_id, address_key, scope) DO NOTHING"
)
ALL_WAVES = f"{_WAVE} ORDER BY id DESC"


def wave_of(row: codec.Row) -> Wave:
    number, provider, subcategory, opened, closed, state, normal, members = row
    return Wave(
        number, provider, subcategory, codec.moment(opened), codec.optional_moment(closed), state, normal, members
    )


def find(connection: sqlite3.Connection, number: int) -> Wave | None:
    row = connection.execute(f"{_WAVE} WHERE id = ?", (number,)).fetchone()
    return wave_of(row) if row else None


def standing(connection: sqlite3.Connection, provider: str) -> int | None:
    """The open wave about this provider; the first, should there be several."""
    row = connection.execute(
        "SELECT id FROM wave WHERE state = 'open' AND provider = ? ORDER BY id LIMIT 1", (provider,)
    ).fetchone()
    return row[0] if row else None


def any_standing(connection: sqlite3.Connection) -> bool:
    """Whether any is open."""
    return connection.execute("SELECT 1 FROM wave WHERE state = 'open' LIMIT 1").fetchone() is not None


def begin(
    connection: sqlite3.Connection,
    provider: str,
    subcategory: str,
    at: datetime,
    normal: float,
    *,
    turned: Callable[[str, datetime], bool],
) -> int:
    """Open a wave. What its hour has suppressed already belongs to it, and what the hour before did to addresses that
    had `turned`: who takes mail lately and is told dead then."""
    number = connection.execute(
        "INSERT INTO wave (provider, subcategory, opened_at, state, normal) VALUES (?, ?, ?, 'open', ?)",
        (provider, subcategory, codec.ticks(at), normal),
    ).lastrowid
    assert number is not None
    begins = hour_of(at) * HOUR_US
    for since, until in ((begins, begins + HOUR_US), (begins - HOUR_US, begins)):
        rows = connection.execute(_ALREADY, (since, until, provider)).fetchall()
        already = map(codec.suppression_of, rows)
        counted = map(_counted, connection.execute(_COUNTED, (since, until, provider)).fetchall())
        for made in (*already, *counted):
            if since == begins or turned(made.address_key, made.since):
                add(connection, number, made, frozen=False)
    return number


def _counted(row: codec.Row) -> Suppression:
    """The suppression that a bounce would have been, had none stood."""
    key, address, type_, subcategory, at, event_id = row
    reason = f"{type_}/{subcategory}"
    return Suppression(key, address, "all", reason, type_, subcategory, "event", codec.moment(at), None, event_id)


def stands(changes: list[SuppressionChange], scope: str) -> bool:
    """Whether the last that happened in a scope did not end it."""
    last = [change for change in changes if change.scope == scope]
    return bool(last) and last[-1].verb != "lifted"


def add(connection: sqlite3.Connection, number: int, suppression: Suppression, *, frozen: bool) -> None:
    """Keep a suppression with its wave: one that was made, or (`frozen`) one that was not."""
    connection.execute(
        _PUT_MEMBER,
        (
            number, suppression.address_key, suppression.scope, suppression.event_id or "", _written(suppression),
            int(frozen),
        ),
    )  # fmt: skip


def members(connection: sqlite3.Connection, number: int, *, frozen: bool | None = None) -> list[Suppression]:
    """What belongs to a wave; with `frozen` only what was kept back, or only what was made."""
    rows = connection.execute(
        "SELECT suppression FROM wave_member WHERE wave_id = ? AND (?2 IS NULL OR frozen = ?2)"
        " ORDER BY address_key, scope",
        (number, frozen),
    ).fetchall()
    return [_read(row[0]) for row in rows]


def reopen(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("UPDATE wave SET state = 'open', closed_at = NULL WHERE id = ?", (number,))


def undone_last(changes: list[SuppressionChange], scope: str, reason: str) -> bool:
    """Whether undoing a wave was the last that changed a scope, but for what came back by that."""
    last = [one for one in changes if one.scope == scope and one.verb != "restored" and one.source != SCORE]
    return bool(last) and last[-1].verb == "lifted" and last[-1].reason == reason


def close(connection: sqlite3.Connection, number: int, state: str) -> None:
    connection.execute(
        "UPDATE wave SET state = ?, closed_at = ? WHERE id = ?", (state, codec.ticks(datetime.now(UTC)), number)
    )


def before(changes: list[SuppressionChange], event_id: str | None, scope: str) -> SuppressionChange | None:
    """What stood in a scope before an event changed it; None where nothing did."""
    earlier: SuppressionChange | None = None
    for change in changes:
        if change.scope != scope:
            continue
        if change.event_id == event_id and change.verb != "lifted":
            break
        earlier = None if change.verb == "lifted" else change
    return earlier


def _written(suppression: Suppression) -> str:
    return json.dumps(codec.suppression_row(suppression))


def _read(text: str) -> Suppression:
    return codec.suppression_of((*json.loads(text), None, None, None))

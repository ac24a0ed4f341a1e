"""The score ledger of an address, within the store's transaction: a set of facts, merged so that order never matters.

An event is one line, at the earliest time that any report of it told; two reports of one failure around midnight do not
make two days of it. Opens and clicks are one line a day. `mailback.policy.score` says what follows from the lines.

Deliveries that are proven stand in the table of events and are lines here only from the day of an address's first
bounce on (`align`): before it there is nothing that they could end, and most addresses never bounce.

Anybody can send any number of bounces about one address, so a day keeps its earliest few: only the first of them counts
anyway, the others stand in where that one turns out to belong to the day before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import datetime

from mailback.bounce.taxonomy import Provenance
from mailback.store import codec
from mailback.store.records import ScoreEntry, Step

_KEPT_A_DAY = 8
_STEPS = {step.value: step for step in Step}
_DAY_US = 86_400_000_000
_PUT = (
    "INSERT INTO score (address_key, step, day, fact, at, cause, suppress_days, needed, window_days)"
    " VALUES (?,?,?,?,?,?,?,?,?)"
)
_MERGE = (
    f"{_PUT} ON CONFLICT (address_key, step, day, fact) DO UPDATE SET at = min(at, excluded.at),"
    " cause = excluded.cause, suppress_days = excluded.suppress_days, needed = excluded.needed,"
    " window_days = excluded.window_days RETURNING (SELECT count(*) FROM score AS other WHERE"
    " other.address_key = score.address_key AND other.step = score.step AND other.day = score.day)"
)
_MOVE = "UPDATE score SET day = ?, at = ? WHERE address_key = ? AND fact = ? AND at > ?"
_ELSEWHERE = "DELETE FROM score WHERE address_key = ? AND fact = ? AND NOT (step = ? AND day = ?)"
_IS_HELD = "SELECT 1 FROM score WHERE address_key = ? AND step = 'held' AND fact = ?"
_SURPLUS = (
    "DELETE FROM score WHERE address_key = ?1 AND step = ?2 AND day = ?3 AND fact IN (SELECT fact FROM score"
    f" WHERE address_key = ?1 AND step = ?2 AND day = ?3 ORDER BY at, cause, fact LIMIT -1 OFFSET {_KEPT_A_DAY})"
)
_FIRST_FAILURE = "SELECT min(day) FROM score WHERE address_key = ? AND step IN ('bounce', 'held')"
_PROVEN = ", ".join(f"'{grade.value}'" for grade in Provenance if grade.rank > Provenance.UNPROVEN.rank)
_DELIVERIES_BEFORE = (
    "DELETE FROM score WHERE address_key = ?1 AND step = 'alive' AND cause = 'delivered' AND day < ?2"
    f" AND EXISTS (SELECT 1 FROM event WHERE id = score.fact AND provenance IN ({_PROVEN}))"
)
_DELIVERIES_SINCE = (
    "INSERT INTO score (address_key, step, day, fact, at, cause)"
    f" SELECT recipient_key, 'alive', at / {_DAY_US}, id, at, 'delivered' FROM (SELECT recipient_key, id, at,"
    f" row_number() OVER (PARTITION BY at / {_DAY_US} ORDER BY at, id) AS place FROM event"
    " WHERE recipient_key = ? AND at >= ? AND at <= ? AND kind = 'delivered'"
    f" AND provenance IN ({_PROVEN})) WHERE place <= {_KEPT_A_DAY} ON CONFLICT DO NOTHING"
)
_SURPLUS_OF_ALL = (
    "DELETE FROM score WHERE address_key = ?1 AND step = 'alive' AND (day, fact) IN (SELECT day, fact FROM (SELECT"
    " day, fact, row_number() OVER (PARTITION BY day ORDER BY at, cause, fact) AS place FROM score"
    f" WHERE address_key = ?1 AND step = 'alive') WHERE place > {_KEPT_A_DAY})"
)
_LIVES = (
    "SELECT 1 FROM score WHERE address_key = ?1 AND step = 'alive' AND day >="
    " (SELECT max(day) FROM score WHERE address_key = ?1 AND step = 'bounce') LIMIT 1"
)
_NEVER = 100_000_000
"""A day after all of them, whose microseconds SQLite can tell."""
LEDGER = (
    "SELECT address_key, step, at, fact, cause, suppress_days, needed, window_days FROM score"
    " WHERE address_key = ? ORDER BY at, step, fact"
)


def begin(connection: sqlite3.Connection, entry: ScoreEntry) -> ScoreEntry:
    """Add the first line of an address; how it stands there."""
    row = _row(entry)
    connection.execute(_PUT, row)
    return entries_of([(row[0], row[1], row[4], row[3], *row[5:])])[0]


def enter(connection: sqlite3.Connection, entry: ScoreEntry, *, fresh: bool = False) -> None:
    """Add a fact; one that is known already stays one, at its earliest time, with what this report tells of it.

    `fresh`: nothing is known of it for certain, so nothing need be looked for.
    """
    key, step, fact, day = entry.address_key, entry.step, entry.fact, entry.day
    if not fresh:
        if connection.execute(_IS_HELD, (key, fact)).fetchone():
            return
        if fact != entry.cause:
            connection.execute(_ELSEWHERE, (key, fact, step, day))
    [(of_day,)] = connection.execute(_MERGE, _row(entry)).fetchall()
    if of_day > _KEPT_A_DAY:
        connection.execute(_SURPLUS, (key, step, day))


def _row(entry: ScoreEntry) -> tuple[object, ...]:
    at = codec.ticks(entry.at)
    numbers = (entry.suppress_days, entry.needed, entry.window_days)
    return entry.address_key, entry.step, at // _DAY_US, entry.fact, at, entry.cause, *numbers


def first_failure(connection: sqlite3.Connection, key: str) -> int | None:
    """The day of the first bounce of an address, whether it counts or is set aside; in days since 1970 UTC."""
    day: int | None = connection.execute(_FIRST_FAILURE, (key,)).fetchone()[0]
    return day


def lives(connection: sqlite3.Connection, key: str) -> bool:
    """Whether a line says that the mailbox lives which is no earlier than the last bounce."""
    return connection.execute(_LIVES, (key,)).fetchone() is not None


def align(connection: sqlite3.Connection, key: str, latest: datetime) -> bool:
    """Have the ledger tell what was delivered from the day of the first bounce on, up to `latest`, and nothing before.

    Called when that day changes. Returns whether the ledger has other lines than before.
    """
    first = first_failure(connection, key)
    day = _NEVER if first is None else first
    changed = connection.execute(_DELIVERIES_BEFORE, (key, day)).rowcount > 0
    return complete(connection, key, day, latest) or changed


def complete(connection: sqlite3.Connection, key: str, day: int, latest: datetime) -> bool:
    """Add what was delivered from a day on and is no line yet; returns whether there was any."""
    added = connection.execute(_DELIVERIES_SINCE, (key, day * _DAY_US, codec.ticks(latest))).rowcount > 0
    if added:
        connection.execute(_SURPLUS_OF_ALL, (key,))
    return added


def backdate(connection: sqlite3.Connection, key: str, fact: str, at: datetime) -> None:
    """Move an event to an earlier time, which another report of the same told."""
    ticks = codec.ticks(at)
    connection.execute(_MOVE, (ticks // _DAY_US, ticks, key, fact, ticks))


def withdraw(connection: sqlite3.Connection, key: str, fact: str) -> None:
    """Take an event out: a better report says that it was nothing of the kind."""
    connection.execute("DELETE FROM score WHERE address_key = ? AND fact = ?", (key, fact))


def hold(connection: sqlite3.Connection, key: str, fact: str) -> None:
    """Let a bounce count no more until somebody has looked; its line stays."""
    connection.execute(
        "UPDATE score SET step = 'held' WHERE address_key = ? AND step = 'bounce' AND fact = ?", (key, fact)
    )


def release(connection: sqlite3.Connection, key: str, fact: str) -> bool:
    """Let a bounce count that was set aside, now that somebody has looked; False where there is none."""
    return (
        connection.execute(
            "UPDATE score SET step = 'bounce' WHERE address_key = ? AND step = 'held' AND fact = ?", (key, fact)
        ).rowcount
        == 1
    )


def entries_of(rows: Iterable[codec.Row]) -> list[ScoreEntry]:
    """The records behind rows of `LEDGER`."""
    return [
        ScoreEntry(key, _STEPS[step], codec.moment(at), fact, cause, suppress_days, needed, window_days)
        for key, step, at, fact, cause, suppress_days, needed, window_days in rows
    ]


def ledger(connection: sqlite3.Connection, key: str) -> list[ScoreEntry]:
    """Every line about an address, oldest first."""
    return entries_of(connection.execute(LEDGER, (key,)))

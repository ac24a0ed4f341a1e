"""What an endpoint suggests, within the store's transaction: whose turn it is, how often it was asked, what it said.

Each question is written down before it is asked, so that neither a crash nor a second process asks twice, and a day's
budget survives a restart. A question that was never answered is asked again after a while, a few times. Emits no log
events.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from mailback.store import codec
from mailback.store.rates import Rates, hour_of
from mailback.store.records import Suggestion
from mailback.store.schema import suggestion

ATTEMPTS = 3
SETTLED = timedelta(seconds=10)
"""How long after it was first seen an item is asked about: by then whoever brought the mail has long been answered."""
AGAIN = timedelta(minutes=5)
"""How long a question waits that was not answered, twice as long each time."""
_BUDGET = "endpoint"
"""The cause under which questions are counted by the hour."""
_COLUMNS = tuple(column.name for column in suggestion.columns)
FIND = f"SELECT {', '.join(_COLUMNS)} FROM suggestion WHERE event_id = ?"
"""event -> all columns of `suggestion`"""
_WAITS = " OR ".join(f"(attempts = {n} AND asked_at < ?)" for n in range(ATTEMPTS))
_DOUBTFUL = (
    "review.state = 'open' AND review.kind = 'reply' AND review.route <> 'escalate' AND review.text <> ''"
    " AND review.confidence < ?"
)
_NOTE = (
    "INSERT INTO suggestion (event_id, source, state, attempts, asked_at)"
    f" SELECT event_id, '', 'waiting', 0, ? FROM review WHERE {_DOUBTFUL}"
    " AND NOT EXISTS (SELECT 1 FROM suggestion WHERE suggestion.event_id = review.event_id)"
    " ORDER BY coalesce(due, 9e18), id LIMIT 100"
)
_DUE = (
    "SELECT event_id FROM review JOIN suggestion USING (event_id)"
    f" WHERE {_DOUBTFUL} AND suggestion.state IN ('waiting', 'asked', 'failed') AND ({_WAITS})"
    " ORDER BY coalesce(review.due, 9e18), review.id LIMIT 1"
)
_LATELY = "SELECT count(*) FROM suggestion WHERE asked_at > ? AND attempts > 0"
_SPENT = "SELECT coalesce(sum(count), 0) FROM rate WHERE cause = ? AND hour >= ?"
_PUT = f"INSERT OR REPLACE INTO suggestion ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


class Turn(StrEnum):
    """Why nothing is asked now."""

    NOTHING = "nothing waits"
    RATE = "the rate is reached"
    BUDGET = "the day's budget is spent"


def claim(
    connection: sqlite3.Connection, source: str, *, below: float, per_minute: int, per_day: int, now: datetime
) -> Suggestion | Turn:
    """The next question, written down as asked; or why there is none."""
    connection.execute(_NOTE, (codec.ticks(now), below))
    waits = [SETTLED, *(AGAIN * 2**n for n in range(ATTEMPTS - 1))]
    row = connection.execute(_DUE, (below, *(codec.ticks(now - wait) for wait in waits))).fetchone()
    if row is None:
        return Turn.NOTHING
    minute = codec.ticks(now - timedelta(minutes=1))
    if connection.execute(_LATELY, (minute,)).fetchone()[0] >= per_minute:
        return Turn.RATE
    if _spent(connection, now) >= per_day:
        return Turn.BUDGET
    Rates(connection).count(_BUDGET, now)
    known = connection.execute(FIND, (row[0],)).fetchone()
    attempts = suggestion_of(known).attempts if known else 0
    asked = Suggestion(row[0], source, "asked", attempts + 1, now)
    put(connection, asked)
    return asked


def withdraw(connection: sqlite3.Connection, event_id: str) -> None:
    """Leave an event unasked for good, because it must not be shown to anybody outside."""
    known = Suggestion(event_id, "", "withheld", ATTEMPTS, datetime.fromtimestamp(0, UTC))
    put(connection, known)


def put(connection: sqlite3.Connection, said: Suggestion) -> None:
    connection.execute(
        _PUT,
        (
            said.event_id, codec.text(said.source)[:200], said.state, said.attempts, codec.ticks(said.asked_at),
            said.intent, said.confidence, codec.optional_text(said.because),
        ),
    )  # fmt: skip


def suggestion_of(row: codec.Row) -> Suggestion:
    """The record behind a row, columns in the table's order."""
    made = Suggestion(*row)
    return replace(made, asked_at=codec.moment(row[4]))


def _spent(connection: sqlite3.Connection, now: datetime) -> int:
    """Questions of this day (UTC)."""
    first = hour_of(now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0))
    found = connection.execute(
        "SELECT coalesce(sum(count), 0) FROM rate WHERE cause = ? AND hour >= ?", (_BUDGET, first)
    )
    return int(found.fetchone()[0])

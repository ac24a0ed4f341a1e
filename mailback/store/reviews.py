"""What waits for a person, within the store's transaction: queued, decided once, noted when nobody did in time.

An item changes its state only from the state that the caller believes it to be in, so of two people who decide at the
same time the second is told that the first has done so. Emits no log events.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from mailback.bounce.taxonomy import Kind
from mailback.store import codec
from mailback.store.records import Correction, Event, Review, Reviews, Suppression
from mailback.store.schema import event, review

_COLUMNS = tuple(column.name for column in review.columns)
_QUEUED = _COLUMNS[1 : _COLUMNS.index("state") + 1]
_PUT = (
    f"INSERT INTO review ({', '.join(_QUEUED)}) VALUES ({', '.join('?' * len(_QUEUED))})"
    " ON CONFLICT (event_id) DO NOTHING"
)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM review"
FIND = f"{_SELECT} WHERE id = ?"
"""number -> all columns of `review`"""
OF_EVENT = f"{_SELECT} WHERE event_id = ?"
"""event -> all columns of `review`"""
_LATE = f"{_SELECT} WHERE state = 'open' AND due <= ? AND breached_at IS NULL ORDER BY due, id LIMIT ?"
_STALE = "SELECT event_id FROM review WHERE state = 'open' AND at < ? ORDER BY id LIMIT ?"
_CLOSE = (
    "UPDATE review SET state = ?, closed_at = ?, closed_by = ?, note = ?, recipient = ?, recipient_key = ?, domain = ?,"
    " right_type = ?, right_subcategory = ?, right_intent = ? WHERE id = ? AND state = ?"
)
_REOPEN = (
    "UPDATE review SET state = 'open', closed_at = NULL, closed_by = NULL, note = NULL"
    " WHERE event_id = ? AND state <> 'open' AND substr(note, 1, ?) = ?"
)
_SETTLE = "UPDATE review SET state = ?, closed_at = ?, closed_by = ?, note = ? WHERE event_id = ? AND state = 'open'"

_UNANSWERED = (
    f"SELECT {', '.join(f'event.{column.name}' for column in event.columns)} FROM event"
    " WHERE due_at > ? AND due_at <= ? AND route = 'notify_owner' AND kind = 'reply' AND recipient_key IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM review WHERE review.event_id = event.id)"
    " AND NOT EXISTS (SELECT 1 FROM journal_recipient AS sent"
    " WHERE sent.recipient_key = event.recipient_key AND sent.at > event.at) ORDER BY due_at, id LIMIT ?"
)
_ANSWERED = (
    "UPDATE review SET state = 'approved', closed_at = ?, closed_by = ?, note = 'answered'"
    " WHERE state = 'open' AND route = 'escalate' AND reason = ? AND EXISTS (SELECT 1 FROM journal_recipient AS sent"
    " WHERE sent.recipient_key = review.recipient_key AND sent.at > review.at)"
)
UNANSWERED = "nobody answered in time"
"""The reason of an item that stands for a reply whose deadline passed."""

NEVER = 2**62
"""Where an item without a deadline stands among the others."""


class ReviewQueue:
    """The queue as one unit of work sees it."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, item: Review) -> bool:
        """Queue an item (its `id` is given here); False where the event has one already."""
        return self._connection.execute(_PUT, _row(item)).rowcount == 1

    def find(self, number: int) -> Review | None:
        row = self._connection.execute(FIND, (number,)).fetchone()
        return review_of(row) if row else None

    def of_event(self, event_id: str) -> Review | None:
        row = self._connection.execute(OF_EVENT, (event_id,)).fetchone()
        return review_of(row) if row else None

    def corrected(self, event_id: str) -> bool:
        """Whether a person has said that the event was told wrongly."""
        item = self.of_event(event_id)
        return item is not None and item.state == "corrected"

    def close(self, item: Review, believed: str) -> bool:
        """Write what was decided; False where the item is no longer in the state that was believed."""
        closed = (
            item.state, codec.optional_ticks(item.closed_at), codec.optional_text(item.closed_by),
            codec.optional_text(item.note), codec.optional_text(item.recipient), item.recipient_key, item.domain,
            item.right_type, item.right_subcategory, item.right_intent, item.id, believed,
        )  # fmt: skip
        return self._connection.execute(_CLOSE, closed).rowcount == 1

    def settle(self, event_ids: Sequence[str], state: str, by: str, note: str) -> int:
        """Close what is open for these events, because it was decided elsewhere; how many there were."""
        now = codec.ticks(datetime.now(UTC))
        return sum(
            self._connection.execute(_SETTLE, (state, now, codec.text(by), note, event_id)).rowcount
            for event_id in event_ids
        )

    def reopen(self, event_ids: Sequence[str], note: str) -> None:
        """Let what was closed with a note that begins so wait for a person again."""
        self._connection.executemany(_REOPEN, [(event_id, len(note), note) for event_id in event_ids])

    def breach(self, now: datetime, most: int) -> list[Review]:
        """Open items whose deadline has passed and was not noted yet; from now on it is."""
        late = [review_of(row) for row in self._connection.execute(_LATE, (codec.ticks(now), most)).fetchall()]
        self._connection.executemany(
            "UPDATE review SET breached_at = ? WHERE id = ?", [(codec.ticks(now), item.id) for item in late]
        )
        return late

    def unanswered(self, after: datetime, until: datetime, most: int) -> list[Event]:
        """Replies for their owner whose deadline lies in this time, and to whose writers nothing went since."""
        found = self._connection.execute(_UNANSWERED, (codec.ticks(after), codec.ticks(until), most)).fetchall()
        return [codec.event_of(row) for row in found]

    def answered(self, now: datetime, by: str) -> int:
        """Close what stands for a reply that nobody had answered, and that somebody has answered since."""
        return self._connection.execute(_ANSWERED, (codec.ticks(now), by, UNANSWERED)).rowcount

    def journal_is_fed(self, since: datetime) -> bool:
        """Whether anything went out since then that is known: else nobody can tell what was answered."""
        latest = self._connection.execute("SELECT max(at) FROM journal").fetchone()[0]
        return latest is not None and latest >= codec.ticks(since)

    def stale(self, before: datetime, most: int) -> list[str]:
        """The events of open items from before that time."""
        return [row[0] for row in self._connection.execute(_STALE, (codec.ticks(before), most)).fetchall()]


def _row(item: Review) -> tuple[object, ...]:
    wanted = None if item.wanted is None else json.dumps(codec.suppression_row(item.wanted))
    return (
        item.event_id, codec.ticks(item.at), item.kind, codec.optional_text(item.recipient), item.recipient_key,
        item.domain, item.type, item.subcategory, item.intent, item.confidence, item.route, codec.text(item.reason),
        int(item.alone), codec.optional_text(item.text), wanted, codec.optional_ticks(item.due),
        codec.optional_ticks(item.breached_at), item.state,
    )  # fmt: skip


def review_of(row: codec.Row) -> Review:
    """The record behind a row of `review`, columns in the table's order."""
    told = dict(zip(_COLUMNS, row, strict=True))
    told["kind"] = Kind(told["kind"])
    told["alone"] = bool(told["alone"])
    told["wanted"] = _suppression(told["wanted"])
    told["at"] = codec.moment(told["at"])
    for name in ("due", "breached_at", "closed_at"):
        told[name] = codec.optional_moment(told[name])
    return Review(**told)


def _suppression(text: str | None) -> Suppression | None:
    return None if text is None else codec.suppression_of((*json.loads(text), None, None, None))


Fetch = Callable[[str, tuple[object, ...]], Sequence[codec.Row]]


def figures(fetch: Fetch, since: datetime | None, until: datetime | None) -> Reviews:
    """The review in figures; `until` is exclusive."""
    now = codec.ticks(datetime.now(UTC))
    period = (codec.ticks(since) if since else -NEVER, codec.ticks(until) if until else NEVER)
    [(waiting, late)] = fetch("SELECT count(*), coalesce(sum(due <= ?), 0) FROM review WHERE state = 'open'", (now,))
    [(breached,)] = fetch("SELECT count(*) FROM review WHERE breached_at >= ? AND breached_at < ?", period)
    closed = "closed_at >= ? AND closed_at < ?"
    decided = fetch(f"SELECT state, count(*) FROM review WHERE {closed} GROUP BY state ORDER BY 2 DESC, 1", period)
    told = "coalesce(intent, type || '/' || subcategory, type, kind)"
    right = "coalesce(right_intent, right_type || '/' || right_subcategory)"
    corrections = fetch(
        f"SELECT {told}, {right}, count(*) FROM review WHERE state = 'corrected' AND {closed}"
        " GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2",
        period,
    )
    return Reviews(
        waiting, late, breached, {str(state): int(count) for state, count in decided},
        [Correction(*row) for row in corrections],
    )  # fmt: skip

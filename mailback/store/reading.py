"""Reads for the command line: events, suppressions and audit rows as streams, an address explained, a period counted.

Streams go page by page, each page its own short read: a listing that somebody pages through for an hour must not hold a
snapshot open, or the write-ahead log could not be folded back and would grow. Rows written meanwhile may or may not
show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, cast

from sqlalchemy import ColumnElement, Integer, Select, and_, case, func, or_, select, true, tuple_
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

from mailback.bounce.taxonomy import Kind
from mailback.store import audit as trail
from mailback.store import captures, codec, engagement, reviews, scores, suggestions
from mailback.store import statements as sql
from mailback.store.readers import ReaderPool
from mailback.store.records import (
    AuditEntry,
    Event,
    Explanation,
    JournalEntry,
    Review,
    Stats,
    Suggestion,
    Suppression,
    Tally,
)
from mailback.store.schema import audit, event, journal_recipient, review, suppression, suppression_change
from mailback.store.schema import engagement as engagement_table
from mailback.store.schema import journal as journal_table

_PAGE = 500
_DIALECT = sqlite_dialect()
_PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to read; every condition that is set must hold."""

    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    kind: Kind | None = None
    key: str | None = None
    """`mailback.address.key` of the recipient."""
    type: str | None = None
    subcategory: str | None = None
    intent: str | None = None
    route: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self.since is not None:
            found.append(event.c.at >= codec.ticks(self.since))
        if self.until is not None:
            found.append(event.c.at < codec.ticks(self.until))
        wanted = {
            "kind": self.kind, "recipient_key": self.key, "type": self.type, "subcategory": self.subcategory,
            "intent": self.intent, "route": self.route,
        }  # fmt: skip
        found += [event.c[name] == str(value) for name, value in wanted.items() if value is not None]
        return found


@dataclass(frozen=True, slots=True)
class ReviewFilter:
    """Which items of the review to read; every condition that is set must hold."""

    state: str | None = "open"
    overdue_at: datetime | None = None
    """Only those whose deadline has passed at that time."""
    kind: Kind | None = None
    type: str | None = None
    subcategory: str | None = None
    intent: str | None = None
    domain: str | None = None
    key: str | None = None
    reason: str | None = None
    """A part of the reason, in any case."""

    def conditions(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self.overdue_at is not None:
            found.append(review.c.due <= codec.ticks(self.overdue_at))
        if self.reason is not None:
            found.append(func.lower(review.c.reason).contains(self.reason.lower(), autoescape=True))
        wanted = {
            "state": self.state, "kind": self.kind, "type": self.type, "subcategory": self.subcategory,
            "intent": self.intent, "domain": self.domain, "recipient_key": self.key,
        }  # fmt: skip
        found += [review.c[name] == str(value) for name, value in wanted.items() if value is not None]
        return found


class Reads:
    """The questions of the command line, asked of one database."""

    def __init__(self, readers: ReaderPool) -> None:
        self._readers = readers

    def events(self, which: EventFilter, *, newest_first: bool, limit: int | None) -> Iterator[Event]:
        place = tuple_(event.c.at, event.c.id)
        order = (event.c.at.desc(), event.c.id.desc()) if newest_first else (event.c.at, event.c.id)

        def page(last: Row | None) -> Select[Any]:
            query = select(event).where(*which.conditions()).order_by(*order)
            if last is None:
                return query
            here = (last[2], last[0])
            return query.where(place < here if newest_first else place > here)

        return map(codec.event_of, islice(self._pages(page), limit))

    def suppressions(
        self,
        *,
        scope: str | None,
        active_at: datetime | None,
        type: str | None,  # noqa: A002
        over_at: datetime | None = None,
    ) -> Iterator[Suppression]:
        key = tuple_(suppression.c.address_key, suppression.c.scope)
        conditions: list[ColumnElement[bool]] = []
        if scope is not None:
            conditions.append(suppression.c.scope == scope)
        if type is not None:
            conditions.append(suppression.c.type == type)
        if active_at is not None:
            conditions.append(_active(codec.ticks(active_at)))
        if over_at is not None:
            conditions.append(_over_and_silent(codec.ticks(over_at)))

        def page(last: Row | None) -> Select[Any]:
            query = select(suppression).where(*conditions)
            query = query.order_by(suppression.c.address_key, suppression.c.scope)
            return query if last is None else query.where(key > (last[0], last[2]))

        return map(codec.suppression_of, self._pages(page))

    def journal(self, since: datetime | None, until: datetime | None, limit: int | None) -> Iterator[JournalEntry]:
        messages = journal_table.c
        conditions: list[ColumnElement[bool]] = []
        if since is not None:
            conditions.append(messages.at >= codec.ticks(since))
        if until is not None:
            conditions.append(messages.at < codec.ticks(until))
        place = tuple_(messages.at, messages.id)

        def page(last: Row | None) -> Select[Any]:
            query = select(journal_table).where(*conditions).order_by(messages.at.desc(), messages.id.desc())
            return query if last is None else query.where(place < (last[1], last[0]))

        return (
            codec.journal_of(row, tuple(who for (who,) in self._run(_recipients_of(row[0]))))
            for row in islice(self._pages(page), limit)
        )

    def reviews(self, which: ReviewFilter, limit: int | None) -> Iterator[Review]:
        due = func.coalesce(review.c.due, reviews.NEVER)
        place = tuple_(due, review.c.id)

        def page(last: Row | None) -> Select[Any]:
            query = select(review).where(*which.conditions()).order_by(due, review.c.id)
            if last is None:
                return query
            item = reviews.review_of(last)
            return query.where(place > (codec.ticks(item.due) if item.due else reviews.NEVER, item.id))

        return map(reviews.review_of, islice(self._pages(page), limit))

    def review(self, number: int) -> Review | None:
        rows = self._readers.fetch(reviews.FIND, (number,))
        return reviews.review_of(rows[0]) if rows else None

    def review_of(self, event_id: str) -> Review | None:
        rows = self._readers.fetch(reviews.OF_EVENT, (event_id,))
        return reviews.review_of(rows[0]) if rows else None

    def suggestion(self, event_id: str) -> Suggestion | None:
        rows = self._readers.fetch(suggestions.FIND, (event_id,))
        return suggestions.suggestion_of(rows[0]) if rows else None

    def event(self, event_id: str) -> Event | None:
        rows = self._run(select(event).where(event.c.id == event_id))
        return codec.event_of(rows[0]) if rows else None

    def explain(self, key: str) -> Explanation:
        fetch = self._readers.fetch
        return Explanation(
            key,
            [codec.suppression_of(row) for row in fetch(sql.SUPPRESSIONS_OF, (key,))],
            [codec.change_of(row) for row in fetch(sql.CHANGES_OF, (key,))],
            list(self.events(EventFilter(key=key), newest_first=False, limit=None)),
            scores.entries_of(fetch(scores.LEDGER, (key,))),
            engagement.find(fetch, key),
            [captures.capture_of(row) for row in fetch(captures.OF_ADDRESS, (key,))],
        )

    def audit_trail(self, *, subject: str | None, after: int) -> Iterator[AuditEntry]:
        return map(trail.entry_of, self._audit_rows(subject, after))

    def verify_audit(self) -> trail.Verification:
        return trail.verify(self._audit_rows(None, None))

    def stats(self, since: datetime | None, until: datetime | None) -> Stats:
        within = and_(true(), *EventFilter(since, until).conditions())
        tallies = [
            Tally(Kind(kind), type_, subcategory, count, mean)
            for kind, type_, subcategory, count, mean in self._run(_tally_query(within))
        ]
        return Stats(
            since,
            until,
            sum(tally.count for tally in tallies),
            tallies,
            self._counts(event.c.provenance, within),
            self._counts(event.c.action, and_(within, event.c.action.is_not(None))),
            self._confidence(within),
            self._processing(within),
            self._active_count(until or datetime.now(UTC)),
            self._change_counts(since, until),
            reviews.figures(self._readers.fetch, since, until),
            self._counts(event.c.intent, and_(within, event.c.intent.is_not(None))),
            self._counts(event.c.route, and_(within, event.c.route.is_not(None))),
        )

    def _counts(self, column: ColumnElement[Any], within: ColumnElement[bool]) -> dict[str, int]:
        return dict(cast("list[tuple[str, int]]", self._run(_count_query(column, within))))

    def _confidence(self, within: ColumnElement[bool]) -> dict[str, int]:
        rows = self._run(_count_query(_tenths(event.c.confidence), and_(within, event.c.confidence.is_not(None))))
        return {f"{step / 10:.1f}": count for step, count in sorted(rows)}

    def _processing(self, within: ColumnElement[bool]) -> dict[str, int]:
        measured = and_(within, event.c.processing_us.is_not(None))
        count = self._run(select(func.count()).select_from(event).where(measured))[0][0]
        if not count:
            return {}
        ordered = select(event.c.processing_us).where(measured).order_by(event.c.processing_us).limit(1)
        places = {name: min(count - 1, int(count * share)) for name, share in _PERCENTILES.items()}
        return {name: self._run(ordered.offset(place))[0][0] for name, place in places.items()}

    def _active_count(self, at: datetime) -> int:
        return int(self._run(select(func.count()).select_from(suppression).where(_active(codec.ticks(at))))[0][0])

    def _change_counts(self, since: datetime | None, until: datetime | None) -> dict[str, int]:
        at = suppression_change.c.at
        conditions = [at >= codec.ticks(since)] if since else []
        conditions += [at < codec.ticks(until)] if until else []
        return self._counts(suppression_change.c.verb, and_(true(), *conditions))

    def _audit_rows(self, subject: str | None, after: int | None) -> Iterator[trail.Stored]:
        conditions = [] if subject is None else [audit.c.subject == subject]

        def page(last: Row | None) -> Select[Any]:
            query = select(audit).where(*conditions).order_by(audit.c.sequence)
            start = after if last is None else last[0]
            return query if start is None else query.where(audit.c.sequence > start)

        return cast("Iterator[trail.Stored]", self._pages(page))

    def _pages(self, page: Callable[[Row | None], Select[Any]]) -> Iterator[Row]:
        last: Row | None = None
        while True:
            rows = self._run(page(last).limit(_PAGE))
            yield from rows
            if len(rows) < _PAGE:
                return
            last = rows[-1]

    def _run(self, query: Select[Any]) -> list[Row]:
        compiled = query.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
        order = cast("list[str]", getattr(compiled, "positiontup", None) or [])
        return self._readers.fetch(str(compiled), tuple(compiled.params[name] for name in order))


def _recipients_of(number: int) -> Select[Any]:
    return select(journal_recipient.c.recipient).where(journal_recipient.c.journal_id == number)


def _active(at: int) -> ColumnElement[bool]:
    return and_(suppression.c.lifted_at.is_(None), or_(suppression.c.until.is_(None), suppression.c.until > at))


def _over_and_silent(at: int) -> ColumnElement[bool]:
    """What ran out by its date, of addresses that nothing else holds and nothing was seen of since."""
    row, other = suppression.c, suppression.alias("other")
    read = engagement_table.c
    seen = select(read.address_key).where(
        read.address_key == row.address_key,
        or_(read.last_sent > row.until, read.last_open > row.until, read.last_click > row.until),
    )
    held = select(other.c.scope).where(
        other.c.address_key == row.address_key,
        or_(other.c.scope == "all", other.c.scope == row.scope),
        other.c.lifted_at.is_(None),
        or_(other.c.until.is_(None), other.c.until > at),
    )
    return and_(
        row.lifted_at.is_(None), row.until <= at, func.coalesce(row.type, "") != "complaint", ~seen.exists(),
        ~held.exists(),
    )  # fmt: skip


def _tenths(confidence: ColumnElement[float]) -> ColumnElement[int]:
    # 0.7 * 10 is a hair below 7, hence the addend; a full 1.0 belongs to the last step.
    steps = sql_cast(confidence * 10 + 1e-6, Integer)
    return case((steps > 9, 9), else_=steps)


def _tally_query(within: ColumnElement[bool]) -> Select[Any]:
    columns = (event.c.kind, event.c.type, event.c.subcategory)
    return (
        select(*columns, func.count(), func.avg(event.c.confidence))
        .where(within)
        .group_by(*columns)
        .order_by(func.count().desc(), *columns)
    )


def _count_query(column: ColumnElement[Any], within: ColumnElement[bool]) -> Select[Any]:
    return select(column, func.count()).where(within).group_by(column).order_by(func.count().desc(), column)

"""The clock of the review as a part of the service: notes once when nobody decided in time, and lets old items go.

Deadlines stand in the store, so a restart changes nothing: what passed meanwhile is noted at the start. Several hosts
on one store, or the old and the new workers of a reload, may each run a clock; each deadline is noted by one of them.

Log events, and what to do about each:
`clock.missed`      the deadline of an item has passed (`item`, `told`, `reason`, `late_s`, `route`). Decide it:
                       `mailback review show ITEM`. Also in the audit trail, `breached_at` in `mailback review list`.
`clock.unanswered`    a reply for its owner was not answered by its deadline (`event_id`, `intent`, `late_s`), as the
                      journal knows; it now waits in the review, with the route `escalate`. Answer it.
`clock.expired`       `count` items that nobody had decided for `review.expire_days` left the queue, and nothing was
                       done about them. `mailback review list --state expired` shows them.
`clock.unavailable`   the store cannot be used (`reason`, `advice`); the clock goes on as soon as it can.
`clock.available`     it can again. Nothing.
`clock.failed`        a pass failed in a way that was not foreseen; its traceback follows, the next pass tries again.
                       Report it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from mailback.review.queue import ESCALATE, alone
from mailback.service.log import get_logger
from mailback.service.periodic import PeriodicPart, look_until_stopped
from mailback.store.errors import StoreUnavailable
from mailback.store.records import Review
from mailback.store.reviews import UNANSWERED

if TYPE_CHECKING:
    from mailback.settings import Settings
    from mailback.store import Store, Transaction
    from mailback.store.records import Event

_EXPIRE_EVERY: Final = timedelta(hours=1)
_AT_ONCE: Final = 200
"""Items of one transaction, so that mail goes on being recorded meanwhile."""
_FED_WITHIN: Final = timedelta(days=1)
"""The journal is known to be fed where something went out within that time."""
_KEPT_EVERY: Final = timedelta(minutes=1)
"""How far was looked is written no more often than that: an idle service need not write to the disk."""
_PLACE: Final = "review:answers"
_NAME: Final = "mailback"
"""Who closes what expires, in the audit trail."""

_log = get_logger("review")


class ClockPart(PeriodicPart):
    """One worker that looks at the deadlines; runs beside whatever else the service does."""

    name = "review"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def run(self, ready: Callable[[], None]) -> int:
        settings = self._settings
        expire_days = settings.review.expire_days
        watch = settings.review.escalate_unanswered and settings.journal.outbound
        clock = Clock(timedelta(days=expire_days) if expire_days else None, unanswered=watch)
        return look_until_stopped(settings.store, ready, clock.look)


class Clock:
    """What one look does, and what it says."""

    def __init__(self, keep: timedelta | None, *, unanswered: bool = False) -> None:
        self._keep = keep
        self._unanswered = unanswered
        self._down = False
        self._next_expiry = datetime.min.replace(tzinfo=UTC)

    def look(self, store: Store, now: datetime) -> None:
        """Note the deadlines that have passed and let old items go; never raises."""
        try:
            while breached := store.submit(lambda transaction: _breached(transaction, now)).result():
                for item in breached:
                    _tell(item, now)
            if self._unanswered:
                self._escalate(store, now)
            self._expire(store, now)
        except StoreUnavailable as trouble:
            if not self._down:
                _log.error("clock.unavailable", reason=trouble.reason, advice=trouble.advice)
            self._down = True
        except Exception:
            _log.exception("clock.failed")
        else:
            if self._down:
                _log.info("clock.available")
            self._down = False

    def _escalate(self, store: Store, now: datetime) -> None:
        while escalated := store.submit(lambda transaction: _escalated(transaction, now)).result():
            for event in escalated:
                late = round((now - event.due_at).total_seconds()) if event.due_at else 0
                _log.warning("clock.unanswered", event_id=event.id, intent=event.intent, late_s=late)
            if len(escalated) < _AT_ONCE:
                break

    def _expire(self, store: Store, now: datetime) -> None:
        if self._keep is None or now < self._next_expiry:
            return
        before = now - self._keep
        total = 0
        while count := store.submit(lambda transaction: _expired(transaction, before)).result():
            total += count
        self._next_expiry = now + _EXPIRE_EVERY
        if total:
            _log.warning("clock.expired", count=total, kept_days=self._keep.days)


def _breached(transaction: Transaction, now: datetime) -> list[Review]:
    late = transaction.reviews.breach(now, _AT_ONCE)
    for item in late:
        detail = {"item": item.id, "event": item.event_id, "told": item.told, "due": item.due, "route": item.route}
        transaction.audit(_NAME, "breach", item.recipient_key or f"review:{item.id}", detail)
    return late


def _escalated(transaction: Transaction, now: datetime) -> list[Event]:
    """Queue the replies whose deadline has passed since the last look; close those that were answered since.

    The first look begins with what is due from then on: what lies longer back was somebody else's to watch.
    """
    queue = transaction.reviews
    place = transaction.place(_PLACE)
    looked = datetime.fromisoformat(str(place.position["until"])) if place is not None else now
    late = []
    if queue.journal_is_fed(now - _FED_WITHIN):
        queue.answered(now, _NAME)
        late = queue.unanswered(looked, now, _AT_ONCE)
    for event in late:
        queue.add(
            Review(
                id=0, event_id=event.id, at=event.at, kind=event.kind, recipient=event.recipient,
                recipient_key=event.recipient_key, domain=event.domain, type=event.type,
                subcategory=event.subcategory, intent=event.intent, confidence=event.confidence, route=ESCALATE,
                reason=UNANSWERED, alone=alone(event), text=None, wanted=None, due=event.due_at, breached_at=now,
            )
        )  # fmt: skip
        detail = {"event": event.id, "told": event.intent, "due": event.due_at, "route": event.route}
        transaction.audit(_NAME, "breach", event.recipient_key or event.id, detail)
    full = len(late) == _AT_ONCE
    # Several may be due at the same instant: those that are queued already are not found again.
    reached = late[-1].due_at - timedelta(microseconds=1) if full and late[-1].due_at else now
    if late or place is None or reached - looked > _KEPT_EVERY:
        transaction.put_place(_PLACE, {"until": reached.isoformat()})
    return late


def _expired(transaction: Transaction, before: datetime) -> int:
    old = transaction.reviews.stale(before, _AT_ONCE)
    if old:
        transaction.reviews.settle(old, "expired", _NAME, "nobody decided in time")
        transaction.audit(_NAME, "expire", "review", {"events": old})
    return len(old)


def _tell(item: Review, now: datetime) -> None:
    late = round((now - item.due).total_seconds()) if item.due else 0
    _log.warning(
        "clock.missed", item=item.id, kind=item.kind, told=item.told, route=item.route, reason=item.reason,
        late_s=late, advice=f"mailback review show {item.id}",
    )  # fmt: skip

"""The clock of the review as a part of the service: notes once when nobody decided in time, and lets old items go.

Deadlines stand in the store, so a restart changes nothing: what passed meanwhile is noted at the start. Several hosts
on one store, or the old and the new workers of a reload, may each run a clock; each deadline is noted by one of them.

Log events, and what to do about each:
`clock.missed`      the deadline of an item has passed (`item`, `told`, `reason`, `late_s`, `route`). Decide it:
                       `mailback review show ITEM`. Also in the audit trail, `breached_at` in `mailback review list`.
`clock.expired`       `count` items that nobody had decided for `review.expire_days` left the queue, and nothing was
                       done about them. `mailback review list --state expired` shows them.
`clock.unavailable`   the store cannot be used (`reason`, `advice`); the clock goes on as soon as it can.
`clock.available`     it can again. Nothing.
`clock.failed`        a pass failed in a way that was not foreseen; its traceback follows, the next pass tries again.
                       Report it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from mailback.service.log import get_logger
from mailback.store.errors import StoreUnavailable

if TYPE_CHECKING:
    from mailback.settings import Settings
    from mailback.store import Store, Transaction
    from mailback.store.records import Review

EVERY_S: Final = 5.0
"""Seconds between two looks; the shortest deadline that ships is five minutes."""
_EXPIRE_EVERY: Final = timedelta(hours=1)
_AT_ONCE: Final = 200
"""Items of one transaction, so that mail goes on being recorded meanwhile."""
_NAME: Final = "mailback"
"""Who closes what expires, in the audit trail."""

_log = get_logger("review")


class ClockPart:
    """One worker that looks at the deadlines; runs beside whatever else the service does."""

    name = "review"
    workers = 1

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def open(self) -> None:
        """Nothing to open: it listens nowhere."""

    def close(self) -> None:
        """Nothing was opened."""

    def run(self, ready: Callable[[], None]) -> int:
        from mailback.store import Store

        # Taken up between two looks, never within one; threads that the store starts inherit the mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        settings = self._settings
        expire_days = settings.review.expire_days
        clock = Clock(timedelta(days=expire_days) if expire_days else None)
        with Store.open(settings.store.url, busy_timeout_s=settings.store.busy_timeout_s) as store:
            ready()
            while True:
                clock.look(store, datetime.now(UTC))
                if signal.sigtimedwait([signal.SIGTERM], EVERY_S) is not None:
                    return 0


class Clock:
    """What one look does, and what it says."""

    def __init__(self, keep: timedelta | None) -> None:
        self._keep = keep
        self._down = False
        self._next_expiry = datetime.min.replace(tzinfo=UTC)

    def look(self, store: Store, now: datetime) -> None:
        """Note the deadlines that have passed and let old items go; never raises."""
        try:
            while breached := store.submit(lambda transaction: _breached(transaction, now)).result():
                for item in breached:
                    _tell(item, now)
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

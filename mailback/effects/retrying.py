"""Retry advice kept: what an event opens, moves on or closes in the table of messages worth sending again.

Runs within the store's transaction, right after the event is recorded. Postfix tries again by itself what is still in
its queue; this is about what was given up. Mailback sends nothing: an application asks what is due (`mailback retry
due`, `watch`), sends it under a Message-ID of its own and says so (`mailback retry done`). It is not told to send what
the breaker of a provider would hold: `Passing`.

Emits no log events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mailback import address
from mailback.bounce.taxonomy import Action, Kind
from mailback.effects.senders import Senders
from mailback.policy import breaker as machine
from mailback.policy.retry import RETRIED, RetryRules, advise
from mailback.store.records import Event, Retry

if TYPE_CHECKING:
    from mailback.policy.handling import Handling
    from mailback.settings import Settings
    from mailback.store import Store
    from mailback.store.records import Breaker
    from mailback.store.retries import Retries
    from mailback.store.transaction import Recorded, Transaction


@dataclass(frozen=True, slots=True)
class Retrying:
    """The table as the engine keeps it."""

    rules: RetryRules

    @classmethod
    def of(cls, settings: Settings) -> Retrying:
        """With the numbers of `[retry]`."""
        told = settings.retry
        return cls(
            RetryRules(
                multiples=told.multiples,
                reader_multiples=told.reader_multiples,
                reader_days=told.reader_days,
                jitter=told.jitter,
                cost_limit=told.cost_limit,
                give_up_days=told.give_up_days,
            )
        )

    def heard(self, transaction: Transaction, event: Event, recorded: Recorded, handling: Handling | None) -> None:
        """What an event that was just recorded, and is believed, says about a message that failed before or now."""
        if event.recipient_key is None or handling is None:
            return
        if event.kind is Kind.DELIVERED:
            self._delivered(transaction.retries, event.recipient_key, event)
        elif event.kind is Kind.BOUNCE and handling.action in RETRIED and not event.permanent:
            self._failed(transaction, event.recipient_key, event, recorded, handling)
        elif event.kind is Kind.BOUNCE and handling.action is Action.SUPPRESS_PERMANENTLY:
            transaction.retries.close_all(event.recipient_key, f"{event.type}/{event.subcategory}", event.at)

    def _delivered(self, retries: Retries, key: str, event: Event) -> None:
        if event.original_message_id is None:
            return
        known = retries.of_message(key, event.original_message_id)
        if known is not None and event.at >= known.first_at:
            retries.close(known.id, "closed", "delivered", event.at)

    def _failed(self, transaction: Transaction, key: str, event: Event, recorded: Recorded, handling: Handling) -> None:
        retries = transaction.retries
        thread = event.original_message_id or recorded.event_id
        known = retries.of_message(key, thread)
        if known is None and event.campaign:
            known = retries.sent_again(key, event.campaign)
        if known is not None and known.event_id == recorded.event_id:
            failed = _told_again(known, event)
        elif not (recorded.new or recorded.better):
            return
        elif known is not None:
            failed = _once_more(known, event, recorded.event_id)
        else:
            failed = _first(key, event, recorded.event_id, thread)
        if failed == known:
            return
        told_again = known is not None and failed.failures == known.failures
        ended = told_again and failed.state != "open"
        retries.put(failed if ended else self._advised(transaction, failed, handling))

    def _advised(self, transaction: Transaction, failed: Retry, handling: Handling) -> Retry:
        retries, key = transaction.retries, failed.address_key
        sent = [message for message in (failed.message_id, failed.retried_as) if message]
        now = datetime.now(UTC)
        if retries.delivered(key, sent, failed.failed_at):
            return replace(failed, state="closed", because="delivered", due_at=None, closed_at=now)
        if any(s.until is None and s.type == "hard_bounce" for s in transaction.active(key, now)):
            return replace(failed, state="closed", because="the address is dead", due_at=None, closed_at=now)
        reader = retries.reader(key, failed.failed_at, self.rules.reader_days)
        advice = advise(failed, handling, self.rules, reader=reader)
        state = "open" if advice.due is not None else "exhausted"
        closed = None if advice.due is not None else now
        return replace(failed, state=state, because=advice.because, due_at=advice.due, closed_at=closed)


def _first(key: str, event: Event, event_id: str, thread: str) -> Retry:
    assert event.recipient is not None
    return Retry(
        id=0, address_key=key, address=event.recipient, thread=thread, message_id=event.original_message_id,
        retried_as=None, event_id=event_id, campaign=event.campaign, list_id=event.list_id, provider=event.provider,
        type=event.type, subcategory=event.subcategory, failures=1, first_at=event.at, failed_at=event.at, due_at=None,
        state="open", because="", closed_at=None,
    )  # fmt: skip


def _told_again(known: Retry, event: Event) -> Retry:
    """Another report of the last failure; the earliest time that any of them tells counts."""
    only = known.failures == 1
    return replace(
        known, failed_at=min(known.failed_at, event.at), first_at=event.at if only else min(known.first_at, event.at)
    )


def _once_more(known: Retry, event: Event, event_id: str) -> Retry:
    """The same message failed again; a report that comes late may tell of an earlier time."""
    latest = event.at >= known.failed_at
    return replace(
        known,
        failures=known.failures + 1,
        first_at=min(known.first_at, event.at),
        failed_at=max(known.failed_at, event.at),
        event_id=event_id if latest else known.event_id,
        type=event.type if latest else known.type,
        subcategory=event.subcategory if latest else known.subcategory,
        provider=event.provider if latest else known.provider,
    )


@dataclass(slots=True)
class Passing:
    """Which of the messages that are due the breakers let pass, as they stand at one moment.

    A breaker that is half open, or slows down, lets one message pass at a time: the one that has waited longest is
    told, the rest stays. Nothing is claimed here, because nothing is sent here: the front claims when it comes.
    """

    store: Store
    senders: Senders
    now: datetime
    held: dict[int, Breaker] = field(default_factory=dict)
    """What is kept back, by its number, and for which breaker; filled as `of` goes on."""
    _standing: dict[str, list[Breaker]] = field(init=False)

    def __post_init__(self) -> None:
        self._standing = defaultdict(list)
        for breaker in self.store.breakers():
            standing = machine.at(breaker, self.now)
            if standing.state != machine.CLOSED:
                self._standing[standing.provider].append(standing)

    def of(self, due: Iterable[Retry]) -> Iterator[Retry]:
        """Those that may be sent now, in the order given. Raises StoreUnavailable."""
        for one in due:
            breaker = self._holding(one)
            if breaker is None:
                yield one
            else:
                self.held[one.id] = breaker

    def _holding(self, one: Retry) -> Breaker | None:
        standing = self._standing.get(one.provider or address.domain(one.address))
        if not standing:
            return None
        failed = self.store.event(one.event_id)
        concerned = self.senders.concerned(standing, failed.original_sender if failed is not None else None)
        passed = [(breaker, machine.claimed(breaker, one.address_key, self.now)) for breaker in concerned]
        for breaker, after in passed:
            if after is None:
                return breaker
        for breaker, after in passed:
            assert after is not None
            standing[standing.index(breaker)] = after
        return None

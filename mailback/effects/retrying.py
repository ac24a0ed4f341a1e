"""Retry advice kept: what an event opens, moves on or closes in the table of messages worth sending again.

Runs within the store's transaction, right after the event is recorded. Postfix tries again by itself what is still in
its queue; this is about what was given up. Mailback sends nothing: an application asks what is due (`mailback retry
due`, `watch`), sends it under a Message-ID of its own and says so (`mailback retry done`). What may be sent
just now is `mailback.outbound.passing`.

Emits no log events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mailback.bounce.taxonomy import Action, Kind
from mailback.policy.retry import RETRIED, RetryRules, advise
from mailback.store.records import Event, Retry

if TYPE_CHECKING:
    from mailback.policy.handling import Handling
    from mailback.settings import Settings
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

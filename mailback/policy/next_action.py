"""The next best action for a contact, by all that has happened: stop, escalate, reply, wait or nudge. Pure.

One reply is not enough to tell. In this order, the first that holds:

    stop      the address is suppressed for everything, or has left; or the last word of the person is a no
    escalate  the last reply is not safe, is about law, security or billing, or waits for a person; or a failed delivery
    reply     the person wrote last, and somebody should answer
    wait      until the person is back, until the day on which to ask again, for a day after our last message, or for a
              week after whatever happened last
    nudge     after that: the day has come, or it has been quiet for more than a week

What happened before our own last message is answered by it, except a no, which stands until the person says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum

from mailback.bounce.taxonomy import Action, Kind, Subcategory
from mailback.reply.intent import Intent
from mailback.reply.routing import Route
from mailback.store.records import Event, Suppression


class Step(StrEnum):
    """What to do next."""

    STOP = "stop"
    ESCALATE = "escalate"
    REPLY = "reply"
    WAIT = "wait"
    NUDGE = "nudge"


AFTER_SENDING = timedelta(hours=24)
"""Nothing more is sent for so long after our last message."""
QUIET = timedelta(days=7)
"""Longer without anything happening is a reason to write again."""
LATER = timedelta(days=30)
"""How long a "not now" that names no day is left alone."""

_NOES = frozenset({Intent.OBJECTION, Intent.UNSUBSCRIBE})
_SENSITIVE = frozenset({Intent.LEGAL, Intent.SECURITY, Intent.BILLING})
_FAILURES = frozenset({Kind.BOUNCE, Kind.DELAY})
_FOR_PEOPLE = frozenset({Route.REQUIRE_APPROVAL.value, Route.ESCALATE.value})


@dataclass(frozen=True, slots=True)
class NextAction:
    """What to do about a contact, and why."""

    step: Step
    because: str
    until: datetime | None = None
    """Until when to wait, or to answer."""
    event_id: str | None = None
    """The event that decides."""


def next_action(
    events: Sequence[Event], sent: Sequence[datetime], suppressions: Iterable[Suppression], now: datetime
) -> NextAction:
    """What to do about a contact; `events` in any order, `sent` the times of our messages, `suppressions` his own."""
    held = next((s for s in suppressions if s.scope == "all" and s.active(now)), None)
    if held is not None:
        return NextAction(Step.STOP, f"suppressed: {held.reason}", held.until, held.event_id)
    ordered = sorted(events, key=lambda event: event.at)
    last_sent = max(sent, default=None)
    replies = [event for event in ordered if event.intent is not None]
    person = next((event for event in reversed(replies) if event.kind is Kind.REPLY), None)
    automatic = next((event for event in reversed(replies) if event.kind is Kind.AUTO_REPLY), None)
    failure = next((event for event in reversed(ordered) if event.kind in _FAILURES), None)
    return (
        _left(automatic, person)
        or (_of_person(person, last_sent, now) if person is not None else None)
        or _failed(failure, last_sent)
        or _away(automatic, now)
        or _by_time(ordered, last_sent, now)
    )


def _left(automatic: Event | None, person: Event | None) -> NextAction | None:
    """Somebody who has left is not written to, unless he wrote himself since."""
    if automatic is None or automatic.subcategory != Subcategory.LEFT_ORGANISATION:
        return None
    if person is not None and person.at > automatic.at:
        return None
    instead = _told(automatic, "new_contact")
    because = f"has left; write to {instead} instead" if instead else "has left"
    return NextAction(Step.STOP, because, event_id=automatic.id)


def _of_person(event: Event, last_sent: datetime | None, now: datetime) -> NextAction | None:
    """By the last thing that the person wrote; None where it is answered and asks for nothing more."""
    intent = Intent(event.intent) if event.intent in _INTENTS else Intent.UNCLASSIFIED
    answered = last_sent is not None and last_sent > event.at
    waits = event.route in _FOR_PEOPLE and event.action is Action.MANUAL_REVIEW
    if not answered and (verdict := _verdict(event)) not in (None, "clean"):
        return NextAction(Step.ESCALATE, f"the last reply is {verdict}", event.due_at, event.id)
    if not answered and (intent in _SENSITIVE or waits):
        return NextAction(Step.ESCALATE, f"the last reply ({intent.value}) is for a person", event.due_at, event.id)
    if intent in _NOES:
        return NextAction(Step.STOP, f"said no: {intent.value}", event_id=event.id)
    if intent is Intent.NOT_NOW:
        return _later(event, now)
    if intent is Intent.OUT_OF_OFFICE:
        return _away(event, now)
    if answered:
        return None
    return NextAction(Step.REPLY, f"wrote last: {intent.value}", event.due_at, event.id)


def _later(event: Event, now: datetime) -> NextAction:
    day = _day(event, "follow_up_date")
    until = day or event.at + LATER
    if now < until:
        because = "asked to be written to then" if day else "asked not to be written to now"
        return NextAction(Step.WAIT, because, until, event.id)
    return NextAction(Step.NUDGE, "the time has come that was asked for", event_id=event.id)


def _failed(failure: Event | None, last_sent: datetime | None) -> NextAction | None:
    """Our last message did not arrive, or not yet."""
    if failure is None or last_sent is None or failure.at < last_sent:
        return None
    if failure.action is Action.MANUAL_REVIEW:
        return NextAction(Step.ESCALATE, f"the last message failed: {failure.subcategory}", event_id=failure.id)
    return NextAction(
        Step.WAIT, f"the last message did not arrive: {failure.subcategory}", failure.at + QUIET, failure.id
    )  # fmt: skip


def _away(event: Event | None, now: datetime) -> NextAction | None:
    """Until the day of return; None where none is told, or it has passed."""
    until = _day(event, "return_date") if event is not None else None
    if event is None or until is None or now >= until:
        return None
    return NextAction(Step.WAIT, "is away", until, event.id)


def _by_time(ordered: Sequence[Event], last_sent: datetime | None, now: datetime) -> NextAction:
    if last_sent is not None and now - last_sent < AFTER_SENDING:
        return NextAction(Step.WAIT, "was written to less than a day ago", last_sent + AFTER_SENDING)
    last = max([*(event.at for event in ordered[-1:]), *([last_sent] if last_sent else [])], default=None)
    if last is None:
        return NextAction(Step.WAIT, "nothing is known about it")
    if now - last > QUIET:
        return NextAction(Step.NUDGE, f"nothing has happened for {(now - last).days} days")
    return NextAction(Step.WAIT, "something happened within a week", last + QUIET)


_INTENTS = frozenset(Intent)


def _verdict(event: Event) -> object:
    safety = (event.reply or {}).get("safety")
    return safety.get("verdict") if isinstance(safety, dict) else None


def _told(event: Event, name: str) -> str | None:
    value = (event.reply or {}).get(name)
    return value if isinstance(value, str) else None


def _day(event: Event, name: str) -> datetime | None:
    """The beginning of a day that a reply tells, UTC."""
    told = _told(event, name)
    return datetime.combine(date.fromisoformat(told), time(), UTC) if told else None

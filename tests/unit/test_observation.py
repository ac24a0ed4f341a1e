"""What no message tells (a log line, a webhook, a row) goes the one way: verdict, decision, one event an outcome."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mailback.bounce.taxonomy import Action, Kind, Provenance
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.observation import Observation
from mailback.reports.report import DeliveryFailure
from mailback.settings import Settings
from mailback.store import Store, Transaction
from mailback.store.records import JournalEntry
from tests.support.mail import dsn

WHEN = datetime(2026, 11, 20, 12, tzinfo=UTC)
ENVELOPE = Envelope(sender="", recipients=("bounces@sender.test",), source=Source.SMTPD, received_at=WHEN)


@pytest.fixture
def engine(store: Store) -> Engine:
    return Engine(Settings(), store)


def bounced(recipient: str = "gone@receiver.test", message_id: str | None = "<1@sender.test>") -> Observation:
    failure = DeliveryFailure(recipient, status="5.1.1", smtp_code="550", diagnostic="550 5.1.1 User unknown")
    return Observation(
        WHEN, Kind.BOUNCE, Source.LOG, "postfix log", failure, identity=f"{recipient} bounced",
        message_id=message_id, because="our own MTA says so", sender="news@sender.test", queue_id="4V1x2y3z4A",
    )  # fmt: skip


def delivered(recipient: str = "bob@receiver.test") -> Observation:
    failure = DeliveryFailure(recipient, action="delivered", status="2.0.0", diagnostic="250 2.0.0 Ok")
    return replace(bounced(recipient), kind=Kind.DELIVERED, failure=failure)


def test_a_refusal_without_a_message_suppresses_like_a_bounce(engine: Engine, store: Store) -> None:
    [told] = engine.observe([bounced()]).result()
    assert told.new
    assert told.decision is not None
    assert told.decision.action is Action.SUPPRESS_PERMANENTLY
    held = store.lookup("gone@receiver.test")
    assert held is not None
    assert held.event_id == told.event_id


def test_the_same_failure_by_log_and_by_bounce_is_one_event_in_either_order(engine: Engine, store: Store) -> None:
    engine.observe([bounced()]).result()
    outcome = engine.inbound(ENVELOPE, dsn("gone@receiver.test", message_id="<1@sender.test>"))
    [event] = store.events()
    assert outcome.event_id == event.id
    engine.inbound(ENVELOPE, dsn("other@receiver.test", message_id="<2@sender.test>"))
    [told] = engine.observe([bounced("other@receiver.test", "<2@sender.test>")]).result()
    assert not told.new
    assert len(list(store.events())) == 2


def test_each_failed_try_is_news_of_its_own_and_suppresses_nobody(engine: Engine, store: Store) -> None:
    failure = DeliveryFailure("slow@receiver.test", action="delayed", status="4.2.2", diagnostic="452 4.2.2 full")
    tries = [
        replace(bounced(), kind=Kind.DELAY, failure=failure, identity=f"try {number}", attempts=number)
        for number in (1, 2, 2)
    ]
    engine.observe(tries).result()
    assert [event.delivery_attempts for event in store.events()] == [1, 2]
    assert {event.type for event in store.events()} == {"delayed_bounce"}
    assert store.lookup("slow@receiver.test") is None


def test_the_journal_proves_what_the_log_says_and_tells_the_campaign(engine: Engine, store: Store) -> None:
    entry = JournalEntry(
        WHEN - timedelta(minutes=1), "<1@sender.test>", "news@sender.test", ("gone@receiver.test",), campaign="spring"
    )
    store.submit(lambda transaction: transaction.journal(entry)).result()
    engine.observe([bounced(), bounced("else@receiver.test")]).result()
    known, unknown = sorted(store.events(), key=lambda event: event.recipient != "gone@receiver.test")
    assert (known.provenance, known.campaign) == (Provenance.JOURNAL, "spring")
    assert (unknown.provenance, unknown.campaign) == (Provenance.AUTHENTICATED, None)


def test_a_log_that_begins_too_late_is_joined_by_the_queue_id(engine: Engine, store: Store) -> None:
    entry = JournalEntry(
        WHEN - timedelta(hours=1), "<1@sender.test>", "news@sender.test", ("gone@receiver.test",), queue_id="4V1x2y3z4A"
    )
    store.submit(lambda transaction: transaction.journal(entry)).result()
    engine.observe([bounced(message_id=None)]).result()
    engine.inbound(ENVELOPE, dsn("gone@receiver.test", message_id="<1@sender.test>"))
    [event] = store.events()
    assert event.original_message_id == "<1@sender.test>"


def test_mail_of_somebody_else_leaves_no_trace_unless_the_journal_knows_it(engine: Engine, store: Store) -> None:
    [told] = engine.observe([replace(bounced(), ours=False)]).result()
    assert told.event_id is None
    assert list(store.events()) == []
    entry = JournalEntry(WHEN, "<1@sender.test>", "", ("gone@receiver.test",))
    store.submit(lambda transaction: transaction.journal(entry)).result()
    [told] = engine.observe([replace(bounced(), ours=False)]).result()
    assert told.new


def test_a_batch_and_its_place_are_kept_together_or_not_at_all(engine: Engine, store: Store) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("the place cannot be written")

    future = engine.observe([delivered()], fails)
    with pytest.raises(RuntimeError):
        future.result()
    assert list(store.events()) == []
    engine.observe([delivered()], lambda transaction: transaction.put_place("log:x", {"offset": 7})).result()
    place = store.place("log:x")
    assert place is not None
    assert place.position == {"offset": 7}
    assert [event.kind for event in store.events()] == [Kind.DELIVERED]


def test_places_are_found_by_the_beginning_of_their_names(store: Store) -> None:
    def put(transaction: Transaction) -> None:
        for name in ("queue:a", "queue:b", "log:a"):
            transaction.put_place(name, {})

    store.submit(put).result()
    store.submit(lambda transaction: transaction.forget_place("queue:a")).result()
    assert [place.name for place in store.places("queue:")] == ["queue:b"]

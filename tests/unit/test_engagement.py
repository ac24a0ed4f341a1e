"""What recipients did with our mail: counted once whatever the order, handed to verdicts, kept with events."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from mailback.bounce.taxonomy import Kind
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.observation import Interaction, Observation
from mailback.reports.report import DeliveryFailure
from mailback.settings import Settings
from mailback.store import Store
from mailback.store.records import Engagement, Reading
from tests.support.mail import dsn

WHEN = datetime(2026, 11, 20, 12, tzinfo=UTC)
WHO = "ada@receiver.test"


@pytest.fixture
def engine(store: Store) -> Engine:
    return Engine(Settings(), store)


def arrived(number: int, at: datetime = WHEN) -> Observation:
    failure = DeliveryFailure(WHO, action="delivered", status="2.0.0", diagnostic="250 Ok")
    return Observation(at, Kind.DELIVERED, Source.LOG, "test", failure, str(number), f"<{number}@sender.test>")


def opened(number: int, at: datetime = WHEN, what: Reading = Reading.OPEN) -> Interaction:
    return Interaction(at, what, WHO.upper(), f"{what}-{number}")


def test_facts_are_counted_once_in_any_order(engine: Engine, store: Store) -> None:
    facts: list[Observation | Interaction] = []
    for number in range(5):
        at = WHEN + timedelta(days=number)
        facts += [arrived(number, at), opened(number, at), opened(number, at, Reading.CLICK)]
    facts = [*facts, *facts[:7]]
    random.Random(5).shuffle(facts)
    for start in range(0, len(facts), 4):
        engine.observe(facts[start : start + 4]).result()
    last = WHEN + timedelta(days=4)
    assert store.engagement(WHO) == Engagement(WHO, 5, 5, 5, last, last, last)
    assert store.engagement("nobody@receiver.test") is None


def test_an_open_told_late_moves_no_time_back(engine: Engine, store: Store) -> None:
    engine.observe([opened(1, WHEN), opened(2, WHEN - timedelta(days=9))]).result()
    known = store.engagement(WHO)
    assert known is not None
    assert (known.opens, known.last, known.last_click, known.sent) == (2, WHEN, None, 0)
    assert known.is_recent(WHEN + timedelta(days=30), 30)
    assert not known.is_recent(WHEN + timedelta(days=31), 30)


def test_an_event_keeps_how_engaged_its_recipient_was_then(engine: Engine, store: Store) -> None:
    engine.observe([arrived(1), opened(1)]).result()
    envelope = Envelope(sender="", recipients=("bounces@sender.test",), source=Source.SMTPD, received_at=WHEN)
    engine.inbound(envelope, dsn(WHO, message_id="<2@sender.test>"))
    engine.inbound(envelope, dsn("stranger@receiver.test", message_id="<3@sender.test>"))
    kept = {event.recipient: event.engagement for event in store.events(kind=Kind.BOUNCE)}
    assert kept == {
        WHO: {"sent": 1, "opens": 1, "clicks": 0, "last": "2026-11-20T12:00:00Z"},
        "stranger@receiver.test": None,
    }


def test_a_recent_reader_is_doubted_to_be_gone_and_an_idle_one_is_not(engine: Engine, store: Store) -> None:
    """The layer weighs a tenth: it moves the confidence, and the risk of losing a reader."""
    idle = [
        Observation(WHEN, Kind.DELIVERED, Source.LOG, "test",
                    DeliveryFailure("idle@receiver.test", action="delivered"), f"i{n}", f"<i{n}@sender.test>")
        for n in range(20)
    ]  # fmt: skip
    engine.observe([arrived(1), opened(1), opened(2, what=Reading.CLICK), *idle]).result()
    gone = [
        Observation(WHEN, Kind.BOUNCE, Source.LOG, "test",
                    DeliveryFailure(who, status="5.1.1", smtp_code="550", diagnostic="550 5.1.1 User unknown"), who,
                    f"<gone-{who}>")
        for who in (WHO, "idle@receiver.test", "unknown@receiver.test")
    ]  # fmt: skip
    engine.observe(gone).result()
    told = {event.recipient: event for event in store.events(kind=Kind.BOUNCE)}
    reader, still, unknown = told[WHO], told["idle@receiver.test"], told["unknown@receiver.test"]
    assert {event.subcategory for event in told.values()} == {"user_unknown"}
    assert [item["says"] for item in reader.evidence if item["layer"] == "engagement"] == [
        "server_temporarily_unavailable"
    ]
    assert [item["says"] for item in still.evidence if item["layer"] == "engagement"] == ["user_unknown"]
    assert not [item for item in unknown.evidence if item["layer"] == "engagement"]
    assert (reader.confidence or 0) < (unknown.confidence or 0)
    assert [event.risk["engagement"] for event in (reader, unknown, still) if event.risk] == [0.2, 0.5, 0.8]


def test_an_open_is_counted_once_though_the_batch_is_handed_in_again(engine: Engine, store: Store) -> None:
    first = engine.observe([opened(1)]).result()
    second = engine.observe([opened(1)]).result()
    assert [first[0].new, second[0].new] == [True, False]
    known = store.engagement(WHO)
    assert known is not None
    assert known.opens == 1


def test_maintenance_forgets_which_opens_were_counted_long_ago_and_keeps_the_counts(
    engine: Engine, store: Store
) -> None:
    engine.observe([opened(1, WHEN - timedelta(days=900)), opened(2)]).result()
    store.submit(lambda transaction: transaction.put_place("table:old", {"offset": 1})).result()
    assert store.forget_reading(WHEN - timedelta(days=400)) == 1
    assert store.place("table:old") is not None, "it was put there just now"
    assert store.forget_reading(datetime.now(UTC) + timedelta(days=1))
    assert store.place("table:old") is None
    known = store.engagement(WHO)
    assert known is not None
    assert known.opens == 2

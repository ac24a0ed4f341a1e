"""Breakers on a real store: what trips one, what never may, and that an event and its consequence are one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailback.bounce.taxonomy import Kind
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.observation import Observation
from mailback.policy.breaker import CLOSED, HALF_OPEN, OPEN, at
from mailback.reports.report import DeliveryFailure
from mailback.settings import Settings
from mailback.store import Store
from mailback.store.records import Breaker
from tests.support.engines import engine_of
from tests.support.mail import dsn

BLOCKED = "550 5.7.1 Service unavailable; client [192.0.2.25] blocked using a block list"
GOOGLE = "gmail-smtp-in.l.google.com"
OURS = '[mail]\nsending_domains = ["sender.test"]\nsending_addresses = ["192.0.2.25"]\n'


@pytest.fixture
def engine(store: Store) -> Engine:
    return engine_of(Settings.loads(OURS), store)


def outcome(
    number: int,
    diagnostic: str = BLOCKED,
    *,
    domain: str = "gmail.com",
    mx: str = GOOGLE,
    ago: float = 0,
    kind: Kind = Kind.BOUNCE,
) -> Observation:
    action = {Kind.BOUNCE: "failed", Kind.DELAY: "delayed", Kind.DELIVERED: "delivered"}[kind]
    failure = DeliveryFailure(
        f"p{number}@{domain}", status=diagnostic.split()[1], smtp_code=diagnostic[:3], diagnostic=diagnostic,
        remote_mta=mx, action=action,
    )  # fmt: skip
    return Observation(
        datetime.now(UTC) - timedelta(seconds=ago), kind, Source.LOG, "postfix log", failure,
        identity=f"{kind}{number}{domain}", message_id=f"<{kind}{number}@sender.test>", because="the log",
        sender="news@sender.test",
    )  # fmt: skip


def tell(engine: Engine, *observations: Observation) -> list[str]:
    """Hand the observations in; what the operator hears."""
    return [note for told in engine.observe(observations).result() for note in told.notes]


def one(store: Store) -> Breaker:
    [breaker] = store.breakers()
    return at(breaker, datetime.now(UTC))


def move(store: Store, seconds: float) -> None:
    """Let time pass for all breakers."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute(
            "UPDATE breaker SET since = since - ?1, until = until - ?1, probe_at = probe_at - ?1", (seconds * 1e6,)
        )


def test_a_single_refusal_holds_nothing_and_the_tenth_within_the_hour_does(engine: Engine, store: Store) -> None:
    assert tell(engine, *map(outcome, range(9))) == []
    assert store.breakers() == []
    [note] = tell(engine, outcome(9))
    assert "google/ip/192.0.2.25 opened by address-blocked" in note
    assert "10 of 10 within the hour" in note
    breaker = one(store)
    assert (breaker.state, breaker.side, breaker.sender) == (OPEN, "ip", "192.0.2.25")
    assert store.lookup("p1@gmail.com") is None, "the address is not to blame"
    assert next(iter(store.audit_trail(subject=breaker.name))).detail["state"] == OPEN


def test_few_refusals_among_many_deliveries_hold_nothing(engine: Engine, store: Store) -> None:
    tell(engine, *(outcome(n, "250 2.0.0 OK", kind=Kind.DELIVERED) for n in range(200)))
    tell(engine, *(outcome(n) for n in range(15)))
    assert store.breakers() == []
    tell(engine, *(outcome(n) for n in range(15, 30)))
    assert one(store).state == OPEN


def test_refusals_of_recipients_never_count(engine: Engine, store: Store) -> None:
    tell(engine, *(outcome(n, "550 5.1.1 The email account that you tried to reach does not exist") for n in range(60)))
    tell(engine, *(outcome(n, "452 4.2.2 The email account that you tried to reach is over quota") for n in range(60)))
    assert store.breakers() == []


def test_what_happened_long_ago_moves_nothing_now(engine: Engine, store: Store) -> None:
    tell(engine, *(outcome(n, ago=3700) for n in range(40)))
    assert store.breakers() == []


def test_the_same_refusal_told_twice_counts_once(engine: Engine, store: Store) -> None:
    for _ in range(3):
        tell(engine, *(outcome(n) for n in range(9)))
    assert store.breakers() == []


def test_each_provider_has_its_own(engine: Engine, store: Store) -> None:
    tell(engine, *(outcome(n) for n in range(9)))
    tell(engine, *(outcome(n, domain="aol.com", mx="mx-aol.mail.gm0.yahoodns.net") for n in range(9)))
    assert store.breakers() == []
    tell(engine, outcome(10, domain="aol.com", mx="mx-aol.mail.gm0.yahoodns.net"))
    assert one(store).provider == "yahoo"


def test_a_blocked_domain_is_held_for_that_domain_and_at_most_thirty_days(engine: Engine, store: Store) -> None:
    words = "550 5.7.1 Your domain sender.test is blocked by our list of sending domains"
    tell(engine, *(outcome(n, words) for n in range(12)))
    breaker = one(store)
    assert (breaker.side, breaker.sender, breaker.rule) == ("domain", "sender.test", "domain-blocked")
    for _ in range(14):
        assert breaker.until is not None
        move(store, (breaker.until - datetime.now(UTC)).total_seconds() + 5)
        tell(engine, outcome(1000 + breaker.trips, words))
        breaker = one(store)
    assert breaker.state == OPEN
    assert breaker.until is not None
    assert timedelta(days=29) < breaker.until - breaker.since <= timedelta(days=30)


def test_a_preset_of_one_provider_outranks_the_general_row(engine: Engine, store: Store) -> None:
    words = (
        "550 5.7.1 Unfortunately, messages from [192.0.2.25] weren't sent. Your network is on our block list (S3140)."
    )
    tell(
        engine,
        *(outcome(n, words, domain="outlook.com", mx="outlook-com.olc.protection.outlook.com") for n in range(5)),
    )
    assert (one(store).provider, one(store).rule) == ("microsoft", "microsoft.address")


def test_a_delivery_closes_a_half_open_breaker_and_the_count_begins_anew(engine: Engine, store: Store) -> None:
    tell(engine, *map(outcome, range(10)))
    tell(engine, outcome(11, "250 2.0.0 OK", kind=Kind.DELIVERED))
    assert one(store).state == OPEN, "that one was on its way before"
    move(store, 3700)
    assert one(store).state == HALF_OPEN
    tell(engine, outcome(12, "250 2.0.0 OK", kind=Kind.DELIVERED))
    assert one(store).state == CLOSED
    tell(engine, *(outcome(n) for n in range(20, 29)))
    assert one(store).state == CLOSED
    [note] = tell(engine, outcome(29))
    assert "opened" in note
    assert one(store).trips == 2


def test_a_refusal_of_the_first_try_opens_it_again_for_twice_as_long(engine: Engine, store: Store) -> None:
    tell(engine, *map(outcome, range(10)))
    move(store, 3700)
    [note] = tell(engine, outcome(12))
    assert "opened" in note
    breaker = one(store)
    assert breaker.until is not None
    assert breaker.until - breaker.since == timedelta(hours=2)


def test_with_two_addresses_only_the_one_that_is_named_is_held(store: Store) -> None:
    settings = Settings.loads(OURS.replace('"192.0.2.25"', '"192.0.2.25", "192.0.2.26"'))
    tell(engine_of(settings, store), *map(outcome, range(10)))
    assert one(store).sender == "192.0.2.25"


def test_forged_and_unproven_reports_open_nothing_where_proof_is_required(store: Store) -> None:
    engine = engine_of(Settings.loads(OURS + '[trust]\nrequire = "always"\n'), store)
    for number in range(30):
        raw = dsn(f"p{number}@gmail.com", message_id=f"<{number}@sender.test>", status="5.7.1", diagnostic=BLOCKED)
        engine.inbound(Envelope(sender="", recipients=("b@sender.test",), source=Source.SMTPD), raw)
    assert store.breakers() == []
    assert len(list(store.events())) == 30


def test_bounce_messages_trip_it_as_log_lines_do(engine: Engine, store: Store) -> None:
    notes: list[str] = []
    for number in range(10):
        raw = dsn(f"p{number}@gmail.com", message_id=f"<{number}@sender.test>", status="5.7.1", diagnostic=BLOCKED)
        notes += engine.inbound(Envelope(sender="", recipients=("b@sender.test",), source=Source.SMTPD), raw).notes
    assert any("breaker google/ip/192.0.2.25 opened" in note for note in notes)
    assert one(store).state == OPEN
    assert {event.sending_ip for event in store.events()} == {"192.0.2.25"}


def test_any_number_of_reports_of_strangers_about_one_recipient_counts_as_one(engine: Engine, store: Store) -> None:
    """They may name as many messages as they like."""
    for number in range(40):
        raw = dsn("p1@gmail.com", message_id=f"<{number}@sender.test>", status="5.7.1", diagnostic=BLOCKED)
        engine.inbound(Envelope(sender="", recipients=("b@sender.test",), source=Source.SMTPD), raw)
    assert store.breakers() == []


def test_an_event_that_is_not_kept_moves_nothing(engine: Engine, store: Store) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("the place could not be written")

    with pytest.raises(RuntimeError):
        engine.observe([outcome(n) for n in range(30)], fail).result()
    assert store.breakers() == []
    assert list(store.events()) == []


def test_a_restart_goes_on_where_it_stopped(engine: Engine, store: Store) -> None:
    tell(engine, *(outcome(n) for n in range(6)))
    store.close()
    with Store.open(f"sqlite:///{store.path}") as again:
        notes = tell(engine_of(Settings.loads(OURS), again), *(outcome(n) for n in range(6, 10)))
    assert len(notes) == 1


def test_the_order_in_which_they_come_changes_nothing(tmp_path: Path) -> None:
    story = [*(outcome(n, ago=600 - n) for n in range(20)),
             *(outcome(n, "250 2.0.0 OK", kind=Kind.DELIVERED, ago=500) for n in range(20))]  # fmt: skip
    ends = []
    for number, told in enumerate([story, story[::-1], story[::2] + story[1::2]]):
        with Store.open(f"sqlite:///{tmp_path}/{number}.db") as opened:
            opened.upgrade()
            tell(engine_of(Settings.loads(OURS), opened), *(replace(each) for each in told))
            ends.append([(b.provider, b.side, b.sender, b.state, b.trips) for b in opened.breakers()])
    assert ends[0] == ends[1] == ends[2]
    assert ends[0]

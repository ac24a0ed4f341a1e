"""What is a wave and what is none: a provider that breaks for few recipients or many, and a list that is merely old."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailback.bounce.taxonomy import Kind, Provenance
from mailback.cli.main import run
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.observation import Observation
from mailback.policy.wave import Outcomes, beyond, collapsed, turned
from mailback.reports.report import DeliveryFailure
from mailback.settings import Settings
from mailback.store import Store, Transaction
from mailback.store.records import JournalEntry, Subscriber, Suppression
from mailback.store.surges import Surges
from tests.support.engines import engine_of
from tests.support.mail import dsn

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def engine(store: Store) -> Engine:
    return engine_of(Settings.model_validate({}), store)


def told(who: str, at: datetime, *, fails: bool) -> Observation:
    """A line of Postfix's log."""
    said = ("5.1.1", "550 5.1.1 No such user here") if fails else ("2.0.0", "250 2.0.0 Ok")
    failure = DeliveryFailure(
        recipient=who, action="failed" if fails else "delivered", status=said[0], smtp_code=said[1][:3],
        diagnostic=said[1], remote_mta="mx.test",
    )  # fmt: skip
    identity = f"{who}/{at.isoformat()}"
    return Observation(
        at, Kind.BOUNCE if fails else Kind.DELIVERED, Source.LOG, "postfix log", failure, identity,
        message_id=f"<{identity.replace('@', '.')}@sender.test>", grade=Provenance.JOURNAL,
    )  # fmt: skip


def mailing(engine: Engine, people: Iterable[str], at: datetime, dead: Iterable[str] = ()) -> None:
    """Everybody is mailed within twenty minutes, and the log tells what became of it."""
    gone = set(dead)
    whom = list(people)
    lines = [
        told(who, at + timedelta(minutes=20) * number / len(whom), fails=who in gone)
        for number, who in enumerate(whom)
    ]  # fmt: skip
    for start in range(0, len(lines), 500):
        engine.observe(lines[start : start + 500]).result()


def people(count: int, domain: str = "receiver.test", name: str = "reader") -> list[str]:
    return [f"{name}{number}@{domain}" for number in range(count)]


def held(store: Store) -> set[str]:
    return {s.address for s in store.suppressions(active_at=datetime.now(UTC))}


def _undo(store: Store, number: int) -> None:
    store.submit(lambda transaction: transaction.undo_wave(number, "operator:ann")).result()


# Deliveries are known ----------------------------------------------------------------------------------------------


def test_a_provider_that_breaks_for_a_dozen_recipients_switches_none_of_them_off(store: Store, engine: Engine) -> None:
    mailing(engine, people(12), NOON - DAY)
    mailing(engine, people(12), NOON, dead=people(12))
    [wave] = store.waves(only_open=True)
    assert wave.members == 12
    _undo(store, wave.id)
    assert held(store) == set()


def test_no_day_of_a_normal_rate_is_needed_where_the_addresses_are_known(store: Store, engine: Engine) -> None:
    mailing(engine, people(30), NOON - 3 * HOUR)
    mailing(engine, people(30), NOON, dead=people(30))
    assert [wave.members for wave in store.waves(only_open=True)] == [30]


def test_a_third_of_a_large_provider_that_breaks_is_a_wave(store: Store, engine: Engine) -> None:
    mailing(engine, people(900), NOON - 7 * DAY)
    mailing(engine, people(900), NOON, dead=people(900)[::3])
    assert len(store.waves(only_open=True)) == 1


def test_a_broken_provider_does_not_freeze_what_another_says(store: Store, engine: Engine) -> None:
    mailing(engine, people(30) + people(30, "other.test"), NOON - DAY)
    mailing(engine, [*people(30), "reader0@other.test"], NOON, dead=[*people(30), "reader0@other.test"])
    assert [wave.provider for wave in store.waves()] == ["receiver.test"]
    assert "reader0@other.test" in held(store)


def test_the_end_of_an_hour_does_not_hide_the_failures_before_it(store: Store, engine: Engine) -> None:
    whom = people(20)
    mailing(engine, whom, NOON - 7 * DAY)
    for number, who in enumerate(whom):
        engine.observe([told(who, NOON + timedelta(minutes=number - 5), fails=True)]).result()
    [wave] = store.waves(only_open=True)
    assert wave.members == 20
    _undo(store, wave.id)
    assert held(store) == set()


def test_what_arrived_earlier_in_the_hour_does_not_hide_that_a_provider_breaks(store: Store, engine: Engine) -> None:
    mailing(engine, people(300), NOON)
    mailing(engine, people(12), NOON + timedelta(minutes=30), dead=people(12))
    [wave] = store.waves(only_open=True)
    assert wave.members == 12


def test_failures_that_are_spread_over_days_do_not_add_up_to_a_wave(store: Store, engine: Engine) -> None:
    """A domain with few recipients, all of whom leave in time."""
    whom = people(20)
    mailing(engine, whom, NOON - 30 * DAY)
    for number, who in enumerate(whom):
        mailing(engine, [who, f"other{number}@other.test"], NOON + number * DAY / 2, dead=[who])
    assert store.waves() == []


def test_a_unit_that_is_rolled_back_leaves_no_failure_counted(store: Store, engine: Engine) -> None:
    def counted(transaction: Transaction) -> None:
        transaction.surges.up("receiver.test", NOON)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - raised above
        store.submit(counted).result()
    assert store.submit(lambda transaction: transaction.surges.up("receiver.test", NOON)).result() == 1


def test_an_old_list_that_is_mailed_for_the_first_time_is_no_wave(store: Store, engine: Engine) -> None:
    old = people(1000, name="old")
    mailing(engine, old, NOON, dead=old[::2])
    assert store.waves() == []
    assert len(held(store)) == 500


def test_nor_is_one_beside_readers_of_a_regular_newsletter(store: Store, engine: Engine) -> None:
    readers = people(300) + people(300, "other.test")
    for week in (4, 3, 2, 1):
        mailing(engine, readers, NOON - week * 7 * DAY)
    old = people(300, name="old") + people(300, "other.test", name="old")
    dead = [who for number, who in enumerate(old) if number % 10 < 7]
    mailing(engine, readers + old, NOON, dead=dead)
    assert store.waves() == []
    assert held(store) == set(dead)


def test_mailboxes_that_die_one_by_one_are_no_wave(store: Store, engine: Engine) -> None:
    mailing(engine, people(1500), NOON - 30 * DAY)
    mailing(engine, people(1500), NOON, dead=people(1500)[::25])
    assert store.waves() == []
    assert len(held(store)) == 60


def test_a_provider_that_took_mail_and_refuses_everybody_breaks_also_for_addresses_that_are_new(
    store: Store, engine: Engine
) -> None:
    mailing(engine, people(40) + people(40, "other.test"), NOON - DAY)
    new = people(60, name="new") + people(60, "other.test", name="new")
    mailing(engine, new, NOON, dead=people(60, name="new"))
    [wave] = store.waves(only_open=True)
    assert (wave.provider, wave.members) == ("receiver.test", 60)


def test_an_address_that_took_no_mail_for_long_may_well_be_dead(store: Store, engine: Engine) -> None:
    mailing(engine, people(100), NOON - 200 * DAY)
    mailing(engine, people(100) + people(60, "other.test"), NOON, dead=people(100)[::2])
    assert store.waves() == []


def _standing(store: Store, whom: Iterable[str]) -> dict[str, object]:
    """What a decision may touch: suppressions, ledger, lists, what is to be sent again."""
    found: dict[str, object] = {}
    active = list(store.suppressions(active_at=datetime.now(UTC)))
    with closing(sqlite3.connect(store.path)) as connection:
        for who in whom:
            subscribed = store.submit(lambda tx, who=who: tx.subscribers.of_address(who)).result()  # type: ignore[misc]
            ledger = store.submit(lambda tx, who=who: tx.ledger(who)).result()  # type: ignore[misc]
            found[who] = (
                {(s.scope, s.reason, s.source, s.since, s.until) for s in active if s.address_key == who},
                [(one.status, one.bounce_status, one.bounce_count, one.bounce_until) for one in subscribed],
                [(entry.step, entry.cause, entry.at) for entry in ledger],
                connection.execute("SELECT state, due_at FROM retry WHERE address_key = ?", (who,)).fetchall(),
            )
    return found


def _full(who: str, at: datetime) -> Observation:
    failure = DeliveryFailure(
        recipient=who, action="failed", status="5.2.2", smtp_code="552", diagnostic="552 5.2.2 Mailbox full",
        remote_mta="mx.test",
    )  # fmt: skip
    identity = f"{who}/{at.isoformat()}"
    return Observation(
        at, Kind.BOUNCE, Source.LOG, "postfix log", failure, identity,
        message_id=f"<{identity.replace('@', '.')}@sender.test>", grade=Provenance.JOURNAL,
    )  # fmt: skip


def test_undoing_a_wave_brings_back_exactly_what_stood_before_and_so_does_undoing_that(
    store: Store, engine: Engine, tmp_path: Path
) -> None:
    """Also what bounces had come to by then: a count, a hold, a message that waits to be sent again."""
    now = datetime.now(UTC).replace(minute=5, second=0, microsecond=0)
    everybody = people(30)
    config = tmp_path / "wave.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{store.path}"\n')
    for who in everybody:
        told = Subscriber(who, "news", who, opt_in_at=now - 200 * DAY)
        store.submit(lambda tx, told=told: tx.subscribers.put(told, actor="x", reason="x")).result()  # type: ignore[misc]
    mailing(engine, everybody, now - 10 * DAY)
    mailing(engine, ["other@elsewhere.test"], now - DAY)
    for who, days in ((everybody[0], (3,)), (everybody[1], (4, 3)), (everybody[2], (5, 4, 3))):
        for day in days:
            engine.observe([_full(who, now - day * DAY)]).result()
    by_hand = Suppression(everybody[3], everybody[3], "all", "by hand", None, None, "operator", now - DAY, None)
    store.submit(lambda tx: tx.suppress(by_hand, "operator:ann")).result()
    before = _standing(store, everybody)
    assert [len(before[who][0]) for who in everybody[:4]] == [0, 0, 1, 1]  # type: ignore[index]
    mailing(engine, everybody, now - HOUR, dead=everybody)
    [wave] = store.waves(only_open=True)
    waits = _standing(store, everybody)

    def decide(decision: str) -> dict[str, object]:
        assert run(["wave", decision, str(wave.id), "--config", str(config)]) == 0
        return _standing(store, everybody)

    assert decide("undo") == before
    assert decide("reopen") == waits
    confirmed = decide("confirm")
    assert decide("undo") == before
    assert decide("confirm") == confirmed


def test_any_number_of_reports_about_one_address_is_no_wave(store: Store, engine: Engine) -> None:
    """Else whoever holds one signed return path could freeze what a provider says."""
    [who] = people(1)
    mailing(engine, people(40), NOON - DAY)
    for minute in range(20):
        engine.observe([told(who, NOON + timedelta(minutes=minute), fails=True)]).result()
    assert store.waves() == []
    assert held(store) == {who}


def test_a_sender_who_mails_once_a_month_is_told_of_a_wave_as_well(store: Store, engine: Engine) -> None:
    mailing(engine, people(30), NOON - 30 * DAY)
    mailing(engine, people(30), NOON, dead=people(30))
    assert [wave.members for wave in store.waves(only_open=True)] == [30]


def test_a_wave_that_was_undone_is_told_again_when_it_comes_again(store: Store, engine: Engine) -> None:
    mailing(engine, people(40), NOON - 7 * DAY)
    for day in (0, 1):
        mailing(engine, people(40) + people(40, "other.test"), NOON + day * DAY, dead=people(40))
        [wave] = store.waves(only_open=True)
        _undo(store, wave.id)
        assert held(store) == set()


def test_zero_switches_waves_off(store: Store) -> None:
    engine = engine_of(Settings.loads("[policy]\nwave_minimum = 0"), store)
    mailing(engine, people(30), NOON - DAY)
    mailing(engine, people(30), NOON, dead=people(30))
    assert store.waves() == []


# Only the journal is known -------------------------------------------------------------------------------------------


def _sent(store: Store, whom: Iterable[str], at: datetime) -> None:
    for who in whom:
        entry = JournalEntry(at=at, message_id=_message(who, at), envelope_sender="news@sender.test", recipients=(who,))
        store.submit(partial(_remember, entry)).result()


def _remember(entry: JournalEntry, transaction: Transaction) -> int:
    return transaction.journal(entry)


def _message(who: str, at: datetime) -> str:
    return f"<{who.replace('@', '.')}.{at:%m%d}@sender.test>"


def _came_back(engine: Engine, whom: Iterable[str], sent: datetime) -> None:
    for number, who in enumerate(whom):
        at = sent + timedelta(seconds=30 + number)
        envelope = Envelope(
            "", ("news@sender.test",), client_address="203.0.113.9", source=Source.SMTPD, received_at=at
        )
        engine.inbound(envelope, dsn(who, message_id=_message(who, sent)))


def test_the_journal_tells_a_wave_where_nothing_tells_deliveries(store: Store, engine: Engine) -> None:
    whom = people(25)
    _sent(store, whom, NOON - 7 * DAY)
    _sent(store, [*whom, *people(200, "other.test")], NOON)
    _came_back(engine, whom, NOON)
    [wave] = store.waves(only_open=True)
    assert wave.members == 25
    _undo(store, wave.id)
    assert held(store) == set()


def test_nor_does_what_the_journal_sent_well_before_hide_that_a_provider_breaks(store: Store, engine: Engine) -> None:
    _sent(store, people(100), NOON - 7 * DAY)
    _sent(store, people(100)[12:], NOON - timedelta(minutes=50))
    _sent(store, people(12), NOON)
    _came_back(engine, people(12), NOON)
    assert [wave.members for wave in store.waves(only_open=True)] == [12]


def test_the_journal_tells_that_most_mail_to_a_provider_did_not_come_back(store: Store, engine: Engine) -> None:
    whom = people(300)
    _sent(store, whom, NOON - 7 * DAY)
    _sent(store, whom, NOON)
    _came_back(engine, whom[::10], NOON)
    assert store.waves() == []
    assert len(held(store)) == 30


def test_an_old_list_that_the_journal_never_saw_is_no_wave(store: Store, engine: Engine) -> None:
    whom = people(40, name="old")
    _sent(store, whom, NOON)
    _came_back(engine, whom, NOON)
    assert store.waves() == []


def test_failures_alone_tell_no_share(store: Store, engine: Engine) -> None:
    """A log that is read each night: by day there are only bounces, of readers who do die."""
    mailing(engine, people(60), NOON - DAY)
    _came_back(engine, people(60), NOON)
    assert store.waves() == []


# The arithmetic ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**6), st.floats(0.01, 0.9), st.data())
def test_more_failures_never_make_less_of_a_wave(total: int, share: float, data: st.DataObject) -> None:
    counts = sorted(data.draw(st.lists(st.integers(0, total), min_size=2, max_size=20)))
    answers = [beyond(count, total, share) for count in counts]
    assert all(later or not earlier for earlier, later in pairwise(answers))


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.01, 0.9))
def test_no_share_at_or_below_the_expected_is_beyond_it(count: int, total: int, share: float) -> None:
    if count <= share * total:
        assert not beyond(count, total, share)


@pytest.mark.parametrize(("total", "least"), [(9, 9), (10, 10), (30, 20), (1000, 270)])
def test_what_the_page_says_of_how_many_it_takes(total: int, least: int) -> None:
    assert next(count for count in range(total + 1) if beyond(count, total, 0.2)) == least


@given(st.lists(st.booleans(), max_size=200))
def test_failures_are_ahead_of_arrivals_only_since_they_outnumber_them(told: list[bool]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE rate (cause, hour, count, PRIMARY KEY (cause, hour))")
        surges, ahead = Surges(connection), 0
        for failed in told:
            if failed:
                ahead += 1
                assert surges.up("p", NOON) == ahead
            else:
                ahead = max(0, ahead - 1)
                surges.down("p", NOON)


def test_where_much_fails_each_week_a_wave_takes_more() -> None:
    now = Outcomes(arrived=60, bounced=40, permanent=40, turned=40)
    assert not turned(now, Outcomes(arrived=900, bounced=100, turned=100), share=0.2, factor=5.0)
    assert turned(now, Outcomes(arrived=2000, bounced=20, turned=20), share=0.1, factor=5.0)


def test_a_provider_that_never_took_mail_cannot_collapse() -> None:
    now, elsewhere = Outcomes(bounced=500, permanent=500), Outcomes(arrived=500)
    assert not collapsed(now, Outcomes(), elsewhere, factor=5.0)
    assert collapsed(now, Outcomes(arrived=20), elsewhere, factor=5.0)

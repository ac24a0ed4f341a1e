"""The score kept in a store: three soft bounces through the engine, and the same end in any order of arrival."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mailback.bounce.taxonomy import Action
from mailback.effects.scoring import rules_of
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.policy.score import standing
from mailback.settings import Settings
from mailback.store import Store, Transaction
from mailback.store.records import Step, Suppression
from mailback.store.scores import entries_of
from tests.support.engines import engine_of
from tests.support.mail import dsn, reply

WHO = "full@receiver.test"
NOW = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
FULL = ("4.2.2", "452 4.2.2 The email account that you tried to reach is over quota")
DOWN = ("4.4.1", "connect to mx.receiver.test[192.0.2.7]:25: Connection timed out")
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)  # every example is many commits: shrinking takes minutes
_numbers = count()


@pytest.fixture
def engine(store: Store) -> Engine:
    return engine_of(Settings(), store)


def at(days: float) -> Envelope:
    """An envelope received so many days ago."""
    when = NOW - timedelta(days=days)
    return Envelope(sender="", recipients=("bounces@sender.test",), source=Source.SMTPD, received_at=when)


def bounce(said: tuple[str, str] = FULL, who: str = WHO, number: int | None = None) -> bytes:
    told = next(_numbers) if number is None else number
    return dsn(who, message_id=f"<{told}@sender.test>", status=said[0], diagnostic=said[1])


def delivered(who: str = WHO) -> bytes:
    return dsn(
        who, message_id=f"<{next(_numbers)}@sender.test>", action="delivered", status="2.0.0", diagnostic="250 2.0.0 OK"
    )


def held(store: Store, who: str = WHO) -> Suppression | None:
    return store.lookup(who)


def three(engine: Engine, who: str = WHO) -> None:
    for days in (4, 3, 2):
        engine.inbound(at(days), bounce(who=who))


def test_the_third_soft_bounce_on_another_day_holds_the_address_for_a_week(engine: Engine, store: Store) -> None:
    for days in (4, 4, 4, 3):
        outcome = engine.inbound(at(days), bounce())
        assert outcome.decisions[0].action is Action.RETRY_WITH_DELAY
    assert held(store) is None
    outcome = engine.inbound(at(2), bounce())
    assert outcome.decisions[0].action is Action.SUPPRESS_TEMPORARILY
    found = held(store)
    assert found is not None
    assert found.reason == "soft_bounce/mailbox_temporarily_full"
    assert (found.since, found.until) == (NOW - timedelta(days=2), NOW + timedelta(days=5))
    event = next(e for e in store.events(key=WHO, newest_first=True))
    assert event.action is Action.SUPPRESS_TEMPORARILY
    assert any("3 soft bounces in a row" in note for note in event.notes)


def test_a_server_that_is_down_never_counts_against_the_address(engine: Engine, store: Store) -> None:
    for days in (5, 4, 3, 2):
        engine.inbound(at(days), bounce(DOWN))
    assert held(store) is None
    assert store.explain(WHO).score == []


def test_a_delay_notice_about_a_full_mailbox_does_not_count(engine: Engine, store: Store) -> None:
    for days in (4, 3, 2):
        raw = dsn(WHO, message_id=f"<{next(_numbers)}@s.test>", action="delayed", status=FULL[0], diagnostic=FULL[1])
        engine.inbound(at(days), raw)
    assert held(store) is None


def test_unproven_bounces_do_not_count_where_proof_is_asked_for(store: Store) -> None:
    engine = engine_of(Settings.loads('[trust]\nrequire = "always"'), store)
    three(engine)
    assert held(store) is None
    assert store.explain(WHO).score == []


def test_a_late_delivery_takes_back_the_hold_that_it_contradicts(engine: Engine, store: Store) -> None:
    three(engine)
    assert held(store) is not None
    engine.inbound(at(2.6), delivered())
    assert held(store) is None
    assert [change.verb for change in store.explain(WHO).changes] == ["added", "lifted"]


def test_a_late_bounce_completes_a_hold(engine: Engine, store: Store) -> None:
    for days in (4, 2, 3):
        assert held(store) is None
        engine.inbound(at(days), bounce())
    found = held(store)
    assert found is not None
    assert found.since == NOW - timedelta(days=2), "by the last of the three, not by the one that came last"


def test_a_persons_reply_ends_a_hold(engine: Engine, store: Store) -> None:
    three(engine)
    engine.inbound(replace(at(1), sender=WHO), reply(WHO, message_id="<r1@receiver.test>"))
    assert held(store) is None


def test_what_an_operator_suppressed_returns_when_a_hold_is_taken_back(engine: Engine, store: Store) -> None:
    by_hand = Suppression(
        WHO, WHO, "all", "asked by phone", None, None, "operator", NOW - timedelta(days=9), NOW + timedelta(days=3)
    )
    store.submit(lambda transaction: transaction.suppress(by_hand, "ada")).result()
    three(engine)
    found = held(store)
    assert found is not None
    assert found.source == "score"
    engine.inbound(at(1), delivered())
    found = held(store)
    assert found is not None
    assert (found.source, found.reason, found.until) == ("operator", "asked by phone", NOW + timedelta(days=3))


def test_a_permanent_suppression_by_an_operator_is_left_alone(engine: Engine, store: Store) -> None:
    by_hand = Suppression(WHO, WHO, "all", "asked by phone", None, None, "operator", NOW, None)
    store.submit(lambda transaction: transaction.suppress(by_hand, "ada")).result()
    three(engine)
    engine.inbound(at(1), delivered())
    assert [change.verb for change in store.explain(WHO).changes] == ["added"]


def test_a_lifted_hold_does_not_come_back_by_the_bounces_before(engine: Engine, store: Store) -> None:
    three(engine)
    store.submit(lambda transaction: transaction.lift(WHO, None, actor="ada", reason="called")).result()
    engine.inbound(at(2.5), bounce())
    assert held(store) is None


def test_a_better_report_that_says_otherwise_takes_the_suppression_back(store: Store) -> None:
    hard = ("5.1.1", "550 5.1.1 No such mailbox here")
    engine = engine_of(Settings(), store)
    engine.inbound(at(3), bounce(hard, number=77_000))
    assert held(store) is not None
    raised = Settings.loads("[policy]\nmin_confidence = 0.0")
    raw = bounce(FULL, number=77_000)
    assessment = engine_of(raised, store).assess(at(3), raw)
    assessment.events[0].confidence = 1.0
    engine.commit(assessment).result()
    assert held(store) is None
    [entry] = store.explain(WHO).score
    assert (entry.step, entry.cause) == (Step.BOUNCE, "mailbox_temporarily_full")


def test_too_many_unproven_bounces_at_once_are_set_aside_for_a_person(store: Store) -> None:
    engine = engine_of(Settings.loads("[policy]\nunproven_per_hour = 1"), store)
    for who in ("one@receiver.test", "two@receiver.test"):
        three(engine, who)
    assert held(store, "one@receiver.test") is not None
    assert held(store, "two@receiver.test") is None
    last = next(store.events(key="two@receiver.test", newest_first=True))
    assert last.action is Action.MANUAL_REVIEW
    assert [e.step for e in store.explain("two@receiver.test").score] == [Step.BOUNCE, Step.BOUNCE, Step.HELD]


def test_a_delivery_dated_in_years_to_come_makes_nobody_immune(engine: Engine, store: Store) -> None:
    engine.inbound(at(-400), delivered())
    three(engine)
    assert held(store) is not None


def test_a_provider_may_have_numbers_of_its_own(store: Store, tmp_path: Path) -> None:
    (tmp_path / "handling.toml").write_text(
        '[[override]]\nprovider = "google"\ntype = "soft_bounce"\nsubcategories = ["mailbox_temporarily_full"]\n'
        "escalate_after = 2\nwindow_days = 3\nsuppress_days = 30\n"
    )
    engine = Engine(Settings.loads(f'[rules]\ndirectory = "{tmp_path}"'), store)
    for who in ("ada@gmail.com", WHO):
        for days in (3, 2):
            engine.inbound(at(days), bounce(who=who))
    assert held(store) is None
    found = held(store, "ada@gmail.com")
    assert found is not None
    assert found.until == NOW + timedelta(days=28)


def test_it_does_not_matter_which_permanent_failure_comes_in_last(store: Store) -> None:
    engine = engine_of(Settings.loads("[policy]\nhard_bounces_needed = 2"), store)
    hard = ("5.1.1", "550 5.1.1 No such mailbox here")
    engine.inbound(at(1), bounce(hard))
    engine.inbound(at(3), bounce(hard))
    found = held(store)
    assert found is not None
    assert found.since == NOW - timedelta(days=1), "the second of them in time"


def test_a_flood_about_one_address_fills_no_ledger(engine: Engine, store: Store) -> None:
    for _ in range(40):
        last = engine.commit(engine.assess(at(3), bounce()))
    last.result()
    assert len(store.explain(WHO).score) == 8


def test_the_same_failure_by_two_reports_around_midnight_is_one_day(engine: Engine, store: Store) -> None:
    midnight = NOW.replace(hour=0) - timedelta(days=1)
    for number in range(3):
        for seconds in (5, -5):
            envelope = replace(at(0), received_at=midnight - timedelta(days=2 * number) + timedelta(seconds=seconds))
            extra = f"Received: by hop{seconds}.test; Fri, 20 Nov 2026 12:00:00 +0000\r\n".encode()
            engine.inbound(envelope, extra + bounce(number=88_000 + number))
    days = {entry.day for entry in store.explain(WHO).score}
    assert len(days) == len(store.explain(WHO).score) == 3


# ---- any order of arrival -------------------------------------------------------------------------------------------


class Fact(NamedTuple):
    """Something that is reported of an address."""

    hours_ago: int
    what: str
    number: int


_FACTS = st.lists(
    st.builds(
        Fact,
        st.integers(1, 24 * 25),
        st.sampled_from(["full", "full", "full", "full", "delivered", "reply", "down", "hard"]),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=14,
)


def report(engine: Engine, fact: Fact, who: str) -> None:
    """Hand a fact to the engine without waiting for its commit: the writer keeps the order."""
    envelope = replace(at(fact.hours_ago / 24), sender=who if fact.what == "reply" else "")
    said = {"full": FULL, "down": DOWN, "hard": ("5.1.1", "550 5.1.1 No such mailbox here")}
    message_id = f"<{fact.what}-{fact.number}-{who}>"
    if fact.what == "reply":
        raw = reply(who, message_id=message_id)
    elif fact.what == "delivered":
        raw = dsn(who, message_id=message_id, action="delivered", status="2.0.0", diagnostic="250 2.0.0 OK")
    else:
        status, diagnostic = said[fact.what]
        raw = dsn(who, message_id=message_id, status=status, diagnostic=diagnostic)
    engine.commit(engine.assess(envelope, raw))


def state(store: Store, who: str) -> object:
    """All that is known of an address but ids, which are drawn by chance."""
    told = store.explain(who)
    score = standing(told.score, rules_of(Settings()))
    hold = score.hold
    return (
        [(s.scope, s.type, s.subcategory, s.source, s.since, s.until) for s in told.suppressions if s.active(NOW)],
        sorted((e.step, e.at, e.cause, e.suppress_days or 0) for e in told.score),
        (score.status(NOW), score.count(NOW), hold and (hold.since, hold.until, hold.round)),
        sorted((e.at, e.kind.value, e.type or "", e.subcategory or "") for e in told.events),
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path_factory.mktemp('scoring')}/mailback.db") as opened:
        opened.upgrade()
        yield opened


def told_in_order(store: Store, facts: Sequence[Fact], *, restarts: bool = False) -> object:
    who = f"user{next(_numbers)}@receiver.test"
    engine = engine_of(Settings.loads("[policy]\nwave_minimum = 0\nunproven_per_hour = 0"), store)
    for fact in facts:
        report(engine, fact, who)
        if restarts:
            store.submit(_nothing).result()
            with Store.open(f"sqlite:///{store.path}") as other:
                report(engine_of(Settings.loads("[policy]\nwave_minimum = 0\nunproven_per_hour = 0"), other), fact, who)
    store.submit(_nothing).result()
    return state(store, who)


def _nothing(_: Transaction) -> None:
    pass


@settings(deadline=None, max_examples=25, phases=UNSHRUNK, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(facts=_FACTS, data=st.data())
def test_no_order_of_arrival_no_duplicate_changes_the_state(
    shared: Store, facts: list[Fact], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations([*facts, *facts[: len(facts) // 2]]))
    assert told_in_order(shared, shuffled) == told_in_order(shared, facts)


@settings(deadline=None, max_examples=4, phases=UNSHRUNK, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(facts=_FACTS)
def test_a_restart_between_any_two_reports_changes_nothing(shared: Store, facts: list[Fact]) -> None:
    assert told_in_order(shared, facts, restarts=True) == told_in_order(shared, facts)


def test_the_ledger_reads_back_as_it_was_written(engine: Engine, store: Store) -> None:
    three(engine)
    entries = store.explain(WHO).score
    assert entries == sorted(entries, key=lambda entry: entry.at)
    assert entries_of([]) == []


def test_a_hold_for_ever_outlasts_the_ledger_that_it_came_from(engine: Engine, store: Store) -> None:
    for days in (60, 59, 58, 50, 49, 48, 40, 39, 38):
        engine.inbound(at(days), bounce())
    before = held(store)
    assert before is not None
    assert before.until is None
    three(engine, "twice@receiver.test")
    assert store.forget_scores(NOW - timedelta(days=1)) == 3
    assert store.explain("twice@receiver.test").score == []
    engine.inbound(at(0.5), bounce())
    assert held(store) == before


def test_a_probe_after_a_hold_is_told_as_one(store: Store) -> None:
    engine = engine_of(Settings.loads("[score]\nprobe = true\ngrowth = 2"), store)
    for days in (12, 11, 10):
        engine.inbound(at(days), bounce())
    assert held(store) is None, "over since three days"
    outcome = engine.inbound(at(1), bounce())
    assert outcome.decisions[0].action is Action.SUPPRESS_TEMPORARILY
    assert "the first message after a hold bounced: hold 2 of 3" in outcome.decisions[0].because
    found = held(store)
    assert found is not None
    assert found.until == NOW + timedelta(days=13)

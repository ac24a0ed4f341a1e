"""What many reports together may not do: the budget of the unproven, and waves with their way back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailback.bounce.taxonomy import Action, Kind
from mailback.cli.main import run
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.observation import Observation
from mailback.reports.report import DeliveryFailure
from mailback.settings import Settings
from mailback.store import Store, Transaction
from mailback.store.records import JournalEntry, Suppression
from tests.support import engines
from tests.support.mail import dsn
from tests.support.records import do

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def engine_of(store: Store, **policy: float) -> Engine:
    return engines.engine_of(Settings.model_validate({"policy": policy}), store)


def bounce(
    engine: Engine,
    who: str,
    *,
    client: str = "203.0.113.9",
    at: datetime = NOON,
    mta: str = "",
    diagnostic: str = "550 5.1.1 No such mailbox here",
) -> Action:
    envelope = Envelope("", ("news@sender.test",), client_address=client, source=Source.SMTPD, received_at=at)
    status = diagnostic.split()[1]
    raw = dsn(who, message_id=f"<{who.partition('@')[0]}.{at:%d%H}@sender.test>", status=status, diagnostic=diagnostic)
    if mta:
        raw = raw.replace(b"Reporting-MTA: dns; mx.receiver.test", f"Reporting-MTA: dns; {mta}".encode())
    return engine.inbound(envelope, raw).decisions[0].action


def suppressed(store: Store) -> set[str]:
    return {s.address for s in store.suppressions(active_at=datetime.now(UTC))}


# The budget ------------------------------------------------------------------------------------------------------


def test_past_its_budget_a_source_suppresses_nobody_more(store: Store) -> None:
    engine = engine_of(store, unproven_per_hour=3)
    actions = [bounce(engine, f"u{n}@receiver.test", mta=f"mx{n}.test") for n in range(5)]
    assert actions == [Action.SUPPRESS_PERMANENTLY] * 3 + [Action.MANUAL_REVIEW] * 2
    assert suppressed(store) == {f"u{n}@receiver.test" for n in range(3)}
    assert [item.recipient for item in store.reviews()] == ["u3@receiver.test", "u4@receiver.test"]
    last = list(store.events())[-1]
    assert last.action is Action.MANUAL_REVIEW
    assert any("203.0.113.0/24" in note for note in last.notes)


def test_a_reporting_domain_has_a_budget_from_wherever_it_comes(store: Store) -> None:
    engine = engine_of(store, unproven_per_hour=3)
    for n in range(5):
        bounce(engine, f"u{n}@receiver.test", client=f"198.51.{n}.7")
    assert len(suppressed(store)) == 3


def test_other_sources_and_the_next_hour_have_budgets_of_their_own(store: Store) -> None:
    engine = engine_of(store, unproven_per_hour=1)
    bounce(engine, "a@receiver.test", mta="one.test")
    bounce(engine, "b@receiver.test", mta="two.test", client="198.51.100.1")
    bounce(engine, "c@receiver.test", mta="one.test", at=NOON + timedelta(hours=1))
    assert len(suppressed(store)) == 3


def test_the_same_report_again_costs_no_budget(store: Store) -> None:
    engine = engine_of(store, unproven_per_hour=2)
    for _ in range(10):
        bounce(engine, "a@receiver.test")
    bounce(engine, "b@receiver.test")
    assert len(suppressed(store)) == 2


def test_an_mta_of_ours_on_this_host_is_no_source(store: Store) -> None:
    engine = engine_of(store, unproven_per_hour=1)
    for n in range(3):
        bounce(engine, f"u{n}@receiver.test", client="127.0.0.1", mta=f"mx{n}.test")
    assert len(suppressed(store)) == 3


def went_out(store: Store, recipients: int, at: datetime = NOON - timedelta(hours=3)) -> None:
    """So many were mailed, as the journal has it."""
    entry = JournalEntry(
        at=at, message_id=None, envelope_sender="news@sender.test", source="application",
        recipients=tuple(f"r{number}@elsewhere.test" for number in range(recipients)),
    )  # fmt: skip
    do(store, lambda transaction: transaction.journal(entry))


def attack(engine: Engine, most: int, *, spread: bool = False) -> int:
    """Forged bounces about so many addresses of as many providers; how many of them suppress anybody."""
    sources = (f"198.51.{number if spread else 100}.7" for number in range(most))
    return sum(
        bounce(engine, f"u{n}@r{n}.test", client=client, mta=f"mx{n}.test") is Action.SUPPRESS_PERMANENTLY
        for n, client in enumerate(sources)
    )


def test_a_source_may_cause_a_share_of_what_was_mailed_on_the_busiest_day_of_the_week(store: Store) -> None:
    went_out(store, 5000, NOON - timedelta(days=4))
    went_out(store, 300)
    assert attack(engine_of(store), 130) == 100


def test_a_sender_of_little_mail_has_a_budget_of_fifty(store: Store) -> None:
    went_out(store, 10)
    assert attack(engine_of(store), 70) == 50


def test_all_sources_together_have_four_budgets(store: Store) -> None:
    went_out(store, 10)
    assert attack(engine_of(store), 230, spread=True) == 200


def test_where_nothing_tells_what_is_mailed_a_source_may_cause_five_hundred(store: Store) -> None:
    engine = engine_of(store, wave_minimum=0)
    do(store, lambda transaction: [transaction.count("unproven:198.51.100.0/24", NOON) for _ in range(498)])
    assert attack(engine, 4) == 2


def test_reports_of_strangers_make_no_budget_larger(store: Store) -> None:
    engine = engine_of(store)
    went_out(store, 10)
    envelope = Envelope("", ("news@sender.test",), client_address="192.0.2.9", source=Source.SMTPD, received_at=NOON)
    many = b"".join(
        f"Final-Recipient: rfc822; x{n}@far.test\r\nAction: delivered\r\nStatus: 2.0.0\r\n\r\n".encode()
        for n in range(3000)
    )
    raw = dsn("x@far.test", message_id="<x@sender.test>", status="2.0.0", diagnostic="250 Ok", action="delivered")
    engine.inbound(envelope, raw.replace(b"Final-Recipient:", many + b"Final-Recipient:", 1))
    assert attack(engine, 60) == 50


def an_arrival(number: int) -> Observation:
    failure = DeliveryFailure(f"r{number}@elsewhere.test", action="delivered", status="2.0.0")
    return Observation(NOON, Kind.DELIVERED, Source.LOG, "test", failure, str(number), f"<{number}@sender.test>")


def test_our_own_log_tells_what_is_mailed(store: Store) -> None:
    engine = engine_of(store)
    engine.observe([an_arrival(number) for number in range(4000)]).result()
    assert attack(engine, 90) == 80


# Waves -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def flooded(store: Store) -> Store:
    """A day with one failure an hour, and then twenty within one: the first ten pass, then the wave freezes."""
    engine = engine_of(store, wave_minimum=10)
    for hour in range(30):
        bounce(engine, f"usual{hour}@receiver.test", at=NOON - timedelta(hours=30 - hour))
    for n in range(20):
        bounce(engine, f"burst{n}@receiver.test")
    return store


BURST = {f"burst{n}@receiver.test" for n in range(20)}


def of_burst(store: Store) -> set[str]:
    return suppressed(store) & BURST


def test_a_burst_far_beyond_the_normal_rate_freezes(flooded: Store) -> None:
    [wave] = flooded.waves(only_open=True)
    assert (wave.subcategory, wave.members, wave.normal) == ("user_unknown", 20, 1.0)
    assert of_burst(flooded) == {f"burst{n}@receiver.test" for n in range(10)}


@pytest.mark.parametrize(("counted_hours_ago", "waves"), [(30, 1), (2, 0)])
def test_a_provider_that_never_refused_anybody_breaks_in_a_wave_once_a_day_was_watched(
    store: Store, counted_hours_ago: int, waves: int
) -> None:
    engine = engine_of(store, wave_minimum=10)
    bounce(engine, "one@elsewhere.test", at=NOON - timedelta(hours=counted_hours_ago))
    for n in range(20):
        bounce(engine, f"burst{n}@receiver.test", at=NOON - timedelta(hours=1 - n // 10))
    for n in range(20, 25):
        bounce(engine, f"burst{n}@receiver.test")
    assert len(store.waves(only_open=True)) == waves
    assert len(suppressed(store)) == (21 if waves else 26)


def test_while_a_wave_is_open_the_provider_suppresses_nobody_for_good_whatever_it_says(flooded: Store) -> None:
    engine = engine_of(flooded, wave_minimum=10)
    disabled = bounce(engine, "other@receiver.test", diagnostic="550 5.2.1 The email account is disabled")
    elsewhere = bounce(engine, "ann@elsewhere.test")
    assert (disabled, elsewhere) == (Action.MANUAL_REVIEW, Action.SUPPRESS_PERMANENTLY)
    [wave] = flooded.waves(only_open=True)
    assert wave.members == 21
    assert "other@receiver.test" not in suppressed(flooded)
    flooded.submit(lambda transaction: transaction.confirm_wave(1, "operator:ann")).result()
    assert "other@receiver.test" in suppressed(flooded)


def test_what_is_held_back_waits_in_the_review_until_the_wave_is_decided(flooded: Store) -> None:
    waiting = list(flooded.reviews())
    assert {item.recipient for item in waiting} == {f"burst{n}@receiver.test" for n in range(10, 20)}
    assert all("wave 1" in item.reason for item in waiting)
    flooded.submit(lambda transaction: transaction.undo_wave(1, "operator:ann")).result()
    assert list(flooded.reviews()) == []


def test_the_door_is_told_so_that_the_operator_reads_it_in_the_log(flooded: Store) -> None:
    envelope = Envelope("", ("news@sender.test",), client_address="203.0.113.9", received_at=NOON)
    raw = dsn("burst99@receiver.test", message_id="<burst99@sender.test>")
    outcome = engine_of(flooded, wave_minimum=10).inbound(envelope, raw)
    assert any("wave 1" in note for note in outcome.notes)


def test_without_a_known_normal_rate_there_is_no_wave(store: Store) -> None:
    engine = engine_of(store, wave_minimum=10)
    for n in range(20):
        bounce(engine, f"burst{n}@receiver.test")
    assert store.waves() == []
    assert len(of_burst(store)) == 20


def test_undoing_a_wave_brings_back_the_state_before_and_leaves_the_rest(flooded: Store) -> None:
    before = suppressed(flooded) - BURST
    flooded.submit(lambda transaction: transaction.undo_wave(1, "operator:ann")).result()
    assert suppressed(flooded) == before
    assert [wave.state for wave in flooded.waves()] == ["undone"]
    assert flooded.verify_audit().holds


def test_undoing_can_itself_be_undone_and_that_again(flooded: Store) -> None:
    def tell(verb: str) -> set[str]:
        flooded.submit(lambda transaction: getattr(transaction, f"{verb}_wave")(1, "operator:ann")).result()
        return of_burst(flooded)

    assert [tell("undo"), tell("confirm"), tell("undo"), tell("confirm")] == [set(), BURST, set(), BURST]


def test_a_decision_taken_back_leaves_the_wave_as_it_waited(flooded: Store) -> None:
    def tell(verb: str) -> None:
        flooded.submit(lambda transaction: getattr(transaction, f"{verb}_wave")(1, "operator:ann")).result()

    waited = of_burst(flooded), {item.recipient for item in flooded.reviews()}
    assert [len(found) for found in waited] == [10, 10]
    for decisions in (["undo"], ["confirm"], ["undo", "confirm"], ["confirm", "undo"]):
        for decision in decisions:
            tell(decision)
        tell("reopen")
        assert (of_burst(flooded), {item.recipient for item in flooded.reviews()}) == waited, decisions
        [wave] = flooded.waves(only_open=True)
        assert wave.members == 20
    assert flooded.verify_audit().holds


def test_taking_a_decision_back_leaves_alone_whom_a_person_has_freed(flooded: Store) -> None:
    def free(transaction: Transaction) -> None:
        transaction.lift("burst0@receiver.test", actor="operator:ann", reason="is back")

    flooded.submit(free).result()
    flooded.submit(lambda transaction: transaction.undo_wave(1, "operator:ann")).result()
    flooded.submit(lambda transaction: transaction.reopen_wave(1, "operator:ann")).result()
    assert of_burst(flooded) == {f"burst{n}@receiver.test" for n in range(1, 10)}


def test_who_bounces_again_while_the_wave_waits_is_freed_with_the_others(flooded: Store) -> None:
    bounce(engine_of(flooded, wave_minimum=10), "burst3@receiver.test", at=NOON + timedelta(minutes=70))
    flooded.submit(lambda transaction: transaction.undo_wave(1, "operator:ann")).result()
    assert of_burst(flooded) == set()


def test_what_stood_before_the_wave_stands_again_as_it_was(store: Store) -> None:
    until = datetime.now(UTC) + timedelta(days=3)
    earlier = Suppression(
        "burst3@receiver.test", "burst3@receiver.test", "all", "asked for a pause", None, None, "operator", NOON, until
    )
    store.submit(lambda transaction: transaction.suppress(earlier, "operator:ann")).result()
    engine = engine_of(store, wave_minimum=10)
    for hour in range(30):
        bounce(engine, f"usual{hour}@receiver.test", at=NOON - timedelta(hours=30 - hour))
    for n in range(20):
        bounce(engine, f"burst{n}@receiver.test")
    changed = store.lookup("burst3@receiver.test")
    assert changed is not None
    assert changed.until is None
    store.submit(lambda transaction: transaction.undo_wave(1, "operator:ann")).result()
    assert of_burst(store) == {"burst3@receiver.test"}
    assert store.lookup("burst3@receiver.test") == earlier


def test_what_a_person_decided_meanwhile_is_left_alone(flooded: Store) -> None:
    def decide(transaction: object) -> None:
        transaction.lift("burst0@receiver.test", actor="operator:ann", reason="is back")  # type: ignore[attr-defined]
        transaction.suppress(  # type: ignore[attr-defined]
            Suppression(
                "burst0@receiver.test", "burst0@receiver.test", "all", "asked", None, None, "operator", NOON, None
            ),
            "operator:ann",
        )

    flooded.submit(decide).result()
    flooded.submit(lambda transaction: transaction.undo_wave(1, "operator:ann")).result()
    assert of_burst(flooded) == {"burst0@receiver.test"}


def test_after_a_decision_bounces_of_that_kind_pass_again(flooded: Store) -> None:
    flooded.submit(lambda transaction: transaction.undo_wave(1, "operator:ann")).result()
    assert bounce(engine_of(flooded, wave_minimum=1000), "later@receiver.test") is Action.SUPPRESS_PERMANENTLY


def test_the_command_line_lists_undoes_and_confirms(
    flooded: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mailback.toml"
    file.write_text(f"store.url = 'sqlite:///{tmp_path}/mailback.db'\n")
    config = ["--config", str(file)]
    assert run(["wave", "list", *config]) == 0
    assert "user_unknown" in capsys.readouterr().out
    assert run(["wave", "undo", "1", *config]) == 0
    assert "10 suppressions taken back" in capsys.readouterr().out
    assert run(["wave", "confirm", "1", *config]) == 0
    assert "20 addresses suppressed" in capsys.readouterr().out
    assert run(["wave", "reopen", "1", *config]) == 0
    assert "waits for a decision again" in capsys.readouterr().out
    assert run(["wave", "reopen", "1", *config]) == 1
    assert run(["wave", "undo", "7", *config]) == 1

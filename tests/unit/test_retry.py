"""Retry advice: when a message is worth sending again, to whom never, and what an application is told."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailback.bounce.taxonomy import Action
from mailback.cli.main import run
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.outbound.probes import Probes
from mailback.policy import breaker
from mailback.policy.handling import Handling
from mailback.policy.retry import RetryRules, advise
from mailback.settings import Settings
from mailback.store import Store, SuppressionLookup, codec
from mailback.store.records import Retry, ScoreEntry, Step, Suppression
from tests.support.engines import engine_of
from tests.support.mail import dsn
from tests.support.records import a_suppression

WHO = "ada@receiver.test"
NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
DOWN = {"status": "4.3.2", "diagnostic": "421 4.3.2 System not accepting network messages"}
GREY = {"status": "4.7.1", "diagnostic": "450 4.7.1 Greylisted, please try again in 5 minutes"}
FULL = {"status": "5.2.2", "diagnostic": "552 5.2.2 Mailbox full"}
GONE = {"status": "5.1.1", "diagnostic": "550 5.1.1 No such mailbox here"}
HOURLY = Handling(Action.RETRY_WITH_DELAY, retry_after_s=3600)


@pytest.fixture
def engine(store: Store) -> Engine:
    return engine_of(Settings(), store)


def a_retry(failures: int = 1, **fields: object) -> Retry:
    told: dict[str, object] = {
        "id": 1, "address_key": WHO, "address": WHO, "thread": "<1@s.test>", "message_id": "<1@s.test>",
        "retried_as": None, "event_id": "x", "campaign": None, "list_id": None, "provider": None, "type": None,
        "subcategory": None, "failures": failures, "first_at": NOW, "failed_at": NOW, "due_at": None, "state": "open",
        "because": "", "closed_at": None,
    }  # fmt: skip
    return Retry(**(told | fields))  # type: ignore[arg-type]


def fail(engine: Engine, hours_ago: float, said: dict[str, str] = DOWN, number: int = 1, who: str = WHO) -> None:
    envelope = Envelope(recipients=("b@s.test",), source=Source.SMTPD, received_at=NOW - hours_ago * HOUR)
    engine.inbound(envelope, dsn(who, message_id=f"<{number}@s.test>", **said))  # type: ignore[arg-type]


def deliver(engine: Engine, hours_ago: float, number: int = 1) -> None:
    fail(engine, hours_ago, {"action": "delivered", "status": "2.0.0", "diagnostic": "250 2.0.0 OK"}, number)


def due(store: Store, at: datetime = NOW) -> list[str]:
    return [one.address for one in store.retries_due(at)]


# ---- the schedule ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("failures", "hours"), [(1, 1), (2, 4), (3, 12)])
def test_tries_come_after_one_four_and_twelve_hours(failures: int, hours: int) -> None:
    advice = advise(a_retry(failures), HOURLY, RetryRules(jitter=0), reader=False)
    assert advice.due == NOW + hours * HOUR


def test_tries_end_and_an_active_reader_has_more_of_them() -> None:
    rules = RetryRules(jitter=0)
    assert advise(a_retry(4), HOURLY, rules, reader=False).due is None
    assert advise(a_retry(4), HOURLY, rules, reader=True).due == NOW + 24 * HOUR
    assert advise(a_retry(6), HOURLY, rules, reader=True).due is None


def test_tries_end_with_the_money() -> None:
    dear = replace(HOURLY, retry_cost=4)
    assert advise(a_retry(2), dear, RetryRules(), reader=False).due is not None
    told = advise(a_retry(3), dear, RetryRules(), reader=False)
    assert told.due is None
    assert "cost more than 10" in told.because


def test_a_message_of_last_month_is_not_sent_again() -> None:
    old = a_retry(2, first_at=NOW - timedelta(days=30))
    assert advise(old, HOURLY, RetryRules(), reader=False).due is None


@given(thread=st.text(max_size=20), failures=st.integers(1, 3))
def test_jitter_stays_within_its_share_and_is_the_same_every_time(thread: str, failures: int) -> None:
    retry = a_retry(failures, thread=thread)
    first = advise(retry, HOURLY, RetryRules(), reader=False).due
    assert first == advise(retry, HOURLY, RetryRules(), reader=False).due
    assert first is not None
    plain = (1, 4, 12)[failures - 1] * HOUR
    assert 0.9 * plain <= first - NOW <= 1.1 * plain


def test_what_failed_together_does_not_come_back_together() -> None:
    dues = {advise(a_retry(thread=str(n)), HOURLY, RetryRules(), reader=False).due for n in range(100)}
    assert len(dues) == 100


# ---- what the engine keeps ------------------------------------------------------------------------------------------


def test_a_failure_that_heals_is_due_after_the_delay_of_its_cause(engine: Engine, store: Store) -> None:
    fail(engine, 0, GREY)
    assert due(store) == []
    assert due(store, NOW + timedelta(minutes=17)) == [WHO]


def test_a_provider_may_have_a_delay_of_its_own(store: Store, tmp_path: Path) -> None:
    (tmp_path / "handling.toml").write_text(
        '[[override]]\nprovider = "google"\ntype = "soft_bounce"\nsubcategories = ["mailbox_full"]\n'
        "retry_after_s = 60\n"
    )
    engine = Engine(Settings.loads(f'[rules]\ndirectory = "{tmp_path}"'), store)
    for who in ("ada@gmail.com", WHO):
        fail(engine, 0, FULL, who=who)
    waits = {one.provider: one.due_at - one.failed_at for one in store.retries() if one.due_at}
    assert waits["google"] < timedelta(seconds=67)
    assert waits[None] > 20 * HOUR


def test_permanent_failures_are_never_tried_again(engine: Engine, store: Store) -> None:
    fail(engine, 30, GONE)
    assert list(store.retries(WHO)) == []


def test_nobody_who_is_suppressed_is_due_until_that_ends(engine: Engine, store: Store) -> None:
    fail(engine, 30)
    held = Suppression(WHO, WHO, "all", "asked", None, None, "operator", NOW, NOW + timedelta(days=1))
    store.submit(lambda transaction: transaction.suppress(held, "ada")).result()
    assert due(store) == []
    assert due(store, NOW + timedelta(days=2)) == [WHO]


@pytest.mark.parametrize("order", list(permutations(range(2))))
def test_a_delivery_closes_it_in_whatever_order_they_come(engine: Engine, store: Store, order: tuple[int, ...]) -> None:
    facts = [lambda: fail(engine, 9), lambda: deliver(engine, 3)]
    for place in order:
        facts[place]()
    assert due(store) == []
    assert [(one.state, one.because) for one in store.retries(WHO)] == [("closed", "delivered")]


@pytest.mark.parametrize("order", list(permutations(range(2))))
def test_a_permanent_failure_closes_it_in_whatever_order(engine: Engine, store: Store, order: tuple[int, ...]) -> None:
    facts = [lambda: fail(engine, 9), lambda: fail(engine, 3, GONE, number=2)]
    for place in order:
        facts[place]()
    assert due(store) == []
    assert [one.state for one in store.retries(WHO)] == ["closed"]


def test_another_failure_after_it_was_sent_again_goes_on_with_the_schedule(engine: Engine, store: Store) -> None:
    fail(engine, 30, number=1)
    [one] = store.retries_due(NOW)
    assert store.submit(lambda transaction: transaction.retried(one.id, "<2@s.test>")).result()
    assert due(store) == []
    fail(engine, 20, number=2)
    [again] = store.retries(WHO)
    assert (again.id, again.failures, again.state) == (one.id, 2, "open")
    assert again.due_at is not None
    assert 3.6 * HOUR <= again.due_at - again.failed_at <= 4.4 * HOUR
    store.submit(lambda transaction: transaction.retried(one.id, "<3@s.test>")).result()
    deliver(engine, 1, number=3)
    assert [r.state for r in store.retries(WHO)] == ["closed"]


def test_the_same_failure_told_twice_is_one(engine: Engine, store: Store) -> None:
    fail(engine, 9)
    fail(engine, 8)
    assert [one.failures for one in store.retries(WHO)] == [1]


def test_unproven_failures_open_nothing_where_proof_is_asked_for(store: Store) -> None:
    fail(engine_of(Settings.loads('[trust]\nrequire = "always"'), store), 9)
    assert list(store.retries(WHO)) == []


def test_an_active_reader_is_known_by_the_score_ledger(engine: Engine, store: Store) -> None:
    opened = ScoreEntry(WHO, Step.ALIVE, NOW - timedelta(days=5), "open", "open")
    store.submit(lambda transaction: transaction.enter(opened)).result()
    fail(engine, 9)
    [one] = store.retries(WHO)
    assert one.because == "try 1 of 5, an active reader"


# ---- the command ----------------------------------------------------------------------------------------------------


def test_what_waited_longer_than_a_message_is_worth_is_told_no_more(
    engine: Engine, store: Store, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fail(engine, 15 * 24, number=1, who="old@receiver.test")
    fail(engine, 30, number=2, who="new@receiver.test")
    for words in (["due"], ["list"]):
        assert run(["retry", *words, "--json", *config]) == 0
        assert [json.loads(line)["recipient"] for line in capsys.readouterr().out.splitlines()] == ["new@receiver.test"]
    assert run(["explain", "old@receiver.test", *config]) == 0
    assert "to be sent again" not in capsys.readouterr().out


def test_due_done_and_skip(engine: Engine, store: Store, config: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2, 3):
        fail(engine, 30, number=number, who=f"u{number}@receiver.test")
    assert run(["retry", "due", "--json", *config]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(line["message_id"] for line in told) == ["<1@s.test>", "<2@s.test>", "<3@s.test>"]
    assert {line["subcategory"] for line in told} == {"server_temporarily_unavailable"}
    assert run(["retry", "done", str(told[0]["id"]), "--message-id", "again@s.test", *config]) == 0
    assert run(["retry", "skip", str(told[1]["id"]), "--reason", "stale", *config]) == 0
    assert run(["retry", "skip", str(told[1]["id"]), *config]) == 1
    assert run(["retry", "done", "1", "2", "--message-id", "x@y", *config]) == 2
    assert len(store.retries_due(NOW)) == 1
    retried = store.retry(told[0]["id"])
    assert retried is not None
    assert (retried.state, retried.retried_as) == ("sent", "<again@s.test>")
    capsys.readouterr()
    assert run(["retry", "list", *config]) == 0
    listed = capsys.readouterr().out
    assert "sent" in listed
    assert "u3@receiver.test" in listed


def told_due(config: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert run(["retry", "due", "--json", *config]) == 0
    return sorted(json.loads(line)["message_id"] for line in capsys.readouterr().out.splitlines())


def test_a_provider_that_refuses_us_is_not_tried_again_by_the_application(
    engine: Engine, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fail(engine, 30, number=1)
    fail(engine, 30, number=2, who="b@elsewhere.test")
    held = ["breaker", "open", "receiver.test", "--reason", "refuses us", *config]
    assert run(held) == 0
    assert told_due(config, capsys) == ["<2@s.test>"]
    assert run(["retry", "due", "--limit", "2", *config]) == 0
    assert "1 more wait, 1 for the breaker of receiver.test: mailback breaker list" in capsys.readouterr().err
    assert run(["breaker", "close", "receiver.test", "--reason", "they said sorry", *config]) == 0
    assert told_due(config, capsys) == ["<1@s.test>", "<2@s.test>"]
    with Path(config[1]).open("a") as file:
        file.write("[breakers]\nact = false\n")
    assert run(held) == 0
    assert told_due(config, capsys) == ["<1@s.test>", "<2@s.test>"], "told, and not acted on"


def test_a_half_open_breaker_is_tried_by_one_message_and_by_none_while_that_is_out(
    engine: Engine, store: Store, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2, 3):
        fail(engine, 30 + number, number=number, who=f"u{number}@receiver.test")
    half_open = breaker.opened_by_hand(
        breaker.new("receiver.test", "ip", breaker.ANY, NOW - HOUR), NOW - HOUR, "refuses us", NOW - 2 * HOUR
    )
    store.submit(lambda transaction: transaction.put_breaker(half_open, "test")).result()
    assert told_due(config, capsys) == ["<3@s.test>"]
    assert told_due(config, capsys) == ["<3@s.test>"], "asking claims nothing"
    out = breaker.claimed(half_open, "somebody@receiver.test", "policy:1", datetime.now(UTC))
    assert out is not None
    store.submit(lambda transaction: transaction.put_breaker(out, "test")).result()
    assert told_due(config, capsys) == []


def test_what_another_message_tries_after_a_hold_is_not_due_until_that_is_known(
    engine: Engine, store: Store, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        fail(engine, 30 + number, number=number, who="a@receiver.test")
    until = NOW + timedelta(days=1)
    held = a_suppression(address_key="a@receiver.test", source="score", since=NOW - timedelta(days=8), until=until)
    store.submit(lambda transaction: transaction.suppress(held, "test")).result()
    assert told_due(config, capsys) == []
    held.until = NOW - timedelta(hours=20)
    with closing(sqlite3.connect(store.path)) as opened, opened:
        opened.execute("UPDATE suppression SET until = ?", (codec.ticks(held.until),))
    assert told_due(config, capsys) == ["<2@s.test>"], "one tries, whichever waits longest"
    assert run(["retry", "due", *config]) == 0
    assert "1 more wait, 1 for a message that tries a@receiver.test: mailback explain" in capsys.readouterr().err
    lookup = SuppressionLookup(f"sqlite:///{store.path}")
    assert Probes(store.path, lookup.last, timedelta(hours=1)).waits_until(held, "policy:1") is None
    assert told_due(config, capsys) == [], "the try is under way"


def test_only_the_sender_that_is_refused_waits(
    engine: Engine, store: Store, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with Path(config[1]).open("a") as file:
        file.write("[mail]\nsending_domains = ['sender.test', 'other.test']\n")
    fail(engine, 30)
    [one] = store.retries_due(NOW)
    failed = store.event(one.event_id)
    assert failed is not None
    assert failed.original_sender == "news@sender.test"
    for refused, due_then in (("other.test", ["<1@s.test>"]), ("sender.test", [])):
        assert (
            run(["breaker", "open", "receiver.test", "--side", "domain", "--sender", refused, "--reason", "x", *config])
            == 0
        )
        assert told_due(config, capsys) == due_then


def test_watch_takes_back_what_a_breaker_holds_and_tells_it_again(engine: Engine, config: list[str]) -> None:
    fail(engine, 30)
    command = [sys.executable, "-m", "mailback.cli.main", "retry", "watch", "--json", "--interval", "0.1", *config]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        told = [json.loads(watching.stdout.readline())["event"]]
        assert run(["breaker", "open", "receiver.test", "--reason", "refuses us", *config]) == 0
        told.append(json.loads(watching.stdout.readline())["event"])
        assert run(["breaker", "close", "receiver.test", "--reason", "over", *config]) == 0
        told.append(json.loads(watching.stdout.readline())["event"])
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
    assert told == ["due", "held", "due"]


def test_watch_tells_what_becomes_due_and_what_ends(engine: Engine, store: Store, config: list[str]) -> None:
    fail(engine, 30)
    command = [sys.executable, "-m", "mailback.cli.main", "retry", "watch", "--json", "--interval", "0.1", *config]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert (first["event"], first["recipient"]) == ("due", WHO)
        deliver(engine, 1)
        second = json.loads(watching.stdout.readline())
        assert (second["event"], second["because"]) == ("ended", "delivered")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
    assert store.retries_due(NOW) == []


def test_explain_tells_the_score_the_list_and_what_to_send_again(
    engine: Engine, store: Store, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["subscriber", "opt-in", "--reason", "asked", "--at", "9d", WHO, *config]) == 0
    fail(engine, 30, FULL)
    capsys.readouterr()
    assert run(["explain", WHO, *config]) == 0
    told = capsys.readouterr().out
    assert "1 of 3 in a row within 7 days" in told
    assert "bounce status: soft; 1 soft bounces in a row count, until" in told
    assert "on the list: in since" in told
    assert "to be sent again: <1@s.test>, due" in told
    assert run(["explain", "--json", WHO, *config]) == 0
    [line] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (line["score"]["bounce_status"], line["score"]["count"]) == ("soft", 1)
    assert line["score"]["lines"][-1]["because"] == "1 of 3 in a row within 7 days"
    assert (line["lists"][0]["status"], line["retries"][0]["state"]) == ("in", "open")

"""After a hold one message shows whether the address takes mail again; all others wait for what becomes of it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mailback
from mailback.bounce.taxonomy import Action
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.outbound.check import REPLY_MAX, Check, probing
from mailback.outbound.connection import Connections
from mailback.outbound.policyd import PolicyConnection
from mailback.outbound.probes import Probes
from mailback.outbound.socketmap import SocketmapConnection
from mailback.policy.probe import QUIET, claimed
from mailback.settings import Settings
from mailback.store import Store, SuppressionLookup
from mailback.store.records import Probe, Suppression
from tests.support.command import Run, within
from tests.support.mail import dsn
from tests.support.server import wait_for

WHO = "full@receiver.test"
NOW = datetime.now(UTC)
FULL = ("4.2.2", "452 4.2.2 The email account that you tried to reach is over quota")
DISABLED = ("5.2.1", "550 5.2.1 The email account that you tried to reach is disabled")
WAIT = timedelta(hours=1)
MONTH_AGO = NOW - timedelta(days=30)
_numbers = count()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "mailback.toml"
    file.write_text(f"store.url = 'sqlite:///{tmp_path}/mailback.db'\nrules.directory = '{tmp_path}/rules'\n")
    (tmp_path / "rules").mkdir()
    return file


@pytest.fixture
def store(config: Path) -> Iterator[Store]:
    with Store.open(Settings.load(config).store.url) as opened:
        opened.upgrade()
        yield opened


@pytest.fixture
def command(config: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return within(config, capsys)


def engine_of(store: Store, config: Path) -> Engine:
    return Engine(Settings.load(config), store)


def told(engine: Engine, ago: timedelta, said: tuple[str, str] = FULL, action: str = "failed") -> Action:
    envelope = Envelope("", ("bounces@sender.test",), source=Source.SMTPD, received_at=NOW - ago)
    raw = dsn(WHO, message_id=f"<{next(_numbers)}@sender.test>", status=said[0], diagnostic=said[1], action=action)
    return engine.inbound(envelope, raw).decisions[0].action


def arrives(engine: Engine) -> None:
    told(engine, timedelta(0), ("2.0.0", "250 2.0.0 OK"), "delivered")


@pytest.fixture
def over(store: Store, config: Path) -> Engine:
    """A week's hold of the address has run out eleven days ago."""
    engine = engine_of(store, config)
    for days in (4, 3, 2):
        told(engine, timedelta(days=days))
    days_pass(store, 16)
    return engine


def days_pass(store: Store, days: int) -> None:
    """Everything that has happened was so many days earlier."""
    ticks = days * 86_400_000_000
    with closing(sqlite3.connect(store.path)) as opened, opened:
        opened.execute("UPDATE event SET at = at - ?", (ticks,))
        opened.execute("UPDATE score SET at = at - ?, day = day - ?", (ticks, days))
        opened.execute("UPDATE suppression SET since = since - ?1, until = until - ?1", (ticks,))


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def front(store: Store, clock: Clock | None = None) -> Check:
    lookup = SuppressionLookup(f"sqlite:///{store.path}")
    return Check(lookup, probes=Probes(store.path, lookup.last, WAIT, clock=clock or Clock()))


def passes(check: Check, message: str) -> bool:
    return check.answer(WHO, sender="news@sender.test", token=f"policy:{message}").allowed


@pytest.mark.usefixtures("over")
def test_one_message_passes_each_time_it_is_asked_about_and_the_next_waits(store: Store) -> None:
    check = front(store)
    assert [passes(check, "first") for _ in range(3)] == [True] * 3
    answer = check.answer(WHO, sender="news@sender.test", token="policy:second")
    assert (answer.code, answer.enhanced, answer.later) == (451, "4.7.1", True)
    assert "one message is trying whether it takes mail again" in answer.text
    assert check.answer("another@receiver.test", token="policy:second").allowed


@pytest.mark.usefixtures("over")
def test_notices_of_the_null_sender_never_wait(store: Store) -> None:
    check = front(store)
    assert passes(check, "first")
    assert check.answer(WHO, sender="", token="policy:notice").allowed


@pytest.mark.usefixtures("over")
def test_a_restart_forgets_nothing(store: Store) -> None:
    assert passes(front(store), "first")
    assert not passes(front(store), "second")


@pytest.mark.usefixtures("over")
def test_of_many_processes_one_lets_a_message_through(store: Store) -> None:
    code = (
        "import sys; from datetime import timedelta; from pathlib import Path;"
        "from mailback.outbound.check import Check; from mailback.outbound.probes import Probes;"
        "from mailback.store import SuppressionLookup;"
        "lookup = SuppressionLookup('sqlite:///' + sys.argv[1]);"
        "check = Check(lookup, probes=Probes(Path(sys.argv[1]), lookup.last, timedelta(hours=1)));"
        f"print(check.answer({WHO!r}, sender='a@sender.test', token='policy:' + sys.argv[2]).allowed)"
    )

    def ask(number: int) -> str:
        command = [sys.executable, "-c", code, str(store.path), str(number)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    assert sorted(answers) == ["False"] * 3 + ["True"]


def test_what_arrives_ends_it(store: Store, over: Engine) -> None:
    check = front(store)
    assert passes(check, "first")
    arrives(over)
    assert passes(check, "second")
    assert passes(check, "third")


def test_what_bounces_without_a_new_hold_makes_the_next_message_the_probe(store: Store, over: Engine) -> None:
    clock = Clock()
    check = front(store, clock)
    assert passes(check, "first")
    told(over, timedelta(seconds=-1))
    clock.now += timedelta(minutes=1)
    assert passes(check, "second")
    assert not passes(check, "third")


@pytest.mark.usefixtures("over")
def test_where_nobody_tells_deliveries_silence_is_an_answer_in_the_end(store: Store) -> None:
    clock = Clock()
    check = front(store, clock)
    for number in range(QUIET):
        assert passes(check, f"try{number}")
        assert not passes(check, f"other{number}")
        clock.now += WAIT
    assert all(passes(check, f"mail{number}") for number in range(5))


def test_whom_a_person_paused_until_a_date_is_mailed_from_then_on(store: Store) -> None:
    paused = Suppression(
        WHO,
        WHO,
        "all",
        "asked for a pause",
        None,
        None,
        "operator",
        NOW - timedelta(days=3),
        NOW + timedelta(seconds=5),
    )
    store.submit(lambda transaction: transaction.suppress(paused, "operator:ann")).result()
    clock = Clock()
    clock.now = NOW + timedelta(days=1)
    check = front(store, clock)
    assert passes(check, "first")
    assert passes(check, "second")


@pytest.mark.usefixtures("over")
def test_two_fronts_that_ask_about_one_message_let_it_through(store: Store) -> None:
    check = front(store)
    assert passes(check, "first")
    assert check.answer(WHO, token="milter:abc").allowed
    assert not check.answer(WHO, token="milter:def").allowed
    assert not passes(check, "second")


@pytest.mark.usefixtures("over")
def test_the_policy_service_knows_a_message_by_its_instance(store: Store) -> None:
    connection = PolicyConnection(front(store), lambda _, error: pytest.fail(str(error)), Connections())
    ask = f"protocol_state=RCPT\nsender=a@sender.test\nrecipient={WHO}\ninstance=".encode()
    assert connection.answer(ask + b"12.34.1") == b"action=DUNNO\n\n"
    assert connection.answer(ask + b"12.34.1") == b"action=DUNNO\n\n"
    assert connection.answer(ask + b"12.35.0").startswith(b"action=451 4.7.1 <full@receiver.test>: held until ")


@pytest.mark.usefixtures("over")
def test_the_socketmap_lets_one_through_and_the_queue_holds_those_behind_it(store: Store) -> None:
    clock = Clock()
    connection = SocketmapConnection(front(store, clock), lambda _, error: pytest.fail(str(error)), Connections())
    assert connection.answer(f"access {WHO}".encode()) == b"NOTFOUND "
    assert connection.answer(f"access {WHO}".encode()).startswith(b"OK 451 4.7.1 ")
    assert connection.answer(f"transport {WHO}".encode()) == b"NOTFOUND ", "of the same message"
    clock.now += timedelta(minutes=5)
    assert connection.answer(f"transport {WHO}".encode()).startswith(b"OK retry:4.7.1 <full@receiver.test>: held")
    clock.now += WAIT
    assert connection.answer(f"transport {WHO}".encode()) == b"NOTFOUND "


@pytest.mark.usefixtures("over")
def test_an_application_asks_without_claiming_and_what_it_has_sent_is_the_probe(config: Path) -> None:
    with mailback.outbox(config) as outbox:
        assert outbox.check(WHO).allowed
        assert outbox.check(WHO).allowed
        outbox.remember(message_id="<probe@sender.test>", sender="news@sender.test", recipients=[WHO])
        assert outbox.check(WHO).later


@pytest.mark.usefixtures("over")
def test_what_a_script_says_to_have_sent_is_the_probe(command: Run) -> None:
    assert command("check", WHO).code == 0
    sent = ("journal", "add", "--message-id", "probe@sender.test", "--sender", "news@sender.test", "--recipient", WHO)
    assert command(*sent).code == 0
    assert command("check", WHO).code == 1


@pytest.mark.usefixtures("over")
def test_a_message_from_before_the_end_of_the_hold_is_no_probe(store: Store, config: Path) -> None:
    with mailback.outbox(config) as outbox:
        outbox.remember(message_id="<old@sender.test>", sender="a@sender.test", recipients=[WHO], at=MONTH_AGO)
    assert passes(front(store), "first")


@pytest.mark.usefixtures("over")
def test_the_command_line_tells_it_and_claims_nothing(store: Store, command: Run) -> None:
    for _ in range(2):
        assert command("check", WHO).code == 0
    assert passes(front(store), "first")
    done = command("check", "--json", WHO)
    assert done.code == 1
    assert (done.lines[0]["allowed"], done.lines[0]["later"]) == (False, True)
    assert done.lines[0]["reply"].startswith("451 4.7.1 ")
    assert "for now: 451 4.7.1" in command("explain", WHO).out
    assert command("explain", "--json", WHO).lines[0]["later"].startswith("451 4.7.1")


@pytest.mark.usefixtures("over")
def test_zero_lets_all_mail_pass_from_the_end_of_the_hold_on(store: Store) -> None:
    assert Probes.of(Settings.loads("[score]\nprobe_wait_s = 0"), store) is None


def test_erasing_an_address_takes_its_probe_along(store: Store, over: Engine, command: Run) -> None:
    assert passes(front(store), "first")
    assert command("forget", WHO, "--reason", "asked").code == 0
    with closing(sqlite3.connect(store.path)) as opened:
        assert opened.execute("SELECT count(*) FROM probe").fetchone() == (0,)


def test_a_reply_stays_one_line_of_smtp_whatever_the_address() -> None:
    reply = probing("w" * 900 + "\r\n%@gmail.com", NOW).reply
    assert len(reply) <= REPLY_MAX
    assert reply.isprintable()


# re_engage ---------------------------------------------------------------------------------------------------------

_ROW = """
[[handling]]
type = "hard_bounce"
subcategories = ["mailbox_disabled"]
action = "re_engage"
suppress_days = 30
"""


@pytest.fixture
def trying(store: Store, config: Path, tmp_path: Path) -> Engine:
    """Disabled accounts are held for a month, and then tried."""
    (tmp_path / "rules" / "handling.toml").write_text(_ROW)
    config.write_text(config.read_text() + "score.growth = 2\n")
    return engine_of(store, config)


def test_re_engage_holds_at_once_and_names_the_cause(store: Store, trying: Engine) -> None:
    assert told(trying, timedelta(days=2), DISABLED) is Action.RE_ENGAGE
    held = store.lookup(WHO)
    assert held is not None
    assert (held.until, held.reason) == (NOW - timedelta(days=2) + timedelta(days=30), "hard_bounce/mailbox_disabled")
    assert next(iter(store.events())).action is Action.RE_ENGAGE


def test_re_engage_tries_one_message_and_holds_longer_each_time_it_bounces(store: Store, trying: Engine) -> None:
    told(trying, timedelta(days=3), DISABLED)
    days_pass(store, 30)
    check = front(store)
    assert passes(check, "first")
    assert not passes(check, "second")
    assert told(trying, timedelta(days=1), DISABLED) is Action.RE_ENGAGE
    held = store.lookup(WHO)
    assert held is not None
    assert held.until == NOW - timedelta(days=1) + timedelta(days=60)


def test_re_engage_is_back_to_normal_when_the_message_arrives(store: Store, trying: Engine) -> None:
    told(trying, timedelta(days=3), DISABLED)
    days_pass(store, 30)
    check = front(store)
    assert passes(check, "first")
    arrives(trying)
    assert passes(check, "second")
    told(trying, timedelta(days=-1) + timedelta(hours=1), DISABLED)
    held = store.lookup(WHO)
    assert held is not None
    assert held.until is not None
    assert held.until - held.since == timedelta(days=30), "the first in a row again"


def test_re_engage_ends_for_ever_with_the_third_in_a_row(store: Store, trying: Engine) -> None:
    for days in (200, 150, 80):
        last = told(trying, timedelta(days=days), DISABLED)
    assert last is Action.SUPPRESS_PERMANENTLY
    held = store.lookup(WHO)
    assert held is not None
    assert held.until is None


def test_re_engage_without_proof_waits_for_a_person(store: Store, config: Path, trying: Engine) -> None:
    config.write_text(config.read_text() + "trust.require = 'always'\n")
    assert told(engine_of(store, config), timedelta(days=2), DISABLED) is Action.MANUAL_REVIEW
    assert store.lookup(WHO) is None


# The rule ----------------------------------------------------------------------------------------------------------

_asks = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 7200)), max_size=40)


@given(_asks)
def test_two_messages_that_try_are_a_wait_apart(asks: list[tuple[str, int]]) -> None:
    probe: Probe | None = None
    at, tried = NOW, list[datetime]()
    for message, later in asks:
        at += timedelta(seconds=later)
        after = claimed(probe, Probe(WHO, NOW, at, f"policy:{message}", 0), bounced=False, wait=WAIT)
        if after is not None and after is not probe:
            tried.append(at)
            probe = after
    assert all(then - earlier >= WAIT for earlier, then in pairwise(tried))
    assert len(tried) <= QUIET


def test_a_new_hold_is_tried_anew() -> None:
    probe = Probe(WHO, NOW, NOW, "policy:a", QUIET)
    asked = replace(probe, hold_until=NOW + timedelta(days=9), at=NOW + timedelta(days=10), token="policy:b")
    after = claimed(probe, asked, bounced=False, wait=WAIT)
    assert after is not None
    assert (after.tries, after.token) == (1, "policy:b")


# Breakers, where somebody asks ----------------------------------------------------------------------------------------


def test_an_open_breaker_of_the_provider_is_a_no_for_now(store: Store, command: Run) -> None:
    assert command("breaker", "open", "receiver.test", "--until", "2h", "--reason", "their outage").code == 0
    done = command("check", "--json", WHO, "ann@elsewhere.test")
    assert done.code == 1
    held, other = done.lines
    assert (held["allowed"], held["later"], other["allowed"]) == (False, True, True)
    assert held["breaker"].startswith("receiver.test")
    assert held["reply"].startswith("451 4.7.1 <full@receiver.test>: mail")
    assert command("check", WHO).out.startswith("451 4.7.1 ")
    assert "for now: 451 4.7.1" in command("explain", WHO).out
    assert command("breaker", "close", "receiver.test", "--reason", "over").code == 0
    assert command("check", WHO).code == 0


def test_asking_uses_up_no_try_of_a_half_open_breaker(store: Store, command: Run) -> None:
    assert command("breaker", "open", "receiver.test", "--until", "2h", "--reason", "their outage").code == 0
    with closing(sqlite3.connect(store.path)) as opened, opened:
        opened.execute("UPDATE breaker SET since = since - 86400000000, until = until - 86400000000")
    for who in ("ann@receiver.test", "bob@receiver.test", WHO):
        assert command("check", who).code == 0


def test_an_application_hears_of_a_breaker_and_by_asking_takes_no_try(store: Store, config: Path, command: Run) -> None:
    assert command("breaker", "open", "receiver.test", "--until", "2h", "--reason", "their outage").code == 0
    with mailback.outbox(config) as outbox:
        answer = outbox.check(WHO, sender="news@sender.test")
        assert (answer.later, outbox.check("ann@elsewhere.test").allowed) == (True, True)
        with closing(sqlite3.connect(store.path)) as opened, opened:
            opened.execute("UPDATE breaker SET since = since - 86400000000, until = until - 86400000000")
        wait_for(lambda: outbox.check(WHO).allowed)
        assert outbox.check("bob@receiver.test").allowed


def test_a_store_that_was_not_upgraded_yet_still_answers_who_is_suppressed(store: Store, command: Run) -> None:
    assert command("suppress", "add", WHO, "--reason", "asked").code == 0
    with closing(sqlite3.connect(store.path)) as opened, opened:
        opened.execute("DROP TABLE probe")
    assert [command("check", who).code for who in (WHO, "ann@elsewhere.test")] == [1, 0]

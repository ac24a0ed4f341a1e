"""Mail held at the fronts: who is, from which sender, what is answered, and that one try is one in all processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailback.effects.senders import Senders
from mailback.outbound import brakes as module
from mailback.outbound.brakes import Brakes
from mailback.outbound.check import REPLY_MAX, Check, deferral
from mailback.outbound.connection import Connections
from mailback.outbound.policyd import PolicyConnection
from mailback.outbound.socketmap import SocketmapConnection
from mailback.policy.breaker import ANY, Terms, new, tripped
from mailback.recipient.hosting import Hosting
from mailback.store import Store, SuppressionLookup
from mailback.store.domains import DomainLookup
from mailback.store.records import Breaker, MailDomain
from tests.support.server import wait_for

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
WHY = "block_bounce/ip_blocked: 12 of 40 within the hour"
OURS = Senders(("192.0.2.25",), ("sender.test",))


@pytest.fixture(autouse=True)
def _read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH_S", 0.0)


def known(host: str) -> str | None:
    return "google" if host.endswith(("gmail.com", "google.com")) else None


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def front(store: Store, clock: Clock, senders: Senders = OURS, **fields: Any) -> Check:
    lookup = DomainLookup(store.path)
    brakes = Brakes(store.path, senders, Hosting(lookup.find), known, clock=clock, **fields)
    return Check(SuppressionLookup(f"sqlite:///{store.path}"), brakes)


def put(
    store: Store, *, side: str = "ip", sender: str = "192.0.2.25", provider: str = "google", **terms: int
) -> Breaker:
    breaker = tripped(new(provider, side, sender, NOW - timedelta(days=9)), replace(Terms(), **terms), "rate", WHY, NOW)
    store.submit(lambda transaction: transaction.put_breaker(breaker, "test")).result()
    return breaker


def begin_to_try(store: Store) -> None:
    """The pause of every breaker ended an hour ago."""
    hour = 3_600_000_000
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    with closing(sqlite3.connect(store.path)) as opened, opened:
        opened.execute("UPDATE breaker SET since = ?, until = ?", (now - 2 * hour, now - hour))


def host(store: Store, name: str, provider: str) -> None:
    store.submit(lambda tx: tx.put_domain(MailDomain(name, "mx", ("mx.example",), provider))).result()


def test_a_recipient_of_the_provider_waits_and_all_others_pass(store: Store) -> None:
    clock = Clock()
    check = front(store, clock)
    assert check.answer("ann@gmail.com", sender="news@sender.test").allowed
    put(store)
    answer = check.answer("Ann@gmail.com", sender="news@sender.test")
    assert answer.reply == (
        "451 4.7.1 <Ann@gmail.com>: mail from 192.0.2.25 to google is held until 2026-05-04 13:00 UTC, "
        "block_bounce/ip_blocked (mailback breaker list)"
    )
    assert check.answer("ann@elsewhere.example", sender="news@sender.test").allowed
    assert check.answer("ann@gmail.com", sender="").allowed, "a notice is no mailing"


def test_a_domain_hosted_by_the_provider_is_the_provider(store: Store) -> None:
    put(store)
    host(store, "company.example", "google")
    assert not front(store, Clock()).answer("ann@company.example", sender="news@sender.test").allowed


def test_a_domain_that_nobody_knows_passes_and_is_wished_for(store: Store) -> None:
    put(store)
    assert front(store, Clock()).answer("ann@unheard.example", sender="news@sender.test").allowed
    wait_for(lambda: store.wished_domains(10) == ["unheard.example"])


def test_a_suppression_outranks_a_breaker(store: Store) -> None:
    from tests.support.records import a_suppression, do

    put(store)
    do(store, lambda tx: tx.suppress(a_suppression(address_key="ann@gmail.com", address="ann@gmail.com"), "test"))
    assert front(store, Clock()).answer("ann@gmail.com", sender="news@sender.test").code == 550


@pytest.mark.parametrize(
    ("breaker", "senders", "sender", "ip", "held"),
    [
        (("domain", "sender.test"), OURS, "news@mail.sender.test", None, True),
        (("domain", "sender.test"), Senders((), ("sender.test", "other.test")), "news@other.test", None, False),
        (("domain", "sender.test"), Senders((), ("sender.test", "other.test")), None, None, False),
        (("domain", "sender.test"), OURS, None, None, True),
        (("domain", "sender.test"), OURS, "b+1@bounces.example", None, True),
        (("domain", ANY), Senders((), ("sender.test", "other.test")), "news@other.test", None, True),
        (("ip", "192.0.2.25"), Senders(("192.0.2.25", "192.0.2.26")), "x@y.test", None, False),
        (("ip", "192.0.2.25"), Senders(("192.0.2.25", "192.0.2.26")), "x@y.test", "192.0.2.25", True),
        (("ip", "192.0.2.25"), Senders(("192.0.2.25", "192.0.2.26")), "x@y.test", "192.0.2.26", False),
        (("ip", ANY), Senders(), "x@y.test", None, True),
    ],
)
def test_mail_that_may_leave_from_a_sender_that_is_not_refused_passes(
    store: Store, breaker: tuple[str, str], senders: Senders, sender: str | None, ip: str | None, held: bool
) -> None:
    put(store, side=breaker[0], sender=breaker[1])
    check = front(store, Clock(), senders)
    assert check.answer("ann@gmail.com", sender=sender, sending_ip=ip).allowed is not held


def test_after_the_pause_one_message_tries_and_the_others_wait_for_its_end(store: Store) -> None:
    clock = Clock()
    one, other = front(store, clock), front(store, clock)
    put(store)
    clock.now = NOW + timedelta(hours=1)
    assert one.answer("ann@gmail.com", sender="a@sender.test").allowed
    assert "until 2026-05-04 13:05 UTC" in other.answer("bob@gmail.com", sender="a@sender.test").text
    assert other.answer("ann@gmail.com", sender="a@sender.test", queued=True).allowed, "the same message, in the queue"
    clock.now += timedelta(minutes=5)
    assert other.answer("bob@gmail.com", sender="a@sender.test").allowed


def test_another_message_to_the_same_recipient_waits_as_the_others_do(store: Store) -> None:
    clock = Clock()
    check = front(store, clock)
    put(store)
    clock.now = NOW + timedelta(hours=1)

    def passes(token: str) -> bool:
        return check.answer("ann@gmail.com", sender="a@sender.test", token=token).allowed

    assert passes("policy:first")
    assert passes("milter:first"), "another front is asked about the same message"
    assert not passes("policy:second")
    clock.now += timedelta(minutes=1)
    assert passes("policy:first"), "as long as no other one may try"
    assert not passes("milter:second")


def test_the_queue_asks_about_the_message_that_tries_and_stops_the_ones_behind_it(store: Store) -> None:
    clock = Clock()
    check = front(store, clock)
    put(store)
    clock.now = NOW + timedelta(hours=1)

    def passes(who: str) -> bool:
        return check.answer(who, queued=True).allowed

    assert passes("ann@gmail.com"), "smtpd resolves the recipient, or the queue manager has mail from sendmail(1)"
    assert passes("ann@gmail.com"), "the queue manager, or the next message: the table is not told"
    assert not passes("bob@gmail.com")
    clock.now += timedelta(seconds=11)
    assert not passes("ann@gmail.com"), "that is another message by now"
    clock.now += timedelta(minutes=5)
    assert passes("bob@gmail.com")
    assert not passes("ann@gmail.com")


def test_what_an_application_sent_is_the_try_of_a_half_open_breaker(store: Store) -> None:
    from mailback.application import Outbox
    from mailback.settings import Settings

    put(store, sender=ANY)
    begin_to_try(store)
    settings = Settings.loads(f"store.url = 'sqlite:///{store.path}'\n[mail]\nsending_domains = ['sender.test']\n")
    outbox = Outbox(settings, store)

    def remember(who: str, at: datetime | None = None) -> None:
        outbox.remember(message_id="<1@sender.test>", sender="news@sender.test", recipients=[who], at=at)

    remember("carl@gmail.com", datetime.now(UTC) - timedelta(days=3))
    assert outbox.check("ann@gmail.com").allowed, "it left before the breaker opened"
    assert outbox.check("ann@gmail.com").allowed, "asking claims nothing"
    remember("ann@gmail.com")
    assert outbox.check("bob@gmail.com").later
    assert outbox.check("ann@gmail.com").later


def test_of_many_that_ask_at_once_one_passes(store: Store) -> None:
    clock = Clock()
    put(store)
    clock.now = NOW + timedelta(hours=1)
    fronts = [front(store, clock) for _ in range(8)]
    start = threading.Barrier(8)
    allowed = []

    def ask(number: int) -> None:
        start.wait()
        allowed.append(fronts[number].answer(f"p{number}@gmail.com", sender="a@sender.test").allowed)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(allowed) == [False] * 7 + [True]


def test_of_many_processes_that_ask_one_gets_the_try(store: Store) -> None:
    put(store)
    begin_to_try(store)
    code = (
        "import sys; from pathlib import Path; from mailback.effects.senders import Senders;"
        "from mailback.outbound.brakes import Brakes; from mailback.recipient.hosting import Hosting;"
        "from mailback.store.domains import DomainLookup; path = Path(sys.argv[1]);"
        "brakes = Brakes(path, Senders(('192.0.2.25',), ('sender.test',)), Hosting(DomainLookup(path).find),"
        " lambda host: 'google');"
        "print(brakes.held(f'{sys.argv[2]}@gmail.com', 'a@sender.test', token='policy:' + sys.argv[2]) is None)"
    )

    def ask(number: int) -> str:
        command = [sys.executable, "-c", code, str(store.path), f"p{number}"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    assert sorted(answers) == ["False"] * 3 + ["True"]


def test_quiet_lets_all_pass_even_before_anybody_wrote_it_down(store: Store) -> None:
    clock = Clock()
    check = front(store, clock)
    put(store)
    for number in range(3):
        clock.now = NOW + timedelta(hours=1, minutes=5 * number)
        assert check.answer(f"p{number}@gmail.com", sender="a@sender.test").allowed
    assert not check.answer("q@gmail.com", sender="a@sender.test").allowed
    clock.now = NOW + timedelta(hours=1, minutes=30)
    assert check.answer("q@gmail.com", sender="a@sender.test").allowed
    assert check.answer("r@gmail.com", sender="a@sender.test").allowed


def test_the_table_of_transports_defers_or_names_the_transport_of_the_settings(store: Store) -> None:
    def asked(check: Check, table: str = "transport") -> str:
        connection = SocketmapConnection(check, lambda _, error: pytest.fail(str(error)), Connections())
        return connection.answer(f"{table} ann@gmail.com".encode()).decode()

    clock = Clock()
    put(store)
    assert asked(front(store, clock)).startswith(
        "OK retry:4.7.1 <ann@gmail.com>: mail from 192.0.2.25 to google is held"
    )
    assert asked(front(store, clock), "access").startswith("OK 451 4.7.1 <ann@gmail.com>: ")
    assert asked(front(store, clock, hold_transport="held")) == "OK held:"
    put(store, pace_s=30)
    slow = front(store, clock, slow_transport="slow")
    assert asked(slow) == "OK slow:"
    assert asked(front(store, clock, slow_transport="slow:[relay.test]")) == "OK slow:[relay.test]"
    assert asked(slow, "access") == "NOTFOUND ", "it is taken into the queue, and leaves it slowly"


def test_a_slow_breaker_without_a_transport_passes_one_message_a_while(store: Store) -> None:
    clock = Clock()
    check = front(store, clock)
    put(store, pace_s=30)
    assert check.answer("ann@gmail.com", sender="a@sender.test").allowed
    assert "until 2026-05-04 12:01 UTC" in check.answer("bob@gmail.com", sender="a@sender.test").text
    clock.now += timedelta(seconds=30)
    assert check.answer("bob@gmail.com", sender="a@sender.test").allowed


def test_of_several_addresses_of_ours_the_slowed_one_is_paced_where_mail_comes_in(store: Store) -> None:
    """The table of transports does not know from which address a message will leave."""
    put(store, pace_s=30)
    check = front(store, Clock(), Senders(("192.0.2.25", "192.0.2.26")), slow_transport="slow")
    names = iter("abcd")

    def allowed(sending_ip: str) -> bool:
        return check.answer(f"{next(names)}@gmail.com", sender="a@sender.test", sending_ip=sending_ip).allowed

    assert [allowed("192.0.2.25"), allowed("192.0.2.25"), allowed("192.0.2.26")] == [True, False, True]


def test_the_policy_service_tells_it_and_takes_the_address_of_its_context(store: Store) -> None:
    put(store)
    check = front(store, Clock(), Senders(("192.0.2.25", "192.0.2.26")))
    connection = PolicyConnection(check, lambda _, error: pytest.fail(str(error)), Connections())
    ask = b"request=smtpd_access_policy\nprotocol_state=RCPT\nsender=a@sender.test\nrecipient=ann@gmail.com\n"
    assert connection.answer(ask) == b"action=DUNNO\n\n"
    assert connection.answer(ask + b"policy_context=ip:192.0.2.25").startswith(
        b"action=451 4.7.1 <ann@gmail.com>: mail"
    )


def test_a_reply_stays_one_line_of_smtp_whatever_the_names(store: Store) -> None:
    breaker = replace(put(store), provider="x" * 300 + "\r\n%", reason="\n" * 9 + "y" * 900, sender="z" * 300)
    reply = deferral("w" * 900 + "\r\n@gmail.com", breaker, NOW).reply
    assert len(reply) <= REPLY_MAX
    assert reply.isprintable()
    assert "%" not in reply


def test_nothing_heavy_is_imported_for_it() -> None:
    heavy = "sqlalchemy pydantic structlog rich alembic dns"
    code = f"import sys, mailback.outbound.brakes; print([m for m in {heavy!r}.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

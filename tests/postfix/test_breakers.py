"""Breakers before a real Postfix: held at RCPT by policy service and milter, deferred or slowed down in the queue."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mailback.outbound.brakes import REFRESH_S
from mailback.policy.breaker import Terms, new, tripped
from mailback.policy.passage import SOON
from mailback.store import Store, codec
from mailback.store.records import Breaker
from tests.postfix.conftest import Scene, scene
from tests.postfix.instance import Smtpd
from tests.support.records import a_suppression
from tests.support.server import wait_for

LETTER = b"From: news@sender.test\r\nTo: x@held.test\r\nSubject: news\r\nMessage-ID: <3@sender.test>\r\n\r\nNews.\r\n"


SLOW = """\
slow      unix       - - n - 1   smtp
  -o syslog_name=postfix/slow
  -o slow_destination_concurrency_limit=1
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    smtpds = {
        "plain": Smtpd(),
        "policy": Smtpd({"smtpd_recipient_restrictions": "$via_policy"}),
        "socketmap": Smtpd({"smtpd_recipient_restrictions": "$via_socketmap"}),
    }

    def parameters(ports: dict[str, int]) -> dict[str, str]:
        patch.setenv("MAILBACK_BREAKERS_SLOW_TRANSPORT", f"slow:[127.0.0.1]:{ports['world']}")
        return {"transport_maps": f"socketmap:inet:127.0.0.1:{ports['socketmap']}:transport"}

    with pytest.MonkeyPatch.context() as patch, scene(smtpds, parameters, services=SLOW) as running:
        yield running


def hold(stage: Scene, provider: str) -> None:
    done = stage.command("breaker", "open", provider, "--reason", "they refuse us")
    assert done.returncode == 0, done.stderr


def release(stage: Scene, provider: str) -> None:
    done = stage.command("breaker", "close", provider, "--reason", "they take it again")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("front", ["policy", "socketmap", "plain"])
def test_a_recipient_of_a_held_provider_is_asked_to_wait_until_it_is_released(stage: Scene, front: str) -> None:
    domain = f"{front}.held.test"
    hold(stage, domain)
    wait_for(lambda: stage.postfix.refusal(front, "news@sender.test", f"ann@{domain}")[0] in (450, 451))
    code, said = stage.postfix.refusal(front, "news@sender.test", f"ann@{domain}")
    assert "4.7.1 " in said, (code, said)
    assert "is held until further notice" in said
    assert front == "plain" or code == 451, "Postfix words what a table of transports defers in its own code"
    assert stage.postfix.refusal(front, "news@sender.test", "bob@free.test")[0] == 250
    release(stage, domain)
    wait_for(lambda: stage.postfix.refusal(front, "news@sender.test", f"ann@{domain}")[0] == 250)


def test_mail_from_sendmail_waits_in_the_queue_and_goes_when_the_provider_takes_it_again(stage: Scene) -> None:
    hold(stage, "queue.held.test")
    stage.postfix.sendmail("cron@sender.test", ["ann@queue.held.test"], LETTER)
    wait_for(lambda: "status=deferred (<ann@queue.held.test>: mail to queue.held.test is held" in stage.postfix.log(),
             what=stage.postfix.log())  # fmt: skip
    assert not stage.world.to("ann@queue.held.test")
    release(stage, "queue.held.test")
    wait_for(lambda: stage.world.to("ann@queue.held.test"), 60, what=stage.postfix.log())


def test_after_the_pause_one_message_of_many_tries(stage: Scene) -> None:
    now = datetime.now(UTC)
    trip = tripped(new("tries.test", "ip", "*", now), Terms(), "rate", "block_bounce/ip_blocked", now)
    put(stage, replace(trip, until=now - timedelta(hours=1)))
    wait_for(lambda: sorted(ask_all(stage, "tries.test")) == [250, 451, 451, 451])


def test_mail_to_a_provider_that_asks_for_less_is_taken_and_leaves_by_the_slow_transport(stage: Scene) -> None:
    now = datetime.now(UTC)
    put(stage, tripped(new("slow.test", "ip", "*", now), Terms(pace_s=30), "rate", "block_bounce/rate_limited", now))

    def slowly() -> bool:
        stage.postfix.send("policy", "news@sender.test", "ann@slow.test", LETTER)
        return any("postfix/slow" in line and "status=sent" in line for line in stage.postfix.log().splitlines())

    wait_for(slowly, 120, what="no message left by the slow transport")


def test_of_the_mail_in_the_queue_one_message_tries(stage: Scene) -> None:
    half_open(stage, "queued.test")
    hand_in(stage, "queued.test")
    wait_for(lambda: told(stage, "queued.test", "deferred") >= {"p0", "p1", "p2", "p3"} - arrived(stage, "queued.test")
             and arrived(stage, "queued.test"), 60, what=stage.postfix.log())  # fmt: skip
    assert len(arrived(stage, "queued.test")) == 1
    [breaker] = standing(stage, "queued.test")
    assert breaker.probes == 1


def test_after_a_hold_mail_of_the_queue_waits_for_the_message_that_tries(stage: Scene) -> None:
    hold_is_over(stage, "ann@again.test")
    stage.postfix.send("policy", "news@sender.test", "ann@again.test", LETTER)
    wait_for(lambda: stage.world.to("ann@again.test"), 60, what=stage.postfix.log())
    time.sleep(SOON.total_seconds())
    stage.postfix.sendmail("cron@sender.test", ["ann@again.test"], LETTER)
    wait_for(lambda: "status=deferred (<ann@again.test>: held until " in stage.postfix.log(), what=stage.postfix.log())
    assert len(stage.world.to("ann@again.test")) == 1


FOLLOW = '[follow]\nfiles = ["{maillog}"]\n'


@pytest.fixture(scope="module")
def followed() -> Iterator[Scene]:
    """The log is followed, so that what becomes of a try is known."""

    def parameters(ports: dict[str, int]) -> dict[str, str]:
        return {"transport_maps": f"socketmap:inet:127.0.0.1:{ports['socketmap']}:transport"}

    with scene({"plain": Smtpd()}, parameters, more=FOLLOW) as running:
        yield running


def test_a_try_that_arrives_lets_all_that_waits_in_the_queue_go(followed: Scene) -> None:
    half_open(followed, "takes.test")
    hand_in(followed, "takes.test")
    wait_for(lambda: len(arrived(followed, "takes.test")) == 4, 120, what=followed.postfix.log())
    assert [breaker.state for breaker in standing(followed, "takes.test")] == ["closed"]
    assert [breaker.trips for breaker in standing(followed, "takes.test")] == [1], "what was held opens nothing anew"


def test_a_try_that_is_refused_holds_the_queue_for_longer(followed: Scene) -> None:
    followed.world.blocking.add("refuses.test")
    half_open(followed, "refuses.test")
    hand_in(followed, "refuses.test")
    wait_for(lambda: standing(followed, "refuses.test")[0].trips == 2, 60, what=followed.postfix.log())
    wait_for(lambda: len(told(followed, "refuses.test", "deferred")) == 3, 60, what=followed.postfix.log())
    assert len(told(followed, "refuses.test", "bounced")) == 1
    [breaker] = standing(followed, "refuses.test")
    assert (breaker.state, breaker.trips) == ("open", 2)


def half_open(stage: Scene, provider: str) -> None:
    """Its pause has just ended."""
    now = datetime.now(UTC)
    trip = tripped(new(provider, "ip", "*", now), Terms(), "rate", "block_bounce/ip_blocked", now)
    put(stage, replace(trip, until=now - timedelta(seconds=1)))


def hand_in(stage: Scene, domain: str) -> None:
    """Four messages by sendmail(1)."""
    for number in range(4):
        stage.postfix.sendmail("cron@sender.test", [f"p{number}@{domain}"], LETTER)


def told(stage: Scene, domain: str, status: str) -> set[str]:
    """The recipients of a domain of whom the log tells this."""
    return set(re.findall(rf"to=<(\w+)@{domain}>.* status={status} ", stage.postfix.log()))


def arrived(stage: Scene, domain: str) -> set[str]:
    return {f"p{number}" for number in range(4) if stage.world.to(f"p{number}@{domain}")}


def standing(stage: Scene, provider: str) -> list[Breaker]:
    with Store.open(stage.store_url) as store:
        return [breaker for breaker in store.breakers() if breaker.provider == provider]


def hold_is_over(stage: Scene, who: str) -> None:
    """Bounces had held the address until yesterday."""
    now = datetime.now(UTC)
    held = a_suppression(address_key=who, address=who, source="score", since=now - timedelta(days=9),
                         until=now + timedelta(days=1))  # fmt: skip
    with Store.open(stage.store_url) as store:
        store.submit(lambda transaction: transaction.suppress(held, "test")).result()
        with closing(sqlite3.connect(store.path)) as opened, opened:
            yesterday = codec.ticks(now - timedelta(days=1))
            opened.execute("UPDATE suppression SET until = ? WHERE address_key = ?", (yesterday, who))


def put(stage: Scene, breaker: Breaker) -> None:
    """As another process would: the fronts know of it once they have read the states anew."""
    with Store.open(stage.store_url) as store:
        store.submit(lambda transaction: transaction.put_breaker(breaker, "test")).result()
    time.sleep(2 * REFRESH_S)


def ask_all(stage: Scene, domain: str) -> list[int]:
    return [stage.postfix.refusal("policy", "news@sender.test", f"p{number}@{domain}")[0] for number in range(4)]

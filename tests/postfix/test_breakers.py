"""Breakers before a real Postfix: held at RCPT by policy service and milter, deferred or slowed down in the queue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mailback.policy.breaker import Terms, new, tripped
from mailback.store import Store
from mailback.store.records import Breaker
from tests.postfix.conftest import Scene, scene
from tests.postfix.instance import Smtpd
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


def put(stage: Scene, breaker: Breaker) -> None:
    with Store.open(stage.store_url) as store:
        store.submit(lambda transaction: transaction.put_breaker(breaker, "test")).result()


def ask_all(stage: Scene, domain: str) -> list[int]:
    return [stage.postfix.refusal("policy", "news@sender.test", f"p{number}@{domain}")[0] for number in range(4)]

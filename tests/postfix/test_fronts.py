"""Mailback beside a Postfix that has no milter: policy service, socketmap, and a transport to the receiver."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from mailback.store import Store
from mailback.store.records import Suppression
from tests.postfix.conftest import Scene, scene
from tests.postfix.instance import Smtpd
from tests.support.mail import dsn
from tests.support.server import wait_for

LETTER = (
    b"From: news@sender.test\r\nTo: x@receiver.test\r\nSubject: news\r\nMessage-ID: <2@sender.test>\r\n\r\nNews.\r\n"
)


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    smtpds = {
        "mx": Smtpd(),
        "policy": Smtpd({"smtpd_recipient_restrictions": "$via_policy"}),
        "policy-login": Smtpd(
            {
                "smtpd_recipient_restrictions": "$via_policy",
                "smtpd_sasl_auth_enable": "yes",
            }
        ),
        "socketmap": Smtpd({"smtpd_recipient_restrictions": "$via_socketmap"}),
        "socketmap-login": Smtpd(
            {
                "smtpd_recipient_restrictions": "$via_socketmap",
                "smtpd_sasl_auth_enable": "yes",
            }
        ),
    }

    def parameters(ports: dict[str, int]) -> dict[str, str]:
        return {
            "transport_maps": (
                f"inline:{{ bounce.sender.test=smtp:[127.0.0.1]:{ports['receiver']} }}, "
                f"socketmap:inet:127.0.0.1:{ports['socketmap']}:transport"
            )
        }

    with scene(smtpds, parameters) as running:
        yield running


@pytest.mark.parametrize(
    ("front", "login"), [("policy", None), ("policy-login", "app"), ("socketmap", None), ("socketmap-login", "app")]
)
def test_a_suppressed_recipient_is_refused_with_the_reason(stage: Scene, front: str, login: str | None) -> None:
    stage.suppress("refused@receiver.test")
    code, said = stage.postfix.refusal(front, "news@sender.test", "refused@receiver.test", login)
    assert code == 550, said
    assert re.search(r"5\.7\.1 .*<refused@receiver\.test>: suppressed since \d{4}-\d\d-\d\d, .*telephone", said), said
    assert stage.postfix.refusal(front, "news@sender.test", "fine@receiver.test", login)[0] == 250


def test_the_transport_map_returns_mail_from_sendmail(stage: Scene) -> None:
    stage.suppress("command@receiver.test")
    stage.postfix.sendmail("cron@sender.test", ["command@receiver.test", "other@receiver.test"], LETTER)
    wait_for(lambda: stage.world.to("cron@sender.test"), what=stage.postfix.log())
    assert b"<command@receiver.test>: suppressed since" in stage.world.to("cron@sender.test")[0]
    wait_for(lambda: stage.world.to("other@receiver.test"), what=stage.postfix.log())
    assert not stage.world.to("command@receiver.test")


def test_postfix_own_bounce_reaches_the_receiver_through_a_transport(stage: Scene) -> None:
    stage.postfix.send("mx", "b+17@bounce.sender.test", "dead2@receiver.test", LETTER)
    wait_for(lambda: stage.suppression("dead2@receiver.test"), what=stage.postfix.log())
    (event,) = [event for event in stage.events() if event["recipient"] == "dead2@receiver.test"]
    assert (event["source"], event["type"], event["subcategory"]) == ("smtpd", "hard_bounce", "user_unknown")
    code, said = stage.postfix.refusal("policy", "news@sender.test", "dead2@receiver.test")
    assert code == 550, said
    assert "hard_bounce/user_unknown" in said


def test_a_bounce_from_outside_reaches_the_receiver_through_the_transport(stage: Scene) -> None:
    message = dsn("far@receiver.test", message_id="<far@sender.test>", sender="b+18@bounce.sender.test")
    stage.postfix.send("mx", "", "b+18@bounce.sender.test", message)
    wait_for(lambda: stage.suppression("far@receiver.test"), what=stage.postfix.log())


def test_a_suppression_lifted_lets_mail_pass_again(stage: Scene) -> None:
    stage.suppress("undo@receiver.test")
    assert stage.postfix.refusal("policy", "news@sender.test", "undo@receiver.test")[0] == 550
    done = stage.command("suppress", "remove", "undo@receiver.test", "--reason", "a mistake")
    assert done.returncode == 0, done.stderr
    # This Postfix asks the socketmap for the transport too, and remembers what it heard for two seconds.
    wait_for(lambda: stage.postfix.refusal("policy", "news@sender.test", "undo@receiver.test")[0] == 250)


@pytest.mark.parametrize("front", ["policy", "socketmap"])
def test_after_a_hold_one_message_passes_and_the_next_is_told_to_wait(stage: Scene, front: str) -> None:
    who = f"held-{front}@receiver.test"
    now = datetime.now(UTC)
    hold = Suppression(
        who, who, "all", "soft_bounce/mailbox_full", "soft_bounce", "mailbox_full", "score", now,
        now + timedelta(seconds=1),
    )  # fmt: skip
    with Store.open(stage.store_url) as store:
        store.submit(lambda transaction: transaction.suppress(hold, "test")).result()
    wait_for(lambda: stage.suppression(who) is None)  # each answer that Postfix is asked for counts as a message
    assert stage.postfix.refusal(front, "news@sender.test", who)[0] == 250, stage.postfix.log()
    code, said = stage.postfix.refusal(front, "news@sender.test", who)
    assert code == 451, said
    assert "one message is trying whether it takes mail again" in said

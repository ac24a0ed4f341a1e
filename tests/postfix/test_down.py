"""Mailback is not there: what each front then makes of mail, as docs/postfix.md tells it; nothing is lost."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator

import pytest

from tests.postfix.conftest import MILTER, Scene, scene
from tests.postfix.instance import Smtpd
from tests.support.mail import dsn
from tests.support.server import wait_for

LETTER = (
    b"From: news@sender.test\r\nTo: x@receiver.test\r\nSubject: news\r\nMessage-ID: <3@sender.test>\r\n\r\nNews.\r\n"
)


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    """Everything but Mailback itself runs; a test that needs it starts it."""
    smtpds = {
        "tempfail": Smtpd({"smtpd_milters": MILTER}),
        "accept": Smtpd({"smtpd_milters": MILTER, "milter_default_action": "accept"}),
        "policy": Smtpd({"smtpd_recipient_restrictions": "$via_policy"}),
        "socketmap": Smtpd({"smtpd_recipient_restrictions": "$via_socketmap"}),
    }
    parameters = {
        "milter_default_action": "tempfail",
        "non_smtpd_milters": MILTER,
        "internal_mail_filter_classes": "bounce",
    }
    with scene(smtpds, lambda _: parameters, started=False) as running:
        yield running


def test_the_milter_with_tempfail_makes_the_peer_keep_its_mail(stage: Scene) -> None:
    with pytest.raises(smtplib.SMTPResponseException) as refused:
        stage.postfix.send("tempfail", "", "a@sender.test", dsn("a@receiver.test", message_id="<a@sender.test>"))
    assert refused.value.smtp_code == 451


def test_the_milter_with_accept_lets_mail_pass_unread(stage: Scene) -> None:
    stage.postfix.send("accept", "joe@far.test", "accepted@sender.test", LETTER)


def test_the_policy_service_with_dunno_lets_mail_pass_unchecked(stage: Scene) -> None:
    assert stage.postfix.refusal("policy", "news@sender.test", "b@receiver.test")[0] == 250


def test_the_socketmap_makes_the_client_wait(stage: Scene) -> None:
    assert stage.postfix.refusal("socketmap", "news@sender.test", "c@receiver.test")[0] == 451


def test_what_waited_is_handled_once_mailback_is_back(stage: Scene) -> None:
    """sendmail(1) mail stays in maildrop, and a bounce of Postfix waits with the message that it is about."""
    stage.postfix.sendmail("cron@sender.test", ["waits@receiver.test"], LETTER)
    # Another Message-ID: this one goes round the milter, and the journal would rightly say that it went to nobody else.
    other = LETTER.replace(b"<3@", b"<4@")
    stage.postfix.send("policy", "news@sender.test", "dead3@receiver.test", other)
    wait_for(lambda: "bounce failed" in stage.postfix.log(), what=stage.postfix.log())
    wait_for(lambda: "service unavailable" in stage.postfix.log().lower() or stage.postfix.dropped(), what="maildrop")
    assert not stage.world.to("waits@receiver.test")
    stage.mailback.start()
    try:
        wait_for(lambda: stage.world.to("waits@receiver.test"), what=stage.postfix.log())
        wait_for(lambda: stage.suppression("dead3@receiver.test"), what=stage.postfix.log())
        assert len(stage.world.to("waits@receiver.test")) == 1
        stage.postfix.send("tempfail", "", "a@sender.test", dsn("a@receiver.test", message_id="<a@sender.test>"))
        assert stage.suppression("a@receiver.test")
    finally:
        stage.mailback.stop()

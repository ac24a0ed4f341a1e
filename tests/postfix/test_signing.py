"""Signed return paths behind a real Postfix: out through the milter, back through either door."""

from __future__ import annotations

import json
import re
import smtplib
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from tests.postfix.conftest import MILTER, Scene, scene
from tests.postfix.instance import Smtpd
from tests.support.mail import dsn
from tests.support.server import wait_for

LETTER = (
    "From: News <news@sender.test>\r\nTo: reader\r\nSubject: The November issue\r\n"
    "Message-ID: <{number}@sender.test>\r\nList-Id: Weekly <weekly.sender.test>\r\n"
    "\r\nGood morning,\r\n\r\nhere are the news.\r\n"
)


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    smtpds = {"mx": Smtpd(), "submission": Smtpd({"milter_macro_daemon_name": "ORIGINATING"})}
    parameters = {
        "smtpd_milters": MILTER,
        "non_smtpd_milters": MILTER,
        "internal_mail_filter_classes": "bounce",
        "milter_default_action": "tempfail",
    }
    with scene(smtpds, lambda _: parameters, started=False) as running:
        key = running.config.with_name("return-path.key")
        assert running.command("signing", "keygen", "--file", str(key)).returncode == 0
        running.config.write_text(f"{running.config.read_text()}[signing]\nsecret_file = '{key}'\n")
        running.mailback.start()
        yield running
        running.mailback.stop()


def sent(stage: Scene, number: str, *recipients: str, sender: str = "news@sender.test") -> str:
    """Send a message; the return path under which the world got it."""
    with stage.postfix.client("submission") as client:
        client.sendmail(sender, list(recipients), LETTER.format(number=number).encode())
    wait_for(lambda: stage.world.return_paths(recipients[0]), what=stage.postfix.log())
    return stage.world.return_paths(recipients[0])[-1]


def bounce(recipient: str, number: str) -> bytes:
    now = f"Date: {format_datetime(datetime.now(UTC))}".encode()
    return re.sub(rb"Date: Fri, 20 Nov 2026[^\r]*", now, dsn(recipient, message_id=f"<{number}@sender.test>"))


def provenance(stage: Scene, recipient: str) -> list[str]:
    return [event["provenance"] for event in stage.events() if event["recipient"] == recipient]


def test_mail_to_one_leaves_under_a_return_path_that_names_it_to_nobody_else(stage: Scene) -> None:
    path = sent(stage, "one", "one@receiver.test")
    assert re.fullmatch(r"v1[0-9a-v]{20,62}@bounce\.sender\.test", path)
    found = stage.command("journal", "find", "--return-path", path, "--json")
    entry = json.loads(found.stdout)
    assert (entry["recipients"], entry["message_id"], entry["envelope_sender"], entry["list_id"]) == (
        ["one@receiver.test"], "<one@sender.test>", "news@sender.test", "weekly.sender.test",
    )  # fmt: skip
    assert entry["text"] == "Good morning, here are the news."


def test_mail_to_several_leaves_under_a_batv_tag(stage: Scene) -> None:
    path = sent(stage, "several", "s1@receiver.test", "s2@receiver.test")
    assert re.fullmatch(r"prvs=1\d{3}[0-9a-f]{6}=news=sender\.test@bounce\.sender\.test", path)


def test_mail_from_sendmail_is_signed_as_well(stage: Scene) -> None:
    stage.postfix.sendmail("cron@sender.test", ["cron-reader@receiver.test"], LETTER.format(number="cron").encode())
    wait_for(lambda: stage.world.return_paths("cron-reader@receiver.test"), what=stage.postfix.log())
    assert stage.world.return_paths("cron-reader@receiver.test")[0].endswith("@bounce.sender.test")


@pytest.mark.parametrize("door", ["postfix", "receiver"])
def test_a_bounce_to_its_return_path_suppresses_and_goes_on_to_the_sender(stage: Scene, door: str) -> None:
    who = f"gone-{door}@receiver.test"
    path = sent(stage, door, who, sender=f"news-{door}@sender.test")
    port = stage.postfix.port("mx") if door == "postfix" else stage.receiver_port
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.sendmail("", [path.upper()], bounce(who, door))
    assert stage.suppression(who) is not None
    assert provenance(stage, who) == ["signed"]
    if door == "postfix":
        wait_for(lambda: stage.world.to(f"news-{door}@sender.test"), what=stage.postfix.log())


@pytest.mark.parametrize("door", ["postfix", "receiver"])
def test_backscatter_is_refused_before_data_at_both_doors(stage: Scene, door: str) -> None:
    port = stage.postfix.port("mx") if door == "postfix" else stage.receiver_port
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.ehlo()
        client.mail("")
        for local in ("news", "v1" + "0" * 50, "prvs=1234abcdef=news=sender.test"):
            code, said = client.rcpt(f"{local}@bounce.sender.test")
            assert (code, said[:5]) == (550, b"5.7.1"), local


@pytest.mark.parametrize("door", ["postfix", "receiver"])
def test_another_recipients_return_path_suppresses_nobody(stage: Scene, door: str) -> None:
    mine = sent(stage, f"mine-{door}", f"mallory-{door}@receiver.test")
    victim = f"victim-{door}@receiver.test"
    port = stage.postfix.port("mx") if door == "postfix" else stage.receiver_port
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.sendmail("", [mine], bounce(victim, f"replayed-{door}"))
    assert provenance(stage, victim) == ["forged"]
    assert stage.suppression(victim) is None


def test_postfix_own_bounce_of_mail_that_it_signed_is_believed(stage: Scene) -> None:
    """The whole way round: signed, refused by the world, reported by bounce(8), read, passed on."""
    with stage.postfix.client("submission") as client:
        client.sendmail("owner@sender.test", ["dead-round@receiver.test"], LETTER.format(number="round").encode())
    wait_for(lambda: stage.suppression("dead-round@receiver.test"), what=stage.postfix.log())
    assert provenance(stage, "dead-round@receiver.test") == ["signed"]
    wait_for(lambda: stage.world.to("owner@sender.test"), what=stage.postfix.log())


def test_an_unsigned_bounce_to_the_sender_himself_waits_for_a_person(stage: Scene) -> None:
    with smtplib.SMTP("127.0.0.1", stage.postfix.port("mx")) as client:
        client.sendmail("", ["news@sender.test"], bounce("unproven@receiver.test", "never-sent"))
    assert provenance(stage, "unproven@receiver.test") == ["unproven"]
    assert stage.suppression("unproven@receiver.test") is None

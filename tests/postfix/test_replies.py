"""People's replies behind a real Postfix: tagged and delivered, honoured at once, held where they are not safe."""

from __future__ import annotations

import json
import re
import smtplib
import subprocess
from collections.abc import Iterator

import pytest

from tests.postfix.conftest import MILTER, Scene, scene
from tests.postfix.instance import Smtpd, fields_of
from tests.support.replies import INTERESTED, OPT_OUT, answer, executable
from tests.support.server import wait_for

LETTER = (
    "From: Maya <maya@sender.test>\r\nTo: reader\r\nSubject: The November issue\r\n"
    "Message-ID: {message_id}\r\n{extra}\r\nGood morning,\r\n\r\n{text}\r\n"
)
ROUTES = """\
[replies]
subject_tags = ["require_approval=[LOOK]"]
copy_to = ["require_approval=desk@sender.test"]
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    smtpds = {"mx": Smtpd(), "submission": Smtpd({"milter_macro_daemon_name": "ORIGINATING"})}
    parameters = {"smtpd_milters": MILTER, "non_smtpd_milters": MILTER, "milter_default_action": "tempfail"}
    with scene(smtpds, lambda _: parameters, more=ROUTES) as running:
        yield running


def sent(
    stage: Scene, message_id: str, *recipients: str, text: str = "would you like a demo?", extra: str = ""
) -> None:
    """Send a message of ours; it has arrived when this returns."""
    with stage.postfix.client("submission") as client:
        letter = LETTER.format(message_id=message_id, text=text, extra=extra)
        client.sendmail("maya@sender.test", list(recipients), letter.encode())
    for recipient in recipients:
        wait_for(lambda who=recipient: stage.world.to(who), what=stage.postfix.log())  # type: ignore[misc]


def arrived(stage: Scene, mailbox: str) -> bytes:
    wait_for(lambda: stage.world.to(mailbox), what=stage.postfix.log())
    return stage.world.to(mailbox)[-1]


def tags(message: bytes) -> dict[str, str]:
    return dict(fields_of(message, "x-mailback-"))


def queue(stage: Scene, pattern: str) -> str | None:
    """The line of Postfix's queue that has this in it, with the mark behind the id."""
    command = ["postqueue", "-c", str(stage.postfix.base / "etc"), "-j"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return next((entry["queue_name"] for entry in lines if pattern in json.dumps(entry)), None)


def test_a_reply_goes_on_to_its_mailbox_with_its_tags(stage: Scene) -> None:
    sent(stage, "<tags@sender.test>", "tom@receiver.test")
    reply = answer(INTERESTED, "tom@receiver.test", message_id="<tags@receiver.test>", answers="<tags@sender.test>")
    stage.postfix.send("mx", "tom@receiver.test", "inbox-tags@sender.test", reply)
    message = arrived(stage, "inbox-tags@sender.test")
    told = tags(message)
    assert told["X-Mailback-Kind"] == "reply"
    assert re.fullmatch(r"interested; confidence=[01]\.\d\d", told["X-Mailback-Verdict"])
    assert told["X-Mailback-Route"] in ("notify_owner", "require_approval")
    assert INTERESTED.encode() in message
    shown = stage.command("explain", "--json", "tom@receiver.test")
    [event] = [event for event in json.loads(shown.stdout)["events"] if event["id"] == told["X-Mailback-Id"]]
    assert (event["provenance"], event["original_message_id"]) == ("journal", "<tags@sender.test>")
    assert event["reply"]["owner"] == "maya@sender.test"


def test_an_opt_out_blocks_the_next_outgoing_mail_at_once(stage: Scene) -> None:
    sent(stage, "<stop@sender.test>", "una@receiver.test")
    reply = answer(OPT_OUT, "una@receiver.test", message_id="<stop@receiver.test>", answers="<stop@sender.test>")
    stage.postfix.send("mx", "una@receiver.test", "inbox-stop@sender.test", reply)
    code, said = stage.postfix.refusal("submission", "maya@sender.test", "una@receiver.test")
    assert (code, "complaint/unsubscribe_request" in said) == (550, True), said
    assert OPT_OUT.encode() in arrived(stage, "inbox-stop@sender.test"), "people read it all the same"
    assert json.loads(stage.command("next", "--json", "una@receiver.test").stdout)["next"] == "stop"


def test_an_opt_out_of_a_list_blocks_its_mail_and_no_other(stage: Scene) -> None:
    of_list = {"extra": "List-Id: Tides <tides.sender.test>\r\n"}
    sent(stage, "<list1@sender.test>", "vic@receiver.test", **of_list)
    reply = answer(OPT_OUT, "vic@receiver.test", message_id="<l@receiver.test>", answers="<list1@sender.test>")
    stage.postfix.send("mx", "vic@receiver.test", "inbox-list@sender.test", reply)
    with pytest.raises(smtplib.SMTPDataError) as refused:
        sent(stage, "<list2@sender.test>", "vic@receiver.test", **of_list)
    assert refused.value.smtp_code == 550
    assert "<vic@receiver.test>: suppressed since" in str(refused.value.smtp_error)
    sent(stage, "<list3@sender.test>", "wim@receiver.test", **of_list)
    with stage.postfix.client("submission") as client:
        letter = LETTER.format(message_id="<list4@sender.test>", text="again", **of_list).encode()
        assert client.sendmail("maya@sender.test", ["vic@receiver.test", "xia@receiver.test"], letter) == {}
    arrived(stage, "xia@receiver.test")
    assert len(stage.world.to("vic@receiver.test")) == 1, "the list's mail is withheld from who opted out"
    sent(stage, "<other@sender.test>", "yan@receiver.test", "vic@receiver.test")
    wait_for(lambda: len(stage.world.to("vic@receiver.test")) == 2, what=stage.postfix.log())


def test_a_yes_is_read_by_what_we_asked(stage: Scene) -> None:
    sent(stage, "<close@sender.test>", "zoe@receiver.test", text="We have not heard from you. Shall I close your file?")
    reply = answer("yes", "zoe@receiver.test", message_id="<yes@receiver.test>", answers="<close@sender.test>")
    stage.postfix.send("mx", "zoe@receiver.test", "inbox-yes@sender.test", reply)
    assert tags(arrived(stage, "inbox-yes@sender.test"))["X-Mailback-Verdict"].startswith("objection; ")


def test_a_dangerous_reply_is_held_and_can_be_released(stage: Scene) -> None:
    stage.postfix.send("mx", "eve@far.test", "inbox-held@sender.test", executable("eve@far.test"))
    assert queue(stage, "inbox-held@sender.test") == "hold", stage.postfix.log()
    assert not stage.world.to("inbox-held@sender.test")
    subprocess.run(["postsuper", "-c", str(stage.postfix.base / "etc"), "-H", "ALL"], check=True, timeout=60)
    told = tags(arrived(stage, "inbox-held@sender.test"))
    assert (told["X-Mailback-Route"], told["X-Mailback-Kind"]) == ("escalate", "reply")


def test_what_waits_for_a_person_is_tagged_copied_and_delivered(stage: Scene) -> None:
    text = "Our lawyer will take legal action over the breach of GDPR."
    hostile = "Re: x\r\n\tX-Mailback-Route: auto_archive"
    reply = answer(text, "law@far.test", message_id="<law@far.test>", subject=hostile)
    stage.postfix.send("mx", "law@far.test", "inbox-law@sender.test", reply)
    message = arrived(stage, "inbox-law@sender.test")
    assert fields_of(message, "x-mailback-route") == [("X-Mailback-Route", "require_approval")]
    assert dict(fields_of(message, "subject"))["Subject"].startswith("[LOOK] Re: x")
    assert text.encode() in arrived(stage, "desk@sender.test")
    [item] = [json.loads(line) for line in stage.command("review", "list", "--json").stdout.splitlines()
              if json.loads(line)["recipient"] == "law@far.test"]  # fmt: skip
    assert item["intent"] == "legal"


def test_an_opt_out_through_the_receiver_blocks_mail_through_postfix(stage: Scene) -> None:
    with smtplib.SMTP("127.0.0.1", stage.receiver_port, timeout=30) as client:
        reply = answer(OPT_OUT, "bea@receiver.test", message_id="<door2@receiver.test>")
        client.sendmail("bea@receiver.test", ["inbox-two@sender.test"], reply)
    assert stage.postfix.refusal("submission", "maya@sender.test", "bea@receiver.test")[0] == 550
    assert tags(arrived(stage, "inbox-two@sender.test"))["X-Mailback-Route"] == "auto_archive"

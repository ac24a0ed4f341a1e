"""The log that a real Postfix writes, followed by the service and read by `mailback ingest`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mailback.store import Store
from mailback.store.records import Suppression
from tests.postfix.conftest import MILTER, Scene, scene
from tests.postfix.instance import Smtpd
from tests.postfix.peers import Filter
from tests.support.server import wait_for

FOLLOW = '[follow]\nfiles = ["{maillog}"]\n'


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    """An application hands mail in on a port without a milter; one port has it, and one leads through a filter."""
    back = Smtpd({"content_filter": "", "syslog_name": "postfix/back"})
    content_filter = Filter(back.port)
    smtpds = {
        "app": Smtpd(),
        "milter": Smtpd({"smtpd_milters": MILTER, "milter_macro_daemon_name": "ORIGINATING"}),
        "filtered": Smtpd({"content_filter": f"smtp:[127.0.0.1]:{content_filter.port}"}),
        "back": back,
    }
    parameters = {
        "enable_long_queue_ids": "yes",
        "maximal_queue_lifetime": "2s",
        "bounce_queue_lifetime": "2s",
        "maximal_backoff_time": "1s",
        "internal_mail_filter_classes": "",
    }
    content_filter.start()
    try:
        with scene(smtpds, lambda _: parameters, more=FOLLOW) as running:
            yield running
    finally:
        content_filter.stop()


def letter(number: str) -> bytes:
    return (
        f"From: news@sender.test\r\nTo: you@receiver.test\r\nSubject: hello\r\nMessage-ID: <{number}@sender.test>\r\n"
        "\r\nHello.\r\n"
    ).encode()


def told(stage: Scene, recipient: str) -> list[dict[str, Any]]:
    """The events of a recipient, oldest first."""
    return [event for event in reversed(stage.events()) if event["recipient"] == recipient]


def wait_for_kinds(stage: Scene, recipient: str, kinds: set[str]) -> list[dict[str, Any]]:
    wait_for(lambda: kinds <= {event["kind"] for event in told(stage, recipient)}, 60, stage.postfix.log())
    return told(stage, recipient)


def test_a_refusal_that_never_became_a_bounce_for_us_suppresses(stage: Scene) -> None:
    stage.postfix.send("app", "news@sender.test", "dead-app@receiver.test", letter("refused"))
    wait_for(lambda: stage.suppression("dead-app@receiver.test"), 60, stage.postfix.log())
    [event] = told(stage, "dead-app@receiver.test")
    assert (event["source"], event["kind"], event["subcategory"]) == ("log", "bounce", "user_unknown")
    assert (event["message_id"], event["provenance"]) == ("<refused@sender.test>", "authenticated")


def test_what_arrived_is_told_as_delivered(stage: Scene) -> None:
    stage.postfix.send("app", "news@sender.test", "fine@receiver.test", letter("fine"))
    [event] = wait_for_kinds(stage, "fine@receiver.test", {"delivered"})
    assert event["message_id"] == "<fine@sender.test>"


def test_a_message_that_expires_fails_after_its_tries(stage: Scene) -> None:
    stage.postfix.send("app", "news@sender.test", "full-app@receiver.test", letter("full"))
    events = wait_for_kinds(stage, "full-app@receiver.test", {"delay", "bounce"})
    assert events[-1]["kind"] == "bounce"
    assert {event["subcategory"] for event in events} == {"mailbox_temporarily_full"}
    assert stage.suppression("full-app@receiver.test") is None


def test_mail_through_a_content_filter_is_told_once_and_at_its_end(stage: Scene) -> None:
    stage.postfix.send("filtered", "news@sender.test", "dead-filtered@receiver.test", letter("dead-filtered"))
    stage.postfix.send("filtered", "news@sender.test", "fine-filtered@receiver.test", letter("fine-filtered"))
    events = wait_for_kinds(stage, "dead-filtered@receiver.test", {"bounce"})
    assert [event["kind"] for event in events] == ["bounce"], "handing it to the filter was no delivery"
    [event] = wait_for_kinds(stage, "fine-filtered@receiver.test", {"delivered"})
    assert event["message_id"] == "<fine-filtered@sender.test>"


def test_the_journal_of_the_milter_proves_what_the_log_says(stage: Scene) -> None:
    stage.postfix.send("milter", "news@sender.test", "dead-milter@receiver.test", letter("journalled"))
    wait_for(lambda: stage.suppression("dead-milter@receiver.test"), 60, stage.postfix.log())
    [event] = told(stage, "dead-milter@receiver.test")
    assert event["provenance"] == "journal"


def test_the_bounce_that_follows_its_log_line_is_the_same_event(stage: Scene) -> None:
    stage.postfix.send("app", "news@sender.test", "dead-twice@receiver.test", letter("twice"))
    wait_for(lambda: stage.suppression("dead-twice@receiver.test"), 60, stage.postfix.log())
    wait_for(lambda: any(b"dead-twice" in raw for raw in stage.world.to("news@sender.test")), 60, "the bounce")
    bounce = next(raw for raw in stage.world.to("news@sender.test") if b"dead-twice" in raw)
    stage.postfix.send("milter", "", "news@sender.test", bounce)
    assert len(told(stage, "dead-twice@receiver.test")) == 1


def test_a_provider_that_breaks_for_a_dozen_readers_is_a_wave_and_costs_none_of_them(stage: Scene) -> None:
    readers = [f"reader{number}@breaks.test" for number in range(12)]

    def mailing(name: str) -> None:
        for who in readers:
            stage.postfix.send("app", "news@sender.test", who, letter(f"{name}-{who.partition('@')[0]}"))

    def kinds(kind: str) -> set[str]:
        return {event["recipient"] for event in stage.events() if event["kind"] == kind} & set(readers)

    def waves() -> list[dict[str, Any]]:
        done = stage.command("wave", "list", "--open", "--json")
        return [json.loads(line) for line in done.stdout.splitlines()]

    mailing("first")
    wait_for(lambda: kinds("delivered") == set(readers), 90, stage.postfix.log())
    stage.world.broken.add("breaks.test")
    mailing("second")
    wait_for(lambda: kinds("bounce") == set(readers), 90, stage.postfix.log())
    [wave] = waves()
    assert (wave["provider"], wave["members"]) == ("breaks.test", 12)
    assert stage.command("wave", "undo", str(wave["id"])).returncode == 0
    assert [who for who in readers if stage.suppression(who)] == []


def test_the_message_that_tries_after_a_hold_opens_the_way_once_it_has_arrived(stage: Scene) -> None:
    who, now = "recovered@receiver.test", datetime.now(UTC)
    hold = Suppression(
        who, who, "all", "soft_bounce/mailbox_full", "soft_bounce", "mailbox_full", "score", now,
        now + timedelta(seconds=1),
    )  # fmt: skip
    with Store.open(stage.store_url) as store:
        store.submit(lambda transaction: transaction.suppress(hold, "test")).result()
    wait_for(lambda: stage.suppression(who) is None)
    stage.postfix.send("milter", "news@sender.test", who, letter("tries"))
    wait_for_kinds(stage, who, {"delivered"})
    assert stage.postfix.refusal("milter", "news@sender.test", who)[0] == 250
    assert stage.postfix.refusal("milter", "news@sender.test", who)[0] == 250


def test_while_nobody_knows_the_next_message_waits_at_the_milter(stage: Scene) -> None:
    who, now = "unheard@receiver.test", datetime.now(UTC)
    hold = Suppression(
        who, who, "all", "soft_bounce/mailbox_full", "soft_bounce", "mailbox_full", "score", now,
        now + timedelta(seconds=1),
    )  # fmt: skip
    with Store.open(stage.store_url) as store:
        store.submit(lambda transaction: transaction.suppress(hold, "test")).result()
    wait_for(lambda: stage.suppression(who) is None)
    assert stage.postfix.refusal("milter", "news@sender.test", who)[0] == 250
    code, said = stage.postfix.refusal("milter", "news@sender.test", who)
    assert code == 451, said
    assert "one message is trying" in said


def test_rotation_by_postfix_itself_loses_nothing(stage: Scene) -> None:
    stage.postfix.send("app", "news@sender.test", "dead-before@receiver.test", letter("before"))
    stage.postfix.rotate_log()
    stage.postfix.send("app", "news@sender.test", "dead-after@receiver.test", letter("after"))
    for who in ("dead-before@receiver.test", "dead-after@receiver.test"):
        wait_for(lambda who=who: stage.suppression(who), 60, stage.postfix.log())  # type: ignore[misc]


def test_reading_the_same_logs_by_hand_adds_nothing(stage: Scene, tmp_path: Path) -> None:
    stage.postfix.send("app", "news@sender.test", "dead-last@receiver.test", letter("last"))
    wait_for(lambda: stage.suppression("dead-last@receiver.test"), 60, stage.postfix.log())
    copy = tmp_path / "maillog"
    shutil.copy2(stage.postfix.maillog, copy)
    done = stage.command("ingest", "postfix-log", "--json", "--again", str(copy))
    assert done.returncode == 0, done.stderr
    told_again = json.loads(done.stdout)
    assert told_again["outcomes"]["bounce"] >= 1
    assert set(told_again["new"].values()) == {0}, done.stdout

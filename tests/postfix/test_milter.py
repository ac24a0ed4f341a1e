"""Mailback as Postfix's milter, on the milter lines that ship."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.postfix.conftest import MILTER, Scene, scene
from tests.postfix.instance import PASSWORD, Smtpd, fields_of
from tests.support.mail import dsn
from tests.support.server import wait_for

LETTER = b"From: a@far.test\r\nTo: news@sender.test\r\nSubject: hello\r\nMessage-ID: <1@far.test>\r\n\r\nHello.\r\n"


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    """One Postfix with the milter on every way in: port 25, a submission port, sendmail(1), bounces of its own."""
    smtpds = {
        "mx": Smtpd(),
        "chrooted": Smtpd(chroot=True),
        "submission": Smtpd({"milter_macro_daemon_name": "ORIGINATING"}),
        "login": Smtpd({"smtpd_sasl_auth_enable": "yes"}),
    }
    parameters = {
        "smtpd_milters": MILTER,
        "non_smtpd_milters": MILTER,
        "internal_mail_filter_classes": "bounce",
        "milter_default_action": "tempfail",
    }
    # Thousands of bounces from one address in a minute, none of them proven: here neither budget nor wave is meant.
    unlimited = "[policy]\nunproven_per_hour = 0\nwave_minimum = 0\n"
    with scene(smtpds, lambda _: parameters, more=unlimited) as running:
        yield running


@pytest.mark.parametrize("smtpd", ["mx", "chrooted"])
def test_a_bounce_is_tagged_and_suppresses(stage: Scene, smtpd: str) -> None:
    gone, list_owner = f"gone-{smtpd}@receiver.test", f"owner-{smtpd}@sender.test"
    stage.postfix.send(smtpd, "", list_owner, dsn(gone, message_id=f"<{smtpd}@sender.test>"))
    suppression = stage.suppression(gone)  # before the answer, so it must be there now
    assert suppression is not None
    assert suppression.reason == "hard_bounce/user_unknown"
    wait_for(lambda: stage.world.to(list_owner), what=stage.postfix.log())
    tags = dict(fields_of(stage.world.to(list_owner)[0], "x-mailback-"))
    assert tags["X-Mailback-Kind"] == "bounce"
    assert re.fullmatch(r"hard_bounce/user_unknown; confidence=[01]\.\d\d", tags["X-Mailback-Verdict"])
    assert tags["X-Mailback-Id"] == suppression.event_id


def test_mail_of_ours_to_a_suppressed_address_is_refused_with_the_reason(stage: Scene) -> None:
    stage.suppress("refused@receiver.test")
    expected = (550, r"5\.7\.1 <refused@receiver\.test>: suppressed since \d{4}-\d\d-\d\d, .*telephone.*explain")
    for smtpd, sender, login in (
        ("mx", "news@sender.test", None),
        ("chrooted", "b+17@bounce.sender.test", None),
        ("submission", "anybody@elsewhere.test", None),
        ("login", "anybody@elsewhere.test", "app"),
    ):
        code, said = stage.postfix.refusal(smtpd, sender, "refused@receiver.test", login)
        assert (code, bool(re.search(expected[1], said))) == (550, True), (smtpd, said)
        assert stage.postfix.refusal(smtpd, sender, "fine@receiver.test", login)[0] == 250


def test_mail_that_comes_in_is_not_refused(stage: Scene) -> None:
    stage.suppress("alias@sender.test")
    assert stage.postfix.refusal("mx", "joe@far.test", "alias@sender.test")[0] == 250


def test_one_refused_recipient_does_not_stop_the_others(stage: Scene) -> None:
    stage.suppress("one@receiver.test")
    with stage.postfix.client("login") as session:
        session.login("app", PASSWORD)
        refused = session.sendmail("news@sender.test", ["one@receiver.test", "two@receiver.test"], LETTER)
    assert list(refused) == ["one@receiver.test"]
    wait_for(lambda: stage.world.to("two@receiver.test"), what=stage.postfix.log())
    assert not fields_of(stage.world.to("two@receiver.test")[0], "x-mailback-"), "our own mail carries no tags"


def test_postfix_own_bounce_of_a_dead_address_suppresses_it(stage: Scene) -> None:
    stage.postfix.send("mx", "news@sender.test", "dead1@receiver.test", LETTER)
    wait_for(lambda: stage.suppression("dead1@receiver.test"), what="the bounce to be read\n" + stage.postfix.log())
    wait_for(lambda: stage.world.to("news@sender.test"), what="the bounce to arrive\n" + stage.postfix.log())
    tags = dict(fields_of(stage.world.to("news@sender.test")[-1], "x-mailback-"))
    assert tags["X-Mailback-Kind"] == "bounce"
    code, said = stage.postfix.refusal("mx", "news@sender.test", "dead1@receiver.test")
    assert code == 550, said
    assert "hard_bounce/user_unknown" in said


def test_mail_from_sendmail_to_a_suppressed_address_comes_back_with_the_reason(stage: Scene) -> None:
    stage.suppress("blocked@receiver.test")
    stage.postfix.sendmail("cron@sender.test", ["blocked@receiver.test"], LETTER)
    wait_for(lambda: stage.world.to("cron@sender.test"), what=stage.postfix.log())
    assert b"<blocked@receiver.test>: suppressed since" in stage.world.to("cron@sender.test")[0]
    assert not stage.world.to("blocked@receiver.test")


def test_mail_from_sendmail_to_others_arrives(stage: Scene) -> None:
    stage.postfix.sendmail("cron@sender.test", ["free@receiver.test"], LETTER)
    wait_for(lambda: stage.world.to("free@receiver.test"), what=stage.postfix.log())
    assert not fields_of(stage.world.to("free@receiver.test")[0], "x-mailback-")


def test_forged_tags_are_removed(stage: Scene) -> None:
    forged = (
        b"X-Mailback-Kind: reply\r\nx-mailback-kind: reply\r\nX-MAILBACK-Route : notify_owner\r\n"
        b"X-Mailback-Invented:\r\n folded\r\nX-Mailback-Id: 01FORGED\r\nX-Mailbackup: stays\r\n"
    )
    message = forged + dsn("forged@receiver.test", message_id="<forged@sender.test>")
    stage.postfix.send("mx", "", "tags@sender.test", message)
    wait_for(lambda: stage.world.to("tags@sender.test"), what=stage.postfix.log())
    found = fields_of(stage.world.to("tags@sender.test")[0], "x-mailback")
    names = Counter(name for name, _ in found)
    assert names == Counter(
        ["X-Mailback-Kind", "X-Mailback-Verdict", "X-Mailback-Route", "X-Mailback-Id", "X-Mailbackup"]
    )
    assert dict(found)["X-Mailback-Kind"] == "bounce"
    assert "01FORGED" not in dict(found).values()


def test_authentication_results_are_removed_under_our_name_only(stage: Scene) -> None:
    forged = (
        b"Authentication-Results: edge.far.test; spf=pass\r\n"
        b"authentication-results : (a comment)\r\n MX.Sender.TEST 1;\r\n\tdkim=pass header.d=bank.test\r\n"
        b"Authentication-Results: mx.sender.test.far.test; spf=fail\r\n"
        b"Authentication-Results: mx.sender.test; dmarc=pass header.from=bank.test\r\n"
        b"Authentication-Results: last.far.test; none\r\n"
    )
    stage.postfix.send("mx", "joe@far.test", "results@sender.test", forged + LETTER)
    wait_for(lambda: stage.world.to("results@sender.test"), what=stage.postfix.log())
    found = fields_of(stage.world.to("results@sender.test")[0], "authentication-results")
    assert [value for _, value in found] == [
        "edge.far.test; spf=pass", "mx.sender.test.far.test; spf=fail", "last.far.test; none",
    ]  # fmt: skip


def test_our_tags_stand_above_everything_else(stage: Scene) -> None:
    stage.postfix.send("mx", "joe@far.test", "order@sender.test", LETTER)
    wait_for(lambda: stage.world.to("order@sender.test"), what=stage.postfix.log())
    lines = stage.world.to("order@sender.test")[0].splitlines()
    tags = [index for index, line in enumerate(lines) if line.startswith(b"X-Mailback-")]
    subject = next(index for index, line in enumerate(lines) if line.startswith(b"From: "))
    assert tags
    assert max(tags) < subject


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\r\nno header at all\r\n", id="no-header"),
        pytest.param(b"this line is no header field\r\nnor is this\r\n", id="body-only"),
        pytest.param(b"Subject: empty\r\n\r\n", id="no-body"),
        pytest.param(b"Subject: caf\xe9\r\nX-\xe9: name\r\n\r\n\xff\xfe\r\n", id="eight-bit"),
        pytest.param(b"Subject: %s%n 100%\r\n\r\n%\r\n", id="percent"),
        pytest.param(b"Subject: x\r\n\r\n" + b"y" * 300_000 + b"\r\n", id="long-line"),
    ],
)
def test_odd_mail_passes_at_once(stage: Scene, message: bytes, request: pytest.FixtureRequest) -> None:
    recipient = f"{request.node.callspec.id}@sender.test"
    stage.postfix.send("mx", "joe@far.test", recipient, message)
    wait_for(lambda: stage.world.to(recipient), within_s=15, what=stage.postfix.log())
    assert fields_of(stage.world.to(recipient)[0], "x-mailback-kind")


def test_swaks_with_a_bounce_from_a_file(stage: Scene) -> None:
    letter = stage.postfix.base / "bounce.eml"
    letter.write_bytes(dsn("swaks@receiver.test", message_id="<swaks@sender.test>"))
    port = stage.postfix.port("mx")
    done = subprocess.run(
        ["swaks", "--server", f"127.0.0.1:{port}", "--from", "<>", "--to", "swaks@sender.test", "--data", f"@{letter}"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert stage.suppression("swaks@receiver.test") is not None


def test_two_hundred_bounces_in_twenty_sessions_none_lost_none_doubled(stage: Scene) -> None:
    def session_of(number: int) -> None:
        with stage.postfix.client("mx") as session:
            for turn in range(10):
                name = f"load-{number}-{turn}"
                message = dsn(f"{name}@receiver.test", message_id=f"<{name}@sender.test>")
                session.sendmail("", [f"{name}@sender.test"], message)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(session_of, range(20)))
    expected = {f"load-{number}-{turn}" for number in range(20) for turn in range(10)}
    recorded = Counter(
        event["recipient"].partition("@")[0]
        for event in stage.events()
        if event["recipient"] and event["recipient"].startswith("load-")
    )
    assert recorded == Counter(expected)
    for name in expected:
        assert stage.suppression(f"{name}@receiver.test"), name
    wait_for(lambda: all(stage.world.to(f"{name}@sender.test") for name in expected), what=stage.postfix.log()[-3000:])
    for name in expected:
        (message,) = stage.world.to(f"{name}@sender.test")
        assert len(fields_of(message, "x-mailback-id")) == 1


def test_a_reload_under_load_refuses_nobody(stage: Scene) -> None:
    finished, failures, sent = threading.Event(), list[str](), list[str]()

    def session_of(number: int) -> None:
        turn = 0
        while not finished.is_set():
            name = f"reload-{number}-{turn}"
            turn += 1
            try:
                stage.postfix.send(
                    "mx", "", f"{name}@sender.test", dsn(f"{name}@receiver.test", message_id=f"<{name}>")
                )
                sent.append(name)
            except (smtplib.SMTPException, OSError) as error:
                failures.append(f"{name}: {error}")

    with ThreadPoolExecutor(4) as pool:
        for number in range(4):
            pool.submit(session_of, number)
        try:
            for turn in (1, 2):
                before = set(stage.mailback.workers())
                os.kill(stage.mailback.pid, signal.SIGHUP)
                wait_for(lambda: stage.mailback.log().count(" reloaded ") >= turn, what="the reload")  # noqa: B023
                wait_for(lambda: not before & set(stage.mailback.workers()), what="the old workers to leave")  # noqa: B023
                enough = len(sent) + 20
                wait_for(lambda: len(sent) >= enough or failures, what="more mail to pass")  # noqa: B023
        finally:
            finished.set()
    assert not failures
    for name in sent:
        assert stage.suppression(f"{name}@receiver.test"), name

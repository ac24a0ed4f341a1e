"""The conversation: each test is named after what a client, honest or not, may do to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from email.parser import BytesParser
from pathlib import Path
from typing import Any, Literal

import pytest
from aiosmtpd.smtp import SMTP

from mailback.engine import Assessment, Disposition, Engine, Outcome
from mailback.envelope import Envelope
from mailback.service.log import configure
from mailback.settings import LogSettings
from mailback_smtpd import intake
from mailback_smtpd.session import ERROR_LIMIT, Receiver
from tests.support.mail import dsn, reply
from tests.support.receiver import Client, RunningReceiver, delivered, receiving
from tests.support.server import wait_for

ANSWER = reply("ada@receiver.test", message_id="<r1@receiver.test>")


def body(raw: bytes) -> bytes:
    """What follows the header."""
    return raw.partition(b"\r\n\r\n")[2]


def closed(client: Client) -> bool:
    """The server has hung up: nothing more comes."""
    try:
        return client.reply() == ""
    except ConnectionError:
        return True


# What is said -----------------------------------------------------------------------------------------------


def test_every_extension_that_is_offered_is_named(tmp_path: Path) -> None:
    with receiving(tmp_path, "max_message_bytes = 5000") as receiver:
        client = receiver.connect(greeted=False)
        assert client.reply() == "220 mx.sender.test ESMTP Mailback"
        told = client.say("EHLO peer.test").splitlines()
    assert told == [
        "250-mx.sender.test",
        "250-PIPELINING",
        "250-SIZE 5000",
        "250-8BITMIME",
        "250-SMTPUTF8",
        "250-ENHANCEDSTATUSCODES",
        "250 HELP",
    ]


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        (["MAIL FROM:<>"], "503 5.5.1"),
        (["HELO"], "501 5.5.4"),
        (["EHLO"], "501 5.5.4"),
        (["HELO x", "RCPT TO:<a@sender.test>"], "503 5.5.1"),
        (["HELO x", "DATA"], "503 5.5.1"),
        (["HELO x", "MAIL FROM:<>"], "250 2.1.0"),
        (["HELO x", "MAIL FROM:<>", "MAIL FROM:<>"], "503 5.5.1"),
        (["HELO x", "MAIL FROM:<>", "DATA"], "503 5.5.1"),
        (["HELO x", "MAIL FROM:<>", "RCPT TO:<a@sender.test>"], "250 2.1.5"),
        (["HELO x", "MAIL FROM:<>", "RCPT TO:<a@sender.test>", "DATA now"], "501 5.5.4"),
        (["HELO x", "MAIL FROM:<>", "RSET", "RCPT TO:<a@sender.test>"], "503 5.5.1"),
        (["HELO x", "MAIL FROM:<>", "EHLO x", "RCPT TO:<a@sender.test>"], "503 5.5.1"),
        (["HELO x", "MAIL FROM:<a b>"], "501 5.1.7"),
        (["HELO x", "MAIL"], "501 5.1.7"),
        (["HELO x", "MAIL FROM:<> RET=HDRS"], "555 5.5.4"),
        (["HELO x", "MAIL FROM:<> SIZE=x"], "501 5.5.4"),
        (["HELO x", "MAIL FROM:<> SIZE"], "501 5.5.4"),
        (["HELO x", "MAIL FROM:<> BODY=BINARYMIME"], "501 5.5.4"),
        (["HELO x", "MAIL FROM:<> BODY=8bitmime SIZE=10"], "250 2.1.0"),
        (["HELO x", "MAIL FROM:<> SMTPUTF8=1"], "501 5.5.4"),
        (["HELO x", "MAIL FROM:<>", "RCPT TO:<>"], "501 5.1.3"),
        (["HELO x", "MAIL FROM:<>", "RCPT TO:<a@sender.test> NOTIFY=NEVER"], "555 5.5.4"),
        (["VRFY ada@sender.test"], "252 2.5.2"),
        (["VRFY"], "501 5.5.4"),
        (["EXPN staff"], "502 5.5.1"),
        (["HELP"], "250 2.0.0"),
        (["HELP MAIL"], "250 2.0.0"),
        (["NOOP"], "250 2.0.0"),
        (["NOOP whatever"], "250 2.0.0"),
        (["RSET"], "250 2.0.0"),
        (["RSET now"], "501 5.5.4"),
        (["AUTH PLAIN AGEAYg=="], "500 5.5.1"),
        (["BDAT 10 LAST"], "500 5.5.1"),
        (["STARTTLS"], "502 5.5.1"),
        (["LHLO x"], "500 5.5.1"),
        ([""], "500 5.5.1"),
        (["QUIT now"], "501 5.5.4"),
        (["QUIT"], "221 2.0.0"),
        (["NOOP " + "x" * 3000], "500 5.5.2"),
        (["NOOP " + "x" * 300_000], "500 5.5.2"),
    ],
)
def test_each_command_gets_its_code_and_an_enhanced_one(tmp_path: Path, commands: list[str], expected: str) -> None:
    with receiving(tmp_path) as receiver:
        client = receiver.connect(greeted=False)
        client.reply()
        told = [client.say(command) for command in commands]
        assert told[-1].startswith(f"{expected} ")
        assert all("5.5.1" in line or line.startswith("2") for line in told[:-1])


@pytest.mark.parametrize("command", [b"\x1b[31mEVIL", b"VRFY <\x1b[31mevil>", b"EVIL\xff", b"MAIL FROM:<evil\x07@b>"])
def test_no_reply_repeats_what_a_client_sent(tmp_path: Path, command: bytes) -> None:
    with receiving(tmp_path) as receiver:
        told = receiver.connect().say(command)
    assert told.isprintable()
    assert "evil" not in told.lower()


def test_a_command_line_of_any_length_leaves_the_conversation_whole(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        client = receiver.connect()
        client.send(b"NOOP " + b"x" * 1_000_000 + b"\r\nNOOP\r\n")
        assert client.reply().startswith("500 5.5.2")
        assert client.reply().startswith("250")


def test_lmtp_knows_no_helo_and_smtp_no_lhlo(tmp_path: Path) -> None:
    with receiving(tmp_path, lmtp=True) as receiver:
        client = receiver.connect(greeted=False)
        assert client.reply() == "220 mx.sender.test LMTP Mailback"
        assert client.say("HELO x").startswith("500 5.5.1")
        assert client.say("EHLO x").startswith("500 5.5.1")
        assert client.say("MAIL FROM:<>").startswith("503 5.5.1")
        assert client.say("LHLO x").startswith("250-")


# Traps of aiosmtpd ------------------------------------------------------------------------------------------


def test_no_connection_changes_the_command_limit_of_another(tmp_path: Path) -> None:
    """aiosmtpd keeps the limits in one dictionary of the class, and each EHLO of anybody raises them."""
    before = dict(SMTP.command_size_limits)
    with receiving(tmp_path) as receiver:
        greedy, other = receiver.connect(), receiver.connect()
        for _ in range(200):
            greedy.say("EHLO again")
        assert other.say("MAIL FROM:<" + "a" * 2100 + "@b.test>").startswith("500 5.5.2")
    assert dict(SMTP.command_size_limits) == before


def test_nothing_that_aiosmtpd_sets_on_a_connection_is_missing() -> None:
    """Our constructor does not call aiosmtpd's; a new attribute there must not surprise us at run time."""

    class Door:
        hostname = "mx.test"
        tls = None

        class settings:  # noqa: N801
            max_message_bytes = 1
            command_timeout_s = 1

    loop = asyncio.new_event_loop()
    try:
        logging.getLogger("mail.log").setLevel(logging.WARNING)
        theirs = SMTP(object(), loop=loop, hostname="mx.test")
        ours = Receiver(Door(), loop)  # type: ignore[arg-type]
        # Limits by command are not used, and the base class's own loop, which reads this one, is replaced.
        missing = [name for name in vars(theirs) if not hasattr(ours, name) and name != "_call_limit_default"]
    finally:
        loop.close()
    assert missing == []


def test_lmtp_answers_once_for_each_recipient(tmp_path: Path) -> None:
    with receiving(tmp_path, lmtp=True) as receiver:
        client = receiver.connect()
        first = client.message(ANSWER, "ada@receiver.test", ("a@sender.test", "b@sender.test", "c@sender.test"))
        told = [*first, client.reply(), client.reply()]
        assert [line[:9] for line in told] == ["250 2.6.0"] * 3
        assert client.say("NOOP").startswith("250 2.0.0")


def test_a_recipient_that_was_refused_gets_no_lmtp_answer(tmp_path: Path) -> None:
    with receiving(tmp_path, "trusted_clients = []", lmtp=True) as receiver:
        client = receiver.connect()
        client.say("MAIL FROM:<>")
        assert client.say("RCPT TO:<a@sender.test>").startswith("250")
        assert client.say("RCPT TO:<a@elsewhere.test>").startswith("554")
        assert client.say("DATA").startswith("354")
        client.send(ANSWER + b".\r\nNOOP\r\n")
        assert client.reply().startswith("250 2.6.0")
        assert client.reply().startswith("250 2.0.0")


@pytest.mark.parametrize("line", [b"NOOP\n", b"NOOP\rNOOP\r\n", b"MAIL FROM:<a@b.test>\rRCPT TO:<c@d.test>\r\n"])
def test_a_bare_cr_or_lf_in_a_command_ends_the_conversation(tmp_path: Path, line: bytes) -> None:
    with receiving(tmp_path) as receiver:
        client = receiver.connect()
        client.send(line)
        assert client.reply().startswith("521 5.5.2")
        assert closed(client)


@pytest.mark.parametrize(
    "fake_end",
    [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r\n\0.\r\n", b"\r\r\n.\r\r\n"],
)
def test_only_crlf_dot_crlf_ends_a_message(tmp_path: Path, fake_end: bytes) -> None:
    """SMTP smuggling: whoever relays such octets unread must not make two messages of one here."""
    smuggled = b"MAIL FROM:<admin@sender.test>\r\nRCPT TO:<victim@sender.test>\r\nDATA\r\nFrom: admin\r\n\r\nfake\r\n"
    data = b"Subject: one\r\n\r\nfirst" + fake_end + smuggled
    with receiving(tmp_path) as receiver:
        client = receiver.connect()
        for command in ("MAIL FROM:<a@b.test>", "RCPT TO:<c@sender.test>", "DATA"):
            client.say(command)
        client.send(data + b".\r\nNOOP\r\n")
        assert client.reply().startswith("250 2.6.0")
        assert client.reply().startswith("250 2.0.0")
        messages = delivered(receiver.inbox)
    assert len(messages) == 1
    assert messages[0].count(b"smuggled") == 0
    assert b"RCPT TO:<victim@sender.test>" in body(messages[0])
    assert messages[0].count(b"\n") == messages[0].count(b"\r\n") == messages[0].count(b"\r")


def test_an_address_that_is_not_ascii_needs_smtputf8(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        client = receiver.connect()
        assert client.say("MAIL FROM:<josé@receiver.test>").startswith("553 5.6.7")
        assert client.say("MAIL FROM:<a@receiver.test>").startswith("250")
        assert client.say("RCPT TO:<josé@sender.test>").startswith("553 5.6.7")
        client.say("RSET")
        assert client.say("MAIL FROM:<josé@receiver.test> SMTPUTF8").startswith("250")
        assert client.say("RCPT TO:<josé@sender.test>").startswith("250")
        client.say("DATA")
        client.send("Subject: ä\r\n\r\nx\r\n.\r\n")
        assert client.reply().startswith("250")
        (raw,) = delivered(receiver.inbox)
    assert raw.startswith("Return-Path: <josé@receiver.test>\r\n".encode())
    assert b"with UTF8SMTP id" in raw
    assert "for <josé@sender.test>".encode() in raw


def test_octets_that_are_not_utf8_are_refused_in_a_command(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        client = receiver.connect()
        assert client.say(b"MAIL FROM:<jos\xe9@receiver.test> SMTPUTF8").startswith("501 5.5.2")
        assert client.say("MAIL FROM:<>").startswith("250")


def test_a_line_of_half_a_megabyte_is_taken(tmp_path: Path) -> None:
    """aiosmtpd answers 500 to lines of more than 1001 octets; bounces of some servers have them."""
    long = b"Subject: x\r\n\r\n" + b"y" * 500_000 + b"\r\n" + b"z" * 70_000 + b"\r\n"
    with receiving(tmp_path) as receiver:
        assert receiver.connect().message(long, "a@b.test")[0].startswith("250 2.6.0")
        (raw,) = delivered(receiver.inbox)
    assert body(raw) == body(long)


class Slow:
    """The real engine, its commits held back until `release` is set."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.release = threading.Event()
        self.asked = threading.Event()

    def assess_at_once(self, envelope: Envelope, raw: bytes) -> Assessment | None:
        return self._engine.assess_at_once(envelope, raw)

    def commit(self, assessment: Assessment) -> Future[Outcome]:
        held: Future[Outcome] = Future()

        def work() -> None:
            self.release.wait(20)
            held.set_result(self._engine.commit(assessment).result())

        self.asked.set()
        threading.Thread(target=work, daemon=True).start()
        return held


def slow_engine(holder: list[Slow]) -> Any:
    def make(*given: Any) -> Any:
        holder.append(Slow(Engine(*given)))
        return holder[0]

    return make


def test_a_slow_commit_is_not_taken_for_a_slow_client(tmp_path: Path) -> None:
    """aiosmtpd's one timer runs on while a message is being dealt with, and hangs up on a client that only waits."""
    held: list[Slow] = []
    with receiving(tmp_path, "command_timeout_s = 0.2\ndata_timeout_s = 0.2", engine=slow_engine(held)) as receiver:
        client = receiver.connect()
        for command in ("MAIL FROM:<a@b.test>", "RCPT TO:<c@sender.test>", "DATA"):
            client.say(command)
        client.send(ANSWER + b".\r\n")
        client.socket.settimeout(0.6)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        held[0].release.set()
        client.socket.settimeout(20)
        assert client.socket.recv(9) == b"250 2.6.0"


def test_nothing_is_acknowledged_before_it_is_committed(tmp_path: Path) -> None:
    held: list[Slow] = []
    with receiving(tmp_path, engine=slow_engine(held)) as receiver:
        client = receiver.connect()
        for command in ("MAIL FROM:<a@b.test>", "RCPT TO:<c@sender.test>", "DATA"):
            client.say(command)
        client.send(ANSWER + b".\r\n")
        assert held[0].asked.wait(20)
        assert delivered(receiver.inbox) == []
        held[0].release.set()
        assert client.reply().startswith("250 2.6.0")
        assert len(delivered(receiver.inbox)) == 1


def test_a_commit_that_never_ends_does_not_hold_the_peer_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "COMMIT_S", 0.1)
    held: list[Slow] = []
    with receiving(tmp_path, engine=slow_engine(held)) as receiver:
        client = receiver.connect()
        assert client.message(ANSWER, "a@b.test")[0].startswith("451 4.3.0")
        held[0].release.set()
        wait_for(lambda: len(events(receiver)) == 1, what="the unit of work ends as the store says")
        assert client.message(ANSWER, "a@b.test")[0].startswith("250 2.6.0")
        assert len(events(receiver)) == 1


def test_what_is_discarded_is_recorded_all_the_same(tmp_path: Path) -> None:
    with receiving(tmp_path, 'bounces_to = "discard"') as receiver:
        told = receiver.connect().message(dsn("gone@receiver.test", message_id="<m1@sender.test>"))
        assert told[0].startswith("250 2.6.0")
        assert len(events(receiver)) == 1


# Data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "content"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"\r\n\r\n.\r\n", b"\r\n\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"..a\r\n.b\r\n...c\r\n.\r\n", b".a\r\nb\r\n..c\r\n"),
        (b"a: b\r\n\r\n.. \r\n.\r\n", b"a: b\r\n\r\n. \r\n"),
        (b"a: b\r\n\r\n\0\xff\r\n.\r\n", b"a: b\r\n\r\n\0\xff\r\n"),
    ],
)
def test_dots_are_unstuffed_and_the_end_is_found_wherever_packets_end(
    tmp_path: Path, wire: bytes, content: bytes
) -> None:
    with receiving(tmp_path) as receiver:
        client = receiver.connect()
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for split in range(len(wire) + 1):
            for command in ("MAIL FROM:<a@b.test>", "RCPT TO:<c@sender.test>", "DATA"):
                client.say(command)
            client.send(wire[:split])
            time.sleep(0.002)  # not waited for: only makes it likely that the halves arrive apart
            client.send(wire[split:])
            assert client.reply().startswith("250 2.6.0"), split
        messages = delivered(receiver.inbox)
    assert len(messages) == len(wire) + 1
    expected = content if content.startswith(b"\r\n") or b":" in content else content or b"\r\n"
    assert {raw.endswith(b"\r\n" + expected) for raw in messages} == {True}


def test_a_size_that_is_too_large_is_refused_when_it_is_declared(tmp_path: Path) -> None:
    with receiving(tmp_path, "max_message_bytes = 2000") as receiver:
        client = receiver.connect()
        assert client.say("MAIL FROM:<> SIZE=2001").startswith("552 5.3.4")
        assert client.say("MAIL FROM:<> SIZE=99999999999999999999").startswith("552 5.3.4")
        assert client.say("MAIL FROM:<> SIZE=2000").startswith("250")


def test_a_message_over_the_limit_is_read_away_and_the_conversation_goes_on(tmp_path: Path) -> None:
    with receiving(tmp_path, "max_message_bytes = 100000") as receiver:
        client = receiver.connect()
        for extra, expected in ((0, "250 2.6.0"), (1, "552 5.3.4"), (3_000_000, "552 5.3.4")):
            data = b"A: b\r\n\r\n" + b"x" * (100_000 - 10 + extra) + b"\r\n"
            assert client.message(data, "a@b.test")[0].startswith(expected)
        stuffed = b"A: b\r\n\r\n" + b".\r\n" * 33_330  # 133 kB on the wire, 100 kB of message
        assert len(stuffed) <= 100_000
        assert client.message(stuffed, "a@b.test")[0].startswith("250 2.6.0")
        assert len(delivered(receiver.inbox)) == 2


def test_a_message_over_the_limit_is_not_kept_in_memory(tmp_path: Path) -> None:
    with receiving(tmp_path, "max_message_bytes = 100000") as receiver:
        client = receiver.connect()
        for command in ("MAIL FROM:<>", "RCPT TO:<c@sender.test>", "DATA"):
            client.say(command)
        block = (b"x" * 998 + b"\r\n") * 1000
        before = resident()
        for _ in range(60):
            client.send(block)
        assert resident() - before < 20_000_000
        client.send(b".\r\n")
        assert client.reply().startswith("552 5.3.4")


def resident() -> int:
    """Octets of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_recipient_too_many_is_put_off_not_refused(tmp_path: Path) -> None:
    with receiving(tmp_path, "max_recipients = 3") as receiver:
        client = receiver.connect()
        client.say("MAIL FROM:<>")
        told = [client.say(f"RCPT TO:<a{n}@sender.test>")[:9] for n in range(4)]
        assert told == ["250 2.1.5"] * 3 + ["452 4.5.3"]
        client.say("DATA")
        client.send(ANSWER + b".\r\n")
        assert client.reply().startswith("250 2.6.0")


def test_everything_at_once_and_a_closed_sending_side_still_gets_every_answer(tmp_path: Path) -> None:
    """PIPELINING (RFC 2920), and a client that half-closes after its QUIT."""
    with receiving(tmp_path) as receiver:
        client = receiver.connect(greeted=False)
        once = "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@sender.test>\r\nDATA\r\nA: b\r\n\r\nx\r\n.\r\n"
        client.send("EHLO x\r\n" + once * 3 + "QUIT\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        told = [client.reply()[:9] for _ in range(15)]
        assert told == [
            "220 mx.se",
            "250-mx.se",
            *["250 2.1.0", "250 2.1.5", "354 end d", "250 2.6.0"] * 3,
            "221 2.0.0",
        ]
        assert closed(client)
        assert len(delivered(receiver.inbox)) == 3


def test_a_client_that_vanishes_in_the_middle_of_a_message_leaves_nothing(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        client = receiver.connect()
        for command in ("MAIL FROM:<a@b.test>", "RCPT TO:<c@sender.test>", "DATA"):
            client.say(command)
        client.send(ANSWER)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        wait_for(lambda: not receiver.door.sessions, what="the session ends")
        assert delivered(receiver.inbox) == []
        assert receiver.door.connections.open == 0


WORDS = (
    b"EHLO x\r\n", b"LHLO x\r\n", b"MAIL FROM:<>\r\n", b"MAIL FROM:<a@b.test> SIZE=9 BODY=8BITMIME\r\n", b"\r\n.\r\n",
    b"RCPT TO:<a@sender.test>\r\n", b"DATA\r\n", b".\r\n", b"RSET\r\n", b"NOOP\r\n", b"HELP\r\n", b"QUIT\r\n", b"\r\n",
    b"\n", b"\r", b"\0", b".", b"\xff\xfe", b"VRFY \xc3\xa9\r\n", b"X" * 3000, b"EXPN a\r\n", b"STARTTLS\r\n",
    b"Subject: x\r\n",
)  # fmt: skip


def test_no_sequence_of_octets_makes_a_conversation_fail(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dice = random.Random(5321)
    with receiving(tmp_path, "max_message_bytes = 5000\ncommand_timeout_s = 5") as receiver:
        for _ in range(150):
            client = receiver.connect(greeted=False)
            said = [WORDS[0], WORDS[2], b"RCPT TO:<a@sender.test>\r\n", b"DATA\r\n", b"A: b\r\n", b".\r\n"] * 2
            for _ in range(dice.randrange(6)):
                said[dice.randrange(len(said)) : dice.randrange(len(said))] = dice.choices(
                    WORDS, k=dice.randrange(1, 4)
                )
            client.send(b"".join(said))
            with contextlib.suppress(OSError):  # hung up on, and the rest of what was said with it
                client.socket.shutdown(socket.SHUT_WR)
                while client.socket.recv(65536):
                    pass
            client.close()
        wait_for(lambda: not receiver.door.sessions, what="every conversation ends")
        assert receiver.door.connections.open == 0
    log = capfd.readouterr().err
    assert "received" in log
    assert "_failed" not in log


# Who may, and how much --------------------------------------------------------------------------------------


def test_nobody_relays_who_is_not_trusted(tmp_path: Path) -> None:
    with receiving(tmp_path, 'trusted_clients = []\ndomains = ["sender.test", "bücher.test"]') as receiver:
        client = receiver.connect()
        client.say("MAIL FROM:<> SMTPUTF8")
        for recipient, expected in (
            ("a@elsewhere.test", "554 5.7.1"),
            ("a@sub.sender.test", "554 5.7.1"),
            ("a@sender.test.elsewhere.test", "554 5.7.1"),
            ("a%elsewhere.test@sender.test", "250 2.1.5"),
            ("@sender.test:a@elsewhere.test", "554 5.7.1"),
            ("a@[127.0.0.1]", "554 5.7.1"),
            ("a@SENDER.test", "250 2.1.5"),
            ("a@bücher.test", "250 2.1.5"),
            ("a@xn--bcher-kva.test", "250 2.1.5"),
            ("postmaster", "250 2.1.5"),
        ):
            assert client.say(f"RCPT TO:<{recipient}>")[:9] == expected, recipient


def test_a_trusted_client_may_send_anywhere(tmp_path: Path) -> None:
    with receiving(tmp_path, 'trusted_clients = ["127.0.0.1"]') as receiver:
        client = receiver.connect()
        client.say("MAIL FROM:<>")
        assert client.say("RCPT TO:<a@elsewhere.test>").startswith("250")


def test_connections_over_a_limit_are_put_off_and_room_is_given_back(tmp_path: Path) -> None:
    with receiving(tmp_path, "max_connections = 3\nmax_connections_per_client = 2") as receiver:
        first, _second = receiver.connect(), receiver.connect()
        third = receiver.connect(greeted=False)
        assert third.reply().startswith("421 4.7.0 too many connections from")
        assert closed(third)
        assert first.say("QUIT").startswith("221")
        wait_for(lambda: receiver.door.connections.open == 1, what="the connection is counted out")
        assert receiver.connect().say("NOOP").startswith("250")


def test_messages_over_the_rate_of_a_client_are_put_off(tmp_path: Path) -> None:
    with receiving(tmp_path, "max_messages_per_minute_per_client = 2") as receiver:
        client = receiver.connect()
        told = []
        for _ in range(3):
            told.append(client.say("MAIL FROM:<>")[:9])
            client.say("RSET")
        assert told == ["250 2.1.0", "250 2.1.0", "451 4.7.1"]


def test_a_client_that_makes_only_errors_is_disconnected(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        client = receiver.connect()
        for _ in range(ERROR_LIMIT - 1):
            assert client.say("BLAH").startswith("500")
        assert client.message(ANSWER, "a@b.test")[0].startswith("250")
        for _ in range(ERROR_LIMIT):
            assert client.say("BLAH").startswith("500")
        assert client.reply().startswith("421 4.7.0")
        assert closed(client)


def test_a_browser_is_sent_away_at_once(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        client = receiver.connect(greeted=False)
        client.reply()
        client.send("POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@b.test>\r\n")
        assert client.reply().startswith("521 5.5.1")
        assert closed(client)


def test_a_silent_client_is_disconnected_with_a_word(tmp_path: Path) -> None:
    with receiving(tmp_path, "command_timeout_s = 0.1") as receiver:
        client = receiver.connect()
        assert client.reply().startswith("421 4.4.2")
        assert closed(client)


def test_a_message_that_trickles_in_has_an_end(tmp_path: Path) -> None:
    with receiving(tmp_path, "data_timeout_s = 0.3") as receiver:
        client = receiver.connect()
        for command in ("MAIL FROM:<>", "RCPT TO:<c@sender.test>", "DATA"):
            client.say(command)
        client.socket.settimeout(0.02)
        told = b""
        for _ in range(500):
            try:
                client.send(b"x\r\n")
                told += client.socket.recv(100)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            if told:
                break
        assert told.startswith(b"421 4.4.2")
        assert delivered(receiver.inbox) == []


# PROXY protocol ---------------------------------------------------------------------------------------------

SIGNATURE_V2 = b"\r\n\r\n\0\r\nQUIT\n"
PROXY_V2 = SIGNATURE_V2 + b"\x21\x11\0\x0c" + bytes([203, 0, 113, 9, 127, 0, 0, 1]) + struct.pack("!HH", 1000, 25)
PROXY_V2_SIX = (
    SIGNATURE_V2 + b"\x21\x21\0\x24" + bytes.fromhex("20010db8000000000000000000000009") * 2 + b"\x03\xe8\0\x19"
)
PROXIED = 'proxy_protocol = true\nproxy_clients = ["127.0.0.1"]\ntrusted_clients = ["127.0.0.1"]'


@pytest.mark.parametrize(
    ("header", "client_address"),
    [
        (b"PROXY TCP4 203.0.113.9 127.0.0.1 1000 25\r\n", "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 ::1 1000 25\r\n", "2001:db8::9"),
        (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 1000 25\r\n", "203.0.113.9"),
        (PROXY_V2, "203.0.113.9"),
        (PROXY_V2_SIX, "2001:db8::9"),
    ],
)
def test_a_listed_proxy_says_who_the_client_is(tmp_path: Path, header: bytes, client_address: str) -> None:
    with receiving(tmp_path, PROXIED) as receiver:
        client = receiver.connect(greeted=False)
        client.send(header)
        assert client.reply().startswith("220")
        client.say("EHLO peer.test")
        client.say("MAIL FROM:<a@b.test>")
        assert client.say("RCPT TO:<a@elsewhere.test>").startswith("554 5.7.1"), (
            "the proxy's own trust is not the client's"
        )
        client.say("RSET")
        client.message(ANSWER, "a@b.test")
        (raw,) = delivered(receiver.inbox)
    literal = f"[IPv6:{client_address}]" if ":" in client_address else f"[{client_address}]"
    assert f"({literal})" in raw.decode()


@pytest.mark.parametrize(
    "header",
    [
        b"EHLO peer.test\r\n",
        b"PROXY TCP4 203.0.113.9\r\n",
        b"PROXY TCP4 evil evil 1 2\r\n",
        b"PROXY " + b"x" * 200_000 + b"\r\n",
        b"PROXY\r\n",
        SIGNATURE_V2 + b"\x31\x11\0\x0c" + bytes(12),
        SIGNATURE_V2 + b"\x21\x11\0\x02ab",
    ],
)
def test_a_connection_without_a_valid_proxy_header_is_dropped_without_a_word(tmp_path: Path, header: bytes) -> None:
    with receiving(tmp_path, PROXIED) as receiver:
        client = receiver.connect(greeted=False)
        client.send(header)
        assert closed(client)


def test_nobody_but_a_listed_proxy_may_say_who_the_client_is(tmp_path: Path) -> None:
    unlisted = 'proxy_protocol = true\nproxy_clients = ["192.0.2.1"]'
    with receiving(tmp_path, unlisted) as receiver:
        client = receiver.connect(greeted=False)
        client.send(b"PROXY TCP4 127.0.0.1 127.0.0.1 1000 25\r\n")
        assert closed(client)


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", SIGNATURE_V2 + b"\x20\x00\0\0"])
def test_a_proxys_health_check_is_answered_but_may_not_relay(tmp_path: Path, header: bytes) -> None:
    with receiving(tmp_path, PROXIED) as receiver:
        client = receiver.connect(greeted=False)
        client.send(header)
        assert client.reply().startswith("220")
        client.say("EHLO x")
        client.say("MAIL FROM:<>")
        assert client.say("RCPT TO:<a@elsewhere.test>").startswith("554 5.7.1")


# TLS --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The settings of a certificate that was made for the tests."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=mx.sender.test", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return f'tls_certificate_file = "{folder}/cert.pem"\ntls_key_file = "{folder}/key.pem"\n'


def under_tls(client: Client) -> Client:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return Client(context.wrap_socket(client.socket))


def test_a_message_under_tls_says_so_in_its_trace(tmp_path: Path, offered: str) -> None:
    with receiving(tmp_path, offered) as receiver:
        plain = receiver.connect()
        assert plain.say("STARTTLS").startswith("220 2.0.0")
        secure = under_tls(plain)
        assert secure.say("MAIL FROM:<>").startswith("503 5.5.1"), "what was said before counts no more"
        told = secure.say("EHLO peer.test")
        assert "STARTTLS" not in told
        assert "SIZE" in told
        assert secure.say("STARTTLS").startswith("503 5.5.1")
        large = ANSWER + b"x" * 300_000 + b"\r\n"
        assert secure.message(large, "a@b.test")[0].startswith("250 2.6.0")
        assert secure.message(ANSWER, "a@b.test")[0].startswith("250 2.6.0")
        assert secure.say("QUIT").startswith("221")
        assert b"with ESMTPS id" in delivered(receiver.inbox)[0]
        secure.close()


def test_a_command_injected_before_tls_is_forgotten(tmp_path: Path, offered: str) -> None:
    with receiving(tmp_path, offered) as receiver:
        plain = receiver.connect()
        plain.send("STARTTLS\r\nEHLO injected\r\nMAIL FROM:<evil@b.test>\r\n")
        assert plain.reply().startswith("220")
        secure = under_tls(plain)
        assert secure.say("NOOP").startswith("250 2.0.0 OK")
        assert secure.say("RCPT TO:<a@sender.test>").startswith("503 5.5.1")
        secure.close()


def test_mail_waits_for_tls_where_it_is_required(tmp_path: Path, offered: str) -> None:
    with receiving(tmp_path, offered + "tls_required = true") as receiver:
        plain = receiver.connect()
        assert plain.say("MAIL FROM:<>").startswith("530 5.7.0")
        plain.say("STARTTLS")
        secure = under_tls(plain)
        secure.say("EHLO x")
        assert secure.say("MAIL FROM:<>").startswith("250")
        secure.close()


def test_a_failed_handshake_hurts_nobody_else(tmp_path: Path, offered: str) -> None:
    with receiving(tmp_path, offered) as receiver:
        broken, other = receiver.connect(), receiver.connect()
        broken.say("STARTTLS")
        broken.send(b"this is no client hello, not at all\r\n" * 10)
        wait_for(lambda: len(receiver.door.sessions) == 1, what="the broken session ends")
        assert other.say("NOOP").startswith("250")


# Stopping ---------------------------------------------------------------------------------------------------


def test_a_stop_sends_idle_clients_away_and_lets_a_message_finish(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        idle, busy = receiver.connect(), receiver.connect()
        for command in ("MAIL FROM:<a@b.test>", "RCPT TO:<c@sender.test>", "DATA"):
            busy.say(command)
        results: list[int] = []
        stopping = threading.Thread(target=lambda: results.append(receiver.drain(10)))
        stopping.start()
        assert idle.reply().startswith("421 4.3.2")
        assert closed(idle)
        busy.send(ANSWER + b".\r\n")
        assert busy.reply().startswith("250 2.6.0")
        assert busy.reply().startswith("421 4.3.2")
        assert closed(busy)
        stopping.join(20)
    assert results == [0]


def test_a_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        client = receiver.connect()
        client.say("MAIL FROM:<>")
        assert receiver.drain(0.1) == 1
        assert closed(client)


# The engine behind it ---------------------------------------------------------------------------------------


def events(receiver: RunningReceiver) -> list[tuple[str, ...]]:
    import sqlite3

    with sqlite3.connect(receiver.settings.store.url.removeprefix("sqlite:///")) as connection:
        rows = connection.execute("SELECT id, kind, source, recipient FROM event").fetchall()
    connection.close()
    return rows


def test_a_bounce_is_recorded_and_goes_to_bounces_to(tmp_path: Path) -> None:
    bounce = dsn("gone@receiver.test", message_id="<m1@sender.test>")
    with receiving(tmp_path) as receiver:
        (told,) = receiver.connect().message(bounce)
        ((event_id, kind, source, recipient),) = events(receiver)
        assert (kind, source, recipient) == ("bounce", "smtpd", "gone@receiver.test")
        assert told.startswith("250 2.6.0")
        assert event_id in told
        assert delivered(receiver.inbox) == []
        (raw,) = delivered(tmp_path / "bounces")
    parsed = BytesParser().parsebytes(raw)
    assert parsed["X-Mailback-Kind"] == "bounce"
    assert parsed["X-Mailback-Id"] == event_id
    assert raw.endswith(bounce)


def test_a_persons_mail_goes_to_the_next_hop(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        receiver.connect().message(ANSWER, "ada@receiver.test")
        (raw,) = delivered(receiver.inbox)
    assert raw.startswith(b"Return-Path: <ada@receiver.test>\r\n")
    assert raw.endswith(ANSWER)


def test_a_message_that_comes_again_is_the_same_event(tmp_path: Path) -> None:
    bounce = dsn("gone@receiver.test", message_id="<m1@sender.test>")
    with receiving(tmp_path) as receiver:
        client = receiver.connect()
        told = [client.message(bounce)[0] for _ in range(3)]
        assert len(events(receiver)) == 1
    assert len(set(told)) == 1


@pytest.mark.parametrize(
    "junk", [b"", b"\0" * 50, b"\xff\xfe not mail at all", b"Content-Type: multipart/x; boundary=\r\n"]
)
def test_what_is_no_mail_is_taken_all_the_same(tmp_path: Path, junk: bytes) -> None:
    with receiving(tmp_path) as receiver:
        assert receiver.connect().message(junk and junk + b"\r\n", "a@b.test")[0].startswith("250 2.6.0")
        assert len(events(receiver)) == 1
        assert len(delivered(receiver.inbox)) == 1


def test_a_large_message_does_not_stop_the_conversations_beside_it(tmp_path: Path) -> None:
    seen: list[str] = []

    class Watching(Engine):
        def assess_at_once(self, envelope: Envelope, raw: bytes) -> Assessment | None:
            seen.append(threading.current_thread().name)
            return super().assess_at_once(envelope, raw)

    with receiving(tmp_path, engine=Watching) as receiver:
        client = receiver.connect()
        client.message(ANSWER, "a@b.test")
        client.message(ANSWER + b"x" * 70_000 + b"\r\n", "a@b.test")
    assert not seen[0].startswith("read")
    assert seen[1].startswith("read")


def test_while_the_store_cannot_commit_the_peer_keeps_the_mail(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        client = receiver.connect()
        receiver.store.close()
        assert client.message(ANSWER, "a@b.test")[0].startswith("451 4.3.0")
        assert delivered(receiver.inbox) == []
        assert client.say("NOOP").startswith("250")


def test_a_fault_of_our_own_costs_the_peer_nothing(tmp_path: Path) -> None:
    class Broken(Engine):
        def assess_at_once(self, envelope: Envelope, raw: bytes) -> Assessment | None:
            raise ZeroDivisionError("a bug")

    with receiving(tmp_path, engine=Broken) as receiver:
        client = receiver.connect()
        told = client.message(ANSWER, "a@b.test")[0]
        assert told.startswith("451 4.3.0")
        assert "bug" not in told
        assert client.say("NOOP").startswith("250")


@pytest.mark.parametrize(
    ("disposition", "code", "expected", "copies"),
    [
        (Disposition.REJECT, (550, "5.7.1"), "550 5.7.1", 0),
        (Disposition.TEMPFAIL, (451, "4.7.1"), "451 4.7.1", 0),
        (Disposition.DISCARD, (250, "2.6.0"), "250 2.6.0", 0),
        (Disposition.QUARANTINE, (250, "2.6.0"), "250 2.6.0", 0),
        (Disposition.ACCEPT, (250, "2.6.0"), "250 2.6.0", 1),
    ],
)
def test_a_disposition_is_carried_out(
    tmp_path: Path, disposition: Disposition, code: tuple[int, str], expected: str, copies: int
) -> None:
    class Decided(Engine):
        def commit(self, assessment: Assessment) -> Future[Outcome]:
            told = super().commit(assessment).result()
            decided: Future[Outcome] = Future()
            decided.set_result(replace(told, disposition=disposition, smtp_code=code[0], enhanced=code[1]))
            return decided

    with receiving(tmp_path, engine=Decided) as receiver:
        assert receiver.connect().message(ANSWER, "a@b.test")[0].startswith(expected)
        assert len(delivered(receiver.inbox)) == copies
        assert len(delivered(receiver.quarantine)) == (disposition is Disposition.QUARANTINE)


@pytest.mark.parametrize("trusted", ["[]", '["127.0.0.1"]'])
def test_authentication_results_in_our_name_go_whoever_brings_them(tmp_path: Path, trusted: str) -> None:
    claimed = b"Authentication-Results: (relayed) MX.sender.test 1; dkim=pass\r\n"
    of_another = b"Authentication-Results: edge.sender.test; dkim=pass\r\n"
    with receiving(tmp_path, f"trusted_clients = {trusted}") as receiver:
        receiver.connect().message(claimed + of_another + ANSWER, "a@b.test")
        (raw,) = delivered(receiver.inbox)
    assert claimed not in raw
    assert of_another in raw


@pytest.mark.parametrize(("level", "told"), [("info", False), ("debug", True)])
def test_a_report_to_several_recipients_is_no_news_to_the_operator(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], level: Literal["info", "debug"], told: bool
) -> None:
    configure(LogSettings(level=level))
    try:
        with receiving(tmp_path) as receiver:
            said = receiver.connect().message(ANSWER, "", ("a@sender.test", "b@sender.test"))
    finally:
        configure(LogSettings())
    assert said[0].startswith("250 2.6.0")
    log = capfd.readouterr().err
    assert " received " in log
    assert (" many_recipients " in log) == told


def test_a_message_that_goes_in_circles_is_stopped(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        client = receiver.connect()
        hops = b"Received: from a by b; Sun, 22 Nov 2026 06:00:00 +0000\r\n"
        assert client.message(hops * 50 + ANSWER, "a@b.test")[0].startswith("250 2.6.0")
        assert client.message(hops * 51 + ANSWER, "a@b.test")[0].startswith("554 5.4.6")


def test_a_unix_socket_takes_lmtp_from_whoever_may_open_it(tmp_path: Path) -> None:
    with receiving(tmp_path, "trusted_clients = []", lmtp=True, unix=True) as receiver:
        client = receiver.connect()
        assert client.message(ANSWER, "a@b.test", ("a@elsewhere.test",))[0].startswith("250 2.6.0")
        (raw,) = delivered(receiver.inbox)
    assert b"Received: from peer.test (local)\r\n\tby mx.sender.test (Mailback) with LMTP id" in raw

"""The milter over its socket: a worker process, spoken to as an MTA would, with every choice in the test's hand.

The worker is this file run as a program, with an engine and a recipient check whose behaviour the addresses choose.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvloop

from mailback.bounce.taxonomy import Kind
from mailback.engine import Disposition, Outcome
from mailback.envelope import Envelope
from mailback.outbound.check import ALLOWED, Answer
from mailback.store.errors import StoreUnavailable
from mailback_milter.direction import DirectionRules
from mailback_milter.part import serve
from mailback_milter.session import Rules
from tests.support.mta import (
    ADD,
    CHANGE,
    EVERYTHING,
    HOLD,
    LEADING_SPACE,
    MACROS,
    NO_CONNECT,
    NO_END_OF_HEADER,
    NO_UNKNOWN,
    QUIET,
    Mta,
    wire,
)

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 10.0


class Worker:
    """One worker process, and what its reader was given."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.path = folder / "milter.sock"
        self.read = folder / "read.jsonl"
        self.read.touch()
        self.errors = (folder / "worker.log").open("w+b")
        listener = options.pop("listener", "")
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'milter'}"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.path), str(self.read), json.dumps(options), listener],
            stdout=subprocess.PIPE, stderr=self.errors, env=environment,
            pass_fds=[int(listener)] if listener else [],
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n", self.log()

    def log(self) -> str:
        self.errors.seek(0)
        return self.errors.read().decode()

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.read.read_text().splitlines()]

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            assert self.process.stdout is not None
            self.process.kill()
            self.process.stdout.close()
            self.errors.close()


@contextlib.contextmanager
def serving(folder: Path, **options: str) -> Iterator[Worker]:
    folder.mkdir(exist_ok=True)
    worker = Worker(folder, **options)
    try:
        yield worker
    finally:
        worker.stop()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with serving(tmp_path_factory.mktemp("milter")) as running:
        yield running


@pytest.fixture
def mta(worker: Worker) -> Iterator[Mta]:
    connection = Mta(worker.path)
    connection.helo()
    yield connection
    connection.close()


def raw(message: dict[str, Any]) -> bytes:
    return base64.b64decode(message["raw"])


# -- what is negotiated ---------------------------------------------------------------------------------------


def test_postfix_is_asked_for_as_little_as_possible(mta: Mta) -> None:
    quiet = sum(QUIET.values())
    assert mta.steps == NO_CONNECT | NO_END_OF_HEADER | NO_UNKNOWN | LEADING_SPACE | quiet
    assert mta.actions == ADD | CHANGE | HOLD | MACROS
    assert mta.asked["mail"] == "i {daemon_name} {auth_authen} {client_addr} {client_name}"
    assert mta.asked["end of message"] == "i"


def test_an_mta_without_any_extension_is_served(worker: Worker) -> None:
    mta = Mta(worker.path, actions=ADD | CHANGE | HOLD, steps=0)
    peer = b"mx.far.example\0" + b"4" + struct.pack("!H", 2525) + b"203.0.113.77\0"
    assert mta.say(b"C", peer, {"daemon_name": "mx"}) == (b"c", b"")
    mta.helo()
    mta.mail(daemon_name="", client_addr="", client_name="")
    assert mta.recipient() == (b"c", b"")
    assert mta.data() == b"c"
    mta.header("Subject", b"no leading space")
    assert mta.body(b"x\r\n") == b"c"
    assert mta.end()[1] == (b"i", struct.pack("!I", 0) + b"X-Mailback-Kind\0bounce\0")
    mta.close()
    read = worker.messages()[-1]
    assert raw(read) == b"Subject: no leading space\r\n\r\nx\r\n"
    assert (read["client_address"], read["client_name"]) == ("203.0.113.77", "mx.far.example")


def test_outbound_by_daemon_name_told_only_at_connect(worker: Worker) -> None:
    mta = Mta(worker.path, actions=ADD | CHANGE | HOLD)
    assert mta.say(b"C", b"app\0U", {"daemon_name": "ORIGINATING"}) is None
    mta.helo()
    mta.mail(daemon_name="", client_addr="")
    assert mta.recipient("<dead@y.example>")[0] == b"y"
    mta.close()


# -- what the engine gets -------------------------------------------------------------------------------------


def test_bytes_reach_the_engine_as_they_stood_on_the_wire(worker: Worker, mta: Mta) -> None:
    mta.mail("<>")
    mta.recipient("<a@news.example>")
    mta.recipient("<b@news.example>")
    mta.data()
    mta.header("Received", b" from x\n\tby y;\n  now")
    mta.header("X-Tight", b"no space")
    mta.header("X-Wide", b"   three spaces  ")
    mta.header("Subject", b" caf\xe9 \xc3\xa9")
    mta.header("X-Empty", b"")
    mta.body(b"one\r\n.two\r\n\x00\xff")
    mta.body(b"three\r\n")
    assert mta.end(i="4B2")[-1] == (b"c", b"")
    read = worker.messages()[-1]
    assert raw(read) == (
        b"Received: from x\r\n\tby y;\r\n  now\r\nX-Tight:no space\r\nX-Wide:   three spaces  \r\n"
        b"Subject: caf\xe9 \xc3\xa9\r\nX-Empty:\r\n\r\none\r\n.two\r\n\x00\xffthree\r\n"
    )
    assert read["sender"] == ""
    assert read["recipients"] == ["a@news.example", "b@news.example"]
    assert (read["helo"], read["client_address"], read["queue_id"]) == ("mx.far.example", "203.0.113.9", "4B2")


def test_a_message_without_a_body_keeps_its_header(worker: Worker, mta: Mta) -> None:
    mta.mail()
    mta.recipient()
    mta.data()
    mta.header("Subject", b" empty")
    assert mta.end()[-1] == (b"c", b"")
    assert raw(worker.messages()[-1]) == b"Subject: empty\r\n\r\n"


def test_a_message_without_any_header_field_is_read(worker: Worker, mta: Mta) -> None:
    mta.mail()
    mta.recipient()
    mta.data()
    mta.body(b"text only\r\n")
    assert mta.end()[-1] == (b"c", b"")
    assert raw(worker.messages()[-1]) == b"\r\ntext only\r\n"


def test_addresses_that_are_not_utf8_can_be_stored(worker: Worker, mta: Mta) -> None:
    mta.say(b"M", b"<j\xf6e@far.example>\0", {"client_addr": "203.0.113.9"})
    mta.say(b"R", b"<\xff@news.example>\0")
    mta.data()
    mta.end()
    read = worker.messages()[-1]
    assert (read["sender"], read["recipients"]) == (r"j\xf6e@far.example", [r"\xff@news.example"])


def test_a_helo_that_is_not_utf8_refuses_nobody(worker: Worker) -> None:
    mta = Mta(worker.path)
    mta.helo(b"h\xf6st")
    assert mta.message()[-1] == (b"c", b"")
    mta.close()


def test_a_login_name_that_is_not_utf8_is_a_login(mta: Mta) -> None:
    mta.mail("<dead@y.example>", auth_authen="\udcff")
    assert mta.recipient("<dead@y.example>")[0] == b"y"


def test_two_messages_of_one_session_do_not_mix(worker: Worker, mta: Mta) -> None:
    mta.mail("<first@far.example>")
    mta.recipient("<first@news.example>")
    mta.data()
    mta.header("Subject", b" first")
    mta.abort()
    assert mta.message("<second@far.example>")[-1] == (b"c", b"")
    assert mta.message("<third@far.example>")[-1] == (b"c", b"")
    second, third = worker.messages()[-2:]
    assert (second["sender"], third["sender"]) == ("second@far.example", "third@far.example")
    assert third["recipients"] == ["news@news.example"]
    assert raw(second) == raw(third) == b"Subject: hello\r\n\r\nhello\r\n"


def test_past_the_limit_the_rest_is_not_kept(tmp_path: Path) -> None:
    with serving(tmp_path / "small", max_message_bytes="1024") as small:
        mta = Mta(small.path)
        mta.helo()
        mta.mail()
        mta.recipient()
        mta.data()
        mta.header("Subject", b" large")
        assert mta.body(b"x" * 1000) == b"c"
        assert mta.body(b"y" * 1000) == b"c"
        assert mta.end()[-1] == (b"c", b"")
        mta.close()
        assert len(raw(small.messages()[-1])) == 1024 + len(b"\r\n")
        assert "truncated" in small.log()


# -- what is changed ------------------------------------------------------------------------------------------


def test_forged_tags_go_and_ours_stand_on_top_in_order(mta: Mta) -> None:
    mta.mail()
    mta.recipient()
    mta.data()
    for name in ("X-Mailback-Kind", "Subject", "x-MAILBACK-kind", "X-Mailback-Anything", "X-Mailbacking"):
        mta.header(name, b" forged")
    *changes, answer = mta.end()
    assert answer == (b"c", b"")
    removed = [(data[:4], data[4:]) for command, data in changes if command == b"m"]
    kinds = [place for place, name in removed if name.lower() == b"x-mailback-kind\0\0"]
    assert kinds == [struct.pack("!I", 2), struct.pack("!I", 1)], "removing the first one renumbers the second"
    others = [packet for packet in removed if packet[1].lower() != b"x-mailback-kind\0\0"]
    assert others == [(struct.pack("!I", 1), b"X-Mailback-Anything\0\0")]
    # Each goes on top of the one before: the last inserted is the first to be read.
    assert [data for command, data in changes if command == b"i"] == [
        struct.pack("!I", 0) + b"X-Mailback-Id\0 01J\0",
        struct.pack("!I", 0) + b"X-Mailback-Kind\0 bounce\0",
    ]


def removed(changes: list[tuple[bytes, bytes]]) -> list[tuple[int, bytes]]:
    """Place and name of the fields that were taken out, in the order in which the MTA was told."""
    taken = [data for command, data in changes if command == b"m"]
    return [(int.from_bytes(data[:4], "big"), data[4:].partition(b"\0")[0]) for data in taken]


def test_authentication_results_under_our_name_go_and_those_of_others_keep_their_places(mta: Mta) -> None:
    mta.mail()
    mta.recipient()
    mta.data()
    mta.header("Authentication-Results", b" mx.far.example; dkim=pass")
    mta.header("authentication-results", b" (fooled\n you) MX.News.Example 1;\n\tdkim=pass header.d=bank.example")
    mta.header("X-Mailback-Kind", b" forged")
    mta.header("Authentication-Results-Original", b" mx.news.example; dkim=pass")
    mta.header("ARC-Authentication-Results", b" i=1; mx.news.example; dkim=pass")
    mta.header("Authentication-Results", b" mx.news.example.far.example; dkim=pass")
    mta.header("Authentication-Results", b' "mx.news.example"; none')
    *changes, answer = mta.end()
    assert answer == (b"c", b"")
    assert removed(changes) == [
        (4, b"Authentication-Results"), (1, b"X-Mailback-Kind"), (2, b"authentication-results"),
    ]  # fmt: skip


def test_authentication_results_under_our_name_do_not_pass_because_we_failed(tmp_path: Path) -> None:
    with serving(tmp_path / "w", failure_action="accept") as worker:
        mta = Mta(worker.path)
        mta.helo()
        mta.mail("<down@far.example>")
        mta.recipient()
        mta.data()
        mta.header("Authentication-Results", b" mx.far.example; dkim=pass")
        mta.header("Authentication-Results", b" mx.news.example; dkim=pass")
        *changes, answer = mta.end()
        mta.close()
    assert answer == (b"c", b"")
    assert removed(changes) == [(2, b"Authentication-Results")]


@pytest.mark.parametrize(
    ("wish", "answer"),
    [
        ("discard", (b"d", b"")),
        ("reject", (b"y", b"550 5.7.1 100\\x{25} sure\0")),
        ("tempfail", (b"y", b"451 4.7.1 100\\x{25} sure\0")),
        ("accept", (b"c", b"")),
    ],
)
def test_dispositions_of_the_engine(mta: Mta, wish: str, answer: tuple[bytes, bytes]) -> None:
    assert mta.message(f"<{wish}@far.example>")[-1] == answer


def test_quarantine_is_tagged_and_held(mta: Mta) -> None:
    *changes, answer = mta.message("<quarantine@far.example>")
    assert answer == (b"c", b"")
    assert [command for command, _ in changes] == [b"i", b"i", b"q"]


def test_an_mta_that_allows_no_change_still_gets_its_answer(worker: Worker) -> None:
    mta = Mta(worker.path, actions=MACROS)
    mta.helo()
    assert mta.message() == [(b"c", b"")]
    mta.close()
    assert "not_allowed" in worker.log()


# -- the way out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "macros",
    [
        pytest.param({"daemon_name": "ORIGINATING"}, id="daemon-name"),
        pytest.param({"auth_authen": "app"}, id="authenticated"),
        pytest.param({"client_addr": "127.0.0.1"}, id="local"),
    ],
)
def test_outbound_recipients_are_checked_and_the_message_is_not_sent(
    worker: Worker, mta: Mta, macros: dict[str, str]
) -> None:
    before = len(worker.messages())
    mta.mail("<news@news.example>", **macros)
    assert mta.recipient("<fine@y.example>") == (b"c", b"")
    assert mta.recipient("<dead@y.example>") == (b"y", b"550 5.7.1 <dead@y.example>: suppressed\0")
    assert mta.recipient("<fine2@y.example>") == (b"c", b"")
    assert mta.data() == b"a"
    assert len(worker.messages()) == before


def test_inbound_recipients_are_not_checked(mta: Mta) -> None:
    mta.mail("<joe@far.example>")
    assert mta.recipient("<dead@y.example>") == (b"c", b"")


def test_after_an_outbound_message_an_inbound_one_is_read(worker: Worker, mta: Mta) -> None:
    mta.mail("<news@news.example>", client_addr="127.0.0.1")
    mta.recipient("<fine@y.example>")
    assert mta.data() == b"a"
    mta.mail("<>", client_addr="127.0.0.1")
    mta.recipient("<news@news.example>")
    assert mta.data() == b"c"
    mta.header("Subject", b" back")
    assert mta.end()[-1] == (b"c", b"")
    assert worker.messages()[-1]["sender"] == ""


def test_sendmail_mail_to_a_suppressed_address_returns_to_its_sender(mta: Mta) -> None:
    mta.mail("app@news.example", i="4C3")
    assert mta.recipient("dead@y.example") == (b"c", b""), "refused here, pickup(8) would try for ever"
    assert mta.data() == b"c"
    assert mta.end() == [(b"y", b"550 5.7.1 <dead@y.example>: suppressed\0")]


def test_sendmail_mail_with_another_recipient_passes(worker: Worker, mta: Mta) -> None:
    mta.mail("app@news.example", i="4C4")
    assert mta.recipient("dead@y.example") == (b"c", b"")
    assert mta.recipient("fine@y.example") == (b"c", b"")
    assert mta.data() == b"c"
    assert mta.end() == [(b"c", b"")]
    assert "not_refused" in worker.log()


def test_sendmail_mail_to_nobody_suppressed_is_not_sent_to_us(mta: Mta) -> None:
    mta.mail("app@news.example", i="4C5")
    mta.recipient("fine@y.example")
    assert mta.data() == b"a"


def test_a_report_of_postfix_is_read(worker: Worker, mta: Mta) -> None:
    assert mta.message("", i="4D6")[-1] == (b"c", b"")
    assert worker.messages()[-1]["queue_id"] == "4A1"


# -- when something fails -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", ["boom", "down"])
@pytest.mark.parametrize(("action", "answer"), [("tempfail", b"y"), ("accept", b"c"), ("quarantine", b"c")])
def test_what_fails_at_the_end_gets_the_failure_action(tmp_path: Path, sender: str, action: str, answer: bytes) -> None:
    with serving(tmp_path / "w", failure_action=action) as worker:
        mta = Mta(worker.path)
        mta.helo()
        mta.mail(f"<{sender}@far.example>")
        mta.recipient()
        mta.data()
        mta.header("X-Mailback-Kind", b" forged")
        mta.body(b"x\r\n")
        *changes, (command, text) = mta.end()
        mta.close()
        assert command == answer
        said = [change for change, _ in changes]
        if action == "tempfail":
            assert text.startswith(b"451 4.3.0 ")
        else:
            assert said[0] == b"m", "a forged tag must not pass because we failed"
            assert said[1:] == ([b"q"] if action == "quarantine" else [])
        assert ("failed" if sender == "boom" else "store_unavailable") in worker.log()


@pytest.mark.parametrize("recipient", ["<boom@y.example>", "<down@y.example>"])
@pytest.mark.parametrize("action", ["tempfail", "accept", "quarantine"])
def test_what_fails_at_rcpt_gets_the_failure_action(tmp_path: Path, recipient: str, action: str) -> None:
    with serving(tmp_path / "w", failure_action=action) as worker:
        mta = Mta(worker.path)
        mta.helo()
        mta.mail("<news@news.example>", client_addr="127.0.0.1")
        command, text = mta.recipient(recipient)
        if action == "tempfail":
            assert (command, text[:10]) == (b"y", b"451 4.3.0 ")
        else:
            assert command == b"c"
            assert mta.data() == b"c"
            assert [said for said, _ in mta.end()] == ([b"q", b"c"] if action == "quarantine" else [b"c"])
        mta.close()


def test_sendmail_mail_waits_in_the_queue_when_the_store_is_down(mta: Mta) -> None:
    mta.mail("app@news.example", i="4E7")
    assert mta.recipient("down@y.example") == (b"c", b"")
    assert mta.data() == b"c"
    command, text = mta.end()[-1]
    assert (command, text[:10]) == (b"y", b"451 4.3.0 ")


def test_a_failure_is_over_with_its_message(mta: Mta) -> None:
    assert mta.message("<boom@far.example>")[-1][0] == b"y"
    assert mta.message("<joe@far.example>")[-1] == (b"c", b"")


# -- on the wire ----------------------------------------------------------------------------------------------


def test_packets_may_come_in_any_pieces(worker: Worker) -> None:
    mta = Mta(worker.path)
    conversation = (
        wire(b"H", b"mx.far.example\0") + wire(b"D", b"Mi\x00\x00{client_addr}\x00203.0.113.9\x00")
        + wire(b"M", b"<joe@far.example>\0") + wire(b"R", b"<news@news.example>\0") + wire(b"T")
        + wire(b"L", b"Subject\0 pieces\0") + wire(b"B", b"x\r\n") + wire(b"E")
    )  # fmt: skip
    for octet in conversation:
        mta.socket.sendall(bytes([octet]))
    said = [mta.receive()[0] for _ in range(5)]
    assert said == [b"c", b"c", b"i", b"i", b"c"]
    mta.close()
    assert raw(worker.messages()[-1]) == b"Subject: pieces\r\n\r\nx\r\n"


def test_what_follows_an_end_of_message_waits_for_its_commit(worker: Worker, mta: Mta) -> None:
    mta.mail("<slow@far.example>")
    mta.recipient()
    mta.data()
    mta.socket.sendall(
        wire(b"E") + wire(b"M", b"<next@far.example>\0") + wire(b"R", b"<n@news.example>\0") + wire(b"T") + wire(b"E")
    )
    said = [mta.receive()[0] for _ in range(8)]
    assert said == [b"i", b"i", b"c", b"c", b"c", b"i", b"i", b"c"]
    assert [message["sender"] for message in worker.messages()[-2:]] == ["slow@far.example", "next@far.example"]


def test_a_slow_commit_holds_up_nobody_else(worker: Worker, mta: Mta) -> None:
    mta.mail("<held@far.example>")
    mta.recipient()
    mta.data()
    mta.socket.sendall(wire(b"E"))
    other = Mta(worker.path)
    other.mail("<app@news.example>", client_addr="127.0.0.1")
    assert other.recipient("<dead@y.example>")[0] == b"y"
    other.close()
    worker.read.with_suffix(".release").touch()
    assert [mta.receive()[0] for _ in range(3)] == [b"i", b"i", b"c"]


def test_an_mta_that_hangs_up_while_we_commit_does_no_harm(tmp_path: Path) -> None:
    with serving(tmp_path / "w") as worker:
        mta = Mta(worker.path)
        mta.mail("<slow@far.example>")
        mta.recipient()
        mta.data()
        mta.socket.sendall(wire(b"E"))
        mta.close()
        deadline = time.monotonic() + DEADLINE_S
        while "recorded" not in worker.log():
            assert time.monotonic() < deadline, "what was read is committed all the same"
            time.sleep(0.01)
        worker.process.terminate()
        assert worker.process.wait(DEADLINE_S) == 0
        assert " error " not in worker.log()


def test_a_large_message_is_read_whole(worker: Worker, mta: Mta) -> None:
    mta.mail()
    mta.recipient()
    mta.data()
    mta.header("Subject", b" large")
    for _ in range(12):
        assert mta.body(b"z" * 65_533 + b"\r\n") == b"c"
    assert mta.end()[-1] == (b"c", b"")
    assert len(raw(worker.messages()[-1])) == len(b"Subject: large\r\n\r\n") + 12 * 65_535


def test_a_connection_that_is_kept_for_the_next_client_forgets_the_last(worker: Worker, mta: Mta) -> None:
    mta.mail("<joe@far.example>")
    mta.socket.sendall(wire(b"K"))
    mta.mail("<ann@far.example>", client_addr="", client_name="")
    mta.recipient()
    mta.data()
    assert mta.end()[-1] == (b"c", b"")
    read = worker.messages()[-1]
    assert (read["sender"], read["helo"], read["client_address"]) == ("ann@far.example", None, None)


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="http"),
        pytest.param(b"\0\0\0\0", id="no-length"),
        pytest.param(struct.pack("!I", 5) + b"Oabcd", id="short-opening"),
        pytest.param(struct.pack("!I", 1) + b"D", id="macros-of-nothing"),
    ],
)
def test_what_is_no_milter_protocol_is_cut_off(worker: Worker, noise: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(DEADLINE_S)
        peer.connect(str(worker.path))
        peer.sendall(noise + b"\0")
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
    assert "not_a_milter" in worker.log()


def test_an_mta_that_says_nothing_is_let_go(tmp_path: Path) -> None:
    with serving(tmp_path / "w", timeout_s="0.2") as worker:
        mta = Mta(worker.path)
        with pytest.raises((EOFError, ConnectionResetError)):
            mta.receive()
        mta.file.close()
        mta.socket.close()
        assert "silent_mta" in worker.log()


# -- starting and ending --------------------------------------------------------------------------------------


def test_an_idle_worker_ends(tmp_path: Path) -> None:
    with serving(tmp_path / "w") as worker:
        worker.process.terminate()
        assert worker.process.wait(DEADLINE_S) == 0


def test_a_draining_worker_ends_its_session_and_its_sibling_takes_the_next(tmp_path: Path) -> None:
    path = tmp_path / "shared.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(16)
        with serving(tmp_path / "old", listener=str(listener.fileno())) as old:
            mta = Mta(path)
            mta.helo()
            mta.mail()
            mta.recipient()
            with serving(tmp_path / "new", listener=str(listener.fileno())) as new:
                old.process.send_signal(signal.SIGTERM)
                deadline = time.monotonic() + DEADLINE_S
                while "draining" not in old.log():
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                for _ in range(5):
                    other = Mta(path)
                    other.helo()
                    assert other.message()[-1] == (b"c", b"")
                    other.close()
                assert mta.data() == b"c"
                mta.header("Subject", b" in time")
                assert mta.end()[-1] == (b"c", b"")
                assert old.process.poll() is None
                mta.close()
                assert old.process.wait(DEADLINE_S) == 0
                assert path.is_socket(), "the old worker took the socket away"
                assert len(new.messages()) >= 5
                assert raw(old.messages()[-1]) == b"Subject: in time\r\n\r\n"


def test_a_connection_that_says_nothing_is_closed_without_harm(worker: Worker) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(worker.path))
    mta = Mta(worker.path)
    mta.helo()
    assert mta.message()[-1] == (b"c", b"")
    mta.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_tcp_socket_is_served(tmp_path: Path, family: socket.AddressFamily) -> None:
    with socket.socket(family) as listener:
        try:
            listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        except OSError as error:
            pytest.skip(f"no loopback of {family.name} here: {error}")
        listener.listen(4)
        with (
            serving(tmp_path / "w", listener=str(listener.fileno())),
            socket.create_connection(listener.getsockname()[:2], DEADLINE_S) as peer,
        ):
            peer.sendall(struct.pack("!I", 13) + b"O" + struct.pack("!III", 6, 0x1FF, EVERYTHING))
            assert peer.recv(5)[4:] == b"O"


# -- the worker -----------------------------------------------------------------------------------------------


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


class Engine:
    """Assesses at once; commits in a thread."""

    def __init__(self, read: Path) -> None:
        self._read = read
        self._writer = ThreadPoolExecutor(1)

    def assess(self, envelope: Envelope, raw: bytes, since: float | None = None) -> tuple[Envelope, bytes]:
        return self.assess_at_once(envelope, raw)

    def assess_at_once(self, envelope: Envelope, raw: bytes) -> tuple[Envelope, bytes]:
        if envelope.sender.startswith("boom@"):
            raise RuntimeError("boom")
        return envelope, raw

    def commit(self, assessment: tuple[Envelope, bytes]) -> Future[Outcome]:
        return self._writer.submit(self._write, *assessment)

    def _write(self, envelope: Envelope, raw: bytes) -> Outcome:
        wish = envelope.sender.partition("@")[0]
        if wish == "down":
            raise StoreUnavailable("disk full", "free space")
        if wish == "slow":
            time.sleep(0.3)
        if wish == "held":
            wait_for(self._read.with_suffix(".release"))
        told = {
            "raw": base64.b64encode(raw).decode(),
            "sender": envelope.sender,
            "recipients": envelope.recipients,
            "helo": envelope.helo,
            "client_address": envelope.client_address,
            "client_name": envelope.client_name,
            "queue_id": envelope.queue_id,
        }
        with self._read.open("a") as file:
            file.write(json.dumps(told) + "\n")
        disposition = Disposition(wish) if wish in set(Disposition) else Disposition.TAG
        code, enhanced = {"reject": (550, "5.7.1"), "tempfail": (451, "4.7.1")}.get(wish, (250, "2.6.0"))
        tags = (("X-Mailback-Kind", "bounce"), ("X-Mailback-Id", "01J"))
        return Outcome(disposition, Kind.BOUNCE, True, code, enhanced, "100% sure", tags, ("x-mailback-",), "01J")


class Check:
    def answer(self, recipient: str, *, sender: str | None = None, **scope: str | None) -> Answer:
        wish = recipient.partition("@")[0]
        if wish == "boom":
            raise RuntimeError("boom")
        if wish == "down":
            raise StoreUnavailable("disk full", "free space")
        return ALLOWED if wish != "dead" else Answer(False, 550, "5.7.1", f"<{recipient}>: suppressed")


def main(path: str, read: str, options: dict[str, str], listener: str) -> None:
    """Serve like `MilterPart.run` does, with an engine and a check that do what the addresses say."""
    if listener:
        listening = socket.socket(fileno=os.dup(int(listener)))
    else:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen(64)
    rules = Rules(
        check=Check(),
        directions=DirectionRules.of(["ORIGINATING"], ["news.example"], None),
        failure_action=options.get("failure_action", "tempfail"),
        max_message_bytes=int(options.get("max_message_bytes", "1000000")),
        authserv_id="mx.news.example",
    )
    timeout_s = float(options.get("timeout_s", "30"))

    def ready() -> None:
        print("ready", flush=True)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve([listening], rules, Engine(Path(read)), ready, timeout_s=timeout_s, drain_timeout_s=3))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4])

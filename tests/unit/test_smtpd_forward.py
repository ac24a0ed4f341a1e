"""Handing mail on to a next hop by SMTP and LMTP: what it is told, and what our peer is told of its answers."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mailback_smtpd import forward
from mailback_smtpd.destination import Discard, destination
from mailback_smtpd.forward import Forwarder, NextHop
from mailback_smtpd.maildir import Maildir
from mailback_smtpd.outgoing import Outgoing
from mailback_smtpd.reply import Reply, combined
from tests.support.receiver import LoopThread, receiving

ALL = ("PIPELINING", "SIZE 1000000", "8BITMIME", "SMTPUTF8")


class Script:
    """What a next hop answers, and what it heard."""

    def __init__(
        self, answers: dict[str, Any] | None = None, *, lmtp: bool = False, extensions: tuple[str, ...] = ALL
    ) -> None:
        self.lmtp = lmtp
        self.extensions = extensions
        self.answers: dict[str, str | list[str]] = answers or {}
        """By verb in lower case, `greeting` and `content`; a list is used up one by one; "" hangs up."""
        self.commands: list[str] = []
        self.messages: list[bytes] = []
        self.connections = 0

    def answer(self, what: str, otherwise: str) -> str:
        given = self.answers.get(what, otherwise)
        if isinstance(given, list):
            return given.pop(0) if given else otherwise
        return given


class Conversation(socketserver.StreamRequestHandler):
    """One connection to a scripted next hop."""

    def handle(self) -> None:
        script: Script = self.server.script  # type: ignore[attr-defined]
        script.connections += 1
        if not self.tell(script.answer("greeting", "220 next.test")):
            return
        accepted = 0
        while line := self.rfile.readline():
            command = line.decode().rstrip("\r\n")
            script.commands.append(command)
            verb = command.partition(" ")[0].lower()
            if verb in {"ehlo", "lhlo"}:
                offered = "".join(f"250-{name}\r\n" for name in ("next.test", *script.extensions))
                said = script.answer(verb, f"{offered}250 HELP")
            else:
                said = script.answer(verb, "354 go on" if verb == "data" else "250 2.0.0 ok")
            if verb == "mail":
                accepted = 0
            if verb == "rcpt" and said.startswith("250"):
                accepted += 1
            if not self.tell(said):
                return
            if verb == "data" and said.startswith("354") and not self.content(script, accepted):
                return
            if verb == "quit":
                return

    def content(self, script: Script, accepted: int) -> bool:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line:
                return False
            lines.append(line)
        script.messages.append(b"".join(lines))
        told = [self.tell(script.answer("content", "250 2.0.0 kept")) for _ in range(accepted if script.lmtp else 1)]
        return all(told)

    def tell(self, said: str) -> bool:
        if not said:
            return False
        try:
            self.wfile.write(said.encode("latin-1") + b"\r\n")
        except OSError:
            return False
        return True


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what some tests are about."""


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def next_hop() -> Iterator[Callable[[Script], str]]:
    """Starts scripted next hops; gives their HOST:PORT."""
    servers = []

    def start(script: Script) -> str:
        server = Server(("127.0.0.1", 0), Conversation)
        server.script = script  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def message(
    *recipients: str, sender: str = "", content: bytes = b"A: b\r\n\r\nhello\r\n", utf8: bool = False
) -> Outgoing:
    return Outgoing(sender, recipients or ("a@b.test",), content, "01ID", utf8=utf8)


def deliver(loop: LoopThread, script: Script, place: str, *messages: Outgoing) -> list[list[Reply]]:
    """Through one forwarder, which is closed at the end."""

    async def work() -> list[list[Reply]]:
        forwarder = destination(f"{'lmtp' if script.lmtp else 'smtp'}:{place}", "mx.sender.test")
        try:
            return [await forwarder.deliver(each) for each in messages]
        finally:
            await forwarder.close()

    return loop.run(work())


Start = Callable[[Script], str]


def test_the_null_sender_stays_null_and_what_is_offered_is_used(loop: LoopThread, next_hop: Start) -> None:
    script = Script()
    content = b"A: b\r\n\r\n.dot\r\n..\r\n.\r\n\xff\r\n"
    ((told,),) = deliver(loop, script, next_hop(script), message(content=content))
    assert told.accepted
    assert script.commands[:4] == [
        "EHLO mx.sender.test",
        f"MAIL FROM:<> SIZE={len(content)} BODY=8BITMIME",
        "RCPT TO:<a@b.test>",
        "DATA",
    ]
    assert script.messages == [content.replace(b"\r\n.", b"\r\n..")]


def test_nothing_is_used_that_was_not_offered(loop: LoopThread, next_hop: Start) -> None:
    script = Script(extensions=())
    deliver(loop, script, next_hop(script), message(sender="x@y.test", content=b"A: \xff\r\n\r\n"))
    assert script.commands[1] == "MAIL FROM:<x@y.test>"


def test_a_server_that_knows_no_ehlo_is_greeted_the_old_way(loop: LoopThread, next_hop: Start) -> None:
    script = Script({"ehlo": "500 what?"})
    ((told,),) = deliver(loop, script, next_hop(script), message())
    assert told.accepted
    assert script.commands[1] == "HELO mx.sender.test"


@pytest.mark.parametrize(
    ("outgoing", "parameter"),
    [
        (message("josé@b.test", utf8=True), " SMTPUTF8"),
        (message(content="A: é\r\n\r\n".encode(), utf8=True), " SMTPUTF8"),
        (message(utf8=True), ""),
    ],
)
def test_internationalised_mail_says_so_only_where_it_must(
    loop: LoopThread, next_hop: Start, outgoing: Outgoing, parameter: str
) -> None:
    script = Script()
    ((told,),) = deliver(loop, script, next_hop(script), outgoing)
    assert told.accepted
    assert ("SMTPUTF8" in script.commands[1]) is bool(parameter)


def test_internationalised_mail_is_not_forced_on_a_server_that_lacks_it(loop: LoopThread, next_hop: Start) -> None:
    script = Script(extensions=("8BITMIME",))
    ((told,), (plain,)) = deliver(loop, script, next_hop(script), message("josé@b.test", utf8=True), message())
    assert (told.code, told.enhanced) == (550, "5.6.7")
    assert plain.accepted


@pytest.mark.parametrize("extensions", [ALL, ()])
@pytest.mark.parametrize(
    ("answers", "code", "enhanced"),
    [
        ({"mail": "450 4.7.1 later"}, 451, "4.7.1"),
        ({"mail": "550 5.1.8 bad sender"}, 550, "5.1.8"),
        ({"rcpt": "450 4.2.1 greylisted"}, 451, "4.2.1"),
        ({"rcpt": "550 5.1.1 no such user"}, 550, "5.1.1"),
        ({"rcpt": "511 strange"}, 554, "5.0.0"),
        ({"rcpt": "421 4.3.2 closing"}, 451, "4.3.2"),
        ({"data": "451 4.3.0 not now"}, 451, "4.3.0"),
        ({"data": "554 5.7.1 no"}, 554, "5.7.1"),
        ({"data": "250 what"}, 451, "4.5.0"),
        ({"content": "452 4.3.1 disk full"}, 451, "4.3.1"),
        ({"content": "554 5.6.0 bad content"}, 554, "5.6.0"),
        ({"content": "550 4.0.0 contradicts itself"}, 550, "5.0.0"),
        ({"content": "550-5.7.1 first\r\n550 5.7.1 second"}, 550, "5.7.1"),
        ({"greeting": "554 go away"}, 451, "4.5.0"),
        ({"greeting": "421 busy"}, 451, "4.5.0"),
        ({"greeting": "HTTP/1.1 400 Bad Request"}, 451, "4.5.0"),
        ({"greeting": "220 " + "x" * 5000}, 451, "4.5.0"),
        ({"greeting": "\r\n".join(["220-x"] * 200)}, 451, "4.5.0"),
        ({"greeting": ""}, 451, "4.4.1"),
        ({"ehlo": "421 no", "helo": "421 no"}, 451, "4.5.0"),
        ({"mail": ""}, 451, "4.4.1"),
        ({"data": ""}, 451, "4.4.1"),
        ({"content": ""}, 451, "4.4.1"),
    ],
)
def test_what_a_next_hop_says_is_what_the_peer_is_told(
    loop: LoopThread,
    next_hop: Start,
    extensions: tuple[str, ...],
    answers: dict[str, str],
    code: int,
    enhanced: str,
) -> None:
    script = Script(answers, extensions=extensions)
    ((told,),) = deliver(loop, script, next_hop(script), message())
    assert (told.code, told.enhanced) == (code, enhanced)


def test_the_words_of_a_next_hop_cannot_write_into_our_reply(loop: LoopThread, next_hop: Start) -> None:
    script = Script({"rcpt": "550 5.1.1 \x1b[31m\xe9 " + "x" * 2000})
    ((told,),) = deliver(loop, script, next_hop(script), message())
    assert told.line.isascii()
    assert told.line.decode().isprintable()
    assert len(told.line) < 510


def test_a_refused_recipient_does_not_cost_the_others_their_mail(loop: LoopThread, next_hop: Start) -> None:
    script = Script({"rcpt": ["250 ok", "550 5.1.1 unknown", "450 4.2.1 later", "250 ok"]})
    (told,) = deliver(loop, script, next_hop(script), message("a@b.test", "b@b.test", "c@b.test", "d@b.test"))
    assert [reply.code for reply in told] == [250, 550, 451, 250]
    assert len(script.messages) == 1


def test_lmtp_answers_stay_with_their_recipients(loop: LoopThread, next_hop: Start) -> None:
    script = Script(
        {
            "rcpt": ["250 ok", "550 5.1.1 unknown", "250 ok", "250 ok"],
            "content": ["250 2.0.0 kept", "452 4.2.2 full", "552 5.2.2 over quota"],
        },
        lmtp=True,
    )
    (told,) = deliver(loop, script, next_hop(script), message("a@b.test", "b@b.test", "c@b.test", "d@b.test"))
    assert script.commands[0] == "LHLO mx.sender.test"
    assert [(reply.code, reply.enhanced) for reply in told] == [
        (250, "2.0.0"),
        (550, "5.1.1"),
        (451, "4.2.2"),
        (552, "5.2.2"),
    ]


def test_the_one_answer_of_smtp_never_loses_a_recipient() -> None:
    kept, later, never = Reply(250, "2.0.0", ""), Reply(451, "4.0.0", ""), Reply(550, "5.0.0", "")
    assert combined([kept, kept]) is kept
    assert combined([kept, never, later]) is later
    assert combined([kept, never, kept]) is never


def test_a_connection_serves_several_messages(loop: LoopThread, next_hop: Start) -> None:
    script = Script()
    told = deliver(loop, script, next_hop(script), message(), message(), message())
    assert [reply.code for (reply,) in told] == [250, 250, 250]
    assert script.connections == 1
    assert script.commands[-1] == "QUIT"


def test_a_connection_that_a_refusal_left_in_doubt_is_not_used_again(loop: LoopThread, next_hop: Start) -> None:
    script = Script({"rcpt": ["550 5.1.1 unknown"]})
    told = deliver(loop, script, next_hop(script), message(), message())
    assert [reply.code for (reply,) in told] == [550, 250]
    assert script.connections == 2


def test_a_kept_connection_that_died_is_replaced_without_a_word(loop: LoopThread, next_hop: Start) -> None:
    script = Script({"mail": ["250 ok", "", "250 ok"]})
    told = deliver(loop, script, next_hop(script), message(), message())
    assert [reply.code for (reply,) in told] == [250, 250]
    assert script.connections == 2


def test_a_message_that_may_have_arrived_is_left_to_the_peer(loop: LoopThread, next_hop: Start) -> None:
    """After the end of data a lost connection proves nothing; sending again at once would double it for sure."""
    script = Script({"content": ["250 kept", ""]})
    told = deliver(loop, script, next_hop(script), message(), message())
    assert [reply.code for (reply,) in told] == [250, 451]
    assert len(script.messages) == 2


def test_a_next_hop_that_is_not_there_is_a_temporary_failure(loop: LoopThread, tmp_path: Path) -> None:
    for route in ("smtp:127.0.0.1:1", "lmtp:127.0.0.1:1", f"lmtp:unix:{tmp_path}/none.sock", "smtp:host.invalid:25"):

        async def work(route: str = route) -> list[Reply]:
            return await destination(route, "mx.test").deliver(message("a@b.test", "c@d.test"))

        told = loop.run(work())
        assert [(reply.code, reply.enhanced) for reply in told] == [(451, "4.4.1")] * 2


def test_a_next_hop_that_falls_silent_is_given_up(
    loop: LoopThread, next_hop: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    class Silent(Script):
        def answer(self, what: str, otherwise: str) -> str:
            if what == "content":
                release.wait(20)
            return super().answer(what, otherwise)

    script = Silent()
    monkeypatch.setattr(forward, "TOTAL_S", 0.3)
    ((told,),) = deliver(loop, script, next_hop(script), message())
    release.set()
    assert (told.code, told.enhanced) == (451, "4.4.2")


def test_many_messages_share_a_bounded_number_of_connections(
    loop: LoopThread, next_hop: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    monkeypatch.setattr(forward, "MAX_CONNECTIONS", 3)
    script = Script()
    host, _, port = next_hop(script).rpartition(":")

    async def work() -> list[list[Reply]]:
        forwarder = Forwarder(NextHop(lmtp=False, host=host, port=int(port)), "mx.test")
        told = await asyncio.gather(*(forwarder.deliver(message()) for _ in range(30)))
        await forwarder.close()
        return told

    assert all(reply.accepted for (reply,) in loop.run(work()))
    assert len(script.messages) == 30
    assert script.connections <= 3


def test_every_route_of_the_settings_leads_somewhere(tmp_path: Path) -> None:
    async def kinds() -> list[type]:
        routes = ("discard", f"maildir:{tmp_path}", "smtp:[::1]:25", "lmtp:host.test:24", "lmtp:unix:/run/x.sock")
        return [type(destination(route, "mx.test")) for route in routes]

    thread = LoopThread()
    found = thread.run(kinds())
    thread.close()
    assert found == [Discard, Maildir, Forwarder, Forwarder, Forwarder]


@pytest.mark.parametrize("route", ["", "maildir:", "smtp:host", "ftp:host:1", "smtp::25", "lmtp:unix"])
def test_what_is_no_route_is_an_error(route: str) -> None:
    with pytest.raises(ValueError, match="no place"):
        destination(route, "mx.test")


# Through the whole receiver ---------------------------------------------------------------------------------


def test_over_smtp_one_put_off_recipient_puts_off_the_message(next_hop: Start, tmp_path: Path) -> None:
    script = Script({"rcpt": ["250 ok", "450 4.2.2 mailbox is full"]})
    with receiving(tmp_path, f'next_hop = "smtp:{next_hop(script)}"') as receiver:
        (told,) = receiver.connect().message(b"A: b\r\n\r\nx\r\n", "a@b.test", ("a@sender.test", "b@sender.test"))
    assert told == "451 4.2.2 the next hop said: mailbox is full"


def test_over_lmtp_each_recipient_hears_its_own(next_hop: Start, tmp_path: Path) -> None:
    script = Script({"rcpt": ["250 ok", "550 5.1.1 unknown", "450 4.2.2 full"]})
    with receiving(tmp_path, f'next_hop = "smtp:{next_hop(script)}"', lmtp=True) as receiver:
        client = receiver.connect()
        recipients = tuple(f"{name}@sender.test" for name in "abc")
        told = [*client.message(b"A: b\r\n\r\nx\r\n", "a@b.test", recipients), client.reply(), client.reply()]
    assert [line[:9] for line in told] == ["250 2.6.0", "550 5.1.1", "451 4.2.2"]


def test_octets_that_smuggle_are_harmless_at_the_next_hop(next_hop: Start, tmp_path: Path) -> None:
    script = Script()
    with receiving(tmp_path, f'next_hop = "smtp:{next_hop(script)}"') as receiver:
        client = receiver.connect()
        for command in ("MAIL FROM:<a@b.test>", "RCPT TO:<c@sender.test>", "DATA"):
            client.say(command)
        client.send(b"A: b\r\n\r\nx\n.\nMAIL FROM:<evil@b.test>\r.\r\nend\r\n.\r\n")
        assert client.reply().startswith("250")
    (sent,) = script.messages
    assert b"x\r\n..\r\nMAIL FROM:<evil@b.test>\r\n..\r\nend\r\n" in sent
    assert b"Return-Path" not in sent
    assert sent.count(b"X-Mailback-Id:") == 1

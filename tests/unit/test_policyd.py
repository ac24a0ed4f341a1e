"""The policy service over a real socket: what Postfix sends, and what it never would."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from mailback.outbound import connection
from mailback.outbound.check import Check
from mailback.outbound.connection import Connections
from mailback.outbound.policyd import REQUEST_MAX, PolicyConnection, read_attributes
from mailback.store.errors import StoreUnavailable
from mailback.store.records import Suppression

DUNNO = b"action=DUNNO\n\n"
REFUSED = (
    b"action=550 5.7.1 <ann@example.com>: suppressed since 2026-01-31, hard_bounce/user_unknown "
    b"(mailback explain ann@example.com)\n\n"
)


class Listed:
    """ann is suppressed everywhere, bob for marketing; reading fails while `down` is set."""

    down: Exception | None = None

    def lookup(self, key: str, scopes: Sequence[str] = ("all",), now: datetime | None = None) -> Suppression | None:
        if self.down is not None:
            raise self.down
        scope = {"ann@example.com": "all", "bob@example.com": "stream:marketing"}.get(key)
        if scope is None or scope not in scopes:
            return None
        return Suppression(
            key, key, scope, "", "hard_bounce", "user_unknown", "event", datetime(2026, 1, 31, tzinfo=UTC), None
        )


class Front:
    """A policy server on a free port, with what it complained of."""

    def __init__(self) -> None:
        self.listed = Listed()
        self.connections = Connections()
        self.troubles: list[Exception] = []
        self.port = 0

    def connection(self) -> PolicyConnection:
        return PolicyConnection(Check(self.listed), lambda _, error: self.troubles.append(error), self.connections)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.get_running_loop().create_server(self.connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            await self.connections.drain(0.1)

    async def ask(self, *chunks: bytes) -> bytes:
        """Send the chunks, each in a packet of its own, say no more, and read all answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()
        answers = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answers

    async def begun(self) -> None:
        """Wait until a request stands half received."""
        for _ in range(1000):
            if any(connection._buffer for connection in self.connections._open):
                return
            await asyncio.sleep(0.005)
        raise AssertionError("no request has begun")


def served(work: Callable[[Front], Awaitable[None]]) -> Front:
    front = Front()

    async def main() -> None:
        async with front.listening():
            await work(front)

    asyncio.run(main())
    return front


def request(recipient: str = "ann@example.com", state: str = "RCPT", sender: str = "news@ours.example",
            **more: str) -> bytes:  # fmt: skip
    """A request as Postfix 3.7 sends it."""
    attributes = {
        "request": "smtpd_access_policy", "protocol_state": state, "protocol_name": "ESMTP", "helo_name": "client",
        "queue_id": "", "sender": sender, "recipient": recipient, "recipient_count": "0",
        "client_address": "127.0.0.1", "client_name": "localhost", "reverse_client_name": "localhost",
        "instance": "123.456.7", "sasl_method": "plain", "sasl_username": "you", "size": "12345",
        "ccert_subject": "", "encryption_protocol": "TLSv1.3", "stress": "", "policy_context": "",
    } | more  # fmt: skip
    return "".join(f"{name}={value}\n" for name, value in attributes.items()).encode() + b"\n"


def test_suppressed_recipient_is_refused_others_are_left_to_postfix() -> None:
    async def work(front: Front) -> None:
        assert await front.ask(request()) == REFUSED
        assert await front.ask(request("carol@example.com")) == DUNNO

    served(work)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def work(front: Front) -> None:
        asked = [request("carol@example.com"), request(), request("dave@example.com")] * 200
        assert await front.ask(b"".join(asked)) == (DUNNO + REFUSED + DUNNO) * 200

    served(work)


def test_request_that_arrives_octet_by_octet_is_one_request() -> None:
    async def work(front: Front) -> None:
        assert await front.ask(*(bytes([octet]) for octet in request())) == REFUSED

    served(work)


@pytest.mark.parametrize("state", ["CONNECT", "EHLO", "MAIL", "DATA", "END-OF-MESSAGE", "VRFY", "", "rcpt"])
def test_states_other_than_rcpt_are_not_ours(state: str) -> None:
    async def work(front: Front) -> None:
        assert await front.ask(request(state=state)) == DUNNO

    served(work)


def test_null_sender_passes() -> None:
    async def work(front: Front) -> None:
        assert await front.ask(request(sender="")) == DUNNO

    served(work)


def test_request_without_a_sender_is_not_taken_for_the_null_sender() -> None:
    async def work(front: Front) -> None:
        assert await front.ask(b"protocol_state=RCPT\nrecipient=ann@example.com\n\n") == REFUSED

    served(work)


def test_policy_context_names_the_stream() -> None:
    async def work(front: Front) -> None:
        bob = "bob@example.com"
        assert await front.ask(request(bob)) == DUNNO
        assert await front.ask(request(bob, policy_context="stream:transactional")) == DUNNO
        assert (await front.ask(request(bob, policy_context="stream:marketing"))).startswith(b"action=550 5.7.1 ")
        assert await front.ask(request(bob, policy_context="sender:marketing")) == DUNNO
        assert await front.ask(request(bob, policy_context="stream:")) == DUNNO

    served(work)


def test_garbage_is_answered_dunno_and_does_no_harm_to_the_next_request() -> None:
    async def work(front: Front) -> None:
        garbage = b"\x00\xff\xfe=\x80\nno equals sign\n=\n====\n\n"
        assert await front.ask(garbage + request()) == DUNNO + REFUSED
        assert await front.ask(b"\n\n" + request()) == DUNNO + REFUSED

    served(work)


def test_lines_may_end_with_crlf_even_split_between_packets() -> None:
    async def work(front: Front) -> None:
        crlf = request().replace(b"\n", b"\r\n")
        assert await front.ask(crlf) == REFUSED
        assert await front.ask(crlf[:-3], crlf[-3:-1], crlf[-1:]) == REFUSED

    served(work)


def test_address_cannot_write_an_action_of_its_own() -> None:
    async def work(front: Front) -> None:
        answer = await front.ask(request('"a\taction=OK"@example.com'))
        assert answer == DUNNO
        assert await front.ask(request("ann@example.com\nrecipient=x@y.example")) == REFUSED

    served(work)


def test_request_without_end_is_cut_off_before_it_fills_memory() -> None:
    async def work(front: Front) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(request())
        sent = 0
        while sent < 100 * REQUEST_MAX and not reader.at_eof():
            try:
                writer.write(b"a=" + b"b" * 8190 + b"\n")
                await writer.drain()
            except ConnectionError:
                break
            sent += 8193
        assert sent < 100 * REQUEST_MAX
        writer.close()

    served(work)


def test_unfinished_request_at_end_of_connection_gets_no_answer() -> None:
    async def work(front: Front) -> None:
        assert await front.ask(request()[:-1]) == b""

    served(work)


def test_mail_flows_when_the_store_cannot_be_read_and_the_operator_hears_of_it() -> None:
    async def work(front: Front) -> None:
        front.listed.down = StoreUnavailable("disk on fire", "call somebody")
        assert await front.ask(request()) == DUNNO
        front.listed.down = ValueError("a mistake of ours")
        assert await front.ask(request()) == DUNNO
        front.listed.down = None
        assert await front.ask(request()) == REFUSED

    front = served(work)
    assert [type(error) for error in front.troubles] == [StoreUnavailable, ValueError]


def test_draining_answers_what_has_arrived_and_waits_for_what_has_begun() -> None:
    async def work(front: Front) -> None:
        idle_reader, idle = await asyncio.open_connection("127.0.0.1", front.port)
        busy_reader, busy = await asyncio.open_connection("127.0.0.1", front.port)
        for reader, writer in ((idle_reader, idle), (busy_reader, busy)):
            writer.write(request())
            assert await reader.readexactly(len(REFUSED)) == REFUSED
        busy.write(request()[:50])
        await busy.drain()
        await front.begun()
        draining = asyncio.create_task(front.connections.drain(5))
        assert await idle_reader.read() == b""
        busy.write(request()[50:])
        assert await busy_reader.read() == REFUSED
        assert await draining == 0
        idle.close()
        busy.close()

    served(work)


def test_draining_cuts_a_peer_that_never_ends_its_question() -> None:
    async def work(front: Front) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"request=")
        await front.begun()
        assert await front.connections.drain(0.05) == 1
        assert await reader.read() == b""
        writer.close()

    served(work)


def test_peer_that_asks_without_reading_is_made_to_wait() -> None:
    async def work(front: Front) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        transport = writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        asked = 0
        burst = request() * 500
        while transport.get_write_buffer_size() < 4 * len(burst):  # until the kernel's buffers are full both ways
            writer.write(burst)
            asked += 500
            await asyncio.sleep(0.005)
            assert asked < 200_000
        transport.resume_reading()
        writer.write_eof()
        total = 0
        while data := await reader.read(1 << 16):
            total += len(data)
        assert total == asked * len(REFUSED)
        writer.close()

    served(work)


def test_connection_beyond_the_limit_is_closed_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS_MAX", 1)

    async def work(front: Front) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(request())
        assert await reader.readexactly(len(REFUSED)) == REFUSED
        assert await front.ask() == b""
        writer.write(request())
        assert await reader.readexactly(len(REFUSED)) == REFUSED
        writer.close()

    served(work)


def test_first_of_two_equal_attributes_counts() -> None:
    assert read_attributes(b"a=1\na=2\nb\nc=d=e") == {b"a": b"1", b"c": b"d=e"}

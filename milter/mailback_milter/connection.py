"""A session on its socket: packets in, answers out, on the event loop of a worker.

What a message needs in computation is done on the loop, as it takes a fraction of a millisecond; a large one is read in
a thread, and one for which DNS has to be asked waits in a thread. While its events are committed, other connections go
on. Nothing that an MTA sends makes a connection hold
more than one packet beyond what the session keeps of its message.

Log events (of the part `milter`):

    not_a_milter    What came in on the milter's socket is not the milter protocol (`problem`); the connection was
                    closed. Look for what else connects there.
    silent_mta      An MTA said nothing for `milter.timeout_s`; its connection was closed. Nothing to do.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Protocol, TypeVar

from mailback.engine import Outcome
from mailback.service.assessing import Assessor, Desk
from mailback.service.log import get_logger
from mailback.store.waiting import committed
from mailback_milter import protocol
from mailback_milter.protocol import Command
from mailback_milter.session import Reading, Rules, Sending, Session

log = get_logger("milter")

A = TypeVar("A")


class Walk(Assessor[A], Protocol[A]):
    """The two halves of `mailback.engine.Engine.inbound`; A is its Assessment."""

    def commit(self, assessment: A) -> Future[Outcome]: ...


class Connections:
    """The connections of a worker that are open."""

    def __init__(self) -> None:
        self._open: set[object] = set()
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: object) -> None:
        self._open.add(connection)
        self._none.clear()

    def discard(self, connection: object) -> None:
        self._open.discard(connection)
        if not self._open:
            self._none.set()

    async def ended(self) -> None:
        """Returns once none is open."""
        await self._none.wait()


class Connection(asyncio.Protocol):
    """One connection from the MTA."""

    def __init__(
        self, rules: Rules, engine: Walk[A], desk: Desk[A], connections: Connections, timeout_s: float
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._session = Session(rules)
        self._outgoing = rules.outgoing
        self._engine = engine
        self._desk = desk
        self._connections = connections
        self._timeout_s = timeout_s
        self._buffer = b""
        self._reading: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is none by inheritance
        self._connections.add(self)
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(self._timeout_s, self._check_silence)

    def connection_lost(self, _: Exception | None) -> None:
        self._timer.cancel()
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._buffer = self._buffer + data if self._buffer else data
        if self._reading is None:
            self._consume()
        elif len(self._buffer) > protocol.PACKET_MAX:
            self._transport.pause_reading()

    def _consume(self) -> None:
        """Take the packets that are complete, up to one whose answer has to be waited for."""
        used, answers = 0, []
        try:
            for command, data, end in protocol.packets(self._buffer):
                used = end
                if command == Command.QUIT:
                    self._transport.close()
                    break
                answer = self._session.take(command, data)
                if not isinstance(answer, bytes):
                    self._reading = self._loop.create_task(self._end(answer))
                    break
                answers.append(answer)
        except protocol.ProtocolError as error:
            log.warning("not_a_milter", problem=str(error))
            self._transport.abort()
            return
        self._buffer = self._buffer[used:]
        if said := b"".join(answers):
            self._transport.write(said)

    async def _end(self, ending: Reading | Sending) -> None:
        """Answer the end of a message, and go on with what has come since."""
        try:
            if isinstance(ending, Reading):
                answer = self._session.recorded(await self._inbound(ending))
            else:
                answer = self._session.sent(await self._remembered(ending))
        except Exception as error:
            answer = self._session.failed(Command.END_OF_MESSAGE, error)
        self._reading = None
        if self._transport.is_closing():
            return
        self._transport.write(answer)
        self._transport.resume_reading()
        self._consume()

    async def _remembered(self, sending: Sending) -> str | None:
        """The return path of a message that goes out, once the journal's entry is committed."""
        assert self._outgoing is not None
        await committed(self._outgoing.remember(sending.entry))
        return sending.return_path

    async def _inbound(self, reading: Reading) -> Outcome:
        assessment = await self._desk.assess(*reading)
        return await committed(self._engine.commit(assessment))

    def _check_silence(self) -> None:
        left = self._heard + self._timeout_s - self._loop.time()
        if left <= 0 and self._reading is None:
            log.info("silent_mta", timeout_s=self._timeout_s)
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(max(left, 1.0), self._check_silence)

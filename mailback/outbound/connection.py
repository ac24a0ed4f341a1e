"""What the policy server and the socketmap server share: one connection of a Postfix process, and its limits.

Both protocols are questions and answers over a long-lived stream, so the whole of a front is `consume`: answer what is
complete in the buffer. Look-ups are made right there on the event loop: at 20 µs each, handing them to a thread would
cost more than they do.

Postfix opens a connection anew and asks again when its server closes one between two questions, so draining is:
answer what has arrived, then close.

Log events: see `mailback.outbound.part`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final, cast

from mailback.service.log import get_logger

CONNECTIONS_MAX: Final = 4000
"""Of one worker. Postfix opens one from each smtpd process, and default_process_limit is 100."""

Trouble = Callable[[str, Exception], None]
"""Told which front could not answer, and why."""

_log = get_logger("policyd")


class Connections:
    """The open connections of a worker."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._none = asyncio.Event()

    def add(self, connection: Connection) -> bool:
        """Whether there was room for it."""
        if len(self._open) >= CONNECTIONS_MAX:
            return False
        self._open.add(connection)
        return True

    def discard(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._none.set()

    async def drain(self, timeout_s: float) -> int:
        """Answer what has arrived, then close; how many had to be cut inside a question."""
        for connection in list(self._open):
            connection.leave()
        with contextlib.suppress(TimeoutError):
            if self._open:
                self._none.clear()
                await asyncio.wait_for(self._none.wait(), timeout_s)
        left = list(self._open)
        for connection in left:
            connection.abort()
        return len(left)


class Connection(asyncio.Protocol, ABC):
    """One connection; a front says in `consume` what it understands."""

    front: ClassVar[str]

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._buffer = b""
        self._leaving = False
        self._transport: asyncio.Transport | None = None

    @abstractmethod
    def consume(self, buffer: bytes) -> int:
        """Answer every complete question in `buffer`; the number of octets used."""

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def cut_off(self, reason: str) -> None:
        """Close a connection whose peer does not speak the protocol; what was sent before still goes out."""
        _log.warning("policyd.cut_off", front=self.front, reason=reason)
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        self._buffer = b""

    def abort(self) -> None:
        """Close without waiting for the peer to read its answers."""
        if self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        """Close as soon as no question stands half received."""
        self._leaving = True
        if not self._buffer:
            self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not of asyncio's classes
        if not self._connections.add(self):
            self.cut_off(f"{CONNECTIONS_MAX} connections are open")
            return
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family != socket.AF_UNIX:
            # A machine that vanished would otherwise hold its connections for ever.
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        used = self.consume(buffer)
        self._buffer = buffer[used:]
        if self._leaving and not self._buffer:
            self.close()

    def pause_writing(self) -> None:
        """The peer asks faster than it reads: take no more questions until it has read."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)

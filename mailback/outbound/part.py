"""The policy server as a part of the service: policy delegation and socketmap on one event loop a worker.

With the store out of reach the policy service answers `DUNNO` (mail flows unchecked) and the socketmap `TEMP` (mail
waits); `store.unavailable` says so in the log, at most once in ten seconds.

Log events, and what to do about each:
`policyd.serving`      a worker serves (`policy`, `socketmap`: where). Nothing.
`store.unavailable`    look-ups fail (`reason`, `front`, `count` since the last line): suppressed recipients are mailed
                       through the policy service. Do what `advice` says; look-ups go on by themselves.
`store.back`           look-ups work again. Nothing.
`policyd.failed`       an answer failed in a way that was not foreseen; its traceback follows. Report it.
`policyd.cut_off`      a peer does not speak the protocol, or too many are connected (`reason`). Look at who connects;
                       Postfix itself never causes the first.
`policyd.drained`      SIGTERM was taken and no question is open (`cut`: connections closed inside a question; Postfix
                       asks again). Nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from mailback.outbound.brakes import Brakes
from mailback.outbound.check import Check
from mailback.outbound.connection import Connections
from mailback.outbound.policyd import PolicyConnection
from mailback.outbound.probes import Probes
from mailback.outbound.socketmap import SocketmapConnection
from mailback.outbound.watch import provider_names
from mailback.service import sockets
from mailback.service.accepting import accept
from mailback.service.log import get_logger
from mailback.store.errors import StoreUnavailable
from mailback.store.records import Suppression

if TYPE_CHECKING:
    from mailback.settings import Settings
    from mailback.store import SuppressionLookup

DRAIN_S: Final = 5.0
"""A question is one packet; one that is not complete by then never will be."""
LOCKED_S: Final = 1.0
"""Longest wait for a locked database. Readers of a WAL never wait for writers, only for a recovery, and while one
question waits here all others of the worker do."""
QUIET_S: Final = 10.0
"""Least time between two log lines about the same trouble."""

_log = get_logger("policyd")


class PolicydPart:
    """Both servers; switched on by `policyd.listen`, `policyd.socketmap` or both."""

    name = "policyd"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._policy: list[socket.socket] = []
        self._socketmap: list[socket.socket] = []
        self._known: Callable[[str], str | None] | None = None

    @property
    def workers(self) -> int:
        return self._settings.policyd.workers or len(os.sched_getaffinity(0))

    def open(self) -> None:
        policyd = self._settings.policyd
        self._known = provider_names(self._settings).of_host if self._settings.breakers.act else None
        open_one = partial(sockets.open_listener, mode=policyd.socket_mode_bits, group=policyd.socket_group)
        self._policy = [open_one(listen) for listen in policyd.listen]
        self._socketmap = [open_one(listen) for listen in policyd.socketmap]

    def close(self) -> None:
        for listen in (*self._settings.policyd.listen, *self._settings.policyd.socketmap):
            sockets.close_listener(listen)

    def run(self, ready: Callable[[], None]) -> int:
        from mailback.store import SuppressionLookup

        store = self._settings.store
        lookup = SuppressionLookup(store.url, busy_timeout_s=min(LOCKED_S, store.busy_timeout_s))
        brakes = Brakes.of(self._settings, lookup.path, self._known) if self._known is not None else None
        probes = Probes.of(self._settings, lookup)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(lookup, self._policy, self._socketmap, ready, brakes=brakes, probes=probes))
        return 0


async def serve(
    lookup: SuppressionLookup,
    policy: Sequence[socket.socket],
    socketmap: Sequence[socket.socket],
    ready: Callable[[], None],
    *,
    brakes: Brakes | None = None,
    probes: Probes | None = None,
) -> None:
    """Answer on these listening sockets until SIGTERM."""
    trouble = Troubles()
    watched = _Watched(lookup, trouble)
    if probes is not None:
        probes = replace(probes, last=watched.last)
    check = Check(watched, brakes, probes)
    try:
        watched.lookup("")
    except StoreUnavailable as error:  # serve all the same: what each front answers then is its documented choice
        trouble.tell("start", error)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    connections = Connections()
    fronts = ((policy, PolicyConnection), (socketmap, SocketmapConnection))
    servers = [
        await accept(loop, partial(front, check, trouble.tell, connections), listener)
        for listeners, front in fronts
        for listener in listeners
    ]
    _log.info("policyd.serving", policy=_where(policy), socketmap=_where(socketmap))
    ready()
    await stop.wait()
    for server in servers:
        server.close()
    _log.info("policyd.drained", cut=await connections.drain(DRAIN_S))


class Troubles:
    """Says that look-ups fail, and that they work again, without a line for each recipient."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0
        self._count = 0
        self._down = False

    def tell(self, front: str, error: Exception) -> None:
        """A front could not answer."""
        self._count += 1
        if isinstance(error, StoreUnavailable):
            self._down = True
        if self._clock() < self._next:
            return
        self._next = self._clock() + QUIET_S
        count, self._count = self._count, 0
        if isinstance(error, StoreUnavailable):
            _log.error("store.unavailable", front=front, reason=error.reason, advice=error.advice, count=count)
        else:
            _log.error("policyd.failed", front=front, count=count, exc_info=error)

    def over(self) -> None:
        """A look-up worked."""
        if self._down:
            self._down = False
            self._next = 0.0
            _log.info("store.back")


class _Watched:
    """A look-up that notes when it works again."""

    __slots__ = ("_lookup", "_troubles")

    def __init__(self, lookup: SuppressionLookup, troubles: Troubles) -> None:
        self._lookup = lookup
        self._troubles = troubles

    def lookup(self, key: str, scopes: Sequence[str] = ("all",), now: datetime | None = None) -> Suppression | None:
        found = self._lookup.lookup(key, scopes, now)
        self._troubles.over()
        return found

    def last(self, key: str, scopes: Sequence[str] = ("all",), now: datetime | None = None) -> Suppression | None:
        found = self._lookup.last(key, scopes, now)
        self._troubles.over()
        return found


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed; asyncio's own loop answers too, at about half the rate."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _where(listeners: Sequence[socket.socket]) -> list[str]:
    return [_address(listener) for listener in listeners]


def _address(listener: socket.socket) -> str:
    name = listener.getsockname()
    return f"unix:{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}"

"""The milter as a part of `mailback serve`: sockets in the parent, a libmilter loop in every worker.

The parent opens the sockets and loads the rules, and that is all: libmilter, threads and the store exist in workers
only. Workers share the listening sockets. A process can run one libmilter loop on one socket, so with several addresses
each of them has workers of its own; which one a worker serves it finds out by taking the first free place
(`_Places`), because a worker that is started again does not know whose place it fills.

SIGTERM: the worker takes no new sessions, ends those it has (a session ends with the SMTP session), and leaves. What
is still open after the drain timeout is dropped; the MTA then applies its `milter_default_action` to that session.

Log events (of the part `milter`):

    serving      A worker serves. Nothing to do.
    draining     SIGTERM was taken, `sessions` are still open. Nothing to do.
    cut          `sessions` did not end within the drain timeout. SMTP sessions longer than that are rare; raise
                 `smtpd.drain_timeout_s` if this is seen often.
    loop_ended   libmilter gave up (`problem`); the worker ends and the supervisor starts the next. Look for limits of
                 threads or descriptors.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mailback.service import sockets
from mailback.service.log import get_logger

if TYPE_CHECKING:
    from mailback.engine import Knowledge
    from mailback.settings import Settings
    from mailback.store import Store
    from mailback_milter.session import Door

log = get_logger("milter")

_POLL_S = 0.05
"""How often a draining worker looks whether its sessions have ended."""


class MilterPart:
    """Door 1; see `mailback.service.supervisor.Part`."""

    name = "milter"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._listeners: list[socket.socket] = []
        self._knowledge: Knowledge | None = None
        self._places: _Places | None = None

    @property
    def workers(self) -> int:
        """Worker processes of all addresses together."""
        return self._each * max(1, len(self._settings.milter.listen))

    @property
    def _each(self) -> int:
        return self._settings.milter.workers or os.cpu_count() or 1

    def open(self) -> None:
        """Open the sockets and load the rules. Raises SocketError, or RulesError with every problem."""
        from mailback.engine import Knowledge

        milter = self._settings.milter
        self._knowledge = Knowledge.load(self._settings)
        self._listeners = [
            sockets.open_listener(listen, mode=milter.socket_mode_bits, group=milter.socket_group)
            for listen in milter.listen
        ]
        self._places = _Places(self.workers)

    def run(self, ready: Callable[[], None]) -> int:
        """Serve until SIGTERM, in a process of its own; 0, or 1 when libmilter gave up."""
        from mailback.store import Store

        assert self._places is not None
        listener = self._listeners[self._places.take() % len(self._listeners)]
        store = Store.open(self._settings.store.url, busy_timeout_s=self._settings.store.busy_timeout_s)
        try:
            return serve(
                listener,
                self._door(store),
                ready,
                timeout_s=int(self._settings.milter.timeout_s),
                drain_timeout_s=self._settings.smtpd.drain_timeout_s,
            )
        finally:
            store.close()

    def close(self) -> None:
        """Nothing: the registry closes the sockets."""

    def _door(self, store: Store) -> Door:
        from mailback.engine import Engine
        from mailback.outbound.check import Check
        from mailback_milter.direction import DirectionRules
        from mailback_milter.reading import ReadingRoom
        from mailback_milter.session import Door

        milter, mail = self._settings.milter, self._settings.mail
        return Door(
            reader=ReadingRoom(Engine(self._settings, store, self._knowledge)),
            check=Check(store),
            directions=DirectionRules.of(milter.outbound_daemon_names, mail.sending_domains, mail.bounce_domain),
            failure_action=milter.failure_action,
            max_message_bytes=milter.max_message_bytes,
        )


def serve(
    listener: socket.socket, door: Door, ready: Callable[[], None], *, timeout_s: int, drain_timeout_s: float
) -> int:
    """Run libmilter on `listener` until SIGTERM, once in the life of a process; 0, or 1 when libmilter gave up."""
    from mailback_milter import callbacks
    from mailback_milter.listener import Loop

    wakeup, problems = _Wakeup(), list[str]()

    def ended(error: BaseException | None) -> None:
        problems.append(str(error) if error else "its loop ended")
        wakeup.ring()

    callbacks.register(door, timeout_s)
    loop = Loop(listener)
    signal.signal(signal.SIGTERM, lambda *_: wakeup.ring())
    loop.start(ended)
    log.info("serving", pid=os.getpid())
    ready()
    wakeup.wait()
    if problems:
        log.error("loop_ended", problem=problems[0])
        return 1
    loop.refuse()
    _drain(door, drain_timeout_s)
    return 0


def _drain(door: Door, timeout_s: float) -> None:
    """Wait until no session is open, or for `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    if door.open_sessions:
        log.info("draining", sessions=len(door.open_sessions))
    while door.open_sessions:
        if time.monotonic() >= deadline:
            log.warning("cut", sessions=len(door.open_sessions))
            return
        time.sleep(_POLL_S)


class _Wakeup:
    """What the main thread waits for: a signal handler or another thread rings. No lock, so a handler may."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    def ring(self) -> None:
        os.write(self._writer, b"!")

    def wait(self) -> None:
        select.select([self._reader], [], [])


class _Places:
    """Numbers from 0, one for each worker that lives; the kernel frees one when its holder dies (fcntl(2) locks)."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._file = os.memfd_create("mailback-milter-places")

    def take(self) -> int:
        """A free number, held until the process ends; any, should all be taken."""
        for number in range(self._count):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                continue
            return number
        return os.getpid()

    def __del__(self) -> None:
        os.close(self._file)  # a part that a reload replaced is simply forgotten

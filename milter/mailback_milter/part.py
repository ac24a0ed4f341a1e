"""The milter as a part of `mailback serve`: sockets in the parent, an event loop in every worker.

The parent opens the sockets and loads the rules; the store and the loop exist in workers only. All workers accept on
the same sockets.

SIGTERM: the worker takes no new connections, ends those it has (each lasts as long as an SMTP session), and leaves.
What is still open after the drain timeout is dropped; the MTA then applies its `milter_default_action` to it.

Log events (of the part `milter`):

    serving      A worker serves. Nothing to do.
    draining     SIGTERM was taken, `connections` are still open. Nothing to do.
    cut          `connections` did not end within the drain timeout. SMTP sessions longer than that are rare; raise
                 `smtpd.drain_timeout_s` if this is seen often.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from mailback.service import sockets
from mailback.service.accepting import accept
from mailback.service.log import get_logger

if TYPE_CHECKING:
    from mailback.engine import Knowledge
    from mailback.settings import Settings
    from mailback.store import Store
    from mailback_milter.connection import Walk
    from mailback_milter.session import Rules

log = get_logger("milter")

A = TypeVar("A")


class MilterPart:
    """Door 1; see `mailback.service.supervisor.Part`."""

    name = "milter"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._listeners: list[socket.socket] = []
        self._knowledge: Knowledge | None = None

    @property
    def workers(self) -> int:
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

    def run(self, ready: Callable[[], None]) -> int:
        """Serve until SIGTERM, in a process of its own; the exit code."""
        import uvloop

        from mailback.engine import Engine
        from mailback.provenance.authentication import Checks
        from mailback.store import Store

        assert self._knowledge is not None
        settings = self._settings
        with Store.open(settings.store.url, busy_timeout_s=settings.store.busy_timeout_s) as store:
            checks = Checks.of(settings, self._knowledge.speakers)
            engine, rules = Engine(settings, store, self._knowledge, checks), self._rules(store)

            async def served() -> None:
                store.work_on_loop()
                await serve(
                    self._listeners,
                    rules,
                    engine,
                    ready,
                    timeout_s=settings.milter.timeout_s,
                    drain_timeout_s=settings.smtpd.drain_timeout_s,
                )

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(served())
        return 0

    def close(self) -> None:
        """Nothing: the registry of sockets closes them."""

    def _rules(self, store: Store) -> Rules:
        from mailback.outbound.brakes import Brakes
        from mailback.outbound.check import Check
        from mailback.outbound.outgoing import Outgoing
        from mailback.outbound.probes import Probes
        from mailback_milter.direction import DirectionRules
        from mailback_milter.session import Rules

        assert self._knowledge is not None
        milter, mail = self._settings.milter, self._settings.mail
        paths = self._knowledge.return_paths
        return Rules(
            check=Check(
                store,
                Brakes.of(self._settings, store.path, self._knowledge.failures.names.of_host),
                Probes.of(self._settings, store),
            ),
            directions=DirectionRules.of(milter.outbound_daemon_names, mail.sending_domains, mail.bounce_domain),
            failure_action=milter.failure_action,
            max_message_bytes=milter.max_message_bytes,
            authserv_id=self._settings.authserv_id if self._settings.auth.enabled else mail.hostname,
            outgoing=Outgoing.of(self._settings, store, paths),
            return_paths=paths,
            readdresses=bool(self._settings.replies.rewrite_to or self._settings.replies.copy_to),
        )


async def serve(
    listeners: Sequence[socket.socket],
    rules: Rules,
    engine: Walk[A],
    ready: Callable[[], None],
    *,
    timeout_s: float,
    drain_timeout_s: float,
) -> None:
    """Accept on `listeners` until SIGTERM, then let what is open end."""
    from mailback.service.assessing import Desk
    from mailback_milter.connection import Connection, Connections

    loop = asyncio.get_running_loop()
    terminated, connections, desk = asyncio.Event(), Connections(), Desk(engine)
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    servers = [
        await accept(loop, lambda: Connection(rules, engine, desk, connections, timeout_s), listener)
        for listener in listeners
    ]
    log.info("serving", pid=os.getpid())
    ready()
    await terminated.wait()
    for server in servers:
        server.close()
    if connections:
        log.info("draining", connections=len(connections))
    try:
        await asyncio.wait_for(connections.ended(), drain_timeout_s)
    except TimeoutError:
        log.warning("cut", connections=len(connections))
    desk.close()

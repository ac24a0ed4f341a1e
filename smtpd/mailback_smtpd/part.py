"""The receiver as a part of the service: sockets opened in the parent, conversations held in each worker.

Each worker has its own uvloop, store, engine and destinations; all of them accept on the same sockets.

Log events:
    listening           a worker takes connections, on `listen`
    draining            SIGTERM: no new connections; `sessions` are let finish the message they are at
    store_unavailable   nothing can be recorded: peers get 451 and keep their mail. `advice` says what to do.
    store_recovered     it works again
    cut_off             `smtpd.drain_timeout_s` ended before all were done; their peers keep their mail and try again
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from mailback import address
from mailback.service import sockets
from mailback.service.accepting import accept
from mailback.service.log import get_logger

if TYPE_CHECKING:
    from mailback.engine import Engine, Knowledge
    from mailback.settings import Settings, SmtpdSettings
    from mailback_smtpd.session import Door

log = get_logger("smtpd")


class SmtpdPart:
    """The receiver; see `mailback.service.supervisor.Part`."""

    name = "smtpd"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.workers = settings.smtpd.workers or os.cpu_count() or 1
        self._listeners: list[tuple[sockets.Listen, socket.socket]] = []
        self._knowledge: Knowledge | None = None
        self._tls: ssl.SSLContext | None = None

    def open(self) -> None:
        """Open the sockets, read the key while we may still be root, compile the rules for all workers.

        Raises SocketError, RulesError, or OSError and ssl.SSLError for a certificate that cannot be used.
        """
        from mailback.engine import Knowledge

        self._tls = tls_context(self._settings.smtpd)
        self._knowledge = Knowledge.load(self._settings)
        listens = [sockets.parse_listen(text) for text in self._settings.smtpd.listen]
        self._listeners = [(listen, sockets.open_listener(listen)) for listen in listens]

    def run(self, ready: Callable[[], None]) -> int:
        """Serve until SIGTERM. Raises StoreUnavailable when the store cannot be opened."""
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._serve(ready))

    def close(self) -> None:
        """Close the sockets and remove those of the file system."""
        for listen, _ in self._listeners:
            sockets.close_listener(listen)

    async def _serve(self, ready: Callable[[], None]) -> int:
        from mailback.engine import Engine
        from mailback.provenance.authentication import Checks
        from mailback.store import Store

        settings = self._settings
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        store = Store.open(settings.store.url, busy_timeout_s=settings.store.busy_timeout_s, report=_tell)
        try:
            store.upgrade()
            store.work_on_loop()
            assert self._knowledge is not None
            checks = Checks.of(settings, self._knowledge.speakers)
            await self._accept(self._door(Engine(settings, store, self._knowledge, checks)), stop, ready)
        finally:
            store.close()
        return 0

    def _door(self, engine: Engine) -> Door:
        from mailback_smtpd.destination import destination
        from mailback_smtpd.intake import Intake
        from mailback_smtpd.session import Door

        settings = self._settings
        hostname = settings.mail.host_name
        return Door(
            settings=settings.smtpd,
            hostname=hostname,
            domains=frozenset(address.domain(f"postmaster@{domain}") for domain in settings.accepted_domains),
            intake=Intake(
                engine,
                next_hop=destination(settings.smtpd.next_hop or "discard", hostname),
                bounces_to=destination(settings.smtpd.bounces_to, hostname),
                quarantine=destination(settings.quarantine_route, hostname),
                hostname=hostname,
                authserv_id=settings.authserv_id,
            ),
            tls=self._tls,
            return_paths=self._knowledge.return_paths if self._knowledge is not None else None,
        )

    async def _accept(self, door: Door, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        from mailback_smtpd.session import LmtpReceiver, Receiver

        loop = asyncio.get_running_loop()
        proxied = self._settings.smtpd.proxy_protocol
        servers: list[asyncio.AbstractServer] = []
        for listen, listener in self._listeners:
            kind = LmtpReceiver if listen.lmtp else Receiver
            factory = partial(kind, door, loop, proxied=proxied)
            servers.append(await accept(loop, factory, listener))
            log.debug("listening", listen=str(listen))
        ready()
        await stop.wait()
        log.info("draining", sessions=len(door.sessions))
        for server in servers:
            server.close()
        cut_off = await door.drain(self._settings.smtpd.drain_timeout_s)
        if cut_off:
            log.warning("cut_off", sessions=cut_off)
        await door.intake.close()


def _tell(event: str, fields: Mapping[str, object]) -> None:
    """What the store's writer has to say."""
    (log.info if event == "store_recovered" else log.error)(event, **fields)


def tls_context(chosen: SmtpdSettings) -> ssl.SSLContext | None:
    """What STARTTLS is done with; None where it is not offered.

    Raises OSError or ssl.SSLError where certificate and key cannot be read or do not belong together.
    """
    if chosen.tls_certificate_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chosen.tls_certificate_file, chosen.tls_key_file)
    return context

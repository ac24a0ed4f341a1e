"""The HTTP interface as a part of the service: uvicorn in one worker, on sockets that the parent opened.

It belongs behind a reverse proxy that speaks TLS; see docs/http.md. Requests are answered in threads, so that a slow
disk holds up no other request.

Log events:
    web.serving     the worker serves, on `listen`. Nothing.
    web.failed      a request ended in a fault of ours, its traceback follows; the client got 500. Report it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mailback.service import sockets
from mailback.service.log import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mailback.engine import Knowledge
    from mailback.settings import Settings

DRAIN_S = 10
"""A request that is not answered by then is cut off."""

log = get_logger("web")


class WebPart:
    """See `mailback.service.supervisor.Part`."""

    name = "web"
    workers = 1

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._listeners: list[socket.socket] = []
        self._knowledge: Knowledge | None = None
        self._key = ""

    def open(self) -> None:
        """Read the key while we may still be root. Raises SocketError, RulesError, OSError."""
        from mailback.engine import Knowledge

        if self._settings.web.key_file is not None:
            self._key = self._settings.web.key_file.read_text("utf-8").strip()
        self._knowledge = Knowledge.load(self._settings)
        self._listeners = [sockets.open_listener(listen) for listen in self._settings.web.listen]

    def close(self) -> None:
        for listen in self._settings.web.listen:
            sockets.close_listener(listen)

    def run(self, ready: Callable[[], None]) -> int:
        """Serve until SIGTERM."""
        import uvicorn

        from mailback.engine import Engine
        from mailback.store import Store
        from mailback.web.app import application

        settings = self._settings

        @asynccontextmanager
        async def lifespan(_: object) -> AsyncIterator[None]:
            log.info("web.serving", listen=[str(listen) for listen in settings.web.listen])
            ready()
            yield

        with Store.open(settings.store.url, busy_timeout_s=settings.store.busy_timeout_s) as store:
            app = application(settings, store, Engine(settings, store, self._knowledge), self._key, lifespan)
            config = uvicorn.Config(
                app,
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=True,
                timeout_graceful_shutdown=DRAIN_S,
                h11_max_incomplete_event_size=65_536,
            )
            uvicorn.Server(config).run(sockets=self._listeners)
        return 0

"""Accept connections in a worker, on a socket that the parent opened and all workers share. Emits no log events."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

from mailback.service import sockets


async def accept(
    loop: asyncio.AbstractEventLoop, protocol: Callable[[], asyncio.BaseProtocol], listener: socket.socket
) -> asyncio.Server:
    """Serve `protocol` on a listening socket until the server is closed; the socket itself stays the parent's."""
    # Listening again with asyncio's own backlog would shorten the queue for all workers.
    if listener.family != socket.AF_UNIX:
        return await loop.create_server(protocol, sock=listener, backlog=sockets.BACKLOG)
    # From Python 3.13 on a closed server would remove the socket file, which belongs to all workers.
    keep: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
    return await loop.create_unix_server(protocol, sock=listener, backlog=sockets.BACKLOG, **keep)

"""libmilter's main loop on a listening socket that somebody else opened, and a way to end it gently.

libmilter opens its socket itself, by a path or port. That does not suit several worker processes that are replaced one
by one: each of them removes the path when it ends (unless it runs as root), so the first of the old workers to go
would take the socket away from the new ones; and neither mode nor group nor a socket from systemd can be given. So
`adopt` lets libmilter open a socket of the same family that nobody knows of, and puts ours in its place under the same
descriptor. The parent never loads libmilter at all.

Its way to end does not suit either: SIGTERM makes it drop the sessions it has, up to five seconds later. `Loop` runs it
in a thread, so that the main thread keeps the signals. `refuse` puts a socket to which nobody connects in the place of
ours: this worker gets no more sessions, its siblings take them, and those it has go on to their end.

Debian's libmilter serves all connections from a pool of threads: two callbacks of one connection may run on different
threads, never at the same time.

Emits no log events.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import milter


class Loop:
    """The one libmilter loop that a process can have; the callbacks must be registered before it is made."""

    def __init__(self, listener: socket.socket) -> None:
        # Several workers wait on the one socket and all wake up for a connection: without this, all but the one that
        # gets it would sit in accept(2) until the next.
        listener.setblocking(False)
        self._decoy = _decoy_of(listener.family)
        self._descriptor = adopt(listener)

    def start(self, ended: Callable[[BaseException | None], None]) -> None:
        """Serve from a thread; `ended` is called from there when libmilter gives up, with its error."""

        def serve() -> None:
            try:
                milter.main()
            except BaseException as error:  # the thread has nobody else to tell
                ended(error)
            else:
                ended(None)

        # A daemon: libmilter's own threads outlive its main loop, so the process is left without waiting for them.
        threading.Thread(target=serve, name="libmilter", daemon=True).start()

    def refuse(self) -> None:
        """Take no more connections; those that are open go on. May be called again."""
        os.dup2(self._decoy.fileno(), self._descriptor, inheritable=False)


def adopt(listener: socket.socket) -> int:
    """Make libmilter use `listener`; returns the descriptor under which it does. Once a process, before other threads.

    Raises milter.error when libmilter cannot open a socket at all.
    """
    with tempfile.TemporaryDirectory(prefix="mailback-milter-") as folder:
        # The family must be the same: libmilter drops connections from another one than it opened.
        address = {
            socket.AF_UNIX: f"unix:{Path(folder) / 'unused'}",
            socket.AF_INET: "inet:0@127.0.0.1",
            socket.AF_INET6: "inet6:0@::1",
        }[listener.family]
        milter.setconn(address)
        # libmilter does not tell its descriptor; it is the lowest free one (POSIX, "File Descriptor Allocation").
        lowest = os.dup(listener.fileno())
        os.close(lowest)
        milter.opensocket(0)
        with socket.socket(fileno=os.dup(lowest)) as opened:
            if opened.family != listener.family or opened.getsockname() == listener.getsockname():
                raise OSError(f"descriptor {lowest} is not the socket that libmilter opened")
        os.dup2(listener.fileno(), lowest, inheritable=False)
        return lowest


def _decoy_of(family: socket.AddressFamily | int) -> socket.socket:
    """A listening socket to which nobody connects: libmilter ends when accept(2) says that it does not listen."""
    decoy = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_UNIX:
        decoy.bind("")  # Linux picks an abstract name (unix(7), autobind)
    else:
        decoy.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    decoy.listen(1)
    decoy.setblocking(False)
    return decoy

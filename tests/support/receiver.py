"""A receiver in this process: its loop in a thread, its store on disk, its conversations over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from mailback import address
from mailback.engine import Engine, Knowledge
from mailback.returnpath import ReturnPaths
from mailback.settings import Settings
from mailback.store import Store
from mailback_smtpd.destination import destination
from mailback_smtpd.intake import Intake
from mailback_smtpd.part import tls_context
from mailback_smtpd.session import Door, LmtpReceiver, Receiver

T = TypeVar("T")
TIMEOUT_S = 20.0


class LoopThread:
    """A uvloop in a thread of its own, for servers that a blocking test talks to."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(TIMEOUT_S)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(TIMEOUT_S)
        self.loop.close()


class Client:
    """A peer that says exactly the octets it is told to."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._lines = connection.makefile("rb")

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def reply(self) -> str:
        """The next reply, its lines joined with newlines; empty when the server has hung up."""
        lines = []
        while line := self._lines.readline():
            lines.append(line.decode().rstrip("\r\n"))
            if line[3:4] != b"-":
                break
        return "\n".join(lines)

    def say(self, command: bytes | str) -> str:
        self.send(command.encode() + b"\r\n" if isinstance(command, str) else command + b"\r\n")
        return self.reply()

    def message(
        self, data: bytes, sender: str = "", recipients: tuple[str, ...] = ("bounces@sender.test",)
    ) -> list[str]:
        """A whole transaction; the replies to its data: one, or over LMTP one a recipient that was accepted."""
        assert self.say(f"MAIL FROM:<{sender}>").startswith("250")
        for recipient in recipients:
            assert self.say(f"RCPT TO:<{recipient}>").startswith("250")
        assert self.say("DATA").startswith("354")
        self.send(data.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        return [self.reply()]

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


class RunningReceiver:
    """Serves until closed; what it was given is in `store`, and below `folder`."""

    def __init__(
        self,
        folder: Path,
        smtpd: str = "",
        *,
        lmtp: bool = False,
        unix: bool = False,
        engine: Callable[[Settings, Store, Knowledge], Engine] = Engine,
        return_paths: ReturnPaths | None = None,
    ) -> None:
        self.inbox, self.quarantine = folder / "inbox", folder / "quarantine"
        text = f'[store]\nurl = "sqlite:///{folder}/mailback.db"\n'
        text += '[mail]\nsending_domains = ["sender.test"]\nhostname = "mx.sender.test"\n[smtpd]\n'
        if "next_hop" not in smtpd:
            text += f'next_hop = "maildir:{self.inbox}"\n'
        if "bounces_to" not in smtpd:
            text += f'bounces_to = "maildir:{folder}/bounces"\n'
        if "quarantine_to" not in smtpd:
            text += f'quarantine_to = "maildir:{self.quarantine}"\n'
        if return_paths is not None:
            text = text.replace("[mail]\n", f'[mail]\nbounce_domain = "{return_paths.domain}"\n')
        self.settings = Settings.loads(text + smtpd, files=False)
        self.store = Store.open(self.settings.store.url)
        self.store.upgrade()
        self._thread = LoopThread()
        self._clients: list[Client] = []
        self._path = str(folder / "smtpd.sock") if unix else None
        self.port = 0
        knowledge = replace(Knowledge.load(), return_paths=return_paths)
        self.door: Door = self._thread.run(self._start(engine(self.settings, self.store, knowledge), lmtp=lmtp))
        self.door.return_paths = return_paths

    async def _start(self, engine: Engine, *, lmtp: bool) -> Door:
        chosen = self.settings.smtpd
        hostname = self.settings.mail.host_name
        door = Door(
            settings=chosen,
            hostname=hostname,
            domains=frozenset(address.domain(f"x@{domain}") for domain in self.settings.accepted_domains),
            intake=Intake(
                engine,
                next_hop=destination(chosen.next_hop or "discard", hostname),
                bounces_to=destination(chosen.bounces_to, hostname),
                quarantine=destination(self.settings.quarantine_route, hostname),
                hostname=hostname,
            ),
            tls=tls_context(chosen),
        )
        loop = asyncio.get_running_loop()
        factory = partial(LmtpReceiver if lmtp else Receiver, door, loop, proxied=chosen.proxy_protocol)
        if self._path is not None:
            self._server: Any = await loop.create_unix_server(factory, self._path)
        else:
            self._server = await loop.create_server(factory, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]
        return door

    def connect(self, *, greeted: bool = True) -> Client:
        """A new connection; `greeted` reads the greeting and says EHLO or LHLO."""
        if self._path is not None:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(TIMEOUT_S)
            connection.connect(self._path)
        else:
            connection = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)
        client = Client(connection)
        self._clients.append(client)
        if greeted:
            greeting = client.reply()
            assert greeting.startswith("220"), greeting
            assert client.say(f"{'LHLO' if 'LMTP' in greeting else 'EHLO'} peer.test").startswith("250")
        return client

    def drain(self, timeout_s: float = 5.0) -> int:
        async def stop() -> int:
            self._server.close()
            return await self.door.drain(timeout_s)

        return self._thread.run(stop())

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.drain(1.0)
        self._thread.run(self.door.intake.close())
        self._thread.close()
        self.store.close()


@contextlib.contextmanager
def receiving(folder: Path, smtpd: str = "", **options: Any) -> Iterator[RunningReceiver]:
    """A receiver for one test; `smtpd` are further lines of its `[smtpd]`."""
    receiver = RunningReceiver(folder, smtpd, **options)
    try:
        yield receiver
    finally:
        receiver.close()


def delivered(maildir: Path) -> list[bytes]:
    """The messages of a Maildir, oldest first."""
    return [path.read_bytes() for path in sorted((maildir / "new").glob("*"), key=lambda p: p.stat().st_mtime_ns)]

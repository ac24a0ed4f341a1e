"""The receiver beside bare aiosmtpd with a handler that does nothing, in the same run: `python bench/receiver.py`.

Both run on uvloop and get the same 6 kB bounces over loopback; Mailback reads, classifies and durably commits each of
them before it answers. Every bounce is about another address: one that was sent twice would be recorded once, which
costs less, so a generator that repeats one message (smtp-source of Postfix does) would flatter. Rounds of the two are
interleaved and the median is taken. The store lies on disk, in `--folder`. Authentication is off, since the peers are
this host itself, of which there is nothing to ask; `auth.py` and `milter.py` measure it.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "smtpd")]

import uvloop  # noqa: E402

from tests.support.mail import dsn  # noqa: E402

PADDING = 5000
"""Octets of returned body, for a bounce of 6 kB in all."""
MEMORY_MESSAGES = 10_000
ROUND_S = 300.0


# The servers ------------------------------------------------------------------------------------------------


def say_ready() -> None:
    """In one write, so that the words of two workers do not mix."""
    os.write(sys.stdout.fileno(), b"ready\n")


def serve_null(listener: socket.socket) -> None:
    """Bare aiosmtpd: everything read, nothing done."""
    import logging

    from aiosmtpd.smtp import SMTP, Envelope, Session

    logging.getLogger("mail.log").setLevel(logging.WARNING)

    class Null:
        async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
            return "250 OK"

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        handler = Null()
        await loop.create_server(lambda: SMTP(handler, hostname="mx.sender.test", loop=loop), sock=listener)
        say_ready()
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def serve_mailback(port: int, folder: Path, workers: int) -> None:
    """The receiver as `mailback serve` runs it: rules compiled in the parent, workers forked from it."""
    from mailback.service import log
    from mailback.settings import Settings
    from mailback_smtpd.part import SmtpdPart

    settings = Settings.loads(
        f'[store]\nurl = "sqlite:///{folder}/mailback.db"\n'
        '[mail]\nsending_domains = ["sender.test"]\nhostname = "mx.sender.test"\n'
        f'[smtpd]\nlisten = "127.0.0.1:{port}"\nnext_hop = "discard"\nworkers = {workers}\n'
        "[auth]\nenabled = false\n",
        files=False,
    )
    log.configure(settings.log)
    part = SmtpdPart(settings)
    part.open()
    children: list[int] = []

    def stop(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    for _ in range(workers):
        child = os.fork()
        if not child:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os._exit(part.run(say_ready))
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


class Server:
    """One server process (or a parent with workers), started from this file."""

    def __init__(self, kind: str, folder: Path, workers: int = 1) -> None:
        self.port = free_port()
        folder.mkdir()
        log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", kind, str(self.port), str(folder), str(workers)],
            stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        log.close()
        atexit.register(self.stop)
        assert self._process.stdout is not None
        for _ in range(workers):
            if (said := self._process.stdout.readline()) != b"ready\n":
                raise SystemExit(f"{kind} did not start but said {said!r}:\n{(folder / 'log').read_text()}")

    def resident_kb(self) -> int:
        """Resident memory of the largest process of it."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        pids = children or [str(self._process.pid)]
        return max(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4 for pid in pids)

    def stop(self) -> None:
        """End it; safe to call twice."""
        self._process.terminate()
        self._process.wait(timeout=60)
        assert self._process.stdout is not None
        self._process.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# The load ---------------------------------------------------------------------------------------------------


class Supply:
    """Bounces that differ in address and Message-ID, made from one by replacing two fields of fixed width."""

    def __init__(self) -> None:
        made = dsn("gone-00000000@receiver.test", message_id="<m-00000000@sender.test>", padding=PADDING)
        self._parts = made.split(b"-00000000")
        self._count = 0
        self.size = len(made)

    def next(self) -> bytes:
        self._count += 1
        return b"-%08d".__mod__(self._count).join(self._parts) + b".\r\n"


class Peer(asyncio.Protocol):
    """One SMTP session that sends as many messages as the round still has, then says QUIT."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._steps: Iterator[bytes] = iter(())
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self._steps = self._conversation()

    def data_received(self, data: bytes) -> None:
        if data[:1] not in b"23":
            self._load.refused.append(data)
            self._transport.abort()
        elif data.rfind(b"\n", 0, -2) < 0 or data[data.rfind(b"\n", 0, -2) + 4 :][:1] == b" ":
            step = next(self._steps, None)
            if step is not None:
                self._transport.write(step)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _conversation(self) -> Iterator[bytes]:
        """What is said, step by step; the next step follows when the one before was answered well."""
        load = self._load
        yield b"EHLO peer.test\r\n"
        while load.left > 0:
            load.left -= 1
            yield b"MAIL FROM:<>\r\n"
            yield b"RCPT TO:<bounces@sender.test>\r\n"
            yield b"DATA\r\n"
            yield load.supply.next()
            load.answered += 1
            if not load.reuse:
                break
        yield b"QUIT\r\n"


@dataclass
class Load:
    """A round of messages."""

    port: int
    sessions: int
    left: int
    reuse: bool
    supply: Supply
    answered: int = 0

    def __post_init__(self) -> None:
        self.refused: list[bytes] = []

    async def run(self) -> float:
        """Messages a second."""
        asked = self.left
        began = time.perf_counter()
        async with asyncio.timeout(ROUND_S):
            await asyncio.gather(*(self._session() for _ in range(self.sessions)))
        took = time.perf_counter() - began
        if self.refused or self.answered != asked:
            raise SystemExit(f"{asked - self.answered} of {asked} messages were not taken: {self.refused[:3]}")
        return asked / took

    async def _session(self) -> None:
        loop = asyncio.get_running_loop()
        while self.left > 0:
            _, peer = await loop.create_connection(lambda: Peer(self), "127.0.0.1", self.port)
            await peer.done


def measure(server: Server, supply: Supply, *, sessions: int, messages: int, reuse: bool) -> float:
    load = Load(server.port, sessions, messages, reuse, supply)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load.run())


# The table --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    name: str
    sessions: int
    reuse: bool
    goal: float | None


CASES = (
    Case("20 sessions, a connection a message", 20, False, 0.65),
    Case("20 sessions, connections reused", 20, True, None),
    Case("1 session, a connection a message", 1, False, 0.40),
    Case("1 session, connection reused", 1, True, None),
)


def table(folder: Path, rounds: int, messages: int) -> str:
    supply = Supply()
    null, one = Server("null", folder / "null"), Server("mailback", folder / "one")
    lines = [
        "## Receiver\n",
        f"Bounces of {supply.size} octets; medians of {rounds} interleaved rounds of {messages} messages.\n",
        "| | bare aiosmtpd, null handler (msg/s) | Mailback, committed (msg/s) | ratio | goal |",
        "|---|---|---|---|---|",
    ]
    for case in CASES:
        rates: dict[Server, list[float]] = {null: [], one: []}
        for _ in range(rounds):
            for server, taken in rates.items():
                taken.append(measure(server, supply, sessions=case.sessions, messages=messages, reuse=case.reuse))
        theirs, ours = (statistics.median(taken) for taken in rates.values())
        goal = f"≥ {case.goal:.2f}" if case.goal else ""
        lines.append(f"| {case.name} | {theirs:.0f} | {ours:.0f} | {ours / theirs:.2f} | {goal} |")
    null.stop()
    lines.append(workers_row(folder, one, supply, rounds, messages))
    one.stop()
    lines.append("\n" + memory_line(folder, supply))
    return "\n".join(lines)


def workers_row(folder: Path, one: Server, supply: Supply, rounds: int, messages: int) -> str:
    """Two workers beside one; the load generator needs a core as well, so this says little on two cores."""
    two = Server("mailback", folder / "two", workers=2)
    rates: dict[Server, list[float]] = {one: [], two: []}
    for _ in range(rounds):
        for server, taken in rates.items():
            taken.append(measure(server, supply, sessions=20, messages=messages, reuse=False))
    two.stop()
    single, double = (statistics.median(taken) for taken in rates.values())
    ratio = double / single
    name = f"two workers beside one ({os.cpu_count()} cores, load generator included), a connection a message"
    return f"| {name} | {single:.0f} | {double:.0f} | {ratio:.2f} | ≥ 1.30 |"


def memory_line(folder: Path, supply: Supply) -> str:
    """Resident memory of a fresh worker: after a hundred messages, after half of them, at the end."""
    server = Server("mailback", folder / "memory")
    sizes = []
    for messages in (100, MEMORY_MESSAGES // 2 - 100, MEMORY_MESSAGES // 2):
        measure(server, supply, sessions=20, messages=messages, reuse=True)
        sizes.append(server.resident_kb() / 1024)
    server.stop()
    return (
        f"Resident memory of the worker after 100, {MEMORY_MESSAGES // 2} and {MEMORY_MESSAGES} messages: "
        f"{sizes[0]:.0f}, {sizes[1]:.0f} and {sizes[2]:.0f} MB (goal: below 120 MB, and flat).\n"
    )


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        kind, port, place, workers = sys.argv[2:]
        if kind == "null":
            serve_null(socket.create_server(("127.0.0.1", int(port)), backlog=1024))
        else:
            serve_mailback(int(port), Path(place), int(workers))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=2000, help="of one round")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="a disk, not a tmpfs")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mailback-bench-", dir=asked.folder))
    try:
        print(table(folder, asked.rounds, asked.messages))
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

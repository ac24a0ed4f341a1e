"""The policy service with 1,000,000 suppressed addresses, beside a bare echo of the same protocol in the same run.

    python bench/policyd.py [--suppressed N] [--seconds S]

The peer reads up to the empty line and answers `action=DUNNO`, no more: what asyncio and the protocol cost by
themselves. Both run on uvloop in a process of their own with one worker, and take the same requests from this process,
over unix sockets, one question at a time on each connection as Postfix asks. Half of the recipients asked about are
suppressed.

`a core` is answers divided by the CPU time of the server: what one core gives when the load generator is not in its
way. Prints Markdown. Exit code 1 when fewer than 5,000 answers a second of one core come out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import signal
import socket
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from mailback.outbound import part
from mailback.store import Store, SuppressionLookup

GOAL = 5000
CONNECTIONS = 8
ROUNDS = 5


class Rate(NamedTuple):
    """Answers a second."""

    wall: float
    core: float


class Echo(asyncio.Protocol):
    """The bare peer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.WriteTransport = transport  # type: ignore[assignment]
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\n\n")) >= 0:
            self.buffer = self.buffer[end + 2 :]
            self.transport.write(b"action=DUNNO\n\n")


async def echo(listener: socket.socket, ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await loop.create_unix_server(Echo, sock=listener)
    ready()
    await stop.wait()


def fill(path: Path, count: int) -> None:
    """`count` suppressed addresses, in no order, as years of bounces leave them."""
    with Store.open(f"sqlite:///{path}") as store:
        store.upgrade()
    numbers = list(range(count))
    random.Random(1).shuffle(numbers)
    since = int(time.time() * 1_000_000)
    with sqlite3.connect(path) as connection:
        connection.executemany(
            "INSERT INTO suppression (address_key, address, scope, reason, type, subcategory, source, since)"
            " VALUES (?, ?, 'all', '', 'hard_bounce', 'user_unknown', 'import', ?)",
            ((who(number), who(number), since) for number in numbers),
        )
    connection.close()


def who(number: int) -> str:
    return f"person.{number}@domain-{number % 997}.example"


def request(recipient: str) -> bytes:
    """What Postfix 3.7 sends at RCPT."""
    return (
        "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=192.0.2.7\n"
        "client_name=client.example\nclient_port=40112\nreverse_client_name=client.example\nserver_address=192.0.2.1\n"
        "server_port=587\nhelo_name=client.example\nsender=news@ours.example\n"
        f"recipient={recipient}\nrecipient_count=0\nqueue_id=\ninstance=1f3a.65a0b1c2.d3e4f.0\nsize=48213\n"
        "etrn_domain=\nstress=\nsasl_method=PLAIN\nsasl_username=news\nsasl_sender=\nccert_subject=\nccert_issuer=\n"
        "ccert_fingerprint=\nccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\n"
        "encryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\npolicy_context=\n\n"
    ).encode()


@contextmanager
def serving(path: Path, serve: Callable[[socket.socket, Callable[[], None]], None]) -> Iterator[int]:
    """Run `serve` in a child on a unix socket; the pid of the child once it answers."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(128)
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        listener.setblocking(False)
        try:
            serve(listener, lambda: (os.write(writable, b"R"), None)[1])
        finally:
            os._exit(0)
    os.close(writable)
    os.read(readable, 1)
    os.close(readable)
    listener.close()
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        path.unlink(missing_ok=True)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(path: Path, pid: int, requests: list[bytes], seconds: float) -> Rate:
    """Ask for about that long, one question at a time on each connection."""
    clients = []
    for _ in range(CONNECTIONS):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        clients.append(client)
    asked, start, cpu = 0, time.perf_counter(), cpu_s(pid)
    while time.perf_counter() - start < seconds:
        for client in clients:
            client.sendall(requests[asked % len(requests)])
            asked += 1
        for client in clients:
            if not client.recv(2000).endswith(b"\n\n"):
                raise SystemExit("an answer without its end")
    took, used = time.perf_counter() - start, cpu_s(pid) - cpu
    for client in clients:
        client.close()
    return Rate(asked / took, asked / used)


def policyd(database: Path) -> Callable[[socket.socket, Callable[[], None]], None]:
    def serve(listener: socket.socket, ready: Callable[[], None]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(part.serve(SuppressionLookup(f"sqlite:///{database}"), [listener], [], ready))

    return serve


def bare(listener: socket.socket, ready: Callable[[], None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(echo(listener, ready))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suppressed", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each of the five rounds of each server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "mailback.db")
        fill(database, options.suppressed)
        chosen = random.Random(2)
        requests = [request(who(chosen.randrange(2 * options.suppressed))) for _ in range(20_000)]
        ours, theirs = Path(folder, "policy"), Path(folder, "bare")
        with serving(ours, policyd(database)) as mine, serving(theirs, bare) as peer:
            rounds = [
                (measure(ours, mine, requests, options.seconds), measure(theirs, peer, requests, options.seconds))
                for _ in range(ROUNDS)
            ]
            memory = int(Path(f"/proc/{mine}/statm").read_text().split()[1]) * resource.getpagesize() // 1_000_000
    policy, plain = (
        Rate(statistics.median(r.wall for r in side), statistics.median(r.core for r in side))
        for side in zip(*rounds, strict=True)
    )
    print("## Policy service\n")
    print(
        f"{options.suppressed:,} suppressed addresses, {CONNECTIONS} connections, one worker, "
        f"median of {ROUNDS} rounds.\n"
    )
    print("| server | answers/s | answers/s of a core | of the bare echo, a core |\n|---|---|---|---|")
    print(f"| policy service | {policy.wall:,.0f} | {policy.core:,.0f} | {policy.core / plain.core:.0%} |")
    print(f"| bare echo of the protocol | {plain.wall:,.0f} | {plain.core:,.0f} | 100% |")
    print(f"\nGoal: {GOAL:,} answers a second of a core. Resident memory of the worker at the end: {memory} MB.\n")
    return 0 if policy.core >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())

"""The milter behind a real Postfix, beside Postfix without one and beside opendkim: `python bench/milter.py` (as root).

One Postfix takes the same mail on several ports: without a milter, with opendkim verifying (a C program on libmilter),
with Mailback reading what comes in (parse, classify, tag, durable commit; and once more with everything on: SPF, DKIM,
DMARC and ARC over warm DNS, signed return paths, the journal), and with Mailback checking the recipients of what goes
out (the check alone, with signed return paths, and with the journal's entry of each message as well). All mail ends in
discard(8), so what is measured is smtpd(8), cleanup(8) and the milter. Rounds are interleaved, each begins with another
case, each case with an idle Postfix, and the median is taken.

What comes in are 6 kB bounces, each about another address: the same one twice would be recorded once and flatter. What
opendkim and Mailback beside it are given is signed (DKIM, RSA-2048, as the large providers sign theirs), so that there
is something to verify; the key is asked of a DNS server on loopback, once. What goes out is sent by Postfix's own
smtp-source to addresses that are on no list, each looked up among `--suppressed` that are.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import uvloop

from mailback.returnpath import Key, Keys, ReturnPaths
from mailback.store import Store
from mailback.store.records import Suppression
from tests.postfix.instance import PrivatePostfix, Smtpd, unavailable
from tests.support.dns import DnsServer, long_txt, txt
from tests.support.mail import dsn
from tests.support.server import free_port, running, wait_for
from tests.support.signing import SigningKey, rsa_key, signed

SESSIONS = 20
DOMAIN = "bounce.sender.test"
INBOUND = ("none", "opendkim", "mailback", "unsigned", "everything")
OUTBOUND = ("none", "outbound", "signing", "journal", "everything out", "policy")
"""Ports of the one Postfix, in the order in which a round of each is sent."""
UNSIGNED_PATH = "bounces@sender.test"
PADDING = 5000
"""Octets of returned body, for a bounce of 6 kB in all."""
ROUND_TIMEOUT_S = 120

OPENDKIM = """\
Mode v
Socket local:{socket}
UMask 000
Syslog no
AlwaysAddARHeader yes
AuthservID mx.sender.test
Nameservers {nameserver}
"""

MAILBACK = """\
[store]
url = "{store}"
[mail]
sending_domains = ["sender.test"]
bounce_domain = "{bounce}"
[milter]
listen = "unix:{socket}"
socket_mode = "0666"
workers = {workers}
[policyd]
listen = "127.0.0.1:{policy}"
[journal]
outbound = {journal}
[policy]
unproven_per_hour = 0
wave_minimum = 0
[auth]
enabled = {authenticate}
nameservers = ["{dns}"]
relays = []
"""
SIGNING = """[signing]
secret_file = "{key}"
"""

Round = Callable[[], float]
"""Sends the messages of one round; messages a second."""
SETTLE_S = 1.0
"""Rest before a round, once the queue of the one before is empty."""


class Bounces(Protocol):
    """Where the bounces of a round come from."""

    def next(self) -> bytes: ...

    def answered(self) -> str:
        """The recipient of the next one."""
        ...


@dataclass(frozen=True)
class Kind:
    """What one `mailback serve` has switched on."""

    journal: bool = False
    signing: bool = False
    authenticate: bool = False


class Supply:
    """Bounces that differ in address and Message-ID: one, with two fields of fixed width put in anew each time."""

    def __init__(self, paths: ReturnPaths | None = None) -> None:
        """`paths` sign where each is sent to."""
        self._paths = paths
        made = dsn("gone-00000000@receiver.test", message_id="<m-00000000@sender.test>", padding=PADDING)
        self._pieces = made.split(b"00000000")
        self._count = 0
        self.size = len(made)

    def next(self) -> bytes:
        self._count += 1
        return (b"%08d" % self._count).join(self._pieces)

    def answered(self) -> str:
        """The return path that the next bounce answers."""
        if self._paths is None:
            return UNSIGNED_PATH
        path = self._paths.sign("news@sender.test", [f"gone-{self._count + 1:08}@receiver.test"])
        assert path is not None
        return path


class Signed:
    """Bounces with a DKIM signature. Made beforehand: to sign one takes longer than all that is measured."""

    def __init__(self, supply: Bounces, key: SigningKey, count: int) -> None:
        self._made = [signed(supply.next(), key, "receiver.test") for _ in range(count)]
        self._count = 0

    def next(self) -> bytes:
        """One after the other, and again from the first."""
        self._count += 1
        return self._made[(self._count - 1) % len(self._made)]

    def answered(self) -> str:
        return UNSIGNED_PATH


class Batch:
    """The messages of one round that are still to be sent, shared by its sessions."""

    def __init__(self, left: int, supply: Bounces) -> None:
        self.left = left
        self.supply = supply

    async def session(self, port: int) -> None:
        """Send until nothing is left, a connection a message."""
        while self.left > 0:
            self.left -= 1
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await answered(reader, b"2")
            to = self.supply.answered()
            bounce = self.supply.next()
            for said, expected in (
                (b"EHLO mx.receiver.test\r\n", b"2"),
                (b"MAIL FROM:<>\r\n", b"2"),
                (f"RCPT TO:<{to}>\r\n".encode(), b"2"),
                (b"DATA\r\n", b"3"),
                (bounce + b".\r\n", b"2"),
                (b"QUIT\r\n", b"2"),
            ):
                writer.write(said)
                await answered(reader, expected)
            writer.close()

    async def run(self, port: int) -> float:
        """Messages a second."""
        messages, began = self.left, time.perf_counter()
        async with asyncio.timeout(ROUND_TIMEOUT_S):
            await asyncio.gather(*(self.session(port) for _ in range(SESSIONS)))
        return messages / (time.perf_counter() - began)


async def answered(reader: asyncio.StreamReader, expected: bytes) -> None:
    """Read one reply, however many lines (RFC 5321 section 4.2.1); SystemExit when it is another than expected."""
    while True:
        line = await reader.readline()
        if line[:1] != expected:
            raise SystemExit(f"answered {line!r}, expected {expected.decode()}xx")
        if line[3:4] != b"-":
            return


def bounces(port: int, messages: int, supply: Bounces) -> float:
    """A round of bounces; messages a second."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Batch(messages, supply).run(port))


def outgoing(port: int, messages: int, letter: Path) -> float:
    """A round of outgoing mail to as many addresses, a connection a message."""
    command = [
        "smtp-source", "-N", "-s", str(SESSIONS), "-m", str(messages), "-f", "news@sender.test",
        "-t", "reader@receiver.test", "-F", str(letter), f"127.0.0.1:{port}",
    ]  # fmt: skip
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ROUND_TIMEOUT_S)
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"smtp-source: {done.stderr[-500:]}")
    return messages / took


def interleaved(rounds: int, cases: Mapping[str, Round], idle: Callable[[], bool]) -> dict[str, float]:
    """The median rate of each case; one round of each before the next of any, after one that does not count.

    What one leaves behind (a queue, a checkpoint) is no burden of the next: `idle` is waited for, and each round begins
    with another case.
    """
    taken: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    for number in range(rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            wait_for(idle, ROUND_TIMEOUT_S, what="the queue is not empty")
            time.sleep(SETTLE_S)
            rate = cases[name]()
            if number:
                taken[name].append(rate)
    return {name: statistics.median(rates) for name, rates in taken.items()}


def fill(store_url: str, count: int) -> None:
    """Suppress `count` addresses, none of which is mailed."""
    store = Store.open(store_url)
    store.upgrade()
    now = datetime.now(UTC)

    def chunk(first: int) -> Callable[[object], None]:
        def work(transaction: object) -> None:
            for number in range(first, min(first + 1000, count)):
                address = f"gone{number}@elsewhere.test"
                suppression = Suppression(address, address, "all", "bench", None, None, "import", now, None)
                transaction.suppress(suppression, "bench")  # type: ignore[attr-defined]

        return work

    for future in [store.submit(chunk(first)) for first in range(0, count, 1000)]:
        future.result()
    store.close()


def start_opendkim(stack: ExitStack, folder: Path, dns: str) -> str:
    """opendkim on a unix socket; its address as Postfix wants it."""
    socket = folder / "opendkim.sock"
    config = folder / "opendkim.conf"
    host, _, port = dns.rpartition(":")
    config.write_text(OPENDKIM.format(socket=socket, nameserver=f"{host}@{port}"))
    process = subprocess.Popen(["opendkim", "-f", "-x", str(config)], stderr=subprocess.DEVNULL)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    wait_for(socket.exists, what="opendkim's socket")
    return f"unix:{socket}"


def start_mailback(
    stack: ExitStack, folder: Path, asked: argparse.Namespace, kind: Kind, dns: str, keys: Keys
) -> tuple[str, int]:
    """`mailback serve`; the milter's address as Postfix wants it, and the policy service's port."""
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "state").mkdir()
    store_url = f"sqlite:///{folder / 'state' / 'mailback.db'}"
    fill(store_url, asked.suppressed)
    config, policy = folder / "mailback.toml", free_port()
    socket = folder / "mailback.sock"
    told = {"store": store_url, "socket": socket, "workers": asked.workers, "policy": policy, "dns": dns}
    text = MAILBACK.format(
        journal=str(kind.journal).lower(), authenticate=str(kind.authenticate).lower(), bounce=DOMAIN, **told
    )
    if kind.signing:
        key = folder / "return-path.key"
        key.write_text(keys.text())
        text += SIGNING.format(key=key)
    config.write_text(text)
    stack.enter_context(running(config))
    return f"unix:{socket}", policy


def measure(folder: Path, asked: argparse.Namespace) -> str:
    keys = Keys((Key(1, date(2026, 1, 1), os.urandom(32)),))
    supply, key = Supply(), rsa_key()
    supplies: dict[str, Bounces] = {
        "none": supply,
        "unsigned": supply,
        "opendkim": Signed(supply, key, asked.messages),
        "mailback": Signed(supply, key, asked.messages * (asked.rounds + 1)),
        "everything": Supply(ReturnPaths(keys, DOMAIN, 14)),
    }
    letter = folder / "letter.eml"
    letter.write_bytes(supply.next().replace(b"\r\n", b"\n"))
    with ExitStack() as stack:
        dns = stack.enter_context(DnsServer())
        for name in ("receiver.test", "mx.receiver.test"):
            dns.add(name, "TXT", txt("v=spf1 ip4:127.0.0.1 -all"))
        dns.add("s1._domainkey.receiver.test", "TXT", long_txt(key.record))
        dns.add("_dmarc.receiver.test", "TXT", txt("v=DMARC1; p=reject"))

        def start(name: str, kind: Kind) -> tuple[str, int]:
            return start_mailback(stack, folder / name, asked, kind, dns.address, keys)

        mailback, policy = start("mailback", Kind())
        remembering, _ = start("remembering", Kind(journal=True))
        signing, _ = start("signing", Kind(signing=True))
        everything, _ = start("everything", Kind(journal=True, signing=True, authenticate=True))
        going_out = {"milter_macro_daemon_name": "ORIGINATING"}
        via_policy = f"check_policy_service {{ inet:127.0.0.1:{policy}, timeout=10s, default_action=DUNNO }}"
        smtpds = {
            "none": Smtpd(),
            "opendkim": Smtpd({"smtpd_milters": start_opendkim(stack, folder, dns.address)}),
            "mailback": Smtpd({"smtpd_milters": mailback}),
            "unsigned": Smtpd({"smtpd_milters": mailback}),
            "everything": Smtpd({"smtpd_milters": everything}),
            "outbound": Smtpd({"smtpd_milters": mailback, **going_out}),
            "signing": Smtpd({"smtpd_milters": signing, **going_out}),
            "journal": Smtpd({"smtpd_milters": remembering, **going_out}),
            "everything out": Smtpd({"smtpd_milters": everything, **going_out}),
            "policy": Smtpd({"smtpd_recipient_restrictions": "$via_policy"}),
        }
        parameters = {
            "default_transport": "discard:",
            "relay_transport": "discard:",
            "via_policy": f"{via_policy}, permit_mynetworks, reject_unauth_destination",
            "milter_default_action": "tempfail",
            "local_header_rewrite_clients": "permit_inet_interfaces",
        }
        postfix = PrivatePostfix(folder / "postfix", smtpds, parameters)
        postfix.start()
        stack.callback(postfix.stop)

        def inbound(name: str) -> Round:
            return lambda: bounces(postfix.port(name), asked.messages, supplies[name])

        def outbound(name: str) -> Round:
            return lambda: outgoing(postfix.port(name), asked.messages, letter)

        came_in = interleaved(asked.rounds, {name: inbound(name) for name in INBOUND}, postfix.idle)
        went_out = interleaved(asked.rounds, {name: outbound(name) for name in OUTBOUND}, postfix.idle)
    return table(came_in, went_out, asked, supply.size)


def table(came_in: Mapping[str, float], went_out: Mapping[str, float], asked: argparse.Namespace, size: int) -> str:
    bare, peer, ours = came_in["none"], came_in["opendkim"], came_in["mailback"]
    plain, checked, policy = went_out["none"], went_out["outbound"], went_out["policy"]
    signing, remembered, everything_out = went_out["signing"], went_out["journal"], went_out["everything out"]
    everything, unsigned = came_in["everything"], came_in["unsigned"]
    how = (
        f"Postfix to discard(8), {SESSIONS} sessions, a connection a message, unix sockets; medians of {asked.rounds} "
        f"interleaved rounds of {asked.messages} messages of {size} octets.\n"
    )
    read = f"{ours:.0f} | {ours / bare:.2f} | {ours / peer:.2f}"
    return "\n".join(
        [
            "## Milter\n",
            how,
            "| what comes in | msg/s | beside no milter | beside opendkim | goal |",
            "|---|---|---|---|---|",
            f"| no milter | {bare:.0f} | 1.00 | {bare / peer:.2f} | |",
            f"| opendkim, verifying | {peer:.0f} | {peer / bare:.2f} | 1.00 | |",
            f"| Mailback: parse, classify, tag, durable commit | {read} | ≥ 1.00 of opendkim |",
            f"| the same, of bounces without a signature | {unsigned:.0f} | {unsigned / bare:.2f} | | |",
            (
                "| Mailback, everything on: also SPF, DKIM, DMARC, ARC, signed return paths | "
                f"{everything:.0f} | {everything / bare:.2f} | | ≥ 0.50 of no milter |"
            ),
            "",
            f"| what goes out, {asked.suppressed} addresses suppressed | msg/s | beside no milter | goal |",
            "|---|---|---|---|",
            f"| no milter | {plain:.0f} | 1.00 | |",
            f"| Mailback, milter at RCPT | {checked:.0f} | {checked / plain:.2f} | ≥ 0.75 |",
            f"| Mailback, milter, signed return paths | {signing:.0f} | {signing / plain:.2f} | |",
            f"| Mailback, milter, and the journal's entry committed | {remembered:.0f} | {remembered / plain:.2f} | |",
            (
                f"| Mailback, milter, signed return paths and the journal | {everything_out:.0f} | "
                f"{everything_out / plain:.2f} | journal ≥ 0.90 of signing alone: {everything_out / signing:.2f} |"
            ),
            f"| Mailback, policy service | {policy:.0f} | {policy / plain:.2f} | |",
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=1000, help="of one round")
    parser.add_argument("--suppressed", type=int, default=100_000, help="addresses on the list")
    parser.add_argument("--workers", type=int, default=1, help="milter processes; Postfix needs cores as well")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="a disk, not a tmpfs")
    asked = parser.parse_args()
    if reason := unavailable():
        print(reason, file=sys.stderr)
        return 1
    if shutil.which("opendkim") is None:
        print("opendkim is not installed (apt-get install opendkim)", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="mailback-bench-", dir=asked.folder))
    folder.chmod(0o755)
    (folder / "postfix").mkdir(mode=0o755)
    try:
        print(measure(folder, asked))
    finally:
        if os.environ.get("KEEP") is None:
            shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

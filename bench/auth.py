"""The full authentication of a DKIM-signed bounce with warm DNS, against dkimpy's bare verification in the same run.

    python bench/auth.py [--seconds 2]

The peer verifies one signature of the same message with the key at hand, and nothing else. Ours splits the message,
evaluates SPF, verifies every signature, looks up the DMARC policy, looks for an ARC chain and writes the
Authentication-Results field; its DNS answers come from the resolver's cache, which a DNS server on loopback filled
before. The goal is 3 ms a message. The row with cold DNS asks that server anew for every message: what is added is the
cost of dnspython and five round trips over loopback, and it has no goal.

Needs the test extra, for dkimpy and the DNS server.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dkim  # type: ignore[import-untyped]

from mailback import message
from mailback.auth import Authenticator, Resolver, Result, returned
from mailback.auth.keys import KeyTable
from mailback.envelope import Envelope
from tests.support.dns import DnsServer, long_txt, txt
from tests.support.mail import dsn
from tests.support.signing import SigningKey, ed25519_key, rsa_key, signed

GOAL_MS = 3.0
_DOMAIN = "receiver.test"
_ENVELOPE = Envelope(sender="", client_address="192.0.2.7", helo="mx.receiver.test")

Work = Callable[[], object]


def milliseconds(works: Sequence[Work], seconds: float) -> list[float]:
    """The median time of each work, in turns, so that noise hits all alike."""
    times: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    end = time.perf_counter() + seconds * len(works)
    while time.perf_counter() < end:
        for told, work in zip(times, works, strict=True):
            started = time.perf_counter()
            work()
            told.append((time.perf_counter() - started) * 1e3)
    return [statistics.median(told) for told in times]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--seconds", type=float, default=2.0, help="for each work of a line of the table")
    seconds = options.parse_args().seconds
    print("## Authentication of a signed bounce, milliseconds a message\n")
    print("| message | dkimpy, signature only | all of ours, warm DNS | ratio | goal | ours, cold DNS |")
    print("|---|---:|---:|---:|---:|---:|")
    with DnsServer() as server:
        server.add("mx.receiver.test", "TXT", txt("v=spf1 ip4:192.0.2.0/24 -all"))
        server.add("_dmarc.receiver.test", "TXT", txt("v=DMARC1; p=reject"))
        for name, key, padding in (
            ("RSA, 2048 bits, 2 kB", rsa_key(), 0),
            ("Ed25519, 2 kB", ed25519_key(), 0),
            ("RSA, 2048 bits, 100 kB", rsa_key(), 98_000),
        ):
            measure(server, name, key, padding, seconds)
    print()
    measure_returned(seconds)


def measure(server: DnsServer, name: str, key: SigningKey, padding: int, seconds: float) -> None:
    selector = f"s{len(server.zone.nodes)}"
    server.add(f"{selector}._domainkey.{_DOMAIN}", "TXT", long_txt(key.record))
    plain = dsn("bob@receiver.test", message_id="<one@sender.test>", padding=padding)
    raw = signed(plain, key, domain=_DOMAIN, selector=selector)
    parsed = message.parse(raw)
    warm = Authenticator(Resolver([server.address]), "mx.our.test")

    def record(*_: object, **__: object) -> bytes:
        return key.record.encode()

    def peer() -> bool:
        return bool(dkim.verify(raw, dnsfunc=record))

    def ours() -> str:
        return warm.check(_ENVELOPE, raw, parsed).header()

    def cold() -> str:
        return Authenticator(Resolver([server.address]), "mx.our.test").check(_ENVELOPE, raw, parsed).header()

    told = warm.check(_ENVELOPE, raw, parsed)
    assert peer()
    assert (told.spf.result, told.dkim[0].result, told.dmarc.result) == (Result.PASS,) * 3
    bare, full, anew = milliseconds([peer, ours, cold], seconds)
    print(f"| {name} | {bare:.2f} | {full:.2f} | {full / bare:.2f} | {GOAL_MS:.0f} | {anew:.2f} |")


def measure_returned(seconds: float) -> None:
    """The proof on a returned header block, its key in a table."""
    print("## Proof on a returned original, milliseconds a header block\n")
    print("| signature | ours |")
    print("|---|---:|")
    for name, key in (("RSA, 2048 bits", rsa_key()), ("Ed25519", ed25519_key())):
        raw = signed(dsn("bob@receiver.test", message_id="<one@sender.test>"), key, domain="sender.test")
        block = raw.partition(b"\r\n\r\n")[0]
        records = KeyTable({"s1._domainkey.sender.test": key.record.encode()}).records

        def proof(block: bytes = block, records: Callable[[str], tuple[bytes, ...]] = records) -> returned.Proof:
            return returned.verify(block, ["sender.test"], records)

        assert proof().result is Result.PASS
        print(f"| {name} | {milliseconds([proof], seconds)[0]:.3f} |")
    print()


if __name__ == "__main__":
    main()

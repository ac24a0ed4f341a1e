"""ARC chains sealed by dkimpy, and all the ways in which a chain can be broken."""

from __future__ import annotations

import re

import pytest

from mailback.auth import arc
from mailback.auth.fields import split
from mailback.auth.resolver import UnansweredError
from mailback.auth.results import Arc, Result
from tests.support.signing import rsa_key, sealed

MAIL = (
    b"From: Ada <ada@sender.test>\r\nTo: list@first.test\r\nSubject: Hello\r\nMessage-ID: <1@sender.test>\r\n"
    b"Date: Sun, 22 Nov 2026 06:30:00 +0000\r\n\r\nHello all,  \r\n\r\n"
)
SERVERS = ("first.test", "second.test", "third.test")


def chain(length: int = 3, raw: bytes = MAIL) -> bytes:
    for place, server in enumerate(SERVERS[:length]):
        state = b"none" if place == 0 else b"pass"
        told = b"Authentication-Results: " + server.encode() + b"; arc=" + state + b"\r\n" if place else (
            b"Authentication-Results: " + server.encode() + b"; spf=pass smtp.mailfrom=sender.test\r\n"
        )  # fmt: skip
        raw = sealed(told + raw, rsa_key(), server, server)
    return raw


def check(raw: bytes, keys: tuple[str, ...] = SERVERS) -> Arc:
    known = {f"s1._domainkey.{domain}": (rsa_key().record.encode(),) for domain in keys}
    return arc.verify(split(raw), lambda name: known.get(name, ()))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_whole_chain_passes_and_names_its_sealers(length: int) -> None:
    told = check(chain(length))
    assert told == Arc(Result.PASS, SERVERS[length - 1], SERVERS[:length])


def test_without_a_chain_there_is_no_result() -> None:
    assert check(MAIL) == Arc(Result.NONE)


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (rb"Subject: Hello", b"Subject: Hallo"),
        (rb"Hello all", b"Hello you"),
        (rb"(?i)ARC-Seal: (?=.*i=1)", b"X-Seal: "),
        (rb"(?i)ARC-Authentication-Results: i=1", b"ARC-Authentication-Results: i=7"),
        (rb"spf=pass", b"spf=fail"),
        (rb"cv=none", b"cv=pass"),
        (rb"cv=pass", b"cv=fail"),
        (rb"cv=pass", b"cv=none"),
        (rb"(?i)ARC-Seal: ", b"ARC-Seal: h=from; "),
        (rb"(?i)ARC-Seal: ", b"ARC-Seal: junk; "),
        (rb"(?i)ARC-Message-Signature: ", b"ARC-Message-Signature: x=1; x=1;"),
        (rb"a=rsa-sha256", b"a=rsa-sha1"),
        (rb"From: Ada", b"From: Eve <eve@evil.test>\r\nFrom: Ada"),
    ],
)
def test_a_broken_chain_fails(pattern: bytes, replacement: bytes) -> None:
    broken, count = re.subn(pattern, replacement, chain(), count=1)
    assert count == 1
    assert check(broken).result is Result.FAIL


def test_a_set_that_was_taken_out_fails_the_chain() -> None:
    raw = chain()
    fields = split(raw).fields
    kept = [(name, value) for name, value in fields if not (name.startswith("ARC-") and b"i=2;" in value)]
    assert len(kept) == len(fields) - 3
    block = b"".join(name.encode() + b":" + value + b"\r\n" for name, value in kept)
    assert check(block + b"\r\n" + raw.partition(b"\r\n\r\n")[2]).result is Result.FAIL


def test_a_seal_by_another_key_fails() -> None:
    assert check(chain(), keys=("first.test", "third.test")).result is Result.FAIL


def test_a_key_that_dns_keeps_from_us_is_a_temporary_error() -> None:
    def records(name: str) -> tuple[bytes, ...]:
        raise UnansweredError(f"no answer for {name}")

    assert arc.verify(split(chain()), records).result is Result.TEMPERROR


@pytest.mark.timeout(30)
@pytest.mark.parametrize("copies", [51, 600])
def test_hundreds_of_sets_are_not_followed(copies: int) -> None:
    fields = chain(1).partition(b"Authentication-Results: first.test; spf")[0].decode()
    sets = "".join(re.sub(r"\bi=1\b", f"i={n}", fields) for n in range(copies, 0, -1)).encode()
    asked: list[str] = []

    def records(name: str) -> tuple[bytes, ...]:
        asked.append(name)
        return ()

    assert arc.verify(split(sets + MAIL), records).result is Result.FAIL
    assert asked == []

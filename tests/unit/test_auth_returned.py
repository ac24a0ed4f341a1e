"""Proof on a returned original: our own signature holds without the body, and nobody else's counts."""

from __future__ import annotations

import re

import pytest

from mailback.auth import returned
from mailback.auth.keys import KeyTable
from mailback.auth.resolver import UnansweredError
from mailback.auth.results import Result
from mailback.auth.returned import Body
from tests.support.signing import SigningKey, ed25519_key, rsa_key, signed

MAIL = (
    b"From: News <news@sender.test>\r\nTo: bob@receiver.test\r\nSubject: The November issue\r\n"
    b"Message-ID: <one@sender.test>\r\nDate: Sun, 22 Nov 2026 06:30:00 +0000\r\nX-Campaign: november\r\n"
    b"\r\nGood morning,\r\n"
)
BODY = MAIL.partition(b"\r\n\r\n")[2]


def table(key: SigningKey | None = None, domain: str = "sender.test") -> KeyTable:
    return KeyTable({f"s1._domainkey.{domain}": (key or rsa_key()).record.encode()})


def block(raw: bytes) -> bytes:
    return raw.partition(b"\r\n\r\n")[0] + b"\r\n"


def prove(header: bytes, body: bytes | None = None, key: SigningKey | None = None) -> returned.Proof:
    return returned.verify(header, ["Sender.test"], table(key).records, body=body)


@pytest.mark.parametrize("key", [rsa_key(), ed25519_key()], ids=["rsa", "ed25519"])
@pytest.mark.parametrize("canonicalization", ["simple/simple", "relaxed/relaxed"])
def test_our_signature_holds_without_the_body(key: SigningKey, canonicalization: str) -> None:
    told = prove(block(signed(MAIL, key, canonicalization=canonicalization)), key=key)
    assert (told.result, told.domain, told.selector, told.body) == (Result.PASS, "sender.test", "s1", Body.ABSENT)
    assert {"from", "to", "message-id", "subject", "date"} <= told.covered
    assert "x-campaign" not in told.covered


@pytest.mark.parametrize(("body", "wanted"), [(BODY, Body.INTACT), (BODY[:5], Body.DIFFERS), (b"", Body.DIFFERS)])
def test_what_came_back_of_the_body_is_told_and_does_not_undo_the_proof(body: bytes, wanted: Body) -> None:
    told = prove(block(signed(MAIL, rsa_key())), body)
    assert (told.result, told.body) == (Result.PASS, wanted)


def test_a_block_with_line_feeds_and_trace_fields_on_top_holds() -> None:
    header = block(signed(MAIL, rsa_key())).replace(b"\r\n", b"\n")
    told = prove(b"Return-Path: <news@sender.test>\nReceived: from a\n\tby b; today\n" + header.rstrip(b"\n"))
    assert told.result is Result.PASS


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (rb"bob@receiver", b"victim@receiver"),
        (rb"<one@", b"<two@"),
        (rb"bh=(\S)", rb"bh=A\1"),
        (rb"\bb=(\S)", rb"b=A\1"),
    ],
)
def test_a_changed_block_proves_nothing(pattern: bytes, replacement: bytes) -> None:
    changed, count = re.subn(pattern, replacement, block(signed(MAIL, rsa_key())), count=1)
    assert count == 1
    assert prove(changed).result is not Result.PASS


def test_the_signature_of_a_stranger_does_not_count() -> None:
    header = block(signed(MAIL, rsa_key(), domain="evil.test"))
    told = returned.verify(header, ["sender.test"], table(domain="evil.test").records)
    assert told.result is Result.NONE
    assert returned.verify(block(MAIL), ["sender.test"], table().records).result is Result.NONE


def test_a_subdomain_of_ours_is_not_ours_unless_it_is_named() -> None:
    header = block(signed(MAIL, rsa_key(), domain="shop.sender.test"))
    keys = table(domain="shop.sender.test").records
    assert returned.verify(header, ["sender.test"], keys).result is Result.NONE
    assert returned.verify(header, ["sender.test", "shop.sender.test"], keys).result is Result.PASS


def test_an_expired_signature_still_shows_that_we_sent_it() -> None:
    import dkim  # type: ignore[import-untyped]

    signer = dkim.DKIM(MAIL)
    original = signer.gen_header

    def expired(fields: list[tuple[bytes, bytes]], *rest: object) -> object:
        fields.insert(0, (b"x", b"1000000001"))
        dated = [(name, b"1000000000" if name == b"t" else value) for name, value in fields]
        return original(dated, *rest)

    signer.gen_header = expired
    raw = signer.sign(b"s1", b"sender.test", rsa_key().private) + MAIL
    assert b"x=1000000001" in raw
    assert prove(block(raw)).result is Result.PASS


def test_a_second_recipient_field_takes_the_first_out_of_the_proof() -> None:
    header = b"To: victim@receiver.test\r\n" + block(signed(MAIL, rsa_key()))
    told = prove(header)
    assert told.result is Result.PASS
    assert "to" not in told.covered
    assert "message-id" in told.covered


def test_a_second_author_undoes_the_proof() -> None:
    assert prove(b"From: x@y.test\r\n" + block(signed(MAIL, rsa_key()))).result is Result.FAIL


def test_the_right_one_of_several_signatures_is_found() -> None:
    raw = signed(signed(signed(MAIL, rsa_key()), ed25519_key(), selector="s9"), rsa_key(), domain="list.test")
    assert prove(block(raw)).result is Result.PASS


def test_a_key_that_dns_keeps_from_us_is_a_temporary_error() -> None:
    def records(name: str) -> tuple[bytes, ...]:
        raise UnansweredError(f"no answer for {name}")

    header = block(signed(MAIL, rsa_key()))
    assert returned.verify(header, ["sender.test"], records).result is Result.TEMPERROR
    assert returned.verify(header, ["sender.test"], table().or_else(records)).result is Result.PASS


@pytest.mark.parametrize(
    "header", [b"", b"\r\n", b"no field", b"X: y\r\n junk\r\nline\r\n", b"\xff" * 100, b":\n" * 99]
)
def test_a_block_of_nonsense_proves_nothing(header: bytes) -> None:
    assert prove(header).result in (Result.NONE, Result.PERMERROR)


def test_hundreds_of_copies_of_our_signature_are_not_all_tried() -> None:
    asked: list[str] = []

    def records(name: str) -> tuple[bytes, ...]:
        asked.append(name)
        return ()

    raw = signed(MAIL, rsa_key())
    copies = raw[: raw.index(b"From: News")] * 200
    assert returned.verify(copies + block(MAIL), ["sender.test"], records).result is Result.PERMERROR
    assert len(asked) == 5

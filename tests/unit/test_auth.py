"""The whole walk over a real DNS server: an honest bounce, forged ones, dead DNS, hostile mail; what is imported."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from mailback import message
from mailback.auth import Authentication, Authenticator, Resolver, Result
from mailback.envelope import Envelope
from tests.support.dns import DnsServer, long_txt, silent_port, txt
from tests.support.mail import dsn, reply
from tests.support.signing import ed25519_key, rsa_key, sealed, signed

CLIENT = "192.0.2.7"
REPORT = dsn("bob@receiver.test", message_id="<one@sender.test>")


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as running:
        running.add("receiver.test", "TXT", txt("v=spf1 ip4:192.0.2.7 -all"))
        running.add("mx.receiver.test", "TXT", txt("v=spf1 ip4:192.0.2.7 -all"))
        running.add("_dmarc.receiver.test", "TXT", txt("v=DMARC1; p=reject; sp=quarantine"))
        running.add("s1._domainkey.receiver.test", "TXT", long_txt(rsa_key().record))
        running.add("s2._domainkey.receiver.test", "TXT", txt(ed25519_key().record))
        yield running


@pytest.fixture
def authenticator(server: DnsServer) -> Authenticator:
    return Authenticator(Resolver([server.address], timeout_s=1.0), "mx.our.test", trusted_ids=["edge.our.test"])


def check(
    authenticator: Authenticator, raw: bytes, sender: str = "", client: str = CLIENT, helo: str = "mx.receiver.test"
) -> Authentication:
    envelope = Envelope(sender=sender, client_address=client, helo=helo)
    return authenticator.check(envelope, raw, message.parse(raw))


def report(selector: str = "s1") -> bytes:
    key = rsa_key() if selector == "s1" else ed25519_key()
    return signed(REPORT, key, domain="receiver.test", selector=selector)


@pytest.mark.parametrize("selector", ["s1", "s2"])
def test_a_bounce_of_an_honest_server_proves_its_domain(authenticator: Authenticator, selector: str) -> None:
    told = check(authenticator, report(selector))
    assert (told.spf.result, told.spf.identity, told.spf.domain) == (Result.PASS, "helo", "mx.receiver.test")
    assert [each.result for each in told.dkim] == [Result.PASS]
    assert (told.dmarc.result, told.dmarc.domain, told.dmarc.policy) == (
        Result.PASS, "mx.receiver.test", "quarantine",
    )  # fmt: skip
    assert told.domains == ("mx.receiver.test", "receiver.test")
    assert told.aligned("receiver.test")
    assert told.aligned("Other.Receiver.TEST.")
    for other in ("evil.test", "notreceiver.test", "test", "", "receiver.test.evil.test", "[192.0.2.7]", "a b"):
        assert not told.aligned(other)


def test_a_forged_bounce_proves_nothing(authenticator: Authenticator) -> None:
    told = check(authenticator, REPORT, client="198.51.100.66")
    assert told.spf.result is Result.FAIL
    assert (told.dmarc.result, told.dmarc.disposition) == (Result.FAIL, "quarantine")
    assert told.domains == ()
    assert not told.aligned("receiver.test")


def test_a_forger_with_a_good_domain_of_his_own_does_not_align(server: DnsServer, authenticator: Authenticator) -> None:
    server.add("evil.test", "TXT", txt("v=spf1 +all"))
    server.add("s1._domainkey.evil.test", "TXT", long_txt(rsa_key().record))
    raw = signed(REPORT, rsa_key(), domain="evil.test")
    told = check(authenticator, raw, sender="x@evil.test", client="198.51.100.66")
    assert told.spf.result is told.dkim[0].result is Result.PASS
    assert told.dmarc.result is Result.FAIL
    assert told.aligned("evil.test")
    assert not told.aligned("receiver.test")


def test_the_event_keeps_results_and_domains_only(authenticator: Authenticator) -> None:
    kept = check(authenticator, report()).to_dict()
    assert json.loads(json.dumps(kept)) == {
        "spf": {"result": "pass", "domain": "mx.receiver.test", "identity": "helo"},
        "dkim": [{"result": "pass", "domain": "receiver.test", "selector": "s1"}],
        "dmarc": {"result": "pass", "domain": "mx.receiver.test", "policy": "quarantine", "disposition": "none"},
    }


def test_a_message_by_a_forwarder_has_its_chain(server: DnsServer, authenticator: Authenticator) -> None:
    server.add("s1._domainkey.list.test", "TXT", long_txt(rsa_key().record))
    raw = sealed(b"Authentication-Results: list.test; spf=pass\r\n" + report(), rsa_key(), "list.test", "list.test")
    told = check(authenticator, raw, sender="owner@list.test")
    assert (told.arc.result, told.arc.sealers) == (Result.PASS, ("list.test",))
    assert not told.aligned("list.test")
    assert told.to_dict()["arc"] == {"result": "pass", "sealers": ["list.test"]}


@pytest.mark.timeout(30)
def test_dead_dns_costs_the_budget_and_gives_temporary_errors() -> None:
    with silent_port() as dead:
        resolver = Resolver([f"127.0.0.1:{dead.getsockname()[1]}"], timeout_s=600.0, budget_s=0.6)
        authenticator = Authenticator(resolver, "mx.our.test")
        told = check(authenticator, report())
    assert {told.spf.result, told.dkim[0].result, told.dmarc.result} == {Result.TEMPERROR}
    assert told.domains == ()
    assert told.header().count("=temperror") == 3


def test_an_upstream_is_believed_only_where_configured(server: DnsServer, authenticator: Authenticator) -> None:
    raw = (
        b"Authentication-Results: edge.our.test;\r\n\tdkim=pass header.d=receiver.test\r\n"
        b"Authentication-Results: elsewhere.test; dkim=pass header.d=victim.test\r\n" + REPORT
    )
    parsed = message.parse(raw)
    told = authenticator.upstream(parsed)
    assert told is not None
    assert told.domains == ("receiver.test",)
    strict = Authenticator(Resolver([server.address]), "mx.our.test")
    assert strict.upstream(parsed) is None


def test_an_encoded_name_is_not_the_name_of_a_trusted_server(authenticator: Authenticator) -> None:
    posing = b"Authentication-Results: =?us-ascii?q?edge.our.test=3B?= dkim=pass header.d=victim.test\r\n"
    assert authenticator.upstream(message.parse(posing + REPORT)) is None
    ours = posing.replace(b"edge", b"mx")
    assert authenticator.forged(message.parse(ours + REPORT)) == (1,)


def test_fields_that_bear_our_name_are_to_be_removed(authenticator: Authenticator) -> None:
    raw = b"Authentication-Results: a.test; none\r\nAuthentication-Results: MX.our.test;\r\n dkim=pass\r\n" + REPORT
    assert authenticator.forged(message.parse(raw)) == (2,)


@pytest.mark.parametrize("name", ["", "mx our", "mx;our", "mx\r\nour", 'mx"', "mx(our)", "a/b"])
def test_a_name_that_cannot_stand_in_the_field_is_refused(server: DnsServer, name: str) -> None:
    with pytest.raises(ValueError, match="authserv-id"):
        Authenticator(Resolver([server.address]), name)


# --- Tricks -----------------------------------------------------------------------------------------------------------


def test_two_from_fields_are_nobodys_message(authenticator: Authenticator) -> None:
    told = check(authenticator, b"From: president@victim.test\r\n" + report())
    assert told.dmarc.result is Result.PERMERROR
    assert told.dkim[0].result is Result.FAIL


@pytest.mark.parametrize(
    "lead",
    [
        b"From : a@victim.test\r\n",
        b"From: a@victim.test\r\rX: y\r\n",
        b"X: y\r\nno field\r\nFrom: a@victim.test\r\n",
        b" folded\r\nFrom: a@victim.test\r\n",
        b"From\x00: a@victim.test\r\n",
        b"\xef\xbb\xbfFrom: a@victim.test\r\n",
        b"X: y\rFrom: a@victim.test\r\n",
        b"\r\nFrom: a@victim.test\r\n",
    ],
)
def test_an_author_that_only_one_reader_sees_is_not_authenticated(authenticator: Authenticator, lead: bytes) -> None:
    told = check(authenticator, lead + report())
    assert told.dmarc.result is Result.PERMERROR


def test_a_message_from_a_public_suffix_is_spoken_for_by_nobody(
    server: DnsServer, authenticator: Authenticator
) -> None:
    server.add("_dmarc.co.uk", "TXT", txt("v=DMARC1; p=reject"))
    server.add("s1._domainkey.evil.co.uk", "TXT", long_txt(rsa_key().record))
    told = check(authenticator, signed(reply("ada@co.uk", message_id="<1@co.uk>"), rsa_key(), domain="evil.co.uk"))
    assert told.dkim[0].result is Result.PASS
    assert told.dmarc.result is Result.FAIL
    assert not told.aligned("co.uk")


def test_control_characters_of_a_message_do_not_reach_the_header(authenticator: Authenticator) -> None:
    raw = report().replace(b"d=receiver.test", b"d=receiver.test\x1b[31m").replace(b"s=s1", b's=s1"(;x')
    value = check(authenticator, raw, sender='"a\r\nX-Evil: 1"@evil.test\r\nX-Evil: 2', helo="h\r\nX-Evil: 3").header()
    assert "\r" not in value
    assert not [line for line in value.split("\n")[1:] if not line.startswith("\t")]
    assert "\x1b" not in value


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "raw",
    [b"", b"\r\n", b"\x00" * 1000, b"From: a@b.test", b"DKIM-Signature:\r\n\r\n", b"ARC-Seal: i=1\r\nFrom: x\r\n\r\n",
     b"DKIM-Signature: v=1; a=rsa-sha256; d=" + b"x." * 5000 + b"\r\nFrom: x\r\n\r\n", b"X: " + b"y" * 10_000_000,
     b"DKIM-Signature: v=1\r\n" * 100_000],
    ids=range(9),
)  # fmt: skip
def test_nonsense_is_judged_without_an_exception(authenticator: Authenticator, raw: bytes) -> None:
    told = check(authenticator, raw, sender="", helo="")
    assert told.domains == ()
    assert told.header().startswith("mx.our.test;")


def test_many_threads_check_at_once(authenticator: Authenticator) -> None:
    raw = report()
    wrong: list[object] = []

    def run() -> None:
        for _ in range(20):
            told = check(authenticator, raw)
            if told.dmarc.result is not Result.PASS:
                wrong.append(told)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_records_are_frozen(authenticator: Authenticator) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        check(authenticator, REPORT).authserv_id = "x"  # type: ignore[misc]


def test_heavy_libraries_are_imported_by_the_first_message_only() -> None:
    program = "import sys, mailback.auth, mailback.auth.returned; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert not {"spf", "dns", "cryptography", "publicsuffixlist", "dkim", "authres", "nacl"} & set(loaded)


def test_what_a_record_said_of_a_server_a_moment_ago_holds_for_its_next_message(
    authenticator: Authenticator, server: DnsServer
) -> None:
    first = check(authenticator, REPORT)
    server.err("mx.receiver.test", "servfail")
    authenticator._resolver._cache.clear()
    assert check(authenticator, REPORT).spf == first.spf
    assert check(authenticator, REPORT, client="203.0.113.9").spf.result is Result.TEMPERROR


def test_a_temporary_error_is_not_held_against_the_next_message(
    authenticator: Authenticator, server: DnsServer
) -> None:
    server.err("mx.receiver.test", "servfail")
    assert check(authenticator, REPORT).spf.result is Result.TEMPERROR
    server.heal()
    authenticator._resolver._cache.clear()
    assert check(authenticator, REPORT).spf.result is Result.PASS

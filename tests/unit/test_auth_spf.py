"""SPF over a real DNS server: the public vectors of RFC 7208, and what a hostile record may cost."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailback.auth import spf
from mailback.auth.resolver import Resolver
from mailback.auth.results import Result, Spf
from mailback.envelope import Envelope
from tests.support.dns import DnsServer, long_txt, silent_port, txt

VECTORS = "rfc7208-tests.yml"
VECTORS_FOLDER = Path(__file__).resolve().parents[2] / ".stamps" / "pyspf"
"""Where the Makefile puts pyspf's source package, when it installs what the tests need."""


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as running:
        yield running


def check(server: DnsServer, sender: str, client: str = "192.0.2.1", helo: str = "mx.client.test") -> Spf:
    envelope = Envelope(sender=sender, client_address=client, helo=helo)
    resolver = Resolver([server.address], timeout_s=1.0, budget_s=3.0)
    return spf.evaluate(envelope, resolver.lookups(), "mx.receiver.test")


# --- The public vectors -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vectors() -> list[dict[str, Any]]:
    """The scenarios, from pyspf's source package; they are not ours to copy."""
    import yaml  # type: ignore[import-untyped]

    archive = next(VECTORS_FOLDER.glob("*.tar.gz"), None)
    if archive is None:
        pytest.skip("the public SPF vectors come with pyspf's source package: `make test` fetches it")
    with tarfile.open(archive) as packed:
        member = next(m for m in packed.getmembers() if m.name.endswith(f"/{VECTORS}"))
        content = packed.extractfile(member)
        assert content is not None
        return [scenario for scenario in yaml.safe_load_all(content.read()) if scenario]


def _serve(server: DnsServer, zone: dict[str, Any]) -> None:
    """A scenario's zone. `TIMEOUT` fails what is not there; SPF records stand for TXT where there is no TXT."""
    for name, entries in zone.items():
        kinds = {kind for entry in entries if isinstance(entry, dict) for kind in entry}
        for entry in entries:
            if entry == "TIMEOUT":
                server.err(name, "servfail")
                continue
            for kind, value in entry.items():
                _serve_record(server, name, kind, value, spf_only="TXT" not in kinds)


def _serve_record(server: DnsServer, name: str, kind: str, value: Any, *, spf_only: bool) -> None:
    if value == "TIMEOUT":
        server.err(name, "servfail", kind=kind)
    elif kind in ("SPF", "TXT"):
        if value != "NONE" and (kind == "TXT" or spf_only):
            strings = [value] if isinstance(value, str) else value
            _add(server, name, "TXT", txt(*(s.encode() for s in strings or [""])))
    elif kind == "MX":
        _add(server, name, "MX", f"{value[0]} {value[1].rstrip('.')}.")
    elif kind in ("PTR", "CNAME"):
        _add(server, name, kind, f"{value.rstrip('.')}.")
    else:
        _add(server, name, kind, value)


def _add(server: DnsServer, name: str, kind: str, value: str) -> None:
    """A record, which is there whatever a TIMEOUT entry says of the rest of the name."""
    server.add(name, kind, value)
    server.err(name, "", kind=kind)


def test_the_public_vectors_of_rfc_7208(vectors: list[dict[str, Any]]) -> None:
    wrong: list[str] = []
    count = 0
    for scenario in vectors:
        with DnsServer(loops_answered=True) as server:
            _serve(server, scenario["zonedata"])
            for name, test in scenario["tests"].items():
                count += 1
                told = check(server, test["mailfrom"], test["host"], test["helo"])
                wanted = test["result"] if isinstance(test["result"], list) else [test["result"]]
                if told.result.value not in wanted:
                    wrong.append(f"{scenario['description']}/{name}: {told.result} ({told.reason}), not {wanted}")
    assert count > 150
    assert wrong == []


# --- Identities -------------------------------------------------------------------------------------------------------


def test_the_null_sender_is_checked_by_its_helo_name(server: DnsServer) -> None:
    server.add("mx.client.test", "TXT", txt("v=spf1 ip4:192.0.2.1 -all"))
    told = check(server, "")
    assert (told.result, told.domain, told.identity) == (Result.PASS, "mx.client.test", "helo")
    assert check(server, "", client="192.0.2.2").result is Result.FAIL


@pytest.mark.parametrize("helo", ["", "localhost", "[192.0.2.1]", "a b.test", "-.test", "x" * 300 + ".test"])
def test_a_helo_that_is_no_domain_has_no_result(server: DnsServer, helo: str) -> None:
    assert check(server, "", helo=helo).result is Result.NONE
    assert server.questions == []


def test_the_domain_of_a_sender_is_looked_up_as_a_labels(server: DnsServer) -> None:
    server.add("xn--bcher-kva.test", "TXT", txt("v=spf1 ip4:192.0.2.1 -all"))
    told = check(server, "leser@Bücher.test")
    assert (told.result, told.domain) == (Result.PASS, "xn--bcher-kva.test")


def test_an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client(server: DnsServer) -> None:
    server.add("a.test", "TXT", txt("v=spf1 ip4:192.0.2.1 -all"))
    assert check(server, "x@a.test", client="::ffff:192.0.2.1").result is Result.PASS


@pytest.mark.parametrize("client", ["", "unknown", "192.0.2.1.5", "localhost"])
def test_without_a_client_address_there_is_no_result(server: DnsServer, client: str) -> None:
    server.add("a.test", "TXT", txt("v=spf1 +all"))
    assert check(server, "x@a.test", client=client).result is Result.NONE


def test_plus_signs_of_the_local_part_reach_the_macro_as_they_are(server: DnsServer) -> None:
    server.add("a.test", "TXT", txt("v=spf1 exists:%{l}._spf.a.test -all"))
    server.add("bounce+1=b._spf.a.test", "A", "127.0.0.2")
    assert check(server, "bounce+1=b@a.test").result is Result.PASS


# --- Hostile records --------------------------------------------------------------------------------------------------


def test_an_include_loop_ends_as_a_permanent_error(server: DnsServer) -> None:
    server.add("a.test", "TXT", txt("v=spf1 include:b.test -all"))
    server.add("b.test", "TXT", txt("v=spf1 include:a.test -all"))
    assert check(server, "x@a.test").result is Result.PERMERROR
    assert len(server.questions) <= 3


def test_a_redirect_loop_ends_as_a_permanent_error(server: DnsServer) -> None:
    server.add("a.test", "TXT", txt("v=spf1 redirect=b.test"))
    server.add("b.test", "TXT", txt("v=spf1 redirect=a.test"))
    assert check(server, "x@a.test").result is Result.PERMERROR


def test_the_eleventh_look_up_is_a_permanent_error(server: DnsServer) -> None:
    server.add("a.test", "TXT", long_txt("v=spf1 " + " ".join(f"a:h{n}.test" for n in range(11)) + " +all"))
    for number in range(11):
        server.add(f"h{number}.test", "A", "198.51.100.1")
    assert check(server, "x@a.test").result is Result.PERMERROR


def test_the_third_look_up_that_finds_nothing_is_a_permanent_error(server: DnsServer) -> None:
    server.add("a.test", "TXT", txt("v=spf1 a:h1.test a:h2.test a:h3.test +all"))
    assert check(server, "x@a.test").result is Result.PERMERROR
    server.add("b.test", "TXT", txt("v=spf1 a:h1.test a:h2.test +all"))
    assert check(server, "x@b.test").result is Result.PASS


def test_mx_records_cannot_multiply_questions_without_end(server: DnsServer) -> None:
    server.add("a.test", "TXT", txt("v=spf1 " + " ".join(f"mx:m{n}.test" for n in range(10)) + " +all"))
    for number in range(10):
        server.add(f"m{number}.test", "MX", *(f"10 h{number}-{n}.test." for n in range(10)))
        for n in range(10):
            server.add(f"h{number}-{n}.test", "A", "198.51.100.1")
    assert check(server, "x@a.test").result is Result.TEMPERROR
    assert len(server.questions) == 100


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 " + "a" * 3900,
        "v=spf1 a:" + "a" * 3900,
        "v=spf1 a:" + "a." * 1900,
        "v=spf1 exists:%{l" + "9" * 3000 + "}.test -all",
        "v=spf1 exists:" + "%{s}" * 900 + ".test -all",
        "v=spf1 " + "?all " * 700,
        "v=spf1 " + "x=%{d}" * 500,
        "v=spf1 ip4:" + "1" * 3900,
        "v=spf1 ip6:" + ":" * 3900,
        "v=spf1 exp=" + "%{d}." * 600 + " -all",
    ],
)
def test_a_long_hostile_record_comes_to_an_end(server: DnsServer, record: str) -> None:
    server.add("a.test", "TXT", long_txt(record))
    check(server, "x@a.test")
    check(server, "x@a.test")


def test_a_record_of_many_kilobytes_is_not_evaluated(server: DnsServer) -> None:
    server.add("a.test", "TXT", long_txt("v=spf1 " + "ip4:192.0.2.1 " * 1000 + "+all"))
    assert check(server, "x@a.test").result is Result.PERMERROR


def test_octets_that_are_no_ascii_are_a_permanent_error(server: DnsServer) -> None:
    server.add("a.test", "TXT", long_txt(b"v=spf1 a:\xff\xfe -all"))
    assert check(server, "x@a.test").result is Result.PERMERROR


def test_what_a_domain_publishes_as_explanation_is_not_repeated(server: DnsServer) -> None:
    server.add("a.test", "TXT", txt("v=spf1 -all exp=e.a.test"))
    server.add("e.a.test", "TXT", txt("Call 555-0100 now"))
    told = check(server, "x@a.test")
    assert told.result is Result.FAIL
    assert "555" not in told.reason


@pytest.mark.timeout(30)
def test_a_dead_dns_server_gives_a_temporary_error_within_the_budget() -> None:
    with silent_port() as dead:
        resolver = Resolver([f"127.0.0.1:{dead.getsockname()[1]}"], timeout_s=600.0, budget_s=0.5)
        envelope = Envelope(sender="x@a.test", client_address="192.0.2.1")
        assert spf.evaluate(envelope, resolver.lookups(), "mx").result is Result.TEMPERROR

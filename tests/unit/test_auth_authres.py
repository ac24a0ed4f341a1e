"""Authentication-Results: ours can be read by others and injected into by nobody; forged ones are told from trusted."""

from __future__ import annotations

import re

import authres as peer  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailback.auth import authres
from mailback.auth.results import Arc, Authentication, Dkim, Dmarc, Result, Spf

FULL = Authentication(
    "mx.receiver.test",
    Spf(Result.PASS, "sender.test", "mailfrom", "bounce+1=b@sender.test", "matched ip4"),
    (
        Dkim(Result.PASS, "sender.test", "s1", "rsa-sha256", 2048, "AbCd+/12"),
        Dkim(Result.FAIL, "list.test", "s2", "ed25519-sha256", 256, "zzzzzzzz", "the body was changed"),
    ),
    Dmarc(Result.PASS, "sender.test", "reject", "none", "sender.test"),
    Arc(Result.PASS, "list.test", ("list.test",)),
)


def unfolded(value: str) -> str:
    return value.replace("\n\t", " ")


def test_what_we_write_says_everything_and_is_folded() -> None:
    value = FULL.header()
    assert value.splitlines() == [
        "mx.receiver.test;",
        "\tspf=pass smtp.mailfrom=bounce+1=b@sender.test;",
        "\tdkim=pass header.d=sender.test header.s=s1 header.a=rsa-sha256",
        '\theader.b="AbCd+/12";',
        '\tdkim=fail reason="the body was changed" header.d=list.test header.s=s2',
        "\theader.a=ed25519-sha256 header.b=zzzzzzzz;",
        "\tdmarc=pass header.from=sender.test policy.dmarc=none;",
        "\tarc=pass",
    ]


def test_another_implementation_reads_what_we_write() -> None:
    read = peer.AuthenticationResultsHeader.parse(f"Authentication-Results: {unfolded(FULL.header())}")
    assert read.authserv_id == "mx.receiver.test"
    assert [(each.method, each.result) for each in read.results] == [
        ("spf", "pass"), ("dkim", "pass"), ("dkim", "fail"), ("dmarc", "pass"), ("arc", "pass"),
    ]  # fmt: skip
    told = {(p.type, p.name): p.value for p in read.results[1].properties}
    assert told["header", "d"] == "sender.test"
    assert told["header", "b"] == "AbCd+/12"


def test_a_message_without_anything_says_none() -> None:
    assert unfolded(Authentication("mx.test").header()) == "mx.test; spf=none; dkim=none; dmarc=none"


def test_we_read_what_we_write() -> None:
    read = authres.trusted([unfolded(FULL.header())], ["MX.Receiver.test"])
    assert read is not None
    assert read.authserv_id == "mx.receiver.test"
    assert (read.spf.result, read.spf.domain, read.spf.address) == (
        Result.PASS, "sender.test", "bounce+1=b@sender.test",
    )  # fmt: skip
    assert [(d.result, d.domain, d.selector) for d in read.dkim] == [
        (Result.PASS, "sender.test", "s1"), (Result.FAIL, "list.test", "s2"),
    ]  # fmt: skip
    assert (read.dmarc.result, read.dmarc.domain, read.dmarc.disposition) == (Result.PASS, "sender.test", "none")
    assert read.arc.result is Result.PASS
    assert read.aligned("www.sender.test")
    assert not read.aligned("list.test")


# --- Injection --------------------------------------------------------------------------------------------------------

INJECTIONS = [
    "a.test\r\nX-Evil: 1", "a.test\nX-Evil: 1", "a.test; dkim=pass header.d=victim.test", 'a.test" ; dkim=pass',
    "a.test (", "a.test\\", "a.test\x00\x1b[31m", "ä.test", "a.test\u2028b", "a b", "", '"', "a" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", INJECTIONS)
def test_nothing_of_a_stranger_adds_a_line_or_a_result(text: str) -> None:
    told = Authentication(
        "mx.test",
        Spf(Result.FAIL, text, "mailfrom", f"{text}@{text}", text),
        (Dkim(Result.FAIL, text, text, text, 0, text, text),),
        Dmarc(Result.FAIL, text, text, text, text, text),
        Arc(Result.FAIL, text, (text,), text),
    )
    value = told.header()
    assert all(32 <= ord(letter) < 127 or letter in "\n\t" for letter in value)
    assert re.search(r"\n(?!\t)", value) is None
    assert max(map(len, value.split("\n"))) < 998
    read = authres.results(unfolded(value))
    assert [(each.method, each.result) for each in read] == [(m, "fail") for m in ("spf", "dkim", "dmarc", "arc")]


@given(st.text(max_size=60))
def test_no_text_at_all_gets_out_of_its_value(text: str) -> None:
    value = unfolded(Authentication("mx.test", Spf(Result.FAIL, text, "mailfrom", f"{text}@x", text)).header())
    read = peer.AuthenticationResultsHeader.parse(f"Authentication-Results: {value}")
    assert [(each.method, each.result) for each in read.results] == [
        ("spf", "fail"), ("dkim", "none"), ("dmarc", "none"),
    ]  # fmt: skip


# --- Fields of others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["mx.test; dkim=pass", "MX.Test; dkim=pass", " mx.test 1; dkim=pass", '"mx.test"; dkim=pass', "mx.test",
     "mx.test;none", "(a comment) mx.test; dkim=pass", "(nested (one)) mx.test (x); dkim=pass", "mx.test. ; dkim=pass",
     "other mx.test; dkim=pass", "( mx.test ; dkim=pass", "mx.test/1; dkim=pass", '"mx.test; dkim=pass',
     f"({'x' * 20_000})mx.test; dkim=pass"],
)  # fmt: skip
def test_a_field_that_bears_our_name_goes(value: str) -> None:
    assert authres.claims(value, "mx.test")


@pytest.mark.parametrize(
    "value", ["", "mx.test.evil.test; dkim=pass", "amx.test; x=pass", "other.test; spf=pass mx.test"]
)
def test_a_field_that_does_not_bear_our_name_stays(value: str) -> None:
    assert not authres.claims(value, "mx.test")


@pytest.mark.parametrize(
    ("octets", "ours"),
    [
        (b" MX.Test;\r\n\tdkim=pass", True),
        (b" =?us-ascii?q?mx.test=3B?= dkim=pass", True),
        (b" (\xff) mx.test; none", True),
        (b" =?us-ascii?q?other.test=3B?= dkim=pass", False),
        (b" spf=pass (sender IP is 192.0.2.1) smtp.helo=mx.test; dkim=none", False),
        (b" \xff\xfe", False),
    ],
)
def test_a_field_poses_as_ours_in_whatever_way_a_reader_might_take_it(octets: bytes, ours: bool) -> None:
    assert authres.poses(octets, "MX.test") == ours


def test_fields_to_remove_are_counted_from_the_top() -> None:
    values = ["a.test; spf=pass", "mx.test; spf=pass", "b.test; spf=pass", "MX.TEST 1; none"]
    assert authres.forged(values, "mx.test") == (2, 4)


def test_only_the_topmost_field_of_a_trusted_server_is_believed() -> None:
    values = [
        "other.test; dkim=pass header.d=victim.test",
        "edge.test; dkim=fail header.d=sender.test",
        "edge.test; dkim=pass header.d=victim.test",
    ]
    read = authres.trusted(values, ["edge.test"])
    assert read is not None
    assert [(d.result, d.domain) for d in read.dkim] == [(Result.FAIL, "sender.test")]
    assert authres.trusted(values, []) is None
    assert authres.trusted(["edge.test.evil.test; dkim=pass"], ["edge.test"]) is None


READINGS = [
    ("e.test; none", []),
    ("e.test", []),
    ("e.test 1; dkim = pass (good) header.d = a.test", [("dkim", "pass", {"header.d": "a.test"})]),
    ("e.test; DKIM/1=PASS Header.D=a.test", [("dkim", "pass", {"header.d": "a.test"})]),
    ('e.test; spf=pass reason="so; be it" smtp.mailfrom="a b"@x', [("spf", "pass", {"smtp.mailfrom": "a b"})]),
    ("e.test; spf=pass (a; dkim=pass header.d=v.test)", [("spf", "pass", {})]),
    ("e.test; spf=pass (never closed; dkim=pass header.d=v.test", [("spf", "pass", {})]),
    ("e.test; spf=pass smtp.mailfrom=b+u=v.test@a.test", [("spf", "pass", {"smtp.mailfrom": "b+u=v.test@a.test"})]),
    ("e.test;;; spf=pass;", [("spf", "pass", {})]),
    ('e.test; spf=fail reason="\\"; dkim=pass"', [("spf", "fail", {})]),
    ("e.test; spf=fail header.d=a.test header.d=b.test", [("spf", "fail", {"header.d": "a.test"})]),
]


@pytest.mark.parametrize(("value", "wanted"), READINGS)
def test_what_a_field_tells(value: str, wanted: list[tuple[str, str, dict[str, str]]]) -> None:
    assert [(each.method, each.result, each.properties) for each in authres.results(value)] == wanted


def test_unknown_results_are_passed_over() -> None:
    read = authres.trusted(["e.test; dkim=great header.d=a.test; spf=hardfail; dmarc=bestguesspass"], ["e.test"])
    assert read == Authentication("e.test")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("piece", ["(", '"', "a=", "=", ";", "\\", "a=b ", '("', "a" * 50, 'a="', "\t ="])
def test_a_hostile_field_is_read_in_linear_time(piece: str) -> None:
    value = "e.test;" + piece * (100_000 // len(piece))
    authres.trusted([value], ["e.test"])
    authres.claims(value, "mx.test")


def test_spf_alone_speaks_for_the_envelope_sender_and_for_no_neighbour() -> None:
    told = Authentication("mx.test", spf=Spf(Result.PASS, "receiver.test"))
    assert told.wrote("ada@receiver.test", "Ada@receiver.test")
    assert not told.wrote("victim@receiver.test", "mallory@receiver.test")
    assert not told.wrote("ada@elsewhere.test", "ada@elsewhere.test")
    signed = Authentication("mx.test", dkim=(Dkim(Result.PASS, "receiver.test"),))
    assert signed.wrote("ada@receiver.test", "")

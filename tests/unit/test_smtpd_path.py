"""Envelope addresses and parameters: what is taken, what is refused, and that hostile ones cost nothing."""

from __future__ import annotations

import pytest

from mailback_smtpd.path import PathSyntax, forward_path, reverse_path


@pytest.mark.parametrize(
    ("argument", "address"),
    [
        ("FROM:<>", ""),
        ("from:<a@b.test>", "a@b.test"),
        ("FROM: <a@b.test>", "a@b.test"),
        ("FROM:a@b.test", "a@b.test"),
        ("FROM:<@relay.test,@other.test:a@b.test>", "a@b.test"),
        ('FROM:<"john doe"@b.test>', '"john doe"@b.test'),
        (r'FROM:<"a\"b@c"@b.test>', r'"a\"b@c"@b.test'),
        ("FROM:<bounce+news=ada=example.com@b.test>", "bounce+news=ada=example.com@b.test"),
        ("FROM:<SRS0=HHH=TT=example.com=ada@b.test>", "SRS0=HHH=TT=example.com=ada@b.test"),
        ("FROM:<prvs=123=ada/x@b.test>", "prvs=123=ada/x@b.test"),
        ("FROM:<a..b.@docomo.test>", "a..b.@docomo.test"),
        ("FROM:<a@[192.0.2.1]>", "a@[192.0.2.1]"),
        ("FROM:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
        ("FROM:<josé@bücher.test>", "josé@bücher.test"),
        ("FROM:<a@host_with_underscore.test>", "a@host_with_underscore.test"),
    ],
)
def test_addresses_as_real_mail_systems_write_them_are_taken(argument: str, address: str) -> None:
    assert reverse_path(argument).address == address


@pytest.mark.parametrize(
    "argument",
    [
        None,
        "",
        "TO:<a@b.test>",
        "FROM",
        "FROM:",
        "FROM:<a@b.test",
        "FROM:a@b.test>",
        "FROM:<a b@c.test>",
        "FROM:<a@b.test>SIZE=1",
        "FROM:<a@b@c.test>",
        "FROM:<a@>",
        "FROM:<@b.test>",
        "FROM:<a@b..test>",
        "FROM:<a\0@b.test>",
        "FROM:<a\x1b[2J@b.test>",
        "FROM:<a@b.test> SIZE=1 SIZE=2",
        "FROM:<a@b.test> =1",
        "FROM:<a@b.test> SIZE=",
        "FROM:<" + "a" * 256 + "@b.test>",
        "FROM:<a@" + "b." * 300 + "test>",
        "FROM:<Postmaster>",
        "FROM:<a\u2028b@c.test>",
    ],
)
def test_what_is_no_path_is_refused(argument: str | None) -> None:
    with pytest.raises(PathSyntax):
        reverse_path(argument)


def test_postmaster_needs_no_domain_as_a_recipient() -> None:
    assert forward_path("TO:<PostMaster>").address == "PostMaster"


def test_a_recipient_may_not_be_null() -> None:
    with pytest.raises(PathSyntax):
        forward_path("TO:<>")


def test_parameters_are_read_with_their_values() -> None:
    path = reverse_path("FROM:<> size=100 BODY=8BITMIME SMTPUTF8")
    assert path.parameters == {"SIZE": "100", "BODY": "8BITMIME", "SMTPUTF8": None}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("hostile", ["a." * 1000, '"' + "\\a" * 1000, "@a,@b" * 400, "<" * 2000, "a@" + "b." * 1000])
def test_hostile_addresses_are_refused(hostile: str) -> None:
    for _ in range(20):
        with pytest.raises(PathSyntax):
            reverse_path(f"FROM:<{hostile}")


def test_the_text_of_a_refusal_repeats_nothing_of_what_was_sent() -> None:
    with pytest.raises(PathSyntax) as refused:
        reverse_path("FROM:<evil\x1b@b.test")
    assert "evil" not in str(refused.value)

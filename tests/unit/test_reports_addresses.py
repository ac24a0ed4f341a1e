"""Addresses as reports write them."""

from __future__ import annotations

import pytest

from mailback.reports import addresses


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("rfc822; user@a.example", ("rfc822", "user@a.example")),
        ("RFC822;<user@a.example>", ("rfc822", "user@a.example")),
        ("user@a.example", ("", "user@a.example")),
        ("rfc822; user@a.example (Some User)", ("rfc822", "user@a.example")),
        ("rfc822; @relay.example:user@a.example", ("rfc822", "user@a.example")),
        ("rfc822; 'user@a.example'", ("rfc822", "user@a.example")),
        ("rfc822; SMTP:user@a.example", ("rfc822", "user@a.example")),
        ('rfc822; "odd..one"@a.example', ("rfc822", '"odd..one"@a.example')),
        ("rfc822; docomo..user.@a.example", ("rfc822", "docomo..user.@a.example")),
        ("utf-8; j\\x{F6}rg@a.example", ("utf-8", "jörg@a.example")),
        ("rfc822; |/usr/local/bin/filter", ("rfc822", "")),
        ("x400; /PN=User/O=Org/C=DE/", ("x400", "")),
        ("", ("", "")),
    ],
)
def test_a_recipient_field_gives_its_type_and_bare_address(value: str, expected: tuple[str, str]) -> None:
    assert addresses.of_field(value) == expected


@pytest.mark.parametrize(
    ("written", "decoded"),
    [
        ("user+2Btag@a.example", "user+tag@a.example"),
        ("user+3Dtag@a.example", "user=tag@a.example"),
        ("j+C3+B6rg@a.example", "jörg@a.example"),
        ("user+41@a.example", "user+41@a.example"),
        ("user+tag@a.example", "user+tag@a.example"),
        ("user+2Btag+x@a.example", "user+2Btag+x@a.example"),
        ("user+FF@a.example", "user+FF@a.example"),
    ],
)
def test_a_subaddress_is_not_taken_for_xtext(written: str, decoded: str) -> None:
    assert addresses.xtext(written) == decoded


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to <a@b.example>.", ["a@b.example"]),
        ("a@b.example, c@d.example; a@B.example", ["a@b.example", "c@d.example"]),
        ("to=<a@b.example>, relay=none", ["a@b.example"]),
        ("to=a@b.example relay", ["a@b.example"]),
        ("user@localhost is local", []),
        ("宛先は、たろう@例え.テスト。です", ["宛先は、たろう@例え.テスト".rpartition("、")[2]]),
        ("a@b.example@c.example", ["a@b.example"]),
        ("@@@ @a.example a@", []),
        ('he said "a b"@c.example', ['"a b"@c.example']),
        ("user@[192.0.2.1] bounced", ["user@[192.0.2.1]"]),
    ],
)
def test_addresses_in_a_text(text: str, expected: list[str]) -> None:
    assert addresses.in_text(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Ann <ann@a.example>, bob@b.example", ["ann@a.example", "bob@b.example"]),
        ('"Doe, Jane" <jane@a.example>', ["jane@a.example"]),
        ('"fake@evil.example" <real@a.example>', ["real@a.example"]),
        ("undisclosed-recipients:;", []),
        ('"unclosed <x@a.example>, y@b.example', ["x@a.example"]),
    ],
)
def test_a_display_name_is_no_address(value: str, expected: list[str]) -> None:
    assert addresses.of_header(value) == expected


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("list-bounces+user=a.example@lists.example", "user@a.example"),
        ("bounce-77-user=a.example@mail.example", "user@a.example"),
        ("b--first.last=a.example@mail.example", "first.last@a.example"),
        ("SRS0=hash=tt=a.example=user@relay.example", None),
        ("prvs=123=user@a.example", None),
        ("bounces@mail.example", None),
        ("a=b@mail.example", None),
    ],
)
def test_a_return_path_that_encodes_a_sender_is_not_decoded(sender: str, expected: str | None) -> None:
    assert addresses.verp(sender) == expected

"""Two spellings of one mailbox must meet in one key; two mailboxes must not; and hostile text must cost nothing."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailback.address import domain, is_address, key, split


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("bob@example.org", "bob@example.org"),
        ("Bob@Example.ORG", "bob@example.org"),
        ("  bob@example.org\r\n", "bob@example.org"),
        ("bob@example.org.", "bob@example.org"),
        ("<bob@example.org>", "bob@example.org"),
        ("Bob B. <bob@example.org>", "bob@example.org"),
        ("<@relay.example,@other.example:bob@example.org>", "bob@example.org"),
        ('"bob"@example.org', "bob@example.org"),
        ('"b\\ob"@example.org', "bob@example.org"),
        ('"bob.b."@example.org', "bob.b.@example.org"),
        ('"Bob B"@example.org', '"bob b"@example.org'),
        ('"a@b"@example.org', '"a@b"@example.org'),
        ("a@b@example.org", '"a@b"@example.org'),
        ('"a\\"b"@example.org', '"a\\"b"@example.org'),
        ("bob(the (old) one)@example.org", "bob@example.org"),
        ("bob@(here)example.org", "bob@example.org"),
        ("bob @ example.org", "bob@example.org"),
        ("bob@[192.0.2.1]", "bob@[192.0.2.1]"),
        ("bob@[IPv6:2001:DB8::1]", "bob@[ipv6:2001:db8::1]"),
        ("bob@bücher.example", "bob@xn--bcher-kva.example"),
        ("bob@BÜCHER.example", "bob@xn--bcher-kva.example"),
        ("bob@bu\u0308cher.example", "bob@xn--bcher-kva.example"),
        ("bob@XN--BCHER-KVA.example", "bob@xn--bcher-kva.example"),
        ("bob@bücher。example", "bob@xn--bcher-kva.example"),
        ("bob@faß.example", "bob@xn--fa-hia.example"),
        ("JOSÉ@example.org", "josé@example.org"),
        ("jose\u0301@example.org", "josé@example.org"),
        ("STRASSE@example.org", "strasse@example.org"),
        ("postmaster", "postmaster"),
        ("", ""),
        ("@", ""),
        ("bob@", "bob"),
        ("bob@my_host.example", "bob@my_host.example"),
    ],
)
def test_spellings_of_one_mailbox_meet(written: str, expected: str) -> None:
    assert key(written) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("bob+news@example.org", "bob@example.org"),
        ("b.ob@example.org", "bob@example.org"),
        ("bob@example.org", "bob@mail.example.org"),
        ("paypal@example.org", "p\u0430ypal@example.org"),  # Cyrillic a
        ("bob@example.org", "bob@ex\u0430mple.org"),
        ("\ufb01sh@example.org", "ﬀsh@example.org"),
        ("\ufb01sh@example.org", "fish@example.org"),
        ("stra\u00dfe@example.org", "strasse@example.org"),
        ("\u017fam@example.org", "sam@example.org"),  # long s
        ("bob@example.org", "\uff42ob@example.org"),  # full-width b in a local part is another letter
        ("a\udc80@example.org", "a\udc81@example.org"),
        ("a\udc80@example.org", "a?@example.org"),
        ("bob@exa\udc80mple.org", "bob@exa\udc81mple.org"),
    ],
)
def test_different_mailboxes_stay_apart(one: str, other: str) -> None:
    assert key(one) != key(other)


_HOSTILE = st.text(alphabet='ab.@"\\()<>[]: ,;\x00\tß\u0130\u0345\u1fb3é\u0301。\udc80%AÄ-_', max_size=40)


@given(st.one_of(st.text(max_size=80), _HOSTILE))
@example('"\\"')
@example("@a:@b:c@d")
@example('"x<y"@c>')
@example("ß@ß..")
def test_a_key_is_its_own_key_and_can_be_stored(text: str) -> None:
    once = key(text)
    assert key(once) == once
    once.encode("utf-8")
    assert "\0" not in once
    assert "\n" not in once


@given(st.one_of(st.text(max_size=80), _HOSTILE))
def test_nothing_raises_and_the_domain_is_ascii(text: str) -> None:
    local, host = split(text)
    assert isinstance(local, str)
    assert isinstance(host, str)
    assert domain(text).isascii()
    assert isinstance(is_address(text), bool)


@given(_HOSTILE)
def test_what_is_an_address_keeps_both_halves_in_its_key(text: str) -> None:
    if is_address(text):
        assert domain(text)
        assert key(text).endswith("@" + domain(text))


@given(st.emails())
def test_case_never_matters(address: str) -> None:
    assert key(address.upper()) == key(address.lower()) == key(address)


_REPEATED = ['"', '\\"', "(", "()", ")", "@", "<", "<>", ".", "a.", "ü.", "\u1fb3", "\u0301\u0327", "@a:", "a@", "\\"]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("unit", _REPEATED)
def test_hostile_text_costs_linear_time(unit: str) -> None:
    text = '"' + unit * (100_000 // len(unit))
    for probe in (text, text[1:], text + "@example.org", "bob@" + text, "(" + text):
        assert len(key(probe)) <= 1024
        is_address(probe)
        domain(probe)


def test_a_key_too_long_to_index_is_hashed_but_still_tells_addresses_apart() -> None:
    one, other = ("x" * 5000 + tail + "@example.org" for tail in "ab")
    assert len(key(one)) < 100
    assert key(one) != key(other)
    assert key(one) == key(one.upper())


@pytest.mark.parametrize(
    "text",
    [
        "bob@example.org",
        "root@localhost",
        '"bob b"@example.org',
        "bob+tag=x@example.org",
        "jøran@bücher.example",
        "bob@[192.0.2.1]",
        "bob@[IPv6:2001:db8::1]",
        "b" * 64 + "@example.org",
        "!#$%&'*+/=?^_`{|}~-@example.org",
    ],
)
def test_mailboxes_are_told(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bob",
        "@example.org",
        "bob@",
        "bob@example.org.",
        "bob@.example.org",
        "bob@example..org",
        ".bob@example.org",
        "bob.@example.org",
        "bo..b@example.org",
        "bob b@example.org",
        "a@b@example.org",
        "<bob@example.org>",
        "bob@exa mple.org",
        "bob@-example.org",
        "bob@my_host.example",
        "bob@192.0.2.1",
        "bob@[192.0.2.256]",
        "bob@[IPv6:fe80::1%eth0]",
        "bob@[2001:db8::1]",
        "b" * 65 + "@example.org",
        "ü" * 33 + "@example.org",
        "bob@" + "a" * 64 + ".example",
        "bob@" + "a.b" * 200,
        "bob(x)@example.org",
        "bob@example.org\n",
        "bob\0@example.org",
        "bob@xn--\u0430.example",
        "b\udc80b@example.org",
    ],
)
def test_what_is_no_mailbox_is_refused(text: str) -> None:
    assert not is_address(text)


def test_comments_and_brackets_leave_both_halves_as_written() -> None:
    assert split('"Bob B"(x)@Example.ORG.') == ('"Bob B"', "Example.ORG")
    assert split("postmaster") == ("postmaster", "")

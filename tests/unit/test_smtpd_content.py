"""What the receiver changes in a message, and above all what it leaves alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailback_smtpd import content
from mailback_smtpd.forward import stuffed

TAGS = ("x-mailback-",)
OURS = "mx.test"
lines = st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"X-Mailback-Kind: x", b" y", b"To: a", b"\0\xff"]))


def test_conforming_content_stays_the_very_same_octets() -> None:
    raw = b"A: b\r\n\r\n\x00\xff" + b"x" * 2000 + b"\r\n"
    assert content.canonical(raw) is raw


@given(lines)
def test_after_canonical_every_cr_and_lf_stands_in_a_pair(parts: list[bytes]) -> None:
    told = content.canonical(b"".join(parts))
    assert told.count(b"\r\n") == told.count(b"\r") == told.count(b"\n")


@pytest.mark.parametrize(
    "forged",
    [
        b"X-Mailback-Kind: bounce\r\n",
        b"x-mailback-ID: 1\r\n",
        b"X-Mailback-Verdict : hard\r\n",
        b"X-Mailback-Route: a\r\n\tfolded\r\n  twice\r\n",
        b"X-Mailback-Kind:\r\n",
        b"X-Mailback-No-Colon\r\n",
    ],
)
def test_forged_tags_are_removed_with_their_folded_lines(forged: bytes) -> None:
    raw = b"From: a\r\n" + forged + b"To: b\r\n\r\nbody\r\n"
    assert content.rewritten(raw, (), TAGS, b"", OURS) == b"From: a\r\nTo: b\r\n\r\nbody\r\n"


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\r\n", b"\n\r"])
def test_a_forged_tag_cannot_hide_behind_a_line_end_that_readers_disagree_about(end: bytes) -> None:
    raw = b"From: a" + end + b"X-Mailback-Kind: bounce" + end + b"To: b\r\n\r\nbody\r\n"
    told = content.rewritten(content.canonical(raw), (), TAGS, b"", OURS)
    header, _, _ = told.partition(b"\r\n\r\n")
    assert b"x-mailback" not in header.lower()
    assert b"\r\n" in told
    assert told.count(b"\r") == told.count(b"\n") == told.count(b"\r\n")


def test_a_tag_in_the_body_is_no_tag() -> None:
    raw = b"From: a\r\n\r\nX-Mailback-Kind: bounce\r\n"
    assert content.rewritten(raw, (), TAGS, b"", OURS) == raw


@given(lines)
def test_no_header_is_left_with_a_tag_and_the_body_stays(parts: list[bytes]) -> None:
    raw = content.canonical(b"".join(parts))
    told = content.rewritten(raw, [("X-Ours", "1")], TAGS, b"Received: us\r\n", OURS)
    assert told.startswith(b"X-Ours: 1\r\nReceived: us\r\n")
    assert b"\r\nx-mailback-" not in (b"\r\n" + content.header_block(told)).lower()
    body = raw.partition(b"\r\n\r\n")[2] if not raw.startswith(b"\r\n") else raw[2:]
    assert told.endswith(body)


def test_a_header_that_begins_with_a_folded_line_cannot_add_to_a_tag_of_ours() -> None:
    told = content.rewritten(b" forged\r\n\r\n", [("X-Ours", "1")], TAGS, b"Received: us\r\n", OURS)
    assert told.startswith(b"X-Ours: 1\r\nReceived: us\r\n forged")


def test_a_message_of_nothing_gets_a_header_of_its_own() -> None:
    assert content.rewritten(b"", [("X-Ours", "1")], TAGS, b"", OURS) == b"X-Ours: 1\r\n\r\n"


def test_received_fields_are_counted_in_the_header_only() -> None:
    header = content.header_block(b"Received: a\r\nRECEIVED : b\r\nX: received: c\r\n\r\nReceived: d\r\n")
    assert content.hops(header) == 2


def trace(**changed: object) -> bytes:
    given: dict[str, object] = {
        "helo": "peer.test", "client": "192.0.2.1", "hostname": "mx.test", "protocol": "ESMTP", "event_id": "01ID",
        "recipients": ["a@b.test"], "at": datetime(2026, 11, 22, tzinfo=UTC),
    }  # fmt: skip
    return content.received_field(**(given | changed))  # type: ignore[arg-type]


def test_several_recipients_are_not_told_of_each_other() -> None:
    assert b"for <a@b.test>" in trace()
    assert b"for" not in trace(recipients=["a@b.test", "hidden@b.test"])


@pytest.mark.parametrize("helo", ["evil\r\nX-Mailback-Kind: x", "a b", "(comment", "x" * 300, "", "\x1b[2J", "a\0"])
def test_a_greeting_cannot_write_into_the_trace_field(helo: str) -> None:
    assert trace(helo=helo).startswith(b"Received: from unknown ([192.0.2.1])\r\n\tby mx.test")


def test_the_trace_field_names_every_kind_of_client() -> None:
    assert b"([IPv6:2001:db8::1])" in trace(client="2001:db8::1")
    assert b"(local)" in trace(client=None)


@given(lines)
def test_stuffed_content_ends_where_the_message_ends_and_nowhere_before(parts: list[bytes]) -> None:
    raw = content.canonical(b"".join(parts))
    wire = b"\r\n" + stuffed(raw)
    assert wire.index(b"\r\n.\r\n") == len(wire) - 5
    back = wire[: -len(b".\r\n")].replace(b"\r\n.", b"\r\n")[2:]
    assert back == raw or back == raw + b"\r\n"


@pytest.mark.parametrize(
    ("field", "forged"),
    [
        (b"Authentication-Results: mx.test; dkim=pass\r\n", True),
        (b"authentication-results : MX.test;\r\n\tdkim=pass;\r\n\tspf=pass\r\n", True),
        (b"Authentication-Results:\r\n mx.test 1; none\r\n", True),
        (b"Authentication-Results: (a comment) mx.test; none\r\n", True),
        (b'Authentication-Results: "mx.test"; none\r\n', True),
        (b"Authentication-Results: (nested (comments)) mx.test/1; none\r\n", True),
        (b"Authentication-Results: =?us-ascii?q?mx.test=3B?= dkim=pass\r\n", True),
        (b"Authentication-Results-Original: mx.test; none\r\n", False),
        (b"Authentication-Results: other.test; dkim=pass\r\n", False),
        (b"Authentication-Results: mx.test.evil.test; dkim=pass\r\n", False),
        (b"Authentication-Results:\r\n", False),
        (b"X-Authentication-Results: mx.test; none\r\n", False),
    ],
)
def test_nobody_else_speaks_in_our_name_about_authentication(field: bytes, forged: bool) -> None:
    raw = b"From: a\r\n" + field + b"To: b\r\n\r\n" + field
    told = content.rewritten(raw, (), TAGS, b"", OURS)
    assert told == (b"From: a\r\nTo: b\r\n\r\n" + field if forged else raw)

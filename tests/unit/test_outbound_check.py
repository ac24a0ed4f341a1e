"""The answer behind every front: its words, and what an address made to do harm becomes in them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailback import address
from mailback.outbound.check import ALLOWED, REPLY_MAX, Check, clip, printable, refusal, scopes
from mailback.store.records import Suppression

SINCE = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
DEAD = Suppression(
    address_key="ann@example.com", address="Ann@example.com", scope="all", reason="550 5.1.1 unknown",
    type="hard_bounce", subcategory="user_unknown", source="event", since=SINCE, until=None,
)  # fmt: skip


class Listed:
    """A suppression list in memory."""

    def __init__(self, *suppressions: Suppression) -> None:
        self.rows = suppressions
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def lookup(self, key: str, scopes: Sequence[str] = ("all",), now: datetime | None = None) -> Suppression | None:
        self.asked.append((key, tuple(scopes)))
        return next((row for row in self.rows if row.address_key == key and row.scope in scopes), None)


def test_refusal_says_since_when_why_and_how_to_find_out_more() -> None:
    answer = Check(Listed(DEAD)).answer("ann@example.com")
    assert not answer.allowed
    assert answer.suppression is DEAD
    assert answer.reply == (
        "550 5.7.1 <ann@example.com>: suppressed since 2026-01-31, hard_bounce/user_unknown "
        "(mailback explain ann@example.com)"
    )
    assert (answer.code, answer.enhanced) == (550, "5.7.1")
    assert answer.text == answer.reply.removeprefix("550 5.7.1 ")


def test_temporary_suppression_tells_its_end() -> None:
    full = replace(DEAD, type="soft_bounce", subcategory="mailbox_full", until=datetime(2026, 2, 7, 9, 5, tzinfo=UTC))
    assert refusal("ann@example.com", full).reply == (
        "550 5.7.1 <ann@example.com>: suppressed since 2026-01-31 until 2026-02-07 09:05 UTC, "
        "soft_bounce/mailbox_full (mailback explain ann@example.com)"
    )


def test_dates_are_utc_whatever_zone_the_store_gives() -> None:
    east = timezone(timedelta(hours=9))
    later = replace(DEAD, since=SINCE.astimezone(east))
    assert "since 2026-01-31," in refusal("ann@example.com", later).text


def test_address_as_mailed_is_shown_while_its_key_is_looked_up() -> None:
    listed = Listed(DEAD)
    answer = Check(listed).answer("ANN@Example.COM")
    assert listed.asked == [(address.key("ANN@Example.COM"), ("all",))]
    assert answer.text.startswith("<ANN@Example.COM>: ")


def test_what_is_not_listed_may_be_mailed() -> None:
    answer = Check(Listed(DEAD)).answer("bob@example.com")
    assert answer is ALLOWED
    assert answer.reply == "250 2.1.5"


def test_null_sender_is_never_refused_and_costs_no_lookup() -> None:
    listed = Listed(DEAD)
    assert Check(listed).answer("ann@example.com", sender="").allowed
    assert listed.asked == []
    assert not Check(listed).answer("ann@example.com", sender=None).allowed


def test_suppression_of_one_list_stops_that_list_only() -> None:
    check = Check(Listed(replace(DEAD, scope="list:news.example.com")))
    assert check.answer("ann@example.com").allowed
    assert check.answer("ann@example.com", list_id="other.example.com").allowed
    assert not check.answer("ann@example.com", list_id="news.example.com").allowed


def test_scopes_always_hold_all() -> None:
    assert scopes() == ("all",)
    assert scopes("l", "c", "marketing") == ("all", "list:l", "campaign:c", "stream:marketing")


def test_operators_reason_is_told_where_there_is_no_type() -> None:
    asked = replace(DEAD, type=None, subcategory=None, reason="asked us\r\n250 ok  by phone", source="operator")
    assert "since 2026-01-31, asked us 250 ok by phone (mailback" in refusal("ann@example.com", asked).text
    assert ", operator (" in refusal("a@b.example", replace(asked, reason=" ")).text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nQUIT@b.example", r"a\x{0D}\x{0A}QUIT@b.example"),
        ("50%d@b.example", r"50\x{25}d@b.example"),
        ("a\x1b[31m\x00@b.example", r"a\x{1B}[31m\x{00}@b.example"),
        ("jörg@b.example", r"j\x{F6}rg@b.example"),
        ("\U0001f600\u202e@b.example", r"\x{1F600}\x{202E}@b.example"),
        ("\udc80@b.example", r"\x{DC80}@b.example"),
    ],
)  # fmt: skip
def test_nothing_a_sender_wrote_ends_the_line_or_reaches_a_terminal_raw(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_the_command_that_a_reply_names_can_be_typed_for_a_domain_of_other_letters() -> None:
    assert refusal("ada@Bücher.example", DEAD).text.endswith("(mailback explain ada@xn--bcher-kva.example)")
    assert refusal("jörg@b.example", DEAD).text.startswith(r"<j\x{F6}rg@b.example>")


@given(st.text(max_size=400), st.text(max_size=300))
def test_reply_is_one_short_printable_line_for_any_address_and_reason(recipient: str, reason: str) -> None:
    row = replace(DEAD, type=None, subcategory=None, reason=reason, until=SINCE)
    reply = refusal(recipient, row).reply
    assert len(reply.encode("ascii")) <= REPLY_MAX
    assert reply.isprintable()
    assert "%" not in reply
    assert reply.startswith("550 5.7.1 <")


def test_longest_legal_address_still_fits_with_both_its_mentions() -> None:
    recipient = "l" * 64 + "@" + ".".join(["d" * 61] * 4) + ".example"
    reply = refusal(recipient, DEAD).reply
    assert len(reply) <= REPLY_MAX
    assert reply.count("...") == 2
    assert "suppressed since 2026-01-31, hard_bounce/user_unknown (mailback explain " in reply


def test_clipping_leaves_no_half_escape() -> None:
    text = "ab" + printable("é") * 4
    for octets in range(3, len(text)):
        cut = clip(text, octets)
        assert len(cut) <= octets
        assert cut.removesuffix("...").count("\\x{") == cut.removesuffix("...").count("}")


def test_check_imports_nothing_heavy() -> None:
    heavy = "sqlalchemy structlog pydantic asyncio uvloop alembic rich click"
    code = f"import sys, mailback.outbound.check; print([m for m in {heavy!r}.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

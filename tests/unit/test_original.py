"""What a report returns of our own message."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mailback import reports
from mailback.message import parse
from mailback.reports import OriginalNames, original
from mailback.reports.dates import date

_BLOCK = b"""Return-Path: <bounces+u=a.example@sender.example>
DKIM-Signature: v=1; d=sender.example; b=abc
From: News <news@sender.example>
To: User <user@a.example>, other@b.example
Subject: =?utf-8?q?Fr=C3=BChling?=
Message-ID: <spring-7@sender.example>
Date: Tue, 4 Mar 2025 11:11:09 +0100
List-Id: Spring list <spring.sender.example>
X-Campaign-ID: c-42
X-Subscriber-ID: s-7
"""


def test_the_header_block_tells_who_sent_what_to_whom() -> None:
    told = original.of_block(_BLOCK)
    assert told is not None
    assert told.message_id == "<spring-7@sender.example>"
    assert told.sender == "bounces+u=a.example@sender.example"
    assert told.recipients == ("user@a.example", "other@b.example")
    assert told.subject == "Frühling"
    assert told.list_id == "spring.sender.example"
    assert told.campaign == "c-42"
    assert told.subscriber == "s-7"
    assert told.date == datetime(2025, 3, 4, 10, 11, 9, tzinfo=UTC)


@pytest.mark.parametrize("kind", ["message/rfc822", "text/rfc822-headers", "message/global-headers", "message/global"])
def test_the_signed_bytes_are_kept_as_they_stand(kind: str) -> None:
    raw = (
        b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n"
        b"Final-Recipient: rfc822; u@a.example\nAction: failed\n\n--b\nContent-Type: "
        + kind.encode()
        + b"\n\n"
        + _BLOCK
        + b"\n--b--\n"
    )
    told = reports.read(parse(raw)).original
    assert told is not None
    assert told.header_block.rstrip(b"\n") == _BLOCK.rstrip(b"\n")


def test_the_names_of_campaign_fields_are_configuration() -> None:
    names = OriginalNames(campaign=("X-Ours",), list_id=(), subscriber=())
    told = original.of_block(b"X-Ours: 9\n" + _BLOCK, names)
    assert told is not None
    assert (told.campaign, told.list_id, told.subscriber) == ("9", None, None)


def test_a_text_without_header_lines_gives_nothing() -> None:
    assert original.of_block(b"Hello,\n\nnothing to see here.\n") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Tue, 4 Mar 2025 10:11:12 -0500", datetime(2025, 3, 4, 15, 11, 12, tzinfo=UTC)),
        ("4 Mar 25 10:11 GMT", datetime(2025, 3, 4, 10, 11, tzinfo=UTC)),
        ("Tue, 4 Mar 2025 10:11:60 +0000 (UTC)", datetime(2025, 3, 4, 10, 11, 59, tzinfo=UTC)),
        ("Tue, 31 Feb 2025 10:11:12 +0000", None),
        ("Tue, 4 Foo 2025 10:11:12 +0000", None),
        ("1 Jan 0001 00:00:00 +2300", None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_dates_are_utc_and_wrong_ones_none(value: str | None, expected: datetime | None) -> None:
    assert date(value) == expected


def test_the_postfix_sender_stands_in_for_a_missing_return_path() -> None:
    raw = (
        b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n"
        b"Reporting-MTA: dns; m\nX-Postfix-Sender: rfc822; bounces@sender.example\n\n"
        b"Final-Recipient: rfc822; u@a.example\nAction: failed\n\n--b--\n"
    )
    told = reports.read(parse(raw)).original
    assert told is not None
    assert told.sender == "bounces@sender.example"

"""Codes in diagnostic texts."""

from __future__ import annotations

import pytest

from mailback.reports import diagnostic


@pytest.mark.parametrize(
    ("text", "smtp_code", "status"),
    [
        ("550 5.1.1 <a@b.example>: unknown", "550", "5.1.1"),
        ("550-5.7.26 first\n550 5.7.26 last", "550", "5.7.26"),
        ("550 #5.1.0 Address rejected.", "550", "5.1.0"),
        ("Sorry, no mailbox here by that name. (#5.1.1)", None, "5.1.1"),
        ("host mx.example[192.0.2.1] said: 552 over quota", "552", None),
        ("said: 550\n unknown", "550", None),
        ("5.1.0 - Unknown address error 550-'5.2.2 mailbox full'", "550", "5.2.2"),
        ("554 4.4.7 expired <421 4.4.2 connection timed out>", "554", "4.4.2"),
        ("ERROR_CODE :550, ERROR_CODE :5.2.1 unknown", "550", "5.2.1"),
        ("connect to mx.example[192.0.2.1]:25: Connection timed out", None, None),
        ("gateway 10.5.1.1 and 5.1.1.2 and version 4.5.0.rc1", None, None),
        ("after MAIL FROM:<x@y.example> SIZE=550: host mx: 554 no", "554", None),
        ("", None, None),
    ],
)
def test_codes_are_told_from_other_numbers(text: str, smtp_code: str | None, status: str | None) -> None:
    assert diagnostic.codes(text) == (smtp_code, status)


@pytest.mark.parametrize(
    ("stated", "told", "smtp_code", "expected"),
    [
        ("5.0.0", "5.1.1", "550", "5.1.1"),
        ("5.1.1", "5.7.1", "550", "5.7.1"),
        ("4.5.0", "5.5.0", "550", "5.5.0"),
        ("4.0.0", "5.1.1", "450", "4.0.0"),
        ("5.2.2", "5.0.0", "550", "5.2.2"),
        ("5.1.1", "5.1.0", "550", "5.1.1"),
        ("5.1.1", None, None, "5.1.1"),
        (None, "5.1.1", None, "5.1.1"),
        (None, None, None, None),
    ],
)
def test_the_diagnostic_puts_a_generic_status_right(
    stated: str | None, told: str | None, smtp_code: str | None, expected: str | None
) -> None:
    assert diagnostic.settle(stated, told, smtp_code) == expected


def test_a_multi_line_reply_keeps_its_code_once() -> None:
    told = diagnostic.tidy("550-5.7.1 Refused by\r\n 550-5.7.1 policy, see\r\n 550 5.7.1 https://x.example/550-help")
    assert told == "550 5.7.1 Refused by policy, see https://x.example/550-help"


@pytest.mark.parametrize(("value", "status"), [("5.1.1", "5.1.1"), ("5.0.0 (permanent)", "5.0.0"), ("550", None)])
def test_a_status_field_may_carry_a_comment(value: str, status: str | None) -> None:
    assert diagnostic.of_field(value) == status

"""RFC 3464 reports as servers really write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mailback import reports
from mailback.bounce.taxonomy import Kind
from mailback.message import parse
from mailback.reports import dsn


def _report(status: str, *, text: str = "Delivery failed.", original: str = "To: user@a.example\n") -> reports.Report:
    raw = (
        "Return-Path: <>\nFrom: MAILER-DAEMON@mta.example\nTo: bounces@sender.example\nSubject: Undelivered\n"
        "MIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n"
        f"--b\nContent-Type: text/plain; charset=utf-8\n\n{text}\n"
        f"--b\nContent-Type: message/delivery-status\n\n{status}\n"
        f"--b\nContent-Type: text/rfc822-headers\n\n{original}\n--b--\n"
    )
    return reports.read(parse(raw.encode()))


def test_all_fields_of_message_and_recipient_are_kept() -> None:
    report = _report(
        "Reporting-MTA: dns; mta.example\nOriginal-Envelope-Id: QQ314\nX-Queue: 7\n\n"
        "Final-Recipient: rfc822; user@a.example\nAction: failed\nStatus: 5.1.1\nRemote-MTA: dns; mx.a.example (1.2)\n"
        "Diagnostic-Code: smtp; 550 5.1.1 unknown\n"
        "Last-Attempt-Date: Tue, 4 Mar 2025 12:00:00 +0200\nX-Own: 1\nX-Own: 2\n"
    )
    assert report.reporting_mta == "mta.example"
    assert report.fields["original-envelope-id"] == ["QQ314"]
    assert report.fields["x-queue"] == ["7"]
    [failure] = report.failures
    assert failure.fields["x-own"] == ["1", "2"]
    assert failure.remote_mta == "mx.a.example"
    assert failure.diagnostic_type == "smtp"
    assert failure.smtp_code == "550"
    assert failure.last_attempt == datetime(2025, 3, 4, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("action", "kind", "kept"),
    [
        ("failed", Kind.BOUNCE, "failed"),
        ("Failed (permanently)", Kind.BOUNCE, "failed"),
        ("delayed", Kind.DELAY, "delayed"),
        ("delivered", Kind.DELIVERED, "delivered"),
        ("relayed", Kind.DELIVERED, "relayed"),
        ("expanded", Kind.DELIVERED, "expanded"),
        ("deliverable", Kind.DELIVERED, "delivered"),
    ],
)
def test_the_action_decides_the_kind(action: str, kind: Kind, kept: str) -> None:
    report = _report(f"Reporting-MTA: dns; m\n\nFinal-Recipient: rfc822; user@a.example\nAction: {action}\n")
    assert report.kind is kind
    assert report.failures[0].action == kept


def test_one_failure_among_deliveries_makes_a_bounce_and_keeps_each_action() -> None:
    report = _report(
        "Reporting-MTA: dns; m\n\nFinal-Recipient: rfc822; a@a.example\nAction: delivered\nStatus: 2.1.5\n\n"
        "Final-Recipient: rfc822; b@a.example\nAction: failed\nStatus: 5.1.1\n"
    )
    assert report.kind is Kind.BOUNCE
    assert {f.recipient: f.action for f in report.failures} == {"a@a.example": "delivered", "b@a.example": "failed"}


def test_delayed_is_not_failed_even_with_a_permanent_looking_diagnostic() -> None:
    report = _report(
        "Reporting-MTA: dns; m\n\nFinal-Recipient: rfc822; user@a.example\nAction: delayed\nStatus: 4.4.1\n"
        "Diagnostic-Code: smtp; 550 5.1.1 unknown\n"
    )
    assert report.kind is Kind.DELAY


def test_a_missing_action_is_told_by_the_status() -> None:
    report = _report("Reporting-MTA: dns; m\n\nFinal-Recipient: rfc822; user@a.example\nStatus: 2.0.0\n")
    assert report.kind is Kind.DELIVERED


def test_a_diagnostic_broken_without_indentation_is_read_whole() -> None:
    report = _report(
        "Reporting-MTA: dns; m\n\nFinal-Recipient: rfc822; user@a.example\nAction: failed\nStatus: 5.0.0\n"
        "Diagnostic-Code: smtp; 550-5.2.1 The account is\n550-5.2.1 switched off. See\n550 5.2.1 https://a.example/x\n"
    )
    assert report.failures[0].diagnostic == "550 5.2.1 The account is switched off. See https://a.example/x"
    assert report.failures[0].status == "5.2.1"
    assert report.failures[0].stated_status == "5.0.0"


@pytest.mark.parametrize("count", [1, 199, 200, 300_000])
def test_lines_that_are_no_fields_continue_the_field_before_them_up_to_a_bound(count: int) -> None:
    lines = "".join(f"n{n % 10} said\n" for n in range(count))
    told = f"Final-Recipient: rfc822; u@a.example\nDiagnostic-Code: smtp; 550\n{lines}Status: 5.1.1\n \t\nno field\n"
    _, [failure], _ = dsn.read(told, 10)
    words = failure.fields["diagnostic-code"][0].split()
    assert words[:4] == ["smtp;", "550", "n0", "said"]
    assert words.count("said") == min(count, 199), "the field's own line is the first of 200"
    assert failure.fields["status"] == ["5.1.1"], "what follows a blank line continues nothing"


def test_a_program_as_final_recipient_is_replaced_by_the_address_of_the_text() -> None:
    report = _report(
        "Reporting-MTA: dns; m\n\nFinal-Recipient: rfc822;|/usr/bin/filter user@a.example\nAction: failed\n"
        "Status: 5.0.0\n".replace("|/usr/bin/filter user@a.example", "|/usr/bin/filter"),
        text="The following address failed:\n\n  user@a.example\n    child returned 127",
    )
    assert [failure.recipient for failure in report.failures] == ["user@a.example"]


def test_the_exit_code_of_a_program_is_no_diagnostic() -> None:
    report = _report(
        "Reporting-MTA: dns; m\n\nFinal-Recipient: rfc822; user@a.example\nAction: failed\nStatus: 5.0.0\n"
        "Diagnostic-Code: X-Unix; 73\n",
        text="<user@a.example>\n\n554 5.3.0 <user@a.example>... unknown mailer error 73",
    )
    assert report.failures[0].status == "5.3.0"
    assert "unknown mailer error" in report.failures[0].diagnostic


def test_a_report_cut_by_the_cap_says_so() -> None:
    body = "\n".join(f"Final-Recipient: rfc822; u{i}@a.example\nAction: failed\n" for i in range(30))
    raw = f"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n{body}\n--b--\n"
    report = reports.read(parse(raw.encode()), cap=10)
    assert len(report.failures) == 10
    assert report.truncated


def test_the_same_recipient_twice_is_one_failure_with_the_telling_diagnostic() -> None:
    report = _report(
        "Reporting-MTA: dns; m\n\nFinal-Recipient: rfc822; user@a.example\nAction: failed\n\n"
        "Final-Recipient: rfc822; User@a.example\nAction: failed\nDiagnostic-Code: smtp; 550 5.1.1 no\n"
    )
    assert [failure.status for failure in report.failures] == ["5.1.1"]


def test_the_parts_of_a_truncated_report_are_still_read() -> None:
    raw = b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n"
    raw += b"Final-Recipient: rfc822; u@a.example\nAction: fai"
    assert [failure.recipient for failure in reports.read(parse(raw)).failures] == ["u@a.example"]


def test_eight_bit_fields_are_read_as_utf_8_or_latin_1() -> None:
    for charset in ("utf-8", "latin-1"):
        _, [failure], _ = dsn.read("Final-Recipient: utf-8; jörg@a.example\nAction: failed\n".encode(charset), 10)
        assert failure.recipient == "jörg@a.example"

"""Complaints: feedback reports complete, damaged and redacted."""

from __future__ import annotations

import pytest

import mailback
from mailback import reports
from mailback.bounce.taxonomy import Kind, Subcategory, Type
from mailback.message import parse
from mailback.policy.decision import DecisionRules

_ORIGINAL = (
    "From: News <news@sender.example>\nTo: user@a.example\nSubject: Spring\nMessage-ID: <m@sender.example>\n\nHi\n"
)


def _report(fields: str, original: str = _ORIGINAL, kind: str = "message/rfc822") -> reports.Report:
    return reports.read(parse(_raw(fields, original, kind)))


def _raw(fields: str, original: str = _ORIGINAL, kind: str = "message/rfc822") -> bytes:
    raw = (
        "From: fbl@loop.example\nTo: abuse@sender.example\nSubject: FW: Spring\nMIME-Version: 1.0\n"
        "Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\nContent-Type: text/plain\n\n"
        f"A report.\n--b\nContent-Type: message/feedback-report\n\n{fields}\n"
        f"--b\nContent-Type: {kind}\n\n{original}\n--b--\n"
    )
    return raw.encode()


@pytest.mark.parametrize(
    ("feedback", "cause"),
    [
        ("abuse", Subcategory.SPAM_COMPLAINT),
        ("fraud", Subcategory.SPAM_COMPLAINT),
        ("virus", Subcategory.SPAM_COMPLAINT),
        ("other", Subcategory.SPAM_COMPLAINT),
        ("opt-out", Subcategory.UNSUBSCRIBE_REQUEST),
        ("auth-failure\nAuth-Failure: dmarc", Subcategory.SPAM_COMPLAINT),
    ],
)
def test_the_feedback_type_names_the_cause(feedback: str, cause: Subcategory) -> None:
    report = _report(f"Feedback-Type: {feedback}\nVersion: 1\nOriginal-Rcpt-To: <user@a.example>\n")
    assert report.kind is Kind.COMPLAINT
    assert [(f.recipient, f.cause) for f in report.failures] == [("user@a.example", cause)]


def test_a_report_of_failed_authentication_is_too_weak_to_suppress_the_recipient_for() -> None:
    told = mailback.classify(_raw("Feedback-Type: auth-failure\nAuth-Failure: spf\nOriginal-Rcpt-To: user@a.example\n"))
    (finding,) = told.findings
    assert finding.verdict.type is Type.COMPLAINT
    assert finding.failure.diagnostic == "auth-failure spf"
    assert finding.verdict.confidence < DecisionRules().min_confidence


def test_a_complaint_taken_back_suppresses_nobody() -> None:
    report = _report("Feedback-Type: not-spam\nOriginal-Rcpt-To: user@a.example\n")
    assert report.kind is Kind.REPORT
    assert report.failures == []


def test_every_complained_recipient_is_reported() -> None:
    report = _report("Feedback-Type: abuse\nOriginal-Rcpt-To: a@a.example\nOriginal-Rcpt-To: b@a.example\n")
    assert [failure.recipient for failure in report.failures] == ["a@a.example", "b@a.example"]


def test_a_redacted_field_falls_back_to_the_returned_message() -> None:
    report = _report("Feedback-Type: abuse\nOriginal-Rcpt-To: <redacted>\n")
    assert [failure.recipient for failure in report.failures] == ["user@a.example"]


def test_a_redacted_message_falls_back_to_our_return_path() -> None:
    report = _report(
        "Feedback-Type: abuse\nOriginal-Mail-From: <b+user=a.example@sender.example>\n",
        "From: news@sender.example\nTo: undisclosed\nSubject: Spring\n\nHi\n",
    )
    assert [failure.recipient for failure in report.failures] == ["user@a.example"]


def test_what_is_redacted_beyond_use_names_nobody() -> None:
    report = _report("Feedback-Type: abuse\n", "From: news@sender.example\nSubject: Spring\n\nHi\n")
    assert report.kind is Kind.COMPLAINT
    assert report.failures == []
    assert report.notes


def test_fields_outside_their_part_are_read() -> None:
    raw = (
        "From: fbl@loop.example\nTo: abuse@sender.example\nSubject: Abuse report\n\n"
        "Feedback-Type: abuse\nUser-Agent: Loop/1\nVersion: 1\nOriginal-Rcpt-To: user@a.example\n"
    )
    report = reports.read(parse(raw.encode()))
    assert [failure.recipient for failure in report.failures] == ["user@a.example"]


def test_all_fields_and_the_original_are_kept() -> None:
    report = _report("Feedback-Type: abuse\nSource-IP: 192.0.2.1\nX-Own: 1\nOriginal-Rcpt-To: user@a.example\n")
    assert report.fields["source-ip"] == ["192.0.2.1"]
    assert report.fields["x-own"] == ["1"]
    assert report.original is not None
    assert report.original.message_id == "<m@sender.example>"


def test_a_person_who_talks_about_abuse_reports_is_a_person() -> None:
    raw = "From: hal@client.example\nTo: news@sender.example\nSubject: Re: abuse report\n\nFeedback-Type: abuse?\n"
    assert reports.read(parse(raw.encode())).kind is Kind.REPLY

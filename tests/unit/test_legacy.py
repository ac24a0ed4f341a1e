"""Free-text bounces: whom they are about, and whom not."""

from __future__ import annotations

import pytest

from mailback import reports
from mailback.bounce.taxonomy import Kind
from mailback.envelope import Envelope, Source
from mailback.message import parse


def _report(
    text: str,
    *,
    subject: str = "Undelivered Mail Returned to Sender",
    sender: str = "MAILER-DAEMON@mta.example",
    to: str = "news@sender.example",
    header: str = "Return-Path: <>\n",
    envelope: Envelope | None = None,
) -> reports.Report:
    raw = f"{header}From: {sender}\nTo: {to}\nSubject: {subject}\nContent-Type: text/plain; charset=utf-8\n\n{text}\n"
    return reports.read(parse(raw.encode()), envelope)


def _recipients(report: reports.Report) -> list[str]:
    return [failure.recipient for failure in report.failures]


@pytest.mark.parametrize(
    "text",
    [
        "could not be delivered\n\n<user@a.example>: 550 5.1.1 unknown",
        "could not be delivered\n\n  user@a.example\n    550 5.1.1 unknown",
        "could not be delivered\n\n * user@a.example - 550 5.1.1 unknown",
        "could not be delivered\n\n1. <user@a.example> (550 5.1.1 unknown)",
        "could not be delivered\n\nFailed recipient: user@a.example\nReason: 550 5.1.1 unknown",
        "could not be delivered\n\nEmpfänger:   <user@a.example>\nGrund: 550 5.1.1 unbekannt",
        "could not be delivered\n\n宛先：user@a.example\n理由：550 5.1.1 unknown",
        "could not be delivered\n\n>>> RCPT TO:<user@a.example>\n<<< 550 5.1.1 unknown",
        "could not be delivered\n\n550 5.1.1 <user@a.example>... User unknown",
        "Your message to user@a.example could not be delivered: 550 5.1.1 unknown",
        "could not be delivered\n\n'user@a.example' on 3/4/2025 10:11 AM\n  550 5.1.1 unknown",
        "could not be delivered because of 550 5.1.1 unknown\n\nThese were affected:\n\n   user@a.example\n\nSorry.",
        "could not be delivered\n\nuser@a.example <user@a.example>\n 550 5.1.1 unknown",
    ],
)
def test_each_shape_of_text_names_its_recipient_and_reason(text: str) -> None:
    report = _report(text + "\n\nFor help, please contact postmaster@mta.example or write to jane@mta.example.")
    assert report.kind is Kind.BOUNCE
    assert _recipients(report) == ["user@a.example"]
    assert (report.failures[0].smtp_code, report.failures[0].status) == ("550", "5.1.1")


@pytest.mark.parametrize(
    "line",
    [
        "From: news@sender.example",
        "Sender: someone@elsewhere.example",
        "For assistance, contact help@elsewhere.example",
        ">>> MAIL FROM:<bounces@sender.example>",
        "(envelope-from <bounces@sender.example>)",
        "Please forward this to admin@elsewhere.example",
        "The message was sent by other@elsewhere.example",
    ],
)
def test_the_sender_and_the_help_desk_are_not_recipients(line: str) -> None:
    report = _report(f"{line}\nYour message could not be delivered.\n\n<user@a.example>: 550 unknown\n\n{line}")
    assert _recipients(report) == ["user@a.example"]


def test_addresses_of_the_returned_message_do_not_count() -> None:
    report = _report(
        "Could not be delivered:\n\n<user@a.example>: 550 unknown\n\n--- Below this line is a copy of the message.\n\n"
        "Return-Path: <news@sender.example>\nReceived: from x\nFrom: news@sender.example\nTo: user@a.example\n"
        "Cc: friend@b.example\nSubject: Hi\nMessage-ID: <m@sender.example>\n\n<quoted@c.example>: see below\n"
    )
    assert _recipients(report) == ["user@a.example"]
    assert report.original is not None
    assert report.original.message_id == "<m@sender.example>"


def test_a_returned_header_without_separator_ends_the_explanation() -> None:
    report = _report(
        "Could not be delivered:\n\n<user@a.example>: 550 unknown\n\n"
        "Subject: Hi\nReceived: from x by y\nFrom: news@sender.example\nTo: list@c.example\n\n<no@c.example>: text\n"
    )
    assert _recipients(report) == ["user@a.example"]
    assert report.original is not None
    assert report.original.subject == "Hi"


def test_every_recipient_has_its_own_reason() -> None:
    report = _report(
        "could not be delivered\n\n<a@a.example>:\n192.0.2.1 does not like recipient.\n"
        "Remote host said: 550 5.1.1 unknown\n\n<b@a.example>:\nRemote host said: 552 5.2.2 full\n"
    )
    assert {f.recipient: f.status for f in report.failures} == {"a@a.example": "5.1.1", "b@a.example": "5.2.2"}


def test_the_only_recipient_of_the_returned_message_is_the_last_resort() -> None:
    report = _report(
        "The message could not be delivered.\n\n--- Original message ---\n\nReceived: x\nTo: user@a.example\n\nHello\n"
    )
    assert _recipients(report) == ["user@a.example"]
    assert report.notes


def test_of_several_recipients_none_is_picked_at_random() -> None:
    report = _report(
        "The message could not be delivered.\n\n--- Original message ---\n\nReceived: x\n"
        "To: a@a.example, b@a.example\n\nHello\n"
    )
    assert _recipients(report) == []
    assert report.kind is Kind.BOUNCE


def test_the_envelope_recipient_is_decoded_only_when_nothing_else_names_anybody() -> None:
    envelope = Envelope(sender="", recipients=("b+user=a.example@sender.example",), source=Source.SMTPD)
    quiet = _report("Your message could not be delivered.", envelope=envelope, header="")
    assert _recipients(quiet) == ["user@a.example"]
    named = _report("could not be delivered:\n\n<real@c.example>: 550 no", envelope=envelope, header="")
    assert _recipients(named) == ["real@c.example"]


def test_who_mails_himself_is_a_recipient() -> None:
    report = _report("could not be delivered:\n\nnews@sender.example:\n552 5.2.2 mailbox full")
    assert _recipients(report) == ["news@sender.example"]


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Warning: could not send message for past 4 hours", "<user@a.example>... Deferred"),
        ("Delayed mail", "<user@a.example>: connection refused"),
        ("Delivery Status Notification", "has not yet been delivered to:\n\n  user@a.example\n    Delay reason: busy"),
        ("Verzögerte Zustellung", "<user@a.example>: Zeitüberschreitung"),
        ("メール配信遅延のお知らせ", "<user@a.example>: timeout"),
    ],
)
def test_still_trying_is_a_delay(subject: str, text: str) -> None:
    report = _report(text, subject=subject)
    assert report.kind is Kind.DELAY
    assert [(f.recipient, f.action) for f in report.failures] == [("user@a.example", "delayed")]


def test_given_up_after_delays_is_a_bounce() -> None:
    report = _report(
        "could not be delivered, permanent error. <user@a.example>: message is delayed for more than 5 days"
    )
    assert report.kind is Kind.BOUNCE


@pytest.mark.parametrize(
    ("subject", "sender", "header"),
    [
        ("Re: Undelivered Mail Returned to Sender", "Hal <hal@client.example>", "In-Reply-To: <x@y>\n"),
        ("Fwd: failure notice", "Hal <hal@client.example>", ""),
        ("WG: Unzustellbar: Angebot", "Hal <hal@client.example>", ""),
        ("Delivery failed!", "Hal <hal@client.example>", ""),
    ],
)
def test_a_person_never_starts_a_bounce(subject: str, sender: str, header: str) -> None:
    report = _report(
        "See below, what is this?\n\n> <user@a.example>: User unknown", subject=subject, sender=sender, header=header
    )
    assert report.kind is Kind.REPLY
    assert report.failures == []


def test_x_failed_recipients_is_believed_before_the_text() -> None:
    report = _report(
        "Hello news@sender.example,\n\nthe group team does not exist.",
        header="Return-Path: <>\nX-Failed-Recipients: team@groups.example, b@groups.example\n",
    )
    assert _recipients(report) == ["team@groups.example", "b@groups.example"]


def test_of_a_transcript_with_times_the_refusal_is_the_reason() -> None:
    lines = (
        "Session 441902; child 1",
        "Resolving MX records for [a.example] (DNS Server: 192.0.2.2)...",
        "<-- 220 mx.a.example ESMTP",
        "--> RCPT To:<user@a.example>",
        "<-- 550 No such user here",
        "--> QUIT",
    )
    session = "\n".join(f"Mon 2025-09-15 10:30:20: {line}" for line in lines)
    report = _report(f"PERMANENT delivery errors!\n\nFailed address: user@a.example\n\n--- Session ---\n{session}")
    [failure] = report.failures
    assert (failure.smtp_code, failure.diagnostic) == ("550", "550 No such user here")


def test_what_a_transcript_tells_of_another_recipient_is_not_the_reason() -> None:
    report = _report(
        "   ----- The following addresses had permanent fatal errors -----\n"
        "<gone@a.example>\n    (reason: 550 5.1.1 <gone@a.example>... User unknown)\n<waits@b.example>\n\n"
        "   ----- Transcript of session follows -----\n>>> DATA\n<<< 550 5.1.1 <gone@a.example>... User unknown\n"
        "<waits@b.example>... Deferred: Connection refused by mx.b.example.\n"
    )
    told = {failure.recipient: failure for failure in report.failures}
    assert told["gone@a.example"].status == "5.1.1"
    assert told["waits@b.example"].smtp_code is None
    assert "Connection refused" in told["waits@b.example"].diagnostic
    assert "unknown" not in told["waits@b.example"].diagnostic

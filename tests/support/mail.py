"""Bounces written for the tests, in the manner of real servers."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

_WHEN = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


def dsn(
    recipient: str,
    *,
    message_id: str,
    status: str = "5.1.1",
    diagnostic: str = "550 5.1.1 No such mailbox here",
    action: str = "failed",
    sender: str = "news@sender.test",
    report_id: str | None = None,
    extra_headers: str = "",
    padding: int = 0,
) -> bytes:
    """An RFC 3464 report about one recipient, with CRLF; `padding` octets of returned body make it larger."""
    boundary = "=_report_7b1f"
    filler = "".join(f"A line of the returned message, number {n:06}.\r\n" for n in range(padding // 46))
    when = format_datetime(_WHEN)
    report_id = report_id or f"<report-of-{message_id.strip('<>')}>"
    return (
        f"{extra_headers}"
        f"From: Mail Delivery System <MAILER-DAEMON@mx.receiver.test>\r\n"
        f"To: {sender}\r\n"
        f"Subject: Undelivered Mail Returned to Sender\r\n"
        f"Date: {when}\r\n"
        f"Message-ID: {report_id}\r\n"
        f"Auto-Submitted: auto-replied\r\n"
        f"MIME-Version: 1.0\r\n"
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"\r\n'
        f"\r\n"
        f"--{boundary}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\n"
        f"\r\n"
        f"The mail system could not deliver your message.\r\n"
        f"\r\n"
        f"<{recipient}>: host mx.receiver.test[192.0.2.7] said: {diagnostic}\r\n"
        f"\r\n"
        f"--{boundary}\r\n"
        f"Content-Type: message/delivery-status\r\n"
        f"\r\n"
        f"Reporting-MTA: dns; mx.receiver.test\r\n"
        f"Arrival-Date: {when}\r\n"
        f"\r\n"
        f"Final-Recipient: rfc822; {recipient}\r\n"
        f"Action: {action}\r\n"
        f"Status: {status}\r\n"
        f"Diagnostic-Code: smtp; {diagnostic}\r\n"
        f"\r\n"
        f"--{boundary}\r\n"
        f"Content-Type: message/rfc822\r\n"
        f"\r\n"
        f"Return-Path: <{sender}>\r\n"
        f"From: News <{sender}>\r\n"
        f"To: {recipient}\r\n"
        f"Subject: The November issue\r\n"
        f"Message-ID: {message_id}\r\n"
        f"Date: {when}\r\n"
        f"\r\n"
        f"Good morning,\r\n"
        f"{filler}"
        f"\r\n"
        f"--{boundary}--\r\n"
    ).encode()


def reply(sender: str, *, message_id: str, text: str = "Thank you, that helps a lot.") -> bytes:
    """A person's answer."""
    return (
        f"From: Ada Example <{sender}>\r\n"
        f"To: news@sender.test\r\n"
        f"Subject: Re: The November issue\r\n"
        f"Date: {format_datetime(_WHEN)}\r\n"
        f"Message-ID: {message_id}\r\n"
        f"MIME-Version: 1.0\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\n"
        f"\r\n"
        f"{text}\r\n"
    ).encode()

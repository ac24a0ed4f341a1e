"""The mail that `mailback demo` reads: our own writing, in the manner of what servers and people really send.

All names are reserved for documentation (RFC 2606) and the addresses belong to nobody. Emits no log events.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import NamedTuple

SENDER = "news@shop.example"


class DemoMail(NamedTuple):
    """One message of the tour."""

    what: str
    """What it is, in a person's words."""
    raw: bytes


def mailbox() -> list[DemoMail]:
    """The messages, as they would have come in within the last minutes."""
    now = datetime.now(UTC)
    makers = (_unknown_user, _mailbox_full, _blocked, _delayed, _complaint, _vacation, _unknown_user_in_german, _reply)
    return [maker(now - timedelta(minutes=len(makers) - n)) for n, maker in enumerate(makers)]


def _original(recipient: str, number: int) -> str:
    return (
        f"Return-Path: <bounce+{number}@shop.example>\n"
        f"Message-ID: <november.{number}@shop.example>\n"
        f"From: The shop <{SENDER}>\n"
        f"To: <{recipient}>\n"
        "Subject: What is new in November\n"
        "List-Id: News of the shop <news.shop.example>\n"
        "X-Campaign-ID: november\n"
        "MIME-Version: 1.0\n"
        "Content-Type: text/plain; charset=utf-8\n"
    )


def _dsn(
    when: datetime, number: int, recipient: str, *, server: str, text: str, action: str, status: str, said: str
) -> bytes:
    subject = "Undelivered Mail Returned to Sender" if action == "failed" else "Delayed Mail (still being retried)"
    return "\r\n".join(
        f"""Return-Path: <>
Date: {format_datetime(when)}
From: Mail Delivery System <MAILER-DAEMON@{server}>
To: bounce+{number}@shop.example
Subject: {subject}
Message-ID: <report.{number}@{server}>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="=demo"

--=demo
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

{text}

--=demo
Content-Type: message/delivery-status

Reporting-MTA: dns; {server}
Arrival-Date: {format_datetime(when)}

Original-Recipient: rfc822;{recipient}
Final-Recipient: rfc822;{recipient}
Action: {action}
Status: {status}
Remote-MTA: dns; mx.{recipient.partition("@")[2]}
Diagnostic-Code: smtp; {said}

--=demo
Content-Type: text/rfc822-headers

{_original(recipient, number)}
--=demo--
""".splitlines()
    ).encode()


def _unknown_user(when: datetime) -> DemoMail:
    said = "550 5.1.1 <anna@dept.example>: Recipient address rejected: User unknown in local recipient table"
    text = f"I could not hand your message on. The other side answered:\n\n    {said}"
    raw = _dsn(when, 1, "anna@dept.example", server="mail.shop.example", text=text, action="failed", status="5.1.1",
               said=said)  # fmt: skip
    return DemoMail("dead address", raw)


def _mailbox_full(when: datetime) -> DemoMail:
    said = "552 5.2.2 The mailbox of ben@home.example is full and takes no mail: quota exceeded"
    text = f"Your message was not delivered to ben@home.example:\n\n    {said}"
    raw = _dsn(when, 2, "ben@home.example", server="mail.shop.example", text=text, action="failed", status="5.2.2",
               said=said)  # fmt: skip
    return DemoMail("full mailbox", raw)


def _blocked(when: datetime) -> DemoMail:
    said = (
        "554 5.7.1 Service unavailable; Client host [192.0.2.25] blocked using zen.blocklist.example; "
        "see https://blocklist.example/192.0.2.25"
    )
    text = f"The server of cara@firm.example refused the connection:\n\n    {said}"
    raw = _dsn(when, 3, "cara@firm.example", server="mail.shop.example", text=text, action="failed", status="5.7.1",
               said=said)  # fmt: skip
    return DemoMail("our IP blocked", raw)


def _delayed(when: datetime) -> DemoMail:
    said = "connect to mx.slow.example[198.51.100.7]:25: Connection timed out"
    text = "This is only a warning. You need not send your message again: delivery is tried for five days."
    raw = _dsn(when, 4, "dan@slow.example", server="mail.shop.example", text=text, action="delayed", status="4.4.1",
               said=said)  # fmt: skip
    return DemoMail("delay warning", raw)


def _complaint(when: datetime) -> DemoMail:
    return DemoMail(
        "spam button",
        "\r\n".join(
            f"""Return-Path: <feedback@isp.example>
Date: {format_datetime(when)}
From: Feedback loop <feedback@isp.example>
To: abuse@shop.example
Subject: FW: What is new in November
Message-ID: <arf.5@isp.example>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="=demo"

--=demo
Content-Type: text/plain; charset=us-ascii

One of our users reported this message as spam.

--=demo
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: ProviderLoop/2.1
Version: 1
Original-Mail-From: <bounce+5@shop.example>
Original-Rcpt-To: <emma@isp.example>
Arrival-Date: {format_datetime(when)}
Source-IP: 192.0.2.25

--=demo
Content-Type: message/rfc822

{_original("emma@isp.example", 5)}
Our November offers.

--=demo--
""".splitlines()
        ).encode(),
    )


def _vacation(when: datetime) -> DemoMail:
    return DemoMail(
        "vacation",
        "\r\n".join(
            f"""Return-Path: <>
Date: {format_datetime(when)}
From: Farid <farid@firm.example>
To: {SENDER}
Subject: Out of office: What is new in November
Message-ID: <vacation.6@firm.example>
In-Reply-To: <november.6@shop.example>
Auto-Submitted: auto-replied (vacation)
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

I am out of the office until 7 December and will answer your mail when I am back.
""".splitlines()
        ).encode(),
    )


def _unknown_user_in_german(when: datetime) -> DemoMail:
    return DemoMail(
        "German, no DSN",
        "\r\n".join(
            f"""Return-Path: <>
Date: {format_datetime(when)}
From: Mail Delivery System <postmaster@post.example>
To: bounce+7@shop.example
Subject: Nachricht nicht zustellbar
Message-ID: <bericht.7@post.example>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Die folgende Adresse konnte nicht erreicht werden:

  gerd@post.example
    550 Benutzer unbekannt

--- Kopfzeilen Ihrer Nachricht ---

{_original("gerd@post.example", 7)}
""".splitlines()
        ).encode(),
    )


def _reply(when: datetime) -> DemoMail:
    return DemoMail(
        "a person",
        "\r\n".join(
            f"""Return-Path: <hana@home.example>
Date: {format_datetime(when)}
From: Hana <hana@home.example>
To: {SENDER}
Subject: Re: What is new in November
Message-ID: <answer.8@home.example>
In-Reply-To: <november.8@shop.example>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

Could you tell me what shipping to Norway costs?

Hana
""".splitlines()
        ).encode(),
    )

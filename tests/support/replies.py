"""Replies written for the tests."""

from __future__ import annotations

OPT_OUT = "Please remove me from your mailing list, unsubscribe."
INTERESTED = "Yes please, I would like a demo. Can you call me on Thursday?"


def answer(
    text: str,
    sender: str = "ada@receiver.test",
    *,
    message_id: str = "<r1@receiver.test>",
    answers: str | None = None,
    subject: str = "Re: The November issue",
    extra: str = "",
) -> bytes:
    """A person's answer, to the message that `answers` names."""
    answered = f"In-Reply-To: {answers}\r\nReferences: {answers}\r\n" if answers else ""
    return (
        f"From: Ada Example <{sender}>\r\nTo: news@sender.test\r\nSubject: {subject}\r\n"
        f"Date: Fri, 20 Nov 2026 09:30:00 +0000\r\nMessage-ID: {message_id}\r\n{answered}{extra}"
        f"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
    ).encode()


def executable(sender: str = "ada@receiver.test", *, message_id: str = "<m1@receiver.test>") -> bytes:
    """An answer with a program in the clothes of a document."""
    return (
        f"From: Ada Example <{sender}>\r\nTo: news@sender.test\r\nSubject: Re: The November issue\r\n"
        f"Message-ID: {message_id}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        "--b\r\nContent-Type: text/plain\r\n\r\nSee the list.\r\n"
        '--b\r\nContent-Type: application/octet-stream; name="list.pdf.exe"\r\n\r\nMZ\r\n--b--\r\n'
    ).encode()

"""What every reader needs to know of a message first: who sent it, to whom, under which subject, as which MIME types.

Log events: none. Worked out once a message, so that each reader is a few comparisons.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailback.envelope import Envelope, Source
from mailback.message import Message
from mailback.reports import addresses
from mailback.reports.dialects import Dialects
from mailback.reports.original import OriginalNames
from mailback.reports.phrases import says

_ANSWERS = re.compile(
    r"(?:re|aw|antw|antwort|sv|vs|odp|ynt|res|rif|ref|回复|回覆|答复|返信|回信|답장|fwd?|wg|tr|rv|enc|i|fs|vl|doorst|転送|转发|轉寄|전달|transfer)"
    r"(?:\[\d{1,3}\])?\s?[:：]\s*",
    re.IGNORECASE,
)
"""What mail programs put before the subject of an answer or a forwarded message."""

_SMTP_SOURCES = frozenset({Source.SMTPD, Source.MILTER})


@dataclass(slots=True)
class Facts:
    """What is known before any text is read."""

    message: Message
    envelope: Envelope | None
    names: OriginalNames
    dialects: Dialects
    cap: int
    """Failures kept of one report."""
    types: frozenset[str]
    subject: str
    """Decoded, lower case, white space collapsed, without the marks of an answer."""
    answers: bool
    """The subject says that this is an answer or a forwarded message."""
    sender: str
    """The From address, empty when there is none."""
    null_sender: bool
    """The envelope sender is `<>` or a mail server's own (RFC 5321 section 4.5.5)."""
    daemon: bool
    """The From address or name is one that only mail servers use."""
    ours: tuple[str, ...]
    """Whom the message was sent to: for a report, the sender of the original."""

    def get(self, name: str) -> str:
        """A header field, decoded and lower case; empty when absent."""
        value = self.message.headers.get(name)
        return value.lower() if value else ""


def gather(message: Message, envelope: Envelope | None, names: OriginalNames, dialects: Dialects, cap: int) -> Facts:
    """Look at the header once."""
    headers = message.headers
    sender_field = headers.get("from") or ""
    found = addresses.of_header(sender_field)
    sender = found[-1] if found else ""
    raw_subject = " ".join((headers.get("subject") or "").split()).lower()[:500]
    mark = _ANSWERS.match(raw_subject)
    return Facts(
        message=message,
        envelope=envelope,
        names=names,
        dialects=dialects,
        cap=cap,
        types=frozenset(part.type for part in message.parts),
        subject=_ANSWERS.sub("", raw_subject, count=1) if mark else raw_subject,
        answers=mark is not None,
        sender=sender,
        null_sender=_is_null_sender(headers.get("return-path"), envelope),
        daemon=_is_daemon(sender_field.lower(), sender.lower(), dialects)
        or any(name in headers for name in dialects.machine_headers),
        ours=_ours(headers.get("to"), headers.get("delivered-to"), envelope),
    )


def _is_null_sender(return_path: str | None, envelope: Envelope | None) -> bool:
    if envelope is not None and envelope.source in _SMTP_SOURCES:
        return envelope.sender == "" or envelope.sender[:13].lower() == "mailer-daemon"
    if return_path is None:
        return False
    inner = return_path.strip().strip("<>").lower()
    return inner == "" or inner.startswith(("mailer-daemon", "postmaster@", "double-bounce"))


def _is_daemon(field: str, sender: str, dialects: Dialects) -> bool:
    local = sender.partition("@")[0]
    if local in dialects.machines or local.startswith(("mailer-daemon", "postmaster")):
        return True
    name = field.partition("<")[0] if "<" in field else field
    return says(name, dialects.machine_names)


def _ours(to: str | None, delivered_to: str | None, envelope: Envelope | None) -> tuple[str, ...]:
    told = addresses.of_header(to) if to else []
    if delivered_to:
        told += addresses.of_header(delivered_to)
    if envelope is not None:
        told += envelope.recipients
    return tuple(dict.fromkeys(address.lower() for address in told[:50]))

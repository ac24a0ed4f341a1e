"""What the SMTP conversation said about a message, apart from its bytes; each door fills one in."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum


class Source(StrEnum):
    """Which way a message came in."""

    MILTER = "milter"
    SMTPD = "smtpd"
    LOG = "log"
    MAILBOX = "mailbox"
    WEBHOOK = "webhook"
    IMPORT = "import"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One SMTP transaction (RFC 5321 section 3.3). Addresses stand without angle brackets."""

    sender: str = ""
    """Envelope sender; the empty string is the null sender `<>`."""
    recipients: tuple[str, ...] = ()
    client_address: str | None = None
    """IP address of the peer, as text."""
    client_name: str | None = None
    """Verified reverse name of the peer, where the door knows one."""
    helo: str | None = None
    auth_user: str | None = None
    queue_id: str | None = None
    source: Source = Source.IMPORT
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC))

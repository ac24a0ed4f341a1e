"""What a report says: records that every reader in this folder fills, and that the upper floors read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from mailback.bounce.taxonomy import Kind, Subcategory
from mailback.reports.dates import date
from mailback.reports.once import Once

CAUSE_STATED = 0.95
"""Confidence in a cause that a report states itself."""


@dataclass(slots=True)
class DeliveryFailure:
    """What became of one recipient (RFC 3464 section 2.3); also used for delays, successes and complaints."""

    recipient: str
    """Whom the report says it failed for: the final address where that is one, else the original one."""
    original_recipient: str | None = None
    """The address as it was before aliases and forwarding (RFC 3461 ORCPT), where the report tells it."""
    final_recipient: str | None = None
    action: str = "failed"
    """`failed`, `delayed`, `delivered`, `relayed` or `expanded`; lower case."""
    status: str | None = None
    """Enhanced status code (RFC 3463), after a generic or contradicted Status field was put right."""
    stated_status: str | None = None
    """The Status field as the report states it."""
    smtp_code: str | None = None
    diagnostic: str = ""
    """What the remote server (or the reporting one) said, unfolded, white space collapsed."""
    diagnostic_type: str | None = None
    """`smtp`, `x-postfix`, `x-unix`, ...: the type before the semicolon; None for free text."""
    reporting_mta: str | None = None
    remote_mta: str | None = None
    cause: Subcategory | None = None
    """Set where the report itself names the cause (a feedback type, an auto-reply); else the classifier decides."""
    cause_confidence: float = CAUSE_STATED
    """How far `cause` is to be believed, 0 to 1; low where the report accuses something other than the address."""
    worded: bool = False
    """It is told by its words alone: a person may have written it after all."""
    moved_to: str | None = None
    """The new address that the text suggests (`address_moved`, `left_organisation`)."""
    fields: dict[str, list[str]] = field(default_factory=dict)
    """Every per-recipient field, by lower-case name, in the order of the report."""

    @property
    def last_attempt(self) -> datetime | None:
        """When the reporting server last tried, where the report tells it."""
        return date((self.fields.get("last-attempt-date") or [""])[0])

    @property
    def mailed(self) -> str:
        """The address that *we* mailed, so the one to suppress: the original recipient where it is told."""
        return self.original_recipient or self.recipient


@dataclass(slots=True)
class Original:
    """What the report returns of our own message."""

    message_id: str | None = None
    sender: str | None = None
    """Envelope sender where it is told (Return-Path, X-Postfix-Sender), else the From address."""
    recipients: tuple[str, ...] = ()
    subject: str | None = None
    list_id: str | None = None
    campaign: str | None = None
    subscriber: str | None = None
    date: datetime | None = None
    header_block: bytes = b""
    """The returned header bytes as they stand, for the proof by our own DKIM signature."""


@dataclass
class Report:
    """What `mailback.reports.read` makes of a message."""

    kind: Kind
    failures: list[DeliveryFailure] = field(default_factory=list)
    reporting_mta: str | None = None
    dialect: str | None = None
    """Which reader or dialect recognised it: `rfc3464`, `qmail`, `exim`, `arf`, ...; kept as evidence."""
    fields: dict[str, list[str]] = field(default_factory=dict)
    """Every per-message field of the report, by lower-case name."""
    notes: list[str] = field(default_factory=list)
    truncated: bool = False
    """More recipients were told than are kept."""
    cause: Subcategory | None = None
    """What a message without failures says: the sort of an auto-reply."""
    guessed: bool = False
    """No word tells the sort of an auto-reply: whoever reads its meaning knows better."""
    worded: bool = False
    """It is told by its words alone: a person may have written it after all."""
    moved_to: str | None = None
    """The new address that an auto-reply of the sort `left_organisation` names."""
    explanation: Callable[[], str] = str
    """Gives the human-readable part; called when `text` is asked for, as most reports are told by their fields."""
    returned: Callable[[], Original | None] = lambda: None
    """Gives `original`; called when that is asked for: reading our own header costs a fifth of reading a report."""

    @Once
    def text(self) -> str:
        """What the report says to people (RFC 6522 section 3), HTML made visible, capped; for the text rules."""
        return self.explanation()[:TEXT_CAP]

    @cached_property
    def original(self) -> Original | None:
        """What the report returns of our own message; None when it returns nothing."""
        return self.returned()


TEXT_CAP = 65_536
"""Characters of the human-readable part that are kept."""

"""What a message is: its report or reply, one finding a recipient, and how that is told as JSON.

Emits no log events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mailback.bounce.taxonomy import Kind, Provenance

if TYPE_CHECKING:
    from mailback.auth import Authentication
    from mailback.bounce.verdict import Verdict
    from mailback.message import Message
    from mailback.policy.handling import Handling
    from mailback.recipient.readership import Reader
    from mailback.reply import Reply
    from mailback.reports.report import DeliveryFailure, Report

MACHINE_KINDS = frozenset({Kind.BOUNCE, Kind.DELAY, Kind.DELIVERED, Kind.COMPLAINT, Kind.AUTO_REPLY, Kind.DISPOSITION})
"""Kinds that are recorded and then go to `bounces_to`. Challenges, unsubscribes and reports are written by machines
too, yet ask for something that a person has to do: they go on like people's mail."""
_KINDS_WITH_BOUNCES = frozenset({Kind.BOUNCE, Kind.DELAY, Kind.DELIVERED, Kind.COMPLAINT})
"""Kinds whose findings `to_dict` tells (an unsubscribe has one, which is no delivery)."""
KINDS_READ = frozenset({Kind.REPLY, Kind.AUTO_REPLY})
"""Kinds whose text is read for what it means."""
KINDS_OF_FAILURE = frozenset({Kind.BOUNCE, Kind.DELAY})
"""Kinds whose verdict what the recipient did with earlier mail has a part in."""


class Finding(NamedTuple):
    """One recipient of a report: what it says, why, and what the handling rules ask for."""

    failure: DeliveryFailure
    verdict: Verdict
    handling: Handling
    provider: str | None = None
    reader: Reader | None = None
    """What the recipient did with earlier mail, where that is known."""

    def to_dict(self) -> dict[str, object]:
        verdict, failure = self.verdict, self.failure
        return {
            "recipient": failure.recipient,
            "original_recipient": failure.original_recipient,
            "final_recipient": failure.final_recipient,
            "status": failure.status,
            "smtp_code": failure.smtp_code,
            "type": verdict.type.value,
            "subcategory": verdict.subcategory.value,
            "fault": verdict.fault.value if verdict.fault else None,
            "permanent": verdict.permanent,
            "action": self.handling.action.value,
            "retry_after_s": self.handling.retry_after_s,
            "suppress_days": self.handling.suppress_days,
            "confidence": round(verdict.confidence, 3),
            "diagnostic": failure.diagnostic,
            "reporting_mta": failure.reporting_mta,
            "remote_mta": failure.remote_mta,
            "moved_to": failure.moved_to,
            "risk": verdict.risk.to_dict(),
            "evidence": [evidence.to_dict() for evidence in verdict.evidence],
        }


class Classification(NamedTuple):
    """What a message is; the answer of `mailback.classify`."""

    report: Report
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    provenance: Provenance = Provenance.UNPROVEN
    reply: Reply | None = None
    """What a person means, or an automatic answer; None for every other kind."""
    authentication: Authentication | None = None
    """Who brought it, where that was found out: by a door, in the SMTP conversation."""

    @property
    def kind(self) -> Kind:
        return self.report.kind

    @property
    def names_nobody(self) -> bool:
        """A bounce that does not tell whom it is about: only a person can make something of it."""
        return self.kind is Kind.BOUNCE and not self.findings

    @property
    def machine(self) -> bool:
        """Whether the message has said all it has to say once it is recorded. What is taken for an automatic answer by
        its words alone is not: a person may have written it, and nothing that a person writes is lost."""
        worded = self.kind is Kind.AUTO_REPLY and self.report.worded
        return self.kind in MACHINE_KINDS and not self.names_nobody and not worded

    def to_dict(self, source: str | None = None) -> dict[str, object]:
        """The dictionary of `mailback classify --json`; `source` names where the message was read from."""
        original = self.report.original
        told: dict[str, object] = {} if source is None else {"source": source}
        return told | {
            "kind": self.kind.value,
            "bounces": [f.to_dict() for f in self.findings] if self.kind in _KINDS_WITH_BOUNCES else [],
            "reply": self.reply.to_dict() if self.reply else None,
            "original": {
                "message_id": original.message_id if original else None,
                "sender": original.sender if original else None,
                "subject": original.subject if original else None,
                "list_id": original.list_id if original else None,
                "campaign": original.campaign if original else None,
            },
            "authentication": self.authentication.to_dict() if self.authentication else None,
            "provenance": self.provenance.value,
            "notes": list(self.notes),
        }


def notes_of(message: Message, report: Report, findings: tuple[Finding, ...]) -> tuple[str, ...]:
    """What was odd about a message, in words: kept with its events and logged."""
    notes = message.notes + report.notes
    if report.truncated:
        notes.append("read in part: a limit was passed, and what stands beyond it is not recorded")
    if report.kind is Kind.BOUNCE and not findings:
        notes.append("says that a delivery failed, and names nobody")
    if report.kind is Kind.OTHER and not message.headers.items():
        notes.append("no mail: no header field could be read")
    if b"\0" in message.raw:
        notes.append("holds NUL octets")
    return tuple(dict.fromkeys(notes)) if notes else ()

"""What is recorded of a message: one event a recipient, and its identity. Emits no log events."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from mailback import address
from mailback.bounce.taxonomy import Kind
from mailback.envelope import Envelope
from mailback.store.ids import new_id
from mailback.store.records import Event

if TYPE_CHECKING:
    from mailback.walk.classification import Classification, Finding


def event_of(
    envelope: Envelope, classification: Classification, report_id: str | None, digest: str, size: int
) -> Event:
    original = classification.report.original
    event = Event(
        id=new_id(envelope.received_at),
        identity=_hash("message", digest),
        at=envelope.received_at,
        kind=classification.kind,
        source=envelope.source.value,
        report_message_id=report_id,
        envelope_sender=envelope.sender,
        client_address=envelope.client_address,
        queue_id=envelope.queue_id,
        reporting_mta=classification.report.reporting_mta,
        provenance=classification.provenance,
        authentication=classification.authentication.to_dict() if classification.authentication else None,
        notes=list(classification.notes),
        raw_sha256=digest,
        raw_size=size,
    )
    if original is not None:
        event.original_message_id = original.message_id
        event.original_sender = original.sender
        event.subject = original.subject
        event.campaign = original.campaign
        event.list_id = original.list_id
        event.subscriber = original.subscriber
        event.original_sent_at = original.date
    return event


def fill_finding(event: Event, finding: Finding, digest: str) -> None:
    failure, verdict = finding.failure, finding.verdict
    event.recipient = failure.mailed
    event.recipient_key = address.key(failure.mailed)
    event.final_recipient = failure.final_recipient
    event.domain = address.domain(failure.mailed) or None
    event.provider = finding.provider
    event.smtp_code = failure.smtp_code
    event.status = failure.status
    event.diagnostic = failure.diagnostic
    event.reporting_mta = failure.reporting_mta or event.reporting_mta
    event.remote_mta = failure.remote_mta
    event.type = verdict.type.value
    event.subcategory = verdict.subcategory.value
    event.fault = verdict.fault
    event.permanent = verdict.permanent
    event.confidence = verdict.confidence
    event.risk = verdict.risk.to_dict()
    event.evidence = [evidence.to_dict() for evidence in verdict.evidence]
    event.engagement = dict(finding.reader.kept) if finding.reader is not None else None
    event.identity = identity_of(event, event.kind, digest)


def identity_of(event: Event, kind: Kind, digest: str) -> str:
    """What makes two reports one event: the same outcome of the same message for the same recipient.

    The returned Message-ID tells which message of ours it was, whichever way the news came (DSN, log, webhook). A
    server may send several delay notices about one message: each is news of its own, so the report's id counts.
    """
    recipient = event.recipient_key or ""
    if event.original_message_id and kind is not Kind.DELAY:
        return _hash(kind.value, event.original_message_id, recipient)
    if event.report_message_id:
        return _hash(kind.value, "report", event.report_message_id, recipient)
    return _hash(kind.value, "bytes", digest, recipient)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]

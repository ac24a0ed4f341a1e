"""Message disposition notifications (RFC 8098, RFC 6533 section 6): read, deleted, displayed; and those in free text.

Log events: none; nothing here raises on any bytes.

A receipt says that a person or a program has seen the message. It is no failure, and no reply either. One exception:
Sieve refuses mail that is already accepted with a receipt that says "deleted" (RFC 5429 section 2.1.2), in words.
"""

from __future__ import annotations

from mailback.bounce.taxonomy import Kind
from mailback.reports import addresses, dsn, reasons
from mailback.reports import original as originals
from mailback.reports.bounces import explanation
from mailback.reports.facts import Facts
from mailback.reports.phrases import says
from mailback.reports.report import Original, Report

_TYPES = frozenset({"message/disposition-notification", "message/global-disposition-notification"})


def read(facts: Facts) -> Report | None:
    """A receipt, by its MIME part, else by subject and text."""
    if not facts.types.isdisjoint(_TYPES):
        part = next(part for part in facts.message.parts if part.type in _TYPES)
        told = dsn.fields_of(part.content)
        return _refusal(told, facts) or _of_fields(told, facts)
    said = facts.words
    if (
        "receipt_subjects" in facts.subject_says
        and not facts.answers
        and facts.subject.startswith(said.receipt_subjects)
    ):
        text = explanation(facts)
        lower = text[:4000].lower()
        if says(lower, said.receipt_texts):
            return Report(kind=Kind.DISPOSITION, dialect="receipt", explanation=lambda: text)
    return None


def _of_fields(told: dsn.Fields, facts: Facts) -> Report:
    return Report(
        kind=Kind.DISPOSITION,
        dialect="mdn",
        explanation=lambda: explanation(facts),
        returned=lambda: _original(told, facts),
        fields=told,
    )


def _refusal(told: dsn.Fields, facts: Facts) -> Report | None:
    """RFC 5429 section 2.1.2: the recipient's filter threw the message away and tells the sender why."""
    disposition = (told.get("disposition") or [""])[0].lower()
    if not (disposition.startswith("automatic-action") and "deleted" in disposition):
        return None
    text = explanation(facts)
    lower = text[:4000].lower()
    recipient = addresses.of_field((told.get("final-recipient") or [""])[0])[1]
    said = next((phrase for phrase in facts.words.receipt_refusals if phrase in lower), None)
    if said is None or not recipient:
        return None
    why = text[lower.find(said) :]
    return Report(
        kind=Kind.BOUNCE,
        failures=[reasons.failure(recipient, reasons.reason(why))],
        dialect="sieve-reject",
        explanation=lambda: text,
        returned=lambda: _original(told, facts),
        fields=told,
    )


def _original(told: dsn.Fields, facts: Facts) -> Original | None:
    original = originals.of_message(facts.message, facts.names)
    message_id = originals.message_id(told.get("original-message-id", [""])[0])
    if message_id:
        original = original or Original()
        original.message_id = original.message_id or message_id
    return original

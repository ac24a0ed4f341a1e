"""Message disposition notifications (RFC 8098, RFC 6533 section 6): read, deleted, displayed; and those in free text.

Log events: none; nothing here raises on any bytes.

A receipt says that a person or a program has seen the message. It is no failure, and no reply either.
"""

from __future__ import annotations

from mailback.bounce.taxonomy import Kind
from mailback.reports import dsn
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
        return _of_fields(dsn.fields_of(part.content), facts)
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


def _original(told: dsn.Fields, facts: Facts) -> Original | None:
    original = originals.of_message(facts.message, facts.names)
    message_id = originals.message_id(told.get("original-message-id", [""])[0])
    if message_id:
        original = original or Original()
        original.message_id = original.message_id or message_id
    return original

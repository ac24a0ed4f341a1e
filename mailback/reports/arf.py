"""Complaints: the Abuse Reporting Format (RFC 5965), its fields outside their part, and providers that send neither.

Log events: none; nothing here raises on any bytes.

`Feedback-Type` decides what is said: `abuse`, `fraud`, `virus` and the rest are complaints, `opt-out` is a wish to be
removed, `not-spam` takes a complaint back. `auth-failure` (RFC 6591) accuses the *sender's* authentication: a feedback
report like the others, but nobody complained, so that its confidence is too low to suppress the address for.

Whom: Original-Rcpt-To and Removal-Recipient, else the recipient of the returned message. Providers redact one or the
other (RFC 6590); what is redacted beyond use is not reported.
"""

from __future__ import annotations

import re

from mailback.bounce.taxonomy import Kind, Subcategory
from mailback.message import Headers, Part
from mailback.reports import addresses, dsn, legacy
from mailback.reports import original as originals
from mailback.reports.bounces import explanation
from mailback.reports.facts import Facts
from mailback.reports.legacy import Standing
from mailback.reports.report import CAUSE_STATED, DeliveryFailure, Original, Report

_PART = "message/feedback-report"
_EMBEDDED = re.compile(r"^Feedback-Type[ \t]*:[ \t]*\w", re.MULTILINE | re.IGNORECASE)
_USER_AGENT = re.compile(r"^(?:User-Agent|Version|Source-IP|Original-Mail-From)[ \t]*:", re.MULTILINE | re.IGNORECASE)

_CAUSES = {
    "opt-out": Subcategory.UNSUBSCRIBE_REQUEST,
    "opt-out-list": Subcategory.UNSUBSCRIBE_REQUEST,
    "unsubscribe": Subcategory.UNSUBSCRIBE_REQUEST,
}
"""Feedback-Type (RFC 5965 section 7.3) -> cause; the rest are complaints."""

_ACCUSES_SENDER = frozenset({"auth-failure", "dkim"})
"""Feedback-Types (RFC 6591, RFC 5965) about the mail's authentication: the recipient has complained of nothing."""
_DOUBTFUL = 0.5
"""Confidence in a complaint that accuses the sender: below what any threshold needs to suppress the address."""

_WHOM = ("original-rcpt-to", "removal-recipient", "original-recipient", "complainant", "x-original-rcpt-to")

_ORIGINAL_WHOM = (
    "x-hmxmroriginalrecipient",
    "x-original-to",
    "x-envelope-to",
    "envelope-to",
    "x-rcpt-to",
    "delivered-to",
)
"""Fields of the returned message in which a provider leaves the complainant's address, after To."""


def read(facts: Facts) -> Report | None:
    """A feedback report, in its own part or in a text."""
    if _PART in facts.types:
        part = next(part for part in facts.message.parts if part.type == _PART)
        return _of_fields(dsn.fields_of(part.content), facts)
    if not _may_be_complaint(facts):
        return None
    text = explanation(facts)
    if _EMBEDDED.search(text) and _USER_AGENT.search(text):
        return _of_fields(dsn.fields_of(text), facts)
    return _of_provider(facts, text)


def _may_be_complaint(facts: Facts) -> bool:
    said = facts.words
    if "complaint_subjects" in facts.subject_says:
        return True
    if "multipart/report" in facts.types and "feedback-report" in facts.get("content-type"):
        return True
    return facts.sender.lower().startswith(said.complaint_senders)


def _of_fields(told: dsn.Fields, facts: Facts) -> Report:
    feedback = _first(told, "feedback-type").lower() or _first(told, "abuse-type").lower()
    report = Report(
        kind=Kind.REPORT if feedback == "not-spam" else Kind.COMPLAINT,
        dialect="arf",
        explanation=lambda: explanation(facts),
        fields=told,
        reporting_mta=_first(told, "reporting-mta").rpartition(";")[2].strip() or None,
    )
    part = originals.returned_part(facts.message)
    report.original = originals.of_part(part, facts.names) if part else None
    report.original = _with_sender(report.original, told)
    if report.kind is Kind.COMPLAINT:
        cause = _CAUSES.get(feedback, Subcategory.SPAM_COMPLAINT)
        _add(report, cause, _whom(told, part, report.original), facts)
    return report


def _with_sender(original: Original | None, told: dsn.Fields) -> Original | None:
    sender = addresses.of_field(_first(told, "original-mail-from"))[1]
    if sender and original is None:
        return Original(sender=sender)
    if sender and original is not None:
        original.sender = sender
    return original


def _add(report: Report, cause: Subcategory, whom: list[str], facts: Facts) -> None:
    feedback = _first(report.fields, "feedback-type") or "complaint"
    doubtful = feedback.lower() in _ACCUSES_SENDER
    failed = " ".join(report.fields.get("auth-failure", ())) if doubtful else ""
    report.truncated = len(whom) > facts.cap
    for address in whom[: facts.cap]:
        report.failures.append(
            DeliveryFailure(
                recipient=address,
                final_recipient=address,
                action="delivered",
                diagnostic=f"{feedback} {failed}".rstrip(),
                cause=cause,
                cause_confidence=_DOUBTFUL if doubtful else CAUSE_STATED,
                reporting_mta=report.reporting_mta,
                fields=report.fields,
            )
        )
    if not whom:
        report.notes.append("the complainant's address is redacted")


def _whom(told: dsn.Fields, part: Part | None, original: Original | None) -> list[str]:
    for name in _WHOM:
        found = [addresses.of_field(value)[1] for value in told.get(name, ())]
        found = [address for address in dict.fromkeys(found) if addresses.is_full(address)]
        if found:
            return found
    if original is not None and original.recipients:
        return [address for address in original.recipients[:1] if addresses.is_full(address)]
    headers = part.message.headers if part is not None and part.message is not None else None
    found = _of_original_fields(headers) if headers is not None else []
    if not found and original is not None and original.sender:
        encoded = addresses.verp(original.sender)
        found = [encoded] if encoded else []
    return found


def _of_original_fields(headers: Headers) -> list[str]:
    for name in _ORIGINAL_WHOM:
        found = addresses.of_header(headers.get(name) or "")
        if found:
            return found[:1]
    return []


def _of_provider(facts: Facts, text: str) -> Report | None:
    """Complaints of providers that do not write RFC 5965: the returned message names the complainant, if anything."""
    part = originals.returned_part(facts.message)
    original = originals.of_part(part, facts.names) if part else None
    headers = part.message.headers if part is not None and part.message is not None else None
    whom = _of_original_fields(headers) if headers is not None else []
    if part is None:
        reading = legacy.read(text, facts.dialects, facts.ours)
        named = (mention.address for mention in reading.mentions if mention.standing is Standing.LABELLED)
        whom = list(dict.fromkeys(named))
        original = originals.of_block(reading.returned.encode("utf-8", "surrogateescape"), facts.names)
    if not whom and original is not None and len(original.recipients) == 1:
        whom = [address for address in original.recipients if addresses.is_full(address)]
    if facts.answers or (part is None and "complaint_subjects" not in facts.subject_says):
        return None
    report = Report(kind=Kind.COMPLAINT, dialect="abuse-notice", explanation=lambda: text, returned=lambda: original)
    _add(report, Subcategory.SPAM_COMPLAINT, whom, facts)
    return report


def _first(told: dsn.Fields, name: str) -> str:
    values = told.get(name)
    return values[0].strip() if values else ""

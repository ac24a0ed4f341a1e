"""Notices: mail from machines to those who run mail systems, and events that services send as mail.

Log events: none; nothing here raises on any bytes.

DMARC aggregate reports (RFC 7489 section 7.2), TLS reports (RFC 8460), a Postfix server's transcript to its postmaster
and quota warnings are about no delivery of ours: kind `report`, no failures. Amazon SES events forwarded by SNS as
mail carry JSON with the recipients in it: they are bounces, complaints and deliveries.
"""

from __future__ import annotations

import json
import re
from typing import Any

from mailback.bounce.taxonomy import Kind, Subcategory
from mailback.reports import addresses, diagnostic
from mailback.reports import original as originals
from mailback.reports.bounces import explanation
from mailback.reports.facts import Facts
from mailback.reports.phrases import says
from mailback.reports.report import DeliveryFailure, Original, Report

_JSON_CAP = 1 << 20
_FOLDED = re.compile(r"!?\r?\n ?")
"""How gateways break the one long line of JSON."""

_TLSRPT = frozenset({"application/tlsrpt+gzip", "application/tlsrpt+json"})
"""RFC 8460 section 6.4 and 6.5."""

_PACKED = (
    "application/zip",
    "application/gzip",
    "application/x-gzip",
    "application/x-zip-compressed",
    "text/xml",
    "application/xml",
    "application/octet-stream",
)


def read_report(facts: Facts) -> Report | None:
    """DMARC and TLS reports by their types and subjects, postmaster notices by theirs."""
    if "tls-report-domain" in facts.message.headers.names or "tlsrpt" in facts.get("content-type"):
        return _report("tlsrpt", facts)
    if not facts.types.isdisjoint(_TLSRPT):
        return _report("tlsrpt", facts)
    if facts.answers:
        return None
    subject = facts.subject
    if subject.startswith("report domain:") or ("report domain:" in subject and "report-id" in subject):
        return _report("dmarc", facts)
    if "dmarc" in subject and not facts.types.isdisjoint(_PACKED):
        return _report("dmarc", facts)
    return _notice(facts) if _from_machine(facts) else None


def _notice(facts: Facts) -> Report | None:
    """A notice by its subject alone where only notices have such a one, else by words of its text as well."""
    subject = facts.subject_says
    if "failed_subjects" in subject and "notice_certain_subjects" not in subject:
        return None
    if "notice_certain_subjects" in subject:
        return _report("notice", facts)
    if "notice_subjects" in subject and says(explanation(facts)[:8000].lower(), facts.words.notice_texts):
        return _report("notice", facts)
    return None


def _from_machine(facts: Facts) -> bool:
    return (
        facts.daemon
        or facts.null_sender
        or facts.sender.lower()
        .partition("@")[0]
        .startswith(
            (
                "no-reply",
                "noreply",
                "donotreply",
                "do-not-reply",
                "system",
                "alert",
                "quota",
                "cron",
                "mailman",
                "quarantine",
                "notification",
                "admin",
                "support",
            )
        )
    )


def _report(dialect: str, facts: Facts) -> Report:
    return Report(kind=Kind.REPORT, dialect=dialect, explanation=lambda: explanation(facts))


_SES_KINDS = {
    "bounce": Kind.BOUNCE,
    "complaint": Kind.COMPLAINT,
    "delivery": Kind.DELIVERED,
    "deliverydelay": Kind.DELAY,
    "reject": Kind.BOUNCE,
}
_SES_ACTIONS = {Kind.BOUNCE: "failed", Kind.COMPLAINT: "delivered", Kind.DELIVERED: "delivered", Kind.DELAY: "delayed"}


def read_event(facts: Facts) -> Report | None:
    """An Amazon SES event in JSON, as SNS mails it: `notificationType` of identities, `eventType` of configurations."""
    if "amazon" not in facts.sender and "aws" not in facts.subject:
        return None
    text = explanation(facts)
    told = _json(text) or _json(_FOLDED.sub("", text))
    if told is None:
        return None
    message = told.get("Message")
    if isinstance(message, str):
        told = _json(message) or told
    name = str(told.get("notificationType") or told.get("eventType") or "").replace(" ", "").lower()
    kind = _SES_KINDS.get(name)
    detail = told.get({"deliverydelay": "deliveryDelay"}.get(name, name))
    if kind is None or not isinstance(detail, dict):
        return None
    report = Report(kind=kind, dialect="ses-event", explanation=lambda: json.dumps(detail, ensure_ascii=False))
    report.reporting_mta = _text(detail.get("reportingMTA")).rpartition(";")[2].strip() or None
    mail = told.get("mail")
    report.original = _original(mail, facts) if isinstance(mail, dict) else None
    report.failures = [_failure(entry, kind, detail, report) for entry in _recipients(detail)][: facts.cap]
    report.failures = [failure for failure in report.failures if failure.recipient]
    return report


def _json(text: str) -> dict[str, Any] | None:
    start = text.find("{")
    if start < 0:
        return None
    try:
        told, _ = json.JSONDecoder().raw_decode(text[start : start + _JSON_CAP])
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _recipients(detail: dict[str, Any]) -> list[dict[str, Any]]:
    for name in ("bouncedRecipients", "complainedRecipients", "delayedRecipients", "recipients"):
        entries = detail.get(name)
        if isinstance(entries, list):
            return [entry if isinstance(entry, dict) else {"emailAddress": entry} for entry in entries]
    return []


def _failure(entry: dict[str, Any], kind: Kind, detail: dict[str, Any], report: Report) -> DeliveryFailure:
    text = _text(entry.get("diagnosticCode")) or _text(detail.get("smtpResponse"))
    said = diagnostic.codes(text.removeprefix("smtp;"))
    stated = diagnostic.of_field(_text(entry.get("status")))
    address = addresses.plain(_text(entry.get("emailAddress")))
    return DeliveryFailure(
        recipient=address,
        final_recipient=address,
        action=_SES_ACTIONS[kind],
        status=diagnostic.settle(stated, said.status, said.smtp_code),
        stated_status=stated,
        smtp_code=said.smtp_code,
        diagnostic=diagnostic.tidy(text.removeprefix("smtp;")),
        diagnostic_type="smtp" if text else None,
        reporting_mta=report.reporting_mta,
        remote_mta=_text(detail.get("remoteMtaIp")) or None,
        cause=Subcategory.SPAM_COMPLAINT if kind is Kind.COMPLAINT else None,
    )


def _original(mail: dict[str, Any], facts: Facts) -> Original:
    """`mail.headers` repeats our header fields; `commonHeaders.messageId` is ours, `messageId` is the service's own."""
    lines = [
        f"{_text(entry.get('name'))}: {_text(entry.get('value'))}"
        for entry in mail.get("headers") or ()
        if isinstance(entry, dict)
    ]
    original = originals.of_block("\r\n".join(lines).encode("utf-8", "replace"), facts.names) if lines else None
    original = original or Original()
    original.sender = addresses.plain(_text(mail.get("source"))) or original.sender
    if not original.recipients:
        original.recipients = tuple(_text(address) for address in mail.get("destination") or ())
    return original


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""

"""From a delivery report of any shape to one record a recipient: structured fields first, free text where they lack.

Log events: none. What was guessed, and from what, stands in `Report.notes`.

The order of belief about *whom* it failed for: per-recipient fields (RFC 3464); X-Failed-Recipients; the addresses of
the explanation, by how they stand there (`legacy`); the subject; the recipient of the returned message where it has
only one; the recipient that our own variable envelope return path encodes.
"""

from __future__ import annotations

import re
from collections.abc import Set

from mailback.bounce.taxonomy import Kind
from mailback.message import Part, html_to_text
from mailback.reports import addresses, diagnostic, dsn, legacy, reasons
from mailback.reports import original as originals
from mailback.reports.facts import Facts
from mailback.reports.legacy import Mention, Reading, Standing
from mailback.reports.phrases import says
from mailback.reports.reasons import Reasons
from mailback.reports.report import DeliveryFailure, Original, Report


def read_structured(facts: Facts) -> Report | None:
    """RFC 3464 and RFC 6533: a message/delivery-status part, or its fields within a text part of a report."""
    found = _status_fields(facts)
    if found is None:
        return None
    told, failures, truncated = found
    if not failures:
        return None
    report = Report(
        kind=_kind_of_actions(failures),
        failures=failures,
        reporting_mta=failures[0].reporting_mta,
        dialect="rfc3464",
        explanation=lambda: explanation(facts),
        returned=lambda: originals.complete(originals.of_message(facts.message, facts.names), told),
        fields=told,
        truncated=truncated,
    )
    if any(map(_lacks, failures)):
        _fill_from_text(report, legacy.read(report.text, facts.dialects, facts.ours), facts)
    if len(failures) > 1 or not failures[0].recipient:
        report.failures = _one_each(failures)
    return report


def _status_fields(facts: Facts) -> tuple[dsn.Fields, list[DeliveryFailure], bool] | None:
    told: dsn.Fields = {}
    failures: list[DeliveryFailure] = []
    truncated = False
    for part in dsn.status_parts(facts.message):
        fields, more, cut = dsn.read(part.content, facts.cap - len(failures))
        for name, values in fields.items() if told else ():
            told.setdefault(name, []).extend(values)
        told = told or fields
        failures += more
        truncated = truncated or cut
    return (told, failures, truncated) if failures else None


def _kind_of_actions(failures: list[DeliveryFailure]) -> Kind:
    """One failure makes it a bounce, else one delay a delay, else it is good news (RFC 3464 section 2.3.3)."""
    actions = {failure.action for failure in failures}
    if "failed" in actions:
        return Kind.BOUNCE
    if "delayed" in actions:
        return Kind.DELAY
    return Kind.DELIVERED


def _lacks(failure: DeliveryFailure) -> bool:
    """Whether the text may know better: no recipient, or no reason, or no status worth the name."""
    if not addresses.is_full(failure.recipient):
        return True
    if failure.action not in {"failed", "delayed"}:
        return False
    if failure.diagnostic == "" or failure.diagnostic.isdigit():
        return True  # sendmail tells the exit code of a program (`X-Unix; 255`)
    return failure.status is None or (failure.smtp_code is None and failure.status[1:] == ".0.0")


def _fill_from_text(report: Report, reading: Reading, facts: Facts) -> None:
    """Complete records from the human-readable part (RFC 6522 section 2: it says the same in other words)."""
    mentions = {mention.address.lower(): mention for mention in reversed(reading.mentions)}
    nameless = [failure for failure in report.failures if not addresses.is_full(failure.recipient)]
    if nameless:
        _name(nameless, report, reading, facts)
    reasons_told = Reasons(reading, legacy.recipients(reading))
    for failure in report.failures:
        if not _lacks(failure):
            continue
        mention = mentions.get(failure.recipient.lower())
        if mention is None or failure.action not in {"failed", "delayed"}:
            continue
        told = reasons_told.of(mention)
        said = told.said
        if not failure.diagnostic or failure.diagnostic.isdigit():
            failure.diagnostic = diagnostic.tidy(told.text)
        failure.smtp_code = failure.smtp_code or said.smtp_code
        if failure.status is None or (said.smtp_code is not None and failure.status.endswith(".0")):
            failure.status = diagnostic.settle(failure.status, said.status, said.smtp_code)


def _name(nameless: list[DeliveryFailure], report: Report, reading: Reading, facts: Facts) -> None:
    """Find recipients for records that name a program, a folder or nobody; what finds none keeps its odd name."""
    known = {failure.recipient.lower() for failure in report.failures if addresses.is_full(failure.recipient)}
    every = whom(facts, reading, report, legacy.recipients(reading))
    found = [address for address in every if address.lower() not in known]
    for failure, address in zip(nameless, found, strict=False):
        failure.recipient = address
        report.notes.append("a recipient was taken from the text, as its own fields name none")
    for failure in nameless[len(found) :]:
        if len(found) == 1:
            failure.recipient = found[0]


def _one_each(failures: list[DeliveryFailure]) -> list[DeliveryFailure]:
    """One record a recipient; of two the one that says more (a server may report each attempt)."""
    told: dict[str, DeliveryFailure] = {}
    for failure in failures:
        key = failure.recipient.lower()
        if not key:
            continue
        before = told.get(key)
        if before is None or (not before.diagnostic and failure.diagnostic):
            told[key] = failure
    return list(told.values())


# Free text


def explanation(facts: Facts) -> str:
    """What the report says to people: the text parts before the returned message, HTML made visible."""
    message = facts.message
    if message.root.type.startswith("multipart/"):
        said = [_visible(part) for part in _text_parts(facts)]
        return "\n\n".join(piece for piece in said if piece) or message.text
    return message.text


def _text_parts(facts: Facts) -> list[Part]:
    """Text parts up to the returned message; of alternatives only the plain one, and no attachments."""
    parts: list[Part] = []
    has_plain = False
    for part in facts.message.parts[1:]:
        if part.type in originals.RETURNED_TYPES:
            break
        if part.type == "text/plain" and part.disposition != "attachment":
            parts.append(part)
            has_plain = has_plain or bool(part.content.strip())
    if has_plain:
        return parts
    return [part for part in facts.message.parts[1:] if part.type == "text/html"][:1] or parts


def _visible(part: Part) -> str:
    return html_to_text(part.text) if part.type == "text/html" else part.text


def read_text(facts: Facts) -> Report | None:
    """A bounce, warning or positive notice in free text; None when it is none of these."""
    listed = "x-failed-recipients" in facts.message.headers
    if not listed and not _may_be_report(facts):
        return None
    text = explanation(facts)
    embedded = dsn.looks_like_fields(text)
    reading = legacy.read(text, facts.dialects, facts.ours)
    text_says = facts.vocabulary.texts.told(reading.text[:_WORDS_CAP].lower())
    kind = _kind_of_words(facts, reading, text_says, listed=listed or embedded)
    if kind is None:
        return None
    if not (listed or embedded or _from_machine(facts) or _has_evidence(reading, facts)):
        return None
    told, failures, truncated = dsn.read(text, facts.cap) if embedded else ({}, [], False)
    report = Report(
        kind=kind,
        failures=_one_each([failure for failure in failures if addresses.is_full(failure.recipient)]),
        dialect=facts.dialects.server(text_says, facts.get("x-mailer")) or "text",
        explanation=lambda: reading.text,
        returned=lambda: originals.complete(_original(facts, reading), told),
        reporting_mta=facts.sender.rpartition("@")[2] or None if facts.daemon else None,
        fields=told,
        truncated=truncated,
    )
    if embedded:
        _fill_from_text(report, reading, facts)
    if not report.failures:
        _add_failures(report, facts, reading)
    if not listed and _plays_daemon(report, reading, facts):
        return None
    return report if report.failures or facts.daemon or listed else None


def _plays_daemon(report: Report, reading: Reading, facts: Facts) -> bool:
    """A stranger who tells the reader that the reader's own mail failed, and shows none of it: bait, as a server has a
    null sender, or at least a server's address (RFC 5321 section 4.5.5)."""
    if facts.null_sender or "multipart/report" in facts.types or facts.dialects.is_role(facts.sender):
        return False
    if originals.returned_part(facts.message) is not None or legacy.has_header(reading.returned):
        return False
    named = [failure.recipient.lower() for failure in report.failures]
    return bool(named) and all(who in facts.ours for who in named)


def read_list_refusal(facts: Facts) -> Report | None:
    """A posting that a mailing-list server refuses in the list's name; what the list itself distributes is none."""
    if not _list_that_wrote(facts) or "list-post" in facts.message.headers.names:
        return None
    reading = legacy.read(explanation(facts), facts.dialects, facts.ours)
    if not says(reading.text[:_REFUSAL_CAP].lower(), facts.dialects.list_refusal_texts):
        return None
    report = Report(
        kind=Kind.BOUNCE,
        dialect="list",
        explanation=lambda: reading.text,
        returned=lambda: _original(facts, reading),
        reporting_mta=facts.sender.rpartition("@")[2] or None,
    )
    _add_failures(report, facts, reading)
    return report if report.failures else None


_REFUSAL_CAP = 2000  # characters; a list server says at once that it refuses, and quotes the posting after that
_WORDS_CAP = 8000  # characters of the explanation in which words are looked for that tell a kind


def _original(facts: Facts, reading: Reading) -> Original | None:
    """What the report returns of our message in a part of its own, else in its text."""
    found = originals.of_message(facts.message, facts.names)
    if found is None and reading.returned:
        found = originals.of_block(reading.returned.encode("utf-8", "surrogateescape"), facts.names)
    return found


def _from_machine(facts: Facts) -> bool:
    return facts.daemon or facts.null_sender or "multipart/report" in facts.types


def _has_evidence(reading: Reading, facts: Facts) -> bool:
    """What a mail server would have added and a person who complains about a delivery has not."""
    if originals.returned_part(facts.message) is not None or legacy.has_header(reading.returned):
        return True
    return diagnostic.codes(reading.text).smtp_code is not None


def _may_be_report(facts: Facts) -> bool:
    """Cheap: could a mail server have written this?"""
    if "multipart/report" in facts.types or (facts.daemon and (facts.null_sender or not facts.answers)):
        return True
    if facts.answers:
        return False
    if not facts.subject_says.isdisjoint(("failed_subjects", "delayed_subjects")):
        return True
    return facts.null_sender and "in-reply-to" not in facts.message.headers.names


def _kind_of_words(facts: Facts, reading: Reading, text_says: Set[str], *, listed: bool) -> Kind | None:
    """Bounce, delay or delivered by subject and text; None when neither says any of it."""
    subject_says = facts.subject_says
    if "delayed_subjects" in subject_says:
        return Kind.DELAY
    if "delayed_texts" in text_says and "permanent_texts" not in text_says:
        return Kind.DELAY
    if "delivered_subjects" in subject_says and _tells_success(facts):
        return Kind.DELIVERED
    if listed or "failed_subjects" in subject_says:
        return Kind.BOUNCE
    if (
        facts.null_sender
        and "failed_texts" in text_says
        and any(m.standing <= Standing.OBJECT for m in reading.mentions)
    ):
        return Kind.BOUNCE  # a filter that writes under an ordinary name
    if facts.daemon or "multipart/report" in facts.types or originals.returned_part(facts.message) is not None:
        if "failed_texts" in text_says:
            return Kind.BOUNCE
        if "delivered_texts" in text_says:
            return Kind.DELIVERED
        if any(m.standing <= Standing.DIALOGUE for m in reading.mentions) and diagnostic.codes(reading.text).smtp_code:
            return Kind.BOUNCE
        if facts.daemon and facts.null_sender and any(m.standing is Standing.LABELLED for m in reading.mentions):
            return Kind.BOUNCE  # a server names a recipient, in a language that is not known here
        if facts.daemon and facts.null_sender and (reading.returned or originals.returned_part(facts.message)):
            return Kind.BOUNCE  # a server returns our message, in words that are not known here
    return None


def _tells_success(facts: Facts) -> bool:
    """`Remis : ...` tells a success, `Non remis : ...` does not: what ends in a colon counts as the beginning only."""
    subject = facts.subject
    phrases = facts.dialects.delivered_subjects
    return any(subject.startswith(phrase) if phrase.endswith(":") else phrase in subject for phrase in phrases)


def _add_failures(report: Report, facts: Facts, reading: Reading) -> None:
    every = legacy.recipients(reading)
    reasons_told = Reasons(reading, every)
    by_address = {mention.address.lower(): mention for mention in (*reversed(reading.mentions), *reversed(every))}
    action = {Kind.BOUNCE: "failed", Kind.DELAY: "delayed"}.get(report.kind, "delivered")
    addressees = whom(facts, reading, report, every)
    report.truncated = len(addressees) > facts.cap
    for address in addressees[: facts.cap]:
        mention = by_address.get(address.lower()) or (every[0] if every and len(addressees) == 1 else None)
        told = reasons_told.of(mention)
        report.failures.append(
            reasons.failure(
                address,
                told,
                action=action,
                original_recipient=reading.generated_from.get(address.lower()),
                reporting_mta=report.reporting_mta,
            )
        )
        if mention is None:
            report.notes.append("the text names no recipient: taken from elsewhere in the message")


def whom(facts: Facts, reading: Reading, report: Report, told: list[Mention]) -> list[str]:
    """The recipients that a report is about, from the best evidence there is; `told`: those of the text."""
    listed = addresses.of_header(facts.message.headers.get("x-failed-recipients") or "")
    if listed:
        return listed
    standing = told[0].standing if told else None
    if standing is not None and standing <= Standing.OWN:
        return [mention.address for mention in told]
    returned_to = list(report.original.recipients) if report.original else []
    mentioned = [m.address for m in told] if standing in {Standing.OBJECT, Standing.MENTIONED} else []
    both = {address.lower() for address in mentioned} & {address.lower() for address in returned_to}
    if both:
        return [address for address in mentioned if address.lower() in both]
    if standing == Standing.OBJECT:
        return mentioned
    subject = addresses.in_text(facts.message.headers.get("subject") or "")
    subject = [address for address in subject if address.lower() not in facts.ours]
    if subject:
        return subject[:1]
    if len(returned_to) == 1:
        return returned_to
    if mentioned:
        return mentioned
    said = set(_WORDS.findall(reading.text.lower())) if returned_to else set()
    named = [address for address in returned_to if address.rpartition("@")[0].lower() in said]
    if named:  # "unknown user: jane", the local part alone
        return named
    summary = [m.address for m in told if m.address.lower() not in facts.ours and not facts.dialects.is_role(m.address)]
    if len(summary) == 1:
        return summary
    return (
        _from_return_path(facts)
        or [m.address for m in told if m.address.lower() in facts.ours][:1]
        or _list_that_wrote(facts)
    )


_WORDS = re.compile(r"[\w.+-]*\w")


def _list_that_wrote(facts: Facts) -> list[str]:
    """`dev@` where `dev-owner@` writes: a mailing-list server refuses a posting in its own name."""
    local, _, domain = facts.sender.rpartition("@")
    lower, endings = local.lower(), facts.dialects.list_endings
    if not lower.endswith(endings):
        return []
    return [f"{local[: -len(one)]}@{domain}" for one in endings if lower.endswith(one) and len(local) > len(one)][:1]


def _from_return_path(facts: Facts) -> list[str]:
    for address in facts.ours:
        encoded = addresses.verp(address)
        if encoded:
            return [encoded]
    return []

"""How far a report is believed: was it an answer to mail of ours, to that recipient?

Pure: what was found out is handed in (the signed return path, the journal's answer, our DKIM signature on the returned
header block, the reporter's own authentication), a grade with its reason comes out. From the strongest down:

    signed              The return path it came to bears our MAC for this recipient. A BATV tag says only that *some*
                        message of ours is answered, to anybody who was among its recipients, so it counts as `signed`
                        together with a journal entry: this message went to this recipient.
    returned-original   The header block that it returns carries our DKIM signature, and names this recipient.
    journal             The Message-ID that it returns is that of a message which went to this recipient. Anybody who
                        got the same message, from a mailing list for instance, knows that Message-ID.
    authenticated       Whoever reports is authenticated (SPF, DKIM, DMARC) and speaks for the recipient's domain.
    unproven            Nothing speaks for it.
    forged              It contradicts what is known; recorded, never acted on. Below: what a contradiction is.

A report is believed *for a recipient*. A DSN about ten of them, to a return path that was given out for one, is signed
for that one and forged for nine. The recipient that a proof names is the one acted on: where mail was forwarded and the
report tells both addresses, that is the address that we mailed.

Contradictions:

- The MAC belongs to another recipient: the report names none that the return path was given out for. A server that
  forwards without keeping the original recipient (RFC 3461 section 4.2) looks the same, its reports are not acted on.
- The journal knows the message, and it never went to anyone whom the report names for this failure.
- The failure is dated before the message was sent, by more than a day: clocks and time zones of servers err by hours.
- The reporter has no relation to the recipient's domain and fails its own SPF; unless the MAC proves the report, since
  a gateway with a broken SPF record may well report to a return path that only it and the recipient know.

Emits no log events; the grade and its reason are kept as evidence of the event, and `mailback explain` shows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from mailback.bounce.taxonomy import Provenance
from mailback.returnpath import Standing, Verified

_CLOCK_TOLERANCE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a report says of one recipient."""

    recipients: tuple[str, ...]
    """The addresses it names for one failure, as look-ups compare them: original and final recipient."""
    failed_at: datetime | None = None
    """When delivery was last tried, where the report tells; else when the report says it was written."""


@dataclass(frozen=True, slots=True)
class Sending:
    """What the journal knows of the message that the report returns."""

    at: datetime
    recipient: str | None
    """Which of the claim's recipients it went to; None: it is known, and went to none of them."""
    known_to_others: bool = False
    """Others have its Message-ID too, and nothing else shows that the report is about what this recipient got."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What our own DKIM signature says about the returned header block."""

    signed: bool
    """It verifies, over the header fields."""
    recipients: frozenset[str] = frozenset()
    """Whom the signed header fields name, as look-ups compare them."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who brought the report, as its authentication shows."""

    spf: str
    """Result of SPF for the HELO name or envelope sender (RFC 7208 section 2.6)."""
    speaks_for: frozenset[str] = frozenset()
    """Recipients of the claim for whose domain it is authenticated, by SPF or DKIM: the same domain, or the one of its
    mail servers."""
    related: bool = False
    """It speaks for one of them, or would if it were who it says it is."""


@dataclass(frozen=True, slots=True)
class Proofs:
    """All that was found out; what was not looked for or not found is None."""

    return_path: Verified | None = None
    return_path_recipient: str | None = None
    """Whom the return path was given out for, from the address itself or the journal."""
    sending: Sending | None = None
    returned: Returned | None = None
    reporter: Reporter | None = None


@dataclass(frozen=True, slots=True)
class Grade:
    """How far one claim is believed."""

    provenance: Provenance
    because: str
    recipient: str | None = None
    """The recipient that is proven; None where nothing is."""


def grade(claim: Claim, proofs: Proofs) -> Grade:
    """Grade what a report says of one recipient."""
    contradiction = _contradiction(claim, proofs)
    if contradiction is not None:
        return Grade(Provenance.FORGED, contradiction)
    return (
        _signed(claim, proofs)
        or _returned(claim, proofs.returned)
        or _journal(proofs.sending)
        or _authenticated(claim, proofs.reporter)
        or Grade(Provenance.UNPROVEN, _why_unproven(proofs))
    )


def _contradiction(claim: Claim, proofs: Proofs) -> str | None:
    proven = _named_by_mac(proofs)
    if proven is not None and proven not in claim.recipients:
        return "the return path was given out for another recipient"
    sending = proofs.sending
    if proven is None and sending is not None and sending.recipient is None:
        return "the message that it returns never went to this recipient"
    sent = _earliest_sending(proofs)
    if claim.failed_at is not None and sent is not None and claim.failed_at < sent - _CLOCK_TOLERANCE:
        return "the failure is dated before the message was sent"
    reporter = proofs.reporter
    if proven is None and reporter is not None and not reporter.related and reporter.spf == "fail":
        return "the reporter fails its own SPF and has no relation to the recipient's domain"
    return None


def _named_by_mac(proofs: Proofs) -> str | None:
    """Whom a good MAC names."""
    path = proofs.return_path
    return proofs.return_path_recipient if path is not None and path.signed and path.names_recipient else None


def _earliest_sending(proofs: Proofs) -> datetime | None:
    """When the message went out at the earliest: as the journal says, or the day of the return path."""
    if proofs.sending is not None:
        return proofs.sending.at
    path = proofs.return_path
    if path is None or not path.signed or not path.names_recipient or path.day is None:
        return None  # BATV tells the last day
    return datetime.combine(path.day, time(), UTC)


def _signed(claim: Claim, proofs: Proofs) -> Grade | None:
    path = proofs.return_path
    if path is None or not path.signed:
        return None
    proven = _named_by_mac(proofs)
    if proven is not None and proven in claim.recipients:
        return Grade(Provenance.SIGNED, "came to the return path that was given out for this recipient", proven)
    sending = proofs.sending
    if not path.names_recipient and sending is not None and sending.recipient is not None:
        return Grade(
            Provenance.SIGNED, "came to a return path of ours, about a message that went to this recipient",
            sending.recipient,
        )  # fmt: skip
    return None


def _returned(claim: Claim, returned: Returned | None) -> Grade | None:
    if returned is None or not returned.signed:
        return None
    named = next((who for who in claim.recipients if who in returned.recipients), None)
    if named is None:
        return None
    return Grade(Provenance.RETURNED_ORIGINAL, "returns a message that we signed, to this recipient", named)


def _journal(sending: Sending | None) -> Grade | None:
    if sending is None or sending.recipient is None or sending.known_to_others:
        return None
    return Grade(
        Provenance.JOURNAL, "returns the Message-ID of a message that went to this recipient", sending.recipient
    )


def _authenticated(claim: Claim, reporter: Reporter | None) -> Grade | None:
    spoken_for = next((who for who in claim.recipients if reporter is not None and who in reporter.speaks_for), None)
    if spoken_for is None:
        return None
    return Grade(Provenance.AUTHENTICATED, "the reporter is authenticated and speaks for this recipient", spoken_for)


_PATH_REASONS = {
    Standing.WRONG: "the MAC of the return path is wrong",
    Standing.EXPIRED: "the return path has expired",
    Standing.SIGNED: "the return path is ours, yet does not say to whom the message went",
}


def _why_unproven(proofs: Proofs) -> str:
    if proofs.sending is not None and proofs.sending.known_to_others:
        return "others have the Message-ID too, and it did not come to the return path that the message left under"
    path = proofs.return_path
    reason = _PATH_REASONS.get(path.standing) if path is not None else None
    return reason or "nothing shows that it answers mail of ours"

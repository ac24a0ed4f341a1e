"""What a door does with a message that is recorded: the answer, where it goes, and the fields it is tagged with.

Emits no log events.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from mailback.auth.authres import FIELD
from mailback.bounce.taxonomy import Action, Kind
from mailback.policy.decision import Decision
from mailback.policy.routes import AS_ADDRESSED, Delivery
from mailback.reply.routing import Route

if TYPE_CHECKING:
    from mailback.walk.classification import Classification

TAG_PREFIX = "x-mailback-"
"""Header fields that only we may set; both doors remove incoming ones (SPEC of a tagged message)."""
_VERDICTS_TOLD = 10  # header fields a tagged message carries at most, however many recipients a report names


class Disposition(StrEnum):
    """What the door does with the message."""

    ACCEPT = "accept"
    TAG = "tag"
    REWRITE = "rewrite"
    QUARANTINE = "quarantine"
    REJECT = "reject"
    TEMPFAIL = "tempfail"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the door does now that everything is committed."""

    disposition: Disposition
    kind: Kind
    machine: bool
    """True: goes to `bounces_to`; false: people's mail, goes to `next_hop`."""
    smtp_code: int
    enhanced: str
    text: str
    add_headers: tuple[tuple[str, str], ...]
    remove_headers: tuple[str, ...]
    """Lower-case prefixes of the names of incoming header fields that are removed."""
    event_id: str
    notes: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = field(default=())
    """One for each event, in the order of the report."""
    restored: tuple[tuple[str, str], ...] = ()
    """Signed recipients of the envelope, each with the address that the sender had given, to pass the mail on to."""
    delivery: Delivery = AS_ADDRESSED
    """How a reply is delivered: in the words of its route's actions."""


def outcome_of(
    classification: Classification,
    decisions: tuple[Decision, ...],
    event_id: str,
    restored: tuple[tuple[str, str], ...],
    held: tuple[str, ...],
    *,
    route: str | None = None,
) -> Outcome:
    """`route` is that of a reply."""
    kind = classification.kind
    machine = classification.machine
    if route is None or any(decision.action is Action.MANUAL_REVIEW for decision in decisions):
        route = route if route in (Route.ESCALATE, Route.SPAM) else _route(machine, decisions)
    return Outcome(
        disposition=Disposition.TAG,
        kind=kind,
        machine=machine,
        smtp_code=250,
        enhanced="2.6.0",
        text=f"recorded as {kind.value} {event_id}",
        add_headers=_tags(classification, route, event_id),
        remove_headers=(TAG_PREFIX,),
        event_id=event_id,
        notes=(*classification.notes, *held),
        decisions=decisions,
        restored=restored,
    )


def delivered(outcome: Outcome, delivery: Delivery) -> Outcome:
    """The outcome of a reply, delivered as its route asks for."""
    if delivery.refused is not None:
        return replace(
            outcome, disposition=Disposition.REJECT, smtp_code=550, enhanced="5.7.1",
            text=f"message refused, {delivery.refused}", delivery=delivery,
        )  # fmt: skip
    disposition = outcome.disposition
    if delivery.held is not None:
        disposition = Disposition.QUARANTINE
    elif delivery.redirect is not None:
        disposition = Disposition.REWRITE
    return replace(outcome, disposition=disposition, delivery=delivery)


def _route(machine: bool, decisions: tuple[Decision, ...]) -> str:
    if any(decision.action is Action.MANUAL_REVIEW for decision in decisions):
        return "require_approval"
    return "auto_archive" if machine else "notify_owner"


def _tags(classification: Classification, route: str, event_id: str) -> tuple[tuple[str, str], ...]:
    """The header fields of a tagged message, the results of authentication first (RFC 8601 section 5).

    Values come from our own vocabulary only, or are quoted, so nothing can be injected.
    """
    told = dict.fromkeys(
        f"{f.verdict.type.value}/{f.verdict.subcategory.value}; confidence={f.verdict.confidence:.2f}"
        for f in classification.findings
    )
    if classification.reply is not None:
        told[f"{classification.reply.intent.value}; confidence={classification.reply.confidence:.2f}"] = None
    verdicts = [("X-Mailback-Verdict", verdict) for verdict in list(told)[:_VERDICTS_TOLD]]
    authentication = classification.authentication
    results = ((FIELD, authentication.header()),) if authentication is not None else ()
    return (
        *results,
        ("X-Mailback-Kind", classification.kind.value),
        *verdicts,
        ("X-Mailback-Route", route),
        ("X-Mailback-Id", event_id),
    )


def unavailable() -> str:
    """What a peer is told while the store cannot commit (with `451 4.3.0`); details go to the log, not to peers."""
    return "Mailback cannot record this message now, please try again later"

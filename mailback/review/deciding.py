"""What a person's word does: approve a verdict, or correct it; both within one transaction, both in the audit trail.

Approving carries out what the verdict asked for: the suppression that was held back is made. Correcting undoes whatever
the wrong verdict has done, as it was before, and does what the right one asks for; proof and confidence no longer
matter, a person has looked. Either way a hold "while a person looks at it" ends.

An item is decided once. Of two people who decide at the same time the second is told what the first did; who means to
decide anew says so. Emits no log events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mailback import address
from mailback.bounce.taxonomy import CAUSES, Action, Kind, Subcategory, Type
from mailback.bounce.verdict import Verdict
from mailback.policy import replies
from mailback.policy.decision import wished
from mailback.reply.intent import Intent
from mailback.reply.routing import Route
from mailback.review.queue import REQUIRE_APPROVAL, alone
from mailback.store.records import Event, Review

if TYPE_CHECKING:
    from mailback.policy.handling import Handling, HandlingRules
    from mailback.reply.routing import Routes
    from mailback.store.transaction import Transaction

SURE = 1.0
"""Confidence of what a person said."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one item."""

    number: int
    done: bool
    said: str


@dataclass(frozen=True, slots=True)
class Right:
    """What a message is, as a person says: type and cause of a failure, or the intent of a reply."""

    type: Type | None = None
    subcategory: Subcategory | None = None
    intent: str | None = None
    recipient: str | None = None
    """Whom a report is about that did not say so itself."""

    @property
    def told(self) -> str:
        return self.intent or "/".join(filter(None, (self.type, self.subcategory)))


Rescore = Callable[["Transaction", Event, "Handling | None"], None]
"""Settles the score of an event's recipient anew; with a handling, after entering the event as it stands now."""


@dataclass(frozen=True, slots=True)
class Consequences:
    """What follows from verdicts, as the settings say."""

    handling: HandlingRules
    routes: Routes
    rescore: Rescore
    by_list: bool = True
    """How far an opt-out reaches: its list or campaign, or everything."""


def approve(
    transaction: Transaction,
    number: int,
    rules: Consequences,
    *,
    by: str,
    note: str | None = None,
    many: bool = False,
) -> Answer:
    """Carry out what a verdict asked for. `many` is true where this is one of several decided in one go."""
    item = transaction.reviews.find(number)
    if item is None or (refusal := _refusal(item, many=many)):
        return Answer(number, False, refusal if item is not None else "there is no such item")
    said = "the verdict is right; it asks for nothing more"
    action = None
    if item.wanted is not None:
        made = transaction.suppress(item.wanted, by)
        action = Action.SUPPRESS_TEMPORARILY if item.wanted.until else Action.SUPPRESS_PERMANENTLY
        said = (
            f"{item.recipient} {'is suppressed' if made else 'is held already, or its time is over: nothing changes'}"
        )
    event = transaction.event(item.event_id)
    if event is not None:
        event.action = action or (event.action if event.intent is None else Action.NO_ACTION)
        event.notes = [*event.notes, f"approved by {by}" + (f": {note}" if note else "")]
        transaction.reclassify(event)
        if item.wanted is None and event.recipient_key is not None:
            said = _looked_at(transaction, event, event.recipient_key, rules, by) or said
    return _closed(transaction, replace(item, state="approved", note=note), item.state, by, said)


def correct(
    transaction: Transaction,
    number: int,
    right: Right,
    rules: Consequences,
    *,
    by: str,
    note: str | None = None,
    many: bool = False,
    again: bool = False,
) -> Answer:
    """Record what a message really is, undo what the wrong verdict did, do what the right one asks for.

    `again` decides anew what was decided before.
    """
    item = transaction.reviews.find(number)
    if item is None or (refusal := _refusal(item, many=many, again=again)):
        return Answer(number, False, refusal if item is not None else "there is no such item")
    event = transaction.event(item.event_id)
    if event is None:
        return Answer(number, False, "its event is no longer kept")
    if right.intent is None and right.recipient is None and event.recipient is None and event.kind is not Kind.REPLY:
        return Answer(number, False, "it names nobody: say whom it is about with --recipient")
    if right.recipient is not None and event.recipient_key not in (None, address.key(right.recipient)):
        return Answer(number, False, f"it is about {event.recipient}, which cannot be changed")
    undone = 0
    if event.recipient_key is not None:
        undone = transaction.take_back(event.id, event.recipient_key, actor=by, reason=f"review {number}: corrected")
    corrected = _corrected(event, right, by, note)
    did, handling = _carried_out(transaction, corrected, right, rules, by)
    transaction.reclassify(corrected)
    rules.rescore(transaction, corrected, handling)
    told = replace(
        item, state="corrected", note=note, recipient=corrected.recipient, recipient_key=corrected.recipient_key,
        domain=corrected.domain, right_type=right.type, right_subcategory=right.subcategory, right_intent=right.intent,
    )  # fmt: skip
    said = "; ".join(filter(None, [f"{item.told} is {right.told}", "suppression taken back" if undone else "", did]))
    return _closed(transaction, told, item.state, by, said)


def open_for(transaction: Transaction, event_id: str, by: str) -> int | None:
    """The number of the item of an event, made where it has none: a verdict that acted at once can be wrong too.

    None for an event that there is not.
    """
    known = transaction.reviews.of_event(event_id)
    event = transaction.event(event_id)
    if known is not None or event is None:
        return known.id if known is not None else None
    transaction.reviews.add(
        Review(
            id=0, event_id=event.id, at=event.at, kind=event.kind, recipient=event.recipient,
            recipient_key=event.recipient_key, domain=event.domain, type=event.type, subcategory=event.subcategory,
            intent=event.intent, confidence=event.confidence, route=REQUIRE_APPROVAL, reason=f"asked for by {by}",
            alone=alone(event),
            text=event.diagnostic, wanted=None, due=None,
        )
    )  # fmt: skip
    made = transaction.reviews.of_event(event_id)
    assert made is not None
    return made.id


def _refusal(item: Review, *, many: bool, again: bool = False) -> str:
    """Why an item cannot be decided now; empty where it can."""
    if item.state != "open" and not again:
        when = f"{item.closed_at:%Y-%m-%d %H:%M} UTC" if item.closed_at else "before"
        what = f" as {item.right}" if item.right else ""
        return f"was {item.state}{what} by {item.closed_by} at {when}"
    if item.alone and many:
        return f"{item.told} is decided one by one, never in bulk"
    return ""


def _looked_at(transaction: Transaction, event: Event, key: str, rules: Consequences, by: str) -> str:
    """What waited only for a look: a hold ends, a bounce that was set aside counts. What happened, in words."""
    if transaction.release_entry(key, event.id):
        rules.rescore(transaction, event, None)
        return "the verdict is right; the bounce counts in the score of the address"
    if not any(suppression.event_id == event.id for suppression in transaction.active(key)):
        return ""
    transaction.take_back(event.id, key, actor=by, reason="a person has looked at it")
    return "the verdict is right; the address is no longer held"


def _corrected(event: Event, right: Right, by: str, note: str | None) -> Event:
    """The event as a person says it is; its earlier verdict stays in the notes and with the item."""
    before = event.intent or "/".join(filter(None, (event.type, event.subcategory))) or event.kind
    evidence: dict[str, object] = {"layer": "person", "rule": by, "weight": SURE, "says": right.told}
    changed = replace(
        event,
        evidence=[*event.evidence, evidence | ({"text": note} if note else {})],
        notes=[*event.notes, f"told as {before}; corrected by {by} to {right.told}"],
        confidence=SURE,
    )
    if right.recipient is not None:
        changed.recipient, changed.recipient_key = right.recipient, address.key(right.recipient)
        changed.domain = address.domain(right.recipient) or None
    if right.subcategory is not None and right.type is not None:
        _set_cause(changed, right.type, right.subcategory)
        if event.kind in (Kind.REPLY, Kind.OTHER):
            changed.kind = _KINDS.get(right.type, Kind.BOUNCE)
            changed.intent = changed.route = changed.due_at = None
    elif right.intent is not None:
        changed.intent, changed.due_at = right.intent, None
        if event.kind not in (Kind.REPLY, Kind.AUTO_REPLY):  # no report: a person's words
            changed.kind = Kind.REPLY
        if right.intent == Intent.UNSUBSCRIBE:
            _set_cause(changed, *replies.OPT_OUT)
        elif changed.kind is Kind.REPLY:
            changed.type = changed.subcategory = changed.fault = None
            changed.permanent = False
    return changed


def _set_cause(event: Event, type_: Type, subcategory: Subcategory) -> None:
    cause = CAUSES[subcategory]
    event.type, event.subcategory, event.fault = type_.value, subcategory.value, cause.fault
    event.permanent = type_ is Type.HARD_BOUNCE and cause.permanent


_KINDS = {
    Type.AUTO_REPLY: Kind.AUTO_REPLY,
    Type.COMPLAINT: Kind.COMPLAINT,
    Type.DELIVERED: Kind.DELIVERED,
    Type.DELAYED_BOUNCE: Kind.DELAY,
}
"""What a message is that was taken for a person's, by what it tells; else it is a bounce."""


def _carried_out(
    transaction: Transaction, event: Event, right: Right, rules: Consequences, by: str
) -> tuple[str, Handling | None]:
    """Do what the right verdict asks for; the same in words, and its row. Sets the event's action and route."""
    handling = None
    if right.type is None or right.subcategory is None:
        event.route = _route(right.intent, rules)
        wanted = replies.opt_out(event, by_list=rules.by_list) if right.intent == Intent.UNSUBSCRIBE else None
        event.action = Action.SUPPRESS_PERMANENTLY if wanted is not None else Action.NO_ACTION
    else:
        verdict = Verdict(right.type, right.subcategory, SURE)
        handling = rules.handling.handling(verdict, provider=event.provider, list_id=event.list_id)
        # A person has just looked: what the rules would send to one is done with that.
        event.action = Action.NO_ACTION if handling.action is Action.MANUAL_REVIEW else handling.action
        wanted = wished(event, handling)
    if wanted is None or not transaction.suppress(replace(wanted, event_id=event.id), by):
        return "", handling
    return f"{event.recipient} is suppressed", handling


def _route(intent: str | None, rules: Consequences) -> str | None:
    """Where a reply of that intent goes; nobody has to approve what a person has just told."""
    if intent is None:
        return None
    route = rules.routes[Intent(intent)].route
    return Route.NOTIFY_OWNER if route is Route.REQUIRE_APPROVAL else route


def _closed(transaction: Transaction, item: Review, believed: str, by: str, said: str) -> Answer:
    closed = replace(item, closed_at=datetime.now(UTC), closed_by=by)
    if not transaction.reviews.close(closed, believed):
        raise RuntimeError(f"item {item.id} changed within its own transaction")
    detail = {
        "item": item.id, "event": item.event_id, "told": item.told, "right": item.right, "said": said,
        "note": item.note, "before": believed,
    }  # fmt: skip
    subject = item.recipient_key or f"review:{item.id}"
    transaction.audit(by, "approve" if item.state == "approved" else "correct", subject, detail)
    return Answer(item.id, True, said)

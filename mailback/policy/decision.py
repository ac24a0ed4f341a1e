"""What to do about one event: pure functions over records, no clock and no database of their own.

The engine calls `decide` inside the store's transaction, so the history it hands in is the one that the decision is
committed with. A decision names its reason in words an operator can act on; `mailback explain` shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from mailback.bounce.taxonomy import Action, Kind, Provenance, Subcategory, Type
from mailback.policy.handling import Handling
from mailback.store.records import Event, Suppression


@dataclass(frozen=True, slots=True)
class DecisionRules:
    """The thresholds of `[policy]` and `[trust]` that a decision reads."""

    hard_bounces_needed: int = 1
    """Permanent failures on different days (UTC) before an address is suppressed."""
    hold_during_review: bool = False
    min_confidence: float = 0.6
    proof_needed: bool = False
    """True: an unproven report suppresses nobody (`trust.require`)."""
    opt_out_by_list: bool = True
    """An unsubscribe reaches as far as the list or campaign that it is about; False: everything."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done, and why."""

    action: Action
    because: str
    suppression: Suppression | None = None
    wanted: Suppression | None = None
    """What a reply asks for and a person has to approve."""


def decide(event: Event, handling: Handling, rules: DecisionRules, history: Sequence[Event] = ()) -> Decision:
    """Turn one event and the recipient's earlier ones into a decision.

    `history` holds earlier events of the same address, in any order; the event itself may be among them.
    """
    if event.recipient is None or event.recipient_key is None:
        return Decision(Action.NO_ACTION, "the report names no recipient")
    if event.provenance is Provenance.FORGED:
        return Decision(Action.NO_ACTION, "the report contradicts what is known: recorded, never acted on")
    if handling.scope != "address" and handling.action is Action.SUPPRESS_TEMPORARILY:
        return Decision(handling.action, "the sender is blocked there; the address itself is not held against")
    if handling.action in (Action.SUPPRESS_PERMANENTLY, Action.SUPPRESS_TEMPORARILY):
        return _suppress(event, handling, rules, history)
    if handling.action is Action.RE_ENGAGE and (doubt := _doubt(event, rules)) is not None:
        return Decision(Action.MANUAL_REVIEW, doubt)
    if handling.action is Action.MANUAL_REVIEW and rules.hold_during_review and handling.suppress_days:
        doubt = _doubt(event, rules)
        if doubt is None:
            return Decision(
                handling.action,
                "held while a person looks at it",
                suppression_of(event, handling.suppress_days),
            )
        return Decision(handling.action, doubt)
    return Decision(handling.action, "as the handling rules say")


def wished(event: Event, handling: Handling) -> Suppression | None:
    """The suppression that the rules ask for once nothing is in doubt any more; None where they ask for none."""
    if event.recipient is None or event.recipient_key is None or handling.scope != "address":
        return None
    if handling.action is Action.SUPPRESS_PERMANENTLY:
        return suppression_of(event, None)
    for_a_time = handling.action in (Action.SUPPRESS_TEMPORARILY, Action.RE_ENGAGE)
    return suppression_of(event, handling.suppress_days) if for_a_time else None


def _suppress(event: Event, handling: Handling, rules: DecisionRules, history: Sequence[Event]) -> Decision:
    doubt = _doubt(event, rules)
    if doubt is not None:
        return Decision(Action.MANUAL_REVIEW, doubt)
    if event.kind is Kind.BOUNCE and event.permanent:
        days = _days_of_permanent_failure(event, history)
        if len(days) < rules.hard_bounces_needed:
            return Decision(
                Action.MANUAL_REVIEW,
                f"permanent failure on {len(days)} of the {rules.hard_bounces_needed} different days that it takes",
            )
        event = days[rules.hard_bounces_needed - 1]
    days_held = None if handling.action is Action.SUPPRESS_PERMANENTLY else handling.suppress_days
    by_list = rules.opt_out_by_list and event.kind is Kind.UNSUBSCRIBE
    held = suppression_of(event, days_held, scope=opt_out_scope(event) if by_list else "all")
    return Decision(handling.action, "as the handling rules say", held)


def _doubt(event: Event, rules: DecisionRules) -> str | None:
    """Why this event may not hold anybody's mail, or None."""
    if rules.proof_needed and event.provenance.rank <= Provenance.UNPROVEN.rank:
        return "unproven: nothing shows that this answers mail of ours, and proof is required"
    if (event.confidence or 0.0) < rules.min_confidence:
        return f"confidence {event.confidence or 0.0:.2f} is below {rules.min_confidence:.2f}"
    return None


def _days_of_permanent_failure(event: Event, history: Sequence[Event]) -> list[Event]:
    """The first failure of each day, by day: which one comes in last must not decide since when it is suppressed."""
    days: dict[date, Event] = {}
    failures = [event, *(e for e in history if e.permanent and e.provenance is not Provenance.FORGED)]
    for failure in sorted(failures, key=lambda e: e.at):
        days.setdefault(failure.at.date(), failure)
    return list(days.values())


_LONGEST_SCOPE = 200  # as the store keeps it: a longer one could not be looked up


def opt_out_scope(event: Event) -> str:
    """The scope of the list that a message is about, else of its campaign, else of everything."""
    named = f"list:{event.list_id}" if event.list_id else f"campaign:{event.campaign}" if event.campaign else "all"
    return named if len(named) <= _LONGEST_SCOPE else "all"


def suppression_of(
    event: Event, days: int | None = None, *, scope: str = "all", cause: tuple[Type, Subcategory] | None = None
) -> Suppression:
    """The suppression that an event about a recipient causes: for ever without `days`, for the event's own cause
    without another."""
    kind, subcategory = (cause[0].value, cause[1].value) if cause else (event.type, event.subcategory)
    assert event.recipient is not None
    assert event.recipient_key is not None
    return Suppression(
        address_key=event.recipient_key,
        address=event.recipient,
        scope=scope,
        reason=f"{kind}/{subcategory}",
        type=kind,
        subcategory=subcategory,
        source="event",
        since=event.at,
        until=None if days is None else event.at + timedelta(days=days),
        event_id=event.id,
    )

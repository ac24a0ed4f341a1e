"""What waits for a person, and until when; asked by the engine within the transaction that records the event.

A bounce waits when its decision is `manual_review`: the rules say so, nothing proves it where proof is required, its
confidence is low, its source is over its budget, a wave is frozen, it was read in part, or it names nobody. When a
better proven report of the same event acts after all, the item is closed with it. A reply waits when its route or its
flags say so, or when the writer of an opt-out is in doubt; its deadline is that of its route.

Emits no log events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from mailback.bounce.taxonomy import Action
from mailback.policy.decision import Decision, wished
from mailback.store.records import Review

if TYPE_CHECKING:
    from mailback.policy.handling import Handling
    from mailback.store.records import Event
    from mailback.store.transaction import Recorded, Transaction

REQUIRE_APPROVAL, ESCALATE = "require_approval", "escalate"
ALONE = frozenset({"legal", "security"})
"""Intents that are decided one by one, never in bulk."""


def alone(event: Event) -> bool:
    """Whether an event is decided by itself: it is about such matters, or may be."""
    second = (event.reply or {}).get("runner_up")
    return event.intent in ALONE or second in ALONE


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The deadlines of `[review]`."""

    bounce: timedelta


def queue(
    transaction: Transaction,
    recorded: Recorded,
    event: Event,
    decision: Decision,
    *,
    handling: Handling | None,
    deadlines: Deadlines,
    text: str | None = None,
) -> None:
    """Queue an event whose decision is a person's; close its item where it is no longer.

    `text` is what a reply says.
    """
    if not (recorded.new or recorded.better):
        return
    if decision.action is not Action.MANUAL_REVIEW:
        if recorded.better:
            proof = f"{event.provenance} since: {decision.because}"
            transaction.reviews.settle([recorded.event_id], "approved", f"event:{recorded.event_id}", proof)
        return
    wanted = wished(event, handling) if handling is not None else decision.wanted
    transaction.reviews.add(
        Review(
            id=0,  # given by the store
            event_id=recorded.event_id,
            at=event.at,
            kind=event.kind,
            recipient=event.recipient,
            recipient_key=event.recipient_key,
            domain=event.domain,
            type=event.type,
            subcategory=event.subcategory,
            intent=event.intent,
            confidence=event.confidence,
            route=ESCALATE if event.route == ESCALATE else REQUIRE_APPROVAL,
            reason=decision.because,
            alone=alone(event),
            text=event.diagnostic if text is None else text,
            wanted=replace(wanted, event_id=recorded.event_id) if wanted is not None else None,
            due=event.due_at or event.at + deadlines.bounce,
        )
    )

"""What is done because of a reply: pure functions over records.

An opt-out suppresses at once where the reading is sure enough and where the writer is believed to be the person; else a
person decides, and approving makes the suppression. A reply that its route sends to a person waits for one. Nothing
else that a person writes changes whether he is mailed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mailback.bounce.taxonomy import Action, Provenance, Subcategory, Type
from mailback.policy.decision import Decision, opt_out_scope, suppression_of
from mailback.reply import Reply
from mailback.reply.intent import Intent
from mailback.reply.routing import Route
from mailback.store.records import Event, Suppression

OPT_OUT = (Type.COMPLAINT, Subcategory.UNSUBSCRIBE_REQUEST)
_SIGNS = 3  # signs of danger told with an item; `mailback explain` and the event have all
_LEFT = (Type.AUTO_REPLY, Subcategory.LEFT_ORGANISATION)


@dataclass(frozen=True, slots=True)
class OptOutRules:
    """How far an opt-out reaches, and what has to speak for it."""

    scope: Literal["list", "all"] = "list"
    """`list`: of the list, else the campaign, that the person answers; `all`: of everything."""
    proof_needed: bool = False
    """True: an unproven writer is shown to a person (`trust.require`)."""


def decide(event: Event, reply: Reply, rules: OptOutRules, *, authentication_failed: bool = False) -> Decision:
    """What is done because of a reply whose event is graded already."""
    if reply.intent is Intent.UNSUBSCRIBE:
        return _opt_out(event, reply, rules, authentication_failed=authentication_failed)
    if event.subcategory == Subcategory.LEFT_ORGANISATION:
        return _left(event, reply)
    if reply.route in (Route.REQUIRE_APPROVAL, Route.ESCALATE):
        return Decision(Action.MANUAL_REVIEW, why_a_person(reply))
    return Decision(Action.NO_ACTION, f"a reply that is {reply.intent.value}: {reply.route.value}")


def _left(event: Event, reply: Reply) -> Decision:
    """Somebody has left: a person decides, who is told whom to write to instead."""
    instead = f"; write to {reply.new_contact} instead" if reply.new_contact else ""
    wanted = _suppression(event, _LEFT)
    if wanted is not None:
        wanted.suggestion = reply.new_contact
    return Decision(Action.MANUAL_REVIEW, f"has left the organisation{instead}", wanted=wanted)


def _opt_out(event: Event, reply: Reply, rules: OptOutRules, *, authentication_failed: bool) -> Decision:
    wanted = opt_out(event, by_list=rules.scope == "list")
    if wanted is None:
        return Decision(Action.MANUAL_REVIEW, "asks not to be mailed, and does not say who asks")
    doubt = None if reply.acts else why_a_person(reply)
    doubt = doubt or _doubted_writer(event, rules, authentication_failed=authentication_failed)
    if doubt is not None:
        return Decision(Action.MANUAL_REVIEW, f"asks not to be mailed; {doubt}", wanted=wanted)
    return Decision(Action.SUPPRESS_PERMANENTLY, "asked not to be mailed", suppression=wanted)


def _doubted_writer(event: Event, rules: OptOutRules, *, authentication_failed: bool) -> str | None:
    """Why whoever wrote it may be somebody else, or None."""
    if event.provenance is Provenance.FORGED:
        return "it contradicts what is known"
    if authentication_failed and event.provenance is not Provenance.SIGNED:
        return "its authentication failed: somebody else may have written it"
    if rules.proof_needed and event.provenance.rank <= Provenance.UNPROVEN.rank:
        return "unproven: nothing shows that this person wrote it, and proof is required"
    return None


def opt_out(event: Event, *, by_list: bool) -> Suppression | None:
    """The suppression that the person asks for; None where it is not known who asks."""
    return _suppression(event, OPT_OUT, opt_out_scope(event) if by_list else "all")


def _suppression(event: Event, cause: tuple[Type, Subcategory], scope: str = "all") -> Suppression | None:
    if event.recipient is None or event.recipient_key is None:
        return None
    return suppression_of(event, scope=scope, cause=cause)


def why_a_person(reply: Reply) -> str:
    """Why a person has to look at a reply, in words."""
    if not reply.safety.clean:
        signs = reply.safety.signals
        more = f" and {len(signs) - _SIGNS} more" if len(signs) > _SIGNS else ""
        told = ", ".join(signs[:_SIGNS])
        return f"{reply.safety.verdict.value}: {told}{more}" if signs else reply.safety.verdict.value
    if reply.flags:
        other = f" or {reply.runner_up.value}" if reply.runner_up and "conflicting_intents" in reply.flags else ""
        told = ", ".join(reply.flags).replace("_", " ")
        return f"{told}: {reply.intent.value}{other} at {reply.confidence:.2f}"
    return f"{reply.intent.value} is always shown to a person"

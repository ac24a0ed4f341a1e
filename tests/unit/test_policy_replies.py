"""An opt-out is a person's own word: honoured at once, and only where it is his."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mailback.bounce.taxonomy import Action, Kind, Provenance
from mailback.policy.decision import Decision
from mailback.policy.replies import OptOutRules, decide
from mailback.reply import Reply
from mailback.reply.flags import Flag
from mailback.reply.intent import Intent
from mailback.reply.routing import Route
from mailback.reply.safety import Safety, Verdict
from mailback.store.records import Event

EVENT = Event(
    id="E", identity="e", at=datetime(2026, 11, 20, tzinfo=UTC), kind=Kind.REPLY, source="smtpd",
    recipient="Ada@receiver.test", recipient_key="ada@receiver.test", provenance=Provenance.UNPROVEN,
)  # fmt: skip
REPLY = Reply(
    intent=Intent.UNSUBSCRIBE, confidence=0.9, runner_up=None, runner_up_confidence=0.0, flags=(),
    route=Route.AUTO_ARCHIVE, sla_s=None, return_date=None, new_contact=None, language="en",
    safety=Safety(Verdict.CLEAN, 0.0, ()), text="stop",
)  # fmt: skip


def told(
    provenance: Provenance = Provenance.UNPROVEN, *, proof: bool = False, failed: bool = False, **reply: Any
) -> Decision:
    event = replace(EVENT, provenance=provenance)
    return decide(event, replace(REPLY, **reply), OptOutRules(proof_needed=proof), authentication_failed=failed)


def test_an_opt_out_is_honoured_where_nothing_speaks_against_it() -> None:
    decision = told()
    assert decision.action is Action.SUPPRESS_PERMANENTLY
    assert decision.suppression is not None
    assert (decision.suppression.address, decision.suppression.scope) == ("Ada@receiver.test", "all")


@pytest.mark.parametrize(
    ("provenance", "proof", "failed", "acts"),
    [
        (Provenance.UNPROVEN, True, False, False),
        (Provenance.AUTHENTICATED, True, False, True),
        (Provenance.JOURNAL, True, False, True),
        (Provenance.JOURNAL, False, True, False),
        (Provenance.SIGNED, False, True, True),
        (Provenance.FORGED, False, False, False),
    ],
)
def test_nobody_is_opted_out_by_somebody_elses_word(
    provenance: Provenance, proof: bool, failed: bool, acts: bool
) -> None:
    decision = told(provenance, proof=proof, failed=failed)
    assert (decision.action is Action.SUPPRESS_PERMANENTLY) is acts
    assert (decision.suppression is not None) is acts
    assert acts or (decision.wanted is not None and decision.action is Action.MANUAL_REVIEW)


@pytest.mark.parametrize(
    "reply",
    [
        {"route": Route.REQUIRE_APPROVAL, "flags": (Flag.LOW_CONFIDENCE,), "confidence": 0.5},
        {"route": Route.REQUIRE_APPROVAL, "flags": (Flag.CONFLICTING_INTENTS,), "runner_up": Intent.INTERESTED},
        {"route": Route.ESCALATE, "safety": Safety(Verdict.PHISHING, 0.9, ("x",))},
        {"route": Route.SPAM, "safety": Safety(Verdict.SPAM, 0.9, ())},
    ],
)
def test_a_doubtful_opt_out_waits_for_a_person_and_is_made_by_approval(reply: dict[str, Any]) -> None:
    decision = told(**reply)
    assert decision.action is Action.MANUAL_REVIEW
    assert decision.because.startswith("asks not to be mailed; ")
    assert decision.wanted is not None


def test_who_asks_and_does_not_say_who_he_is_changes_nothing() -> None:
    event = replace(EVENT, recipient=None, recipient_key=None)
    decision = decide(event, REPLY, OptOutRules())
    assert (decision.action, decision.suppression, decision.wanted) == (Action.MANUAL_REVIEW, None, None)


def test_who_has_left_is_shown_with_the_new_contact_which_approval_keeps() -> None:
    event = replace(EVENT, kind=Kind.AUTO_REPLY, subcategory="left_organisation")
    reply = replace(REPLY, intent=Intent.REFERRAL, route=Route.REQUIRE_APPROVAL, new_contact="carl@receiver.test")
    decision = decide(event, reply, OptOutRules())
    assert decision.action is Action.MANUAL_REVIEW
    assert "carl@receiver.test" in decision.because
    assert decision.wanted is not None
    assert decision.wanted.suggestion == "carl@receiver.test"


@pytest.mark.parametrize("route", list(Route))
def test_a_scope_too_long_to_look_up_holds_everything(route: Route) -> None:
    event = replace(EVENT, list_id="l" * 300)
    decision = decide(event, replace(REPLY, route=route), OptOutRules())
    made = decision.suppression or decision.wanted
    assert made is not None
    assert made.scope == "all"

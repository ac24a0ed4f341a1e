"""What follows from one event, and why: the decision is a pure function."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mailback.bounce.taxonomy import Action, Kind, Provenance
from mailback.policy.decision import DecisionRules, decide
from mailback.policy.handling import Handling
from mailback.store.records import Event

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
FOR_EVER = Handling(Action.SUPPRESS_PERMANENTLY, None, None, "address")
REVIEW_7_DAYS = Handling(Action.MANUAL_REVIEW, None, 7, "address")


def event(**changes: object) -> Event:
    values: dict[str, object] = {
        "id": "01",
        "identity": "one",
        "at": NOW,
        "kind": Kind.BOUNCE,
        "source": "smtpd",
        "recipient": "Gone@Example.org",
        "recipient_key": "gone@example.org",
        "type": "hard_bounce",
        "subcategory": "user_unknown",
        "permanent": True,
        "confidence": 0.97,
    }
    return Event(**(values | changes))  # type: ignore[arg-type]


def test_a_hard_bounce_suppresses_for_ever_with_its_cause() -> None:
    decision = decide(event(), FOR_EVER, DecisionRules())
    assert decision.action is Action.SUPPRESS_PERMANENTLY
    assert decision.suppression is not None
    assert decision.suppression.until is None
    assert decision.suppression.reason == "hard_bounce/user_unknown"
    assert decision.suppression.address == "Gone@Example.org"
    assert decision.suppression.address_key == "gone@example.org"


def test_an_unproven_bounce_suppresses_nobody_where_proof_is_required() -> None:
    decision = decide(event(), FOR_EVER, DecisionRules(proof_needed=True))
    assert decision.action is Action.MANUAL_REVIEW
    assert decision.suppression is None
    assert "unproven" in decision.because


@pytest.mark.parametrize(
    "grade", [Provenance.SIGNED, Provenance.RETURNED_ORIGINAL, Provenance.JOURNAL, Provenance.AUTHENTICATED]
)
def test_a_proven_bounce_suppresses_where_proof_is_required(grade: Provenance) -> None:
    assert decide(event(provenance=grade), FOR_EVER, DecisionRules(proof_needed=True)).suppression is not None


def test_a_forged_bounce_is_never_acted_on_even_where_no_proof_is_required() -> None:
    decision = decide(event(provenance=Provenance.FORGED), FOR_EVER, DecisionRules())
    assert decision.action is Action.NO_ACTION
    assert decision.suppression is None


def test_low_confidence_asks_a_person() -> None:
    decision = decide(event(confidence=0.4), FOR_EVER, DecisionRules())
    assert decision.action is Action.MANUAL_REVIEW
    assert decision.suppression is None


def test_two_bounces_of_one_day_are_not_two_days_of_failure() -> None:
    rules = DecisionRules(hard_bounces_needed=2)
    same_day = [event(identity="two", at=NOW - timedelta(hours=3))]
    assert decide(event(), FOR_EVER, rules, same_day).suppression is None
    other_day = [event(identity="two", at=NOW - timedelta(days=3))]
    assert decide(event(), FOR_EVER, rules, other_day).suppression is not None


def test_forged_history_does_not_count_towards_the_days_needed() -> None:
    history = [event(identity="two", at=NOW - timedelta(days=3), provenance=Provenance.FORGED)]
    assert decide(event(), FOR_EVER, DecisionRules(hard_bounces_needed=2), history).suppression is None


def test_a_block_of_the_sender_does_not_hold_the_address() -> None:
    handling = Handling(Action.SUPPRESS_TEMPORARILY, None, 30, "ip_provider")
    blocked = event(type="block_bounce", subcategory="ip_blocked", permanent=False)
    decision = decide(blocked, handling, DecisionRules())
    assert decision.action is Action.SUPPRESS_TEMPORARILY
    assert decision.suppression is None


def test_review_holds_mail_only_where_configured_and_then_for_the_days_of_the_table() -> None:
    rejected = event(subcategory="recipient_rejected", permanent=False)
    assert decide(rejected, REVIEW_7_DAYS, DecisionRules()).suppression is None
    held = decide(rejected, REVIEW_7_DAYS, DecisionRules(hold_during_review=True)).suppression
    assert held is not None
    assert held.until == NOW + timedelta(days=7)


def test_a_report_without_a_recipient_changes_nothing() -> None:
    decision = decide(event(recipient=None, recipient_key=None), FOR_EVER, DecisionRules())
    assert decision.action is Action.NO_ACTION

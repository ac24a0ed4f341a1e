"""The next best action by the timeline: nobody who said no is written to, nobody who waits is forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailback.bounce.taxonomy import Action, Kind
from mailback.policy.next_action import Step, next_action
from mailback.store.records import Event, Suppression

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def answer(intent: str, at: datetime, *, kind: Kind = Kind.REPLY, **told: Any) -> Event:
    kept: dict[str, object] = {"safety": {"verdict": told.pop("verdict", "clean")}}
    kept |= {name: told.pop(name) for name in ("return_date", "follow_up_date", "new_contact") if name in told}
    route = told.pop("route", "notify_owner")
    return Event(
        id=f"E{at:%d%H}", identity=str(at), at=at, kind=kind, source="smtpd", intent=intent, reply=kept, route=route,
        **told,
    )  # fmt: skip


def failure(at: datetime, **told: Any) -> Event:
    return Event(id="B", identity="b", at=at, kind=Kind.BOUNCE, source="smtpd", subcategory="mailbox_full", **told)


def step(*events: Event, sent: tuple[datetime, ...] = (), held: tuple[Suppression, ...] = ()) -> Step:
    return next_action(events, sent, held, NOW).step


def held(scope: str = "all", until: datetime | None = None) -> Suppression:
    return Suppression("a@b.test", "a@b.test", scope, "x", None, None, "operator", ago(days=1), until)


def test_a_suppressed_address_is_left_alone_whatever_it_wrote() -> None:
    assert step(answer("interested", ago(hours=1)), held=(held(),)) is Step.STOP
    assert step(answer("interested", ago(hours=1)), held=(held(until=ago(hours=2)),)) is Step.REPLY
    assert step(answer("interested", ago(hours=1)), held=(held("list:x"),)) is Step.REPLY


@pytest.mark.parametrize("intent", ["objection", "unsubscribe"])
def test_a_no_stands_also_after_we_have_written_again(intent: str) -> None:
    assert step(answer(intent, ago(days=20)), sent=(ago(days=10),)) is Step.STOP
    assert step(answer(intent, ago(days=20)), answer("interested", ago(days=2))) is Step.REPLY


@pytest.mark.parametrize("intent", ["legal", "security", "billing"])
def test_what_is_sensitive_goes_to_a_person_until_it_is_answered(intent: str) -> None:
    assert step(answer(intent, ago(days=2))) is Step.ESCALATE
    assert step(answer(intent, ago(days=3)), sent=(ago(days=2),)) is Step.WAIT


def test_what_is_not_safe_or_waits_for_a_person_is_escalated() -> None:
    assert step(answer("interested", ago(hours=1), verdict="phishing", route="escalate")) is Step.ESCALATE
    waits = answer("interested", ago(hours=1), route="require_approval", action=Action.MANUAL_REVIEW)
    assert step(waits) is Step.ESCALATE


def test_who_wrote_last_is_answered_by_the_deadline() -> None:
    due = NOW + timedelta(minutes=5)
    action = next_action([answer("question", ago(hours=1), due_at=due)], [ago(days=1)], [], NOW)
    assert (action.step, action.until) == (Step.REPLY, due)


def test_nobody_is_written_to_twice_a_day() -> None:
    action = next_action([], [ago(hours=23)], [], NOW)
    assert (action.step, action.until) == (Step.WAIT, NOW + timedelta(hours=1))
    assert step(sent=(ago(days=2),)) is Step.WAIT
    assert step(sent=(ago(days=8),)) is Step.NUDGE


def test_who_is_away_is_waited_for() -> None:
    away = answer("out_of_office", ago(days=9), kind=Kind.AUTO_REPLY, return_date="2026-11-30")
    action = next_action([away], [ago(days=9)], [], NOW)
    assert (action.step, action.until) == (Step.WAIT, datetime(2026, 11, 30, tzinfo=UTC))
    back = answer("out_of_office", ago(days=9), kind=Kind.AUTO_REPLY, return_date="2026-11-20")
    assert step(back, sent=(ago(days=9),)) is Step.NUDGE


def test_an_absence_does_not_hide_what_the_person_wrote() -> None:
    away = answer("out_of_office", ago(hours=1), kind=Kind.AUTO_REPLY, return_date="2026-11-30")
    assert step(answer("objection", ago(days=2)), away) is Step.STOP


def test_not_now_is_left_until_the_day_that_was_told() -> None:
    assert step(answer("not_now", ago(days=20), follow_up_date="2026-12-24")) is Step.WAIT
    assert step(answer("not_now", ago(days=20), follow_up_date="2026-11-24")) is Step.NUDGE
    assert step(answer("not_now", ago(days=20))) is Step.WAIT
    assert step(answer("not_now", ago(days=31))) is Step.NUDGE


def test_who_has_left_is_not_written_to_again() -> None:
    left = answer(
        "referral", ago(days=1), kind=Kind.AUTO_REPLY, subcategory="left_organisation", new_contact="carl@b.test"
    )  # fmt: skip
    action = next_action([left], [ago(days=2)], [], NOW)
    assert action.step is Step.STOP
    assert "carl@b.test" in action.because


def test_a_message_that_did_not_arrive_is_not_followed_by_the_next() -> None:
    assert step(failure(ago(days=8)), sent=(ago(days=8, minutes=1),)) is Step.WAIT
    assert step(failure(ago(days=8), action=Action.MANUAL_REVIEW), sent=(ago(days=9),)) is Step.ESCALATE
    assert step(failure(ago(days=9)), sent=(ago(days=8),)) is Step.NUDGE


def test_nothing_known_is_no_reason_to_write() -> None:
    assert step() is Step.WAIT

"""The arithmetic of the score: what adds, what resets, what decays, and that no order of arrival changes the answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailback.policy.score import BounceStatus, ScoreRules, Standing, standing
from mailback.store.records import GONE, ScoreEntry, Step

RULES = ScoreRules()
DAY = timedelta(days=1)
START = datetime(2026, 3, 1, 9, tzinfo=UTC)


def bounce(day: float, cause: str = "mailbox_full", **told: int) -> ScoreEntry:
    return ScoreEntry("a@b.test", Step.BOUNCE, START + day * DAY, f"event-{day}", cause, **told)


def alive(day: float, cause: str = "delivered") -> ScoreEntry:
    return ScoreEntry("a@b.test", Step.ALIVE, START + day * DAY, cause, cause)


def after(*entries: ScoreEntry, rules: ScoreRules = RULES) -> Standing:
    return standing(entries, rules)


def told(entries: Iterable[ScoreEntry], rules: ScoreRules = RULES, now: datetime = START + 40 * DAY) -> object:
    found = standing(entries, rules, explained=True)
    return found.hold, found.run, found.gone, found.status(now), found.count(now), found.lines


def test_the_third_in_a_row_holds_for_a_week_and_two_hold_nothing() -> None:
    assert after(bounce(0), bounce(1)).hold is None
    hold = after(bounce(0), bounce(1), bounce(4)).hold
    assert hold is not None
    assert (hold.since, hold.until) == (START + 4 * DAY, START + 11 * DAY)


def test_ten_bounces_of_one_day_are_one_step() -> None:
    found = after(*(bounce(hour / 24) for hour in range(10)))
    assert (found.hold, found.count(START)) == (None, 1)


@pytest.mark.parametrize(("last", "held"), [(7, True), (8, False)])
def test_an_entry_decays_after_the_window(last: int, held: bool) -> None:
    assert (after(bounce(0), bounce(3), bounce(last)).hold is not None) is held


@pytest.mark.parametrize("cause", ["delivered", "open", "click", "reply", "lifted", "opt_in"])
def test_what_shows_life_begins_the_count_anew(cause: str) -> None:
    found = after(bounce(0), bounce(1), alive(2, cause), bounce(3))
    assert (found.hold, found.count(START + 3 * DAY)) == (None, 1)


def test_a_delivery_outweighs_a_bounce_of_the_same_day_whichever_clock_is_right() -> None:
    for hour in (0.1, 0.5):
        assert after(bounce(0), bounce(1), bounce(2.3), alive(2 + hour)).hold is None


def test_a_delivery_after_a_hold_ends_it() -> None:
    found = after(bounce(0), bounce(1), bounce(2), alive(3))
    assert (found.hold, found.status(START + 3 * DAY)) == (None, BounceStatus.NONE)


def test_bounces_during_a_hold_count_nothing() -> None:
    found = after(*(bounce(day) for day in range(9)))
    assert found.hold is not None
    assert (found.hold.round, found.run) == (1, ())


def test_the_third_hold_in_a_row_is_for_ever() -> None:
    days = [0, 1, 2, 20, 21, 22, 40, 41, 42]
    second = after(*map(bounce, days[:6])).hold
    third = after(*map(bounce, days)).hold
    assert second is not None
    assert third is not None
    assert (second.round, second.until) == (2, START + 29 * DAY)
    assert (third.round, third.until) == (3, None)


def test_a_delivery_between_holds_keeps_the_address_from_graduating() -> None:
    hold = after(*map(bounce, [0, 1, 2, 20, 21, 22]), alive(30), *map(bounce, [40, 41, 42])).hold
    assert hold is not None
    assert (hold.round, hold.until) == (1, START + 49 * DAY)


def test_holds_of_years_ago_do_not_add_up() -> None:
    hold = after(*map(bounce, [0, 1, 2, 400, 401, 402, 800, 801, 802])).hold
    assert hold is not None
    assert hold.round == 1


def test_status_is_soft_until_it_decays_and_hard_until_proof() -> None:
    soft = after(bounce(0))
    assert [soft.status(START + days * DAY) for days in (0, 7, 8)] == [
        BounceStatus.SOFT, BounceStatus.SOFT, BounceStatus.NONE,
    ]  # fmt: skip
    assert soft.decays_at is not None
    assert soft.status(soft.decays_at - timedelta(seconds=1)) is BounceStatus.SOFT
    assert soft.status(soft.decays_at) is BounceStatus.NONE
    assert after(bounce(0), bounce(1), bounce(2)).status(START + 300 * DAY) is BounceStatus.HARD


def test_who_is_dead_since_a_hold_is_so_since_the_first_whatever_follows() -> None:
    """Who was opted out by the first hold is out already: a later one must not move the date."""
    twice = [bounce(day) for day in (0, 1, 2, 20, 21, 22)]
    assert after(*twice).hard_since == START + 2 * DAY
    assert after(*twice, bounce(23, GONE)).hard_since == START + 2 * DAY
    assert after(*twice[:3], alive(10), *twice[3:]).hard_since == START + 22 * DAY


def test_what_was_suppressed_for_ever_is_dead_until_a_person_says_otherwise() -> None:
    gone = bounce(0, GONE)
    assert after(gone, alive(1)).status(START + DAY) is BounceStatus.HARD
    assert after(gone, alive(1, "lifted")).status(START + DAY) is BounceStatus.NONE
    assert after(alive(0, "lifted"), bounce(0.1, GONE)).status(START + DAY) is BounceStatus.HARD
    assert after(alive(0.2, "lifted"), bounce(0.1, GONE)).status(START + DAY) is BounceStatus.NONE


def test_a_row_of_the_handling_rules_has_its_own_numbers() -> None:
    quick = after(bounce(0), bounce(1, needed=2, suppress_days=30)).hold
    assert quick is not None
    assert quick.until == START + 31 * DAY
    assert after(bounce(0), bounce(1), bounce(4, window_days=3)).hold is None


def test_a_plain_count_of_bounces_is_a_setting() -> None:
    plain = ScoreRules(window_days=3650, delivery_resets=False)
    assert after(bounce(0), alive(5), bounce(15), bounce(31), rules=plain).status(START) is BounceStatus.HARD


def test_holds_grow_where_that_is_set_and_are_alike_where_it_is_not() -> None:
    rounds = [bounce(day) for start in (0, 20, 50, 100) for day in (start, start + 1, start + 2)]
    for growth, days in ((1.0, [7, 7, 7]), (2.0, [7, 14, 28]), (1.5, [7, 10.5, 15.75])):
        rules = ScoreRules(growth=growth, graduate_after=4)
        holds = [after(*rounds[: 3 * n], rules=rules).hold for n in (1, 2, 3)]
        assert [h.until - h.since for h in holds if h is not None and h.until is not None] == [d * DAY for d in days]
        last = after(*rounds, rules=rules).hold
        assert last is not None
        assert last.until is None


def test_growth_ends_before_the_calendar_does() -> None:
    entries = [bounce(4000 * number + day) for number in range(30) for day in range(3)]
    hold = after(*entries, rules=ScoreRules(growth=10, graduate_after=1000, memory_days=10_000)).hold
    assert hold is not None
    assert hold.until == hold.since + 3650 * DAY
    assert hold.round == 30


def test_what_arrives_after_a_grown_hold_begins_with_the_shortest_again() -> None:
    rules = ScoreRules(growth=3, graduate_after=9)
    before = [bounce(day) for start in (0, 20) for day in (start, start + 1, start + 2)]
    hold = after(*before, alive(60), bounce(61), bounce(62), bounce(63), rules=rules).hold
    assert hold is not None
    assert (hold.round, hold.until) == (1, START + 70 * DAY)


def test_a_probe_that_bounces_is_the_next_hold_at_once_and_one_that_arrives_ends_them() -> None:
    rules = ScoreRules(probe=True)
    three = [bounce(0), bounce(1), bounce(2)]
    assert after(*three, bounce(8.9), rules=rules).hold == after(*three, rules=rules).hold, "mail from before"
    second = after(*three, bounce(10), rules=rules)
    assert second.hold is not None
    assert (second.hold.round, second.hold.until, second.strikes) == (2, START + 17 * DAY, 1)
    third = after(*three, bounce(10), bounce(18), rules=rules).hold
    assert third is not None
    assert third.until is None
    well = after(*three, alive(10), bounce(11), rules=rules)
    assert (well.hold, well.count(START + 11 * DAY)) == (None, 1)
    assert after(*three, bounce(10)).hold == after(*three).hold, "off by default"


def test_a_hold_of_long_ago_makes_no_probe() -> None:
    rules = ScoreRules(probe=True, memory_days=30)
    late = after(bounce(0), bounce(1), bounce(2), bounce(40), rules=rules)
    assert late.hold is not None
    assert (late.hold.round, len(late.run)) == (1, 1)


def test_a_bounce_that_was_set_aside_does_not_count() -> None:
    aside = replace(bounce(1), step=Step.HELD)
    assert after(bounce(0), aside, bounce(2)).hold is None


_ENTRIES = st.lists(
    st.one_of(
        st.builds(bounce, st.integers(0, 900).map(lambda n: n / 24), st.sampled_from(["mailbox_full", GONE, "x"])),
        st.builds(alive, st.integers(0, 900).map(lambda n: n / 24), st.sampled_from(["delivered", "open", "lifted"])),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=300)
@given(entries=_ENTRIES, rules=st.sampled_from([RULES, ScoreRules(growth=2, probe=True)]), data=st.data())
def test_no_order_of_arrival_changes_the_answer(
    entries: list[ScoreEntry], rules: ScoreRules, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(entries))
    assert told(shuffled, rules) == told(entries, rules)


@settings(deadline=None, max_examples=200)
@given(entries=_ENTRIES, hours=st.integers(-14, 14))
def test_no_time_zone_changes_the_answer(entries: list[ScoreEntry], hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    assert told([replace(entry, at=entry.at.astimezone(zone)) for entry in entries]) == told(entries)


@settings(deadline=None, max_examples=200)
@given(entries=_ENTRIES)
def test_a_day_moves_the_count_by_one_step_at_most(entries: list[ScoreEntry]) -> None:
    days = sorted({entry.day for entry in entries})
    for day in days:
        before = standing([entry for entry in entries if entry.day < day], RULES)
        until = standing([entry for entry in entries if entry.day <= day], RULES)
        assert len(until.run) <= len(before.run) + 1
        if until.hold is not None and until.hold != before.hold:
            assert len(before.run) >= RULES.needed - 1


@settings(deadline=None, max_examples=200)
@given(entries=_ENTRIES)
def test_nobody_is_held_without_three_days_of_bounces_within_the_window(entries: list[ScoreEntry]) -> None:
    hold = standing(entries, RULES).hold
    if hold is not None:
        days = {e.day for e in entries if e.step is Step.BOUNCE and 0 <= hold.entry.day - e.day <= RULES.window_days}
        assert len(days) >= RULES.needed

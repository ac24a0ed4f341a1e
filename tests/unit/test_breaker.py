"""The breaker as a machine: whatever happens in whatever order, mail is neither held for ever nor let go at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mailback.policy.breaker import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    Terms,
    at,
    claimed,
    closed_by_hand,
    delivered,
    new,
    next_at,
    opened_by_hand,
    pause,
    refused,
    tripped,
)
from mailback.store.breakers import breaker_of, row_of
from mailback.store.records import Breaker

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
TERMS = Terms(pause_s=3600, longest_s=86400, probe_every_s=300, probes_needed=3, quiet_s=1800)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def a_breaker() -> Breaker:
    return new("google", "ip", "192.0.2.25", datetime(1970, 1, 1, tzinfo=UTC))


def an_open_one() -> Breaker:
    return tripped(a_breaker(), TERMS, "rate", "why", NOW)


def test_a_trip_holds_mail_for_the_first_pause_then_single_messages_try() -> None:
    breaker = an_open_one()
    assert (breaker.state, breaker.until, breaker.trips) == (OPEN, later(3600), 1)
    assert claimed(breaker, "a@b", "policy:1", later(3599)) is None
    assert at(breaker, later(3600)).state == HALF_OPEN
    first = claimed(breaker, "a@b", "policy:1", later(3600))
    assert first is not None
    assert claimed(first, "c@d", "policy:1", later(3601)) is None, "one at a time"
    assert claimed(first, "a@b", "policy:1", later(3601)) is first, "asked again, the same answer"
    assert claimed(first, "a@b", "policy:2", later(3601)) is None, "another message to the same recipient waits as well"
    assert next_at(first, later(3601)) == later(3900)
    second = claimed(first, "c@d", "policy:1", later(3900))
    assert second is not None
    assert claimed(second, "a@b", "policy:1", later(3901)) is None


def test_a_delivery_closes_a_half_open_one_and_not_an_open_one() -> None:
    breaker = an_open_one()
    assert delivered(breaker, later(10), later(10)) == breaker, "it was on its way before"
    closed = delivered(breaker, later(4000), later(3999))
    assert closed.state == CLOSED
    assert delivered(breaker, later(4000), later(10)).state == HALF_OPEN, "a delivery from before the pause ended"


def test_a_refusal_of_a_try_doubles_the_pause_up_to_the_longest() -> None:
    breaker, now = an_open_one(), NOW
    for trip in range(2, 9):
        assert breaker.until is not None
        now = breaker.until + timedelta(seconds=1)
        breaker = refused(breaker, TERMS, "rate", "again", now, refused_at=now)
        assert (breaker.state, breaker.trips) == (OPEN, trip)
        assert breaker.until is not None
        assert breaker.until - now == min(timedelta(hours=2 ** (trip - 1)), timedelta(days=1))


def test_a_late_report_of_a_refusal_from_before_does_not_open_it_again() -> None:
    breaker = an_open_one()
    assert refused(breaker, TERMS, "rate", "late", later(3700), refused_at=later(3500)).state == HALF_OPEN


def test_quiet_closes_it_only_after_enough_tries_and_time() -> None:
    breaker: Breaker | None = an_open_one()
    for number in range(3):
        assert breaker is not None
        assert at(breaker, later(3600 + 1799 + 300 * number)).state == HALF_OPEN
        breaker = claimed(breaker, f"{number}@b", "policy:1", later(3600 + 300 * number))
    assert breaker is not None
    assert at(breaker, later(3600 + 1799)).state == HALF_OPEN
    assert at(breaker, later(3600 + 1800)).state == CLOSED
    only_one = claimed(an_open_one(), "a@b", "policy:1", later(3600))
    assert only_one is not None
    assert at(only_one, later(10_000_000)).state == HALF_OPEN, "a single try that told nothing proves nothing"


def test_a_slow_one_passes_one_message_each_so_many_seconds_while_it_is_open() -> None:
    breaker = tripped(a_breaker(), replace(TERMS, pace_s=10), "rate", "why", NOW)
    first = claimed(breaker, "a@b", "policy:1", later(1))
    assert first is not None
    assert claimed(first, "c@d", "policy:1", later(10)) is None
    assert claimed(first, "c@d", "policy:1", later(11)) is not None


def test_a_breaker_that_trips_soon_again_remembers_and_one_that_rested_does_not() -> None:
    closed = delivered(an_open_one(), later(4000), later(4000))
    assert tripped(closed, TERMS, "rate", "why", later(5000)).trips == 2
    assert tripped(closed, TERMS, "rate", "why", later(4000 + 86400)).trips == 1


def test_what_a_person_opened_without_an_end_only_a_person_closes() -> None:
    breaker = opened_by_hand(a_breaker(), None, "maintenance there", NOW)
    assert at(breaker, later(10**9)).state == OPEN
    assert next_at(breaker, NOW) is None
    assert delivered(breaker, later(10), later(10)).state == OPEN
    assert tripped(breaker, TERMS, "rate", "why", later(10)) == breaker
    assert closed_by_hand(breaker, "over", later(20)).state == CLOSED


events = st.lists(
    st.tuples(
        st.sampled_from(["trip", "refuse", "deliver", "claim", "wait"]),
        st.integers(0, 20_000),
        st.integers(-4000, 4000),
        st.sampled_from(["a@x", "b@x", "c@x"]),
    ),
    max_size=60,
)
terms = st.builds(
    Terms,
    pause_s=st.integers(1, 10_000),
    longest_s=st.integers(1, 100_000),
    pace_s=st.sampled_from([0, 0, 7]),
    probe_every_s=st.integers(1, 1000),
    probes_needed=st.integers(1, 4),
    quiet_s=st.integers(1, 5000),
)


@given(terms, events)
def test_any_story_keeps_the_promises(terms: Terms, story: list[tuple[str, int, int, str]]) -> None:
    breaker, now = a_breaker(), NOW
    passed: list[tuple[datetime, str, datetime]] = []
    for what, seconds, skew, key in story:
        now += timedelta(seconds=seconds)
        before = at(breaker, now)
        told = now + timedelta(seconds=skew)
        if what == "trip":
            breaker = tripped(breaker, terms, "rule", "why", now)
            assert at(breaker, now).state == OPEN
        elif what == "refuse":
            breaker = refused(breaker, terms, "rule", "why", now, refused_at=told)
            assert before.state != CLOSED or breaker.state == CLOSED, "a single refusal never opens a closed one"
        elif what == "deliver":
            breaker = delivered(breaker, now, told)
        elif what == "claim" and before.state != CLOSED:
            after = claimed(breaker, key, f"policy:{key}", now)
            if after is not None and after.probe_at == now and after != before:
                passed.append((now, before.state, before.since))
                breaker = after
        breaker = breaker_of(row_of(breaker))  # a restart changes nothing
        assert at(at(breaker, now), now) == at(breaker, now), "time passes once"
        if breaker.state == OPEN and breaker.rule == "rule":
            assert breaker.until is not None
            assert breaker.until - breaker.since <= timedelta(seconds=max(terms.longest_s, terms.pause_s))
            assert breaker.until - breaker.since == pause(terms, breaker.trips)
    for (one, *period), (two, *following) in pairwise(passed):
        every = terms.probe_every_s if period[0] == HALF_OPEN else terms.pace_s
        assert period != following or two - one >= timedelta(seconds=every), "one at a time"


@given(terms, st.integers(0, 10**7))
def test_mail_is_held_by_time_alone_never_longer_than_the_pause(terms: Terms, seconds: int) -> None:
    breaker = tripped(a_breaker(), terms, "rule", "why", NOW)
    now = later(seconds)
    over = seconds >= terms.pause_s
    assert (at(breaker, now).state == HALF_OPEN) is over
    assert not over or claimed(breaker, "a@x", "policy:1", now) is not None

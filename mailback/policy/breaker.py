"""The breaker of one provider and one of our addresses or domains: closed, open, half open. Pure functions, no clock.

    closed     mail flows. Refusals are counted by the hour; past a threshold (`policy.breaker_rules`) it trips.
    open       mail is held, or passes one message every `pace_s` seconds. It ends by its date, then it is half open.
    half open  single messages try, one every `probe_every_s` seconds. A delivery closes it; so does quiet, where nobody
               tells deliveries: `probes_needed` tries and `quiet_s` seconds without a refusal. A refusal opens it for
               twice as long as before, up to the longest pause.

What time alone changes is not written down when it happens: whoever reads a breaker asks `at` first, so that all
processes see the same state whether or not one of them has come to write it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mailback.policy.passage import again
from mailback.store.records import Breaker

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"
OPERATOR = "operator"
"""Stands for the rule where a person opened or closed it."""
ANY = "*"
"""The sender where it is not known which of ours it was."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How long and how hard a breaker holds; from the rule that trips it."""

    pause_s: int = 3600
    """The first pause."""
    longest_s: int = 14 * 86400
    remember_s: int = 86400
    """A breaker that trips again within this time of its closing goes on with longer pauses."""
    pace_s: int = 0
    probe_every_s: int = 300
    probes_needed: int = 3
    quiet_s: int = 1800


def new(provider: str, side: str, sender: str, now: datetime) -> Breaker:
    """One that has never tripped."""
    return Breaker(provider, side, sender, CLOSED, now)


def at(breaker: Breaker, now: datetime) -> Breaker:
    """The breaker as time alone has changed it until `now`."""
    if breaker.state == OPEN and breaker.until is not None and breaker.until <= now:
        return replace(breaker, state=HALF_OPEN, since=breaker.until, until=None, probes=0, probe_at=None,
                       probe_key=None, probe_token="")  # fmt: skip
    if breaker.state == HALF_OPEN and breaker.probes >= breaker.probes_needed:
        quiet = breaker.since + timedelta(seconds=breaker.quiet_s)
        if breaker.probe_at is not None:  # the last try needs its time to be refused as well
            quiet = max(quiet, breaker.probe_at + timedelta(seconds=breaker.probe_every_s))
        if quiet <= now:
            return _closed(breaker, quiet)
    return breaker


def tripped(breaker: Breaker, terms: Terms, rule: str, reason: str, now: datetime) -> Breaker:
    """Opened by a threshold that was passed. One that is open already stays as it is."""
    breaker = at(breaker, now)
    if breaker.state == OPEN:
        return breaker
    recent = breaker.state == HALF_OPEN or now - breaker.since < timedelta(seconds=terms.remember_s)
    trips = breaker.trips + 1 if recent else 1
    return replace(
        breaker, state=OPEN, since=now, until=now + pause(terms, trips), rule=rule, reason=reason, trips=trips,
        pace_s=terms.pace_s, probe_every_s=terms.probe_every_s, probes_needed=terms.probes_needed,
        quiet_s=terms.quiet_s, probes=0, probe_at=None, probe_key=None, probe_token="",
    )  # fmt: skip


def pause(terms: Terms, trips: int) -> timedelta:
    """How long the n-th trip in a row holds mail."""
    doubled = terms.pause_s * 2 ** min(trips - 1, 32)
    return timedelta(seconds=min(doubled, max(terms.longest_s, terms.pause_s)))


def delivered(breaker: Breaker, now: datetime, sent_at: datetime) -> Breaker:
    """A message arrived at `sent_at`. It closes a half-open breaker; in an open one it was on its way before."""
    breaker = at(breaker, now)
    if breaker.state != HALF_OPEN or sent_at < breaker.since:
        return breaker
    return _closed(breaker, now)


def refused(breaker: Breaker, terms: Terms, rule: str, reason: str, now: datetime, *, refused_at: datetime) -> Breaker:
    """A message was refused at `refused_at`, as one of the rules tells. It opens a half-open breaker anew."""
    breaker = at(breaker, now)
    if breaker.state != HALF_OPEN or refused_at < breaker.since:
        return breaker
    return tripped(breaker, terms, rule, reason, now)


def opened_by_hand(breaker: Breaker, until: datetime | None, reason: str, now: datetime) -> Breaker:
    """Opened by a person, for ever where there is no end."""
    return replace(
        breaker, state=OPEN, since=now, until=until, rule=OPERATOR, reason=reason, trips=max(breaker.trips, 1),
        pace_s=0, probes=0, probe_at=None, probe_key=None, probe_token="",
    )  # fmt: skip


def closed_by_hand(breaker: Breaker, reason: str, now: datetime) -> Breaker:
    """Closed by a person, its past forgotten."""
    return replace(_closed(breaker, now), rule=OPERATOR, reason=reason, trips=0)


def claimed(breaker: Breaker, key: str, token: str, now: datetime) -> Breaker | None:
    """The breaker once a message to `key` has passed it; None where it must wait.

    `token` tells which message that is, as `mailback.policy.passage` has it (empty where somebody only wants to know):
    the one that passed last passes again until another one may.
    """
    breaker = at(breaker, now)
    if breaker.state == CLOSED:
        return breaker
    if _due(breaker, now):
        return replace(breaker, probes=breaker.probes + 1, probe_at=now, probe_key=key, probe_token=token)
    if breaker.probe_key != key or breaker.probe_at is None:
        return None
    tokens = again(breaker.probe_token, token, now - breaker.probe_at)
    if tokens is None:
        return None
    return breaker if tokens == breaker.probe_token else replace(breaker, probe_token=tokens)


def next_at(breaker: Breaker, now: datetime) -> datetime | None:
    """When mail may pass again: the end of the pause, or the next try; None where only a person ends it."""
    breaker = at(breaker, now)
    every = breaker.probe_every_s if breaker.state == HALF_OPEN else breaker.pace_s
    following = breaker.probe_at + timedelta(seconds=every) if breaker.probe_at is not None and every else None
    if breaker.state == OPEN and (following is None or (breaker.until is not None and breaker.until < following)):
        return breaker.until
    return following or now


def _due(breaker: Breaker, now: datetime) -> bool:
    """Whether one more message may pass."""
    every = breaker.probe_every_s if breaker.state == HALF_OPEN else breaker.pace_s
    if breaker.state == OPEN and not every:
        return False
    return breaker.probe_at is None or breaker.probe_at + timedelta(seconds=every) <= now


def _closed(breaker: Breaker, since: datetime) -> Breaker:
    return replace(
        breaker, state=CLOSED, since=since, until=None, probes=0, probe_at=None, probe_key=None, probe_token=""
    )

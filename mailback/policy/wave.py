"""When permanent failures at one provider are a wave: too many to be deaths of single mailboxes. Pure, no clock.

Two questions are asked of an hour, each by shares, so that five recipients at a provider are protected as five million
are:

- **Turned.** Of the addresses that took mail in the last `LATELY`, hardly one dies between two mailings. Where more of
  them fail than `wave_share` of all outcomes, or than `wave_factor` times what is normal there, the server is wrong; so
  it is where they fail one after the other, whatever arrived in the same hour before. An old list that is mailed for
  the first time has no such addresses, and so it never makes a wave, however many are dead.
- **Collapsed.** A provider that took mail before and now refuses nearly all, while others do not: also where nothing is
  known of the addresses themselves.

A share of few outcomes is chance. So it has to be beyond the expected one by more than chance does once in a million
hours: by Chernoff's bound, P(X >= k) <= exp(-n KL(k/n, p)) for n outcomes of probability p. With a share of 0.2 that
takes nine failures of nine, 20 of 30, or 270 of 1,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from math import log
from typing import Final

LATELY: Final = timedelta(days=100)
"""How long an address that took mail is expected to take more: a newsletter of each quarter counts."""
_CHANCE: Final = log(1e6)
_LEAST_KNOWN: Final = 20
"""Messages that a provider has to have taken before its collapse can be told."""
_NORMAL_KNOWN: Final = 100
"""Outcomes that it takes for a normal share to be more than chance."""
_EACH: Final = 40
"""Failures up to which each is looked at."""
HALF: Final = 0.5
"""The least share that is a collapse."""
_NEARLY_ALL: Final = 0.9
_STEP: Final = 1.1


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of mail to one provider in some hours."""

    arrived: int = 0
    bounced: int = 0
    """Final failures of any cause."""
    permanent: int = 0
    """Of these, addresses that the handling rules suppress for ever."""
    turned: int = 0
    """Of these, addresses that took mail lately."""

    @property
    def total(self) -> int:
        return self.arrived + self.bounced

    def __add__(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            self.arrived + other.arrived, self.bounced + other.bounced, self.permanent + other.permanent,
            self.turned + other.turned,
        )  # fmt: skip

    def __sub__(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            self.arrived - other.arrived, self.bounced - other.bounced, self.permanent - other.permanent,
            self.turned - other.turned,
        )  # fmt: skip


def expected(normal: Outcomes, *, share: float, factor: float) -> float:
    """The share of addresses that took mail lately which may fail at once. `normal`: of the days before."""
    usual = factor * normal.turned / normal.total if normal.total >= _NORMAL_KNOWN else 0.0
    return min(max(share, usual), max(share, HALF))


def turned(now: Outcomes, normal: Outcomes, *, share: float, factor: float) -> bool:
    """Whether more addresses that took mail lately fail at once than die."""
    return beyond(now.turned, now.total, expected(normal, share=share, factor=factor))


def outnumbers(ahead: int, share: float) -> bool:
    """Whether failures are so far ahead of arrivals as chance brings them once in a million times, where each outcome
    is a failure with probability `share`: by the gambler's ruin, (share / (1 - share)) to that power.

    With a share of 0.2 that takes ten more failures than arrivals, whatever arrived in the hour before.
    """
    return share < HALF and ahead * log((1 - share) / share) >= _CHANCE


def collapsed(now: Outcomes, normal: Outcomes, elsewhere: Outcomes, *, factor: float) -> bool:
    """Whether a provider that took mail refuses nearly all of it now, unlike the others in the same hours."""
    if normal.arrived < _LEAST_KNOWN:
        return False
    usual = normal.permanent / normal.total
    others = elsewhere.permanent / elsewhere.total if elsewhere.total else 0.0
    return beyond(now.permanent, now.total, min(_NEARLY_ALL, max(HALF, factor * usual, 2 * others)))


def beyond(count: int, total: int, share: float) -> bool:
    """Whether `count` of `total` is more than chance makes of a share, once in a million times."""
    total = max(total, count)
    if not total or count <= share * total:
        return False
    told = count / total
    divergence = told * log(told / share)
    if told < 1:
        divergence += (1 - told) * log((1 - told) / (1 - share))
    return total * divergence >= _CHANCE


def worth_asking(count: int, share: float) -> bool:
    """Whether a test is made after so many failures: once they could be beyond a share at all, then each time a tenth
    is added."""
    if count * -log(share) < _CHANCE:
        return False
    return count <= _EACH or int(log(count, _STEP)) != int(log(count - 1, _STEP))

"""Limits on what reports may do together: a budget for the unproven, and waves.

Each report alone may be believed, or need no proof, and yet many of them be wrong. Two cases, both held back within the
store's transaction, so that no burst slips through between two workers:

- **Budget.** Suppressions without proof are limited by source and hour: by the client's network (IPv4 /24, IPv6 /64;
  none for loopback, where an MTA of ours stands), and by the domain that claims to report. Past the limit they wait for
  a person. The limit is a share of what was mailed on the busiest day of the week, and all sources together have four
  times as much, unless the operator has set a number.
- **Wave.** Permanent failures at one provider that cannot be deaths of single mailboxes: its servers are broken (or
  somebody forges them), and the addresses are fine. New permanent suppressions for that provider freeze, whatever their
  cause (what is broken says one thing now and another then), until a person undoes or confirms all of them at once.

What makes a wave depends on what is known (`mailback.policy.wave` has the arithmetic):

- Where something tells what arrives (Postfix's log, an application, a table): the share of outcomes.
- Else where the journal tells what left: the share of the messages that left just before this one.
- Else only a plain number is left, `policy.wave_minimum`, and the normal rate of the hour, which has to be known for a
  day. A number that the operator has set counts in every case.

Emits no log events: what was held is told in the outcome's notes, by `mailback wave list` and by `mailback doctor`.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

from mailback import address
from mailback.bounce.taxonomy import Kind, Provenance
from mailback.envelope import Source
from mailback.policy import wave
from mailback.policy.wave import LATELY, Outcomes
from mailback.provenance import outcomes
from mailback.store.rates import hour_of

if TYPE_CHECKING:
    from mailback.store.records import Event, Suppression
    from mailback.store.transaction import Transaction

_NORMAL_HOURS = 7 * 24
_KNOWN_HOURS = 24
_HOUR = timedelta(hours=1)
_BLIND_MINIMUM = 1000
"""Of `policy.wave_minimum` where it is not set: lets the dead addresses of a first large mailing pass."""
_UNPROVEN = "unproven:"
_ALL = "*"
_TOGETHER = 4
"""Times the budget of one source that all of them have."""
_FEWEST, _MOST = 50, 2000
"""What a source may cause however little or much is mailed."""
_BLIND = 500
"""What it may where nothing tells how much is mailed: a tenth of what a small sender sends in a day."""
_NEIGHBOURS = 2000
"""Messages of the journal that a share is taken of."""


_FRESH_S = 60.0
"""How long it is kept how much is mailed: it is asked for with each report of a flood, and is that of a week."""


def _is_off(transaction: Transaction, suppression: Suppression) -> bool:
    """Whether the address is switched off as far already: any number of reports about one address are no burst."""
    standing = transaction.active(suppression.address_key)
    return any(one.until is None and one.scope == suppression.scope for one in standing)


def _itself(domain: str) -> str:
    return domain


@dataclass(slots=True)
class _Mailed:
    """How much was mailed on the busiest of the days before an hour, asked once a minute."""

    clock: Callable[[], float] = time.monotonic
    _hour: int = -1
    _asked_at: float = 0.0
    _told: int = 0

    def before(self, transaction: Transaction, at: datetime) -> int:
        hour, now = hour_of(at), self.clock()
        if hour != self._hour or now - self._asked_at >= _FRESH_S:
            self._told = outcomes.busiest_day(transaction, at)
            self._hour, self._asked_at = hour, now
        return self._told


@dataclass(frozen=True, slots=True)
class Guard:
    """The limits."""

    unproven_per_hour: int | None
    """0: none; None: by the share of what is mailed."""
    wave_minimum: int | None
    """0: no waves; None: by shares, and by number only where nothing tells what arrives or left."""
    wave_factor: float
    wave_share: float = 0.2
    unproven_share: float = 0.02
    provider_of: Callable[[str], str] = _itself
    """The provider of a recipient's domain, as events have it."""
    _mailed: _Mailed = field(default_factory=_Mailed, init=False, compare=False)

    def holds(self, transaction: Transaction, event: Event, suppression: Suppression) -> str | None:
        """Why a suppression is held back; None where it may be made. Counts it."""
        return self._over_budget(transaction, event) or self._in_wave(transaction, event, suppression)

    def _over_budget(self, transaction: Transaction, event: Event) -> str | None:
        if self.unproven_per_hour == 0 or event.provenance.rank > Provenance.UNPROVEN.rank:
            return None
        spent = {source: transaction.count(f"{_UNPROVEN}{source}", event.at) for source in _sources(event)}
        together = transaction.count(_UNPROVEN + _ALL, event.at) if self.unproven_per_hour is None else 0
        budget = self._budget(transaction, event.at, max((*spent.values(), ceil(together / _TOGETHER))))
        over = next((source for source, count in spent.items() if count > budget), None)
        if over is not None:
            return f"more than {budget} unproven suppressions this hour from {over}"
        if together > _TOGETHER * budget:
            return f"more than {_TOGETHER * budget} unproven suppressions this hour from all sources together"
        return None

    def _budget(self, transaction: Transaction, at: datetime, wanted: int) -> int:
        """How many unproven suppressions a source may cause in the hour; nothing is asked for who wants but few."""
        if self.unproven_per_hour is not None:
            return self.unproven_per_hour
        if wanted <= _FEWEST:
            return _FEWEST
        mailed = self._mailed.before(transaction, at)
        return min(max(_FEWEST, round(self.unproven_share * mailed)), _MOST) if mailed else _BLIND

    def _in_wave(self, transaction: Transaction, event: Event, suppression: Suppression) -> str | None:
        provider, cause = event.provider or event.domain, event.subcategory
        if self.wave_minimum == 0 or event.kind is not Kind.BOUNCE or suppression.until or not provider or not cause:
            return None
        number = transaction.wave(provider)
        if number is None and not _is_off(transaction, suppression):
            number = self._wave_begun(transaction, event, provider, cause)
        if number is None:
            return None
        transaction.freeze(number, suppression)
        return f"wave {number}: failures at {provider} far beyond its normal rate; mailback wave list"

    def _wave_begun(self, transaction: Transaction, event: Event, provider: str, cause: str) -> int | None:
        name = f"{outcomes.PERMANENT}:{provider}/{cause}"
        now = transaction.count(name, event.at)
        normal, known = transaction.past_rate(name, event.at, _NORMAL_HOURS)
        began = self._by_share(transaction, event, provider)
        if began is None or self.wave_minimum is not None:
            began = began or self._by_number(transaction, event, now, normal, known)
        if not began:
            return None
        return transaction.begin_wave(provider, cause, event.at, _over_days(normal, known), LATELY)

    def _by_number(self, transaction: Transaction, event: Event, now: int, normal: float, known: int) -> bool:
        """Whether an hour has more suppressions of one cause than the minimum, and than is normal."""
        if now <= (_BLIND_MINIMUM if self.wave_minimum is None else self.wave_minimum):
            return False
        # Never seen before today: normal is none, if there was a day in which it could have been seen.
        if known < _KNOWN_HOURS and not transaction.counted_long_ago(f"{outcomes.PERMANENT}:", event.at, _KNOWN_HOURS):
            return False
        return now > self.wave_factor * _over_days(normal, known)

    def _by_share(self, transaction: Transaction, event: Event, provider: str) -> bool | None:
        """Whether the shares of the hour say so; None where nothing is known that they could be taken of."""
        key, at = event.recipient_key, event.at
        if key is None:
            return None
        told = outcomes.arrivals_told(transaction, event)
        turned = outcomes.Turned(0, 0)
        took_mail = transaction.took_mail(key, at - LATELY, at)
        if took_mail and event.source == Source.LOG.value:  # a log that tells failures had told the mail it took
            told = True
        if took_mail:
            turned = outcomes.turned(transaction, provider, at)
            if told and self._turned(transaction, provider, at, turned):
                return True
        if told:
            return self._collapsed(transaction, provider, at)
        if not turned.count:
            return None
        return wave.worth_asking(turned.count, self.wave_share) and self._turned_among_neighbours(
            transaction, event, provider
        )

    def _turned(self, transaction: Transaction, provider: str, at: datetime, turned: outcomes.Turned) -> bool:
        """Whether more of those that took mail lately fail than die: one after the other, or in this hour, alone or
        with the last."""
        if wave.outnumbers(turned.ahead, self.wave_share):
            normal = _normal(transaction, provider, at)
            share = wave.expected(normal, share=self.wave_share, factor=self.wave_factor)
            if wave.outnumbers(turned.ahead, share):
                return True
        if not wave.worth_asking(turned.count, self.wave_share):
            return False
        now = outcomes.between(transaction, provider, at, at)
        both = now + outcomes.between(transaction, provider, at - _HOUR, at - _HOUR)
        normal = _normal(transaction, provider, at)
        return any(wave.turned(hours, normal, share=self.wave_share, factor=self.wave_factor) for hours in (now, both))

    def _collapsed(self, transaction: Transaction, provider: str, at: datetime) -> bool:
        """Whether a provider that took mail refuses nearly all of it in this hour, and the others do not."""
        if not wave.worth_asking(outcomes.permanent(transaction, provider, at), wave.HALF):
            return False
        now = outcomes.between(transaction, provider, at, at)
        normal = _normal(transaction, provider, at)
        if not wave.collapsed(now, normal, Outcomes(), factor=self.wave_factor):
            return False
        elsewhere = outcomes.everywhere(transaction, at, at) - now
        return wave.collapsed(now, normal, elsewhere, factor=self.wave_factor)

    def _turned_among_neighbours(self, transaction: Transaction, event: Event, provider: str) -> bool:
        """The share of failures among the messages to this provider that left just before, by the journal."""
        key = event.recipient_key
        entry = transaction.sent(event.original_message_id, key) if event.original_message_id and key else None
        if entry is None:
            return False
        left = [
            (who, when) for who, when in transaction.left_before(entry, _NEIGHBOURS)
            if self.provider_of(who.rpartition("@")[2]) == provider
        ]  # fmt: skip
        failed = 0
        for total, (who, when) in enumerate(left, 1):  # from this message back: what went well before hides nothing
            failed += transaction.failed_since(who, when) and transaction.took_mail(who, when - LATELY, when)
            if wave.beyond(failed, total, self.wave_share) or wave.outnumbers(2 * failed - total, self.wave_share):
                return True
        return False


def _normal(transaction: Transaction, provider: str, at: datetime) -> Outcomes:
    """What became of mail to a provider in the days before the last two hours."""
    return outcomes.between(transaction, provider, at - _NORMAL_HOURS * _HOUR, at - 2 * _HOUR)


def _over_days(normal: float, known: int) -> float:
    """A rate that is known for less than a day, as if the day had been silent before."""
    return normal if known >= _KNOWN_HOURS else normal * known / _KNOWN_HOURS


def _sources(event: Event) -> Iterator[str]:
    network = _network(event.client_address)
    if network:
        yield network
    reporter = event.reporting_mta or event.envelope_sender
    if reporter:
        yield address.domain(reporter if "@" in reporter else f"x@{reporter}")


@lru_cache(maxsize=4096)
def _network(client: str | None) -> str | None:
    """The network of a client; None for one on this host, or none at all."""
    try:
        parsed = ipaddress.ip_address((client or "").removeprefix("::ffff:"))
    except ValueError:
        return None
    if parsed.is_loopback:
        return None
    return str(ipaddress.ip_network(f"{parsed}/{24 if parsed.version == 4 else 64}", strict=False))

"""Limits on what reports may do together: a budget for the unproven, and waves.

Each report alone may be believed, or need no proof, and yet many of them be wrong. Two cases, both held back within the
store's transaction, so that no burst slips through between two workers:

- **Budget.** Suppressions without proof are limited by source and hour: by the client's network (IPv4 /24, IPv6 /64;
  none for loopback, where an MTA of ours stands), and by the domain that claims to report. Past the limit they wait for
  a person.
- **Wave.** Many permanent failures of one cause about one provider, far beyond its normal rate: its servers are broken
  (or somebody forges them), and the addresses are fine. New permanent suppressions for that provider freeze, whatever
  their cause (what is broken says one thing now and another then), until a person undoes or confirms all of them at
  once. What is normal has to be known for a day first: failures have to be counted for so long, of whatever provider.

Emits no log events: what was held is told in the outcome's notes, by `mailback wave list` and by `mailback doctor`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from mailback import address
from mailback.bounce.taxonomy import Kind, Provenance

if TYPE_CHECKING:
    from mailback.store.records import Event, Suppression
    from mailback.store.transaction import Transaction

_NORMAL_HOURS = 7 * 24
_KNOWN_HOURS = 24


@dataclass(frozen=True, slots=True)
class Guard:
    """The limits."""

    unproven_per_hour: int
    """0: none."""
    wave_minimum: int
    """0: no waves."""
    wave_factor: float

    def holds(self, transaction: Transaction, event: Event, suppression: Suppression) -> str | None:
        """Why a suppression is held back; None where it may be made. Counts it."""
        return self._over_budget(transaction, event) or self._in_wave(transaction, event, suppression)

    def _over_budget(self, transaction: Transaction, event: Event) -> str | None:
        if not self.unproven_per_hour or event.provenance.rank > Provenance.UNPROVEN.rank:
            return None
        spent = [
            source for source in _sources(event)
            if transaction.count(f"unproven:{source}", event.at) > self.unproven_per_hour
        ]  # fmt: skip
        return f"more than {self.unproven_per_hour} unproven suppressions this hour from {spent[0]}" if spent else None

    def _in_wave(self, transaction: Transaction, event: Event, suppression: Suppression) -> str | None:
        provider, cause = event.provider or event.domain, event.subcategory
        if not self.wave_minimum or event.kind is not Kind.BOUNCE or suppression.until or not provider or not cause:
            return None
        number = transaction.wave(provider)
        if number is None:
            number = self._wave_begun(transaction, event, provider, cause)
        if number is None:
            return None
        transaction.freeze(number, suppression)
        return f"wave {number}: failures at {provider} far beyond its normal rate; mailback wave list"

    def _wave_begun(self, transaction: Transaction, event: Event, provider: str, cause: str) -> int | None:
        name = f"permanent:{provider}/{cause}"
        now = transaction.count(name, event.at)
        if now <= self.wave_minimum:
            return None
        normal, known = transaction.past_rate(name, event.at, _NORMAL_HOURS)
        if known < _KNOWN_HOURS:
            # Never seen before today: normal is none, if there was a day in which it could have been seen.
            if not transaction.counted_long_ago("permanent:", event.at, _KNOWN_HOURS):
                return None
            normal *= known / _KNOWN_HOURS
        if now <= self.wave_factor * normal:
            return None
        return transaction.begin_wave(provider, cause, event.at, normal)


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

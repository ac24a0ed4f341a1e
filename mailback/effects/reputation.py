"""How our domains and addresses stand at each provider, as what became of our mail there shows.

No provider tells it in its answers, but each shows it: of the mail that it judged in the last week, it took so much,
and refused so much because of who sends. The share that it took is the reputation, kept with each failure and complaint
as it stood then, for the sender's domain and, where that is known, for the address that the mail left from. Failures of
recipients say nothing of it; nor does anything where nobody tells what arrives, or too little came.

Counted as for breakers: what is believed, each event once; by the day, since a week of it is asked for. Emits no log
events.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from mailback.bounce.classify import reputation_risk
from mailback.bounce.taxonomy import Kind, Provenance, Subcategory, Type
from mailback.effects.senders import Senders
from mailback.policy.breaker import ANY

if TYPE_CHECKING:
    from mailback.store.records import Event
    from mailback.store.transaction import Transaction

_SIDES: Final = ("domain", "ip")
_BLAMES: Final = {
    Subcategory.IP_BLOCKED.value: ("ip",),
    Subcategory.DOMAIN_BLOCKED.value: ("domain",),
    Subcategory.REPUTATION_BLOCKED.value: _SIDES,
    Subcategory.RATE_LIMITED.value: _SIDES,
    Subcategory.SPAM_DETECTED.value: _SIDES,
    Subcategory.SPAM_COMPLAINT.value: ("domain",),
}
"""What speaks against the sender, and against what of him."""
_TOLD_WITH: Final = frozenset({Kind.BOUNCE, Kind.DELAY, Kind.COMPLAINT})
_PERIOD: Final = timedelta(days=7)
_FEWEST: Final = 20
"""Messages that a share is taken of."""
_FRESH_S: Final = 60.0
"""How long a share is kept: it is that of a week, and asked for with each failure of a mailing."""
_SHARES_KEPT: Final = 4096


@dataclass(slots=True)
class Reputation:
    """What of ours there is, whether proof is required, and the shares that were asked for lately."""

    senders: Senders
    proof_needed: bool = False
    clock: Callable[[], float] = time.monotonic
    _shares: dict[tuple[str, datetime], tuple[float, float | None]] = field(init=False, default_factory=dict)

    def complete(self, transaction: Transaction, event: Event) -> None:
        """Fill in how the sender stands at the provider of a failure or complaint, and the risk that it makes of it."""
        provider = event.provider or event.domain
        if event.kind not in _TOLD_WITH or provider is None:
            return
        told = {side: self._share(transaction, name, event.at) for side, name in self._names(event, provider)}
        known = {side: share for side, share in told.items() if share is not None}
        if not known:
            return
        event.reputation = known
        if event.risk is not None and event.type is not None:
            risk = reputation_risk(Type(event.type), min(known.values()))
            event.risk = event.risk | {"reputation": round(risk, 3)}

    def note(self, transaction: Transaction, event: Event) -> None:
        """Take a new event into account."""
        provider = event.provider or event.domain
        blamed = _BLAMES.get(event.subcategory or "", ()) if event.kind in _TOLD_WITH else ()
        if provider is None or not (blamed or event.kind is Kind.DELIVERED) or not self._believes(event):
            return
        for side, name in self._names(event, provider):
            if event.kind is Kind.DELIVERED:
                transaction.one_more(f"took:{name}", _day(event.at))
            elif side in blamed:
                transaction.one_more(f"blamed:{name}", _day(event.at))

    def _believes(self, event: Event) -> bool:
        if event.provenance is Provenance.FORGED:
            return False
        return not self.proof_needed or event.provenance.rank > Provenance.UNPROVEN.rank

    def _names(self, event: Event, provider: str) -> list[tuple[str, str]]:
        """What of ours an event is about, where that is known, by its side; as it is counted."""
        told = ((side, self.senders.sender(side, event)) for side in _SIDES)
        return [(side, f"{provider}/{side}/{sender}") for side, sender in told if sender != ANY]

    def _share(self, transaction: Transaction, name: str, at: datetime) -> float | None:
        day, now = _day(at), self.clock()
        place = name, day
        known = self._shares.get(place)
        if known is not None and now - known[0] < _FRESH_S:
            return known[1]
        if len(self._shares) >= _SHARES_KEPT:
            self._shares.clear()
        took, blamed = (transaction.total(f"{what}:{name}", day - _PERIOD, day) for what in ("took", "blamed"))
        share = round(took / (took + blamed), 3) if took and took + blamed >= _FEWEST else None
        self._shares[place] = now, share
        return share


def _day(at: datetime) -> datetime:
    """The beginning of the day, UTC."""
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

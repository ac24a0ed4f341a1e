"""Which of the messages that are due an application may send again now: what the fronts would put off is not told.

A breaker that is half open, or slows down, lets one message pass at a time, and so does an address whose hold has run
out: the message that has waited longest is told, the rest stays. Nothing is claimed here, because nothing is sent
here: the front claims when the message comes.

Emits no log events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from mailback import address
from mailback.effects.senders import Senders
from mailback.outbound.check import scopes
from mailback.outbound.probes import Probes
from mailback.policy import breaker as machine
from mailback.policy.retry import is_stale

if TYPE_CHECKING:
    from mailback.settings import Settings
    from mailback.store import Store
    from mailback.store.records import Breaker, Retry


@dataclass(slots=True)
class Passing:
    """What holds messages back at one moment."""

    store: Store
    senders: Senders | None
    """Ours, as breakers name them; None where breakers are not acted on."""
    probes: Probes | None
    now: datetime
    give_up_days: int
    held: dict[int, str] = field(default_factory=dict)
    """What is kept back, by its number, and what it waits for; filled as `of` goes on."""
    _standing: dict[str, list[Breaker]] = field(init=False)
    _tried: set[str] = field(init=False, default_factory=set)
    """Addresses of which the message that tries them is among those told."""

    def __post_init__(self) -> None:
        self._standing = defaultdict(list)
        for breaker in self.store.breakers() if self.senders is not None else ():
            standing = machine.at(breaker, self.now)
            if standing.state != machine.CLOSED:
                self._standing[standing.provider].append(standing)

    @classmethod
    def at_once(cls, settings: Settings, store: Store) -> Self:
        """As the settings ask for, and as things stand. Raises StoreUnavailable."""
        senders = Senders.of(settings.mail) if settings.breakers.act else None
        probes = Probes.of(settings, store, claims=False)
        return cls(store, senders, probes, datetime.now(UTC), settings.retry.give_up_days)

    def of(self, due: Iterable[Retry]) -> Iterator[Retry]:
        """Those that may be sent now, in the order given. Raises StoreUnavailable."""
        for one in due:
            if is_stale(one, self.now, self.give_up_days):
                continue
            waits_for = self._tries_address(one) or self._breaker(one)
            if waits_for is None:
                yield one
            else:
                self.held[one.id] = waits_for

    def _tries_address(self, one: Retry) -> str | None:
        """What a message waits for where another one tries its address."""
        if self.probes is None:
            return None
        key = one.address_key
        over = self.probes.last(key, scopes(one.list_id, one.campaign))
        if over is None or not self.probes.tries(over):
            return None
        if key in self._tried or self.probes.waits_until(over, "") is not None:
            return f"a message that tries {one.address}: mailback explain {one.address}"
        self._tried.add(key)
        return None

    def _breaker(self, one: Retry) -> str | None:
        """What a message waits for where its provider refuses us."""
        standing = self._standing.get(one.provider or address.domain(one.address))
        if not standing or self.senders is None:
            return None
        failed = self.store.event(one.event_id)
        concerned = self.senders.concerned(standing, failed.original_sender if failed is not None else None)
        passed = [(breaker, machine.claimed(breaker, one.address_key, "", self.now)) for breaker in concerned]
        for breaker, after in passed:
            if after is None:
                return f"the breaker of {breaker.provider}: mailback breaker list"
        for breaker, after in passed:
            assert after is not None
            standing[standing.index(breaker)] = after
        return None

"""Which mail waits because its provider refuses us: the breakers that stand, as every front asks for them.

The states are kept in memory and read anew `REFRESH_S` after they were read last, by one query on an index that holds
only breakers that are not closed. So a recipient costs one look at a clock while all is well, and a change by any
process is seen everywhere in that time. A token that tells of a change would have to be read for each recipient, at the
cost of the answer itself.

A message that tries a half-open breaker is claimed in the store, so that one passes and not one a worker. Where that
cannot be written, none passes.

Standard library only, as `mailback.outbound.check`. Emits no log events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mailback import address
from mailback.policy import breaker as machine
from mailback.store import breakers as rows
from mailback.store import domains
from mailback.store.errors import StoreUnavailable
from mailback.store.readers import ReaderPool
from mailback.store.records import Breaker

if TYPE_CHECKING:
    from mailback.effects.senders import Senders
    from mailback.recipient.hosting import Hosting
    from mailback.settings import Settings
    from mailback.store.records import JournalEntry
    from mailback.store.transaction import Transaction

REFRESH_S: Final = 0.1
"""How old the states in memory may be."""
WISH_EVERY_S: Final = 1.0
"""Least time between two writes of names that DNS is to be asked about."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Brakes:
    """The standing breakers of one store; safe to use from any thread, not to be taken over a fork once used."""

    path: Path
    senders: Senders
    hosting: Hosting
    known: Callable[[str], str | None]
    """The provider of a host name, for domains that DNS was not asked about yet."""
    slow_transport: str | None = None
    """Where mail of a breaker that only slows down is sent to; it is then not held at RCPT."""
    hold_transport: str | None = None
    claims: bool = True
    """False: only asks what would be answered, for whoever sends nothing itself."""
    clock: Callable[[], datetime] = field(default=_now)
    _readers: ReaderPool = field(init=False)
    _standing: dict[str, list[Breaker]] = field(init=False, default_factory=dict)
    _read_at: float = field(init=False, default=float("-inf"))
    _wish_at: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self._readers = ReaderPool(self.path, busy_timeout_s=1.0)

    @classmethod
    def of(
        cls, settings: Settings, path: Path, known: Callable[[str], str | None], *, claims: bool = True
    ) -> Brakes | None:
        """As the settings ask for; None where breakers are told and not acted on."""
        from mailback.effects.senders import Senders
        from mailback.recipient.hosting import Hosting

        if not settings.breakers.act:
            return None
        return cls(
            path, Senders.of(settings.mail), Hosting(domains.DomainLookup(path).find), known,
            settings.breakers.slow_transport, settings.breakers.hold_transport, claims,
        )  # fmt: skip

    @classmethod
    def asking(cls, settings: Settings, path: Path) -> Brakes | None:
        """For whoever sends nothing itself and only wants to know: claims nothing. Providers are read when a breaker
        stands, not before."""
        names: list[Callable[[str], str | None]] = []

        def known(host: str) -> str | None:
            if not names:
                from mailback.outbound.watch import provider_names

                names.append(provider_names(settings).of_host)
            return names[0](host)

        return cls.of(settings, path, known, claims=False)

    def held(
        self, key: str, sender: str | None, sending_ip: str | None = None, *, token: str, queued: bool = False
    ) -> Breaker | None:
        """The breaker that a message to the recipient of this `address.key` has to wait for; None where it may pass.

        `token` tells which message that is (`mailback.policy.passage`). `queued`: asked by the table of transports,
        which can send mail to a slow transport instead of holding it. Raises StoreUnavailable.
        """
        standing = self._current()
        if not standing:
            return None
        provider = self._provider(key)
        if self.claims and self.hosting.wishes:
            self._wish()
        found = standing.get(provider)
        if not found:
            return None
        now = self.clock()
        standing_now = _open(found, now)
        for breaker in self.senders.concerned(standing_now, sender, sending_ip):
            if self._slowed(breaker, standing_now):
                if queued:
                    return breaker
            elif not self._passes(breaker, key, token, now):
                return breaker
        return None

    def sent(self, transaction: Transaction, entry: JournalEntry, number: int) -> None:
        """Take a message for the try of the breakers it concerns that was sent past the fronts and told afterwards."""
        for key in dict.fromkeys(map(address.key, entry.recipients)):
            standing = _open(transaction.standing_breakers(self._provider(key)), entry.at)
            for breaker in self.senders.concerned(standing, entry.envelope_sender):
                after = machine.claimed(breaker, key, f"journal:{number}", entry.at)
                if after is not None and after is not breaker:
                    transaction.try_breaker(after)

    def slows(self, breaker: Breaker) -> bool:
        """Whether mail of this breaker is slowed down by a transport."""
        return breaker.state == machine.OPEN and breaker.pace_s > 0 and self.slow_transport is not None

    def close(self) -> None:
        self._readers.close()

    def _provider(self, key: str) -> str:
        domain = key.rpartition("@")[2]
        return self.hosting.provider(domain) or self.known(domain) or domain

    def _current(self) -> dict[str, list[Breaker]]:
        now = time.monotonic()
        if now - self._read_at >= REFRESH_S:
            standing: dict[str, list[Breaker]] = {}
            for breaker in map(rows.breaker_of, self._readers.fetch(rows.STANDING)):
                standing.setdefault(breaker.provider, []).append(breaker)
            self._standing, self._read_at = standing, now
        return self._standing

    def _slowed(self, breaker: Breaker, standing: Sequence[Breaker]) -> bool:
        """Whether the table of transports slows down what this breaker is about. It knows neither sender nor address of
        ours, so what concerns one of several is paced where mail comes in."""
        return self.slows(breaker) and breaker in self.senders.concerned(standing, None)

    def _passes(self, breaker: Breaker, key: str, token: str, now: datetime) -> bool:
        if not self.claims:
            return machine.claimed(breaker, key, "", now) is not None
        if machine.claimed(breaker, key, token, now) is None:
            return False
        return rows.claim(self.path, breaker, lambda latest: machine.claimed(latest, key, token, now))

    def _wish(self) -> None:
        """Have DNS asked for the domains that nobody knew, on a thread of its own: a commit takes milliseconds."""
        now = time.monotonic()
        if now - self._wish_at < WISH_EVERY_S:
            return
        names = self.hosting.taken()
        if names:
            self._wish_at = now
            threading.Thread(target=_write_wishes, args=(self.path, names), daemon=True).start()


def _open(standing: Iterable[Breaker], now: datetime) -> list[Breaker]:
    """As they stand at `now`, without those that time has closed."""
    return [one for one in (machine.at(breaker, now) for breaker in standing) if one.state != machine.CLOSED]


def _write_wishes(path: Path, names: list[str]) -> None:
    try:
        domains.wish_apart(path, names, _now())
    except StoreUnavailable:
        return  # the next recipient of such a domain wishes again; that the store is away is told by its look-ups

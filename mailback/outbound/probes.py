"""Which mail waits until it is known whether an address takes mail again, as every front asks for it.

What may pass is `mailback.policy.probe`; here the store is asked, and the message that passes is claimed in it. An
address that was never held costs nothing: its look-up has told so.

Only holds that bounces made are tried so (by the score, or by a row of the handling rules). Who was held by a person
until a date is mailed from that date on.

Standard library only, as `mailback.outbound.check`. Emits no log events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mailback import address
from mailback.policy.probe import claimed
from mailback.store import codec
from mailback.store import probes as rows
from mailback.store.readers import ReaderPool
from mailback.store.records import Probe, Suppression

if TYPE_CHECKING:
    from mailback.settings import Settings
    from mailback.store import Store, SuppressionLookup
    from mailback.store.records import JournalEntry
    from mailback.store.transaction import Transaction

_MADE_BY_BOUNCES: Final = frozenset({"score", "event"})

_WHOLE_SECONDS: Final = timedelta(seconds=1)
"""A log tells no more of when a message arrived."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Probes:
    """The probes of one store; safe to use from any thread, not to be taken over a fork once used."""

    path: Path
    last: Callable[[str, Sequence[str]], Suppression | None]
    """Finds what holds mail to an address back, or did so last: `SuppressionLookup.last`."""
    wait: timedelta
    claims: bool = True
    """False: only asks what would be answered, for whoever sends nothing itself."""
    clock: Callable[[], datetime] = field(default=_now)
    _readers: ReaderPool = field(init=False)

    def __post_init__(self) -> None:
        self._readers = ReaderPool(self.path, busy_timeout_s=1.0)

    @classmethod
    def of(cls, settings: Settings, lookup: SuppressionLookup | Store, *, claims: bool = True) -> Probes | None:
        """As the settings ask for; None where nobody waits."""
        wait = settings.score.probe_wait_s
        return cls(lookup.path, lookup.last, timedelta(seconds=wait), claims) if wait else None

    def waits_until(self, over: Suppression, token: str) -> datetime | None:
        """Until when a message to an address has to wait, whose hold `over` has run out; None where it may pass.

        `token` names the message, so that it passes each time that it is asked about (`mailback.policy.passage`).
        Raises StoreUnavailable.
        """
        if not self.tries(over):
            return None
        assert over.until is not None
        key = over.address_key
        found = self._readers.fetch(rows.FIND, (key,))
        last = rows.probe_of(found[0]) if found else None
        bounced = last is not None and bool(self._readers.fetch(rows.BOUNCED, (key, codec.ticks(last.at))))
        told = Probe(key, over.until, self.clock(), token if self.claims else "", 0)

        def step(probe: Probe | None) -> Probe | None:
            return claimed(probe, told, bounced=bounced and probe == last, wait=self.wait)

        then = step(last)
        if then is not None and then is not last and self.claims:
            then = rows.claim(self.path, key, step)
        if then is not None:
            return None
        return (last.at if last is not None else told.at) + self.wait

    def tries(self, over: Suppression) -> bool:
        """Whether messages to an address have to show one by one that it takes mail, now that its hold `over` has run
        out. Raises StoreUnavailable."""
        if over.until is None or over.source not in _MADE_BY_BOUNCES:
            return False
        return not self._readers.fetch(rows.LIVES, (over.address_key, codec.ticks(over.until - _WHOLE_SECONDS)))

    def sent(self, transaction: Transaction, entry: JournalEntry, number: int) -> None:
        """Take a message for the probe of its recipients that was sent past the fronts and told afterwards."""
        now = self.clock()
        for who in entry.recipients:
            over = transaction.over(address.key(who), now)
            if over is None or over.until is None or over.source not in _MADE_BY_BOUNCES or entry.at < over.until:
                continue
            told = Probe(over.address_key, over.until, entry.at, f"journal:{number}", 0)
            transaction.probe(told.address_key, partial(claimed, told=told, bounced=False, wait=self.wait))

    def close(self) -> None:
        self._readers.close()

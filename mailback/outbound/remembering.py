"""The journal of programs that send mail past the fronts: what they tell afterwards may be the message that tries.

Such a program asks (`outbox.check`, `GET /api/check`) and claims nothing by it; what it then tells to have sent is what
tries a half-open breaker, or an address whose hold has run out.

Emits no log events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from mailback.outbound.brakes import Brakes
from mailback.outbound.check import Check
from mailback.outbound.probes import Probes

if TYPE_CHECKING:
    from mailback.settings import Settings
    from mailback.store import Store
    from mailback.store.records import JournalEntry
    from mailback.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Remembering:
    """The way out of such a program: its check, and its journal."""

    check: Check
    _brakes: Brakes | None
    _probes: Probes | None

    @classmethod
    def of(cls, settings: Settings, store: Store) -> Self:
        """As the settings ask for."""
        brakes = Brakes.asking(settings, store.path)
        probes = Probes.of(settings, store, claims=False)
        return cls(Check(store, brakes, probes), brakes, probes)

    def write(self, transaction: Transaction, entry: JournalEntry) -> int:
        """Write a message that was sent to the journal; the number of its entry."""
        number = transaction.journal(entry)
        if self._brakes is not None:
            self._brakes.sent(transaction, entry, number)
        if self._probes is not None:
            self._probes.sent(transaction, entry, number)
        return number

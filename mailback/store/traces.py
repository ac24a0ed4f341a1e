"""Which tables know an address: one question for all of them, asked once an address and batch.

Most news is about an address that most tables have never heard of; to ask each of them costs more than to write what
is new. What a batch writes itself is noted here, so the answer stays right until the batch ends; that it does depends
on the write lock, which the batch holds all the while. Emits no log events.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Final

LEDGER: Final = 1
"""It has a line in the score ledger; as for those below but the next, it may have had one only."""
BOUNCE: Final = 2
"""A bounce stands in its ledger: exact, as what comes of it is reckoned by this."""
SUPPRESSION: Final = 4
SUBSCRIBER: Final = 8
RETRY: Final = 16
FAILURE: Final = 32
"""A bounce stands in its ledger, whether it counts or is set aside: exact, as deliveries are lines from then on."""

_ASK = (
    f"SELECT value, CASE WHEN EXISTS (SELECT 1 FROM score WHERE address_key = value) THEN {LEDGER}"
    f" + {BOUNCE} * EXISTS (SELECT 1 FROM score WHERE address_key = value AND step = 'bounce')"
    f" + {FAILURE} * EXISTS (SELECT 1 FROM score WHERE address_key = value AND step IN ('bounce', 'held')) ELSE 0 END"
    f" + {SUPPRESSION} * EXISTS (SELECT 1 FROM suppression WHERE address_key = value)"
    f" + {SUBSCRIBER} * EXISTS (SELECT 1 FROM subscriber WHERE address_key = value)"
    f" + {RETRY} * EXISTS (SELECT 1 FROM retry WHERE address_key = value)"
)
_ASK_ONE = f"{_ASK} FROM (SELECT ? AS value)"
_ASK_ALL = f"{_ASK} FROM json_each(?)"
_MOST = 20_000
"""Addresses that are remembered; a batch seldom has as many."""


class Traces:
    """What one transaction knows of the addresses that it has dealt with."""

    __slots__ = ("_connection", "_known")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str, int] = {}

    def of(self, key: str) -> int:
        """The tables that know an address, as a sum of the constants above."""
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            known = self._known[key] = int(self._connection.execute(_ASK_ONE, (key,)).fetchone()[1])
        return known

    def ask(self, keys: Iterable[str]) -> None:
        """Find out about many addresses at once, as a batch that is about them all is going to."""
        asked = [key for key in dict.fromkeys(keys) if key not in self._known]
        if len(self._known) + len(asked) <= _MOST:
            self._known.update(self._connection.execute(_ASK_ALL, (json.dumps(asked),)))

    def left(self, key: str, tables: int) -> None:
        """Note that a row about the address was written to these tables."""
        known = self._known.get(key)
        if known is not None:
            self._known[key] = known | tables

    def forget(self, key: str) -> None:
        """Ask anew about an address: a row may have gone."""
        self._known.pop(key, None)

    def clear(self) -> None:
        """Ask anew about all of them."""
        self._known.clear()

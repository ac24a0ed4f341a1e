"""How far one sort of outcome outnumbers another at the moment: a count that goes up by one and down by another, never
below none, kept an hour and carried into the next.

What went well before does not hide what goes wrong now: the count stands at none then (a CUSUM). Standard library only.
Emits no log events.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Final

from mailback.store import codec

_PREFIX: Final = "surge:"
_HOUR_US: Final = 3_600_000_000
_UP = (
    "INSERT INTO rate (cause, hour, count)"
    " VALUES (?1, ?2, 1 + coalesce((SELECT count FROM rate WHERE cause = ?1 AND hour = ?2 - 1), 0))"
    " ON CONFLICT (cause, hour) DO UPDATE SET count = rate.count + 1 RETURNING count"
)
_DOWN = "UPDATE rate SET count = count - 1 WHERE cause = ? AND hour BETWEEN ? AND ? AND count > 0"
_STANDING = "SELECT DISTINCT cause FROM rate WHERE cause >= ? AND cause < ? AND count > 0"


class Surges:
    """The counts of one batch of work; which stand at all is asked once for it."""

    __slots__ = ("_connection", "_standing")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._standing: set[str] | None = None

    def up(self, name: str, at: datetime) -> int:
        """One more in the hour of `at`; how many more than of the other there are."""
        cause, hour = _PREFIX + name, codec.ticks(at) // _HOUR_US
        self._known().add(cause)
        return int(self._connection.execute(_UP, (cause, hour)).fetchone()[0])

    def down(self, name: str, at: datetime) -> None:
        """One of the other in the hour of `at`."""
        cause, hour = _PREFIX + name, codec.ticks(at) // _HOUR_US
        if cause in self._known():
            self._connection.execute(_DOWN, (cause, hour - 1, hour))

    def forget(self) -> None:
        """Ask anew which stand: another has been rolled back."""
        self._standing = None

    def _known(self) -> set[str]:
        if self._standing is None:
            found = self._connection.execute(_STANDING, (_PREFIX, _PREFIX + "\x7f")).fetchall()
            self._standing = {cause for (cause,) in found}
        return self._standing

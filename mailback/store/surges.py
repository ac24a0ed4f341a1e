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
_STANDING = "SELECT DISTINCT cause FROM rate WHERE cause >= ? AND cause < ? AND hour >= ? AND count > 0"
_OVER = "DELETE FROM rate WHERE cause >= ? AND cause < ? AND hour < ?"
_KEPT_HOURS: Final = 48
"""Behind which nothing is carried on; logs of several hosts are read beside each other, each at its own place."""


class Surges:
    """The counts of one batch of work; which stand at all is asked once for it."""

    __slots__ = ("_connection", "_standing")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._standing: set[str] | None = None

    def up(self, name: str, at: datetime) -> int:
        """One more in the hour of `at`; how many more than of the other there are."""
        cause, hour = _PREFIX + name, codec.ticks(at) // _HOUR_US
        if self._standing is not None:
            self._standing.add(cause)
        return int(self._connection.execute(_UP, (cause, hour)).fetchone()[0])

    def down(self, name: str, at: datetime) -> None:
        """One of the other in the hour of `at`."""
        cause, hour = _PREFIX + name, codec.ticks(at) // _HOUR_US
        if cause in self._known(hour):
            self._connection.execute(_DOWN, (cause, hour - 1, hour))

    def forget(self) -> None:
        """Ask anew which stand: another has been rolled back."""
        self._standing = None

    def _known(self, hour: int) -> set[str]:
        if self._standing is None:
            since = (_PREFIX, _PREFIX + "\x7f", hour - _KEPT_HOURS)
            self._connection.execute(_OVER, since)  # few rows are left, so asking costs each batch as good as nothing
            self._standing = {cause for (cause,) in self._connection.execute(_STANDING, since).fetchall()}
        return self._standing

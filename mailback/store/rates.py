"""How many of something there were in an hour, by what caused it: what budgets, waves and breakers are told by.

A busy hour has one cause many times in a batch. So what is counted is added up in memory and written at the end of the
batch, in the order of the table; or earlier, where somebody asks for what only the table can tell. The write lock that
the batch holds makes this exact between processes, and `mark` and `rewind` make it exact where a unit of work fails.
Emits no log events.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeAlias

from mailback.store import codec

HOUR_US = 3_600_000_000
_FEW = 2
"""Hours that are asked for one by one."""
_ADD = (
    "INSERT INTO rate (cause, hour, count) VALUES (?, ?, ?)"
    " ON CONFLICT (cause, hour) DO UPDATE SET count = rate.count + excluded.count"
)
_COUNT = f"{_ADD} RETURNING count"
_PUT = (
    "INSERT INTO rate (cause, hour, count) VALUES (?, ?, ?)"
    " ON CONFLICT (cause, hour) DO UPDATE SET count = excluded.count"
)
_ONE = "SELECT count FROM rate WHERE cause = ? AND hour = ?"
_PAST = "SELECT min(hour), coalesce(sum(count), 0) FROM rate WHERE cause = ? AND hour >= ? AND hour < ?"
_TOTAL = "SELECT coalesce(sum(count), 0) FROM rate WHERE cause = ? AND hour BETWEEN ? AND ?"
_TOTAL_OF = "SELECT coalesce(sum(count), 0) FROM rate WHERE cause >= ? AND cause < ? AND hour BETWEEN ? AND ?"
_LONG_AGO = "SELECT 1 FROM rate WHERE cause >= ? AND cause < ? AND hour <= ? LIMIT 1"
_LAST = "\x7f"
"""Behind every letter of a cause."""

_Place: TypeAlias = tuple[str, int]
"""A cause and an hour."""


def hour_of(at: datetime) -> int:
    """Hours since 1970 UTC."""
    return codec.ticks(at) // HOUR_US


class Rates:
    """The table within one transaction."""

    __slots__ = ("_added", "_before", "_connection", "_counts", "_unwritten")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._counts: dict[_Place, int] = {}
        """Of what was asked for: how many there are, whatever the table says."""
        self._unwritten: set[_Place] = set()
        """Which of them the table does not have yet."""
        self._added: dict[str, dict[int, int]] = {}
        """Of what nobody asked for, by cause and hour: how many more than the table says."""
        self._before: dict[_Place, tuple[int | None, int]] | None = None
        """What the unit of work found where it changed anything; None as long as there is no unit to undo."""

    def one_more(self, cause: str, at: datetime, number: int = 1) -> None:
        """One more in the hour of `at`, or so many."""
        place = cause, hour_of(at)
        self._remember(place)
        known = self._counts.get(place)
        if known is None:
            added = self._added.setdefault(cause, {})
            added[place[1]] = added.get(place[1], 0) + number
        else:
            self._counts[place] = known + number
            self._unwritten.add(place)

    def count(self, cause: str, at: datetime) -> int:
        """One more in the hour of `at`; how many there are now."""
        self.one_more(cause, at)
        return self._of_hour((cause, hour_of(at)))

    def recent(self, cause: str, now: datetime) -> float:
        """About how many the last 60 minutes saw: this hour's, and of the last one's what is still in it."""
        hour, into = divmod(codec.ticks(now), HOUR_US)
        return self._of_hour((cause, hour)) + self._of_hour((cause, hour - 1)) * (1.0 - into / HOUR_US)

    def past(self, cause: str, at: datetime, hours: int) -> tuple[float, int]:
        """How many an hour there were in the hours before that of `at`; and since how many hours it is known at all."""
        now = hour_of(at)
        self._write_those((cause,), lambda hour: hour < now)
        first, total = self._connection.execute(_PAST, (cause, now - hours, now)).fetchone()
        known = now - first if first is not None else 0
        return (total / known if known else 0.0), known

    def total(self, cause: str, first: datetime, last: datetime) -> int:
        """How many there were in the hours from that of `first` to that of `last`."""
        since, until = hour_of(first), hour_of(last)
        if until - since < _FEW:
            return sum(self._of_hour((cause, hour)) for hour in range(since, until + 1))
        self._write_counted(lambda place: place[0] == cause and since <= place[1] <= until)
        unwritten = sum(number for hour, number in self._added.get(cause, {}).items() if since <= hour <= until)
        return int(self._connection.execute(_TOTAL, (cause, since, until)).fetchone()[0]) + unwritten

    def total_of(self, prefix: str, first: datetime, last: datetime) -> int:
        """The same of all causes that begin with `prefix`."""
        since, until, end = hour_of(first), hour_of(last), prefix + _LAST
        causes = [cause for cause in self._added if prefix <= cause < end]
        self._write_those(causes, lambda hour: since <= hour <= until)
        return int(self._connection.execute(_TOTAL_OF, (prefix, end, since, until)).fetchone()[0])

    def counted_long_ago(self, prefix: str, at: datetime, hours: int) -> bool:
        """Whether anything whose cause begins with `prefix` was counted `hours` before the hour of `at`, or earlier."""
        latest = hour_of(at) - hours
        self._write_those(list(self._added), lambda hour: hour <= latest)
        return self._connection.execute(_LONG_AGO, (prefix, prefix + _LAST, latest)).fetchone() is not None

    def forget(self, prefix: str) -> None:
        """Forget the counts of all causes that begin so."""
        added = [(cause, hour) for cause, hours in self._added.items() for hour in hours]
        self._drop([place for place in (*self._counts, *added) if prefix <= place[0] < prefix + _LAST])
        self._connection.execute("DELETE FROM rate WHERE cause >= ? AND cause < ?", (prefix, prefix + _LAST))

    def forget_before(self, before: datetime) -> int:
        """Forget the counts of hours before that time; how many there were."""
        self.write()
        hour = hour_of(before)
        self._drop([place for place in self._counts if place[1] < hour])
        return self._connection.execute("DELETE FROM rate WHERE hour < ?", (hour,)).rowcount

    def write(self) -> None:
        """Bring the table up to date: at the end of the batch, before the commit."""
        self._write_those(list(self._added), lambda _: True)

    def read_anew(self) -> None:
        """Bring the table up to date, and trust it alone from here on: somebody else changes it."""
        self.write()
        self._drop(list(self._counts))

    def mark(self) -> None:
        """A unit of work begins."""
        self._before = {}

    def rewind(self) -> None:
        """The unit that began last is undone: what it wrote to the table is gone, whatever it was."""
        for place, (known, added) in (self._before or {}).items():
            self._counts.pop(place, None)
            self._take(place)
            if known is not None:
                self._counts[place] = known
            if added:
                self._added.setdefault(place[0], {})[place[1]] = added
        self._before = {}
        self._unwritten = {place for place, count in self._counts.items() if count}

    def _of_hour(self, place: _Place) -> int:
        known = self._counts.get(place)
        if known is None:
            self._remember(place)
            added = self._take(place)
            if added:
                row = self._connection.execute(_COUNT, (*place, added)).fetchone()
            else:
                row = self._connection.execute(_ONE, place).fetchone()
            known = self._counts[place] = int(row[0]) if row is not None else 0
        return known

    def _remember(self, place: _Place) -> None:
        """Before anything is changed here: note what the unit of work found."""
        if self._before is not None and place not in self._before:
            self._before[place] = self._counts.get(place), self._added.get(place[0], {}).get(place[1], 0)

    def _drop(self, places: list[_Place]) -> None:
        for place in places:
            self._remember(place)
            self._counts.pop(place, None)
            self._take(place)
        self._unwritten.difference_update(places)

    def _take(self, place: _Place) -> int:
        """What was added and not asked for; from here on nothing."""
        cause, hour = place
        hours = self._added.get(cause)
        if hours is None:
            return 0
        number = hours.pop(hour, 0)
        if not hours:
            del self._added[cause]
        return number

    def _write_those(self, causes: Iterable[str], wanted: Callable[[int], bool]) -> None:
        """Write what the table does not have yet of hours that are wanted: of what was added the given causes, of what
        was counted all. In the order of the table's key."""
        added = sorted((cause, hour) for cause in causes for hour in filter(wanted, self._added.get(cause, ())))
        if added:
            for place in added:
                self._remember(place)
            self._connection.executemany(_ADD, [(*place, self._take(place)) for place in added])
        self._write_counted(lambda place: wanted(place[1]))

    def _write_counted(self, wanted: Callable[[_Place], bool]) -> None:
        if counted := sorted(filter(wanted, self._unwritten)):
            self._connection.executemany(_PUT, [(*place, self._counts[place]) for place in counted])
            self._unwritten.difference_update(counted)

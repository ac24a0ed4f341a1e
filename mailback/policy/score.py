"""The score of an address: what its ledger comes to. Pure; the same facts give the same answer in any order.

The ledger counts in days of UTC, one step a day at most:

- a day on which anything shows that the mailbox lives (a delivery, an open, a click, a person's reply, a person who
  lifts the suppression or opts in again) begins the count anew, whatever bounced on that day;
- any other day with soft bounces that are the recipient's fault adds one, by the earliest of them;
- an entry decays after the window;
- what bounces while the address is held back counts nothing: it answers mail from before.

The third in a row within the window holds the address back for some days; the third such hold since the mailbox was
last seen alive, for ever. Each hold may be longer than the one before (`growth`), and the first message after one may
be taken for a probe (`probe`): if it bounces, the next hold follows at once; if it arrives, all is well. A bounce by
which the address was suppressed for ever stands until a person lifts that or opts in.

Facts are merged by the store (`store/scores.py`), so that two reports of one failure are one fact. State is a fold over
all of them, never a counter that is moved: a report that comes late, twice, or before its time changes nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import groupby

from mailback.store.records import GONE, ScoreEntry, Step

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BY_A_PERSON = frozenset({"lifted", "opt_in"})


@dataclass(frozen=True, slots=True)
class ScoreRules:
    """The numbers of `[score]`; a line of the ledger may carry its own, from the handling rules."""

    window_days: int = 7
    needed: int = 3
    suppress_days: int = 7
    graduate_after: int = 3
    """Holds in a row after which an address is held for ever."""
    memory_days: int = 365
    """Days after which an earlier hold is no longer one in a row."""
    delivery_resets: bool = True
    growth: float = 1.0
    """How many times as long as the one before each further hold is."""
    probe: bool = False
    """Whether a single bounce is enough for the next hold, with nothing seen of the mailbox since the last one."""


_LONGEST_DAYS = 3650
"""What grows ends there."""


class BounceStatus(StrEnum):
    """What a subscriber's bounces come to."""

    NONE = "none"
    SOFT = "soft"
    HARD = "hard"


@dataclass(frozen=True, slots=True)
class Hold:
    """What the ledger holds an address back for."""

    since: datetime
    until: datetime | None
    """None is for ever."""
    entry: ScoreEntry
    """The bounce that made it."""
    round: int
    """1 for the first since the mailbox was last seen alive."""
    strikes: int = 3
    """Bounces in a row that it took."""

    def active(self, now: datetime) -> bool:
        return self.until is None or self.until > now

    def __str__(self) -> str:
        return "for ever" if self.until is None else f"until {self.until.astimezone(UTC):%Y-%m-%d %H:%M}"


@dataclass(frozen=True, slots=True)
class Line:
    """One day of the ledger, explained."""

    entry: ScoreEntry
    count: int
    """Bounces in a row after it."""
    because: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What a ledger comes to."""

    lines: tuple[Line, ...]
    """Only where they were asked for."""
    run: tuple[ScoreEntry, ...]
    """The bounces in a row that count towards the next hold."""
    hold: Hold | None
    """The last one since the mailbox was last seen alive; it may be over."""
    held_since: datetime | None
    """When the first one since then began."""
    gone: ScoreEntry | None
    """The bounce by which the address was suppressed for ever."""
    rules: ScoreRules

    def count(self, now: datetime) -> int:
        """Soft bounces in a row that have not decayed."""
        today = _day(now)
        return sum(today - entry.day <= _window(self.run[-1], self.rules) for entry in self.run)

    @property
    def strikes(self) -> int:
        """The soft bounces that made the hold that stands, else those in a row towards one, decayed or not."""
        if self.hold is not None:
            return self.hold.strikes
        return len(self.run)

    def status(self, now: datetime) -> BounceStatus:
        if self.hard_since is not None:
            return BounceStatus.HARD
        return BounceStatus.SOFT if self.count(now) else BounceStatus.NONE

    @property
    def hard_since(self) -> datetime | None:
        """Since when the address counts as dead; None where it does not. What follows moves the date no more."""
        began = [self.held_since, self.gone.at if self.gone is not None else None]
        return min(filter(None, began), default=None)

    @property
    def decays_at(self) -> datetime | None:
        """When the last of the counted bounces has decayed; None where none is counted."""
        if not self.run:
            return None
        return _EPOCH + timedelta(days=self.run[-1].day + _window(self.run[-1], self.rules) + 1)


def standing(entries: Iterable[ScoreEntry], rules: ScoreRules, *, explained: bool = False) -> Standing:
    """What the facts about one address come to; they may come in any order. `explained`: with its lines."""
    fold = _Fold(rules, explained=explained)
    for _, of_day in groupby(sorted(entries, key=_place), key=lambda entry: entry.day):
        fold.day(list(of_day))
    return Standing(tuple(fold.lines), tuple(fold.run), fold.hold, fold.held_since, fold.gone, rules)


class _Fold:
    """The state between two days."""

    def __init__(self, rules: ScoreRules, *, explained: bool) -> None:
        self.rules = rules
        self.explained = explained
        self.lines: list[Line] = []
        self.run: list[ScoreEntry] = []
        self.hold: Hold | None = None
        self.held_since: datetime | None = None
        self.gone: ScoreEntry | None = None

    def day(self, entries: Sequence[ScoreEntry]) -> None:
        alive = [entry for entry in entries if entry.step is Step.ALIVE and self._resets(entry)]
        counted = [entry for entry in entries if entry.step is Step.BOUNCE]
        if alive:
            self._begin_anew(alive, counted)
        elif counted:
            self._step(counted)
        for entry in entries:
            if entry.step is Step.HELD:
                self._tell(entry, "does not count: too many reports asked for the like at once")

    def _resets(self, entry: ScoreEntry) -> bool:
        return self.rules.delivery_resets or entry.cause in _BY_A_PERSON

    def _begin_anew(self, alive: Sequence[ScoreEntry], counted: Sequence[ScoreEntry]) -> None:
        self.run, self.hold, self.held_since = [], None, None
        spoken = [entry.at for entry in alive if entry.cause in _BY_A_PERSON]
        if spoken:
            self.gone = None
        self._tell(alive[0], "{}: the count begins anew", alive[0].cause)
        for entry in counted:
            if entry.cause == GONE and not (spoken and entry.at <= max(spoken)):
                self.gone = self.gone or entry
                self._tell(entry, "suppressed for ever by its handling")
            else:
                self._tell(entry, "does not count: {} on the same day", alive[0].cause)

    def _step(self, counted: Sequence[ScoreEntry]) -> None:
        gone = next((entry for entry in counted if entry.cause == GONE), None)
        entry = gone or counted[0]
        if gone is not None:
            self.gone = self.gone or gone
            self._tell(entry, "suppressed for ever by its handling")
        elif self.gone is not None:
            self._tell(entry, "does not count: suppressed for ever already")
        elif self.hold is not None and self.hold.active(entry.at):
            self._tell(entry, "does not count: held back already")
        else:
            self._count(entry)
        for other in counted:
            if other is not entry:
                self._tell(other, "does not count: one step a day")

    def _count(self, entry: ScoreEntry) -> None:
        window = _window(entry, self.rules)
        self.run = [earlier for earlier in self.run if entry.day - earlier.day <= window] + [entry]
        probing = self.rules.probe and self._remembered(entry) is not None
        needed = 1 if probing else entry.needed or self.rules.needed
        if len(self.run) < needed:
            self._tell(entry, "{} of {} in a row within {} days", len(self.run), needed, window)
            return
        self.hold = self._held_by(entry, needed)
        self.held_since = self.held_since or self.hold.since
        number, last = self.hold.round, self.rules.graduate_after
        counted = "the probe after a hold bounced" if probing else f"{needed} in a row"
        self._tell(entry, "{}: held {}, {} of {} holds", counted, self.hold, number, last)
        self.run = []

    def _held_by(self, entry: ScoreEntry, strikes: int) -> Hold:
        earlier = self._remembered(entry)
        number = earlier.round + 1 if earlier is not None else 1
        until = None if number >= self.rules.graduate_after else entry.at + timedelta(days=self._days(entry, number))
        return Hold(entry.at, until, entry, number, strikes)

    def _remembered(self, entry: ScoreEntry) -> Hold | None:
        """The hold before this bounce, unless that is too long ago to be one in a row with the next."""
        earlier = self.hold
        return earlier if earlier and entry.day - earlier.entry.day <= self.rules.memory_days else None

    def _days(self, entry: ScoreEntry, number: int) -> float:
        first = entry.suppress_days or self.rules.suppress_days
        longest = max(_LONGEST_DAYS, first)
        days = float(first)
        for _ in range(number - 1):
            if days >= longest:
                break
            days *= self.rules.growth
        return min(days, longest)

    def _tell(self, entry: ScoreEntry, because: str, *told: object) -> None:
        if self.explained:
            self.lines.append(Line(entry, len(self.run), because.format(*told)))


def _place(entry: ScoreEntry) -> tuple[object, ...]:
    """Where an entry stands in its ledger; the event's id comes last, as it says nothing about what happened."""
    return entry.day, entry.at, entry.cause, entry.suppress_days or 0, entry.fact


def _window(entry: ScoreEntry, rules: ScoreRules) -> int:
    return entry.window_days or rules.window_days


def _day(moment: datetime) -> int:
    return (moment - _EPOCH).days

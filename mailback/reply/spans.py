"""Days that are told from the day of writing on: "in two weeks", "nächste Woche Mittwoch", "jusqu'à la fin du mois".

A rule is a line `wording = day`, one list a language (`[spans]` of `replies_dates.toml`, which explains both sides).
A wording is an expression over folded text with the places {n}, {weekday} and {month}; the longest wording that fits
counts, so that "the day after tomorrow" is not tomorrow. A wording that leaves the day open ("in a few days") is listed
as `unsure`: no other rule then reads a day out of a part of it.

Linear in the text: wordings hold no repetition. Log events: none; never raises on any string. A wrong rule raises
RulesError while loading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from mailback.bounce.rulefile import RulesError
from mailback.reply.words import squeeze

_FIRST_PICTURED = "\u3000"  # scripts that write words without spaces begin here
_MONTHS_AHEAD = 36
_DECEMBER = 12


class Sort(StrEnum):
    """What the words around a span make of it."""

    DAY = "day"
    """A day: back on it, or away to it."""
    PERIOD = "period"
    """A week or a day: back at its beginning, or away until it is over."""
    END = "end"
    """The end of a period: away until it is over; who is back then does not say when."""
    WHOLE = "whole"
    """A period of absence, whatever stands around it."""
    BACK = "back"
    """The day of return, whatever stands around it."""
    LASTING = "lasting"
    """So many days, of which only the number counts: from a beginning that is told beside it."""


class Span(NamedTuple):
    """A stretch of days, and where it stands in the text."""

    start: int
    end: int
    sort: Sort
    first: date
    last: date


class _Values(NamedTuple):
    """What the places of a wording held."""

    today: date
    n: int
    weekday: int
    month: int


_Days = tuple[date, date]
_Reckon = Callable[[_Values], _Days | None]


@dataclass(frozen=True, slots=True)
class Spelled:
    """How a language spells what stands in the places of a wording: words, folded, by what they mean."""

    numbers: Mapping[str, int]
    weekdays: Mapping[str, int]
    months: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    sort: Sort
    reckon: _Reckon | None
    """None where the wording leaves the day open."""


_BEGINS = r"(?<![a-z0-9])"
"""A word begins here."""


class SpanRules:
    """The wordings of one language, compiled when the first text of that language comes: there are hundreds, and most
    processes read one language or two."""

    def __init__(self, lines: Sequence[str], spelled: Spelled) -> None:
        self._lines = lines
        self._spelled = spelled

    def check(self, lines: Sequence[str]) -> None:
        """Raises RulesError with every one of the lines that is no rule."""
        problems: list[str] = []
        for line in lines:
            try:
                _rule(line, self._spelled)
            except RulesError as wrong:
                problems += wrong.problems
        if problems:
            raise RulesError(problems)

    @cached_property
    def _rules(self) -> list[_Rule]:
        rules = [_rule(line, self._spelled) for line in self._lines]
        return sorted(rules, key=lambda one: len(one.pattern.pattern), reverse=True)

    @cached_property
    def _any(self) -> re.Pattern[str]:
        parts = [re.sub(r"\?P<\w+>", "?:", rule.pattern.pattern) for rule in self._rules]
        # Where a word begins is asked once a place, and not once for each wording: most places are within a word.
        begun = [part.removeprefix(_BEGINS) for part in parts if part.startswith(_BEGINS)]
        anywhere = [part for part in parts if not part.startswith(_BEGINS)]
        return re.compile("|".join([f"{_BEGINS}(?:{'|'.join(begun)})", *anywhere] if begun else anywhere) or r"(?!)")

    def find(self, told: str, today: date) -> Iterator[Span | tuple[int, int]]:
        """Every span of a folded text, none over another; of one that is unsure only the place."""
        at = 0
        while (match := self._any.search(told, at)) is not None:
            found = [(one, rule) for rule in self._rules if (one := rule.pattern.match(told, match.start()))]
            best, rule = max(found, key=lambda pair: (pair[0].end(), pair[1].reckon is not None))
            at = max(best.end(), at + 1)
            days = rule.reckon(self._values(best, today)) if rule.reckon else None
            yield (best.start(), best.end()) if days is None else Span(best.start(), best.end(), rule.sort, *days)

    def _values(self, match: re.Match[str], today: date) -> _Values:
        told = match.groupdict()
        n, weekday, month = (told.get(name) or "" for name in ("n", "weekday", "month"))
        number = int(n) if n.isdecimal() else self._spelled.numbers.get(n, 0)
        digits = month.rstrip(" 月")
        months = int(digits) if digits.isdecimal() else self._spelled.months.get(month, 0)
        return _Values(today, number, self._spelled.weekdays.get(weekday, 0), months)


def _rule(line: str, spelled: Spelled) -> _Rule:
    wording, equals, told = line.rpartition("=")
    words, meant = squeeze(wording), " ".join(told.split())
    if not equals or not words:
        raise RulesError([f"{line!r} under [spans]: expected WORDING = DAY"])
    places = {
        "{n}": rf"(?P<n>\d{{1,3}}|{_any(spelled.numbers)})",
        "{weekday}": rf"(?P<weekday>{_any(spelled.weekdays)})",
        "{month}": rf"(?P<month>{_any(spelled.months)}|1?\d ?月)",
    }
    for place, pattern in places.items():
        words = words.replace(place, pattern)
    edges = ("", "") if wording.strip().lstrip("({?:")[0] >= _FIRST_PICTURED else (_BEGINS, r"(?![a-z])")
    try:
        compiled = re.compile(f"{edges[0]}(?:{words}){edges[1]}")
    except re.error as wrong:
        raise RulesError([f"{line!r} under [spans]: {wrong}"]) from wrong
    for form, (sort, reckoned) in _FORMS.items():
        if (parts := re.fullmatch(form, meant)) is not None:
            return _Rule(compiled, sort, reckoned(parts))
    raise RulesError([f"{line!r} under [spans]: {meant!r} is no day; the head of the list names those there are"])


def _any(words: Mapping[str, int]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True)) or r"(?!)"


def _week(today: date, ahead: int) -> _Days:
    monday = today + timedelta(days=7 * ahead - today.weekday())
    return monday, monday + timedelta(days=6)


def _month(today: date, ahead: int) -> _Days:
    year, month = divmod(today.year * 12 + today.month - 1 + ahead, 12)
    first = date(year, month + 1, 1)
    return first, date(year + (month + 1) // 12, (month + 1) % 12 + 1, 1) - timedelta(days=1)


def _named_month(values: _Values) -> _Days | None:
    """The month of that name that has not ended."""
    return _month(values.today, (values.month - values.today.month) % 12) if values.month else None


def _far(today: date, count: int, unit: str) -> date:
    if unit != "month":
        return today + timedelta(days=count * (7 if unit == "week" else 1))
    first, last = _month(today, min(count, _MONTHS_AHEAD))
    return min(first + timedelta(days=today.day - 1), last)


def _next(today: date, weekday: int) -> date:
    """The next such weekday after today."""
    return today + timedelta(days=(weekday - today.weekday() - 1) % 7 + 1)


def easter(year: int) -> date:
    """Easter Sunday of the western churches, by the anonymous Gregorian reckoning."""
    golden, (century, short) = year % 19, divmod(year, 100)
    leaps, rest = divmod(century, 4)
    shift = (century - (century + 8) // 25 + 1) // 3
    moon = (19 * golden + century - leaps - shift + 15) % 30
    sunday = (32 + 2 * rest + 2 * (short // 4) - moon - short % 4) % 7
    late = (golden + 11 * moon + 22 * sunday) // 451
    month, day = divmod(moon + sunday - 7 * late + 114, 31)
    return date(year, month, day + 1)


def _feast(today: date, days: int) -> date:
    """So many days after Easter, the next one."""
    this = easter(today.year) + timedelta(days=days)
    return this if this >= today else easter(today.year + 1) + timedelta(days=days)


def _day_of_year(today: date, month: int, day: int) -> date:
    this = date(today.year, month, day)
    return this if this >= today else date(today.year + 1, month, day)


def _working_day_after(day: date) -> date:
    """Monday to Friday."""
    return day + timedelta(days={4: 3, 5: 2}.get(day.weekday(), 1))


def _one(day: date | None) -> _Days | None:
    return None if day is None else (day, day)


def _first_weekday(values: _Values) -> date | None:
    days = _named_month(values)
    if days is None:
        return None
    first = days[0] if days[0] > values.today else _month(days[0], _DECEMBER)[0]
    return _next(first - timedelta(days=1), values.weekday)


def _period(parts: re.Match[str]) -> _Reckon:
    """`week 1`, `month 0`, `year 0` or `{month}` as the days from first to last."""
    unit, ahead = parts["unit"], int(parts["ahead"] or 0)
    if unit == "week":
        return lambda values: _week(values.today, ahead)
    if unit == "month":
        return lambda values: _month(values.today, ahead)
    if unit == "year":
        return lambda values: (date(values.today.year + ahead, 1, 1), date(values.today.year + ahead, 12, 31))
    return _named_month


def _beginning(parts: re.Match[str]) -> _Reckon:
    days = _period(parts)

    def reckon(values: _Values) -> _Days | None:
        period = days(values)
        return None if period is None or period[0] <= values.today else (period[0], period[0])

    return reckon


def _counted(parts: re.Match[str]) -> _Reckon:
    unit, told = parts["unit"], parts["count"]
    return lambda values: _one(_far(values.today, int(told) if told.isdecimal() else values.n, unit))


def _lasting(parts: re.Match[str]) -> _Reckon:
    unit, told = parts["unit"], parts["count"]
    return lambda values: (values.today, _far(values.today, int(told) if told.isdecimal() else values.n, unit))


def _coming(parts: re.Match[str]) -> _Reckon:
    length = _lasting(parts)

    def reckon(values: _Values) -> _Days | None:
        period = length(values)
        return None if period is None else (period[0], period[1] - timedelta(days=1))

    return reckon


_UNIT = r"(?:(?P<unit>week|month|year) (?P<ahead>\d)|(?P<named>\{month\}))"
_FORMS: dict[str, tuple[Sort, Callable[[re.Match[str]], _Reckon | None]]] = {
    "unsure": (Sort.DAY, lambda _: None),
    r"day (?P<ahead>\d)": (
        Sort.PERIOD,
        lambda parts: lambda values: _one(values.today + timedelta(days=int(parts["ahead"]))),
    ),
    r"\+ ?(?P<count>n|\d{1,3}) (?P<unit>day|week|month)s?": (Sort.DAY, _counted),
    r"for (?P<count>n|\d{1,3}) (?P<unit>day|week)s?": (Sort.LASTING, _lasting),
    r"weekday of week (?P<ahead>\d)": (
        Sort.DAY,
        lambda parts: lambda values: _one(_week(values.today, int(parts["ahead"]))[0] + timedelta(days=values.weekday)),
    ),
    r"weekday \+ (?P<count>\d) weeks?": (
        Sort.DAY,
        lambda parts: (
            lambda values: _one(_next(values.today, values.weekday) + timedelta(days=7 * int(parts["count"])))
        ),
    ),
    r"first weekday of \{month\}": (Sort.DAY, lambda _: lambda values: _one(_first_weekday(values))),
    r"easter (?P<sign>[+-]) (?P<days>\d{1,2})": (
        Sort.DAY,
        lambda parts: lambda values: _one(_feast(values.today, int(parts["sign"] + parts["days"]))),
    ),
    r"date (?P<month>\d\d)-(?P<day>\d\d)": (
        Sort.DAY,
        lambda parts: lambda values: _one(_day_of_year(values.today, int(parts["month"]), int(parts["day"]))),
    ),
    r"after (?P<month>\d\d)-(?P<day>\d\d)": (
        Sort.DAY,
        lambda parts: (
            lambda values: _one(_working_day_after(_day_of_year(values.today, int(parts["month"]), int(parts["day"]))))
        ),
    ),
    rf"start {_UNIT}": (Sort.DAY, _beginning),
    rf"back {_UNIT}": (Sort.BACK, _beginning),
    rf"end {_UNIT}": (Sort.END, _period),
    rf"whole {_UNIT}": (Sort.WHOLE, _period),
    r"whole (?P<count>n|\d{1,3}) (?P<unit>day|week)s?": (Sort.WHOLE, _coming),
    _UNIT: (Sort.PERIOD, _period),
}
"""What may stand behind the `=` of a rule, with how a day is reckoned from it."""

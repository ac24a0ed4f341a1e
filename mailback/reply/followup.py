"""When to write again, as somebody tells who says "not now"; null rather than a guess.

Known are dates as `dates` reads them, months after a word that places them ("in September", "bis Ende Juni"), quarters,
spans ("in three months", "dans deux ans"), the next week, month, quarter or year, and times of the year that everybody
dates alike ("after the summer"). Of several, the one that follows a word such as "again" is meant, else the last.

Works on the beginning of a text, with patterns that cannot backtrack far: linear. Words are data:
`replies_followup.toml`. Log events: none; never raises on any string.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from mailback.bounce.rulefile import RulesError
from mailback.reply import dates
from mailback.reply.dates import Calendar, DateRules
from mailback.reply.rulefiles import lists
from mailback.reply.words import one_of, squeeze
from mailback.resources import rules_dir

FILE = "replies_followup.toml"
UNITS = ("day", "week", "month", "quarter", "year")

_READ = 3000  # characters looked at
_CUE = 44  # how far before a time its "again" may stand
_NEAR = 26  # how far before a month the word stands that places it
_AHEAD = timedelta(days=3 * 366)
_QUARTER = re.compile(r"(?<![a-z0-9])q([1-4])(?![a-z0-9])(?: ?(20\d\d))?")
_HAN_MONTH = re.compile(r"(?<![\d一二三四五六七八九十])(1[0-2]|[1-9]|十[一二]?|[一二三四五六七八九]) ?月(?! ?\d)")
_HAN_NUMBERS = {numeral: number for number, numeral in enumerate("一二三四五六七八九十", 1)} | {"十一": 11, "十二": 12}
_YEAR = re.compile(r"[ ,]{1,2}(?:of |de |del |do |r\. )?(20\d\d)(?!\d)")
_NAMED = re.compile(r"(.+?)\s*=\s*(\d\d)-(\d\d)")
_LEAST_MONTH = 4  # letters of a month's name: shorter ones are other words as well (`sie`, `set`, `mar`)
_SHORT_MONTHS = frozenset({"may", "mai", "maj", "mei"})


@dataclass(frozen=True, slots=True)
class FollowUpRules:
    """The words of `replies_followup.toml`, compiled."""

    again: re.Pattern[str]
    before: re.Pattern[str]
    after: re.Pattern[str]
    end: re.Pattern[str]
    span: re.Pattern[str]
    later: re.Pattern[str]
    next: re.Pattern[str]
    units: dict[str, str]
    numbers: dict[str, int]
    whole: dict[str, str]
    wholes: re.Pattern[str]
    named: dict[str, tuple[int, int]]
    times: re.Pattern[str]

    @classmethod
    def load(cls, directories: Sequence[Path]) -> FollowUpRules:
        """Raises RulesError with every problem of the files."""
        told = lists(
            directories,
            FILE,
            {
                "words": ("again", "before", "after", "end"),
                "units": (*UNITS, "next", "whole", "lead", "later", "numbers"),
                "times": ("named",),
            },
        )
        units = {squeeze(word): unit for unit in UNITS for word in told[f"units.{unit}"]}
        numbers = {squeeze(w): n for n, words in enumerate(told["units.numbers"], 1) for w in words.split()}
        number = rf"(\d{{1,3}}|{_options(numbers)})"
        unit = rf"({_options(units)})(?![a-z])"
        following = _options(told["units.next"])
        return cls(
            again=one_of(told["words.again"]),
            before=_ending(told["words.before"]),
            after=_ending(told["words.after"]),
            end=_ending(told["words.end"]),
            span=re.compile(rf"(?<![a-z0-9])({_options(told['units.lead'])}) {number} ?{unit}"),
            later=re.compile(rf"(?<![a-z0-9]){number} ?{unit} ?(?:{_options(told['units.later'])})"),
            next=re.compile(rf"(?<![a-z])(?:(?:{following}) {unit}|{unit} (?:{following})(?![a-z]))"),
            units=units,
            numbers=numbers,
            whole=dict(_pairs(told["units.whole"])),
            wholes=one_of(tuple(words for words, _ in _pairs(told["units.whole"]))),
            named=dict(_times(told["times.named"])),
            times=one_of(tuple(words for words, _ in _times(told["times.named"]))),
        )


def _options(words: Sequence[str] | dict[str, object] | dict[str, str] | dict[str, int]) -> str:
    return "|".join(sorted({re.escape(squeeze(word)) for word in words}, key=len, reverse=True))


def _ending(words: Sequence[str]) -> re.Pattern[str]:
    """One of the words at the end of what stands before a month, an article between at most."""
    return re.compile(rf"(?:^|[^a-z0-9])(?:{_options(words)})(?: (?:the|dem|der|den|de|le|la|il|het|el|o))? ?$")


def _pairs(told: Sequence[str]) -> Iterator[tuple[str, str]]:
    for text in told:
        words, equals, unit = (piece.strip() for piece in text.partition("="))
        if not equals or unit not in UNITS:
            raise RulesError([f"{FILE}: {text!r} under [units] whole: expected WORDS = {'|'.join(UNITS)}"])
        yield squeeze(words), unit


def _times(told: Sequence[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    for text in told:
        match = _NAMED.fullmatch(text.strip())
        if match is None or _valid(2028, int(match[2]), int(match[3])) is None:
            raise RulesError([f"{FILE}: {text!r} under [times] named: expected WORDS = MM-DD"])
        yield squeeze(match[1]), (int(match[2]), int(match[3]))


@lru_cache(maxsize=1)
def shipped() -> FollowUpRules:
    """The file that ships, read once a process."""
    return FollowUpRules.load([rules_dir()])


_Told = tuple[int, date]
"""Where a time stands, and its day."""


def follow_up_date(
    text: str,
    sent: datetime,
    language: str | None,
    rules: FollowUpRules | None = None,
    date_rules: DateRules | None = None,
) -> date | None:
    """The day on which `text` asks to be written to again; `sent` is the Date of the message."""
    rules, date_rules = rules or shipped(), date_rules or dates.shipped()
    told = squeeze(text[:_READ])
    today = sent.date()
    calendar = date_rules.calendars.get(language or "en") or date_rules.calendars["en"]
    exact = dates.named(told, sent, language, date_rules)
    found = exact or [
        *_months(told, today, calendar, rules), *_quarters(told, today), *_spans(told, today, rules),
        *_periods(told, today, rules), *_named(told, today, rules),
    ]  # fmt: skip
    ahead = sorted(one for one in found if today < one[1] <= today + _AHEAD)
    asked = [one for one in ahead if rules.again.search(told[max(0, one[0] - _CUE) : one[0]])]
    return (asked or ahead)[-1][1] if ahead else None


def _months(told: str, today: date, calendar: Calendar, rules: FollowUpRules) -> Iterator[_Told]:
    known = (name for name in calendar.months if len(name) >= _LEAST_MONTH or name in _SHORT_MONTHS)
    names = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    for match in re.finditer(rf"(?<![a-z])({names})(?![a-z])", told):
        before = told[max(0, match.start() - _NEAR) : match.start()]
        if not rules.before.search(before):
            continue
        year = _YEAR.match(told, match.end())
        first = _next_month(today, calendar.months[match[1]], int(year[1]) if year else None)
        yield match.start(), _within(first, before, rules)
    for match in _HAN_MONTH.finditer(told):
        yield match.start(), _next_month(today, _HAN_NUMBERS.get(match[1]) or int(match[1]), None)


def _within(first: date, before: str, rules: FollowUpRules) -> date:
    """The first of a month, of the one after it, or its end, as the words before it say."""
    if rules.end.search(before):
        return _month_after(first, 1) - timedelta(days=1)
    return _month_after(first, 1) if rules.after.search(before) else first


def _quarters(told: str, today: date) -> Iterator[_Told]:
    for match in _QUARTER.finditer(told):
        yield match.start(), _next_month(today, 3 * int(match[1]) - 2, int(match[2]) if match[2] else None)


def _spans(told: str, today: date, rules: FollowUpRules) -> Iterator[_Told]:
    for match in rules.span.finditer(told):
        yield match.start(), _moved(today, _number(match[2], rules), rules.units[match[3]])
    for match in rules.later.finditer(told):
        yield match.start(), _moved(today, _number(match[1], rules), rules.units[match[2]])


def _number(word: str, rules: FollowUpRules) -> int:
    return int(word) if word.isdecimal() else rules.numbers[word]


def _periods(told: str, today: date, rules: FollowUpRules) -> Iterator[_Told]:
    for match in rules.next.finditer(told):
        yield match.start(), _begins(today, rules.units[match[1] or match[2]])
    for match in rules.wholes.finditer(told):
        yield match.start(), _begins(today, rules.whole[match[0]])


def _named(told: str, today: date, rules: FollowUpRules) -> Iterator[_Told]:
    for match in rules.times.finditer(told):
        month, day = rules.named[match[0]]
        here = _valid(today.year, month, day)
        yield match.start(), here if here is not None and here > today else date(today.year + 1, month, min(day, 28))


def _begins(today: date, unit: str) -> date:
    """The first day of the next week, month, quarter or year; tomorrow for a day."""
    if unit == "week":
        return today + timedelta(days=7 - today.weekday())
    first = today.replace(day=1)
    if unit == "month":
        return _month_after(first, 1)
    if unit == "quarter":
        return _month_after(first, 3 - (today.month - 1) % 3)
    return date(today.year + 1, 1, 1) if unit == "year" else today + timedelta(days=1)


def _moved(today: date, count: int, unit: str) -> date:
    if unit in ("day", "week"):
        return today + timedelta(days=count * (7 if unit == "week" else 1))
    months = count * {"month": 1, "quarter": 3, "year": 12}[unit]
    first = _month_after(today.replace(day=1), min(months, 1200))
    return _valid(first.year, first.month, today.day) or _month_after(first, 1) - timedelta(days=1)


def _next_month(today: date, month: int, year: int | None) -> date:
    """The first of a month: of that year, else of the next one of that name that has not begun."""
    if year is not None:
        return date(year, month, 1)
    return date(today.year + (month <= today.month), month, 1)


def _month_after(first: date, months: int) -> date:
    year, month = divmod(first.year * 12 + first.month - 1 + months, 12)
    return date(year, month + 1, 1)


def _valid(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None

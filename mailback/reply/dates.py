"""The day on which somebody is back, told in words; None rather than a guess.

A date counts only where a cue stands next to it ("back on", "bis einschließlich", "に戻り"), for an absence names other
dates too. The language is known first; it decides how months and weekdays are spelled. Numbers alone (`3/4`) are read
day first, month first where the writer's clock is American or the language Chinese or Japanese; when only one order
gives a date that is ahead, that one. A date without a year is the next one of that name. "Until the 14th" includes the
14th where the language means it so; then, and at the end of a period, the next day is told.

Works on the beginning of a text, with patterns that cannot backtrack far: linear. Words are data: `replies_dates.toml`.
Log events: none; never raises on any string.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from mailback.reply.rulefiles import lists
from mailback.reply.words import fold, one_of, squeeze
from mailback.resources import rules_dir

FILE = "replies_dates.toml"
LATIN = ("en", "de", "fr", "es", "pt", "it", "nl", "pl", "sv", "da", "no", "fi", "cs", "ru")
WEEKDAYS = (*LATIN, "ja", "zh")

_READ = 6000  # characters looked at
_BEFORE = 44  # how far before a date its cue may stand
_AFTER = 46
_PAST = timedelta(days=1)
_AHEAD = timedelta(days=420)
_MONTH_FIRST_OFFSETS = range(-10, -3)  # hours from UTC: clocks of the Americas north of Brazil

_ORDINAL = r"(?:st|nd|rd|th|er|re|eme|e|o|º|ª|°|:e|:a|\.)?"
_NUMERIC = re.compile(
    r"(?<![\d./:-])(?:(?P<y>20\d\d)[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})(?!\d)"
    r"|(?P<a>\d{1,2})(?P<sep>[./-])(?P<b>\d{1,2})(?:(?P=sep)(?P<c>(?:20)?\d\d)(?![\d:]))?(?![\d:%])\.?)"
)
_HAN = re.compile(r"(?:(?P<y>20\d\d) ?年 ?)?(?P<m>\d{1,2}) ?月 ?(?P<d>\d{1,2}) ?[日号]")
_SENTENCE = re.compile(r"[!?\n;。]|(?<![\d ])\.(?= )")
_AND = re.compile(r" (?:and|und|et|y|e|en|i|och|og|ja) ")
_DAY_AT_END = re.compile(rf"(?<![\d./:])([0-3]?\d){_ORDINAL} ?(?:[a-z/.'~-]{{1,18}} ?){{0,3}}$")


@dataclass(frozen=True, slots=True)
class Calendar:
    """How one language spells dates."""

    named: re.Pattern[str]
    months: dict[str, int]
    weekday: re.Pattern[str]
    weekdays: dict[str, int]


@dataclass(frozen=True, slots=True)
class DateRules:
    """The words of `replies_dates.toml`, compiled."""

    calendars: dict[str, Calendar]
    back: re.Pattern[str]
    until: re.Pattern[str]
    through: re.Pattern[str]
    inclusive: re.Pattern[str]
    between: re.Pattern[str]
    tomorrow: re.Pattern[str]
    next_week: re.Pattern[str]
    week: re.Pattern[str]

    @classmethod
    def load(cls, directories: Sequence[Path]) -> DateRules:
        """Raises RulesError with every problem of the files."""
        told = lists(
            directories,
            FILE,
            {
                "months": LATIN,
                "weekdays": WEEKDAYS,
                "cues": ("back", "until", "through", "inclusive", "between"),
                "relative": ("tomorrow", "next_week", "week"),
            },
        )
        links = "|".join(sorted((re.escape(squeeze(word)) for word in told["cues.between"]), key=len, reverse=True))
        weeks = "|".join(sorted((re.escape(squeeze(word)) for word in told["relative.week"]), key=len, reverse=True))
        return cls(
            calendars={
                language: _calendar(
                    told[f"months.{language}"] if language in LATIN else told["months.en"],
                    told[f"weekdays.{language}"],
                )
                for language in WEEKDAYS
            },
            back=_anywhere(told["cues.back"]),
            until=_anywhere(told["cues.until"]),
            through=_anywhere(told["cues.through"]),
            inclusive=_anywhere(told["cues.inclusive"]),
            between=re.compile(
                rf",? ?(?:{links}) ?(?:(?:the|den|der|dem|le|el|il|al|ao|dia|de|du|[a-z]{{2,13}}),? ?)?"
            ),
            tomorrow=one_of(told["relative.tomorrow"]),
            next_week=one_of(told["relative.next_week"]),
            week=re.compile(rf"(?<![a-z])(?:{weeks}) ?(?:nr\.? ?|n° ?)?(\d{{1,2}})(?: ?- ?(\d{{1,2}}))?(?![\d:]|\.\d)"),
        )


def _anywhere(phrases: Sequence[str]) -> re.Pattern[str]:
    """Any of the phrases: whole words where they are spelled with an alphabet, anywhere in Han and kana."""
    spelled = one_of(tuple(phrase for phrase in phrases if fold(phrase[0]).isascii() or phrase[0] < "\u0500"))
    pictured = [re.escape(fold(phrase)) for phrase in phrases if phrase[0] >= "\u3000"]
    return re.compile("|".join([spelled.pattern, *pictured]))


def _calendar(months: Sequence[str], weekdays: Sequence[str]) -> Calendar:
    numbers = {fold(name): number for number, names in enumerate(months, 1) for name in names.split()}
    days = {fold(name): number for number, names in enumerate(weekdays) for name in names.split()}
    month = "|".join(sorted(map(re.escape, numbers), key=len, reverse=True))
    year = r"(?:,? (?:of |de |del |do |r\. )?(?P<%s>20\d\d)(?!\d))?"
    return Calendar(
        named=re.compile(
            rf"(?<![\d./:])(?P<d1>[0-3]?\d){_ORDINAL} ?(?:of |de |d'|di |do |-)?(?P<m1>{month})(?![a-z])"
            rf"(?:\.(?= ?20\d\d))?{year % 'y1'}"
            rf"|(?<![a-z])(?P<m2>{month})\.? (?:the )?(?P<d2>[0-3]?\d)(?:st|nd|rd|th)?(?![\d:/]|\.\d){year % 'y2'}"
        ),
        months=numbers,
        weekday=re.compile(rf"(?<![a-z])({'|'.join(sorted(map(re.escape, days), key=len, reverse=True))})(?![a-z])"),
        weekdays=days,
    )


@lru_cache(maxsize=1)
def shipped() -> DateRules:
    """The file that ships, read once a process."""
    return DateRules.load([rules_dir()])


@dataclass(frozen=True, slots=True)
class _Found:
    """A date in the text: where it stands, and whether it is only a weekday or a day of some month."""

    start: int
    end: int
    day: date
    vague: bool = False
    ends_period: bool = False


def return_date(text: str, sent: datetime, language: str | None, rules: DateRules | None = None) -> date | None:
    """The day of return that `text` tells; `sent` is the Date of the message, in its writer's time zone."""
    rules = rules or shipped()
    told = " ".join(fold(text[:_READ]).replace("\n", " \n ").split(" "))
    told = re.sub(r" {2,}", " ", told)
    own = language if language in rules.calendars else "en"
    if (day := _returning(told, sent, own, rules)) is not None:
        return day
    # The language of a line or two is easily mistaken: names of months in another tell the date, if all others agree.
    elsewhere = {_returning(told, sent, other, rules) for other in rules.calendars if other != own} - {None}
    return elsewhere.pop() if len(elsewhere) == 1 else None


def _returning(told: str, sent: datetime, language: str, rules: DateRules) -> date | None:
    """The day of return by the names of months and days of one language."""
    found = _dates(told, sent, language, rules.calendars[language], rules)
    fallback: date | None = None
    for index, one in enumerate(found):
        following = found[index + 1].start if index + 1 < len(found) else len(told) + _AFTER + 1
        sense = _sense(told, one, following, rules)
        if sense == "back":
            return one.day
        if fallback is None:
            previous = found[index - 1] if index else None
            linked = previous is not None and _linked(told, previous, one, rules)
            if sense == "through" or one.ends_period or linked:
                fallback = one.day + timedelta(days=1)
            elif sense == "until":
                fallback = one.day
    return fallback


def named(told: str, sent: datetime, language: str | None, rules: DateRules | None = None) -> list[tuple[int, date]]:
    """Every day that a text names in full, with the place where it stands; `told` is folded, on one line."""
    rules = rules or shipped()
    calendar = rules.calendars.get(language or "en") or rules.calendars["en"]
    return [(one.start, one.day) for one in _dates(told, sent, language, calendar, rules) if not one.vague]


def _linked(told: str, first: _Found, second: _Found, rules: DateRules) -> bool:
    """`from 3 to 14 August`: both dates told, one link between them."""
    gap = told[first.end : second.start]
    return len(gap) < 32 and rules.between.fullmatch(gap) is not None


def _sense(told: str, one: _Found, limit: int, rules: DateRules) -> str | None:
    """What the words around a date make of it: `back`, `until`, `through`; None when nothing does. Words from `limit`
    on belong to the next date."""
    before = told[max(0, one.start - _BEFORE) : one.start]
    before = _SENTENCE.split(before)[-1]
    after = _AND.split(_SENTENCE.split(told[one.end : min(one.end + _AFTER, limit)])[0])[0]
    if limit <= one.end + _AFTER:
        after = after[:2]
    nearest, at = None, -1
    for name, cue in (("through", rules.through), ("until", rules.until), ("back", rules.back)):
        for match in cue.finditer(before):
            if match.end() > at:
                nearest, at = name, match.end()
    if nearest == "until" and (rules.inclusive.search(before) or rules.inclusive.search(after[:18])):
        return "through"
    distant = nearest == "through" and at < len(before) - 16
    if (nearest is None or distant) and not one.ends_period and rules.back.search(after):
        return "back"
    if (
        nearest is None
        and one.vague is False
        and re.match(r" ?(?:\([^)]{1,3}\) ?)?(?:まで|asti|saakka|为止|止)", after)
    ):
        return "through"
    return nearest


def _dates(told: str, sent: datetime, language: str | None, calendar: Calendar, rules: DateRules) -> list[_Found]:
    """Every date in the text, in order; weekdays that only accompany a date are left out."""
    today = sent.date()
    exact: list[_Found] = []
    for match in calendar.named.finditer(told):
        month = calendar.months[match["m1"] or match["m2"]]
        day = _placed(match["y1"] or match["y2"], month, int(match["d1"] or match["d2"]), today)
        _note(exact, told, match, day)
    for match in _HAN.finditer(told):
        _note(exact, told, match, _placed(match["y"], int(match["m"]), int(match["d"]), today))
    for match in _NUMERIC.finditer(told):
        _note(exact, told, match, _numeric(match, sent, language))
    exact.sort(key=lambda one: one.start)
    for match in rules.week.finditer(told):
        if (monday := _week(int(match[2] or match[1]), today)) is not None:
            sunday = monday + timedelta(days=6)
            period = match[2] is not None
            exact.append(_Found(match.start(), match.end(), sunday if period else monday, ends_period=period))
    vague = [
        _Found(match.start(), match.end() + len(_numbered(told, match)), day, vague=True)
        for match in calendar.weekday.finditer(told)
        if (day := _day_of_week(told, match, calendar.weekdays[match[1]], today)) is not None
    ]
    vague += [_Found(m.start(), m.end(), today + timedelta(days=1), vague=True) for m in rules.tomorrow.finditer(told)]
    vague += [_Found(m.start(), m.end(), _next(today, 0), vague=True) for m in rules.next_week.finditer(told)]
    if not exact:
        vague += _days_of_month(told, today)
    kept = [
        one
        for one in vague
        if not any(one.start - 16 <= e.start <= one.end + 14 or 0 <= one.start - e.end <= 3 for e in exact)
    ]
    return sorted([*exact, *kept], key=lambda one: one.start)


_BARE_DAY = re.compile(
    r"(?:\bthe|\bon the|\bam|\bzum|\bdem|\ble|\bel|\bil|\bdia|\bden|\bde|\bau|\bal) ([0-3]?\d)"
    r"(?:st|nd|rd|th|er|\.|:e)?(?![\d:%/]|\.\d| ?(?:uhr|h\b|am\b|pm\b))"
)


_NUMBERED = re.compile(
    r",? ?(?:(?:the|den|dem|der|el|le|il|dia|o|d\.|dnia) ?)?([0-3]?\d)"
    r"(?:st|nd|rd|th|er|o|\.|:e)?(?![\d:%/h]|[.,]\d|-\d| ?(?:uhr|uur|heures|h\b|am\b|pm\b|o'clock))"
)
"""`Monday 18th`: the day of the month behind a weekday."""
_WEEK_ON = re.compile(r"\b(?:a week|week) (?:from|on|after) (?:next )?$")
_WEEK_LATER = re.compile(r" week\b")
_SEARCHED = 62  # days ahead in which a weekday falls on a day of the month


def _numbered(told: str, weekday: re.Match[str]) -> str:
    found = _NUMBERED.match(told, weekday.end(), weekday.end() + 16)
    return found[0] if found else ""


def _day_of_week(told: str, match: re.Match[str], weekday: int, today: date) -> date | None:
    """The day that a weekday means; with a day of the month behind it, the next that is both, or None."""
    day = _next(today, weekday)
    numbered = _NUMBERED.match(told, match.end(), match.end() + 16)
    if numbered is not None:
        both = (day + timedelta(days=ahead) for ahead in range(0, _SEARCHED, 7))
        return next((one for one in both if one.day == int(numbered[1])), None)
    if _WEEK_ON.search(told, max(0, match.start() - 24), match.start()) or _WEEK_LATER.match(told, match.end()):
        return day + timedelta(days=7)
    return day


def _days_of_month(told: str, today: date) -> list[_Found]:
    """`back on the 14th`: the next day of that number."""
    found = []
    for match in _BARE_DAY.finditer(told):
        for ahead in range(2):
            year, month = divmod(today.year * 12 + today.month - 1 + ahead, 12)
            day = _valid(year, month + 1, int(match[1]))
            if day is not None and day >= today:
                found.append(_Found(match.start(1), match.end(), day, vague=True))
                break
    return found


def _note(found: list[_Found], told: str, match: re.Match[str], day: date | None) -> None:
    """Keep a date that is one, with the other end of a period that shares its month: `3.-14. August`, `Aug 3-14`."""
    if day is None or any(one.start < match.end() and match.start() < one.end for one in found):
        return
    end = match.end()
    later = re.match(
        r" ?(?:-|to|through|thru|until|bis) ?([0-3]?\d)(?:st|nd|rd|th)?(?![\d:/]|\.\d| ?[a-z]{3})", told[end : end + 16]
    )
    if later is not None and match.re is not _NUMERIC and match.re is not _HAN:
        last = _valid(day.year, day.month, int(later[1]))
        if last is not None and last > day:
            found.append(_Found(match.start(), end + later.end(), last, ends_period=True))
            return
    first = _DAY_AT_END.search(told[max(0, match.start() - 40) : match.start()])
    linked = (
        first is not None
        and re.search(r"(?:-|to|bis|au|al|a|ao|t/m|tot|do|till|til|until|through|ate|e|and|en|y|〜|~|по)", first[0])
        is not None
    )
    found.append(_Found(match.start(), end, day, ends_period=linked and first is not None and int(first[1]) < day.day))


def _placed(year: str | None, month: int, day: int, today: date) -> date | None:
    """A date by its parts; without a year the next one, or one of the last days."""
    if year is not None:
        told = _valid(int(year) if len(year) == 4 else 2000 + int(year), month, day)
        return told if told is not None and _ahead(told, today) else None
    for candidate in (today.year, today.year + 1):
        told = _valid(candidate, month, day)
        if told is not None and told >= today - timedelta(days=20):
            return told
    return None


def _numeric(match: re.Match[str], sent: datetime, language: str | None) -> date | None:
    today = sent.date()
    if match["y"]:
        return _placed(match["y"], int(match["m"]), int(match["d"]), today)
    first, second, year = int(match["a"]), int(match["b"]), match["c"]
    if year is None and match["sep"] == "-":
        return None  # 9-5 is office hours
    orders = [(second, first), (first, second)]  # month, day
    if match["sep"] == "/" and _month_first(sent, language):
        orders.reverse()
    if match["sep"] == ".":
        orders = orders[:1]
    for month, day in orders:
        told = _placed(year, month, day, today)
        if told is not None and _ahead(told, today):
            return told
    return None


def _month_first(sent: datetime, language: str | None) -> bool:
    if language in ("ja", "zh", "ko"):
        return True
    offset = sent.utcoffset()
    return language == "en" and offset is not None and offset.total_seconds() // 3600 in _MONTH_FIRST_OFFSETS


def _ahead(day: date, today: date) -> bool:
    return today - _PAST <= day <= today + _AHEAD


def _valid(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _next(today: date, weekday: int) -> date:
    """The next such weekday after today."""
    return today + timedelta(days=(weekday - today.weekday() - 1) % 7 + 1)


def _week(number: int, today: date) -> date | None:
    """The Monday of an ISO 8601 week, of this year or the next."""
    for year in (today.year, today.year + 1):
        try:
            monday = date.fromisocalendar(year, number, 1)
        except ValueError:
            continue
        if monday >= today - timedelta(days=6):
            return monday
    return None

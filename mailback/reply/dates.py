"""The day on which somebody is back, told in words; None rather than a guess.

A date counts only where a cue stands next to it ("back on", "bis einschließlich", "に戻り"), for an absence names other
dates too. The language is known first; it decides how months and weekdays are spelled. Numbers alone (`3/4`) are read
day first, month first where the writer's clock is American or the language Chinese or Japanese; when only one order
gives a date that is ahead, that one. A date without a year is the next one of that name. "Until the 14th" includes the
14th where the language means it so; then, and at the end of a period, the next day is told. What is told from the day
of writing on ("in two weeks", "for the rest of the month") is read by `spans`; who is away for a week or a day is back
on the day after it, and so is who tells a beginning and a length ("from 3 March for two weeks"). A beginning alone
("since 2 February") and a return that is over ("I was back on the 7th") tell none.

Works on the beginning of a text, with patterns that cannot backtrack far: linear. Words are data: `replies_dates.toml`.
Log events: none; never raises on any string.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TypeGuard

from mailback.bounce.rulefile import RulesError
from mailback.reply.rulefiles import lists
from mailback.reply.spans import Sort, Span, SpanRules, Spelled
from mailback.reply.words import fold, one_of, squeeze
from mailback.resources import rules_dir

FILE = "replies_dates.toml"
LATIN = ("en", "de", "fr", "es", "pt", "it", "nl", "pl", "sv", "da", "no", "fi", "cs", "tr", "el", "ru")
WEEKDAYS = (*LATIN, "ja", "zh", "ko")

_TABLES = {
    "months": LATIN,
    "weekdays": WEEKDAYS,
    "numbers": WEEKDAYS,
    "cues": ("back", "until", "through", "since", "inclusive", "away", "open", "between"),
    "relative": ("week",),
    "spans": WEEKDAYS,
}
_READ = 6000  # characters looked at
_SHORT = 250  # characters of a text whose language may be mistaken
_BEFORE = 60  # how far before a date its cue may stand
_AFTER = 46
_FAR = 90  # how far from a period the words stand that say that somebody is away
_PAST = timedelta(days=1)
_AHEAD = timedelta(days=420)
_HALF_A_YEAR = timedelta(days=183)
_MONTH_FIRST_OFFSETS = range(-10, -3)  # hours from UTC: clocks of the Americas north of Brazil

_ORDINAL = r"(?:st|nd|rd|th|er|re|eme|e|o|º|ª|°|:e|:a|\.)?"
_NUMERIC = re.compile(
    r"(?<![\d./:-])(?:(?P<y>20\d\d)[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})(?!\d)"
    r"|(?P<a>\d{1,2})(?P<sep>[./-])(?:(?<=\.) (?=\d{1,2}\.))?(?P<b>\d{1,2})"
    r"(?:(?P=sep) ?(?P<c>(?:20)?\d\d)(?![\d:]))?(?![\d:%])\.?)"
)
_HAN = re.compile(r"(?:(?P<y>20\d\d) ?[年년] ?)?(?P<m>\d{1,2}) ?[月월] ?(?P<d>\d{1,2}) ?[日号일]")
_DIGIT = re.compile(r"\d")
_SENTENCE = re.compile(r"[!?\n;。]|(?<![\d ])\.(?= )")
_AND = re.compile(r" (?:and|und|et|y|e|en|i|och|og|ja) ")
_LISTED = re.compile(r"(?:,|,? ?(?:&|and|und|et|y|e|en|i|och|og|ja|и|και)) ?|・|、|和|と")
_DAY_AT_END = re.compile(rf"(?<![\d./:])([0-3]?\d){_ORDINAL} ?(?:[a-z/.'~-]{{1,18}} ?){{0,3}}$")


@dataclass(frozen=True, slots=True)
class Calendar:
    """How one language spells dates."""

    named: re.Pattern[str]
    months: dict[str, int]
    weekday: re.Pattern[str]
    weekdays: dict[str, int]
    spans: SpanRules


@dataclass(frozen=True, slots=True)
class DateRules:
    """The words of `replies_dates.toml`, compiled."""

    calendars: dict[str, Calendar]
    back: re.Pattern[str]
    until: re.Pattern[str]
    through: re.Pattern[str]
    since: re.Pattern[str]
    inclusive: re.Pattern[str]
    between: re.Pattern[str]
    away: re.Pattern[str]
    open: re.Pattern[str]
    week: re.Pattern[str]

    @classmethod
    def load(cls, directories: Sequence[Path]) -> DateRules:
        """Raises RulesError with every problem of the files."""
        told = lists(directories, FILE, _TABLES)
        links = "|".join(sorted((re.escape(squeeze(word)) for word in told["cues.between"]), key=len, reverse=True))
        weeks = "|".join(sorted((re.escape(squeeze(word)) for word in told["relative.week"]), key=len, reverse=True))
        calendars = {
            language: _calendar(
                told[f"months.{language}"] if language in LATIN else told["months.en"],
                *(told[f"{table}.{language}"] for table in ("weekdays", "spans", "numbers")),
            )
            for language in WEEKDAYS
        }
        if len(directories) > 1:  # what ships is held to be right by a test
            shipped_lines = lists(directories[:1], FILE, _TABLES)
            _check(calendars, {name: told[name][len(lines) :] for name, lines in shipped_lines.items()})
        return cls(
            calendars=calendars,
            back=_anywhere(told["cues.back"]),
            until=_anywhere(told["cues.until"]),
            through=_anywhere(told["cues.through"]),
            since=_anywhere(told["cues.since"]),
            inclusive=_anywhere(told["cues.inclusive"]),
            away=_anywhere(told["cues.away"]),
            open=_anywhere(told["cues.open"]),
            between=re.compile(
                rf",? ?(?:{links}) ?(?:(?:the|den|der|dem|de|le|el|il|al|ao|dia|de|du|[a-z]{{2,13}}),? ?)?"
            ),
            week=re.compile(
                rf"(?<![a-z])(?:{weeks}) ?\(?(?:nr\.? ?|n° ?)?(\d{{1,2}})"
                rf"((?:(?:, ?| ?- ?| ?(?:{_OR}) )(?:{weeks})? ?\d{{1,2}}){{0,6}})(?![\d:]|\.\d)"
            ),
        )


_OR = "and|to|und|bis|et|a|au|y|e|en|t/m|tot|i|do|och|till|og|til|through"
"""Between the numbers of weeks."""


def _anywhere(phrases: Sequence[str]) -> re.Pattern[str]:
    """Any of the phrases: whole words where they are spelled with an alphabet, anywhere in Han and kana."""
    spelled = one_of(tuple(phrase for phrase in phrases if fold(phrase[0]).isascii() or phrase[0] < "\u0500"))
    pictured = [re.escape(fold(phrase)) for phrase in phrases if phrase[0] >= "\u3000"]
    return re.compile("|".join([spelled.pattern, *pictured]))


def _check(calendars: dict[str, Calendar], added: dict[str, tuple[str, ...]]) -> None:
    """Raises RulesError with every line of an operator's own that tells no day."""
    problems: list[str] = []
    for language, calendar in calendars.items():
        try:
            calendar.spans.check(added[f"spans.{language}"])
        except RulesError as wrong:
            problems += (f"{FILE}: {problem}" for problem in wrong.problems)
    if problems:
        raise RulesError(problems)


def _calendar(months: Sequence[str], weekdays: Sequence[str], spans: Sequence[str], counted: Sequence[str]) -> Calendar:
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
        spans=SpanRules(spans, Spelled(_counted(counted), days, numbers)),
    )


def _counted(words: Sequence[str]) -> dict[str, int]:
    return {squeeze(word): number for number, spellings in enumerate(words, 1) for word in spellings.split()}


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
    sort: Sort = Sort.DAY
    last: date | None = None
    """The last day of the period that begins with `day`."""


def return_date(text: str, sent: datetime, language: str | None, rules: DateRules | None = None) -> date | None:
    """The day of return that `text` tells; `sent` is the Date of the message, in its writer's time zone."""
    rules = rules or shipped()
    told = " ".join(fold(text[:_READ]).replace("\n", " \n ").split(" "))
    told = _SHORTENED.sub(r"\1\2", told)
    told = _NUMERALS.sub(_digits, re.sub(r" {2,}", " ", told))
    own = language if language in rules.calendars else "en"
    if (day := _returning(told, sent, own, rules)) is not None or _left_open(told, sent, own, rules):
        return day
    if len(told) > _SHORT:
        return None
    # The language of a line or two is easily mistaken: names of months in another tell the date, if all others agree.
    others = (other for other in rules.calendars if other != own)
    elsewhere = {_returning(told, sent, other, rules, foreign=True) for other in others} - {None}
    return elsewhere.pop() if len(elsewhere) == 1 else None


_BRACKETED = re.compile(r" ?\([^()]{1,4}\)")
"""The weekday behind a date, `7/27(月)`."""
_SHORTENED = re.compile(
    r"(?<![a-z])(t\.o\.m|f\.o\.m|t\.e\.m|incl|inkl|einschl|einschliessl|excl|approx|ca|bzw|mr|mrs|ms|dr|hr|fr)\.(?= )"
    r"|(?<![a-z])(mo|di|mi|do|sa|so|ma|wo|vr|za|zo|mon|tues?|wed|thu|thurs?|fri|sat|sun|lun|mar|mer|jeu|ven|sam|dim|mie|jue"
    r"|vie|sab|dom|seg|ter|qua|qui|sex|mer|gio|pon|wt|sr|czw|pt|sob|niedz|man|tis|tir|ons|tor|tors|fre|lor)\.(?=,? ?\d)"
)
"""Abbreviations, whose point ends no sentence."""
_NUMERALS = re.compile(r"[一二三四五六七八九十]{1,3}(?=[月日号])")


def _digits(numeral: re.Match[str]) -> str:
    """Chinese numerals up to 99 as digits: `二十一` as 21."""
    tens, ten, ones = numeral[0].rpartition("十")
    return str((_HAN_DIGITS.find(tens[-1:] or "一") * 10 if ten else 0) + (_HAN_DIGITS.find(ones[-1:]) if ones else 0))


_HAN_DIGITS = "零一二三四五六七八九"


def _left_open(told: str, sent: datetime, language: str, rules: DateRules) -> bool:
    """Whether it says in so many words that the day is not certain: then the words of no other language make one."""
    return not all(map(_is_span, rules.calendars[language].spans.find(told, sent.date())))


def _returning(told: str, sent: datetime, language: str, rules: DateRules, *, foreign: bool = False) -> date | None:
    """The day of return by the names of months and days of one language, `foreign` where it is not the writer's."""
    everything = _dates(told, sent, language, rules.calendars[language], rules, foreign=foreign)
    found = [one for one in everything if one.sort is not Sort.LASTING]
    fallback: date | None = None
    absence: date | None = None
    for index, one in enumerate(found):
        preceding = found[index - 1].end if index else 0
        following = found[index + 1].start if index + 1 < len(found) else len(told) + _AFTER + 1
        sense = _sense(told, one, preceding, following, rules)
        begun = one.day == sent.date() or (one.sort is Sort.PERIOD and one.day < sent.date())
        if sense == "back" and one.sort is not Sort.END and not begun:
            return one.day
        if fallback is None:
            previous = found[index - 1] if index else None
            linked = previous is not None and _linked(told, previous, one, rules)
            fallback = _day_after(one, sense, linked=linked)
        if absence is None and _away(told, one, rules):
            absence = _day_after_absence(told, found, index, rules)
    if fallback is not None or rules.open.search(told):
        return fallback
    lasting = [one for one in everything if one.sort is Sort.LASTING]
    lasted = _day_after_lasting(told, lasting[0], found, sent.date(), rules) if len(lasting) == 1 else None
    return lasted or absence


def _day_after(one: _Found, sense: str | None, *, linked: bool) -> date | None:
    """When somebody is back who is away until a day, or until a period is over; None where nothing says that."""
    if one.sort in (Sort.END, Sort.WHOLE) and one.last is not None:
        return one.last + timedelta(days=1) if one.sort is Sort.WHOLE or sense in ("until", "through") else None
    if one.ends_period or linked:
        return one.day + timedelta(days=1)
    if sense == "through":
        starts = one.last is not None and one.last > one.day  # "bis nächste Woche": until it begins
        return one.day if starts else one.day + timedelta(days=1)
    return one.day if sense == "until" else None


_MONDAY = 0
_ON = r"(?:on|am|le|ce|el|il|op|den|w dniu|no dia|v)"
_ON_A_DAY = re.compile(rf"(?:(?<![a-z]){_ON}|[:(]) ?(?:[a-z-]{{2,14}}\.?,? ?(?:(?:den|dem|the|d\.) )?)?$")
"""What stands before the one day of an absence; others (`from`, `since`) begin one that has no end."""
_WAS_BACK = re.compile(r"(?<![a-z])(?:was|were|came|got|been) back(?![a-z])")
"""Somebody tells of a return that is over."""


def _day_after_absence(told: str, found: Sequence[_Found], index: int, rules: DateRules) -> date | None:
    """The day after a day or a week of absence, or after the last of several that are listed; None where it has no end
    that is told."""
    one = found[index]
    if one.last is None or one.sort is not Sort.PERIOD:
        alone = len(found) == 1 and not one.vague
        before = told[max(0, one.start - _BEFORE) : one.start]
        on_it = _ON_A_DAY.search(before) is not None and not _begins(told, one, rules)
        return one.day + timedelta(days=1) if alone and on_it else None
    last = one
    for following in found[index + 1 :]:
        if _LISTED.fullmatch(told[last.end : following.start]) is None or following.sort is not Sort.PERIOD:
            break
        last = following
    assert last.last is not None
    return last.last + timedelta(days=1)


_WORDS = re.compile(r"(?: ?[a-z]{1,12}[.,]?){0,2} ?")
"""An article and a weekday, between `from` and a date."""
_SINCE_BEHIND = re.compile(r" ?(?:\([^)]{1,3}\) ?)?(?:から|より|부터|起|开始|開始)")
"""Of languages whose word for it follows the day."""


def _begins(told: str, one: _Found, rules: DateRules) -> bool:
    """Whether a date is the first day of something, by the word before it or behind it."""
    before = told[max(0, one.start - _BEFORE) : one.start]
    cues = [match.end() for match in rules.since.finditer(before)]
    if cues and _WORDS.fullmatch(before, cues[-1]) is not None:
        return True
    return _SINCE_BEHIND.match(told, one.end) is not None


def _day_after_lasting(
    told: str, lasting: _Found, found: Sequence[_Found], today: date, rules: DateRules
) -> date | None:
    """The day after so many days from the one beginning that its sentence tells: "for two weeks from 3 March"."""
    beginnings = [one for one in found if _begins(told, one, rules) and _same_sentence(told, lasting, one)]
    if len(beginnings) != 1 or lasting.last is None:
        return None
    begun: date | None = beginnings[0].day
    if begun is not None and begun - today > _HALF_A_YEAR:  # "since 1 February": the last one, and not the next
        begun = _valid(begun.year - 1, begun.month, begun.day)
    day = begun and begun + (lasting.last - lasting.day)
    return day if day is not None and day >= today else None


def _same_sentence(told: str, one: _Found, other: _Found) -> bool:
    first, second = sorted((one, other), key=lambda found: found.start)
    gap = told[first.end : second.start]
    return len(gap) <= _FAR and _SENTENCE.search(gap) is None


def _away(told: str, one: _Found, rules: DateRules) -> bool:
    """Whether the sentence says that somebody is away then."""
    before = _SENTENCE.split(told[max(0, one.start - _FAR) : one.start])[-1]
    after = _SENTENCE.split(told[one.end : one.end + _FAR])[0]
    return rules.away.search(before) is not None or rules.away.search(after) is not None


def named(told: str, sent: datetime, language: str | None, rules: DateRules | None = None) -> list[tuple[int, date]]:
    """Every day that a text names in full, with the place where it stands; `told` is folded, on one line."""
    rules = rules or shipped()
    calendar = rules.calendars.get(language or "en") or rules.calendars["en"]
    return [(one.start, one.day) for one in _dates(told, sent, language, calendar, rules) if not one.vague]


def _linked(told: str, first: _Found, second: _Found, rules: DateRules) -> bool:
    """`from 3 to 14 August`: both dates told, one link between them."""
    gap = _BRACKETED.sub("", told[first.end : second.start])
    if len(gap) >= 32 or rules.between.fullmatch(gap) is None:
        return False
    # "Not on Wednesday and Friday" is no period, and "Monday to Thursday" may be when the office is open.
    return not second.vague or (_AND.fullmatch(gap) is None and _away(told, second, rules))


_UNTIL_BEHIND = re.compile(r" ?(?:\([^)]{1,3}\) ?)?(?:'?(?:y?[ae])? ?(?:kadar|dek)|まで|asti|saakka|为止|止|까지)")
"""Of languages whose word for it follows the day."""


def _sense(told: str, one: _Found, begin: int, limit: int, rules: DateRules) -> str | None:
    """What the words around a date make of it: `back`, `until`, `through`; None when nothing does. Words before `begin`
    belong to the date before, those from `limit` on to the next one."""
    if one.sort is Sort.BACK:
        return "back"
    before = told[max(begin, one.start - _BEFORE) : one.start]
    before = _SENTENCE.split(before)[-1]
    after = _AND.split(_SENTENCE.split(told[one.end : min(one.end + _AFTER, limit)])[0])[0]
    if limit <= one.end + _AFTER:
        after = after[:2]
    nearest, at = None, -1
    for name, cue in (("through", rules.through), ("until", rules.until), ("back", rules.back)):
        for match in cue.finditer(before):
            if match.end() > at:
                nearest, at = name, match.end()
    inclusive = rules.inclusive.search(before) or rules.inclusive.search(after[:18])
    if nearest == "until" and inclusive:
        return "through"
    if nearest == "through" and not inclusive and one.day.weekday() == _MONDAY:
        return "until"  # "bis Montag": nobody closes for a weekend and one day of work
    distant = nearest == "through" and at < len(before) - 16
    if nearest == "back" and _WAS_BACK.search(before):
        return None
    if (nearest is None or distant) and not one.ends_period and rules.back.search(after):
        return "back"
    if nearest is None and _UNTIL_BEHIND.match(told, one.end):
        return "through"
    return nearest


def _dates(
    told: str, sent: datetime, language: str | None, calendar: Calendar, rules: DateRules, *, foreign: bool = False
) -> list[_Found]:
    """Every date in the text, in order; weekdays that only accompany a date are left out."""
    today = sent.date()
    numbered = _DIGIT.search(told) is not None  # else it names no date, and no day of a month
    exact = _exact_dates(told, sent, language, calendar, rules) if numbered else []
    spans = list(calendar.spans.find(told, today))
    vague = [_Found(*one[:2], one.first, vague=True, sort=one.sort, last=_last(one)) for one in spans if _is_span(one)]
    taken = _Places([one[:2] for one in spans])
    vague += [one for one in _days_of_week(told, today, calendar, foreign=foreign) if not taken.meet(one)]
    told_in_full = _Places([(one.start, one.end) for one in exact])
    kept = [one for one in vague if one.sort is Sort.LASTING or not told_in_full.near(one, told)]
    if numbered:
        taken = _Places([*((one[:2]) for one in spans), *((one.start, one.end) for one in (*vague, *exact))])
        kept += [one for one in _days_of_month(told, today, exact) if not taken.meet(one)]
    return sorted([*exact, *kept], key=lambda one: one.start)


def _exact_dates(told: str, sent: datetime, language: str | None, calendar: Calendar, rules: DateRules) -> list[_Found]:
    """The dates that are told with day and month, or as a number of a week."""
    today = sent.date()
    exact: list[_Found] = []
    for match in calendar.named.finditer(told):
        month = calendar.months[match["m1"] or match["m2"]]
        day = _placed(match["y1"] or match["y2"], month, int(match["d1"] or match["d2"]), today)
        _note(exact, told, match, day)
    for match in _HAN.finditer(told):
        _note(exact, told, match, _placed(match["y"], int(match["m"]), int(match["d"]), today))
    numeric = list(_NUMERIC.finditer(told))
    proven = _order_told(numeric)
    month_first = _month_first(sent, language) if proven is None else proven
    for match in numeric:
        _note(exact, told, match, _numeric(match, today, month_first=month_first))
    exact.sort(key=lambda one: one.start)
    for match in rules.week.finditer(told):
        exact += _weeks(match, today)
    return exact


def _is_span(one: Span | tuple[int, int]) -> TypeGuard[Span]:
    return isinstance(one, Span)


def _last(one: Span) -> date | None:
    return None if one.sort in (Sort.DAY, Sort.BACK) else one.last


_DIGIT = re.compile(r"\d")


class _Places:
    """Where others stand, to be asked in logarithmic time."""

    def __init__(self, places: Sequence[tuple[int, int]]) -> None:
        ordered = sorted(places)
        self._starts = [start for start, _ in ordered]
        self._ends = list(accumulate((end for _, end in ordered), max))

    def meet(self, one: _Found) -> bool:
        """Whether one of them shares a letter with it."""
        before = bisect_left(self._starts, one.end)
        return before > 0 and self._ends[before - 1] > one.start

    def near(self, one: _Found, told: str) -> bool:
        """Whether a date told in full stands so near that this is a part of it, or its weekday."""
        if _DIGIT.search(told, one.start, one.end):  # `Monday 9th` is a date of its own
            return self.meet(one)
        at = bisect_left(self._starts, one.start - 16)
        if at < len(self._starts) and self._starts[at] <= one.end + 14:
            return _SENTENCE.search(told, one.end, max(one.end, self._starts[at])) is None
        before = bisect_right(self._ends, one.start)
        return before > 0 and one.start - self._ends[before - 1] <= 3


def _weeks(match: re.Match[str], today: date) -> list[_Found]:
    """A week by its number, or the last of several, away in which means back after it."""
    last = re.findall(r"\d+", match[2])
    monday = _week(int(last[-1] if last else match[1]), today)
    if monday is None:
        return []
    sunday = monday + timedelta(days=6)
    if last:
        return [_Found(match.start(), match.end(), sunday, ends_period=True)]
    return [_Found(match.start(), match.end(), monday, sort=Sort.PERIOD, last=sunday)]


_ABBREVIATED = 3
"""Letters of a weekday's abbreviation, which in another language may be any word (`mon`, `do`, `mar`)."""


_WORDS_TOO = frozenset(("so", "zo"))
"""Sunday in German and Dutch."""
_BESIDE_A_SHORT_DAY = re.compile(
    r"(?:\b(?:bis|ab|am|vom|von|seit|kommenden|nachsten|diesen|tot|op|vanaf|sinds|t/m|m/v)|[-–/(]) ?$"
)
_BEHIND_A_SHORT_DAY = re.compile(r"\.|,? ?\d| ?[-–/)]|[,.!]?$|,? (?:bis|den|dem|der|tot|t/m) ")


def _is_day(told: str, match: re.Match[str]) -> bool:
    """Whether the name of a day is meant, where it is a word as well: only beside something that says so."""
    if match[1] not in _WORDS_TOO:
        return True
    before = told[max(0, match.start() - 12) : match.start()]
    behind = told[match.end() : match.end() + 6]
    return _BEHIND_A_SHORT_DAY.match(behind) is not None or _BESIDE_A_SHORT_DAY.search(before) is not None


def _days_of_week(told: str, today: date, calendar: Calendar, *, foreign: bool) -> list[_Found]:
    return [
        _Found(match.start(), match.end() + len(_numbered(told, match)), day, vague=True)
        for match in calendar.weekday.finditer(told)
        if not (foreign and len(match[1]) <= _ABBREVIATED and match[1].isascii())
        and _is_day(told, match)
        and (day := _day_of_week(told, match, calendar.weekdays[match[1]], today)) is not None
    ]


_COUNTED = (
    r"uhr|uur|h\b|am\b|pm\b|jour|day|tag|dia|giorn|dag|dni|hour|stund|heure|hora|ore\b|godz|tim|week|woche|semain|seman"
    r"|settiman|tyg|veck|minut|mes|mois|monat|month|maand|an\b|ans\b|year|jahr|pers|eur|%"
)
"""What a number counts that is no day of the month."""
_BARE_DAY = re.compile(
    r"\b(?:the|am|zum|dem|le|el|il|dia|den|de|du|au|al|del|dal|ao|a|vom|bis) ([0-3]?\d)"
    rf"(?:st|nd|rd|th|er|\.|:e|e)?(?![\d:%/]|\.\d|-\d| ?(?:{_COUNTED}))"
    r"|\b(?:on|by|back|until|till|til|through|thru|from|return|returning) ([0-3]?\d)(?:st|nd|rd|th)"
    r"(?= ?(?:[.,;:!?)\n-]|$)| (?:of|at|and|or|to|until|inclusive|with|after|in)\b)"
    r"|\b(?:ab|ab dem|bis) ([0-3]?\d)\.(?= [a-z]|$| ?[,;!\n])"
    r"|(?<![\d月월])([0-3]?\d)[日号일](?!間|间|後|后|以[内上]|之|内|程|간| ?동안| ?후| ?뒤)"
)


_NUMBERED = re.compile(
    r",? ?(?:(?:the|den|dem|der|el|le|il|dia|o|d\.|dnia) ?)?([0-3]?\d)"
    r"(?:st|nd|rd|th|er|o|\.|:e)?(?![\d:%/h]|[.,]\d|-\d| ?(?:uhr|uur|heures|h\b|am\b|pm\b|o'clock))"
)
"""`Monday 18th`: the day of the month behind a weekday."""
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
    return day


def _days_of_month(told: str, today: date, exact: Sequence[_Found]) -> list[_Found]:
    """`back on the 14th`: the next day of that number, after the date told before it where there is one."""
    found = []
    later = iter(exact)
    one = next(later, None)
    start = today
    for match in _BARE_DAY.finditer(told):
        while one is not None and one.end <= match.start():
            start = max(start, one.day)
            one = next(later, None)
        for ahead in range(2):
            year, month = divmod(start.year * 12 + start.month - 1 + ahead, 12)
            day = _valid(year, month + 1, int(match[match.lastindex or 0]))
            if day is not None and day >= start:
                found.append(_Found(match.start(match.lastindex or 0), match.end(), day, vague=True))
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


def _order_told(numeric: Sequence[re.Match[str]]) -> bool | None:
    """Whether the month comes first, as a date that can be read one way only shows it: nobody changes within a mail."""
    pairs = [(int(one["a"]), int(one["b"])) for one in numeric if not one["y"] and one["sep"] == "/"]
    told = {second > _MONTHS for first, second in pairs if (first > _MONTHS) is not (second > _MONTHS)}
    return told.pop() if len(told) == 1 else None


_MONTHS = 12


def _numeric(match: re.Match[str], today: date, *, month_first: bool) -> date | None:
    if match["y"]:
        return _placed(match["y"], int(match["m"]), int(match["d"]), today)
    first, second, year = int(match["a"]), int(match["b"]), match["c"]
    if year is None and match["sep"] == "-":
        return None  # 9-5 is office hours
    orders = [(second, first), (first, second)]  # month, day
    if match["sep"] == "/" and month_first:
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

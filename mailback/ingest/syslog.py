"""Log lines as records: time, host, program, text; whatever wrote the file.

The forms, told line by line, so that a file may change its form half way:

    Nov 25 22:08:41 mx postfix/smtp[7]: ...                     traditional (RFC 3164); postlogd; journalctl -o short
    Nov 25 22:08:41.123456 mx postfix/smtp[7]: ...              journalctl -o short-precise
    2026-11-25T22:08:41.123456+00:00 mx postfix/smtp[7]: ...    rsyslog since 8.2402, journalctl -o short-iso(-precise)
    2026-11-25 22:08:41 mx postfix/smtp[7]: ...                 the same with a blank
    Wed 2026-11-25 22:08:41 UTC mx postfix/smtp[7]: ...         journalctl -o short-full
    1764108521.123456 mx postfix/smtp[7]: ...                   journalctl -o short-unix
    <22>1 2026-11-25T22:08:41Z mx postfix/smtp 7 - - ...        RFC 5424, as sent over a network
    Nov 25 22:08:41 <mail.info> mx postfix/smtp[7]: ...         FreeBSD's syslogd -v
    {"MESSAGE": "...", "SYSLOG_IDENTIFIER": "postfix/smtp", "__REALTIME_TIMESTAMP": "1764108521123456", ...}
                                                                journalctl -o json, json-seq, json-sse

A priority (`<22>`) may stand before each of them. `journalctl -o export` is read in `export_records`.

The traditional form tells neither year nor zone. The zone is the host's unless another is given. The year is the one
that puts the line last before a reference time, the file's own, so a log read in January has its December in the year
before; a file that spans more than a year needs the year of its first line, and is counted on from there.

Emits no log events; a line that is no record gives None.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

_LINE = re.compile(
    r"(?P<head>[^/]{0,160}?)"
    r"(?P<program>[A-Za-z0-9_.+-]{1,64}(?:/[A-Za-z0-9_.+-]{1,64}){1,8})"
    r"(?:\[\d+\]: (?:\[ID \d+ [\w.]+\] )?| (?:\d+|-) \S+ (?:-|(?:\[(?:[^\]\"]|\"(?:\\.|[^\"\\])*\")*\])+) (?:\ufeff)?)"
    r"(?P<text>.*)",
    re.DOTALL,
)
"""Host and time, a program with a slash in its name (all of Postfix's have one), its process id, its words."""

_TRADITIONAL = re.compile(r"([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):(\d\d)(\.\d{1,6})?")
_MONTHS = {
    "Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6, "Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11,
    "Dec": 12,
}  # fmt: skip
_UNIX = re.compile(r"\d{9,11}(?:\.\d{1,6})?")
_PRIORITY = re.compile(r"<\d{1,3}>(?:1 )?")
_FACILITY = re.compile(r"<[\w.]{1,32}> ?")
_FRAME = re.compile(r"(?:\x1e|data: )(?=\{)")
"""What stands before a record of `json-seq` (RFC 7464) and `json-sse`."""
_WEEKDAY = re.compile(r"[A-Z][a-z]{2} (?=\d{4}-)")
_ZONE_NAME = re.compile(r"[A-Z]{2,5}|[+-]\d{2}")

_AHEAD = timedelta(days=1)
"""How far a line may lie beyond the reference time: clocks and zones differ."""
_BACK = timedelta(days=180)
"""A step back of more than this, where years are counted, is a new year."""
_LEAP = 8
"""Years to look back for a 29th of February."""


class Record(NamedTuple):
    """One line of a log."""

    at: datetime
    host: str
    program: str
    """As the log names it: `postfix/smtp`, `postfix-out/qmgr`."""
    text: str


class Clock:
    """Gives the traditional form its year and zone.

    `reference` is the time that no line lies beyond: when the file was last written, or now. With `year`, that of the
    first line, years are counted on from line to line instead.
    """

    def __init__(self, reference: datetime, zone: tzinfo | None = None, year: int | None = None) -> None:
        self.reference = reference
        self.zone = zone
        self._year = year
        self._last: datetime | None = None
        self._stamp = ""
        self._moment: datetime | None = None

    def read(self, stamp: str) -> datetime | None:
        """The time of `Nov 25 22:08:41`; None for no time. Lines of one second are read once."""
        if stamp != self._stamp:
            self._stamp, self._moment = stamp, self._read(stamp)
        return self._moment

    def _read(self, stamp: str) -> datetime | None:
        found = _TRADITIONAL.fullmatch(stamp)
        month = _MONTHS.get(found[1]) if found else None
        if found is None or month is None:
            return None
        fraction = int(float(found[6] or 0) * 1_000_000)
        numbers = (month, int(found[2]), int(found[3]), int(found[4]), min(int(found[5]), 59), fraction)
        return self._counted(numbers) if self._year is not None else self._before_reference(numbers)

    def _before_reference(self, numbers: tuple[int, ...]) -> datetime | None:
        latest = self.reference + _AHEAD
        for year in range(latest.year + 1, latest.year - _LEAP, -1):
            moment = self._moment_in(year, numbers)
            if moment is not None and moment <= latest:
                return moment
        return None

    def _counted(self, numbers: tuple[int, ...]) -> datetime | None:
        assert self._year is not None
        moment = self._moment_in(self._year, numbers)
        if self._last is not None and (moment is None or moment < self._last - _BACK):
            moment = self._moment_in(self._year + 1, numbers)
            if moment is not None:
                self._year += 1
        if moment is not None:
            self._last = moment
        return moment

    def _moment_in(self, year: int, numbers: tuple[int, ...]) -> datetime | None:
        try:
            moment = datetime(year, *numbers, tzinfo=self.zone)  # type: ignore[arg-type,misc]  # six numbers
            return moment.astimezone(UTC)  # a time without a zone counts as the host's
        except (ValueError, OverflowError):
            return None

    @property
    def year(self) -> int | None:
        """The year that counting has come to; None where years are not counted."""
        return self._year


class Lines:
    """Reads lines of one log."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stamp = ""
        self._place: tuple[datetime, str] | None = None

    def record(self, line: str) -> Record | None:
        """The record of a line without its line end; None for what is none, or not of a program like Postfix's."""
        if line[:1] in "{\x1ed" and (told := _FRAME.sub("", line, count=1)).startswith("{"):
            return _of_json(told)
        found = _LINE.match(line)
        if found is None:
            return None
        head, program, text = found.groups()
        if head != self._stamp:  # a busy host writes many lines a second
            self._stamp, self._place = head, self._when_and_where(head)
        return Record(*self._place, program, text) if self._place else None

    def _when_and_where(self, head: str) -> tuple[datetime, str] | None:
        """A head holds these two and nothing else: what another program quotes of us is no record of ours."""
        head = head.strip()
        if head.startswith("<"):
            head = _PRIORITY.sub("", head, count=1)
        stamp = _TRADITIONAL.match(head)
        if stamp is not None:
            moment = self._clock.read(stamp.group())
            rest = _FACILITY.sub("", head[stamp.end() :].strip(), count=1)
        else:
            moment, rest = _with_year(head, self._clock.zone)
        return (moment, rest) if moment is not None and " " not in rest else None


def _with_year(head: str, zone_without: tzinfo | None) -> tuple[datetime | None, str]:
    """The time at the beginning of a line's head, where it tells its year, and what follows it."""
    head = _WEEKDAY.sub("", head, count=1)
    first, _, rest = head.partition(" ")
    if _UNIX.fullmatch(first):
        return datetime.fromtimestamp(float(first), UTC), rest
    if len(first) == 10 and rest[2:3] == ":":  # a date, a blank, a time
        clock, _, rest = rest.partition(" ")
        first = f"{first}T{clock}"
        zone, _, after = rest.partition(" ")
        if after and _ZONE_NAME.fullmatch(zone):
            rest = after
            first += "+00:00" if zone in ("UTC", "GMT") else zone if zone[0] in "+-" else ""
    try:
        moment = datetime.fromisoformat(first)
    except ValueError:
        return None, rest
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone_without)
    return moment.astimezone(UTC), rest.strip()


def _of_json(line: str) -> Record | None:
    """A line of `journalctl -o json` (systemd.journal-fields(7))."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return of_journal(told) if isinstance(told, dict) else None


def of_journal(told: dict[str, object]) -> Record | None:
    """A record of systemd's journal; a text that is no UTF-8 comes as a list of octets."""
    program, text = told.get("SYSLOG_IDENTIFIER"), told.get("MESSAGE")
    if isinstance(text, list):
        try:
            text = bytes(text).decode("utf-8", "backslashreplace")
        except (TypeError, ValueError):
            return None
    stamp = told.get("__REALTIME_TIMESTAMP") or told.get("_SOURCE_REALTIME_TIMESTAMP")
    if not isinstance(program, str) or not isinstance(text, str) or not str(stamp).isdecimal():
        return None
    moment = datetime.fromtimestamp(int(str(stamp)) / 1_000_000, UTC)
    return Record(moment, str(told.get("_HOSTNAME") or ""), program, text)


def export_records(data: bytes) -> Iterator[dict[str, object]]:
    """The records of `journalctl -o export` (Journal Export Format): fields a line, an empty line after each record.

    A field whose value holds line ends or control characters stands as its name, 64 bits of length, and the value.
    """
    record: dict[str, object] = {}
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        line = data[at:] if end < 0 else data[at:end]
        at = len(data) if end < 0 else end + 1
        if not line:
            if record:
                yield record
            record = {}
            continue
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(data[at : at + 8], "little")
            value = data[at + 8 : at + 8 + size]
            at += 8 + size + 1
        record[name.decode("ascii", "replace")] = value.decode("utf-8", "backslashreplace")
    if record:
        yield record

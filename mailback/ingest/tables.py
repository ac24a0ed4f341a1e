"""Tables of deliveries, opens and clicks: CSV with a header line, or JSON, an object a line (or a list of them).

Columns and outcomes are found by their names, as mail platforms and people write them (`config/rules/tables.toml`), or
as the operator maps them. A row needs a recipient and a time; what happened is told by a column, or by what the table
is said to hold.

The same row twice is one fact: it is known by an id of its own, by Message-ID, recipient and outcome, or by all that it
says. So a table may be read again, whole or grown, and rows may come in any order and in several files.

A table is read on from where it was left, like a log: known by its first two lines (a header alone is the same in every
export), with a hash of what stands before the place.

Emits no log events; what is wrong with a row is told with its line.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from mailback import address
from mailback.bounce import rulefile
from mailback.bounce.rulefile import RulesError, read_table
from mailback.bounce.taxonomy import Kind, Provenance, Subcategory
from mailback.envelope import Source
from mailback.ingest import json_events, logfiles
from mailback.ingest.feed import Fact, Feed
from mailback.ingest.quoting import closed, rows
from mailback.observation import Interaction, Observation
from mailback.reports import dates, diagnostic
from mailback.reports.original import message_id
from mailback.reports.report import DeliveryFailure
from mailback.resources import rules_dir
from mailback.store.records import CLOCK_ERROR, Reading

if TYPE_CHECKING:
    from mailback.settings import Settings
    from mailback.store import Store, Transaction

FILE = "tables.toml"
FIELD_LIMIT = 1024 * 1024
"""Characters of one field."""
WHOLE_LIMIT = 256 * 1024 * 1024
"""Octets of a table whose lines end with CR alone."""
PLACE = "table:"
"""How the names of places begin that tell how far a table was read."""
_TAIL = 256
_HEAD = 64 * 1024
_BATCH = 1000


class Holds(StrEnum):
    """What a table holds."""

    DELIVERIES = "deliveries"
    OPENS = "opens"
    CLICKS = "clicks"
    EVENTS = "events"
    """Several kinds: a column tells."""


FIELDS = (
    "recipient", "at", "outcome", "message_id", "id", "smtp_code", "status", "diagnostic", "campaign", "list_id",
    "subscriber", "sender", "subject", "attempts", "severity", "cause",
)  # fmt: skip
"""What a column may be mapped to."""

_OUTCOMES: dict[str, tuple[Kind | Reading | None, str | None]] = {
    "delivered": (Kind.DELIVERED, None),
    "bounce": (Kind.BOUNCE, None),
    "hard_bounce": (Kind.BOUNCE, "5.0.0"),
    "soft_bounce": (Kind.BOUNCE, "4.0.0"),
    "delay": (Kind.DELAY, None),
    "complaint": (Kind.COMPLAINT, None),
    "unsubscribe": (Kind.UNSUBSCRIBE, None),
    "open": (Reading.OPEN, None),
    "click": (Reading.CLICK, None),
    "underway": (None, None),
}
"""What a word of each list says: a kind, and the class of a code where no other stands beside it (RFC 3463 x.0.0)."""

_CAUSES = {Kind.COMPLAINT: Subcategory.SPAM_COMPLAINT, Kind.UNSUBSCRIBE: Subcategory.UNSUBSCRIBE_REQUEST}
_ACTIONS = {Kind.DELIVERED: "delivered", Kind.DELAY: "delayed"}
_BECAUSE = "an operator's own table says so"

_PLAIN = re.compile(r"[^a-z0-9]+")
_NAME = re.compile(r"[a-z0-9]+")
_TYPE = re.compile(r"(?i)^\s*(?:smtp|x-[a-z0-9-]{1,40})\s*;\s*")
"""How a Diagnostic-Code begins (RFC 3464 section 2.3.6)."""
_STATUS = re.compile(r"[45]\.\d{1,3}\.\d{1,3}")
_SHORT_DATE = re.compile(r"(\d{1,2})[/.](\d{1,2})(?:[/.](\d{2,4}))?(?:[ T](\d{1,2}):(\d\d)(?::(\d\d))?)?")
_EPOCH = re.compile(r"\d{9,10}(?:\.\d+)?|\d{12,13}|\d{15,16}")


class Row(NamedTuple):
    """One row of a table."""

    line: int
    """Where it begins, from 1."""
    values: dict[str, str]
    """By the table's own column names; empty where the row could not be read."""
    whole: bool = True
    """False where more rows of its line follow: there is no place between them."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Dates:
    """How times are written that leave something open."""

    zone: tzinfo = UTC
    day_first: bool = False
    """`3/1` is the 3rd of January."""
    year: int | None = None
    """Of dates without one; None: the one that puts them last before now."""

    def read(self, text: str, now: datetime) -> datetime | None:
        """ISO 8601, seconds or milliseconds since 1970, RFC 5322, or day and month by numbers; None for no time."""
        text = text.strip()
        if _EPOCH.fullmatch(text):
            number = float(text)
            return _at(number / (1e6 if number > 1e14 else 1e3 if number > 1e11 else 1))
        try:
            moment: datetime | None = datetime.fromisoformat(text.removesuffix(" UTC"))
        except ValueError:
            short = _SHORT_DATE.fullmatch(text)
            moment = self._short(short, now) if short is not None else dates.date(text)
        if moment is None:
            return None
        try:
            return (moment if moment.tzinfo else moment.replace(tzinfo=self.zone)).astimezone(UTC)
        except OverflowError:
            return None

    def _short(self, found: re.Match[str], now: datetime) -> datetime | None:
        one, other, year, *clock = (int(part) if part else None for part in found.groups())
        day, month = (one, other) if self.day_first else (other, one)
        numbers = [number or 0 for number in clock]
        years = [year + 2000 if year < 100 else year] if year is not None else [self.year or now.year]
        if year is None and self.year is None:
            years.append(now.year - 1)
        for tried in years:
            try:
                moment = datetime(tried, month or 0, day or 0, numbers[0], numbers[1], numbers[2])
            except ValueError:
                continue
            if len(years) == 1 or moment.replace(tzinfo=self.zone) <= now:
                return moment
        return None


def _at(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def plain(name: str) -> str:
    """A name of a column or an outcome as they are compared: lower case, letters and digits only."""
    return _PLAIN.sub("", name.lower())


@dataclass(slots=True)
class Words:
    """The names of columns and outcomes."""

    columns: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in FIELDS})
    outcomes: dict[str, str] = field(default_factory=dict)
    """Each word with its list."""
    statuses: dict[str, str] = field(default_factory=dict)
    """The enhanced status code that a word for a cause stands for."""

    @classmethod
    def load(cls, directories: Sequence[Path]) -> Words:
        """Read `tables.toml` of each directory that has one; what a later one says comes first. Raises RulesError."""
        words = cls()
        problems: list[str] = []
        for directory in directories:
            if (path := directory / FILE).is_file():
                problems += read_table(path, words._read)
        if problems:
            raise RulesError(problems)
        return words

    def _read(self, top: rulefile.Table) -> None:
        columns = top.table("columns") if "columns" in top else None
        for name in FIELDS if columns is not None else ():
            assert columns is not None
            self.columns[name] = [word for _, word in columns.strings(name, _NAME)] + self.columns[name]
        if columns is not None:
            columns.finish()
        statuses = top.table("status_of") if "status_of" in top else None
        if statuses is not None:
            for code in statuses.unread():
                if _STATUS.fullmatch(code) is None:
                    statuses.wrong(f"{code} is no enhanced status code of a failure", code)
                self.statuses.update((word, code) for _, word in statuses.strings(code, _NAME))
        outcomes = top.table("outcomes") if "outcomes" in top else None
        if outcomes is not None:
            for name in _OUTCOMES:
                self.outcomes.update((word, name) for _, word in outcomes.strings(name, _NAME))
            outcomes.finish()


def words_of(settings: Settings) -> Words:
    """The names in force: what ships, and an operator's own. Raises RulesError with every problem."""
    own = settings.rules.directory
    return Words.load([rules_dir(), *([Path(own)] if own is not None else [])])


class Columns:
    """Which column of a table holds which field."""

    def __init__(self, words: Words, mapped: Mapping[str, str] | None = None) -> None:
        self._words = words.columns
        self._mapped = {plain(column): field_ for column, field_ in (mapped or {}).items()}
        self._known: dict[tuple[str, ...], dict[str, str]] = {}

    def of(self, names: tuple[str, ...]) -> dict[str, str]:
        """Field to column name, for a table (or an object) that has these columns."""
        found = self._known.get(names)
        if found is None:
            found = self._known[names] = self._find(names)
        return found

    def _find(self, names: tuple[str, ...]) -> dict[str, str]:
        by_plain = {plain(end): name for depth in (0, 1) for name in reversed(names) for end in _ends(name, depth)}
        by_plain |= {plain(name): name for name in reversed(names)}
        found = {field_: by_plain[column] for column, field_ in self._mapped.items() if column in by_plain}
        taken = set(found.values())
        for field_, aliases in self._words.items():
            name = next((by_plain[alias] for alias in aliases if alias in by_plain), None)
            if field_ not in found and name is not None and name not in taken:
                found[field_] = name
                taken.add(name)
        return found


def _ends(name: str, parts: int) -> Iterator[str]:
    """The last part of a dotted name, or with those before it: `a.b.c` is found as `c`, and sooner as `b.c`."""
    split = name.split(".")
    if parts < len(split):
        yield ".".join(split[-1 - parts :])


@dataclass(frozen=True, slots=True)
class Facts:
    """Makes facts of rows."""

    holds: Holds
    words: Words
    columns: Columns
    dates: Dates
    resolve: Callable[[str], str | None] | None = None
    """The address of a subscriber id, for tables that tell no addresses."""

    def of(self, values: Mapping[str, str], now: datetime) -> Fact | str | None:
        """The fact of a row; a text: what is wrong with it; None: nothing became of the message yet."""
        found = self.columns.of(tuple(values))
        row = {field: values[column].strip() for field, column in found.items() if values[column].strip()}
        recipient = self._recipient(row)
        if recipient is None:
            return self._nobody(row, found)
        if not row.get("at"):
            return "no time in " + (repr(found["at"]) if "at" in found else "any column")
        at = self.dates.read(row["at"], now)
        if at is None:
            return f"{row['at']!r} is no time"
        if at > now + CLOCK_ERROR:
            return f"{row['at']!r} is still to come"
        outcome = self._outcome(row)
        if outcome not in _OUTCOMES:
            return outcome
        what, klass = _OUTCOMES[outcome]
        if isinstance(what, Reading):
            return Interaction(at, what, recipient, _identity(row, at, recipient))
        meant = self.words.statuses.get(plain(row.get("cause", "")))
        return None if what is None else _observation(row, at, recipient, what, meant or klass)

    def _recipient(self, row: Mapping[str, str]) -> str | None:
        told = row.get("recipient", "").removeprefix("<").removesuffix(">")
        if address.is_address(told):
            return told
        subscriber = row.get("subscriber") or told
        return self.resolve(subscriber) if self.resolve is not None and subscriber else None

    def _nobody(self, row: Mapping[str, str], found: Mapping[str, str]) -> str:
        """Why a row is about nobody."""
        told = row.get("recipient", "")
        if "@" in told:
            return address.no_address(told)
        if (subscriber := row.get("subscriber")) and self.resolve is not None:
            return f"no subscriber is known by {subscriber!r}; import them first: mailback subscriber import FILE"
        return "no mail address in " + (repr(found["recipient"]) if "recipient" in found else "any column")

    def _outcome(self, row: Mapping[str, str]) -> str:
        """Which list of outcomes holds; else what is wrong."""
        if self.holds in (Holds.OPENS, Holds.CLICKS):
            return "open" if self.holds is Holds.OPENS else "click"
        told = row.get("outcome")
        if told is None:
            return "delivered" if self.holds is Holds.DELIVERIES else "nothing says what happened"
        for more in (row.get("cause"), row.get("severity")):
            if more and (outcome := self.words.outcomes.get(plain(told) + plain(more))) is not None:
                return outcome
        return self.words.outcomes.get(plain(told)) or f"{told!r} is no outcome that is known (rules: {FILE})"


def _observation(row: Mapping[str, str], at: datetime, recipient: str, kind: Kind, klass: str | None) -> Observation:
    words = _TYPE.sub("", row.get("diagnostic", ""))
    codes = diagnostic.codes(words)
    stated = diagnostic.of_field(row.get("status", "")) or (klass if codes.status is None else None)
    code = row.get("smtp_code", "")
    failure = DeliveryFailure(
        recipient,
        action=_ACTIONS.get(kind, "failed"),
        status=diagnostic.settle(stated, codes.status, codes.smtp_code),
        stated_status=stated,
        smtp_code=codes.smtp_code or (code if re.fullmatch(r"[245]\d\d", code) else None),
        diagnostic=diagnostic.tidy(words),
        cause=_CAUSES.get(kind),
    )
    attempts = row.get("attempts", "")
    return Observation(
        at=at,
        kind=kind,
        source=Source.IMPORT,
        dialect="table",
        failure=failure,
        identity=_identity(row, at, recipient),
        message_id=message_id(row.get("message_id")),
        grade=Provenance.AUTHENTICATED,
        because=_BECAUSE,
        sender=row.get("sender"),
        attempts=int(attempts) if attempts.isdecimal() and len(attempts) < 6 else None,
        campaign=row.get("campaign"),
        list_id=row.get("list_id"),
        subscriber=row.get("subscriber"),
        subject=row.get("subject"),
    )


def _identity(row: Mapping[str, str], at: datetime, recipient: str) -> str:
    """The row's own id with its time and outcome, or all that it says of this recipient.

    The id alone would not do: what a table calls `id` may be the message's, or the subscriber's.
    """
    key = address.key(recipient)
    if row.get("id"):
        return "\0".join(["id", row["id"], key, at.isoformat(), row.get("outcome", "")])
    told = sorted((field, value) for field, value in row.items() if field not in ("recipient", "at"))
    return "\0".join([key, at.isoformat(), *(f"{field}={value}" for field, value in told)])


# -- reading -----------------------------------------------------------------------------------------------------


class _Lines:
    """The lines of a stream as text, with the octets that they took."""

    def __init__(self, stream: BinaryIO, at: int = 0) -> None:
        self._stream = stream
        self.at = at
        self.tail = b""
        self.number = 0
        self.ended = True
        """Whether the line that was read last ends; one that does not may still be being written."""
        self._row = at, b"", 0

    def begin_row(self) -> None:
        """Remember where the next row begins."""
        self._row = self.at, self.tail, self.number

    @property
    def before_row(self) -> tuple[int, bytes, int]:
        """Octets, tail and lines before the row that was begun last."""
        return self._row

    def __iter__(self) -> Iterator[str]:
        while data := self._stream.readline(FIELD_LIMIT):
            self.at += len(data)
            self.number += 1
            self.ended = data.endswith((b"\n", b"\r"))
            self.tail = (self.tail + data)[-_TAIL:]
            text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", " ")
            yield text.removeprefix("\ufeff") if self.number == 1 else text


def _position(offset: int, tail: bytes, line: int) -> dict[str, Any]:
    return {"offset": offset, "tail": logfiles.hash_of(tail), "line": line}


class Table:
    """One table as it is read: its rows with their places."""

    def __init__(self, stream: BinaryIO, delimiter: str | None = None) -> None:
        self._stream = stream
        self._delimiter = delimiter
        self._lines = _Lines(stream)
        csv.field_size_limit(FIELD_LIMIT)

    @property
    def position(self) -> dict[str, Any]:
        """The place behind the row that was read last."""
        return _position(self._lines.at, self._lines.tail, self._lines.number)

    @property
    def before(self) -> dict[str, Any]:
        """The place before the row that was read last."""
        return _position(*self._lines.before_row)

    @property
    def ended(self) -> bool:
        """Whether the row that was read last ends with its line, or may still be being written."""
        return self._lines.ended

    def rows(self, place: Mapping[str, Any] | None = None) -> Iterator[Row]:
        """The rows behind a place, or all. Raises OSError, Damaged."""
        head = self._stream.readline(FIELD_LIMIT)
        if b"\r" in head.removesuffix(b"\n").removesuffix(b"\r") and b"\r\n" not in head:
            head = self._end_lines_with_line_feeds(head)
        if place is not None and place.get("offset"):
            at = logfiles.resume(self._stream, place)
        else:
            self._seek_back(head)
            at = 0
        lines = self._lines
        lines.at = at
        if at and place is not None:
            lines.number = int(place.get("line") or 0)
            self._stream.seek(max(0, at - _TAIL))
            lines.tail = self._stream.read(min(at, _TAIL))
        if head.lstrip(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
            yield from self._json_rows()
        else:
            yield from self._csv_rows(_header(head, self._delimiter), skip_header=at == 0)

    def _end_lines_with_line_feeds(self, head: bytes) -> bytes:
        """Old spreadsheets of the Macintosh end lines with CR alone; octets stay where they are. The first line."""
        whole = (head + self._stream.read(WHOLE_LIMIT)).replace(b"\r", b"\n")
        self._stream = self._lines._stream = io.BytesIO(whole)
        return self._stream.readline(FIELD_LIMIT)

    def _seek_back(self, head: bytes) -> None:
        if self._stream.seekable():
            self._stream.seek(0)
        else:
            self._stream = self._lines._stream = _Again(head, self._stream)  # type: ignore[assignment]

    def _csv_rows(self, header: tuple[list[str], str], *, skip_header: bool) -> Iterator[Row]:
        names, delimiter = header
        reader = csv.reader(closed(self._lines, self._lines.number), delimiter=delimiter)
        first = skip_header
        self._lines.begin_row()
        line = self._lines.number + 1
        for at, values in rows(reader, self._lines.number):
            if isinstance(values, csv.Error):
                yield Row(at, {}, error=str(values))
            elif first:
                first = False
            elif values:
                yield _csv_row(line, names, values)
            self._lines.begin_row()
            line = self._lines.number + 1

    def _json_rows(self) -> Iterator[Row]:
        self._lines.begin_row()
        for line, text in json_events.pieces(self._lines, self._lines.number):
            try:
                found = list(json_events.records(json.loads(text)))
            except (ValueError, RecursionError) as error:
                yield Row(line, {}, error=f"no JSON: {error}")
            else:
                for number, values in enumerate(found, 1):
                    yield Row(line, values or {}, number == len(found), None if values else "no JSON object")
            self._lines.begin_row()


def _csv_row(line: int, names: list[str], values: list[str]) -> Row:
    """Spreadsheets leave empty fields at the end out, or add some."""
    if any(values[len(names) :]):
        return Row(line, {}, error=f"{len(values)} fields where the header has {len(names)}")
    filled = [*values, *[""] * (len(names) - len(values))]
    return Row(line, dict(zip(names, filled, strict=False)))


class _Again:
    """A stream that cannot be positioned, with its first line put back."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def readline(self, limit: int) -> bytes:
        head, self._head = self._head, b""
        return head or self._stream.readline(limit)


def _header(head: bytes, delimiter: str | None) -> tuple[list[str], str]:
    """The names of the columns, and what stands between them."""
    text = head.decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\r\n").replace("\r", " ")
    chosen = delimiter or max(",;\t|", key=text.count)
    try:
        return next(csv.reader([text], delimiter=chosen), []), chosen
    except csv.Error:  # no header at all; each row tells that nothing is found in it
        return [], chosen


def fingerprint(stream: BinaryIO) -> str | None:
    """What a table is known by: its first two lines; None where it has none. It stands at its beginning afterwards."""
    head = stream.readline(_HEAD) + stream.readline(_HEAD)
    stream.seek(0)
    return hashlib.sha256(head).hexdigest()[:32] if head.count(b"\n") == 2 else None


@dataclass(slots=True)
class Read:
    """What became of the rows of one table."""

    rows: int = 0
    wrong: int = 0
    underway: int = 0
    """Rows that say of a message only that it is on its way."""


def import_table(
    store: Store,
    feed: Feed,
    facts: Facts,
    path: str,
    *,
    delimiter: str | None = None,
    again: bool = False,
    wrong: Callable[[int, str], None] = lambda _line, _what: None,
    step: Callable[[int], None] = lambda _: None,
) -> Read:
    """Read one table from its place to its end; `wrong` is told each row that cannot be used.

    The place stays before the first of those, so that it is read again once it was put right, and before a last row
    that does not end yet; what is read again is known.

    `step` is told the octets read since it was last called. Raises OSError, Damaged, StoreUnavailable; what was read
    before is kept.
    """
    read, batch, at, now = Read(), list[Fact](), 0, datetime.now(UTC)
    with logfiles.open_log(path) as (stream, seekable):
        known = fingerprint(stream) if seekable else None
        name = f"{PLACE}{facts.holds} {known}" if known else None
        place = store.place(name) if name and not again else None
        table = Table(stream, delimiter)
        stays: dict[str, Any] | None = None

        def hand_over() -> None:
            nonlocal batch, at
            position = stays or table.position
            feed.send(batch, lambda transaction: _put(transaction, name, position | {"path": path}))
            batch = []
            step(table.position["offset"] - at)
            at = table.position["offset"]

        for row in table.rows(place.position if place is not None else None):
            read.rows += 1
            told = row.error or facts.of(row.values, now)
            if isinstance(told, str):
                read.wrong += 1
                wrong(row.line, told)
                stays = stays or table.before
            elif told is None:
                read.underway += 1
            else:
                batch.append(told)
            if len(batch) >= _BATCH and row.whole:
                hand_over()
        if not table.ended:
            stays = stays or table.before
        hand_over()
    return read


def _put(transaction: Transaction, name: str | None, position: Mapping[str, object]) -> None:
    if name is not None:
        transaction.put_place(name, position)

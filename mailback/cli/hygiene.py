"""`mailback hygiene`: a list of addresses sorted into keep, verify and drop, with reasons. Emits no log events.

The list is read line by line and written as it is read, so that a million lines need no more memory than the set of
addresses seen (their hashes, for telling duplicates). What is known is asked for hundreds of addresses at a time.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from mailback.cli.errors import CommandError
from mailback.cli.files import lines_in, reading, replacing
from mailback.cli.options import config_option, json_option, load_settings, open_store
from mailback.cli.out import Cell, Column, json_line, progress, say, table
from mailback.ingest.quoting import closed, line_of

if TYPE_CHECKING:
    from mailback.policy.hygiene import HygieneRules, Judgement
    from mailback.recipient.capture import Captured
    from mailback.recipient.entering import Checker
    from mailback.store import Store, Transaction
    from mailback.store.history import History
    from mailback.store.records import MailDomain

AT_ONCE: Final = 500
FIELD_MAX: Final = 1024 * 1024
"""Characters of one field."""
ADDED: Final = ("hygiene", "hygiene_reasons", "hygiene_suggestion", "hygiene_reengage")
"""Columns that are added to the list."""

_DELIMITERS = ",;\t|"
_ADDRESS_COLUMNS = frozenset({
    "address", "email", "emailaddress", "mail", "recipient", "to", "subscriber", "useremail", "contactemail", "emailto",
})  # fmt: skip
_SUMMARY = (
    Column("action", wraps=False), Column("reason", wraps=False), Column("addresses", right=True, wraps=False),
    Column("share", right=True, wraps=False),
)  # fmt: skip


@click.command()
@config_option
@json_option
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the list with its verdicts as CSV.")
@click.option("--only", type=click.Choice(["keep", "verify", "drop"]), help="Write the lines of this action only.")
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE", help="Draw the summary as an SVG picture.")
@click.option("--column", metavar="NAME", help="The column of the addresses. Default: told by its name.")
@click.option("--list", "list_id", metavar="ID", help="The mailing list (List-Id) whose own suppressions count too.")
@click.option("--dns/--no-dns", default=False, help="Ask DNS about domains that the store does not know. Default: no.")
@click.argument("file", metavar="LIST", type=click.Path(path_type=Path, allow_dash=True))
def hygiene(
    *,
    config: Path | None,
    as_json: bool,
    out: Path | None,
    only: str | None,
    picture: Path | None,
    column: str | None,
    list_id: str | None,
    dns: bool,
    file: Path,
) -> None:
    """Sort a list into keep, verify and drop, each address with its reasons; changes nothing.

    LIST is CSV with a column of addresses, or one address a line; - is standard input. Told are: no address, no mail
    there, disposable, misspelt, duplicates, suppressed, opted out, held for a while, bouncing, dormant. --json writes
    one line an address, --out the list itself with four more columns.
    """
    from mailback.cli.validate import checker_of
    from mailback.policy.hygiene import HygieneRules

    settings = load_settings(config)
    rules = HygieneRules(settings.hygiene.dormant_days, settings.hygiene.unread_messages)
    tally = Tally()
    with ExitStack() as stack:
        store = stack.enter_context(open_store(config))
        stream = stack.enter_context(_reading(file))
        bar = stack.enter_context(progress("addresses", lines_in(file)))
        lines = Lines(stream, column, str(file))
        sink = stack.enter_context(_writing(out, lines)) if out is not None else None
        sorter = Sorter(store, checker_of(settings, store, dns=dns), rules, list_id)
        while chunk := list(islice(lines, AT_ONCE)):
            for line, judged in zip(chunk, sorter.sort([line.address for line in chunk]), strict=True):
                tally.count(judged)
                if only is not None and judged.judgement.action != only:
                    continue
                if as_json:
                    json_line({"line": line.number} | judged.to_dict())
                if sink is not None:
                    sink([*line.cells, *judged.cells()])
            bar.step(len(chunk))
        sorter.keep_what_dns_said()
    if not as_json:
        _summary(tally)
    if picture is not None:
        from mailback.cli.hygiene_picture import draw

        picture.write_text(draw(tally.total, tally.actions, tally.reasons, file.name), "utf-8")


# ---- the list -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the list."""

    number: int
    cells: list[str]
    address: str


class Lines:
    """The lines of a list; its header, where it has one, tells the column."""

    def __init__(self, stream: TextIO, column: str | None, name: str) -> None:
        self._name = name
        csv.field_size_limit(FIELD_MAX)
        beginning = stream.readline(FIELD_MAX)
        self.delimiter = _delimiter(beginning)
        self._rows = csv.reader(closed(_again(beginning, stream)), delimiter=self.delimiter)
        self.header: list[str] | None = None
        first = next(self._read(), None)
        self._first = first
        self._column = 0
        if first is not None:
            self._column = self._told(first, column)
        self._rest = self._lines()

    def _told(self, first: list[str], column: str | None) -> int:
        """The column of the addresses; takes the first line for a header where it holds none."""
        names = [_plain(cell) for cell in first]
        if column is not None:
            if _plain(column) not in names:
                told = ", ".join(first[:20])
                raise CommandError(f"{self._name} has no column {column!r}", f"it has: {told}", exit_code=2)
            self._begin(first)
            return names.index(_plain(column))
        holds = next((number for number, cell in enumerate(first) if "@" in cell), None)
        if holds is not None:
            return holds
        named = next((number for number, name in enumerate(names) if name in _ADDRESS_COLUMNS), None)
        if named is None and len(first) > 1:
            raise CommandError(
                f"{self._name}: no column is named like one of addresses", "say which: --column NAME", exit_code=2
            )
        if named is not None:
            self._begin(first)
        return named or 0

    def _begin(self, header: list[str]) -> None:
        self.header, self._first = header, None

    def __iter__(self) -> Iterator[Line]:
        """The same each time: a list can be read once."""
        return self._rest

    def _lines(self) -> Iterator[Line]:
        if self._first is not None:
            yield self._line(self._first)
        for cells in self._read():
            yield self._line(cells)

    def _line(self, cells: list[str]) -> Line:
        address = cells[self._column] if self._column < len(cells) else ""
        return Line(self._rows.line_num, cells, address.strip())

    def _read(self) -> Iterator[list[str]]:
        """Rows that are not empty. Raises CommandError with the line of what cannot be read."""
        try:
            for cells in self._rows:
                if any(cells):
                    yield cells
        except csv.Error as error:
            line = line_of(error, self._rows.line_num)
            raise CommandError(f"{self._name}:{line}: {error}", "correct the line") from error


def _again(beginning: str, stream: TextIO) -> Iterator[str]:
    yield beginning
    yield from stream


def _delimiter(line: str) -> str:
    """The separator that stands in the first line most often; a comma where none does."""
    return max(_DELIMITERS, key=line.count)


def _plain(name: str) -> str:
    """A column name as names are compared: `E-Mail Address` is `emailaddress`."""
    return "".join(filter(str.isalnum, name.lower()))


@contextmanager
def _reading(file: Path) -> Iterator[TextIO]:
    try:
        with reading(file) as stream:
            yield stream
    except UnicodeDecodeError as error:
        place = "standard input" if str(file) == "-" else f"{file}:{_first_wrong(file)}"
        raise CommandError(f"{place}: not UTF-8", "convert the list: iconv -t UTF-8") from error


def _first_wrong(file: Path) -> int:
    """The first line that is not UTF-8."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


@contextmanager
def _writing(out: Path, lines: Lines) -> Iterator[Callable[[Sequence[str]], object]]:
    with replacing(out) as raw:
        text = TextIOWrapper(raw, "utf-8", newline="")  # detached, not closed: the file is synced and renamed after us
        writer = csv.writer(text, delimiter=lines.delimiter, lineterminator="\n")
        if lines.header is not None:
            writer.writerow([*lines.header, *ADDED])
        yield writer.writerow
        text.flush()
        text.detach()


# ---- the verdicts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    """One line with its verdict."""

    captured: Captured
    judgement: Judgement

    def to_dict(self) -> dict[str, object]:
        judgement = self.judgement
        return {
            "address": self.captured.address, "action": judgement.action,
            "reasons": [reason.id for reason in judgement.reasons],
            "says": [reason.says for reason in judgement.reasons],
            "suggestion": self.captured.suggestion, "reengage": judgement.reengage,
            "provider": self.captured.provider,
        }  # fmt: skip

    def cells(self) -> list[str]:
        judgement = self.judgement
        names = " ".join(reason.id for reason in judgement.reasons)
        return [judgement.action, names, self.captured.suggestion or "", "yes" if judgement.reengage else ""]


@dataclass(slots=True)
class Tally:
    """How many there are of what."""

    total: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By action and reason; an address counts for each reason of its own action."""
    reengage: int = 0

    def count(self, judged: Judged) -> None:
        judgement = judged.judgement
        self.total += 1
        self.actions[judgement.action] += 1
        self.reengage += judgement.reengage
        self.reasons.update({(judgement.action, one.id) for one in judgement.reasons if one.action == judgement.action})


class Sorter:
    """Judges the addresses of one list, in their order."""

    def __init__(self, store: Store, checker: Checker, rules: HygieneRules, list_id: str | None) -> None:
        self._store = store
        self._checker = checker
        self._rules = rules
        self._list_id = list_id
        self._seen: set[bytes] = set()
        self._now = datetime.now(UTC)

    def sort(self, addresses: Sequence[str]) -> list[Judged]:
        """Up to `AT_ONCE` of them."""
        checked = self._checker.check(addresses, suppressions=False)
        known = self._store.histories([one.key for one in checked])
        return [Judged(one, self._judged(one, known.get(one.key))) for one in checked]

    def _judged(self, one: Captured, history: History | None) -> Judgement:
        from mailback.policy.hygiene import DROP, Judgement, Reason, judge

        mark = hashlib.blake2b(one.key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if mark in self._seen and one.key:
            return Judgement(DROP, (Reason("duplicate", DROP, "stands in the list already"),))
        self._seen.add(mark)
        return judge(one.reasons, history, self._rules, self._now, list_id=self._list_id)

    def keep_what_dns_said(self) -> None:
        learnt = self._checker.hosts.learnt()
        if learnt:
            self._store.submit(partial(_keep, learnt)).result()


def _keep(learnt: Sequence[MailDomain], transaction: Transaction) -> None:
    for domain in learnt:
        transaction.put_domain(domain)


def _summary(tally: Tally) -> None:
    from mailback.policy.hygiene import ORDER

    rows: list[Sequence[Any]] = []
    for action in ORDER:
        count = tally.actions[action]
        rows.append([action, Cell("all", "bold"), count, _share(count, tally.total)])
        of_action = sorted(((n, reason) for (a, reason), n in tally.reasons.items() if a == action), reverse=True)
        rows += [["", reason, n, _share(n, tally.total)] for n, reason in of_action]
    table(_SUMMARY, rows)
    say(f"{tally.total} addresses; {tally.reengage} may be asked once whether they want to stay")


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"

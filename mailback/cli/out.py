"""What commands print: tables in colour on a terminal, plain aligned text when piped, JSON where a script asks.

Addresses and diagnostics come out of strangers' mail. Everything that a person reads goes through `safe` first: escape
sequences, control characters, bidirectional overrides and lone surrogates are written out as `\\x1b`, so that no mail
can move a cursor, change a title or turn a line around. JSON is written in ASCII for the same reason.

rich takes 80 ms to import and is imported for a terminal only. Emits no log events.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def safe(value: object) -> str:
    """A value as one line that no terminal can be driven with; None is a dash."""
    if value is None or value == "":
        return "-"
    text = str(value)
    return text if text.isascii() and text.isprintable() else "".join(map(_harmless, text))


def _harmless(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE_CATEGORIES:
        return character
    return character.encode("unicode_escape").decode("ascii")


def when(moment: datetime | None, never: str = "-") -> str:
    """A time as people read it, in UTC and to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if moment else never


def iso(moment: datetime | None) -> str | None:
    """A time as scripts read it (RFC 3339, UTC)."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None


def json_line(value: object) -> None:
    """One JSON value on a line of its own, in ASCII: lone surrogates of broken mail survive, terminals do too."""
    text = json.dumps(value, ensure_ascii=True, separators=(", ", ": "), default=str)
    sys.stdout.write(text.replace("\x7f", "\\u007f") + "\n")


def say(text: str) -> None:
    """A line to a person, on standard output; what comes from mail must have gone through `safe`."""
    sys.stdout.write(text + "\n")


def complain(text: str) -> None:
    """A line about something that is wrong, on standard error."""
    sys.stdout.flush()
    sys.stderr.write(f"mailback: {text}\n")


def is_terminal(stream: TextIO | None = None) -> bool:
    return (stream or sys.stdout).isatty()


def console(stream: TextIO | None = None) -> Console:
    """rich's console; no markup, so no text of a mail is ever read as an instruction to it."""
    from rich.console import Console

    return Console(file=stream or sys.stdout, markup=False, highlight=False, emoji=False)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    style: str = ""
    """rich style of its cells; a cell may override it."""
    right: bool = False
    wraps: bool = True
    """False for what must stay in one piece: addresses, codes, times."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A value with a style of its own."""

    value: object
    style: str


STYLES = {
    "hard_bounce": "red", "complaint": "red", "block_bounce": "magenta", "spam_bounce": "magenta",
    "soft_bounce": "yellow", "delayed_bounce": "yellow", "challenge_bounce": "yellow", "delivered": "green",
    "suppress_permanently": "red", "suppress_temporarily": "yellow", "manual_review": "magenta",
    "risky": "yellow", "blocked": "red", "unknown": "magenta", "keep": "green", "drop": "red", "verify": "yellow",
    "ok": "green", "warn": "yellow", "fail": "bold red",
}  # fmt: skip
"""Colours of words that mean the same in every table."""


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]], *, title: str = "", empty: str = "") -> int:
    """Print rows as a table; the number of rows. `empty` is said when there are none."""
    made = [[_cell(value, column) for value, column in zip(row, columns, strict=True)] for row in rows]
    if not made:
        if empty:
            say(empty)
    elif is_terminal():
        _rich_table(columns, made, title)
    else:
        _plain_table(columns, made)
    return len(made)


def _cell(value: object, column: Column) -> Cell:
    if isinstance(value, Cell):
        return Cell(safe(value.value), value.style)
    return Cell(safe(value), STYLES.get(str(value), column.style))


def _rich_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], title: str) -> None:
    console().print(rich_table(columns, rows, title))


def rich_table(columns: Sequence[Column], rows: Iterable[Sequence[object]], title: str = "") -> Table:
    """The table as rich prints it, or shows it live."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(title, "bold") if title else None, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        made.add_column(
            Text(column.title), justify="right" if column.right else "left", no_wrap=not column.wraps, overflow="fold"
        )
    for row in rows:
        cells = [_cell(value, column) for value, column in zip(row, columns, strict=True)]
        made.add_row(*(Text(str(cell.value), cell.style) for cell in cells))
    return made


def _plain_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Aligned columns, two spaces apart, nothing cut off: `awk` and `grep` see whole values."""
    lines = [[column.title for column in columns], *([str(cell.value) for cell in row] for row in rows)]
    widths = [max(_width(line[n]) for line in lines) for n in range(len(columns))]
    for line in lines:
        cells = [
            _padded(text, width, right=column.right) for text, width, column in zip(line, widths, columns, strict=True)
        ]
        say("  ".join(cells).rstrip())


def _width(text: str) -> int:
    """Columns of a terminal that a text takes: East Asian wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _padded(text: str, width: int, *, right: bool) -> str:
    fill = " " * (width - _width(text))
    return fill + text if right else text + fill


class Progress:
    """Counts items; shows a bar on a terminal's standard error, nothing else."""

    def __init__(self, advance: object = None, expect: object = None) -> None:
        self._advance = advance
        self._expect = expect

    def expect(self, total: int) -> None:
        """How many there are, where that was not known at first."""
        if callable(self._expect):
            self._expect(total)

    def step(self, count: int = 1) -> None:
        if callable(self._advance):
            self._advance(count)


@contextmanager
def progress(what: str, total: int | None, *, octets: bool = False) -> Iterator[Progress]:
    """A progress bar for work that may take a while; silent when standard error is no terminal.

    It counts items, or with `octets` what is read of files.
    """
    if not is_terminal(sys.stderr):
        yield Progress()
        return
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    count = DownloadColumn() if octets else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Bar(*columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield Progress(lambda count: bar.advance(task, count), lambda total: bar.update(task, total=total))

"""Quotes of a CSV that nothing closes: without a word everything behind one would be taken for a single field.

Emits no log events.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

_Row_co = TypeVar("_Row_co", covariant=True)

_OPENS = re.compile(r'(?:^|[,;\t|])"')
"""A quote opens a field where one begins; elsewhere it is a letter like any other (`5" pipe`)."""


class Unclosed(csv.Error):
    """A quote is opened that nothing closes."""

    def __init__(self, line: int) -> None:
        super().__init__("a quote is opened here that nothing closes, so nothing behind it could be read")
        self.line = line


class Reader(Protocol[_Row_co]):
    """A `csv.reader` or `csv.DictReader`."""

    @property
    def line_num(self) -> int: ...

    def __next__(self) -> _Row_co: ...


def rows(reader: Reader[_Row_co], before: int = 0) -> Iterator[tuple[int, _Row_co | csv.Error]]:
    """Each row with the line it ends on, or in its place what is wrong with it; those behind it follow.

    `before` is how many lines stood above those that the reader was given.
    """
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line_of(error, reader.line_num + before), error
            continue
        yield reader.line_num + before, row


def line_of(error: csv.Error, line: int) -> int:
    """Where to look for what is wrong, if the reader stopped at `line`."""
    return error.line if isinstance(error, Unclosed) else line


def closed(lines: Iterable[str], before: int = 0) -> Iterator[str]:
    """The lines as they are; `before` is how many stood above them. Raises Unclosed behind the last one."""
    since: int | None = None
    for number, line in enumerate(lines, before + 1):
        if '"' in line:
            since = _open_at_end(line, since, number)
        yield line
    if since is not None:
        raise Unclosed(since)


def _open_at_end(line: str, since: int | None, number: int) -> int | None:
    """The line on which the quote was opened that is open at the end of this one; None where none is."""
    at = 0
    while True:
        if since is None:
            opens = _OPENS.search(line, at)
            if opens is None:
                return None
            since, at = number, opens.end()
        end = _closing(line, at)
        if end is None:
            return since
        since, at = None, end


def _closing(line: str, at: int) -> int | None:
    """Where a quoted field ends: behind its first quote that is not one of two."""
    while (found := line.find('"', at)) >= 0:
        if line[found + 1 : found + 2] != '"':
            return found + 1
        at = found + 2
    return None

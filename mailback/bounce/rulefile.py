"""Reading a rule file so that every mistake in it is told at once, with its line.

A rule file is TOML. `read_table` hands its top table to a reader, which asks for values of the type it expects;
whatever is missing, of the wrong type or never asked for is noted as a problem. Values that are wrong are replaced by a
harmless default, so that the reader goes on and the operator sees all problems in one round. Emits no log events.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mailback.bounce import dialect
from mailback.bounce.taxonomy import Subcategory
from mailback.toml_lines import key_lines

_T = TypeVar("_T")

Place = tuple[str | int, ...]


class RulesError(Exception):
    """Rule files that cannot be used; `problems` lists every one as `file:line: what is wrong, what is expected`."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def load_all(loads: Mapping[str, Callable[[], object]]) -> dict[str, Any]:
    """What each gives, by its name. Raises RulesError with the problems of all of them, each once."""
    loaded: dict[str, Any] = {}
    problems: dict[str, None] = {}
    for name, load in loads.items():
        try:
            loaded[name] = load()
        except RulesError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise RulesError(list(problems))
    return loaded


class Table:
    """One table of a rule file that is being checked: hands out values of the right type, and notes what is wrong."""

    def __init__(self, document: _Document, place: Place, values: object) -> None:
        self._document = document
        self.place = place
        self._values: dict[str, Any] = dict(values) if isinstance(values, dict) else {}
        if not isinstance(values, dict):
            self.wrong(f"expected a table, not {_shown(values)}")

    def wrong(self, what: str, *below: str | int) -> None:
        """Note a problem at this table, or at one of its keys."""
        self._document.wrong((*self.place, *below), what)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str, default: str | None = None) -> str:
        """A string; required unless there is a default."""
        return self._take(key, str, "a string", default) or ""

    def flag(self, key: str, default: bool) -> bool:
        return bool(self._take(key, bool, "true or false", default))

    def fraction(self, key: str) -> float:
        """A number from 0 to 1."""
        value = self._take(key, (int, float), "a number from 0 to 1", None)
        if value is None:
            return 0.0
        if isinstance(value, bool) or not 0 <= value <= 1:
            self.wrong(f"{key} is {_shown(value)}, expected a number from 0 to 1", key)
            return 0.0
        return float(value)

    def number(self, key: str) -> int | None:
        """A positive integer, or None when the key is absent."""
        if key not in self._values:
            return None
        value = self._take(key, int, "a positive whole number", None)
        if value is not None and (isinstance(value, bool) or value <= 0):
            self.wrong(f"{key} is {_shown(value)}, expected a positive whole number", key)
            return None
        return value

    def word(self, key: str, kind: Callable[[str], _T], known: Iterable[str], default: _T) -> _T:
        """One of the words that an enumeration knows."""
        if key not in self._values:
            self.wrong(f"{key} is missing, expected one of our words")
            return default
        value = self._values.pop(key)
        try:
            return kind(value)
        except ValueError:
            self.wrong(f"{key} is {_shown(value)}, expected one of {', '.join(known)}", key)
            return default

    def words(self, key: str, kind: Callable[[str], _T], known: Iterable[str]) -> list[_T]:
        """A list of words of an enumeration; absent is empty."""
        found = []
        for index, item in self.strings(key) if key in self._values else ():
            try:
                found.append(kind(item))
            except ValueError:
                self.wrong(f"{key} holds {_shown(item)}, expected {', '.join(known)}", key, index)
        return found

    def cause(self, key: str, default: Subcategory | None = None) -> Subcategory:
        """A subcategory of the taxonomy; required unless there is a default."""
        if default is not None and key not in self._values:
            return default
        return self.word(key, Subcategory, Subcategory, Subcategory.UNKNOWN)

    def strings(self, key: str, form: re.Pattern[str] | None = None) -> list[tuple[int, str]]:
        """A list of strings, each with its index; the wrong ones are noted and left out."""
        value = self._take(key, list, "a list of strings", [])
        kept = []
        for index, item in enumerate(value or ()):
            if not isinstance(item, str) or (form is not None and not form.fullmatch(item)):
                self.wrong(f"{key} holds {_shown(item)}, which is not of the form expected", key, index)
            else:
                kept.append((index, item))
        return kept

    def unread(self) -> list[str]:
        """The keys that nobody has asked for yet."""
        return list(self._values)

    def table(self, key: str) -> Table:
        """A table below this one; required."""
        return Table(self._document, (*self.place, key), self._take(key, dict, "a table", None) or {})

    def tables(self, key: str) -> Iterator[tuple[str, Table]]:
        """A table of tables: each name with its table."""
        value = self._take(key, dict, "a table", {})
        for name, values in (value or {}).items():
            yield name, Table(self._document, (*self.place, key, name), values)

    def list_of_tables(self, key: str) -> Iterator[Table]:
        """An array of tables (`[[key]]`)."""
        value = self._take(key, list, f"tables headed [[{key}]]", [])
        for index, values in enumerate(value or ()):
            yield Table(self._document, (*self.place, key, index), values)

    def patterns(self, key: str) -> tuple[dialect.Node, ...]:
        """Patterns of our dialect."""
        nodes = []
        for index, pattern in self.strings(key):
            try:
                nodes.append(dialect.parse(pattern))
            except dialect.DialectError as error:
                self.wrong(f"pattern {pattern!r}: {error}", key, index)
        return tuple(nodes)

    def drop(self) -> None:
        """Leave the rest of the table unread: it is switched off."""
        self._values.clear()

    def finish(self) -> None:
        """Whatever was not asked for is not known."""
        for key in self._values:
            self.wrong(f"unknown key {key!r}", key)

    def _take(self, key: str, types: type | tuple[type, ...], expected: str, default: _T | None) -> Any:
        if key not in self._values:
            if default is None:
                self.wrong(f"{key} is missing, expected {expected}")
            return default
        value = self._values.pop(key)
        if not isinstance(value, types):
            self.wrong(f"{key} is {_shown(value)}, expected {expected}", key)
            return default
        return value


class _Document:
    """A rule file while it is being checked."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self._text = text
        self._lines: dict[Place, int] | None = None
        self.problems: list[tuple[int, str]] = []

    def wrong(self, place: Place, what: str) -> None:
        if self._lines is None:  # finding the lines costs as much as parsing: only when something is wrong
            self._lines = key_lines(self._text)
        while place and place not in self._lines:
            place = place[:-1]
        self.problems.append((self._lines.get(place, 1), what))


def read_table(path: Path, read: Callable[[Table], None]) -> list[str]:
    """Read one rule file and hand its top table to `read`; returns the problems as `file:line: what`."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        values = tomllib.loads(text)
    except OSError as error:
        return [f"{path}: cannot be read ({error.strerror})"]
    except UnicodeDecodeError as error:
        return [f"{path}: not UTF-8 at byte {error.start}"]
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"at line (\d+)", str(error))
        return [f"{path}:{place[1] if place else text.count(chr(10)) + 1}: {error}"]
    document = _Document(path, text)
    top = Table(document, (), values)
    read(top)
    top.finish()
    return [f"{path}:{line}: {what}" for line, what in sorted(document.problems)]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

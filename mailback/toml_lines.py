"""On which line of a TOML file each key stands, so that a wrong value can be told with its place.

`tomllib` reports a place for syntax errors only and forgets where values came from. This scanner walks a document that
`tomllib` has already accepted, and therefore judges nothing: it knows just enough of the grammar (TOML 1.0) to step
over strings, comments, arrays and inline tables. One pass, linear. Emits no log events.
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_BETWEEN = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")  # what may stand between the values of an array
_SCALAR = re.compile(r"[^,\]}#\r\n]*")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


def key_lines(text: str) -> dict[Path, int]:
    """Line (from 1) of every table, key and array element of a valid TOML document.

    Arrays count from 0: `("smtpd", "listen", 1)` is the second element, `("rule", 0, "name")` a key of the first table
    of an array of tables. A table that is opened several times (by dotted keys) keeps its first line.
    """
    return _Scan(text).document()


class _Scan:
    """The place reached in a document, and what was found up to there."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, int] = {}
        self.tables: dict[Path, int] = {}  # array of tables -> index of its last element
        self.line = 1
        self._counted = 0  # offset up to which newlines are counted

    def document(self) -> dict[Path, int]:
        table: Path = ()
        while self._between():
            if self.text.startswith("[[", self.at):
                table = self._table_header(2)
            elif self.text[self.at] == "[":
                table = self._table_header(1)
            else:
                self._pair(table)
        return self.found

    def _between(self) -> bool:
        """Step over blanks, newlines and comments; False at the end of the text."""
        match = _BETWEEN.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at < len(self.text)

    def _note(self, path: Path) -> None:
        self.line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        for length in range(1, len(path) + 1):
            self.found.setdefault(path[:length], self.line)

    def _table_header(self, brackets: int) -> Path:
        self.at += brackets
        path = self._resolved(self._key(), array=brackets == 2)
        self._note(path)
        self.at += brackets
        return path

    def _resolved(self, key: list[str], *, array: bool) -> Path:
        """A header's key as a path: names of arrays of tables are followed by the index of their last element."""
        path: Path = ()
        for position, name in enumerate(key):
            path = (*path, name)
            if array and position == len(key) - 1:
                self.tables[path] = self.tables.get(path, -1) + 1
            if path in self.tables:
                path = (*path, self.tables[path])
        return path

    def _key(self) -> list[str]:
        """A key, dotted or not; leaves the place after the blanks behind it."""
        names = []
        while True:
            self._blank()
            if self.text[self.at] in "\"'":
                names.append(self._string())
            else:
                match = _BARE.match(self.text, self.at)
                names.append(match.group() if match else "")
                self.at = match.end() if match else self.at
            self._blank()
            if not self.text.startswith(".", self.at):
                return names
            self.at += 1

    def _blank(self) -> None:
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def _pair(self, table: Path) -> None:
        start = self.at
        key = self._key()
        path = (*table, *key)
        end, self.at = self.at, start
        self._note(path)
        self.at = end + 1  # the equals sign
        self._blank()
        self._value(path)

    def _value(self, path: Path) -> None:
        first = self.text[self.at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            match = _SCALAR.match(self.text, self.at)
            self.at = match.end() if match else self.at

    def _array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while self._between() and self.text[self.at] != "]":
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self._note((*path, index))
            self._value((*path, index))
            index += 1
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        while self._between() and self.text[self.at] != "}":
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self._pair(path)
        self.at += 1

    def _string(self) -> str:
        quote = self.text[self.at]
        if self.text.startswith(quote * 3, self.at):
            return self._long_string(quote * 3)
        start = self.at + 1
        end = self._closing(quote, start)
        self.at = end + 1
        body = self.text[start:end]
        return body if quote == "'" else _ESCAPE.sub(_unescaped, body)

    def _long_string(self, quotes: str) -> str:
        start = self.at + 3
        end = self._closing(quotes, start)
        while self.text.startswith(quotes[0], end + 3):  # up to two quotes may stand before the closing three
            end += 1
        self.at = end + 3
        return self.text[start:end]  # never a key, so its value is of no interest

    def _closing(self, quotes: str, start: int) -> int:
        """Offset of the closing quotes; a backslash hides the next character in basic strings only."""
        end = self.text.find(quotes, start)
        if quotes[0] == "'":
            return end
        at = start
        while (escape := self.text.find("\\", at, end)) != -1:
            at = escape + 2
            if at > end:
                end = self.text.find(quotes, at)
        return end


def _unescaped(match: re.Match[str]) -> str:
    short, long, single = match.groups()
    return chr(int(short or long, 16)) if short or long else _ESCAPED.get(single, single)

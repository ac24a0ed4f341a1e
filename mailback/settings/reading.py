"""A configuration file as read: what is no TOML, no known key or no right value, each with its line.

The environment is laid over the file. What is wrong is kept, and the rest is validated all the same, so that every
problem is told at once. Emits no log events.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from mailback import locations
from mailback.settings.problems import Conflict, Problem
from mailback.settings.section import Section, is_secret, keys_of, variable
from mailback.settings.values import ROUTE, expected, without_none
from mailback.toml_lines import key_lines

_MOST_SYNTAX_ERRORS = 20
_VARIABLE = re.compile(r"MAILBACK_(?P<section>[A-Z]+)_(?P<key>\w+)")
_PLATFORM = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$")
"""What Kubernetes sets for a service called `mailback` or `mailback-milter`; not meant for us."""
_S = TypeVar("_S", bound=Section)


class Document(Generic[_S]):
    """A configuration file as read, the environment laid over it, and what was found wrong so far."""

    def __init__(self, file: str, model: type[_S]) -> None:
        self.file = file
        self.model = model
        self.data: dict[str, Any] = {}
        self.lines: dict[tuple[str | int, ...], int] = {}
        self.from_environment: dict[tuple[str, str], str] = {}
        self.unread: set[str] = set()  # keys on lines with a syntax error: nothing is known of them
        self.problems: list[Problem] = []

    @classmethod
    def read(cls, path: Path | None, environ: Mapping[str, str], model: type[_S]) -> Document[_S]:
        if path is None:
            return cls.parse("", "", environ, model)
        document = cls(str(path), model)
        try:
            raw = path.read_bytes()
        except OSError as error:
            document._problem(0, "", f"cannot be read: {error.strerror}", "a readable configuration file")
            return document
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            document._problem(line, "", "is not UTF-8 here", "text in UTF-8")
            return document
        return cls.parse(str(path), text, environ, model)

    @classmethod
    def parse(cls, file: str, text: str, environ: Mapping[str, str], model: type[_S]) -> Document[_S]:
        document = cls(file, model)
        readable = document._without_syntax_errors(text.replace("\r\n", "\n"))
        if readable is not None:
            document.data = tomllib.loads(readable)
            document.lines = key_lines(readable)
        document._lay_over(environ)
        return document

    def _problem(self, line: int, key: str, what: str, expected_: str) -> None:
        self.problems.append(Problem(self.file, line, key, what, expected_))

    def _without_syntax_errors(self, text: str) -> str | None:
        """The text with lines that are no TOML blanked out, so that what is wrong further down is told as well.

        None where what follows an error cannot be made sense of (an open bracket or string): guesses would mislead.
        """
        lines = text.split("\n")
        for _ in range(_MOST_SYNTAX_ERRORS):
            try:
                tomllib.loads("\n".join(lines))
            except tomllib.TOMLDecodeError as error:
                what, line = _syntax_error(error, len(lines))
            except RecursionError:
                self._problem(0, "", "values are nested too deeply", "what the template shows")
                return None
            else:
                return "\n".join(lines)
            statement = re.match(r"\s*([A-Za-z0-9_-]+)", lines[line - 1])
            self._problem(line, "", what, "")
            if statement is None or "Unclosed" in what or "Unterminated" in what:
                return None
            self.unread.add(statement[1])
            lines[line - 1] = ""
        return None

    def _lay_over(self, environ: Mapping[str, str]) -> None:
        """Values from the environment; an empty one empties a list, and else counts as unset."""
        for section, key, field in keys_of(self.model):
            name = variable(section, key)
            if not environ.get(name) and not (name in environ and _is_list(field)):
                continue
            table = self.data.setdefault(section, {})
            if isinstance(table, dict):
                table[key] = _from_text(environ[name], field)
                self.from_environment[section, key] = name
        self._blame_variables(environ)

    def _blame_variables(self, environ: Mapping[str, str]) -> None:
        """Tell variables that set a key of a section which it does not have."""
        known = {variable(section, key) for section, key, _ in keys_of(self.model)}
        for name in sorted(environ.keys() - known):
            owner = _VARIABLE.fullmatch(name)
            if owner is None or owner["section"].lower() not in self.model.model_fields or _PLATFORM.search(name):
                continue
            what, wanted = _unknown(self.model, (owner["section"].lower(), owner["key"].lower()))
            self.problems.append(Problem("environment", 0, name, what.replace("key", "variable", 1), wanted))

    def validated(self) -> tuple[_S, set[str]]:
        """The settings without the keys that are wrong, and which those are.

        The rest is validated all the same, so that contradictions between right keys are told in the same breath.
        """
        bad: set[str] = {f"{section}.{key}" for section, key, _ in keys_of(self.model) if key in self.unread}
        self._complete_store()
        data = _tuples(self.data)
        try:
            return self.model.model_validate(data), bad
        except ValidationError as error:
            for found in error.errors(include_url=False):
                place = found["loc"]
                self._blame_value(place, found)
                bad.add(".".join(str(name) for name in place[:2]))
                _remove(data, place[:2])
        return self.model.model_validate(data), bad

    def _complete_store(self) -> None:
        """Put the password into the URL, and let database and state folder lead to each other.

        Whoever runs a command finds models and quarantine where the service has them: by the configuration, and not by
        his own home or by what systemd told the service alone.
        """
        store, service = self.data.setdefault("store", {}), self.data.setdefault("service", {})
        if not isinstance(store, dict) or not isinstance(service, dict):
            return  # told as no table
        directory = service.get("state_directory")
        if "url" not in store and isinstance(directory, str) and directory:
            store["url"] = locations.default_store_url(Path(directory))
        elif directory is None and isinstance(url := store.get("url"), str):
            database = locations.sqlite_path(url)
            if database is not None:
                service["state_directory"] = str(database.absolute().parent)
        if "password_file" in store:
            self._put_password(store)

    def _put_password(self, store: dict[str, Any]) -> None:
        path, url = store.get("password_file"), store.get("url")
        if not isinstance(path, str):
            return  # told as a value of the wrong type
        if not isinstance(url, str) or not url.startswith("postgresql"):
            self.blame(Conflict(("store.password_file",), "a password without a server", "a PostgreSQL `url`"))
            return
        try:
            store["url"] = locations.with_password(url, Path(path).read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is not text"
            self.blame(Conflict(("store.password_file",), f"{path}: {reason}", "a file that can be read"))

    def blame_missing(self, bad: set[str]) -> None:
        """Tell a key that another makes necessary; the other's own value may be wrong."""
        smtpd = self.data.get("smtpd", {})
        if "smtpd.next_hop" in bad or not isinstance(smtpd, dict) or not smtpd.get("listen") or "next_hop" in smtpd:
            return
        keys = ("smtpd.next_hop", "smtpd.listen")
        self.blame(Conflict(keys, "is missing: people's mail must go somewhere", ROUTE))

    def _blame_value(self, place: tuple[int | str, ...], found: Any) -> None:
        field = _field(self.model, place)
        key = ".".join(str(name) for name in place[:2])
        if found["type"] == "extra_forbidden":
            what, wanted = _unknown(self.model, place)
        elif field is None:
            what, wanted = f"{_shown(found['input'])} is no table", f"a table: [{place[0]}]"
        else:
            custom = found.get("ctx", {}).get("error")
            what = str(custom) if custom is not None else f"{_shown(found['input'])} will not do"
            wanted = expected(field)
            if is_secret(field) and custom is None:
                what = f"a {type(found['input']).__name__} will not do"
        self._blame(place, key, what, wanted)

    def _blame(self, place: tuple[int | str, ...], key: str, what: str, wanted: str) -> None:
        name = self.from_environment.get((str(place[0]), str(place[1]))) if len(place) > 1 else None
        if name is not None:
            self.problems.append(Problem("environment", 0, name, what, wanted))
            return
        line = next((self.lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self.lines), 0)
        self._problem(line, key, what, wanted)

    def blame(self, conflict: Conflict) -> None:
        """Tell a contradiction, at the first of its keys that is set."""
        places: list[tuple[int | str, ...]] = [tuple(key.split(".")) for key in conflict.keys]
        place = next(
            (p for p in places if p in self.lines or (str(p[0]), str(p[-1])) in self.from_environment), places[0]
        )
        self._blame(place, conflict.keys[0], conflict.what, conflict.expected)


def _syntax_error(error: tomllib.TOMLDecodeError, last_line: int) -> tuple[str, int]:
    """What tomllib says, and the line; it puts the place into its words only."""
    told = re.fullmatch(r"(.*?) \((?:at line (\d+), column \d+|at end of document)\)", str(error), re.DOTALL)
    if told is None:
        return str(error), 0
    return f"not TOML: {told[1]}", int(told[2]) if told[2] else last_line


def _from_text(text: str, field: FieldInfo) -> object:
    """A value of the environment: text for keys that take text, else as TOML writes it; several by commas or spaces."""
    if _is_list(field):
        return tuple(text.replace(",", " ").split())
    annotation = without_none(field.annotation)
    if annotation in (bool, int, float):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text  # refused with what was expected
    return text


def _is_list(field: FieldInfo) -> bool:
    return get_origin(without_none(field.annotation)) is tuple


def _tuples(value: Any) -> Any:
    """Lists as tuples, as strict validation wants them: what is frozen holds no list."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _remove(data: dict[str, Any], place: tuple[int | str, ...]) -> None:
    holder = data if len(place) == 1 else data.get(str(place[0]), {})
    if isinstance(holder, dict):
        holder.pop(str(place[-1]), None)


def _field(model: type[Section], place: tuple[int | str, ...]) -> FieldInfo | None:
    return next((field for section, key, field in keys_of(model) if (section, key) == place[:2]), None)


def _shown(value: object) -> str:
    """A value as the file writes it, short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    told = f'"{value}"' if isinstance(value, str) else str(list(value) if isinstance(value, tuple) else value)
    return told if len(told) <= 80 else f"{told[:77]}..."


def _unknown(model: type[Section], place: tuple[int | str, ...]) -> tuple[str, str]:
    """What to say of a section or key that does not exist."""
    from difflib import get_close_matches

    name = str(place[-1])
    if len(place) == 1:
        known = list(model.model_fields)
        owner = [section for section, key, _ in keys_of(model) if key == name]
        kind = "section"
    else:
        known = [key for section, key, _ in keys_of(model) if section == place[0]]
        owner = [section for section, key, _ in keys_of(model) if key == name]
        kind = "key"
    if owner:
        return f"unknown {kind}", f"it in {' or '.join(f'[{section}]' for section in owner)}"
    if close := get_close_matches(name, known, n=1, cutoff=0.6):
        return f"unknown {kind}, did you mean {close[0]!r}?", ""
    return f"unknown {kind}", f"one of {', '.join(known)}"

"""What is wrong with a configuration: a problem with its place, all of them as one error, a contradiction of keys.

Emits no log events: the caller shows the problems.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and what would be right."""

    file: str
    """The configuration file, or `environment`."""
    line: int
    """From 1; 0 where no line is to blame (a key that is missing, an environment variable)."""
    key: str
    """`section.key`, a section, the name of an environment variable, or empty for the file as a whole."""
    what: str
    expected: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        told = ": ".join(part for part in (place, self.key, self.what) if part)
        return f"{told}; expected {self.expected}" if self.expected else told


class SettingsError(Exception):
    """The configuration cannot be used; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class Conflict(NamedTuple):
    """Something wrong between keys that are each right by themselves; the first key is told."""

    keys: tuple[str, ...]
    what: str
    expected: str

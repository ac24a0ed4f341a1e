"""Reading the rule files of replies: lists of phrases, the shipped file first, an operator's own extending it.

Log events: none. A wrong file raises RulesError, which names file and line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mailback.bounce.rulefile import RulesError, Table, read_table

Lists = dict[str, tuple[str, ...]]
"""Phrases by `table.key`."""


def lists(directories: Sequence[Path], name: str, keys: dict[str, tuple[str, ...]]) -> Lists:
    """Read `[table] key = [phrases]` of `name` from each directory that has it; `keys` names what each table holds.

    Raises RulesError with every problem, and FileNotFoundError where no directory has the file.
    """
    told: dict[str, list[str]] = {f"{table}.{key}": [] for table, names in keys.items() for key in names}
    problems: list[str] = []

    def take(top: Table) -> None:
        for table, names in keys.items():
            if table not in top:
                continue
            below = top.table(table)
            for key in names:
                if key in below:
                    told[f"{table}.{key}"].extend(text for _, text in below.strings(key))
            below.finish()

    for path in present(directories, name):
        problems.extend(read_table(path, take))
    if problems:
        raise RulesError(problems)
    return {key: tuple(phrases) for key, phrases in told.items()}


def present(directories: Sequence[Path], name: str) -> list[Path]:
    """The files of that name, in the order of the directories.

    Raises FileNotFoundError where there is none.
    """
    found = [path for directory in directories if (path := directory / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{name} is in none of {', '.join(map(str, directories))}")
    return found

"""All words the report readers know, from the shipped files and an operator's own.

Log events: none. Wrong files raise ValueError, which names file and key: `config check` reports it, nothing starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from mailback.reports import dialects, words
from mailback.reports.dialects import Dialects
from mailback.reports.words import Words
from mailback.resources import rules_dir


class Vocabulary(NamedTuple):
    """What free-text reports and other machines' mail are recognised by."""

    dialects: Dialects
    words: Words


def load(directories: Sequence[Path]) -> Vocabulary:
    """Read `dialects.toml` and `machine_mail.toml` of each directory that has them; later ones extend earlier ones.

    Raises ValueError for a wrong file and FileNotFoundError where no directory has one.
    """
    return Vocabulary(dialects.load(directories), words.load(directories))


@lru_cache(maxsize=1)
def shipped() -> Vocabulary:
    """The files that ship, read once a process."""
    return load([rules_dir()])

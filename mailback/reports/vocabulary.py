"""All words the report readers know, from the shipped files and an operator's own.

Log events: none. Wrong files raise ValueError, which names file and key: `config check` reports it, nothing starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from mailback.reports import dialects, words
from mailback.reports.dialects import Dialects
from mailback.reports.phrases import Phrases
from mailback.reports.words import Words
from mailback.resources import rules_dir


class Vocabulary(NamedTuple):
    """What free-text reports and other machines' mail are recognised by."""

    dialects: Dialects
    words: Words
    subjects: Phrases
    """The lists `..._subjects` of both, by the names of their fields."""
    texts: Phrases
    """The lists `..._texts` of the dialects, and what gives each server away, by its name."""
    moves: Phrases
    """The lists `move_...`: what automatic answers say, and what only people do."""


def load(directories: Sequence[Path]) -> Vocabulary:
    """Read `dialects.toml` and `machine_mail.toml` of each directory that has them; later ones extend earlier ones.

    Raises ValueError for a wrong file and FileNotFoundError where no directory has one.
    """
    known, machines = dialects.load(directories), words.load(directories)
    return Vocabulary(known, machines, _subjects(known, machines), _texts(known), _moves(machines))


def _subjects(known: Dialects, machines: Words) -> Phrases:
    return Phrases(_lists(known, "_subjects") | _lists(machines, "_subjects"))


def _texts(known: Dialects) -> Phrases:
    return Phrases(_lists(known, "_texts") | {server.name: server.text for server in known.servers})


def _moves(machines: Words) -> Phrases:
    names = (field.name for field in fields(machines) if field.name.startswith("move_"))
    return Phrases({name: getattr(machines, name) for name in names})


def _lists(words: Dialects | Words, ending: str) -> dict[str, tuple[str, ...]]:
    """The lists of phrases whose names end so."""
    return {field.name: getattr(words, field.name) for field in fields(words) if field.name.endswith(ending)}


@lru_cache(maxsize=1)
def shipped() -> Vocabulary:
    """The files that ship, read once a process."""
    return load([rules_dir()])

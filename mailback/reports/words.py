"""The words by which machines' mail other than bounces is told, loaded from `config/rules/machine_mail.toml`.

Log events: none. A wrong file raises ValueError that names the file and the key; the shipped file is held to be right
by a test. An operator's own file extends each list.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

FILE = "machine_mail.toml"


@dataclass(frozen=True, slots=True)
class Words:
    """Phrases, lower case. Names follow the tables of the file: `[complaint] subjects` is `complaint_subjects`."""

    complaint_subjects: tuple[str, ...]
    complaint_senders: tuple[str, ...]
    receipt_subjects: tuple[str, ...]
    receipt_refusals: tuple[str, ...]
    receipt_texts: tuple[str, ...]
    auto_subjects: tuple[str, ...]
    auto_weak_subjects: tuple[str, ...]
    auto_texts: tuple[str, ...]
    auto_statements: tuple[str, ...]
    away_words: tuple[str, ...]
    left_words: tuple[str, ...]
    acknowledgement_words: tuple[str, ...]
    gone_words: tuple[str, ...]
    challenge_subjects: tuple[str, ...]
    challenge_texts: tuple[str, ...]
    challenge_certain: tuple[str, ...]
    challenge_hosts: tuple[str, ...]
    challenge_headers: tuple[str, ...]
    moderation_subjects: tuple[str, ...]
    moderation_texts: tuple[str, ...]
    notice_certain_subjects: tuple[str, ...]
    notice_subjects: tuple[str, ...]
    notice_texts: tuple[str, ...]
    unsubscribe_localparts: tuple[str, ...]
    move_away: tuple[str, ...]
    move_left: tuple[str, ...]
    move_received: tuple[str, ...]
    move_unread: tuple[str, ...]
    move_thanks: tuple[str, ...]
    move_delegate: tuple[str, ...]
    move_later: tuple[str, ...]
    move_formal: tuple[str, ...]
    move_talks: tuple[str, ...]
    move_sells: tuple[str, ...]
    move_mail: tuple[str, ...]
    move_arrived: tuple[str, ...]
    move_rhetorical: tuple[str, ...]
    move_whole: tuple[str, ...]
    move_subjects: tuple[str, ...]


def load(directories: Sequence[Path]) -> Words:
    """Read the file from each directory that has one.

    Raises ValueError, naming file and key, for data of the wrong shape, and FileNotFoundError when none has it.
    """
    told: dict[str, list[str]] = {}
    known = {field.name for field in fields(Words)}
    found = [directory / FILE for directory in directories if (directory / FILE).is_file()]
    if not found:
        raise FileNotFoundError(f"{FILE} is in none of {', '.join(str(directory) for directory in directories)}")
    for path in found:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as wrong:
            raise ValueError(f"{path}: {wrong}") from wrong
        for table, entries in data.items():
            if not isinstance(entries, dict):
                raise ValueError(f"{path}: {table}: expected a table of lists")
            for key, values in entries.items():
                name = f"{table}_{key}"
                if name not in known or not all(isinstance(value, str) for value in values):
                    raise ValueError(f"{path}: [{table}] {key}: expected one of the lists of strings that ship")
                told.setdefault(name, []).extend(value.lower() for value in values)
    missing = known - told.keys()
    if missing:
        raise ValueError(f"{found[-1]}: missing {', '.join(sorted(missing))}")
    return Words(**{name: tuple(values) for name, values in told.items()})

"""The keys that return paths are signed with, and the file that holds them.

Emits no log events: KeyFileError tells every problem, never a secret.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from mailback.returnpath.days import CLOCK_SKEW_DAYS

MOST_KEYS = 10
"""The key id is one digit (draft-levine-smtp-batv-01 section 4)."""


def mac_of(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


class KeyFileError(Exception):
    """The key file cannot be used; `problems` holds everything that is wrong with it, never a secret."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Key:
    """One secret, its id, and the first day (UTC) on which it signs."""

    id: int
    start: date
    secret: bytes = field(repr=False)
    tags: bytes = field(init=False, repr=False, compare=False)
    seals: bytes = field(init=False, repr=False, compare=False)
    references: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("tags", "seals", "references"):  # a key for each use, none tells of another
            object.__setattr__(self, name, mac_of(self.secret, b"mailback return path " + name.encode()))


UNSUBSCRIBE_DAYS = 900
"""How long an unsubscribe address counts: as long as the day in it is not mistaken for a later one."""
_KEY_LINE = re.compile(r"([0-9])\s+(\d{4}-\d\d-\d\d)\s+([0-9a-fA-F]{64})")
_HEADER = """\
# Keys that return paths are signed with, one a line: id, first day (UTC) on which it signs, secret.
# The youngest that has begun signs; all of them are accepted. Written by `mailback signing`. Keep this file secret,
# and the same on every host that sends for, or receives at, the bounce domain.
"""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a key file, youngest last."""

    keys: tuple[Key, ...]

    @classmethod
    def parse(cls, text: str, file: str = "key file") -> Keys:
        """Read a key file. Raises KeyFileError with every problem, each with its line."""
        keys: list[Key] = []
        problems: list[str] = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            key = _key_of(line)
            if key is None:
                problems.append(f"{file}:{number}: expected an id from 0 to 9, a day and 64 hexadecimal digits")
            elif any(key.id == other.id for other in keys):
                problems.append(f"{file}:{number}: the id {key.id} is taken by another key")
            else:
                keys.append(key)
        if not keys and not problems:
            problems.append(f"{file}: holds no key; make one: mailback signing keygen")
        if problems:
            raise KeyFileError(problems)
        return cls(tuple(sorted(keys, key=lambda key: key.start)))

    @classmethod
    def load(cls, path: Path) -> Keys:
        """Read the key file at `path`. Raises KeyFileError."""
        try:
            return cls.parse(path.read_text("ascii"), str(path))
        except OSError as error:
            raise KeyFileError([f"{path}: {error.strerror}"]) from error
        except UnicodeDecodeError as error:
            raise KeyFileError([f"{path}: is no key file"]) from error

    def text(self) -> str:
        """The key file."""
        return _HEADER + "".join(f"{key.id} {key.start.isoformat()} {key.secret.hex()}\n" for key in self.keys)

    def signing(self, on: date) -> Key:
        """The key that signs on a day: the youngest that has begun, or the first to begin where none has."""
        begun = [key for key in self.keys if key.start <= on]
        return begun[-1] if begun else self.keys[0]

    def find(self, key_id: int) -> Key | None:
        return next((key for key in self.keys if key.id == key_id), None)

    def rotated(self, secret: bytes, start: date, *, on: date, max_age_days: int) -> Keys:
        """With a new key from `start`, and without those whose last signature has run out: of unsubscribe addresses,
        and where ids run out, of return paths.

        Raises ValueError when all ten ids are in use, or another key begins later than the new one.
        """
        if any(key.start >= start for key in self.keys):
            raise ValueError("a key that begins on that day or later is there already")
        kept = self._accepted(on, max(max_age_days, UNSUBSCRIBE_DAYS))
        needed = self._accepted(on, max_age_days)
        while len(kept) >= MOST_KEYS and kept[0] not in needed:
            kept = kept[1:]
        return Keys((*kept, Key(_free_id(kept), start, secret)))

    def _accepted(self, on: date, days: int) -> tuple[Key, ...]:
        """The keys of which a signature counts on a day that counts for so many days."""
        return tuple(
            key
            for key, successor in zip(self.keys, (*self.keys[1:], None), strict=True)
            if successor is None or successor.start + timedelta(days=days + CLOCK_SKEW_DAYS) >= on
        )

    def signed_on(self, key: Key, day: date, slack_days: int = 0) -> bool:
        """Whether a key was in use on a day, by the clock of any host. Days are told without their higher digits: one
        that has run out comes round again, by then of another key."""
        later = [other.start for other in self.keys if other.start > key.start]
        return not later or day <= min(later) + timedelta(days=CLOCK_SKEW_DAYS + slack_days)


def _key_of(line: str) -> Key | None:
    found = _KEY_LINE.fullmatch(line.strip())
    if found is None:
        return None
    try:
        start = date.fromisoformat(found[2])
    except ValueError:
        return None
    return Key(int(found[1]), start, bytes.fromhex(found[3]))


def _free_id(keys: Sequence[Key]) -> int:
    """The id after the youngest's, so that one comes again as late as can be: a replaced key's address must not fit."""
    taken = {key.id for key in keys}
    last = keys[-1].id if keys else 0
    for step in range(1, MOST_KEYS + 1):
        if (candidate := (last + step) % MOST_KEYS) not in taken:
            return candidate
    raise ValueError("all ten key ids are in use; wait until the oldest has run out, or remove a line of the key file")

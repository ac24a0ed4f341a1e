"""Domains and names as the eye takes them: `rn` for `m`, `1` for `l`, a Cyrillic `а` for an `a`.

Which letters look alike is data (`[alike]` of `replies_safety.toml`). Emits no log events; never raises on any string.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from mailback.auth.domains import organizational

_LABEL = 63
_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")
"""Scripts whose letters are taken for each other's."""
_PAIRS = (("rn", "m"), ("vv", "w"), ("cl", "d"), ("nn", "m"))
_DIGITS = str.maketrans(
    {"0": "o", "1": "l", "i": "l", "|": "l", "!": "l", "2": "z", "3": "e", "4": "a", "5": "s", "6": "b", "7": "t",
     "8": "b", "9": "g", "-": None, ".": None, "_": None}
)  # fmt: skip


class Alike:
    """The table of letters that look alike."""

    def __init__(self, lines: Iterable[str]) -> None:
        table: dict[int, str] = {}
        for line in lines:
            letter, *others = line.split()
            table |= {ord(other): letter for other in others if len(other) == 1}
        self._table = table
        self.skeleton = lru_cache(maxsize=4096)(self._skeleton)
        """What two names share that the eye takes for one."""

    def plain(self, text: str) -> str:
        """The text in the letters that it is taken for, lower case, without accents."""
        if text.isascii():
            return text.lower()
        lower = text.lower().translate(self._table)
        parts = unicodedata.normalize("NFKD", lower)
        return "".join(c for c in parts if not unicodedata.combining(c)).translate(self._table)

    def _skeleton(self, name: str) -> str:
        plain = self.plain(name)
        for pair, single in _PAIRS:
            plain = plain.replace(pair, single)
        return plain.translate(_DIGITS)


def shown(domain: str) -> str:
    """A domain as a mail program shows it: punycode labels in their own letters."""
    return ".".join(map(_shown_label, domain.split(".")))


@lru_cache(maxsize=1024)
def _shown_label(label: str) -> str:
    if not label.startswith("xn--") or len(label) > _LABEL:
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except (UnicodeError, ValueError):
        return label


def mixes_scripts(domain: str) -> bool:
    """Whether one label has letters of two scripts that are taken for each other's."""
    return not domain.isascii() and any(
        len({script for c in label if c.isalpha() and (script := _script(c))}) > 1 for label in domain.split(".")
    )


def _script(character: str) -> str | None:
    name = unicodedata.name(character, "")
    return next((script for script in _SCRIPTS if name.startswith(script)), None)


def registered(domain: str) -> str:
    """The label below the public suffix: `example` of `www.example.co.uk`."""
    return organizational(domain).partition(".")[0]


def near(one: str, other: str) -> bool:
    """Whether one letter was changed, left out, added, or two neighbours swapped."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    if len(one) > len(other):
        one, other = other, one
    start = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    if len(one) < len(other):
        return one[start:] == other[start + 1 :]
    rest = start + 1
    swapped = one[start : start + 2] == other[start : start + 2][::-1] and one[start + 2 :] == other[start + 2 :]
    return swapped or one[rest:] == other[rest:]


_WORDS = re.compile(r"[^\W_]+")


def same_person(one: str, other: str, alike: Alike) -> bool:
    """Whether two display names name one person: in any order, with or without what stands in brackets."""
    mine, theirs = _name_words(one, alike), _name_words(other, alike)
    return len(mine) > 1 and mine == theirs


def _name_words(name: str, alike: Alike) -> list[str]:
    bare = re.sub(r"[(\[|/].*", "", name[:200])
    return sorted(_WORDS.findall(alike.plain(bare)))

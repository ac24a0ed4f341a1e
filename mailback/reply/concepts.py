"""What the words of a reply are about, the same in every language: `stop send mail`, `hören auf`, `もう送らない`.

A text becomes the sequence of its concepts, with the ends of sentences; what has none is left out. The model of intents
learns from that sequence, so that a word nobody has written a sample with counts as the others of its concept do. Words
are data: `replies_concepts.toml`. Linear in the text.

Log events: none; never raises on any string. A wrong rule file raises RulesError while loading.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from mailback.reply.rulefiles import lists, present
from mailback.reply.words import fold
from mailback.resources import rules_dir

FILE = "replies_concepts.toml"
TABLE = "concepts"
END = "|"
"""Between sentences."""

_ASKS = "?"
_ENDS = frozenset("!.;\n")
_SHORTEST = 2  # letters of a word's beginning
_FAR = 5  # concepts of a sentence within which two belong together
_PICTURED = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_LATIN = r"[a-z0-9#@][a-z0-9']*"


@dataclass(frozen=True, slots=True)
class ConceptRules:
    """The words of `replies_concepts.toml`, by how they are looked up."""

    words: dict[str, str]
    beginnings: dict[str, str]
    longest: int
    """Letters of the longest beginning."""
    pictured: dict[str, str]
    scanner: re.Pattern[str]
    """What a text in Chinese or Japanese is made of."""

    @classmethod
    def load(cls, directories: Sequence[Path]) -> ConceptRules:
        """Raises RulesError with every problem of the files."""
        names = tuple(tomllib.loads((rules_dir() / FILE).read_text("utf-8"))[TABLE])
        told = lists(directories, FILE, {TABLE: names}) if present(directories, FILE) else {}
        words: dict[str, str] = {}
        beginnings: dict[str, str] = {}
        pictured: dict[str, str] = {}
        for name in names:
            for word in map(_spelled, told[f"{TABLE}.{name}"]):
                if _PICTURED.search(word):
                    pictured.setdefault(word, name)
                elif word.endswith("~"):
                    beginnings.setdefault(word[:-1], name)
                else:
                    words.setdefault(word, name)
        options = "|".join(map(re.escape, sorted(pictured, key=lambda word: (-len(word), word))))
        return cls(
            words=words,
            beginnings=beginnings,
            longest=max(map(len, beginnings), default=0),
            pictured=pictured,
            scanner=re.compile(rf"(?P<word>{options})|(?P<latin>{_LATIN})|[?!.;\n。、,]"),
        )

    def of(self, word: str) -> str | None:
        """The concept of a word in Latin letters: its own, else that of its longest known beginning."""
        if (own := self.words.get(word)) is not None:
            return own
        for length in range(min(len(word), self.longest), _SHORTEST - 1, -1):
            if (begun := self.beginnings.get(word[:length])) is not None:
                return begun
        return None


@lru_cache(maxsize=1)
def shipped() -> ConceptRules:
    """The file that ships, read once a process."""
    return ConceptRules.load([rules_dir()])


def sequence(folded: str, tokens: Sequence[str], rules: ConceptRules) -> list[str]:
    """The concepts of a text in order; `tokens` are its words as the phrases see them."""
    told: list[str] = []
    for found in _pictured(folded, rules) if _PICTURED.search(folded) else _spaced(tokens, rules):
        if found == END and (not told or told[-1] == END):
            continue
        told.append(found)
    return told


def features(told: Sequence[str]) -> set[str]:
    """The concepts, neighbours by two and three, and those that stand farther apart in one sentence."""
    found = set(told)
    found.update(map(" ".join, pairwise(told)))
    found.update(map(" ".join, zip(told, told[1:], told[2:], strict=False)))
    for at, one in enumerate(told):
        if one != END:
            found.update(f"{one}_{other}" for other in _followers(told, at))
    return found


def _followers(told: Sequence[str], at: int) -> Iterator[str]:
    """What stands in the same sentence behind a concept and its neighbour."""
    for place in range(at + 1, min(at + 1 + _FAR, len(told))):
        if told[place] == END:
            return
        if place > at + 1:
            yield told[place]


def _spaced(tokens: Sequence[str], rules: ConceptRules) -> Iterator[str]:
    for token in tokens:
        if token == _ASKS:
            yield _ASKS
        elif token in _ENDS:
            yield END
        elif (concept := rules.of(token)) is not None:
            yield concept


def _pictured(folded: str, rules: ConceptRules) -> Iterator[str]:
    for found in rules.scanner.finditer(folded):
        word = found[0]
        if found["word"]:
            yield rules.pictured[word]
        elif found["latin"]:
            if (concept := rules.of(word)) is not None:
                yield concept
        else:
            yield _ASKS if word == _ASKS else END


def _spelled(word: str) -> str:
    return fold(word).replace("'", "")

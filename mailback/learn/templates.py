"""Templates of diagnostics: what servers say again and again, with what varies left open.

Diagnostics that no rule names are grouped, so that an operator sees "Mailbox <*> is on hold, ref <*>" a thousand times
from one provider instead of a thousand lines. The method is Drain's (He et al., ICWS 2017): a tree of fixed depth whose
levels are the number of words and the first words; within a leaf a line joins the template that it shares most words
with, and the words that differ become `<*>`. Each line costs a bounded number of comparisons, so the whole is linear.
drain3, the usual implementation, was not taken: it brings persistence and JSON pickling for what are eighty lines here.

Numbers, addresses, hosts and ids are opened before grouping. Emits no log events.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from mailback.bounce.patterns import prepare

OPEN = "<*>"
"""A word of a template that varies."""
SIMILARITY = 0.6
"""Share of equal words from which a line is of a template."""

_DEPTH = 2  # words that choose the leaf, after the number of words
_MAX_CHILDREN = 100  # different words at one level; further ones share a branch
_MAX_LEAF = 50  # templates of one leaf that a line is compared with
_MAX_WORDS = 60  # words of a diagnostic that are read
_VARIES = re.compile(r"\S*[\d@]\S*|\S*[a-z-]\.[a-z][a-z.-]*\S*|(?=[^\s\"'<>()\[\]]{25})\S+")
_KEPT = re.compile(r"[245]\d\d[ -]?|[245]\.\d{1,3}\.\d{1,3}")  # reply and status codes tell what the template is about


@dataclass(slots=True)
class Template:
    """A wording, how often it was seen, and from whom."""

    words: list[str]
    count: int = 0
    providers: Counter[str] = field(default_factory=Counter)
    example: str = ""
    """The first diagnostic of the kind, as it stood."""

    @property
    def text(self) -> str:
        return " ".join(self.words)


class Miner:
    """Groups diagnostics into templates, one after another."""

    def __init__(self) -> None:
        self._leaves: dict[tuple[int | str, ...], list[Template]] = {}
        self._branches: dict[tuple[int | str, ...], set[str]] = {}

    def add(self, diagnostic: str, provider: str = "") -> Template:
        """Count a diagnostic; its template as it stands now."""
        words = masked(diagnostic)
        leaf = self._leaves.setdefault(self._place(words), [])
        template = _closest(leaf, words)
        if template is None:
            template = Template(words, example=diagnostic)
            if len(leaf) == _MAX_LEAF:  # the rarest goes: a flood of random texts must not cost more than time
                leaf.remove(min(leaf, key=lambda known: known.count))
            leaf.append(template)
        else:
            template.words = [a if a == b else OPEN for a, b in zip(template.words, words, strict=True)]
        template.count += 1
        template.providers[provider] += 1
        return template

    def templates(self) -> list[Template]:
        """All templates, the most frequent first."""
        found = (template for leaf in self._leaves.values() for template in leaf)
        return sorted(found, key=lambda template: (-template.count, template.text))

    def _place(self, words: list[str]) -> tuple[int | str, ...]:
        """The leaf of a line: how many words it has, and what it begins with."""
        place: tuple[int | str, ...] = (len(words),)
        for word in words[:_DEPTH]:
            known = self._branches.setdefault(place, set())
            if word not in known and len(known) >= _MAX_CHILDREN:
                word = OPEN  # noqa: PLW2901 - the branch of all further words
            known.add(word)
            place = (*place, word)
        return place


def masked(diagnostic: str) -> list[str]:
    """The words of a diagnostic with what names people, machines and messages left open."""
    words = prepare(diagnostic[:4096]).decode("utf-8", "replace").split(" ")[:_MAX_WORDS]
    return list(_folded(word if _KEPT.fullmatch(word) else OPEN if _VARIES.fullmatch(word) else word for word in words))


def _folded(words: Iterator[str]) -> Iterator[str]:
    """Several open words in a row are one: a list of two hosts is the same wording as a list of five."""
    before = ""
    for word in words:
        if not word == before == OPEN:
            yield word
        before = word


def _closest(leaf: list[Template], words: list[str]) -> Template | None:
    best, most = None, SIMILARITY * len(words)
    for template in leaf:
        alike = sum(a == b for a, b in zip(template.words, words, strict=True))
        if alike >= most:
            best, most = template, alike + 0.5
    return best

"""Finding many phrases in one text: by first word, so that only those that can be there are tried.

A phrase is a row of words; `*` stands for up to three words, `~` at the end of a word for any ending. Words are
compared folded, without apostrophes and punctuation. Chinese, Japanese and Korean, which have no spaces or bind their
particles to the word, are found anywhere. Linear in the text. Emits no log events.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache

from mailback.reply.words import fold

_WORD = re.compile(r"\w+")
_PICTURED = re.compile(r"[\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7af]")
_GAP = r"(?: \w+){0,3}"
_STEM = 3
"""Letters by which phrases are found whose first word has any ending."""


class Text:
    """A text made ready to be searched, once for all lists of phrases."""

    def __init__(self, text: str) -> None:
        self.folded = fold(text).replace("'", "")

    @cached_property
    def words(self) -> str:
        return " ".join(_WORD.findall(self.folded))

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        return frozenset(self.words.split())

    @cached_property
    def stems(self) -> frozenset[str]:
        return frozenset(word[:_STEM] for word in self.vocabulary)

    @cached_property
    def unspaced(self) -> str:
        """Without white space, for scripts that break lines within words; empty where there is none of them."""
        return "".join(self.folded.split()) if _PICTURED.search(self.folded) else ""


Entry = tuple[str, str, frozenset[str], str]
"""Name of the list, the phrase, words that must be there for it, the expression that finds it."""

_compiled = lru_cache(maxsize=None)(re.compile)
"""Expressions, each compiled when its words first stand in a text: most never do, and all of them cost a command more
time than the reading. There are as many as the rules have phrases, no text adds any."""


class Phrases:
    """Lists of phrases by name, searched for together."""

    def __init__(self, lists: Mapping[str, Iterable[str]]) -> None:
        self._by_word: dict[str, list[Entry]] = {}
        self._by_stem: dict[str, list[Entry]] = {}
        self._pictured: list[tuple[str, str, str]] = []
        for name, phrases in lists.items():
            for phrase in dict.fromkeys(phrases):
                self._add(name, phrase)

    def _add(self, name: str, phrase: str) -> None:
        folded = fold(phrase).replace("'", "")
        if _PICTURED.search(folded):
            self._pictured.append((name, phrase, "".join(folded.split())))
            return
        words = re.findall(r"\w+~?|\*", folded)
        if not words:
            return
        pattern = rf"(?<!\w){''.join(map(_pattern, words))[1:]}(?!\w)"
        needed = frozenset(word for word in words if word != "*" and not word.endswith("~"))
        first = words[0]
        if first.endswith("~"):
            self._by_stem.setdefault(first[:-1][:_STEM], []).append((name, phrase, needed, pattern))
        else:
            self._by_word.setdefault(first, []).append((name, phrase, needed, pattern))

    def found(self, text: Text) -> dict[str, list[str]]:
        """Every phrase that stands in the text, once, by the name of its list."""
        told: dict[str, list[str]] = {}
        for index, there in ((self._by_word, text.vocabulary), (self._by_stem, text.stems)):
            for first in sorted(index.keys() & there):  # in one order, whatever the process
                for name, phrase, needed, pattern in index[first]:
                    if needed <= text.vocabulary and _compiled(pattern).search(text.words):
                        told.setdefault(name, []).append(phrase)
        if text.unspaced:
            for name, phrase, plain in self._pictured:
                if plain in text.unspaced:
                    told.setdefault(name, []).append(phrase)
        return told


def _pattern(word: str) -> str:
    if word == "*":
        return _GAP
    return f" {re.escape(word[:-1])}\\w*" if word.endswith("~") else f" {re.escape(word)}"

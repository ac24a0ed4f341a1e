"""The language of a short text, as an ISO 639-1 code: by its letters, then by frequent words.

Replies are a line or two, so what decides is how many distinct frequent words of a language occur, weighed by how few
languages share them. Where nothing decides (`ok`, `+1`), the language of the conversation is taken. Linear in the text,
of which only the beginning is read. Words are data: `replies_language.toml`.

Log events: none; never raises on any string.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mailback.reply.rulefiles import lists
from mailback.reply.words import fold
from mailback.resources import rules_dir

FILE = "replies_language.toml"
LANGUAGES = ("en", "de", "fr", "es", "pt", "it", "nl", "pl", "sv", "da", "no", "fi", "cs")
"""Languages told by words; ja, zh, ko, ru, uk and el are told by their letters."""

_READ = 4000  # characters that are looked at
_WORD = re.compile(r"[a-z']+")
_KANA = re.compile(r"[\u3041-\u30ff]")
_HAN = re.compile(r"[\u4e00-\u9fff\u3400-\u4dbf]")
_HANGUL = re.compile(r"[\uac00-\ud7a3]")
_CYRILLIC = re.compile(r"[\u0400-\u04ff]")
_UKRAINIAN = re.compile(r"[іїєґ]")
_GREEK = re.compile(r"[\u0370-\u03ff]")
_LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
_SCRIPTS = (("ja", _KANA), ("ko", _HANGUL), ("zh", _HAN), ("ru", _CYRILLIC), ("el", _GREEK))


@dataclass(frozen=True, slots=True)
class LanguageRules:
    """Weights by word, and letters by language."""

    words: dict[str, tuple[tuple[str, float], ...]]
    letters: tuple[tuple[str, str], ...]

    @classmethod
    def load(cls, directories: Sequence[Path]) -> LanguageRules:
        """Raises RulesError with every problem of the files."""
        told = lists(directories, FILE, {"words": LANGUAGES, "letters": LANGUAGES})
        sharing: dict[str, set[str]] = {}
        for language in LANGUAGES:
            for word in told[f"words.{language}"]:
                sharing.setdefault(fold(word), set()).add(language)
        words = {
            word: tuple((language, 1 / len(languages)) for language in sorted(languages))
            for word, languages in sharing.items()
        }
        letters = tuple((letter, language) for language in LANGUAGES for letter in told[f"letters.{language}"])
        return cls(words, letters)


@lru_cache(maxsize=1)
def shipped() -> LanguageRules:
    """The file that ships, read once a process."""
    return LanguageRules.load([rules_dir()])


def detect(text: str, hints: Sequence[str] = (), rules: LanguageRules | None = None) -> str | None:
    """The language of `text`; `hints` are other texts of the conversation, best first, that decide where it does not.

    None where nothing tells.
    """
    rules = rules or shipped()
    scores = _scores(text[:_READ], rules)
    for weight, hint in zip((0.45, 0.3), hints, strict=False):
        if (likely := _best(_scores(hint[:_READ], rules))) is not None:
            scores[likely] = scores.get(likely, 0.0) + weight
    return _best(scores)


def _best(scores: dict[str, float]) -> str | None:
    return max(scores, key=lambda language: scores[language]) if scores else None


def _scores(text: str, rules: LanguageRules) -> dict[str, float]:
    script = _by_script(text)
    if script is not None:
        return {script: 100.0}
    scores: dict[str, float] = {}
    for word in set(_WORD.findall(fold(text))):
        for language, weight in rules.words.get(word, ()):
            scores[language] = scores.get(language, 0.0) + weight
    if not text.isascii():
        lower = text.lower()
        for letter, language in rules.letters:
            if letter in lower:
                scores[language] = scores.get(language, 0.0) + 0.6
    return scores


def _by_script(text: str) -> str | None:
    """The language that a script stands for, where a good part of the letters is of that script."""
    if text.isascii():
        return None
    latin = len(_LATIN.findall(text))
    for language, letters in _SCRIPTS:
        count = len(letters.findall(text))
        if count and count * 3 >= latin:
            return "uk" if language == "ru" and _UKRAINIAN.search(text) else language
    return None

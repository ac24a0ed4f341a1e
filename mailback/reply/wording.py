"""What the words of a reply show: phishing, a writer who poses, spam, abuse. Phrases are data (`replies_safety.toml`).

Read is only what is new in the reply; what stands in our own message before is not the writer's, and spam that talks of
what the thread is about is none. Words alone phish nobody: without a link, a page or a request to answer with a secret
they stay below a verdict. Who tells of a letter that they got, or asks whether it was ours, did not write it.

Log events: none; never raises on any text. A wrong rule file raises RulesError while loading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from mailback.reply import ploys
from mailback.reply.phrases import Phrases, Text
from mailback.reply.rulefiles import Lists
from mailback.reply.signs import Sign, Verdict

_PHRASES = {
    "phishing": ("credentials", "calls", "threats", "lures", "reported", "pretext"),
    "spam": ("strong", "weak"),
    "abuse": ("threats", "slurs", "insults", "rude"),
}
TABLES = _PHRASES | ploys.TABLES
"""What of `replies_safety.toml` is read here."""

_READ = 20_000  # characters
_THREAD_READ = 20_000
_COUNTED = 4  # phrases of one list
_CREDENTIALS, _CALL, _THREAT, _LURE, _LINK = 0.4, 0.25, 0.3, 0.35, 0.15
_WORDS_ALONE = 0.55  # of the chance that is left where there is nothing to act on: all three stay below a verdict
_REPORTED = 0.4  # of the chance that is left where somebody tells of such a letter
_PRETEXT = 0.27
_STRONG, _WEAK, _UNASKED = 0.6, 0.29, 0.1
_THREATENS, _DEGRADES, _INSULTS, _RUDE = 0.85, 0.55, 0.4, 0.2
_RUDE_COUNTED = 2
_URL = re.compile(r"https?://|www\.[a-z0-9]", re.IGNORECASE)
_ADDRESSES = re.compile(r"(?:https?://|www\.)\S{1,1000}", re.IGNORECASE)
"""What stands in the addresses of links is no sentence of the writer's."""
_ANSWER_WITH = re.compile(r"\b(?:password|passwor[dt]|passcode|pin|seed phrase|recovery phrase)\b")


@dataclass(frozen=True, slots=True)
class WordingRules:
    """The phrases, ready to be searched for."""

    phrases: Phrases
    ploys: ploys.PloyRules

    @classmethod
    def of(cls, told: Lists) -> WordingRules:
        """Raises RulesError for a ploy that is none."""
        lists = {f"{table}.{key}": told[f"{table}.{key}"] for table in _PHRASES for key in _PHRASES[table]}
        return cls(Phrases(lists), ploys.PloyRules(told))


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a reply, and what is known around them."""

    new: str
    """What is new in it."""
    subject: str
    thread: Sequence[str] = ()
    actionable: bool = False
    """There is a link, a form or a page to act on, beside the text."""
    foreign: Callable[[], bool] = lambda: False
    """Whether one of the links leads to a host that is neither the writer's nor ours nor in the thread before."""
    answers: bool = True
    """It answers a message (In-Reply-To or References)."""


Found = dict[str, list[str]]
"""Phrases that were found, by the list that they stand in."""


def search(words: Words, rules: WordingRules) -> Found:
    """What stands in the words of a reply, and not in the thread before."""
    found = rules.phrases.found(Text(_ADDRESSES.sub(" ", f"{words.subject}\n{words.new[:_READ]}")))
    if not found or not words.thread:
        return found
    before = rules.phrases.found(Text("\n".join(words.thread)[-_THREAD_READ:]))
    new = {
        name: phrases if name.startswith("abuse.") else [p for p in phrases if p not in before.get(name, ())]
        for name, phrases in found.items()
    }
    return {name: phrases for name, phrases in new.items() if phrases}


def signs(words: Words, found: Found, rules: WordingRules) -> Iterator[Sign]:
    """Every sign in what was found, but those that count only beside others (`pretext`)."""
    yield from _phishing(words, found)
    yield from _ploys(words, found, rules.ploys)
    yield from _spam(words, found)
    yield from _each(found, "abuse.threats", Sign(Verdict.ABUSE, _THREATENS, "threat_of_violence"))
    yield from _each(found, "abuse.slurs", Sign(Verdict.ABUSE, _DEGRADES, "degrading"))
    yield from _each(found, "abuse.insults", Sign(Verdict.ABUSE, _INSULTS, "insult"))
    yield from islice(_each(found, "abuse.rude", Sign(Verdict.ABUSE, _RUDE, "rude")), _RUDE_COUNTED)


def pretext(found: Found) -> Iterator[Sign]:
    """What somebody writes who poses as one of ours."""
    yield from _each(found, "phishing.pretext", Sign(Verdict.IMPERSONATION, _PRETEXT, "pretext"))


_BAIT = (
    ("phishing.credentials", _CREDENTIALS, "asks_for_credentials"),
    ("phishing.calls", _CALL, "call_to_click"),
    ("phishing.threats", _THREAT, "threatens_with_loss"),
    ("phishing.lures", _LURE, "lure"),
)


def _phishing(words: Words, found: Found) -> Iterator[Sign]:
    baits = [(chance, says) for name, chance, says in _BAIT if name in found]
    if not baits:
        return
    actionable = words.actionable or bool(_URL.search(words.new)) or bool(_ANSWER_WITH.search(words.new.lower()))
    if "phishing.reported" in found:
        baits = [(chance * _REPORTED, says) for chance, says in baits]
    elif actionable:
        baits.append((_LINK, "link"))
    for chance, says in baits:
        yield Sign(Verdict.PHISHING, chance if actionable else chance * _WORDS_ALONE, says)


def _ploys(words: Words, found: Found, rules: ploys.PloyRules) -> Iterator[Sign]:
    """What stands in the reply and not in the thread before it; who tells of such a letter did not write it."""
    text = _ADDRESSES.sub(" ", f"{words.subject}\n{words.new[:_READ]}")
    link = words.actionable or bool(_URL.search(words.new))
    beside = frozenset({ploys.LINK, ploys.FOREIGN} if link else ()) | (frozenset() if words.answers else {ploys.COLD})
    told = list(rules.found(text, beside))
    if told and link and not words.foreign():  # asked only where something hangs on it
        beside -= {ploys.FOREIGN}
        told = list(rules.found(text, beside))
    if not told:
        return
    before = set(rules.found("\n".join(words.thread)[-_THREAD_READ:], beside)) if words.thread else set()
    for sign in told:
        if sign not in before:
            reported = sign.verdict is Verdict.PHISHING and "phishing.reported" in found
            yield sign._replace(chance=sign.chance * _REPORTED) if reported else sign


def _spam(words: Words, found: Found) -> Iterator[Sign]:
    told = [
        *_each(found, "spam.strong", Sign(Verdict.SPAM, _STRONG, "spam_offer")),
        *_each(found, "spam.weak", Sign(Verdict.SPAM, _WEAK, "advertising")),
    ]
    yield from told
    if told and not words.answers:
        yield Sign(Verdict.SPAM, _UNASKED, "answers_nothing")


def _each(found: Found, name: str, kind: Sign) -> Iterator[Sign]:
    """A sign a phrase, numbered: each counts by itself."""
    for number, _ in enumerate(found.get(name, ())[:_COUNTED], 1):
        yield kind if number == 1 else kind._replace(says=f"{kind.says}_{number}")

"""What a reply asks for: thirteen intents, told by phrases, with a confidence and the second-best reading.

The phrases are data (`replies_intents.toml`) and are looked up by their first word, so the work grows with the words
of the reply and not with the number of phrases. Each phrase adds its weight to its intent as a chance that it is right
(`1 - (1-a)(1-b)`), capped; one in the subject that the person wrote counts three times. Negated requests do not count.
A bare yes, no or ok is read by the mail that it answers.

Log events: none; never raises on any string. A wrong rule file raises RulesError while loading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from mailback.reply.rulefiles import lists
from mailback.reply.words import fold
from mailback.resources import rules_dir

FILE = "replies_intents.toml"


class Intent(StrEnum):
    """What the writer wants, as routes and deadlines need it."""

    INTERESTED = "interested"
    QUESTION = "question"
    SUPPORT = "support"
    NOT_NOW = "not_now"
    OBJECTION = "objection"
    OUT_OF_OFFICE = "out_of_office"
    UNSUBSCRIBE = "unsubscribe"
    BILLING = "billing"
    LEGAL = "legal"
    SECURITY = "security"
    REFERRAL = "referral"
    MEETING_BOOKED = "meeting_booked"
    UNCLASSIFIED = "unclassified"


WEIGHTS = {"sure": 0.8, "likely": 0.5, "hint": 0.2}
"""Chance that a phrase of that list tells its intent."""
CAP = 0.95
"""Words never make anything surer than this."""

_READ = 4000  # characters looked at
_HITS = 3  # phrases of one intent that count
_GAP = 3  # words that `*` stands for
_NEGATED = 3  # words before a phrase in which a negation turns it
_SHORT = 4  # words of a bare answer
_OWN_SUBJECT = 3  # how often a phrase in a subject of the person's own counts
_UNSURE = 0.3  # confidence where no phrase was found
_STEM = 3  # letters by which phrases that begin with a word's beginning are looked up

_TOKEN = re.compile(
    r"(?P<mail>[^\s@<>(),;:]{1,64}@[a-z0-9.-]+)|(?P<clock>\b\d{1,2}(?:[:.h]\d\d(?!\d)| ?(?:am|pm|uhr|uur|h)\b))"
    r"|(?P<money>[€$£¥] ?\d[\d.,]*|\d[\d.,]* ?(?:€|eur\b|euros?\b|usd\b|kr\b|zl\b))"
    r"|[a-z0-9\u0370-\u052f][a-z0-9'\u0370-\u052f]*|[?!.,;:\n]"
)
_PICTURED = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]")
"""Scripts without spaces between words, and Korean, which binds particles to the word and is spaced as people like."""
_WRAPPED = re.compile(r"(?<![\r\n])\r?\n(?![\r\n])")
"""The end of a line within a paragraph: mail programs break sentences there."""
_CLAUSE_ENDS = frozenset("?!.,;:\n")
_SENTENCE_ENDS = frozenset("?!.\n")
_REPLY_SUBJECT = re.compile(r"\s*(?:re|aw|sv|antw|odp|rif|vs|r|回复|答复|返信)\s*(?:\[\d+\])?[:：]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words in order; `*` stands for a few others."""

    words: tuple[str, ...]
    intent: Intent
    weight: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """A phrase that was found."""

    intent: Intent
    says: str
    weight: float
    layer: str = "phrases"
    """What found it: `phrases`, `headers`, ..."""

    def to_dict(self) -> dict[str, object]:
        return {"layer": self.layer, "rule": self.says, "weight": round(self.weight, 3), "says": self.intent.value}


@dataclass(frozen=True, slots=True)
class Reading:
    """The likeliest intent, the next, and why."""

    intent: Intent
    confidence: float
    runner_up: Intent | None
    runner_up_confidence: float
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Asking:
    """One sort of question of ours."""

    spelled: dict[str, tuple[tuple[str, ...], ...]]
    """Its wordings by first word; of one with any ending, by the letters that it begins with."""
    pictured: tuple[str, ...]

    @classmethod
    def of(cls, wordings: Sequence[str]) -> Asking:
        spelled: dict[str, tuple[tuple[str, ...], ...]] = {}
        pictured = []
        for words in map(_words, wordings):
            first = words[0]
            if _PICTURED.search(first):
                pictured.append("".join(words))
                continue
            key = f"{first[:_STEM]}~" if first.endswith("~") else first
            spelled[key] = (*spelled.get(key, ()), words)
        return cls(spelled, tuple(pictured))


@dataclass(frozen=True, slots=True)
class IntentRules:
    """The phrases of `replies_intents.toml`, by first word."""

    spelled: dict[str, tuple[Phrase, ...]]
    begun: dict[str, tuple[Phrase, ...]]
    pictured: tuple[Phrase, ...]
    groups: dict[str, str]
    negations: frozenset[str]
    flips: frozenset[str]
    short: dict[str, frozenset[str]]
    asked: dict[str, Asking]
    """The questions of ours that decide what a bare answer means, by sort (`_ASKED`)."""

    @classmethod
    def load(cls, directories: Sequence[Path]) -> IntentRules:
        """Raises RulesError with every problem of the files."""
        keys: dict[str, tuple[str, ...]] = {intent.value: tuple(WEIGHTS) for intent in Intent}
        keys |= {"groups": ("day", "when"), "negation": ("words", "flips"), "short": ("yes", "no", "ok")}
        told = lists(directories, FILE, keys | {"thread": _ASKED})
        written = {
            Phrase(_words(text), intent, weight)
            for intent in Intent
            for strength, weight in WEIGHTS.items()
            for text in told[f"{intent.value}.{strength}"]
        }
        # In one order whatever the process: evidence is told in it, and the same mail must give the same answer.
        phrases = sorted(written, key=lambda phrase: (-phrase.weight, phrase.words, phrase.intent))
        spelled: dict[str, tuple[Phrase, ...]] = {}
        begun: dict[str, tuple[Phrase, ...]] = {}
        for phrase in phrases:
            first = phrase.words[0]
            if not _PICTURED.search(first):
                index, key = (begun, first[:_STEM]) if first.endswith("~") else (spelled, first)
                index[key] = (*index.get(key, ()), phrase)
        return cls(
            spelled=spelled,
            begun=begun,
            pictured=tuple(phrase for phrase in phrases if _PICTURED.search(phrase.words[0])),
            groups={fold(word): f"#{group}" for group in ("day", "when") for word in told[f"groups.{group}"]},
            negations=frozenset(told["negation.words"]),
            flips=frozenset(told["negation.flips"]),
            short={key: frozenset(map(_bare, told[f"short.{key}"])) for key in ("yes", "no", "ok")},
            asked={sort: Asking.of(told[f"thread.{sort}"]) for sort in _ASKED},
        )


@lru_cache(maxsize=1)
def shipped() -> IntentRules:
    """The file that ships, read once a process."""
    return IntentRules.load([rules_dir()])


def read(text: str, subject: str = "", thread: Sequence[str] = (), rules: IntentRules | None = None) -> Reading:
    """The intent of what a person wrote; `thread` holds the texts of earlier messages, oldest first."""
    rules = rules or shipped()
    written = own_subject(subject, text)
    if (answer := bare_answer(text or written, thread, rules)) is not None:
        return answer
    found = list(phrases(text, rules))
    for evidence in phrases(written, rules):
        found.extend([evidence] * _OWN_SUBJECT)
    return weighed(found)


def own_subject(subject: str, text: str) -> str:
    """The subject where the person wrote it, else nothing: that of an answer is ours, unless nothing else is said."""
    return "" if _REPLY_SUBJECT.match(subject) and text else subject


def weighed(found: Sequence[Evidence]) -> Reading:
    """What phrases alone come to."""
    wrong: dict[Intent, list[float]] = {}
    for evidence in sorted(found, key=lambda evidence: -evidence.weight):
        weights = wrong.setdefault(evidence.intent, [])
        if len(weights) < _HITS:
            weights.append(1 - evidence.weight)
    scores = {intent: min(CAP, 1 - _product(chances)) for intent, chances in wrong.items()}
    ranked = sorted(scores, key=lambda intent: -scores[intent])
    if not ranked:
        return Reading(Intent.UNCLASSIFIED, _UNSURE, None, 0.0, ())
    second = ranked[1] if len(ranked) > 1 else None
    return Reading(
        ranked[0], scores[ranked[0]], second, scores[second] if second is not None else 0.0, tuple(dict.fromkeys(found))
    )


def _product(chances: Sequence[float]) -> float:
    product = 1.0
    for chance in chances:
        product *= chance
    return product


def bare_answer(text: str, thread: Sequence[str], rules: IntentRules) -> Reading | None:
    """A bare yes, no or ok; None for anything else."""
    bare = _bare(text[:200])
    if not bare or len(bare.split()) > _SHORT:
        return None
    said = next((key for key in ("no", "yes", "ok") if bare in rules.short[key]), None)
    if said is None:
        return None
    intent, confidence = _SHORT_ANSWERS[said, asked(thread[-1], rules) if thread else None]
    return Reading(intent, confidence, None, 0.0, (Evidence(intent, bare, confidence),))


_ENDING = "ending"
_ASKED = ("staying", "leaving", _ENDING, "yours", "paid", "solved", "meeting", "seen", "offer")
"""Sorts of questions; where a mail has several, the first of them counts."""
_UNMARKED = (_ENDING,)
"""What is also announced: "if we do not hear from you, we will close your file"."""
_SHORT_ANSWERS = {
    ("yes", None): (Intent.INTERESTED, 0.65),
    ("no", None): (Intent.OBJECTION, 0.8),
    ("ok", None): (Intent.UNCLASSIFIED, 0.5),
    ("yes", _ENDING): (Intent.OBJECTION, 0.8),
    ("no", _ENDING): (Intent.UNCLASSIFIED, 0.5),
    ("ok", _ENDING): (Intent.OBJECTION, 0.6),
    ("yes", "meeting"): (Intent.MEETING_BOOKED, 0.8),
    ("no", "meeting"): (Intent.OBJECTION, 0.6),
    ("ok", "meeting"): (Intent.MEETING_BOOKED, 0.7),
    ("yes", "paid"): (Intent.UNCLASSIFIED, 0.6),
    ("no", "paid"): (Intent.BILLING, 0.75),
    ("ok", "paid"): (Intent.UNCLASSIFIED, 0.6),
    ("yes", "solved"): (Intent.UNCLASSIFIED, 0.6),
    ("no", "solved"): (Intent.SUPPORT, 0.8),
    ("ok", "solved"): (Intent.UNCLASSIFIED, 0.6),
    ("yes", "seen"): (Intent.UNCLASSIFIED, 0.6),
    ("no", "seen"): (Intent.UNCLASSIFIED, 0.5),
    ("ok", "seen"): (Intent.UNCLASSIFIED, 0.6),
    ("yes", "staying"): (Intent.UNCLASSIFIED, 0.6),
    ("no", "staying"): (Intent.UNSUBSCRIBE, 0.85),
    ("ok", "staying"): (Intent.UNCLASSIFIED, 0.6),
    ("yes", "leaving"): (Intent.UNSUBSCRIBE, 0.85),
    ("no", "leaving"): (Intent.UNCLASSIFIED, 0.6),
    ("ok", "leaving"): (Intent.UNSUBSCRIBE, 0.7),
    ("yes", "yours"): (Intent.UNCLASSIFIED, 0.6),
    ("no", "yours"): (Intent.SECURITY, 0.85),
    ("ok", "yours"): (Intent.UNCLASSIFIED, 0.5),
    ("yes", "offer"): (Intent.INTERESTED, 0.75),
    ("no", "offer"): (Intent.OBJECTION, 0.8),
    ("ok", "offer"): (Intent.INTERESTED, 0.6),
}
"""Intent and confidence by the answer, and by what had been asked (None: nothing that these sorts know)."""


def asked(text: str, rules: IntentRules) -> str | None:
    """What sort of question a mail of ours asks, of those that decide what a bare answer means."""
    folded = fold(_WRAPPED.sub(" ", text[:_READ]))
    said = tokens(folded)
    return next((sort for sort in _ASKED if _asks(rules.asked[sort], folded, said, rules, sort not in _UNMARKED)), None)


def asks_to_end(text: str, rules: IntentRules) -> bool:
    """Whether a mail of ours asks for leave to stop: a yes to it is a no to the offer."""
    return asked(text, rules) == _ENDING


def _asks(asking: Asking, folded: str, said: Sequence[str], rules: IntentRules, marked: bool) -> bool:
    """Whether a mail has one of the wordings, `marked`: in a sentence that ends with a question mark."""
    if _PICTURED.search(folded) and any(words in _unspaced(folded) for words in asking.pictured):
        return True
    return any(
        (end := _ends(words, said, at, rules)) is not None and (not marked or _is_question(said, end))
        for at, token in enumerate(said)
        for key in (token, f"{token[:_STEM]}~", rules.groups.get(token))
        for words in (asking.spelled.get(key, ()) if key else ())
    )


def _is_question(said: Sequence[str], at: int) -> bool:
    """Whether the sentence that goes on at a token ends with a question mark."""
    return next((token for token in said[at:] if token in _SENTENCE_ENDS), "") == "?"


def phrases(text: str, rules: IntentRules) -> Iterator[Evidence]:
    """Every phrase in a text; of those that begin at one word, each intent's strongest."""
    folded = fold(text[:_READ])
    said = tokens(folded)
    turned: dict[Intent, int] = {}  # up to which token an intent is negated
    for at, token in enumerate(said):
        seen: set[Intent] = set()
        for phrase in _candidates(token, rules):
            if phrase.intent in seen or (end := _ends(phrase.words, said, at, rules)) is None:
                continue
            if phrase.intent in rules.flips and (at < turned.get(phrase.intent, 0) or _negated(said, at, rules)):
                turned[phrase.intent] = max(end, turned.get(phrase.intent, 0))
                continue
            seen.add(phrase.intent)
            yield Evidence(phrase.intent, " ".join(phrase.words), phrase.weight)
    if _PICTURED.search(folded):
        plain = _unspaced(folded)
        for phrase in rules.pictured:
            if "".join(phrase.words) in plain:
                yield Evidence(phrase.intent, " ".join(phrase.words), phrase.weight)


def _unspaced(folded: str) -> str:
    return "".join(folded.split())


def _candidates(token: str, rules: IntentRules) -> Iterator[Phrase]:
    yield from rules.spelled.get(token, ())
    yield from rules.begun.get(token[:_STEM], ())
    if (group := rules.groups.get(token)) is not None:
        yield from rules.spelled.get(group, ())


def _ends(words: Sequence[str], said: Sequence[str], at: int, rules: IntentRules) -> int | None:
    """Where a phrase that begins at a token ends, or None; never beyond the sentence."""
    gap = 0
    for word in words:
        if word == "*":
            gap = _GAP
            continue
        for here in range(at, min(at + gap + 1, len(said))):
            if _is(word, said[here], rules):
                at, gap = here + 1, 0
                break
            if said[here] in _SENTENCE_ENDS:
                return None
        else:
            return None
    return at


def _is(word: str, token: str, rules: IntentRules) -> bool:
    if word.endswith("~"):
        return token.startswith(word[:-1])
    return word in (token, rules.groups.get(token))


def _negated(said: Sequence[str], at: int, rules: IntentRules) -> bool:
    for token in reversed(said[max(0, at - _NEGATED) : at]):
        if token in _CLAUSE_ENDS:
            return False
        if token in rules.negations:
            return True
    return False


def tokens(folded: str) -> list[str]:
    """Words and marks of a folded text; times of day, sums and addresses are masked."""
    return ["@" if m["mail"] else _masked(m) for m in _TOKEN.finditer(folded)]


def _masked(match: re.Match[str]) -> str:
    if match["clock"]:
        return "#clock"
    return "#money" if match["money"] else match[0].replace("'", "")


def _words(phrase: str) -> tuple[str, ...]:
    return tuple(fold(phrase).replace("'", "").split())


def _bare(text: str) -> str:
    """An answer without punctuation and apostrophes."""
    return " ".join(re.sub(r"[^\w\s]|_", " ", fold(text).replace("'", "")).split())

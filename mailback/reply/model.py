"""The learnt classifier of intents at run time: a linear model read from plain data, without numpy.

A reply becomes four sets of features. `words` are single words, neighbours by two and by three; `letters` are runs of
two to five characters, which see through endings, typing mistakes and scripts without spaces; `concepts` are what the
words are about, the same in every language (`mailback.reply.concepts`); `signs` are what is no word: the phrases that
the rules have found, how long it is, whether it asks, and for a short answer what had been asked. Each known feature
adds its weights to the intents. A set is brought to one length, so that a long reply is not surer than a short one only
because it is long; the sums, brought to one scale, become probabilities. The probability of the likeliest intent is
then corrected by what share of such verdicts was right, for each intent by itself, and by how much of the words is new
to the model: that is the confidence that is told.

A model is a JSON file. A row of `words`, `letters` and `concepts` is a string with one character an intent, `P` for
nought and each further character one unit of its set more or less; a row of `signs` lists hundredths. A file whose
share of acceptable readings on held-back replies is below `GATE`, or is not told, does not serve: `load` refuses it.

`mailback model train --replies` writes such files (`mailback.learn`). Emits no log events: whoever loads a model tells
what is wrong with it. Reading a text is linear in its length, of which the beginning is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mailback import linear
from mailback.linear import SERVING, Weights, finite
from mailback.reply import concepts
from mailback.reply.concepts import ConceptRules
from mailback.reply.intent import Evidence, Intent, IntentRules, phrases, tokens
from mailback.reply.words import fold
from mailback.resources import config_dir

FORMAT = 1
GATE = 0.60
"""Share of held-back replies read acceptably below which a model does not serve: these are harder than mail is, and the
phrases alone read less than half of them."""
SETS = ("words", "letters", "concepts")
"""The sets of features whose rows are strings, in the order of the file."""
NOUGHT = ord("P")
LEAST, MOST = ord("#") - NOUGHT, ord("~") - NOUGHT
"""Bounds of a weight in units of its set: the characters that JSON writes as they are."""
SIGN_UNIT = 100
"""Weights of signs are kept as whole hundredths."""

_READ = 2000  # characters whose words are read
_READ_LETTERS = 600  # characters whose runs are read
_RUNS = (2, 3, 4, 5)
_SHORT = 6  # words of an answer that needs its question
_LONGEST = 6  # doublings of the length that are told apart
_NEW_IN = "words"  # the set by which it is told how much is new
_CAP = 0.98
"""Nothing that is learnt is surer than this."""
_SPACES = re.compile(r"\s+")
_DIGITS = str.maketrans("123456789", "000000000")
_SKIPPED = frozenset(",;:.\n")
_PICTURED = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_LETTERS_A_WORD = 2  # of Chinese and Japanese, for the length
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？\n]?")
_QUESTION_READ = 4000  # characters at the end of our own mail in which the question stands


@dataclass(frozen=True, slots=True)
class Features:
    """What a model sees of a reply."""

    words: frozenset[str]
    letters: frozenset[str]
    concepts: frozenset[str]
    signs: Mapping[str, float]

    def of(self, name: str) -> frozenset[str]:
        """One of `SETS`."""
        return getattr(self, name)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The two likeliest intents."""

    intent: Intent
    confidence: float
    """The share of such verdicts that is right."""
    runner_up: Intent
    runner_up_probability: float
    new: float
    """The share of its words, alone and in a row, that no sample has."""


@dataclass(frozen=True, slots=True)
class Model(linear.Model):
    """A model that has passed the gate."""

    intents: tuple[Intent, ...]
    units: Mapping[str, float]
    """What one step of a weight is worth, by set."""
    weights: Mapping[str, Weights[str]]
    signs: Mapping[str, tuple[int, ...]]
    correction: Mapping[Intent, tuple[float, float]]
    """Slope and offset that turn the log-odds of an intent that is told into those of its being right."""
    doubt: float
    """What is added to them where all words are new; the share of it that is new, else."""

    def read(self, features: Features) -> Verdict:
        """The likeliest intents."""
        return self.verdict(*self.weighed(features))

    def weighed(self, features: Features) -> tuple[list[float], float]:
        """Logits by intent, calibrated, up to what all have in common; and the share of the words that is new."""
        total = list(self.biases)
        new = 0.0
        for name in SETS:
            known, sums = self.weights[name].sums(features.of(name))
            if name == _NEW_IN:
                new = 1 - known / max(len(features.of(name)), 1)
            if known:
                share = self.units[name] / math.sqrt(known)
                total = [one + share * other for one, other in zip(total, sums, strict=True)]
        for sign, value in features.signs.items():
            if (row := self.signs.get(sign)) is not None:
                share = value / SIGN_UNIT
                total = [one + share * other for one, other in zip(total, row, strict=True)]
        return [self.scale * one for one in total], new

    def verdict(self, scores: Sequence[float], new: float = 0.0) -> Verdict:
        """The likeliest intents by their logits, of a reply of whose words that share is new."""
        top = max(scores)
        shares = [math.exp(score - top) for score in scores]
        whole = sum(shares)
        first, second = sorted(range(len(scores)), key=lambda at: -scores[at])[:2]
        return Verdict(
            self.intents[first],
            self.confidence(self.intents[first], shares[first] / whole, new),
            self.intents[second],
            shares[second] / whole,
            new,
        )

    def confidence(self, intent: Intent, probability: float, new: float = 0.0) -> float:
        """The share of right verdicts among those of this intent and probability, and with so much that is new."""
        slope, offset = self.correction.get(intent, (1.0, 0.0))
        return min(_CAP, 1 / (1 + math.exp(-(slope * log_odds(probability) + offset + self.doubt * new))))


def log_odds(probability: float) -> float:
    """Bounded at both ends, so that nothing is certain."""
    bounded = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(bounded / (1 - bounded))


def features(
    text: str, thread: Sequence[str], intents: IntentRules, known: ConceptRules, found: Sequence[Evidence] | None = None
) -> Features:
    """What a model sees of a text; `found` are the phrases in it, where they were looked up already."""
    folded = fold(text[:_READ])
    spoken = tokens(folded)
    told = concepts.sequence(folded, spoken, known)
    found = list(phrases(text, intents)) if found is None else found
    signs = dict(_signs(folded, spoken, found))
    if _length(folded, spoken) <= _SHORT and thread:
        signs |= {f"asked:{concept}": 1.0 for concept in _asked(thread[-1], known)}
    return Features(
        words=frozenset(_words(spoken)),
        letters=frozenset(_letters(folded)),
        concepts=frozenset(concepts.features(told)),
        signs=signs,
    )


def _words(spoken: Sequence[str]) -> set[str]:
    """Words in ones, twos and threes, with the ends of the text; numbers are one word."""
    said = ["^", *("#n" if word.isdigit() else word for word in spoken if word not in _SKIPPED), "$"]
    found = set(said)
    found.update(map(" ".join, pairwise(said)))
    found.update(map(" ".join, zip(said, said[1:], said[2:], strict=False)))
    return found


def _letters(folded: str) -> set[str]:
    text = f" {_SPACES.sub(' ', folded[:_READ_LETTERS]).strip()} ".translate(_DIGITS)
    return {text[at : at + size] for size in _RUNS for at in range(len(text) - size + 1)}


def _signs(folded: str, spoken: Sequence[str], found: Sequence[Evidence]) -> Iterator[tuple[str, float]]:
    wrong: dict[Intent, float] = {}
    for evidence in found:
        yield f"phrase:{evidence.intent}:{evidence.weight}", 1.0
        wrong[evidence.intent] = wrong.get(evidence.intent, 1.0) * (1 - evidence.weight)
    for intent, chance in wrong.items():
        yield f"phrases:{intent}", 1 - chance
    yield f"length:{min(_LONGEST, int(math.log2(_length(folded, spoken) + 1)))}", 1.0
    marks = (
        ("asks", "?" in folded),
        ("ends asking", folded.rstrip().endswith("?")),
        ("cries", "!" in folded),
        ("counts", any(map(str.isdigit, folded))),
        ("addresses", "@" in folded),
    )
    yield from ((name, 1.0) for name, there in marks if there)


def _length(folded: str, spoken: Sequence[str]) -> int:
    """Words, about."""
    if _PICTURED.search(folded):
        return len(folded) // _LETTERS_A_WORD
    return sum(word not in _SKIPPED for word in spoken)


def _asked(text: str, known: ConceptRules) -> set[str]:
    """What the last question of our own mail is about."""
    folded = fold(text[-_QUESTION_READ:])
    asking = [sentence for sentence in _SENTENCE.findall(folded) if sentence.endswith("?")]
    return set(concepts.sequence(asking[-1], tokens(asking[-1]), known)) if asking else set()


def load(path: Path, *, gate: float = GATE) -> Model:
    """Read a model.

    Raises `linear.ModelError` for a file that cannot be read, is not a model, or did not pass the gate. `gate=0` reads
    a candidate, for evaluation.
    """
    return linear.load(path, from_document, gate=gate, form=FORMAT, tells="replies")


def from_document(document: dict[str, Any]) -> Model:
    """The model of a parsed file.

    Raises what a value of the wrong form gives (KeyError, TypeError, ValueError, ...) for what is none.
    """
    if document["format"] != FORMAT or document["task"] != "replies":
        raise ValueError(f"format is {document['format']!r}, task {document['task']!r}")
    intents = tuple(map(Intent, document["intents"]))
    if len(intents) < 2:
        raise ValueError("one intent only, and the likeliest two are told")
    return Model(
        **linear.common(document, intents, called="intents"),
        intents=intents,
        units={name: finite(document["units"][name]) for name in SETS},
        weights={name: Weights(_checked(document[name], len(intents)), len(intents), _packed) for name in SETS},
        signs={name: _sign(row, len(intents)) for name, row in document["signs"].items()},
        doubt=finite(document["doubt"]),
        correction={Intent(name): _pair(row) for name, row in document["correction"].items()},
    )


def _checked(rows: dict[str, str], intents: int) -> dict[str, str]:
    """The rows, each with a character an intent. Passes in C over all of them: every start waits for it."""
    joined = "".join(rows.values())
    if set(map(len, rows.values())) != {intents}:
        raise ValueError("a row with more or fewer weights than there are intents")
    if not joined.isascii() or min(joined) < chr(NOUGHT + LEAST) or max(joined) > chr(NOUGHT + MOST):
        raise ValueError("a weight that is out of all bounds")
    return rows


def _packed(row: str) -> int:
    """A row as one number, the first intent in its lowest field; `NOUGHT` is in every field."""
    return int.from_bytes(row.encode("utf-32-le"), "little")


def _sign(row: list[int], intents: int) -> tuple[int, ...]:
    if len(row) != intents or set(map(type, row)) != {int}:
        raise ValueError("a sign with more or fewer weights than there are intents, or one that is no whole number")
    return tuple(row)


def _pair(row: list[float]) -> tuple[float, float]:
    slope, offset = map(finite, row)
    return slope, offset


def shipped_path() -> Path:
    """Where the model that ships lies."""
    return config_dir() / "models" / "replies.json"


def directory_of(state_directory: Path) -> Path:
    """Where models that were trained here lie, below the service's state."""
    return state_directory / "models" / "replies"


def load_serving(state_directory: Path | None = None) -> Model | None:
    """The model that was promoted here, else the one that ships; None where there is none.

    Raises `linear.ModelError` for a file that is there and cannot serve: going on silently would hide that.
    """
    promoted = directory_of(state_directory) / SERVING if state_directory is not None else None
    path = promoted if promoted is not None and promoted.is_file() else shipped_path()
    return load(path) if path.is_file() else None

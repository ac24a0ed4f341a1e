"""The learnt classifier of diagnostics at run time: a linear model read from plain data, without numpy.

A text becomes tokens (addresses, hosts, numbers and ids are masked or left out: they name people and machines, not
causes), and tokens become features: words, pairs of neighbouring words, the first letters of long words, and pairs of
characters in scripts that write no spaces. Each known feature adds its weights to some of the causes; the sums, brought
to one scale, become probabilities. Enhanced status codes are reduced to their class: what they say is the vote of
another layer, and a vote counted twice is no second opinion.

A model is a JSON file: causes, biases, scale, and for each feature a flat list of cause numbers and weights in
hundredths. It holds no code and is checked whole when it is read. A file whose accuracy on held-back diagnostics is
below `GATE`, or is not told, does not serve: `load` refuses it.

`mailback model train` writes such files (`mailback.learn`). Emits no log events: whoever loads a model tells what is
wrong with it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, pairwise
from operator import add
from pathlib import Path
from typing import Any

from mailback import linear
from mailback.bounce.taxonomy import Subcategory
from mailback.linear import FIELD, SERVING, Weights
from mailback.resources import config_dir

FORMAT = 1
GATE = 0.85
"""Accuracy on held-back diagnostics below which a model does not serve."""
WEIGHT_UNIT = 100
"""Weights are kept as whole hundredths."""

_MAX_TEXT = 1000  # bytes that are read: the cause stands at the beginning, and the time has a bound
_SURE_ENOUGH = 0.6  # a likelier cause than that is a vote; of what was told below it, little more than half was right
_ZERO = 1 << 20  # what stands for a weight of nought in a field, so that none is negative; a thousand fit into one
_LEAST_KNOWN = 2  # known features: a single word is no sentence
_STEM = 5  # letters that are kept of a longer word: enough to tell words apart, few enough to lose most endings
_FIRST_CJK = "\u2e80"  # scripts written without spaces begin here
_TOKEN = re.compile(r"[\w.-]+|@")
_TO_SPACES = bytes(octet if _TOKEN.fullmatch(chr(octet)) else 0x20 for octet in range(128)) + bytes(128)
_SEAM = re.compile(r"[.\-_]+")
_CODE = re.compile(r"[245](?:\d\d|\.\d{1,3}\.\d{1,3})(?![.\d])")  # RFC 5321 4.2, RFC 3463; perhaps joined: 550-5.1.1
_TRANSIENT = re.compile(r"4(?:\d\d|\.\d{1,3}\.\d{1,3})(?![.\d])")
_LONGEST_ENDING = 6  # letters of the last label of a host name; RESOLVER.ADR.RecipientNotFound is none
_RESERVED_ENDINGS = frozenset({"example", "invalid", "localhost", "internal", "localdomain"})


def features(text: bytes) -> set[str]:
    """The features of a prepared text (see `patterns.prepare`)."""
    words = tokens(text)
    found = set(words)
    found.update(map(" ".join, pairwise(words)))
    if text.isascii():
        found.update([word[:_STEM] + "*" for word in words if len(word) > _STEM])
        return found
    for word in words:
        if word[0] >= _FIRST_CJK:
            found.update(map(add, word, word[1:]))
        elif len(word) > _STEM:
            found.add(word[:_STEM] + "*")
    return found


def tokens(text: bytes) -> list[str]:
    """Words and masks: `@` an address, `#host` a machine, `#4` a transient code; other numbers and ids are left out.

    Codes of class 5 leave no token: nearly every refusal has one, so that it would tell nothing but whether the server
    wrote its code down.
    """
    told: list[str] = []
    for found in _runs(text[:_MAX_TEXT]):
        if found.isalpha() or found == "@":
            told.append(found)
        else:
            told += _unmixed(found)
    return told


def _runs(text: bytes) -> list[str]:
    """The runs of word characters, full stops and hyphens, and each `@`."""
    if text.isascii():  # nearly all: two passes over the octets take a third of the time that the pattern takes
        return text.replace(b"@", b" @ ").translate(_TO_SPACES).decode().split()
    return _TOKEN.findall(text.decode("utf-8", "ignore"))


@lru_cache(maxsize=4096)
def _unmixed(token: str) -> tuple[str, ...]:
    """The tokens within one that holds more than letters; codes and the names of our own hosts come again and again."""
    token = token.strip(".-_")
    before: tuple[str, ...] = ()
    if _TRANSIENT.match(token):
        before = ("#4",)
    elif "." in token and not _CODE.match(token):
        ending = token.rpartition(".")[2]
        if ending.isdigit() or len(ending) <= _LONGEST_ENDING or ending in _RESERVED_ENDINGS:
            return ("#host",)
    return before + tuple(part for part in _SEAM.split(token) if part.isalpha())


def _packed(causes: int, flat: list[int]) -> int:
    """A row of the file as one number: it lists causes and weights in turn, since most weights are zero."""
    fields = [_ZERO] * causes
    numbers = iter(flat)
    for cause, weight in zip(numbers, numbers, strict=True):
        fields[cause] += weight
    return sum(value << FIELD * cause for cause, value in enumerate(fields))


@dataclass(frozen=True, slots=True)
class Model(linear.Model):
    """A model that has passed the gate; implements `classify.DiagnosticModel`."""

    causes: tuple[Subcategory, ...]
    weights: Weights[list[int]]

    def vote(self, text: bytes) -> tuple[Subcategory, float] | None:
        """The likeliest cause and its probability for a prepared text; None when it is not sure enough."""
        cause, probability = self.likeliest(text)
        return None if probability < _SURE_ENOUGH or cause is Subcategory.UNKNOWN else (cause, probability)

    def likeliest(self, text: bytes) -> tuple[Subcategory, float]:
        """The likeliest cause and its probability, however unsure; `UNKNOWN` where the text says nothing of a cause."""
        scores = self.scores(text)
        if scores is None:
            return Subcategory.UNKNOWN, 0.0
        top = max(scores)
        return self.causes[scores.index(top)], 1.0 / sum([math.exp(score - top) for score in scores])

    def scores(self, text: bytes) -> list[float] | None:
        """Logits by cause, calibrated, up to what all have in common; None where next to nothing is known."""
        known, sums = self.weights.sums(features(text))
        if known < _LEAST_KNOWN:
            return None
        # A long text has more features, not more certainty: what counts is their mean on a square-root scale.
        scale = self.scale
        share = scale / (WEIGHT_UNIT * math.sqrt(known))
        return [scale * bias + share * total for bias, total in zip(self.biases, sums, strict=True)]


def load(path: Path, *, gate: float = GATE) -> Model:
    """Read a model.

    Raises ModelError for a file that cannot be read, is not a model, or did not pass the gate. `gate=0` reads a
    candidate, for evaluation.
    """
    return linear.load(path, from_document, gate=gate, form=FORMAT, tells="diagnostics")


def from_document(document: dict[str, Any]) -> Model:
    """The model of a parsed file.

    Raises what a value of the wrong form gives (KeyError, TypeError, ValueError, ...) for what is none.
    """
    if document["format"] != FORMAT:
        raise ValueError(f"format is {document['format']!r}")
    causes = tuple(map(Subcategory, document["causes"]))
    return Model(
        **linear.common(document, causes, called="causes"),
        causes=causes,
        weights=Weights(_checked(document["features"], len(causes)), len(causes), partial(_packed, len(causes))),
    )


def _checked(features: dict[str, list[int]], causes: int) -> dict[str, list[int]]:
    """The weights, each of which belongs to a cause. Passes in C over all of them: every start waits for it."""
    flats = features.values()
    if not flats or not all(flats) or any(len(flat) & 1 for flat in flats):
        raise ValueError("a feature without weights, or half a pair")
    if set(map(type, chain.from_iterable(flats))) != {int}:
        raise TypeError("a weight that is no whole number")
    if max(map(abs, set(chain.from_iterable(flats)))) >= _ZERO // 2:
        raise OverflowError("a weight or a number of a cause that is out of all bounds")
    numbers = set(chain.from_iterable(flat[::2] for flat in flats))
    if min(numbers) < 0 or max(numbers) >= causes:
        raise IndexError("a weight for a cause that is none")
    return features


def shipped_path() -> Path:
    """Where the model that ships lies."""
    return config_dir() / "models" / "diagnostics.json"


def load_shipped() -> Model | None:
    """The model that ships; None where the installation has none.

    Raises ModelError for a file that is there and cannot serve: it is damaged, and going on silently would hide that.
    """
    path = shipped_path()
    return load(path) if path.is_file() else None


def directory_of(state_directory: Path) -> Path:
    """Where models that were trained here lie, below the service's state."""
    return state_directory / "models"


def load_serving(state_directory: Path) -> Model | None:
    """The model that was promoted here, else the one that ships. Raises ModelError as `load_shipped` does."""
    promoted = directory_of(state_directory) / SERVING
    return load(promoted) if promoted.is_file() else load_shipped()

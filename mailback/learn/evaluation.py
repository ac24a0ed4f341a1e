"""How good a model is: accuracy, precision and recall by cause, calibration, and the time of a vote.

Accuracy counts every diagnostic and takes the likeliest cause, however unsure; "nothing is said" is an answer of its
own and right where nothing is said. What the model votes for, being sure enough, is counted beside it. Calibration
compares the probability that was told with the share that was right. Pure functions; emit no log events.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mailback.bounce.model import Model
from mailback.bounce.taxonomy import Subcategory
from mailback.learn.samples import Sample

_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class CauseScore:
    """One cause or intent: how many there were, were told, were told rightly."""

    cause: StrEnum
    """A cause, or an intent."""
    there: int
    told: int
    right: int

    @property
    def precision(self) -> float | None:
        return self.right / self.told if self.told else None

    @property
    def recall(self) -> float | None:
        return self.right / self.there if self.there else None


@dataclass(frozen=True, slots=True)
class Bin:
    """Votes of about one probability: how many, what was told on average, what share was right."""

    least: float
    count: int
    told: float
    right: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model measured on labelled diagnostics."""

    samples: int
    right: int
    voted: int
    right_of_voted: int
    causes: list[CauseScore]
    calibration: list[Bin]
    misses: list[tuple[Sample, Subcategory]]
    """What was told wrongly, and as what."""
    vote_us: float
    """Median time of a vote on a text of 300 bytes, in microseconds of CPU."""

    @property
    def accuracy(self) -> float:
        return self.right / self.samples if self.samples else 0.0


def accuracy(model: Model, samples: Sequence[Sample]) -> float:
    """Share of the samples whose cause is told rightly."""
    right = sum(model.likeliest(sample.prepared)[0] is sample.target for sample in samples)
    return right / len(samples) if samples else 0.0


def evaluate(model: Model, samples: Sequence[Sample]) -> Evaluation:
    """Measure a model."""
    answers = [(sample, *model.likeliest(sample.prepared)) for sample in samples]
    votes = [
        (vote[1], vote[0] is sample.target) for sample in samples if (vote := model.vote(sample.prepared)) is not None
    ]
    return Evaluation(
        samples=len(samples),
        right=sum(cause is sample.target for sample, cause, _ in answers),
        voted=len(votes),
        right_of_voted=sum(right for _, right in votes),
        causes=by_label(Subcategory, [(sample.target, cause) for sample, cause, _ in answers]),
        calibration=calibration(votes),
        misses=[(sample, cause) for sample, cause, _ in answers if cause is not sample.target],
        vote_us=vote_us(model),
    )


def by_label(labels: Iterable[StrEnum], answers: Sequence[tuple[StrEnum, StrEnum]]) -> list[CauseScore]:
    """The labels that are there or are told, in their order; of each answer what is right and what is told."""
    there = Counter(right for right, _ in answers)
    told = Counter(said for _, said in answers)
    right = Counter(right for right, said in answers if right is said)
    return [CauseScore(one, there[one], told[one], right[one]) for one in labels if there[one] or told[one]]


def calibration(votes: Sequence[tuple[float, bool]], steps: int = 10) -> list[Bin]:
    """Probabilities told, in steps, beside the share that was right; steps without a vote are left out."""
    found: list[Bin] = []
    for step in range(steps):
        # A hair is added because 0.7 * 10 is less than 7.
        within = [(told, right) for told, right in votes if min(int(told * steps + 1e-9), steps - 1) == step]
        if within:
            count = len(within)
            found.append(Bin(step / steps, count, sum(t for t, _ in within) / count, sum(r for _, r in within) / count))
    return found


def expected_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: how far told and right lie apart, weighted by the number of votes."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.told - b.right) for b in bins) / total if total else 0.0


def vote_us(model: Model) -> float:
    """CPU time of a vote on a diagnostic of 300 bytes, in microseconds: the median of several rounds."""
    words = (
        b"550 5.1.1 <@>: recipient address rejected: the mailbox of the user is not known here, please check the "
        b"spelling and the domain, or contact the administrator of mx.receiver.example (192.0.2.7) who may tell more; "
        b"see https://receiver.example/help?id=4711 for the policy of this system on messages from your network "
    )
    text = words[:300]
    rounds = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        for _ in range(100):
            model.vote(text)
        rounds.append((time.process_time() - start) * 1e4)
    return statistics.median(rounds)

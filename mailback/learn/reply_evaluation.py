"""How well a model of intents reads: acceptable and strict shares, by intent and language, and calibration.

A reading is acceptable where it can be defended, strict where it is the label. What was told beyond doubt (`SURE`) and
is not acceptable is counted by itself: that is acted on without a question. Pure functions; emit no log events.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mailback.learn.evaluation import Bin, CauseScore, by_label, calibration
from mailback.learn.reply_samples import ReplySample
from mailback.reply import concepts, intent
from mailback.reply.intent import Intent
from mailback.reply.model import Model, Verdict, features

SURE = 0.85
"""Confidence from which a reading is acted on without a flag."""

_TIMED = 200  # replies whose reading is timed


@dataclass(frozen=True, slots=True)
class LanguageScore:
    """How many replies of a language there were, and the share that was read acceptably."""

    language: str
    there: int
    share: float


@dataclass(frozen=True, slots=True)
class ReplyEvaluation:
    """A model measured on labelled replies."""

    samples: int
    acceptable: int
    strict: int
    sure: int
    sure_wrong: int
    """Told beyond doubt, and not acceptable."""
    macro_f1: float
    """Mean over the intents, strict."""
    intents: list[CauseScore]
    languages: list[LanguageScore]
    calibration: list[Bin]
    misses: list[tuple[ReplySample, Intent]]
    """What was not read acceptably, and as what."""
    read_us: float
    """Median time of a reading, its features included, in microseconds of CPU."""

    @property
    def accuracy(self) -> float:
        return self.acceptable / self.samples if self.samples else 0.0


def evaluate(model: Model, samples: Sequence[ReplySample]) -> ReplyEvaluation:
    """Measure a model."""
    answers = [(sample, model.read(sample.features)) for sample in samples]
    right = [(told.confidence, told.intent in sample.acceptable) for sample, told in answers]
    intents = by_label(Intent, [(sample.says, told.intent) for sample, told in answers])
    return ReplyEvaluation(
        samples=len(samples),
        acceptable=sum(good for _, good in right),
        strict=sum(told.intent is sample.says for sample, told in answers),
        sure=sum(confidence >= SURE for confidence, _ in right),
        sure_wrong=sum(confidence >= SURE and not good for confidence, good in right),
        macro_f1=statistics.fmean([2 * one.right / (one.there + one.told) for one in intents]) if intents else 0.0,
        intents=intents,
        languages=_by_language(answers),
        calibration=calibration(right),
        misses=[(sample, told.intent) for sample, told in answers if told.intent not in sample.acceptable],
        read_us=_read_us(model, samples[:_TIMED]),
    )


def _by_language(answers: Sequence[tuple[ReplySample, Verdict]]) -> list[LanguageScore]:
    right: dict[str, list[bool]] = {}
    for sample, told in answers:
        right.setdefault(sample.language, []).append(told.intent in sample.acceptable)
    return [LanguageScore(language, len(good), sum(good) / len(good)) for language, good in sorted(right.items())]


def _read_us(model: Model, samples: Sequence[ReplySample]) -> float:
    phrases, known = intent.shipped(), concepts.shipped()
    times = []
    for sample in samples:
        start = time.process_time_ns()
        model.read(features(sample.text, sample.thread, phrases, known))
        times.append((time.process_time_ns() - start) / 1000)
    return statistics.median(times) if times else 0.0


def to_dict(model: Model, found: ReplyEvaluation) -> dict[str, object]:
    """What `mailback model evaluate --replies --json` tells."""
    return {
        "model": model.name,
        "accuracy": round(found.accuracy, 4),
        "samples": found.samples,
        "strict": found.strict,
        "macro_f1": round(found.macro_f1, 4),
        "sure": found.sure,
        "sure_wrong": found.sure_wrong,
        "read_us": round(found.read_us, 1),
        "intents": [
            {"intent": s.cause, "there": s.there, "told": s.told, "right": s.right,
             "precision": s.precision, "recall": s.recall}
            for s in found.intents
        ],
        "languages": [asdict(one) for one in found.languages],
        "calibration": [asdict(one) for one in found.calibration],
        "misses": [
            {"id": s.id, "text": s.text, "says": s.says, "told": told, "language": s.language}
            for s, told in found.misses
        ],
    }  # fmt: skip

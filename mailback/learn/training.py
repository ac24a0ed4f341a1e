"""Training the model of diagnostics: multinomial logistic regression, pruned, calibrated, written as plain data.

1. Every feature of the samples is a column (`mailback.bounce.model.features`); a row is brought to unit length, so that
   a long diagnostic is not surer than a short one only because it is long.
2. L2-regularised multinomial logistic regression (scikit-learn, L-BFGS).
3. Of each feature the weights that matter are kept, a handful of causes each: that makes the file small and the vote
   fast, and costs no accuracy that could be measured.
4. One scale (temperature) is fitted on predictions for families that the model had not seen, fold by fold, so that of
   verdicts told at 0.9 nine in ten are right also for servers nobody wrote samples of.
5. Accuracy on the held-back part decides whether the model may serve (`model.GATE`); it is written into the file, and
   loading checks it.

scikit-learn is imported when training starts: the rest of Mailback runs without it. The same samples give the same
file. Emits no log events.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mailback.bounce import model
from mailback.bounce.taxonomy import Subcategory
from mailback.learn.evaluation import accuracy
from mailback.learn.samples import Sample

FOLDS = 5
STRENGTH = 30.0
"""Inverse of the L2 penalty; chosen by the folds, the same from 10 to 100 within a percent."""
KEPT = 7
"""Causes that a feature keeps weights for."""
SMALLEST = 0.12
"""A weight below it (in logits) changes nothing worth its bytes."""

SCALES = [step / 20 for step in range(6, 61)]
_MAX_ITERATIONS = 400
_UNMEASURED = {"name": "", "made": "", "accuracy": 0.0, "held_back": 0, "trained_on": 0}


class NotInstalledError(Exception):
    """scikit-learn is not there; `advice` says how to install it."""

    reason = "training needs scikit-learn, which is not installed"
    advice = "install Mailback with its extra: pip install 'mailback[learn]'"


def train(
    samples: Sequence[Sample], held_back: Sequence[Sample], *, name: str, made: datetime | None = None
) -> dict[str, Any]:
    """The document of a model trained on `samples` and measured on `held_back` (see `mailback.bounce.model`).

    Raises NotInstalledError, or ValueError when there are too few samples or families to hold any back.
    """
    families = Counter(sample.family for sample in samples)
    if len(families) < FOLDS:
        raise ValueError(f"samples of {len(families)} families, at least {FOLDS} are needed to calibrate")
    document = _UNMEASURED | {
        "name": name,
        "made": stamp(made),
        "held_back": len(held_back),
        "trained_on": len(samples),
    }
    document |= _fit(samples)
    document["scale"] = _scale(samples, families)
    document["accuracy"] = round(accuracy(model.from_document(document), held_back), 4)
    return document


def stamp(made: datetime | None) -> str:
    """When a model was made, now if nothing is said (RFC 3339)."""
    return (made or datetime.now(UTC)).isoformat(timespec="seconds").replace("+00:00", "Z")


def write(document: dict[str, Any], path: Path) -> None:
    """Write a model, a feature a line (a comparison of two versions then shows what changed), whole or not at all."""
    told = ",\n".join(f"{_json(name)}:{_listed(value)}" for name, value in document.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(f"{{{told}}}\n", "utf-8")
    temporary.replace(path)


def _listed(value: object) -> str:
    if not isinstance(value, dict):
        return _json(value)
    return "{\n" + ",\n".join(f"{_json(feature)}:{_json(row)}" for feature, row in value.items()) + "\n}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _fit(samples: Sequence[Sample]) -> dict[str, Any]:
    """Causes, biases and pruned weights."""
    try:
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise NotInstalledError from error
    columns = {feature: n for n, feature in enumerate(sorted({f for sample in samples for f in sample.features}))}
    regression = LogisticRegression(C=STRENGTH, max_iter=_MAX_ITERATIONS)
    regression.fit(_matrix(samples, columns), [sample.target.value for sample in samples])
    weights, biases = by_class(regression)
    return {
        "format": model.FORMAT,
        "causes": [str(cause) for cause in regression.classes_],
        "biases": [round(float(bias), 2) for bias in biases],
        "scale": 1.0,
        "features": {
            feature: flat for feature, column in columns.items() if (flat := _kept([row[column] for row in weights]))
        },
    }


def by_class(regression: Any) -> tuple[Any, Any]:
    """A row of weights and a bias for each class; of two, scikit-learn keeps only the second against the first."""
    weights, biases = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:
        weights, biases = weights[[0, 0]] * [[-0.5], [0.5]], biases[[0, 0]] * [-0.5, 0.5]
    return weights, biases - biases.mean()


def _matrix(samples: Sequence[Sample], columns: dict[str, int]) -> Any:
    """A sparse matrix: a row a sample, each of unit length."""
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped,import-not-found,unused-ignore]

    values: list[float] = []
    places: list[int] = []
    ends = [0]
    for sample in samples:
        found = [columns[feature] for feature in sorted(sample.features)]
        places += found
        values += [1.0 / math.sqrt(max(len(found), 1))] * len(found)
        ends.append(len(places))
    return csr_matrix((values, places, ends), shape=(len(samples), len(columns)))


def _kept(weights: Sequence[float]) -> list[int]:
    """The weights of one feature that matter, as cause number and hundredths."""
    strongest = sorted(range(len(weights)), key=lambda cause: -abs(weights[cause]))[:KEPT]
    flat: list[int] = []
    for cause in sorted(strongest):
        if abs(weights[cause]) >= SMALLEST:
            flat += [cause, round(float(weights[cause]) * model.WEIGHT_UNIT)]
    return flat


def _scale(samples: Sequence[Sample], families: Counter[str]) -> float:
    """The scale at which what is told of families not seen in training is likeliest."""
    folds = _folds(families)
    told: list[tuple[list[float], int]] = []
    for fold in range(FOLDS):
        trained = model.from_document(_UNMEASURED | _fit([s for s in samples if folds[s.family] != fold]))
        numbers = {cause: n for n, cause in enumerate(trained.causes)}
        unseen = [s for s in samples if folds[s.family] == fold and s.target in numbers]
        told += [
            (scores, numbers[sample.target])
            for sample in unseen
            if (scores := trained.scores(sample.prepared)) is not None
        ]
    return min(SCALES, key=lambda scale: loss(told, scale))


def _folds(families: Counter[str]) -> dict[str, int]:
    """Each family in one fold, the folds about as large."""
    sizes = [0] * FOLDS
    placed: dict[str, int] = {}
    for family, count in sorted(families.items(), key=lambda item: (-item[1], item[0])):
        placed[family] = sizes.index(min(sizes))
        sizes[placed[family]] += count
    return placed


def loss(told: Sequence[tuple[list[float], int]], scale: float) -> float:
    """Negative log-likelihood of what was right."""
    total = 0.0
    for scores, right in told:
        top = max(scores)
        total += math.log(sum(math.exp(scale * (score - top)) for score in scores)) - scale * (scores[right] - top)
    return total


def causes_missing(samples: Sequence[Sample]) -> list[Subcategory]:
    """Causes of failures that no sample names: the model will never say them."""
    from mailback.bounce.taxonomy import CAUSES, Type

    never = {Type.AUTO_REPLY, Type.COMPLAINT, Type.DELIVERED, Type.UNKNOWN}
    told = {sample.says for sample in samples}
    return [cause for cause, implied in CAUSES.items() if implied.type not in never and cause not in told]

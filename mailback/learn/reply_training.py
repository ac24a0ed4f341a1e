"""Training the model of intents: multinomial logistic regression on four sets of features, calibrated, as plain data.

1. Every feature that occurs often enough is a column; each set of features is brought to unit length, signs aside
   (`mailback.reply.model`).
2. L2-regularised multinomial logistic regression (scikit-learn, L-BFGS), on the samples and on the same in frames.
3. Features whose weights matter least are dropped, and weights become whole units of their set, one character each.
4. On families that the model had not seen, fold by fold, one scale is fitted, and for each intent the correction that
   turns its probability into the share of acceptable verdicts. Both are fitted on the pruned models, as they serve.
5. The share of held-back replies that are read acceptably decides whether the model may serve (`model.GATE`).

scikit-learn is imported when training starts. The same samples give the same file. Emits no log events.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mailback.learn.reply_samples import ReplySample, framed
from mailback.learn.training import FOLDS, SCALES, NotInstalledError, folded, loss, stamp
from mailback.reply import model
from mailback.reply.intent import Intent
from mailback.reply.model import Features, Model, log_odds

STRENGTH = 10.0
"""Inverse of the L2 penalty."""
SIGN_SHARE = 0.3
"""What a sign counts beside a whole set of features."""
RAREST = {"words": 2, "letters": 4, "concepts": 2}
"""Samples in which a feature must occur."""
KEPT = {"words": 14_000, "letters": 24_000, "concepts": 10_000}
"""Features of a set that are kept, those that weigh most."""

_MAX_ITERATIONS = 200
_TOLERANCE = 1e-3
_UNMEASURED = {"name": "", "made": "", "accuracy": 0.0, "held_back": 0, "trained_on": 0}
_TRUST = 3.0  # inverse of the penalty on what one intent's correction differs from the others'


def train(
    samples: Sequence[ReplySample], held_back: Sequence[ReplySample], directory: Path, *, name: str,
    made: datetime | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The document of a model trained on `samples` and measured on `held_back` (see `mailback.reply.model`).

    `directory` is that of the seed set, for its frames. Raises NotInstalledError, or ValueError when there are too few
    families to hold any back.
    """
    families = Counter(sample.family for sample in samples)
    if len(families) < FOLDS:
        raise ValueError(f"samples of {len(families)} families, at least {FOLDS} are needed to calibrate")
    document = _UNMEASURED | {
        "name": name, "made": stamp(made), "held_back": len(held_back), "trained_on": len(samples),
    }  # fmt: skip
    document |= _fit(samples, directory)
    document |= _calibration(samples, families, directory)
    document["accuracy"] = round(accuracy(model.from_document(document), held_back), 4)
    return document


def accuracy(trained: Model, samples: Sequence[ReplySample]) -> float:
    """Share of the replies whose likeliest intent can be defended."""
    return sum(trained.read(s.features).intent in s.acceptable for s in samples) / max(len(samples), 1)


def _fit(samples: Sequence[ReplySample], directory: Path) -> dict[str, Any]:
    """Intents, biases and pruned weights."""
    try:
        from scipy.sparse import hstack  # type: ignore[import-untyped,import-not-found,unused-ignore]
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise NotInstalledError from error
    learnt = [*samples, *framed(samples, directory)]
    seen = [sample.features for sample in learnt]
    columns = {name: _columns([one.of(name) for one in seen], RAREST[name]) for name in model.SETS}
    signs = _columns([one.signs for one in seen], 2)
    regression = LogisticRegression(C=STRENGTH, max_iter=_MAX_ITERATIONS, tol=_TOLERANCE)
    blocks = [_set_matrix(seen, name, columns[name]) for name in model.SETS] + [_sign_matrix(seen, signs)]
    regression.fit(hstack(blocks).tocsr(), [sample.says.value for sample in learnt])
    document: dict[str, Any] = {
        "format": model.FORMAT,
        "task": "replies",
        "intents": [str(told) for told in regression.classes_],
        "biases": [round(float(bias), 3) for bias in regression.intercept_ - regression.intercept_.mean()],
        "scale": 1.0,
        "correction": {},
        "units": {},
    }
    start = 0
    for name in model.SETS:
        weights = regression.coef_[:, start : start + len(columns[name])].T
        start += len(columns[name])
        document["units"][name], document[name] = _rows(weights, list(columns[name]), KEPT[name])
    document["signs"] = {
        sign: [round(float(weight) * SIGN_SHARE * model.SIGN_UNIT) for weight in regression.coef_[:, start + column]]
        for sign, column in signs.items()
    }
    return document


def _columns(seen: Sequence[Any], rarest: int) -> dict[str, int]:
    counts = Counter(feature for one in seen for feature in one)
    return {feature: at for at, feature in enumerate(sorted(f for f, count in counts.items() if count >= rarest))}


def _set_matrix(seen: Sequence[Features], name: str, columns: dict[str, int]) -> Any:
    rows = [[columns[feature] for feature in sorted(one.of(name)) if feature in columns] for one in seen]
    return _sparse(rows, [[1.0 / math.sqrt(len(row))] * len(row) if row else [] for row in rows], len(columns))


def _sign_matrix(seen: Sequence[Features], columns: dict[str, int]) -> Any:
    known = [[(columns[sign], value) for sign, value in one.signs.items() if sign in columns] for one in seen]
    values = [[value * SIGN_SHARE for _, value in row] for row in known]
    return _sparse([[column for column, _ in row] for row in known], values, len(columns))


def _sparse(rows: Sequence[Sequence[int]], values: Sequence[Sequence[float]], width: int) -> Any:
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped,import-not-found,unused-ignore]

    ends = [0]
    for row in rows:
        ends.append(ends[-1] + len(row))
    flat = [column for row in rows for column in row]
    return csr_matrix(([value for row in values for value in row], flat, ends), shape=(len(rows), width))


def _rows(weights: Any, names: Sequence[str], kept: int) -> tuple[float, dict[str, str]]:
    """What one step is worth, and the rows of the features that weigh most, a character an intent."""
    largest = abs(weights).max(axis=1)
    order = sorted(range(len(names)), key=lambda at: (-largest[at], names[at]))[:kept]
    unit = float(largest.max()) / -model.LEAST or 1.0
    steps = (weights / unit).round().clip(model.LEAST, model.MOST).astype(int)
    rows = {names[at]: "".join(chr(model.NOUGHT + step) for step in steps[at]) for at in sorted(order)}
    nothing = chr(model.NOUGHT) * weights.shape[1]
    return unit, {name: row for name, row in rows.items() if row != nothing}


def _calibration(samples: Sequence[ReplySample], families: Counter[str], directory: Path) -> dict[str, Any]:
    """The scale at which what is told of unseen families is likeliest, and the correction by intent."""
    folds = folded(families)
    told: list[tuple[list[float], ReplySample]] = []
    trained: Model | None = None
    for fold in range(FOLDS):
        document = _UNMEASURED | _fit([s for s in samples if folds[s.family] != fold], directory)
        trained = model.from_document(document)
        told += [(trained.scores(s.features), s) for s in samples if folds[s.family] == fold]
    assert trained is not None
    numbers = {intent: at for at, intent in enumerate(trained.intents)}
    right = [(scores, numbers[sample.says]) for scores, sample in told if sample.says in numbers]
    scale = min(SCALES, key=lambda scale: loss(right, scale))
    verdicts = [(trained.verdict([scale * one for one in scores]), sample) for scores, sample in told]
    return {"scale": scale, "correction": _correction(verdicts)}


def _correction(verdicts: Sequence[tuple[model.Verdict, ReplySample]]) -> dict[str, list[float]]:
    """By intent, the slope and offset that turn the log-odds of a verdict into those of its being acceptable."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped,import-not-found,unused-ignore]

    intents = sorted({verdict.intent for verdict, _ in verdicts})
    rows = [
        [log_odds(verdict.confidence), *(math.sqrt(_TRUST) * (verdict.intent is intent) for intent in intents)]
        for verdict, _ in verdicts
    ]
    right = [verdict.intent in sample.acceptable for verdict, sample in verdicts]
    if len(set(right)) == 1:
        return {}
    regression = LogisticRegression(C=1.0, max_iter=_MAX_ITERATIONS).fit(rows, right)
    slope, *offsets = (float(weight) for weight in regression.coef_[0])
    base = float(regression.intercept_[0])
    return {
        intent.value: [round(slope, 3), round(base + math.sqrt(_TRUST) * offset, 3)]
        for intent, offset in zip(intents, offsets, strict=True)
    }


def intents_missing(samples: Sequence[ReplySample]) -> list[Intent]:
    """Intents that no sample has: the model will never tell them."""
    told = {sample.says for sample in samples}
    return [intent for intent in Intent if intent not in told]

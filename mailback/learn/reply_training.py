"""Training the model of intents: multinomial logistic regression on four sets of features, calibrated, as plain data.

1. Answers that only their question explains are left out: the rules read them. Every feature that occurs often enough
   is a column; each set of features is brought to unit length, signs aside
   (`mailback.reply.model`).
2. L2-regularised multinomial logistic regression (scikit-learn, L-BFGS), on the samples and on the same in frames.
3. Features whose weights matter least are dropped, and weights become whole units of their set, one character each.
4. On the replies held back, whole families that the model has not seen, one scale is fitted, and the correction that
   turns a probability into the share of acceptable verdicts: for each intent by itself, and less the more of the words
   are new to the model. Folds of the samples were tried and promised more than families held: what is alike in several
   languages stood in several folds.
5. The share of held-back replies that are read acceptably, which no scale or correction changes, decides whether the
   model may serve (`model.GATE`).

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
from mailback.learn.training import SCALES, NotInstalledError, by_class, loss, stamp
from mailback.reply import model
from mailback.reply.intent import Intent
from mailback.reply.model import Features, Model, log_odds

LEAST_HELD_BACK = 100
"""Replies held back from which calibration is more than noise."""
STRENGTH = 4.0
"""Inverse of the L2 penalty."""
SIGN_SHARE = 0.5
"""What a sign counts beside a whole set of features."""
RAREST = {"words": 2, "letters": 4, "concepts": 2}
"""Samples in which a feature must occur."""
KEPT = {"words": 13_000, "letters": 22_000, "concepts": 11_000}
"""Features of a set that are kept, those that weigh most."""

_MAX_ITERATIONS = 200
_TOLERANCE = 1e-3
_UNMEASURED = {"name": "", "made": "", "accuracy": 0.0, "held_back": 0, "trained_on": 0}
_CAUTION = 0.45  # log-odds taken off: mail is unlike what was written, and what is sure is acted on
_TRUST = 1.0  # inverse of the penalty on what one intent's correction differs from the others'


def train(
    samples: Sequence[ReplySample], held_back: Sequence[ReplySample], directory: Path, *, name: str,
    made: datetime | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The document of a model trained on `samples` and measured on `held_back` (see `mailback.reply.model`).

    `directory` is that of the seed set, for its frames. Raises NotInstalledError, or ValueError when the samples tell
    fewer than two intents.
    """
    if len({sample.says for sample in samples}) <= 1:
        raise ValueError("samples of fewer than two intents tell nothing apart")
    document = _UNMEASURED | {
        "name": name, "made": stamp(made), "held_back": len(held_back), "trained_on": len(samples),
    }  # fmt: skip
    taught = [sample for sample in samples if not sample.told_by_question]
    learnt = [*taught, *framed(taught, directory)]
    document |= _fit(learnt)
    trained = model.from_document(document)
    document["accuracy"] = round(accuracy(trained, held_back), 4)
    if len(held_back) >= LEAST_HELD_BACK:
        document |= _calibration(trained, held_back)
    return document


def accuracy(trained: Model, samples: Sequence[ReplySample]) -> float:
    """Share of the replies whose likeliest intent can be defended."""
    return sum(trained.read(s.features).intent in s.acceptable for s in samples) / max(len(samples), 1)


def _fit(learnt: Sequence[ReplySample]) -> dict[str, Any]:
    """Intents, biases and pruned weights."""
    try:
        from scipy.sparse import hstack  # type: ignore[import-untyped,import-not-found,unused-ignore]
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise NotInstalledError from error
    seen = [sample.features for sample in learnt]
    columns = {name: _columns([one.of(name) for one in seen], RAREST[name]) for name in model.SETS}
    signs = _columns([one.signs for one in seen], 2)
    regression = LogisticRegression(C=STRENGTH, max_iter=_MAX_ITERATIONS, tol=_TOLERANCE)
    blocks = [_set_matrix(seen, name, columns[name]) for name in model.SETS] + [_sign_matrix(seen, signs)]
    regression.fit(hstack(blocks).tocsr(), [sample.says.value for sample in learnt])
    every, biases = by_class(regression)
    document: dict[str, Any] = {
        "format": model.FORMAT,
        "task": "replies",
        "intents": [str(told) for told in regression.classes_],
        "biases": [round(float(bias), 3) for bias in biases],
        "scale": 1.0,
        "correction": {},
        "doubt": 0.0,
        "units": {},
    }
    start = 0
    for name in model.SETS:
        weights = every[:, start : start + len(columns[name])].T
        start += len(columns[name])
        document["units"][name], document[name] = _rows(weights, list(columns[name]), KEPT[name])
    document["signs"] = {
        sign: [round(float(weight) * SIGN_SHARE * model.SIGN_UNIT) for weight in every[:, start + column]]
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
    every = [value for row in values for value in row]
    return csr_matrix((every, flat, ends), shape=(len(rows), width), dtype="float32")  # half the time of double


def _rows(weights: Any, names: Sequence[str], kept: int) -> tuple[float, dict[str, str]]:
    """What one step is worth, and the rows of the features that weigh most, a character an intent."""
    largest = abs(weights).max(axis=1)
    order = sorted(range(len(names)), key=lambda at: (-largest[at], names[at]))[:kept]
    unit = float(largest.max()) / -model.LEAST or 1.0
    steps = (weights / unit).round().clip(model.LEAST, model.MOST).astype(int)
    rows = {names[at]: "".join(chr(model.NOUGHT + step) for step in steps[at]) for at in sorted(order)}
    nothing = chr(model.NOUGHT) * weights.shape[1]
    return unit, {name: row for name, row in rows.items() if row != nothing}


def _calibration(trained: Model, held_back: Sequence[ReplySample]) -> dict[str, Any]:
    """The scale at which what is right of the held-back replies is likeliest, and the correction by intent."""
    told = [(*trained.weighed(sample.features), sample) for sample in held_back]
    numbers = {intent: at for at, intent in enumerate(trained.intents)}
    right = [(scores, numbers[sample.says]) for scores, _, sample in told if sample.says in numbers]
    scale = min(SCALES, key=lambda scale: loss(right, scale))
    verdicts = [(trained.verdict([scale * one for one in scores]), new, sample) for scores, new, sample in told]
    return {"scale": scale} | _correction(verdicts)


def _correction(verdicts: Sequence[tuple[model.Verdict, float, ReplySample]]) -> dict[str, Any]:
    """By intent, the slope and offset that turn the log-odds of a verdict into those of its being acceptable, and what
    a reply of which all words are new takes from them."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped,import-not-found,unused-ignore]

    intents = sorted({verdict.intent for verdict, _, _ in verdicts})
    rows = [
        [log_odds(verdict.confidence), new, *(math.sqrt(_TRUST) * (verdict.intent is intent) for intent in intents)]
        for verdict, new, _ in verdicts
    ]
    right = [verdict.intent in sample.acceptable for verdict, _, sample in verdicts]
    if len(set(right)) == 1:
        return {"correction": {}}
    regression = LogisticRegression(C=1.0, max_iter=_MAX_ITERATIONS).fit(rows, right)
    slope, doubt, *offsets = (float(weight) for weight in regression.coef_[0])
    base = float(regression.intercept_[0])
    return {
        "doubt": round(min(doubt, 0.0), 3),
        "correction": {
            intent.value: [round(slope, 3), round(base - _CAUTION + math.sqrt(_TRUST) * offset, 3)]
            for intent, offset in zip(intents, offsets, strict=True)
        },
    }


def intents_missing(samples: Sequence[ReplySample]) -> list[Intent]:
    """Intents that no sample has: the model will never tell them."""
    told = {sample.says for sample in samples}
    return [intent for intent in Intent if intent not in told]

"""Linear models as plain data: what those of diagnostics and of replies have in common.

A model is a JSON file: labels, biases, a scale, and for each feature what it weighs for each label. It holds no code
and is checked whole when it is read; numpy is not needed. A file whose accuracy on what was held back is below a gate,
or is not told, does not serve: `load` refuses it.

Emits no log events: whoever loads a model tells what is wrong with it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from mailback.bounce.rulefile import RulesError

MAX_FILE = 4_000_000
"""Bytes; a larger file is no model of ours."""
FIELD = 32
"""Bits of a packed row that each label has; `memoryview` calls it I."""

SERVING = "serving.json"
"""Name of the promoted model in the folder of those that were trained here."""

_UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)


class ModelError(RulesError):
    """A model file that cannot serve; `problems` says why."""


@dataclass(frozen=True, slots=True)
class Model:
    """What every model tells of itself, and the part of its sums that is the same for every text."""

    name: str
    made: str
    """When it was trained (RFC 3339)."""
    accuracy: float
    """Share of what was held back that it tells rightly."""
    held_back: int
    """How many these were."""
    trained_on: int
    biases: tuple[float, ...]
    """One a label."""
    scale: float
    """What sums of weights are multiplied by before they become probabilities (calibration)."""


M = TypeVar("M", bound=Model)
Row = TypeVar("Row")


def load(path: Path, build: Callable[[dict[str, Any]], M], *, gate: float, form: int, tells: str) -> M:
    """The model of a file; `build` makes it of the parsed document, `tells` names what was held back.

    Raises ModelError for a file that cannot be read, is not a model, or did not pass the gate.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise ModelError([f"{path}: larger than {MAX_FILE} bytes, no model is"])
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError([f"{path}: cannot be read ({error.strerror})"]) from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
        raise ModelError([f"{path}: not JSON ({error})"]) from error
    try:
        model = build(document)
    except _UNREADABLE as error:
        raise ModelError([f"{path}: not a model of format {form} ({type(error).__name__}: {error})"]) from error
    if not model.accuracy >= gate:  # so written that NaN is refused too
        told = f"told {model.accuracy:.1%} of the held-back {tells} rightly"
        raise ModelError([f"{path}: {told}, a model below {gate:.0%} does not serve"])
    return model


def common(document: dict[str, Any], labels: Sequence[object], *, called: str) -> dict[str, Any]:
    """The fields of `Model` from a parsed file; `labels` are what its biases belong to, `called` names them.

    Raises what a value of the wrong form gives (KeyError, TypeError, ValueError, ...).
    """
    biases = tuple(map(finite, document["biases"]))
    if len(biases) != len(labels) or len(set(labels)) != len(labels) or not labels:
        raise ValueError(f"{called} and biases do not belong together")
    if (scale := finite(document["scale"])) <= 0:
        raise ValueError("scale is not positive")
    return {
        "name": str(document["name"]),
        "made": str(document["made"]),
        "accuracy": finite(document["accuracy"]),
        "held_back": int(document["held_back"]),
        "trained_on": int(document["trained_on"]),
        "biases": biases,
        "scale": scale,
    }


def finite(number: Any) -> float:
    """The number; ValueError for what is none or is not finite."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number!r} is no finite number")
    return value


class Weights(Generic[Row]):
    """What each feature weighs for each label, added up for many features at once.

    A feature that comes up is kept as one whole number with a field of `FIELD` bits for each label, so that all
    features of a text are added by the interpreter's own addition of long numbers: a tenth of the time that a loop over
    their weights takes. Packing waits for the first use, as a start would otherwise pay for thousands of features that
    few texts have; until then the row stands in its place, so that a feature is looked up once.
    """

    __slots__ = ("_labels", "_pack", "_rows")

    def __init__(self, rows: Mapping[str, Row], labels: int, pack: Callable[[Row], int]) -> None:
        """`pack` makes one number of a row; no field of it may be negative or so large that a thousand overflow, nor
        may all be zero."""
        self._rows: dict[str, Row | int] = dict(rows)
        self._labels = labels
        self._pack = pack

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Weights)
            and self._rows.keys() == other._rows.keys()
            and all(self._number(feature) == other._number(feature) for feature in self._rows)
        )

    __hash__ = None  # type: ignore[assignment]  # holds a dictionary

    def __len__(self) -> int:
        return len(self._rows)

    def sums(self, found: AbstractSet[str]) -> tuple[int, list[int]]:
        """How many of these features are known, and the sum of their fields by label.

        Whatever `pack` adds to all fields alike, so that none is negative, is in it: likelihoods do not see it.
        """
        known: list[Any] = list(filter(None, map(self._rows.get, found)))
        try:
            total = sum(known)
        except TypeError:  # one that comes up for the first time is no number yet
            total = sum([self._number(feature) for feature in found if feature in self._rows])
        fields = memoryview(total.to_bytes(self._labels * FIELD // 8, sys.byteorder)).cast("I").tolist()
        if sys.byteorder == "big":
            fields.reverse()
        return len(known), fields

    def _number(self, feature: str) -> int:
        row = self._rows[feature]
        if not isinstance(row, int):
            row = self._rows[feature] = self._pack(row)
        return row

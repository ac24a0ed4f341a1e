"""Labelled diagnostics: those that the project wrote itself, and those that the store has seen.

The seed set lies in `data/diagnostics/` (its datasheet is the README there): one JSON object a line with `text`,
`says`, `family` (the kind of server that speaks so) and `language`. Whole families are held back for evaluation, never
single lines: two lines of one server differ in a word, and a model that has seen the one knows the other by heart.

From the store come events whose cause the rules told beyond doubt (words and code agree, and both are specific), and
what a person has corrected, whose word outranks the rules about the same wording.
Emits no log events.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mailback.bounce.classify import SPECIFIC, WEIGHTS
from mailback.bounce.model import features
from mailback.bounce.patterns import prepare
from mailback.bounce.taxonomy import Subcategory
from mailback.resources import config_dir
from mailback.store.records import Event, Review

SURE = 0.95
"""Confidence from which a verdict of the rules is a label."""
CORRECTED = "store:corrected"
"""The family of what people have corrected."""
SEED, HELD_BACK = "seed.jsonl", "held_back.jsonl"

_SAME_WORDS = {Subcategory.MAILBOX_TEMPORARILY_FULL: Subcategory.MAILBOX_FULL}
"""Causes that only the class of the code tells apart; the classifier does that whatever the model says."""


class SamplesError(Exception):
    """A file of labelled diagnostics that cannot be used; `problems` lists every line that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Sample:
    """A diagnostic and its cause."""

    text: str
    says: Subcategory
    family: str
    """What is held back together: the server's family, or the provider of a stored event."""
    language: str = ""

    @property
    def target(self) -> Subcategory:
        """What the model is to say of it."""
        return _SAME_WORDS.get(self.says, self.says)

    @cached_property
    def prepared(self) -> bytes:
        return prepare(self.text)

    @cached_property
    def features(self) -> frozenset[str]:
        return frozenset(features(self.prepared))


def seed_directory() -> Path:
    """Where the seed set lies: `data/` beside the packages in a checkout, inside the wheel else."""
    return config_dir().parent / "data" / "diagnostics"


def read(path: Path) -> list[Sample]:
    """Labelled diagnostics of a file.

    Raises OSError, or SamplesError with every line that is wrong.
    """
    samples, problems = [], []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            samples.append(
                Sample(str(entry["text"]), Subcategory(entry["says"]), str(entry["family"]), entry.get("language", ""))
            )
        except (ValueError, KeyError, TypeError) as error:
            problems.append(f"{path}:{number}: {type(error).__name__}: {error}, expected text, says and family")
    if problems:
        raise SamplesError(problems)
    return samples


def of_events(events: Iterable[Event]) -> Iterator[Sample]:
    """What stored events teach: each wording once, where the rules told its cause beyond doubt."""
    seen: set[bytes] = set()
    for event in events:
        if not event.diagnostic or not event.subcategory or not _beyond_doubt(event):
            continue
        sample = Sample(event.diagnostic, Subcategory(event.subcategory), f"store:{event.provider or 'other'}")
        if sample.prepared not in seen:
            seen.add(sample.prepared)
            yield sample


def of_corrections(reviews: Iterable[Review]) -> Iterator[Sample]:
    """What people have corrected, each wording once: of two that contradict each other the later decision counts."""
    latest: dict[bytes, Sample] = {}
    for item in sorted(reviews, key=lambda item: item.closed_at or item.at):
        if item.text and item.right_subcategory:
            sample = Sample(item.text, Subcategory(item.right_subcategory), CORRECTED)
            latest[sample.prepared] = sample
    yield from latest.values()


def outranked(samples: Iterable[Sample], corrections: Iterable[Sample]) -> list[Sample]:
    """The samples without those whose wording a person has said to mean something else, and the corrections."""
    said = list(corrections)
    settled = {sample.prepared for sample in said}
    return [sample for sample in samples if sample.prepared not in settled] + said


def _beyond_doubt(event: Event) -> bool:
    """Words and code say the same, specifically; the model's own vote is no reason, or it would teach itself."""
    if (event.confidence or 0.0) < SURE:
        return False
    layers = {str(vote.get("layer")): vote for vote in event.evidence if vote.get("says") == event.subcategory}
    text = layers.get("text") or layers.get("provider")
    return _specific(text, "text") and "status" in layers


def _specific(vote: dict[str, object] | None, layer: str) -> bool:
    weight = vote.get("weight") if vote else None
    return isinstance(weight, int | float) and weight / WEIGHTS[layer] >= SPECIFIC

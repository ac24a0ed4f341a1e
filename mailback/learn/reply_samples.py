"""Labelled replies: those that the project wrote itself, and those that people have corrected.

The seed set lies in `data/replies/` (its datasheet is the README there). What is held back is held back by family, the
situation that several records tell in different words: a model that has seen the one knows the others by heart. A
record that names no family is one of its own.

Real replies begin with a greeting and end with a name, the written ones mostly do not: `framed` puts frames of
`frames.toml` around them, so that no model takes a "thank you for your mail" for what is meant. Emits no log events.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from zlib import crc32

from mailback.learn.samples import CORRECTED, SamplesError
from mailback.reply import concepts, intent
from mailback.reply.intent import Intent
from mailback.reply.model import Features, features
from mailback.resources import config_dir
from mailback.store.records import Review

FRAMES = "frames.toml"

_HELD_BACK = "7"  # families, and records without one, that end so


@dataclass(frozen=True)
class ReplySample:
    """A reply and what it means."""

    id: str
    text: str
    says: Intent
    acceptable: frozenset[Intent]
    """Every reading that can be defended."""
    language: str
    family: str
    """What is held back together."""
    thread: tuple[str, ...] = ()
    """What it answers, where it means nothing without."""
    held_back: bool = False

    @cached_property
    def features(self) -> Features:
        return features(self.text, self.thread, intent.shipped(), concepts.shipped())

    @property
    def told_by_question(self) -> bool:
        """Whether what it answers decides, and not its words: the rules read it, and nothing is learnt from it, or a
        "go ahead" to "shall I stop writing?" would make every "go ahead" a refusal."""
        rules = intent.shipped()
        if not self.thread:
            return False
        return intent.bare_answer(self.text, self.thread, rules) is not None or intent.asks_to_end(
            self.thread[-1], rules
        )


def seed_directory() -> Path:
    """Where the seed set lies: `data/` beside the packages in a checkout, inside the wheel else."""
    return config_dir().parent / "data" / "replies"


def read(directory: Path) -> list[ReplySample]:
    """The labelled replies of all files of a folder.

    Raises OSError, or SamplesError with every line that is wrong.
    """
    samples: list[ReplySample] = []
    problems: list[str] = []
    for path in sorted(directory.glob("*.jsonl")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            try:
                samples.append(_sample(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                problems.append(f"{path}:{number}: {type(error).__name__}: {error}, expected id, text and intent")
    if problems:
        raise SamplesError(problems)
    return samples


def _sample(record: dict[str, str]) -> ReplySample:
    says = Intent(record["intent"])
    family = record.get("family", "")
    return ReplySample(
        id=str(record["id"]),
        text=str(record["text"]),
        says=says,
        acceptable=frozenset({says, *map(Intent, record.get("acceptable", ()))}),
        language=str(record.get("language", "")),
        family=family or str(record["id"]),
        thread=(str(record["thread"]),) if record.get("thread") else (),
        held_back=(family or record["id"]).endswith(_HELD_BACK),
    )


def framed(samples: Iterable[ReplySample], directory: Path) -> Iterator[ReplySample]:
    """Each sample once more, with a greeting, a courtesy or a name around it, where its language has such frames.

    Which ones is drawn from the sample's id: the same samples give the same frames.
    """
    path = directory / FRAMES
    frames = tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}
    for sample in samples:
        if (frame := frames.get(sample.language)) is None:
            continue
        drawn = crc32(sample.id.encode())
        before, after = frame["before"], frame["after"]
        text = sample.text
        if drawn % 3 != 1:
            text = f"{before[drawn // 3 % len(before)]}{text}"
        if drawn % 3 != 0:
            text = f"{text}{after[drawn // 7 % len(after)]}"
        yield replace(sample, text=text)


def of_corrections(reviews: Iterable[Review]) -> Iterator[ReplySample]:
    """What people have corrected: of two decisions about one text the later counts."""
    latest: dict[str, ReplySample] = {}
    for item in sorted(reviews, key=lambda item: item.closed_at or item.at):
        if item.text and item.right_intent:
            says = Intent(item.right_intent)
            latest[item.text] = ReplySample(
                str(item.id), item.text, says, frozenset({says}), "", f"{CORRECTED}:{item.id}"
            )
    yield from latest.values()

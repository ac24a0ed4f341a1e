"""The figures of the reply readers on samples; skipped where those are not at hand."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mailback.reply import body, dates, intent, language

_FOLDER = Path(__file__).parents[3] / "shared" / "corpus" / "replies"
pytestmark = pytest.mark.skipif(not (_FOLDER / "sample.jsonl").is_file(), reason=f"no samples in {_FOLDER}")


def _items() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (_FOLDER / "sample.jsonl").read_text(encoding="utf-8").splitlines()]


def _thread(item: dict[str, Any]) -> list[str]:
    return [item["thread_context"]] if item.get("thread_context") else []


def _same(one: str, other: str) -> bool:
    return one.split() == other.split()


def _new_text(item: dict[str, Any]) -> str:
    sender = item["headers"]["from"].partition("<")[0].strip()
    return body.read(item["body"], _thread(item), sender=sender).text


def test_new_text_of_the_samples() -> None:
    plain = [item for item in _items() if "html" not in item["headers"].get("content-type", "")]
    right = sum(_same(_new_text(item), item["new_text"]) for item in plain)
    assert right / len(plain) >= 0.92


def test_new_text_of_the_quotation_samples() -> None:
    files = sorted((_FOLDER / "quotes" / "emails").iterdir())
    right = sum(
        _same(body.read(path.read_text("utf-8")).text, (_FOLDER / "quotes" / "trimmed" / path.name).read_text("utf-8"))
        for path in files
    )
    assert right / len(files) >= 0.80


def test_language_and_return_date_of_the_samples() -> None:
    items = _items()
    right = sum(
        language.detect(_new_text(item), [item["subject"], *_thread(item)]) == item["language"] for item in items
    )
    assert right / len(items) >= 0.95
    for item in items:
        if item["label"] == "out_of_office":
            sent = datetime.strptime(item["headers"]["date"], "%a, %d %b %Y %H:%M:%S %z")
            day = dates.return_date(_new_text(item), sent, item["language"])
            assert (day and day.isoformat()) in [item["return_date"], *item.get("return_date_acceptable", [])]


def test_intent_of_the_samples() -> None:
    items = _items()
    acceptable = 0
    for item in items:
        told = intent.read(_new_text(item), item["subject"], _thread(item)).intent
        acceptable += told in (item["label"], *item["acceptable"])
    assert acceptable / len(items) >= 0.90

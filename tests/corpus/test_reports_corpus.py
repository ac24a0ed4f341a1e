"""The figures of the report readers on public samples; skipped where those are not at hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mailback import reports
from mailback.message import parse

_FOLDER = Path(__file__).parents[3] / "shared" / "corpus" / "bounces"
pytestmark = pytest.mark.skipif(not (_FOLDER / "labels.jsonl").is_file(), reason=f"no samples in {_FOLDER}")


@cache
def _read_all() -> list[tuple[dict[str, Any], reports.Report]]:
    labels = [json.loads(line) for line in (_FOLDER / "labels.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(label, reports.read(parse((_FOLDER / label["file"]).read_bytes()))) for label in labels]


def _recipients() -> Iterator[tuple[dict[str, Any], reports.DeliveryFailure | None]]:
    for label, report in _read_all():
        told = {failure.recipient.lower(): failure for failure in report.failures}
        for expected in label["bounces"]:
            yield expected, told.get(expected["recipient"].lower())


def test_the_kind_is_right() -> None:
    right = [report.kind == label["kind"] for label, report in _read_all()]
    assert sum(right) / len(right) >= 0.98


def test_the_set_of_recipients_is_right() -> None:
    right = [
        {failure.recipient.lower() for failure in report.failures}
        == {expected["recipient"].lower() for expected in label["bounces"]}
        for label, report in _read_all()
    ]
    assert sum(right) / len(right) >= 0.98


def test_the_status_is_right() -> None:
    right = [
        failure is not None and failure.status == expected["status"]
        for expected, failure in _recipients()
        if expected["status"]
    ]
    assert sum(right) / len(right) >= 0.98


def test_the_smtp_code_is_right() -> None:
    right = [
        failure is not None and failure.smtp_code == expected["smtp_code"]
        for expected, failure in _recipients()
        if expected["smtp_code"]
    ]
    assert sum(right) / len(right) >= 0.95


def test_nearly_every_original_message_id_is_recovered() -> None:
    """One in six of these returns no Message-ID at all."""
    found = [report.original is not None and report.original.message_id is not None for _, report in _read_all()]
    assert sum(found) / len(found) >= 0.8

"""The figures over the public sample corpus: what is told rightly, and how far confidence can be trusted.

The floors stand a little below what was measured, so that a rule that costs accuracy fails here. The corpus is no part
of the project; without it the tests skip.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

import mailback

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus" / "bounces"

pytestmark = pytest.mark.skipif(not (CORPUS / "labels.jsonl").is_file(), reason="the sample corpus is not there")


@lru_cache(maxsize=1)
def recipients() -> tuple[tuple[dict[str, Any], dict[str, Any]], ...]:
    """Each labelled recipient with what was told of it; a recipient that was not found is told nothing."""
    pairs = []
    for line in (CORPUS / "labels.jsonl").read_text().splitlines():
        label = json.loads(line)
        told = mailback.classify((CORPUS / label["file"]).read_bytes()).to_dict()["bounces"]
        assert isinstance(told, list)
        by_address = {str(one["recipient"]).lower(): one for one in told}
        for wanted in label["bounces"]:
            got = by_address.get(wanted["recipient"].lower()) or (told[0] if len(told) == 1 else {})
            pairs.append((wanted, got))
    return tuple(pairs)


def share(figure: str, wanted: str) -> float:
    judged = [got.get(figure) in label[wanted] for label, got in recipients() if label[wanted]]
    return sum(judged) / len(judged)


def test_types_are_told() -> None:
    assert share("type", "types") >= 0.95


def test_subcategories_are_told() -> None:
    assert share("subcategory", "subcategories") >= 0.93


def test_never_mail_again_is_told_to_the_right_ones() -> None:
    judged = [(bool(got.get("permanent")), label["permanent"]) for label, got in recipients()]
    judged = [pair for pair in judged if pair[1] is not None]
    right = sum(told and true for told, true in judged)
    assert right / sum(told for told, _ in judged) >= 0.98
    assert right / sum(true for _, true in judged) >= 0.96


def test_what_is_told_with_confidence_is_right() -> None:
    sure = [
        got["type"] in label["types"] and got["subcategory"] in label["subcategories"]
        for label, got in recipients()
        if label["subcategories"] and got and got["confidence"] >= 0.9
    ]
    assert len(sure) > len(recipients()) / 2
    assert sum(sure) / len(sure) >= 0.96

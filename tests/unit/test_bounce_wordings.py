"""What servers say, and the cause that it means: one line of `data/bounce_wordings.txt` a phenomenon.

Each line guards a reading that a rule could lose when another one is added: the sender's unknown user taken for the
recipient's, a rate limit under 5.1.1, a full disk for a full mailbox.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from mailback.bounce import rules
from mailback.bounce.classify import Classifier
from mailback.bounce.taxonomy import Kind
from mailback.reports.report import DeliveryFailure, Report
from mailback.resources import rules_dir

WORDINGS = Path(__file__).resolve().parents[1] / "data" / "bounce_wordings.txt"


def _cases() -> list[tuple[str, str, str, str, str]]:
    rows = []
    for line in WORDINGS.read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        cause, code, status, host, diagnostic = (cell.strip() for cell in line.split("|", 4))
        rows.append((cause, code, status, host, diagnostic))
    return rows


@lru_cache(maxsize=1)
def classifier() -> Classifier:
    return Classifier(rules.load([rules_dir()]))


@pytest.mark.parametrize(("cause", "code", "status", "host", "diagnostic"), _cases())
def test_says(cause: str, code: str, status: str, host: str, diagnostic: str) -> None:
    failure = DeliveryFailure(
        "bo@a.example", smtp_code=code or None, status=status or None, remote_mta=host or None, diagnostic=diagnostic
    )
    verdict = classifier().verdict(failure, Report(Kind.BOUNCE, [failure]))
    assert verdict.subcategory == cause, verdict

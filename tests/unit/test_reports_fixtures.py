"""Reports of servers and in languages that no sample covers, in the manner of the real ones, written for the project.

`tests/data/reports/expected.json` says what each is: its kind, and where it is a report the exact set of recipients,
the status codes and the original recipients.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mailback import reports
from mailback.message import parse

_FOLDER = Path(__file__).parents[1] / "data" / "reports"
_EXPECTED: dict[str, dict[str, Any]] = json.loads((_FOLDER / "expected.json").read_text(encoding="utf-8"))


def _read(name: str) -> reports.Report:
    return reports.read(parse((_FOLDER / f"{name}.eml").read_bytes()))


@pytest.mark.parametrize("name", sorted(_EXPECTED))
def test_a_report_is_told_for_what_it_is(name: str) -> None:
    expected, report = _EXPECTED[name], _read(name)
    assert report.kind == expected["kind"]
    told = {failure.recipient: failure for failure in report.failures}
    assert sorted(told) == sorted(expected.get("recipients", []))
    for address, status in expected.get("statuses", {}).items():
        assert told[address].status == status
    for address, original in expected.get("original", {}).items():
        assert told[address].original_recipient == original
        assert told[address].mailed == original


@pytest.mark.parametrize("name", sorted(name for name, expected in _EXPECTED.items() if "cause" in expected))
def test_the_cause_is_told_where_the_message_names_it(name: str) -> None:
    report = _read(name)
    causes = {failure.cause for failure in report.failures} or {report.cause}
    assert causes == {_EXPECTED[name]["cause"]}
    assert report.moved_to == _EXPECTED[name].get("moved_to")


@pytest.mark.parametrize("name", sorted(_EXPECTED.keys() - {"garbage"}))
@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"])
def test_line_ends_make_no_difference(name: str, line_end: bytes) -> None:
    raw = (_FOLDER / f"{name}.eml").read_bytes()
    plain = reports.read(parse(raw))
    other = reports.read(parse(raw.replace(b"\n", line_end)))
    assert other.kind == plain.kind
    assert [(f.recipient, f.status) for f in other.failures] == [(f.recipient, f.status) for f in plain.failures]


def test_every_fixture_has_an_expectation() -> None:
    assert {path.stem for path in _FOLDER.glob("*.eml")} == set(_EXPECTED)

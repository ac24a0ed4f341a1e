"""Whole reports to verdict: kind, recipients, status codes and cause, each labelled before it was first read."""

from __future__ import annotations

from pathlib import Path

import pytest

import mailback

_FILE = Path(__file__).parents[1] / "data" / "whole_bounces.txt"
_HEAD = "To: news@sender.example\nReturn-Path: <>\nDate: Tue, 4 Mar 2025 10:11:12 +0000\nMIME-Version: 1.0\n"
_RETURNED = "From: news@sender.example\nTo: reader@sender.example\nSubject: Spring\nMessage-ID: <1@sender.example>\n"


def _cases() -> dict[str, tuple[list[str], bytes]]:
    told = {}
    for case in _FILE.read_text(encoding="utf-8").split("\n=== ")[1:]:
        label, _, message = case.partition("\n")
        name, *labels = (column.strip() for column in label.split("|"))
        told[name] = labels, _message(message.strip("\n"))
    return told


def _message(written: str) -> bytes:
    fields, _, body = written.partition("\n\n")
    if not body.startswith("@@ "):
        return f"{fields}\n{_HEAD}Content-Type: text/plain; charset=utf-8\n\n{body}\n".encode()
    parts = [part.partition("\n") for part in f"\n{body}".split("\n@@ ")[1:]]
    parts.append(("text/rfc822-headers", "\n", _RETURNED))
    joined = "".join(f"--b\nContent-Type: {kind}\n\n{content}\n" for kind, _, content in parts)
    kind = "multipart/report; report-type=delivery-status; boundary=b"
    return f"{fields}\n{_HEAD}Content-Type: {kind}\n\n{joined}--b--\n".encode()


CASES = _cases()


@pytest.mark.parametrize("name", CASES)
def test_a_whole_report_is_read_rightly(name: str) -> None:
    (kind, recipients, statuses, causes), raw = CASES[name]
    told = mailback.classify(raw)
    assert told.kind == kind
    assert sorted(f.failure.recipient for f in told.findings) == sorted(_words(recipients))
    status_of = {f.failure.recipient: f.failure.status or "-" for f in told.findings}
    for address, status in zip(_words(recipients), statuses.split(), strict=False):
        assert status in ("-", status_of[address])
    if causes != "*":
        assert {f.verdict.subcategory.value for f in told.findings} <= set(causes.split())


def _words(column: str) -> list[str]:
    return [] if column == "-" else column.split()

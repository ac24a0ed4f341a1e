"""Whole reports to verdict: kind, recipients, status codes and cause, each labelled before it was first read."""

from __future__ import annotations

import base64
import quopri
from pathlib import Path

import pytest

import mailback

_FILE = Path(__file__).parents[1] / "data" / "whole_bounces.txt"
_HEAD = {
    "To": "news@sender.example",
    "Return-Path": "<>",
    "Date": "Tue, 4 Mar 2025 10:11:12 +0000",
    "MIME-Version": "1.0",
}
_RETURNED = (
    "Received: from app.sender.example by out.example; Tue, 4 Mar 2025 10:11:00 +0000\nFrom: news@sender.example\n"
    "To: reader@sender.example\nSubject: Spring\nMessage-ID: <1@sender.example>\n"
)


def _cases() -> dict[str, tuple[list[str], bytes]]:
    told = {}
    for case in _FILE.read_text(encoding="utf-8").split("\n=== ")[1:]:
        label, _, message = case.partition("\n")
        name, *labels = (column.strip() for column in label.split("|"))
        told[name] = labels, _message(message.strip("\n"))
    return told


def _message(written: str) -> bytes:
    """The message as the file writes it, with the header fields that all have and the encoding that it asks for."""
    head, _, body = written.partition("\n\n")
    lines = head.split("\n")
    asked = next((line.removeprefix("X-Test: ") for line in lines if line.startswith("X-Test: ")), "")
    options = {name: value for name, _, value in (option.partition("=") for option in asked.split(", "))}
    lines = [line for line in lines if not line.startswith("X-Test: ")]
    present = {line.partition(":")[0].lower() for line in lines}
    lines += [f"{name}: {value}" for name, value in _HEAD.items() if name.lower() not in present]
    raw = ("\n".join(lines) + "\n").encode()
    raw += _parts(body, options) if body.startswith("@@ ") else _text(options.get("type", "text/plain"), body, options)
    if "crlf" in options or "cr" in options:
        raw = raw.replace(b"\n", b"\r\n" if "crlf" in options else b"\r")
    return raw[: int(options["cut"])] if "cut" in options else raw


def _parts(body: str, options: dict[str, str]) -> bytes:
    raw = f"Content-Type: {options.get('mp', 'multipart/report; report-type=delivery-status')}; boundary=b\n\n".encode()
    for part in f"\n{body}".split("\n@@ ")[1:]:
        kind, _, content = part.partition("\n")
        is_text = kind.startswith("text/") and kind != "text/rfc822-headers"
        raw += b"--b\n"
        raw += _text(kind, content, options) if is_text else f"Content-Type: {kind}\n\n{content}\n".encode()
    if "noret" not in options:
        raw += f"--b\nContent-Type: text/rfc822-headers\n\n{_RETURNED}\n".encode()
    return raw if "noend" in options else raw + b"--b--\n"


def _text(kind: str, content: str, options: dict[str, str]) -> bytes:
    charset = options.get("charset", "utf-8")
    encoding, encoded = "8bit", f"{content}\n".encode(charset)
    if options.get("cte") == "base64":
        encoding, encoded = "base64", base64.encodebytes(encoded)
    elif options.get("cte") == "qp":
        encoding, encoded = "quoted-printable", quopri.encodestring(encoded)
    head = f"Content-Type: {kind}; charset={charset}\nContent-Transfer-Encoding: {encoding}\n\n"
    return head.encode() + encoded + b"\n"


CASES = _cases()


@pytest.mark.parametrize("name", CASES)
def test_a_whole_report_is_read_rightly(name: str) -> None:
    (kinds, recipients, statuses, causes), raw = CASES[name]
    told = mailback.classify(raw)
    assert told.kind in kinds.split("/")
    found = {finding.failure.recipient.lower(): finding for finding in told.findings}
    wanted = [] if recipients == "-" else recipients.lower().split()
    assert sorted(found) == sorted(wanted)
    for address, status in zip(wanted, statuses.split(), strict=False):
        assert status in ("-", found[address].failure.status)
    of_each = causes.split(";") if ";" in causes else [causes] * len(wanted)
    for address, right in zip(wanted, of_each, strict=True):
        assert right.strip() == "*" or found[address].verdict.subcategory.value in right.split()

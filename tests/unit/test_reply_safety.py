"""A dangerous reply is told by what it carries and who sends it, and ordinary mail is not taken for one."""

from __future__ import annotations

import base64
import io
import time
import zipfile

import pytest

from mailback.message import Message, parse
from mailback.reply import safety
from mailback.reply.safety import Known, Verdict

_OURS = Known(domains=["milltown.example"], names=["Ada Quill"])


def _mail(sender: str, kind: str = "text/plain", body: bytes = b"Fine.", filename: str = "") -> Message:
    named = f'Content-Disposition: attachment; filename="{filename}"\r\n' if filename else ""
    head = f"From: {sender}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n{named}\r\n"
    return parse(head.encode() + base64.encodebytes(body))


def _archive(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("filename", "sign"),
    [
        ("invoice.exe", "executable_attachment"),
        ("invoice.pdf.scr", "double_extension"),
        ("Budget.XLSM", "macro_attachment"),
    ],
)
def test_an_attachment_that_runs_is_malware(filename: str, sign: str) -> None:
    told = safety.assess(_mail("jo@far.example", "application/octet-stream", filename=filename))
    assert (told.verdict, told.signals) == (Verdict.MALWARE, (sign,))


def test_an_executable_in_an_archive_is_malware_even_from_an_allowed_sender() -> None:
    mail = _mail("jo@far.example", "application/zip", _archive("doc/letter.js"), "letter.zip")
    assert safety.assess(mail, Known(allowed=["far.example"])).verdict is Verdict.MALWARE


@pytest.mark.parametrize("body", [_archive("letter.pdf"), b"PK\x03\x04 no archive", b""])
def test_a_harmless_or_broken_archive_is_clean(body: bytes) -> None:
    assert safety.assess(_mail("jo@far.example", "application/zip", body, "letter.zip")).verdict is Verdict.CLEAN


def test_a_link_that_shows_another_host_is_phishing_unless_the_sender_is_allowed() -> None:
    mail = _mail("jo@far.example", "text/html", b'<a href="http://evil.test/x">www.bank.example/login</a>')
    assert safety.assess(mail).verdict is Verdict.PHISHING
    assert safety.assess(mail, Known(allowed=["jo@far.example"])).verdict is Verdict.CLEAN


@pytest.mark.parametrize("shown", [b"our site", b"shop.bank.example", b"https://bank.example/terms"])
def test_a_link_that_leads_where_it_says_is_clean(shown: bytes) -> None:
    mail = _mail("jo@far.example", "text/html", b'<a href="https://www.bank.example/x">' + shown + b"</a>")
    assert safety.assess(mail).verdict is Verdict.CLEAN


@pytest.mark.parametrize("sender", ["Ada Quill <ada@far.example>", "jo@rnilltown.example", "jo@mi11town.example"])
def test_posing_as_one_of_ours_is_impersonation(sender: str) -> None:
    assert safety.assess(_mail(sender), _OURS).verdict is Verdict.IMPERSONATION


@pytest.mark.parametrize(
    "sender", ["Ada Quill <ada@milltown.example>", "ada@eu.milltown.example", "Jo <jo@far.example>"]
)
def test_our_own_people_and_strangers_are_clean(sender: str) -> None:
    assert safety.assess(_mail(sender), _OURS).verdict is Verdict.CLEAN


def test_failed_authentication_alone_is_no_verdict() -> None:
    told = safety.assess(_mail("jo@far.example"), _OURS, authentication_failed=True)
    assert (told.verdict, told.score) == (Verdict.CLEAN, 0.0)


@pytest.mark.parametrize(
    "piece", [b"<a ", b"<a href=http://x", b"<a href=http://x>", b"<a href=http://x.example>y.example<"]
)
def test_hostile_links_cost_linear_time(piece: bytes) -> None:
    mail = _mail("jo@far.example", "text/html", piece * (100_000 // len(piece)))
    began = time.process_time()
    safety.assess(mail)
    assert time.process_time() - began < 0.3

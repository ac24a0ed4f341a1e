"""Which kind a message is, and what hostile input costs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailback import reports
from mailback.bounce.taxonomy import Kind
from mailback.envelope import Envelope, Source
from mailback.message import parse


def _mail(header: str, body: str = "Hello.") -> reports.Report:
    return reports.read(parse(f"{header}\n\n{body}\n".encode()))


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("From: hal@client.example\nSubject: Re: offer", Kind.REPLY),
        ("From: hal@client.example\nSubject: question about undelivered parcels", Kind.REPLY),
        ("From: shop@shop.example\nSubject: Sale\nList-Unsubscribe: <https://x.example>", Kind.OTHER),
        ("From: noreply@shop.example\nSubject: Your order", Kind.OTHER),
        ("Subject: no sender at all", Kind.OTHER),
        ("not a header line", Kind.OTHER),
    ],
)
def test_what_no_machine_claims_is_a_reply_or_other(header: str, kind: Kind) -> None:
    assert _mail(header).kind is kind


@pytest.mark.parametrize(
    "name", ["Sandra Bolt", "Andreas Kerner", "Alexandra", "Jo Frost, Office Administrator", "Daemonia Ltd"]
)
def test_a_person_whose_name_contains_the_word_of_a_mail_server_is_a_person(name: str) -> None:
    assert _mail(f"From: {name} <someone@client.example>\nSubject: Re: offer").kind is Kind.REPLY


@pytest.mark.parametrize("name", ["NDR", "Administrator", "Mail Delivery Subsystem", "QQ邮件系统", "SMTP Gateway 2"])
def test_the_name_of_a_mail_server_is_no_person(name: str) -> None:
    assert _mail(f"From: {name} <someone@client.example>\nSubject: Re: offer").kind is Kind.OTHER


@pytest.mark.parametrize("raw", [b"", bytes(100), b"\xff\xfe garbage", b"\r\n\r\n", b"hello\n\nworld\n"])
def test_what_is_no_mail_is_other_even_from_the_null_sender(raw: bytes) -> None:
    envelope = Envelope(sender="", recipients=("news@s.example",), source=Source.SMTPD)
    assert reports.read(parse(raw), envelope).kind is Kind.OTHER


@pytest.mark.parametrize(
    "address", ["unsubscribe@s.example", "unsubscribe+abc@s.example", "list-leave@s.example", "u.optout.77@s.example"]
)
def test_mail_to_an_unsubscribe_address_unsubscribes(address: str) -> None:
    raw = b"From: mona@client.example\nTo: news@s.example\nSubject: x\n\n"
    report = reports.read(
        parse(raw), Envelope(sender="mona@client.example", recipients=(address,), source=Source.SMTPD)
    )
    assert report.kind is Kind.UNSUBSCRIBE
    assert [failure.recipient for failure in report.failures] == ["mona@client.example"]


def test_a_name_that_contains_such_a_word_does_not_unsubscribe() -> None:
    raw = b"From: mona@client.example\nTo: cleaver@s.example\nSubject: x\n\n"
    assert reports.read(parse(raw)).kind is Kind.REPLY


def test_a_bounce_to_an_unsubscribe_address_is_a_bounce() -> None:
    raw = (
        b"Return-Path: <>\nFrom: MAILER-DAEMON@m.example\nTo: unsubscribe@s.example\nSubject: failure notice\n\n"
        b"could not be delivered\n\n<u@a.example>: 550 no\n"
    )
    assert reports.read(parse(raw)).kind is Kind.BOUNCE


def test_a_bounce_attached_to_a_message_is_not_read_as_one() -> None:
    raw = (
        b"From: hal@client.example\nTo: news@s.example\nSubject: look\nContent-Type: multipart/mixed; boundary=o\n\n"
        b"--o\nContent-Type: text/plain\n\nWhat is this?\n--o\nContent-Type: message/rfc822\n\n"
        b"From: MAILER-DAEMON@m.example\nContent-Type: multipart/report; boundary=i\n\n"
        b"--i\nContent-Type: message/delivery-status\n\nFinal-Recipient: rfc822; u@a.example\n"
        b"Action: failed\n\n--i--\n--o--\n"
    )
    assert reports.read(parse(raw)).kind is Kind.REPLY


_HEAD = b"Return-Path: <>\nFrom: MAILER-DAEMON@m.example\nTo: a@s.example\nSubject: Undelivered Mail\n"
_DSN = _HEAD + (
    b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n"
    b"--b\nContent-Type: text/plain\n\nfailed\n--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; m\n\n"
)
_RECIPIENT = b"Final-Recipient: rfc822; u%d@a.example\nAction: failed\nStatus: 5.0.0\n\n"
_HOSTILE = {
    "angle brackets in a header": b"From: " + b"<" * 100_000 + b"\nSubject: " + b"<" * 100_000 + b"\n\nx",
    "angle brackets in the body": _HEAD + b"\n" + b"<" * 100_000,
    "spaces": _HEAD + b"\n" + b" " * 100_000 + b"@" + b" " * 100_000,
    "one long line": _HEAD + b"\n" + b"a" * 500_000,
    "one long address": _HEAD + b"\n" + b"a@" * 250_000,
    "addresses without a line end": _HEAD + b"\n" + b"a@b.cc " * 70_000,
    "labels": _HEAD + b"\n" + b"to: " * 100_000 + b"a@b.cc",
    "quotes": _HEAD + b"\n" + b'"\\' * 200_000 + b'"@b.cc',
    "digits and dots": _HEAD + b"\n<a@b.cc>: " + b"5.1." * 100_000,
    "repeated codes": _HEAD + b"\n<a@b.cc>: " + b"550-5.1.1 " * 50_000,
    "one address again and again": _HEAD + b"\nfailed\na@b.cc\n" + b"said a@b.cc\n" * 20_000,
    "20,000 recipients in a text": _HEAD + b"\nfailed\n" + b"".join(b"<u%d@b.cc>: 550 no\n" % i for i in range(20_000)),
    "a list of recipients with one reason": _HEAD
    + b"\n"
    + b"".join(b" u%d@b.cc\n" % i for i in range(10_000))
    + b"\nno",
    "quoting marks": b"From: p@b.cc\nSubject: Re: x\n\n" + b"On Tue, 4 Mar 2025, <a@s.example> wrote:\n" * 50_000,
    "15 MB of diagnostic": _DSN
    + _RECIPIENT[:-1] % 1
    + b"Diagnostic-Code: smtp; 550 "
    + b"x" * 15_000_000
    + b"\n\n--b--\n",
    "15 MB of lines": _DSN
    + _RECIPIENT[:-1] % 1
    + b"Diagnostic-Code: smtp; 550 "
    + b"xxxxxxx\n" * 1_900_000
    + b"\n--b--\n",
    "15 MB of text": _HEAD + b"\n" + b"could not be delivered to <a@b.cc>\n" * 440_000,
    "10,000 recipients": _DSN + b"".join(_RECIPIENT % i for i in range(10_000)) + b"--b--\n",
    "nested JSON": b"From: no-reply@sns.amazonaws.com\nSubject: AWS\n\n" + b'{"a":' * 100_000,
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", _HOSTILE)
def test_hostile_input_is_read_in_linear_time(name: str) -> None:
    message = parse(_HOSTILE[name])
    report = reports.read(message)
    assert report.text is not None
    assert len(report.failures) <= reports.RECIPIENT_CAP


def test_ten_thousand_recipients_are_all_told() -> None:
    report = reports.read(parse(_HOSTILE["10,000 recipients"]))
    assert len(report.failures) == 10_000
    assert not report.truncated


def test_more_than_the_cap_is_marked() -> None:
    assert reports.read(parse(_HOSTILE["20,000 recipients in a text"])).truncated


_WORDS = st.sampled_from(
    [
        "From: MAILER-DAEMON@m.example", "Return-Path: <>", "Subject: failure notice", "To: a@s.example", "\n", "\n\n",
        "Content-Type: multipart/report; boundary=b", "Content-Type: message/delivery-status", "--b", "--b--",
        "<a@b.cc>:", "550 5.1.1 no", ">>> RCPT TO:<a@b.cc>", "<<< 550",
        "Final-Recipient: rfc822; x@y.zz", "Action: failed",
        "Status: 5",
        "Content-Type: message/rfc822", "X-Failed-Recipients: q@r.st",
        "Subject: Automatic reply", "no longer in use",
        "Feedback-Type: abuse",
        "Received: x", "--- Original message ---", "宛先：", "(generated from a@b.cc)",
        "\x00", "@",
    ]
)  # fmt: skip


@given(st.lists(_WORDS | st.text(max_size=20), max_size=60).map("\n".join))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_mixture_of_pieces_raises(text: str) -> None:
    report = reports.read(parse(text.encode("utf-8", "surrogatepass")))
    assert isinstance(report.kind, Kind)
    assert isinstance(report.text, str)
    assert all(failure.recipient for failure in report.failures)


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_no_bytes_raise(raw: bytes) -> None:
    for head in (b"", _HEAD + b"\n", _DSN):
        reports.read(parse(head + raw))

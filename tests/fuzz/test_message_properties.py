"""What holds for the message reader whatever the bytes: it answers, keeps its limits, and reads right what is right."""

from __future__ import annotations

import base64
import quopri
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mailback.message import Limits, Message, decode_words, fields, html_to_text, parse
from tests.fuzz.fuzz_message import SEEDS, exercise

settings.register_profile("message", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("message")

SMALL = Limits(max_parts=5, max_depth=3, max_header_bytes=200, max_headers=6, max_text_bytes=64, max_groups=3)
"""Limits so low that made-up mail meets every one of them."""

# Pieces of mail, sound and broken, that a generator puts together more tellingly than random octets.
_PIECES = st.sampled_from(
    [
        b"\n",
        b"\r\n",
        b"\r",
        b"\n\n",
        b" ",
        b"\t",
        b"\0",
        b"--",
        b"--b",
        b"--b--",
        b"--bb\n",
        b"From x Sat Jan  1 00:00:00 2022\n",
        b">From x\n",
        b"\xef\xbb\xbf",
        b"Subject: ",
        b"Content-Type: multipart/mixed; boundary=b\n\n",
        b'Content-Type: multipart/alternative; boundary="b\n',
        b"Content-Type: multipart/digest; boundary*0*=utf-8''b\n\n",
        b"Content-Type: message/rfc822\n\n",
        b"Content-Type: message/delivery-status\n\n",
        b"Content-Type: text/html; charset=utf-7\n\n",
        b"Content-Type: text/plain; charset=iso-2022-jp\n",
        b"Content-Type: text/plain; charset*=x'y'%zz; name*1*=%e4; name=\"=?x?q?=\"\n",
        b"Content-Transfer-Encoding: base64\n",
        b"Content-Transfer-Encoding: quoted-printable\n",
        b"Content-Disposition: attachment; filename=\xe4\n\n",
        b"=?utf-8?Q?=E4?=",
        b"=?utf-7?B?+2AA",
        b"=?utf-7?Q?+2AA-?=",
        b"=?gb2312?b?xOM",
        b"=",
        b"?=",
        b"=\n",
        b"QUJD",
        b"\xe4\xbd\xa0",
        b"\xff",
        b"\x1b$B",
        b"+2AA-",
        b"<p>",
        b"<div hidden>",
        b"<!--",
        b"<td",
        b"&#55296;",
        b"&#",
        b"word ",
        b"name: value\n",
        b"550 5.1.1 no such user\n",
    ]
)
mailish = st.lists(_PIECES | st.binary(max_size=6), max_size=60).map(b"".join)
visible = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=120)


@given(st.binary(max_size=400))
@example(b"")
@example(b"\r")
@example(b"\xef\xbb\xbf")
@example(b"From ")
def test_any_octets_are_read(raw: bytes) -> None:
    exercise(raw)


@settings(max_examples=400)
@given(mailish)
def test_broken_mail_is_read(raw: bytes) -> None:
    exercise(raw)


@settings(max_examples=400)
@given(mailish)
def test_broken_mail_is_read_within_any_limits(raw: bytes) -> None:
    exercise(raw, SMALL)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_fuzzer_starts_from_is_read(seed: bytes) -> None:
    assert exercise(seed).notes == []


@given(st.sampled_from(SEEDS), st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_mail_damaged_anywhere_is_read(seed: bytes, where: int, damage: bytes) -> None:
    exercise(seed[:where] + damage + seed[where + len(damage) :])
    exercise(seed[:where])


def _reading(message: Message) -> list[object]:
    """All that is told about a message but its bytes."""
    told: list[object] = []
    for part in message.parts:
        inner = part.message
        told.append(
            (part.type, part.depth, part.params, part.filename, part.text, part.headers.items())
            + ((_reading(inner),) if inner else ())
        )
    return [told, message.text, message.notes]


_LINE = st.sampled_from(
    [
        "",
        "--b",
        "--b--",
        "--bb",
        " folded",
        "word: value",
        "Subject: x",
        "Content-Type: message/rfc822",
        "Content-Type: text/html",
        "Content-Type: multipart/mixed; boundary=b",
        "Content-Transfer-Encoding: quoted-printable",
        "<p>text=41=",
        "body text",
        ">From here",
        "x" * 50,
    ]
)


@settings(max_examples=400)
@given(st.lists(_LINE, max_size=40))
def test_line_ends_make_no_difference(lines: list[str]) -> None:
    """LF, CRLF and CR files read the same, sound or broken."""
    text = "\n".join(["From: a@sender.test", "Content-Type: multipart/mixed; boundary=b", *lines, ""])
    readings = [_reading(parse(text.replace("\n", end).encode())) for end in ("\n", "\r\n", "\r")]
    assert readings[0] == readings[1] == readings[2]


@settings(max_examples=200)
@given(visible, visible, visible, st.sampled_from(["base64", "quoted-printable", "8bit"]))
def test_what_the_standard_library_writes_is_read_back(subject: str, body: str, filename: str, encoding: str) -> None:
    """The other implementation of the RFCs at hand is the judge: encoded words, parameters, transfer encodings."""
    subject, filename = " ".join(subject.split()), filename.strip() or "f"
    sent = EmailMessage()
    sent["Subject"] = subject
    sent.set_content(body, cte=encoding)
    sent.add_attachment("attached", filename=filename)
    # 8-bit lines beyond 998 octets are refused there, not here.
    message = parse(sent.as_bytes(policy=SMTP.clone(max_line_length=998)))
    assert message.header("subject").split() == subject.split()
    assert message.parts[1].text.rstrip("\n") == body.removeprefix("\ufeff").rstrip("\n")
    assert message.parts[2].disposition == "attachment"
    assert message.parts[2].filename.split() == filename.split()
    assert message.notes == []


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), max_size=200),
    st.integers(20, 75),
)
def test_encoded_words_of_any_length_join_again(text: str, line_length: int) -> None:
    encoded = Header(text, "utf-8", maxlinelen=line_length).encode()
    assert decode_words(encoded.replace("\n", "")) == text


@given(st.binary(max_size=300))
def test_transfer_encodings_are_undone(content: bytes) -> None:
    head = b"Content-Type: application/octet-stream\nContent-Transfer-Encoding: "
    assert parse(head + b"base64\n\n" + base64.encodebytes(content)).root.content == content
    unpadded = base64.b64encode(content).rstrip(b"=")
    assert parse(head + b"base64\n\n" + unpadded).root.content == content
    text = content.replace(b"\r", b"")  # quoted-printable is for lines: it keeps their content, not their ends
    quoted = quopri.encodestring(text, quotetabs=True)
    assert parse(head + b"quoted-printable\n\n" + quoted).root.content == text


@given(st.lists(st.lists(st.tuples(st.from_regex(r"[A-Za-z][A-Za-z-]{0,12}", fullmatch=True), visible), min_size=1)))
def test_groups_of_fields_are_read_back(groups: list[list[tuple[str, str]]]) -> None:
    wanted = [[(name, " ".join(value.split())) for name, value in group] for group in groups]
    block = "\n\n".join("\n".join(f"{name}:  {value}" for name, value in group) for group in wanted)
    read = [[(name, value.encode()) for name, value in _undecoded(group.block)] for group in fields(block.encode())]
    assert read == [[(name, value.encode()) for name, value in group] for group in wanted]


def _undecoded(block: bytes) -> list[tuple[str, str]]:
    """Names and values of a block, read by hand: `items` would decode what looks like an encoded word by chance."""
    lines = (line.partition(":") for line in block.decode().split("\n") if line)
    return [(name, " ".join(value.split())) for name, _, value in lines]


@given(visible)
def test_plain_text_passes_through_html_unharmed(text: str) -> None:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    padding = dict.fromkeys(map(ord, "\u00ad\u034f\u200b\u2060\ufeff"))
    assert html_to_text(escaped) == " ".join(text.translate(padding).split())


@given(st.text(max_size=300))
def test_any_string_is_taken_for_html(text: str) -> None:
    told = html_to_text(text)
    assert told == told.strip()

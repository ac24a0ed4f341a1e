"""Hostile mail: whatever is sent, reading all of it takes linear time, bounded memory, and says what it left out.

Each of these takes well under a second; quadratic work on them takes from half a minute to days. The bound lies
between, with room for a slow or busy machine.
"""

from __future__ import annotations

import base64
import tracemalloc
from collections.abc import Callable

import pytest

from mailback.message import LIMITS, Limits, Message, fields, parse

HEAD = b"From: a@sender.test\nSubject: s\n"
MIXED = HEAD + b"Content-Type: multipart/mixed; boundary=b\n\n"
PLAIN = HEAD + b"Content-Type: text/plain; "
MEGABYTE = 1_000_000


def fill(piece: bytes, size: int = 15 * MEGABYTE) -> bytes:
    return piece * (size // len(piece))


def nested_multiparts(levels: int) -> bytes:
    return HEAD + b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(levels))


def nested_messages(levels: int) -> bytes:
    return (HEAD + b"Content-Type: message/rfc822\n\n") * levels


def nested_encoded_messages(levels: int) -> bytes:
    mail = HEAD + b"\nbody\n" + fill(b"x", 100_000)
    for _ in range(levels):
        mail = HEAD + b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + base64.encodebytes(mail)
    return mail


def encoded(encoding: bytes, body: bytes) -> bytes:
    return HEAD + b"Content-Transfer-Encoding: " + encoding + b"\n\n" + body


HOSTILE: dict[str, Callable[[], bytes]] = {
    "100 kB of < in a header": lambda: b"From: " + fill(b"<", 100_000) + b"\n\nx",
    "100 kB of < in the text": lambda: HEAD + b"\n" + fill(b"<", 100_000),
    "100 kB of < in HTML": lambda: HEAD + b"Content-Type: text/html\n\n" + fill(b"<", 100_000),
    "1 MB of HTML tags": lambda: HEAD + b"Content-Type: text/html\n\n" + fill(b"<a ", MEGABYTE),
    "a 500 kB line": lambda: HEAD + b"\n" + fill(b"a", 500_000),
    "a 500 kB header field": lambda: b"Subject: " + fill(b"a ", 500_000) + b"\n\nx",
    "a 500 kB field name": lambda: fill(b"a", 500_000),
    "100,000 header fields": lambda: fill(b"X-A: b\n", 700_000) + b"\nx",
    "100,000 folds": lambda: b"Subject: x\n" + fill(b" y\n", 300_000),
    "100,000 lines without indentation": lambda: b"Subject: x\n" + fill(b"y y\n", 400_000) + b"From: z\n\n",
    "100,000 lines without an empty one": lambda: b"Subject: x\n" + fill(b"y\n", 200_000),
    "300 kB of CR in a header": lambda: b"Subject: " + fill(b"\r", 300_000) + b"\n y\n\nx",
    "15 MB of text": lambda: HEAD + b"\n" + fill(b"The quick brown fox.\n"),
    "15 MB on one line": lambda: fill(b"x"),
    "15 MB with CR": lambda: b"Subject: x\r\r" + fill(b"hello\r"),
    "15 MB of LF": lambda: fill(b"\n"),
    "15 MB of CR LF": lambda: fill(b"\r\n"),
    "15 MB of CR": lambda: fill(b"\r"),
    "15 MB of spaces": lambda: fill(b" "),
    "15 MB of NUL": lambda: fill(b"\0"),
    "15 MB of header fields": lambda: fill(b"a:\n"),
    "15 MB of base64": lambda: encoded(b"base64", fill(b"QUJD")),
    "15 MB of padded base64": lambda: encoded(b"base64", fill(b"QUJDRA==\n")),
    "15 MB of base64 noise": lambda: encoded(b"base64", fill(b"QUJDRUJDR!QUJD=\n")),
    "15 MB of quoted-printable": lambda: encoded(b"quoted-printable", fill(b"=41= =\n")),
    "15 MB behind a soft break": lambda: encoded(b"quoted-printable", b"=" + fill(b" ")),
    "15 MB of delimiters": lambda: MIXED + fill(b"--b\n"),
    "15 MB of longer delimiters": lambda: MIXED + fill(b"--bx\n"),
    "15 MB of hyphens": lambda: MIXED + fill(b"-"),
    "15 MB of delimiters, none declared": lambda: HEAD + b"Content-Type: multipart/mixed\n\n" + fill(b"--x\n"),
    "15 MB that nearly match a boundary": lambda: (
        HEAD + b"Content-Type: multipart/mixed; boundary=" + b"a" * 500 + b"b\n\n" + fill(b"--" + b"a" * 500 + b"\n")
    ),
    "a boundary of hyphens": lambda: (
        HEAD + b"Content-Type: multipart/mixed; boundary=" + b"-" * 900 + b"\n\n" + fill(b"-")
    ),
    "a boundary of 10,000 octets": lambda: (
        HEAD
        + b"Content-Type: multipart/mixed; boundary="
        + b"b" * 10_000
        + b"\n\n"
        + fill(b"--" + b"b" * 10_000 + b"\n")
    ),
    "10,000 repeats of a boundary": lambda: MIXED + b"--b\n\nx\n" * 10_000,
    "1,000 parts with many fields": lambda: MIXED + (b"--b\n" + fill(b"a:b\n", 15_000)) * 1_000,
    "1,000 parts with much text": lambda: MIXED + (b"--b\n\n" + fill(b"foo bar\n", 15_000)) * 1_000,
    "1,000 nested parts": lambda: nested_multiparts(1_000),
    "100,000 nested parts": lambda: nested_multiparts(100_000),
    "nested parts and 15 MB": lambda: nested_multiparts(49) + fill(b"--b x\n"),
    "1,000 nested messages": lambda: nested_messages(1_000),
    "200,000 nested messages": lambda: nested_messages(200_000),
    "nested messages and 15 MB": lambda: nested_messages(49) + fill(b"Subject: x\n"),
    "nested messages, each encoded": lambda: nested_encoded_messages(12),
    "nested alternatives without text": lambda: (
        nested_multiparts(49).replace(b"/mixed", b"/alternative")
        + (b"--b48\nContent-Type: text/html\n\n" + fill(b"<a>", 9_000)) * 300
    ),
    "encoded words": lambda: b"Subject: " + fill(b"=?utf-8?q?a?= ", 500_000) + b"\n\n",
    "encoded words of ever other charsets": lambda: (
        b"Subject: " + b"".join(b"=?x%d?q?a?= " % n for n in range(30_000)) + b"\n\n"
    ),
    "encoded words without end": lambda: b"Subject: " + fill(b"=?utf-8?b?YQ= ", 500_000) + b"\n\n",
    "beginnings of encoded words": lambda: b"Subject: " + fill(b"=?", 500_000) + b"\n\n",
    "an encoded word of question marks": lambda: b"Subject: =?x?q?" + fill(b"?", 500_000) + b"\n\n",
    "parameters": lambda: PLAIN + fill(b"a=b; ", 500_000) + b"\n\nx",
    "parameters without a value": lambda: PLAIN + fill(b"a", 500_000) + b"\n\nx",
    "parameters in parameters": lambda: PLAIN + fill(b'a="', 500_000) + b"\n\nx",
    "a quoted backslash": lambda: PLAIN + b'a="' + fill(b"\\", 500_000) + b"\n\nx",
    "spaces in parameters": lambda: PLAIN + b"a=b" + fill(b" ", 500_000) + b"\n\nx",
    "continued parameters": lambda: PLAIN + b"".join(b"a*%d*=%%41; " % n for n in range(10_000)) + b"\n\nx",
    "types in types": lambda: HEAD + b"Content-Type: " + fill(b"a/", 500_000) + b"\n\nx",
    "1,000 unknown charsets": lambda: (
        MIXED + b"".join(b"--b\nContent-Type: text/plain; charset=x%d\n\n\xff\n" % n for n in range(1_000))
    ),
    "broken UTF-8": lambda: PLAIN + b"charset=utf-8\n\n" + fill(b"\xe4", MEGABYTE),
    "broken UTF-7": lambda: PLAIN + b"charset=utf-7\n\n" + fill(b"+2AA-", MEGABYTE),
    "broken ISO 2022": lambda: PLAIN + b"charset=iso-2022-jp\n\n" + fill(b"\x1b$B", MEGABYTE),
    "broken GB 18030": lambda: PLAIN + b"charset=gb2312\n\n" + fill(b"\xff\x81", MEGABYTE),
    "10,000 recipients": lambda: (
        MIXED + b"--b\nContent-Type: message/delivery-status\n\n" + b"Status: 5.1.1\nAction: failed\n\n" * 10_000
    ),
    "15 MB of recipients": lambda: MIXED + b"--b\nContent-Type: message/delivery-status\n\n" + fill(b"a:\n\n"),
    "15 MB of one recipient": lambda: MIXED + b"--b\nContent-Type: message/delivery-status\n\n" + fill(b"a:\n"),
}


def read_everything(message: Message) -> int:
    """Ask for all there is; the number of parts."""
    ahead, count = [message], 0
    while ahead:
        message = ahead.pop()
        assert isinstance(message.text, str)
        for part in message.parts:
            count += 1
            assert isinstance(part.content, bytes)
            assert isinstance(part.text, str)
            assert isinstance(part.filename + part.disposition + part.charset, str)
            assert len(part.headers.items()) == len(part.headers)
            if part.type == "message/delivery-status":
                assert len(fields(part.content)) <= LIMITS.max_groups
            if part.message is not None:
                ahead.append(part.message)
    return count


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_mail_is_read_in_linear_time(name: str) -> None:
    raw = HOSTILE[name]()
    count = read_everything(parse(raw))
    assert count <= LIMITS.max_parts + LIMITS.max_depth + 1


@pytest.mark.parametrize(
    "name",
    [
        "15 MB of text",
        "15 MB of header fields",
        "15 MB of delimiters",
        "15 MB of recipients",
        "nested messages and 15 MB",
    ],
)
def test_hostile_mail_is_read_in_little_memory(name: str) -> None:
    """Beside the message: one copy of a body, and what a megabyte of header fields or 20,000 recipients take."""
    raw = HOSTILE[name]()
    tracemalloc.start()
    try:
        read_everything(parse(raw))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 120 * MEGABYTE


def test_reading_a_large_message_copies_no_more_than_is_asked_for() -> None:
    raw = HEAD + b"\n" + fill(b"The quick brown fox.\n")
    tracemalloc.start()
    try:
        message = parse(raw)
        assert message.header("subject") == "s"
        assert message.text.startswith("The quick")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MEGABYTE


@pytest.mark.parametrize(
    ("limits", "raw", "note"),
    [
        (
            Limits(max_parts=2),
            MIXED + b"--b\n\n1\n--b\n\n2\n--b\n\n3\n--b--",
            "more than 2 parts: the rest are left out",
        ),
        (Limits(max_depth=2), nested_multiparts(4) + b"\nx", "nested deeper than 2: the rest is left out"),
        (Limits(max_depth=2), nested_messages(4) + b"x", "nested deeper than 2: the rest is left out"),
        (Limits(max_headers=1), HEAD + b"\nx", "a header of more than 1 fields: the rest are left out"),
        (
            Limits(max_header_bytes=25),
            HEAD + b"\nx",
            "more than 25 octets of header fields: the rest are left out",
        ),
        (Limits(max_text_bytes=3), HEAD + b"\nfour", "the text of a part is cut after 3 octets"),
        (
            Limits(max_text_bytes=3),
            encoded(b"base64", base64.b64encode(b"four and more")),
            "the text of a part is cut after 3 octets",
        ),
    ],
)
def test_what_a_limit_leaves_out_is_told(limits: Limits, raw: bytes, note: str) -> None:
    message = parse(raw, limits)
    read_everything(message)
    assert message.truncated
    assert note in message.notes


def test_what_stays_within_its_limits_is_whole() -> None:
    raw = MIXED + b"--b\n\none\n--b\n\ntwo\n--b--"
    exact = Limits(max_parts=2, max_depth=1, max_headers=3, max_text_bytes=len(raw), max_header_bytes=len(MIXED))
    message = parse(raw, exact)
    assert read_everything(message) == 3
    assert not message.truncated
    assert message.notes == []


def test_a_cut_header_block_keeps_whole_fields_and_the_body() -> None:
    message = parse(b"Subject: x\nX-Long: yyyyyyyyyyyy\nFrom: a\n\nbody", Limits(max_header_bytes=20))
    assert message.headers.items() == [("Subject", "x")]
    assert message.text == "body"
    assert message.truncated


def test_header_bytes_are_counted_over_all_parts() -> None:
    raw = MIXED + b"--b\nX-A: one\n\n1\n--b\nX-B: two\n\n2\n--b--"
    message = parse(raw, Limits(max_header_bytes=len(MIXED) - 1 + 10))
    assert [part.headers.get("x-a") or part.headers.get("x-b") for part in message.root.children] == ["one", None]
    assert message.truncated


def test_groups_beyond_the_limit_are_left_out() -> None:
    block = b"a: b\n\n" * 10
    assert len(fields(block, Limits(max_groups=4))) == 4
    assert len(fields(block)) == 10


def test_limits_far_beyond_the_default_do_not_exhaust_the_stack() -> None:
    message = parse(nested_multiparts(500) + b"\nx", Limits(max_depth=500))
    assert message.text == "x"
    assert len(message.parts) == 501

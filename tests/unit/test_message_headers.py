"""Header blocks: where they begin and end, what their fields say, in sound and in damaged mail."""

from __future__ import annotations

import pytest

from mailback.message import decode_words, fields, parse

LINE_ENDS = pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])


@LINE_ENDS
def test_fields_fold_and_compare_without_case(end: bytes) -> None:
    raw = end.join([b"SUBJECT :  one", b"\t two  ", b"  three", b"Received: a", b"received: b", b"", b"body", b""])
    message = parse(raw)
    assert message.header("Subject") == "one two three"
    assert message.headers.get_all("RECEIVED") == ["a", "b"]
    assert message.headers.items() == [("SUBJECT", "one two three"), ("Received", "a"), ("received", "b")]
    assert message.text == "body\n"
    assert message.notes == []


def test_absent_fields() -> None:
    headers = parse(b"From: a@sender.test\n\n").headers
    assert "Subject" not in headers
    assert headers.get("subject") is None
    assert headers.raw("subject") is None
    assert headers.get_all("subject") == []
    assert headers.raw_all("subject") == []
    assert parse(b"From: a@sender.test\n\n").header("subject") == ""


def test_raw_values_are_not_decoded() -> None:
    headers = parse(b"Subject: =?utf-8?Q?=C3=BC?=\n  \xfc\nsubject: b\n\n").headers
    assert headers.raw("subject") == b"=?utf-8?Q?=C3=BC?= \xfc"
    assert headers.raw_all("subject") == [b"=?utf-8?Q?=C3=BC?= \xfc", b"b"]


def test_the_block_is_kept_as_it_stands_for_signatures() -> None:
    block = b"From:  a@sender.test\r\nSubject: x\r\n\t y \r\n"
    assert parse(block + b"\r\nbody").headers.block == block


@pytest.mark.parametrize(
    "lead",
    [
        b"From MAILER-DAEMON Sat Jan  1 00:00:00 2022\n",
        b">From MAILER-DAEMON Sat Jan  1 00:00:00 2022\n",
        b"\n",
        b"\r\n \r\n",
        b"\xef\xbb\xbf",
        b"\n\nFrom MAILER-DAEMON Sat Jan  1 00:00:00 2022\r\n",
    ],
)
def test_what_may_stand_before_the_first_field_is_skipped(lead: bytes) -> None:
    message = parse(lead + b"Subject: x\n\nbody")
    assert message.headers.items() == [("Subject", "x")]
    assert message.text == "body"
    assert message.raw == lead + b"Subject: x\n\nbody"


def test_a_quoted_mbox_line_among_the_fields_is_no_field() -> None:
    message = parse(b"Received: a\n>From x Sat Jan  1 00:00:00 2022\nSubject: x\n\nbody")
    assert message.headers.items() == [("Received", "a"), ("Subject", "x")]


@pytest.mark.parametrize(
    "body",
    [
        b"Your message could not be delivered.\n\nReason: unknown\n",
        b"<user@b.test>: unknown\nStatus: 5.1.1\n",
        b"http://sender.test/\nSubject: x\n",
        b" indented\ntext\n",
        b"\x00\x01\x02",
        b"x" * 100,
        b"a\rb\rc",
        b"",
    ],
)
def test_without_a_header_block_everything_is_body(body: bytes) -> None:
    message = parse(body)
    assert message.headers.items() == []
    assert message.root.body == body
    assert message.root.type == "text/plain"


def test_a_header_block_without_body() -> None:
    for raw in (b"Subject: x", b"Subject: x\n", b"Subject: x\n\n", b"Subject: x\r\n\r\n"):
        assert parse(raw).header("subject") == "x"
        assert parse(raw).root.body == b""


@LINE_ENDS
def test_a_body_that_begins_without_an_empty_line(end: bytes) -> None:
    message = parse(end.join([b"Subject: x", b"Your mail was not delivered.", b"Reason: quota", b"", b"more"]))
    assert message.headers.items() == [("Subject", "x")]
    assert message.text == "Your mail was not delivered.\nReason: quota\n\nmore"
    assert message.notes == ["the body follows the header fields without an empty line"]


@LINE_ENDS
def test_a_fold_that_lost_its_indentation(end: bytes) -> None:
    message = parse(end.join([b"Subject: one", b"two words", b"three", b"From: a@sender.test", b"", b"body"]))
    assert message.header("subject") == "one two words three"
    assert message.header("from") == "a@sender.test"
    assert message.text == "body"
    assert message.notes == ["header lines that were wrapped without indentation are joined"]


def test_parameters_and_long_tokens_at_the_end_of_the_block_are_no_body() -> None:
    message = parse(b'From: a\nContent-Type: multipart/mixed;\nboundary="b"\n\n--b\n\ntext\n--b--\n')
    assert [part.type for part in message.parts] == ["multipart/mixed", "text/plain"]
    signed = parse(b"Subject: s\nX-Signature: x\n" + b"QUJD" * 15 + b"\n\nbody")
    assert signed.header("x-signature") == "x " + "QUJD" * 15
    assert signed.text == "body"


def test_a_delimiter_line_ends_the_header_block() -> None:
    raw = b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n--b\nContent-Type: text/html\n\n<p>x\n--b--\n"
    assert [part.type for part in parse(raw).parts] == ["multipart/mixed", "text/html"]


def test_a_stray_carriage_return_does_not_make_a_line() -> None:
    message = parse(b"Subject: one\rtwo\nFrom: a\n\nbody")
    assert [name for name, _ in message.headers.items()] == ["Subject", "From"]
    assert message.header("subject") == "one two"


def test_lines_ended_by_cr_cr_lf() -> None:
    message = parse(b"Subject: x\r\r\nFrom: a\r\r\n\r\r\nbody\r\r\n")
    assert message.headers.items() == [("Subject", "x"), ("From", "a")]
    assert message.text == "body\n"


# --- encoded words and 8-bit values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        ("=?utf-8?Q?Zugestellt_f=C3=BCr?=", "Zugestellt für"),
        ("=?UTF-8?b?w7w=?= plain =?iso-8859-1?q?=FC?=", "ü plain ü"),
        ("=?utf-8?Q?=E6=97?= =?utf-8?Q?=A5?=", "日"),
        ("=?utf-8?B?5pc=?=\t =?UTF-8?Q?=A5?=", "日"),
        ("=?iso-8859-1?q?a?= =?utf-8?q?b?= c", "ab c"),
        ("a=?utf-8?q?b?=c", "abc"),
        ("=?utf-8*de?q?=C3=BC?=", "ü"),
        ("=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"),
        ("=?gb2312?B?xOM=?=", "你"),
        ("=?unknown-8bit?Q?f=FCr?=", "für"),
        ("=?no-such-charset?Q?f=C3=BCr?=", "für"),
    ],
)
def test_encoded_words(value: str, decoded: str) -> None:
    assert decode_words(value) == decoded
    assert decode_words(value.encode()) == decoded


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        ("=?utf-8?Q?not ended", "not ended"),
        ("=?utf-8?B?Zm9v and more", "foo and more"),
        ("=?utf-8?Q?one =?utf-8?Q?two?=", "one two"),
        ("=?utf-8?Q?spaces within a word?=", "spaces within a word"),
        ("=?utf-8?Q?what?_yes?=", "what? yes"),
        ("=?utf-8?B?Zm9vYg==?==?utf-8?B?YmFy?=", "foobbar"),
        ("=?utf-8?B?Zm9vYg?=", "foob"),
        ("=?utf-8?Q?=ZZ=?=", "=ZZ"),
        ("=?utf-8?X?abc?=", "=?utf-8?X?abc?="),
        ("=??Q?abc?=", "=??Q?abc?="),
        ("=?", "=?"),
        ("a =? b ?= c", "a =? b ?= c"),
    ],
)
def test_broken_encoded_words(value: str, decoded: str) -> None:
    assert decode_words(value) == decoded


def test_an_encoded_word_cannot_smuggle_a_line_into_a_header() -> None:
    message = parse(b"Subject: =?utf-8?Q?x=0D=0ABcc:_y=00?= =?utf-8?B?4oCo?=z\n\n")
    assert message.header("subject") == "x  Bcc: y z"


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        ("für日本".encode(), "für日本"),
        ("für".encode("latin-1"), "für"),
        ("„für“".encode("cp1252"), "„für“"),
        ("日本".encode("iso2022_jp"), "日本"),
        (b"\x81", "\x81"),
        ("voil\u00e0".encode(), "voil\u00e0"),
    ],
)
def test_eight_bit_values(value: bytes, decoded: str) -> None:
    assert parse(b"Subject: " + value + b"\n\n").header("subject") == decoded


def test_eight_bit_values_are_in_the_charset_of_the_message() -> None:
    raw = b"Content-Type: text/plain; charset=koi8-r\nSubject: " + "почта".encode("koi8-r") + b"\n\n"
    assert parse(raw).header("subject") == "почта"


# --- groups of fields -----------------------------------------------------------------------------------------------


@LINE_ENDS
def test_groups_of_a_delivery_status(end: bytes) -> None:
    block = end.join(
        [
            b"",
            b"Reporting-MTA: dns; mx.test",
            b"",
            b"  ",
            b"Final-Recipient: rfc822; a@b.test",
            b"Diagnostic-Code: smtp; 550-5.1.1 no",
            b" 550 5.1.1 such user",
            b"",
            b"",
            b"Final-Recipient: rfc822; c@b.test",
        ]
    )
    message, first, second = fields(block)
    assert message.get("reporting-mta") == "dns; mx.test"
    assert first.get("Diagnostic-Code") == "smtp; 550-5.1.1 no 550 5.1.1 such user"
    assert second.items() == [("Final-Recipient", "rfc822; c@b.test")]


def test_a_diagnostic_wrapped_without_indentation_stays_whole() -> None:
    (group,) = fields(b"Status: 5.1.1\nDiagnostic-Code: smtp; 550 see\nhttp://b.test/why for\nthe reason\n")
    assert group.get("diagnostic-code") == "smtp; 550 see http://b.test/why for the reason"


def test_groups_without_a_field_are_left_out() -> None:
    assert fields(b"") == fields(b"\n\n\n") == fields(b"no field here\n\nnor here\n") == []
    assert [group.items() for group in fields(b"junk\n\na: b\n\njunk")] == [[("a", "b")]]

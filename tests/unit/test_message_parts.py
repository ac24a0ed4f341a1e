"""The MIME tree: delimiters, nesting, attached messages, parameters; and what is made of the damaged."""

from __future__ import annotations

import base64
import quopri

import pytest

from mailback.message import Message, parse

HEAD = b"From: a@sender.test\nMIME-Version: 1.0\n"


def tree(message: Message) -> list[tuple[str, int]]:
    return [(part.type, part.depth) for part in message.parts]


def multipart(body: bytes, content_type: bytes = b"multipart/mixed; boundary=b") -> Message:
    return parse(HEAD + b"Content-Type: " + content_type + b"\n\n" + body)


def bodies(message: Message) -> list[bytes]:
    return [part.body for part in message.root.children]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_a_report_with_its_returned_message(end: bytes) -> None:
    lines = [
        b"Content-Type: multipart/report; report-type=delivery-status;",
        b'\tboundary="=_b/1"',
        b"",
        b"preamble",
        b"--=_b/1",
        b"",
        b"What happened.",
        b"--=_b/1",
        b"Content-Type: message/delivery-status",
        b"",
        b"Reporting-MTA: dns; mx.test",
        b"",
        b"Status: 5.1.1",
        b"",
        b"--=_b/1  ",
        b"Content-Type: message/rfc822",
        b"",
        b"Subject: returned",
        b"Content-Type: multipart/alternative; boundary=inner",
        b"",
        b"--inner",
        b"",
        b"what was sent",
        b"--inner--",
        b"--=_b/1--",
        b"epilogue",
    ]
    message = parse(end.join(lines))
    assert tree(message) == [
        ("multipart/report", 0),
        ("text/plain", 1),
        ("message/delivery-status", 1),
        ("message/rfc822", 1),
    ]
    assert message.root.params == {"report-type": "delivery-status", "boundary": "=_b/1"}
    assert message.text == "What happened."
    returned = message.parts[3].message
    assert returned is not None
    assert returned.header("subject") == "returned"
    assert tree(returned) == [("multipart/alternative", 2), ("text/plain", 3)]
    assert returned.text == "what was sent"
    assert message.notes == []
    assert not message.truncated


def test_the_line_end_before_a_delimiter_is_not_content() -> None:
    assert bodies(multipart(b"--b\n\none\n\n--b\n\n--b\n\n\n--b--\n")) == [b"one\n", b"", b""]
    assert bodies(multipart(b"--b\r\n\r\none\r\n\r\n--b\r\n\r\n\r\n--b--")) == [b"one\r\n", b""]


def test_a_boundary_that_begins_another_one() -> None:
    inner = b"--b\nContent-Type: multipart/alternative; boundary=b1\n\n--b1\n\nx\n--b1--\n--b--\n"
    assert tree(multipart(inner)) == [("multipart/mixed", 0), ("multipart/alternative", 1), ("text/plain", 2)]
    assert bodies(multipart(b"--b\n\n--b1\n--bb--\n--b--x\n--b--\n")) == [b"--b1\n--bb--\n--b--x"]


def test_a_delimiter_counts_at_the_start_of_a_line_only() -> None:
    assert bodies(multipart(b"--b\n\n > --b\nx--b\n--b--\n")) == [b" > --b\nx--b"]


def test_a_missing_closing_delimiter() -> None:
    message = multipart(b"--b\n\none\n--b\n\ntwo\n")
    assert bodies(message) == [b"one", b"two\n"]
    assert message.notes == ["a multipart ends without its closing delimiter"]


def test_an_unclosed_inner_multipart_ends_where_the_outer_goes_on() -> None:
    body = b"--b\nContent-Type: multipart/related; boundary=c\n\n--c\n\ninner\n--b\n\nouter\n--b--\n"
    message = multipart(body)
    assert tree(message) == [
        ("multipart/mixed", 0),
        ("multipart/related", 1),
        ("text/plain", 2),
        ("text/plain", 1),
    ]
    assert [part.body for part in message.parts[2:]] == [b"inner", b"outer"]


def test_parts_after_the_closing_delimiter_count() -> None:
    assert bodies(multipart(b"--b\n\none\n--b--\njunk\n--b\n\ntwo\n--b--\n")) == [b"one", b"two"]


@pytest.mark.parametrize(
    "declared",
    [
        b'multipart/mixed; boundary="b"',
        b'multipart/mixed; boundary="b',
        b"multipart/mixed; boundary='b'",
        b"multipart/mixed; boundary=b;",
        b"multipart/mixed boundary=b",
        b"multipart/mixed;boundary = b ; x=y",
        b"multipart/mixed; boundary=b charset=us-ascii",
        b'multipart/mixed; x="a;boundary=c"; BOUNDARY=b',
        b'multipart/mixed; boundary="\\b"',
        b"multipart/mixed; boundary*=us-ascii''%62",
        b'multipart/mixed; boundary="b "',
        b"Multipart / Mixed; boundary=b",
        b"multipart/mixed",
        b"multipart/mixed; boundary=other",
        b'multipart/mixed; boundary=""',
        b"multipart/mixed; boundary=" + b"x" * 2000,
    ],
)
def test_boundaries_oddly_declared_wrongly_declared_or_not_at_all(declared: bytes) -> None:
    body = b"This is MIME.\n--b\nContent-Type: text/html\n\none\n--b\n\ntwo\n--b--\n"
    assert bodies(multipart(body, declared)) == [b"one", b"two"]


def test_unquoted_spaces_in_a_boundary() -> None:
    assert bodies(multipart(b"--b c\n\none\n--b c--\n", b"multipart/mixed; boundary=b c")) == [b"one"]


def test_a_multipart_without_any_delimiter_is_read_as_text() -> None:
    message = multipart(b"Your mail could not be delivered.\n-- \nThe postmaster\n")
    assert tree(message) == [("multipart/mixed", 0), ("text/plain", 1)]
    assert message.text == "Your mail could not be delivered.\n-- \nThe postmaster\n"
    assert message.notes == ["a multipart without delimiter lines is read as text"]
    assert multipart(b"").root.children == ()


def test_a_part_without_the_empty_line_after_its_fields() -> None:
    message = multipart(b"--b\nContent-Type: text/html\n<p>Not delivered</p>\n--b--\n")
    assert [(part.type, part.body) for part in message.root.children] == [("text/html", b"<p>Not delivered</p>")]


def test_a_part_without_fields_and_without_empty_line() -> None:
    assert bodies(multipart(b"--b\nJust text.\nMore.\n--b--\n")) == [b"Just text.\nMore."]


@pytest.mark.parametrize(
    ("declared", "type_"),
    [
        (b"TEXT/Html", "text/html"),
        (b"text", "text/plain"),
        (b"", "text/plain"),
        (b"; charset=x", "text/plain"),
        (b'"text/html"', "text/html"),
        (b"text/html charset=x", "text/html"),
        (b"text/html, charset=x", "text/html"),
        (b"text /html (comment)", "text/html"),
    ],
)
def test_types(declared: bytes, type_: str) -> None:
    assert parse(b"Content-Type: " + declared + b"\n\n").root.type == type_


def test_parts_of_a_digest_are_messages() -> None:
    message = multipart(b"--b\n\nSubject: one\n\nx\n--b--\n", b"multipart/digest; boundary=b")
    (part,) = message.root.children
    assert part.type == "message/rfc822"
    assert part.message is not None
    assert part.message.header("subject") == "one"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"attachment; filename=report.txt", "report.txt"),
        (b'ATTACHMENT; filename="a \\"b\\"; c.txt"', 'a "b"; c.txt'),
        (b"attachment; filename*=utf-8'en'%e2%82%ac%20rates", "€ rates"),
        (b"attachment; filename=plain; filename*=utf-8''f%C3%BCr", "für"),
        (b'attachment; filename*0="one "; filename*1=two', "one two"),
        (b"attachment; filename*0*=utf-8''%e2%82; filename*1*=%ac; filename*2=\"%41\"", "€%41"),
        (b"attachment; filename*1=b; filename*0=a", "ab"),
        (b"attachment; filename*=%zz''%", "%"),
        (b'attachment; filename="=?utf-8?Q?f=C3=BCr?="', "für"),
        (b"attachment; filename=" + "für".encode(), "für"),
        (b"attachment; filename=" + "für".encode("latin-1"), "für"),
        (b"attachment;\n filename=folded.txt", "folded.txt"),
        (b"attachment", "from-the-type"),
    ],
)
def test_file_names(value: bytes, name: str) -> None:
    root = parse(b"Content-Type: text/plain; name=from-the-type\nContent-Disposition: " + value + b"\n\n").root
    assert root.disposition == "attachment"
    assert root.filename == name


def test_a_part_without_disposition() -> None:
    root = parse(b"From: a\n\n").root
    assert (root.disposition, root.filename, root.charset, root.params) == ("", "", "", {})


@pytest.mark.parametrize("type_", [b"text/rfc822-headers", b"message/global-headers", b"message/global"])
def test_returned_headers_are_a_message_too(type_: bytes) -> None:
    message = multipart(b"--b\nContent-Type: " + type_ + b"\n\n\nMessage-ID: <x@sender.test>\nSubject: s\n--b--\n")
    returned = message.parts[1].message
    assert returned is not None
    assert returned.header("message-id") == "<x@sender.test>"
    assert returned.root.body == b""


def test_other_types_have_no_message() -> None:
    assert parse(b"Subject: x\n\nSubject: y\n\n").root.message is None


@pytest.mark.parametrize("encoding", [b"base64", b"quoted-printable"])
def test_an_attached_message_that_was_encoded_against_the_rules(encoding: bytes) -> None:
    inner = "Subject: für\r\n\r\nhello\r\n".encode()
    encoded = base64.encodebytes(inner) if encoding == b"base64" else quopri.encodestring(inner)
    raw = b"Content-Type: message/rfc822\nContent-Transfer-Encoding: " + encoding + b"\n\n" + encoded
    attached = parse(raw).root.message
    assert attached is not None
    assert attached.header("subject") == "für"
    assert attached.text == "hello\n"


def test_a_multipart_that_was_encoded_as_a_whole() -> None:
    body = base64.encodebytes(b"--b\n\none\n--b--\n")
    raw = b"Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\n" + body
    assert bodies(parse(raw)) == [b"one"]


def test_an_encoding_that_a_multipart_only_claims() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\n--b\n\none\n--b--\n"
    assert bodies(parse(raw)) == [b"one"]


def test_notes_of_an_attached_message_are_told_by_the_outer_one() -> None:
    message = parse(b"Content-Type: message/rfc822\n\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx")
    assert message.notes == []
    assert message.root.message is not None
    assert message.root.message.text == "x"
    assert message.notes == ["a multipart ends without its closing delimiter"]

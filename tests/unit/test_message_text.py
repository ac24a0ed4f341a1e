"""Octets to text: transfer encodings, charsets as they are declared and as they are, and which part is the text."""

from __future__ import annotations

import codecs

import pytest

from mailback.message import parse
from mailback.mime import charsets


def text_of(content: bytes, charset: str | None = None) -> str:
    declared = f"Content-Type: text/plain; charset={charset}\n".encode() if charset is not None else b""
    return parse(b"From: a\n" + declared + b"\n" + content).root.text


def content_of(encoding: bytes, body: bytes) -> bytes:
    return parse(b"Content-Transfer-Encoding: " + encoding + b"\n\n" + body).root.content


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b"SGVs\r\nbG8=\r\n", b"Hello"),
        (b"SGVsbG8", b"Hello"),
        (b"SGVsbG", b"Hell"),
        (b"SGVsb", b"Hel"),
        (b"SGVsbG8gd29ybGQ!", b"Hello world"),
        (b"SGVs-bG8gd29yb*GQhIQ==", b"Hello world!!"),
        (b"SGVs=bG8gd29y-bGQhIQ==", b"Hello world!!"),
        (b"SGU=bGxv\nIQ==", b"Hello!"),
        (b"SGVsbG8=\n\n-- \nThis footer was glued on by a list, and is longer.", b"Hello"),
        (b"Plain text that only claims to be encoded.", b"Plain text that only claims to be encoded."),
        (b"", b""),
        (b"=", b""),
        (b"A", b""),
        (b"\0\0\0", b""),
    ],
)
def test_base64(body: bytes, content: bytes) -> None:
    assert content_of(b"base64", body) == content


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b"f=C3=BCr", "für".encode()),
        (b"f=c3=bcr", "für".encode()),
        (b"one=\ntwo=\r\nthree", b"onetwothree"),
        (b"one= \t\ntwo", b"onetwo"),
        (b"50 = 50, =ZZ, =4", b"50 = 50, =ZZ, =4"),
        (b"ends=", b"ends"),
        (b"under_score", b"under_score"),
        ("für".encode("latin-1"), "für".encode("latin-1")),
    ],
)
def test_quoted_printable(body: bytes, content: bytes) -> None:
    assert content_of(b"quoted-printable", body) == content


@pytest.mark.parametrize("encoding", [b"BASE64", b'"base64"', b" base64 ;", b"base-64", b"Base64 (sic)"])
def test_names_of_encodings_are_read_kindly(encoding: bytes) -> None:
    assert content_of(encoding, b"SGVsbG8=") == b"Hello"


@pytest.mark.parametrize("encoding", [b"7bit", b"8bit", b"binary", b"x-unknown", b""])
def test_what_is_not_encoded_stays(encoding: bytes) -> None:
    assert content_of(encoding, b"SGVsbG8=41") == b"SGVsbG8=41"


@pytest.mark.parametrize(
    ("charset", "codec", "text"),
    [
        ("utf-8", "utf-8", "für 日本"),
        ('"UTF-8"', "utf-8", "für"),
        ("utf8", "utf-8", "für"),
        ("uft-8", "utf-8", "für"),
        ('3D"utf-8"', "utf-8", "für"),
        ("iso-8859-1", "cp1252", "„für“ – 5 €"),
        ("windows-1252", "cp1252", "„für“"),
        ("ISO-8859-15", "iso8859-15", "5 €"),
        ("iso-8859-8-i", "iso8859-8", "שלום"),
        ("iso-8859-6-e", "iso8859-6", "سلام"),
        ("koi8-r", "koi8-r", "почта"),
        ("cp-1251", "cp1251", "почта"),
        ("gb2312", "gb18030", "你好镕"),
        ("gbk", "gb18030", "你好镕"),
        ("big5", "cp950", "你好"),
        ("cp932", "cp932", "①日本"),
        ("shift_jis", "cp932", "①日本"),
        ("x-sjis", "cp932", "日本"),
        ("euc-jp", "euc_jp", "日本"),
        ("iso-2022-jp", "iso2022_jp", "日本"),
        ("iso-2022-jp", "iso2022_jp_ext", "日本 ｱ"),
        ("ks_c_5601-1987", "cp949", "안녕 똠"),
        ("ks_c_5601", "cp949", "안녕"),
        ("euc-kr", "cp949", "안녕"),
        ("iso-2022-kr", "iso2022_kr", "안녕"),
        ("tis-620", "cp874", "สวัสดี"),
        ("unicode-1-1-utf-7", "utf-7", "für"),
        ("utf-16", "utf-16", "für"),
        ("utf-16le", "utf-16-le", "für"),
    ],
)
def test_charsets_as_declared(charset: str, codec: str, text: str) -> None:
    assert text_of(text.encode(codec), charset) == text


@pytest.mark.parametrize(
    ("charset", "codec", "text"),
    [
        (None, "utf-8", "für"),
        (None, "latin-1", "für"),
        (None, "iso2022_jp", "日本"),
        ("", "utf-8", "für"),
        ("us-ascii", "utf-8", "für"),
        ("us-ascii", "latin-1", "für"),
        ("us-ascii", "iso2022_jp", "日本"),
        ("unknown-8bit", "utf-8", "für"),
        ("unknown-8bit", "latin-1", "für"),
        ("x-unknown", "utf-8", "für"),
        ("no such charset", "latin-1", "für"),
        ("utf-8", "latin-1", "für"),
        ("utf-16", "utf-8", "für"),
        ("iso-2022-jp", "euc_jp", "日本語"),
        ("iso-2022-jp", "cp932", "日本語"),
        ("shift_jis", "utf-8", "日本語"),
        ("idna", "utf-8", "für"),
        ("unicode_escape", "utf-8", "für\\n"),
        ("hex", "utf-8", "für"),
        ("x" * 5000, "utf-8", "für"),
        ("../../etc/passwd", "utf-8", "für"),
    ],
)
def test_charsets_missing_unknown_or_wrong(charset: str | None, codec: str, text: str) -> None:
    assert text_of(text.encode(codec), charset) == text


def test_a_character_cut_off_at_the_end_does_not_spoil_the_rest() -> None:
    assert text_of("für 日本".encode()[:-1], "utf-8") == "für 日\ufffd"
    assert text_of("für 日本".encode()[:-1]) == "für 日\ufffd"
    assert text_of("你好".encode("gb18030")[:-1], "gb2312").startswith("你")


def test_octets_that_no_charset_has() -> None:
    assert text_of(b"\x81\x8d \xff", "windows-1252") == "\x81\x8d ÿ"


def test_text_is_fit_for_a_database() -> None:
    assert text_of(b"+2AA-x", "utf-7").encode() == "\ufffdx".encode()
    assert text_of(b"\0a\0b") == "ab"
    assert text_of("\ufeffa".encode(), "utf-8") == "a"


def test_line_ends_become_lf() -> None:
    assert text_of(b"a\r\nb\rc\nd\r\r\ne") == "a\nb\nc\nd\ne"


def test_every_charset_in_the_table_has_a_codec() -> None:
    for codec in set(charsets._CODECS.values()):
        assert codecs.decode(b"", codec) == ""


def test_the_charset_that_an_html_page_declares_itself() -> None:
    page = b"Content-Type: text/html\n\n<html><meta http-equiv=Content-Type content='text/html; charset=koi8-r'>"
    assert parse(page + "почта".encode("koi8-r")).text == "почта"


# --- which part is the text -----------------------------------------------------------------------------------------


def multipart(subtype: str, *parts: str) -> str:
    """One multipart, its boundary its subtype; header block included."""
    delimited = "".join(f"--{subtype}\n{part}\n" for part in parts)
    return f"Content-Type: multipart/{subtype}; boundary={subtype}\n\n{delimited}--{subtype}--"


PLAIN = "Content-Type: text/plain\n\nplain"
HTML = "Content-Type: text/html\n\n<p>html &lt;3</p>"
EMPTY = "Content-Type: text/plain\n\n \n"
ATTACHED = "Content-Type: text/plain\nContent-Disposition: attachment\n\nattached"
IMAGE = "Content-Type: image/png\n\nbinary"
STATUS = "Content-Type: message/delivery-status\n\nStatus: 5.1.1\n"
RETURNED = "Content-Type: message/rfc822\n\nSubject: x\n\nreturned"


@pytest.mark.parametrize(
    ("mail", "text"),
    [
        (PLAIN, "plain"),
        (HTML, "html <3"),
        (ATTACHED, "attached"),
        (IMAGE, ""),
        (STATUS, ""),
        ("", ""),
        (multipart("mixed", ATTACHED, PLAIN), "plain"),
        (multipart("mixed", HTML, PLAIN), "html <3"),
        (multipart("mixed", EMPTY, HTML), "html <3"),
        (multipart("mixed", EMPTY, PLAIN), "plain"),
        (multipart("mixed", IMAGE, RETURNED), ""),
        (multipart("alternative", HTML, PLAIN), "plain"),
        (multipart("alternative", EMPTY, HTML), "html <3"),
        (multipart("alternative", PLAIN, multipart("related", HTML, IMAGE)), "plain"),
        (multipart("alternative", multipart("related", HTML, IMAGE), PLAIN), "plain"),
        (multipart("report", multipart("alternative", HTML, PLAIN), STATUS, RETURNED), "plain"),
        (multipart("report", STATUS, RETURNED), ""),
    ],
)
def test_the_text_of_a_message(mail: str, text: str) -> None:
    assert parse(mail.encode()).text == text


def test_a_container_has_no_text_of_its_own() -> None:
    assert parse(multipart("mixed", PLAIN).encode()).root.text == ""


def test_the_text_of_an_html_part_keeps_its_tags() -> None:
    assert parse(HTML.encode()).root.text == "<p>html &lt;3</p>"

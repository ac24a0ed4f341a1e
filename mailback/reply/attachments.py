"""What hangs on a message and runs: told by names, by what the bytes are, and by what lies in archives.

Names are read as a file manager shows them: without what turns the direction of writing, in plain letters, and with
every ending looked at. Bytes outrank names: a program called `invoice.pdf` is still a program, and a document with
macros is one under any name. Archives are read by their directory (zip, tar) or by the names that stand in them in
plain (rar, cab, iso, arj, ace); of a packed tar or of an archive within an archive some megabytes are unpacked at most.
What is encrypted is told as that, and more so where the mail brings the password along.

Messages that are attached are looked into as well. Everything is capped: parts, bytes, members, depth.

Log events: none; never raises on any message.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from mailback.message import Message, Part
from mailback.reply.phrases import Phrases, Text
from mailback.reply.rulefiles import Lists
from mailback.reply.signs import Sign, Verdict

TABLES = {
    "attachment": ("executable", "disk", "macro", "rare_archive", "archive", "page", "harmless", "types"),
    "password": ("words",),
}
"""What of `replies_safety.toml` is read here."""

_PARTS = 200
_DEPTH = 3  # attached messages, and archives within archives
_MEMBERS = 2000
_ARCHIVE_CAP = 32_000_000  # octets of an archive that is looked into
_UNPACKED = 4_000_000  # octets that are unpacked of one
_SCANNED = 2_000_000  # octets searched for names or marks
_PAGE = 400_000  # octets of a page that are read
_PASSWORD_READ = 20_000

_MALWARE, _PHISHING = Verdict.MALWARE, Verdict.PHISHING
_DIRECTION = re.compile(r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_INVISIBLE = re.compile(r"[\u200b-\u200d\u2060\ufeff\u00ad\x00-\x1f\x7f]")

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_VBA = ("_VBA_PROJECT".encode("utf-16-le"), "VBA_PROJECT_CUR".encode("utf-16-le"))
_ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")
_EMBEDDED = "\x01Ole10Native".encode("utf-16-le")
_INSTALLER = "MsiDigitalSignatureEx".encode("utf-16-le")
_EXECUTABLES = (
    (b"\x7fELF", "executable_content"),
    (b"\xca\xfe\xba\xbe", "executable_content"),
    (b"\xcf\xfa\xed\xfe", "executable_content"),
    (b"\xce\xfa\xed\xfe", "executable_content"),
    (b"L\x00\x00\x00\x01\x14\x02\x00", "shortcut"),
    (b"ITSF", "executable_content"),
    (b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3", "notebook"),
    (b"dex\n03", "executable_content"),
)
_PLAIN_NAMES = (b"Rar!\x1a\x07", b"MSCF", b"\x60\xea", b"7z\xbc\xaf\x27\x1c", b"\x78\x9f\x3e\x22")
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What zipfile unpacks no further than asked; of the others a few octets may become a hundred megabytes."""
_ACE, _ISO = (b"**ACE**", 7), (b"CD001", 0x8001)
_SEVEN = b"7z\xbc\xaf\x27\x1c"
_RAR4_ENCRYPTED = b"Rar!\x1a\x07\x00\xce\x99\x73\x80\x00\x0d"  # main header with encrypted block headers
_RAR5_ENCRYPTION = re.compile(rb"Rar!\x1a\x07\x01\x00.{4}.\x04", re.DOTALL)  # a first header of type 4: encryption
_SMUGGLES = re.compile(
    rb"msSaveOrOpenBlob|msSaveBlob|createObjectURL|new\s+Blob\s*\(|new\s+File\s*\(|"
    rb"\.download\s*=|data:application/(?:octet-stream|zip|x-)[^\"']{0,40};base64",
    re.IGNORECASE,
)
_DECODES = re.compile(
    rb"\batob\s*\(|fromCharCode|unescape\s*\(|decodeURIComponent\s*\(|Uint8Array|eval\s*\(|;base64,", re.IGNORECASE
)
_ASKS_PASSWORD = re.compile(rb"<input[^<>]{0,500}type\s*=\s*[\"']?password", re.IGNORECASE)
_SCRIPT = re.compile(rb"<script[\s>]", re.IGNORECASE)
_REFRESHES = re.compile(rb"http-equiv\s*=\s*[\"']?refresh[^<>]{0,200}https?:", re.IGNORECASE)
_LEADS_AWAY = re.compile(rb"(?:window|document|top|self)\.location|location\.(?:href|replace|assign)", re.IGNORECASE)
_SMALL_PAGE = 50_000  # octets; saved pages of the web are larger, and lead here and there
_RTF_OBJECT = re.compile(rb"\\obj(?:update|autlink|data|ocx)\b", re.IGNORECASE)
_PDF_LAUNCHES = re.compile(rb"/Launch\b")
_REMOTE_TEMPLATE = re.compile(rb"attachedTemplate[^<>]{0,400}Target\s*=\s*[\"'](?:https?|ftp|file|\\\\)", re.IGNORECASE)
_REMOTE_TEMPLATE_TURNED = re.compile(
    rb"Target\s*=\s*[\"'](?:https?|ftp|file|\\\\)[^<>]{0,400}attachedTemplate", re.IGNORECASE
)
_PACKED_ERRORS = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, ValueError, NotImplementedError,
    OSError, EOFError, RuntimeError, OverflowError, MemoryError, KeyError, IndexError,
)  # fmt: skip
"""What reading a damaged or hostile archive raises: then there is nothing more to tell about it."""


@dataclass(frozen=True, slots=True)
class AttachmentRules:
    """The lists of `[attachment]` and `[password]`."""

    executable: frozenset[str]
    disk: frozenset[str]
    macro: frozenset[str]
    rare_archive: frozenset[str]
    archive: frozenset[str]
    page: frozenset[str]
    harmless: frozenset[str]
    types: frozenset[str]
    password: Phrases
    plain_names: re.Pattern[bytes]
    """A name with the ending of a program, as it stands in an archive that does not pack its names."""

    @property
    def files(self) -> frozenset[str]:
        """Endings by which a name is that of a file, and of no host."""
        return (self.harmless | self.executable | self.macro | self.archive | self.page) - {"com", "app"}

    @classmethod
    def of(cls, told: Lists) -> AttachmentRules:
        named = {key: frozenset(map(str.lower, told[f"attachment.{key}"])) for key in TABLES["attachment"]}
        return cls(
            **named,
            password=Phrases({"password": told["password.words"]}),
            plain_names=_names_in_plain(named["executable"]),
        )


def _names_in_plain(endings: frozenset[str]) -> re.Pattern[bytes]:
    """The ending of a program's name, in ASCII or in UTF-16 of either order; begun at the dot, so that it is linear."""
    known = sorted((ending for ending in endings if ending.isascii() and len(ending) > 1), key=len, reverse=True)
    plain = b"|".join(re.escape(ending.encode()) for ending in known)
    wide = b"|".join(b"".join(b"%c\x00" % octet for octet in ending.encode()) for ending in known)
    return re.compile(
        rb"\.(?:(?<=[\w )\]-]\.)(?:" + plain + rb")(?![\w.])|(?<=\w\x00\.)\x00(?:" + wide + rb")(?!\w))", re.IGNORECASE
    )


def signs(message: Message, text: str, rules: AttachmentRules) -> Iterator[Sign]:
    """Every sign of what hangs on a message; `text` is what its writer says, for a password in it."""
    told_password: list[bool] = []

    def password() -> bool:
        if not told_password:
            told_password.append(bool(rules.password.found(Text(text[:_PASSWORD_READ]))))
        return told_password[0]

    for part in islice(_attached(message, 0), _PARTS):
        for sign in _of_part(part, rules):
            yield sign
            if sign.says == "encrypted_archive" and password():
                yield Sign(_MALWARE, 0.4, "password_in_message")


def _attached(message: Message, depth: int) -> Iterator[Part]:
    """The parts of a message that are no text to read, those of attached messages too."""
    for part in message.parts:
        if part.is_container:
            continue
        attached = part.message if depth < _DEPTH else None
        if attached is not None:
            yield from _attached(attached, depth + 1)
        if part.filename or not part.type.startswith(("text/", "message/")):
            yield part


def has_page(message: Message, rules: AttachmentRules) -> bool:
    """Whether a page hangs on a message, to be opened by a browser."""
    return any(not rules.page.isdisjoint(_endings(part.filename)[-1:]) for part in message.parts if part.filename)


def _of_part(part: Part, rules: AttachmentRules) -> Iterator[Sign]:
    names = dict.fromkeys(filter(None, (part.filename, part.params.get("name", ""))))
    for name in names:
        yield from _name(name, rules)
    if part.type in rules.types:
        yield Sign(_MALWARE, 0.9, "executable_attachment")
    yield from _content(part.content, next(iter(names), ""), rules, 0)


def _name(name: str, rules: AttachmentRules) -> Iterator[Sign]:
    """What a file's name says, as the person who would open it cannot see it."""
    endings = _endings(name)
    ending = endings[-1] if endings else ""
    runs = ending in rules.executable or ending in rules.disk
    if _DIRECTION.search(name) and (runs or ending in rules.macro or "\u202e" in name or "\u202d" in name):
        yield Sign(_MALWARE, 0.95, "reversed_name")
    hidden = len(endings) > 1 and endings[-2] in rules.harmless
    if ending in rules.executable:
        yield Sign(_MALWARE, 0.98, "double_extension") if hidden else Sign(_MALWARE, 0.9, "executable_attachment")
    elif ending in rules.disk:
        yield Sign(_MALWARE, 0.98, "double_extension") if hidden else Sign(_MALWARE, 0.9, "disk_image")
    elif ending in rules.macro:
        yield Sign(_MALWARE, 0.6, "macro_attachment")
    elif ending in rules.rare_archive:
        yield Sign(_MALWARE, 0.55, "rare_archive")
        yield from _name(name[: name.rfind(".")], rules)
    elif ending in rules.page and hidden:
        yield Sign(_PHISHING, 0.6, "page_named_as_document")
    elif ending in ("gz", "bz2", "xz", "z") and len(endings) > 1:  # one packed file: its own name stands before
        yield from _name(name[: name.rfind(".")], rules)


def _endings(name: str) -> list[str]:
    """Every ending of a name, in plain lower-case letters: `Invoice.PDF   .ｅｘｅ.` has `pdf` and `exe`."""
    plain = unicodedata.normalize("NFKC", _INVISIBLE.sub("", _DIRECTION.sub("", name[-300:])))
    pieces = [piece.strip().lower() for piece in plain.rstrip(". \t").replace("\uff0e", ".").split(".")]
    return [piece for piece in pieces[1:] if piece]


def _content(content: bytes, name: str, rules: AttachmentRules, depth: int) -> Iterator[Sign]:
    """What the bytes are, whatever they are called."""
    head = content[:4096]
    endings = _endings(name)
    yield from _program(content, head, endings, rules)
    if head.startswith(_OLE):
        yield from _compound(content[:_SCANNED], endings)
    elif head.startswith(b"PK\x03\x04"):
        yield from _zip(content, endings, rules, depth)
    elif head.lstrip()[:4] == b"{\\rt" and _RTF_OBJECT.search(content[:_SCANNED]):
        yield Sign(_MALWARE, 0.6, "embedded_object")
    elif head.startswith(b"%PDF") and _PDF_LAUNCHES.search(content[:_SCANNED]):
        yield Sign(_MALWARE, 0.6, "launching_document")
    elif head.startswith(_PLAIN_NAMES) or _is(content, _ACE) or _is(content, _ISO):
        yield from _named_in_plain(content, rules)
    elif head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")) or content[257:262] == b"ustar":
        yield from _tar(content, name, rules, depth)
    elif endings[-1:] and endings[-1] in rules.page:
        yield from _page(content[:_PAGE])


def _is(content: bytes, mark: tuple[bytes, int]) -> bool:
    word, place = mark
    return content[place : place + len(word)] == word


def _program(content: bytes, head: bytes, endings: list[str], rules: AttachmentRules) -> Iterator[Sign]:
    disguised = bool(endings) and endings[-1] in rules.harmless
    if head.startswith(b"MZ") and len(content) > 64:
        place = int.from_bytes(content[0x3C:0x40], "little")
        if content[place : place + 2] in (b"PE", b"NE", b"LE", b"LX") or disguised:
            yield Sign(_MALWARE, 0.95 if disguised else 0.9, "executable_content")
    for mark, says in _EXECUTABLES:
        if head.startswith(mark):
            yield Sign(_MALWARE, 0.95 if disguised else 0.6 if says == "notebook" else 0.85, says)
    if _is(content, _ISO):
        yield Sign(_MALWARE, 0.9, "disk_image")


def _compound(content: bytes, endings: list[str]) -> Iterator[Sign]:
    """An OLE compound file: the older office formats, installers, encrypted documents (MS-CFB)."""
    if any(mark in content for mark in _VBA):
        yield Sign(_MALWARE, 0.6, "macro_attachment")
    if _EMBEDDED in content:
        yield Sign(_MALWARE, 0.6, "embedded_object")
    if _INSTALLER in content and endings[-1:] != ["msi"]:
        yield Sign(_MALWARE, 0.85, "executable_content")
    if _ENCRYPTED_OFFICE in content:
        yield Sign(_MALWARE, 0.2, "encrypted_archive")


def _zip(content: bytes, endings: list[str], rules: AttachmentRules, depth: int) -> Iterator[Sign]:
    """A zip archive, or an office document, which is one."""
    if len(content) > _ARCHIVE_CAP:
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()[:_MEMBERS]
            names = [member.filename for member in members]
            if "[Content_Types].xml" in names or "META-INF/manifest.xml" in names:
                yield from _document(archive, members, endings, rules)
            else:
                yield from _archived(archive, members, rules, depth)
    except _PACKED_ERRORS:
        return


def _document(
    archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], endings: list[str], rules: AttachmentRules
) -> Iterator[Sign]:
    """An office document: macros, a template from elsewhere."""
    names = [member.filename.lower() for member in members]
    if any(name.endswith(("vbaproject.bin", "vbadata.xml")) for name in names):
        disguised = bool(endings) and endings[-1] not in rules.macro
        yield Sign(_MALWARE, 0.8 if disguised else 0.6, "macro_attachment")
    if any(name.startswith("basic/") and not name.endswith(("script-lc.xml", "script-lb.xml")) for name in names):
        yield Sign(_MALWARE, 0.55, "macro_attachment")
    if any("/macrosheets/" in name for name in names):
        yield Sign(_MALWARE, 0.7, "macro_attachment")
    for member in members:
        if member.filename.lower().endswith("settings.xml.rels"):
            relations = _unpacked(archive, member, _PAGE)
            if _REMOTE_TEMPLATE.search(relations) or _REMOTE_TEMPLATE_TURNED.search(relations):
                yield Sign(_MALWARE, 0.8, "remote_template")


def _archived(
    archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], rules: AttachmentRules, depth: int
) -> Iterator[Sign]:
    """What lies in an archive; where it is encrypted the names still show."""
    locked = any(member.flag_bits & 0x1 for member in members)
    if locked:
        plain = rules.harmless - rules.archive
        known = all((_endings(member.filename) or [""])[-1] in plain for member in members)
        yield Sign(_MALWARE, 0.05 if known else 0.3, "encrypted_archive")
    if any(member.filename.endswith(".class") for member in members):  # a jar under whatever name
        yield Sign(_MALWARE, 0.85, "executable_content")
    room = _UNPACKED
    for member in members:
        yield from _member(member.filename, rules)
        if locked or depth >= _DEPTH or not 0 < member.file_size <= room or member.compress_type not in _BOUNDED:
            continue
        inside = _unpacked(archive, member, room)
        room -= len(inside)
        for sign in _content(inside, member.filename, rules, depth + 1):
            yield _inside(sign)


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """The beginning of a member; what its header says of its size is not believed."""
    with archive.open(member) as file:
        return file.read(most)


def _member(name: str, rules: AttachmentRules) -> Iterator[Sign]:
    for sign in _name(name.replace("\\", "/").rpartition("/")[2], rules):
        yield _inside(sign)


_IN_ARCHIVE = {"executable_attachment": "executable_in_archive", "executable_content": "executable_in_archive"}


def _inside(sign: Sign) -> Sign:
    return sign._replace(says=_IN_ARCHIVE.get(sign.says, sign.says))


def _named_in_plain(content: bytes, rules: AttachmentRules) -> Iterator[Sign]:
    """An archive or disk whose names are not packed."""
    if rules.plain_names.search(content[:_SCANNED]):
        yield Sign(_MALWARE, 0.9, "executable_in_archive")
    if content.startswith(_RAR4_ENCRYPTED) or _RAR5_ENCRYPTION.match(content):
        yield Sign(_MALWARE, 0.3, "encrypted_archive")
    elif content.startswith(_SEVEN):  # its names are packed: they cannot be looked at
        yield (
            Sign(_MALWARE, 0.3, "encrypted_archive")
            if b"\x06\xf1\x07\x01" in content[-4096:]
            else Sign(_MALWARE, 0.1, "opaque_archive")
        )


def _tar(content: bytes, name: str, rules: AttachmentRules, depth: int) -> Iterator[Sign]:
    """A tar archive, packed or not, or one packed file."""
    if len(content) > _ARCHIVE_CAP:
        return
    try:
        plain = _decompressed(content)
    except _PACKED_ERRORS:
        return
    if plain[257:262] != b"ustar":
        if plain is not content and depth < _DEPTH:
            for sign in _content(plain, name.rpartition(".")[0], rules, depth + 1):
                yield _inside(sign)
        return
    try:
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for member in islice(archive, _MEMBERS):
                yield from _member(member.name, rules)
                if member.isfile() and 0 < member.size <= _UNPACKED and depth < _DEPTH:
                    start = member.offset_data
                    for sign in _content(plain[start : start + member.size], member.name, rules, depth + 1):
                        yield _inside(sign)
    except _PACKED_ERRORS:  # cut off where unpacking stopped, or damaged
        return


def _decompressed(content: bytes) -> bytes:
    """The beginning of what is packed; the content itself where it is not."""
    if content.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(content, _UNPACKED)
    if content.startswith(b"BZh"):
        return bz2.BZ2Decompressor().decompress(content, _UNPACKED)
    if content.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMADecompressor(memlimit=64_000_000).decompress(content, _UNPACKED)
    return content


def _page(content: bytes) -> Iterator[Sign]:
    """A page to be opened from disk: does it unpack a file, ask for a password, or lead away?"""
    plain = content.replace(b"\0", b"")  # UTF-16
    scripted = bool(_SCRIPT.search(plain)) or b"onload" in plain.lower()
    if scripted and _SMUGGLES.search(plain) and _DECODES.search(plain):
        yield Sign(_MALWARE, 0.85, "html_smuggling")
    if _ASKS_PASSWORD.search(plain):
        yield Sign(_PHISHING, 0.8, "password_form")
    elif scripted and _DECODES.search(plain):
        yield Sign(_PHISHING, 0.45, "scripted_page")
    if _REFRESHES.search(plain):
        yield Sign(_PHISHING, 0.55, "redirecting_page")
    elif scripted and len(plain) < _SMALL_PAGE and _LEADS_AWAY.search(plain):
        yield Sign(_PHISHING, 0.3, "redirecting_page")

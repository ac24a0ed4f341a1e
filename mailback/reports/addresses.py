"""Addresses as reports write them: in fields (`rfc822; user@example.com`), in header fields, loose in a text.

Log events: none; nothing here raises on any text.

A report is not a header field that follows RFC 5322. Addresses stand in angle brackets, in quotes, behind `to=`, with
a source route, in xtext (RFC 3461 section 4) or in the `\\x{HEX}` form of RFC 6533 section 3, and local parts break
every rule of dots. So the pattern takes what can be told apart from its surroundings, and no more.

Cost: only the surroundings of each `@` are looked at, within fixed windows, so a search is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_ATEXT = r"\w!#$%&'*+/=?^`{|}~.\-"
_DOMAIN = r"(?:\w[\w\-]{0,62}+(?:\.[\w\-]{1,63}+){0,12}+|\[[0-9A-Fa-fIPv:.]{3,60}+\])"
_LOCAL_WINDOW = 160  # characters; VERP makes local parts longer than the 64 of RFC 5321 section 4.5.3.1.1

_AFTER = re.compile(_DOMAIN)
_BEFORE = re.compile(rf"[{_ATEXT}]+")
"""For the reversed text before an `@`."""
_QUOTED_BEFORE = re.compile(r'"(?:[^"\\\r\n<>]|\\.){1,100}"$')

_WHOLE = re.compile(rf'(?:"(?:[^"\\\r\n]|\\.){{1,100}}+"|[^\s<>"@,;:()]{{1,160}}+)@{_DOMAIN}')
_PLAIN = re.compile(r"[\w.\-]{1,160}+@[\w.\-]{1,254}[\w]")
"""Most addresses; nothing of them is to be decoded or cut off."""
_USUAL = re.compile(rf"[Rr][Ff][Cc]822;\s*+({_PLAIN.pattern})\s*+")
"""Most recipient fields."""
_PREFIX = re.compile(r"(?:to|rcpt|recipient|orcpt|from|mailto|addr|address|email|user)=", re.IGNORECASE)
_XTEXT = re.compile(r"\+(2B|3D|[01][0-9A-F]|20|7F|[89A-F][0-9A-F])")
_UNICODE = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_COMMENT = re.compile(r"\s\([^()]{0,200}+\)\s*$")
_ROUTE = re.compile(r"@[^:<>\s@]{1,255}+:(?=[^:<>\s]{1,255}+@)")


class Found(NamedTuple):
    """An address in a text, and where it stands."""

    address: str
    start: int
    end: int


def find(text: str) -> Iterator[Found]:
    """Every mailbox (RFC 5321 section 4.1.2, RFC 6531; pragmatically) of a text, as it stands; `tidy` the address."""
    at = text.find("@")
    last_end = 0
    while at >= 0:
        domain = _AFTER.match(text, at + 1)
        if domain is not None:
            local = _local_before(text, max(last_end, at - _LOCAL_WINDOW), at)
            if local:
                start, last_end = at - len(local), domain.end()
                if not text[start:last_end].isascii():
                    start, last_end = _unglued(text, start, at, last_end)
                yield Found(text[start:last_end], start, last_end)
        at = text.find("@", at + 1)


def _unglued(text: str, start: int, at: int, end: int) -> tuple[int, int]:
    """Where an address begins and ends among words that are written without spaces: `用户li@d.example的邮箱已满`.

    A label that begins in ASCII ends where another script begins, and so begins a local part at a domain in ASCII.
    Letters with marks are no other script: `müller` is one label.
    """
    cut = _LABEL_END.search(text, at + 1, end)
    if cut is not None and "." in text[at + 1 : cut.end()]:
        end = cut.end()
    if text[at + 1 : end].isascii():
        words = _WORDS_BEFORE.match(text, start, at)
        start = words.end() if words is not None else start
    return start, end


_OTHER_SCRIPT = r"\u0370-\u1cff\u2e80-\ud7ff\uf900-\uffef"
_LABEL_END = re.compile(rf"(?<=[.@])[A-Za-z0-9][A-Za-z0-9\-]{{0,62}}+(?=[{_OTHER_SCRIPT}])")
_WORDS_BEFORE = re.compile(rf"[^@]*[{_OTHER_SCRIPT}](?=[A-Za-z][!-~]*\Z)")


def _local_before(text: str, start: int, at: int) -> str:
    """The local part that ends at `at`, no further back than `start`."""
    window = text[start:at]
    if window.endswith('"'):
        quoted = _quoted(window)
        if quoted:
            return quoted
    found = _BEFORE.match(window[::-1])
    return window[len(window) - found.end() :] if found else ""


def _quoted(window: str) -> str:
    """A quoted local part at the end of the window; none when its opening quote is missing."""
    opening = window.rfind('"', 0, -1)
    while opening > 0 and window[opening - 1] == "\\":
        opening = window.rfind('"', 0, opening)
    return window[opening:] if opening >= 0 and _QUOTED_BEFORE.match(window, opening) else ""


def tidy(found: str) -> str:
    """What `find` matched, without what clings to it: quotes, a leading `to=`, a full stop at the end."""
    found = found.rstrip(".-_")
    local, _, domain = found.rpartition("@")
    if local.startswith('"'):
        return found
    prefix = _PREFIX.match(local) if "=" in local else None
    if prefix:
        local = local[prefix.end() :]
    return f"{local.lstrip(chr(39) + '`=*|/')}@{domain}"


def in_text(text: str) -> list[str]:
    """The addresses of a text with a dot in their domain, in order, each once."""
    told: dict[str, str] = {}
    for found in find(text):
        address = tidy(found.address)
        if is_full(address):
            told.setdefault(address.lower(), address)
    return list(told.values())


def is_full(address: str) -> bool:
    """True for a local part at a domain of more than one label, or at an address literal."""
    local, _, domain = address.rpartition("@")
    return local != "" and (("." in domain and domain[0] != ".") or domain[:1] == "[")


def of_field(value: str) -> tuple[str, str]:
    """(address type, address) of a recipient field (RFC 3464 sections 2.3.1 and 2.3.2).

    The address type is lower case and empty where the field has none. The address is empty where the value holds
    none: a program's command line, a folder, a distinguished name.
    """
    usual = _USUAL.fullmatch(value)
    if usual is not None:
        return "rfc822", usual[1]
    kind, semicolon, rest = value.partition(";")
    if not semicolon or "@" in kind:
        kind, rest = "", value
    kind = kind.strip().lower()
    return kind, plain(rest, utf8=kind == "utf-8")


def plain(value: str, *, utf8: bool = False) -> str:
    """The bare address of a value such as `<user@example.com> (comment)`, decoded; empty when it holds none."""
    value = value.strip()
    if _PLAIN.fullmatch(value):
        return value
    if "<" in value:
        value = value[value.find("<") + 1 :].partition(">")[0].strip()
    value = value.strip("'")
    if "(" in value:
        value = _COMMENT.sub("", value)
    if value.startswith("@"):  # source route, RFC 5321 section 4.1.2
        value = _ROUTE.sub("", value, count=1)
    scheme, colon, rest = value.partition(":")
    if colon and "@" in rest and scheme.lower() in {"smtp", "mailto", "rfc822", "lmtp"}:
        value = rest.strip()
    if utf8 or "\\x{" in value:
        value = _UNICODE.sub(_code_point, value)
    if "+" in value:
        value = xtext(value)
    value = value.rstrip(".")
    if _WHOLE.fullmatch(value):
        return value
    found = next(find(value), None)
    return tidy(found.address) if found else ""


def xtext(value: str) -> str:
    """Undo xtext (RFC 3461 section 4) where the value is certainly xtext; else give it back as it is.

    Reporters should have decoded ORCPT and often have, so `user+41@` may be a subaddress. Only octets that xtext
    *must* encode are taken for encoded, and one bare `+` proves that the value is not xtext at all.
    """
    if value.count("+") != len(_XTEXT.findall(value)):
        return value
    decoded = _XTEXT.sub(lambda found: chr(int(found[1], 16)), value)
    try:
        return decoded.encode("latin-1").decode("utf-8")
    except (UnicodeDecodeError, UnicodeEncodeError):
        return value


def _code_point(found: re.Match[str]) -> str:
    """RFC 6533 section 3: `\\x{E9}`; a surrogate or a number beyond Unicode stays as it is written."""
    number = int(found[1], 16)
    return found[0] if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF or number < 0x20 else chr(number)


def of_header(value: str) -> list[str]:
    """The addresses of an address-list header field, in order, each once.

    Pragmatic: an address in angle brackets counts, else a bare one; names in quotes that look like an address
    (`"a@b.example" <c@d.example>`) do not.
    """
    if "@" not in value:
        return []
    if "<" not in value:
        bare = value.strip()
        return [bare] if _PLAIN.fullmatch(bare) and is_full(bare) else in_text(value)
    single = _SINGLE.fullmatch(value)
    if single:
        return [single[1]]
    told: dict[str, str] = {}
    for piece in _split_list(value):
        address = plain(piece) if "<" in piece else next(iter(in_text(piece)), "")
        if address:
            told.setdefault(address.lower(), address)
    return list(told.values())


def _split_list(value: str) -> list[str]:
    """Cut at commas outside quotes; linear, and an unclosed quote ends at the end."""
    if '"' not in value:
        return value.split(",")
    pieces, start, quoted = [], 0, False
    for match in _LIST_MARK.finditer(value):
        mark = match.group()
        if mark == '"':
            quoted = not quoted
        elif mark == "," and not quoted:
            pieces.append(value[start : match.start()])
            start = match.end()
    pieces.append(value[start:])
    return pieces


_SINGLE = re.compile(r'(?:[^<>,"]{0,200}+|"[^"\\]{0,200}+"\s?)<([\w.+=\-]{1,160}+@[\w.\-]{1,254}\w)>\s*')
_LIST_MARK = re.compile(r'\\.|"|,')


def verp(sender: str) -> str | None:
    """The recipient that a variable envelope return path encodes: `list-bounces+user=example.com@lists.example`.

    Covers the `local=domain` form (ezmlm, Mailman, most senders of bulk mail), introduced by `+`, `--` or `-`. SRS and
    BATV addresses look alike and are left alone: they encode the sender of a forwarded message, not a recipient.
    """
    local = sender.rpartition("@")[0][:256]
    if "=" not in local or local[:4].upper() in _NOT_VERP:
        return None
    head, _, domain = local.rpartition("=")
    for mark in ("+", "--", "-"):
        if mark in head:
            head = head.rpartition(mark)[2]
            break
    domain = domain.partition("+")[0].rstrip("-.")
    address = f"{head}@{domain}"
    return address if head and "." in domain and _WHOLE.fullmatch(address) else None


_NOT_VERP = frozenset({"SRS0", "SRS1", "PRVS", "BTV1"})

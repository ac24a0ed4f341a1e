"""Mail addresses: the key that look-ups compare, the two halves, and whether a text is an address at all.

Two spellings of one mailbox get one key: the domain as A-labels (UTS 46) in lower case, the local part case-folded,
quotes that are not needed removed, comments, angle brackets, source routes and trailing dots of the domain gone. What
may be two mailboxes stays two: plus-addresses, dots in the local part, letters that merely look alike.

Strictly speaking only the receiving host may say that local parts differ in nothing but case (RFC 5321 section 2.4). No
host in practice keeps `Bob` and `bob` apart, and a suppression that misses for a capital letter annoys a person.

Everything here is linear in the length of the text and raises on nothing: addresses come out of hostile mail.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import re
import unicodedata

_LONGEST_LOCAL_OCTETS = 64
_LONGEST_DOMAIN_OCTETS = 255
_LONGEST_LABEL_OCTETS = 63
_LONGEST_IDN_CHARACTERS = 512
"""Beyond this a domain is not worth IDNA's tables; it cannot be one anyway."""
_LONGEST_KEY_CHARACTERS = 1024
"""A longer key is replaced by its hash: keys are stored and indexed."""

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\x80-\U0010ffff]+"
_PLAIN = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
_DOT_ATOM = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*")
_QUOTED = re.compile(r'"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"')
_BARE_LOCAL = re.compile(r'[^\s"(),:;<>@\[\\\]\x00-\x1f\x7f]+')
_HOST = re.compile(r"[a-z0-9._-]*|\[[^\s\[\]<>@()\"\\]*\]")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NEEDS_ESCAPE = re.compile(r'(["\\])')
_QUOTED_RUN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_COMMENT_MARK = re.compile(r"\\.|[()]", re.DOTALL)
_DEPTH = {"(": 1, ")": -1}
_ORDINARY = re.compile(r'[^"(@]*')
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LOST = "\ufffd"
"""Stands for octets that were no UTF-8: whose address it was cannot be told any more."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NO_HOST_CHARACTER = re.compile(rb"[^a-z0-9._%-]")


def key(address: str) -> str:
    """What look-ups compare. Applying it to a key changes nothing. Never raises."""
    if len(address) <= _LONGEST_KEY_CHARACTERS and _PLAIN.fullmatch(address):
        return address.lower()
    local, host = split(address)
    folded, name = _local_key(local), domain_key(host)
    found = f"{folded}@{name}" if name else folded
    if len(found) <= _LONGEST_KEY_CHARACTERS:
        return found
    return "sha256-" + hashlib.sha256(found.encode("utf-8")).hexdigest()


def split(address: str) -> tuple[str, str]:
    """Local part (quotes kept) and domain as written, without comments, brackets, source route and trailing dots.

    The domain is empty where there is none. The last `@` outside quotes and comments divides.
    """
    if _PLAIN.fullmatch(address):
        local, _, host = address.rpartition("@")
        return local, host
    cleaned, at = _scan(_inner(address))
    if at < 0:
        return cleaned.strip(), ""
    return cleaned[:at].strip(), cleaned[at + 1 :].strip().rstrip(".").rstrip()


def domain(address: str) -> str:
    """The domain as A-labels in lower case; empty where there is none."""
    if _PLAIN.fullmatch(address):
        return address.rpartition("@")[2].lower()
    return domain_key(split(address)[1])


def is_address(text: str) -> bool:
    """Whether `text` is one mailbox as RFC 5321 section 4.1.2 and RFC 6531 section 3.3 write it, and nothing around it.

    Pragmatic: a single-label domain passes (`root@localhost`), underscores in a domain do not, comments do not.
    """
    if len(text) > _LONGEST_LOCAL_OCTETS + 1 + _LONGEST_DOMAIN_OCTETS:
        return False
    kept, at = _scan(text)
    return at > 0 and kept == text and _is_local(text[:at]) and _is_domain(text[at + 1 :])


def no_address(text: str) -> str:
    """What is wrong with a text that is no address, in words for whoever wrote it."""
    if _LOST in text:
        return f"{text!r} is no UTF-8; convert the file to it first"
    return f"{text!r} is no mail address"


def domain_key(host: str) -> str:
    """A domain name as look-ups compare it: A-labels, lower case, no trailing dot. Always ASCII; never raises."""
    host = host.strip().rstrip(".").rstrip()
    name = host.lower() if host.isascii() else _a_labels(host)
    if _HOST.fullmatch(name):
        return name
    # No name that can exist, yet somebody wrote it: keep it apart from others, in characters that are safe anywhere.
    octets = _fold(name).encode("utf-8")
    return _NO_HOST_CHARACTER.sub(lambda found: b"%%%02x" % found[0][0], octets).decode("ascii")


def _a_labels(host: str) -> str:
    """A-labels by UTS 46 where the name can be written so, else the name as it is."""
    if len(host) > _LONGEST_IDN_CHARACTERS:
        return host
    return _idna(host) or host


@functools.lru_cache(maxsize=1024)
def _idna(host: str) -> str | None:
    import idna

    try:
        return idna.encode(host, uts46=True, transitional=False).decode("ascii").lower().rstrip(".") or None
    except (ValueError, IndexError):  # IDNAError and UnicodeError are ValueErrors
        return None


def _is_local(local: str) -> bool:
    if len(local.encode("utf-8", "surrogatepass")) > _LONGEST_LOCAL_OCTETS:
        return False
    return bool(_DOT_ATOM.fullmatch(local) or _QUOTED.fullmatch(local)) and not (
        _LOST in local or _SURROGATE.search(local)
    )


def _is_domain(host: str) -> bool:
    if host.startswith("["):
        return _is_literal(host)
    name = host.lower() if host.isascii() else _a_labels(host)
    if not name or len(name) > _LONGEST_DOMAIN_OCTETS or not name.isascii():
        return False
    labels = name.split(".")
    return all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()


def _is_literal(host: str) -> bool:
    """An address literal, RFC 5321 section 4.1.3: `[192.0.2.1]`, `[IPv6:2001:db8::1]`."""
    inner = host[1:-1]
    if not host.endswith("]") or "%" in inner:
        return False
    version, text = (6, inner[5:]) if inner[:5].lower() == "ipv6:" else (4, inner)
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _local_key(local: str) -> str:
    folded = _CONTROL.sub(lambda found: f"%{ord(found[0]):02x}", _fold(_unquoted(local)))
    if not folded or _BARE_LOCAL.fullmatch(folded):
        return folded
    return '"' + _NEEDS_ESCAPE.sub(r"\\\1", folded) + '"'


def _unquoted(local: str) -> str:
    if len(local) >= 2 and local[0] == local[-1] == '"':
        return _ESCAPED.sub(r"\1", local[1:-1])
    return local


def _fold(text: str) -> str:
    """In lower case and in NFC (RFC 6532 section 3.1); compatibility forms, look-alikes and letters that only searches
    take for each other (`ß` and `ss`, `ſ` and `s`) stay apart: they may be somebody else. Always encodable."""
    if text.isascii():
        return text.lower()
    if _SURROGATE.search(text):  # octets of a header in no known charset
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) > _LONGEST_KEY_CHARACTERS:  # normalising sorts runs of accents in quadratic time
        return text.lower()
    folded = text
    for _ in range(4):  # folding can undo composition and the other way round; two rounds settle all but odd Greek
        again = unicodedata.normalize("NFC", folded.lower())
        if again == folded:
            break
        folded = again
    return folded


def _inner(address: str) -> str:
    """What stands between the angle brackets, if there are any, after a source route (RFC 5321 appendix C)."""
    text = address.strip()
    if text.endswith(">"):
        start = text.rfind("<")
        if start >= 0:
            text = text[start + 1 : -1].strip()
    if text.startswith("@"):
        route, colon, rest = text.partition(":")
        if colon and '"' not in route:
            text = rest
    return text


def _scan(text: str) -> tuple[str, int]:
    """`text` without its comments, and where the last `@` outside quotes stands in that; -1 where none does.

    A quote or parenthesis that never closes is an ordinary character, and so are all of its kind after it: looking for
    the end of each anew would take quadratic time.
    """
    closers = {'"': _end_of_quotes, "(": _end_of_comment}
    kept: list[str] = []
    length, at, position = 0, -1, 0
    while position < len(text):
        start, opener = position, text[position]
        position += 1
        if opener in closers:
            end = closers[opener](text, start)
            if end < 0:
                del closers[opener]
            else:
                position = end
                if opener == "(":
                    continue
        elif opener == "@":
            at = length
        else:
            position += len(_ORDINARY.match(text, position)[0])  # type: ignore[index]  # matches the empty text too
        kept.append(text[start:position])
        length += position - start
    return "".join(kept), at


def _end_of_quotes(text: str, start: int) -> int:
    closed = _QUOTED_RUN.match(text, start)
    return closed.end() if closed else -1


def _end_of_comment(text: str, start: int) -> int:
    """Comments nest, and a backslash escapes within them (RFC 5322 section 3.2.2)."""
    depth = 0
    for mark in _COMMENT_MARK.finditer(text, start):
        depth += _DEPTH.get(mark[0], 0)
        if depth == 0:
            return mark.end()
    return -1

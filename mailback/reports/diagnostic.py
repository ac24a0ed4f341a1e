"""What a server said: the SMTP reply code and the enhanced status code (RFC 3463) that stand in a diagnostic text.

Log events: none; nothing here raises on any text.

A Status field is often filled in by the *reporting* server from the reply code alone (`550` becomes 5.0.0), while the
diagnostic quotes what the *remote* server said (`550 5.1.1 ...`). `settle` decides between the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_STATUS = re.compile(r"\.([0-9])\.([0-9]{1,3})(?![0-9.]*[0-9]|[-\w]*\.[a-z])")
"""An enhanced status code without its class, which stands before it. Not a piece of an IP address, a version number or
a host name. Begins with a literal, for which a text is searched many times faster than for a set."""

_CODE_BEFORE = re.compile(r"(?:^|[^\w.#/:@+-])([245][0-5][0-9])[\s\-]{1,2}(?:#|\(#|\[)?$")
"""A reply code right before its status code: `550 5.1.1`, `550-5.7.26`, `550 #5.1.0`."""

_CODE = re.compile(r"[245](?<![\w.#/@+-][245])[0-5]\d(?=[\s\-:,;\"'>)\]]|$)")
"""What must not stand before it is asked second: a text is searched faster for a set than for an assertion."""
_INTRODUCES = frozenset(":;<>('\"[")
_SAYS = (
    "said", "says", "reason", "error", "code", "response", "reply", "replied", "answer", "returned", "status", "with",
    "was", "is", "server", "smtp", "respuesta", "antwort", "antwortete", "respondeu", "risposta", "répondu", "#",
)  # fmt: skip
"""Words right before a reply code."""

_AGAIN = re.compile(r"-(?:(?<=\s[245][0-5]\d-)|(?<=^[245][0-5]\d-))(?:([245]\.\d\.\d{1,3})\s)?")
"""The hyphen of a reply that goes on, with the status code after it; the reply code is the three digits before it."""
_CAP = 4000  # characters; a diagnostic is at most a few hundred, a hostile one anything


class Said(NamedTuple):
    """The codes that a diagnostic text names; None where it names none."""

    smtp_code: str | None
    status: str | None


_PLAIN = re.compile(r"([245][0-5][0-9])[ -]([245]\.[0-9]\.[0-9]{1,3})(?=\s)")
"""How most replies begin: nothing after that can say more."""
_ALONE = re.compile(r"[245]\.[0-9]\.[0-9]{1,3}")
_ANY_CODE = re.compile(r"[245](?:[0-5]\d|\.\d\.)")
_NOTHING_SAID = Said(None, None)


def codes(text: str) -> Said:
    """The reply code and the most telling status code of a diagnostic.

    >>> codes("host mx.example.org[192.0.2.1] said: 550 5.1.1 <a@example.org>: User unknown")
    Said(smtp_code='550', status='5.1.1')
    """
    plain = _PLAIN.match(text)
    if plain is not None and not is_vague(plain[2]):
        return Said(plain[1], plain[2])
    text = text[:_CAP]
    if _ANY_CODE.search(text) is None:  # half of all texts asked about
        return _NOTHING_SAID
    smtp_code = None
    told: list[str] = []
    for status, start in _statuses(text):
        before = _CODE_BEFORE.search(text[max(0, start - 8) : start])
        if before is None:
            told.append(status)
            continue
        if smtp_code is None:
            smtp_code, told = before[1], []  # what stands beside a reply code outranks what stood alone before it
        told.append(status)
        if not is_vague(status):
            break
    best = next((status for status in told if not is_vague(status)), told[0] if told else None)
    return Said(smtp_code or _reply_code(text), best)


def _statuses(text: str) -> Iterator[tuple[str, int]]:
    """Each enhanced status code of a text with the position where it begins."""
    for found in _STATUS.finditer(text):
        start = found.start() - 1
        if (
            start >= 0
            and text[start] in "245"
            and (start == 0 or not (text[start - 1].isalnum() or text[start - 1] in "._"))
        ):
            yield f"{text[start]}.{found[1]}.{found[2]}", start


def _reply_code(text: str) -> str | None:
    """A reply code without a status code beside it: by what stands before it, else by a word right after it."""
    loose = None
    for found in _CODE.finditer(text):
        code, start = found.group(), found.start()
        before = text[max(0, start - 24) : start].rstrip()
        if not before.strip("<\"'(["):
            return code
        if code[0] != "2" and (before[-1] in _INTRODUCES or before.lower().endswith(_SAYS)):
            return code
        if loose is None and code[0] != "2" and _WORD_AFTER.match(text, found.end()):
            loose = code
    return loose


_WORD_AFTER = re.compile(r"[\s\-]\s?[A-Za-z<'\"#(\[\u0400-\uffff]")


def is_vague(status: str) -> bool:
    """x.0.0 says nothing; 4.4.7 (expired) and 5.1.0 (some address problem) say less than another code beside them."""
    return status[1:] == ".0.0" or status in {"4.4.7", "5.4.7", "5.1.0", "5.3.0", "5.5.0"}


def settle(stated: str | None, told: str | None, smtp_code: str | None = None) -> str | None:
    """The status code to believe: of the Status field (`stated`) and of the diagnostic (`told`).

    The diagnostic quotes the server that refused, so it wins unless it is the vaguer of the two. Where both are of
    different classes, the reply code tells which one fits.
    """
    if told is None or stated is None or stated == told:
        return stated or told
    if stated[0] != told[0]:
        return told if smtp_code is not None and smtp_code[0] == told[0] else stated
    if is_vague(told):
        return told if stated.endswith(".0.0") else stated
    if told.endswith(".0") and not is_vague(stated):
        return stated
    return told


def of_field(value: str) -> str | None:
    """The code of a Status field: `5.1.1`, `5.0.0 (permanent failure)`."""
    if _ALONE.fullmatch(value):
        return value
    return next((status for status, _ in _statuses(value[:200])), None)


def tidy(text: str) -> str:
    """One line: white space collapsed, the codes that a multi-line reply repeats (RFC 5321 section 4.2.1) removed.

    >>> tidy("550-5.7.1 Mail refused, see 550 5.7.1 https://example.com/help")
    '550 5.7.1 Mail refused, see https://example.com/help'
    """
    text = " ".join(text[: _CAP * 2].split())[:_CAP]
    first = _AGAIN.search(text) if "-" in text else None
    if first is None:
        return text
    begins = first.start() - 3
    code, status = text[begins : begins + 3], first[1]
    lead = f"{code} {status} " if status else f"{code} "
    again = re.compile(
        rf"(?:(?<=\s)|^){code}[- ](?:{re.escape(status)}(?:\s|$))?" if status else rf"(?:(?<=\s)|^){code}[- ]"
    )
    head, tail = text[:begins], text[begins:]
    return f"{head}{lead}{again.sub('', tail)}".rstrip()

"""What a server said: the SMTP reply code and the enhanced status code (RFC 3463) that stand in a diagnostic text.

Log events: none; nothing here raises on any text.

A Status field is often filled in by the *reporting* server from the reply code alone (`550` becomes 5.0.0), while the
diagnostic quotes what the *remote* server said (`550 5.1.1 ...`). `settle` decides between the two.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_STATUS = re.compile(r"(?<![\w.])([245])\.([0-9])\.(\d{1,3})(?![\d.]*\d|[-\w]*\.[a-z])")
"""An enhanced status code; not a piece of an IP address, a version number or a host name."""

_REPLY = re.compile(r"(?<![\w.#/:@+-])([245][0-5]\d)[ \-]{1,2}(?:#|\(#|\[)?([245]\.\d\.\d{1,3})(?![\d.]*\d)")
"""A reply code with its enhanced status code: `550 5.1.1`, `550-5.7.26`, `550 #5.1.0`."""

_START = re.compile(r"[\s<\"'(\[]*([245][0-5]\d)(?:[ \-:,;\"'>)\]]|$)")
_SAID = re.compile(
    r"(?:said|says|reason|error|code|response|reply|replied|respuesta|antwort|respondeu|rispost[ao]|answer|returned"
    r"|was|is|server|->|<<<|[:;<('\"\[=])\s{0,3}\(?\"?'?(?:SMTP;?\s?)?#?([245][0-5]\d)(?:[ \-:'\")>\]]|$)",
    re.I,
)
_LOOSE = re.compile(r"(?<![\w.#/:@+,-])([45][0-5]\d)[ \-]\s?(?=[A-Za-z<'\"#(\[\u0400-\uffff])")

_AGAIN = re.compile(r"(?:(?<=\s)|^)([245][0-5]\d)-(?:([245]\.\d\.\d{1,3})\s)?")
_SPACE = re.compile(r"\s+")
_CAP = 4000  # characters; a diagnostic is at most a few hundred, a hostile one anything


class Said(NamedTuple):
    """The codes that a diagnostic text names; None where it names none."""

    smtp_code: str | None
    status: str | None


def codes(text: str) -> Said:
    """The reply code and the most telling status code of a diagnostic.

    >>> codes("host mx.example.org[192.0.2.1] said: 550 5.1.1 <a@example.org>: User unknown")
    Said(smtp_code='550', status='5.1.1')
    """
    text = text[:_CAP]
    pairs = _REPLY.findall(text)
    smtp_code = None
    if pairs:
        smtp_code = pairs[0][0]
        told = [status for _, status in pairs]
    else:
        told = []
    if not told or all(_is_vague(status) for status in told):
        told += [".".join(parts) for parts in _STATUS.findall(text)]
        if smtp_code is None:
            smtp_code = _reply_code(text)
    status = next((status for status in told if not _is_vague(status)), told[0] if told else None)
    return Said(smtp_code, status)


def _reply_code(text: str) -> str | None:
    found = _START.match(text) or _SAID.search(text) or _LOOSE.search(text)
    return found[1] if found else None


def _is_vague(status: str) -> bool:
    """x.0.0 says nothing; 4.4.7 (expired) and 5.1.0 (some address problem) say less than another code beside them."""
    return status[1:] == ".0.0" or status in {"4.4.7", "5.4.7", "5.1.0", "5.3.0", "5.5.0"}


def settle(stated: str | None, told: str | None, smtp_code: str | None = None) -> str | None:
    """The status code to believe: of the Status field (`stated`) and of the diagnostic (`told`).

    The diagnostic wins where the field is generic, or where it is of another class than the reply code itself.
    """
    if told is None or stated is None or stated == told:
        return stated or told
    if stated[0] != told[0]:
        return told if smtp_code is not None and smtp_code[0] == told[0] else stated
    if _detail(told) == "0.0":
        return stated
    if _detail(stated) == "0.0" or stated in _OFTEN_GUESSED:
        return told
    if stated.endswith(".0") or stated.split(".")[1] == "0":
        return told if not told.endswith(".0") else stated
    return stated


_OFTEN_GUESSED = frozenset({"4.4.7", "5.4.7", "4.7.0", "5.3.0", "5.1.0", "5.5.0", "4.5.0"})
"""Codes that reporting servers put in for want of a better one."""


def _detail(status: str) -> str:
    return status.partition(".")[2]


def of_field(value: str) -> str | None:
    """The code of a Status field: `5.1.1`, `5.0.0 (permanent failure)`."""
    found = _STATUS.search(value[:200])
    return found.group() if found else None


def tidy(text: str) -> str:
    """One line: white space collapsed, the codes that a multi-line reply repeats (RFC 5321 section 4.2.1) removed.

    >>> tidy("550-5.7.1 Mail refused, see 550 5.7.1 https://example.com/help")
    '550 5.7.1 Mail refused, see https://example.com/help'
    """
    text = _SPACE.sub(" ", text[: _CAP * 2]).strip()[:_CAP]
    first = _AGAIN.search(text)
    if first is None:
        return text
    code, status = first[1], first[2]
    lead = f"{code} {status} " if status else f"{code} "
    again = re.compile(rf"(?:(?<=\s)|^){code}[- ](?:{re.escape(status)}(?:\s|$))?" if status else rf"(?:(?<=\s)|^){code}[- ]")
    head, tail = text[: first.start()], text[first.start() :]
    return f"{head}{lead}{again.sub('', tail)}".rstrip()

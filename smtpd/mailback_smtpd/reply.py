"""SMTP replies: a code, an enhanced status code and a text that is safe to send (RFC 5321 section 4.2, RFC 2034).

Whatever ends up in a reply may have come from a client or from the next hop, so `Reply.line` lets only printable
ASCII through and cuts the rest of an overlong text. Emits no log events.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

MAX_TEXT = 400
"""Octets of text in one reply line; with code and CRLF it stays below the 512 of RFC 5321 section 4.5.3.1.5."""

_UNSAFE = re.compile(r"[^\x20-\x7e]")
_HAS_ENHANCED = re.compile(r"\d{3}[ -][245]\.\d{1,3}\.\d{1,3}(?: |\Z)")

_ENHANCED = {
    "221": "2.0.0",
    "250": "2.0.0",
    "252": "2.5.2",
    "421": "4.3.2",
    "454": "4.7.0",
    "500": "5.5.2",
    "501": "5.5.4",
    "502": "5.5.1",
    "503": "5.5.1",
    "530": "5.7.0",
    "552": "5.3.4",
    "554": "5.7.0",
    "555": "5.5.4",
}
"""The enhanced code of a plain reply of aiosmtpd's own. Those of HELO, EHLO and LHLO, and 220 and 354, never carry
one (RFC 2034 section 4); they are written in full where they are sent."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer to a command."""

    code: int
    enhanced: str
    """Enhanced status code (RFC 3463), `class.subject.detail`."""
    text: str

    @property
    def accepted(self) -> bool:
        return self.code < 300

    @property
    def temporary(self) -> bool:
        return 400 <= self.code < 500

    @property
    def line(self) -> bytes:
        """The reply as it goes on the wire, without CRLF."""
        return f"{self.code} {self.enhanced} {printable(self.text)}".encode("ascii")


def printable(text: str) -> str:
    """`text` with everything but printable ASCII written as `?`, cut to one reply line."""
    return _UNSAFE.sub("?", text[:MAX_TEXT])


@lru_cache(maxsize=256)
def with_enhanced(status: str) -> bytes:
    """A reply of aiosmtpd's own, with the enhanced status code that it lacks, safe to send."""
    safe = printable(status)
    code = safe[:3]
    if safe[3:4] != " " or code not in _ENHANCED or _HAS_ENHANCED.match(safe):
        return safe.encode("ascii")
    return f"{code} {_ENHANCED[code]}{safe[3:]}".encode("ascii")


def combined(replies: list[Reply]) -> Reply:
    """The one answer that SMTP gives to DATA, out of the outcomes of its recipients (RFC 5321 section 3.3).

    Nothing may be lost: one temporary failure makes the peer keep the message for everybody, at the price of
    duplicates for recipients that had it already; a permanent one makes it report back, even though others had it.
    """
    for reply in replies:
        if reply.temporary:
            return reply
    for reply in replies:
        if not reply.accepted:
            return reply
    return replies[0]

"""Organisational domains and alignment (RFC 7489 sections 3.1 and 3.2), and whose domain stands in a From field.

Pure functions. The public suffix list is the one that ships with publicsuffixlist, loaded once (30 ms) by the first
name that is looked up; it is as new as that package, so upgrade it now and then. Emits no log events.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from mailback.address import domain_key, split

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_LONGEST_NAME = 253  # characters (RFC 1035 section 3.1: 255 octets on the wire)
_LONGEST_FROM = 16 * 1024
_MAX_AUTHORS = 100


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


def is_domain(name: str) -> bool:
    """Whether `name` can be asked for in DNS: A-labels, at least two of them, underscores let pass."""
    if len(name) > _LONGEST_NAME or "." not in name:
        return False
    return all(_LABEL.fullmatch(label) for label in name.split("."))


@lru_cache(maxsize=4096)
def organizational(domain: str) -> str:
    """The domain directly below the public suffix: of `a.b.example.co.uk`, `example.co.uk`.

    A public suffix has none and stands for itself: nobody but itself aligns with it. `domain` is in A-labels and lower
    case, as `address.domain_key` gives.
    """
    return (_suffixes().privatesuffix(domain) if is_domain(domain) else None) or domain


def aligned(proven: str, author: str, *, strict: bool = False) -> bool:
    """Whether a proven domain speaks for the author's domain (RFC 7489 section 3.1); both as `domain_key` gives."""
    if not is_domain(proven) or not is_domain(author):
        return False
    return proven == author or (not strict and organizational(proven) == organizational(author))


# One piece of an address list (RFC 5322 section 3.4). What never closes (a quote, a bracket) is taken as it stands.
_PIECE = re.compile(r'"(?:[^"\\]++|\\.)*+"|\\.|[()<>,;:]|[^"\\()<>,;:]++|.', re.DOTALL)


def author_domains(value: str) -> tuple[str, ...] | None:
    """The domains of all mailboxes in the value of a From field, without repetition; None when it is too long or has
    too many to be read.

    The value is undecoded: an encoded word is never an address (RFC 2047 section 5), so decoding it first would let
    anybody write one into a display name.
    """
    if len(value) > _LONGEST_FROM:
        return None
    authors = mailboxes(value)
    if len(authors) > _MAX_AUTHORS:
        return None
    return tuple(dict.fromkeys(filter(None, (domain_key(split(author)[1]) for author in authors))))


def mailboxes(value: str) -> list[str]:
    """The mailboxes in the undecoded value of an address field, as they stand; never what a display name holds."""
    found: list[str] = []
    outside: list[str] = []
    angle: list[str] | None = None
    depth, closed = 0, ""

    def end() -> None:
        nonlocal angle, closed
        mailbox = closed if angle is None else "".join(angle)
        found.append(mailbox or "".join(outside).strip())
        outside.clear()
        angle, closed = None, ""

    for piece in _PIECE.findall(value):
        if depth or piece == "(":
            depth += {"(": 1, ")": -1}.get(piece, 0)
        elif piece == "<":
            angle = []
        elif piece == ">" and angle is not None:
            # Of several in one place the first would be as good a guess; both are told.
            if closed:
                found.append(closed)
            closed, angle = "".join(angle).strip(), None
        elif angle is not None:
            angle.append(piece)
        elif piece in ",;":
            end()
        elif piece == ":":
            outside.clear()  # the name of a group (RFC 6854)
        else:
            outside.append(piece)
    end()
    return [mailbox for mailbox in found if mailbox]

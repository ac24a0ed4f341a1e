"""Who writes, and whom to write to instead: the author in From, and the address that a referral or an absence names.

A new contact is an address that stands in the new text, neither the writer's own nor one of ours: both stand there as
signatures and quotations leave them. Where several are left, the first is told, for people name the best contact first.

Linear in the text, of which the beginning is read. Log events: none; never raises on any string.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from email.utils import getaddresses, parseaddr
from functools import lru_cache

from mailback import address

_READ = 6000  # characters looked at
_TO_READ = 4000
_AUTHOR_READ = 1000  # characters of a From field; of a longer one, from its last address on
_ADDRESS = re.compile(
    r"(?<![\w.%+'-])[a-z0-9_%+'-](?:[\w.%+'-]{0,62}[\w%+-])?@(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}(?![\w-])",
    re.IGNORECASE | re.ASCII,  # in Japanese and Chinese an address stands without spaces around it
)


@lru_cache(maxsize=64)
def author(written: str) -> tuple[str, str]:
    """Display name and address of a From field (RFC 5322 section 3.6.2); of several the first, empty where none is.

    Bounded, for the library takes quadratic time, and comments within comments end it.
    """
    if len(written) > _AUTHOR_READ:
        written = written[max(0, written.rfind("<")) :][:_AUTHOR_READ]
    try:
        return parseaddr(written)
    except RecursionError:
        return "", written.rpartition("<")[2].partition(">")[0].strip()


def addressed(written: str) -> list[tuple[str, str]]:
    """Display names and addresses of a To field, of its beginning; empty where comments within comments hide them."""
    try:
        return getaddresses([written[:_TO_READ]])
    except RecursionError:
        return []


def named(text: str, sender: str, ours: Collection[str] = ()) -> str | None:
    """The first address in `text` that is neither the `sender`'s nor in one of our domains; None where there is none.

    `ours` are A-labels in lower case.
    """
    own = address.key(sender)
    for match in _ADDRESS.finditer(text[:_READ]):
        if address.key(match[0]) != own and address.domain(match[0]) not in ours:
            return match[0]
    return None

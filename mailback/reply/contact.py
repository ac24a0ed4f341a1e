"""Whom to write to instead: the address that a referral or an absence names.

Only an address that stands in the new text counts, and neither the writer's own nor one of ours: both stand there as
signatures and quotations leave them. Where several are left, the first is told, for people name the best contact first.

Linear in the text, of which the beginning is read. Log events: none; never raises on any string.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from mailback import address

_READ = 6000  # characters looked at
_ADDRESS = re.compile(
    r"(?<![\w.%+'-])[a-z0-9_%+'-](?:[\w.%+'-]{0,62}[\w%+-])?@(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}(?![\w-])",
    re.IGNORECASE | re.ASCII,  # in Japanese and Chinese an address stands without spaces around it
)


def named(text: str, sender: str, ours: Collection[str] = ()) -> str | None:
    """The first address in `text` that is neither the `sender`'s nor in one of our domains; None where there is none.

    `ours` are A-labels in lower case.
    """
    own = address.key(sender)
    for match in _ADDRESS.finditer(text[:_READ]):
        if address.key(match[0]) != own and address.domain(match[0]) not in ours:
            return match[0]
    return None

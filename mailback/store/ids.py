"""Event ids: 26 characters that sort by time, safe in a header, a file name and a URL.

48 bits of milliseconds, then 80 random bits, in Crockford's base 32 (no I, L, O or U to misread). Ids of the same
millisecond made in a row sort in the order they were made: the random part counts up.
"""

from __future__ import annotations

import os
import threading
import time
from datetime import datetime

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_RANDOM_BITS = 80
_SHIFTS = tuple(range(120, -1, -10))

_lock = threading.Lock()
_last = 0


def new_id(at: datetime | None = None) -> str:
    """A new id for something that happened at `at` (default: now).

    Ids asked for in a row for one instant sort in that order, so the recipients of one report keep theirs.
    """
    global _last  # noqa: PLW0603 - one counter a process is the point
    milliseconds = time.time_ns() // 1_000_000 if at is None else max(0, int(at.timestamp() * 1000))
    fresh = milliseconds << _RANDOM_BITS | int.from_bytes(os.urandom(10))
    with _lock:
        if fresh >> _RANDOM_BITS == _last >> _RANDOM_BITS:
            fresh = _last + 1
        _last = fresh
    return "".join([_PAIRS[fresh >> shift & 1023] for shift in _SHIFTS])


def _reseed() -> None:
    # A forked worker must not count on from its parent's last id: its sibling would make the same ones.
    global _last  # noqa: PLW0603
    _last = 0


os.register_at_fork(after_in_child=_reseed)

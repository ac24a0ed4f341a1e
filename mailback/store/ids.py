"""Event ids: 26 characters that sort by time, safe in a header, a file name and a URL.

48 bits of milliseconds, then 80 random bits, in Crockford's base 32 (no I, L, O or U to misread). Within a process two
ids of the same millisecond still sort in the order they were made: the random part counts up.
"""

from __future__ import annotations

import os
import threading
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_RANDOM_BITS = 80
_SHIFTS = tuple(range(120, -1, -10))

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """A new id, greater than every id this process made before, even when the clock steps back."""
    global _last  # noqa: PLW0603 - one counter a process is the point
    fresh = (time.time_ns() // 1_000_000) << _RANDOM_BITS | int.from_bytes(os.urandom(10))
    with _lock:
        if fresh >> _RANDOM_BITS <= _last >> _RANDOM_BITS:
            fresh = _last + 1
        _last = fresh
    return "".join([_PAIRS[fresh >> shift & 1023] for shift in _SHIFTS])


def _reseed() -> None:
    # A forked worker must not count on from its parent's last id: its sibling would make the same ones.
    global _last  # noqa: PLW0603
    _last = 0


os.register_at_fork(after_in_child=_reseed)

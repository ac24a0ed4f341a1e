"""Who runs the mail of a recipient's domain, as the store knows it: in memory, else by one indexed read, never by DNS.

Nobody who has a client waiting asks DNS. A name that is not known, or was asked for too long ago, becomes a wish: who
may write takes the wishes along (`taken`), and the watch of `serve` asks DNS for them. Until then the domain stands for
itself.

Emits no log events: a store that cannot be read knows nothing, and whoever writes to it next says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from mailback.address import domain_key
from mailback.auth.domains import is_domain
from mailback.store.domains import Find
from mailback.store.errors import StoreUnavailable

KNOWN_S: Final = 300.0
"""How long an answer is kept in memory."""
UNKNOWN_S: Final = 5.0
"""And that nothing is known yet: DNS answers in a second."""
MOST: Final = 20_000
"""Names in memory, and names wished for."""


class Hosting:
    """The providers of domains; safe to use from any thread."""

    def __init__(self, find: Find, clock: Callable[[], float] = time.monotonic) -> None:
        self._find = find
        self._clock = clock
        self._kept: dict[str, tuple[float, str | None]] = {}
        self._wished: dict[str, None] = {}
        self._lock = threading.Lock()

    def provider(self, domain: str) -> str | None:
        """The provider of a domain by its MX records; None while that is not known."""
        kept = self._kept.get(domain)
        now = self._clock()
        if kept is not None and kept[0] > now:
            return kept[1]
        return self._asked(domain_key(domain), now)

    @property
    def wishes(self) -> bool:
        """Whether there is a name that nobody took along yet."""
        return bool(self._wished)

    def taken(self) -> list[str]:
        """The names that were wished for since the last time."""
        if not self._wished:
            return []
        with self._lock:
            names, self._wished = list(self._wished), {}
        return names

    def _asked(self, domain: str, now: float) -> str | None:
        if not is_domain(domain):
            return None
        try:
            found = self._find(domain)
        except StoreUnavailable:
            return None
        record, fresh = found or (None, False)
        provider = record.provider if record is not None else None
        with self._lock:
            if len(self._kept) >= MOST:
                self._kept.clear()
            self._kept[domain] = (now + (KNOWN_S if fresh else UNKNOWN_S), provider)
            if not fresh and len(self._wished) < MOST:
                self._wished[domain] = None
        return provider

"""Read messages beside an event loop: at once where that is quick, in a thread where a message is large, and in one of
many threads where DNS has to be asked first.

Most mail needs neither: it is small, and what is asked about it stands in the resolver's cache. How long DNS may take
counts from the end of the message, waiting for a thread included, so that no number of domains with silent servers
makes anybody wait longer than `auth.budget_s`. Emits no log events.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from mailback.envelope import Envelope

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)

READ_ON_LOOP_MAX = 65_536
"""Octets; a larger message is read in a thread, so that small ones need not wait for it."""
READERS = 2
ASKERS = 32
"""Threads that wait for DNS; each costs some kilobytes once it was needed."""


class Assessor(Protocol[A_co]):
    """The half of `mailback.engine.Engine.inbound` that writes nothing; A is its Assessment."""

    def assess(self, envelope: Envelope, raw: bytes, since: float | None = None) -> A_co: ...
    def assess_at_once(self, envelope: Envelope, raw: bytes) -> A_co | None: ...


class Desk(Generic[A]):
    """Where the messages of one worker are read; for one event loop."""

    def __init__(self, engine: Assessor[A]) -> None:
        self._engine = engine
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="read")
        self._askers = ThreadPoolExecutor(ASKERS, thread_name_prefix="dns")

    async def assess(self, envelope: Envelope, raw: bytes) -> A:
        """Read one message. Raises what the engine raises."""
        arrived = time.monotonic()
        if len(raw) <= READ_ON_LOOP_MAX:
            found = self._engine.assess_at_once(envelope, raw)
        else:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._readers, self._engine.assess_at_once, envelope, raw)
        if found is not None:
            return found
        return await asyncio.get_running_loop().run_in_executor(
            self._askers, self._engine.assess, envelope, raw, arrived
        )

    def close(self) -> None:
        """Wait for what is being read."""
        self._readers.shutdown()
        self._askers.shutdown()

"""Where messages are read: on threads that Python started, never on those of libmilter.

pymilter gives each connection a Python thread state of its own and carries it from one of libmilter's threads to the
next. Python code does not notice. Native code that calls back into Python does: it asks the interpreter for the state
that belongs to its operating system thread (PyGILState_Ensure), gets that of another connection, perhaps one that is
freed, and the process hangs or dies. hyperscan calls back at every match; under twenty sessions a worker lived for
seconds. So what classifies runs here. What is left on libmilter's threads may use native code that returns, such as a
query to SQLite, and none that calls back.

Emits no log events.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

from mailback.engine import Outcome
from mailback.envelope import Envelope

A = TypeVar("A")

_THREADS = 2
"""Python runs one at a time; the second is there so that a large message does not keep the small ones waiting."""


class Walk(Protocol[A]):
    """The two halves of `mailback.engine.Engine.inbound`; A is its Assessment."""

    def assess(self, envelope: Envelope, raw: bytes) -> A: ...
    def commit(self, assessment: A) -> Future[Outcome]: ...


class ReadingRoom:
    """Reads for all sessions of a worker."""

    def __init__(self, engine: Walk[A]) -> None:
        self._walk = lambda envelope, raw: engine.commit(engine.assess(envelope, raw))
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="reading")

    def inbound(self, envelope: Envelope, raw: bytes) -> Outcome:
        """See `mailback.engine.Engine.inbound`; the caller sleeps, so it holds up nobody else."""
        return self._threads.submit(self._walk, envelope, raw).result().result()

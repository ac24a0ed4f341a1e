"""Group commit on an event loop: units run where they are submitted, and only the fsync is waited for in a thread.

For the doors. A statement of SQLite takes microseconds, and to run a dozen of them in another thread costs more than
they do: Python's lock changes hands at each (measured for a bounce that is recorded and suppressed: 800 µs of CPU by a
writer thread, 350 µs on the loop). So whatever was submitted in one round of the loop is run at its end, in one
transaction, which a thread then commits; what is submitted meanwhile is the next batch. A unit that was called large is
run in the thread as a whole, so that a report about thousands of recipients stops nobody.

While another process holds the write lock the loop goes on and comes back, until the store's busy timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from mailback.store import errors
from mailback.store.batches import Batches, Pauses, Unit
from mailback.store.errors import StoreUnavailable
from mailback.store.transaction import Transaction

T = TypeVar("T")
_Step = Callable[[list[Unit[object]]], None]


class LoopWriter:
    """Writes on the loop that runs when it is made; `submit` may be called from any thread."""

    def __init__(self, batches: Batches, *, batch: int, capacity: int) -> None:
        self._batches = batches
        self._batch = batch
        self._capacity = capacity
        self._loop = asyncio.get_running_loop()
        self._on_loop = threading.get_ident()
        self._thread: threading.Thread | None = None
        self._steps: queue.SimpleQueue[tuple[list[Unit[object]], _Step] | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[StoreUnavailable | None] = queue.SimpleQueue()
        self._waiting: deque[Unit[object]] = deque()
        self._taken: list[Unit[object]] = []
        """Of the next batch, while the lock is waited for."""
        self._pauses: Pauses | None = None
        self._deadline = 0.0
        self._scheduled: asyncio.Handle | None = None
        self._under_way: list[Unit[object]] | None = None
        """The batch that the thread takes a step with."""
        self._closed = False

    @property
    def trouble(self) -> StoreUnavailable | None:
        """Why the last batch failed; None while all is well."""
        return self._batches.trouble

    def submit(self, work: Callable[[Transaction], T], *, large: bool = False) -> Future[T]:
        """Take a unit; the future resolves after the commit. It fails at once when too many wait already."""
        unit = Unit(work, large=large)
        refusal = self._batches.refusal(len(self._waiting), self._capacity, closed=self._closed)
        if refusal is not None:
            unit.future.set_exception(refusal)
            return unit.future
        self._waiting.append(unit)  # type: ignore[arg-type]  # holds units of every result type
        if threading.get_ident() == self._on_loop:
            self._schedule()
        else:
            self._loop.call_soon_threadsafe(self._schedule)
        return unit.future

    def close(self) -> None:
        """Commit what was submitted, waiting for it; later units are refused. To be called in the loop's thread."""
        if self._closed or not self._batches.ours:
            return
        self._closed = True
        self._finish()
        while self._taken or self._waiting:
            self._hand_over(self._next(), self._batches.write)
            self._finish()
        if self._thread is not None:
            self._steps.put(None)
            self._thread.join()
        self._batches.close()

    def _schedule(self) -> None:
        if self._scheduled is None and self._under_way is None and not self._closed:
            self._scheduled = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Run what waits and have it committed."""
        self._scheduled = None
        units = self._next()
        if not units or self._closed:
            return
        if any(unit.large for unit in units):
            self._hand_over(units, self._batches.write)
            return
        try:
            self._batches.begin_now()
        except BaseException as error:
            if not self._later(units, error):
                self._settle(units, self._batches.trouble_of(error))
            return
        self._pauses = None
        try:
            self._batches.run(units)
        except BaseException as error:
            self._settle(units, self._batches.trouble_of(error))
            return
        self._hand_over(units, self._batches.commit)

    def _next(self) -> list[Unit[object]]:
        """Those that wait, up to a batch; one that was cancelled is left out."""
        units, self._taken = self._taken, []
        while self._waiting and len(units) < self._batch:
            unit = self._waiting.popleft()
            if unit.future.set_running_or_notify_cancel():
                units.append(unit)
        return units

    def _later(self, units: list[Unit[object]], error: BaseException) -> bool:
        """Keep a batch for another attempt, where another process has the lock; False once it had it for too long."""
        if not isinstance(error, sqlite3.Error) or not errors.is_transient(error):
            return False
        now = self._loop.time()
        if self._pauses is None:
            self._pauses, self._deadline = Pauses(), now + self._batches.busy_timeout_s
        if now >= self._deadline:
            return False
        self._taken = units
        self._scheduled = self._loop.call_later(self._pauses.next_s(), self._turn)
        return True

    def _hand_over(self, units: list[Unit[object]], step: _Step) -> None:
        """Let the thread take a step that may have to wait for the disk."""
        self._under_way = units
        self._steps.put((units, step))
        if self._thread is None:
            self._thread = threading.Thread(target=self._take_steps, name="mailback-store", daemon=True)
            self._thread.start()

    def _take_steps(self) -> None:
        """The thread; what went wrong with each step, if anything did, is put where `_finish` takes it."""
        while (asked := self._steps.get()) is not None:
            units, step = asked
            trouble = None
            try:
                step(units)
            except BaseException as error:  # nothing may end this thread while somebody waits for it
                trouble = self._batches.trouble_of(error)
            self._ended.put(trouble)
            with contextlib.suppress(RuntimeError):  # the loop is closed: `close` settles the batch
                self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        """The thread has done its step (or `close` waits until it has): tell those who wait."""
        if self._under_way is None:
            return
        units, trouble = self._under_way, self._ended.get()
        self._under_way = None
        self._settle(units, trouble)

    def _settle(self, units: list[Unit[object]], trouble: StoreUnavailable | None) -> None:
        self._pauses = None
        self._batches.settle(units, trouble)
        if self._waiting:
            self._schedule()

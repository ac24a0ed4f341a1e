"""Group commit by a thread: it writes, and all who wait share one fsync. For commands, and doors without an event loop.

Whatever is queued when the thread comes round becomes one batch (`batches`).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from mailback.store.batches import Batches, Unit
from mailback.store.errors import StoreUnavailable
from mailback.store.transaction import Transaction

T = TypeVar("T")


class Writer:
    """The one thread of this process that writes to the database."""

    def __init__(self, batches: Batches, *, batch: int, capacity: int) -> None:
        self._batches = batches
        self._batch = batch
        self._capacity = capacity
        self._queue: queue.SimpleQueue[Unit[object] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def trouble(self) -> StoreUnavailable | None:
        """Why the last batch failed; None while all is well."""
        return self._batches.trouble

    @property
    def used(self) -> bool:
        """Whether any unit was taken."""
        return self._thread is not None

    def submit(self, work: Callable[[Transaction], T], *, large: bool = False) -> Future[T]:
        """Queue a unit; the future resolves after the commit. It fails at once when too many wait already."""
        unit = Unit(work, large=large)
        with self._gate:
            refusal = self._batches.refusal(self._queue.qsize(), self._capacity, closed=self._closed)
            if refusal is None:
                self._queue.put(unit)  # type: ignore[arg-type]  # the queue holds units of every result type
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="mailback-store", daemon=True)
                    self._thread.start()
        if refusal is not None:
            unit.future.set_exception(refusal)
        return unit.future

    def close(self) -> None:
        """Commit what is queued, then end the thread. Later units are refused. Safe to call twice."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
            thread = self._thread
        if thread is not None and thread is not threading.current_thread() and self._batches.ours:
            thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            units, last = self._take()
            if units:
                self._commit(units)
        self._batches.close()

    def _take(self) -> tuple[list[Unit[object]], bool]:
        """All that wait, up to a batch; and whether this is the end."""
        units: list[Unit[object]] = []
        unit = self._queue.get()
        while unit is not None:
            if unit.future.set_running_or_notify_cancel():
                units.append(unit)
            if len(units) >= self._batch:
                return units, False
            try:
                unit = self._queue.get_nowait()
            except queue.Empty:
                return units, False
        return units, True

    def _commit(self, units: list[Unit[object]]) -> None:
        trouble = None
        try:
            self._batches.write(units)
        except BaseException as error:  # nothing may end this thread while somebody waits for it
            trouble = self._batches.trouble_of(error)
        self._batches.settle(units, trouble)

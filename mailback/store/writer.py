"""Group commit: one thread writes, and all who wait share one fsync.

Whatever is queued when the thread comes round becomes one transaction: BEGIN IMMEDIATE, a savepoint a unit, one COMMIT
with synchronous=FULL, and only then are the futures resolved. A unit that raises fails alone; trouble with the database
fails the whole batch with `StoreUnavailable`, and nothing of it is kept. Several processes may do this on one database:
SQLite's write lock makes them take turns.

After any trouble the connection is dropped and opened anew for the next batch, so the writer recovers by itself as soon
as the cause is gone: disk freed, file writable again, lock released, database restored.

Told to the `report` callback (event name, fields):
    store_unavailable   a batch failed; `reason` and `advice` say what the operator should do. Told once until recovery.
    store_recovered     the first commit after that; nothing to do.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Generic, TypeVar

from mailback.store import errors, sqlite
from mailback.store.errors import StoreUnavailable
from mailback.store.transaction import Transaction

T = TypeVar("T")
Report = Callable[[str, Mapping[str, object]], None]

_FIRST_PAUSE_S = 0.0005
_LONGEST_PAUSE_S = 0.05


class _Unit(Generic[T]):
    """One piece of work, its future, and how it ended before the batch was committed."""

    __slots__ = ("_error", "_result", "future", "work")

    def __init__(self, work: Callable[[Transaction], T]) -> None:
        self.work = work
        self.future: Future[T] = Future()
        self._result: T | None = None
        self._error: BaseException | None = None

    def attempt(self, connection: sqlite3.Connection, transaction: Transaction) -> None:
        """Run inside a savepoint. Raises only what concerns the database; the unit's own error is kept for `settle`."""
        connection.execute("SAVEPOINT unit")
        mark = transaction.mark()
        try:
            self._result = self.work(transaction)
        except BaseException as error:  # a unit must never end the writer thread, whatever it raises
            if isinstance(error, sqlite3.Error) and errors.concerns_database(error):
                raise
            self._error = error
            connection.execute("ROLLBACK TO unit")
            transaction.rewind(mark)
        connection.execute("RELEASE unit")

    def settle(self) -> None:
        """Resolve the future; only after the COMMIT returned."""
        if self._error is None:
            self.future.set_result(self._result)  # type: ignore[arg-type]  # T is what work returned
        else:
            self.future.set_exception(self._error)


class Writer:
    """The one thread of this process that writes to the database at `path`."""

    def __init__(
        self, path: Path, *, busy_timeout_s: float, batch: int, capacity: int, report: Report | None = None
    ) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._batch = batch
        self._capacity = capacity
        self._report = report
        self._queue: queue.SimpleQueue[_Unit[object] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._process = os.getpid()
        self._connection: sqlite3.Connection | None = None
        self._opened: sqlite.Identity | None = None
        self.trouble: StoreUnavailable | None = None
        """Why the last batch failed; None while all is well."""

    def submit(self, work: Callable[[Transaction], T]) -> Future[T]:
        """Queue a unit; the future resolves after the commit. It fails at once when too many wait already."""
        unit = _Unit(work)
        with self._gate:
            refusal = self._refusal()
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
        if thread is not None and thread is not threading.current_thread() and os.getpid() == self._process:
            thread.join()

    def _refusal(self) -> StoreUnavailable | None:
        if os.getpid() != self._process:
            return StoreUnavailable("the store was opened before a fork", "open it in the worker process")
        if self._closed:
            return StoreUnavailable("the store is closed", "the service is stopping; the peer will try again")
        if self._queue.qsize() >= self._capacity:
            return StoreUnavailable(
                f"{self._capacity} units of work wait for the database",
                "the disk cannot keep up: look at its load, or spread the senders",
            )
        return None

    def _run(self) -> None:
        last = False
        while not last:
            units, last = self._take()
            self._commit(units)
        self._drop_connection()

    def _take(self) -> tuple[list[_Unit[object]], bool]:
        """All that wait, up to a batch; and whether this is the end."""
        units: list[_Unit[object]] = []
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

    def _commit(self, units: list[_Unit[object]]) -> None:
        if not units:
            return
        try:
            self._write(units)
        except sqlite3.Error as error:
            self._fail(units, errors.unavailable(error, self._path))
        except StoreUnavailable as trouble:
            self._fail(units, trouble)
        except BaseException as error:  # our own mistake must not leave anyone waiting for ever
            self._fail(units, StoreUnavailable(f"the store's writer failed ({error!r})", "report this as a bug"))
        else:
            self._note_recovery()
            for unit in units:
                unit.settle()

    def _write(self, units: list[_Unit[object]]) -> None:
        connection = self._begin()
        transaction = Transaction(connection)
        for unit in units:
            unit.attempt(connection, transaction)
        connection.execute("COMMIT")

    def _begin(self) -> sqlite3.Connection:
        """A connection that holds the write lock; waits for other writers until the deadline."""
        deadline = time.monotonic() + self._busy_timeout_s
        pause = _FIRST_PAUSE_S
        while True:
            try:
                connection = self._current_connection()
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if not errors.is_transient(error) or time.monotonic() >= deadline:
                    raise
            else:
                return connection
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _current_connection(self) -> sqlite3.Connection:
        there = sqlite.identity(self._path)
        if self._connection is None or there != self._opened:
            from mailback.store.upgrade import require_current

            self._drop_connection()
            connection = sqlite.connect_writing(self._path)
            try:
                require_current(connection, self._path)
            except BaseException:
                connection.close()
                raise
            self._connection, self._opened = connection, there
        return self._connection

    def _drop_connection(self) -> None:
        # Closing rolls an open transaction back. SQLite leaves -wal and -shm alone when the file was moved or deleted.
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = self._opened = None

    def _fail(self, units: list[_Unit[object]], trouble: StoreUnavailable) -> None:
        self._drop_connection()
        first = self.trouble is None
        self.trouble = trouble
        if first:
            self._tell("store_unavailable", {"reason": trouble.reason, "advice": trouble.advice})
        for unit in units:
            # One exception each: raised in many threads, a shared one would gather all their tracebacks.
            unit.future.set_exception(StoreUnavailable(trouble.reason, trouble.advice))

    def _note_recovery(self) -> None:
        if self.trouble is not None:
            self.trouble = None
            self._tell("store_recovered", {"path": str(self._path)})

    def _tell(self, event: str, fields: Mapping[str, object]) -> None:
        if self._report:
            with contextlib.suppress(Exception):  # a log that fails must not stop the writer
                self._report(event, fields)

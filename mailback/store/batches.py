"""Batches of units of work on the writing connection: begin, run, commit, and what is told when that fails.

A batch is one transaction: BEGIN IMMEDIATE, a savepoint a unit where there are several, one COMMIT with
synchronous=FULL, and only then are the futures of its units resolved. A unit that raises fails alone; trouble with the
database fails the whole batch with `StoreUnavailable`, and nothing of it is kept. Several processes may do this on one
database: SQLite's write lock makes them take turns.

After any trouble the connection is dropped and opened anew for the next batch, so writing recovers by itself as soon as
the cause is gone: disk freed, file writable again, lock released, database restored.

Nothing here starts a thread: `writer` and `loop_writer` say where the steps are taken, one at a time.

Told to the `report` callback (event name, fields):
    store_unavailable   a batch failed; `reason` and `advice` say what the operator should do. Told once until recovery.
    store_recovered     the first commit after that; nothing to do.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Generic, TypeVar

from mailback.store import errors, sqlite
from mailback.store.errors import StoreUnavailable
from mailback.store.transaction import Transaction

T = TypeVar("T")
Report = Callable[[str, Mapping[str, object]], None]

_AMONG_OTHERS = ("SAVEPOINT unit",), ("ROLLBACK TO unit",), ("RELEASE unit",)
_ALONE = (), ("ROLLBACK", "BEGIN"), ()
"""Statements that begin a unit, undo it, and end it either way; of one alone an empty transaction is left to commit."""
_FIRST_PAUSE_S = 0.0005
_LONGEST_PAUSE_S = 0.05


class Unit(Generic[T]):
    """One piece of work, its future, and how it ended before the batch was committed."""

    __slots__ = ("_error", "_result", "future", "large", "work")

    def __init__(self, work: Callable[[Transaction], T], *, large: bool = False) -> None:
        self.work = work
        self.large = large
        """It takes long enough that nobody else should wait for it: see `LoopWriter`."""
        self.future: Future[T] = Future()
        self._result: T | None = None
        self._error: BaseException | None = None

    def attempt(self, connection: sqlite3.Connection, transaction: Transaction, *, alone: bool) -> None:
        """Run so that it can be undone: inside a savepoint, or `alone` as the whole of the batch's transaction.

        For a savepoint SQLite keeps a copy of each page that is changed, in a temporary file once they are many; a unit
        that is alone, as a batch of lines of a log is, needs none. Raises only what concerns the database; the unit's
        own error is kept for `settle`.
        """
        begin, undo, end = _ALONE if alone else _AMONG_OTHERS
        for statement in begin:
            connection.execute(statement)
        mark = transaction.mark()
        try:
            self._result = self.work(transaction)
        except BaseException as error:  # a unit must never end the writer thread, whatever it raises
            if isinstance(error, sqlite3.Error) and errors.concerns_database(error):
                raise
            self._error = error
            for statement in undo:
                connection.execute(statement)
            transaction.rewind(mark)
        for statement in end:
            connection.execute(statement)

    def settle(self) -> None:
        """Resolve the future; only after the COMMIT returned."""
        if self._error is None:
            self.future.set_result(self._result)  # type: ignore[arg-type]  # T is what work returned
        else:
            self.future.set_exception(self._error)


class Pauses:
    """How long to wait between two attempts at a lock that another process holds: longer each time, with jitter."""

    def __init__(self) -> None:
        self._next_s = _FIRST_PAUSE_S

    def next_s(self) -> float:
        pause = self._next_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
        self._next_s = min(2 * self._next_s, _LONGEST_PAUSE_S)
        return pause


class Batches:
    """The writing connection of this process to the database at `path`; used by one thread at a time."""

    def __init__(self, path: Path, *, busy_timeout_s: float, report: Report | None = None, polls: bool = True) -> None:
        """`polls`: whether SQLite itself may wait a moment for a lock, which blocks the calling thread."""
        self.busy_timeout_s = busy_timeout_s
        self.trouble: StoreUnavailable | None = None
        """Why the last batch failed; None while all is well."""
        self._path = path
        self._report = report
        self._polls = polls
        self._process = os.getpid()
        self._connection: sqlite3.Connection | None = None
        self._opened: sqlite.Identity | None = None

    def refusal(self, waiting: int, capacity: int, *, closed: bool) -> StoreUnavailable | None:
        """Why no unit can be taken now."""
        if os.getpid() != self._process:
            return StoreUnavailable("the store was opened before a fork", "open it in the worker process")
        if closed:
            return StoreUnavailable("the store is closed", "the service is stopping; the peer will try again")
        if waiting >= capacity:
            return StoreUnavailable(
                f"{capacity} units of work wait for the database",
                "the disk cannot keep up: look at its load, or spread the senders",
            )
        return None

    @property
    def ours(self) -> bool:
        """Whether this process opened it: what was opened before a fork must be left alone."""
        return os.getpid() == self._process

    def write(self, units: Sequence[Unit[object]]) -> None:
        """All of it: wait for the lock, run the units, commit. Raises what `commit` and `run` do."""
        self.begin()
        self.run(units)
        self.commit(units)

    def begin(self) -> None:
        """Take the write lock; waits for other writers until the deadline."""
        deadline, pauses = time.monotonic() + self.busy_timeout_s, Pauses()
        while True:
            try:
                return self.begin_now()
            except sqlite3.Error as error:
                if not errors.is_transient(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(pauses.next_s())

    def begin_now(self) -> None:
        """Take the write lock, or raise sqlite3.Error (`errors.is_transient`: another writer has it)."""
        self._current_connection().execute("BEGIN IMMEDIATE")

    def run(self, units: Sequence[Unit[object]]) -> None:
        """Run units within the transaction that was begun."""
        connection = self._connection
        assert connection is not None
        transaction = Transaction(connection)
        for unit in units:
            unit.attempt(connection, transaction, alone=len(units) == 1)
        transaction.finish()

    def commit(self, _units: Sequence[Unit[object]] = ()) -> None:
        """Make it durable: returns after the fsync."""
        assert self._connection is not None
        self._connection.execute("COMMIT")

    def trouble_of(self, error: BaseException) -> StoreUnavailable:
        """The operator's words for what a step raised; ours too, as nobody must be left waiting for ever."""
        if isinstance(error, StoreUnavailable):
            return error
        if isinstance(error, sqlite3.Error):
            return errors.unavailable(error, self._path)
        return StoreUnavailable(f"the store's writer failed ({error!r})", "report this as a bug")

    def settle(self, units: Sequence[Unit[object]], trouble: StoreUnavailable | None) -> None:
        """Resolve the futures of a batch that was committed, or fail them all."""
        if trouble is not None:
            self._fail(units, trouble)
            return
        if self.trouble is not None:
            self.trouble = None
            self._tell("store_recovered", {"path": str(self._path)})
        for unit in units:
            unit.settle()

    def close(self) -> None:
        """Let go of the database; a transaction that is open is rolled back."""
        # SQLite leaves -wal and -shm alone when the file was moved or deleted.
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = self._opened = None

    def _current_connection(self) -> sqlite3.Connection:
        there = sqlite.identity(self._path)
        if self._connection is None or there != self._opened:
            from mailback.store.upgrade import require_current

            self.close()
            connection = sqlite.connect_writing(self._path)
            try:
                if self._polls:  # whoever may block reads in bulk; a door, which may not, has many workers
                    connection.execute(f"PRAGMA cache_size = -{sqlite.BULK_CACHE_KIB}")
                else:
                    connection.execute("PRAGMA busy_timeout = 0")
                require_current(connection, self._path)
            except BaseException:
                connection.close()
                raise
            self._connection, self._opened = connection, there
        return self._connection

    def _fail(self, units: Sequence[Unit[object]], trouble: StoreUnavailable) -> None:
        self.close()
        first = self.trouble is None
        self.trouble = trouble
        if first:
            self._tell("store_unavailable", {"reason": trouble.reason, "advice": trouble.advice})
        for unit in units:
            # One exception each: raised in many threads, a shared one would gather all their tracebacks.
            unit.future.set_exception(StoreUnavailable(trouble.reason, trouble.advice))

    def _tell(self, event: str, fields: Mapping[str, object]) -> None:
        if self._report:
            with contextlib.suppress(Exception):  # a log that fails must not stop the writer
                self._report(event, fields)

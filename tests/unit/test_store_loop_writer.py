"""A door's writing on its event loop: durable before it is told, and never in the way of other connections."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mailback.store import Recorded, Store, StoreUnavailable, Transaction
from mailback.store.waiting import committed
from tests.support.records import a_suppression, an_event

Told = list[tuple[str, Mapping[str, object]]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def store(tmp_path: Path, told: Told) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path}/mailback.db"
    with Store.open(url, busy_timeout_s=1.5, report=lambda event, fields: told.append((event, fields))) as opened:
        opened.upgrade()
        yield opened


class Probe(sqlite3.Connection):
    """A connection that notes the thread of each COMMIT, waits there when told to, and fails where told to."""

    commits: list[int]
    gate: threading.Event | None = None
    fail_at: str | None = None

    def execute(self, sql: str, parameters: object = ()) -> sqlite3.Cursor:
        if Probe.fail_at and sql.startswith(Probe.fail_at):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        if sql == "COMMIT":
            if Probe.gate is not None:
                assert Probe.gate.wait(10)
            Probe.commits.append(threading.get_ident())
        return super().execute(sql, parameters)  # type: ignore[arg-type]


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Probe]]:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **(k | {"factory": Probe})))
    Probe.commits, Probe.gate, Probe.fail_at = [], None, None
    yield Probe
    Probe.gate, Probe.fail_at = None, None


def recording(identity: str) -> Callable[[Transaction], Recorded]:
    return lambda transaction: transaction.record(an_event(identity))


def on_loop(store: Store, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def served() -> None:
        store.work_on_loop()
        await asyncio.wait_for(work(), 20)

    asyncio.run(served())


def test_what_comes_in_one_round_of_the_loop_shares_a_commit_made_by_a_thread(
    store: Store, probed: type[Probe]
) -> None:
    async def work() -> None:
        futures = [store.submit(recording(f"e{i}")) for i in range(50)]
        assert not any(future.done() for future in futures)
        assert all([(await committed(future)).new for future in futures])

    on_loop(store, work)
    assert len(probed.commits) == 1
    assert probed.commits[0] != threading.get_ident(), "the disk must not be waited for on the loop"
    assert len(list(store.events())) == 50


def test_nobody_is_told_before_the_commit_and_the_loop_goes_on_meanwhile(store: Store, probed: type[Probe]) -> None:
    async def work() -> None:
        probed.gate = threading.Event()
        first = store.submit(recording("first"))
        await asyncio.sleep(0.05)
        later = store.submit(recording("later"))
        await asyncio.sleep(0.05)
        assert not first.done()
        assert not later.done(), "it belongs to the next batch"
        probed.gate.set()
        assert (await committed(first)).new
        assert (await committed(later)).new

    on_loop(store, work)
    assert len(probed.commits) == 2


@pytest.mark.parametrize("step", ["BEGIN", "SAVEPOINT", "INSERT INTO event", "COMMIT"])
def test_trouble_at_any_step_fails_the_batch_and_is_over_when_it_is_over(
    store: Store, probed: type[Probe], told: Told, step: str
) -> None:
    async def work() -> None:
        probed.fail_at = step
        futures = [store.submit(recording(f"lost{i}")) for i in range(3)]
        for future in futures:
            with pytest.raises(StoreUnavailable, match="disk"):
                await committed(future)
        assert store.trouble is not None
        probed.fail_at = None
        assert (await committed(store.submit(recording("kept")))).new
        assert store.trouble is None

    on_loop(store, work)
    assert [event.identity for event in store.events()] == ["kept"]
    assert [name for name, _ in told] == ["store_unavailable", "store_recovered"]


def test_a_lock_that_another_process_holds_stops_no_connection(store: Store) -> None:
    async def work() -> None:
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        future = store.submit(recording("waits"))
        turns = 0
        while turns < 50:  # the loop turns while the lock is waited for
            await asyncio.sleep(0.001)
            turns += 1
        assert not future.done()
        more = store.submit(recording("joins"))
        other.execute("ROLLBACK")
        other.close()
        assert (await committed(future)).new
        assert (await committed(more)).new

    on_loop(store, work)


def test_a_lock_held_for_too_long_is_told_and_heals(store: Store, told: Told) -> None:
    async def work() -> None:
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked by pid"):
            await committed(store.submit(recording("given up")))
        other.execute("ROLLBACK")
        other.close()
        assert (await committed(store.submit(recording("kept")))).new

    on_loop(store, work)
    assert [event.identity for event in store.events()] == ["kept"]


def test_a_large_unit_is_run_in_the_thread(store: Store) -> None:
    async def work() -> None:
        where = await committed(store.submit(lambda _: threading.get_ident(), large=True))
        assert where != threading.get_ident()
        assert await committed(store.submit(lambda _: threading.get_ident())) == threading.get_ident()

    on_loop(store, work)


def test_a_unit_that_raises_fails_alone(store: Store) -> None:
    def wrong(transaction: Transaction) -> None:
        transaction.record(an_event("undone"))
        raise ValueError("from a unit")

    async def work() -> None:
        good, bad = store.submit(recording("kept")), store.submit(wrong)
        assert (await committed(good)).new
        with pytest.raises(ValueError, match="from a unit"):
            await committed(bad)

    on_loop(store, work)
    assert [event.identity for event in store.events()] == ["kept"]


def test_other_threads_may_submit(store: Store) -> None:
    async def work() -> None:
        def elsewhere(number: int) -> bool:
            return store.submit(recording(f"e{number}")).result(10).new

        with ThreadPoolExecutor(8) as pool:
            loop = asyncio.get_running_loop()
            assert all(await asyncio.gather(*(loop.run_in_executor(pool, elsewhere, i) for i in range(100))))

    on_loop(store, work)
    assert len(list(store.events())) == 100


def test_closing_commits_what_was_submitted_after_the_loop_too(store: Store) -> None:
    futures: list[Future[Recorded]] = []

    async def work() -> None:
        futures.extend(store.submit(recording(f"e{i}")) for i in range(250))
        await asyncio.sleep(0)

    on_loop(store, work)
    store.close()
    assert all(future.result(0).new for future in futures)
    with pytest.raises(StoreUnavailable, match="closed"):
        store.submit(recording("late")).result(0)
    store.close()


def test_a_store_that_writes_already_cannot_change_its_way(store: Store) -> None:
    async def work() -> None:
        with pytest.raises(RuntimeError, match="already"):
            store.work_on_loop()

    on_loop(store, work)


def test_two_processes_loops_and_threads_write_to_one_database(store: Store, tmp_path: Path) -> None:
    def threads() -> None:
        with Store.open(f"sqlite:///{tmp_path}/mailback.db", busy_timeout_s=30) as other:
            for number in range(100):
                suppression = a_suppression(address_key=f"thread-{number}@example.org")
                assert other.submit(lambda t, s=suppression: t.suppress(s, "thread")).result(30)  # type: ignore[misc]

    async def work() -> None:
        thread = threading.Thread(target=threads)
        thread.start()
        for number in range(100):
            suppression = a_suppression(address_key=f"loop-{number}@example.org")
            assert await committed(store.submit(lambda t, s=suppression: t.suppress(s, "loop")))  # type: ignore[misc]
        await asyncio.to_thread(thread.join)

    on_loop(store, work)
    verification = store.verify_audit()
    assert (verification.rows, verification.holds) == (200, True)

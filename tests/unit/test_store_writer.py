"""Acknowledged means committed, trouble fails the waiting and nobody else, and the writer comes back by itself."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailback.store import Recorded, Store, StoreUnavailable, Transaction, sqlite
from mailback.store.batches import Batches
from mailback.store.writer import Writer
from tests.support.records import a_suppression, an_event, do

Told = list[tuple[str, Mapping[str, object]]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def store(tmp_path: Path, told: Told) -> Iterator[Store]:
    def report(event: str, fields: Mapping[str, object]) -> None:
        told.append((event, fields))
        raise RuntimeError("a log that fails must not stop the writer")

    with Store.open(f"sqlite:///{tmp_path}/mailback.db", busy_timeout_s=0.3, report=report) as opened:
        opened.upgrade()
        yield opened


class Probe(sqlite3.Connection):
    """A connection that counts its commits and, when told to, fails a statement as the disk would."""

    commits = 0
    fail_at: str | None = None

    def execute(self, sql: str, parameters: object = ()) -> sqlite3.Cursor:
        if Probe.fail_at and sql.startswith(Probe.fail_at):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        Probe.commits += sql == "COMMIT"
        return super().execute(sql, parameters)  # type: ignore[arg-type]


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Probe]]:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **(k | {"factory": Probe})))
    Probe.commits, Probe.fail_at = 0, None
    yield Probe
    Probe.fail_at = None


def limited(monkeypatch: pytest.MonkeyPatch, pragma: str) -> None:
    """From here on every new writing connection has this limit."""
    connect = sqlite.connect_writing

    def connect_limited(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute(pragma)
        return connection

    monkeypatch.setattr(sqlite, "connect_writing", connect_limited)


def recording(identity: str) -> Callable[[Transaction], Recorded]:
    return lambda transaction: transaction.record(an_event(identity))


def hold_writer(store: Store | Writer) -> tuple[threading.Event, Future[bool]]:
    """Keep the writer thread busy until the event is set; returns once it is."""
    begun, go_on = threading.Event(), threading.Event()

    def work(_: Transaction) -> bool:
        begun.set()
        return go_on.wait(10)

    future = store.submit(work)
    assert begun.wait(10)
    return go_on, future


def test_all_who_wait_share_one_commit(store: Store, probed: type[Probe]) -> None:
    go_on, first = hold_writer(store)
    futures = [store.submit(recording(f"e{i}")) for i in range(200)]
    go_on.set()
    wait(futures, 10)
    assert first.result(10)
    assert all(future.result().new for future in futures)
    assert probed.commits == 2


def test_a_commit_that_fails_acknowledges_nobody(store: Store, probed: type[Probe], told: Told) -> None:
    probed.fail_at = "COMMIT"
    go_on, first = hold_writer(store)
    second = store.submit(lambda t: t.record(an_event()))
    go_on.set()
    for future in (first, second):
        with pytest.raises(StoreUnavailable, match="disk"):
            future.result(10)
    assert store.trouble is not None
    probed.fail_at = None
    assert do(store, lambda t: t.record(an_event())).new, "nothing of the failed batch may be kept"
    assert store.trouble is None
    assert [event for event, _ in told] == ["store_unavailable", "store_recovered"]


@pytest.mark.parametrize("statement", ["SAVEPOINT", "RELEASE"])
def test_trouble_between_two_units_fails_both(store: Store, probed: type[Probe], statement: str) -> None:
    go_on, first = hold_writer(store)
    probed.fail_at = statement
    futures = [store.submit(recording(f"e{i}")) for i in range(2)]
    go_on.set()
    assert first.result(10)
    for future in futures:
        with pytest.raises(StoreUnavailable):
            future.result(10)
    probed.fail_at = None
    assert do(store, recording("e0")).new


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO event", "PRAGMA synchronous"])
def test_trouble_at_any_step_fails_the_batch_and_is_over_when_it_is_over(
    store: Store, probed: type[Probe], statement: str
) -> None:
    probed.fail_at = statement
    with pytest.raises(StoreUnavailable):
        do(store, lambda t: t.record(an_event()))
    probed.fail_at = None
    assert do(store, lambda t: t.record(an_event())).new


def test_a_full_disk_says_so_and_heals(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        limited(full, "PRAGMA max_page_count = 1")
        with pytest.raises(StoreUnavailable, match="disk full") as caught:
            do(store, lambda t: [t.record(an_event(f"e{i}", diagnostic="x" * 4000)) for i in range(100)])
    assert "free space" in caught.value.advice
    assert do(store, lambda t: t.suppress(a_suppression(), "m"))


def test_a_database_that_cannot_be_written_says_so_and_heals(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as readonly:
        limited(readonly, "PRAGMA query_only = ON")
        with pytest.raises(StoreUnavailable, match="read-only") as caught:
            do(store, lambda t: t.record(an_event()))
    assert "writable" in caught.value.advice
    assert do(store, lambda t: t.record(an_event())).new


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of our own, and no rights beyond it: root, who may write to everything, becomes nobody meanwhile."""
    nobody = 65534
    folder = Path(tempfile.mkdtemp(prefix="mailback-test-"))
    root = os.geteuid() == 0
    if root:
        os.chown(folder, nobody, -1)
        os.seteuid(nobody)
    yield folder
    if root:
        os.seteuid(0)
    shutil.rmtree(folder)


def test_a_file_made_read_only_says_so_and_heals(unprivileged: Path) -> None:
    with Store.open(f"sqlite:///{unprivileged}/mailback.db", busy_timeout_s=0.3) as store:
        store.upgrade()
        store.path.chmod(0o440)
        with pytest.raises(StoreUnavailable, match="read-only"):
            do(store, lambda t: t.record(an_event()))
        assert store.lookup("bob@example.org") is None
        assert any("not writable" in str(problem) for problem in store.check())
        store.path.chmod(0o640)
        assert do(store, lambda t: t.record(an_event())).new


def test_a_folder_made_read_only_says_so_and_heals(unprivileged: Path) -> None:
    with Store.open(f"sqlite:///{unprivileged}/mailback.db", busy_timeout_s=0.3) as store:
        store.upgrade()
        unprivileged.chmod(0o550)
        with pytest.raises(StoreUnavailable, match=r"writ|open"):
            do(store, lambda t: t.record(an_event()))
        assert store.lookup("bob@example.org") is None
        unprivileged.chmod(0o750)
        assert do(store, lambda t: t.record(an_event())).new
        assert store.lookup("bob@example.org") is None


def test_a_folder_that_may_not_be_written_is_told_before_anything_is_made(unprivileged: Path) -> None:
    unprivileged.chmod(0o550)
    with Store.open(f"sqlite:///{unprivileged}/mailback.db") as store, pytest.raises(StoreUnavailable) as caught:
        store.upgrade()
    assert "not writable" in caught.value.reason


@pytest.mark.timeout(30)
def test_a_lock_held_by_another_names_the_holder_and_heals(store: Store) -> None:
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match=f"locked by pid {os.getpid()}"):
        do(store, lambda t: t.record(an_event()))
    other.execute("ROLLBACK")
    assert do(store, lambda t: t.record(an_event())).new
    other.close()


def test_a_lock_that_is_soon_released_is_waited_for(store: Store) -> None:
    other = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    waiting = store.submit(lambda t: t.record(an_event()))
    threading.Timer(0.1, other.execute, ["ROLLBACK"]).start()
    assert waiting.result(10).new
    other.close()


def files_of(path: Path) -> list[Path]:
    return [found for found in (path, Path(f"{path}-wal"), Path(f"{path}-shm")) if found.exists()]


def test_a_deleted_database_is_not_written_to_as_if_it_were_there(store: Store, tmp_path: Path) -> None:
    do(store, lambda t: t.suppress(a_suppression(), "m"))
    assert store.lookup("bob@example.org")
    kept = tmp_path / "kept"
    kept.mkdir()
    for part in files_of(store.path):
        shutil.move(part, kept)
    with pytest.raises(StoreUnavailable, match="no database"):
        do(store, lambda t: t.record(an_event()))
    with pytest.raises(StoreUnavailable, match="no database"):
        store.lookup("bob@example.org")
    assert not store.path.exists(), "an empty list in place of a lost one would let mail out"
    for part in kept.iterdir():
        shutil.move(part, tmp_path)
    assert do(store, lambda t: t.record(an_event())).new
    assert store.lookup("bob@example.org")


def test_a_restored_database_is_used_at_once_and_its_log_survives(store: Store, tmp_path: Path) -> None:
    do(store, lambda t: t.suppress(a_suppression(), "m"))
    assert store.lookup("bob@example.org")
    with Store.open(f"sqlite:///{tmp_path}/other.db") as other:
        other.upgrade()
        do(other, lambda t: t.suppress(a_suppression(address_key="ann@example.org"), "m"))
    for part in files_of(store.path):
        part.unlink()
    (tmp_path / "other.db").rename(store.path)
    assert do(store, lambda t: t.record(an_event())).new
    assert store.lookup("bob@example.org") is None
    assert store.lookup("ann@example.org")
    assert Path(f"{store.path}-wal").exists(), "closing the old file must not delete the new one's log"
    assert len(list(store.events())) == 1


@pytest.mark.parametrize("content", [b"this is no database at all " * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mailback.db"
    path.write_bytes(content)
    with Store.open(f"sqlite:///{path}") as store:
        with pytest.raises(StoreUnavailable, match="backup"):
            do(store, lambda t: t.record(an_event()))
        with pytest.raises(StoreUnavailable, match="backup"):
            store.lookup("bob@example.org")
        with pytest.raises(StoreUnavailable, match="backup"):
            store.upgrade()


def test_too_many_waiting_units_are_refused_at_once(store: Store) -> None:
    writer = Writer(Batches(store.path, busy_timeout_s=1), batch=10, capacity=3)
    go_on, first = hold_writer(writer)
    waiting = [writer.submit(lambda t: t.active("x")) for _ in range(3)]
    with pytest.raises(StoreUnavailable, match="wait"):
        writer.submit(lambda t: t.active("x")).result(0)
    go_on.set()
    assert [future.result(10) for future in waiting] == [[], [], []]
    first.result(10)
    writer.close()


def test_closing_commits_what_is_queued_and_refuses_what_comes_later(store: Store) -> None:
    go_on, _ = hold_writer(store)
    futures = [store.submit(recording(f"e{i}")) for i in range(20)]
    closing = threading.Thread(target=store.close)
    closing.start()
    go_on.set()
    closing.join(10)
    assert all(future.result(0).new for future in futures)
    with pytest.raises(StoreUnavailable, match="closed"):
        store.submit(lambda t: t.active("x")).result(0)
    store.close()


def test_a_cancelled_unit_is_not_run(store: Store) -> None:
    go_on, _ = hold_writer(store)
    unwanted = store.submit(lambda t: t.record(an_event()))
    assert unwanted.cancel()
    go_on.set()
    do(store, lambda t: t.active("x"))
    assert list(store.events()) == []


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError, sqlite3.IntegrityError])
def test_no_unit_can_end_the_writer(store: Store, error: type[BaseException]) -> None:
    def work(_: Transaction) -> None:
        raise error("from a unit")

    with pytest.raises(error, match="from a unit"):
        do(store, work)
    assert do(store, lambda t: t.record(an_event())).new


def test_a_unit_alone_that_fails_leaves_nothing_and_the_next_is_kept(store: Store) -> None:
    def fails(transaction: Transaction) -> None:
        transaction.audit("test", "first", "x")
        transaction.count("cause", datetime.now(UTC))
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        store.submit(fails).result()
    assert store.submit(lambda transaction: transaction.count("cause", datetime.now(UTC))).result() == 1
    store.submit(lambda transaction: transaction.audit("test", "second", "x")).result()
    assert [entry.verb for entry in store.audit_trail()] == ["second"]
    assert store.verify_audit().holds


def test_a_store_opened_before_a_fork_refuses_instead_of_hanging(store: Store) -> None:
    do(store, lambda t: t.record(an_event()))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        error = store.submit(lambda t: t.active("x")).exception(0)
        os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"before a fork" in os.read(read, 1000)
    os.close(read)
    os.close(write)


_WRITE = """
import sys
from tests.support.records import a_suppression, an_event
from mailback.store import Store
url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Store.open(url, busy_timeout_s=30) as store:
    store.upgrade()
    sys.stdin.readline()
    for i in range(count):
        def work(t):
            t.record(an_event(f"shared-{i}"))
            return t.suppress(a_suppression(address_key=f"{name}-{i}@example.org"), name)
        assert store.submit(work).result(60)
"""


def test_several_processes_start_and_write_at_once(tmp_path: Path) -> None:
    url, count = f"sqlite:///{tmp_path}/mailback.db", 60
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _WRITE, url, f"w{n}", str(count)],
            stdin=subprocess.PIPE, cwd=Path(__file__).parents[2],
        )
        for n in range(3)
    ]  # fmt: skip
    for writer in writers:
        writer.communicate(b"\n", timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    with Store.open(url) as store:
        assert len(list(store.suppressions())) == 3 * count
        assert len(list(store.events())) == count, "one event, whoever told of it first"
        verification = store.verify_audit()
        assert (verification.rows, verification.holds) == (3 * count, True)
        assert store.check() == []


def test_a_thousand_threads_of_work_lose_nothing(store: Store) -> None:
    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(lambda i: do(store, lambda t: t.record(an_event(f"e{i}"))).new, range(500)))
    assert all(done)
    assert len(list(store.events())) == 500


def test_the_database_is_made_for_its_owner_and_group_only(store: Store) -> None:
    for part in files_of(store.path):
        assert stat.S_IMODE(part.stat().st_mode) & 0o027 == 0


def test_a_missing_folder_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/none/mailback.db") as store:
        with pytest.raises(StoreUnavailable, match="does not exist") as caught:
            store.upgrade()
        assert f"mkdir -p -m 750 {tmp_path}/none" in caught.value.advice


def test_a_disk_that_refuses_a_new_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", refuse)
    with Store.open(f"sqlite:///{tmp_path}/mailback.db") as store, pytest.raises(StoreUnavailable, match="No space"):
        store.upgrade()

"""The read behind every outgoing message: cheap to import, one index, right after a restore, never a silent "no"."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from mailback.store import Store, StoreUnavailable, SuppressionLookup, lookup
from mailback.store.schema import suppression
from tests.support.records import a_suppression, do, in_days


@pytest.fixture
def found(store: Store) -> Iterator[SuppressionLookup]:
    with SuppressionLookup(f"sqlite:///{store.path}") as opened:
        yield opened


def test_looking_up_needs_the_standard_library_only(store: Store) -> None:
    do(store, lambda t: t.suppress(a_suppression(), "m"))
    program = f"""
import sys
from mailback.address import key
from mailback.store import SuppressionLookup
with SuppressionLookup("sqlite:///{store.path}") as found:
    assert found.lookup(key("BOB@example.org")) is not None
imported = {{name.partition(".")[0] for name in sys.modules}}
heavy = imported & {{"sqlalchemy", "pydantic", "alembic", "structlog", "idna"}}
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_the_columns_are_those_of_the_schema() -> None:
    assert [name.strip() for name in lookup._COLUMNS.split(",")] == [column.name for column in suppression.columns]


def test_one_search_of_the_primary_key(store: Store) -> None:
    connection = sqlite3.connect(store.path)
    plan = connection.execute(f"EXPLAIN QUERY PLAN {lookup._query(3)}", ("k", "a", "b", "c", 0)).fetchall()
    connection.close()
    assert [row[3] for row in plan] == ["SEARCH suppression USING PRIMARY KEY (address_key=? AND scope=?)"]


def test_a_scope_is_asked_for_by_name(store: Store, found: SuppressionLookup) -> None:
    do(store, lambda t: t.suppress(a_suppression(scope="list:weekly"), "m"))
    assert found.lookup("bob@example.org") is None
    assert found.lookup("bob@example.org", ()) is None
    hit = found.lookup("bob@example.org", ("all", "list:weekly", "stream:marketing"))
    assert hit is not None
    assert hit.scope == "list:weekly"
    with pytest.raises(ValueError, match="scopes"):
        found.lookup("bob@example.org", ["all"] * 101)


def test_of_several_the_one_that_lasts_longest_is_told(store: Store, found: SuppressionLookup) -> None:
    for scope, until in (("all", in_days(3)), ("list:a", in_days(9)), ("list:b", in_days(1))):
        do(store, lambda t, s=scope, u=until: t.suppress(a_suppression(u, scope=s), "m"))  # type: ignore[misc]
    hit = found.lookup("bob@example.org", ("all", "list:a", "list:b"))
    assert hit is not None
    assert hit.scope == "list:a"
    do(store, lambda t: t.suppress(a_suppression(None, scope="list:b"), "m"))
    hit = found.lookup("bob@example.org", ("all", "list:a", "list:b"))
    assert hit is not None
    assert hit.until is None


def test_the_end_is_exclusive(store: Store, found: SuppressionLookup) -> None:
    end = in_days(1)
    do(store, lambda t: t.suppress(a_suppression(end), "m"))
    assert found.lookup("bob@example.org", now=end) is None
    assert found.lookup("bob@example.org", now=end - timedelta(microseconds=1)) is not None


def test_a_missing_database_is_trouble_not_permission_and_may_come_later(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mailback.db"
    with SuppressionLookup(url) as found:
        with pytest.raises(StoreUnavailable, match="no database"):
            found.lookup("bob@example.org")
        assert not list(tmp_path.iterdir()), "looking must create nothing"
        with Store.open(url) as store:
            store.upgrade()
            do(store, lambda t: t.suppress(a_suppression(), "m"))
        assert found.lookup("bob@example.org") is not None


def test_a_replaced_database_is_read_at_once(store: Store, found: SuppressionLookup, tmp_path: Path) -> None:
    assert found.lookup("bob@example.org") is None
    store.close()
    with Store.open(f"sqlite:///{tmp_path}/new.db") as new:
        new.upgrade()
        do(new, lambda t: t.suppress(a_suppression(), "m"))
    (tmp_path / "new.db").replace(store.path)
    assert found.lookup("bob@example.org") is not None


def test_a_database_whose_last_writer_closed_cleanly_is_readable(store: Store) -> None:
    do(store, lambda t: t.suppress(a_suppression(), "m"))
    store.close()
    assert not Path(f"{store.path}-shm").exists()
    with SuppressionLookup(f"sqlite:///{store.path}") as found:
        assert found.lookup("bob@example.org") is not None


def test_a_look_up_never_waits_for_the_writer(store: Store, found: SuppressionLookup) -> None:
    do(store, lambda t: t.suppress(a_suppression(), "m"))
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM suppression")
    assert found.lookup("bob@example.org") is not None
    other.execute("ROLLBACK")
    other.close()


def test_connections_move_between_threads_and_stay_few(store: Store, found: SuppressionLookup) -> None:
    do(store, lambda t: t.suppress(a_suppression(), "m"))
    with ThreadPoolExecutor(30) as pool:
        hits = list(pool.map(lambda _: found.lookup("bob@example.org"), range(600)))
    assert all(hits)
    assert len(found._readers._idle) <= 8


def test_reading_cannot_write(store: Store, found: SuppressionLookup) -> None:
    with pytest.raises(StoreUnavailable, match="read-only"):
        found._readers.fetch("DELETE FROM suppression")


@pytest.fixture
def reader() -> Iterator[Path]:
    """A folder that this process may only read: its owner is root, and root becomes nobody in `as_nobody`."""
    folder = Path(tempfile.mkdtemp(prefix="mailback-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def open_to_read(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o644)


@pytest.mark.root
def test_who_may_only_read_is_answered_beside_a_writer_and_after_it(reader: Path) -> None:
    url = f"sqlite:///{reader}/mailback.db"
    with Store.open(url) as writer, SuppressionLookup(url) as found:
        writer.upgrade()
        do(writer, lambda t: t.suppress(a_suppression(), "m"))
        open_to_read(reader)
        with as_nobody():
            assert found.lookup("bob@example.org") is not None
        do(writer, lambda t: t.suppress(a_suppression(address_key="eve@example.org"), "m"))
        with as_nobody():
            assert found.lookup("eve@example.org") is not None, "what is committed later is seen"
    open_to_read(reader)
    assert [file.name for file in reader.iterdir()] == ["mailback.db"]
    with SuppressionLookup(url) as found:
        with as_nobody():
            assert found.lookup("bob@example.org") is not None
        with Store.open(url) as writer:
            do(writer, lambda t: t.lift("bob@example.org", "all", actor="m", reason="r"))
            open_to_read(reader)
            with as_nobody():
                assert found.lookup("bob@example.org") is None, "no snapshot of before is kept"
    with SuppressionLookup(url) as found, as_nobody():
        assert found.lookup("eve@example.org") is not None, "a log that outlived its writer is read"
    assert {file.stat().st_uid for file in reader.iterdir()} == {0}, "a reader makes no file that locks the writer out"


WRITER = """
import sys
from mailback.store import Store
from tests.support.records import a_suppression, do
with Store.open(sys.argv[1]) as store:
    store.upgrade()
    for line in sys.stdin:
        do(store, lambda t: t.suppress(a_suppression(address_key=line.strip()), "m"))
        print("committed", flush=True)
"""


@pytest.mark.root
def test_who_may_only_read_sees_each_commit_of_another_process(reader: Path) -> None:
    url = f"sqlite:///{reader}/mailback.db"
    with (
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[2],
        ) as writer,
        SuppressionLookup(url) as found,
    ):  # fmt: skip
        assert writer.stdin is not None
        assert writer.stdout is not None
        for key in ("a@example.org", "b@example.org", "c@example.org"):
            writer.stdin.write(f"{key}\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "committed\n"
            open_to_read(reader)
            with as_nobody():
                assert found.lookup(key) is not None
                assert found.lookup("nobody@example.org") is None


@pytest.mark.root
def test_a_log_that_cannot_be_read_with_its_database_is_refused(reader: Path) -> None:
    url = f"sqlite:///{reader}/mailback.db"
    with Store.open(url) as writer, SuppressionLookup(url) as found:
        writer.upgrade()
        do(writer, lambda t: t.suppress(a_suppression(), "m"))
        open_to_read(reader)
        for part in ("-wal", "-shm", ""):
            Path(f"{writer.path}{part}").chmod(0o600)
            with as_nobody(), pytest.raises(StoreUnavailable, match="read-only"):
                found.lookup("bob@example.org")
            open_to_read(reader)


def test_a_list_opened_before_a_fork_refuses(found: SuppressionLookup) -> None:
    found.lookup("bob@example.org")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found.lookup("bob@example.org")
        except StoreUnavailable as trouble:
            os.write(write, str(trouble).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    assert b"before a fork" in os.read(read, 1000)
    os.close(read)

"""Migrations must meet the schema in code, run once however many start, and never touch what they do not know."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mailback.store import Store, StoreUnavailable, upgrade
from mailback.store.schema import metadata
from mailback.store.sqlite import database_path
from tests.support.records import an_event, do


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store.open(f"sqlite:///{tmp_path}/mailback.db") as store:
        assert store.upgrade()
    return tmp_path / "mailback.db"


def dump(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return "\n".join(connection.iterdump())
    finally:
        connection.close()


def test_the_migrated_database_is_the_schema_in_code(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_suppressions_are_one_tree_keyed_by_address_and_scope(path: Path) -> None:
    connection = sqlite3.connect(path)
    listed = {row[1]: row[4] for row in connection.execute("PRAGMA table_list")}
    indexes = connection.execute("PRAGMA index_list(suppression)").fetchall()
    connection.close()
    assert listed["suppression"] == 1, "WITHOUT ROWID"
    assert [index[3] for index in indexes] == ["pk"]


def test_the_revision_in_code_is_the_newest_migration() -> None:
    assert ScriptDirectory(str(Path(upgrade.__file__).parent / "migrations")).get_heads() == [upgrade.HEAD]


def test_upgrading_twice_changes_nothing(path: Path) -> None:
    before = dump(path)
    with Store.open(f"sqlite:///{path}") as store:
        assert not store.upgrade()
    assert dump(path) == before


def test_a_current_database_needs_no_alembic(path: Path) -> None:
    program = (
        "import sys; from mailback.store import upgrade; from pathlib import Path;"
        f"assert not upgrade.upgrade(Path({str(path)!r})); assert 'alembic' not in sys.modules, 'slow start'"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_several_processes_that_start_at_once_upgrade_once(tmp_path: Path) -> None:
    program = f"from mailback.store import Store; print(Store.open('sqlite:///{tmp_path}/mailback.db').upgrade())"
    starters = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )
        for _ in range(4)
    ]  # fmt: skip
    for starter in starters:
        starter.communicate(timeout=60)
    assert [starter.returncode for starter in starters] == [0] * 4
    with Store.open(f"sqlite:///{tmp_path}/mailback.db") as store:
        assert store.check() == []


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0016'")  # so that its last steps are in the way
    before = dump(path)
    with Store.open(f"sqlite:///{path}") as store, pytest.raises(StoreUnavailable, match="already exists"):
        store.upgrade()
    assert dump(path) == before


@pytest.mark.parametrize("tables", [("event", "guest"), ("audit",), ("alembic_version", "ticket")])
def test_a_database_of_something_else_is_left_alone(tmp_path: Path, tables: tuple[str, ...]) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        for name in tables:
            connection.execute(f"CREATE TABLE {name} (version_num)")
        connection.execute(f"INSERT INTO {tables[0]} VALUES ('0004')")
    before = path.read_bytes()
    with Store.open(f"sqlite:///{path}") as store, pytest.raises(StoreUnavailable, match="of something else") as caught:
        store.upgrade()
    assert tables[-1] in str(caught.value)
    assert path.read_bytes() == before, "its journal mode included"
    assert [file.name for file in tmp_path.iterdir()] == ["shop.db"]


def test_a_database_of_a_newer_version_is_left_alone(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with Store.open(f"sqlite:///{path}") as store:
        with pytest.raises(StoreUnavailable, match="newer Mailback"):
            store.upgrade()
        with pytest.raises(StoreUnavailable, match="newer Mailback"):
            do(store, lambda t: t.record(an_event()))


def test_an_empty_file_asks_for_the_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "mailback.db"
    path.touch()
    with Store.open(f"sqlite:///{path}") as store:
        with pytest.raises(StoreUnavailable, match="mailback store upgrade"):
            do(store, lambda t: t.record(an_event()))
        with pytest.raises(StoreUnavailable, match="mailback store upgrade"):
            store.lookup("bob@example.org")
        assert any("mailback store upgrade" in str(problem) for problem in store.check())


@pytest.mark.parametrize("name", ["a b", "a%20b", "a?mode=ro", "a#b", "ü", "a'b"])
def test_a_folder_of_any_name_will_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with Store.open(f"sqlite:///{tmp_path}/{name}/mailback.db") as store:
        store.upgrade()
        assert do(store, lambda t: t.record(an_event())).new
        assert store.lookup("bob@example.org") is None
    assert (tmp_path / name / "mailback.db").exists()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://db.example/mailback", "PostgreSQL"),
        ("mysql://db.example/mailback", "unknown scheme"),
        ("sqlite://", "names no file|unknown"),
        ("sqlite:///:memory:", "names no file"),
        ("", "unknown scheme"),
    ],
)
def test_a_url_that_cannot_work_says_why_when_opened(url: str, told: str) -> None:
    with pytest.raises(StoreUnavailable, match=told):
        Store.open(url)


def test_both_ways_to_write_a_path() -> None:
    assert database_path("sqlite:////var/lib/x.db") == Path("/var/lib/x.db")
    assert database_path("sqlite:///state/x.db") == Path("state/x.db")

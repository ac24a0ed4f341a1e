"""Nobody rewrites the trail unseen: the database refuses, and where it was made not to, the chain shows it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailback.store import Store, Transaction
from tests.support.records import a_suppression, do


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/mailback.db") as opened:
        opened.upgrade()
        for n in range(7):
            do(opened, lambda t, n=n: t.suppress(a_suppression(address_key=f"u{n}@example.org"), "m"))  # type: ignore[misc]
        yield opened


@pytest.fixture
def by_hand(store: Store) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(store.path, isolation_level=None)
    yield connection
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'nobody' WHERE sequence = 3",
        "DELETE FROM audit WHERE sequence = 3",
        "DELETE FROM audit WHERE sequence = 7",
        "INSERT OR REPLACE INTO audit SELECT 3, at, 'nobody', verb, subject, detail, previous_hash, hash FROM audit",
        "INSERT INTO audit SELECT 99, at, actor, verb, subject, detail, previous_hash, hash FROM audit LIMIT 1",
    ],
)
def test_the_database_refuses_to_change_the_trail(by_hand: sqlite3.Connection, store: Store, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        by_hand.execute(statement)
    assert store.verify_audit().holds


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        ("UPDATE audit SET actor = 'nobody' WHERE sequence = 3", 3),
        ("UPDATE audit SET detail = '{}' WHERE sequence = 1", 1),
        ("UPDATE audit SET at = at + 1 WHERE sequence = 7", 7),
        ("UPDATE audit SET hash = upper(hash) WHERE sequence = 4", 4),
        ("UPDATE audit SET previous_hash = hash WHERE sequence = 4", 4),
        ("DELETE FROM audit WHERE sequence = 3", 4),
        ("DELETE FROM audit WHERE sequence = 1", 2),
        ("UPDATE audit SET sequence = 99 WHERE sequence = 7", 99),
    ],
)
def test_the_chain_names_the_first_row_that_does_not_follow(
    by_hand: sqlite3.Connection, store: Store, statement: str, broken_at: int
) -> None:
    for trigger in ("audit_no_update", "audit_no_delete", "audit_next_only"):
        by_hand.execute(f"DROP TRIGGER {trigger}")
    by_hand.execute(statement)
    verification = store.verify_audit()
    assert verification.broken_at == broken_at
    assert any(f"audit row {broken_at} " in str(problem) for problem in store.check())


def test_a_chain_longer_than_a_page_is_walked_to_its_end(store: Store) -> None:
    def note(transaction: Transaction) -> None:
        for n in range(1200):
            transaction.audit("m", "note", f"s{n}", {"n": n, "nested": {"b": 1, "a": [None, 0.1]}})

    do(store, note)
    verification = store.verify_audit()
    assert (verification.rows, verification.holds) == (1207, True)
    assert verification.last_hash == list(store.audit_trail())[-1].hash


def test_details_of_any_kind_are_kept_and_verified(store: Store) -> None:
    detail: dict[str, object] = {"ü": "\ud800 \0", "big": 2**70, "path": Path("/x"), "float": 1e-7}
    do(store, lambda t: t.audit("\udcff", "odd", "a\0b", detail))
    assert store.verify_audit().holds
    assert list(store.audit_trail())[-1].detail["path"] == "/x"

"""The journal: found by whatever a report tells, quickly, and forgotten in time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mailback.store import Store
from mailback.store.records import JournalEntry
from mailback.store.statements import JOURNAL_BY_MESSAGE_ID, JOURNAL_BY_RETURN_PATH, JOURNAL_TO_RECIPIENT

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ENTRY = JournalEntry(
    at=NOW, message_id="<1@sender.test>", envelope_sender="news@sender.test", recipients=("Ada@Receiver.test",),
    return_path="v199abc", subject="The November issue", campaign="nov", list_id="weekly", subscriber="s7",
    queue_id="4B2F", text="Good morning,",
)  # fmt: skip


def write(store: Store, *entries: JournalEntry) -> None:
    for entry in entries:
        store.submit(lambda transaction, entry=entry: transaction.journal(entry)).result()  # type: ignore[misc]


def plan(store: Store, query: str, *parameters: object) -> str:
    return " ".join(str(row[3]) for row in store._readers.fetch(f"EXPLAIN QUERY PLAN {query}", parameters))


def test_what_was_written_comes_back_whole(store: Store) -> None:
    write(store, ENTRY)
    assert store.find_journal(message_id="<1@sender.test>") == [replace(ENTRY, id=1)]
    assert store.find_journal(return_path="V199ABC") == [replace(ENTRY, id=1)]
    assert store.find_journal(key="ada@receiver.test") == [replace(ENTRY, id=1)]
    assert store.find_journal(message_id="<1@sender.test>", key="ada@receiver.test") == [replace(ENTRY, id=1)]


def test_what_never_went_out_is_not_found(store: Store) -> None:
    write(store, ENTRY)
    assert store.find_journal(message_id="<2@sender.test>") == []
    assert store.find_journal(return_path="v199abd") == []
    assert store.find_journal(key="bob@receiver.test") == []
    assert store.find_journal(message_id="<1@sender.test>", key="bob@receiver.test") == []
    assert store.find_journal(message_id="<2@sender.test>", key="ada@receiver.test") == []


def test_a_period_of_a_recipient_ends_before_its_end(store: Store) -> None:
    write(store, *(replace(ENTRY, at=NOW + timedelta(hours=n), message_id=f"<{n}@s.test>") for n in range(4)))
    found = store.find_journal(key="ada@receiver.test", since=NOW + timedelta(hours=1), until=NOW + timedelta(hours=3))
    assert [entry.message_id for entry in found] == ["<2@s.test>", "<1@s.test>"]
    assert len(store.find_journal(key="ada@receiver.test", limit=2)) == 2


def test_a_message_to_many_is_one_entry_with_all_of_them(store: Store) -> None:
    write(
        store, replace(ENTRY, recipients=("b@x.test", "a@x.test", "A@X.test")), replace(ENTRY, recipients=("c@x.test",))
    )
    found = store.find_journal(message_id="<1@sender.test>")
    assert [set(entry.recipients) for entry in found] == [{"c@x.test"}, {"a@x.test", "b@x.test"}]


def test_a_message_id_of_a_million_recipients_costs_no_more_than_another(store: Store) -> None:
    """Asked by recipient and Message-ID the walk begins at the recipient: a list gives all its mail one Message-ID."""
    told = plan(store, JOURNAL_TO_RECIPIENT, "a@x.test", "<1@s.test>")
    assert "ix_journal_message_id" not in told
    assert "SEARCH journal_recipient USING PRIMARY KEY (recipient_key=?)" in told
    assert "SEARCH journal USING INTEGER PRIMARY KEY" in told


@pytest.mark.parametrize(
    ("query", "index"),
    [(JOURNAL_BY_MESSAGE_ID, "ix_journal_message_id"), (JOURNAL_BY_RETURN_PATH, "ix_journal_return_path")],
)
def test_every_look_up_has_its_index(store: Store, query: str, index: str) -> None:
    told = plan(store, query, "x", 1)
    assert index in told
    assert "SCAN journal" not in told


def test_an_entry_without_a_message_id_or_recipient_is_kept_all_the_same(store: Store) -> None:
    write(store, replace(ENTRY, message_id=None, recipients=()))
    assert [entry.recipients for entry in store.journal()] == [()]


def test_what_is_older_than_the_retention_is_forgotten_with_its_recipients(store: Store) -> None:
    old = [replace(ENTRY, at=NOW - timedelta(days=100), message_id=f"<{n}@s.test>") for n in range(3)]
    write(store, *old, ENTRY)
    assert store.forget_journal(NOW - timedelta(days=90)) == 3
    assert [entry.message_id for entry in store.find_journal(key="ada@receiver.test")] == ["<1@sender.test>"]
    assert store._readers.fetch("SELECT count(*) FROM journal_recipient") == [(1,)]


def test_forgetting_goes_on_until_all_of_it_is_gone(store: Store) -> None:
    entries = [replace(ENTRY, at=NOW - timedelta(days=100)) for _ in range(1200)]
    store.submit(lambda transaction: [transaction.journal(entry) for entry in entries]).result()
    assert store.forget_journal(NOW) == 1200
    assert list(store.journal()) == []


def test_the_list_is_read_page_by_page_the_latest_first(store: Store) -> None:
    entries = [replace(ENTRY, at=NOW + timedelta(seconds=n), subject=str(n)) for n in range(600)]
    store.submit(lambda transaction: [transaction.journal(entry) for entry in entries]).result()
    assert [entry.subject for entry in store.journal()] == [str(n) for n in reversed(range(600))]
    assert [entry.subject for entry in store.journal(limit=2)] == ["599", "598"]
    assert len(list(store.journal(since=NOW + timedelta(seconds=590)))) == 10
    assert len(list(store.journal(until=NOW + timedelta(seconds=10)))) == 10


def test_hostile_text_does_not_stop_the_writing(store: Store) -> None:
    write(store, replace(ENTRY, subject="a\0b\udcff", text="x" * 100_000, recipients=("\udcff@x.test",)))
    [found] = store.journal()
    assert found.subject == "a\N{REPLACEMENT CHARACTER}b?"
    assert found.text is not None
    assert len(found.text) == 8192

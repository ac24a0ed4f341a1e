"""Which tables know an address is asked once a batch: nothing that the batch itself does may make the answer wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mailback.bounce.taxonomy import Fault, Kind
from mailback.store import Store, Transaction, new_id
from mailback.store.records import GONE, Event, Retry, ScoreEntry, Step, Subscriber, Suppression

WHO = "user@example.org"
NOW = datetime.now(UTC).replace(microsecond=0)
BOUNCE = ScoreEntry(WHO, Step.BOUNCE, NOW, "E1", "mailbox_full")


def hold(event_id: str | None = None) -> Suppression:
    return Suppression(
        WHO, WHO, "all", "hard_bounce/user_unknown", "hard_bounce", "user_unknown", "event", NOW, None, event_id
    )


def message() -> Retry:
    return Retry(
        0, WHO, WHO, "<1@x>", "<1@x>", None, "E1", None, None, None, "soft_bounce", "mailbox_full", 1, NOW, NOW, NOW,
        "open", "", None,
    )  # fmt: skip


def test_each_table_is_found_again_by_the_unit_that_wrote_to_it(store: Store) -> None:
    def work(tx: Transaction) -> None:
        assert not tx.counted(WHO)
        assert tx.active(WHO) == []
        assert tx.retries.of_message(WHO, "<1@x>") is None
        assert tx.subscribers.of_address(WHO) == []
        tx.subscribers.put(Subscriber(WHO, "news", WHO), actor="test", reason="import")
        tx.retries.put(message())
        assert tx.enter(BOUNCE, fresh=True)
        assert [entry.fact for entry in tx.ledger(WHO)] == ["E1"]
        assert tx.suppress(hold("E2"), "test")
        assert [s.event_id for s in tx.active(WHO)] == ["E2"]
        assert [entry.fact for entry in tx.ledger(WHO)] == ["E1", "E2"]
        assert tx.retries.of_message(WHO, "<1@x>") is not None
        assert [s.bounce_status for s in tx.subscribers.of_address(WHO)] == ["hard"]
        assert tx.retries.close_all(WHO, "dead", NOW) == 1

    store.submit(work).result()


def test_a_unit_that_fails_leaves_no_trace_for_the_next(store: Store) -> None:
    def fails(tx: Transaction) -> None:
        assert tx.enter(BOUNCE)
        tx.suppress(hold(), "test")
        raise ValueError

    def after(tx: Transaction) -> None:
        assert not tx.counted(WHO)
        assert tx.ledger(WHO) == []
        assert tx.active(WHO) == []
        assert tx.enter(replace(BOUNCE, fact="E9"))
        assert [entry.fact for entry in tx.ledger(WHO)] == ["E9"]

    def both(_: Transaction) -> None:
        futures.extend([store.submit(fails), store.submit(after)])

    futures: list[object] = []
    store.submit(both).result()
    assert isinstance(futures[0].exception(), ValueError)  # type: ignore[attr-defined]
    futures[1].result()  # type: ignore[attr-defined]


def test_a_bounce_that_was_set_aside_withdrawn_or_lives_on_as_something_else_counts_no_more(store: Store) -> None:
    def work(tx: Transaction) -> None:
        tx.enter(BOUNCE, fresh=True)
        tx.hold_entry(WHO, "E1")
        assert not tx.counted(WHO)
        assert [entry.step for entry in tx.ledger(WHO)] == [Step.HELD]
        assert tx.release_entry(WHO, "E1")
        assert tx.counted(WHO)
        assert not tx.enter(ScoreEntry(WHO, Step.ALIVE, NOW, "E1", "delivered"))  # a better report of the same event
        assert [entry.step for entry in tx.ledger(WHO)] == [Step.ALIVE]
        tx.enter(replace(BOUNCE, fact="E3"), fresh=True)
        tx.take_back("E3", WHO, actor="test", reason="wrong")
        assert not tx.counted(WHO)

    store.submit(work).result()


def test_the_only_line_of_a_ledger_moves_with_its_event(store: Store) -> None:
    event = Event(new_id(NOW), "same", NOW, Kind.BOUNCE, "log", WHO, WHO, type="soft_bounce", fault=Fault.RECIPIENT)
    earlier = NOW - timedelta(days=1)

    def work(tx: Transaction) -> None:
        tx.record(event)
        tx.enter(ScoreEntry(WHO, Step.BOUNCE, NOW, event.id, "mailbox_full"), fresh=True)
        tx.record(replace(event, id=new_id(NOW), at=earlier))
        assert [entry.at for entry in tx.ledger(WHO)] == [earlier]

    store.submit(work).result()


def test_an_erased_address_is_a_stranger(store: Store) -> None:
    def work(tx: Transaction) -> None:
        tx.suppress(hold("E2"), "test")
        assert [entry.cause for entry in tx.ledger(WHO)] == [GONE]
        tx.erase(WHO, "erased:1", actor="test", reason="asked")
        assert not tx.counted(WHO)
        assert tx.ledger(WHO) == []
        assert tx.active(WHO) == []
        assert len(tx.active("erased:1")) == 1

    store.submit(work).result()


def test_an_open_wave_and_the_first_entry_of_the_journal_are_seen_by_the_batch_that_makes_them(store: Store) -> None:
    from mailback.store.records import JournalEntry

    def work(tx: Transaction) -> None:
        assert tx.wave("example.org") is None
        number = tx.begin_wave("example.org", "user_unknown", NOW, 0.0, timedelta(days=9))
        assert tx.wave("example.org") == number
        assert tx.sent("<1@x>", WHO) is None
        tx.journal(JournalEntry(NOW, "<1@x>", "news@x", (WHO,)))
        assert tx.sent("<1@x>", WHO) is not None

    store.submit(work).result()

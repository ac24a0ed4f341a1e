"""Counts by the hour are kept in memory within a batch: they must come out as if each had been written at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mailback.store import Store, Transaction
from mailback.store.rates import Rates

HOUR = timedelta(hours=1)
NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


def counts(store: Store) -> dict[str, int]:
    with sqlite3.connect(store.path) as connection:
        return dict(connection.execute("SELECT cause, sum(count) FROM rate GROUP BY cause"))


def together(store: Store, *works: Callable[[Transaction], object]) -> list[object]:
    """What the works return or raise, as units of one batch."""

    def first(_: Transaction) -> None:
        futures.extend(store.submit(work) for work in works)

    futures: list[object] = []
    store.submit(first).result()
    return [future.exception() or future.result() for future in futures]  # type: ignore[attr-defined]


def test_a_batch_is_counted_whole_and_each_count_is_told_at_once(store: Store) -> None:
    told = together(store, *[lambda tx: tx.count("busy", NOW)] * 5)
    assert told == [1, 2, 3, 4, 5]
    assert counts(store) == {"busy": 5}
    assert store.submit(lambda tx: tx.count("busy", NOW)).result() == 6


def test_a_unit_that_fails_takes_back_its_counts_and_nobody_elses(store: Store) -> None:
    def fails(tx: Transaction) -> None:
        tx.count("busy", NOW)
        tx.count("new", NOW)
        tx.recent("asked", NOW)
        tx.forget_counts("bu")
        tx.count("busy", NOW)
        raise ValueError

    told = together(store, lambda tx: tx.count("busy", NOW), lambda tx: tx.count("busy", NOW), fails,
                    lambda tx: (tx.count("busy", NOW), tx.count("new", NOW), tx.recent("busy", NOW)))  # fmt: skip
    assert told[:2] == [1, 2]
    assert isinstance(told[2], ValueError)
    assert told[3] == (3, 1, 3.0)
    assert counts(store) == {"busy": 3, "new": 1}


def test_what_is_not_written_yet_is_part_of_every_answer(store: Store) -> None:
    def asks(tx: Transaction) -> tuple[object, ...]:
        earlier = NOW - 30 * HOUR
        for _ in range(4):
            tx.count("old", earlier)
            tx.count("of:now", NOW - HOUR)
        tx.recent("of:later", NOW)  # known to be none
        tx.count("of:later", NOW)
        return (
            tx.past_rate("old", NOW, 48), tx.past_rate("of:now", NOW, 48), tx.recent("of:now", NOW),
            tx.counted_long_ago("ol", NOW, 30), tx.counted_long_ago("ol", NOW, 31), tx.counted_long_ago("of:", NOW, 2),
            tx.counted_long_ago("of:later", NOW, 0),
        )  # fmt: skip

    asked = store.submit(asks).result()
    assert asked == ((4 / 30, 30), (4.0, 1), 2.0, True, False, False, True)


def test_sums_over_hours_and_causes_have_what_is_not_written_yet(store: Store) -> None:
    def asks(tx: Transaction) -> tuple[int, ...]:
        for hours in range(5):
            tx.one_more("arrived:a", NOW - hours * HOUR)
        tx.one_more("arrived:b", NOW)
        tx.count("arrived:b", NOW)
        return (
            tx.total("arrived:a", NOW - 3 * HOUR, NOW), tx.total("arrived:a", NOW - HOUR, NOW),
            tx.total_of("arrived:", NOW - 2 * HOUR, NOW), tx.total_of("arrived:b", NOW, NOW),
        )  # fmt: skip

    assert store.submit(asks).result() == (4, 2, 5, 2)
    assert counts(store) == {"arrived:a": 5, "arrived:b": 2}


def test_what_one_unit_added_and_the_next_wrote_outlives_the_failure_of_the_next(store: Store) -> None:
    def fails(tx: Transaction) -> None:
        tx.one_more("a", NOW)
        assert tx.total_of("a", NOW, NOW) == 3  # which writes them
        raise ValueError

    together(store, lambda tx: tx.one_more("a", NOW), lambda tx: tx.one_more("a", NOW), fails)
    assert counts(store) == {"a": 2}


def test_what_is_forgotten_is_counted_anew(store: Store) -> None:
    def forgets(tx: Transaction) -> tuple[int, int, int]:
        tx.count("a:1", NOW)
        tx.count("a:1", NOW)
        tx.count("b", NOW - HOUR)
        tx.forget_counts("a:")
        return tx.count("a:1", NOW), tx.forget_rates(NOW), tx.count("b", NOW - HOUR)

    assert store.submit(forgets).result() == (1, 1, 1)
    assert counts(store) == {"a:1": 1, "b": 1}


def test_an_hour_without_counts_leaves_no_row_even_after_a_failure(store: Store) -> None:
    def fails(tx: Transaction) -> None:
        tx.count("other", NOW)
        raise ValueError

    together(store, lambda tx: tx.recent("none", NOW), fails)
    assert counts(store) == {}


def test_two_processes_count_together(store: Store) -> None:
    with Store.open(f"sqlite:///{store.path}") as other, ThreadPoolExecutor(2) as threads:

        def work(one: Store) -> None:
            for _ in range(50):
                one.submit(lambda tx: [tx.count("busy", NOW) for _ in range(4)]).result()

        list(threads.map(work, (store, other)))
    assert counts(store) == {"busy": 400}


def test_a_count_made_elsewhere_is_read_after_it_was_changed(tmp_path: Path, store: Store) -> None:
    with sqlite3.connect(store.path, isolation_level=None) as connection:
        rates = Rates(connection)
        assert [rates.count("a", NOW), rates.count("a", NOW)] == [1, 2]
        rates.read_anew()
        connection.execute("UPDATE rate SET count = 10")
        assert rates.count("a", NOW) == 11

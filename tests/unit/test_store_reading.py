"""Listings of any length come whole and in order, and the figures add up."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mailback.bounce.taxonomy import Action, Kind, Provenance
from mailback.store import Store
from mailback.store.readers import ReaderPool
from mailback.store.reading import EventFilter, Reads
from tests.support.records import NOW, a_suppression, an_event, do, end_all, in_days


def test_events_longer_than_a_page_come_whole_even_within_one_instant(store: Store) -> None:
    at = [NOW + timedelta(seconds=n // 700) for n in range(1400)]
    do(store, lambda t: [t.record(an_event(f"e{n}", at=at[n])) for n in range(1400)])
    forward = [event.id for event in store.events()]
    assert len(set(forward)) == 1400
    assert [event.id for event in store.events(newest_first=True)] == forward[::-1]
    assert [event.id for event in store.events(newest_first=True, limit=3)] == forward[:-4:-1]
    assert len(list(store.events(since=NOW + timedelta(seconds=1)))) == 700
    assert len(list(store.events(until=NOW + timedelta(seconds=1)))) == 700


def test_events_are_filtered_by_what_they_say(store: Store) -> None:
    do(store, lambda t: t.record(an_event("a", kind=Kind.DELAY, type="delayed_bounce")))
    do(store, lambda t: t.record(an_event("b", recipient_key="ann@example.org", subcategory="mailbox_full")))
    assert [e.identity for e in store.events(kind=Kind.DELAY)] == ["a"]
    assert [e.identity for e in store.events(type="hard_bounce")] == ["b"]
    assert [e.identity for e in store.events(key="ann@example.org", subcategory="mailbox_full")] == ["b"]
    assert list(store.events(key="ann@example.org", kind=Kind.DELAY)) == []


@pytest.mark.parametrize(
    ("which", "index"),
    [
        (EventFilter(), "ix_event_at_id"),
        (EventFilter(since=NOW, kind=Kind.BOUNCE), "ix_event_at_id"),
        (EventFilter(key="bob@example.org"), "ix_event_recipient_key_at_id"),
        (EventFilter(key="bob@example.org", since=NOW), "ix_event_recipient_key_at_id"),
    ],
)
def test_a_page_far_into_a_listing_is_found_by_an_index(store: Store, which: EventFilter, index: str) -> None:
    asked: list[str] = []

    class Listening(ReaderPool):
        def fetch(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
            asked.extend(row[3] for row in super().fetch(f"EXPLAIN QUERY PLAN {query}", parameters))
            return super().fetch(query, parameters)

    do(store, lambda t: [t.record(an_event(f"e{n}")) for n in range(501)])
    readers = Listening(store.path, busy_timeout_s=1)
    assert len(list(Reads(readers).events(which, newest_first=False, limit=None))) == 501
    readers.close()
    assert len(asked) == 2, "one step a page: no scan of the table, no sorting"
    assert all(index in step for step in asked)


def test_writing_while_a_listing_is_read_does_not_wait_for_it(store: Store) -> None:
    do(store, lambda t: [t.record(an_event(f"e{n}")) for n in range(600)])
    listing = store.events()
    next(listing)
    assert do(store, lambda t: t.record(an_event("meanwhile"))).new
    assert len(list(listing)) >= 599


def test_suppressions_longer_than_a_page_come_whole(store: Store) -> None:
    def fill(transaction: object) -> None:
        for n in range(600):
            for scope in ("all", "list:a"):
                transaction.suppress(a_suppression(address_key=f"u{n:04}@example.org", scope=scope), "m")  # type: ignore[attr-defined]

    do(store, fill)
    listed = [(s.address_key, s.scope) for s in store.suppressions()]
    assert len(listed) == 1200
    assert listed == sorted(listed)
    assert len(list(store.suppressions(scope="list:a"))) == 600


def test_the_active_list_leaves_out_what_is_lifted_or_over(store: Store) -> None:
    do(store, lambda t: t.suppress(a_suppression(address_key="for-ever", type="complaint"), "m"))
    do(store, lambda t: t.suppress(a_suppression(in_days(1), address_key="a-day"), "m"))
    do(store, lambda t: t.suppress(a_suppression(in_days(1), address_key="over"), "m"))
    end_all(store, "over")
    do(store, lambda t: t.suppress(a_suppression(address_key="lifted"), "m"))
    do(store, lambda t: t.lift("lifted", None, actor="ann", reason="typo"))
    assert [s.address_key for s in store.suppressions(active_at=in_days(0))] == ["a-day", "for-ever"]
    assert [s.address_key for s in store.suppressions(active_at=in_days(2))] == ["for-ever"]
    assert [s.address_key for s in store.suppressions(type="complaint")] == ["for-ever"]


def test_the_figures_of_a_period_add_up(store: Store) -> None:
    confidences = [0.7, 0.7, 0.95, 1.0, None]
    for n, confidence in enumerate(confidences):
        event = an_event(f"e{n}", confidence=confidence, processing_us=100 * (n + 1), action=Action.NO_ACTION)
        do(store, lambda t, e=event: t.record(e))  # type: ignore[misc]
    do(store, lambda t: t.record(an_event("delay", kind=Kind.DELAY, provenance=Provenance.SIGNED)))
    do(store, lambda t: t.record(an_event("old", at=NOW - timedelta(days=1))))
    do(store, lambda t: t.suppress(a_suppression(), "m"))
    stats = store.stats(NOW, NOW + timedelta(hours=1))
    assert stats.events == 6
    assert [(t.kind, t.type, t.subcategory, t.count) for t in stats.tallies] == [
        (Kind.BOUNCE, "hard_bounce", "user_unknown", 5),
        (Kind.DELAY, "hard_bounce", "user_unknown", 1),
    ]
    assert stats.tallies[0].mean_confidence == pytest.approx(3.35 / 4)
    assert stats.by_provenance == {"unproven": 5, "signed": 1}
    assert stats.by_action == {"no_action": 5}
    assert stats.confidence == {"0.7": 2, "0.9": 2}
    assert stats.processing_us == {"p50": 300, "p95": 500, "p99": 500, "max": 500}
    assert stats.suppressions_active == 1
    assert store.stats().suppression_changes == {"added": 1}
    assert store.stats().events == 7


def test_an_empty_store_has_figures_too(store: Store) -> None:
    stats = store.stats()
    assert (stats.events, stats.tallies, stats.confidence, stats.processing_us) == (0, [], {}, {})
    assert list(store.events()) == []
    assert store.explain("bob@example.org").events == []
    assert store.verify_audit().holds


def test_the_size_of_each_table_counts_its_indexes(store: Store) -> None:
    for number in range(200):
        do(store, lambda t, n=number: t.record(an_event(f"e{n}", recipient_key=f"u{n}@example.org")))  # type: ignore[misc]
    sizes = {table.name: table for table in store.sizes()}
    event = sizes["event"]
    assert event.rows == 200
    assert event.index_octets > 0
    assert event.octets_a_row is not None
    assert 200 < event.octets_a_row < 2000
    assert sizes["wave"].octets_a_row is None
    assert store.fold()
    told = sum(table.octets + table.index_octets for table in store.sizes())
    assert 0.8 < told / store.path.stat().st_size <= 1.0  # the schema and free pages are no table's

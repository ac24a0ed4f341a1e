"""Deadlines of the review: noted once, whoever looks, and over every restart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailback.bounce.taxonomy import Kind
from mailback.review.clock import Clock
from mailback.store import Store
from mailback.store.reading import ReviewFilter
from mailback.store.records import JournalEntry, Review
from tests.support.records import an_event, do
from tests.support.server import free_port, running, wait_for

NOW = datetime.now(UTC)


def queued(store: Store, name: str, due: datetime | None, at: datetime = NOW) -> int:
    event = an_event(name, at=at)
    item = Review(
        0, event.id, at, Kind.BOUNCE, event.recipient, event.recipient_key, "example.org", event.type,
        event.subcategory, None, 0.5, "require_approval", "unproven", False, None, None, due,
    )  # fmt: skip
    do(store, lambda t: (t.record(event), t.reviews.add(item)))
    made = do(store, lambda t: t.reviews.of_event(event.id))
    assert made is not None
    return made.id


def breaches(store: Store) -> list[object]:
    return [entry.detail["item"] for entry in store.audit_trail() if entry.verb == "breach"]


def test_a_missed_deadline_is_noted_once_whoever_looks_and_however_often(store: Store) -> None:
    late = queued(store, "late", NOW - timedelta(minutes=1))
    queued(store, "in time", NOW + timedelta(hours=1))
    queued(store, "at leisure", None)
    for clock in (Clock(None), Clock(None)):
        clock.look(store, NOW)
        clock.look(store, NOW + timedelta(minutes=1))
    assert breaches(store) == [late]
    assert [item.id for item in store.reviews() if item.breached_at] == [late]
    assert store.stats(NOW - timedelta(days=1)).review.breached == 1


def test_what_was_decided_is_no_longer_late(store: Store) -> None:
    queued(store, "late", NOW - timedelta(minutes=1))
    [item] = store.reviews()
    do(store, lambda t: t.reviews.settle([item.event_id], "approved", "operator:ann", ""))
    Clock(None).look(store, NOW)
    assert breaches(store) == []


def test_more_than_one_transaction_of_them_are_all_noted(store: Store) -> None:
    def add(transaction: object) -> None:
        for n in range(450):
            event = an_event(f"e{n}")
            item = Review(
                0, event.id, NOW, Kind.BOUNCE, None, None, None, None, None, None, None, "require_approval", "", False,
                None, None, NOW - timedelta(minutes=1),
            )  # fmt: skip
            transaction.reviews.add(item)  # type: ignore[attr-defined]

    do(store, add)
    Clock(None).look(store, NOW)
    assert len(breaches(store)) == 450


def test_what_nobody_decided_leaves_the_queue_and_nothing_is_done_about_it(store: Store) -> None:
    old = queued(store, "old", None, NOW - timedelta(days=91))
    new = queued(store, "new", None, NOW - timedelta(days=89))
    Clock(timedelta(days=90)).look(store, NOW)
    assert [item.id for item in store.reviews()] == [new]
    [gone] = store.reviews(ReviewFilter(state="expired"))
    assert (gone.id, gone.closed_by) == (old, "mailback")
    assert list(store.suppressions()) == []


def test_nothing_expires_where_nobody_wants_it(store: Store) -> None:
    queued(store, "old", None, NOW - timedelta(days=4000))
    Clock(None).look(store, NOW)
    assert len(list(store.reviews())) == 1


def test_a_store_in_trouble_stops_the_clock_only_as_long_as_it_lasts(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    late = queued(store, "late", NOW - timedelta(minutes=1))
    moved = tmp_path / "elsewhere.db"
    clock = Clock(None)
    store.path.rename(moved)
    clock.look(store, NOW)
    clock.look(store, NOW)
    moved.rename(store.path)
    clock.look(store, NOW)
    said = capfd.readouterr().err
    assert said.count("clock.unavailable") == 1
    assert said.count("clock.available") == 1
    assert breaches(store) == [late]


def test_the_service_notes_what_passed_while_it_was_down_and_not_again_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mailback.db"
    config = tmp_path / "mailback.toml"
    config.write_text(f"[store]\nurl = '{url}'\n[policyd]\nlisten = '127.0.0.1:{free_port()}'\n")
    with Store.open(url) as store:
        store.upgrade()
        late = queued(store, "late", NOW - timedelta(minutes=1))
        with running(config) as server:
            wait_for(lambda: breaches(store), what="the deadline is noted")
            wait_for(lambda: "clock.missed" in server.log(), what="the deadline is logged")
            assert server.stop() == 0
        with running(config) as server:
            soon = queued(store, "soon", datetime.now(UTC))
            wait_for(lambda: len(breaches(store)) > 1, what="the next deadline is noted")
            assert server.log().count("clock.missed") >= 1
        assert breaches(store) == [late, soon]


# Replies that nobody answers ---------------------------------------------------------------------------------------


def replied(store: Store, name: str, due: datetime, route: str = "notify_owner", intent: str = "interested") -> str:
    event = an_event(
        name, kind=Kind.REPLY, type=None, subcategory=None, intent=intent, route=route, due_at=due,
        at=due - timedelta(minutes=5), recipient=f"{name}@receiver.test", recipient_key=f"{name}@receiver.test",
    )  # fmt: skip
    do(store, lambda t: t.record(event))
    return event.id


def sent(store: Store, who: str, at: datetime) -> None:
    do(store, lambda t: t.journal(JournalEntry(at, "<1@sender.test>", "news@sender.test", (who,))))


def test_a_reply_that_nobody_answered_in_time_is_escalated_once(store: Store) -> None:
    sent(store, "other@receiver.test", NOW)
    first, second = Clock(None, unanswered=True), Clock(None, unanswered=True)
    first.look(store, NOW)
    waiting_for = replied(store, "ada", NOW + timedelta(minutes=1))
    replied(store, "bob", NOW + timedelta(minutes=1))
    replied(store, "eve", NOW + timedelta(minutes=1), route="auto_archive")
    replied(store, "later", NOW + timedelta(hours=1))
    sent(store, "bob@receiver.test", NOW)
    for clock in (first, second, first):
        clock.look(store, NOW + timedelta(minutes=2))
    [item] = store.reviews()
    assert (item.event_id, item.route, item.intent) == (waiting_for, "escalate", "interested")
    assert item.breached_at == NOW + timedelta(minutes=2)
    assert len([entry for entry in store.audit_trail() if entry.verb == "breach"]) == 1


def test_an_answer_that_came_late_closes_the_item(store: Store) -> None:
    sent(store, "other@receiver.test", NOW)
    clock = Clock(None, unanswered=True)
    clock.look(store, NOW)
    replied(store, "ada", NOW + timedelta(minutes=1))
    clock.look(store, NOW + timedelta(minutes=2))
    sent(store, "ada@receiver.test", NOW + timedelta(minutes=3))
    clock.look(store, NOW + timedelta(minutes=4))
    [item] = store.reviews(ReviewFilter(state="approved"))
    assert (item.closed_by, item.note) == ("mailback", "answered")


def test_where_the_journal_is_not_fed_nobody_can_tell_and_nothing_is_escalated(store: Store) -> None:
    sent(store, "other@receiver.test", NOW - timedelta(days=3))
    clock = Clock(None, unanswered=True)
    clock.look(store, NOW)
    replied(store, "ada", NOW + timedelta(minutes=1))
    clock.look(store, NOW + timedelta(minutes=2))
    assert list(store.reviews()) == []


def test_what_was_due_before_the_clock_ever_ran_is_left_alone_and_what_passed_while_it_was_down_is_not(
    store: Store,
) -> None:
    sent(store, "other@receiver.test", NOW)
    replied(store, "old", NOW - timedelta(days=2))
    Clock(None, unanswered=True).look(store, NOW)
    assert list(store.reviews()) == []
    replied(store, "ada", NOW + timedelta(minutes=1))
    Clock(None, unanswered=True).look(store, NOW + timedelta(hours=3))
    assert [item.recipient for item in store.reviews()] == ["ada@receiver.test"]


def test_more_than_fit_one_transaction_are_all_escalated_once(store: Store) -> None:
    sent(store, "other@receiver.test", NOW)
    clock = Clock(None, unanswered=True)
    clock.look(store, NOW)
    for n in range(450):
        replied(store, f"u{n}", NOW + timedelta(minutes=1))
    clock.look(store, NOW + timedelta(minutes=2))
    assert len(list(store.reviews())) == 450

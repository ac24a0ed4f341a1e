"""What must not be kept for ever, and what must not be forgotten with it: events past their retention."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from mailback.bounce.taxonomy import Kind
from mailback.cli.main import run
from mailback.store import Store, Transaction, database
from mailback.store.records import Event, Retry, Review, ScoreEntry, Step, Suppression
from tests.support.records import a_suppression, an_event, do, end_all

NOW = datetime.now(UTC)
OLD = NOW - timedelta(days=800)


def old(store: Store, identity: str, **fields: object) -> Event:
    event = an_event(identity, **({"at": OLD} | fields))
    do(store, lambda t: t.record(event))
    return event


def left(store: Store) -> set[str]:
    return {event.identity for event in store.events()}


def a_review(event: Event, **fields: object) -> Review:
    told: dict[str, object] = {
        "id": 0, "event_id": event.id, "at": event.at, "kind": Kind.REPLY, "recipient": event.recipient,
        "recipient_key": event.recipient_key, "domain": None, "type": None, "subcategory": None, "intent": "question",
        "confidence": 0.4, "route": "require_approval", "reason": "unsure", "alone": False, "text": "what I wrote",
        "wanted": None, "due": None, "breached_at": None,
    }  # fmt: skip
    return Review(**(told | fields))  # type: ignore[arg-type]


def _queue(event: Event, transaction: Transaction) -> bool:
    return transaction.reviews.add(a_review(event))


def _hold(suppression: Suppression, transaction: Transaction) -> bool:
    return transaction.suppress(suppression, "m")


def _enter(line: ScoreEntry, transaction: Transaction) -> bool:
    return transaction.enter(line)


def test_only_what_is_older_than_the_retention_goes(store: Store) -> None:
    old(store, "old")
    old(store, "young", at=NOW - timedelta(days=10))
    assert store.forget_events(NOW - timedelta(days=730)) == 1
    assert left(store) == {"young"}


def test_the_event_behind_a_standing_suppression_stays_until_that_is_over(store: Store) -> None:
    behind = old(store, "behind")
    old(store, "beside")
    do(store, lambda t: t.suppress(a_suppression(event_id=behind.id), "m"))
    store.forget_events(NOW)
    assert left(store) == {"behind"}
    do(store, lambda t: t.lift("bob@example.org", actor="me", reason="is back"))
    store.forget_events(NOW)
    assert left(store) == set()


def test_the_event_behind_a_suppression_that_ran_out_goes(store: Store) -> None:
    behind = old(store, "behind")
    until = NOW + timedelta(days=1)
    do(store, lambda t: t.suppress(a_suppression(until, event_id=behind.id), "m"))
    store.forget_events(NOW)
    assert left(store) == {"behind"}
    end_all(store)
    store.forget_events(NOW)
    assert left(store) == set()


def test_an_open_review_keeps_its_event_and_a_decided_one_goes_with_it(store: Store) -> None:
    waits, decided = old(store, "waits"), old(store, "decided")
    for event in (waits, decided):
        do(store, partial(_queue, event))
    do(store, lambda t: t.reviews.settle([decided.id], "approved", "me", "as told"))
    store.forget_events(NOW)
    assert left(store) == {"waits"}
    assert store.review_of(waits.id) is not None
    assert store.review_of(decided.id) is None, "what a person wrote would be kept for ever"


def test_a_message_still_to_be_sent_again_keeps_its_event(store: Store) -> None:
    event = old(store, "failed")
    waits = Retry(
        id=0, address_key="bob@example.org", address="Bob@Example.org", thread="<1@s>", message_id="<1@s>",
        retried_as=None, event_id=event.id, campaign=None, list_id=None, provider=None, type=None, subcategory=None,
        failures=1, first_at=OLD, failed_at=OLD, due_at=NOW, state="open", because="", closed_at=None,
    )  # fmt: skip
    do(store, lambda t: t.retries.put(waits))
    store.forget_events(NOW)
    assert left(store) == {"failed"}
    do(store, lambda t: t.retries.close_all("bob@example.org", "over", NOW))
    store.forget_events(NOW)
    assert left(store) == set()


def test_events_of_one_instant_and_those_that_stay_do_not_end_the_walk(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_FORGOTTEN_AT_ONCE", 3)
    kept = [old(store, f"kept{n}", recipient=f"k{n}@r.test", recipient_key=f"k{n}@r.test") for n in range(7)]
    for event in kept:
        held = a_suppression(address_key=event.recipient_key, address=event.recipient, event_id=event.id)
        do(store, partial(_hold, held))
    for number in range(10):
        old(store, f"gone{number}", at=OLD + timedelta(seconds=number // 5))
    assert store.forget_events(NOW) == 10
    assert left(store) == {event.identity for event in kept}


def test_a_ledger_is_swept_page_by_page_and_no_address_is_left_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_SWEPT_AT_ONCE", 4)
    for number in range(11):
        for days in (800, 799, 1):
            line = ScoreEntry(f"p{number:02}@r.test", Step.ALIVE, NOW - timedelta(days=days), f"e{days}", "delivered")
            do(store, partial(_enter, line))
    assert store.forget_scores(NOW - timedelta(days=400)) == 22
    assert [len(store.explain(f"p{number:02}@r.test").score) for number in range(11)] == [1] * 11


def test_maintenance_keeps_to_the_setting(store: Store, config: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    old(store, "old", at=NOW - timedelta(days=100))
    assert run(["store", "maintain", *config]) == 0
    assert left(store) == {"old"}
    with Path(config[1]).open("a") as file:
        file.write("retention_days = 90\n")
    capsys.readouterr()
    assert run(["store", "maintain", *config]) == 0
    assert "1 events were older than 90 days and are removed" in capsys.readouterr().out
    assert run(["events", "--json", *config]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == []

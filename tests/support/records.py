"""Events and suppressions for tests of the store, with everything that does not matter filled in."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from mailback.bounce.taxonomy import Kind
from mailback.store import Store, Transaction, new_id
from mailback.store.records import Event, Suppression

T = TypeVar("T")

NOW = datetime(2026, 5, 4, 12, 30, 15, 123456, tzinfo=UTC)


def an_event(identity: str = "one", **fields: object) -> Event:
    told: dict[str, object] = {
        "id": new_id(),
        "identity": identity,
        "at": NOW,
        "kind": Kind.BOUNCE,
        "source": "smtpd",
        "recipient": "Bob@Example.org",
        "recipient_key": "bob@example.org",
        "type": "hard_bounce",
        "subcategory": "user_unknown",
    }
    return Event(**(told | fields))  # type: ignore[arg-type]


def a_suppression(until: datetime | None = None, *, type: str = "hard_bounce", **fields: object) -> Suppression:  # noqa: A002
    told: dict[str, object] = {
        "address_key": "bob@example.org",
        "address": "Bob@Example.org",
        "scope": "all",
        "reason": f"{type}/x",
        "type": type,
        "subcategory": "user_unknown",
        "source": "event",
        "since": NOW,
        "until": until,
    }
    return Suppression(**(told | fields))  # type: ignore[arg-type]


def do(store: Store, work: Callable[[Transaction], T]) -> T:
    """Submit one unit and wait for its commit."""
    return store.submit(work).result(10)


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def end_all(store: Store, key: str | None = None) -> None:
    """Let suppressions run out (all, or those of one key), as time would."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("UPDATE suppression SET until = 1 WHERE address_key = coalesce(?, address_key)", (key,))

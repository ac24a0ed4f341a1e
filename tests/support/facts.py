"""Made-up lives of addresses: deliveries, soft and hard bounces, servers that are down, the same failure told twice.

`facts(count, seed)` gives the same observations every time, so that one process can go on where another was killed;
`digest` tells whether two stores have come to the same state.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mailback.bounce.taxonomy import Kind, Provenance
from mailback.envelope import Source
from mailback.observation import Observation
from mailback.reports.report import DeliveryFailure

_SAID = {
    "full": ("4.2.2", "452 4.2.2 The email account that you tried to reach is over quota"),
    "down": ("4.3.2", "421 4.3.2 System not accepting network messages"),
    "gone": ("5.1.1", "550 5.1.1 No such user here"),
}
_SHARES = {"delivered": 92, "full": 3, "down": 3, "gone": 2}
_FULL = {"delivered": 4, "full": 92, "down": 4}
"""Of one address in sixteen, whose mailbox is full for a while."""
_MESSAGES_AN_ADDRESS = 8
DAYS = 30

SETTINGS = "[policy]\nwave_minimum = 0\nunproven_per_hour = 0"
"""Waves and budgets are limits on what arrives together: by design they depend on when it does."""


def facts(count: int, seed: int, end: datetime) -> Iterator[Observation]:
    """`count` observations of the `DAYS` before `end`, in no order; one in twenty is a second report of another."""
    drawn = random.Random(seed)
    people = max(1, count // _MESSAGES_AN_ADDRESS)
    for number in range(count):
        told = drawn.randrange(number) if number and drawn.random() < 0.05 else number
        yield _fact(told, seed, people, end, late=told != number)


def addresses(count: int) -> Iterator[str]:
    """Whom `count` facts are about."""
    return map(_address, range(max(1, count // _MESSAGES_AN_ADDRESS)))


def _address(person: int) -> str:
    return f"user{person:07}@domain{person % 50}.example"


def _fact(number: int, seed: int, people: int, end: datetime, *, late: bool) -> Observation:
    drawn = random.Random(f"{seed}:{number}")
    person = drawn.randrange(people)
    shares = _FULL if person % 16 == 0 else _SHARES
    what = drawn.choices(list(shares), list(shares.values()))[0]
    at = end - timedelta(seconds=drawn.randrange((DAYS // 2 if shares is _FULL else DAYS) * 86400))
    who = _address(person)
    status, words = _SAID.get(what, ("2.0.0", "250 2.0.0 OK"))
    if late:
        at += timedelta(seconds=drawn.choice((-7200, -5, 5, 7200)))  # another clock, another report
    return Observation(
        at=at,
        kind=Kind.DELIVERED if what == "delivered" else Kind.BOUNCE,
        source=Source.LOG,
        dialect="postfix log",
        failure=DeliveryFailure(
            who, action="delivered" if what == "delivered" else "failed", status=status, smtp_code=words[:3],
            diagnostic=words,
        ),
        identity=f"{number}",
        message_id=f"<{number}.{seed}@sender.example>",
        grade=Provenance.AUTHENTICATED,
        because="our own log",
        sender="news@sender.example",
        queue_id=f"{number:X}",
    )  # fmt: skip


_STATE = {
    "event": "SELECT identity, at, kind, type, subcategory, provenance, permanent FROM event ORDER BY identity",
    "score": "SELECT address_key, step, at, cause, suppress_days, needed, window_days FROM score ORDER BY 1, 2, 3, 4",
    "suppression": "SELECT address_key, scope, type, subcategory, source, since, until FROM suppression"
    " WHERE lifted_at IS NULL AND (until IS NULL OR until > {now}) ORDER BY 1, 2",
    # Of what was closed the time is kept for whoever undoes that; it says nothing by itself.
    "retry": "SELECT address_key, thread, failures, first_at, failed_at, CASE state WHEN 'open' THEN due_at END, state"
    " FROM retry ORDER BY 1, 2",
    "subscriber": "SELECT address_key, list_id, status, opt_in_at, opt_out_at, bounce_status, bounce_count,"
    " bounce_until FROM subscriber ORDER BY 1, 2",
    "engagement": "SELECT * FROM engagement ORDER BY 1",
}
"""All that is known, but for ids, which are drawn by chance, and the history of how it came about."""


def digest(path: Path, now: datetime) -> dict[str, str]:
    """A hash of each table's state."""
    at = (now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    found = {}
    with closing(sqlite3.connect(path)) as connection:
        for name, query in _STATE.items():
            told = hashlib.sha256()
            count = 0
            for row in connection.execute(query.replace("{now}", str(at))):
                told.update(repr(row).encode())
                count += 1
            found[name] = f"{count} rows {told.hexdigest()[:16]}"
    return found

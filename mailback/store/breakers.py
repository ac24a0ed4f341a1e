"""The rows of breakers: read for every recipient that is asked about, written with the event that moves one.

A message that tries a half-open breaker is claimed in a transaction of its own, on a connection of its own, so that of
all processes that ask at the same time one gets it. Standard library only: the fronts that answer recipients import it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mailback.store import codec, sqlite
from mailback.store.records import Breaker

_COLUMNS = (
    "provider, side, sender, state, since, until, rule, reason, trips, pace_s, probe_every_s, probes_needed, quiet_s,"
    " probes, probe_at, probe_key, probe_token"
)
_MARKS = ",".join("?" * 17)
_PUT = f"INSERT OR REPLACE INTO breaker ({_COLUMNS}) VALUES ({_MARKS})"
_ONE = f"SELECT {_COLUMNS} FROM breaker WHERE provider = ? AND side = ? AND sender = ?"
ALL = f"SELECT {_COLUMNS} FROM breaker ORDER BY provider, side, sender"
STANDING = f"SELECT {_COLUMNS} FROM breaker WHERE state IN ('open', 'half_open')"
"""All that may hold mail."""
_STANDING_OF = f"SELECT {_COLUMNS} FROM breaker WHERE provider = ? AND state IN ('open', 'half_open')"


def row_of(breaker: Breaker) -> tuple[object, ...]:
    b = breaker
    return (
        codec.text(b.provider), b.side, codec.text(b.sender), b.state, codec.ticks(b.since),
        codec.optional_ticks(b.until), codec.text(b.rule), codec.text(b.reason), b.trips, b.pace_s, b.probe_every_s,
        b.probes_needed, b.quiet_s, b.probes, codec.optional_ticks(b.probe_at), b.probe_key,
        b.probe_token,
    )  # fmt: skip


def breaker_of(row: codec.Row) -> Breaker:
    values: dict[str, Any] = dict(zip(Breaker.__slots__, row, strict=True))
    values["since"] = codec.moment(values["since"])
    values["until"] = codec.optional_moment(values["until"])
    values["probe_at"] = codec.optional_moment(values["probe_at"])
    return Breaker(**values)


def find(connection: sqlite3.Connection, provider: str, side: str, sender: str) -> Breaker | None:
    row = connection.execute(_ONE, (provider, side, sender)).fetchone()
    return breaker_of(row) if row else None


def standing(connection: sqlite3.Connection, provider: str) -> list[Breaker]:
    """Those of a provider that are not written as closed."""
    return [breaker_of(row) for row in connection.execute(_STANDING_OF, (provider,)).fetchall()]


def any_standing(connection: sqlite3.Connection) -> bool:
    """Whether any is not written as closed."""
    return (
        connection.execute("SELECT 1 FROM breaker WHERE state IN ('open', 'half_open') LIMIT 1").fetchone() is not None
    )


def put(connection: sqlite3.Connection, breaker: Breaker) -> None:
    connection.execute(_PUT, row_of(breaker))


def claim(path: Path, breaker: Breaker, step: Callable[[Breaker], Breaker | None]) -> bool:
    """Whether `step` lets a message pass the breaker as it is now; what `step` makes of it is kept.

    Raises StoreUnavailable when that cannot be written within a second: then nobody may pass.
    """
    with sqlite.claiming(path) as connection:
        now = find(connection, breaker.provider, breaker.side, breaker.sender)
        then = step(now) if now is not None else None
        if then is not None and then is not now:
            put(connection, then)
    return then is not None or now is None

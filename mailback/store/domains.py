"""What is known of recipient domains: who runs their mail. Written by whoever learns it, read by every process.

A name that nobody knows is wished for; the watch of `serve` asks DNS for it. What is known goes on being used after its
time, until DNS was asked again. Standard library only.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

from mailback.store import codec, sqlite
from mailback.store.errors import unavailable
from mailback.store.readers import ReaderPool
from mailback.store.records import MailDomain

Find = Callable[[str], tuple[MailDomain, bool] | None]
"""What is known of a domain, and whether it is fresh."""

ONE = "SELECT name, mail, hosts, provider, source, at, expires_at FROM domain WHERE name = ?"
WISHED = "SELECT name FROM domain WHERE expires_at = 0 LIMIT ?"
_WISH = (
    "INSERT INTO domain (name, mail, hosts, provider, source, at, expires_at)"
    " VALUES (?, 'unknown', '[]', NULL, 'dns', 0, 0)"
    " ON CONFLICT (name) DO UPDATE SET expires_at = 0 WHERE domain.expires_at BETWEEN 1 AND ?"
)
_PUT = (
    "INSERT OR REPLACE INTO domain (name, mail, hosts, provider, source, at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
# A report tells who answered, which is a relay of ours where mail goes out through one: DNS outranks it.
_LEARN = (
    "INSERT INTO domain (name, mail, hosts, provider, source, at, expires_at)"
    " VALUES (?, 'unknown', '[]', ?, 'report', ?, 0)"
    " ON CONFLICT (name) DO UPDATE SET provider = excluded.provider, source = 'report', at = excluded.at"
    " WHERE domain.mail = 'unknown' AND domain.provider IS NOT excluded.provider"
)

_LIFE = timedelta(days=3)
_UNANSWERED_LIFE = timedelta(minutes=15)
_MOST_WISHED = 10_000
"""Names that wait for DNS: reports may name any number that do not exist."""


def domain_of(row: codec.Row) -> tuple[MailDomain, int]:
    """The record, and until when it is fresh (0: asked for at once)."""
    name, mail, hosts, provider, source, at, expires_at = row
    return MailDomain(
        name, mail, tuple(json.loads(hosts)), provider, source, codec.moment(at) if at else None
    ), expires_at


class DomainLookup:
    """What is known of domains, for reading. Thread-safe; opens nothing until first asked."""

    def __init__(self, path: Path, *, busy_timeout_s: float = 1.0) -> None:
        self._readers = ReaderPool(path, busy_timeout_s=busy_timeout_s)

    def find(self, name: str) -> tuple[MailDomain, bool] | None:
        """What is known of a domain, and whether it is fresh. Raises StoreUnavailable."""
        rows = self._readers.fetch(ONE, (name,))
        if not rows:
            return None
        found, expires_at = domain_of(rows[0])
        return found, expires_at > time.time_ns() // 1000

    def close(self) -> None:
        self._readers.close()


def wish(connection: sqlite3.Connection, names: Iterable[str], now: datetime) -> None:
    """Have DNS asked for these, unless what is known of them is fresh."""
    waiting = connection.execute("SELECT count(*) FROM (SELECT 1 FROM domain WHERE expires_at = 0 LIMIT ?)",
                                 (_MOST_WISHED,)).fetchone()[0]  # fmt: skip
    if waiting < _MOST_WISHED:
        connection.executemany(_WISH, [(codec.text(name), codec.ticks(now)) for name in names])


def wish_apart(path: Path, names: Iterable[str], now: datetime) -> None:
    """The same in a transaction of its own, for a process that does not write else. Raises StoreUnavailable."""
    try:
        connection = sqlite.connect_writing(path)
        try:
            connection.execute("PRAGMA busy_timeout = 1000")
            connection.execute("BEGIN IMMEDIATE")
            wish(connection, names, now)
            connection.execute("COMMIT")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise unavailable(error, path) from error


def put(connection: sqlite3.Connection, found: MailDomain, now: datetime) -> None:
    """Keep what DNS said, or that it said nothing: then what was known stays, and DNS is asked again later."""
    if found.mail == "unknown":
        connection.execute(
            "UPDATE domain SET expires_at = ? WHERE name = ?", (codec.ticks(now + _UNANSWERED_LIFE), found.name)
        )
        return
    connection.execute(
        _PUT,
        (
            codec.text(found.name), found.mail, json.dumps(found.hosts), found.provider, found.source,
            codec.ticks(now), codec.ticks(now + _LIFE),
        ),
    )  # fmt: skip


def learn(connection: sqlite3.Connection, name: str, provider: str, now: datetime) -> None:
    """A server of this provider spoke for a domain."""
    connection.execute(_LEARN, (codec.text(name), provider, codec.ticks(now)))


def forget(connection: sqlite3.Connection, before: datetime) -> int:
    """Remove what was asked for before that time and nobody asked for since; how many."""
    return connection.execute(
        "DELETE FROM domain WHERE at < ? AND expires_at BETWEEN 1 AND ?", (codec.ticks(before), codec.ticks(before))
    ).rowcount

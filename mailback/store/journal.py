"""The journal's questions, asked of any connection: what went out, to whom, under which return path.

The answers prove what comes back, so they must be cheap enough for every bounce: each is one query on an index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from mailback.store import codec
from mailback.store import statements as sql
from mailback.store.records import JournalEntry

Fetch = Callable[[str, tuple[object, ...]], list[tuple[Any, ...]]]

MOST = 100
"""Entries of one answer, unless the caller asks for another number."""
_ALWAYS = 2**62


def to_recipient(fetch: Fetch, message_id: str, key: str) -> JournalEntry | None:
    """The first entry by which this message went to this recipient (`address.key`); tells that recipient only."""
    rows = fetch(sql.JOURNAL_TO_RECIPIENT, (key, message_id))
    return codec.journal_of(rows[0][:-1], (rows[0][-1],)) if rows else None


def by_message_id(fetch: Fetch, message_id: str, most: int = MOST) -> list[JournalEntry]:
    """The entries of a Message-ID (with its angle brackets), the latest first, each with all its recipients."""
    return _grouped(fetch(sql.JOURNAL_BY_MESSAGE_ID, (message_id, most)))


def by_return_path(fetch: Fetch, local_part: str, most: int = MOST) -> list[JournalEntry]:
    """The entries that went out under a signed return path, the latest first."""
    return _grouped(fetch(sql.JOURNAL_BY_RETURN_PATH, (local_part.lower(), most)))


def by_recipient(
    fetch: Fetch, key: str, since: datetime | None = None, until: datetime | None = None, most: int = MOST
) -> list[JournalEntry]:
    """What went to a recipient in a period (`until` exclusive), the latest first; each tells that recipient only."""
    start = codec.ticks(since) if since else -_ALWAYS
    end = codec.ticks(until) if until else _ALWAYS
    rows = fetch(sql.JOURNAL_BY_RECIPIENT, (key, start, end, most))
    return [codec.journal_of(row[:-1], (row[-1],)) for row in rows]


def _grouped(rows: Iterable[tuple[Any, ...]]) -> list[JournalEntry]:
    """Rows of message and recipient, those of one message next to each other, as entries."""
    found: list[JournalEntry] = []
    head: tuple[Any, ...] | None = None
    recipients: list[str] = []
    for row in rows:
        if head is not None and row[0] != head[0]:
            found.append(codec.journal_of(head, tuple(recipients)))
            recipients = []
        head = row[:-1]
        if row[-1] is not None:
            recipients.append(row[-1])
    if head is not None:
        found.append(codec.journal_of(head, tuple(recipients)))
    return found

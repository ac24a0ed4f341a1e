"""The journal's questions, asked of any connection: what went out, to whom, under which return path.

The answers prove what comes back, so they must be cheap enough for every bounce: each is one query on an index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from mailback.store import codec
from mailback.store import statements as sql
from mailback.store.records import JournalEntry

Fetch = Callable[[str, tuple[object, ...]], list[tuple[Any, ...]]]

WRITTEN = "left:journal"
"""What recipients of entries are counted as by the hour (`rates`)."""
MOST = 100
"""Entries of one answer, unless the caller asks for another number."""
_ALWAYS = 2**62
_NO_NEWS = timedelta(days=1)
"""After so long without news a message is taken to have arrived: a server that refuses it says so at once."""
_NEIGHBOURS = timedelta(hours=2)
_WENT_THROUGH = (
    "SELECT 1 FROM journal_recipient AS sent WHERE sent.recipient_key = ? AND sent.at >= ? AND sent.at < ?"
    " AND NOT EXISTS (SELECT 1 FROM event WHERE event.recipient_key = sent.recipient_key AND event.at >= sent.at"
    " AND event.at < ? AND event.kind = 'bounce') LIMIT 1"
)
_LEFT_BEFORE = (
    "SELECT journal_recipient.recipient_key, journal.at FROM journal"
    " JOIN journal_recipient ON journal_recipient.journal_id = journal.id"
    " WHERE journal.at <= ? AND journal.at >= ? ORDER BY journal.at DESC LIMIT ?"
)
_FAILED_SINCE = "SELECT 1 FROM event WHERE recipient_key = ? AND at >= ? AND kind = 'bounce' AND permanent LIMIT 1"


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


def went_through(fetch: Fetch, key: str, since: datetime, before: datetime) -> bool:
    """Whether anything that went to a recipient since then, a day before `before` at least, did not come back."""
    until = codec.ticks(before)
    return bool(fetch(_WENT_THROUGH, (key, codec.ticks(since), codec.ticks(before - _NO_NEWS), until)))


def left_before(fetch: Fetch, at: datetime, most: int) -> list[tuple[str, datetime]]:
    """Recipients of the messages that left within two hours up to `at`, the latest first, each with its time."""
    rows = fetch(_LEFT_BEFORE, (codec.ticks(at), codec.ticks(at - _NEIGHBOURS), most))
    return [(key, codec.moment(sent)) for key, sent in rows]


def failed_since(fetch: Fetch, key: str, since: datetime) -> bool:
    """Whether an event from then on says that mail to a recipient failed for good."""
    return bool(fetch(_FAILED_SINCE, (key, codec.ticks(since))))


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

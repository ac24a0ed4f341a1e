"""The front of the store: open it in the process that uses it, submit work, ask questions.

    store = Store.open("sqlite:////var/lib/mailback/mailback.db")
    store.upgrade()
    recorded = store.submit(lambda transaction: transaction.record(event)).result()

Opening touches no file and starts no thread; both happen at first use. A store must be opened after a fork.

Told to the `report` callback: see `writer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mailback.bounce.taxonomy import Kind
from mailback.store import (
    breakers,
    captures,
    checking,
    domains,
    engagement,
    erasure,
    expiry,
    history,
    journal,
    places,
    raws,
    retries,
    sizes,
    sqlite,
    subscribers,
    waves,
)
from mailback.store import upgrade as migration
from mailback.store.audit import Verification
from mailback.store.batches import Batches, Report
from mailback.store.checking import Problem
from mailback.store.errors import StoreUnavailable
from mailback.store.history import History
from mailback.store.lookup import SuppressionLookup
from mailback.store.loop_writer import LoopWriter
from mailback.store.readers import ReaderPool
from mailback.store.reading import EventFilter, Reads, ReviewFilter
from mailback.store.records import (
    AuditEntry,
    Breaker,
    Capture,
    Engagement,
    Event,
    Explanation,
    JournalEntry,
    MailDomain,
    Place,
    Retry,
    Review,
    Stats,
    Subscriber,
    SubscriberChange,
    Suggestion,
    Suppression,
    Wave,
)
from mailback.store.sizes import TableSize
from mailback.store.transaction import Transaction
from mailback.store.writer import Writer

T = TypeVar("T")

_WAITING_UNITS = 4096
_FORGOTTEN_AT_ONCE = 500
_SWEPT_AT_ONCE = 5000
_PAGE = 500
_LOOP_BATCH = 100
"""Units that an event loop runs at once: some 20 ms of work, in which nothing else is answered."""


class Store:
    """One process's way to the database. Thread-safe."""

    def __init__(
        self, url: str, *, busy_timeout_s: float = 5.0, batch: int = 500, report: Report | None = None
    ) -> None:
        self.path: Path = sqlite.database_path(url)
        self._lookup = SuppressionLookup(url, busy_timeout_s=busy_timeout_s)
        self._readers = ReaderPool(self.path, busy_timeout_s=busy_timeout_s)
        self._reads = Reads(self._readers)
        self._domains = domains.DomainLookup(self.path, busy_timeout_s=busy_timeout_s)
        self._busy_timeout_s = busy_timeout_s
        self._report = report
        self._writer: Writer | LoopWriter = Writer(
            Batches(self.path, busy_timeout_s=busy_timeout_s, report=report), batch=batch, capacity=_WAITING_UNITS
        )

    @classmethod
    def open(cls, url: str, *, busy_timeout_s: float = 5.0, batch: int = 500, report: Report | None = None) -> Store:
        """The store at `url`. Raises StoreUnavailable for a URL that cannot be used; touches no file yet."""
        return cls(url, busy_timeout_s=busy_timeout_s, batch=batch, report=report)

    def close(self) -> None:
        """Commit what is queued and let go of the database. Safe to call twice."""
        self._writer.close()
        self._lookup.close()
        self._readers.close()
        self._domains.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def upgrade(self) -> bool:
        """Create the database if there is none, and bring it to this version's schema. True when anything changed."""
        return migration.upgrade(self.path)

    @property
    def trouble(self) -> StoreUnavailable | None:
        """Why the last commit failed; None while all is well."""
        return self._writer.trouble

    def work_on_loop(self) -> None:
        """Write on the event loop that runs now, from here on: see `loop_writer`. Before the first unit."""
        if not isinstance(self._writer, Writer) or self._writer.used:
            raise RuntimeError("the store writes already")
        batches = Batches(self.path, busy_timeout_s=self._busy_timeout_s, report=self._report, polls=False)
        self._writer = LoopWriter(batches, batch=_LOOP_BATCH, capacity=_WAITING_UNITS)

    def submit(self, work: Callable[[Transaction], T], *, large: bool = False) -> Future[T]:
        """Run `work` in a transaction shared with whatever else waits: on the writer thread, or after `work_on_loop`
        on the loop, unless it is called `large`.

        The future resolves with what `work` returned, after the COMMIT reached the disk; with the exception `work`
        raised (its changes undone, the others' kept); or with StoreUnavailable, and then nothing was kept.
        """
        return self._writer.submit(work, large=large)

    def lookup(self, key: str, scopes: Sequence[str] = ("all",), now: datetime | None = None) -> Suppression | None:
        """See `SuppressionLookup.lookup`."""
        return self._lookup.lookup(key, scopes, now)

    def last(self, key: str, scopes: Sequence[str] = ("all",), now: datetime | None = None) -> Suppression | None:
        """See `SuppressionLookup.last`."""
        return self._lookup.last(key, scopes, now)

    def events(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        kind: Kind | None = None,
        key: str | None = None,
        type: str | None = None,  # noqa: A002 - the word of the domain
        subcategory: str | None = None,
        intent: str | None = None,
        route: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[Event]:
        """The events that meet every condition given, by time; read page by page, so any number of them fits."""
        which = EventFilter(since, until, kind, key, type, subcategory, intent, route)
        return self._reads.events(which, newest_first=newest_first, limit=limit)

    def suppressions(
        self,
        *,
        scope: str | None = None,
        active_at: datetime | None = None,
        type: str | None = None,  # noqa: A002
        over_at: datetime | None = None,
    ) -> Iterator[Suppression]:
        """The suppression list by address, page by page; with `active_at` only what holds mail back at that time.

        With `over_at` what ran out by then, of addresses that nothing else holds and nothing was seen of since: no
        delivery, no open, no click.
        """
        return self._reads.suppressions(scope=scope, active_at=active_at, type=type, over_at=over_at)

    def find_journal(
        self,
        *,
        message_id: str | None = None,
        return_path: str | None = None,
        key: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = journal.MOST,
    ) -> list[JournalEntry]:
        """What went out, the latest first: by Message-ID, by the local part of a signed return path, or by recipient.

        Exactly one of the three is asked for; `since` and `until` go with `key`. With `message_id` and `key` together,
        the one entry by which that message went to that recipient, if it did.
        """
        fetch = self._readers.fetch
        if message_id is not None and key is not None:
            found = journal.to_recipient(fetch, message_id, key)
            return [found] if found else []
        if message_id is not None:
            return journal.by_message_id(fetch, message_id, limit)
        if return_path is not None:
            return journal.by_return_path(fetch, return_path, limit)
        if key is None:
            raise ValueError("a Message-ID, a return path or a recipient must be given")
        return journal.by_recipient(fetch, key, since, until, limit)

    def journal(
        self, *, since: datetime | None = None, until: datetime | None = None, limit: int | None = None
    ) -> Iterator[JournalEntry]:
        """What went out in a period, the latest first; read page by page."""
        return self._reads.journal(since, until, limit)

    def forget_journal(self, before: datetime) -> int:
        """Remove the entries from before that time, some hundreds a transaction, so that mail goes on meanwhile."""
        return self._until_none(lambda transaction: transaction.forget_journal(before, _FORGOTTEN_AT_ONCE))

    def engagement(self, key: str) -> Engagement | None:
        """What a recipient (`address.key`) did with our mail: arrived, opened, clicked; None where nothing is known."""
        return engagement.find(self._readers.fetch, key)

    def engagements(self, keys: Iterable[str]) -> dict[str, Engagement]:
        """The same of many recipients, asked at once; without those of whom nothing is known."""
        return engagement.find_all(self._readers.fetch, keys)

    def place(self, name: str) -> Place | None:
        """How far something was read; None where it never was."""
        return places.find(self._readers.fetch, name)

    def places(self, prefix: str) -> list[Place]:
        """All places whose names begin so."""
        return places.below(self._readers.fetch, prefix)

    def reviews(self, which: ReviewFilter | None = None, *, limit: int | None = None) -> Iterator[Review]:
        """What waits for a person, the most pressing first; read page by page. By default what is open."""
        return self._reads.reviews(which or ReviewFilter(), limit)

    def review(self, number: int) -> Review | None:
        """One item of the review."""
        return self._reads.review(number)

    def review_of(self, event_id: str) -> Review | None:
        """The item of an event."""
        return self._reads.review_of(event_id)

    def suggestion(self, event_id: str) -> Suggestion | None:
        """What an endpoint said about an event."""
        return self._reads.suggestion(event_id)

    def event(self, event_id: str) -> Event | None:
        """One event by its id."""
        return self._reads.event(event_id)

    def retries_due(self, now: datetime | None = None, *, limit: int = 1000) -> list[Retry]:
        """Messages that should be sent again now, to recipients that may be mailed; the longest due first."""
        return retries.due(self._readers.fetch, now or datetime.now(UTC), limit)

    def retries(self, key: str | None = None) -> Iterator[Retry]:
        """What waits for its time, or was sent again and has no outcome; of an address all, whatever became of it."""
        if key is not None:
            yield from map(retries.retry_of, self._readers.fetch(retries.OF_ADDRESS, (key,)))
            return
        after = 0
        while rows := self._readers.fetch(retries.LISTED, (after, _PAGE)):
            yield from map(retries.retry_of, rows)
            after = rows[-1][0]

    def retry(self, number: int) -> Retry | None:
        """One message that is or was worth sending again."""
        return retries.find(self._readers.fetch, number)

    def forget_events(self, before: datetime) -> int:
        """Remove events from before that time, some hundreds a transaction; those that something stands on stay."""
        return self._walk(expiry.START, partial(_forget_events, before))

    def forget_scores(self, before: datetime) -> int:
        """Remove lines of score ledgers from before that time, some thousands a transaction; those of addresses that
        are suppressed for ever stay."""
        return self._walk((expiry.LEDGER.start,), partial(_sweep, expiry.LEDGER, before))

    def forget_reading(self, before: datetime) -> int:
        """Remove places that were not come to since that time, and hashes of opens and clicks from before it.

        What is read again after that is the same events; of opens and clicks it would be counted anew.
        """
        places_left = self.submit(lambda transaction: transaction.forget_places(before)).result()
        return places_left + self._walk((expiry.READINGS.start,), partial(_sweep, expiry.READINGS, before))

    def _until_none(self, forget: Callable[[Transaction], int]) -> int:
        """Remove some rows a transaction until there are none; how many were removed."""
        total = 0
        while removed := self.submit(forget).result():
            total += removed
        return total

    def _walk(self, start: tuple[Any, ...], step: Callable[[tuple[Any, ...], Transaction], expiry.Page]) -> int:
        """Take one step a transaction until there is no further page; how many rows were removed."""
        total = 0
        place: tuple[Any, ...] | None = start
        while place is not None:
            page = self.submit(partial(step, place)).result()
            total += page.removed
            place = page.last
        return total

    def raw(self, sha256: str) -> bytes | None:
        """A message as it came in, by the hash that its events have; None where it is not kept."""
        return raws.find(self._readers.fetch, sha256)

    def forget_raws(self, before: datetime) -> int:
        """Remove messages as they came in from before that time, some hundreds a transaction."""
        return self._until_none(lambda transaction: transaction.forget_raws(before, _FORGOTTEN_AT_ONCE))

    def forget_captures(self, before: datetime) -> int:
        """Remove attempts to enter an address from before that time, some hundreds a transaction."""
        return self._until_none(lambda transaction: transaction.forget_captures(before, _FORGOTTEN_AT_ONCE))

    def subscribers(self) -> Iterator[Subscriber]:
        """Everybody on every list, by address; read page by page."""
        return subscribers.everybody(self._readers.fetch)

    def subscriptions(self, key: str) -> tuple[list[Subscriber], list[SubscriberChange]]:
        """An address on each of its lists, and what became of it there, oldest first."""
        return subscribers.of_address(self._readers.fetch, key), subscribers.changes(self._readers.fetch, key)

    def subscriber_by_id(self, external_id: str) -> Subscriber | None:
        """Whom another system knows by this id."""
        return subscribers.by_id(self._readers.fetch, external_id)

    def waves(self, *, only_open: bool = False) -> list[Wave]:
        """Bursts that were frozen, the latest first."""
        found = [waves.wave_of(row) for row in self._readers.fetch(waves.ALL_WAVES)]
        return [wave for wave in found if wave.state == "open"] if only_open else found

    def breakers(self) -> list[Breaker]:
        """Every breaker that ever tripped, as it was written last (`mailback.policy.breaker.at` tells it of now)."""
        return [breakers.breaker_of(row) for row in self._readers.fetch(breakers.ALL)]

    def mail_domain(self, name: str) -> tuple[MailDomain, bool] | None:
        """What is known of a recipient's domain (as A-labels), and whether it is fresh."""
        return self._domains.find(name)

    def key_is_lost(self) -> bool:
        """Whether addresses were erased and the key that their hashes were made with is not there: they are mailed."""
        return not erasure.key_file(self.path).exists() and bool(self._readers.fetch(erasure.ANY, ()))

    def wished_domains(self, limit: int) -> list[str]:
        """Domains that DNS is to be asked about."""
        return [name for (name,) in self._readers.fetch(domains.WISHED, (limit,))]

    def captures(self, key: str) -> list[Capture]:
        """The attempts to enter an address, the oldest first."""
        return [captures.capture_of(row) for row in self._readers.fetch(captures.OF_ADDRESS, (key,))]

    def histories(self, keys: Sequence[str]) -> dict[str, History]:
        """What is known of each of up to `history.MOST` addresses; who is not known is not in it."""
        found = history.of(self._readers.fetch, keys)
        hashes = {hashed: key for key in keys if (hashed := self._lookup.hashed(key)) is not None}
        for hashed, erased in history.of(self._readers.fetch, list(hashes)).items() if hashes else ():
            found.setdefault(hashes[hashed], erased).suppressions = erased.suppressions
        return found

    def watches_waves(self) -> bool:
        """Whether a share of what fails can be taken: anything told within a week what arrives, or what left. Where
        nothing has failed yet, nothing is missing."""
        asked = (
            "SELECT NOT EXISTS (SELECT 1 FROM rate WHERE cause >= 'bounced:' AND cause < 'bounced:\x7f')"
            " OR EXISTS (SELECT 1 FROM rate WHERE cause = 'arrived') OR EXISTS (SELECT 1 FROM journal)"
        )
        return bool(self._readers.fetch(asked)[0][0])

    def last_journalled(self) -> int:
        """The number of the latest entry of the journal; 0 where there is none."""
        return int(self._readers.fetch("SELECT coalesce(max(id), 0) FROM journal")[0][0])

    def recipients_after(self, number: int, limit: int) -> list[tuple[int, str]]:
        """Recipients (number of the entry, key) of entries after that one, in their order."""
        return [
            (int(entry), str(key))
            for entry, key in self._readers.fetch(
                "SELECT journal_id, recipient_key FROM journal_recipient WHERE journal_id > ?"
                " ORDER BY journal_id LIMIT ?",
                (number, limit),
            )
        ]

    def explain(self, key: str) -> Explanation:
        """All that is known about one address; of one that was erased, what stands in its place."""
        found = self._reads.explain(key)
        if (hashed := self._lookup.hashed(key)) is not None:
            erased = self._reads.explain(hashed)
            found = replace(
                found,
                suppressions=erased.suppressions + found.suppressions,
                changes=erased.changes + found.changes,
            )
        return found

    def stats(self, since: datetime | None = None, until: datetime | None = None) -> Stats:
        """A period in figures; `until` is exclusive."""
        return self._reads.stats(since, until)

    def audit_trail(self, *, subject: str | None = None, after: int = 0) -> Iterator[AuditEntry]:
        """The audit trail from the row behind `after` on, all of it or about one address key."""
        return self._reads.audit_trail(subject=subject, after=after)

    def verify_audit(self) -> Verification:
        """Walk the whole hash chain; tells the first row that is missing, moved or changed."""
        return self._reads.verify_audit()

    def fold(self) -> bool:
        """Fold the write-ahead log back and refresh statistics; False when readers kept part of the log in use.

        Raises StoreUnavailable.
        """
        return sqlite.fold(self.path)

    def sizes(self) -> list[TableSize]:
        """How much room each table takes, the largest first; reads the whole file."""
        return sizes.sizes(self._readers.fetch)

    def check(self) -> list[Problem]:
        """What is wrong with the database, and what to do; reads all of it. Empty: all is well."""
        return checking.problems(self.path, self._readers, self.verify_audit)


def _forget_events(before: datetime, after: tuple[Any, ...], transaction: Transaction) -> expiry.Page:
    return transaction.forget_events(before, after, _FORGOTTEN_AT_ONCE)


def _sweep(which: expiry.Sweep, before: datetime, after: tuple[Any, ...], transaction: Transaction) -> expiry.Page:
    return transaction.sweep(which, before, after, _SWEPT_AT_ONCE)

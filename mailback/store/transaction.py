"""What one unit of work may do to the store. Runs on the writer thread, inside the batch's transaction and a savepoint.

A unit sees everything the units before it in the batch did. It must not keep the `Transaction` for later, nor commit.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from mailback import address
from mailback.bounce.taxonomy import Action, Kind, Provenance, Subcategory, Type
from mailback.returnpath.keys import UNSUBSCRIBE_DAYS
from mailback.store import audit as trail
from mailback.store import (
    breakers,
    captures,
    codec,
    domains,
    engagement,
    erasure,
    expiry,
    journal,
    places,
    precedence,
    probes,
    raws,
    retries,
    reviews,
    scores,
    subscribers,
    suggestions,
    surges,
    waves,
)
from mailback.store import statements as sql
from mailback.store.ids import new_id
from mailback.store.rates import Rates, hour_of
from mailback.store.records import (
    CLOCK_ERROR,
    GONE,
    SCORE,
    Breaker,
    Capture,
    Engagement,
    Event,
    JournalEntry,
    MailDomain,
    Place,
    Probe,
    Reading,
    ScoreEntry,
    Step,
    Suggestion,
    Suppression,
)
from mailback.store.traces import BOUNCE, FAILURE, LEDGER, SUPPRESSION, Traces

_LONGEST_IDENTITY = 200
_ALONE_MOST = 20_000
_FIRST_RAISED = 3  # id, identity and at of an event stay when a better report raises it
_FAILED_BESIDE = (
    "SELECT 1 FROM event WHERE recipient_key = ? AND at >= ? AND at <= ? AND kind IN ('bounce', 'delay') AND id <> ?"
    " LIMIT 1"
)


class Recorded(NamedTuple):
    """What became of an event handed to the store."""

    event_id: str
    """Of the row that stands for the event: the first report's, when it was seen before."""
    new: bool
    better: bool
    """Seen before with less proof or confidence, now raised: a suppression that lacked it may now be due."""


class Transaction:
    """The store as one unit of work sees it."""

    __slots__ = (
        "_alone", "_calm", "_connection", "_even", "_journalled", "_noted", "_rates", "_tail", "_traces", "surges",
    )  # fmt: skip

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tail: trail.Tail | None = None
        self._traces = Traces(connection)
        self._rates = Rates(connection)
        self._alone: dict[str, ScoreEntry] = {}
        """Of addresses whose ledger was begun in this batch, the one line that it has."""
        # What is asked once for the whole batch; None: not yet.
        self._calm: bool | None = None
        """Whether no breaker stands at all."""
        self._even: bool | None = None
        """Whether no wave is open at all."""
        self._journalled: bool | None = None
        """Whether the journal has any entry."""
        self.surges = surges.Surges(connection)
        """What outnumbers what at the moment."""
        self._noted: set[tuple[str, int]] = set()
        """Hours that were noted already, each once a batch."""

    def expect(self, keys: Iterable[str]) -> None:
        """Say whom what follows is about: what is known of many addresses is quicker found at once."""
        self._traces.ask(keys)

    def record(self, event: Event) -> Recorded:
        """Add the event, unless its identity is known; a known one is raised when this report is better.

        Better is what is better proven, and of two equally proven reports the one that is surer. An event without an
        id gets one. Raising replaces what the better report tells and keeps what it does not; the id stays that of the
        first report. The time is the earliest that any of them told, whichever came first, and `event.at` is set to it.
        """
        identity, told = _bounded_identity(event.identity), event
        if not event.id or identity is not event.identity:
            event = replace(event, id=event.id or new_id(), identity=identity)
        row = codec.event_row(event)
        if self._connection.execute(sql.INSERT_EVENT, row).rowcount == 1:
            return Recorded(event.id, new=True, better=False)
        known, at, *verdict = self._connection.execute(sql.FIND_EVENT, (identity,)).fetchone()
        told.at = min(event.at, codec.moment(at))
        if codec.ticks(told.at) < at:
            self._backdate(known, event, codec.moment(at), told.at)
        told_better = _weight(event.provenance, event.confidence, event.permanent, event.subcategory) > _weight(
            *verdict
        )
        # What a person has corrected stays as it is, whatever comes in about it later.
        better = told_better and not self.reviews.corrected(known)
        if better:
            self._connection.execute(sql.RAISE_EVENT, (*row[_FIRST_RAISED:], known))
        return Recorded(known, new=False, better=better)

    def suppress(self, suppression: Suppression, actor: str) -> bool:
        """Hold mail to an address back, in one scope; history and audit are written with it.

        False when nothing changed: what stands already is as strong (`precedence`), or the new one is over before it
        begins (a bounce read from an old mailbox). What a recipient asked for never ends by a date.
        """
        now = datetime.now(UTC)
        suppression = precedence.lasting(suppression)
        if not _begins(suppression, now):
            return False
        self._enter_gone(suppression)
        self._opt_out(suppression, actor)
        key, verb = suppression.address_key, "added"
        known = self._traces.of(key) & SUPPRESSION
        found = self._connection.execute(sql.FIND_SUPPRESSION, (key, suppression.scope)).fetchone() if known else None
        if found is not None:
            standing = codec.suppression_of(found)
            if standing.active(now):
                combined = precedence.combine(standing, suppression)
                if combined is None:
                    return False
                suppression, verb = combined
            else:
                verb = "renewed"
        self._put(suppression)
        self._tell(suppression, now, actor, verb, suppression.reason)
        return True

    def _put(self, suppression: Suppression) -> None:
        self._connection.execute(sql.PUT_SUPPRESSION, codec.suppression_row(suppression))
        self._traces.left(suppression.address_key, SUPPRESSION)

    def lift(self, key: str, scope: str | None = None, *, actor: str, reason: str) -> int:
        """End what holds mail to `key` back: in `scope`, or in every scope when None. Returns how many were active.

        Whoever lifts it vouches for the address: its score begins anew.
        """
        lifted = self._lift(key, scope, actor, reason)
        if any(suppression.scope == "all" for suppression in lifted):
            self.enter(ScoreEntry(key, Step.ALIVE, datetime.now(UTC), "lifted", "lifted"))
            self.subscribers.bounced(key, subscribers.NO_BOUNCES, actor=actor, reason=reason)
        return len(lifted)

    def _lift(self, key: str, scope: str | None, actor: str, reason: str) -> list[Suppression]:
        now = datetime.now(UTC)
        lifted = [s for s in self.active(key, now) if scope is None or s.scope == scope]
        for suppression in lifted:
            self._connection.execute(
                sql.LIFT_SUPPRESSION, (codec.ticks(now), codec.text(actor), codec.text(reason), key, suppression.scope)
            )
            self._tell(suppression, now, actor, "lifted", reason)
        return lifted

    def enter(self, entry: ScoreEntry, *, fresh: bool = False) -> bool:
        """Add a fact to the score ledger; what follows from it is for `mailback.effects.scoring` to say.

        `fresh`: its event was recorded just now, so nothing is known of it. Returns whether the ledger has a bounce.
        """
        key, bounced = entry.address_key, entry.step is Step.BOUNCE
        known = self._traces.of(key)
        if not known & LEDGER:
            self._begin(entry, bounced=bounced)
            return bounced
        first = bounced and not (known & FAILURE and entry.day >= self._first_failure(key))
        self._alone.pop(key, None)
        scores.enter(self._connection, entry, fresh=fresh)
        if fresh:
            self._traces.left(key, BOUNCE | FAILURE if bounced else LEDGER)
        else:  # it may have taken a bounce's place, or be set aside
            self._traces.forget(key)
        if first or (not fresh and known & FAILURE and entry.fact != entry.cause):
            self._align(key)
        return self.counted(key)

    def _begin(self, entry: ScoreEntry, *, bounced: bool) -> None:
        """Add the first line of an address."""
        if len(self._alone) >= _ALONE_MOST:
            self._alone.clear()
        self._alone[entry.address_key] = scores.begin(self._connection, entry)
        latest = datetime.now(UTC) + CLOCK_ERROR
        if bounced and scores.complete(self._connection, entry.address_key, entry.day, latest):
            self._alone.pop(entry.address_key)
        self._traces.left(entry.address_key, LEDGER | BOUNCE | FAILURE if bounced else LEDGER)

    def enter_delivery(self, entry: ScoreEntry, *, fresh: bool = False) -> bool:
        """Add a proven delivery where the ledger wants it (`scores`); returns whether the ledger has a bounce."""
        key = entry.address_key
        if self.failed(key) and entry.day >= self._first_failure(key):
            return self.enter(entry, fresh=fresh)
        if not fresh:  # it may have been a line before it was proven
            self._align(key)
        return self.counted(key)

    def failed(self, key: str) -> bool:
        """Whether the score ledger has a bounce of this address, be it set aside."""
        return bool(self._traces.of(key) & FAILURE)

    def lives(self, key: str) -> bool:
        """Whether the score ledger says that a mailbox lives, no earlier than its last bounce that counts."""
        return self.counted(key) and scores.lives(self._connection, key)

    def _first_failure(self, key: str) -> int:
        day = scores.first_failure(self._connection, key)
        assert day is not None
        return day

    def _align(self, key: str) -> None:
        """Bring the deliveries in the ledger in line with its first bounce."""
        if scores.align(self._connection, key, datetime.now(UTC) + CLOCK_ERROR):
            self._alone.pop(key, None)

    def hold_entry(self, key: str, event_id: str) -> None:
        """Let a bounce in the score ledger count no more."""
        scores.hold(self._connection, key, event_id)
        self._changed(key)

    def release_entry(self, key: str, event_id: str) -> bool:
        """Let a bounce in the score ledger count that was set aside; False where there is none."""
        released = scores.release(self._connection, key, event_id)
        self._changed(key)
        return released

    def _withdraw(self, key: str, event_id: str) -> None:
        scores.withdraw(self._connection, key, event_id)
        self._changed(key)
        self._align(key)

    def _changed(self, key: str) -> None:
        """Lines of a ledger were changed that it had already."""
        self._alone.pop(key, None)
        self._traces.forget(key)

    def counted(self, key: str) -> bool:
        """Whether the score ledger has a bounce of this address."""
        return bool(self._traces.of(key) & BOUNCE)

    def ledger(self, key: str) -> list[ScoreEntry]:
        """The score ledger of an address, oldest first."""
        alone = self._alone.get(key)
        return [alone] if alone is not None else scores.ledger(self._connection, key)

    def forget_events(self, before: datetime, after: tuple[Any, ...], most: int) -> expiry.Page:
        """Remove old events that nothing stands on any more, up to `most` that come after that place."""
        return expiry.events(self._connection, before, datetime.now(UTC), after, most)

    def sweep(self, which: expiry.Sweep, before: datetime, after: tuple[Any, ...], most: int) -> expiry.Page:
        """Remove old rows of a table, among about `most` that come after that place."""
        page = expiry.sweep(self._connection, which, before, after, most)
        self._forget_known()
        return page

    def active(self, key: str, now: datetime | None = None) -> list[Suppression]:
        """What holds mail to `key` back at `now`, one a scope."""
        if not self._traces.of(key) & SUPPRESSION:
            return []
        at = now or datetime.now(UTC)
        rows = self._connection.execute(sql.SUPPRESSIONS_OF, (key,))
        return [s for s in map(codec.suppression_of, rows) if s.active(at)]

    def history(self, key: str, since: datetime | None = None, limit: int = 1000) -> list[Event]:
        """The events of an address from `since` on, oldest first; of more than `limit` the latest.

        Bounded, because anybody can send any number of bounces about one address, and all writing waits meanwhile.
        """
        start = codec.ticks(since) if since else -(2**62)
        rows = self._connection.execute(sql.HISTORY, (key, start, limit)).fetchall()
        return [codec.event_of(row) for row in reversed(rows)]

    def journal(self, entry: JournalEntry) -> int:
        """Remember a message that goes out; its number."""
        self._journalled = True
        cursor = self._connection.execute(sql.INSERT_JOURNAL, codec.journal_row(entry))
        number = cursor.lastrowid
        assert number is not None
        at = codec.ticks(entry.at)
        self._connection.executemany(
            sql.INSERT_JOURNAL_RECIPIENT,
            ((address.key(who), at, number, codec.text(who)) for who in entry.recipients),
        )
        self._rates.one_more(journal.WRITTEN, entry.at, len(entry.recipients))
        return number

    def sent(self, message_id: str, key: str) -> JournalEntry | None:
        """The first entry by which a message went to a recipient; a report cannot be older than that."""
        return journal.to_recipient(self._fetch, message_id, key) if self._has_journal() else None

    def sent_to(self, key: str, since: datetime, until: datetime, most: int) -> list[JournalEntry]:
        """What went to a recipient in a period, the latest first; each entry tells that recipient only."""
        return journal.by_recipient(self._fetch, key, since, until, most)

    def engagement(self, key: str) -> Engagement | None:
        """What a recipient did with our mail; None where nothing is known."""
        return engagement.find(self._fetch, key)

    def arrived(self, key: str, at: datetime) -> None:
        """Count a message that arrived; called once for each event that says so."""
        engagement.arrived(self._connection, key, at)

    def read_by(self, key: str, what: Reading, at: datetime, identity: str) -> bool:
        """Count an open or a click; False where the one of this identity was counted before."""
        return engagement.read(self._connection, key, what, at, identity)

    def place(self, name: str) -> Place | None:
        """How far something was read; see `places`."""
        return places.find(self._fetch, name)

    def put_place(self, name: str, position: Mapping[str, object]) -> None:
        """Remember how far something was read, together with what was made of it."""
        places.put(self._connection, name, position)

    def forget_place(self, name: str) -> None:
        """Remove a place that is no longer of use."""
        places.forget(self._connection, name)

    def went_to_several(self, message_id: str) -> bool:
        """Whether more than one recipient has seen a Message-ID."""
        return sum(len(entry.recipients) for entry in journal.by_message_id(self._fetch, message_id, 2)) > 1

    def sent_by_id(self, message_id: str) -> JournalEntry | None:
        """The latest entry of a Message-ID, whomever it went to."""
        return next(iter(journal.by_message_id(self._fetch, message_id, 1)), None)

    def sent_under(self, return_path: str) -> JournalEntry | None:
        """The latest entry that went out under a signed return path (its local part)."""
        return next(iter(journal.by_return_path(self._fetch, return_path, 1)), None)

    def forget_journal(self, before: datetime, most: int) -> int:
        """Remove up to `most` entries from before that time, the oldest first; how many there were.

        Those that unsubscribe addresses refer to stay for as long as such an address counts.
        """
        long_before = min(before, datetime.now(UTC) - timedelta(days=UNSUBSCRIBE_DAYS))
        rows = self._fetch(sql.JOURNAL_BEFORE, (codec.ticks(before), codec.ticks(long_before), most))
        self._connection.executemany(sql.DELETE_JOURNAL_RECIPIENTS, rows)
        self._connection.executemany(sql.DELETE_JOURNAL, rows)
        return len(rows)

    def _has_journal(self) -> bool:
        if self._journalled is None:
            self._journalled = bool(self._fetch("SELECT 1 FROM journal LIMIT 1", ()))
        return self._journalled

    def _fetch(self, query: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, parameters).fetchall()

    def erase(self, key: str, hashed: str, *, actor: str, reason: str) -> int:
        """Remove everything about an address and suppress it by its hash for ever; how many rows were removed.

        Whoever was erased is mailed again by a new opt-in only: see `erasure`.
        """
        before = self._connection.execute(sql.AUDIT_TAIL).fetchone()
        self._rates.read_anew()
        removed = erasure.erase(self._connection, key, hashed)
        self._tail = None  # the chain was made anew
        self._forget_known()
        now = datetime.now(UTC)
        detail = {"rows": removed, "reason": reason, "chain_ended_with": before[1] if before else None}
        self.audit(actor, "erase", hashed, detail)
        erased = Suppression(
            hashed, hashed, "all", reason, Type.COMPLAINT, Subcategory.UNSUBSCRIBE_REQUEST, "operator", now, None
        )
        self.suppress(erased, actor)
        return removed

    def audit(self, actor: str, verb: str, subject: str, detail: Mapping[str, object] | None = None) -> None:
        """Add a line to the trail. `suppress` and `lift` do this by themselves."""
        self._append_audit(codec.ticks(datetime.now(UTC)), actor, verb, subject, detail or {})

    def count(self, cause: str, at: datetime) -> int:
        """One more of `cause` in the hour of `at`; how many there are now."""
        return self._rates.count(cause, at)

    def one_more(self, cause: str, at: datetime) -> None:
        """One more of `cause` in the hour of `at`, where nobody asks how many there are."""
        self._rates.one_more(cause, at)

    def note_hour(self, cause: str, at: datetime) -> None:
        """Remember that the hour of `at` had any of `cause`, without counting them."""
        noted = cause, hour_of(at)
        if noted not in self._noted:
            self._noted.add(noted)
            self._rates.one_more(cause, at)

    def total(self, cause: str, first: datetime, last: datetime) -> int:
        """How many of `cause` there were in the hours from that of `first` to that of `last`."""
        return self._rates.total(cause, first, last)

    def total_of(self, prefix: str, first: datetime, last: datetime) -> int:
        """The same of all causes that begin so."""
        return self._rates.total_of(prefix, first, last)

    def took_mail(self, key: str, since: datetime, before: datetime) -> bool:
        """Whether an address showed from `since` on that it takes mail: by a delivery, an open, a click, or a message
        of the journal from more than a day before `before` that did not come back."""
        if engagement.alive(self._fetch, key, since):
            return True
        return self._has_journal() and journal.went_through(self._fetch, key, since, before)

    def left_before(self, entry: JournalEntry, most: int) -> list[tuple[str, datetime]]:
        """Whom the messages went to that left just before one of the journal, and when."""
        return journal.left_before(self._fetch, entry.at, most)

    def failed_since(self, key: str, since: datetime) -> bool:
        """Whether mail to an address failed for good from then on."""
        return journal.failed_since(self._fetch, key, since)

    def failed_beside(self, key: str, event_id: str, since: datetime, until: datetime) -> bool:
        """Whether another event of that time says that mail to a recipient failed, for a while or for good."""
        found = self._connection.execute(_FAILED_BESIDE, (key, codec.ticks(since), codec.ticks(until), event_id))
        return found.fetchone() is not None

    def past_rate(self, cause: str, at: datetime, hours: int) -> tuple[float, int]:
        """How many of `cause` an hour there were in the hours before; and since how many hours it is known."""
        return self._rates.past(cause, at, hours)

    def recent(self, cause: str, now: datetime) -> float:
        """About how many of `cause` the last 60 minutes saw."""
        return self._rates.recent(cause, now)

    def forget_counts(self, prefix: str) -> None:
        """Forget the counts of all causes that begin so."""
        self._rates.forget(prefix)

    def breaker(self, provider: str, side: str, sender: str) -> Breaker | None:
        """How mail of one of our addresses or domains to a provider stands; None where it was never held."""
        return breakers.find(self._connection, provider, side, sender)

    def standing_breakers(self, provider: str) -> list[Breaker]:
        """Those of a provider that are not written as closed; time may have closed one (`mailback.policy.breaker`)."""
        if self._calm is None:
            self._calm = not breakers.any_standing(self._connection)
        return [] if self._calm else breakers.standing(self._connection, provider)

    def put_breaker(self, breaker: Breaker, actor: str) -> None:
        """Keep a breaker as it is now, with a line in the trail."""
        self._calm = None
        breakers.put(self._connection, breaker)
        detail = {
            "state": breaker.state, "rule": breaker.rule, "reason": codec.text(breaker.reason), "trips": breaker.trips,
            "until": codec.optional_ticks(breaker.until),
        }  # fmt: skip
        self.audit(actor, "breaker", breaker.name, detail)

    def try_breaker(self, breaker: Breaker) -> None:
        """Keep which message tries a breaker."""
        breakers.put(self._connection, breaker)

    def over(self, key: str, now: datetime) -> Suppression | None:
        """The last hold of `key` that ran out; None where something holds its mail back, or nothing did."""
        rows = self._connection.execute(sql.SUPPRESSIONS_OF, (key,))
        ended = [s for s in map(codec.suppression_of, rows) if s.lifted_at is None]
        if any(s.until is None or s.until > now for s in ended):
            return None
        return max(ended, key=lambda s: s.until or now, default=None)

    def probe(self, key: str, step: Callable[[Probe | None], Probe | None]) -> Probe | None:
        """Keep what `step` makes of the last message that tried an address."""
        return probes.take(self._connection, key, step)

    def forget_probes(self, before: datetime) -> int:
        """Remove what tried addresses before that time."""
        return probes.forget(self._connection, before)

    def keep_raw(self, sha256: str, raw: bytes, at: datetime) -> None:
        """Keep a message as it came in."""
        raws.keep(self._connection, sha256, raw, at)

    def forget_raws(self, before: datetime, most: int) -> int:
        """Remove up to `most` messages from before that time; how many there were."""
        return raws.forget(self._connection, before, most)

    def capture(self, attempt: Capture) -> None:
        """Keep an attempt to enter an address."""
        captures.add(self._connection, attempt)

    def forget_captures(self, before: datetime, most: int) -> int:
        """Remove up to `most` attempts from before that time; how many there were."""
        return captures.forget(self._connection, before, most)

    def forget_domains(self, before: datetime) -> int:
        """Remove what is known of domains that nobody asked for since; how many."""
        return domains.forget(self._connection, before)

    def wish_domains(self, names: Iterable[str]) -> None:
        """Have DNS asked who runs the mail of these domains."""
        domains.wish(self._connection, names, datetime.now(UTC))

    def put_domain(self, found: MailDomain) -> None:
        """Keep what DNS said of a domain."""
        domains.put(self._connection, found, datetime.now(UTC))

    def learn_domain(self, name: str, provider: str) -> None:
        """A server of this provider answered for a domain: as good as DNS until DNS is asked."""
        domains.learn(self._connection, name, provider, datetime.now(UTC))

    def wave(self, provider: str) -> int | None:
        """The open wave about this provider."""
        if self._even is None:
            self._even = not waves.any_standing(self._connection)
        return None if self._even else waves.standing(self._connection, provider)

    def event(self, event_id: str) -> Event | None:
        """One event by its id."""
        row = self._connection.execute(sql.EVENT, (event_id,)).fetchone()
        return codec.event_of(row) if row else None

    @property
    def reviews(self) -> reviews.ReviewQueue:
        """What waits for a person."""
        return reviews.ReviewQueue(self._connection)

    @property
    def subscribers(self) -> subscribers.Subscribers:
        """Who is on a list."""
        return subscribers.Subscribers(self._connection, self._traces)

    @property
    def retries(self) -> retries.Retries:
        """Messages that are worth sending again."""
        return retries.Retries(self._connection, self._traces)

    def retried(self, number: int, message_id: str | None) -> bool:
        """Note that a message was sent again, under that Message-ID; False where it does not wait."""
        known = self.retries.find(number)
        if known is None or known.state not in ("open", "sent"):
            return False
        self.retries.put(replace(known, state="sent", retried_as=codec.optional_text(message_id) or known.retried_as))
        return True

    def claim_suggestion(
        self, source: str, *, below: float, per_minute: int, per_day: int, now: datetime
    ) -> Suggestion | suggestions.Turn:
        """The next reply to ask an endpoint about, written down as asked; or why there is none."""
        return suggestions.claim(
            self._connection, source, below=below, per_minute=per_minute, per_day=per_day, now=now
        )  # fmt: skip

    def suggest(self, said: Suggestion) -> None:
        """Keep what an endpoint said, or that it said nothing."""
        suggestions.put(self._connection, said)

    def withhold_suggestion(self, event_id: str) -> None:
        """Never ask an endpoint about an event."""
        suggestions.withdraw(self._connection, event_id)

    def take_back(self, event_id: str, key: str, *, actor: str, reason: str) -> int:
        """Undo what an event suppressed, where it still stands as it was made; what stood before stands again.

        The event counts no more in the score ledger either; nothing is said about the address, unlike by `lift`.
        """
        made = [s for s in self.active(key) if s.event_id == event_id]
        self._withdraw(key, event_id)
        return sum(self._take_back(suppression, actor, reason) for suppression in made)

    def take_back_hold(self, hold: Suppression, reason: str) -> None:
        """Undo a suppression of the score ledger; what stood before stands again."""
        self._take_back(hold, SCORE, reason)

    def reclassify(self, event: Event) -> None:
        """Write kind, verdict, recipient, action, route, evidence and notes of a recorded event as they stand now."""
        self._connection.execute(
            sql.RECLASSIFY,
            (
                event.kind, codec.optional_text(event.recipient), event.recipient_key,
                codec.optional_text(event.domain), event.type, event.subcategory, event.fault, int(event.permanent),
                event.confidence, event.action, json.dumps(event.evidence), json.dumps(event.notes), event.intent,
                event.route, codec.optional_ticks(event.due_at), event.id,
            ),
        )  # fmt: skip

    def begin_wave(self, provider: str, subcategory: str, at: datetime, normal: float, lately: timedelta) -> int:
        """Open a wave with what its hour has suppressed already, and of the hour before what had taken mail `lately`;
        its number."""

        def turned(key: str, then: datetime) -> bool:
            return self.took_mail(key, then - lately, then)

        self._even = None
        number = waves.begin(self._connection, provider, subcategory, at, normal, turned=turned)
        detail = {"provider": provider, "subcategory": subcategory, "normal": normal}
        self.audit("mailback", "wave", f"wave:{number}", detail)
        return number

    def freeze(self, number: int, suppression: Suppression) -> None:
        """Keep a suppression with its wave instead of making it."""
        waves.add(self._connection, number, suppression, frozen=True)

    def confirm_wave(self, number: int, actor: str) -> int | None:
        """Make all suppressions of a wave; how many changed anything, None for a wave that there is not."""
        if waves.find(self._connection, number) is None:
            return None
        members = waves.members(self._connection, number)
        changed = sum(self._take_down(member, actor) for member in members)
        self.reviews.settle([m.event_id for m in members if m.event_id], "approved", actor, f"wave {number} confirmed")
        waves.close(self._connection, number, "confirmed")
        self.audit(actor, "wave", f"wave:{number}", {"state": "confirmed", "changed": changed})
        return changed

    def undo_wave(self, number: int, actor: str) -> int | None:
        """Bring back what stood before a wave; how many suppressions it had made, None for a wave that there is not."""
        if waves.find(self._connection, number) is None:
            return None
        members = waves.members(self._connection, number)
        undone = sum(self._take_back(member, actor, f"wave {number} undone") for member in members)
        self.reviews.settle([m.event_id for m in members if m.event_id], "expired", actor, f"wave {number} undone")
        waves.close(self._connection, number, "undone")
        self.audit(actor, "wave", f"wave:{number}", {"state": "undone", "changed": undone})
        return undone

    def reopen_wave(self, number: int, actor: str) -> int | None:
        """Take back what was decided about a wave, so that it waits again as it did: what it had made is made, what it
        had kept back is not. What anybody has changed since is left alone. How many changed, None for no closed wave.
        """
        wave = waves.find(self._connection, number)
        if wave is None or wave.state == "open":
            return None
        frozen = waves.members(self._connection, number, frozen=True)
        changed = sum(self._take_back(member, actor, f"wave {number} reopened") for member in frozen)
        for made in waves.members(self._connection, number, frozen=False):
            rows = self._connection.execute(sql.CHANGES_OF, (made.address_key,)).fetchall()
            changes = [codec.change_of(row) for row in rows]
            if waves.undone_last(changes, made.scope, f"wave {number} undone"):
                changed += self._take_down(made, actor)
            elif waves.stands(changes, made.scope):  # something stronger does; what it said counts again
                self._enter_gone(made)
        self.reviews.reopen([member.event_id for member in frozen if member.event_id], f"wave {number} ")
        self._even = None
        waves.reopen(self._connection, number)
        self.audit(actor, "wave", f"wave:{number}", {"state": "open", "changed": changed})
        return changed

    def wave_members(self, number: int) -> list[Suppression]:
        """The suppressions of a wave, made or kept back."""
        return waves.members(self._connection, number)

    def _take_down(self, member: Suppression, actor: str) -> bool:
        """Make a suppression of a wave, and end what its event had ended."""
        self.retries.close_all(member.address_key, f"{member.type}/{member.subcategory}", member.since)
        return self.suppress(member, actor)

    def _take_back(self, made: Suppression, actor: str, reason: str) -> bool:
        """Undo one suppression where it still stands as it was made, and restore the one before it. What its event said
        counts no more in any case: also where something stronger stood already.
        """
        now = datetime.now(UTC)
        key, scope = made.address_key, made.scope
        if made.source != SCORE and made.event_id is not None:
            self._withdraw(key, made.event_id)
            self.retries.reopen_all(key, f"{made.type}/{made.subcategory}", made.since, reason)
        if not any(s.scope == scope and s.event_id == made.event_id for s in self.active(key, now)):
            return False
        if made.source != SCORE and made.event_id is not None and made.type == Type.HARD_BOUNCE and scope == "all":
            self.subscribers.bounced(key, subscribers.NO_BOUNCES, actor=actor, reason=reason)
        self._lift(key, scope, actor, reason)
        self._restore(made, now, actor)
        return True

    def _restore(self, made: Suppression, now: datetime, actor: str) -> None:
        """Put what stood before `made` in force again, where it is not over."""
        rows = self._connection.execute(sql.CHANGES_OF, (made.address_key,)).fetchall()
        earlier = waves.before([codec.change_of(row) for row in rows], made.event_id, made.scope)
        if earlier is None or earlier.source == SCORE or (earlier.until is not None and earlier.until <= now):
            return
        stood = replace(
            made, reason=earlier.reason, type=earlier.type, subcategory=earlier.subcategory, source=earlier.source,
            since=earlier.since, until=earlier.until, event_id=earlier.event_id, suggestion=earlier.suggestion,
        )  # fmt: skip
        self._put(stood)
        self._tell(stood, now, actor, "restored", stood.reason)

    def _enter_gone(self, s: Suppression) -> None:
        """Note in the ledger that a bounce suppressed the address for ever."""
        if s.source == "event" and s.type == Type.HARD_BOUNCE and s.until is None and s.scope == "all" and s.event_id:
            self.enter(ScoreEntry(s.address_key, Step.BOUNCE, s.since, s.event_id, GONE))
            self.subscribers.dead(s.address_key, s.since, actor=f"event:{s.event_id}", reason=s.reason)

    def _opt_out(self, s: Suppression, actor: str) -> None:
        """Take a subscriber at the own word: off the list that it was said of, off every list where it was of all."""
        kind, _, name = s.scope.partition(":")
        if precedence.is_own_word(s) and kind in ("all", "list"):
            by = s.subcategory or s.source
            self.subscribers.opted_out(s.address_key, s.since, by, list_id=name or None, actor=actor, reason=s.reason)

    def heed(self, key: str, actor: str) -> None:
        """Let a subscriber who was not known before be out by what the person had said already."""
        for suppression in self.active(key):
            self._opt_out(suppression, actor)

    def _backdate(self, event_id: str, event: Event, was: datetime, at: datetime) -> None:
        """Move an event, and what rests on its time, to the earlier time that another report of it told."""
        self._connection.execute("UPDATE event SET at = ? WHERE id = ?", (codec.ticks(at), event_id))
        key = event.recipient_key
        if key is None:
            return
        if event.kind is Kind.DELIVERED:
            engagement.backdate(self._connection, key, was)
        scores.backdate(self._connection, key, event_id, at)
        self._changed(key)
        if self.failed(key):
            self._align(key)
        for standing in self.active(key):
            if standing.event_id == event_id:
                until = None if standing.until is None else standing.until - (was - at)
                moved = replace(standing, since=standing.since - (was - at), until=until)
                self._put(moved)
                self._tell(moved, datetime.now(UTC), f"event:{event_id}", "backdated", moved.reason)

    def amend(self, event_id: str, action: Action, note: str) -> None:
        """Another action for an event that is recorded, and why."""
        row = self._connection.execute("SELECT notes FROM event WHERE id = ?", (event_id,)).fetchone()
        notes = [*json.loads(row[0]), note] if row else [note]
        self._connection.execute(
            "UPDATE event SET action = ?, notes = ? WHERE id = ?", (action, json.dumps(notes), event_id)
        )

    def forget_places(self, before: datetime) -> int:
        """Remove places that were not come to since that time."""
        return places.forget_before(self._connection, before)

    def counted_long_ago(self, prefix: str, at: datetime, hours: int) -> bool:
        """Whether anything whose cause begins with `prefix` was counted so many hours before `at`, or earlier."""
        return self._rates.counted_long_ago(prefix, at, hours)

    def forget_rates(self, before: datetime) -> int:
        """Remove counts from before that time."""
        return self._rates.forget_before(before)

    def mark(self) -> trail.Tail | None:
        """What `rewind` needs to undo this transaction's own memory when the writer rolls a savepoint back."""
        self._rates.mark()
        return trail.Tail(self._tail.sequence, self._tail.hash) if self._tail else None

    def rewind(self, mark: trail.Tail | None) -> None:
        self._tail = mark
        self._rates.rewind()
        self._forget_known()

    def finish(self) -> None:
        """Write what was kept in memory: at the end of a batch, after its last unit."""
        self._rates.write()

    def _forget_known(self) -> None:
        """Ask the tables anew."""
        self._traces.clear()
        self._alone.clear()
        self._noted.clear()
        self.surges.forget()
        self._calm = self._even = self._journalled = None

    def _tell(self, s: Suppression, now: datetime, actor: str, verb: str, reason: str) -> None:
        at = codec.ticks(now)
        since, until = codec.ticks(s.since), codec.optional_ticks(s.until)
        self._connection.execute(
            sql.INSERT_CHANGE,
            (
                s.address_key, s.scope, at, codec.text(actor), verb, codec.text(reason), s.type, s.subcategory,
                s.source, since, until, s.event_id, codec.optional_text(s.suggestion),
            ),
        )  # fmt: skip
        detail = {
            "scope": s.scope, "change": verb, "reason": codec.text(reason), "type": s.type,
            "subcategory": s.subcategory, "source": s.source, "until": until, "event": s.event_id,
        }  # fmt: skip
        self._append_audit(at, actor, "lift" if verb == "lifted" else "suppress", s.address_key, detail)

    def _append_audit(self, at: int, actor: str, verb: str, subject: str, detail: Mapping[str, object]) -> None:
        if self._tail is None:
            found = self._connection.execute(sql.AUDIT_TAIL).fetchone()
            self._tail = trail.Tail(*found) if found else trail.Tail(0, trail.FIRST_PREVIOUS)
        row = trail.append(
            self._tail, at=at, actor=codec.text(actor), verb=verb, subject=codec.text(subject), detail=detail
        )
        self._connection.execute(sql.INSERT_AUDIT, row)


def _weight(
    provenance: str, confidence: float | None, permanent: bool, subcategory: str | None
) -> tuple[int, float, bool, str]:
    """How much one report of a failure is worth beside another: proof, then confidence. The rest breaks ties, so that
    the same report stands in whatever order they come."""
    return Provenance(provenance).rank, confidence or 0.0, bool(permanent), subcategory or ""


def _begins(suppression: Suppression, now: datetime) -> bool:
    return suppression.until is None or suppression.until > now


def _bounded_identity(identity: str) -> str:
    # Hashed, not cut: two long identities that share a beginning are still two events.
    if len(identity) <= _LONGEST_IDENTITY:
        return identity
    return "sha256:" + hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()

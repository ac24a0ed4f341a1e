"""Belief before action: grade each claim of a report by what the return path, the journal and the reporter show.

`Belief.answered` looks at the addresses a message came to; it is pure and belongs to the first half of the walk.
`Hearing` runs within the store's transaction, asks the journal, and gives each event its grade, the recipient that is
proven, and the reason as evidence, which `mailback explain` shows. The rules of grading are in
`mailback.provenance.grading`.

Emits no log events.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mailback import address
from mailback.bounce.taxonomy import Kind, Provenance
from mailback.envelope import Envelope
from mailback.provenance.authentication import Shown
from mailback.provenance.grading import Claim, Grade, Proofs, Reporter, Sending, grade
from mailback.reports.report import DeliveryFailure
from mailback.returnpath import ReturnPaths, Verified

if TYPE_CHECKING:
    from mailback.observation import Observation
    from mailback.store.records import Event, JournalEntry
    from mailback.store.transaction import Transaction

_TOLD_BY_MARKER = frozenset({Kind.COMPLAINT, Kind.UNSUBSCRIBE})
"""Kinds whose recipient the address tells that we gave out: providers black out the recipient of a complaint (RFC 6650
section 4.4), and people unsubscribe from another address than the one that is subscribed."""
_MOST_PATHS = 50
"""Recipients of one incoming message that are looked at; a bounce has one (RFC 3464 section 2)."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The addresses of ours that a message came back to or returns, and what else is known beforehand."""

    paths: tuple[Verified, ...] = ()
    """Best first: signed ones, then what is expired or wrong."""
    envelope: tuple[tuple[str, Verified], ...] = ()
    """The envelope's recipients that are signed."""
    written_at: datetime | None = None
    """When the report says that it was written."""
    shown: Shown | None = None
    """What authentication shows; None where there was none."""


NOTHING = Answered()


class Belief:
    """What belief needs to know for good: the keys of return paths, where they are signed."""

    def __init__(self, paths: ReturnPaths | None) -> None:
        self._paths = paths

    @property
    def signing(self) -> bool:
        """Whether our return paths are signed, so that a report can be expected to prove itself."""
        return self._paths is not None

    def answered(
        self,
        envelope: Envelope,
        returned_sender: str | None,
        written_at: datetime | None,
        shown: Shown | None = None,
    ) -> Answered:
        """Look at the addresses a message came to, and at the return path that it returns of ours."""
        if self._paths is None:
            return Answered(written_at=written_at, shown=shown)
        verify, at = self._paths.verify, envelope.received_at
        came_to = [(path, verify(path, at)) for path in envelope.recipients[:_MOST_PATHS]]
        found = [verified for _, verified in came_to]
        if returned_sender:
            found.append(verify(returned_sender, at))
        found.sort(key=lambda verified: not verified.signed)
        return Answered(
            paths=tuple(found),
            envelope=tuple((path, verified) for path, verified in came_to if verified.signed),
            written_at=written_at,
            shown=shown,
        )


class Hearing:
    """One report before the journal, within the store's transaction."""

    def __init__(self, transaction: Transaction, answered: Answered) -> None:
        self._transaction = transaction
        self._answered = answered
        self._known: dict[str, JournalEntry | None] = {}
        self._given_out: dict[str, str | None] = {}

    def of_finding(self, event: Event, failure: DeliveryFailure) -> Event:
        """The event with its grade and the reason, about the recipient that is proven, where one is."""
        told = (failure.original_recipient, failure.recipient, failure.final_recipient)
        claimed = tuple(dict.fromkeys(address.key(who) for who in told if who))
        path, given_out_for = self._path_for(claimed, unsubscribes=event.kind is Kind.UNSUBSCRIBE)
        if event.kind is Kind.UNSUBSCRIBE and path is not None and path.signed:
            self._note_list(event, path)
        marked = event.kind in _TOLD_BY_MARKER or any(_same_mailbox(who, given_out_for) for who in claimed)
        if marked and given_out_for is not None and path is not None and path.signed:
            claimed = tuple(dict.fromkeys((*claimed, given_out_for)))
        claim = Claim(claimed, failure.last_attempt or self._answered.written_at)
        shown = self._answered.shown
        proofs = Proofs(
            return_path=path,
            return_path_recipient=given_out_for,
            sending=self._sending(event.original_message_id, claimed),
            returned=shown.returned if shown is not None else None,
            reporter=_reporter(claimed, shown) if shown is not None else None,
        )
        graded = grade(claim, proofs)
        return _believed(event, graded, self._spelling(graded.recipient, told))

    def _note_list(self, event: Event, path: Verified) -> None:
        """The list that an unsubscribe address was given out for, where the journal knows it."""
        entry = self._transaction.sent_under(path.return_path) if path.return_path else None
        if entry is not None:
            event.list_id = event.list_id or entry.list_id
            event.campaign = event.campaign or entry.campaign

    def of_message(self, event: Event) -> Event:
        """A message without a finding, an auto-reply for instance: whose answer it is, where the return path tells."""
        for path in (path for path in self._answered.paths if not path.unsubscribes):
            who = self._recipient_of(path) if path.signed else None
            if who is not None:
                because = "came to the return path that was given out for this recipient"
                return _believed(event, Grade(Provenance.SIGNED, because, who), who)
        return event

    def of_writer(self, event: Event, writer: str | None, mailed: str | None, *, authenticated: bool) -> Event:
        """A reply: whose it is, and how far that is believed.

        `writer` is who says to have written it, `mailed` the same person as a message that it answers was addressed to
        him; `authenticated` where SPF or DKIM speaks for the writer's domain.
        """
        signed = self.of_message(event)
        if signed is not event:
            return signed
        if mailed is not None:
            because = "answers a message that went to this person"
            return _believed(event, Grade(Provenance.JOURNAL, because, address.key(mailed)), mailed)
        if authenticated and writer is not None:
            because = "authenticated as the domain of who wrote it"
            return _believed(event, Grade(Provenance.AUTHENTICATED, because, address.key(writer)), writer)
        return _believed(event, Grade(Provenance.UNPROVEN, "nothing shows who wrote it"), writer)

    def restored(self) -> tuple[tuple[str, str], ...]:
        """Each signed address of the envelope with the one that the sender had given; for passing mail on."""
        found = []
        for path, verified in self._answered.envelope:
            sender = verified.sender or self._sender_of(verified)
            if sender:
                found.append((path, sender))
        return tuple(found)

    def _path_for(self, claimed: Iterable[str], *, unsubscribes: bool) -> tuple[Verified | None, str | None]:
        """The return path that speaks about these recipients, else the best there is; and whom it was given out for."""
        fitting = (path for path in self._answered.paths if path.unsubscribes is unsubscribes)
        told = [(path, self._recipient_of(path)) for path in fitting]
        names = set(claimed)
        return next((pair for pair in told if pair[0].signed and pair[1] in names), told[0] if told else (None, None))

    def _recipient_of(self, path: Verified) -> str | None:
        if path.recipient is not None or not path.names_recipient or path.return_path is None:
            return path.recipient
        if path.return_path not in self._given_out:
            entry = self._transaction.sent_under(path.return_path)
            recipients = entry.recipients if entry is not None else ()
            self._given_out[path.return_path] = address.key(recipients[0]) if len(recipients) == 1 else None
        return self._given_out[path.return_path]

    def _sender_of(self, path: Verified) -> str | None:
        entry = self._transaction.sent_under(path.return_path) if path.return_path else None
        return entry.envelope_sender if entry is not None else None

    def _sending(self, message_id: str | None, claimed: Iterable[str]) -> Sending | None:
        if message_id is None:
            return None
        if message_id not in self._known:
            self._known[message_id] = self._transaction.sent_by_id(message_id)
        known = self._known[message_id]
        if known is None:
            return None
        for who in claimed:
            entry = self._transaction.sent(message_id, who)
            if entry is not None:
                return Sending(entry.at, who, known_to_others=self._known_to_others(message_id, entry))
        return Sending(known.at, None)

    def _known_to_others(self, message_id: str, entry: JournalEntry) -> bool:
        """Whether a Message-ID proves nothing: others have it too, and the message left under a return path of ours, to
        which this report did not come and which it does not return.
        """
        if entry.return_path is None or any(path.signed for path in self._answered.paths):
            return False
        return self._transaction.went_to_several(message_id)

    def _spelling(self, key: str | None, told: Iterable[str | None]) -> str | None:
        """The proven recipient as the report writes it, else as look-ups compare it."""
        return next((who for who in told if who and address.key(who) == key), key)


def _same_mailbox(one: str, other: str | None) -> bool:
    """Whether two addresses differ by a subaddress at most (RFC 5233), which a server may leave out of its report."""
    if other is None:
        return False
    (local, domain), (local_too, domain_too) = address.split(one), address.split(other)
    return domain == domain_too and local.partition("+")[0] == local_too.partition("+")[0]


def witnessed(transaction: Transaction, event: Event, observation: Observation) -> bool:
    """Grade what a log, a webhook or a table tells of a recipient, and fill in what the journal knows of the message.

    False where it is about mail that is not ours: its sender is somebody else, and the journal does not know it.

    The teller is believed as far as the observation says: our own MTA's log is `authenticated`, since only this host
    writes it. A message that the journal knows to have gone to this recipient makes it `journal`. Nothing here makes it
    `forged`: an MTA expands aliases, and so it speaks of recipients that no message was handed in for.
    """
    entry = _journalled(transaction, event)
    if entry is None:
        if not observation.ours:
            return False
        grade, because = observation.grade, observation.because
    else:
        grade, because = Provenance.JOURNAL, "tells what became of a message that went to this recipient"
        _fill_from_journal(event, entry)
        if observation.grade.rank > grade.rank:
            grade, because = observation.grade, observation.because
    event.provenance = grade
    event.evidence.append({"layer": "provenance", "rule": grade.value, "says": grade.value, "text": because})
    return True


_BEFORE = timedelta(days=14)
"""How long before an outcome its message may have been handed in: longer than any MTA keeps mail."""
_AFTER = timedelta(days=1)
_SAME_RECIPIENT = 200
"""Messages to one recipient that are compared by queue id."""


def _journalled(transaction: Transaction, event: Event) -> JournalEntry | None:
    """The message in the journal: by Message-ID, or by the queue id where the log begins too late to tell the other."""
    key = event.recipient_key
    if key is None:
        return None
    if event.original_message_id:
        return transaction.sent(event.original_message_id, key)
    if not event.queue_id:
        return None
    recent = transaction.sent_to(key, event.at - _BEFORE, event.at + _AFTER, _SAME_RECIPIENT)
    return next((entry for entry in recent if entry.queue_id == event.queue_id), None)


def _fill_from_journal(event: Event, entry: JournalEntry) -> None:
    """What the log leaves open. A Message-ID from here makes the event the same as the one a DSN tells."""
    event.original_message_id = event.original_message_id or entry.message_id
    event.original_sender = event.original_sender or entry.envelope_sender
    event.subject = event.subject or entry.subject
    event.campaign = event.campaign or entry.campaign
    event.list_id = event.list_id or entry.list_id
    event.subscriber = event.subscriber or entry.subscriber


def _reporter(claimed: Iterable[str], shown: Shown) -> Reporter:
    """Who reports, seen from the recipients of one claim."""
    domains = {who: address.domain(who) for who in claimed}
    return Reporter(
        shown.spf,
        frozenset(who for who, domain in domains.items() if domain in shown.speaks_for),
        related=any(domain in shown.related for domain in domains.values()),
    )


def _believed(event: Event, graded: Grade, recipient: str | None) -> Event:
    evidence: dict[str, object] = {
        "layer": "provenance", "rule": graded.provenance.value, "says": graded.provenance.value, "text": graded.because,
    }  # fmt: skip
    found = event.copy()
    found.provenance = graded.provenance
    found.evidence = [*event.evidence, evidence]
    if recipient is not None:
        found.recipient = recipient
        found.recipient_key = address.key(recipient)
        found.domain = address.domain(recipient) or None
    return found

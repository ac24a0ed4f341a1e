"""What became of mail to one recipient, as told by something that is no message: a log line, a webhook, a table's row.

`Engine.observe` takes these and treats each like a recipient of a bounce message: the same classifier, the same
handling rules, the same decision within the store's transaction, and the same identity, so that a failure told by the
log and by a DSN is one event.

Emits no log events.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from mailback.bounce.taxonomy import Kind, Provenance
from mailback.envelope import Source
from mailback.reports.report import DeliveryFailure
from mailback.store.ids import new_id
from mailback.store.records import Event, Reading

if TYPE_CHECKING:
    from mailback.policy.decision import Decision


@dataclass(slots=True)
class Observation:
    """One outcome for one recipient, and how far whoever tells it is believed."""

    at: datetime
    kind: Kind
    source: Source
    dialect: str
    """Who tells it (`postfix log`, `ses`, ...); kept as evidence."""
    failure: DeliveryFailure
    """Recipient, action, codes and words; `action` is `delivered` for a success."""
    identity: str
    """Tells this observation from every other of its recipient, where Message-ID and outcome do not: of a delay each
    try is news of its own, and not all mail has a Message-ID that is known."""
    message_id: str | None = None
    """Of our message, with its angle brackets."""
    grade: Provenance = Provenance.AUTHENTICATED
    """How far the teller is believed by itself; what the journal knows raises it."""
    because: str = ""
    """Why that far, in words; kept as evidence."""
    ours: bool = True
    """False where the mail seems to be somebody else's (its sender is not of our domains): such an outcome counts only
    if the journal knows that message to that recipient."""
    sender: str | None = None
    """Envelope sender of our message; the empty string is the null sender."""
    queue_id: str | None = None
    client_address: str | None = None
    attempts: int | None = None
    """How often delivery was tried, this time included."""
    sent_at: datetime | None = None
    """When our message was handed in."""
    campaign: str | None = None
    list_id: str | None = None
    subscriber: str | None = None
    subject: str | None = None
    notes: list[str] = field(default_factory=list)

    def event(self) -> Event:
        """The event without its verdict."""
        return Event(
            id=new_id(self.at),
            identity=self.identity,
            at=self.at,
            kind=self.kind,
            source=self.source.value,
            original_message_id=self.message_id,
            envelope_sender=self.sender,
            original_sender=self.sender,
            subject=self.subject,
            campaign=self.campaign,
            list_id=self.list_id,
            subscriber=self.subscriber,
            client_address=self.client_address,
            queue_id=self.queue_id,
            delivery_attempts=self.attempts,
            original_sent_at=self.sent_at,
            provenance=self.grade,
            notes=self.notes,
        )


@dataclass(frozen=True, slots=True)
class Interaction:
    """Somebody opened a message of ours, or followed a link in it; no event, yet counted by address."""

    at: datetime
    what: Reading
    recipient: str
    identity: str
    """What makes two reports of it one: an id of whoever tells it, or all that its row says."""


class Observed(NamedTuple):
    """What became of an observation."""

    event_id: str | None
    """None: it was about somebody else's mail, and nothing was recorded; or it was an open or a click."""
    new: bool
    """False also where the same outcome was known already, by whatever way."""
    decision: Decision | None
    notes: tuple[str, ...] = ()
    """What the operator should hear: alerts, and suppressions that were held back."""

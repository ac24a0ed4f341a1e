"""What becomes of mail to each provider, counted by the hour: what breakers and waves take shares of.

Counted once for each event, within its transaction, in the hour that the event tells: a log that is read a day late
counts where it belongs. What is forged never counts, nor what is unproven where proof is required: else anybody could
thin out a share. A deferral is no outcome of a message, and is counted apart.

Emits no log events.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from mailback.bounce.taxonomy import Kind, Provenance
from mailback.envelope import Source
from mailback.policy.wave import Outcomes
from mailback.store.journal import WRITTEN

if TYPE_CHECKING:
    from mailback.store.records import Event
    from mailback.store.transaction import Transaction

_CAUSES: Final = {Kind.DELIVERED: "arrived", Kind.BOUNCE: "bounced", Kind.DELAY: "delayed"}
_TURNED: Final = "turned"
_OUTCOMES: Final = "left:outcomes"
_FROM_STRANGERS: Final = frozenset({Source.MILTER.value, Source.SMTPD.value, Source.MAILBOX.value})
"""Ways in by which anybody may tell us something."""
PERMANENT: Final = "permanent"
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_WEEK: Final = 7 * _DAY


def count(transaction: Transaction, event: Event, *, proof_needed: bool) -> None:
    """Take a new event into account."""
    cause, provider = _CAUSES.get(event.kind), event.provider or event.domain
    if cause is None or provider is None or event.provenance is Provenance.FORGED:
        return
    if proof_needed and event.provenance.rank <= Provenance.UNPROVEN.rank:
        return
    if repeated(transaction, event):
        return
    transaction.one_more(f"{cause}:{provider}", event.at)
    if event.kind is not Kind.DELAY and event.source not in _FROM_STRANGERS:
        transaction.one_more(_OUTCOMES, event.at)
    if event.kind is Kind.DELIVERED:
        transaction.note_hour(_CAUSES[Kind.DELIVERED], event.at)
        transaction.surges.down(provider, event.at)


def repeated(transaction: Transaction, event: Event) -> bool:
    """Whether a stranger tells once more within the hour that mail to one recipient failed: however many messages such
    reports name, together they count as one. Our own log and tables name those that there were."""
    if event.source not in _FROM_STRANGERS or event.kind is Kind.DELIVERED or event.recipient_key is None:
        return False
    return transaction.failed_beside(event.recipient_key, event.id, event.at - _HOUR, event.at + _HOUR)


@dataclass(frozen=True, slots=True)
class Turned:
    """Addresses of a provider that took mail lately and now fail for good."""

    count: int
    """In that hour and the one before."""
    ahead: int
    """How many more of them there are than messages that arrived, since they began to come."""


def turned(transaction: Transaction, provider: str, at: datetime) -> Turned:
    """One more address of a provider that took mail lately fails for good."""
    transaction.one_more(f"{_TURNED}:{provider}", at)
    ahead = transaction.surges.up(provider, at)
    return Turned(transaction.total(f"{_TURNED}:{provider}", at - _HOUR, at), ahead)


def recent(transaction: Transaction, provider: str, now: datetime) -> float:
    """About how many outcomes and deferrals of mail to a provider the last 60 minutes saw."""
    return sum(transaction.recent(f"{cause}:{provider}", now) for cause in _CAUSES.values())


def between(transaction: Transaction, provider: str, first: datetime, last: datetime) -> Outcomes:
    """What became of mail to a provider in the hours from that of `first` to that of `last`."""
    return Outcomes(
        arrived=transaction.total(f"arrived:{provider}", first, last),
        bounced=transaction.total(f"bounced:{provider}", first, last),
        permanent=transaction.total_of(f"{PERMANENT}:{provider}/", first, last),
        turned=transaction.total(f"{_TURNED}:{provider}", first, last),
    )


def permanent(transaction: Transaction, provider: str, at: datetime) -> int:
    """How many addresses of a provider failed for good in that hour."""
    return transaction.total_of(f"{PERMANENT}:{provider}/", at, at)


def everywhere(transaction: Transaction, first: datetime, last: datetime) -> Outcomes:
    """The same over all providers; `turned` is left out."""
    arrived, bounced, permanent = (
        transaction.total_of(f"{prefix}:", first, last) for prefix in ("arrived", "bounced", PERMANENT)
    )
    return Outcomes(arrived, bounced, permanent)


def arrivals_told(transaction: Transaction, event: Event) -> bool:
    """Whether a share of the outcomes around an event says anything: whether arrivals are told as well, and in time.

    A log has both, so what it tells may be taken by itself where it has told arrivals this week. For all else something
    must have arrived, at whatever provider, within the hour or the one before: where the log is read each night, the
    reports of the day are failures alone.
    """
    since = event.at - (_WEEK if event.source == Source.LOG.value else _HOUR)
    return transaction.total(_CAUSES[Kind.DELIVERED], since, event.at) > 0


def busiest_day(transaction: Transaction, at: datetime) -> int:
    """How many messages and recipients left on the busiest of the seven days before `at`, as far as the journal, our
    own log, services and tables tell; 0 where nothing does. What strangers report adds nothing to it."""
    days = [(at - (day + 1) * _DAY + _HOUR, at - day * _DAY) for day in range(7)]
    return max(transaction.total(cause, first, last) for cause in (WRITTEN, _OUTCOMES) for first, last in days)

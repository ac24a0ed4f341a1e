"""What each event does to the breakers, within the transaction that records it.

Every outcome of mail to a provider is counted by the hour (`mailback.provenance.outcomes`), and every refusal that a
row of `breakers.toml` fits, by that row and by what of ours it is about. Past both thresholds (so many, and so much of
all) the breaker trips. A delivery closes one that is half open, a refusal opens it again.

Only what is believed counts, as for suppressions: reports without proof do not where proof is required, and forged ones
never; else anybody could stop our mail by sending bounces. Only news counts: a log that is read a day later moves
nothing, and neither does a second report of the same failure.

Emits no log events: what changed is told in the notes of the outcome, by the watch of `serve`
(`mailback.outbound.watch`), by `mailback breaker list` and by `mailback doctor`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mailback.bounce.taxonomy import Kind, Provenance
from mailback.effects.senders import Senders
from mailback.policy import breaker as machine
from mailback.policy.breaker_rules import BreakerRule, BreakerRules
from mailback.provenance import outcomes

if TYPE_CHECKING:
    from mailback.policy.handling import Handling
    from mailback.recipient.hosting import Hosting
    from mailback.store.records import Breaker, Event
    from mailback.store.transaction import Transaction

_SIDES = {"ip_provider": "ip", "domain_provider": "domain"}
_FAILED = frozenset({Kind.BOUNCE, Kind.DELAY})
_WINDOW = timedelta(hours=1)
_AHEAD = timedelta(minutes=10)
"""How far a clock elsewhere may be ahead."""
_PREFIX = "breaker:"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Breakers:
    """The rules, and what of ours they are about."""

    rules: BreakerRules
    senders: Senders
    hosting: Hosting
    known: Callable[[str], str | None]
    """The provider of a host name."""
    proof_needed: bool = False
    clock: Callable[[], datetime] = field(default=_now)

    def complete(self, event: Event) -> None:
        """Fill in what breakers go by: the sending address, and the provider where only the domain tells it."""
        event.sending_ip = event.sending_ip or self.senders.address_in(event.diagnostic)
        if event.provider is None and event.domain:
            event.provider = self.hosting.provider(event.domain)

    def note(self, transaction: Transaction, event: Event, handling: Handling | None) -> tuple[str, ...]:
        """Take a new event into account; what the operator should hear."""
        if names := self.hosting.taken():
            transaction.wish_domains(names)
        provider = event.provider or event.domain
        now = self.clock()
        if provider is None or not self._counts(event, now):
            return ()
        self._learn(transaction, event)
        if event.kind is Kind.DELIVERED:
            self._deliver(transaction, event, provider, now)
            return ()
        rule = self.rules.rule(event)
        if rule is None or outcomes.repeated(transaction, event):
            return ()
        refusal = _Refusal.of(rule, handling, provider, outcomes.recent(transaction, provider, now))
        return tuple(self._refuse(transaction, event, refusal, now))

    def _counts(self, event: Event, now: datetime) -> bool:
        if event.kind not in _FAILED and event.kind is not Kind.DELIVERED:
            return False
        if event.provenance is Provenance.FORGED or not now - _WINDOW <= event.at <= now + _AHEAD:
            return False
        return not self.proof_needed or event.provenance.rank > Provenance.UNPROVEN.rank

    def _learn(self, transaction: Transaction, event: Event) -> None:
        """A server that answers for a domain tells who runs its mail, before DNS is asked."""
        if event.domain and event.remote_mta and self.hosting.provider(event.domain) is None:
            told = self.known(event.remote_mta)
            if told is not None and event.provenance.rank > Provenance.UNPROVEN.rank:
                transaction.learn_domain(event.domain, told)

    def _deliver(self, transaction: Transaction, event: Event, provider: str, now: datetime) -> None:
        for standing in transaction.standing_breakers(provider):
            if standing.sender not in (machine.ANY, self.senders.sender(standing.side, event)):
                continue
            after = machine.delivered(standing, now, event.at)
            if after.state != standing.state:
                keep(transaction, after, f"event:{event.id}")

    def _refuse(self, transaction: Transaction, event: Event, refusal: _Refusal, now: datetime) -> Iterator[str]:
        rule, side = refusal.rule, refusal.side
        sender = self.senders.sender(side, event)
        before = transaction.breaker(refusal.provider, side, sender)
        standing = before or machine.new(refusal.provider, side, sender, _LONG_AGO)
        cause = f"{_prefix(standing)}{rule.id}"
        transaction.one_more(cause, event.at)
        refusals = transaction.recent(cause, now)
        told = f"{event.type}/{event.subcategory}: {refusals:.0f} of {refusal.outcomes:.0f} within the hour"
        after = machine.refused(standing, refusal.terms, rule.id, told, now, refused_at=event.at)
        if refusals >= rule.count and refusals >= rule.share * refusal.outcomes:
            after = machine.tripped(after, refusal.terms, rule.id, told, now)
        if after.state == machine.OPEN and after is not standing and after != standing:
            keep(transaction, after, f"event:{event.id}")
            yield opened(after)


_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What a refusal is counted by."""

    rule: BreakerRule
    side: str
    provider: str
    terms: machine.Terms
    outcomes: float
    """Of mail to the provider within the hour."""

    @classmethod
    def of(cls, rule: BreakerRule, handling: Handling | None, provider: str, outcomes: float) -> _Refusal:
        """By the rule, and where it leaves something open by what `handling.toml` says of the cause."""
        terms, side = rule.terms, rule.side
        if handling is not None and handling.scope in _SIDES:
            side = side or _SIDES[handling.scope]
            if handling.suppress_days and not rule.longest_told:
                terms = replace(terms, longest_s=handling.suppress_days * 86400)
        return cls(rule, side or "ip", provider, terms, outcomes)


def keep(transaction: Transaction, breaker: Breaker, actor: str) -> None:
    """Write a breaker that has changed; one that was closed or opened counts anew from here on."""
    transaction.put_breaker(breaker, actor)
    transaction.forget_counts(_prefix(breaker))


def opened(breaker: Breaker) -> str:
    """What the operator hears of a breaker that opens."""
    until = f"until {breaker.until:%Y-%m-%d %H:%M} UTC" if breaker.until else "until somebody closes it"
    pace = f"slowed to one message every {breaker.pace_s} s" if breaker.pace_s else "held"
    return (
        f"breaker {breaker.name} opened by {breaker.rule}: {breaker.reason}; mail is {pace} {until}; "
        f"mailback breaker list"
    )


def _prefix(breaker: Breaker) -> str:
    return f"{_PREFIX}{breaker.name}:"

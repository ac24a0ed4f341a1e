"""The score of an address kept: what an event adds to the ledger, and the suppression that the ledger asks for.

Runs within the store's transaction, right after the event is recorded, so that no crash leaves one without the other.
The suppression is derived anew from all facts each time one is added: a delivery that is told late takes back a hold
that it contradicts, a bounce that is told late may complete one. Only suppressions of the source `score` are made and
taken back here; what an operator or another event holds stays as it is, and returns where a hold had taken its place.

Never counted: what is no recipient's fault, what the handling rules call no action, what is forged, what lacks the
proof or confidence that a suppression needs.

Emits no log events: holds stand in the history of the address, and `mailback explain` shows the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mailback import address
from mailback.bounce.taxonomy import CAUSES, Action, Fault, Kind, Provenance, Subcategory, Type
from mailback.envelope import Source
from mailback.policy.decision import Decision, DecisionRules
from mailback.policy.handling import Handling
from mailback.policy.score import Hold, ScoreRules, Standing, standing
from mailback.provenance.guard import Guard
from mailback.store.records import CLOCK_ERROR, SCORE, Event, ScoreEntry, Step, Subscriber, Suppression
from mailback.store.subscribers import NO_BOUNCES, Bounces

if TYPE_CHECKING:
    from mailback.settings import Settings
    from mailback.store.transaction import Recorded, Transaction


def rules_of(settings: Settings) -> ScoreRules:
    """The numbers of `[score]`."""
    told = settings.score
    return ScoreRules(
        window_days=told.window_days,
        needed=told.bounces_needed,
        suppress_days=told.suppress_days,
        graduate_after=told.graduate_after,
        memory_days=told.memory_days,
        delivery_resets=told.delivery_resets,
        growth=told.growth,
        probe=told.probe,
    )


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of an address's score."""

    hold: Hold | None
    """The hold that stands, or the last one that ran out."""
    withheld: str | None = None
    """Why the bounce that was entered last is set aside."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """The score ledger as the engine keeps it."""

    rules: ScoreRules
    decisions: DecisionRules
    guard: Guard

    @classmethod
    def of(cls, settings: Settings) -> Scoring:
        """With the numbers of the settings alone: for what somebody tells by hand, which is believed."""
        return cls(rules_of(settings), DecisionRules(), Guard(0, 0, 1.0))

    def heard(
        self, transaction: Transaction, event: Event, recorded: Recorded, handling: Handling | None, decision: Decision
    ) -> Decision:
        """Enter what an event that was just recorded says about its address; what becomes of the decision about it."""
        key = event.recipient_key
        if event.kind is Kind.REPLY:
            self._replied(transaction, event, recorded.event_id)
        if key is None or handling is None or event.recipient is None:
            return decision
        delivery = event.kind is Kind.DELIVERED and event.provenance.rank > Provenance.UNPROVEN.rank
        if delivery and recorded.new and not transaction.failed(key):
            return decision  # there is nothing that it could end: see store/scores.py
        entered = recorded.new or recorded.better
        entry = self._entry(event, recorded.event_id, handling) if entered else None
        moot = delivery and recorded.new and self._moot(transaction, key)
        enter = transaction.enter_delivery if delivery else transaction.enter
        counted = enter(entry, fresh=recorded.new) if entry is not None else transaction.counted(key)
        if moot:
            return decision
        if not counted:
            if recorded.better:  # what counted before may count no more
                self._tell_subscribers(transaction, key, None)
            return decision
        suspect = event if entered and entry is not None else None
        if suspect is not None and suspect.id != recorded.event_id:
            suspect = replace(event, id=recorded.event_id)
        settled = self.settle(transaction, key, event.recipient, suspect)
        if _untold(event) and entered and decision.action is Action.MANUAL_REVIEW:
            decision = Decision(Action.NO_ACTION, "its cause is not told: it counts as one soft bounce")
            transaction.amend(recorded.event_id, decision.action, decision.because)
        if settled.withheld is not None:
            return Decision(Action.MANUAL_REVIEW, settled.withheld)
        if entered and settled.hold is not None and settled.hold.entry.fact == recorded.event_id:
            return self._told(transaction, settled.hold, recorded.event_id, handling)
        return decision

    def alive(
        self, transaction: Transaction, recipient: str, cause: str, at: datetime, *, event_id: str | None = None
    ) -> None:
        """Enter that a mailbox lives, as an open or a click shows (`cause`: `open`, `click`, `reply`, `delivered`).

        One line a day and cause where it is no event of its own.
        """
        key = address.key(recipient)
        if _from_the_future(at):
            return
        moot = self._moot(transaction, key)
        transaction.enter(ScoreEntry(key, Step.ALIVE, at, event_id or cause, cause))
        if not moot and transaction.counted(key):
            self.settle(transaction, key, recipient)

    def _moot(self, transaction: Transaction, key: str) -> bool:
        """Whether one more sign of life changes nothing of what the ledger comes to, whenever it was."""
        return not self.rules.delivery_resets or transaction.lives(key)

    def opted_in(
        self, transaction: Transaction, facts: Subscriber, *, actor: str, reason: str, anew: bool = False
    ) -> bool:
        """Enter what is told of a subscriber; True when that changed anything.

        `anew`: the person asked for mail on `opt_in_at`, so the count begins anew there. Bounces that came before the
        subscriber was known count from now on.
        """
        key = facts.address_key
        if anew and facts.opt_in_at is not None:
            transaction.enter(ScoreEntry(key, Step.ALIVE, facts.opt_in_at, "opt_in", "opt_in"))
        known = transaction.subscribers.find(key, facts.list_id) is not None
        changed = transaction.subscribers.put(facts, actor=actor, reason=reason)
        if not known:
            transaction.heed(key, actor)
        if transaction.counted(key):
            self.settle(transaction, key, facts.address)
        return changed

    def _tell_subscribers(self, transaction: Transaction, key: str, told: Standing | None) -> None:
        """Let the lists know what an address's bounces come to."""
        bounces = NO_BOUNCES
        if told is not None:
            bounces = _bounces(told)
        transaction.subscribers.bounced(key, bounces, actor=SCORE, reason=_because(bounces))

    def settle(self, transaction: Transaction, key: str, recipient: str, suspect: Event | None = None) -> Settled:
        """Make the suppression that the ledger of an address asks for, or take back the one that it no longer does.

        `suspect` is the bounce that was entered last: where too many ask for the like at once, it is set aside.
        """
        now = datetime.now(UTC)
        told = standing(transaction.ledger(key), self.rules)
        self._tell_subscribers(transaction, key, told)
        hold = told.hold
        wanted = _suppression(hold, key, recipient) if hold is not None and hold.active(now) else None
        standing_now = [s for s in transaction.active(key, now) if s.scope == "all"]
        made = next((s for s in standing_now if s.source == SCORE), None)
        if wanted is not None and any(_covers(s, wanted) for s in standing_now):
            return Settled(hold)
        if wanted is not None and suspect is not None:
            reason = self.guard.holds(transaction, suspect, wanted)
            if reason is not None:
                transaction.hold_entry(key, suspect.id)
                transaction.amend(suspect.id, Action.MANUAL_REVIEW, reason)
                return replace(self.settle(transaction, key, recipient), withheld=reason)
        if made is not None:
            transaction.take_back_hold(made, "what is known now does not come to it: mailback explain")
        if wanted is not None:
            transaction.suppress(wanted, actor=f"event:{wanted.event_id}")
        return Settled(hold)

    def after_wave(self, transaction: Transaction, number: int) -> None:
        """Derive anew what the ledgers of a wave's addresses come to, once it was decided or a decision undone."""
        for member in transaction.wave_members(number):
            self.settle(transaction, member.address_key, member.address)

    def _entry(self, event: Event, event_id: str, handling: Handling) -> ScoreEntry | None:
        """What an event adds to the ledger of its recipient."""
        key = event.recipient_key
        if key is None or not self.believes(event) or _from_the_future(event.at):
            return None
        if event.kind is Kind.DELIVERED:
            return ScoreEntry(key, Step.ALIVE, event.at, event_id, "delivered")
        if _untold(event):
            return ScoreEntry(key, Step.BOUNCE, event.at, event_id, str(event.subcategory))
        tried = handling.action is Action.RE_ENGAGE and _own_fault(event)
        if not (tried or _counts(event)) or handling.action is Action.NO_ACTION:
            return None
        needed = 1 if tried else handling.escalate_after
        numbers = (handling.suppress_days, needed, handling.window_days)
        return ScoreEntry(key, Step.BOUNCE, event.at, event_id, str(event.subcategory), *numbers)

    def believes(self, event: Event) -> bool:
        """Whether an event is proven and sure enough to count."""
        if event.provenance is Provenance.FORGED:
            return False
        if event.kind is Kind.DELIVERED and event.provenance.rank > Provenance.UNPROVEN.rank:
            return True
        if self.decisions.proof_needed and event.provenance.rank <= Provenance.UNPROVEN.rank:
            return False
        return _untold(event) or (event.confidence or 0.0) >= self.decisions.min_confidence

    def _replied(self, transaction: Transaction, event: Event, event_id: str) -> None:
        """A person wrote: the mailbox lives. Anybody can write in anybody's name: proof is asked for as elsewhere."""
        proven = event.provenance.rank > Provenance.UNPROVEN.rank
        believed = proven or (event.provenance is Provenance.UNPROVEN and not self.decisions.proof_needed)
        if event.envelope_sender and address.is_address(event.envelope_sender) and believed:
            self.alive(transaction, event.envelope_sender, "reply", event.at, event_id=event_id)

    def _told(self, transaction: Transaction, hold: Hold, event_id: str, handling: Handling) -> Decision:
        tried = handling.action is Action.RE_ENGAGE
        action = Action.RE_ENGAGE if tried else Action.SUPPRESS_TEMPORARILY
        if hold.until is None:
            action = Action.SUPPRESS_PERMANENTLY
        window = hold.entry.window_days or self.rules.window_days
        counted = f"{hold.strikes} soft bounces in a row within {window} days"
        if tried:
            counted = "held until one message tries whether it is well"
        if hold.strikes == 1 and hold.round > 1 and self.rules.probe:
            counted = "the first message after a hold bounced"
        because = f"{counted}: hold {hold.round} of {self.rules.graduate_after}, " + (
            "for ever" if hold.until is None else f"until {hold.until:%Y-%m-%d %H:%M} UTC"
        )
        transaction.amend(event_id, action, because)
        return Decision(action, because)


_CAUSES = frozenset(cause.value for cause in CAUSES)
_CLASSES_ALONE = (None, "4.0.0", "5.0.0")
"""What a table's word says of a bounce at most ("soft", "hard"): no cause (RFC 3463 section 3.1)."""


def _from_the_future(at: datetime) -> bool:
    return at > datetime.now(UTC) + CLOCK_ERROR


def _untold(event: Event) -> bool:
    """Whether an operator's own table says that a message bounced, and nothing of why.

    Nobody knows whose fault that was; yet where this is all that is known of deliveries, it counts as one soft bounce.
    """
    return (
        event.kind is Kind.BOUNCE
        and event.source == Source.IMPORT.value
        and event.type == Type.UNKNOWN
        and not (event.smtp_code or event.diagnostic)
        and event.status in _CLASSES_ALONE
    )


def _own_fault(event: Event) -> bool:
    return event.kind is Kind.BOUNCE and event.fault is Fault.RECIPIENT


def _counts(event: Event) -> bool:
    """Whether an event is a soft bounce that is the recipient's own fault."""
    return _own_fault(event) and event.type == Type.SOFT_BOUNCE and not event.permanent


def _type_of(cause: str) -> Type:
    """What sort of bounce made a hold: soft, unless a row of the rules holds addresses back for another."""
    return CAUSES[Subcategory(cause)].type if cause in _CAUSES else Type.SOFT_BOUNCE


def _covers(stands: Suppression, wanted: Suppression) -> bool:
    """Whether a hold would change nothing beside what stands."""
    if stands.source == SCORE:
        return (stands.since, stands.until) == (wanted.since, wanted.until)
    return stands.until is None or (wanted.until is not None and stands.until >= wanted.until)


def _bounces(told: Standing) -> Bounces:
    """As the lists keep it: with the time when a soft status decays, so that the time of reckoning does not matter."""
    if told.hard_since is not None:
        return Bounces("hard", told.strikes, None, told.hard_since)
    return Bounces("soft", told.strikes, told.decays_at) if told.run else NO_BOUNCES


def _because(bounces: Bounces) -> str:
    if bounces.hard_since is not None:
        return "bounces made the address hard"
    return f"{bounces.count} soft bounces in a row" if bounces.count else "no bounces count"


def _suppression(hold: Hold, key: str, recipient: str) -> Suppression:
    return Suppression(
        address_key=key,
        address=recipient,
        scope="all",
        reason=f"{_type_of(hold.entry.cause)}/{hold.entry.cause}",
        type=_type_of(hold.entry.cause),
        subcategory=hold.entry.cause,
        source=SCORE,
        since=hold.since,
        until=hold.until,
        event_id=hold.entry.fact,
    )

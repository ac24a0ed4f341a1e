"""A quarter of a sender's year under four policies: `python bench/simulate.py [--recipients 3000 60000 1000000]`.

Every recipient has a true state that no policy sees: alive, dead from the beginning, dying on some day, moved, full for
a while, forged against. An old list joins in the third week, a quarter of it dead. Providers have their days: one
answers 451 for a day, one calls every address unknown for some hours, one blocks the sender for two days. Every third
day each recipient is mailed, unless the policy holds the address back; what the receiving server would answer comes
back as a bounce in that server's words.

The policies:

- Mailback: its own functions decide (classifier, handling rules, decision, score, guard), with the default settings and
  with return paths signed, so that a forged bounce is unproven. Postfix's log tells what arrives. An operator undoes
  each wave on the same evening, a false one too: then the dead are mailed again.
- three bounces and out: the third bounce in a row of any kind ends it for ever; a delivery begins the count anew.
- suppress on any 5xx: the first permanent reply code ends it for ever.
- a flat list: any bounce holds the address for 30 days.

Two figures count. *Avoidable mail* is what goes to a dead address after its first bounce; how much of it is saved.
*Good addresses switched off* are addresses that would have taken the mail and were held back on the last day, or for
more than a week before. Only addresses to which anything happens are walked through day by day; to all others every
policy does nothing.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mailback.bounce.taxonomy import Action, Fault, Kind, Provenance
from mailback.bounce.verdict import Verdict
from mailback.engine import Knowledge
from mailback.policy.decision import DecisionRules, decide
from mailback.policy.handling import Handling
from mailback.policy.score import ScoreRules, standing
from mailback.provenance import outcomes
from mailback.provenance.guard import Guard
from mailback.reports.report import DeliveryFailure, Report
from mailback.settings import Settings
from mailback.store import Store, sqlite
from mailback.store.records import Event, ScoreEntry, Step
from mailback.store.transaction import Transaction

DAYS, EVERY = 90, 3
BEGINS = datetime(2026, 1, 5, 8, tzinfo=UTC)
WEEK = 7 // EVERY  # mailings that a week's hold costs

# What happens to which share of the recipients.
SHARES = {"dead": 0.02, "old": 0.05, "dying": 0.01, "moved": 0.003, "full": 0.01, "forged": 0.002, "flaky": 0.02}
DEFERRING, CONFUSED, BLOCKING = "slow.test", "confused.test", "strict.test"
PROVIDERS = {DEFERRING: 0.05, CONFUSED: 0.03, BLOCKING: 0.08}
OUTAGE_DAY, CONFUSED_DAY, BLOCKED_DAYS = 30, 45, (60, 63)
OLD_DAY, OLD_DEAD = 15, 0.25

Reply = tuple[str, str]
"""Enhanced status code, and the words of the server."""
UNKNOWN: tuple[Reply, ...] = (
    ("5.1.1", "550 5.1.1 The email account that you tried to reach does not exist"),
    ("5.1.1", "550 5.1.1 <{}>: Recipient address rejected: User unknown in virtual mailbox table"),
    ("5.1.10", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"),
    ("5.2.1", "550 5.2.1 The email account that you tried to reach is disabled"),
    ("5.0.0", "550 No such user here"),
)
UNKNOWN_FOR_NOW: Reply = ("4.1.1", "450 4.1.1 <{}>: Recipient address rejected: User unknown in local recipient table")
"""Servers set up to call nothing permanent: the message is tried for days, and comes back with this."""
TIMID = 0.04
MOVED: Reply = ("5.1.6", "551 5.1.6 User not local; please try <new-{}>")
FULL: tuple[Reply, ...] = (
    ("5.2.2", "552 5.2.2 <{}>: mailbox is full: user is over quota"),
    ("4.2.2", "452 4.2.2 The recipient's inbox is out of storage space"),
)
FLAKY: tuple[Reply, ...] = (
    ("4.7.1", "451 4.7.1 <{}>: Recipient address rejected: Greylisted, try again in 5 minutes"),
    ("4.4.2", "421 4.4.2 Connection timed out while sending the message"),
    ("4.3.2", "452 4.3.2 System not accepting messages at this time, too many connections"),
    ("5.7.1", "554 5.7.1 Message rejected: the content looks like spam"),
)
DEFERRED: Reply = ("4.3.0", "451 4.3.0 Temporary server error, please try again later")
BLOCKED: tuple[Reply, ...] = (
    ("5.7.1", "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using a DNS list"),
    ("5.7.606", "550 5.7.606 Access denied, banned sending IP [192.0.2.7]"),
    ("5.7.1", "550 5.7.1 Our system has detected an unusual rate of unsolicited mail originating from your IP address"),
)


@dataclass(slots=True)
class Person:
    """A recipient's true state."""

    number: int
    fate: str
    provider: str
    joins: int = 0
    """First day on which it is mailed."""
    begins: int = 0
    """Day on which it dies, moves, fills up; of a forged bounce: when it comes."""
    ends: int = DAYS
    reply: Reply = UNKNOWN[0]

    @property
    def address(self) -> str:
        return f"person-{self.number}@{self.provider}"

    @property
    def dies(self) -> bool:
        return self.fate in {"dead", "dying", "moved"}

    def answer(self, day: int, chance: random.Random) -> Reply | None:
        """What the server says to a mail on that day; None where it is delivered."""
        if self.fate in {"dead", "dying", "moved", "full"} and self.begins <= day < self.ends:
            return self.reply
        if self.provider == DEFERRING and day == OUTAGE_DAY:
            return DEFERRED
        if self.provider == CONFUSED and day == CONFUSED_DAY:
            return UNKNOWN[1]
        if self.provider == BLOCKING and BLOCKED_DAYS[0] <= day < BLOCKED_DAYS[1]:
            return BLOCKED[self.number % len(BLOCKED)]
        return chance.choice(FLAKY) if self.fate == "flaky" and chance.random() < 0.4 else None

    def good(self, day: int) -> bool:
        """Whether a mail would be delivered but for trouble that passes."""
        return not (self.fate in {"dead", "dying", "moved", "full"} and self.begins <= day < self.ends)


def people(count: int, chance: random.Random) -> Iterator[Person]:
    """Those to whom anything happens."""
    fates, weights = (*SHARES, ""), (*SHARES.values(), 1 - sum(SHARES.values()))
    providers, sizes = (*PROVIDERS, "other.test"), (*PROVIDERS.values(), 1 - sum(PROVIDERS.values()))
    for number in range(count):
        [fate] = chance.choices(fates, weights)
        [provider] = chance.choices(providers, sizes)
        if provider == "other.test":
            if not fate:
                continue
            provider = f"domain-{number % 500}.test"
        person = Person(number, fate, provider)
        if fate == "old":
            person.joins = OLD_DAY
            person.fate = "dead" if chance.random() < OLD_DEAD else ""
        if fate in {"dying", "moved", "full", "forged"}:
            person.begins = chance.randrange(0, DAYS)
        if fate == "full":
            person.ends = person.begins + chance.randrange(5, 40)
        replies = {"moved": (MOVED,), "full": FULL}.get(person.fate, UNKNOWN)
        person.reply = chance.choice(replies)
        if person.fate in {"dead", "dying"} and chance.random() < TIMID:
            person.reply = UNKNOWN_FOR_NOW
        yield person


class Policy:
    """Who is held back: `holds` is asked before a mail, the others tell what became of one. This one holds nobody."""

    name = "none"

    def holds(self, person: Person, day: int) -> bool:
        """Whether this mail is not sent."""
        return False

    def bounced(self, person: Person, day: int, reply: Reply, *, forged: bool) -> None:
        """A mail came back, or somebody says so."""

    def delivered(self, person: Person, day: int) -> None:
        """A mail arrived."""

    def evening(self, day: int) -> None:
        """The day is over."""


class ThreeAndOut(Policy):
    name = "three bounces and out"

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def holds(self, person: Person, day: int) -> bool:
        return self._counts.get(person.number, 0) >= 3

    def bounced(self, person: Person, day: int, reply: Reply, *, forged: bool) -> None:
        self._counts[person.number] = self._counts.get(person.number, 0) + 1

    def delivered(self, person: Person, day: int) -> None:
        self._counts.pop(person.number, None)


class AnyPermanent(Policy):
    name = "suppress on any 5xx"

    def __init__(self) -> None:
        self._held: set[int] = set()

    def holds(self, person: Person, day: int) -> bool:
        return person.number in self._held

    def bounced(self, person: Person, day: int, reply: Reply, *, forged: bool) -> None:
        if reply[0].startswith("5"):
            self._held.add(person.number)


class Flat(Policy):
    name = "a flat list, 30 days"

    def __init__(self) -> None:
        self._until: dict[int, int] = {}

    def holds(self, person: Person, day: int) -> bool:
        return self._until.get(person.number, -1) > day

    def bounced(self, person: Person, day: int, reply: Reply, *, forged: bool) -> None:
        self._until[person.number] = day + 30


class Mailback(Policy):
    name = "Mailback"

    def __init__(self, transaction: Transaction) -> None:
        settings = Settings()
        self._transaction = transaction
        self._knowledge = Knowledge.load()
        told = settings.policy
        self._guard = Guard(
            told.unproven_per_hour, told.wave_minimum, told.wave_factor, told.wave_share, told.unproven_share
        )
        self._rules = DecisionRules(min_confidence=settings.policy.min_confidence, proof_needed=True)
        self._score = ScoreRules()
        self._for_ever: set[int] = set()
        self._ledgers: dict[int, list[ScoreEntry]] = {}
        self._judged: dict[tuple[Reply, str], tuple[Verdict, Handling]] = {}
        self._made: dict[str, list[int]] = {}
        """Permanent suppressions of the day by provider: those that a wave undone takes back."""
        self.waves: list[str] = []

    def holds(self, person: Person, day: int) -> bool:
        if person.number in self._for_ever:
            return True
        ledger = self._ledgers.get(person.number)
        hold = standing(ledger, self._score).hold if ledger else None
        return hold is not None and hold.active(_at(day, person))

    def bounced(self, person: Person, day: int, reply: Reply, *, forged: bool) -> None:
        verdict, handling = self._judge(person, reply)
        event = replace(
            _event(person, day, Kind.BOUNCE), type=verdict.type.value, subcategory=verdict.subcategory.value,
            fault=verdict.fault, permanent=verdict.permanent, confidence=verdict.confidence,
            provenance=Provenance.UNPROVEN if forged else Provenance.SIGNED,
        )  # fmt: skip
        outcomes.count(self._transaction, event, proof_needed=True)
        decision = decide(event, handling, self._rules)
        if decision.suppression is not None:
            if self._guard.holds(self._transaction, event, decision.suppression) is None:
                self._for_ever.add(person.number)
                self._made.setdefault(person.provider, []).append(person.number)
        elif not forged and handling.action is Action.RETRY_WITH_DELAY and verdict.fault is Fault.RECIPIENT:
            self._enter(person, ScoreEntry(
                person.address, Step.BOUNCE, event.at, event.id, verdict.subcategory.value, handling.suppress_days
            ))  # fmt: skip

    def delivered(self, person: Person, day: int) -> None:
        outcomes.count(self._transaction, _event(person, day, Kind.DELIVERED), proof_needed=True)
        self._transaction.arrived(person.address, _at(day, person))
        if person.number in self._ledgers:
            self._enter(person, ScoreEntry(person.address, Step.ALIVE, _at(day, person), f"d{day}", "delivered"))

    def evening(self, day: int) -> None:
        """The operator looks at waves, and undoes them: servers do not lose all their users in an hour."""
        for provider, numbers in self._made.items():
            number = self._transaction.wave(provider)
            if number is not None:
                self.waves.append(f"{provider} on day {day}")
                self._for_ever.difference_update(numbers)
                self._transaction.undo_wave(number, "operator")
        self._made.clear()

    def _enter(self, person: Person, entry: ScoreEntry) -> None:
        self._ledgers.setdefault(person.number, []).append(entry)

    def _judge(self, person: Person, reply: Reply) -> tuple[Verdict, Handling]:
        found = self._judged.get((reply, person.provider))
        if found is None:
            status, words = reply
            failure = DeliveryFailure(
                recipient=person.address, action="failed", status=status, smtp_code=words[:3],
                diagnostic=words.format(person.address), remote_mta=f"mx.{person.provider}",
            )  # fmt: skip
            finding = self._knowledge.judge(failure, Report(Kind.BOUNCE, failures=[failure]))
            found = self._judged[reply, person.provider] = finding.verdict, finding.handling
        return found


def _at(day: int, person: Person) -> datetime:
    """When a person's mail of that day goes out: the run takes three hours."""
    return BEGINS + timedelta(days=day, seconds=person.number % 10_800)


def _event(person: Person, day: int, kind: Kind) -> Event:
    return Event(
        id=f"{person.number}-{day}", identity="", at=_at(day, person), kind=kind, source="log",
        recipient=person.address, recipient_key=person.address, domain=person.provider, provider=person.provider,
        reporting_mta=f"mx.{person.provider}", provenance=Provenance.JOURNAL,
    )  # fmt: skip


@dataclass(slots=True)
class Outcome:
    """What a policy did."""

    avoidable: int = 0
    """Mails to dead addresses after their first bounce that no policy at all would have sent."""
    sent_in_vain: int = 0
    lost: int = 0
    """Mails that would have been delivered and were held back."""
    off: set[int] = field(default_factory=set)
    """Good addresses that were switched off."""


def walk(policy: Policy, everybody: list[Person], seed: int) -> Outcome:
    """One policy through all days."""
    chance, done = random.Random(seed), Outcome()
    known_dead: set[int] = set()
    held: dict[int, int] = {}
    in_turn = sorted(everybody, key=lambda person: person.number % 10_800)
    for day in range(DAYS):
        for person in in_turn if day % EVERY == 0 else ():
            if person.joins <= day:
                _mail(policy, person, day, chance, done, known_dead, held)
        for person in everybody:
            if person.fate == "forged" and person.begins == day:
                policy.bounced(person, day, UNKNOWN[0], forged=True)
        policy.evening(day)
    return done


def _mail(
    policy: Policy,
    person: Person,
    day: int,
    chance: random.Random,
    done: Outcome,
    known: set[int],
    held: dict[int, int],
) -> None:
    good = person.good(day)
    answer = person.answer(day, chance)
    avoidable = person.dies and not good and person.number in known
    done.avoidable += avoidable
    if policy.holds(person, day):
        if good:
            done.lost += 1
            held[person.number] = held.get(person.number, 0) + 1
            if person.fate != "full" and (held[person.number] > WEEK or day + EVERY >= DAYS):
                done.off.add(person.number)
        return
    held.pop(person.number, None)
    if answer is None:
        policy.delivered(person, day)
        return
    done.sent_in_vain += avoidable
    policy.bounced(person, day, answer, forged=False)
    if person.dies and not good:
        known.add(person.number)


def table(done_by: dict[str, Outcome], recipients: int, touched: int, waves: list[str]) -> str:
    """What all policies did, as Markdown."""
    told = ", ".join(waves) or "none"
    story = (
        f"{touched:,} of them were dead, died, moved, were full for a while, flaky or forged against, came with an old"
        " list, or had a provider that was down, confused or blocked the sender."
        f" Waves that an operator undid: {told}.\n"
    )
    lines = [
        f"## Simulation: {recipients:,} recipients, {DAYS} days, a mail every {EVERY} days\n",
        story,
        "| policy | mails to the dead saved | sent in vain | saved | good switched off | of all | good held back |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, done in done_by.items():
        saved = done.avoidable - done.sent_in_vain
        lines.append(
            f"| {name} | {saved:,} | {done.sent_in_vain:,} | {saved / max(done.avoidable, 1):.1%} | {len(done.off):,}"
            f" | {len(done.off) / recipients:.3%} | {done.lost:,} |"
        )
    return "\n".join(
        [*lines, "\nGoal: at least 95 % saved, fewer than 0.05 % switched off, better on both than the others.\n"]
    )


def simulate(recipients: int, seed: int) -> str:
    """One sender under all policies."""
    everybody = list(people(recipients, random.Random(seed)))
    with tempfile.TemporaryDirectory() as folder, Store.open(f"sqlite:///{folder}/mailback.db") as store:
        store.upgrade()
        connection = sqlite.connect_writing(store.path)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        ours = Mailback(Transaction(connection))
        policies: tuple[Policy, ...] = (ours, ThreeAndOut(), AnyPermanent(), Flat())
        done_by = {policy.name: walk(policy, everybody, seed) for policy in policies}
        connection.close()
    return table(done_by, recipients, len(everybody), ours.waves)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipients", type=int, nargs="+", default=[3_000, 60_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    for recipients in asked.recipients:
        print(simulate(recipients, asked.seed), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

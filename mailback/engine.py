"""The one walk: an envelope and the bytes of a message in, an outcome out.

`assess` is pure computation: it reads the message, tells what it is, whom a delivery failed for and why. `commit`
writes what follows from that (events, suppressions, audit) in one transaction and resolves when that is durable. A
door answers `250` only after the second; `inbound` does both and blocks.

The engine does not log. What it has to say stands in the outcome's notes; a store that cannot commit makes the
future fail with `StoreUnavailable`, and the door answers `451 4.3.0` with `unavailable()`.

The parts of the walk lie in `mailback.walk`: what is known beforehand, what a message is, the event made of it, what a
reply answers, the outcome. Here is the order in which they are gone through, and what happens within the transaction.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from mailback import address, reply, returnpath
from mailback.bounce.taxonomy import Action, Kind, Subcategory, Type
from mailback.effects import breakers, reputation, retrying, scoring, senders
from mailback.envelope import Envelope
from mailback.message import Message, parse
from mailback.observation import Interaction, Observation, Observed
from mailback.policy.decision import Decision, DecisionRules, decide
from mailback.policy.handling import Handling
from mailback.policy.routes import RouteActions
from mailback.provenance import belief, guard, outcomes
from mailback.recipient import hosting
from mailback.recipient.readership import Known, Readership
from mailback.reply import clamd
from mailback.reply.routing import Route
from mailback.reports import ours
from mailback.reports.dates import date
from mailback.reports.report import Report
from mailback.review import queue
from mailback.store.records import Event, Suppression
from mailback.walk import conversation
from mailback.walk.classification import KINDS_OF_FAILURE, KINDS_READ, MACHINE_KINDS, Classification, Finding
from mailback.walk.events import event_of, fill_finding, identity_of
from mailback.walk.knowledge import Knowledge, classify
from mailback.walk.outcome import TAG_PREFIX, Disposition, Outcome, delivered, outcome_of, unavailable

if TYPE_CHECKING:
    from mailback.provenance.authentication import Checks, Inquiry
    from mailback.settings import Settings
    from mailback.store import Recorded, Store, Transaction

# What a door or a command needs of the walk comes from here, whichever part of it defines the name.
__all__ = [
    "TAG_PREFIX", "Assessment", "Classification", "Disposition", "Engine", "Finding", "Knowledge", "Outcome",
    "classify", "unavailable",
]  # fmt: skip

_RAWS_AN_HOUR = 500
"""Messages that wait for a review and are kept as they came in, at most."""
_SMALL_REPORT = 20  # recipients whose events are written on the door's own loop: some milliseconds of work


@dataclass(frozen=True, slots=True)
class Assessment:
    """A message that was read, and the events that will be written for it."""

    classification: Classification
    events: tuple[Event, ...]
    handlings: tuple[Handling | None, ...]
    """One for each event; None where the event is about nobody."""
    answered: belief.Answered = belief.NOTHING
    context: conversation.Context | None = None
    """What a reply answers; None for everything that is no reply."""
    recipients: tuple[str, ...] = ()
    """Those of the envelope."""
    raw: bytes = b""
    """The message, for where it is kept."""


class Engine:
    """The walk of one worker process; safe to call from any thread."""

    def __init__(
        self, settings: Settings, store: Store, knowledge: Knowledge | None = None, checks: Checks | None = None
    ) -> None:
        """`checks` authenticate what comes in; without them nothing is authenticated."""
        self._store = store
        self._keeps_raw = settings.store.keep_raw
        self._checks = checks
        hosts = hosting.Hosting(store.mail_domain)
        self._knowledge = replace(knowledge or Knowledge.load(settings), hosting=hosts)
        self._belief = belief.Belief(self._knowledge.return_paths)
        self._guard = guard.Guard(
            settings.policy.unproven_per_hour,
            settings.policy.wave_minimum,
            settings.policy.wave_factor,
            settings.policy.wave_share,
            settings.policy.unproven_share,
            lambda domain: hosts.provider(domain) or domain,
        )
        self._rules = DecisionRules(
            hard_bounces_needed=settings.policy.hard_bounces_needed,
            hold_during_review=settings.policy.hold_during_review,
            min_confidence=settings.policy.min_confidence,
            proof_needed=settings.trust.require == "always"
            or (settings.trust.require == "auto" and self._belief.signing),
            opt_out_by_list=settings.replies.opt_out_scope == "list",
        )
        of_ours = senders.Senders.of(settings.mail)
        self._reputation = reputation.Reputation(of_ours, self._rules.proof_needed)
        self._breakers = breakers.Breakers(
            self._knowledge.breakers,
            of_ours,
            hosts,
            self._knowledge.failures.names.of_host,
            self._rules.proof_needed,
        )
        self._conversations = conversation.Conversations(
            settings, store, self._knowledge.owners, proof_needed=self._rules.proof_needed
        )
        self._actions = RouteActions.of(settings.replies)
        self._scanner = clamd.Clamd.of(settings)
        self._deadlines = queue.Deadlines(bounce=timedelta(hours=settings.review.bounce_due_hours))
        self._readership = Readership(store, settings.policy.recent_days)
        self._retrying = retrying.Retrying.of(settings)
        self._scoring = scoring.Scoring(scoring.rules_of(settings), self._rules, self._guard)

    @property
    def return_paths(self) -> returnpath.ReturnPaths | None:
        """The keys of signed return paths; None where they are not signed."""
        return self._knowledge.return_paths

    def inbound(self, envelope: Envelope, raw: bytes) -> Outcome:
        """Read a message and write what follows from it; returns when that is durable.

        Raises StoreUnavailable when the store cannot commit: nothing was kept, the peer must keep the mail.
        """
        return self.commit(self.assess(envelope, raw)).result()

    def assess(self, envelope: Envelope, raw: bytes, since: float | None = None) -> Assessment:
        """The part that writes nothing; never raises on any bytes.

        Blocks for DNS, at most until its budget is spent, counted from `since` (`time.monotonic`) or from now; and for
        a virus scanner, where one is configured.
        """
        assessment = self._assess(envelope, raw, self._checks.inquiry(since=since) if self._checks else None)
        assert assessment is not None, "whoever may wait for DNS misses nothing"
        return assessment

    def assess_at_once(self, envelope: Envelope, raw: bytes) -> Assessment | None:
        """The same without waiting for anything, for an event loop; None where DNS or a scanner has to be asked."""
        return self._assess(envelope, raw, self._checks.inquiry(at_once=True) if self._checks else None, at_once=True)

    def _assess(
        self, envelope: Envelope, raw: bytes, inquiry: Inquiry | None, *, at_once: bool = False
    ) -> Assessment | None:
        began = time.perf_counter_ns()
        message = parse(raw, self._knowledge.limits)
        told = inquiry.authentication(envelope, raw, message) if inquiry else None
        if inquiry and inquiry.missed:
            return None
        context: conversation.Context | None = None

        def ask(message: Message, report: Report) -> tuple[Sequence[str], reply.Known]:
            nonlocal context
            answered = self._belief.answered(envelope, None, None)
            context = self._conversations.context(envelope, message, report, answered, told)
            return context.thread, context.known if at_once else self._scanned(raw, report, context.known)

        classification = self._knowledge.read(message, envelope, ask, told, self._readership)
        if at_once and self._scanner is not None and classification.report.kind in KINDS_READ:
            return None
        shown = inquiry.shown(envelope, message, classification.report, told) if inquiry and told else None
        if inquiry and inquiry.missed:
            return None
        digest = hashlib.sha256(raw).hexdigest()
        report_id = message.header("message-id") or None
        events = []
        handlings: list[Handling | None] = []
        for finding in classification.findings or (None,):
            event = event_of(envelope, classification, report_id, digest, len(raw))
            if finding is not None:
                fill_finding(event, finding, digest)
            elif classification.names_nobody:
                event.type, event.subcategory = Type.UNKNOWN.value, Subcategory.UNKNOWN.value
            events.append(event)
            handlings.append(finding.handling if finding is not None else None)
        events[0].processing_us = (time.perf_counter_ns() - began) // 1000
        original = classification.report.original
        returned_sender = original.sender if original is not None else None
        answered = self._belief.answered(envelope, returned_sender, date(message.header("date")), shown)
        return Assessment(classification, tuple(events), tuple(handlings), answered, context, envelope.recipients, raw)

    def _scanned(self, raw: bytes, report: Report, known: reply.Known) -> reply.Known:
        """What is known, with what a scanner finds; that it could not look is noted, and costs nothing else."""
        if self._scanner is None:
            return known
        scan = self._scanner.scan(raw)
        if scan.trouble is not None:
            report.notes.append(f"not scanned for viruses: {scan.trouble}")
        return replace(known, virus=scan.found)

    def commit(self, assessment: Assessment) -> Future[Outcome]:
        """Hand the assessment to the store's writer; the future resolves after the group commit."""
        large = len(assessment.events) > _SMALL_REPORT
        return self._store.submit(lambda transaction: self._write(transaction, assessment), large=large)

    def _write(self, transaction: Transaction, assessment: Assessment) -> Outcome:
        """Within the transaction: record each event, decide on it with its history, carry the decision out."""
        decisions = []
        event_ids = []
        held: dict[str, None] = {}
        hearing = belief.Hearing(transaction, assessment.answered)
        classification, context = assessment.classification, assessment.context
        if classification.reply is not None and context is not None:
            return self._write_reply(transaction, assessment, classification.reply, context)
        for event, handling in zip(_believed(assessment, hearing), assessment.handlings, strict=True):
            decision = _reviewed(self._decide(transaction, event, handling), classification)
            recorded, decision = self._record(transaction, event, handling, decision, held)
            event_ids.append(recorded.event_id)
            decisions.append(decision)
        self._keep_raw(transaction, assessment, decisions)
        return outcome_of(classification, tuple(decisions), event_ids[0], hearing.restored(), tuple(held))

    def _write_reply(
        self, transaction: Transaction, assessment: Assessment, answer: reply.Reply, context: conversation.Context
    ) -> Outcome:
        """Within the transaction: whose reply it is, what is done because of it, and how it is delivered."""
        classification = assessment.classification
        hearing = belief.Hearing(transaction, assessment.answered)
        event, decision = self._conversations.judge(
            hearing, assessment.events[0], answer, context, assessment.recipients
        )
        decision = _reviewed(decision, classification)
        if decision.action is Action.MANUAL_REVIEW and event.route in (Route.NOTIFY_OWNER, Route.AUTO_ARCHIVE):
            event.route = Route.REQUIRE_APPROVAL
        held: dict[str, None] = {}
        recorded, decision = self._record(transaction, event, None, decision, held, text=answer.said)
        self._keep_raw(transaction, assessment, [decision])
        outcome = outcome_of(
            classification, (decision,), recorded.event_id, hearing.restored(), tuple(held), route=event.route
        )
        owner = event.reply["owner"] if event.reply else None
        delivery = self._actions.delivery(event.route or "", answer.safety, owner if isinstance(owner, str) else None)
        return delivered(outcome, delivery)

    def _keep_raw(self, transaction: Transaction, assessment: Assessment, decisions: Sequence[Decision]) -> None:
        """Keep the message as it came in, where the settings ask for it."""
        event = assessment.events[0]
        waits = any(decision.action is Action.MANUAL_REVIEW for decision in decisions)
        wanted = self._keeps_raw == "all" or (self._keeps_raw == "review" and waits)
        if wanted and self._keeps_raw == "review":  # what waits is what strangers send: they shall not fill the disk
            wanted = transaction.count("raw", event.at) <= _RAWS_AN_HOUR
        if wanted and event.raw_sha256 and assessment.raw:
            transaction.keep_raw(event.raw_sha256, assessment.raw, event.at)

    def observe(
        self, observations: Sequence[Observation | Interaction], then: Callable[[Transaction], None] | None = None
    ) -> Future[list[Observed]]:
        """Record what log lines, webhooks or tables say, and decide on each as on a recipient of a bounce; count opens
        and clicks.

        All of them are one unit of work: either everything is kept or nothing. `then` runs at its end, within the same
        transaction; the place up to which a log was read belongs there. The future resolves, one answer an observation,
        after the group commit.
        """
        outcomes_told = (one for one in observations if isinstance(one, Observation))
        known = self._readership.known(one.failure for one in outcomes_told if one.kind in KINDS_OF_FAILURE)
        judged = [one if isinstance(one, Interaction) else self._judged(one, known) for one in observations]
        large = len(judged) > _SMALL_REPORT
        return self._store.submit(partial(self._write_observed, judged, then), large=large)

    def _judged(self, observation: Observation, known: Known) -> _Judged:
        began = time.perf_counter_ns()
        report = Report(observation.kind, failures=[observation.failure], dialect=observation.dialect)
        failed = observation.kind in KINDS_OF_FAILURE
        reader = self._readership.of(observation.failure, observation.at, known) if failed else None
        finding = self._knowledge.judge(observation.failure, report, observation.list_id, reader)
        event = observation.event()
        fill_finding(event, finding, observation.identity)
        event.processing_us = (time.perf_counter_ns() - began) // 1000
        return _Judged(observation, event, finding)

    def _write_observed(
        self,
        judged: Sequence[_Judged | Interaction],
        then: Callable[[Transaction], None] | None,
        transaction: Transaction,
    ) -> list[Observed]:
        """Within the transaction: the batch in its order, then what belongs to it."""
        transaction.expect(one.event.recipient_key or "" for one in judged if isinstance(one, _Judged))
        answers = [
            self._write_interaction(transaction, one)
            if isinstance(one, Interaction)
            else self._write_one_observed(transaction, one)
            for one in judged
        ]
        if then is not None:
            then(transaction)
        return answers

    def _write_interaction(self, transaction: Transaction, told: Interaction) -> Observed:
        """An open or a click: counted once, and proof that the mailbox lives."""
        new = transaction.read_by(address.key(told.recipient), told.what, told.at, told.identity)
        if new:
            self._scoring.alive(transaction, told.recipient, told.what.value, told.at)
        return Observed(None, new=new, decision=None)

    def _write_one_observed(self, transaction: Transaction, judged: _Judged) -> Observed:
        event, handling = judged.event, judged.finding.handling
        if not belief.witnessed(transaction, event, judged.observation):
            return Observed(None, new=False, decision=None)
        if event.original_message_id and not judged.observation.message_id:  # the journal told it
            event.identity = identity_of(event, event.kind, judged.observation.identity)
        held: dict[str, None] = {}
        decision = self._decide(transaction, event, handling)
        recorded, decision = self._record(transaction, event, handling, decision, held)
        return Observed(recorded.event_id, new=recorded.new, decision=decision, notes=tuple(held))

    def _record(
        self,
        transaction: Transaction,
        event: Event,
        handling: Handling | None,
        decision: Decision,
        held: dict[str, None],
        *,
        text: str | None = None,
    ) -> tuple[Recorded, Decision]:
        """Record one event and carry its decision out, the one way for whatever brought the news; `held`: what to tell
        the operator; `text`: what a reply says."""
        event.action = decision.action
        self._breakers.complete(event)
        self._reputation.complete(transaction, event)
        recorded = transaction.record(event)
        if recorded.new and event.kind is Kind.DELIVERED and event.recipient_key is not None:
            transaction.arrived(event.recipient_key, event.at)
        if recorded.new and not ours.refused(event.diagnostic or ""):
            outcomes.count(transaction, event, proof_needed=self._rules.proof_needed)
            self._reputation.note(transaction, event)
            held |= dict.fromkeys(self._breakers.note(transaction, event, handling))
        if recorded.new and handling is not None and handling.alert:
            held[_alert(event)] = None
        if (recorded.new or recorded.better) and decision.suppression is not None:
            suppression = replace(decision.suppression, event_id=recorded.event_id)
            decision = self._carried_out(transaction, event, decision, suppression, held)
        elif recorded.better and event.recipient_key and decision.action is not Action.MANUAL_REVIEW:
            because = "a better report of the same failure says something else"
            transaction.take_back(recorded.event_id, event.recipient_key, actor="mailback", reason=because)
        decision = self._scoring.heard(transaction, event, recorded, handling, decision)
        if self._scoring.believes(event):
            self._retrying.heard(transaction, event, recorded, handling)
        queue.queue(transaction, recorded, event, decision, handling=handling, deadlines=self._deadlines, text=text)
        return recorded, decision

    def _carried_out(
        self,
        transaction: Transaction,
        event: Event,
        decision: Decision,
        suppression: Suppression,
        held: dict[str, None],
    ) -> Decision:
        """Suppress, unless too many reports ask for the like (then `held` is told why); what became of the decision."""
        event_id = suppression.event_id or event.id
        reason = self._guard.holds(transaction, event, suppression)
        if reason is None:
            transaction.suppress(suppression, actor=f"event:{event_id}")
            return decision
        held[reason] = None
        transaction.amend(event_id, Action.MANUAL_REVIEW, reason)
        return Decision(Action.MANUAL_REVIEW, reason)

    def _decide(self, transaction: Transaction, event: Event, handling: Handling | None) -> Decision:
        if handling is None:
            return Decision(Action.NO_ACTION, "a message about no recipient")
        needs_history = self._rules.hard_bounces_needed > 1 and event.permanent and event.recipient_key
        history = transaction.history(event.recipient_key, None) if needs_history and event.recipient_key else ()
        return decide(event, handling, self._rules, history)


@dataclass(frozen=True, slots=True)
class _Judged:
    """An observation with its verdict, ready to be written."""

    observation: Observation
    event: Event
    finding: Finding


def _believed(assessment: Assessment, hearing: belief.Hearing) -> Iterator[Event]:
    """The events with their grades, each about the recipient that is proven."""
    kind = assessment.classification.kind
    findings = assessment.classification.findings
    if not findings:
        yield hearing.of_message(assessment.events[0]) if kind in MACHINE_KINDS else assessment.events[0]
    for event, finding in zip(assessment.events, findings, strict=False):
        graded = hearing.of_finding(event, finding.failure)
        if graded.recipient_key != event.recipient_key:
            graded.identity = identity_of(graded, kind, event.raw_sha256 or "")
        yield graded


def _reviewed(decision: Decision, classification: Classification) -> Decision:
    """The decision, or a person's look where the message was not understood whole."""
    if decision.action is not Action.NO_ACTION:
        return decision
    if classification.names_nobody:
        return Decision(Action.MANUAL_REVIEW, "the bounce names nobody: somebody has to read it")
    if classification.report.truncated:
        return Decision(Action.MANUAL_REVIEW, "the message was read in part only")
    if classification.kind in KINDS_READ and classification.reply is None:
        return Decision(Action.MANUAL_REVIEW, "what it means could not be read: somebody has to look at it")
    return decision


def _alert(event: Event) -> str:
    """What the operator is told of a fault on our own side: the address is not to blame, something of ours is."""
    return f"alert: {event.type}/{event.subcategory} at {event.provider or event.domain}: look at our own side"

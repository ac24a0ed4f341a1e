"""The one walk: an envelope and the bytes of a message in, an outcome out.

`assess` is pure computation: it reads the message, tells what it is, whom a delivery failed for and why. `commit`
writes what follows from that (events, suppressions, audit) in one transaction and resolves when that is durable. A
door answers `250` only after the second; `inbound` does both and blocks.

The engine does not log. What it has to say stands in the outcome's notes; a store that cannot commit makes the
future fail with `StoreUnavailable`, and the door answers `451 4.3.0` with `unavailable()`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from mailback import address, conversation, reply, reports, returnpath
from mailback.auth.authres import FIELD
from mailback.bounce import model, rules
from mailback.bounce.classify import Classifier
from mailback.bounce.taxonomy import Action, Kind, Provenance, Subcategory, Type
from mailback.bounce.verdict import Verdict
from mailback.effects import breakers, retrying, scoring, senders
from mailback.envelope import Envelope
from mailback.message import LIMITS, Limits, Message, parse
from mailback.observation import Interaction, Observation, Observed
from mailback.policy.breaker_rules import BreakerRules
from mailback.policy.decision import Decision, DecisionRules, decide
from mailback.policy.handling import Handling, HandlingRules
from mailback.policy.owners import Owners
from mailback.policy.routes import AS_ADDRESSED, Delivery, RouteActions
from mailback.provenance import belief, guard, outcomes
from mailback.provenance.speakers import Speakers
from mailback.recipient import hosting
from mailback.recipient.readership import ASKED, Reader, Readership
from mailback.reply import clamd
from mailback.reply.routing import Route
from mailback.reports import Vocabulary, vocabulary
from mailback.reports.dates import date
from mailback.reports.report import DeliveryFailure, Report
from mailback.resources import rules_dir
from mailback.review import queue
from mailback.store.ids import new_id
from mailback.store.records import Event, Suppression

if TYPE_CHECKING:
    from mailback.auth import Authentication
    from mailback.provenance.authentication import Checks, Inquiry
    from mailback.settings import Settings
    from mailback.store import Recorded, Store, Transaction

TAG_PREFIX = "x-mailback-"
"""Header fields that only we may set; both doors remove incoming ones (SPEC of a tagged message)."""

_MACHINE_KINDS = frozenset({Kind.BOUNCE, Kind.DELAY, Kind.DELIVERED, Kind.COMPLAINT, Kind.AUTO_REPLY, Kind.DISPOSITION})
"""Kinds that are recorded and then go to `bounces_to`. Challenges, unsubscribes and reports are written by machines
too, yet ask for something that a person has to do: they go on like people's mail."""

_KINDS_WITH_BOUNCES = frozenset({Kind.BOUNCE, Kind.DELAY, Kind.DELIVERED, Kind.COMPLAINT})
"""Kinds whose findings `to_dict` tells (an unsubscribe has one, which is no delivery)."""

_KINDS_READ = frozenset({Kind.REPLY, Kind.AUTO_REPLY})
"""Kinds whose text is read for what it means."""

_SMALL_REPORT = 20  # recipients whose events are written on the door's own loop: some milliseconds of work
_KINDS_OF_FAILURE = frozenset({Kind.BOUNCE, Kind.DELAY})
"""Kinds whose verdict what the recipient did with earlier mail has a part in."""

_VERDICTS_TOLD = 10  # header fields a tagged message carries at most, however many recipients a report names


class Disposition(StrEnum):
    """What the door does with the message."""

    ACCEPT = "accept"
    TAG = "tag"
    REWRITE = "rewrite"
    QUARANTINE = "quarantine"
    REJECT = "reject"
    TEMPFAIL = "tempfail"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Finding:
    """One recipient of a report: what it says, why, and what the handling rules ask for."""

    failure: DeliveryFailure
    verdict: Verdict
    handling: Handling
    provider: str | None = None
    reader: Reader | None = None
    """What the recipient did with earlier mail, where that is known."""

    def to_dict(self) -> dict[str, object]:
        verdict, failure = self.verdict, self.failure
        return {
            "recipient": failure.recipient,
            "original_recipient": failure.original_recipient,
            "final_recipient": failure.final_recipient,
            "status": failure.status,
            "smtp_code": failure.smtp_code,
            "type": verdict.type.value,
            "subcategory": verdict.subcategory.value,
            "fault": verdict.fault.value if verdict.fault else None,
            "permanent": verdict.permanent,
            "action": self.handling.action.value,
            "retry_after_s": self.handling.retry_after_s,
            "suppress_days": self.handling.suppress_days,
            "confidence": round(verdict.confidence, 3),
            "diagnostic": failure.diagnostic,
            "reporting_mta": failure.reporting_mta,
            "remote_mta": failure.remote_mta,
            "moved_to": failure.moved_to,
            "risk": verdict.risk.to_dict(),
            "evidence": [evidence.to_dict() for evidence in verdict.evidence],
        }


@dataclass(frozen=True, slots=True)
class Classification:
    """What a message is; the answer of `mailback.classify`."""

    report: Report
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    provenance: Provenance = Provenance.UNPROVEN
    reply: reply.Reply | None = None
    """What a person means, or an automatic answer; None for every other kind."""
    authentication: Authentication | None = None
    """Who brought it, where that was found out: by a door, in the SMTP conversation."""

    @property
    def kind(self) -> Kind:
        return self.report.kind

    @property
    def names_nobody(self) -> bool:
        """A bounce that does not tell whom it is about: only a person can make something of it."""
        return self.kind is Kind.BOUNCE and not self.findings

    @property
    def machine(self) -> bool:
        """Whether the message has said all it has to say once it is recorded."""
        return self.kind in _MACHINE_KINDS and not self.names_nobody

    def to_dict(self, source: str | None = None) -> dict[str, object]:
        """The dictionary of `mailback classify --json`; `source` names where the message was read from."""
        original = self.report.original
        told: dict[str, object] = {} if source is None else {"source": source}
        return told | {
            "kind": self.kind.value,
            "bounces": [f.to_dict() for f in self.findings] if self.kind in _KINDS_WITH_BOUNCES else [],
            "reply": self.reply.to_dict() if self.reply else None,
            "original": {
                "message_id": original.message_id if original else None,
                "sender": original.sender if original else None,
                "subject": original.subject if original else None,
                "list_id": original.list_id if original else None,
                "campaign": original.campaign if original else None,
            },
            "authentication": self.authentication.to_dict() if self.authentication else None,
            "provenance": self.provenance.value,
            "notes": list(self.notes),
        }


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the door does now that everything is committed."""

    disposition: Disposition
    kind: Kind
    machine: bool
    """True: goes to `bounces_to`; false: people's mail, goes to `next_hop`."""
    smtp_code: int
    enhanced: str
    text: str
    add_headers: tuple[tuple[str, str], ...]
    remove_headers: tuple[str, ...]
    """Lower-case prefixes of the names of incoming header fields that are removed."""
    event_id: str
    notes: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = field(default=())
    """One for each event, in the order of the report."""
    restored: tuple[tuple[str, str], ...] = ()
    """Signed recipients of the envelope, each with the address that the sender had given, to pass the mail on to."""
    delivery: Delivery = AS_ADDRESSED
    """How a reply is delivered: in the words of its route's actions."""


Ask = Callable[[Message, Report], tuple[Sequence[str], reply.Known]]
"""Tells what a reply answers, the texts oldest first, and what else is known about it."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Everything the engine knows beforehand; loaded once, shared by forked workers."""

    classifier: Classifier | None
    """None: what ships, read when the first failure comes."""
    handling: HandlingRules
    vocabulary: Vocabulary
    names: reports.OriginalNames
    limits: Limits
    recipient_cap: int = reports.RECIPIENT_CAP
    return_paths: returnpath.ReturnPaths | None = None
    """None where return paths are not signed."""
    breakers: BreakerRules = field(default_factory=BreakerRules)
    hosting: hosting.Hosting | None = None
    """Who runs the mail of recipients' domains; set where there is a store that knows."""
    replies: reply.ReplyRules | None = None
    """None: what ships, read when the first reply comes."""
    speakers: Speakers = field(default_factory=Speakers)
    """Who may report for whom once he is authenticated."""
    owners: Owners = field(default_factory=Owners)
    """Whose a reply is."""

    @classmethod
    def load(cls, settings: Settings | None = None) -> Knowledge:
        """Load the rules that ship and the operator's own.

        Raises RulesError with every problem at once when a rule file is wrong, KeyFileError likewise for the keys of
        return paths, ValueError for one of the vocabularies.
        """
        if settings is None:
            return _shipped()
        directories = [rules_dir()]
        if settings.rules.directory is not None:
            directories.append(Path(settings.rules.directory))
        return cls(
            classifier=Classifier(rules.load(directories), model.load_serving(settings.service.state_directory)),
            handling=HandlingRules.load(directories),
            vocabulary=vocabulary.load(directories),
            names=reports.OriginalNames(
                campaign=tuple(settings.mail.campaign_headers),
                list_id=tuple(settings.mail.list_headers),
                subscriber=tuple(settings.mail.subscriber_headers),
            ),
            limits=settings.limits.message_limits(),
            recipient_cap=settings.limits.max_recipients,
            return_paths=returnpath.load(settings),
            replies=reply.ReplyRules.load(directories, settings.service.state_directory),
            speakers=Speakers.load(directories),
            owners=Owners.load(directories, settings.replies.default_owner),
            breakers=BreakerRules.load(directories),
        )

    @property
    def failures(self) -> Classifier:
        """What tells why deliveries failed."""
        return self.classifier or _shipped_classifier()

    def classify(self, raw: bytes, envelope: Envelope | None = None, thread: Sequence[str] = ()) -> Classification:
        """Tell what a message is; never raises on any bytes."""
        return self.read(parse(raw, self.limits), envelope, lambda *_: (thread, reply.NO_KNOWLEDGE))

    def read(
        self,
        message: Message,
        envelope: Envelope | None,
        ask: Ask,
        authentication: Authentication | None = None,
        readership: Readership | None = None,
    ) -> Classification:
        """What a message is that was parsed, and perhaps authenticated; `ask` tells what a reply answers, `readership`
        what recipients did with earlier mail. Never raises."""
        try:
            report, findings = self._read(message, envelope, readership)
        except Exception as error:  # a fault in a reader costs the verdict, never the mail
            report, findings = Report(Kind.OTHER, notes=[f"not read: {type(error).__name__} in a reader"]), ()
        answer = self._answer(message, report, ask) if report.kind in _KINDS_READ else None
        notes = _notes(message, report, findings)
        return Classification(report, findings, notes, reply=answer, authentication=authentication)

    def _answer(self, message: Message, report: Report, ask: Ask) -> reply.Reply | None:
        """What a person means; None where reading failed, and then the mail goes on as people's mail does."""
        try:
            thread, known = ask(message, report)
            return reply.read(message, report, thread, known, self.replies)
        except Exception as error:
            report.notes.append(f"not read: {type(error).__name__} in a reader of replies")
            return None

    def _read(
        self, message: Message, envelope: Envelope | None, readership: Readership | None
    ) -> tuple[Report, tuple[Finding, ...]]:
        report = reports.read(message, envelope, names=self.names, vocabulary=self.vocabulary, cap=self.recipient_cap)
        list_id = report.original.list_id if self.handling.tells_lists and report.original else None
        readers: list[Reader | None] = [None] * len(report.failures)
        if readership is not None and envelope is not None and report.kind in _KINDS_OF_FAILURE:
            at = envelope.received_at
            readers[:ASKED] = [readership.of(failure, at) for failure in report.failures[:ASKED]]
        told = zip(report.failures, readers, strict=True)
        return report, tuple(self.judge(failure, report, list_id, reader) for failure, reader in told)

    def judge(
        self, failure: DeliveryFailure, report: Report, list_id: str | None = None, reader: Reader | None = None
    ) -> Finding:
        """Why the delivery to one recipient failed, and what the handling rules ask for."""
        classifier = self.failures
        verdict = classifier.verdict(failure, report, reader.engagement if reader is not None else None)
        provider = classifier.provider(failure, self.hosting.provider if self.hosting else None)
        handling = self.handling.handling(verdict, provider=provider, list_id=list_id)
        return Finding(failure, verdict, handling, provider, reader)


@lru_cache(maxsize=1)
def _shipped_classifier() -> Classifier:
    """Apart from the rest: a third of a command's start, and of no use to whoever asks about a reply."""
    return Classifier(rules.load([rules_dir()]), model.load_shipped())


@lru_cache(maxsize=1)
def _shipped() -> Knowledge:
    """What ships, without an operator's settings: loaded once a process."""
    directories = [rules_dir()]
    return Knowledge(
        classifier=None,
        handling=HandlingRules.load(directories),
        vocabulary=vocabulary.load(directories),
        names=reports.OriginalNames(),
        limits=LIMITS,
        speakers=Speakers.load(directories),
    )


def classify(raw: bytes, envelope: Envelope | None = None, thread: Sequence[str] = ()) -> Classification:
    """See `mailback.classify`."""
    return _shipped().classify(raw, envelope, thread)


class Engine:
    """The walk of one worker process; safe to call from any thread."""

    def __init__(
        self, settings: Settings, store: Store, knowledge: Knowledge | None = None, checks: Checks | None = None
    ) -> None:
        """`checks` authenticate what comes in; without them nothing is authenticated."""
        self._store = store
        self._checks = checks
        hosts = hosting.Hosting(store.mail_domain)
        self._knowledge = replace(knowledge or Knowledge.load(settings), hosting=hosts)
        self._belief = belief.Belief(self._knowledge.return_paths)
        self._guard = guard.Guard(
            settings.policy.unproven_per_hour,
            settings.policy.wave_minimum,
            settings.policy.wave_factor,
            settings.policy.wave_share,
            lambda domain: hosts.provider(domain) or domain,
        )
        self._breakers = breakers.Breakers(
            self._knowledge.breakers,
            senders.Senders.of(settings.mail),
            hosts,
            self._knowledge.failures.names.of_host,
            settings.trust.require == "always" or (settings.trust.require == "auto" and self._belief.signing),
        )
        self._rules = DecisionRules(
            hard_bounces_needed=settings.policy.hard_bounces_needed,
            hold_during_review=settings.policy.hold_during_review,
            min_confidence=settings.policy.min_confidence,
            proof_needed=settings.trust.require == "always"
            or (settings.trust.require == "auto" and self._belief.signing),
            opt_out_by_list=settings.replies.opt_out_scope == "list",
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
        if at_once and self._scanner is not None and classification.report.kind in _KINDS_READ:
            return None
        shown = inquiry.shown(envelope, message, classification.report, told) if inquiry and told else None
        if inquiry and inquiry.missed:
            return None
        digest = hashlib.sha256(raw).hexdigest()
        report_id = message.header("message-id") or None
        events = []
        handlings: list[Handling | None] = []
        for finding in classification.findings or (None,):
            event = _event(envelope, classification, report_id, digest, len(raw))
            if finding is not None:
                _fill_finding(event, finding, digest)
            elif classification.names_nobody:
                event.type, event.subcategory = Type.UNKNOWN.value, Subcategory.UNKNOWN.value
            events.append(event)
            handlings.append(finding.handling if finding is not None else None)
        events[0].processing_us = (time.perf_counter_ns() - began) // 1000
        original = classification.report.original
        returned_sender = original.sender if original is not None else None
        answered = self._belief.answered(envelope, returned_sender, date(message.header("date")), shown)
        return Assessment(classification, tuple(events), tuple(handlings), answered, context, envelope.recipients)

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
        return _outcome(classification, tuple(decisions), event_ids[0], hearing.restored(), tuple(held))

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
        recorded, decision = self._record(transaction, event, None, decision, held, text=answer.text)
        outcome = _outcome(
            classification, (decision,), recorded.event_id, hearing.restored(), tuple(held), route=event.route
        )
        owner = event.reply["owner"] if event.reply else None
        delivery = self._actions.delivery(event.route or "", answer.safety, owner if isinstance(owner, str) else None)
        return _delivered(outcome, delivery)

    def observe(
        self, observations: Sequence[Observation | Interaction], then: Callable[[Transaction], None] | None = None
    ) -> Future[list[Observed]]:
        """Record what log lines, webhooks or tables say, and decide on each as on a recipient of a bounce; count opens
        and clicks.

        All of them are one unit of work: either everything is kept or nothing. `then` runs at its end, within the same
        transaction; the place up to which a log was read belongs there. The future resolves, one answer an observation,
        after the group commit.
        """
        judged = [one if isinstance(one, Interaction) else self._judged(one) for one in observations]
        large = len(judged) > _SMALL_REPORT
        return self._store.submit(partial(self._write_observed, judged, then), large=large)

    def _judged(self, observation: Observation) -> _Judged:
        began = time.perf_counter_ns()
        report = Report(observation.kind, failures=[observation.failure], dialect=observation.dialect)
        failed = observation.kind in _KINDS_OF_FAILURE
        reader = self._readership.of(observation.failure, observation.at) if failed else None
        finding = self._knowledge.judge(observation.failure, report, observation.list_id, reader)
        event = observation.event()
        _fill_finding(event, finding, observation.identity)
        event.processing_us = (time.perf_counter_ns() - began) // 1000
        return _Judged(observation, event, finding)

    def _write_observed(
        self,
        judged: Sequence[_Judged | Interaction],
        then: Callable[[Transaction], None] | None,
        transaction: Transaction,
    ) -> list[Observed]:
        """Within the transaction: the batch in its order, then what belongs to it."""
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
            event.identity = _identity(event, event.kind, judged.observation.identity)
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
        recorded = transaction.record(event)
        if recorded.new and event.kind is Kind.DELIVERED and event.recipient_key is not None:
            transaction.arrived(event.recipient_key, event.at)
        if recorded.new:
            outcomes.count(transaction, event, proof_needed=self._rules.proof_needed)
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
        yield hearing.of_message(assessment.events[0]) if kind in _MACHINE_KINDS else assessment.events[0]
    for event, finding in zip(assessment.events, findings, strict=False):
        graded = hearing.of_finding(event, finding.failure)
        if graded.recipient_key != event.recipient_key:
            graded.identity = _identity(graded, kind, event.raw_sha256 or "")
        yield graded


def _notes(message: Message, report: Report, findings: tuple[Finding, ...]) -> tuple[str, ...]:
    """What was odd about a message, in words: kept with its events and logged."""
    notes = [*message.notes, *report.notes]
    if report.truncated:
        notes.append("read in part: a limit was passed, and what stands beyond it is not recorded")
    if report.kind is Kind.BOUNCE and not findings:
        notes.append("says that a delivery failed, and names nobody")
    if report.kind is Kind.OTHER and not message.headers.items():
        notes.append("no mail: no header field could be read")
    if b"\0" in message.raw:
        notes.append("holds NUL octets")
    return tuple(dict.fromkeys(notes))


def _reviewed(decision: Decision, classification: Classification) -> Decision:
    """The decision, or a person's look where the message was not understood whole."""
    if decision.action is not Action.NO_ACTION:
        return decision
    if classification.names_nobody:
        return Decision(Action.MANUAL_REVIEW, "the bounce names nobody: somebody has to read it")
    if classification.report.truncated:
        return Decision(Action.MANUAL_REVIEW, "the message was read in part only")
    if classification.kind in _KINDS_READ and classification.reply is None:
        return Decision(Action.MANUAL_REVIEW, "what it means could not be read: somebody has to look at it")
    return decision


def _alert(event: Event) -> str:
    """What the operator is told of a fault on our own side: the address is not to blame, something of ours is."""
    return f"alert: {event.type}/{event.subcategory} at {event.provider or event.domain}: look at our own side"


def unavailable() -> str:
    """What a peer is told while the store cannot commit (with `451 4.3.0`); details go to the log, not to peers."""
    return "Mailback cannot record this message now, please try again later"


def _event(envelope: Envelope, classification: Classification, report_id: str | None, digest: str, size: int) -> Event:
    original = classification.report.original
    event = Event(
        id=new_id(envelope.received_at),
        identity=_hash("message", digest),
        at=envelope.received_at,
        kind=classification.kind,
        source=envelope.source.value,
        report_message_id=report_id,
        envelope_sender=envelope.sender,
        client_address=envelope.client_address,
        queue_id=envelope.queue_id,
        reporting_mta=classification.report.reporting_mta,
        provenance=classification.provenance,
        authentication=classification.authentication.to_dict() if classification.authentication else None,
        notes=list(classification.notes),
        raw_sha256=digest,
        raw_size=size,
    )
    if original is not None:
        event.original_message_id = original.message_id
        event.original_sender = original.sender
        event.subject = original.subject
        event.campaign = original.campaign
        event.list_id = original.list_id
        event.subscriber = original.subscriber
        event.original_sent_at = original.date
    return event


def _fill_finding(event: Event, finding: Finding, digest: str) -> None:
    failure, verdict = finding.failure, finding.verdict
    event.recipient = failure.mailed
    event.recipient_key = address.key(failure.mailed)
    event.final_recipient = failure.final_recipient
    event.domain = address.domain(failure.mailed) or None
    event.provider = finding.provider
    event.smtp_code = failure.smtp_code
    event.status = failure.status
    event.diagnostic = failure.diagnostic
    event.reporting_mta = failure.reporting_mta or event.reporting_mta
    event.remote_mta = failure.remote_mta
    event.type = verdict.type.value
    event.subcategory = verdict.subcategory.value
    event.fault = verdict.fault
    event.permanent = verdict.permanent
    event.confidence = verdict.confidence
    event.risk = verdict.risk.to_dict()
    event.evidence = [evidence.to_dict() for evidence in verdict.evidence]
    event.engagement = dict(finding.reader.kept) if finding.reader is not None else None
    event.identity = _identity(event, event.kind, digest)


def _identity(event: Event, kind: Kind, digest: str) -> str:
    """What makes two reports one event: the same outcome of the same message for the same recipient.

    The returned Message-ID tells which message of ours it was, whichever way the news came (DSN, log, webhook). A
    server may send several delay notices about one message: each is news of its own, so the report's id counts.
    """
    recipient = event.recipient_key or ""
    if event.original_message_id and kind is not Kind.DELAY:
        return _hash(kind.value, event.original_message_id, recipient)
    if event.report_message_id:
        return _hash(kind.value, "report", event.report_message_id, recipient)
    return _hash(kind.value, "bytes", digest, recipient)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _outcome(
    classification: Classification,
    decisions: tuple[Decision, ...],
    event_id: str,
    restored: tuple[tuple[str, str], ...],
    held: tuple[str, ...],
    *,
    route: str | None = None,
) -> Outcome:
    """`route` is that of a reply."""
    kind = classification.kind
    machine = classification.machine
    if route is None or any(decision.action is Action.MANUAL_REVIEW for decision in decisions):
        route = route if route in (Route.ESCALATE, Route.SPAM) else _route(machine, decisions)
    return Outcome(
        disposition=Disposition.TAG,
        kind=kind,
        machine=machine,
        smtp_code=250,
        enhanced="2.6.0",
        text=f"recorded as {kind.value} {event_id}",
        add_headers=_tags(classification, route, event_id),
        remove_headers=(TAG_PREFIX,),
        event_id=event_id,
        notes=(*classification.notes, *held),
        decisions=decisions,
        restored=restored,
    )


def _delivered(outcome: Outcome, delivery: Delivery) -> Outcome:
    """The outcome of a reply, delivered as its route asks for."""
    if delivery.refused is not None:
        return replace(
            outcome, disposition=Disposition.REJECT, smtp_code=550, enhanced="5.7.1",
            text=f"message refused, {delivery.refused}", delivery=delivery,
        )  # fmt: skip
    disposition = outcome.disposition
    if delivery.held is not None:
        disposition = Disposition.QUARANTINE
    elif delivery.redirect is not None:
        disposition = Disposition.REWRITE
    return replace(outcome, disposition=disposition, delivery=delivery)


def _route(machine: bool, decisions: tuple[Decision, ...]) -> str:
    if any(decision.action is Action.MANUAL_REVIEW for decision in decisions):
        return "require_approval"
    return "auto_archive" if machine else "notify_owner"


def _tags(classification: Classification, route: str, event_id: str) -> tuple[tuple[str, str], ...]:
    """The header fields of a tagged message, the results of authentication first (RFC 8601 section 5).

    Values come from our own vocabulary only, or are quoted, so nothing can be injected.
    """
    told = dict.fromkeys(
        f"{f.verdict.type.value}/{f.verdict.subcategory.value}; confidence={f.verdict.confidence:.2f}"
        for f in classification.findings
    )
    if classification.reply is not None:
        told[f"{classification.reply.intent.value}; confidence={classification.reply.confidence:.2f}"] = None
    verdicts = [("X-Mailback-Verdict", verdict) for verdict in list(told)[:_VERDICTS_TOLD]]
    authentication = classification.authentication
    results = ((FIELD, authentication.header()),) if authentication is not None else ()
    return (
        *results,
        ("X-Mailback-Kind", classification.kind.value),
        *verdicts,
        ("X-Mailback-Route", route),
        ("X-Mailback-Id", event_id),
    )

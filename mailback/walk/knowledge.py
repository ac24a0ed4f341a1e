"""Everything that is known before a message comes: rules, vocabularies, models, keys; and reading a message with it.

Reading a message needs no store and writes nothing. `classify` does it with what ships. Emits no log events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mailback import reply, reports, returnpath
from mailback.bounce import model, rules
from mailback.bounce.classify import Classifier
from mailback.bounce.rulefile import load_all
from mailback.bounce.taxonomy import Action, Kind
from mailback.envelope import Envelope
from mailback.message import LIMITS, Limits, Message, parse
from mailback.policy.breaker_rules import BreakerRules
from mailback.policy.handling import Handling, HandlingRules
from mailback.policy.owners import Owners
from mailback.provenance.speakers import Speakers
from mailback.recipient.hosting import Hosting
from mailback.recipient.readership import ASKED, Reader, Readership
from mailback.reports import Vocabulary, ours, vocabulary
from mailback.reports.report import DeliveryFailure, Report
from mailback.resources import rules_dir
from mailback.walk.classification import KINDS_OF_FAILURE, KINDS_READ, Classification, Finding, notes_of

if TYPE_CHECKING:
    from mailback.auth import Authentication
    from mailback.settings import Settings

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
    hosting: Hosting | None = None
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
        state = settings.service.state_directory
        loaded = load_all({
            "classifier": lambda: Classifier(rules.load(directories), model.load_serving(state)),
            "handling": lambda: HandlingRules.load(directories),
            "vocabulary": lambda: vocabulary.load(directories),
            "replies": lambda: reply.ReplyRules.load(directories, state),
            "speakers": lambda: Speakers.load(directories),
            "owners": lambda: Owners.load(directories, settings.replies.default_owner),
            "breakers": lambda: BreakerRules.load(directories),
        })  # fmt: skip
        return cls(
            names=reports.OriginalNames(
                campaign=tuple(settings.mail.campaign_headers),
                list_id=tuple(settings.mail.list_headers),
                subscriber=tuple(settings.mail.subscriber_headers),
            ),
            limits=settings.limits.message_limits(),
            recipient_cap=settings.limits.max_recipients,
            return_paths=returnpath.load(settings),
            **loaded,
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
        answer = self._answer(message, report, ask) if report.kind in KINDS_READ else None
        notes = notes_of(message, report, findings)
        return Classification(report, findings, notes, reply=answer, authentication=authentication)

    def _answer(self, message: Message, report: Report, ask: Ask) -> reply.Reply | None:
        """What a person means; None where reading failed, and then the mail goes on as people's mail does."""
        try:
            thread, known = ask(message, report)
            return reply.read(message, report, thread, known, self.replies, vocabulary=self.vocabulary)
        except Exception as error:
            report.notes.append(f"not read: {type(error).__name__} in a reader of replies")
            return None

    def _read(
        self, message: Message, envelope: Envelope | None, readership: Readership | None
    ) -> tuple[Report, tuple[Finding, ...]]:
        report = reports.read(message, envelope, names=self.names, vocabulary=self.vocabulary, cap=self.recipient_cap)
        list_id = report.original.list_id if self.handling.tells_lists and report.original else None
        if readership is None or envelope is None or report.kind not in KINDS_OF_FAILURE:
            return report, tuple([self.judge(failure, report, list_id) for failure in report.failures])
        readers: list[Reader | None] = [None] * len(report.failures)
        asked = report.failures[:ASKED]
        known = readership.known(asked)
        readers[:ASKED] = [readership.of(failure, envelope.received_at, known) for failure in asked]
        told = zip(report.failures, readers, strict=True)
        return report, tuple([self.judge(failure, report, list_id, reader) for failure, reader in told])

    def judge(
        self, failure: DeliveryFailure, report: Report, list_id: str | None = None, reader: Reader | None = None
    ) -> Finding:
        """Why the delivery to one recipient failed, and what the handling rules ask for."""
        classifier = self.failures
        verdict = classifier.verdict(failure, report, reader.engagement if reader is not None else None)
        provider = classifier.provider(failure, self.hosting.provider if self.hosting else None)
        if ours.refused(failure.diagnostic):
            return Finding(failure, verdict, _NOTHING_FOLLOWS, provider, reader)
        handling = self.handling.handling(verdict, provider=provider, list_id=list_id)
        return Finding(failure, verdict, handling, provider, reader)


_NOTHING_FOLLOWS = Handling(Action.NO_ACTION)
"""What we refused ourselves needs nothing: the hold that it tells of stands already."""


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

"""One reply read whole: what is new in it, what it asks for, whether it is dangerous, who must know and how soon.

`read` is the one entry to this folder. It puts the readers of the folder together; each can be improved by itself. What
only a running server knows (the texts that we sent, who we are, whether authentication failed) is handed in.

An automatic answer starts no intent, whatever its words: it is an absence, an acknowledgement, or says that somebody
has left and names whom to write to instead.

Log events: none; never raises on any message. Wrong rule files raise RulesError while loading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path

from mailback.bounce.rulefile import RulesError
from mailback.bounce.taxonomy import Kind, Subcategory
from mailback.message import Message
from mailback.reply import (
    body,
    concepts,
    contact,
    dates,
    flags,
    followup,
    intent,
    invitation,
    language,
    meaning,
    model,
    routing,
    safety,
)
from mailback.reply.flags import Flag
from mailback.reply.intent import Evidence, Intent, Reading
from mailback.reply.routing import Route, Routing
from mailback.reply.safety import Safety
from mailback.reply.signs import Verdict
from mailback.reports import moves
from mailback.reports.report import Report
from mailback.reports.vocabulary import Vocabulary
from mailback.resources import rules_dir

_TOLD_BY_MACHINE = 0.95
"""Confidence of what header fields and subjects of responders say."""
_TOLD_BY_WORDS = 0.9
"""Confidence of an automatic answer that only its words give away."""
_SURE = 0.95
"""Of an absence: independent replies told so were one."""
_SURE_OF_MACHINE = 0.85
"""The same, of what is known to come from a machine."""
_BAITING = frozenset({Verdict.SPAM, Verdict.PHISHING, Verdict.MALWARE})
_AT_MOST_WHERE_UNSAFE = 0.6
_NAMES_CONTACT = frozenset({Intent.REFERRAL, Intent.OUT_OF_OFFICE})


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the message."""

    us: safety.Known = safety.NOBODY
    authentication_failed: bool = False
    """DMARC, or both SPF and DKIM, failed."""
    received_at: datetime | None = None
    """When it came; dates without a year are read from there where the message has no Date."""
    stranger: bool = False
    """It answers mail of ours that went neither to the writer nor to anybody of the writer's domain."""
    virus: str | None = None
    """What a virus scanner found in it."""


NO_KNOWLEDGE = Known()


@dataclass(frozen=True, slots=True)
class ReplyRules:
    """The rules of all readers."""

    body: body.BodyRules
    language: language.LanguageRules
    dates: dates.DateRules
    follow_up: followup.FollowUpRules
    intent: intent.IntentRules
    flags: flags.FlagRules
    routes: routing.Routes
    invitation: invitation.InvitationRules
    safety: safety.SafetyRules
    concepts: concepts.ConceptRules
    model: model.Model | None
    """None: the phrases alone tell the intent."""

    @classmethod
    def load(cls, directories: Sequence[Path], state_directory: Path | None = None) -> ReplyRules:
        """The shipped files, an operator's own over them; a model that was promoted below
        `state_directory` in place of the one that ships.

        Raises RulesError with every problem of all files.
        """
        problems: list[str] = []
        loaded: dict[str, object] = {}
        for name, load in (
            ("body", body.BodyRules.load),
            ("language", language.LanguageRules.load),
            ("dates", dates.DateRules.load),
            ("follow_up", followup.FollowUpRules.load),
            ("intent", intent.IntentRules.load),
            ("flags", flags.FlagRules.load),
            ("routes", routing.load),
            ("invitation", invitation.InvitationRules.load),
            ("safety", safety.SafetyRules.load),
            ("concepts", concepts.ConceptRules.load),
            ("model", lambda _: model.load_serving(state_directory)),
        ):
            try:
                loaded[name] = load(directories)
            except RulesError as error:
                problems += error.problems
        if problems:
            raise RulesError(problems)
        return cls(**loaded)  # type: ignore[arg-type]  # each under its own name, as listed above


@lru_cache(maxsize=1)
def shipped() -> ReplyRules:
    """What ships, read once a process."""
    return ReplyRules.load([rules_dir()])


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, read; the `reply` of `mailback classify --json`."""

    intent: Intent
    confidence: float
    runner_up: Intent | None
    runner_up_confidence: float
    flags: tuple[Flag, ...]
    route: Route
    sla_s: int | None
    """Seconds until somebody must have seen it; None where nobody needs to."""
    return_date: date | None
    """The day on which the writer is back (out of office)."""
    new_contact: str | None
    """Whom to write to instead (referral, absence, somebody has left)."""
    language: str | None
    """ISO 639-1; None where nothing tells."""
    safety: Safety
    text: str
    """What is new in it."""
    evidence: tuple[Evidence, ...] = field(default=())
    cause: Subcategory | None = None
    """The sort of an automatic answer; None for a person's."""
    follow_up_date: date | None = None
    """When to write again (not now), where the reply tells it."""
    subject: str = ""
    """What its own subject says."""

    @property
    def said(self) -> str:
        """What a person looks at to judge the reading: the text, or the subject where that spoke in its place."""
        return self.text or self.subject

    @property
    def acts(self) -> bool:
        """Whether what it asks for may be done without asking a person first."""
        return self.route in (Route.NOTIFY_OWNER, Route.AUTO_ARCHIVE)

    def to_dict(self) -> dict[str, object]:
        return {
            "intent": self.intent.value,
            "confidence": round(self.confidence, 3),
            "runner_up": self.runner_up.value if self.runner_up else None,
            "runner_up_confidence": round(self.runner_up_confidence, 3) if self.runner_up else None,
            "flags": [flag.value for flag in self.flags],
            "route": self.route.value,
            "sla_s": self.sla_s,
            "return_date": self.return_date.isoformat() if self.return_date else None,
            "new_contact": self.new_contact,
            "language": self.language,
            "safety": self.safety.to_dict(),
            "text": self.text,
            "follow_up_date": self.follow_up_date.isoformat() if self.follow_up_date else None,
            "evidence": [evidence.to_dict() for evidence in self.evidence],
        }


def read(
    message: Message,
    report: Report,
    thread: Sequence[str] = (),
    known: Known = NO_KNOWLEDGE,
    rules: ReplyRules | None = None,
    *,
    vocabulary: Vocabulary | None = None,
) -> Reply:
    """Read a message of the kind `reply` or `auto_reply`; one that turns out to tell an absence and nothing else makes
    its `report` an automatic answer.

    `report` is what `mailback.reports.read` made of it; `thread` holds the texts of earlier messages, oldest first, our
    own among them: what stands there was not written by the person who answers.
    """
    rules = rules or shipped()
    name, sender = contact.author(message.header("from"))
    subject = message.header("subject")
    new = body.read(body.visible(message, rules.body), thread, sender=name, rules=rules.body).text
    tongue = language.detect(new or subject, [subject, *reversed(thread)], rules=rules.language)
    automatic = report.kind is Kind.AUTO_REPLY
    found_contact = contact.named(new, sender, known.us.domains)
    sent = _sent(message, known)

    def returning() -> date | None:
        return dates.return_date(new or subject, sent, tongue, rules.dates)

    if automatic and (report.guessed or report.cause is Subcategory.ACKNOWLEDGEMENT):
        report.cause = _sort(report, _meant(message, new, thread, rules), returning)
    reading = _automatic(report, found_contact) if automatic else _meant(message, new, thread, rules)
    returns = returning() if reading.intent is Intent.OUT_OF_OFFICE else None
    if not automatic and returns is not None and reading.confidence >= _SURE and not moves.talks(new, vocabulary):
        # Nothing but an absence, its end, and whom to turn to: whoever writes so answers nobody in particular.
        automatic = True
        report.kind, report.cause, report.worded = Kind.AUTO_REPLY, Subcategory.OUT_OF_OFFICE, True
    said = safety.Said(
        new, thread, lambda page: body.read(body.of_page(page, rules.body), thread, sender=name, rules=rules.body).text
    )
    verdict = safety.assess(
        message,
        known.us,
        authentication_failed=known.authentication_failed,
        said=said,
        virus=known.virus,
        rules=rules.safety,
    )  # fmt: skip
    if not automatic and verdict.verdict in _BAITING:
        reading = _doubted(reading)
    answer = flags.Answer(new, subject, thread, reading, stranger=known.stranger and not automatic)
    raised = flags.of_reply(message, answer, rules.flags, rules.intent)
    routed = _routed(report, reading, verdict, raised, rules.routes)
    gone = report.cause is Subcategory.LEFT_ORGANISATION
    return Reply(
        intent=reading.intent,
        confidence=reading.confidence,
        runner_up=reading.runner_up,
        runner_up_confidence=reading.runner_up_confidence,
        flags=routed.flags,
        route=routed.route,
        sla_s=routed.sla_s,
        return_date=returns,
        new_contact=(found_contact or report.moved_to) if gone or reading.intent in _NAMES_CONTACT else None,
        language=tongue,
        safety=verdict,
        text=new,
        evidence=reading.evidence,
        cause=report.cause if automatic else None,
        subject=subject,
        follow_up_date=_again(new or subject, sent, tongue, rules) if reading.intent is Intent.NOT_NOW else None,
    )


def _sort(report: Report, meant: Reading, returning: Callable[[], date | None]) -> Subcategory:
    """Of an automatic answer that no word calls an absence, whether it is one all the same; else an acknowledgement."""
    absent = meant.intent is Intent.OUT_OF_OFFICE and meant.confidence >= _SURE_OF_MACHINE
    if absent or (report.guessed and returning() is not None):
        return Subcategory.OUT_OF_OFFICE
    return Subcategory.ACKNOWLEDGEMENT


def _meant(message: Message, new: str, thread: Sequence[str], rules: ReplyRules) -> Reading:
    """What a person means, by words or by a button of a calendar."""
    known = meaning.Knowledge(rules.intent, rules.concepts, rules.model)
    meant = meaning.read(new, message.header("subject"), thread, known)
    answer = invitation.read(message, new, rules.invitation)
    return meant if answer is None else invitation.reading(answer, meant, new, rules.invitation)


def _doubted(reading: Reading) -> Reading:
    """What a fraud or an advertiser seems to ask for is bait; an opt-out stands, should the verdict be wrong."""
    if reading.intent in (Intent.UNSUBSCRIBE, Intent.UNCLASSIFIED):
        return replace(reading, confidence=min(reading.confidence, _AT_MOST_WHERE_UNSAFE))
    sure = min(reading.confidence, _AT_MOST_WHERE_UNSAFE)
    return Reading(Intent.UNCLASSIFIED, sure, reading.intent, min(sure, reading.confidence / 2), reading.evidence)


def _automatic(report: Report, new_contact: str | None) -> Reading:
    """What a responder says."""
    cause = report.cause or Subcategory.OUT_OF_OFFICE
    if cause is Subcategory.OUT_OF_OFFICE:
        told = Intent.OUT_OF_OFFICE
    elif cause is Subcategory.LEFT_ORGANISATION and (new_contact or report.moved_to):
        told = Intent.REFERRAL
    else:
        told = Intent.UNCLASSIFIED
    sure, layer = (_TOLD_BY_WORDS, "words") if report.worded else (_TOLD_BY_MACHINE, "headers")
    return Reading(told, sure, None, 0.0, (Evidence(told, cause.value, sure, layer),))


def _routed(
    report: Report, reading: Reading, verdict: Safety, raised: tuple[Flag, ...], routes: routing.Routes
) -> Routing:
    """Where it goes; a responder that says that somebody has left asks a person, any other asks nobody."""
    routed = routing.route(reading, routes, raised, verdict.verdict)
    if report.kind is not Kind.AUTO_REPLY or not verdict.clean or raised:
        return routed
    if report.cause is Subcategory.LEFT_ORGANISATION:
        return replace(routed, route=Route.REQUIRE_APPROVAL, sla_s=routes[Intent.REFERRAL].sla_s)
    return replace(routed, route=Route.AUTO_ARCHIVE, sla_s=None, flags=())


def _again(text: str, sent: datetime, tongue: str | None, rules: ReplyRules) -> date | None:
    return followup.follow_up_date(text, sent, tongue, rules.follow_up, rules.dates)


def _sent(message: Message, known: Known) -> datetime:
    """The Date of the message, in its writer's time zone: month and day are ordered by it."""
    try:
        sent = parsedate_to_datetime(message.header("date")[:200])
    except (ValueError, TypeError, OverflowError):
        return known.received_at or datetime.now(UTC)
    return sent if sent.tzinfo is not None else sent.replace(tzinfo=UTC)

"""Answers to an invitation: accepted, declined, with reservation, another time proposed, cancelled.

Calendars send them when somebody presses a button, most with a text/calendar part (RFC 5546: REPLY with the PARTSTAT of
RFC 5545 section 3.2.12, COUNTER, CANCEL), some without: then the subject and the sentences tell that calendars of all
makers put there. A subject alone tells where nothing else is new in the mail; `Re:` before it makes it a person's.

What somebody adds by hand counts first, where it says something: "declined, take me off your list" is an opt-out.

Words are data (`replies_invitation.toml`). Linear in the text. Log events: none; never raises on any message. A wrong
rule file raises RulesError while loading.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from mailback.message import Message, Part
from mailback.reply.intent import Evidence, Intent, Reading
from mailback.reply.phrases import Phrases, Text
from mailback.reply.rulefiles import lists
from mailback.reply.words import squeeze
from mailback.resources import rules_dir

FILE = "replies_invitation.toml"


class Answer(StrEnum):
    """What somebody answered."""

    ACCEPTED = "accepted"
    DECLINED = "declined"
    TENTATIVE = "tentative"
    COUNTER = "counter"
    CANCELLED = "cancelled"


_READ = 6000  # characters of a text
_ICS_READ = 60_000
_SUBJECT_READ = 300
_ATTENDEES = 50
_STATES = {
    "ACCEPTED": Answer.ACCEPTED,
    "DECLINED": Answer.DECLINED,
    "TENTATIVE": Answer.TENTATIVE,
}
_METHOD = re.compile(r"^METHOD[;:](?:[^:\n]{0,80}:)?[ \t]*([A-Z-]{1,20})", re.MULTILINE | re.IGNORECASE)
_STATE = re.compile(r"^ATTENDEE[^\n]{0,400}?PARTSTAT=\"?([A-Z-]{1,20})", re.MULTILINE | re.IGNORECASE)
_FOLDS = re.compile(r"\r?\n[ \t]")
"""Where a long content line goes on in the next (RFC 5545 section 3.1)."""

_MEANS: dict[Answer, tuple[Intent, float, Intent, float]] = {
    Answer.ACCEPTED: (Intent.MEETING_BOOKED, 0.97, Intent.INTERESTED, 0.02),
    Answer.TENTATIVE: (Intent.MEETING_BOOKED, 0.8, Intent.INTERESTED, 0.1),
    Answer.COUNTER: (Intent.MEETING_BOOKED, 0.75, Intent.QUESTION, 0.2),
    Answer.DECLINED: (Intent.NOT_NOW, 0.55, Intent.OBJECTION, 0.35),
    Answer.CANCELLED: (Intent.NOT_NOW, 0.55, Intent.OBJECTION, 0.35),
}
"""Intent, confidence, second intent, its likelihood. Who declines a time may want another or nothing at all: below the
confidence that acts, so that a person looks."""
_ALWAYS = frozenset({Intent.UNSUBSCRIBE, Intent.LEGAL, Intent.SECURITY})
_CERTAIN = 0.8  # confidence from which these count even where a calendar's own sentence stands in the same text
_SURE = 0.6  # confidence from which what somebody wrote beside it counts instead


@dataclass(frozen=True, slots=True)
class InvitationRules:
    """The words of `replies_invitation.toml`."""

    subjects: dict[str, Answer]
    texts: Phrases
    hints: tuple[str, ...]
    labels: frozenset[str]
    longest: int
    """Characters of the longest beginning of a subject."""

    @classmethod
    def load(cls, directories: Sequence[Path]) -> InvitationRules:
        """Raises RulesError with every problem of the files."""
        answers = tuple(answer.value for answer in Answer)
        told = lists(directories, FILE, {"subject": answers, "text": (*answers, "hints", "marks", "labels")})
        subjects = {squeeze(word): answer for answer in Answer for word in told[f"subject.{answer.value}"]}
        texts = Phrases({name: told[f"text.{name}"] for name in (*answers, "marks")})
        labels = frozenset(map(squeeze, told["text.labels"]))
        return cls(
            subjects, texts, tuple(map(str.lower, told["text.hints"])), labels, max(map(len, subjects), default=0)
        )


@lru_cache(maxsize=1)
def shipped() -> InvitationRules:
    """The file that ships, read once a process."""
    return InvitationRules.load([rules_dir()])


@dataclass(frozen=True, slots=True)
class Told:
    """An answer, and what told it."""

    answer: Answer
    by: str
    """`calendar`, `text` or `subject`."""


def read(message: Message, new: str, rules: InvitationRules | None = None) -> Told | None:
    """The answer that a message is; `new` is what is new in its text. None where it is none."""
    rules = rules or shipped()
    if (answer := _of_parts(message)) is not None:
        return Told(answer, "calendar")
    begun = _of_subject(message.header("subject"), rules)
    lower = new[:_READ].lower()
    found = rules.texts.found(Text(lower)) if begun or any(map(lower.__contains__, rules.hints)) else {}
    said = [answer for answer in Answer if answer.value in found]
    if len(said) == 1 and (begun in (None, said[0]) or begun is Answer.TENTATIVE):
        return Told(begun or said[0], "text")
    if begun is None:
        return None
    sent_by_calendar = any(part.type == "text/calendar" for part in message.parts)
    marked = sent_by_calendar or "marks" in found or bool(rules.texts.found(Text(message.text[:_READ])))
    return Told(begun, "subject") if marked or not _by_hand(new, rules) else None


def reading(told: Told, meant: Reading, new: str, rules: InvitationRules | None = None) -> Reading:
    """What the answer means, or what was written beside it where that says more; `meant` is the reading of the text."""
    intent, confidence, second, likely = _MEANS[told.answer]
    if meant.intent in _ALWAYS and meant.confidence >= _CERTAIN:
        return meant
    by_hand = told.by != "text" and _by_hand(new, rules or shipped()) and meant.confidence >= _SURE
    if by_hand and meant.intent not in (intent, Intent.UNCLASSIFIED):
        return meant
    evidence = Evidence(intent, f"{told.by}:{told.answer.value}", confidence, "calendar")
    return Reading(intent, confidence, second, likely, (evidence,))


def _by_hand(new: str, rules: InvitationRules) -> bool:
    """Whether anything is left of a text without the lines that calendars copy."""
    lines = (squeeze(line) for line in new[:_READ].split("\n"))
    return any(line and line.partition(":")[0].strip(" *") not in rules.labels for line in lines)


def _of_parts(message: Message) -> Answer | None:
    for part in message.parts:
        if part.type == "text/calendar":
            return _of_calendar(part)
    return None


def _of_calendar(part: Part) -> Answer | None:
    """RFC 5546 section 3.2: the method, and of a REPLY what the attendee answers."""
    text = _FOLDS.sub("", part.text[:_ICS_READ])
    method = _METHOD.search(text)
    told = (method[1] if method else part.params.get("method", "")).upper()
    if told == "COUNTER":
        return Answer.COUNTER
    if told == "CANCEL":
        return Answer.CANCELLED
    if told != "REPLY":
        return None
    states = [found[1].upper() for found, _ in zip(_STATE.finditer(text), range(_ATTENDEES), strict=False)]
    return next((_STATES[state] for state in states if state in _STATES), None)


def _of_subject(subject: str, rules: InvitationRules) -> Answer | None:
    """`Accepted: Demo`; what stands before the first colon, whole."""
    begun, colon, rest = squeeze(subject[:_SUBJECT_READ]).partition(":")
    if not colon or not rest.strip() or len(begun) > rules.longest + 1:
        return None
    return rules.subjects.get(begun.strip())

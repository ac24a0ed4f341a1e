"""What a person should know of a reply before anything is done about it, whatever its intent and however sure it is.

    injection_risk        text that speaks to a machine that reads the mail, not to us; hidden text is looked at too
    adversarial_position  legal or security words in the body only, beside a request: it asks *about* such matters
    thread_anomaly        it has nothing to do with the thread: it turns legal or to security where nothing before was,
                          in none of the words of before; or somebody else than it went to asks for what
                          has consequences (an opt-out, another contact, law, security, billing)

`conflicting_intents` and `low_confidence` are raised by the routing, which compares confidences. Words are data:
`replies_flags.toml`. Linear in the text, of which the beginning is read.

Log events: none; never raises on any string. A wrong rule file raises RulesError while loading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from html import unescape
from itertools import islice
from pathlib import Path

from mailback.bounce.rulefile import RulesError
from mailback.message import Message
from mailback.reply import intent
from mailback.reply.intent import Intent, IntentRules, Reading
from mailback.reply.rulefiles import Lists, lists
from mailback.reply.words import fold, one_of, squeeze
from mailback.resources import rules_dir

FILE = "replies_flags.toml"

_READ = 40_000  # characters of a message looked at for instructions to machines
_THREAD_READ = 20_000
_OBJECTS = 40  # mentions of instructions that are looked at
_BEFORE, _AFTER = 80, 50  # characters around one in which the verb stands
_QUALIFIED = 24  # characters around one in which the word stands that qualifies it
_TOLD = 0.5  # weight of evidence from which it counts
_LONG_WORD = 5  # letters; shorter words are shared by all texts
_FEW_WORDS = 4  # a shorter text says too little about what it belongs to
_SENSITIVE = frozenset({Intent.LEGAL, Intent.SECURITY})
_NOT_FOR_STRANGERS = _SENSITIVE | {Intent.BILLING, Intent.UNSUBSCRIBE, Intent.REFERRAL}
"""What is not taken from somebody who answers mail that went to somebody else; people do answer from their other
address, and may ask or be interested there."""
_ADDRESSED = 120  # characters around a command in which its machine is named
_ROLE = re.compile(r"^[ \t]{0,3}\[?(?:system|assistant|developer)(?: (?:message|note|prompt))?\]? ?:", re.MULTILINE)
"""A turn of a conversation with a language model."""
_LETTERS = re.compile(r"[^\W\d_]+")
_FIRST_PERSON = re.compile(r"(?<![a-z])(?:i|i'm|i've|my|we|our)(?![a-z])")
_STOPS = re.compile(r"[.!?\n。！？](?=\s|$)|[。！？]")
_TAG = re.compile(r"<(?:!--|/?[a-z!][^<>]{0,2000}>?)", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{5,40}")
_ENDS = re.compile(r"[.!?\n。！？]")


class Flag(StrEnum):
    """What a person who looks at the reply should know of the reading."""

    CONFLICTING_INTENTS = "conflicting_intents"
    ADVERSARIAL_POSITION = "adversarial_position"
    LOW_CONFIDENCE = "low_confidence"
    INJECTION_RISK = "injection_risk"
    THREAD_ANOMALY = "thread_anomaly"


@dataclass(frozen=True, slots=True)
class FlagRules:
    """The words of `replies_flags.toml`, compiled."""

    objects: re.Pattern[str]
    verbs: re.Pattern[str]
    marks: re.Pattern[str]
    own: re.Pattern[str]
    machines: re.Pattern[str]
    commands: re.Pattern[str]
    addresses: str
    """An expression, compiled when a text first has one of the hints: it costs a command more time than the reading."""
    pictured: re.Pattern[str]
    hints: frozenset[str]
    phrases: re.Pattern[str]
    tokens: tuple[str, ...]
    requests: re.Pattern[str]

    @classmethod
    def load(cls, directories: Sequence[Path]) -> FlagRules:
        """Raises RulesError with every problem of the files."""
        told = lists(
            directories,
            FILE,
            {
                "injection": (
                    "objects",
                    "verbs",
                    "marks",
                    "own",
                    "machines",
                    "commands",
                    "readers",
                    "addresses",
                    "pictured",
                    "hints",
                    "phrases",
                    "tokens",
                ),
                "adversarial": ("requests",),
            },
        )
        return cls(
            objects=one_of(told["injection.objects"]),
            verbs=one_of(told["injection.verbs"]),
            marks=one_of(told["injection.marks"]),
            own=one_of(told["injection.own"]),
            machines=one_of(told["injection.machines"]),
            commands=one_of(told["injection.commands"]),
            addresses=_addresses(told, checked=len(directories) > 1),
            pictured=one_of(told["injection.pictured"]),
            hints=frozenset(map(squeeze, told["injection.hints"])),
            phrases=one_of(told["injection.phrases"]),
            tokens=tuple(map(fold, told["injection.tokens"])),
            requests=one_of(told["adversarial.requests"]),
        )


_compiled = lru_cache(maxsize=8)(re.compile)


def _addresses(told: Lists, *, checked: bool) -> str:
    """Wordings that speak to a machine, as one expression; `checked` raises RulesError for one that is none."""
    readers = "|".join(map(squeeze, told["injection.readers"]))
    wordings = [squeeze(wording).replace("{m}", f"(?:{readers})(?![a-z-])") for wording in told["injection.addresses"]]
    expression = rf"(?<![a-z0-9])(?:{'|'.join(wordings)})"
    try:
        if checked:
            _compiled(expression)
    except re.error as wrong:
        raise RulesError([f"{FILE}: [injection] readers or addresses: {wrong}"]) from wrong
    return expression


@lru_cache(maxsize=1)
def shipped() -> FlagRules:
    """The file that ships, read once a process."""
    return FlagRules.load([rules_dir()])


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply as the flags look at it."""

    text: str
    """What is new in it."""
    subject: str
    thread: Sequence[str]
    reading: Reading
    stranger: bool = False
    """It answers mail that went neither to the writer nor to the writer's domain."""


def of_reply(
    message: Message, answer: Answer, rules: FlagRules | None = None, intents: IntentRules | None = None
) -> tuple[Flag, ...]:
    """The flags of a reply, but for those of the routing."""
    rules, intents = rules or shipped(), intents or intent.shipped()
    checks = (
        (Flag.ADVERSARIAL_POSITION, _adversarial(answer, rules, intents)),
        (Flag.INJECTION_RISK, any(injected(text, rules) for text in _everything(message))),
        (Flag.THREAD_ANOMALY, _strange(answer) or _turns(answer, intents)),
    )
    return tuple(flag for flag, raised in checks if raised)


def injected(text: str, rules: FlagRules | None = None) -> bool:
    """Whether a text tells a machine what to do with it."""
    rules = rules or shipped()
    folded = fold(text[:_READ])
    line = " ".join(folded.split())
    if any(token in folded for token in rules.tokens) or rules.phrases.search(line):
        return True
    if not folded.isascii() and (rules.pictured.search(line) or _commands(folded, rules)):
        return True
    role = _ROLE.search(folded)
    if role is not None:
        turn = folded[role.end() : role.end() + _ADDRESSED]
        if rules.commands.search(turn) and not _FIRST_PERSON.search(turn):
            return True
    named = not rules.hints.isdisjoint(_LETTERS.findall(folded))
    if named and (_compiled(rules.addresses).search(line) or _commands(folded, rules)):
        return True
    return any(map(rules.verbs.search, _around(folded, rules)))


def _commands(folded: str, rules: FlagRules) -> bool:
    """Whether a sentence tells a machine what to answer: it names one, and is neither a question nor about the
    writer's own."""
    for found in islice(rules.commands.finditer(folded), _OBJECTS):
        before = _STOPS.split(folded[max(0, found.start() - _ADDRESSED) : found.start()])[-1]
        after = _STOPS.split(folded[found.end() : found.end() + _ADDRESSED], maxsplit=1)
        asks = folded[found.end() + len(after[0]) :][:1] in ("?", "？")
        sentence = f"{before}{found[0]}{after[0]}"
        if not asks and rules.machines.search(sentence) and not rules.own.search(sentence):
            return True
    return False


def _around(folded: str, rules: FlagRules) -> Iterator[str]:
    """The part of a sentence around each mention of instructions that are not the writer's own."""
    for found in islice(rules.objects.finditer(folded), _OBJECTS):
        before = _ENDS.split(folded[max(0, found.start() - _BEFORE) : found.start()])[-1]
        after = _ENDS.split(folded[found.end() : found.end() + _AFTER])[0]
        qualified = f"{before[-_QUALIFIED:]} {found[0]} {after[:_QUALIFIED]}"
        if rules.marks.search(qualified) and not rules.own.search(before):
            yield f"{before} {found[0]} {after}"


def _everything(message: Message) -> Iterator[str]:
    """All text of a message: what is seen, and of HTML what is not (comments, hidden elements, attributes aside)."""
    for part in message.parts:
        if part.type == "text/plain":
            yield part.text[:_READ]
        elif part.type == "text/html":
            yield unescape(_TAG.sub(" ", part.text[: 4 * _READ]))


def _adversarial(answer: Answer, rules: FlagRules, intents: IntentRules) -> bool:
    if not _tells(answer.reading, _SENSITIVE) or not rules.requests.search(" ".join(fold(answer.text[:4000]).split())):
        return False
    return not _tells(intent.read("", answer.subject, (), intents), _SENSITIVE)


def _strange(answer: Answer) -> bool:
    return answer.stranger and answer.reading.intent in _NOT_FOR_STRANGERS


def _turns(answer: Answer, intents: IntentRules) -> bool:
    """Whether it turns to matters that nothing before was about."""
    if not answer.thread or not _tells(answer.reading, _SENSITIVE):
        return False
    new = _words(answer.text)
    before = "\n".join([answer.subject, *answer.thread])[:_THREAD_READ]
    if len(new) < _FEW_WORDS or not new.isdisjoint(_words(before)):
        return False
    turned = {evidence.intent for evidence in answer.reading.evidence} & _SENSITIVE
    return not _tells(intent.read(before, "", (), intents), turned)


def _tells(reading: Reading, intents: frozenset[Intent] | set[Intent]) -> bool:
    """Whether it says so in words; what a model makes of it stands in no place."""
    return any(
        evidence.intent in intents and evidence.weight >= _TOLD and evidence.layer == "phrases"
        for evidence in reading.evidence
    )


def _words(text: str) -> set[str]:
    return set(_WORD.findall(fold(text[:_THREAD_READ])))

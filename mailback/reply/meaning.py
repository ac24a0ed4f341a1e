"""One reading of a reply out of what the rules and the model say.

- A bare yes, no or ok is read by the mail that it answers: rules alone.
- An explicit opt-out counts where the model is not sure of something else. What it is sure of instead outranks the
  words: a demand with a law behind it, a complaint that the opt-out does not work.
- What is written in a language of which the model knows next to no word is told by phrases that mean one thing only.
- Everything else is what the model says, which has seen the phrases that the rules found as signs among others.
- The second-best reading is the model's; where phrases tell it too, it is as likely as they say, so that a person who
  asks for two things gets an answer to both.

Without a model the phrases decide. Log events: none; never raises on any string.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mailback.reply import intent
from mailback.reply.concepts import ConceptRules
from mailback.reply.intent import Evidence, Intent, IntentRules, Reading
from mailback.reply.model import Model, Verdict, features

EXPLICIT = 0.8
"""Weight of phrases that ask for an end of the mails and mean nothing else."""

_SURE = 0.6  # probability from which the model outranks an explicit opt-out; measured on unseen families
_FOREIGN = 0.82  # share of words no sample has from which a language is one that the model does not know
_STRANGE = 0.75  # the same where the model only guesses
_GUESSED = 0.5  # what the model is believed at most in such a language
_CONSIDERED = 0.1  # probability of the second reading from which the phrases that tell it count
_COUNTS = 0.5  # weight of a phrase from which it counts then
_KEPT = 8  # phrases kept as evidence


_KOREAN = re.compile(r"[\uac00-\ud7af]")
"""Its words hold their particles, so that no share of them tells anything."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What intents are told by."""

    phrases: IntentRules
    concepts: ConceptRules
    model: Model | None


def read(text: str, subject: str, thread: Sequence[str], known: Knowledge) -> Reading:
    """The intent of what a person wrote; `thread` holds the texts of earlier messages, oldest first."""
    own_subject = intent.own_subject(subject, text)
    answer = intent.bare_answer(text or own_subject, thread, known.phrases)
    if answer is not None:
        return answer
    if known.model is None:
        return intent.read(text, subject, thread, known.phrases)
    said = f"{own_subject}\n{text}" if own_subject and text else text or own_subject
    found = list(intent.phrases(said, known.phrases))
    seen = features(said, thread, known.phrases, known.concepts, found)
    verdict = known.model.read(seen)
    if _is_foreign(verdict) or _KOREAN.search(said):
        alone = intent.weighed(found)
        if alone.confidence >= EXPLICIT and not _explicit(found):
            return replace(alone, confidence=EXPLICIT, runner_up_confidence=min(alone.runner_up_confidence, EXPLICIT))
        verdict = replace(verdict, confidence=min(verdict.confidence, _GUESSED))
    return _combined(verdict, found)


def _is_foreign(verdict: Verdict) -> bool:
    return verdict.new >= (_STRANGE if verdict.confidence < _GUESSED else _FOREIGN)


def _combined(verdict: Verdict, found: Sequence[Evidence]) -> Reading:
    told, confidence = verdict.intent, verdict.confidence
    second, probability = verdict.runner_up, verdict.runner_up_probability
    if told is not Intent.UNSUBSCRIBE and confidence < _SURE and _explicit(found):
        second, probability = told, confidence
        told, confidence = Intent.UNSUBSCRIBE, EXPLICIT
    elif probability >= _CONSIDERED:
        weights = [one.weight for one in found if one.intent is second and one.weight >= _COUNTS]
        probability = max([probability, *weights])
    kept = sorted((one for one in dict.fromkeys(found) if one.intent in (told, second)), key=lambda one: -one.weight)[
        :_KEPT
    ]
    learnt = Evidence(verdict.intent, "likeliest", verdict.confidence, "model")
    return Reading(told, confidence, second, min(probability, confidence), (*kept, learnt))


def _explicit(found: Sequence[Evidence]) -> bool:
    return any(one.intent is Intent.UNSUBSCRIBE and one.weight >= EXPLICIT for one in found)

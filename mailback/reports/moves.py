"""Automatic answers that no header field gives away, told by what they say.

Responders of all makers say much the same: thank you for your mail, I am away until then, it is not read meanwhile,
turn to somebody else, I answer when I am back. Each such move counts points, once. What somebody only says who talks
with the reader (a question, a wish, the reader's name in the greeting) takes some away, and so does what is said to
many (an offer). One move alone decides nothing, for people write it too: "I'm on holiday, call me on Monday". An answer
under `Re:` needs more than one under a subject of its own, since people's mail programs put `Re:` there and most
responders do not.

Phrases are data (`[move]` of `machine_mail.toml`), points are here. Log events: none; nothing here raises on any bytes.
"""

from __future__ import annotations

import re
from email.utils import getaddresses

from mailback.bounce.taxonomy import Subcategory
from mailback.reports import addresses
from mailback.reports.facts import Facts
from mailback.reports.vocabulary import Vocabulary, shipped

_POINTS = {
    "move_away": 2,
    "move_left": 2,
    "move_received": 2,
    "move_unread": 2,
    "move_thanks": 1,
    "move_delegate": 1,
    "move_later": 1,
    "move_formal": 1,
    "move_talks": -3,
    "move_sells": -5,
}
_SUBJECT = 2
_BULK = 2
_ROLE = 1
_NAMED = 1
_GREETED = -3
_NEEDED = 3
_NEEDED_UNDER_RE = 4
_NEEDED_AWAY_UNDER_RE = 3  # taken for an absence, a person's mail is read as what it is
_ANNOUNCING = frozenset({"move_away", "move_left", "move_received"})
"""One of these is what such an answer is for."""
_ARRIVAL = frozenset({"move_mail", "move_arrived"})
_LONGEST = 1000  # characters; who writes more has more to say than that an answer will come
_GREETING = 60
_SHORTEST_NAME = 3
_ADDRESSES_READ = 1000
_ROLES = (
    "noreply",
    "no-reply",
    "donotreply",
    "support",
    "service",
    "help",
    "info@",
    "kundenservice",
    "ticket",
    "reception",
)
_LINKS = re.compile(r"(?:https?://|www\.)\S{1,500}")
_NAME = re.compile(r"[^\W\d_]+")


def told(facts: Facts, own: str) -> frozenset[str]:
    """The moves that a text makes, with its subject where that is its own; `own` is lower case, on one line, without
    what it quotes."""
    text = _LINKS.sub(" ", own if facts.answers else f"{facts.subject}. {own}")
    if "?" in text or "？" in text:
        for question in facts.words.move_rhetorical:
            text = text.replace(question, " ")
    said = facts.vocabulary.moves.told(text)
    return said | {"move_received"} if said >= _ARRIVAL else said


def automatic(facts: Facts, own: str) -> bool:
    """Whether subject and text together say that a machine answers."""
    if not own or len(own) > _LONGEST:
        return False
    said = told(facts, own)
    greets = _greets(facts, own)
    whole = not facts.answers and facts.subject.rstrip(".!: ") in facts.words.move_whole
    if whole and not greets and "move_sells" not in said:
        return True
    subject = not facts.answers and "move_subjects" in facts.subject_says
    if said.isdisjoint(_ANNOUNCING):
        return False
    points = sum(_POINTS.get(name, 0) for name in said) + _SUBJECT * subject
    points += _BULK * (facts.get("precedence") in ("bulk", "junk")) + _ROLE * facts.sender.lower().startswith(_ROLES)
    points += _GREETED * greets + _NAMED * _names_address(facts, own)
    if not facts.answers:
        return points >= _NEEDED
    return points >= (_NEEDED_AWAY_UNDER_RE if said & _ANNOUNCING == {"move_away"} else _NEEDED_UNDER_RE)


def talks(text: str, vocabulary: Vocabulary | None = None) -> bool:
    """Whether somebody talks with the reader: asks, wishes, speaks of what the reader wrote."""
    said = (vocabulary or shipped()).moves.told(" ".join(text[:_LONGEST].lower().split()))
    return not said.isdisjoint(("move_talks", "move_sells"))


def _names_address(facts: Facts, own: str) -> bool:
    """Whether an address stands in it that is neither the writer's nor ours: whom to write to instead."""
    known = {facts.sender.lower(), *facts.ours}
    return any(address.lower() not in known for address in addresses.in_text(own))


def _greets(facts: Facts, own: str) -> bool:
    """Whether it begins with the name of whom it was sent to, whom a responder does not know."""
    greeting = set(_NAME.findall(own[:_GREETING]))
    return any(name in greeting for name in _names(facts.get("to")))


def _names(to: str) -> list[str]:
    try:
        written = getaddresses([to[:_ADDRESSES_READ]])
    except RecursionError:
        return []
    words = (word for name, address in written for word in _NAME.findall(f"{name} {address.partition('@')[0]}"))
    return [word for word in words if len(word) >= _SHORTEST_NAME]


def cause(said: frozenset[str]) -> Subcategory | None:
    """The sort of answer that the moves of a text announce; None where they announce none."""
    if "move_left" in said:
        return Subcategory.LEFT_ORGANISATION
    if "move_away" in said:
        return Subcategory.OUT_OF_OFFICE
    return Subcategory.ACKNOWLEDGEMENT if "move_received" in said else None

"""What is wrong with rules that load: patterns that can never match, and patterns that never get to say anything.

Loading refuses what is not of the pattern language or could be costly (`mailback.bounce.dialect`). What is left is
found by trying: from each pattern texts are made that it stands for, the shortest and longer ones. They go the way that
a diagnostic goes. A pattern that none of its own texts reaches is dead: it holds two spaces, an address, a letter that
changes when lower-cased. A pattern all of whose texts are also told, more strongly and as another cause, by a rule that
holds wherever its own rule holds, is shadowed. Emits no log events.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

from mailback.bounce import dialect
from mailback.bounce.patterns import PatternSet, prepare
from mailback.bounce.rules import Rules, StatusRange, TextRule

_LONE_AT = re.compile(rb"(?<![\w.])@(?!\w)")
_TEXTS = 40
"""Texts that are made of one pattern: enough for each of its alternatives, few enough for thousands of patterns."""
_MANY = 50
_MARGIN = 0.03
"""Rules whose strengths lie so near count as rivals, and both are heard (`classify`)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One pattern, and what is wrong with it."""

    rule: str
    pattern: str
    """As it is compiled."""
    what: str


def lint(rules: Rules, asked: Container[str] | None = None) -> list[Finding]:
    """Everything that is wrong with the text rules, or with those of the ids asked for."""
    owners = [(rule, node) for rule in rules.texts.values() for node in rule.patterns]
    examined = [(n, rule, node) for n, (rule, node) in enumerate(owners) if asked is None or rule.id in asked]
    # hyperscan takes a second to compile them all, which a few patterns are not worth
    patterns = PatternSet([node for _, node in owners], engine="auto" if len(examined) > _MANY else "re")
    found = []
    for number, rule, node in examined:
        told = [set(patterns.found(text)) for text in _prepared(node)]
        alive = [numbers for numbers in told if number in numbers]
        what = _stronger(rule, [owners[other][0] for other in set.intersection(*alive)]) if alive else _dead(node)
        if what:
            found.append(Finding(rule.id, dialect.emit(node).decode("utf-8", "replace"), what))
    return found + [finding for finding in _contradicting(rules) if asked is None or finding.rule in asked]


def _prepared(node: dialect.Node) -> list[bytes]:
    """Texts that the pattern stands for, as they look when patterns are matched; a sign on either side ends its words.

    A lone @ in a pattern stands for an address, so that is what stands in the text before it is prepared.
    """
    diagnostics = (_LONE_AT.sub(b"<bo@a.example>", b" ".join((b"~", text, b"~"))) for text in texts(node))
    return [prepare(diagnostic.decode("utf-8", "replace")) for diagnostic in diagnostics]


def _dead(node: dialect.Node) -> str:
    reasons = {
        b"  ": "it holds two spaces, and white space is folded to one",
        b"\t": "it holds a tab, and white space is folded to spaces",
        b"@": "it holds part of an address, and addresses are reduced to @",
    }
    source = b"".join(islice(texts(node), 1))
    told = next(
        (reason for mark, reason in reasons.items() if mark in source), "no text that it stands for contains it"
    )
    return f"never matches: {told}"


def _stronger(rule: TextRule, others: Sequence[TextRule]) -> str | None:
    """Who tells everything that the rule's pattern stands for more strongly, as another cause."""
    for other in others:
        outdone = other.strength >= rule.strength + _MARGIN and other.says is not rule.says
        if outdone and _holds_wherever(other, rule):
            return f"is shadowed by {other.id!r}: the same words say {other.says} there, with more strength"
    return None


def _holds_wherever(other: TextRule, rule: TextRule) -> bool:
    """Whether the other rule's limits are met whenever this rule's are."""
    if other.provider not in (None, rule.provider):
        return False
    if other.codes and not (rule.codes and set(rule.codes) <= set(other.codes)):
        return False
    return not other.statuses or (bool(rule.statuses) and all(_covered(s, other.statuses) for s in rule.statuses))


def _covered(status: StatusRange, others: Sequence[StatusRange]) -> bool:
    return any(
        other.klass in (None, status.klass)
        and other.subject in (None, status.subject)
        and (other.first is None or (status.first is not None and other.first <= status.first))
        and (other.last is None or (status.last is not None and status.last <= other.last))
        for other in others
    )


def _contradicting(rules: Rules) -> list[Finding]:
    """Rules whose limits contradict each other: no failure has a reply code of one class and a status of another."""
    return [
        Finding(
            rule.id, ", ".join(rule.codes), "never holds: its reply codes and its status codes are of other classes"
        )
        for rule in rules.texts.values()
        if rule.codes
        and rule.statuses
        and all(status.klass is not None for status in rule.statuses)
        and not {code[0] for code in rule.codes} & {status.klass for status in rule.statuses}
    ]


def texts(node: dialect.Node, limit: int = _TEXTS) -> Iterator[bytes]:
    """Texts that a pattern stands for, the shortest first, at most so many."""
    return islice(dict.fromkeys(_texts(node)), limit)


def _texts(node: dialect.Node) -> list[bytes]:
    match node:
        case dialect.Literal(text):
            return [text]
        case dialect.OneOf(_, example):
            return [example]
        case dialect.Boundary():
            return [b""]
        case dialect.Choice(options):
            per_option = max(_TEXTS // len(options), 1)
            return [text for option in options for text in _texts(option)[:per_option]]
        case dialect.Repeat(item, least, most):
            once = _texts(item)
            return [
                text * count for count in dict.fromkeys((least, min(least + 1, most))) for text in once[: _TEXTS // 2]
            ]
        case dialect.Sequence(items):
            return _joined([_texts(item) for item in items])
    raise AssertionError(node)


def _joined(parts: list[list[bytes]]) -> list[bytes]:
    """Every part's alternatives in turn while the others stay at their first; then combinations, up to the limit."""
    first = [part[0] for part in parts]
    found = [b"".join(first)]
    for place, part in enumerate(parts):
        found += [b"".join([*first[:place], text, *first[place + 1 :]]) for text in part[1:]]
    if len(found) < _TEXTS:
        found += [b"".join(chosen) for chosen in islice(product(*parts), _TEXTS)]
    return list(dict.fromkeys(found))[: 2 * _TEXTS]

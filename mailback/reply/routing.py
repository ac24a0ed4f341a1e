"""Who must know of a reply, and how soon: the route and the deadline of an intent at a confidence.

A reading that is not sure, that two intents share, or that is flagged otherwise goes to a person whatever the intent
says; a message that is not safe goes where its verdict says, whatever it asks for. Numbers and routes by intent are
data (`replies_routes.toml`); what holds for all of them (safety, flags, conflict, confidence) stands here.

Log events: none; pure functions. A wrong rule file raises RulesError while loading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from mailback.bounce.rulefile import RulesError, Table, read_table
from mailback.reply.flags import Flag
from mailback.reply.intent import Intent, Reading
from mailback.reply.rulefiles import present
from mailback.reply.safety import Verdict
from mailback.resources import rules_dir

FILE = "replies_routes.toml"


class Route(StrEnum):
    """Where a reply goes."""

    NOTIFY_OWNER = "notify_owner"
    AUTO_ARCHIVE = "auto_archive"
    REQUIRE_APPROVAL = "require_approval"
    ESCALATE = "escalate"
    """A person looks at a message that is held, or that nobody answered in time."""
    SPAM = "spam"


CONFLICT_SLA_S = 900
"""A person decides within a quarter of an hour where two intents conflict."""

ESCALATION_SLA_S = 900
"""A person looks within a quarter of an hour at what is dangerous."""

_OVERRIDES = {Verdict.CLEAN: None, Verdict.SPAM: Route.SPAM}
"""Routes of verdicts; every other one is held and escalated."""
_BOTH = 0.5  # from here on two intents can conflict
_WITHIN = 0.15  # and conflict when so near
_OPPOSED = frozenset({Intent.OBJECTION, Intent.NOT_NOW, Intent.OUT_OF_OFFICE})
"""Intents that contradict an interest, however far apart the two are, once both can conflict."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the table says of one intent."""

    route: Route
    sla_s: int | None
    """Seconds until somebody must have seen it; None where nobody needs to."""
    acts: float
    """Confidence from which it is acted on without a flag."""
    asks: float
    """Confidence below which a person decides."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Where one reply goes."""

    route: Route
    sla_s: int | None
    flags: tuple[Flag, ...]


Routes = dict[Intent, Row]


def load(directories: Sequence[Path]) -> Routes:
    """The rows by intent; a later directory's replace those before.

    Raises RulesError with every problem, also for an intent that no file names.
    """
    rows: Routes = {}
    problems: list[str] = []

    def take(top: Table) -> None:
        for intent in Intent:
            if intent.value not in top:
                continue
            table = top.table(intent.value)
            route = table.word("route", Route, [known.value for known in Route], Route.REQUIRE_APPROVAL)
            rows[intent] = Row(route, table.number("sla_s"), table.fraction("acts"), table.fraction("asks"))
            table.finish()

    for path in present(directories, FILE):
        problems.extend(read_table(path, take))
    problems.extend(f"{FILE}: no row for the intent {intent.value}" for intent in Intent if intent not in rows)
    if problems:
        raise RulesError(problems)
    return rows


@lru_cache(maxsize=1)
def shipped() -> Routes:
    """The file that ships, read once a process."""
    return load([rules_dir()])


def route(
    reading: Reading,
    routes: Routes | None = None,
    raised: Sequence[Flag] = (),
    verdict: Verdict = Verdict.CLEAN,
) -> Routing:
    """Where a reply of that reading goes; `raised` are flags that were found already."""
    routes = routes or shipped()
    row = routes[reading.intent]
    flags = _flags(reading, row, raised)
    if (elsewhere := _OVERRIDES.get(verdict, Route.ESCALATE)) is not None:
        return Routing(elsewhere, None if elsewhere is Route.SPAM else ESCALATION_SLA_S, flags)
    if Flag.CONFLICTING_INTENTS in flags:
        return Routing(Route.REQUIRE_APPROVAL, CONFLICT_SLA_S, flags)
    if raised or reading.confidence < row.asks:
        deadline = row.sla_s if row.sla_s is not None else routes[Intent.UNCLASSIFIED].sla_s
        return Routing(Route.REQUIRE_APPROVAL, deadline, flags)
    return Routing(row.route, row.sla_s, flags)


def _flags(reading: Reading, row: Row, raised: Sequence[Flag]) -> tuple[Flag, ...]:
    """All flags, in the order of `Flag`."""
    conflict = conflicts(reading)
    unsure = reading.confidence < row.acts or reading.intent is Intent.UNCLASSIFIED
    found = {*raised, *([Flag.CONFLICTING_INTENTS] if conflict else [Flag.LOW_CONFIDENCE] if unsure else [])}
    return tuple(flag for flag in Flag if flag in found)


def conflicts(reading: Reading) -> bool:
    """Two intents that are both likely, and near each other or opposed."""
    second = reading.runner_up
    if second is None or min(reading.confidence, reading.runner_up_confidence) < _BOTH:
        return False
    both = {reading.intent, second}
    opposed = Intent.INTERESTED in both and not _OPPOSED.isdisjoint(both)
    return opposed or reading.confidence - reading.runner_up_confidence <= _WITHIN

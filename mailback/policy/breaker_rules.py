"""When a breaker trips: rows of `breakers.toml`, the shipped file first, an operator's own over it.

A row counts refusals by cause, by code, by wording, or by several of these at once (all that are named must hold). The
first row that a refusal fits counts it; rows for one provider are asked before those for all. Emits no log events:
loading raises RulesError with every problem, file and line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mailback.bounce import dialect
from mailback.bounce.patterns import PatternSet, prepare
from mailback.bounce.rulefile import RulesError, Table, read_table
from mailback.bounce.taxonomy import Fault, Subcategory
from mailback.policy.breaker import Terms
from mailback.store.records import Event

FILE = "breakers.toml"
SIDES = ("ip", "domain")

_ID = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_CODE = re.compile(r"[245]\d\d|[245x]\.(?:\d{1,3}|x)\.(?:\d{1,3}|x)")
_MAX_TEXT = 4096
_NUMBERS = ("pause_s", "longest_s", "remember_s", "pace_s", "probe_every_s", "probes_needed", "quiet_s")


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """What counts as a refusal, how many make the breaker trip, and how it holds then."""

    id: str
    count: int
    """Refusals within an hour."""
    share: float
    """And so much of all that became known about mail to that provider within the hour."""
    terms: Terms
    side: str | None = None
    """What of ours is held: `ip` or `domain`; None: as `handling.toml` says for the cause."""
    provider: str | None = None
    causes: frozenset[str] = frozenset()
    codes: tuple[re.Pattern[str], ...] = ()
    texts: PatternSet | None = None
    longest_told: bool = False
    """Whether the row tells its longest pause; else the days of `handling.toml` are."""

    def holds(self, event: Event) -> bool:
        """Whether the event is a refusal of this kind."""
        if self.provider is not None and self.provider != event.provider:
            return False
        if self.causes:
            if event.subcategory not in self.causes:
                return False
        elif event.fault is not Fault.SENDER:  # a code alone may also mean that the recipient or its server is at fault
            return False
        if self.codes and not any(
            code.fullmatch(told) for code in self.codes for told in (event.status, event.smtp_code) if told
        ):
            return False
        return self.texts is None or bool(self.texts.found(prepare((event.diagnostic or "")[:_MAX_TEXT])))


@dataclass(slots=True)
class BreakerRules:
    """The rows in force, the narrowest first."""

    rows: list[BreakerRule] = field(default_factory=list)
    terms: Terms = field(default_factory=Terms)
    """What a row has that says nothing else; what a breaker has that a person opens."""
    count: int = 20
    share: float = 0.1

    @classmethod
    def load(cls, directories: Sequence[Path]) -> BreakerRules:
        """Read `breakers.toml` of each directory that has one; later rows replace those of the same id.

        Raises RulesError with every problem found.
        """
        rules = cls()
        known: dict[str, BreakerRule] = {}
        problems: list[str] = []
        for directory in directories:
            if (path := directory / FILE).is_file():
                problems += read_table(path, lambda top: rules._read(top, known))
        if problems:
            raise RulesError(problems)
        rules.rows = sorted(known.values(), key=lambda row: row.provider is None)
        return rules

    def rule(self, event: Event) -> BreakerRule | None:
        """The row that counts this event."""
        return next((row for row in self.rows if row.holds(event)), None)

    def _read(self, top: Table, known: dict[str, BreakerRule]) -> None:
        if "defaults" in top:
            table = top.table("defaults")
            self.count, self.share, self.terms = _thresholds(table, self.count, self.share, self.terms)
            table.finish()
        seen: set[str] = set()
        for table in top.list_of_tables("breaker"):
            identifier = table.text("id")
            if not _ID.fullmatch(identifier):
                table.wrong(f"id is {identifier!r}, expected lower-case letters, digits, '.', '_' and '-'", "id")
            if identifier in seen:
                table.wrong(f"id {identifier!r} stands twice in this file", "id")
            seen.add(identifier)
            known.pop(identifier, None)
            if not table.flag("enabled", default=True):
                table.drop()
                continue
            known[identifier] = self._row(identifier, table)
            table.finish()

    def _row(self, identifier: str, table: Table) -> BreakerRule:
        longest_told = "longest_s" in table
        count, share, terms = _thresholds(table, self.count, self.share, self.terms)
        patterns = table.patterns("texts")
        row = BreakerRule(
            id=identifier,
            count=count,
            share=share,
            terms=terms,
            side=table.word("side", _side, SIDES, "ip") if "side" in table else None,
            provider=table.text("provider", "") or None,
            causes=frozenset(cause.value for cause in table.words("causes", Subcategory, Subcategory)),
            codes=tuple(_code(form) for _, form in table.strings("codes", _CODE)),
            texts=_pattern_set(patterns),
            longest_told=longest_told,
        )
        if not row.causes and not row.codes and row.texts is None:
            table.wrong("a breaker needs causes, codes or texts: what it counts")
        return row


def _thresholds(table: Table, count: int, share: float, terms: Terms) -> tuple[int, float, Terms]:
    told = {name: number for name in _NUMBERS if (number := table.number(name)) is not None}
    if (number := table.number("count")) is not None:
        count = number
        if count < 2:
            table.wrong("count is below 2: a single refusal would hold all mail to the provider", "count")
    if "share" in table:
        share = table.fraction("share")
    return count, share, replace(terms, **told)


def _pattern_set(patterns: tuple[dialect.Node, ...]) -> PatternSet | None:
    # `re`: a handful of patterns, asked for refusals only, is not worth a database of hyperscan's.
    return PatternSet(patterns, engine="re") if patterns else None


def _code(form: str) -> re.Pattern[str]:
    parts = form.split(".")
    wild = ("[245]", r"\d{1,3}", r"\d{1,3}")
    return re.compile(r"\.".join(wild[n] if part == "x" else part for n, part in enumerate(parts)))


def _side(word: str) -> str:
    if word not in SIDES:
        raise ValueError(word)
    return word

"""What to do about a verdict: rows of `handling.toml`, the shipped file first, an operator's own over it.

A row is found by type and subcategory, then by type alone; a verdict that no row knows goes to a person. Overrides
change single values of the row for one provider, one list, or one provider on one list: the more is named, the later
it is applied. Emits no log events: loading raises RulesError with every problem, file and line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mailback.bounce.rulefile import RulesError, Table, read_table
from mailback.bounce.taxonomy import Action, Subcategory, Type
from mailback.bounce.verdict import Verdict

FILE = "handling.toml"
SCOPES = ("address", "ip_provider", "domain_provider")
_PROVIDER_SCOPES = SCOPES[1:]


@dataclass(frozen=True, slots=True)
class Handling:
    """What a verdict asks for; numbers mean what the head of `handling.toml` says."""

    action: Action
    retry_after_s: int | None = None
    suppress_days: int | None = None
    scope: str = "address"
    """`address`, or `ip_provider` / `domain_provider`: our sending IP or domain, towards the provider that refused."""
    alert: bool = False
    """Somebody on our side has to mend something."""
    escalate_after: int | None = None
    """Soft bounces in a row that hold the address back; None: as `[score]` says."""
    retry_cost: int = 1
    """What one more try costs, in the unit of `retry.cost_limit`."""
    window_days: int | None = None
    """Days within which these have to fall; None: as `[score]` says."""


_TO_A_PERSON = Handling(Action.MANUAL_REVIEW)


@dataclass(frozen=True, slots=True)
class _Override:
    """Values that differ for one provider, one list, or both."""

    type: Type
    subcategories: frozenset[Subcategory]
    """Empty: all of the type."""
    provider: str | None
    list_id: str | None
    values: dict[str, object]

    @property
    def named(self) -> tuple[bool, bool]:
        """How narrow it is: a list is narrower than a provider."""
        return self.list_id is not None, self.provider is not None

    def holds(self, verdict: Verdict, provider: str | None, list_id: str | None) -> bool:
        return (
            self.type is verdict.type
            and (not self.subcategories or verdict.subcategory in self.subcategories)
            and self.provider in (None, provider)
            and self.list_id in (None, list_id)
        )


@dataclass(slots=True)
class HandlingRules:
    """The rows in force."""

    rows: dict[tuple[Type, Subcategory | None], Handling] = field(default_factory=dict)
    overrides: list[_Override] = field(default_factory=list)

    @classmethod
    def load(cls, directories: Sequence[Path]) -> HandlingRules:
        """Read `handling.toml` of each directory that has one, later ones over earlier ones.

        Raises RulesError with every problem found.
        """
        rules = cls()
        problems: list[str] = []
        for directory in directories:
            if (path := directory / FILE).is_file():
                problems += read_table(path, rules._read)
        if problems:
            raise RulesError(problems)
        rules.overrides.sort(key=lambda override: override.named)
        return rules

    @property
    def tells_lists(self) -> bool:
        """Whether any row is for a single list: else nobody need find out which list a message was for."""
        return bool(self.overrides) and any(override.list_id is not None for override in self.overrides)

    def handling(self, verdict: Verdict, *, provider: str | None = None, list_id: str | None = None) -> Handling:
        """What to do about a verdict, as told by this provider, for mail of this list."""
        row = self.rows.get((verdict.type, verdict.subcategory)) or self.rows.get((verdict.type, None))
        handling = row or _TO_A_PERSON
        for override in self.overrides:
            if override.holds(verdict, provider, list_id):
                handling = replace(handling, **override.values)  # type: ignore[arg-type]  # checked when read
        return handling

    def _read(self, top: Table) -> None:
        seen: set[tuple[Type, Subcategory | None]] = set()
        for table in top.list_of_tables("handling"):
            kind, subcategories = _told(table)
            action = table.word("action", Action, Action, Action.MANUAL_REVIEW)
            handling = Handling(action, **_values(table))  # type: ignore[arg-type]  # checked when read
            _check(table, handling)
            for subcategory in subcategories or (None,):
                if (kind, subcategory) in seen:
                    table.wrong(f"{kind.value}/{subcategory or 'any'} stands twice in this file")
                seen.add((kind, subcategory))
                self.rows[kind, subcategory] = handling
            table.finish()
        for table in top.list_of_tables("override"):
            self.overrides.append(_override(table))
            table.finish()


def _told(table: Table) -> tuple[Type, list[Subcategory]]:
    kind = table.word("type", Type, Type, Type.UNKNOWN)
    return kind, table.words("subcategories", Subcategory, Subcategory)


def _values(table: Table) -> dict[str, object]:
    """The values of a row that are there."""
    values: dict[str, object] = {}
    for key in ("retry_after_s", "suppress_days", "escalate_after", "window_days", "retry_cost"):
        if key in table:
            values[key] = table.number(key)
    if "scope" in table:
        values["scope"] = table.word("scope", _scope, SCOPES, "address")
    if "alert" in table:
        values["alert"] = table.flag("alert", default=False)
    return values


def _override(table: Table) -> _Override:
    kind, subcategories = _told(table)
    values = _values(table)
    if "action" in table:
        values["action"] = table.word("action", Action, Action, Action.MANUAL_REVIEW)
    provider, list_id = table.text("provider", "") or None, table.text("list", "") or None
    if provider is None and list_id is None:
        table.wrong("an override names a provider, a list, or both; change the row itself under [[handling]]")
    return _Override(kind, frozenset(subcategories), provider, list_id, values)


def _check(table: Table, handling: Handling) -> None:
    """Rows that contradict themselves."""
    if handling.action is Action.RETRY_WITH_DELAY and handling.retry_after_s is None:
        table.wrong("retry_with_delay needs retry_after_s")
    if handling.action is Action.SUPPRESS_TEMPORARILY and handling.suppress_days is None:
        table.wrong("suppress_temporarily needs suppress_days")
    if handling.action is Action.RE_ENGAGE:
        if handling.suppress_days is None:
            table.wrong("re_engage needs suppress_days: how long the address is held before one message tries it")
        if handling.scope in _PROVIDER_SCOPES:
            table.wrong("re_engage is about an address; a provider's block is tried by its breaker: breakers.toml")
    if handling.action is Action.SUPPRESS_PERMANENTLY and handling.scope in _PROVIDER_SCOPES:
        table.wrong("only an address is suppressed for ever; a provider's block ends: use suppress_temporarily")


def _scope(word: str) -> str:
    if word not in SCOPES:
        raise ValueError(word)
    return word

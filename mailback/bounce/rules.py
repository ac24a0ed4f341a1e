"""The rule files of bounce classification: read, checked, and laid one over the other.

    status.toml        enhanced status codes (IANA registry)
    smtp.toml          bare reply codes
    text*.toml         causes by wording
    providers*.toml    providers, how they are recognised, and rules that hold for one of them only

Directories are read in order; a later one adds rules, and replaces those of the same id (for a code: the same code; a
rule with `enabled = false` goes away). Every problem of every file is collected before `RulesError` is raised, each
with its file and line, so that an operator mends them in one round. Emits no log events: whoever loads the rules
tells the problems.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mailback.bounce import dialect
from mailback.bounce.rulefile import RulesError, Table, read_table
from mailback.bounce.taxonomy import Subcategory

__all__ = ["CodeRule", "Provider", "Rules", "RulesError", "StatusRange", "TextRule", "load"]

_ID = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_STATUS_KEY = re.compile(r"x\.(\d{1,3})(?:\.(\d{1,3}))?")
_STATUS_RANGE = re.compile(r"([245x])\.(\d{1,3}|x)(?:\.(\d{1,3}|x)(?:-(\d{1,3}))?)?")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class CodeRule:
    """What an enhanced status code or a bare reply code speaks for."""

    code: str
    """`x.1.1`, `x.1` for a whole subject, or `550`."""
    means: str
    reference: str
    permanent: Subcategory
    persistent: Subcategory
    """The cause when the class is 4."""
    strength: float


@dataclass(frozen=True, slots=True)
class StatusRange:
    """Enhanced status codes that a rule is limited to; None stands for any number."""

    klass: str | None
    subject: str | None
    first: int | None
    last: int | None

    def holds(self, status: tuple[str, str, int]) -> bool:
        klass, subject, detail = status
        return (
            self.klass in (None, klass)
            and self.subject in (None, subject)
            and (self.first is None or self.first <= detail <= (self.last or 0))
        )


@dataclass(frozen=True, slots=True)
class TextRule:
    """A cause by wording, by the code of one provider, or by both."""

    id: str
    says: Subcategory
    temporary: Subcategory
    """What it says when the failure is of class 4; the same as `says` unless the rule tells otherwise."""
    strength: float
    provider: str | None = None
    patterns: tuple[dialect.Node, ...] = ()
    statuses: tuple[StatusRange, ...] = ()
    codes: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Provider:
    """One who runs mail servers, and how to recognise that it is speaking."""

    id: str
    name: str
    hosts: tuple[str, ...]
    """Domains of its servers, and of the addresses that it hosts under its own names."""
    marks: tuple[dialect.Node, ...] = ()
    """Wordings that only this provider's servers use."""
    mx: tuple[str, ...] = ()
    """Domains of the hosts that MX records of domains in its care name, beside `hosts`."""
    reference: str = ""


@dataclass(slots=True)
class Rules:
    """Everything the classifier knows, checked; treat it as read-only once it is loaded."""

    statuses: dict[str, CodeRule] = field(default_factory=dict)
    """By `1.1`: subject and detail."""
    subjects: dict[str, CodeRule] = field(default_factory=dict)
    replies: dict[str, CodeRule] = field(default_factory=dict)
    texts: dict[str, TextRule] = field(default_factory=dict)
    providers: dict[str, Provider] = field(default_factory=dict)


def load(directories: Sequence[Path]) -> Rules:
    """Read the rule files of each directory, later ones over earlier ones.

    Raises RulesError with every problem found. A directory that does not exist is a problem; one that holds none of our
    files is not.
    """
    rules = Rules()
    problems: list[str] = []
    for directory in directories:
        if not directory.is_dir():
            problems.append(f"{directory}: no such directory, expected a directory of rule files")
            continue
        for path, read in _files(directory):
            problems += _load_file(path, read, rules)
    for rule in rules.texts.values():
        if rule.provider is not None and rule.provider not in rules.providers:
            problems.append(f"rule {rule.id!r}: provider {rule.provider!r} is not defined in any file")
    if problems:
        raise RulesError(problems)
    return rules


def _files(directory: Path) -> Iterator[tuple[Path, Callable[[Table, Rules], None]]]:
    for glob, read in (
        ("status.toml", _read_status),
        ("smtp.toml", _read_smtp),
        ("providers*.toml", _read_texts),
        ("text*.toml", _read_texts),
    ):
        for path in sorted(directory.glob(glob)):
            yield path, read


def _load_file(path: Path, read: Callable[[Table, Rules], None], rules: Rules) -> list[str]:
    return read_table(path, lambda table: read(table, rules))


def _read_status(top: Table, rules: Rules) -> None:
    for section, into in (("subject", rules.subjects), ("code", rules.statuses)):
        for code, table in top.tables(section):
            form = _STATUS_KEY.fullmatch(code)
            if form is None or (form[2] is None) is (section == "code"):
                table.wrong(f"{code!r} is not a code, expected x.SUBJECT or, under [code], x.SUBJECT.DETAIL")
            else:
                into[code[2:]] = _code_rule(code, table, table.cause("permanent"), table.cause("persistent"))
            table.finish()


def _read_smtp(top: Table, rules: Rules) -> None:
    for code, table in top.tables("code"):
        if not re.fullmatch(r"[2-5]\d\d", code):
            table.wrong(f"{code!r} is not a reply code, expected three digits")
        cause = table.cause("says")
        rules.replies[code] = _code_rule(code, table, cause, cause)
        table.finish()


def _code_rule(code: str, table: Table, permanent: Subcategory, persistent: Subcategory) -> CodeRule:
    return CodeRule(
        code=code,
        means=table.text("means"),
        reference=table.text("reference", ""),
        permanent=permanent,
        persistent=persistent,
        strength=table.fraction("strength"),
    )


def _read_texts(top: Table, rules: Rules) -> None:
    seen: set[str] = set()
    for table in top.list_of_tables("provider"):
        if (identifier := _identifier(table, rules.providers, seen)) is not None:
            rules.providers[identifier] = _provider(identifier, table)
        table.finish()
    seen.clear()
    for table in top.list_of_tables("rule"):
        if (identifier := _identifier(table, rules.texts, seen)) is not None:
            rules.texts[identifier] = _text_rule(identifier, table)
        table.finish()


def _identifier(table: Table, known: dict[str, Any], seen: set[str]) -> str | None:
    """The id of an entry that is in force; None when it is wrong or switches an earlier one off."""
    identifier = table.text("id")
    if not _ID.fullmatch(identifier):
        table.wrong(f"id is {identifier!r}, expected lower-case letters, digits, '.', '_' and '-'", "id")
        return None
    if identifier in seen:
        table.wrong(f"id {identifier!r} stands twice in this file", "id")
    seen.add(identifier)
    known.pop(identifier, None)  # the later one counts from where it stands, not from the place of the earlier
    if not table.flag("enabled", True):
        table.drop()
        return None
    return identifier


def _provider(identifier: str, table: Table) -> Provider:
    return Provider(
        id=identifier,
        name=table.text("name"),
        hosts=tuple(host for _, host in table.strings("hosts", _HOST)),
        marks=table.patterns("marks"),
        mx=tuple(host for _, host in table.strings("mx", _HOST)),
        reference=table.text("reference", ""),
    )


def _text_rule(identifier: str, table: Table) -> TextRule:
    says = table.cause("says")
    rule = TextRule(
        id=identifier,
        says=says,
        temporary=table.cause("temporary", says),
        strength=table.fraction("strength"),
        provider=table.text("provider", "") or None,
        patterns=table.patterns("patterns"),
        statuses=tuple(_status_range(form) for _, form in table.strings("status", _STATUS_RANGE)),
        codes=tuple(code for _, code in table.strings("code", re.compile(r"[245]\d\d"))),
        reason=table.text("reason", ""),
    )
    if not rule.patterns and not (rule.provider and rule.statuses):
        table.wrong("a rule needs patterns, or else a provider and a status")
    return rule


def _status_range(form: str) -> StatusRange:
    """`5.7.606-649`, `5.7.1`, `x.2.2`, `5.1.x` or `4.x`; the form was checked."""
    match = _STATUS_RANGE.fullmatch(form)
    assert match is not None
    klass, subject, first, last = match.groups()
    any_detail = first in (None, "x")
    return StatusRange(
        klass=None if klass == "x" else klass,
        subject=None if subject == "x" else subject,
        first=None if any_detail else int(first),
        last=None if any_detail else int(last or first),
    )

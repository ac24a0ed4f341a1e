"""`mailback rules`: what no rule names yet, what a rules file would change, what is wrong with one.

The round that an operator goes: `unmatched` shows the wordings that no rule names, most frequent first; a rule for one
of them goes into a file; `lint` tells what is wrong with it; `test` tells what it would have changed; then the file
goes into the folder of `[rules]` and the server is reloaded. Emits no log events.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.errors import CommandError
from mailback.cli.options import Moment, Whole, config_option, json_option, load_settings, open_store
from mailback.cli.out import Cell, Column, json_line, say, table

if TYPE_CHECKING:
    from mailback.bounce.classify import Classifier
    from mailback.bounce.rules import Rules
    from mailback.bounce.verdict import Verdict
    from mailback.learn.templates import Template
    from mailback.store.records import Event

SHOWN = 30
"""Rows of a table where nobody says how many."""
FORMS = ("text*.toml", "providers*.toml", "status.toml", "smtp.toml")
"""Names of rule files: by its name a file tells what it holds."""

_FAILURES = frozenset({"bounce", "delay"})
_WORDINGS = (
    Column("seen", right=True, wraps=False), Column("providers", wraps=False), Column("told as", wraps=False),
    Column("wording, <*> varies"),
)  # fmt: skip
_CHANGES = (
    Column("events", right=True, wraps=False), Column("told as", wraps=False), Column("would be", wraps=False),
    Column("by rule", wraps=False), Column("for example"),
)  # fmt: skip
_FINDINGS = (Column("rule", wraps=False), Column("what", "yellow"), Column("pattern"))


@click.group()
def rules() -> None:
    """The rules of bounces: what they do not name yet, a trial of new ones, a lint."""


# ---- unmatched ------------------------------------------------------------------------------------------------------


@rules.command()
@config_option
@json_option
@click.option("--since", type=Moment(-1), metavar="TIME", default="30d", show_default=True, help="Events from then on.")
@click.option("--limit", "-n", type=Whole(min=1), help=f"At most so many. Default: {SHOWN}; with --json all.")
def unmatched(*, config: Path | None, as_json: bool, since: datetime, limit: int | None) -> None:
    """List wordings of bounces that no text rule names, the most frequent first: what to teach.

    Diagnostics that differ only in addresses, hosts, numbers and ids are one wording. `told as` is what codes, the
    model or a single word (quota, relay) made of it: a rule of little strength does not name a wording.
    """
    from mailback.learn.templates import Miner

    miner = Miner()
    weak = _weak(_loaded(_directories(config)))
    told: dict[int, Counter[str]] = {}
    with open_store(config) as store:
        for event in store.events(since=since, newest_first=False):
            if event.kind.value in _FAILURES and event.diagnostic and not _named(event, weak):
                template = miner.add(event.diagnostic, event.provider or event.domain or "")
                told.setdefault(id(template), Counter())[event.subcategory or "unknown"] += 1
    found = miner.templates()[: limit if limit or as_json else SHOWN]
    if as_json:
        for template in found:
            json_line(_wording(template, told[id(template)]))
    else:
        rows = [[t.count, _most(t.providers), _most(told[id(t)]), t.text if t.count > 1 else t.example] for t in found]
        table(_WORDINGS, rows, empty="every bounce of the period is named by a rule")


def _weak(loaded: Rules) -> set[str]:
    """Ids of the rules that hint at a cause without naming it."""
    from mailback.bounce.classify import GENERAL

    return {rule.id for rule in loaded.texts.values() if rule.strength < GENERAL}


def _named(event: Event, weak: set[str]) -> bool:
    """Whether a rule names the wording, or the report itself told the cause."""
    return any(
        vote.get("layer") in ("text", "provider", "report") and vote.get("rule") not in weak for vote in event.evidence
    )


def _most(counts: Counter[str], shown: int = 3) -> str:
    names = [name or "?" for name, _ in counts.most_common(shown)]
    return ", ".join(names) + (f" +{len(counts) - shown}" if len(counts) > shown else "")


def _wording(template: Template, told: Counter[str]) -> dict[str, object]:
    return {
        "count": template.count,
        "template": template.text,
        "providers": dict(template.providers.most_common()),
        "told_as": dict(told.most_common()),
        "example": template.example,
    }


# ---- test -----------------------------------------------------------------------------------------------------------


@rules.command("test")
@config_option
@json_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--since", type=Moment(-1), metavar="TIME", help="Only events from then on.")
@click.option("--limit", "-n", type=Whole(min=1), help="Try the latest so many events only.")
def test_file(*, config: Path | None, as_json: bool, file: Path, since: datetime | None, limit: int | None) -> None:
    """Try a rules file on stored events before it is used: show which verdicts would change.

    The file is laid over the rules in force, as it would be in the folder of `[rules]`. Both verdicts are worked out
    anew from the stored diagnostic and codes; what the report said besides is not stored. Nothing is changed.
    """
    from mailback.bounce.classify import Classifier
    from mailback.bounce.model import load_serving

    model = load_serving(load_settings(config).service.state_directory)
    before = Classifier(_loaded(_directories(config)), model)
    changes: dict[tuple[str, str, str], list[Event]] = {}
    tried = 0
    with _laid_over([file]) as directory, open_store(config) as store:
        after = Classifier(_loaded([*_directories(config), directory], [file]), model)
        for event in store.events(since=since, limit=limit):
            if event.kind.value not in _FAILURES:
                continue
            tried += 1
            old, new = _verdict(before, event), _verdict(after, event)
            if old.subcategory is not new.subcategory:
                changes.setdefault((_cause(old), _cause(new), _decisive(new)), []).append(event)
    ordered = sorted(changes.items(), key=lambda item: (-len(item[1]), item[0]))
    if as_json:
        json_line({"tried": tried, "changed": sum(map(len, changes.values())), "changes": list(map(_change, ordered))})
        return
    say(f"{tried} events tried, {sum(map(len, changes.values()))} verdicts would change")
    table(_CHANGES, [[len(events), *key, events[0].diagnostic] for key, events in ordered])


def _verdict(classifier: Classifier, event: Event) -> Verdict:
    from mailback.reports.report import DeliveryFailure, Report

    failure = DeliveryFailure(
        recipient=event.recipient or "",
        final_recipient=event.final_recipient,
        action="delayed" if event.kind.value == "delay" else "failed",
        status=event.status,
        smtp_code=event.smtp_code,
        diagnostic=event.diagnostic or "",
        reporting_mta=event.reporting_mta,
        remote_mta=event.remote_mta,
    )
    return classifier.verdict(failure, Report(event.kind, [failure]))


def _cause(verdict: Verdict) -> str:
    return f"{verdict.type.value}/{verdict.subcategory.value}"


def _decisive(verdict: Verdict) -> str:
    """The rule that speaks strongest for the verdict."""
    votes = [vote for vote in verdict.evidence if vote.says == verdict.subcategory]
    return max(votes, key=lambda vote: vote.weight).rule if votes else "-"


def _change(item: tuple[tuple[str, str, str], list[Event]]) -> dict[str, object]:
    (old, new, rule), events = item
    shown = [{"id": event.id, "diagnostic": event.diagnostic} for event in events[:10]]
    return {"count": len(events), "told_as": old, "would_be": new, "rule": rule, "events": shown}


# ---- lint -----------------------------------------------------------------------------------------------------------


@rules.command()
@config_option
@json_option
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def lint(*, config: Path | None, as_json: bool, files: tuple[Path, ...]) -> None:
    """Tell what is wrong with rules: costly or misspelt patterns, patterns that never match, shadowed ones.

    With FILE those rules only, laid over the rules in force; without, all rules in force. Exit code 1 when something is
    wrong, 2 when a file cannot be loaded at all (each problem with its line).
    """
    from mailback.bounce.lint import lint as examine

    with _laid_over(files) as directory:
        loaded = _loaded([*_directories(config), *([directory] if files else [])], files)
        found = examine(loaded, _ids(directory) if files else None)
    if as_json:
        for finding in found:
            json_line({"rule": finding.rule, "pattern": finding.pattern, "what": finding.what})
    else:
        table(_FINDINGS, [[f.rule, f.what, Cell(f.pattern, "dim")] for f in found], empty="nothing is wrong")
    if found:
        raise click.exceptions.Exit(1)


def _ids(directory: Path) -> set[str]:
    """Ids of the rules that files define; the files have been loaded before."""
    import tomllib

    documents = (tomllib.loads(path.read_bytes().decode("utf-8-sig")) for path in directory.iterdir())
    return {rule["id"] for document in documents for rule in document.get("rule", ())}


# ---- what they share ------------------------------------------------------------------------------------------------


def _directories(config: Path | None) -> list[Path]:
    """The folders of the rules in force."""
    from mailback.resources import rules_dir

    own = load_settings(config).rules.directory
    return [rules_dir(), *([Path(own)] if own is not None else [])]


def _loaded(directories: Sequence[Path], laid_over: Sequence[Path] = ()) -> Rules:
    """The rules of the folders; the last holds copies of the files, and problems are told by the files' own names."""
    from mailback.bounce.rules import RulesError, load

    try:
        return load(directories)
    except RulesError as error:
        names = {str(directories[-1] / file.name): str(file) for file in laid_over}
        problems = error.problems
        for copy, name in names.items():
            problems = [problem.replace(copy, name) for problem in problems]
        raise RulesError(problems) from error


@contextmanager
def _laid_over(files: Iterable[Path]) -> Iterator[Path]:
    """A folder that holds the files alone, as a further folder of rules."""
    with tempfile.TemporaryDirectory(prefix="mailback-rules-") as made:
        directory = Path(made)
        for file in files:
            if not any(file.match(form) for form in FORMS):
                raise CommandError(
                    f"{file}: its name does not tell what it holds", f"name it one of {', '.join(FORMS)}", exit_code=2
                )
            if (directory / file.name).exists():
                raise CommandError(f"two files are called {file.name}", "try them one after another", exit_code=2)
            shutil.copyfile(file, directory / file.name)
        yield directory

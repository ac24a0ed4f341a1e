"""`mailback config`: every problem of the configuration at once, and what is in force. Emits no log events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mailback.cli.options import config_option, json_option, load_settings
from mailback.cli.out import complain, json_line, safe, say

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from mailback.settings import Settings


@click.group()
def config() -> None:
    """Check and show the configuration."""


@config.command()
@config_option
@json_option
def check(config: Path | None, as_json: bool) -> int:
    """Tell every problem at once, with file, line and what was expected; the rule files included.

    Exit code 0: it can be served (there may be warnings). Exit code 2: it cannot.
    """
    from mailback.locations import find_config
    from mailback.settings import SettingsError

    problems: list[Any] = []
    warnings: list[str] = []
    try:
        settings = load_settings(config, files=True)
        warnings = settings.warnings() + _unread_rules(settings)
        problems = _rule_problems(settings)
    except SettingsError as error:
        problems = list(error.problems)
    if as_json:
        json_line({"problems": [_told(problem) for problem in problems], "warnings": warnings})
        return 2 if problems else 0
    for warning in warnings:
        complain(f"warning: {warning}")
    for problem in problems:
        complain(safe(problem))
    if problems:
        complain(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}, nothing would start; correct them all")
        return 2
    found = find_config(config)
    say(f"{found or 'built-in settings (no configuration file)'}: no problems")
    return 0


def _unread_rules(settings: Settings) -> list[str]:
    """Files of the operator's own that bear no name of a rule file: nothing reads them."""
    from mailback.resources import rules_dir

    folder = settings.rules.directory
    if folder is None or not Path(folder).is_dir():
        return []
    known = {path.name for path in rules_dir().glob("*.toml")}
    named = sorted(path.name for path in Path(folder).glob("*.toml") if path.name not in known)
    return [f"rules.directory: {name} is not read, no rule file that ships has that name" for name in named]


def _rule_problems(settings: Settings) -> list[Any]:
    from mailback.ingest.tables import words_of
    from mailback.recipient.entering import capture_rules
    from mailback.walk.knowledge import Knowledge

    told: list[Any] = []
    for load in (Knowledge.load, capture_rules, words_of):
        try:
            load(settings)
        except Exception as error:
            problems = getattr(error, "problems", None)
            if not problems:
                raise
            told += [problem for problem in problems if problem not in told]
    return told


def _told(problem: Any) -> dict[str, object]:
    names = ("file", "line", "key", "what", "expected")
    if all(hasattr(problem, name) for name in names):
        return {name: getattr(problem, name) for name in names}
    return {"file": "", "line": 0, "key": "", "what": str(problem), "expected": ""}


@config.command()
@config_option
@click.option("--all", "everything", is_flag=True, help="Every key in force, not only what differs from the defaults.")
@click.option("--template", is_flag=True, help="A configuration file with every key and its meaning, commented out.")
@click.option("--reference", is_flag=True, help="The reference page (docs/configuration.md).")
@json_option
def show(config: Path | None, everything: bool, template: bool, reference: bool, as_json: bool) -> None:
    """Show the settings that differ from the defaults, as TOML; passwords are masked."""
    if template or reference:
        from mailback.cli import reference as pages

        say((pages.template() if template else pages.configuration_page()).rstrip("\n"))
        return
    shown = list(_values(load_settings(config), everything=everything))
    if as_json:
        told: dict[str, dict[str, object]] = {}
        for section, key, value in shown:
            told.setdefault(section, {})[key] = value
        json_line(told)
        return
    if not shown:
        say("# nothing differs from the defaults; --all shows them")
    _say_toml(shown)


def _say_toml(shown: list[tuple[str, str, object]]) -> None:
    from mailback.cli.reference import toml_value

    section = ""
    for name, key, value in shown:
        if name != section:
            say(f"\n[{name}]" if section else f"[{name}]")
            section = name
        say(f"# {key} is unset" if value is None else f"{key} = {toml_value(value)}")


def _values(settings: Settings, *, everything: bool) -> Iterator[tuple[str, str, object]]:
    from mailback.locations import sqlite_path
    from mailback.settings import all_keys

    database = sqlite_path(settings.store.url)
    followed = {("service", "state_directory"): database.parent if database else None}  # unset, it follows `store.url`
    for section, key, field in all_keys():
        value = getattr(getattr(settings, section), key)
        unset = followed.get((section, key)), field.get_default(call_default_factory=True)
        if everything or value not in unset:
            if isinstance(value, tuple):
                value = list(value)
            yield section, key, _fit_to_be_shown(value, field)


def _fit_to_be_shown(value: object, field: FieldInfo) -> object:
    """A value without the secret that it is, or holds."""
    from mailback.locations import masked
    from mailback.settings import is_hidden, is_secret

    if value is None:
        return None
    if is_hidden(field):
        return "***"
    return masked(str(value)) if is_secret(field) else str(value) if isinstance(value, Path) else value

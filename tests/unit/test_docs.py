"""The reference pages are what the code says, whole and in both directions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest

from mailback.cli import reference
from mailback.settings import Settings, all_keys, is_fixed, variable

ROOT = Path(__file__).resolve().parents[2]
OPERATORS_PAGES = sorted(
    page for page in (*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md")) if page.is_file()
)


@pytest.mark.parametrize(
    ("file", "made"),
    [
        ("config/mailback.toml", reference.template),
        ("docs/configuration.md", reference.configuration_page),
        ("docs/commands.md", reference.commands_page),
    ],
)
def test_a_generated_file_is_what_the_code_says_now(file: str, made: object) -> None:
    assert callable(made)
    assert (ROOT / file).read_text("utf-8") == made(), f"{file} is out of date: make docs"


def test_the_shipped_configuration_is_the_defaults_and_nothing_is_wrong_with_it() -> None:
    text = (ROOT / "config" / "mailback.toml").read_text("utf-8")
    assert Settings.loads(text) == Settings.loads("")


def test_every_line_of_the_template_can_be_switched_on() -> None:
    keys = "|".join({key for _, key, _ in all_keys()})
    switched_on = re.sub(rf"^# ((?:{keys}) = )", r"\1", reference.template(), flags=re.MULTILINE)
    document = tomllib.loads(switched_on)
    assert {(section, key) for section, key, _ in all_keys()} == {
        (section, key) for section, table in document.items() for key in table
    }
    document["store"].pop("password_file")  # examples name files that are not there, and no other contradiction
    for key in ("tls_certificate_file", "tls_key_file"):
        document["smtpd"].pop(key)
    written = "\n".join(
        f"{section}.{key} = {reference.toml_value(value)}"
        for section, table in document.items()
        for key, value in table.items()
    )
    Settings.loads(written, files=False)


def test_every_default_of_the_template_is_the_default() -> None:
    keys = {(section, key): field for section, key, field in all_keys()}
    switched_on = re.sub(r"^# (\w+ = )", r"\1", reference.template(), flags=re.MULTILINE)
    for section, table in tomllib.loads(switched_on).items():
        for key, value in table.items():
            default = reference.default_of(keys[section, key])
            shown = tuple(value) if isinstance(value, list) else value
            assert default in (None, ()) or shown == default, f"{section}.{key}"


def test_the_configuration_page_has_every_key_with_its_restart_mark() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    for section, key, field in all_keys():
        [row] = re.findall(rf"^\| `{key}` \|.*$", page.split(f"\n## [{section}]\n")[1].split("\n## ")[0], re.MULTILINE)
        assert ("*restart*" in row) == is_fixed(field)
    assert variable("store", "url") in page


def test_the_command_page_has_every_command_and_option() -> None:
    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    for path, command in reference.every_command():
        section = re.split(r"\n#+ mailback ", page.split(f" mailback {' '.join(path)}\n", 1)[1])[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name != "config":
                assert all(name in section for name in parameter.opts), (path, parameter.opts)
            elif isinstance(parameter, click.Argument):
                assert parameter.make_metavar(click.Context(command)).strip("[]") in section, (path, parameter.name)


def _known_options() -> dict[str, set[str]]:
    known = {}
    for path, command in reference.every_command():
        names = {name for p in command.params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)}
        known[" ".join(path)] = names | {"--help", "-h"}
    return known


@pytest.mark.parametrize("page", OPERATORS_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_a_command_or_option_that_does_not_exist(page: Path) -> None:
    """Whatever a page shows as a command line of ours must be one."""
    known = _known_options()
    groups = {path.split(" ")[0] for path in known if " " in path}
    text = page.read_text("utf-8")
    for line in re.findall(r"(?:^    |`|bin/)mailback ([a-z][^`\n|>#;]*)", text, re.MULTILINE):
        words = line.split()
        path = " ".join(words[:2]) if words[0] in groups and len(words) > 1 else words[0]
        if "[" in path:
            path = words[0]  # the usage line of a group
        assert path in known or path in groups, f"{page.name}: mailback {line}"
        options = {word.partition("=")[0] for word in words if re.fullmatch(r"--[a-z-]+(=.*)?", word)}
        assert options <= known.get(path, set()), f"{page.name}: mailback {line}"


@pytest.mark.parametrize("page", OPERATORS_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_a_setting_that_does_not_exist(page: Path) -> None:
    known = {f"{section}.{key}" for section, key, _ in all_keys()}
    sections = "|".join(Settings.model_fields)
    text = page.read_text("utf-8")
    for name in re.findall(rf"`((?:{sections})\.[a-z_]+)(?: =[^`]*)?`", text):
        assert name in known or name.endswith((".db", ".toml", ".service", ".sock", ".py")), f"{page.name}: {name}"

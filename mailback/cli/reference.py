"""The pages that are written from the code: the configuration template and both reference pages.

`config/mailback.toml` and `docs/configuration.md` come from the settings' own fields, `docs/commands.md` from the
commands' own options; `make docs` writes them, and tests fail while a page and the code differ.
`python -m mailback.cli.reference` prints the page of the commands. Emits no log events.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
from pydantic.fields import FieldInfo

from mailback.settings import Section, Settings, all_keys, expected, is_fixed, variable

_WIDTH = 100

# ---- configuration --------------------------------------------------------------------------------------------------


def toml_value(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'


def default_of(field: FieldInfo) -> object:
    """The default that is the same on every machine; None where there is none, or it depends on the machine."""
    return None if field.default_factory is not None else field.default


def _example(field: FieldInfo) -> object:
    default = default_of(field)
    return field.examples[0] if field.examples and default in (None, ()) else default


def _section_intro(section: str) -> str:
    model = Settings.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, Section)
    return " ".join((model.__doc__ or "").split())


def template() -> str:
    """`config/mailback.toml`: every key with its meaning and default, all commented out."""
    lines = _comment(
        "Mailback's configuration: every key, what it means, what it takes, and its default. A line that is "
        "commented out shows the default, or an example where there is none. Change what differs, delete the rest; "
        "`mailback config check` tells every problem at once, `mailback config show` what differs from the defaults. "
        f"Any key can be set from the environment instead: {variable('store', 'url')} is `url` of [store]."
    )
    section = ""
    for name, key, field in all_keys():
        if name != section:
            section = name
            lines += ["", "", *_comment(_section_intro(name)), f"[{name}]"]
        lines += ["", *_comment(field.description or ""), *_comment(_takes(field))]
        lines.append(f"# {key} = {toml_value(_example(field))}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def _takes(field: FieldInfo) -> str:
    default = default_of(field)
    told = "unset" if default in (None, ()) else toml_value(default)
    fixed = " Only a restart changes it." if is_fixed(field) else ""
    return f"Takes {expected(field)}; default: {told}.{fixed}"


def configuration_page() -> str:
    """`docs/configuration.md`."""
    return "\n".join([*_CONFIGURATION_HEAD, *_configuration_sections()]) + "\n"


_CONFIGURATION_HEAD = [
    "# Configuration",
    "",
    "<!-- Written by `mailback config show --reference`; change mailback/settings/ instead. -->",
    "",
    "One TOML file. Mailback reads the file that `--config` names, else the one that `$MAILBACK_CONFIG` names, else",
    "`/etc/mailback/mailback.toml` if it is there, else no file: all defaults, state in your own folder.",
    "",
    "    mailback config show --template > mailback.toml   # every key, commented",
    "    mailback config check                             # every problem at once, with file and line",
    "    mailback config show                              # what differs from the defaults",
    "    mailback config show --all                        # everything in force",
    "",
    "Unknown keys and values of the wrong type are problems, never ignored. Relative paths start at the folder that",
    "Mailback was started in. Any key can be set from the environment, which outranks the file:",
    "`MAILBACK_SECTION_KEY`, such as `MAILBACK_STORE_URL` or `MAILBACK_SMTPD_LISTEN`; several values of a list are",
    "separated by commas or spaces.",
    "",
    "Secrets are never given on a command line: they come from files or from the environment, and are masked wherever",
    "the configuration is shown.",
    "",
    "SIGHUP (`systemctl reload mailback`) takes up every key but those marked *restart*.",
]


def _configuration_sections() -> Iterator[str]:
    section = ""
    for name, key, field in all_keys():
        if name != section:
            section = name
            yield from ("", f"## [{name}]", "", _section_intro(name), "")
            yield from ("| key | takes | default | meaning |", "|---|---|---|---|")
        default = default_of(field)
        told = "" if default in (None, ()) else f"`{toml_value(default)}`"
        meaning = (field.description or "") + (" *restart*" if is_fixed(field) else "")
        example = f" Example: `{toml_value(field.examples[0])}`." if field.examples else ""
        yield f"| `{key}` | {_cell(expected(field))} | {_cell(told)} | {_cell(meaning + example)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# ---- commands -------------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """`docs/commands.md`: every command with its arguments, options and what it says about itself."""
    lines = list(_COMMANDS_HEAD)
    for path, command in every_command():
        lines += ["", f"{'#' * (1 + len(path))} mailback {' '.join(path)}", "", *_command_text(path, command)]
    return "\n".join(lines) + "\n"


_COMMANDS_HEAD = [
    "# Commands",
    "",
    "<!-- Written by `python -m mailback.cli.reference`; change the commands in mailback/cli/ instead. -->",
    "",
    "Tables are in colour on a terminal and plain text when piped; `--json` writes one JSON value a line wherever a",
    "script would want it. Every command takes `--config FILE` (or `$MAILBACK_CONFIG`) and `--help`.",
    "",
    "| exit code | meaning |",
    "|---|---|",
    "| 0 | done; for `check`: mail may go |",
    "| 1 | a negative answer, or an item failed |",
    "| 2 | the call or the configuration is wrong; nothing was done |",
    "| 130, 141 | interrupted; the reader of the pipe has gone |",
    "",
    "An error is one line: what is wrong; what to do. `MAILBACK_TRACEBACK=1` adds where it happened.",
]


def every_command() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its path, groups before what they hold."""
    from mailback.cli.main import mailback

    yield from _below(mailback, ())


def _below(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group, info_name=" ".join(("mailback", *path)))
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _below(command, (*path, name))


def _command_text(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=" ".join(("mailback", *path)))
    yield f"    {' '.join([context.command_path, *command.collect_usage_pieces(context)])}"
    for paragraph in _paragraphs(command.help or ""):
        yield ""
        yield paragraph
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    shown = [p for p in options if p.name != "config"]
    if shown:
        yield from ("", "| option | meaning |", "|---|---|")
    for option in shown:
        record = option.get_help_record(context)
        assert record is not None, option
        yield f"| `{_cell(record[0])}` | {_cell(' '.join(record[1].split()))} |"


def _paragraphs(text: str) -> list[str]:
    """Paragraphs on one line each; those that start with click's mark for text as it stands keep their lines."""
    made = []
    for paragraph in textwrap.dedent(text).strip().split("\n\n"):
        if paragraph.startswith("\b"):
            made.append(textwrap.indent(paragraph.removeprefix("\b\n"), "    "))
        else:
            made.append(" ".join(paragraph.split()))
    return made


def write_all(root: Path) -> None:
    """Write the three files below the root of a checkout."""
    (root / "config" / "mailback.toml").write_text(template(), "utf-8")
    (root / "docs" / "configuration.md").write_text(configuration_page(), "utf-8")
    (root / "docs" / "commands.md").write_text(commands_page(), "utf-8")


if __name__ == "__main__":
    sys.stdout.write(commands_page())

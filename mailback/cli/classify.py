"""`mailback classify`: what messages are, whom a delivery failed for and why; changes nothing. Emits no log events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from mailback.cli.mailboxes import Found, read_all
from mailback.cli.options import config_option, json_option
from mailback.cli.out import Cell, Column, complain, json_line, safe, table

_COLUMNS = (
    Column("message"),
    Column("kind", "bold", wraps=False),
    Column("recipient", "cyan"),
    Column("status", wraps=False),
    Column("type", wraps=False),
    Column("cause", wraps=False),
    Column("conf.", right=True, wraps=False),
    Column("action", wraps=False),
    Column("diagnostic", "dim"),
)
_DIAGNOSTIC_SHOWN = 120  # characters in the table; --json has all of it


@click.command()
@config_option
@json_option
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
def classify(config: Path | None, paths: tuple[str, ...], as_json: bool) -> int:
    """Tell what messages are, whom a delivery failed for and why. Changes nothing, asks nobody.

    PATH is a message, an mbox, a Maildir or any folder of messages, or - for standard input. A file that is not mail
    has the kind `other`; one that cannot be read is told as such, and the exit code is 1.
    """
    judge = _judge(config)
    failed = seen = 0
    rows: list[list[object]] = []
    for found in read_all(paths):
        seen += 1
        if found.error is not None:
            failed += 1
            if as_json:
                json_line({"source": found.source, "error": found.error})
            else:
                complain(f"{safe(found.source)}: {found.error}; nothing was read from it")
            continue
        told = judge(found)
        if as_json:
            json_line(told)
        else:
            rows.extend(table_rows(told))
    if not as_json and rows:
        table(_COLUMNS, rows)
    for empty in paths if not seen else ():
        complain(f"{safe(empty)}: holds no messages")
    return 1 if failed else 0


def _judge(config: Path | None) -> Callable[[Found], dict[str, Any]]:
    """Classifies with the rules and the header names that the configuration in force names."""
    from mailback.locations import find_config
    from mailback.walk.knowledge import Knowledge

    if find_config(config) is None:
        knowledge = Knowledge.load()
    else:
        from mailback.cli.options import load_settings

        knowledge = Knowledge.load(load_settings(config))
    return lambda found: knowledge.classify(found.raw).to_dict(found.source)


def table_rows(told: dict[str, Any]) -> Iterator[list[object]]:
    """A row for each recipient of a message, or one for a message about nobody."""
    source = told["source"]
    for bounce in told["bounces"]:
        yield [
            source, told["kind"], bounce["recipient"], bounce["status"] or bounce["smtp_code"], bounce["type"],
            bounce["subcategory"], f"{bounce['confidence']:.2f}", bounce["action"],
            Cell(_short(bounce["diagnostic"]), "dim"),
        ]  # fmt: skip
        source = ""
    if not told["bounces"]:
        reply = told["reply"] or {}
        confidence = f"{reply['confidence']:.2f}" if reply.get("confidence") is not None else None
        yield [source, told["kind"], None, None, None, reply.get("intent"), confidence, reply.get("route"), None]


def _short(text: str | None) -> str:
    text = text or ""
    return text if len(text) <= _DIAGNOSTIC_SHOWN else text[: _DIAGNOSTIC_SHOWN - 1] + "…"

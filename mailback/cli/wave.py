"""`mailback wave`: bursts of like verdicts about one provider, dealt with all at once. Emits no log events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.errors import CommandError
from mailback.cli.options import Whole, actor, config_option, json_option, load_settings, open_store
from mailback.cli.out import Column, iso, json_line, say, table, when

if TYPE_CHECKING:
    from mailback.effects.scoring import Scoring
    from mailback.store import Transaction

_COLUMNS = (
    Column("wave", right=True, wraps=False), Column("since (UTC)", wraps=False), Column("provider", "cyan"),
    Column("cause", wraps=False), Column("addresses", right=True, wraps=False),
    Column("normal an hour", right=True, wraps=False), Column("state", wraps=False),
)  # fmt: skip
_number = click.argument("wave", metavar="WAVE", type=Whole(min=1))


@click.group("wave")
def waves() -> None:
    """Bursts that were frozen: list, undo, confirm, reopen."""


@waves.command(name="list")
@config_option
@json_option
@click.option("--open", "only_open", is_flag=True, help="Only those that wait for a decision.")
def list_(config: Path | None, as_json: bool, only_open: bool) -> None:
    """List the waves, the latest first."""
    with open_store(config) as store:
        found = store.waves(only_open=only_open)
    if as_json:
        for one in found:
            json_line(asdict(one) | {"opened_at": iso(one.opened_at), "closed_at": iso(one.closed_at)})
        return
    rows = (
        [one.id, when(one.opened_at), one.provider, one.subcategory, one.members, f"{one.normal:.1f}", one.state]
        for one in found
    )
    table(_COLUMNS, rows, empty="no waves")


@waves.command()
@config_option
@_number
def undo(config: Path | None, wave: int) -> None:
    """Take back what a wave suppressed: the state before it returns, for each address that nobody changed since.

    `mailback wave confirm` makes them again.
    """
    by = actor()
    with open_store(config) as store:
        undone = store.submit(partial(_decide, _scoring(config), wave, lambda tx: tx.undo_wave(wave, by))).result()
    say(f"wave {wave}: {_known(undone, wave)} suppressions taken back")


@waves.command()
@config_option
@_number
def confirm(config: Path | None, wave: int) -> None:
    """Make all suppressions of a wave, the frozen ones and those taken back: the addresses are gone indeed.

    `mailback wave undo` takes them back again.
    """
    by = actor()
    with open_store(config) as store:
        made = store.submit(partial(_decide, _scoring(config), wave, lambda tx: tx.confirm_wave(wave, by))).result()
    say(f"wave {wave}: {_known(made, wave)} addresses suppressed")


@waves.command()
@config_option
@_number
def reopen(config: Path | None, wave: int) -> None:
    """Take back an undo or a confirm: the wave waits again, with everything as it was before that decision.

    What the wave had made is made again, what it had kept back is not; whatever anybody changed since stays.
    """
    by = actor()
    with open_store(config) as store:
        changed = store.submit(partial(_decide, _scoring(config), wave, lambda tx: tx.reopen_wave(wave, by))).result()
    if changed is None:
        raise CommandError(f"there is no wave {wave} that was decided", "mailback wave list")
    say(f"wave {wave}: waits for a decision again, {changed} suppressions changed")


def _scoring(config: Path | None) -> Scoring:
    from mailback.effects.scoring import Scoring

    return Scoring.of(load_settings(config))


def _decide(
    scoring: Scoring, number: int, decision: Callable[[Transaction], int | None], transaction: Transaction
) -> int | None:
    """The decision, and what the scores of its addresses come to after it."""
    count = decision(transaction)
    if count is not None:
        scoring.after_wave(transaction, number)
    return count


def _known(count: int | None, number: int) -> int:
    if count is None:
        raise CommandError(f"there is no wave {number}", "mailback wave list")
    return count

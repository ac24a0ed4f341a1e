"""`mailback store`: the database itself. Emits no log events."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.errors import CommandError
from mailback.cli.files import create_beside
from mailback.cli.options import config_option, json_option, load_settings, open_store
from mailback.cli.out import Column, complain, json_line, safe, say, table

if TYPE_CHECKING:
    from mailback.store.sizes import TableSize

_SIZE_COLUMNS = (
    Column("table", wraps=False), Column("rows", right=True, wraps=False), Column("MB", right=True, wraps=False),
    Column("MB of indexes", right=True, wraps=False), Column("octets a row", right=True, wraps=False),
)  # fmt: skip
_PAGES_A_STEP = 256  # of a backup: short read locks, so that mail goes on being recorded meanwhile


@click.group()
def store() -> None:
    """The database: upgrade, check, maintain, backup, size, message."""


@store.command()
@config_option
def upgrade(config: Path | None) -> None:
    """Create the database if there is none, and bring it to this version's schema. Safe while others do the same."""
    from mailback.cli.serve import make_folder
    from mailback.locations import sqlite_path
    from mailback.store import Store

    settings = load_settings(config)
    path = sqlite_path(settings.store.url)
    if path is not None:
        make_folder(path.parent, settings.service.user, settings.service.group)
    with Store.open(settings.store.url, busy_timeout_s=settings.store.busy_timeout_s) as database:
        changed = database.upgrade()
        say(f"{database.path}: {'upgraded' if changed else 'is up to date'}")


@store.command()
@config_option
@json_option
def check(config: Path | None, as_json: bool) -> int:
    """Check file, schema, integrity and the hash chain of the audit trail; reads all of it. Exit code 1: not well.

    Rights or disk space that endanger the database are told beside what was found in it.
    """
    with open_store(config) as database:
        problems = database.check()
        place = database.path
    whole = not any(problem.in_data for problem in problems)
    if as_json:
        json_line({"store": str(place), "whole": whole, "problems": [str(problem) for problem in problems]})
        return 1 if problems else 0
    for problem in problems:
        complain(safe(problem))
    if whole:
        say(f"{place}: schema, integrity and audit trail are whole")
    return 1 if problems else 0


@store.command()
@config_option
def maintain(config: Path | None) -> int:
    """Forget what need not be kept, fold the write-ahead log back, refresh statistics, verify the audit trail.

    Safe while mail flows; the timer that ships runs it once a day.
    """
    from datetime import UTC, datetime, timedelta

    settings = load_settings(config)
    kept = timedelta(days=settings.journal.retention_days)
    counted = timedelta(days=settings.score.memory_days + settings.score.window_days + 30)
    with open_store(config) as database:
        path = database.path
        now = datetime.now(UTC)
        forgotten = database.forget_journal(now - kept)
        events_forgotten = database.forget_events(now - timedelta(days=settings.store.retention_days))
        database.submit(lambda transaction: transaction.forget_rates(now - timedelta(days=8))).result()
        database.forget_scores(now - counted)
        database.forget_reading(now - counted)
        database.submit(lambda transaction: transaction.forget_probes(now - counted)).result()
        database.submit(lambda transaction: transaction.retries.forget(now - kept)).result()
        database.submit(lambda transaction: transaction.forget_domains(now - timedelta(days=90))).result()
        database.forget_raws(now - timedelta(days=settings.store.raw_retention_days))
        database.forget_captures(now - timedelta(days=settings.capture.retention_days))
        database.submit(lambda transaction: transaction.subscribers.decay(now)).result()
        folded = database.fold()
        verified = database.verify_audit()
    if forgotten:
        say(f"{path}: {forgotten} entries of the journal were older than {kept.days} days and are removed")
    if events_forgotten:
        say(f"{path}: {events_forgotten} events were older than {settings.store.retention_days} days and are removed")
    say(f"{path}: " + ("the write-ahead log is folded back" if folded else "in use, the log is folded back in part"))
    if not verified.holds:
        complain(
            safe(f"audit row {verified.broken_at} {verified.problem}; compare with a backup, see docs/operations.md")
        )
        return 1
    say("the audit trail is whole")
    return 0


@store.command()
@config_option
@json_option
def size(config: Path | None, as_json: bool) -> None:
    """Tell how much room each table takes, its indexes included, and what a row of it costs. Reads the whole file."""
    with open_store(config) as database:
        found = database.sizes()
    if as_json:
        for one in found:
            json_line({
                "table": one.name, "rows": one.rows, "bytes": one.octets, "index_bytes": one.index_octets,
                "bytes_a_row": one.octets_a_row and round(one.octets_a_row, 1),
            })  # fmt: skip
    else:
        table(_SIZE_COLUMNS, map(_size_row, found))


def _size_row(one: TableSize) -> list[object]:
    each = one.octets_a_row
    return [
        one.name, f"{one.rows:,}", f"{one.octets / 1e6:,.1f}", f"{one.index_octets / 1e6:,.1f}",
        None if each is None else f"{each:,.0f}",
    ]  # fmt: skip


@store.command()
@config_option
@click.argument("event")
def message(config: Path | None, event: str) -> None:
    """Write the message behind an event as it came in, to standard output.

    EVENT is its id, as `mailback events` and `explain` tell it. What is kept, and for how long, is store.keep_raw and
    store.raw_retention_days. It is a stranger's mail, and may hold what a terminal obeys: it goes to a file or a pager.
    """
    if sys.stdout.isatty():
        raise CommandError("a stranger's mail is not written to a terminal", "add: | less", exit_code=2)
    with open_store(config) as database:
        found = database.event(event)
        if found is None:
            raise CommandError(f"there is no event {event}", "mailback events")
        raw = database.raw(found.raw_sha256) if found.raw_sha256 else None
    if raw is None:
        told = "it came in no message" if not found.raw_sha256 else "its message is not kept, or not any more"
        raise CommandError(f"event {event}: {told}", "store.keep_raw says which messages are kept")
    sys.stdout.buffer.write(raw)
    if found.raw_size is not None and found.raw_size > len(raw):
        complain(f"the first {len(raw)} of {found.raw_size} octets; the rest was not kept")


@store.command()
@config_option
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
def backup(config: Path | None, path: Path) -> None:
    """Copy the live database consistently to a new file, while mail flows.

    The copy is whole or not there at all: it is written beside PATH, checked, and renamed.
    """
    from mailback.store.errors import unavailable
    from mailback.store.sqlite import connect_reading

    if path.exists():
        raise CommandError(f"{path} exists", "name a new file: a backup never overwrites another", exit_code=2)
    with open_store(config) as database:
        source = database.path
    beside, descriptor = create_beside(path, 0o600)
    os.close(descriptor)
    try:
        with closing(connect_reading(source, 5.0)) as live, closing(sqlite3.connect(beside)) as copy:
            live.backup(copy, pages=_PAGES_A_STEP)
            [(state,)] = copy.execute("PRAGMA quick_check")
        if state != "ok":
            raise CommandError(f"the copy is damaged ({state})", "mailback store check, on the live database")
        _synced(beside)
        beside.rename(path)
        _synced(path.parent)
    except sqlite3.Error as error:
        raise unavailable(error, source) from error
    finally:
        beside.unlink(missing_ok=True)
    say(f"{path}: {path.stat().st_size} bytes, copied from {source}")


def _synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

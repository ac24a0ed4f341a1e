"""`mailback signing`: the keys that return paths are signed with. Secrets are never shown. Emits no log events."""

from __future__ import annotations

import os
import secrets
import stat
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click

from mailback.cli.errors import CommandError
from mailback.cli.files import create_beside
from mailback.cli.options import config_option, json_option, load_settings
from mailback.cli.out import Column, json_line, safe, say, table
from mailback.returnpath import Key, Keys
from mailback.returnpath.keys import UNSUBSCRIBE_DAYS

_MODE = 0o600
_COLUMNS = (
    Column("id", wraps=False), Column("signs from (UTC)", wraps=False), Column("until (UTC)", wraps=False),
    Column("accepted until (UTC)", wraps=False), Column("state", wraps=False),
)  # fmt: skip

_file_option = click.option(
    "--file", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="The key file. Default: signing.secret_file of the configuration.",
)  # fmt: skip


@click.group()
def signing() -> None:
    """The keys of signed return paths: keygen, rotate, show."""


@signing.command()
@config_option
@_file_option
def keygen(config: Path | None, file: Path | None) -> None:
    """Make a key file with one key that signs from today on. Never overwrites one."""
    path = _path(config, file)
    keys = Keys((Key(1, _today(), _secret()),))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    except FileExistsError:
        raise CommandError(f"{path} exists", "to begin a new key in it: mailback signing rotate") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        os.fchmod(descriptor, _MODE)  # whatever the umask is
        stream.write(keys.text())
        stream.flush()
        os.fsync(descriptor)
    _synced(path.parent)
    say(f"{safe(path)}: one key. Give the file to the user that Mailback runs as, and to every host that sends")


@signing.command()
@config_option
@_file_option
@click.option(
    "--days", type=click.IntRange(0, 30), default=1, show_default=True,
    help="Begin to sign in so many days; until then the file has to be on every host.",
)  # fmt: skip
def rotate(config: Path | None, file: Path | None, days: int) -> None:
    """Add a key, and drop those with which nothing was signed that still counts.

    The key in use signs on until the new one begins, and is kept for as long as an unsubscribe address counts (900
    days); of more than ten keys the oldest goes once its return paths have run out. Reload the service afterwards.
    """
    path = _path(config, file)
    keys = Keys.load(path)
    start = _today() + timedelta(days=days)
    try:
        newer = keys.rotated(_secret(), start, on=_today(), max_age_days=_max_age(config))
    except ValueError as error:
        raise CommandError(f"{path}: {error}", "mailback signing show tells what is there") from error
    _replace(path, newer)
    dropped = sorted({key.id for key in keys.keys} - {key.id for key in newer.keys})
    gone = f", dropped {', '.join(map(str, dropped))}" if dropped else ""
    say(f"{safe(path)}: key {newer.keys[-1].id} signs from {start} on{gone}. Reload the service on every host")


@signing.command()
@config_option
@json_option
@_file_option
def show(config: Path | None, file: Path | None, as_json: bool) -> None:
    """Tell the keys of the key file and from when to when each is used; never the secrets."""
    path = _path(config, file)
    keys = Keys.load(path)
    rows = list(_rows(keys, _today(), max(_max_age(config), UNSUBSCRIBE_DAYS)))
    if as_json:
        names = ("id", "signs_from", "signs_until", "accepted_until", "state")
        for row in rows:
            json_line(
                {name: str(cell) if isinstance(cell, date) else cell for name, cell in zip(names, row, strict=True)}
            )
        return
    table(_COLUMNS, rows)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
        say(f"{safe(path)} can be read by everybody: chmod 600")


def _rows(keys: Keys, today: date, max_age_days: int) -> list[list[object]]:
    rows: list[list[object]] = []
    for key, successor in zip(keys.keys, (*keys.keys[1:], None), strict=True):
        end = successor.start if successor else None
        accepted = end + timedelta(days=max_age_days) if end else None
        rows.append([key.id, key.start, end, accepted, _state(key.start, end, accepted, today)])
    return rows


def _state(start: date, end: date | None, accepted: date | None, today: date) -> str:
    if today < start:
        return "to come"
    if end is None or today < end:
        return "signs"
    return "accepted" if accepted is None or today <= accepted else "over"


def _path(config: Path | None, file: Path | None) -> Path:
    path = file or load_settings(config).signing.secret_file
    if path is None:
        raise CommandError("no key file is named", "set signing.secret_file, or name one: --file FILE", exit_code=2)
    return path


def _max_age(config: Path | None) -> int:
    return load_settings(config).signing.max_age_days


def _replace(path: Path, keys: Keys) -> None:
    """Write the file anew beside it and rename: a reader sees the old or the new one, whole. Owner and mode stay."""
    status = path.stat()
    beside, descriptor = create_beside(path, _MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & 0o640)
            if os.geteuid() == 0:
                os.fchown(descriptor, status.st_uid, status.st_gid)
            stream.write(keys.text())
            stream.flush()
            os.fsync(descriptor)
        beside.rename(path)
        _synced(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _synced(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _secret() -> bytes:
    return secrets.token_bytes(32)


def _today() -> date:
    return datetime.now(UTC).date()

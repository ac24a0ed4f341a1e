"""The suppression list as a file: for people and scripts (text, csv, json), and as tables for Postfix (sqlite, cdb).

A table for Postfix is a snapshot: what is suppressed or lifted later shows with the next export. Its values are whole
SMTP replies, the same that Mailback's own servers give. It holds what is suppressed for everything; a static table
cannot know which list a message belongs to.

The sqlite snapshot is a file of its own with a rollback journal, never the live database: Postfix opens its tables
read-only and dies on any error, and a WAL database cannot be read that way. It is changed in place, in one transaction
that touches only the rows that differ, so the moment in which a look-up would find the file locked is that of a few
pages. The cdb table is renamed into place instead and has no such moment: prefer it where postfix-cdb is installed.
Emits no log events.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mailback.cli.errors import CommandError
from mailback.cli.files import NEW_FILE_MODE, replacing
from mailback.cli.out import iso
from mailback.store.erasure import is_hash

if TYPE_CHECKING:
    from mailback.store.records import Suppression

COLUMNS = (
    "address", "scope", "reason", "type", "subcategory", "source", "since", "until", "event_id", "suggestion",
)  # fmt: skip
"""What a line of csv or json holds; `suppress import` takes the same."""

_APPLICATION_ID = 0x4D624578  # marks our snapshots, so that an export never writes into any other database
_SCHEMA = "CREATE TABLE suppression (address TEXT PRIMARY KEY, reply TEXT NOT NULL, until INTEGER) WITHOUT ROWID"


def to_dict(suppression: Suppression) -> dict[str, object]:
    """A suppression as a line of json."""
    told = {name: getattr(suppression, name) for name in COLUMNS}
    return told | {"since": iso(suppression.since), "until": iso(suppression.until)}


def _text(found: Iterable[Suppression], file: TextIO) -> int:
    """One address a line, each once."""
    count, last = 0, ""
    for suppression in found:
        if suppression.address_key != last:  # they come by address, so scopes of one follow each other
            last = suppression.address_key
            file.write(f"{_line(suppression.address)}\n")
            count += 1
    return count


def _line(text: str) -> str:
    """A stranger's address may hold anything; a line end in it would make an address of its own."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _csv(found: Iterable[Suppression], file: TextIO) -> int:
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    count = 0
    for count, suppression in enumerate(found, 1):  # noqa: B007 - told at the end
        writer.writerow(to_dict(suppression))
    return count


def _json(found: Iterable[Suppression], file: TextIO) -> int:
    count = 0
    for count, suppression in enumerate(found, 1):  # noqa: B007
        file.write(json.dumps(to_dict(suppression)) + "\n")
    return count


_WRITERS: dict[str, Callable[[Iterable[Suppression], TextIO], int]] = {"text": _text, "csv": _csv, "json": _json}
SERVICE_FORMATS = ("ses", "sendgrid", "mailgun", "postmark", "mailchimp")
FORMATS = ("text", "csv", "json", "postfix-sqlite", "postfix-cdb", *SERVICE_FORMATS)
POSTFIX_FORMATS = ("postfix-sqlite", "postfix-cdb")


def export(found: Iterable[Suppression], format_: str, output: Path | None) -> int:
    """Write suppressions in a format; how many. `output` None is standard output; a table for Postfix needs a file.

    Addresses that were erased are in none of them: nobody could use their hashes.
    """
    found = (suppression for suppression in found if not is_hash(suppression.address_key))
    if format_ in _WRITERS:
        with _opened(output) as file:
            return _WRITERS[format_](found, file)
    if format_ in SERVICE_FORMATS:
        from mailback.cli.services import WRITERS

        with _opened(output) as file:
            return WRITERS[format_](found, file)
    assert output is not None
    if format_ == "postfix-cdb":
        from mailback.cli import cdb

        with replacing(output) as file:
            return cdb.write(file, ((key.encode(), reply.encode()) for key, reply, _ in _replies(found)))
    return _sqlite(found, output)


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that takes its place only when it is whole."""
    if output is None:
        yield sys.stdout
        return
    with replacing(output) as raw, TextIOWrapper(raw, "utf-8", errors="backslashreplace", newline="") as file:
        yield file


def _replies(found: Iterable[Suppression]) -> Iterator[tuple[str, str, int | None]]:
    """Key, SMTP reply and end (seconds since 1970) of what is suppressed for everything."""
    from mailback.outbound.check import refusal

    for suppression in found:
        if suppression.scope == "all" and "\x00" not in suppression.address_key:
            until = int(suppression.until.timestamp()) if suppression.until else None
            yield suppression.address_key, refusal(suppression.address, suppression).reply, until


def _sqlite(found: Iterable[Suppression], output: Path) -> int:
    """Bring a snapshot up to date in place; how many addresses it holds."""
    if not output.exists():
        os.close(os.open(output, os.O_CREAT | os.O_EXCL | os.O_WRONLY, NEW_FILE_MODE))
    with closing(sqlite3.connect(output, timeout=30, isolation_level=None)) as database:
        try:
            _claim(database, output)
            database.execute(
                "CREATE TEMP TABLE fresh (address TEXT PRIMARY KEY, reply TEXT, until INTEGER) WITHOUT ROWID"
            )
            database.executemany("INSERT OR REPLACE INTO fresh VALUES (?, ?, ?)", _replies(found))
            database.execute("BEGIN IMMEDIATE")
            database.execute("DELETE FROM suppression WHERE address NOT IN (SELECT address FROM fresh)")
            database.execute("INSERT OR REPLACE INTO suppression SELECT * FROM fresh EXCEPT SELECT * FROM suppression")
            database.execute("COMMIT")
            return int(database.execute("SELECT count(*) FROM suppression").fetchone()[0])
        except sqlite3.DatabaseError as error:
            raise CommandError(f"{output}: {error}", "name a file that `suppress export` made, or a new one") from error


def _claim(database: sqlite3.Connection, output: Path) -> None:
    """Make the table in an empty file; refuse a database that is not one of our snapshots."""
    [(mark,)] = database.execute("PRAGMA application_id")
    [(tables,)] = database.execute("SELECT count(*) FROM sqlite_master")
    if mark == _APPLICATION_ID:
        return
    if tables:
        raise CommandError(f"{output} is another database", "name a file that `suppress export` made, or a new one")
    database.execute("PRAGMA journal_mode = DELETE")
    database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    database.execute(_SCHEMA)

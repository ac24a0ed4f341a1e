"""`mailback ingest`: other ways in than the doors that are open all the time. Emits no log events."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mailback.cli.errors import CommandError
from mailback.cli.options import config_option, json_option, load_settings
from mailback.cli.out import Column, complain, json_line, progress, safe, say, table

if TYPE_CHECKING:
    from mailback.engine import Engine
    from mailback.ingest.feed import Feed
    from mailback.ingest.mailbox import After, MailFeed
    from mailback.settings import Settings
    from mailback.store import Store

FIELDS = (
    "recipient", "at", "outcome", "message_id", "id", "smtp_code", "status", "diagnostic", "campaign", "list_id",
    "subscriber", "sender", "subject", "attempts", "severity", "cause",
)  # fmt: skip
"""What a column of a table may be mapped to; as `mailback.ingest.tables` has them, which takes long to import."""

F = TypeVar("F", bound=Callable[..., Any])
_P = TypeVar("_P", str, Path)
_KINDS = (Column("kind", wraps=False), Column("messages", right=True))
_COLUMNS = (Column("outcome", wraps=False), Column("told", right=True), Column("new", right=True))


@click.group()
def ingest() -> None:
    """Other ways in: Postfix's log, mailboxes, tables of deliveries, opens and clicks."""


@contextmanager
def opened(config: Path | None) -> Iterator[tuple[Settings, Store, Engine]]:
    """Settings, store (made where there is none) and engine."""
    from mailback.engine import Engine
    from mailback.store import Store

    settings = load_settings(config)
    with Store.open(settings.store.url, busy_timeout_s=settings.store.busy_timeout_s) as store:
        store.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        store.upgrade()
        yield settings, store, Engine(settings, store)


@ingest.command("postfix-log")
@config_option
@json_option
@click.option("--again", is_flag=True, help="Begin at the beginning, also of logs that were read before.")
@click.option("--timezone", metavar="ZONE", help="Zone of lines that tell none. Default: follow.timezone.")
@click.option(
    "--year",
    type=click.IntRange(1990, 9998),
    help="Year of the first line, for old logs that tell none and were copied.",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def postfix_log(
    *, config: Path | None, as_json: bool, again: bool, timezone: str | None, year: int | None, files: tuple[str, ...]
) -> int:
    """Read Postfix's log: what became of each message of yours, for each recipient, with every try.

    Plain files or packed by gzip, xz or bzip2, `-` for standard input; give rotated ones oldest first. Each is read on
    from where it was left, under whatever name it has now; nothing is recorded twice. Exit code 1: a file could not be
    read to its end.
    """
    from mailback.ingest import rules_of
    from mailback.ingest.feed import Feed
    from mailback.ingest.log_import import LogReader, read_log
    from mailback.ingest.logfiles import Damaged
    from mailback.ingest.postfix_log import DeliveryLog

    with opened(config) as (settings, store, engine):
        zone = _zone(timezone or settings.follow.timezone)
        feed = Feed(engine)
        reader = LogReader(store, feed, DeliveryLog(rules_of(settings)))
        with progress("reading", _octets_of(files), octets=True) as bar:
            one = partial(read_log, reader, store, zone=zone, year=year, again=again, step=bar.step)
            failed = _each(files, feed, one, Damaged)
        tally = reader.log.tally
    told = {
        "lines": tally.lines, **_told(feed), "handed_on": tally.handed_on, "not_ours": tally.not_ours + feed.not_ours,
        "refused_here": tally.refused_here, "doubtful": tally.doubtful, "failed": feed.failed,
    }  # fmt: skip
    if as_json:
        json_line(told)
    else:
        _show(feed)
        say(f"{tally.lines} lines; {told['not_ours']} outcomes of other people's mail, {tally.handed_on} handed on, "
            f"{tally.refused_here} refused or put off by ourselves, {tally.doubtful} doubtful")  # fmt: skip
        _show_notes(feed)
    return 1 if failed or feed.failed else 0


@ingest.command("mbox")
@config_option
@json_option
@click.option("--again", is_flag=True, help="Begin at the beginning, also of files that were read before.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def mbox(*, config: Path | None, as_json: bool, again: bool, files: tuple[str, ...]) -> int:
    """Read mbox files: each message goes through the same walk as one that comes in. Nothing in them is changed.

    Plain or packed by gzip, xz or bzip2, `-` for standard input. Each is read on from where it was left. Exit code 1: a
    file could not be read.
    """
    from mailback.ingest.logfiles import Damaged
    from mailback.ingest.mailbox import MailFeed, NotAMailbox, read_mbox

    with opened(config) as (_, store, engine):
        feed = MailFeed(engine)
        with progress("reading", _octets_of(files), octets=True) as bar:
            one = partial(read_mbox, store, feed, again=again, step=bar.step)
            failed = _each(files, feed, one, Damaged, NotAMailbox)
    return _show_mail(feed, failed, as_json=as_json)


_after_options = (
    click.option("--seen", "after", flag_value="seen", help="Flag each as seen once it is recorded."),
    click.option("--delete", "after", flag_value="delete", help="Remove each once it is recorded."),
    click.option("--again", is_flag=True, help="Read those that were read before as well."),
)


def _with_after(command: F) -> F:
    for option in reversed(_after_options):
        command = option(command)
    return command


@ingest.command("maildir")
@config_option
@json_option
@_with_after
@click.option(
    "--move-to",
    "to",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Move each there, a Maildir, once it is recorded.",
)
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER...", type=click.Path(path_type=Path))
def maildir(
    *, config: Path | None, as_json: bool, after: str | None, again: bool, to: Path | None, folders: tuple[Path, ...]
) -> int:
    """Read Maildir folders: each message goes through the same walk as one that comes in.

    Messages stay as they are, and which were read is remembered, unless --seen, --move-to or --delete is given. Exit
    code 1: a folder could not be read.
    """
    from mailback.ingest.mailbox import MailFeed, NotAMailbox, is_maildir, read_maildir

    chosen = _after(after, to)
    if to is not None and not is_maildir(to):
        raise click.BadParameter(f"{to} is no Maildir: it has no folders new and cur", param_hint="--move-to")
    with opened(config) as (_, store, engine):
        feed = MailFeed(engine)
        with progress("reading", None) as bar:
            one = partial(read_maildir, store, feed, after=chosen, to=to, again=again, step=bar.step)
            failed = _each(folders, feed, one, NotAMailbox)
    return _show_mail(feed, failed, as_json=as_json)


PASSWORD_VARIABLE = "MAILBACK_IMAP_PASSWORD"  # noqa: S105 - the name of a variable


@ingest.command("imap")
@config_option
@json_option
@_with_after
@click.option("--user", required=True, metavar="NAME", help="Whom to log in as.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"File whose first line is the password. Default: ${PASSWORD_VARIABLE}.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 993; 143 with --tls starttls or none.")
@click.option(
    "--tls",
    type=click.Choice(["implicit", "starttls", "none"]),
    default="implicit",
    show_default=True,
    help="How the connection is secured; none sends the password in the clear.",
)
@click.option(
    "--ca-file", type=click.Path(path_type=Path), metavar="FILE", help="Trust these certificates, not the system's."
)
@click.option("--folder", "folders", multiple=True, default=("INBOX",), show_default=True, help="May be given again.")
@click.option("--move-to", "to", metavar="FOLDER", help="Move each there once it is recorded.")
@click.argument("host", metavar="HOST")
def imap(
    *,
    config: Path | None,
    as_json: bool,
    after: str | None,
    again: bool,
    user: str,
    password_file: Path | None,
    port: int | None,
    tls: str,
    ca_file: Path | None,
    folders: tuple[str, ...],
    to: str | None,
    host: str,
) -> int:
    """Read folders of an IMAP server: each message goes through the same walk as one that comes in.

    Nothing is changed on the server, not even what counts as seen, unless --seen, --move-to or --delete is given. Each
    folder is read on from the last message that was read. Exit code 1: the server or a folder could not be used.
    """
    from mailback.ingest.imap import PORTS, Folder, ImapError, Server, connect
    from mailback.ingest.mailbox import MailFeed

    chosen = _after(after, to)
    server = Server(host, port or PORTS[tls], user, _password(password_file), tls, ca_file)
    failed = 0
    with opened(config) as (_, store, engine):
        feed = MailFeed(engine)
        try:
            box = connect(server)
        except ImapError as error:
            raise CommandError(safe(error.what), error.advice) from error
        with box:
            for name in folders:
                try:
                    with progress(f"reading {name}", None) as bar:
                        folder = Folder(box, server, name, chosen, to)
                        folder.read(store, feed, again=again, begun=bar.expect, step=bar.step)
                except ImapError as error:
                    failed += 1
                    complain(f"{safe(error.what)}; {error.advice}")
                finally:
                    feed.finish()
    return _show_mail(feed, failed, as_json=as_json)


def _password(file: Path | None) -> str:
    """From its file or the environment; a command line is seen by every user of the host."""
    if file is not None:
        try:
            first = file.read_text("utf-8").split("\n", 1)[0].rstrip("\r")
        except UnicodeDecodeError:
            raise CommandError(f"{file}: is no text", "write the password as UTF-8", exit_code=2) from None
    else:
        first = os.environ.get(PASSWORD_VARIABLE, "")
    if not first:
        raise CommandError(
            "no password", f"give --password-file FILE, or set {PASSWORD_VARIABLE} in the environment", exit_code=2
        )
    return first


def _after(told: str | None, to: object) -> After:
    from mailback.ingest.mailbox import After

    if told is not None and to is not None:
        raise CommandError(f"--move-to and --{told} at once", "give one of them", exit_code=2)
    return After.MOVE if to is not None else After(told) if told is not None else After.KEEP


def _each(paths: Sequence[_P], feed: Feed | MailFeed, read: Callable[[_P], object], *damages: type[Exception]) -> int:
    """Read one file or folder after another; how many could not be read to their end, each of which is told.

    `damages` are what reading raises for one that is not whole, beside OSError.
    """
    failed = 0
    troubles: tuple[type[Exception], ...] = (OSError, *damages)
    for path in paths:
        try:
            read(path)
        except troubles as error:
            failed += 1
            said = getattr(error, "strerror", None) or error
            complain(f"{safe(str(path))}: {safe(said)}; the others are read")
        finally:
            feed.finish()
    return failed


def _show_mail(feed: MailFeed, failed: int, *, as_json: bool) -> int:
    """Tell what messages were; the exit code."""
    read = sum(feed.kinds.values())
    if as_json:
        json_line({"messages": read, "kinds": dict(sorted(feed.kinds.items())), "failed": feed.failed})
    else:
        table(_KINDS, sorted(feed.kinds.items()), empty="no messages that were not read before")
        for note, count in feed.notes.most_common(20):
            say(f"{safe(note)} ({count})")
        if feed.failed:
            complain(f"{feed.failed} messages could not be recorded; this is a fault in Mailback, report it")
    return 1 if failed or feed.failed else 0


_MOST_TOLD = 20
"""Rows that are told to be wrong, of one table."""


@ingest.command("csv")
@config_option
@json_option
@click.option(
    "--deliveries",
    "holds",
    flag_value="deliveries",
    help="Rows tell what became of messages (a column, or all arrived).",
)
@click.option("--opens", "holds", flag_value="opens", help="Each row is an open.")
@click.option("--clicks", "holds", flag_value="clicks", help="Each row is a click.")
@click.option(
    "--events", "holds", flag_value="events", default="events", help="A column tells what each row is. The default."
)
@click.option(
    "--map",
    "mapped",
    multiple=True,
    metavar="COLUMN=FIELD",
    help=f"A column that is not found by its name; fields: {', '.join(FIELDS)}. May be given again.",
)
@click.option(
    "--delimiter", metavar="CHARACTER", help="Between fields. Default: comma, semicolon, tab or bar, as the header has."
)
@click.option("--timezone", metavar="ZONE", help="Zone of times that tell none. Default: UTC.")
@click.option("--day-first", is_flag=True, help="3/1 is the 3rd of January.")
@click.option(
    "--year", type=click.IntRange(1990, 9998), help="Year of dates that tell none. Default: the last that has gone."
)
@click.option("--again", is_flag=True, help="Begin at the beginning, also of tables that were read before.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def csv_(
    *,
    config: Path | None,
    as_json: bool,
    holds: str,
    mapped: tuple[str, ...],
    delimiter: str | None,
    timezone: str | None,
    day_first: bool,
    year: int | None,
    again: bool,
    files: tuple[str, ...],
) -> int:
    """Read tables of deliveries, opens and clicks: CSV with a header line, or JSON, an object a line; `-` is standard
    input.

    Columns are found by the names that mail platforms give them. The same row is counted once, however often and in
    whatever file it comes. Exit code 1: a row could not be used, or a file not be read.
    """
    from mailback.ingest import tables
    from mailback.ingest.feed import Feed
    from mailback.ingest.logfiles import Damaged

    columns = _mapped(mapped)
    dates = tables.Dates(_zone(timezone) or UTC, day_first, year)
    if delimiter is not None and len(delimiter.replace("\\t", "\t")) != 1:
        raise CommandError(f"{delimiter!r} is not one character", "write a tab as '\\t'", exit_code=2)
    totals = tables.Read()
    with opened(config) as (settings, store, engine):
        words = tables.words_of(settings)
        facts = tables.Facts(
            tables.Holds(holds), words, tables.Columns(words, columns), dates, partial(_address_of, store)
        )
        feed = Feed(engine)
        with progress("reading", _octets_of(files), octets=True) as bar:

            def one(path: str) -> None:
                read = tables.import_table(
                    store, feed, facts, path, delimiter=delimiter and delimiter.replace("\\t", "\t"), again=again,
                    wrong=_Wrong(path), step=bar.step,
                )  # fmt: skip
                totals.rows += read.rows
                totals.wrong += read.wrong
                totals.underway += read.underway

            failed = _each(files, feed, one, Damaged)
    told = {
        "rows": totals.rows,
        **_told(feed),
        "underway": totals.underway,
        "wrong": totals.wrong,
        "failed": feed.failed,
    }
    if as_json:
        json_line(told)
    else:
        _show(feed)
        say(f"{totals.rows} rows; {totals.underway} of messages on their way, {totals.wrong} not understood")
        _show_notes(feed)
    return 1 if failed or totals.wrong or feed.failed else 0


def _address_of(store: Store, external_id: str) -> str | None:
    """The address of a subscriber whom a table names by an id."""
    known = store.subscriber_by_id(external_id)
    return known.address if known is not None else None


class _Wrong:
    """Tells the first rows of a table that are wrong, and that there are more."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._told = 0

    def __call__(self, line: int, what: str) -> None:
        self._told += 1
        if self._told <= _MOST_TOLD:
            complain(f"{safe(self._path)}:{line}: {safe(what)}; correct it and read the file again, or see --map")
        elif self._told == _MOST_TOLD + 1:
            complain(f"{safe(self._path)}: more rows like these")


def _mapped(given: tuple[str, ...]) -> dict[str, str]:
    columns = {}
    for one in given:
        column, _, field = one.rpartition("=")
        if not column or field not in FIELDS:
            raise CommandError(f"--map {one!r}: {field!r} is no field", f"one of {', '.join(FIELDS)}", exit_code=2)
        columns[column] = field
    return columns


def _told(feed: Feed) -> dict[str, object]:
    """Counts as scripts read them."""
    return {
        "outcomes": dict(sorted(feed.told.items())),
        "new": dict(sorted(feed.new.items())),
    }


def _show(feed: Feed) -> None:
    rows = [[name, count, feed.new[name]] for name, count in sorted(feed.told.items())]
    table(_COLUMNS, rows, empty="no outcomes")


def _show_notes(feed: Feed) -> None:
    for note, count in feed.notes.most_common(20):
        say(f"{safe(note)} ({count})")
    if feed.failed:
        complain(f"{feed.failed} could not be recorded; this is a fault in Mailback, report it")


def _zone(name: str | None) -> tzinfo | None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CommandError(f"{name!r} is no time zone of this host", "write it as Europe/Zurich", exit_code=2) from None


def _octets_of(files: tuple[str, ...]) -> int | None:
    """All octets of the files, for the progress bar; None where packed ones or standard input hide it."""
    try:
        known = [Path(path).stat().st_size for path in files]
    except OSError:
        return None
    packed = any(path.endswith((".gz", ".xz", ".bz2")) for path in files)
    return None if packed else sum(known)

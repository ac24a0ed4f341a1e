"""`mailback journal`: what went out. The milter writes it; other senders feed it here. Emits no log events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from mailback.cli.errors import CommandError
from mailback.cli.files import reading
from mailback.cli.options import Moment, Whole, address_key, config_option, json_option, load_settings, open_store
from mailback.cli.out import Column, complain, iso, json_line, safe, say, table, when

if TYPE_CHECKING:
    from mailback.outbound.remembering import Remembering
    from mailback.outbound.unsubscribing import Minted
    from mailback.store import Store, Transaction
    from mailback.store.records import JournalEntry

SHOWN = 50
"""Rows of a table where nobody says how many."""

_BATCH = 200
_COLUMNS = (
    Column("when (UTC)", wraps=False), Column("message-id", "dim"), Column("recipient", "cyan"), Column("sender"),
    Column("campaign"), Column("list"), Column("subject"),
)  # fmt: skip
_limit_option = click.option(
    "--limit", "-n", type=Whole(min=0), help=f"At most so many. Default: {SHOWN}; with --json all."
)


class _ListByDefault(click.Group):
    """A group whose bare name is its `list`: `mailback journal --json` beside `mailback events --json`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in self.get_help_option_names(ctx)):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ListByDefault)
def journal() -> None:
    """What went out: add, find, list, unsubscribe.

    Without a command it lists.
    """


@journal.command()
@config_option
@click.option("--message-id", metavar="ID", help="Message-ID of the message, with or without angle brackets.")
@click.option("--sender", metavar="ADDRESS", help="Its envelope sender.")
@click.option("--recipient", "recipients", multiple=True, metavar="ADDRESS", help="To whom; may be given again.")
@click.option("--subject", metavar="TEXT", help="Its subject.")
@click.option("--campaign", metavar="ID", help="Its campaign.")
@click.option("--list", "list_id", metavar="ID", help="Its mailing list.")
@click.option("--subscriber", metavar="ID", help="The subscriber it went to.")
@click.option("--at", type=Moment(-1), metavar="TIME", help="When it went out. Default: now.")
@click.option(
    "--json", "file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
    help="Many at once: an object a line, as `journal list --json` writes them; - is standard input.",
)  # fmt: skip
def add(*, config: Path | None, file: Path | None, at: datetime | None, **given: Any) -> int:
    """Remember mail that went out by another way than the milter, so that what comes back is believed.

    Returns when it is durable. With --json a line that cannot be read is told with its number, the others are added,
    and the exit code is 1.
    """
    from mailback.outbound.remembering import Remembering

    settings = load_settings(config)
    if file is None:
        given["at"] = iso(at or datetime.now(UTC))
        from mailback.outbound.entries import entry as entry_of

        entry = entry_of(given)
        if isinstance(entry, str):
            raise CommandError(entry, "see: mailback journal add --help", exit_code=2)
        with open_store(config, create=True) as store:
            out = Remembering.of(settings, store)
            store.submit(lambda transaction: out.write(transaction, entry)).result()
        say("1 message added")
        return 0
    with open_store(config, create=True) as store, reading(file, errors="surrogateescape") as stream:
        added, wrong = _add_lines(store, Remembering.of(settings, store), stream)
    say(f"{added} messages added, {wrong} not understood")
    return 1 if wrong else 0


def _add_lines(store: Store, out: Remembering, stream: TextIO) -> tuple[int, int]:
    wrong = 0

    def good() -> Iterator[JournalEntry]:
        nonlocal wrong
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            entry = _entry_of_line(line)
            if isinstance(entry, str):
                wrong += 1
                complain(f"line {number}: {safe(entry)}; correct it and add it again")
            else:
                yield entry

    entries = good()
    added, before = 0, _done(0)
    while batch := list(islice(entries, _BATCH)):
        after = store.submit(partial(_add_all, out, batch))
        added += before.result()  # one batch under way while the next is read
        before = after
    return added + before.result(), wrong


def _done(count: int) -> Future[int]:
    future: Future[int] = Future()
    future.set_result(count)
    return future


def _add_all(out: Remembering, entries: list[JournalEntry], transaction: Transaction) -> int:
    for entry in entries:
        out.write(transaction, entry)
    return len(entries)


def _entry_of_line(line: str) -> JournalEntry | str:
    try:
        told = json.loads(line)
    except ValueError as error:
        return f"no JSON: {error}"
    from mailback.outbound.entries import entry

    return entry(told) if isinstance(told, dict) else "no JSON object"


@journal.command()
@config_option
@json_option
@click.option("--message-id", metavar="ID", help="The message of this Message-ID.")
@click.option("--return-path", metavar="ADDRESS", help="What went out under this signed return path.")
@click.option("--recipient", metavar="ADDRESS", help="What went to this recipient; with --message-id: whether it did.")
@click.option("--since", type=Moment(-1), metavar="TIME", help="From then on; with --recipient.")
@click.option("--until", type=Moment(-1), metavar="TIME", help="Before then; with --recipient.")
@_limit_option
def find(
    *,
    config: Path | None,
    as_json: bool,
    message_id: str | None,
    return_path: str | None,
    recipient: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
) -> int:
    """Find what went out, the latest first. Exit code 1: nothing is known of it."""
    from mailback import address
    from mailback.reports import original

    if not (message_id or return_path or recipient):
        raise CommandError("nothing to look for", "give --message-id, --return-path or --recipient", exit_code=2)
    identifier = original.message_id(message_id)
    if message_id and identifier is None:
        raise CommandError(f"{message_id!r} is no Message-ID", "write it as <left@right>", exit_code=2)
    with open_store(config) as store:
        found = store.find_journal(
            message_id=identifier,
            return_path=address.split(return_path)[0] or return_path if return_path else None,
            key=address_key(recipient) if recipient else None,
            since=since,
            until=until,
            limit=limit if limit is not None else SHOWN,
        )
    _tell(iter(found), as_json=as_json)
    return 0 if found else 1


@journal.command()
@config_option
@json_option
@click.option("--list", "list_id", metavar="ID", help="The mailing list it is for; kept in the journal.")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
def unsubscribe(*, config: Path | None, as_json: bool, list_id: str | None, addresses: tuple[str, ...]) -> None:
    """Mint the signed address and the one-click token of recipients' List-Unsubscribe fields (RFC 8058).

    Mail to that address is believed: it unsubscribes the recipient that it was given out for, and nobody else; from the
    list where one is named and the journal still knows it, else from everything. Needs signed return paths.
    """
    from mailback import returnpath
    from mailback.outbound.unsubscribing import mint

    for address in addresses:
        address_key(address)
    settings = load_settings(config)
    paths = returnpath.load(settings)
    if paths is None:
        raise CommandError("return paths are not signed", "set signing.secret_file and mail.bounce_domain", exit_code=2)
    link = f"{settings.web.public_url.rstrip('/')}/unsubscribe" if settings.web.public_url else None
    with open_store(config, create=True) as store:
        for address in addresses:
            _tell_minted(mint(store, paths, address, list_id=list_id), link, as_json=as_json)


def _tell_minted(minted: Minted, link: str | None, *, as_json: bool) -> None:
    fields = minted.fields(link)
    if as_json:
        told = {"address": minted.recipient, "mailto": minted.mailto, "token": minted.token, "fields": fields}
        json_line(told)
    else:
        say(f"{safe(minted.recipient)}  {fields['List-Unsubscribe']}")


@journal.command(name="list")
@config_option
@json_option
@click.option("--since", type=Moment(-1), metavar="TIME", help="From then on: 2026-11-30, or a span such as 7d, 12h.")
@click.option("--until", type=Moment(-1), metavar="TIME", help="Before then.")
@_limit_option
def list_(
    *, config: Path | None, as_json: bool, since: datetime | None, until: datetime | None, limit: int | None
) -> None:
    """List what went out, the latest first."""
    with open_store(config) as store:
        shown = limit if as_json or limit is not None else SHOWN
        _tell(store.journal(since=since, until=until, limit=shown), as_json=as_json, empty="nothing went out")


def _tell(found: Iterator[JournalEntry], *, as_json: bool, empty: str = "nothing is known of it") -> None:
    if as_json:
        for entry in found:
            json_line(to_dict(entry))
    else:
        table(_COLUMNS, map(_row, found), empty=empty)


def _row(entry: JournalEntry) -> list[object]:
    who = entry.recipients[0] if entry.recipients else None
    others = f" and {len(entry.recipients) - 1} more" if len(entry.recipients) > 1 else ""
    return [
        when(entry.at), entry.message_id, f"{who or '-'}{others}", entry.envelope_sender, entry.campaign,
        entry.list_id, entry.subject,
    ]  # fmt: skip


def to_dict(entry: JournalEntry) -> dict[str, object]:
    """One line of `journal list --json`."""
    plain = asdict(entry)
    return plain | {"at": iso(entry.at), "recipients": list(entry.recipients)}

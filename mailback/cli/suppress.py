"""`mailback suppress`: the suppression list by hand. Every change is recorded with who made it and why.

Emits no log events; what is changed stands in the audit trail.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from mailback.cli.errors import CommandError
from mailback.cli.export import FORMATS, POSTFIX_FORMATS, SERVICE_FORMATS, export, to_dict
from mailback.cli.files import lines_in, reading
from mailback.cli.options import (
    Moment,
    Whole,
    actor,
    address_key,
    config_option,
    json_option,
    load_settings,
    open_store,
    scope,
)
from mailback.cli.out import Column, complain, json_line, progress, safe, say, table, when
from mailback.ingest.quoting import closed, rows

if TYPE_CHECKING:
    from concurrent.futures import Future

    from mailback.effects.scoring import Scoring
    from mailback.store import Store, Transaction
    from mailback.store.records import Suppression

_COLUMNS = (
    Column("address", "cyan"), Column("scope", wraps=False), Column("since (UTC)", wraps=False),
    Column("until (UTC)", wraps=False), Column("reason"), Column("by", wraps=False), Column("new address"),
)  # fmt: skip
_COMMENT = re.compile(r"(?:^|\s)#")  # a # within an address is part of it
_BATCH = 500  # lines of an import that share one unit of work
_IN_FLIGHT = 4  # units that wait at most; more would only fill memory
_SCOPE_HELP = "all, list:ID, campaign:ID, stream:transactional or stream:marketing."


@click.group()
def suppress() -> None:
    """The suppression list: add, remove, list, import, export."""


# ---- add and remove -------------------------------------------------------------------------------------------------


@suppress.command()
@config_option
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit trail and told in the refusal.")
@click.option("--scope", default="all", show_default=True, callback=scope, metavar="SCOPE", help=_SCOPE_HELP)
@click.option(
    "--until", type=Moment(1), metavar="TIME", help="Ends then: 2026-11-30, or a span such as 7d. Default: never."
)
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
def add(*, config: Path | None, reason: str, scope: str, until: datetime | None, addresses: tuple[str, ...]) -> int:
    """Suppress addresses: no mail of that scope goes to them any more."""
    wanted = [_by_operator(address, reason, scope, until) for address in addresses]
    if until is not None and until <= datetime.now(UTC):
        raise CommandError(f"--until {when(until)} has passed", "name a time to come", exit_code=2)
    by = actor()
    with open_store(config, create=True) as store:
        done = [(s, store.submit(partial(_suppressed, [s], by))) for s in wanted]
        for suppression, future in done:
            told = "suppressed" if future.result() else "was suppressed already, at least as long"
            say(f"{safe(suppression.address)}: {told}")
    return 0


def _suppressed(suppressions: Iterable[Suppression], by: str, transaction: Transaction) -> int:
    """How many of them changed anything."""
    return sum(transaction.suppress(suppression, actor=by) for suppression in suppressions)


def _by_operator(address: str, reason: str, scope: str, until: datetime | None) -> Suppression:
    from mailback.store.records import Suppression

    bare = address.strip().removeprefix("<").removesuffix(">")
    return Suppression(
        address_key=address_key(bare), address=bare, scope=scope, reason=_reason(reason), type=None, subcategory=None,
        source="operator", since=datetime.now(UTC), until=until,
    )  # fmt: skip


def _reason(reason: str) -> str:
    if not reason.strip():
        raise CommandError("--reason is empty", "say why: the trail keeps it, and somebody will ask", exit_code=2)
    return reason.strip()


@suppress.command()
@config_option
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit trail.")
@click.option("--scope", callback=scope, metavar="SCOPE", help=f"Only in this scope. Default: every. {_SCOPE_HELP}")
@click.option(
    "--opt-in", is_flag=True, help="The person asked for mail again; needed after a complaint or unsubscribe."
)
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
def remove(*, config: Path | None, reason: str, scope: str | None, opt_in: bool, addresses: tuple[str, ...]) -> int:
    """Lift suppressions: mail may go to these addresses again. Nothing is forgotten, `explain` tells it all.

    Exit code 1 when one of the addresses was not suppressed, or was by its owner's own word and --opt-in is missing.
    """
    from mailback.effects.scoring import Scoring
    from mailback.store.erasure import Erased

    keys = [(address, address_key(address)) for address in addresses]
    by, why = actor(), _reason(reason)
    scoring = Scoring.of(load_settings(config))
    code = 0
    with open_store(config) as store:
        erased = Erased(store.path)
        for address, key in keys:
            count = store.submit(partial(_lifted, key, scope, scoring, opt_in=opt_in, by=by, why=why)).result()
            if count == 0 and (hashed := erased.hashed(key)) is not None:
                count = store.submit(partial(_lifted, hashed, scope, scoring, opt_in=opt_in, by=by, why=why)).result()
            if count is None:
                complain(f"{safe(address)} complained or unsubscribed; lift that only on a new opt-in: --opt-in")
            elif not count:
                complain(
                    f"{safe(address)} was not suppressed{f' for {safe(scope)}' if scope else ''}; nothing was changed"
                )
            else:
                say(lifted(address))
            code = code if count else 1
    return code


def lifted(address: str) -> str:
    """What is said of an address that was suppressed until now."""
    return f"{safe(address)}: may be mailed again"


def _lifted(
    key: str, scope: str | None, scoring: Scoring, transaction: Transaction, *, opt_in: bool, by: str, why: str
) -> int | None:
    """How many were lifted; None when the person's own word stands against it. With an opt-in the person is also in
    again on the lists that the own word was said of."""
    from mailback.store.precedence import is_own_word

    concerned = [s for s in transaction.active(key) if scope in (None, s.scope)]
    if not opt_in and any(is_own_word(s) for s in concerned):
        return None
    count = transaction.lift(key, scope, actor=by, reason=f"opt-in: {why}" if opt_in else why)
    said_of = {s.scope for s in concerned if is_own_word(s)} if opt_in else set()
    for person in transaction.subscribers.of_address(key) if said_of else ():
        if person.own_out and ("all" in said_of or f"list:{person.list_id}" in said_of):
            told = replace(person, opt_in_at=datetime.now(UTC))
            scoring.opted_in(transaction, told, actor=by, reason=why, anew=True)
    return count


# ---- list and export ------------------------------------------------------------------------------------------------


@suppress.command(name="list")
@config_option
@json_option
@click.option("--scope", callback=scope, metavar="SCOPE", help=f"Only this scope: {_SCOPE_HELP}")
@click.option("--type", "type_", metavar="TYPE", help="Only this type: hard_bounce, complaint, ...")
@click.option("--all", "everything", is_flag=True, help="Those lifted or over as well.")
@click.option(
    "--over",
    is_flag=True,
    help="Instead those that ran out, of addresses that nothing else holds and nothing has arrived at since: one "
    "message to each shows whether it is well.",
)
@click.option("--limit", "-n", type=Whole(min=0), help="At most so many.")
def list_(
    *,
    config: Path | None,
    as_json: bool,
    scope: str | None,
    type_: str | None,
    everything: bool,
    over: bool,
    limit: int | None,
) -> None:
    """List what is suppressed, by address."""
    from mailback.bounce.taxonomy import Type
    from mailback.cli.events import known_word

    if everything and over:
        raise click.UsageError("--all and --over exclude each other")
    now = datetime.now(UTC)
    wanted = known_word(type_, Type, "--type")
    with open_store(config) as store:
        found = store.suppressions(
            scope=scope, type=wanted, active_at=None if everything or over else now, over_at=now if over else None
        )
        found = islice(found, limit)
        if as_json:
            for suppression in found:
                json_line(to_dict(suppression) | {"active": suppression.active(now)})
        else:
            table(_COLUMNS, (_row(s, now) for s in found), empty="none is over" if over else "nothing is suppressed")


def _row(suppression: Suppression, now: datetime) -> list[object]:
    until = when(suppression.until, never="for ever")
    if not suppression.active(now):
        until = f"lifted {when(suppression.lifted_at)}" if suppression.lifted_at else f"over {until}"
    return [
        suppression.address, suppression.scope, when(suppression.since), until, suppression.reason, suppression.source,
        suppression.suggestion,
    ]  # fmt: skip


@suppress.command(name="export")
@config_option
@click.option(
    "--format", "format_", type=click.Choice(FORMATS), default="csv", show_default=True, help="What to write."
)
@click.option("--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Default: standard output.")
@click.option("--scope", callback=scope, metavar="SCOPE", help=f"Only this scope: {_SCOPE_HELP}")
@click.option(
    "--kind", type=click.Choice(["bounce", "complaint", "unsubscribe"]),
    help="Only what belongs on this list of a service, for those that keep one of each.",
)  # fmt: skip
def export_(*, config: Path | None, format_: str, output: Path | None, scope: str | None, kind: str | None) -> None:
    """Write what is suppressed to a file: as text, csv or json, or as a table for Postfix.

    The tables for Postfix are snapshots with whole SMTP replies as values, for check_recipient_access. In the .cf file
    of a sqlite: table:

    \b
    dbpath = FILE
    query = SELECT reply FROM suppression WHERE address = '%s'
            AND (until IS NULL OR until > CAST(strftime('%%s', 'now') AS INTEGER))

    Running the export again changes only what differs. For answers that are always up to date use the milter, the
    policy service or the socketmap.
    """
    if format_ in POSTFIX_FORMATS:
        output = _table_file(config, format_, output)
        scope = "all"
    with open_store(config) as store, progress("exporting", None) as bar:
        found = _begun(store.suppressions(scope=scope, active_at=datetime.now(UTC)))
        if kind is not None:
            from mailback.cli.services import of_kind

            found = (suppression for suppression in found if of_kind(suppression, kind))
        found = _counted(found, bar.step)
        count = export(found, format_, output)
    if output is not None:
        say(f"{output}: {count} {'suppressions' if format_ in {'csv', 'json'} else 'addresses'}")


def _table_file(config: Path | None, format_: str, output: Path | None) -> Path:
    """The file of a table for Postfix, which looks for `FILE.cdb` when its configuration says `cdb:FILE`."""
    from mailback.locations import sqlite_path

    if output is None:
        raise CommandError(f"--format {format_} writes a file", "name it: --output FILE", exit_code=2)
    if format_ == "postfix-cdb" and output.suffix != ".cdb":
        output = output.with_name(f"{output.name}.cdb")
    live = sqlite_path(load_settings(config).store.url)
    if live is not None and output.absolute().resolve() == live.resolve():
        what = f"{output} is the live database"
        raise CommandError(what, "name another file: Postfix cannot read that one", exit_code=2)
    return output


def _begun(found: Iterator[Suppression]) -> Iterator[Suppression]:
    """The same, with the store read once already: one that cannot be read must not leave a header behind."""
    return chain(list(islice(found, 1)), found)


def _counted(found: Iterable[Suppression], step: Callable[[], None]) -> Iterator[Suppression]:
    for suppression in found:
        yield suppression
        step()


# ---- import ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an import: what it asks for, or what is wrong with it."""

    number: int
    suppression: Suppression | None = None
    error: str = ""


@suppress.command(name="import")
@config_option
@click.option(
    "--format", "format_", type=click.Choice(["text", "csv", "json", *SERVICE_FORMATS]),
    help="Default: by the name of the file.",
)  # fmt: skip
@click.option(
    "--kind", type=click.Choice(["bounce", "complaint", "unsubscribe"]),
    help="What the addresses of a service's list did, where it does not say so itself.",
)  # fmt: skip
@click.option("--reason", metavar="TEXT", help="Reason of lines that have none. Default: imported from FILE.")
@click.option("--scope", default="all", show_default=True, callback=scope, metavar="SCOPE",
              help=f"Scope of lines that have none: {_SCOPE_HELP}")  # fmt: skip
@click.option("--until", type=Moment(1), metavar="TIME", help="End of lines that have none. Default: never.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
def import_(
    *,
    config: Path | None,
    format_: str | None,
    kind: str | None,
    reason: str | None,
    scope: str,
    until: datetime | None,
    file: Path,
) -> int:
    """Suppress every address of a file; - is standard input.

    text is one address a line (# begins a comment); csv has a first line with column names, of which `address` (or
    `email`) is needed; json is one object a line. `suppress export` writes all three. A line that is no address is told
    with its number, the others are imported, and the exit code is 1. Importing a file twice changes nothing.

    ses, sendgrid, mailgun, postmark and mailchimp are the lists of those services, as they export them or as their API
    tells them (CSV or JSON). Bounces with the server's words are judged: those that were not the address's fault are
    left out.
    """
    if kind is not None and format_ not in SERVICE_FORMATS:
        raise CommandError("--kind goes with the list of a service", "name it: --format sendgrid", exit_code=2)
    told = format_ or {".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json"}.get(file.suffix, "text")
    defaults = _by_operator("nobody@invalid", reason or f"imported from {file.name}", scope, until)
    defaults = replace(defaults, source="import")
    counts = _Counts()
    with open_store(config, create=True) as store, reading(file, errors="surrogateescape") as stream:
        total = lines_in(file)
        with progress("importing", total) as bar:
            lines = (
                _of_service(stream, told, kind, defaults, counts)
                if told in SERVICE_FORMATS
                else _parsed(stream, told, defaults)
            )
            _import(store, lines, counts, bar.step)
    left = f", {counts.innocent} left out: not their fault" if counts.innocent else ""
    left += f", {counts.fine} left out: nothing stands against them there" if counts.fine else ""
    say(f"{counts.added} added, {counts.known} were suppressed already, {counts.wrong} not understood{left}")
    return 1 if counts.wrong else 0


@dataclass(slots=True)
class _Counts:
    added: int = 0
    known: int = 0
    wrong: int = 0
    innocent: int = 0
    """Bounces of a service's list that were somebody else's fault."""
    fine: int = 0
    """Members of a service's list whom it mails."""


def _parsed(stream: TextIO, format_: str, defaults: Suppression) -> Iterator[Line]:
    if format_ == "text":
        for number, text in enumerate(stream, 1):
            if bare := _COMMENT.split(text, maxsplit=1)[0].strip():
                yield _line(number, {"address": bare}, defaults)
    elif format_ == "csv":
        reader = csv.DictReader(closed(stream))
        names = {name: (name or "").strip().lower() for name in reader.fieldnames or ()}
        if not {"address", "email"} & set(names.values()):
            raise CommandError(
                "the csv has no column `address` or `email`", "name the columns in its first line", exit_code=2
            )
        for number, record in rows(reader):
            if isinstance(record, csv.Error):
                yield Line(number, error=str(record))
            else:
                yield _line(number, {names[k]: v for k, v in record.items() if k in names}, defaults)
    else:
        for number, text in enumerate(stream, 1):
            if text.strip():
                yield _json_line(number, text, defaults)


def _of_service(
    stream: TextIO, format_: str, kind: str | None, defaults: Suppression, counts: _Counts
) -> Iterator[Line]:
    """The lines of a service's list."""
    from mailback.cli import services

    service, judge = services.SERVICES[format_], services.Judge()
    try:
        for number, record in services.records(stream, service):
            told = services.plain(service, record, kind, judge)
            if not told:
                counts.innocent += told is None
                counts.fine += told is not None
            else:
                yield _line(number, told, defaults)
    except services.KindUnknown:
        raise CommandError(
            "this list does not tell what its addresses did", "say so: --kind bounce|complaint|unsubscribe", exit_code=2
        ) from None
    except ValueError as error:  # JSONDecodeError too
        raise CommandError(f"no list of {format_}: {error}", "export it again, as CSV or JSON", exit_code=2) from error


def _json_line(number: int, text: str, defaults: Suppression) -> Line:
    try:
        record = json.loads(text)
    except ValueError as error:
        return Line(number, error=f"no JSON: {error}")
    return _line(number, record, defaults) if isinstance(record, dict) else Line(number, error="no JSON object")


def _line(number: int, record: dict[str, Any], defaults: Suppression) -> Line:
    from mailback.address import is_address, key

    address = str(record.get("address") or record.get("email") or "").strip().removeprefix("<").removesuffix(">")
    if not _is_utf8(address, *(str(record[name]) for name in _TAKEN if record.get(name))):
        return Line(number, error="not UTF-8")
    if not is_address(address):
        return Line(number, error=f"{address!r} is no mail address" if address else "no address")
    try:
        given = {name: _field(name, record[name]) for name in _TAKEN if record.get(name)}
    except (ValueError, click.BadParameter) as error:
        return Line(number, error=str(error))
    return Line(number, replace(defaults, address=address, address_key=key(address), **given))


def _is_utf8(*values: str) -> bool:
    """False where an octet of the file was no part of any character; it was read as a lone surrogate."""
    return not any("\ud800" <= character <= "\udfff" for value in values for character in value)


def _type(text: str) -> str:
    from mailback.bounce.taxonomy import Type

    return Type(text).value


def _subcategory(text: str) -> str:
    from mailback.bounce.taxonomy import Subcategory

    return Subcategory(text).value


def _moment(text: str) -> datetime:
    return Moment(1).convert(text, None, None)


_TAKEN: dict[str, Callable[[str], object]] = {
    "scope": lambda text: scope(None, None, text),
    "reason": str,
    "type": _type,
    "subcategory": _subcategory,
    "since": _moment,
    "until": _moment,
    "suggestion": str,
}
"""The columns of an import beside the address, and how each is read; others are left alone."""


def _field(name: str, value: object) -> Any:
    return _TAKEN[name](str(value).strip())


def _import(store: Store, lines: Iterable[Line], counts: _Counts, step: Callable[[int], None]) -> None:
    """Write in units of some hundred lines, a few of them under way at a time."""
    by = actor()
    under_way: list[Future[int]] = []
    sizes: list[int] = []
    for batch in _batches(_good(lines, counts)):
        under_way.append(store.submit(partial(_suppressed, batch, by)))
        sizes.append(len(batch))
        if len(under_way) >= _IN_FLIGHT:
            _settle(under_way, sizes, counts, step)
    while under_way:
        _settle(under_way, sizes, counts, step)


def _settle(under_way: list[Future[int]], sizes: list[int], counts: _Counts, step: Callable[[int], None]) -> None:
    added, size = under_way.pop(0).result(), sizes.pop(0)
    counts.added += added
    counts.known += size - added
    step(size)


def _good(lines: Iterable[Line], counts: _Counts) -> Iterator[Suppression]:
    for line in lines:
        if line.suppression is None:
            counts.wrong += 1
            complain(f"line {line.number}: {safe(line.error)}; correct it and import again")
        else:
            yield line.suppression


def _batches(found: Iterator[Suppression]) -> Iterator[list[Suppression]]:
    while batch := list(islice(found, _BATCH)):
        yield batch

"""`mailback subscriber`: who is on which list, since when, and what their bounces come to.

Emits no log events; every change is kept with who made it and why.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from mailback.cli.errors import CommandError
from mailback.cli.files import lines_in, reading, replacing
from mailback.cli.options import (
    Moment,
    Whole,
    actor,
    address_key,
    config_option,
    json_option,
    load_settings,
    open_store,
)
from mailback.cli.out import Column, complain, iso, json_line, progress, safe, say, table, when
from mailback.ingest.quoting import Reader, closed, rows

if TYPE_CHECKING:
    from concurrent.futures import Future

    from mailback.effects.scoring import Scoring
    from mailback.ingest.tables import Dates
    from mailback.store import Store, Transaction
    from mailback.store.records import Subscriber, SubscriberChange

NOWHERE = "subscriber.invalid"
"""The domain of subscribers that are known by an id only (RFC 2606 section 2: nobody is ever there)."""

_COLUMNS = (
    Column("address", "cyan"), Column("id", wraps=False), Column("list"), Column("status", wraps=False),
    Column("in since (UTC)", wraps=False), Column("out since (UTC)", wraps=False), Column("out by", wraps=False),
    Column("bounces", wraps=False), Column("source"),
)  # fmt: skip
_CHANGE_COLUMNS = (
    Column("when (UTC)", wraps=False), Column("list"), Column("status", wraps=False), Column("out by", wraps=False),
    Column("bounces", wraps=False), Column("by", wraps=False), Column("reason"),
)  # fmt: skip
FIELDS: dict[str, tuple[str, ...]] = {
    "address": ("address", "email", "email_address", "e_mail", "mail", "recipient"),
    "id": ("id", "user_id", "subscriber_id", "external_id", "customer_id", "contact_id", "unique_id"),
    "status": ("status", "mailing_list_status", "subscription_status", "state", "subscribed"),
    "opt_in": ("opt_in", "opt_in_date", "opt_in_time", "optin_time", "subscribed_at", "subscribe_date", "confirm_time"),
    "opt_out": ("opt_out", "opt_out_date", "unsub_time", "unsubscribed_at", "unsubscribe_date", "opt_out_time"),
    "source": ("source", "origin", "channel", "opt_in_source", "utm_source"),
    "list": ("list", "list_id", "list_name", "audience"),
}
"""What an import reads, and the column names that are taken for it: compared in lower case, `_` for all but letters."""
_IN = frozenset({"in", "i", "y", "yes", "true", "t", "1", "active", "subscribed", "opted_in", "confirmed", "enabled"})
_OUT = frozenset(
    {"out", "o", "n", "no", "false", "f", "0", "inactive", "unsubscribed", "opted_out", "cleaned", "disabled"}
)
_EXPORTED = ("address", "id", "list", "status", "opt_in_date", "opt_out_date", "out_by", "source", "bounce_status",
             "bounce_count")  # fmt: skip
_WORDS = ("in", "out", "none", "soft", "hard", "never")
_NOTHING = frozenset({"", "-", "null", "none", "n/a", "na"})
_BATCH = 500
_IN_FLIGHT = 4
_list_option = click.option("--list", "list_id", default="", metavar="ID", help="Of this list. Default: the one without a name.")  # fmt: skip # noqa: E501


@click.group()
def subscriber() -> None:
    """Who is on a list: import, export, show, list, opt-in, opt-out."""


# ---- import ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reading:
    """How the rows of a file are read."""

    columns: dict[str, str]
    """Field to the file's column."""
    dates: Dates
    list_id: str
    source: str | None
    now: datetime


@subscriber.command(name="import")
@config_option
@click.option("--map", "mapped", multiple=True, metavar="COLUMN=FIELD",
              help=f"A column that is not found by its name; fields: {', '.join(FIELDS)}.")  # fmt: skip
@click.option("--list", "list_id", default="", metavar="ID", help="The list, where no column tells it.")
@click.option("--source", metavar="TEXT", help="Where they came from, where no column tells it.")
@click.option("--day-first", is_flag=True, help="3/1 is the 3rd of January.")
@click.option("--year", type=click.IntRange(1970, 9999), help="Of dates that have none. Default: the latest past one.")
@click.option("--delimiter", help="Between columns. Default: told by the first line.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
def import_(
    *,
    config: Path | None,
    mapped: tuple[str, ...],
    list_id: str,
    source: str | None,
    day_first: bool,
    year: int | None,
    delimiter: str | None,
    file: Path,
) -> int:
    """Add the subscribers of a CSV file with a header line; - is standard input.

    A row needs an address or an id; who has an id only is known as ID@subscriber.invalid. Without a status a row is in,
    or out where it has a date of opt-out. Importing a file again, or an older one, takes nothing back: the latest
    opt-in and the latest opt-out of a person stand, and who complained or unsubscribed is not let in again by a file. A
    row that cannot be read is told with its line, the others are imported, and the exit code is 1.
    """
    from mailback.ingest.tables import Dates

    counts = _Counts()
    scoring = _scoring(config)
    with (
        open_store(config, create=True) as store,
        reading(file, errors="replace") as stream,
        progress("importing", lines_in(file)) as bar,
    ):
        names, found = _table(stream, delimiter)
        how = _Reading(
            _columns(names, mapped), Dates(day_first=day_first, year=year), list_id, source, datetime.now(UTC)
        )
        _import(store, scoring, _subscribers(found, how, counts), counts, bar.step)
    say(f"{counts.changed} added or changed, {counts.known} known as they are, {counts.wrong} not understood")
    return 1 if counts.wrong else 0


@dataclass(slots=True)
class _Counts:
    changed: int = 0
    known: int = 0
    wrong: int = 0


def _table(stream: TextIO, delimiter: str | None) -> tuple[list[str], Iterator[tuple[int, dict[str, str] | csv.Error]]]:
    """The names of the columns, then each row with its line, or what is wrong with it."""
    head = stream.readline()
    told = delimiter or max(",;\t|", key=head.count)
    names = [name.strip() for name in next(csv.reader([head], delimiter=told), [])]
    return names, _rows(csv.reader(closed(stream, 1), delimiter=told), names)


def _rows(reader: Reader[list[str]], names: list[str]) -> Iterator[tuple[int, dict[str, str] | csv.Error]]:
    for line, values in rows(reader, 1):
        if isinstance(values, csv.Error):
            yield line, values
        elif any(value.strip() for value in values):
            yield line, dict(zip(names, (value.strip() for value in values), strict=False))


def _columns(names: list[str], mapped: tuple[str, ...]) -> dict[str, str]:
    """Field to column. A CommandError where neither address nor id is there, or a mapping names what is not."""
    plain = {"".join(c if c.isalnum() else "_" for c in name.lower()): name for name in reversed(names)}
    found: dict[str, str] = {}
    for one in mapped:
        column, _, field = one.rpartition("=")
        if field not in FIELDS or column not in names:
            raise CommandError(
                f"--map {one}: there is no such {'column' if field in FIELDS else 'field'}",
                f"write COLUMN=FIELD; fields: {', '.join(FIELDS)}; columns of the file: {', '.join(names)}",
                exit_code=2,
            )
        found[field] = column
    for field, aliases in FIELDS.items():
        free = [plain[alias] for alias in aliases if alias in plain and plain[alias] not in found.values()]
        if field not in found and free:
            found[field] = free[0]
    if not found.keys() & {"address", "id"}:
        told = ", ".join(names) or "none"
        raise CommandError(
            "no column holds an address or an id", f"name one: --map COLUMN=address; there are: {told}", exit_code=2
        )
    return found


def _subscribers(
    found: Iterable[tuple[int, dict[str, str] | csv.Error]], reading: _Reading, counts: _Counts
) -> Iterator[Subscriber]:
    for line, row in found:
        told = str(row) if isinstance(row, csv.Error) else _subscriber(row, reading)
        if isinstance(told, str):
            counts.wrong += 1
            complain(f"line {line}: {safe(told)}; correct it and import again")
        else:
            yield told


def _subscriber(row: dict[str, str], reading: _Reading) -> Subscriber | str:
    """What a row says; a text: what is wrong with it."""
    from mailback.address import is_address, key, no_address
    from mailback.store.records import Subscriber

    values = {field: row.get(column, "") for field, column in reading.columns.items()}
    values = {field: "" if value.lower() in _NOTHING else value for field, value in values.items()}
    address = values.get("address") or (f"{values['id']}@{NOWHERE}" if values.get("id") else "")
    if not is_address(address):
        return no_address(address) if address else "neither an address nor an id"
    moments = {field: reading.dates.read(values[field], reading.now) for field in ("opt_in", "opt_out")
               if values.get(field)}  # fmt: skip
    if None in moments.values():
        wrong = next(field for field, moment in moments.items() if moment is None)
        return f"{values[wrong]!r} is no date"
    status = _status(values.get("status", ""), out="opt_out" in moments)
    if status is None:
        return f"{values['status']!r} is no status: in or out"
    out_at = _out_at(status, moments.get("opt_in"), moments.get("opt_out"), reading.now)
    return Subscriber(
        address_key=key(address),
        list_id=values.get("list") or reading.list_id,
        address=address,
        external_id=values.get("id") or None,
        source=values.get("source") or reading.source,
        opt_in_at=moments.get("opt_in"),
        own_out_at=out_at,
        own_out_by="import" if out_at is not None else None,
    )


def _status(word: str, *, out: bool) -> str | None:
    plain = "".join(c if c.isalnum() else "_" for c in word.lower())
    if not word:
        return "out" if out else "in"
    return "in" if plain in _IN else "out" if plain in _OUT else None


def _out_at(status: str, opt_in: datetime | None, opt_out: datetime | None, now: datetime) -> datetime | None:
    """When a row says that the person went out; for one that is in, a date before the opt-in is an earlier story."""
    if status == "in":
        return opt_out if opt_out is not None and opt_in is not None and opt_out < opt_in else None
    told = opt_out or now
    return told if opt_in is None else max(told, opt_in)


def _import(
    store: Store, scoring: Scoring, found: Iterator[Subscriber], counts: _Counts, step: Callable[[int], None]
) -> None:
    by = actor()
    under_way: list[tuple[int, Future[int]]] = []
    while batch := list(islice(found, _BATCH)):
        under_way.append((len(batch), store.submit(partial(_put, scoring, batch, by))))
        if len(under_way) >= _IN_FLIGHT:
            _settle(under_way, counts, step)
    while under_way:
        _settle(under_way, counts, step)


def _settle(under_way: list[tuple[int, Future[int]]], counts: _Counts, step: Callable[[int], None]) -> None:
    size, future = under_way.pop(0)
    changed = future.result()
    counts.changed += changed
    counts.known += size - changed
    step(size)


def _put(scoring: Scoring, batch: list[Subscriber], by: str, transaction: Transaction) -> int:
    return sum(scoring.opted_in(transaction, _allowed(transaction, one), actor=by, reason="import") for one in batch)


def _allowed(transaction: Transaction, told: Subscriber) -> Subscriber:
    """Without what a file may not say: that somebody is in who told us not to be, or went out on yet another day."""
    known = transaction.subscribers.find(told.address_key, told.list_id)
    if known is None or not known.own_out:
        return told
    kept = replace(told, own_out_at=None, own_out_by=None) if told.own_out else told
    return kept if known.own_out_by == "import" else replace(kept, opt_in_at=None)


# ---- by hand --------------------------------------------------------------------------------------------------------


@subscriber.command(name="opt-in")
@config_option
@click.option("--reason", required=True, metavar="TEXT", help="How the person asked for it; kept with it.")
@click.option("--at", type=Moment(-1), metavar="TIME", help="When. Default: now.")
@click.option("--source", metavar="TEXT", help="Where the address came from.")
@_list_option
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
def opt_in(
    *, config: Path | None, reason: str, at: datetime | None, source: str | None, list_id: str,
    addresses: tuple[str, ...],
) -> int:  # fmt: skip
    """Say that people asked for mail: they are in, what they had said against it ends, and bounces count anew.

    So does what their bounces had come to: who asks for mail has a mailbox. What an operator or an import holds back
    stays, and is told.
    """
    from mailback.store.records import Subscriber

    by, scoring, told_at = actor(), _scoring(config), at or datetime.now(UTC)
    people = [Subscriber(address_key(one), list_id, _bare(one), source=source, opt_in_at=told_at) for one in addresses]
    with open_store(config, create=True) as store:
        for person in people:
            changed = store.submit(partial(_in_again, scoring, person, by, _given(reason))).result()
            say(f"{safe(person.address)}: {'in' if changed else 'was in already, since a later day'}")
            if (stands := store.lookup(person.address_key, ("all", f"list:{list_id}"))) is not None:
                complain(
                    f"{safe(person.address)} is still suppressed ({safe(stands.reason)}, by {safe(stands.source)});"
                    f" to end that too: mailback suppress remove --reason TEXT {safe(person.address)}"
                )
    return 0


def _in_again(scoring: Scoring, person: Subscriber, by: str, reason: str, transaction: Transaction) -> bool:
    """The new opt-in, and the end of what the person had said or bounced before, of all mail or of this list."""
    from mailback.store.precedence import is_own_word
    from mailback.store.records import SCORE

    scopes = ("all", f"list:{person.list_id}")
    for stands in transaction.active(person.address_key):
        earlier = person.opt_in_at is not None and stands.since < person.opt_in_at
        ends = is_own_word(stands) or stands.source in ("event", SCORE)
        if stands.scope in scopes and ends and earlier:
            transaction.lift(person.address_key, stands.scope, actor=by, reason=f"opt-in: {reason}")
    return scoring.opted_in(transaction, person, actor=by, reason=reason, anew=True)


@subscriber.command(name="opt-out")
@config_option
@click.option("--reason", required=True, metavar="TEXT", help="How the person said so; kept with it.")
@click.option("--at", type=Moment(-1), metavar="TIME", help="When. Default: now.")
@_list_option
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
def opt_out(*, config: Path | None, reason: str, at: datetime | None, list_id: str, addresses: tuple[str, ...]) -> int:
    """Say that people want no more mail: they are out, and mail of the list, or all mail, is held back."""
    by, told_at = actor(), at or datetime.now(UTC)
    people = [(address_key(one), _bare(one)) for one in addresses]
    with open_store(config, create=True) as store:
        for key, address in people:
            out = store.submit(partial(_out, key, address, list_id, told_at, by, _given(reason))).result()
            say(f"{safe(address)}: {'out' if out else 'opted in on a later day, and stays in'}")
    return 0


def _out(key: str, address: str, list_id: str, at: datetime, by: str, reason: str, transaction: Transaction) -> bool:  # noqa: PLR0917
    from mailback.bounce.taxonomy import Subcategory, Type
    from mailback.store.records import Subscriber, Suppression

    person = Subscriber(key, list_id, address, own_out_at=at, own_out_by=Subcategory.UNSUBSCRIBE_REQUEST.value)
    transaction.subscribers.put(person, actor=by, reason=reason)
    now = transaction.subscribers.find(key, list_id)
    if now is None or not now.own_out:
        return False  # asked for mail again since then
    said = Suppression(
        key, address, f"list:{list_id}" if list_id else "all", reason, Type.COMPLAINT.value,
        Subcategory.UNSUBSCRIBE_REQUEST.value, "operator", at, None,
    )  # fmt: skip
    transaction.suppress(said, by)
    return True


def _bare(address: str) -> str:
    return address.strip().removeprefix("<").removesuffix(">")


def _given(reason: str) -> str:
    if not reason.strip():
        raise CommandError("--reason is empty", "say how the person said so: somebody will ask", exit_code=2)
    return reason.strip()


def _scoring(config: Path | None) -> Scoring:
    from mailback.effects.scoring import Scoring

    return Scoring.of(load_settings(config))


# ---- show, list, export ---------------------------------------------------------------------------------------------


@subscriber.command()
@config_option
@json_option
@click.argument("address")
def show(config: Path | None, as_json: bool, address: str) -> int:
    """Tell how somebody stands on each list, and every change that led there. An id does as well as an address.

    Exit code 1 for who is on no list.
    """
    from mailback.address import is_address

    now = datetime.now(UTC)
    with open_store(config) as store:
        known = None if is_address(_bare(address)) else store.subscriber_by_id(address)
        found, changes = store.subscriptions(known.address_key if known else address_key(address))
    if as_json:
        for one in found:
            told = [_change_dict(change) for change in changes if change.list_id == one.list_id]
            json_line(to_dict(one, now) | {"changes": told})
    else:
        table(_COLUMNS, (_row(one, now) for one in found), empty=f"{safe(address)} is on no list")
        table(_CHANGE_COLUMNS, map(_change_row, changes))
    return 0 if found else 1


@subscriber.command(name="list")
@config_option
@json_option
@click.option("--list", "list_id", metavar="ID", help="Only this list.")
@click.option("--status", type=click.Choice(("in", "out")), help="Only those.")
@click.option("--bounces", type=click.Choice(("none", "soft", "hard")), help="Only those whose bounces come to this.")
@click.option("--limit", "-n", type=Whole(min=0), help="At most so many.")
def list_(
    *, config: Path | None, as_json: bool, list_id: str | None, status: str | None, bounces: str | None,
    limit: int | None,
) -> None:  # fmt: skip
    """List who is on a list, by address."""
    now = datetime.now(UTC)
    with open_store(config) as store:
        found = islice(_wanted(store, list_id, status, bounces, now), limit)
        if as_json:
            for one in found:
                json_line(to_dict(one, now))
        else:
            table(_COLUMNS, (_row(one, now) for one in found), empty="nobody")


@subscriber.command()
@config_option
@click.option("--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Default: standard output.")
@click.option("--columns", metavar="NAMES", default=",".join(_EXPORTED), show_default=True,
              help="Which columns, in which order; NAME=TITLE gives one another title.")  # fmt: skip
@click.option("--word", "words", multiple=True, metavar="OURS=THEIRS",
              help=f"Another word for one of {', '.join(_WORDS)} (no date). May be given again.")  # fmt: skip
@click.option("--date-format", default="%Y-%m-%d", show_default=True, metavar="FORMAT", help="As strftime takes it.")
@click.option("--list", "list_id", metavar="ID", help="Only this list.")
@click.option("--status", type=click.Choice(("in", "out")), help="Only those.")
@click.option("--bounces", type=click.Choice(("none", "soft", "hard")), help="Only those whose bounces come to this.")
def export(
    *, config: Path | None, output: Path | None, columns: str, words: tuple[str, ...], date_format: str,
    list_id: str | None, status: str | None, bounces: str | None,
) -> None:  # fmt: skip
    """Write who is on a list as CSV, in columns and words of your choice.

    \b
    mailback subscriber export --columns id=user_id,status,opt_in_date,opt_out_date,source,bounce_status
             --word in=I --word out=O --word none=- --word never=- --word "soft=soft bounce" --word "hard=hard bounce"
    """
    titles = _titles(columns)
    said = _words(words)
    now = datetime.now(UTC)
    with open_store(config) as store, progress("exporting", None) as bar, _target(output) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(titles.values())
        for one in _wanted(store, list_id, status, bounces, now):
            told = _exported(one, now, date_format, said)
            writer.writerow([told[name] for name in titles])
            bar.step()


@contextmanager
def _target(output: Path | None) -> Iterator[TextIO]:
    """Where an export goes; a file is replaced at the end, whole."""
    if output is None:
        yield sys.stdout
        return
    with replacing(output) as file, TextIOWrapper(file, encoding="utf-8", newline="", write_through=True) as text:
        yield text


def _titles(columns: str) -> dict[str, str]:
    titles = {}
    for one in columns.split(","):
        name, _, title = one.strip().partition("=")
        if name not in _EXPORTED:
            raise CommandError(f"--columns: there is no {name!r}", f"there are: {', '.join(_EXPORTED)}", exit_code=2)
        titles[name] = title or name
    return titles


def _words(words: tuple[str, ...]) -> dict[str, str]:
    said = {}
    for one in words:
        ours, equals, theirs = one.partition("=")
        if ours not in _WORDS or not equals:
            raise CommandError(f"--word {one}", f"write OURS=THEIRS with one of {', '.join(_WORDS)}", exit_code=2)
        said[ours] = theirs
    return said


def _exported(one: Subscriber, now: datetime, date_format: str, said: dict[str, str]) -> dict[str, object]:
    def date(moment: datetime | None) -> str:
        return moment.astimezone(UTC).strftime(date_format) if moment else said.get("never", "")

    bounces = one.bounce_status_at(now)
    return {
        "address": one.address, "id": one.external_id or "", "list": one.list_id,
        "status": said.get(one.status, one.status), "opt_in_date": date(one.opt_in_at),
        "opt_out_date": date(one.opt_out_at), "out_by": one.out_by or "", "source": one.source or "",
        "bounce_status": said.get(bounces, bounces), "bounce_count": one.bounce_count if bounces != "none" else 0,
    }  # fmt: skip


def _wanted(
    store: Store, list_id: str | None, status: str | None, bounces: str | None, now: datetime
) -> Iterator[Subscriber]:
    for one in store.subscribers():
        if list_id not in (None, one.list_id) or status not in (None, one.status):
            continue
        if bounces in (None, one.bounce_status_at(now)):
            yield one


def to_dict(one: Subscriber, now: datetime) -> dict[str, object]:
    """A subscriber as a script reads it."""
    bounces = one.bounce_status_at(now)
    return {
        "address": one.address, "id": one.external_id, "list": one.list_id, "status": one.status,
        "opt_in": iso(one.opt_in_at), "opt_out": iso(one.opt_out_at), "out_by": one.out_by, "source": one.source,
        "bounce_status": bounces, "bounce_count": one.bounce_count if bounces != "none" else 0,
    }  # fmt: skip


def _change_dict(change: SubscriberChange) -> dict[str, object]:
    return {
        "at": iso(change.at), "by": change.actor, "reason": change.reason, "status": change.status,
        "opt_in": iso(change.opt_in_at), "opt_out": iso(change.opt_out_at), "out_by": change.out_by,
        "bounce_status": change.bounce_status, "bounce_count": change.bounce_count,
    }  # fmt: skip


def _row(one: Subscriber, now: datetime) -> list[object]:
    return [
        one.address, one.external_id, one.list_id, one.status, when(one.opt_in_at), when(one.opt_out_at), one.out_by,
        one.bounce_status_at(now), one.source,
    ]  # fmt: skip


def _change_row(change: SubscriberChange) -> list[object]:
    return [
        when(change.at), change.list_id, change.status, change.out_by, change.bounce_status, change.actor, change.reason
    ]  # fmt: skip

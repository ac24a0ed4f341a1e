"""`mailback retry`: messages that failed for a while and are worth sending again; an application sends them.

Emits no log events.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.options import Whole, actor, address_key, config_option, json_option, load_settings, open_store
from mailback.cli.out import Column, complain, iso, json_line, safe, say, table, when

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mailback.outbound.passing import Passing
    from mailback.store import Store, Transaction
    from mailback.store.records import Retry

_COLUMNS = (
    Column("retry", right=True, wraps=False), Column("recipient", "cyan"), Column("due (UTC)", wraps=False),
    Column("cause", wraps=False), Column("failed", right=True, wraps=False), Column("state", wraps=False),
    Column("because"), Column("message", "dim"),
)  # fmt: skip
_ALL = 1_000_000
_REASONS = 5
_number = click.argument("retries", metavar="RETRY...", nargs=-1, required=True, type=Whole(min=1))


@click.group()
def retry() -> None:
    """Messages worth sending again: due, list, watch, done, skip."""


@retry.command()
@config_option
@json_option
@click.option("--limit", "-n", type=Whole(min=1), default=_ALL, help="At most so many. Default: all.")
def due(config: Path | None, as_json: bool, limit: int) -> None:
    """Tell what should be sent again now, the longest due first.

    Never what failed for good, nobody who is suppressed, and nothing that has to wait for the breaker of a provider or
    for another message that tries the same address. Send it under a new Message-ID and say so with `mailback retry
    done`: a further failure then goes on with the schedule, a delivery ends it.
    """
    from mailback.outbound.passing import Passing

    settings = load_settings(config)
    with open_store(config) as store:
        passing = Passing.at_once(settings, store)
        _show(islice(passing.of(store.retries_due(limit=_ALL)), limit), as_json=as_json, empty="nothing is due")
    if passing.held and not as_json:
        complain(_why(passing.held))


@retry.command(name="list")
@config_option
@json_option
@click.option("--address", metavar="ADDRESS", help="Those of this recipient, whatever became of them.")
def list_(config: Path | None, as_json: bool, address: str | None) -> None:
    """List what waits for its time or was sent again and has no outcome yet."""
    from mailback.policy.retry import is_stale

    key, now, days = (
        address_key(address) if address else None,
        datetime.now(UTC),
        load_settings(config).retry.give_up_days,
    )
    with open_store(config) as store:
        waiting = (one for one in store.retries(key) if key or not is_stale(one, now, days))
        _show(waiting, as_json=as_json, empty="nothing waits")


@retry.command()
@config_option
@json_option
@click.option("--interval", type=click.FloatRange(min=0.1, max=3600), default=5.0, show_default=True, metavar="S",
              help="Seconds between two looks.")  # fmt: skip
def watch(config: Path | None, as_json: bool, interval: float) -> None:
    """Tell each message as it becomes due, and what ends before it was sent again, until interrupted.

    Begins with all that is due now: whatever an application missed while it was away comes again, until it says `done`
    or `skip`. With --json each line has the key `event`: `due`, `ended`, or `held` for what was told as due and now
    has to wait, for the breaker of its provider or another message to its address; it is told as due again after that.
    """
    from mailback.outbound.passing import Passing

    told: dict[int, datetime | None] = {}
    settings = load_settings(config)
    with open_store(config) as store:
        while True:
            _look(store, Passing.at_once(settings, store), told, as_json=as_json)
            time.sleep(interval)


def _why(held: dict[int, str]) -> str:
    told = Counter(map(safe, held.values())).most_common()
    listed = "; ".join(f"{count} for {reason}" for reason, count in told[:_REASONS])
    more = f"; and {len(told) - _REASONS} other reasons" if len(told) > _REASONS else ""
    return f"{len(held)} more wait, {listed}{more}"


def _look(store: Store, passing: Passing, told: dict[int, datetime | None], *, as_json: bool) -> None:
    """One look: what is due and was not told as due at that time, and what was told and is due no more."""
    found = {one.id: one for one in passing.of(store.retries_due(limit=_ALL))}
    for number, one in found.items():
        if number not in told or told[number] != one.due_at:
            told[number] = one.due_at
            _tell("due", one, as_json=as_json)
    for number in [number for number in told if number not in found]:
        del told[number]
        ended = store.retry(number)
        if ended is not None and ended.state != "sent":
            _tell("held" if number in passing.held else "ended", ended, as_json=as_json)


def _tell(event: str, one: Retry, *, as_json: bool) -> None:
    if as_json:
        json_line({"event": event} | to_dict(one))
    else:
        say(f"{event} {one.id} {safe(one.address)} {safe(one.subcategory)} {safe(one.message_id)}: {safe(one.because)}")
    sys.stdout.flush()


@retry.command()
@config_option
@click.option("--message-id", metavar="ID", help="The Message-ID that it was sent again under; needs a single RETRY.")
@_number
def done(config: Path | None, message_id: str | None, retries: tuple[int, ...]) -> int:
    """Say that messages were sent again. Exit code 1 where one of them does not wait."""
    if message_id is not None and len(retries) > 1:
        raise click.UsageError("--message-id is of one message: name one RETRY")
    told = None if message_id is None else f"<{message_id.strip().strip('<>')}>"
    return _each(config, retries, partial(_done, told))


@retry.command()
@config_option
@click.option("--reason", default="not worth it", show_default=True, metavar="TEXT", help="Why; kept with it.")
@_number
def skip(config: Path | None, reason: str, retries: tuple[int, ...]) -> int:
    """Say that messages will not be sent again. Exit code 1 where one of them does not wait."""
    return _each(config, retries, partial(_skipped, f"{actor()}: {reason}"))


def _done(message_id: str | None, number: int, transaction: Transaction) -> bool:
    return transaction.retried(number, message_id)


def _skipped(reason: str, number: int, transaction: Transaction) -> bool:
    return transaction.retries.close(number, "skipped", reason, datetime.now(UTC))


def _each(config: Path | None, numbers: tuple[int, ...], work: partial[bool]) -> int:
    code = 0
    with open_store(config) as store:
        for number in numbers:
            if not store.submit(partial(work, number)).result():
                complain(f"retry {number} does not wait; nothing was changed")
                code = 1
    return code


def _show(found: Iterable[Retry], *, as_json: bool, empty: str) -> None:
    if as_json:
        for one in found:
            json_line(to_dict(one))
    else:
        table(_COLUMNS, map(_row, found), empty=empty)


def to_dict(one: Retry) -> dict[str, object]:
    """A message worth sending again, as a script reads it."""
    return {
        "id": one.id,
        "recipient": one.address,
        "message_id": one.message_id,
        "retried_as": one.retried_as,
        "due": iso(one.due_at),
        "state": one.state,
        "because": one.because,
        "type": one.type,
        "subcategory": one.subcategory,
        "provider": one.provider,
        "failures": one.failures,
        "first_failed": iso(one.first_at),
        "last_failed": iso(one.failed_at),
        "campaign": one.campaign,
        "list": one.list_id,
        "event_id": one.event_id,
    }


def _row(one: Retry) -> list[object]:
    return [
        one.id, one.address, when(one.due_at), one.subcategory, one.failures, one.state, one.because, one.message_id
    ]  # fmt: skip

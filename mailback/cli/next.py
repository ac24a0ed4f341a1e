"""`mailback next`: the next best action for a contact. Emits no log events."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.options import address_key, config_option, json_option, open_store
from mailback.cli.out import Column, iso, json_line, table, when

if TYPE_CHECKING:
    from mailback.policy.next_action import NextAction
    from mailback.store import Store

EVENTS_READ = 500
"""The latest events of an address that are looked at."""

ENTRIES_READ = 20
"""The latest entries of the journal; minted unsubscribe addresses among them are nothing that was sent."""

_COLUMNS = (
    Column("address", "cyan"), Column("next", "bold", wraps=False), Column("until (UTC)", wraps=False),
    Column("because"), Column("event", "dim", wraps=False),
)  # fmt: skip


@click.command("next")
@config_option
@json_option
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
def next_(config: Path | None, addresses: tuple[str, ...], as_json: bool) -> None:
    """Tell the next best action for a contact: stop, escalate, reply, wait or nudge.

    By all that is known: suppressions, what went out (the journal), what came back, and what was answered. `until` is
    when waiting ends, or until when somebody should have answered.
    """
    keys = [address_key(address) for address in addresses]
    with open_store(config) as store:
        found = [(address, _of(store, key)) for address, key in zip(addresses, keys, strict=True)]
    if as_json:
        for address, action in found:
            json_line({
                "address": address, "next": action.step, "because": action.because, "until": iso(action.until),
                "event": action.event_id,
            })  # fmt: skip
        return
    rows = (
        [address, action.step, when(action.until) if action.until else None, action.because, action.event_id]
        for address, action in found
    )
    table(_COLUMNS, rows)


def _of(store: Store, key: str) -> NextAction:
    from mailback.policy.next_action import next_action

    return next_action(
        list(store.events(key=key, newest_first=True, limit=EVENTS_READ)),
        [entry.at for entry in store.find_journal(key=key, limit=ENTRIES_READ) if entry.source != "unsubscribe"],
        filter(None, [store.lookup(key)]),
        datetime.now(UTC),
    )

"""`mailback events`: what happened, the latest first. Emits no log events."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.options import Moment, Whole, address_key, config_option, json_option, open_store
from mailback.cli.out import Column, iso, json_line, table, when

if TYPE_CHECKING:
    from mailback.store.records import Event

SHOWN = 50
"""Rows of the table where nobody says how many."""

_COLUMNS = (
    Column("when (UTC)", wraps=False), Column("event", "dim", wraps=False), Column("kind", wraps=False),
    Column("recipient", "cyan"), Column("type", wraps=False), Column("cause", wraps=False),
    Column("provenance", wraps=False), Column("action", wraps=False), Column("by", wraps=False),
)  # fmt: skip


@click.command()
@config_option
@json_option
@click.option("--limit", "-n", type=Whole(min=0), help=f"At most so many. Default: {SHOWN}; with --json all.")
@click.option("--since", type=Moment(-1), metavar="TIME", help="From then on: 2026-11-30, or a span such as 7d, 12h.")
@click.option("--until", type=Moment(-1), metavar="TIME", help="Before then.")
@click.option("--kind", metavar="KIND", help="Only this kind: bounce, delay, complaint, auto_reply, ...")
@click.option("--type", "type_", metavar="TYPE", help="Only this type: hard_bounce, soft_bounce, ...")
@click.option("--cause", metavar="SUBCATEGORY", help="Only this cause: user_unknown, mailbox_full, ...")
@click.option("--intent", metavar="INTENT", help="Only replies that ask for this: interested, unsubscribe, legal, ...")
@click.option("--route", metavar="ROUTE", help="Only replies of this route: notify_owner, require_approval, spam, ...")
@click.option("--address", metavar="ADDRESS", help="Only those about this recipient.")
@click.option("--oldest-first", is_flag=True, help="In the order in which they happened.")
def events(
    *,
    config: Path | None,
    as_json: bool,
    limit: int | None,
    since: datetime | None,
    until: datetime | None,
    kind: str | None,
    type_: str | None,
    cause: str | None,
    intent: str | None,
    route: str | None,
    address: str | None,
    oldest_first: bool,
) -> None:
    """Tell what happened, the latest first.

    With --json one line an event, all of them unless limited, with the keys id, at, kind, recipient, type, subcategory,
    provenance, action, source and message_id. That is the Message-ID of the message it is about: yours where a report
    returns it, else that of the message itself. Replies and automatic answers have a key reply too: intent, confidence,
    runner_up, runner_up_confidence, flags, route, due_at, return_date, follow_up_date, new_contact, language, safety
    and owner.
    """
    from mailback.bounce.taxonomy import Kind, Subcategory, Type
    from mailback.reply.intent import Intent
    from mailback.reply.routing import Route

    known_word(kind, Kind, "--kind")
    with open_store(config) as store:
        found = store.events(
            since=since,
            until=until,
            kind=Kind(kind) if kind else None,
            key=address_key(address) if address else None,
            type=known_word(type_, Type, "--type"),
            subcategory=known_word(cause, Subcategory, "--cause"),
            intent=known_word(intent, Intent, "--intent"),
            route=known_word(route, Route, "--route"),
            newest_first=not oldest_first,
            limit=limit if as_json or limit is not None else SHOWN,
        )
        if as_json:
            for event in found:
                json_line(to_dict(event))
        else:
            table(_COLUMNS, map(_row, found), empty="no events")


def known_word(word: str | None, words: type, option: str) -> str | None:
    """The word, where it is one of the taxonomy's; an unknown one would find nothing and look like an answer."""
    known = [str(member) for member in words]  # type: ignore[attr-defined]
    if word is None or word in known:
        return word
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1)
    raise click.BadParameter(
        f"{word!r} is none of them" + (f", did you mean {close[0]}?" if close else f": {', '.join(known)}"),
        param_hint=option,
    )


def to_dict(event: Event) -> dict[str, object]:
    """One line of `events --json`."""
    return {
        "id": event.id,
        "at": iso(event.at),
        "kind": event.kind,
        "recipient": event.recipient,
        "type": event.type,
        "subcategory": event.subcategory,
        "provenance": event.provenance,
        "action": event.action,
        "source": event.source,
        "message_id": event.original_message_id or event.report_message_id,
    } | ({"reply": _reply(event)} if event.intent else {})


def _reply(event: Event) -> dict[str, object]:
    """What was read in a reply."""
    told = {"intent": event.intent, "confidence": event.confidence, "route": event.route, "due_at": iso(event.due_at)}
    return told | (event.reply or {})


def _row(event: Event) -> list[object]:
    return [
        when(event.at), event.id, event.kind, event.recipient, event.type or event.intent, event.subcategory,
        event.provenance,
        event.action, event.source,
    ]  # fmt: skip

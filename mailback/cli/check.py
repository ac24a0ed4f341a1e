"""`mailback check`: may I mail this address? Answers within 300 ms of a cold start.

What the fronts would answer is answered, and nothing is claimed by it: a breaker that holds mail to the provider of the
address, or a message that tries whether the address takes mail again, is a no for now.

So it imports neither SQLAlchemy nor pydantic nor rich: the store's URL is read by `mailback.locations`, the look-up is
the bare driver's; only while a breaker stands, or a message tries an address, are the settings loaded for them. Where
the quick reading fails, the full settings are loaded to tell what is wrong with them. A store that cannot be read is an
error and never a yes. Emits no log events.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.errors import CommandError
from mailback.cli.options import config_option, json_option, load_settings, require_database
from mailback.cli.out import complain, iso, json_line, safe, say
from mailback.locations import store_url

if TYPE_CHECKING:
    from mailback.outbound.brakes import Brakes
    from mailback.outbound.check import Answer
    from mailback.outbound.probes import Probes
    from mailback.store import Store, SuppressionLookup


@click.command()
@config_option
@json_option
@click.option("--list", "list_id", metavar="ID", help="The mailing list (List-Id) it would go through.")
@click.option("--campaign", metavar="ID", help="The campaign it would be part of.")
@click.option("--stream", type=click.Choice(["transactional", "marketing"]), help="What kind of mail it would be.")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
def check(
    *,
    config: Path | None,
    addresses: tuple[str, ...],
    as_json: bool,
    list_id: str | None,
    campaign: str | None,
    stream: str | None,
) -> int:
    """May I mail this address? Exit code 0 yes, 1 no.

    A no may be one for now: an open breaker holds mail to the provider of the address, or one message is trying whether
    it takes mail again.

    Several addresses, or - to read them from standard input, one a line: exit code 1 when any of them may not be
    mailed, is no address, or the store cannot be read. Suppressions of one list, campaign or stream count only where
    that is named.
    """
    from mailback.address import is_address
    from mailback.outbound.check import Check
    from mailback.store import SuppressionLookup

    code = 0
    with SuppressionLookup(_store_url(config)) as lookup:
        require_database(lookup.path)
        answer = Check(lookup, *held_for_now(config, lookup)).answer
        for address in _each(addresses):
            if not is_address(address):
                code = 1
                _tell_bad(address, as_json)
                continue
            told = answer(address, list_id=list_id, campaign=campaign, stream=stream)
            code = code if told.allowed else 1
            if as_json:
                held, breaker = told.suppression, told.breaker
                json_line({
                    "address": address, "allowed": told.allowed, "reply": None if told.allowed else told.reply,
                    "scope": held.scope if held else None, "type": held.type if held else None,
                    "subcategory": held.subcategory if held else None, "reason": held.reason if held else None,
                    "since": iso(held.since) if held else None, "until": iso(held.until) if held else None,
                    "later": told.later, "breaker": breaker.name if breaker else None,
                })  # fmt: skip
            else:
                say(spoken(address, told))
    return code


def held_for_now(config: Path | None, lookup: SuppressionLookup | Store) -> tuple[Brakes | None, Probes | None]:
    """What may hold mail back for now, where anything does at all."""
    from mailback.store import breakers, probes
    from mailback.store.errors import StoreUnavailable
    from mailback.store.readers import ReaderPool

    readers = ReaderPool(lookup.path, busy_timeout_s=1.0)
    try:
        braked, tried = bool(readers.fetch(breakers.STANDING)), bool(readers.fetch(probes.ANY))
    except StoreUnavailable:  # of an older schema; one that cannot be read at all is told by its look-ups
        return None, None
    finally:
        readers.close()
    if not (braked or tried):
        return None, None
    from mailback.outbound.brakes import Brakes
    from mailback.outbound.probes import Probes

    settings = load_settings(config)
    brakes = Brakes.asking(settings, lookup.path) if braked else None
    return brakes, Probes.of(settings, lookup, claims=False)


def spoken(address: str, answer: Answer) -> str:
    """An answer as a person reads it."""
    return f"{safe(address)}: may be mailed" if answer.allowed else answer.reply


def _tell_bad(address: str, as_json: bool) -> None:
    if as_json:
        json_line({"address": address, "error": "no mail address"})
    else:
        complain(f"{safe(address)} is no mail address; write it as local-part@domain")


def _each(addresses: Iterable[str]) -> Iterator[str]:
    for address in addresses:
        if address == "-":
            yield from (line.strip() for line in sys.stdin if line.strip())
        else:
            yield address.strip().removeprefix("<").removesuffix(">")


def _store_url(config: Path | None) -> str:
    try:
        return store_url(config)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValueError, AttributeError, TypeError) as error:
        load_settings(config)  # tells every problem with its line
        raise CommandError(f"the configuration cannot be read: {error}", "mailback config check") from error

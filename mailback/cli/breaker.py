"""`mailback breaker`: which providers refuse our mail, and what is done about it. Emits no log events."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.errors import CommandError
from mailback.cli.options import Moment, actor, config_option, json_option, open_store
from mailback.cli.out import Column, iso, json_line, safe, say, table, when

if TYPE_CHECKING:
    from mailback.store import Transaction
    from mailback.store.records import Breaker

_COLUMNS = (
    Column("provider", "cyan", wraps=False), Column("side", wraps=False), Column("sender", wraps=False),
    Column("state", wraps=False), Column("since (UTC)", wraps=False), Column("next mail (UTC)", wraps=False),
    Column("trips", right=True, wraps=False), Column("rule", wraps=False), Column("why"),
)  # fmt: skip
_reason = click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit trail.")
_side = click.option(
    "--side",
    type=click.Choice(["ip", "domain"]),
    default="ip",
    show_default=True,
    help="What of yours the provider refuses: a sending address or a sending domain.",
)
_sender = click.option(
    "--sender", default="*", show_default=True, metavar="NAME", help="That address or domain; * is all of yours."
)
_provider = click.argument("provider", metavar="PROVIDER")


@click.group("breaker")
def breakers() -> None:
    """Providers that refuse your mail: list, open, close."""


@breakers.command(name="list")
@config_option
@json_option
@click.option("--all", "every", is_flag=True, help="Also those that are closed again.")
def list_(config: Path | None, as_json: bool, every: bool) -> None:
    """List the breakers that hold mail, as they are now."""
    from mailback.policy.breaker import CLOSED, at, next_at

    now = datetime.now(UTC)
    with open_store(config) as store:
        found = [at(breaker, now) for breaker in store.breakers()]
    shown = [breaker for breaker in found if every or breaker.state != CLOSED]
    if as_json:
        for breaker in shown:
            json_line(_told(breaker, None if breaker.state == CLOSED else next_at(breaker, now)))
        return
    rows = (
        [
            b.provider, b.side, b.sender, b.state.replace("_", " "), when(b.since),
            "now" if b.state == CLOSED else when(next_at(b, now), never="when closed by hand"), b.trips, b.rule,
            b.reason,
        ]
        for b in shown
    )  # fmt: skip
    table(_COLUMNS, rows, empty="no breaker holds mail")


@breakers.command(name="open")
@config_option
@_provider
@_side
@_sender
@click.option("--until", type=Moment(1), metavar="TIME", help="When single messages may try again. Default: never.")
@_reason
def open_(*, config: Path | None, provider: str, side: str, sender: str, until: datetime | None, reason: str) -> None:
    """Hold mail to a provider.

    PROVIDER is an id of providers.toml, such as google, or a domain. TIME is a date, a date with time, or a span from
    now: 2026-11-30, 2026-11-30T12:00, 7d, 12h. Mail waits where the fronts are asked, if breakers.act is on.
    """
    from mailback.effects.breakers import keep
    from mailback.policy.breaker import new, opened_by_hand

    now, by = datetime.now(UTC), actor()
    if until is not None and until <= now:
        raise CommandError(f"{when(until)} is over", "give a time to come", exit_code=2)
    provider, sender = _names(provider, side, sender)
    with open_store(config) as store:
        store.submit(
            lambda transaction: keep(
                transaction,
                opened_by_hand(
                    transaction.breaker(provider, side, sender) or new(provider, side, sender, now), until, reason, now
                ),
                by,
            )
        ).result()
    end = f"{when(until)} UTC" if until else "you close it"
    say(f"{safe(provider)}/{side}/{safe(sender)}: mail is held until {end}")


@breakers.command()
@config_option
@_provider
@_side
@_sender
@_reason
def close(*, config: Path | None, provider: str, side: str, sender: str, reason: str) -> None:
    """Let mail to a provider flow again, and count anew.

    PROVIDER is as `mailback breaker list` tells it, and so are side and sender.
    """
    from mailback.effects.breakers import keep
    from mailback.policy.breaker import closed_by_hand

    now, by = datetime.now(UTC), actor()
    provider, sender = _names(provider, side, sender)
    with open_store(config) as store:

        def work(transaction: Transaction) -> bool:
            found = transaction.breaker(provider, side, sender)
            if found is not None:
                keep(transaction, closed_by_hand(found, reason, now), by)
            return found is not None

        if not store.submit(work).result():
            raise CommandError(f"there is no breaker {provider}/{side}/{sender}", "mailback breaker list --all")
    say(f"{safe(provider)}/{side}/{safe(sender)}: mail flows")


def _names(provider: str, side: str, sender: str) -> tuple[str, str]:
    """Provider and sender as the store writes them."""
    import ipaddress

    from mailback.address import domain_key
    from mailback.auth.domains import organizational

    if sender == "*":
        return domain_key(provider), sender
    if side == "domain":
        return domain_key(provider), organizational(domain_key(sender))
    try:
        return domain_key(provider), str(ipaddress.ip_address(sender))
    except ValueError:
        raise CommandError(f"{sender!r} is no IP address", "give --side domain for a domain", exit_code=2) from None


def _told(breaker: Breaker, following: datetime | None) -> dict[str, object]:
    return {
        "provider": breaker.provider, "side": breaker.side, "sender": breaker.sender, "state": breaker.state,
        "since": iso(breaker.since), "until": iso(breaker.until), "next": iso(following), "trips": breaker.trips,
        "rule": breaker.rule, "reason": breaker.reason, "pace_s": breaker.pace_s, "probes": breaker.probes,
    }  # fmt: skip

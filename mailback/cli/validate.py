"""`mailback validate`: the check of an address at the moment somebody enters it. Emits no log events."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.options import actor, config_option, json_option, load_settings, open_store
from mailback.cli.out import Column, json_line, progress, table

if TYPE_CHECKING:
    from mailback.recipient.entering import Checker
    from mailback.settings import Settings
    from mailback.store import Store

_COLUMNS = (
    Column("address", "cyan", wraps=False), Column("verdict", wraps=False), Column("why"),
    Column("meant", "green", wraps=False),
)  # fmt: skip
AT_ONCE = 500


@click.command()
@config_option
@json_option
@click.option("--source", metavar="TEXT", help="Where the address was entered: a form, a shop; kept with the attempt.")
@click.option("--by", metavar="TEXT", help="Who entered it: an account, a client's IP address. Default: who runs this.")
@click.option("--dns/--no-dns", default=True, help="Ask DNS whether the domain takes mail. Default: yes.")
@click.option("--strict", is_flag=True, help="Exit code 1 also for addresses that are risky or unknown.")
@click.option("--dry-run", is_flag=True, help="Keep nothing of the attempt.")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
def validate(
    *,
    config: Path | None,
    addresses: tuple[str, ...],
    as_json: bool,
    source: str | None,
    by: str | None,
    dns: bool,
    strict: bool,
    dry_run: bool,
) -> int:
    """Check addresses as somebody enters them. Exit code 0 all may be taken, 1 some not.

    Syntax, whether the domain takes mail, disposable and misspelt domains, addresses of functions, suppressions.
    Several addresses, or - to read them from standard input, one a line. Verdicts: ok, risky (mail arrives, at no
    single person), unknown (DNS gave no answer: never a reason to refuse), blocked. Each attempt is kept with its
    verdict.
    """
    worst = {"blocked"} | ({"risky", "unknown"} if strict else set())
    code = 0
    shown: list[Sequence[object]] = []
    with ExitStack() as stack:
        store = stack.enter_context(open_store(config, create=True))
        checker = checker_of(load_settings(config), store, dns=dns)
        bar = stack.enter_context(progress("addresses", None if "-" in addresses else len(addresses)))
        entered = _each(addresses)
        while chunk := list(islice(entered, AT_ONCE)):
            found = checker.check(chunk)
            if not dry_run:
                checker.keep(found, source=source, by=by or actor())
            for one in found:
                code = 1 if one.verdict in worst else code
                if as_json:
                    json_line(one.to_dict())
                else:
                    why = "; ".join(reason.says for reason in one.reasons)
                    shown.append([one.address, one.verdict, why, one.suggestion])
            bar.step(len(chunk))
    if not as_json:
        table(_COLUMNS, shown)
    return code


def _each(addresses: Iterable[str]) -> Iterator[str]:
    for address in addresses:
        if address == "-":
            yield from (line.strip() for line in sys.stdin if line.strip())
        else:
            yield address


def checker_of(settings: Settings, store: Store, *, dns: bool) -> Checker:
    """The check of addresses as the settings ask for it. Raises RulesError."""
    from mailback.outbound.watch import resolver_of
    from mailback.recipient.entering import Checker, Lists

    resolver = None
    if dns:
        with suppress(ValueError):  # no DNS server at all: domains are `unknown`, and `mailback doctor` says why
            resolver = resolver_of(settings)
    return Checker(Lists.load(settings), store, resolver, dns=dns)

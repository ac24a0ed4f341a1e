"""`mailback validate`: the check of an address at the moment somebody enters it. Emits no log events."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailback.cli.options import actor, config_option, json_option, load_settings, open_store
from mailback.cli.out import Column, json_line, progress, table

if TYPE_CHECKING:
    from mailback.bounce.rules import Rules
    from mailback.recipient.capture import Captured, CaptureRules
    from mailback.recipient.mailhosts import MailHosts
    from mailback.settings import Settings
    from mailback.store import Store
    from mailback.store.records import MailDomain
    from mailback.store.transaction import Transaction

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
        checker = Checker(load_settings(config), store, dns=dns)
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


class Checker:
    """The check of addresses with everything it asks: the lists, DNS, the store."""

    def __init__(self, settings: Settings, store: Store, *, dns: bool) -> None:
        from mailback.address import domain, key
        from mailback.recipient.capture import CaptureCheck

        rules, self.hosts = load(settings, dns=dns, store=store)
        self._store = store
        self._domain, self._key = domain, key
        self._dns = dns
        self._check = CaptureCheck(rules, self.hosts if dns else None, store.lookup)
        self._alone = CaptureCheck(rules, self.hosts if dns else self._remembered)

    def _remembered(self, name: str) -> MailDomain | None:
        """What the store knows of a domain, however old."""
        return self.hosts.remembered(name)

    def check(self, entered: Sequence[str], *, suppressions: bool = True) -> list[Captured]:
        """What is to be thought of each; DNS is asked about all of their domains at a time.

        Without `suppressions` only the addresses themselves are judged, by what is known of domains already.
        """
        if self._dns:
            self.hosts.ask(filter(None, (self._domain(one) for one in entered)))
        check = self._check if suppressions else self._alone
        return [check(one) for one in entered]

    def keep(self, found: Sequence[Captured], *, source: str | None, by: str) -> None:
        """Keep the attempts, and what DNS said, in one transaction."""
        from mailback.store.records import Capture

        now = datetime.now(UTC)
        attempts = [
            Capture(
                now, one.address, one.key, one.verdict, tuple(reason.id for reason in one.reasons), one.suggestion,
                one.domain or None, one.provider, source, by,
            )
            for one in found
        ]  # fmt: skip
        learnt = self.hosts.learnt()

        def work(transaction: Transaction) -> None:
            for attempt in attempts:
                transaction.capture(attempt)
            for domain in learnt:
                transaction.put_domain(domain)

        self._store.submit(work).result()


def capture_rules(settings: Settings, rules: Rules | None = None) -> CaptureRules:
    """The lists in force. Raises RulesError with every problem."""
    from mailback.recipient.capture import CaptureRules

    return CaptureRules.load(_directories(settings), rules)


def _directories(settings: Settings) -> list[Path]:
    from mailback.resources import rules_dir

    own = settings.rules.directory
    return [rules_dir(), *([Path(own)] if own is not None else [])]


def load(settings: Settings, *, dns: bool, store: Store | None = None) -> tuple[CaptureRules, MailHosts]:
    """The lists in force, and what tells of domains. Raises RulesError."""
    from mailback.bounce import rules as rule_files
    from mailback.bounce.providers import ProviderNames
    from mailback.outbound.watch import resolver_of
    from mailback.recipient.mailhosts import MailHosts

    rules = rule_files.load(_directories(settings))
    resolver = None
    if dns:
        try:
            resolver = resolver_of(settings)
        except ValueError:
            resolver = None  # no DNS server at all: domains are `unknown`, and `mailback doctor` says why
    hosts = MailHosts(resolver, ProviderNames(rules).of_mx, store.mail_domain if store is not None else None)
    return capture_rules(settings, rules), hosts

"""Addresses as somebody enters them: checked by lists, DNS and what the store knows, and kept with the verdict.

    lists = Lists.load(settings)
    checker = Checker(lists, store, resolver)
    found = checker.check(["ann@gmial.com"])
    checker.keep(found, source="newsletter form", by="203.0.113.9")

The lists are loaded once; a checker remembers what DNS said for as long as it lives, which is a command's run or a
request. Emits no log events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mailback.address import domain
from mailback.bounce import rules as rule_files
from mailback.bounce.providers import ProviderNames
from mailback.recipient.capture import CaptureCheck, CaptureRules
from mailback.recipient.mailhosts import MailHosts
from mailback.resources import rules_dir
from mailback.store.records import Capture

if TYPE_CHECKING:
    from mailback.auth.resolver import Resolver
    from mailback.bounce.rules import Rules
    from mailback.recipient.capture import Captured
    from mailback.settings import Settings
    from mailback.store import Store
    from mailback.store.records import MailDomain
    from mailback.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists in force: functions, disposable domains, misspellings; and who runs which hosts."""

    capture: CaptureRules
    providers: ProviderNames

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """Raises RulesError with every problem."""
        rules = rule_files.load(_directories(settings))
        return cls(capture_rules(settings, rules), ProviderNames(rules))


class Checker:
    """The check of addresses with everything it asks: the lists, DNS, the store."""

    def __init__(self, lists: Lists, store: Store, resolver: Resolver | None, *, dns: bool = True) -> None:
        """`dns` without a resolver: there is no server at all, and domains that the store does not know are unknown."""
        self.hosts = MailHosts(resolver if dns else None, lists.providers.of_mx, store.mail_domain)
        self._store = store
        self._dns = dns
        self._check = CaptureCheck(lists.capture, self.hosts if dns else None, store.lookup)
        self._alone = CaptureCheck(lists.capture, self.hosts if dns else self._remembered)

    def _remembered(self, name: str) -> MailDomain | None:
        """What the store knows of a domain, however old."""
        return self.hosts.remembered(name)

    def check(self, entered: Sequence[str], *, suppressions: bool = True) -> list[Captured]:
        """What is to be thought of each; DNS is asked about all of their domains at a time.

        Without `suppressions` only the addresses themselves are judged, by what is known of domains already.
        """
        if self._dns:
            self.hosts.ask(filter(None, (domain(one) for one in entered)))
        check = self._check if suppressions else self._alone
        return [check(one) for one in entered]

    def keep(self, found: Sequence[Captured], *, source: str | None, by: str) -> None:
        """Keep the attempts, and what DNS said, in one transaction. Raises StoreUnavailable."""
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
            for known in learnt:
                transaction.put_domain(known)

        self._store.submit(work).result()


def capture_rules(settings: Settings, rules: Rules | None = None) -> CaptureRules:
    """The lists in force. Raises RulesError with every problem."""
    return CaptureRules.load(_directories(settings), rules)


def _directories(settings: Settings) -> list[Path]:
    own = settings.rules.directory
    return [rules_dir(), *([Path(own)] if own is not None else [])]

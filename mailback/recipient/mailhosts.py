"""Whether a domain takes mail, and which hosts take it: MX records, addresses where there are none, the null MX.

RFC 5321 section 5.1: the hosts of the MX records, the lowest preference first; without MX records the domain's own
addresses. RFC 7505: a single MX record that names the root says that the domain takes no mail. A domain whose MX
records lead to names without addresses cannot be mailed to either.

DNS that gives no answer proves nothing: the state is `unknown` then, never that mail is not taken. All questions about
one domain share the budget of their `Lookups`. Emits no log events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mailback.auth.domains import is_domain
from mailback.auth.resolver import Lookups, Resolver, UnansweredError
from mailback.store.domains import Find
from mailback.store.records import MailDomain

_MOST_HOSTS = 10
"""MX hosts that are kept, and looked for addresses."""


def look_up(lookups: Lookups, name: str) -> MailDomain:
    """What DNS says of a domain (as A-labels in lower case), without its provider; never raises."""
    if not is_domain(name):
        return MailDomain(name, "none")
    try:
        records = lookups.ask(name, "MX")
    except UnansweredError:
        return MailDomain(name, "unknown")
    found = sorted(record for record in records if isinstance(record, tuple))
    hosts = tuple(dict.fromkeys(host.rstrip(".").lower() for _, host in found))[:_MOST_HOSTS]
    if hosts == ("",):
        return MailDomain(name, "null_mx")
    hosts = tuple(filter(None, hosts))
    if not hosts:
        return MailDomain(name, {True: "address", False: "none", None: "unknown"}[_has_address(lookups, (name,))])
    return MailDomain(name, "no_host" if _has_address(lookups, hosts) is False else "mx", hosts)


def _has_address(lookups: Lookups, hosts: tuple[str, ...]) -> bool | None:
    """Whether any of the hosts has an address; None where none is found and DNS did not answer for all."""
    answered = True
    for host in hosts:
        for kind in ("A", "AAAA"):
            try:
                if lookups.ask(host, kind):
                    return True
            except UnansweredError:
                answered = False
    return False if answered else None


_FRESH = timedelta(days=1)
_AT_ONCE = 16
"""Domains that DNS is asked about at the same time."""


class MailHosts:
    """What is known of domains, asking DNS where the store does not know: for checks that somebody waits for.

    Each domain is asked about once. With DNS silent, what the store knew before counts.
    """

    def __init__(
        self,
        resolver: Resolver | None,
        provider: Callable[[Sequence[str]], str | None],
        find: Find | None = None,
        *,
        lasting: bool = True,
    ) -> None:
        """`provider` names who runs hosts, `find` is the store's memory. No resolver: what nobody knows is `unknown`.

        `lasting`: answers are kept for as long as this lives, which is a command's run; else as long as DNS says.
        """
        self._resolver = resolver
        self._provider = provider
        self._find = find
        self._lasting = lasting
        self._known: dict[str, MailDomain] = {}
        self._remembered: dict[str, MailDomain | None] = {}
        self._learnt: list[MailDomain] = []

    def __call__(self, name: str) -> MailDomain:
        """One domain (as A-labels in lower case). Raises StoreUnavailable."""
        if not self._lasting:
            return self._asked(name)
        if name not in self._known:
            self._known[name] = self._asked(name)
        return self._known[name]

    def remembered(self, name: str) -> MailDomain | None:
        """What the store knows of a domain, however old; None where that is nothing. Raises StoreUnavailable."""
        if name not in self._remembered:
            found = self._find(name) if self._find is not None else None
            self._remembered[name] = found[0] if found is not None and found[0].mail != "unknown" else None
        return self._remembered[name]

    def ask(self, names: Iterable[str]) -> None:
        """Ask about many at a time, so that their answers are at hand."""
        new = [name for name in dict.fromkeys(names) if name not in self._known]
        if len(new) > 1:
            with ThreadPoolExecutor(min(_AT_ONCE, len(new)), "mailback-dns") as pool:
                self._known.update(zip(new, pool.map(self._asked, new), strict=True))

    def learnt(self) -> list[MailDomain]:
        """What DNS has said since the last time, for the store to keep."""
        learnt, self._learnt = self._learnt, []
        return learnt

    def _asked(self, name: str) -> MailDomain:
        before = self.remembered(name) if self._lasting else None
        if before is not None and before.at is not None and before.at > datetime.now(UTC) - _FRESH:
            return before
        if self._resolver is None:
            return before or MailDomain(name, "unknown")
        said = look_up(self._resolver.lookups(), name)
        if said.mail == "unknown":
            return before or said
        told = replace(said, provider=self._provider(said.hosts))
        if self._lasting:
            self._learnt.append(told)
        return told

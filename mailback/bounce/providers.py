"""Who runs a mail server, by its name: the one table behind verdicts, breakers and what is known of domains.

A host is told by its domain or a domain above it (`hosts` of `providers.toml`). A recipient's domain is told by the
hosts of its MX records (RFC 5321 section 5.1), because most domains have their mail run by somebody else: a company's
own domain at Google is Google. There `mx` of `providers.toml` counts first, then `hosts`; a host that no row names
gives its organisational domain, so that all domains of a small hoster are one provider.

Pure computation over the rules. Emits no log events.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from mailback.bounce.rules import Rules


class ProviderNames:
    """Finds ids of providers; safe to share between threads."""

    def __init__(self, rules: Rules) -> None:
        self._hosts = {host: provider.id for provider in rules.providers.values() for host in provider.hosts}
        self._mx = self._hosts | {host: provider.id for provider in rules.providers.values() for host in provider.mx}
        self._of_name = lru_cache(maxsize=4096)(self._found)

    def of_host(self, host: str) -> str | None:
        """The provider of a host name or address, as a report writes it; None where it is no known one's."""
        return self._of_name(host.rpartition("@")[2])  # kept by domains: recipients are seldom the same

    def _found(self, name: str) -> str | None:
        return _lowest(self._hosts, name.rpartition(";")[2].strip(" .<>[]()").lower()[:255])

    def of_mx(self, hosts: Sequence[str]) -> str | None:
        """The provider of a domain whose MX records name these hosts, the preferred one first; None without hosts."""
        names = [host.strip(" .").lower()[:255] for host in hosts]
        known = next((found for name in names if (found := _lowest(self._mx, name))), None)
        if known is not None or not names or not names[0]:
            return known
        from mailback.auth.domains import organizational

        return organizational(names[0])


def _lowest(owners: dict[str, str], name: str) -> str | None:
    """What the longest name above `name`, or it itself, is mapped to."""
    while name:
        if name in owners:
            return owners[name]
        name = name.partition(".")[2]
    return None

"""Whether a domain takes mail, and which hosts take it: MX records, addresses where there are none, the null MX.

RFC 5321 section 5.1: the hosts of the MX records, the lowest preference first; without MX records the domain's own
addresses. RFC 7505: a single MX record that names the root says that the domain takes no mail. A domain whose MX
records lead to names without addresses cannot be mailed to either.

DNS that gives no answer proves nothing: the state is `unknown` then, never that mail is not taken. All questions about
one domain share the budget of their `Lookups`. Emits no log events.
"""

from __future__ import annotations

from mailback.auth.domains import is_domain
from mailback.auth.resolver import Lookups, UnansweredError
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

"""Which of our addresses and domains mail leaves from, as far as anybody tells it.

A refusal names the sending address in its words, at times; the sending domain is that of the message that was refused.
A message on its way out tells its envelope sender, and no front is told which address Postfix will send it from. So a
breaker whose sender is not known stands for all of ours, and mail that may still leave from a sender that is not
refused passes.

Pure functions. Emits no log events.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailback import address
from mailback.auth.domains import organizational
from mailback.policy.breaker import ANY
from mailback.store.records import Breaker

if TYPE_CHECKING:
    from mailback.settings import MailSettings
    from mailback.store.records import Event

_MOST_READ = 4096  # characters of a diagnostic
_IP = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7})(?![\w:]|\.\d)")


@dataclass(frozen=True, slots=True)
class Senders:
    """Ours, as the settings name them; empty where they name none."""

    addresses: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    """Organisational domains."""

    @classmethod
    def of(cls, mail: MailSettings) -> Senders:
        domains = dict.fromkeys(organizational(address.domain_key(name)) for name in mail.sending_domains)
        return cls(mail.sending_addresses, tuple(domains))

    def address_in(self, diagnostic: str | None) -> str | None:
        """The sending address that a refusal is about: the one of ours that it names, or the only one that there is."""
        if not self.addresses:
            return None
        told = {_normal(found) for found in _IP.findall((diagnostic or "")[:_MOST_READ])}
        ours = [one for one in self.addresses if one in told]
        if len(ours) == 1:
            return ours[0]
        return self.addresses[0] if len(self.addresses) == 1 else None

    def sender(self, side: str, event: Event) -> str:
        """What of ours an event is about, as breakers name it."""
        if side == "ip":
            return event.sending_ip or ANY
        return self._domain(event.original_sender) or (self.domains[0] if len(self.domains) == 1 else ANY)

    def concerned(
        self, standing: Sequence[Breaker], sender: str | None, sending_ip: str | None = None
    ) -> list[Breaker]:
        """Those of one provider's breakers that hold a message with this envelope sender, leaving from this address."""
        known = {"ip": sending_ip, "domain": self._domain(sender)}
        ours = {"ip": self.addresses, "domain": self.domains}
        refused = {side: {breaker.sender for breaker in standing if breaker.side == side} for side in known}
        return [
            breaker
            for breaker in standing
            if breaker.sender in (ANY, known[breaker.side])
            or (known[breaker.side] is None and refused[breaker.side].issuperset(ours[breaker.side]))
        ]

    def _domain(self, sender: str | None) -> str | None:
        """The organisational domain of a sender where it is one of ours; None where it is not, or there is none."""
        host = address.domain(sender) if sender else ""
        if not host:
            return None
        found = organizational(host)
        return found if found in self.domains or not self.domains else None


def _normal(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""

"""Which way a message goes: back to us, away from us, or away from us with nobody there to hear a refusal.

The milter protocol does not say. What tells it, in this order (each line measured with Postfix 3.7):

1. The queue id `i` is known at MAIL: the message did not come through smtpd(8) but through `non_smtpd_milters`. With
   the null sender it is a report that Postfix itself wrote (`internal_mail_filter_classes = bounce`), which is what we
   are here for; with a sender it was handed in by sendmail(1) and goes out. Neither may be refused: pickup(8) would
   try the same file again for ever, and a report would never be sent.
2. `{daemon_name}` is one of `outbound_daemon_names` (`-o milter_macro_daemon_name=ORIGINATING` in master.cf).
3. The client logged in (`{auth_authen}`).
4. The client is on this host, the sender is not null and its domain is one of `sending_domains`; with none configured
   every sender counts, because then nothing else tells mail of a local application from other mail. What comes back
   to us has the null sender or comes from elsewhere.

Everything else comes in. Emits no log events.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from mailback import address


class Direction(Enum):
    """Which way a message goes."""

    INBOUND = "inbound"
    """Read and tagged; its recipients are not checked."""
    OUTBOUND = "outbound"
    """Its recipients are checked; the message is not read."""
    SUBMITTED = "submitted"
    """Outbound by sendmail(1): a suppressed recipient is logged, since it cannot be refused."""
    REPORT = "report"
    """Inbound, written by this Postfix: read and tagged, and never refused."""


@dataclass(frozen=True, slots=True)
class Sender:
    """What is known when MAIL was said."""

    address: str
    """Without angle brackets; empty for the null sender."""
    queue_id: str | None
    daemon_name: str | None
    auth_user: str | None
    client_address: str | None


@dataclass(frozen=True, slots=True)
class DirectionRules:
    """The settings that tell directions apart."""

    daemon_names: frozenset[str]
    sending_domains: frozenset[str]
    """As A-labels in lower case; empty: every sender on this host counts as ours."""

    @classmethod
    def of(
        cls, daemon_names: Iterable[str], sending_domains: Iterable[str], bounce_domain: str | None
    ) -> DirectionRules:
        """From the settings as they are written; return paths in `bounce_domain` are ours as well."""
        ours = (*sending_domains, bounce_domain) if bounce_domain else tuple(sending_domains)
        return cls(frozenset(daemon_names), frozenset(address.domain(f"x@{domain}") for domain in ours))

    def direction(self, sender: Sender) -> Direction:
        if sender.queue_id:
            return Direction.SUBMITTED if sender.address else Direction.REPORT
        if sender.daemon_name in self.daemon_names or sender.auth_user:
            return Direction.OUTBOUND
        if sender.address and is_loopback(sender.client_address) and self._is_ours(sender.address):
            return Direction.OUTBOUND
        return Direction.INBOUND

    def _is_ours(self, sender: str) -> bool:
        return not self.sending_domains or address.domain(sender) in self.sending_domains


def is_loopback(client: str | None) -> bool:
    """True for an address of this host's loopback interface (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3)."""
    if not client:
        return False
    return client == "::1" or client.removeprefix("::ffff:").startswith("127.")

"""What DNS and signatures show about a message that comes in: who brought it, for whom he may speak, and whether we
signed what he returns.

    checks = Checks.of(settings, speakers)            # one a worker, made after it forked
    inquiry = checks.inquiry(at_once=True)            # one a message
    told = inquiry.authentication(envelope, raw, message)
    shown = inquiry.shown(envelope, message, report, told)
    inquiry.missed                                    # DNS would have to be asked: again, in a thread

Who may speak for a domain. That a message is authenticated says who wrote it, and any customer of a large provider can
write a message that is. So a report counts as its provider's own only when no customer could have sent it
(`config/rules/speakers.toml`):

- SPF passes, for the HELO name of a message from the null sender, or for a sender that is the mail system itself
  (`postmaster@`), for complaints also a feedback loop; or
- a DKIM signature passes that is aligned with the one author in From, and the author is one of those. From is under the
  signature, while the envelope of a message that is sent again is anybody's.

He speaks for a recipient whose domain has the same organisational domain, or whose mail servers (MX) have.

SPF is judged for hosts of others only. Mail that a host of ours passes on (`auth.relays`) carries that host's address,
which is in nobody's record; there an Authentication-Results field of that host is believed, if it is named.

Blocks for DNS at most `auth.budget_s` a message, unless `at_once`. Emits no log events.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mailback import address
from mailback.provenance.grading import Returned
from mailback.provenance.speakers import Voice

if TYPE_CHECKING:
    from mailback.auth import Authentication, Authenticator, Resolver
    from mailback.auth.keys import Records
    from mailback.auth.resolver import Lookups
    from mailback.envelope import Envelope
    from mailback.message import Message
    from mailback.provenance.speakers import Speakers
    from mailback.reports.report import Report
    from mailback.settings import Settings

_MOST_DOMAINS = 20
"""Domains of recipients, of one report, that a reporter may speak for."""
_MOST_MX = 10


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown about one report."""

    spf: str
    """Result of SPF for the HELO name or the envelope sender."""
    speaks_for: frozenset[str] = frozenset()
    """Domains of recipients, as `address.domain` gives them, that the reporter is authenticated to speak for."""
    related: frozenset[str] = frozenset()
    """Those that he has to do with if he is whom he says he is."""
    returned: Returned | None = None


class Checks:
    """How mail that comes in is authenticated; safe to use from any thread."""

    def __init__(
        self,
        resolver: Resolver,
        authenticator: Authenticator,
        speakers: Speakers,
        *,
        relays: Iterable[str] = (),
        sending_domains: Iterable[str] = (),
    ) -> None:
        self.resolver = resolver
        self.authenticator = authenticator
        self.speakers = speakers
        self.relays = tuple(map(ipaddress.ip_network, relays))
        self.sending_domains = tuple(sending_domains)

    @classmethod
    def of(cls, settings: Settings, speakers: Speakers) -> Checks | None:
        """As the settings ask for; None where nothing is to be checked. Begins to watch whether DNS answers."""
        if not settings.auth.enabled:
            return None
        from mailback.auth import Authenticator, Resolver

        chosen = settings.auth
        resolver = Resolver(chosen.nameservers, timeout_s=chosen.timeout_s, budget_s=chosen.budget_s)
        resolver.watch()
        return cls(
            resolver,
            Authenticator(resolver, settings.authserv_id, trusted_ids=chosen.trusted_authserv_ids),
            speakers,
            relays=chosen.relays,
            sending_domains=settings.mail.sending_domains,
        )

    def inquiry(self, *, at_once: bool = False, since: float | None = None) -> Inquiry:
        """The checks of one message. The time for DNS counts from `since` (`time.monotonic`), or from now."""
        spent = 0.0 if since is None else max(time.monotonic() - since, 0.0)
        return Inquiry(self, self.resolver.lookups(self.resolver.budget_s - spent, at_once=at_once))

    def ours(self, client: str | None) -> bool:
        """Whether a host of ours passed a message on."""
        try:
            parsed = ipaddress.ip_address((client or "").partition("%")[0])
        except ValueError:
            return False
        mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
        return any((mapped or parsed) in network for network in self.relays)


class Inquiry:
    """The checks of one message, with the time that is left for them. For one thread at a time."""

    def __init__(self, checks: Checks, lookups: Lookups) -> None:
        self._checks = checks
        self._lookups = lookups

    @property
    def missed(self) -> bool:
        """Whether something was left out because DNS would have had to be asked."""
        return self._lookups.missed

    def authentication(self, envelope: Envelope, raw: bytes, message: Message) -> Authentication:
        """SPF, DKIM, DMARC and ARC of a message, or what a trusted server before us says. Never raises on mail."""
        checker = self._checks.authenticator
        if not self._checks.ours(envelope.client_address):
            return checker.check(envelope, raw, message, self._lookups)
        upstream = checker.upstream(message)
        if upstream is not None:
            return replace(upstream, authserv_id=checker.authserv_id)
        told = checker.check(replace(envelope, client_address=None), raw, message, self._lookups)
        return replace(told, spf=replace(told.spf, reason="passed on by a host of ours"))

    def shown(self, envelope: Envelope, message: Message, report: Report, told: Authentication) -> Shown:
        """What the authentication means for what a report claims of its recipients. Never raises on mail."""
        voices = tuple(self._voices(envelope, message, report, told))
        domains = _domains(report) if voices or told.spf.result == "fail" else ()
        speaks_for = frozenset(domain for domain in domains if any(self._speaks(voice, domain) for voice in voices))
        posing = (Voice(told.spf.domain),) if told.spf.result == "fail" else ()
        return Shown(
            spf=told.spf.result.value,
            speaks_for=speaks_for,
            related=speaks_for.union(domain for domain in domains if any(self._speaks(who, domain) for who in posing)),
            returned=self._returned(report),
        )

    def _voices(self, envelope: Envelope, message: Message, report: Report, told: Authentication) -> Iterator[Voice]:
        """As whom the message is proven to be written, of those who may speak for others."""
        for author, domain in _proven_authors(envelope, message, told):
            voice = self._checks.speakers.voice(author, domain, report.kind)
            if voice is not None:
                yield voice

    def _speaks(self, voice: Voice, domain: str) -> bool:
        """Whether this domain is his: by its organisational domain, by that of its mail servers, or as we were told."""
        from mailback.auth.domains import aligned

        if voice.anybody or domain in voice.recipients or aligned(voice.domain, domain):
            return True
        return any(aligned(voice.domain, server) for server in self._mail_servers(domain))

    def _mail_servers(self, domain: str) -> tuple[str, ...]:
        from mailback.auth.resolver import UnansweredError

        try:
            found = self._lookups.ask(domain, "MX")
        except UnansweredError:
            return ()
        return tuple(address.domain_key(value[1]) for value in found[:_MOST_MX] if isinstance(value, tuple))

    def _returned(self, report: Report) -> Returned | None:
        original = report.original
        if original is None or b"-signature" not in original.header_block.lower() or not self._checks.sending_domains:
            return None
        return returned(original.header_block, self._checks.sending_domains, self._lookups.txt)


def returned(block: bytes, sending_domains: Iterable[str], records: Records) -> Returned:
    """What a signature of ours on a returned header block proves.

    A recipient is proven where the signed To and Cc name one address. Of several, each has the message, and could
    return it in the name of another.
    """
    from mailback.auth.returned import verify

    proof = verify(block, tuple(sending_domains), records)
    named = frozenset(map(address.key, proof.recipients))
    return Returned(proof.result == "pass", named if len(named) == 1 else frozenset())


def _proven_authors(envelope: Envelope, message: Message, told: Authentication) -> Iterator[tuple[str, str]]:
    """Each address that is proven to have written the message, with its domain; empty for the null sender."""
    from mailback.auth.domains import aligned, mailboxes

    if told.spf.result == "pass":
        yield envelope.sender, told.spf.domain
    froms = message.headers.raw_all("from")
    author = mailboxes(froms[0].decode("utf-8", "replace")) if len(froms) == 1 else []
    if len(author) != 1 or address.domain(author[0]) != told.dmarc.domain:
        return  # none, several, or two readers of the message see different ones
    for each in told.dkim:
        if each.result == "pass" and aligned(each.domain, told.dmarc.domain):
            yield author[0], told.dmarc.domain


def _domains(report: Report) -> tuple[str, ...]:
    """The domains of the recipients that a report names."""
    found: dict[str, None] = {}
    for failure in report.failures[:_MOST_DOMAINS]:
        for who in (failure.original_recipient, failure.recipient, failure.final_recipient):
            domain = address.domain(who) if who else ""
            if domain:
                found[domain] = None
    return tuple(found)[:_MOST_DOMAINS]

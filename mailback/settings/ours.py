"""The sections about mail of ours: which it is, how its return path is signed, what is remembered of it, and what
proves that something answers it.

Emits no log events.
"""

from __future__ import annotations

import socket
from typing import Literal

from pydantic import Field

from mailback.settings.section import Section
from mailback.settings.values import Domain, FilePath, HeaderName, IpAddress, Nameserver, Network


class MailSettings(Section):
    """Which mail is ours."""

    sending_domains: tuple[Domain, ...] = Field(
        (),
        description="Domains that you send from. Mail to these is what comes back; the receiver accepts it.",
        examples=[["example.com"]],
    )
    bounce_domain: Domain | None = Field(
        None,
        description=("Domain of your return paths (envelope senders), where it is not one of the sending domains."),
        examples=["bounce.example.com"],
    )
    sending_addresses: tuple[IpAddress, ...] = Field(
        (),
        description=(
            "IP addresses that your mail leaves from, as the world sees them. Providers refuse addresses one by one; "
            "with these named, a breaker holds mail only where all of them, or the only one, are refused. Unset: not "
            "known, and a refusal counts for all."
        ),
        examples=[["192.0.2.25", "2001:db8::25"]],
    )
    hostname: Domain | None = Field(
        None,
        description=("Name that greets SMTP clients and stands in `Received` lines. Unset: this host's full name."),
        examples=["mx.example.com"],
    )
    campaign_headers: tuple[HeaderName, ...] = Field(
        (
            "X-Campaign-ID", "X-CampaignID", "X-Campaign", "X-Mailgun-Campaign-ID", "X-Mailgun-Tag",
            "X-SES-Configuration-Set", "X-SES-Message-Tags", "X-MC-Tags", "X-PM-Tag", "X-Mailer-Campaign",
            "X-CSA-Complaints-Campaign", "Feedback-ID",
        ),
        description=(
            "Header fields of your own mail that tell its campaign; read from the message that a bounce "
            "returns, the first one present counts."
        ),
    )  # fmt: skip
    list_headers: tuple[HeaderName, ...] = Field(
        ("List-Id", "X-List-ID", "X-Mailman-List", "X-BeenThere", "Mailing-List"),
        description="Header fields of your own mail that tell its mailing list.",
    )
    subscriber_headers: tuple[HeaderName, ...] = Field(
        ("X-Subscriber-ID", "X-Subscriber", "X-Contact-ID", "X-Recipient-ID"),
        description="Header fields of your own mail that tell the subscriber it went to.",
    )

    @property
    def host_name(self) -> str:
        """`hostname`, or this host's full name where it is unset."""
        return self.hostname or socket.getfqdn()


class SigningSettings(Section):
    """Signed return paths: what comes back proves that it answers mail of yours."""

    secret_file: FilePath | None = Field(
        None,
        description=(
            "File with the keys that return paths are signed with, made by `mailback signing keygen`; unset, nothing "
            "is signed. Needs `mail.bounce_domain`: signed return paths lie there, and mail from the null sender to "
            "any other address there is refused."
        ),
        examples=["/etc/mailback/return-path.key"],
    )
    max_age_days: int = Field(
        14,
        ge=2,
        le=365,
        description=(
            "Days that a return path counts after it was given out. A bounce comes within the five days that a queue "
            "keeps mail, mostly; vacation notices and slow gateways take longer."
        ),
    )
    exempt_recipients: tuple[str, ...] = Field(
        (),
        description=(
            "Recipients, as addresses or whole domains, whose mail goes out with the return path as it is: mailing "
            "lists that know their posters by it."
        ),
        examples=[["lists.example.org", "talk@example.net"]],
    )


class JournalSettings(Section):
    """What went out: the proof of what comes back, and the thread of a reply."""

    outbound: bool = Field(
        True,
        description=(
            "Remember outgoing mail: the milter writes Message-ID, sender, recipients, campaign, list, subscriber, "
            "subject and the beginning of the text before it lets a message go."
        ),
    )
    text_bytes: int = Field(
        2048, ge=0, le=65_536, description="Octets of the visible text that are kept of a message; 0 keeps none."
    )
    retention_days: int = Field(
        90, ge=1, le=3650, description="Days that an entry is kept; `mailback store maintain` removes older ones."
    )


class AuthSettings(Section):
    """Authentication of what comes in: SPF, DKIM, DMARC and ARC."""

    enabled: bool = Field(
        True,
        description=(
            "Find out who brought a message: it grades reports, and stands in one `Authentication-Results` field on "
            "top of what is passed on. A dead DNS server costs a message `budget_s` at most, and nothing once it is "
            "known to be dead."
        ),
    )
    authserv_id: Domain | None = Field(
        None,
        description=(
            "Name that we write results under; incoming fields that bear it are removed. Unset: `mail.hostname`, else "
            "this host's full name. No other filter of this host may use the same."
        ),
        examples=["mx.example.com"],
    )
    nameservers: tuple[Nameserver, ...] = Field(
        (),
        description="DNS servers to ask; none means those of `/etc/resolv.conf`. One on this host is best.",
        examples=[["127.0.0.1", "192.0.2.53:5353"]],
    )
    timeout_s: float = Field(2.0, gt=0, le=60, description="Seconds that one DNS question may take.")
    budget_s: float = Field(
        5.0,
        gt=0,
        le=120,
        description=(
            "Seconds that all DNS questions of one message may take together; after that the result is `temperror`."
        ),
    )
    relays: tuple[Network, ...] = Field(
        ("127.0.0.0/8", "::1/128"),
        description=(
            "Hosts of yours that pass on what comes from outside, this one included. SPF is not judged for them, as "
            "their addresses are in nobody's record."
        ),
        examples=[["127.0.0.0/8", "192.0.2.0/28"]],
    )
    trusted_authserv_ids: tuple[Domain, ...] = Field(
        (),
        description=(
            "Names under which a relay of yours writes `Authentication-Results`. Its topmost field is believed, on "
            "mail from `relays` only. It must itself remove such fields from what comes to it."
        ),
        examples=[["edge.example.com"]],
    )


class TrustSettings(Section):
    """How far a report is believed."""

    require: Literal["auto", "always", "never"] = Field(
        "auto",
        description=(
            "Whether a report needs proof that it answers mail of yours before it suppresses anybody. "
            "`auto` asks for it as soon as return paths are signed."
        ),
    )

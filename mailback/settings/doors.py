"""The sections of the doors: the receiver, the milter, Postfix's questions, its log, the HTTP interface.

Emits no log events.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mailback.settings.section import RESTART, Section
from mailback.settings.values import (
    Domain,
    FilePath,
    FilePaths,
    Listens,
    Network,
    ReceiverListens,
    Route,
    SocketMode,
    TimeZone,
)


class SmtpdSettings(Section):
    """The receiver: an SMTP or LMTP server of its own, behind an MTA or alone on port 25."""

    listen: ReceiverListens = Field(
        (),
        description=(
            'Where the receiver listens; unset, it is off. Put "lmtp:" before an address to speak LMTP '
            'there, and use "fd:NAME" for a socket that systemd opened.'
        ),
        examples=["127.0.0.1:8025"],
    )
    next_hop: Route | None = Field(
        None,
        description=(
            "Where people's mail goes on to. Needed when the receiver is on: what to do with a person's "
            "reply is too important to be assumed."
        ),
        examples=["maildir:/var/lib/mailback/inbox"],
    )
    bounces_to: Route = Field(
        "discard",
        description="Where a machine's mail (bounces, delay notices, auto-replies) goes once it is recorded.",
    )
    quarantine_to: Route | None = Field(
        None,
        description=(
            "Where replies that are held for a person go. Unset: the Maildir `quarantine` in `service.state_directory`."
        ),
        examples=["maildir:/var/lib/mailback/quarantine"],
    )
    domains: tuple[Domain, ...] | None = Field(
        None,
        description=(
            "Recipient domains that the receiver accepts from anybody. Unset: `mail.sending_domains` and "
            "`mail.bounce_domain`."
        ),
        examples=[["example.com"]],
    )
    trusted_clients: tuple[Network, ...] = Field(
        ("127.0.0.0/8", "::1/128"),
        description=(
            "Clients that may send to any recipient. Whoever else is listed here may relay through this host."
        ),
    )
    workers: int = Field(1, ge=0, le=256, description="Receiver processes; 0 is one a core.")
    max_message_bytes: int = Field(
        26_214_400,
        ge=1024,
        le=1 << 31,
        description=("Largest message accepted, in octets (announced as SIZE); a larger one is refused with 552."),
    )
    max_recipients: int = Field(
        1000, ge=1, le=100_000, description="Recipients of one message; RFC 5321 asks for at least 100."
    )
    max_connections: int = Field(500, ge=1, le=100_000, description="Open connections of one worker process.")
    max_connections_per_client: int = Field(
        50, ge=1, le=100_000, description="Open connections from one IP address, in one worker process."
    )
    max_messages_per_minute_per_client: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Messages a minute from one IP address, in one worker process; 0 is no limit.",
    )
    command_timeout_s: float = Field(
        300,
        gt=0,
        le=3600,
        description=("Seconds to wait for a client's next command (RFC 5321 section 4.5.3.2.7)."),
    )
    data_timeout_s: float = Field(
        600,
        gt=0,
        le=7200,
        description=("Seconds within which the whole of a message must arrive and be committed."),
    )
    drain_timeout_s: float = Field(
        30,
        ge=0,
        le=600,
        description=("Seconds that open connections have left to finish when the receiver stops."),
    )
    tls_certificate_file: FilePath | None = Field(
        None,
        description="Certificate chain (PEM) for STARTTLS; unset, STARTTLS is not offered.",
        examples=["/etc/mailback/tls/fullchain.pem"],
    )
    tls_key_file: FilePath | None = Field(
        None,
        description="Private key (PEM) of the certificate; unset, it is looked for in the certificate file.",
        examples=["/etc/mailback/tls/privkey.pem"],
    )
    tls_required: bool = Field(
        False,
        description=("Refuse mail before STARTTLS. Never for a public MX: most of the world's bounces come without."),
    )
    proxy_protocol: bool = Field(
        False,
        description=("Expect a PROXY protocol header (v1 or v2), as HAProxy sends it, before each conversation."),
    )
    proxy_clients: tuple[Network, ...] = Field(
        ("127.0.0.0/8", "::1/128"),
        description=("Clients whose PROXY header is believed; others are disconnected."),
    )


class MilterSettings(Section):
    """The milter: Mailback within Postfix's own SMTP conversation."""

    listen: Listens = Field(
        (),
        description=(
            "Where the milter listens; unset, it is off. A unix socket costs nothing, an inet socket about "
            "88 ms a message in stalls of the protocol."
        ),
        examples=["unix:/run/mailback/milter.sock"],
    )
    workers: int = Field(0, ge=0, le=256, description="Milter processes; 0 is one a core.")
    failure_action: Literal["tempfail", "accept", "quarantine"] = Field(
        "tempfail",
        description=(
            "What becomes of a message that cannot be recorded: `tempfail` makes the peer keep it, `accept` "
            "lets it through unread, `quarantine` puts it on Postfix's hold queue."
        ),
    )
    socket_mode: SocketMode = Field("0660", description=("File mode of a unix socket."), json_schema_extra=RESTART)
    socket_group: str | None = Field(
        None,
        min_length=1,
        description="Group of a unix socket; Postfix must be in it. Unset: the group that Mailback runs as.",
        examples=["postfix"],
        json_schema_extra=RESTART,
    )
    outbound_daemon_names: tuple[str, ...] = Field(
        ("ORIGINATING", "OUTBOUND"),
        description=(
            "Values of `milter_macro_daemon_name` that mark outgoing mail. Mail from an authenticated "
            "client counts as outgoing as well."
        ),
    )
    max_message_bytes: int = Field(
        26_214_400,
        ge=1024,
        le=1 << 31,
        description=("Octets of a message that are read; the rest passes unread and the event is marked as truncated."),
    )
    timeout_s: float = Field(
        300,
        gt=0,
        le=7200,
        description=("Seconds without a word from the MTA after which its connection is dropped."),
    )

    @property
    def socket_mode_bits(self) -> int:
        return int(self.socket_mode, 8)


class PolicydSettings(Section):
    """The recipient check that Postfix asks as a policy service or as a socketmap."""

    listen: Listens = Field(
        (),
        description="Where the Postfix policy service listens (`check_policy_service`); unset, it is off.",
        examples=["127.0.0.1:8892"],
    )
    socketmap: Listens = Field(
        (),
        description=("Where the socketmap server listens (`socketmap:inet:...` in Postfix tables); unset, it is off."),
        examples=["127.0.0.1:8893"],
    )
    socket_mode: SocketMode = Field("0660", description=("File mode of a unix socket."), json_schema_extra=RESTART)
    socket_group: str | None = Field(
        None,
        min_length=1,
        description="Group of a unix socket; Postfix must be in it. Unset: the group that Mailback runs as.",
        examples=["postfix"],
        json_schema_extra=RESTART,
    )
    workers: int = Field(1, ge=0, le=256, description="Processes that answer; 0 is one a core.")

    @property
    def socket_mode_bits(self) -> int:
        return int(self.socket_mode, 8)


class FollowSettings(Section):
    """Postfix's log as it is written: what became of each message of yours, refusals that never became a bounce too."""

    files: FilePaths = Field(
        (),
        description=(
            "Log files that Postfix writes, directly (`maillog_file`) or through syslog; followed across rotation. "
            "Unset (and `journal` off), nothing is followed. Mailback's user must be able to read them and to list "
            "their folder."
        ),
        examples=["/var/log/mail.log"],
    )
    journal: bool = Field(
        False, description="Follow systemd's journal instead of a file; Mailback's user must be in `systemd-journal`."
    )
    journal_matches: tuple[str, ...] = Field(
        ("SYSLOG_FACILITY=2",),
        description="Which entries of the journal, as `journalctl` takes them; the default is all of the mail system.",
    )
    relays: tuple[str, ...] = Field(
        (),
        description=(
            "Next hops that hand mail on: smart hosts, content filters; by host name, IP address or the name of a pipe "
            "service. What they take is not delivered yet. Filters on this host that give mail back to Postfix are "
            "recognised without this."
        ),
        examples=[["relay.example.net", "192.0.2.25"]],
    )
    mailbox_programs: tuple[str, ...] = Field(
        ("cyrus", "deliver", "dovecot", "dovecot-lda", "lda", "maildrop", "procmail"),
        description=(
            "Services of `pipe` in master.cf that deliver into mailboxes. What any other program takes counts as "
            "handed on: it may be a filter."
        ),
    )
    timezone: TimeZone | None = Field(
        None,
        description="Zone of log lines that tell none (`Nov 25 22:08:41`). Unset: this host's.",
        examples=["Europe/Zurich"],
    )

    @property
    def on(self) -> bool:
        return bool(self.files or self.journal)


class WebSettings(Section):
    """The HTTP interface: one-click unsubscribing and the API; behind a reverse proxy that speaks TLS."""

    listen: Listens = Field(
        (),
        description="Where the HTTP interface listens; unset, it is off. Needs the extra `web`.",
        examples=["127.0.0.1:8894"],
    )
    public_url: str | None = Field(
        None,
        pattern=r"https?://[^\s<>,]+",
        description="The URL under which the proxy shows it to the world; links to unsubscribe by begin with it.",
        examples=["https://mail.example.com"],
    )
    key_file: FilePath | None = Field(
        None,
        description="File with the key that the API asks for (`Authorization: Bearer KEY`); unset, the API is off.",
        examples=["/etc/mailback/api.key"],
        json_schema_extra=RESTART,
    )

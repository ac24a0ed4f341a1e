"""The configuration: every key with its type, default, meaning and checks.

The fields here are the one source. `config/mailback.toml` and `docs/configuration.md` are written from them
(`mailback config show --template`, `--markdown`) and a test holds the three equal.

A file that is wrong is told whole: `Settings.load` raises `SettingsError` with *every* problem, each with its line and
with what was expected instead. Any key can be set from the environment too (`MAILBACK_STORE_URL` is `url` of
`[store]`); the environment outranks the file. Emits no log events: the caller shows the problems.
"""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import re
import socket
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from mailback import locations
from mailback.address import is_address
from mailback.toml_lines import key_lines

if TYPE_CHECKING:
    from mailback.message import Limits

# Problems ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and what would be right."""

    file: str
    """The configuration file, or `environment`."""
    line: int
    """From 1; 0 where no line is to blame (a key that is missing, an environment variable)."""
    key: str
    """`section.key`, a section, the name of an environment variable, or empty for the file as a whole."""
    what: str
    expected: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        told = ": ".join(part for part in (place, self.key, self.what) if part)
        return f"{told}; expected {self.expected}" if self.expected else told


class SettingsError(Exception):
    """The configuration cannot be used; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


# Values -----------------------------------------------------------------------------------------------------


class Address(NamedTuple):
    """What a `listen` string names, as far as two of them can collide."""

    family: Literal["tcp", "unix", "fd"]
    host: str
    """IP address or name (`*`: any), path of a unix socket, or name of a passed file descriptor."""
    port: int
    lmtp: bool

    def collides(self, other: Address) -> bool:
        """True where both cannot listen at once: the same socket, or one is the wildcard of the other's port."""
        if self.family != other.family or self.port != other.port:
            return False
        if self.family != "tcp":
            return self.host == other.host
        if self.port == 0:
            return False  # asks for any free port
        hosts = {self.host, other.host}
        if len(hosts) == 1 or "*" in hosts:
            return True
        same_version = (":" in self.host) == (":" in other.host)
        return same_version and not hosts.isdisjoint({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


_INET = re.compile(r"inet6?:(\d{1,5})@([^@/\s]+)")
_HOST_PORT = re.compile(r"(\[[^\[\]\s]+\]|[^\[\]:/@\s]*):(\d{1,5})")
_FD = re.compile(r"fd:([!-9;-~]{1,255})")  # systemd.socket(5): printable ASCII without the colon
_UNIX_PATH_LIMIT = 107  # sun_path of Linux holds 108 octets with the closing NUL
_LISTEN = '"127.0.0.1:8025", "[::1]:8025", "*:8025", "unix:/run/mailback/NAME.sock", "inet:8891@127.0.0.1" or "fd:NAME"'
_ROUTE = '"smtp:HOST:PORT", "lmtp:HOST:PORT", "lmtp:unix:/PATH", "maildir:/PATH" or "discard"'


def listen_address(listen: str) -> Address:
    """What a `listen` string names. Raises ValueError with the reason."""
    lmtp = listen.startswith("lmtp:")
    place = listen.removeprefix("lmtp:")
    for prefix in ("unix:", "local:"):
        if place.startswith(prefix):
            return Address("unix", _socket_path(place.removeprefix(prefix)), 0, lmtp)
    if place.startswith("/"):
        return Address("unix", _socket_path(place), 0, lmtp)
    if match := _FD.fullmatch(place):
        return Address("fd", match[1], 0, lmtp)
    if match := _INET.fullmatch(place):
        return Address("tcp", _host(match[2]), _port(match[1]), lmtp)
    if match := _HOST_PORT.fullmatch(place):
        return Address("tcp", _host(match[1]) if match[1] not in ("", "*") else "*", _port(match[2]), lmtp)
    raise ValueError(f"{listen!r} is no address to listen on")


def _socket_path(path: str) -> str:
    """The path made absolute: the name is told to other processes, whose working folder is another."""
    if not path:
        raise ValueError("a unix socket needs a path")
    path = str(Path(path).absolute())
    if len(os.fsencode(path)) > _UNIX_PATH_LIMIT:
        raise ValueError(f"the path of a unix socket may have {_UNIX_PATH_LIMIT} octets, this has more: {path!r}")
    return path


def _port(digits: str) -> int:
    if (port := int(digits)) > 65535:
        raise ValueError(f"{digits} is no port: the highest is 65535")
    return port


def _host(text: str) -> str:
    """An IP address in its one spelling, or a host name in lower case."""
    bare = text.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        if text.startswith("[") or re.fullmatch(r"[\d.]+", bare) or not _is_domain(bare):
            raise ValueError(f"{text!r} is neither an IP address nor a host name") from None
    return bare.lower()


_LABEL = re.compile(r"[^\W_](?:[\w-]{0,61}[^\W_])?|_[\w-]{1,62}")


def _is_domain(text: str) -> bool:
    return 0 < len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.removesuffix(".").split("."))


def _listen(value: str) -> str:
    if listen_address(value).lmtp:
        raise ValueError(f"{value!r}: only the receiver speaks LMTP")
    return _receiver_listen(value)


def _scanner(value: str) -> str:
    address = listen_address(value)
    if address.lmtp or address.family == "fd":
        raise ValueError(f"{value!r} is no socket to connect to")
    if address.family == "tcp" and (address.host == "*" or not address.port):
        raise ValueError(f"{value!r} names no host and port to connect to")
    return f"unix:{address.host}" if address.family == "unix" else value


def _endpoint_url(value: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{value!r} is no URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise ValueError(f"{value!r} is no base of an API")
    if parts.username or parts.password:
        raise ValueError("the key does not belong into the URL: use `key_file`")
    return value


def _receiver_listen(value: str) -> str:
    address = listen_address(value)
    return f"{'lmtp:' if address.lmtp else ''}unix:{address.host}" if address.family == "unix" else value


def _route(value: str) -> str:
    scheme, _, rest = value.partition(":")
    if value == "discard":
        return value
    if scheme == "maildir":
        if not rest:
            raise ValueError(f"{value!r}: a Maildir needs a path")
        return f"maildir:{Path(rest).absolute()}"
    if scheme == "lmtp" and rest.startswith("unix:"):
        return f"lmtp:unix:{_socket_path(rest.removeprefix('unix:'))}"
    match = _HOST_PORT.fullmatch(rest)
    if scheme not in {"smtp", "lmtp"} or match is None:
        raise ValueError(f"{value!r} is no place to send mail on to")
    _host(match[1])
    if not _port(match[2]):
        raise ValueError("0 is no port to connect to")
    return value


def _domain(value: str) -> str:
    if not _is_domain(value):
        raise ValueError(f"{value!r} is no domain name")
    return value.removesuffix(".").lower()


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is no IP address or network: {error}") from None


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f"{value!r} is no IP address") from None


def _transport(value: str) -> str:
    """Name of a service in Postfix's master.cf, with a next hop where it needs one (transport(5))."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(:[!-~]*)?", value):
        raise ValueError(f"{value!r} is no name of a transport")
    return value


def _nameserver(value: str) -> str:
    """As `mailback.auth.resolver` takes it: an address, with a port where it is not 53."""
    match = _HOST_PORT.fullmatch(value)
    host = match[1].removeprefix("[").removesuffix("]") if match else value.removeprefix("[").removesuffix("]")
    if match and _port(match[2]) == 0:
        raise ValueError("0 is no port to ask")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{value!r} is no address of a DNS server") from None
    return value


def _header_name(value: str) -> str:
    if not re.fullmatch(r"[!-9;-~]+", value):  # RFC 5322 section 3.6.8: printable US-ASCII without the colon
        raise ValueError(f"{value!r} is no header field name")
    return value


def _timezone(value: str) -> str:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{value!r} is no time zone of this host") from None
    return value


def _socket_mode(value: str) -> str:
    if not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError(f"{value!r} is no file mode")
    return value


def _store_url(value: str) -> str:
    scheme = value.partition(":")[0]
    if scheme.startswith("postgres"):
        raise ValueError("this version has no PostgreSQL store")
    if scheme not in locations.SCHEMES:
        raise ValueError("not the URL of a database that the store can use")
    if scheme == "sqlite" and locations.sqlite_path(value) is None:
        raise ValueError("a database in memory is gone when the process ends, and no two processes share it")
    return locations.absolute(value)


ROUTES = ("notify_owner", "auto_archive", "require_approval", "escalate", "spam")
"""Where replies go; what is done at each is a setting."""
_TAG_LENGTH = 60


def _tag_of_route(value: str) -> str:
    route, _, tag = value.partition("=")
    if route not in ROUTES:
        raise ValueError(f"{route!r} is no route")
    if not tag.strip() or len(tag) > _TAG_LENGTH or not tag.isprintable():
        raise ValueError(f"{tag!r} cannot stand in a subject: 1 to {_TAG_LENGTH} printable characters can")
    return value


def _address_of_route(value: str) -> str:
    route, _, target = value.partition("=")
    if route not in ROUTES:
        raise ValueError(f"{route!r} is no route")
    if not is_address(target):
        raise ValueError(f"{target!r} is no mail address")
    return value


def _copy_of_route(value: str) -> str:
    return value if value.partition("=")[::2] in ((route, "owner") for route in ROUTES) else _address_of_route(value)


def _address_or_domain(value: str) -> str:
    if not (is_address(value) if "@" in value else _is_domain(value)):
        raise ValueError(f"{value!r} is neither an address nor a domain")
    return value


def _owner(value: str) -> str:
    if value not in ("recipient", "nobody") and not is_address(value):
        raise ValueError(f"{value!r} is no mail address")
    return value


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _path(value: object) -> object:
    """A path given as text (which pydantic's strict mode would refuse), absolute from here on."""
    return Path(value).absolute() if isinstance(value, str) and value else value


FilePath = Annotated[Path, BeforeValidator(_path)]
Domain = Annotated[str, AfterValidator(_domain)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
IpAddress = Annotated[str, AfterValidator(_ip_address)]
Nameserver = Annotated[str, AfterValidator(_nameserver)]
Network = Annotated[str, AfterValidator(_network)]
Transport = Annotated[str, AfterValidator(_transport)]
Route = Annotated[str, AfterValidator(_route)]
SocketMode = Annotated[str, AfterValidator(_socket_mode)]
TagOfRoute = Annotated[str, AfterValidator(_tag_of_route)]
AddressOfRoute = Annotated[str, AfterValidator(_address_of_route)]
CopyOfRoute = Annotated[str, AfterValidator(_copy_of_route)]
AddressOrDomain = Annotated[str, AfterValidator(_address_or_domain)]
ListenString = Annotated[str, AfterValidator(_listen)]
Listens = Annotated[tuple[ListenString, ...], BeforeValidator(_one_or_many)]
ReceiverListens = Annotated[tuple[Annotated[str, AfterValidator(_receiver_listen)], ...], BeforeValidator(_one_or_many)]

_EXPECTED: dict[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: 'a path, such as "/etc/mailback/..."',
    _listen: _LISTEN,
    _endpoint_url: '"https://HOST/v1" or "http://127.0.0.1:PORT/v1"',
    _scanner: '"unix:/run/clamav/clamd.ctl" or "inet:3310@127.0.0.1"',
    _receiver_listen: f'{_LISTEN}, each also with "lmtp:" before it',
    _route: _ROUTE,
    _domain: 'a domain, such as "example.com"',
    _nameserver: 'an IP address, with a port where it is not 53, such as "127.0.0.1" or "[::1]:5353"',
    _network: 'an IP address or network, such as "192.0.2.0/24" or "::1"',
    _tag_of_route: f'"ROUTE=TEXT", such as "spam=[SPAM]"; routes: {", ".join(ROUTES)}',
    _address_of_route: f'"ROUTE=ADDRESS", such as "spam=junk@example.com"; routes: {", ".join(ROUTES)}',
    _copy_of_route: f'"ROUTE=ADDRESS" or "ROUTE=owner"; routes: {", ".join(ROUTES)}',
    _address_or_domain: 'an address or a domain, such as "ada@example.org" or "example.org"',
    _owner: 'an address, "recipient" or "nobody"',
    _ip_address: 'an IP address, such as "192.0.2.25" or "2001:db8::25"',
    _transport: 'a name of master.cf, such as "slow", or one with a next hop, such as "slow:[relay.example.com]"',
    _header_name: 'a header field name, such as "X-Campaign-ID"',
    _socket_mode: 'an octal file mode as a string, such as "0660"',
    _timezone: 'the name of a time zone, such as "Europe/Zurich" or "UTC"',
    _path: 'a path, such as "/var/log/mail.log"',
    _store_url: '"sqlite:////PATH/mailback.db"',
}


def expected(field: FieldInfo) -> str:
    """What a key takes, in words; shown with every problem and in the configuration reference."""
    annotation = _without_none(field.annotation)
    if get_origin(annotation) is tuple:
        element = get_args(annotation)[0]
        single = any(getattr(note, "func", None) is _one_or_many for note in field.metadata)
        return f"{'one, or a list, each' if single else 'a list, each'} {_expected_one(element, ())}"
    return _expected_one(annotation, tuple(field.metadata))


def _without_none(annotation: Any) -> Any:
    members = [member for member in get_args(annotation) if member is not type(None)]
    return members[0] if type(None) in get_args(annotation) and len(members) == 1 else annotation


def _expected_one(annotation: Any, notes: tuple[Any, ...]) -> str:
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        notes = (*notes, *more)
    if get_origin(annotation) is Literal:
        *most, last = (f'"{choice}"' for choice in get_args(annotation))
        return f"{', '.join(most)} or {last}"
    for note in notes:
        if (told := _EXPECTED.get(getattr(note, "func", None))) is not None:
            return told
    bounds = {name: getattr(note, name) for note in notes for name in ("ge", "gt", "le") if hasattr(note, name)}
    words = {"ge": "from {}", "gt": "greater than {}", "le": "to {}"}
    return " ".join([_EXPECTED[annotation], *(words[name].format(bound) for name, bound in bounds.items())])


# Sections ---------------------------------------------------------------------------------------------------

_RESTART: JsonDict = {"restart": True}
"""Marks keys that a reload (SIGHUP) does not change: where the store is, who may connect, who the process has become.

A store elsewhere is an empty one until it is filled: one wrong letter, taken up by a reload, would lift every
suppression.
"""


class Section(BaseModel):
    """Common to all sections: unknown keys are problems, values are never coerced, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=False)


class StoreSettings(Section):
    """Where events, suppressions and the audit trail are kept."""

    url: Annotated[str, AfterValidator(_store_url)] = Field(
        default_factory=locations.default_store_url,
        description=(
            "The database. SQLite is the embedded default and needs no other service; its file must lie on "
            "a local disk (never NFS), in a folder that only Mailback may write to. Unset: `mailback.db` in "
            "`service.state_directory`."
        ),
        examples=["sqlite:////var/lib/mailback/mailback.db"],
        repr=False,
        json_schema_extra={"secret": True, **_RESTART},
    )
    password_file: FilePath | None = Field(
        None,
        description=(
            "File whose content is the password of a database server. This version has SQLite only, which takes none: "
            "leave it unset."
        ),
        examples=["/etc/mailback/store.password"],
        json_schema_extra=_RESTART,
    )
    busy_timeout_s: float = Field(
        5.0,
        gt=0,
        le=300,
        description=(
            "Seconds that a commit waits for another process to finish its own before it gives up. The peer "
            "is then answered 451 and keeps the mail."
        ),
    )
    retention_days: int = Field(
        730,
        ge=30,
        le=36_500,
        description=(
            "Days that an event is kept; `mailback store maintain` removes older ones, except those behind a "
            "suppression that stands, an open review or a message still to be sent again. Statistics, `explain` and "
            "`hygiene` know nothing older; suppressions, their history and the audit trail stay. A report or log that "
            "is older than that and read again is an event again."
        ),
    )


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
    socket_mode: SocketMode = Field("0660", description=("File mode of a unix socket."), json_schema_extra=_RESTART)
    socket_group: str | None = Field(
        None,
        min_length=1,
        description="Group of a unix socket; Postfix must be in it. Unset: the group that Mailback runs as.",
        examples=["postfix"],
        json_schema_extra=_RESTART,
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
    socket_mode: SocketMode = Field("0660", description=("File mode of a unix socket."), json_schema_extra=_RESTART)
    socket_group: str | None = Field(
        None,
        min_length=1,
        description="Group of a unix socket; Postfix must be in it. Unset: the group that Mailback runs as.",
        examples=["postfix"],
        json_schema_extra=_RESTART,
    )
    workers: int = Field(1, ge=0, le=256, description="Processes that answer; 0 is one a core.")

    @property
    def socket_mode_bits(self) -> int:
        return int(self.socket_mode, 8)


class FollowSettings(Section):
    """Postfix's log as it is written: what became of each message of yours, refusals that never became a bounce too."""

    files: Annotated[tuple[FilePath, ...], BeforeValidator(_one_or_many)] = Field(
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
    timezone: Annotated[str, AfterValidator(_timezone)] | None = Field(
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
        json_schema_extra=_RESTART,
    )


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


class PolicySettings(Section):
    """Thresholds of what is done about a bounce."""

    hard_bounces_needed: int = Field(
        1,
        ge=1,
        le=100,
        description=("Permanent failures, on different days (UTC), before an address is suppressed."),
    )
    hold_during_review: bool = Field(
        False,
        description=("Hold an address back while a person looks at its case, at most as long as the rules say."),
    )
    min_confidence: float = Field(
        0.6, ge=0, le=1, description="Verdicts below this confidence do nothing that cannot be undone."
    )
    recent_days: int = Field(
        30,
        ge=1,
        le=3650,
        description=(
            "Days after an open or a click within which somebody counts as a recent reader, whose mailbox has hardly "
            "gone whatever a server says."
        ),
    )
    unproven_per_hour: int = Field(
        2000,
        ge=0,
        le=1_000_000,
        description=(
            "Suppressions without proof that one source (client network, reporting domain) may cause in an hour; the "
            "rest waits for a person. 0 is no limit. The default leaves room for the bounces of a large provider about "
            "a large mailing; lower it where you send less."
        ),
    )
    wave_minimum: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description=(
            "Permanent suppressions of one cause and provider in an hour from which on they may be a wave, which "
            "freezes the rest until `mailback wave undo` or `mailback wave confirm`. 0 is never. The default lets the "
            "dead addresses of a first large mailing pass; lower it to what your own mailings bring."
        ),
    )
    wave_factor: float = Field(
        5.0, ge=1, le=1000, description="How many times the provider's normal rate, over a week, makes it a wave."
    )


class SafetySettings(Section):
    """What else looks at people's mail: a virus scanner."""

    clamd: Annotated[str, AfterValidator(_scanner)] | None = Field(
        None,
        description=(
            "Socket of a clamd, which is asked about every reply before it is answered for; unset, none is asked. A "
            "clamd that does not answer costs no mail: it goes on, noted as not scanned."
        ),
        examples=["unix:/run/clamav/clamd.ctl"],
    )
    clamd_timeout_s: float = Field(
        10.0, gt=0, le=120, description="Seconds that clamd has for one message; the peer waits meanwhile."
    )
    clamd_max_bytes: int = Field(
        26_214_400,
        ge=1024,
        le=1 << 31,
        description=(
            "Octets of the largest message that is scanned. clamd has a limit of its own, `StreamMaxLength`, which "
            "must not be smaller."
        ),
    )


class LlmSettings(Section):
    """An endpoint that is asked what a reply means where Mailback is not sure, after the mail was answered for. Off
    unless `url` is set: the text of such replies leaves this host."""

    url: Annotated[str, AfterValidator(_endpoint_url)] | None = Field(
        None,
        description=(
            "Base of an OpenAI-compatible API, to which `/chat/completions` is added. What it says is a suggestion, "
            "which `mailback review show` shows to the person who decides, and never more. Needs the extra `llm`."
        ),
        examples=["http://127.0.0.1:11434/v1"],
    )
    model: str | None = Field(None, min_length=1, description="Name of the model that is asked.", examples=["qwen3:8b"])
    key_file: FilePath | None = Field(
        None,
        description="File with the key of the API; unset, none is sent, or the one of `key`.",
        examples=["/etc/mailback/llm.key"],
    )
    key: str | None = Field(
        None,
        min_length=1,
        repr=False,
        description="The key itself, best given by the environment. `key_file` outranks it.",
        examples=["sk-..."],
        json_schema_extra={"secret": True, "hidden": True},
    )
    below: float = Field(
        0.6, gt=0, le=1, description="Only replies that were read with less confidence are asked about."
    )
    timeout_s: float = Field(20.0, gt=0, le=300, description="Seconds that the endpoint has for one answer.")
    per_minute: int = Field(10, ge=1, le=10_000, description="Most questions within a minute.")
    per_day: int = Field(500, ge=1, le=10_000_000, description="Most questions of a day (UTC): the budget.")


class ReviewSettings(Section):
    """What waits for a person: `mailback review`."""

    bounce_due_hours: int = Field(
        24,
        ge=1,
        le=8760,
        description=(
            "Hours within which somebody must have decided about a bounce that waits. Replies have deadlines of their "
            "own, by what they ask for (`replies_routes.toml`)."
        ),
    )
    expire_days: int = Field(
        90,
        ge=0,
        le=3650,
        description="Days after which what nobody decided leaves the queue, and nothing is done about it. 0 is never.",
    )
    escalate_unanswered: bool = Field(
        True,
        description=(
            "Put replies for their owner into the review when their deadline passes and nothing went out to the writer "
            "since. The journal tells that, so it must be fed with your answers; while nothing at all goes out by it, "
            "nothing is escalated."
        ),
    )


class RepliesSettings(Section):
    """What people answer: what is done at each route, who is who. Actions of routes are off unless they are set."""

    opt_out_scope: Literal["list", "all"] = Field(
        "list",
        description=(
            "How far an opt-out reaches: `list` holds mail of the list, else of the campaign, that the person answers, "
            "and everything where neither is known; `all` holds everything always."
        ),
    )
    unsafe: Literal["quarantine", "tag"] = Field(
        "quarantine",
        description=(
            "What becomes of a reply that is phishing, abuse or impersonation: held for a person (on Postfix's hold "
            "queue, or in `smtpd.quarantine_to`), or only tagged."
        ),
    )
    malware: Literal["quarantine", "reject", "tag"] = Field(
        "quarantine",
        description="The same for a reply that carries malware, which can be refused with 550 as well.",
    )
    subject_tags: tuple[TagOfRoute, ...] = Field(
        (),
        description="Text put before the subject of replies of a route.",
        examples=[["spam=[SPAM]", "escalate=[CHECK]"]],
    )
    rewrite_to: tuple[AddressOfRoute, ...] = Field(
        (),
        description="Replies of a route are delivered there, and not to whom they were addressed: a queue's mailbox.",
        examples=[["spam=junk@example.com"]],
    )
    copy_to: tuple[CopyOfRoute, ...] = Field(
        (),
        description="Further recipients of replies of a route; `owner` is whose the reply is.",
        examples=[["notify_owner=owner", "require_approval=desk@example.com"]],
    )
    quarantine: tuple[Literal["notify_owner", "auto_archive", "require_approval", "escalate", "spam"], ...] = Field(
        (),
        description="Routes whose replies are held for a person, in the same place as those that are not safe.",
        examples=[["spam"]],
    )
    default_owner: Annotated[str, AfterValidator(_owner)] = Field(
        "recipient",
        description=(
            "Whose a reply is where `replies_owners.toml` and the message that it answers tell no owner: `recipient` "
            "is the mailbox that it came to; with `nobody` a person has to claim it."
        ),
    )
    our_names: tuple[str, ...] = Field(
        (),
        description="Display names of your people: a stranger who writes under one is taken for an impostor.",
        examples=[["Maya Lindqvist"]],
    )
    allow: tuple[AddressOrDomain, ...] = Field(
        (),
        description="Addresses and domains whose replies are never held, malware excepted.",
        examples=[["customer.example"]],
    )


class RetrySettings(Section):
    """When a message that failed for a while should be sent again: advice, `mailback retry due`."""

    multiples: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        (1, 4, 12),
        description=(
            "Delay of each try as a multiple of `retry_after_s` of its row in the handling rules: a cause of one hour "
            "is tried after 1, 4 and 12 hours."
        ),
    )
    reader_multiples: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        (24, 48), description="Further tries for an active reader."
    )
    reader_days: int = Field(
        30, ge=1, le=365, description="Who opened, clicked or replied within so many days is an active reader."
    )
    jitter: float = Field(
        0.1, ge=0, le=0.5, description="How far a delay may differ, as a share of it: what failed together spreads out."
    )
    cost_limit: int = Field(
        10,
        ge=1,
        le=1_000_000,
        description="What the tries of one message to one recipient may cost; each costs `retry_cost` of its row.",
    )
    give_up_days: int = Field(
        14, ge=1, le=365, description="Days after its first failure from which on a message is not tried again."
    )


class ScoreSettings(Section):
    """When bounces that heal by themselves hold an address back: the score of an address, and its escalation."""

    bounces_needed: int = Field(
        3,
        ge=1,
        le=100,
        description=(
            "Soft bounces in a row, on different days (UTC) within the window, that hold an address back. A row of the "
            "handling rules may ask for another number (`escalate_after`)."
        ),
    )
    window_days: int = Field(
        7, ge=1, le=3650, description="Days after which a soft bounce no longer counts (`window_days` of a row)."
    )
    suppress_days: int = Field(
        7, ge=1, le=3650, description="Days that an address is held back, where its row has no `suppress_days`."
    )
    graduate_after: int = Field(
        3,
        ge=1,
        le=1000,
        description="Holds in a row, with nothing delivered in between, of which the last is for ever.",
    )
    memory_days: int = Field(
        365,
        ge=30,
        le=3650,
        description="Days after which an earlier hold is forgotten; `mailback store maintain` removes what is older.",
    )
    delivery_resets: bool = Field(
        True,
        description=(
            "Whether a delivery, an open, a click or a person's reply begins the count anew. Off: only a person who "
            "lifts the suppression does, as with a plain count of bounces."
        ),
    )
    growth: float = Field(
        1.0,
        ge=1,
        le=10,
        description=(
            "How many times as long as the one before each further hold is, of an address that nothing arrived at in "
            "between: with 2, a hold of 7 days is followed by one of 14. 1: all are alike."
        ),
    )
    probe: bool = Field(
        False,
        description=(
            "Whether the first message after a hold is a probe: if it bounces softly, the next hold follows at once "
            "instead of after `bounces_needed` more; if it arrives, the count begins anew."
        ),
    )


class BreakerSettings(Section):
    """What is done while a provider refuses mail because of its sender; `breakers.toml` of the rules says when."""

    act: bool = Field(
        True,
        description=(
            "Hold mail to a provider whose breaker is open: recipients are answered 451 until it ends, then single "
            "messages try. Off: breakers trip and are told (log, `mailback doctor`, `mailback breaker list`), and "
            "mail goes on."
        ),
    )
    hold_transport: Transport | None = Field(
        None,
        description=(
            "Transport of Postfix's master.cf that the socketmap table `transport` sends held mail to. Unset: "
            "Postfix's own `retry`, which defers it with the reason."
        ),
        examples=["held"],
    )
    slow_transport: Transport | None = Field(
        None,
        description=(
            "Transport that mail goes to while a provider asks for less of it; it is then not refused at RCPT. Unset: "
            "such mail passes one message every `pace_s` seconds, and the rest is deferred. A `relayhost` has to be "
            "named again, as the next hop."
        ),
        examples=["slow"],
    )


class CaptureSettings(Section):
    """The check of addresses that somebody enters: `mailback validate`."""

    retention_days: int = Field(
        365,
        ge=1,
        le=3650,
        description="Days that an attempt to enter an address is kept; `mailback store maintain` removes older ones.",
    )


class HygieneSettings(Section):
    """What `mailback hygiene` takes for a sign that nobody is there any more."""

    dormant_days: int = Field(
        180,
        ge=7,
        le=3650,
        description="Days without a read, an answer or (where reads are not told) a message after which to verify.",
    )
    unread_messages: int = Field(
        10,
        ge=1,
        le=10_000,
        description="Messages that arrived without any being read after which to verify an address.",
    )


class ProviderSettings(Section):
    """Who runs the mail of a recipient's domain."""

    look_up: bool = Field(
        True,
        description=(
            "Ask DNS for the MX records of recipients' domains, in the background and never while a client waits: most "
            "domains have their mail run by somebody else. Off: only reports and the domain itself tell the provider."
        ),
    )


class RulesSettings(Section):
    """The rules: patterns, provider quirks, and what is done about each cause."""

    directory: FilePath | None = Field(
        None,
        description=(
            "Folder of your own rule files, named like those that ship (`config/rules/`); they extend and "
            "override them."
        ),
        examples=["/etc/mailback/rules"],
    )


class LimitSettings(Section):
    """Caps of reading one message; past one it is still accepted, and recorded as truncated."""

    max_parts: int = Field(1000, ge=1, le=100_000, description="MIME parts that are read, attached messages' included.")
    max_depth: int = Field(50, ge=1, le=500, description="Levels of nested parts and attached messages.")
    max_header_bytes: int = Field(1 << 20, ge=1024, le=1 << 26, description="Octets of all header blocks together.")
    max_headers: int = Field(2000, ge=10, le=100_000, description="Header fields of one header block.")
    max_text_bytes: int = Field(
        1 << 20, ge=1024, le=1 << 28, description="Octets of one part that are decoded and searched."
    )
    max_recipients: int = Field(20_000, ge=1, le=1_000_000, description="Recipients that are kept of one report.")

    def message_limits(self) -> Limits:
        """These limits as the reader of messages takes them."""
        from mailback.message import Limits

        return Limits(
            max_parts=self.max_parts,
            max_depth=self.max_depth,
            max_header_bytes=self.max_header_bytes,
            max_headers=self.max_headers,
            max_text_bytes=self.max_text_bytes,
            max_groups=self.max_recipients,
        )


class LogSettings(Section):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description=("The least that is logged."),
    )
    format: Literal["auto", "text", "json"] = Field(
        "auto", description="`text` is for people, `json` for machines; `auto` is text."
    )
    addresses: bool = Field(
        False, description="Write whole addresses to the log. Otherwise only their domains are written."
    )


class ServiceSettings(Section):
    """The processes."""

    user: str | None = Field(
        None,
        min_length=1,
        description=(
            "User to become after the sockets are open; only root can. Unset: stay as started (systemd sets the user)."
        ),
        examples=["mailback"],
        json_schema_extra=_RESTART,
    )
    group: str | None = Field(
        None,
        min_length=1,
        description="Group to become. Unset: the primary group of `user`.",
        examples=["mailback"],
        json_schema_extra=_RESTART,
    )
    state_directory: FilePath = Field(
        default_factory=locations.state_directory,
        description=(
            "Folder of the database when `store.url` is unset. Unset: `$STATE_DIRECTORY` (set by systemd), "
            "else `$XDG_STATE_HOME/mailback`, else `~/.local/state/mailback`."
        ),
        examples=["/var/lib/mailback"],
        json_schema_extra=_RESTART,
    )


class Settings(Section):
    """The whole configuration; attribute names are the keys of the file."""

    store: StoreSettings = Field(default_factory=StoreSettings)
    mail: MailSettings = Field(default_factory=MailSettings)
    smtpd: SmtpdSettings = Field(default_factory=SmtpdSettings)
    milter: MilterSettings = Field(default_factory=MilterSettings)
    policyd: PolicydSettings = Field(default_factory=PolicydSettings)
    follow: FollowSettings = Field(default_factory=FollowSettings)
    web: WebSettings = Field(default_factory=WebSettings)
    signing: SigningSettings = Field(default_factory=SigningSettings)
    journal: JournalSettings = Field(default_factory=JournalSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    trust: TrustSettings = Field(default_factory=TrustSettings)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    review: ReviewSettings = Field(default_factory=ReviewSettings)
    safety: SafetySettings = Field(default_factory=SafetySettings)
    llm: LlmSettings = Field(default_factory=LlmSettings)
    replies: RepliesSettings = Field(default_factory=RepliesSettings)
    score: ScoreSettings = Field(default_factory=ScoreSettings)
    breakers: BreakerSettings = Field(default_factory=BreakerSettings)
    providers: ProviderSettings = Field(default_factory=ProviderSettings)
    retry: RetrySettings = Field(default_factory=RetrySettings)
    capture: CaptureSettings = Field(default_factory=CaptureSettings)
    hygiene: HygieneSettings = Field(default_factory=HygieneSettings)
    rules: RulesSettings = Field(default_factory=RulesSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    service: ServiceSettings = Field(default_factory=ServiceSettings)

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, environ: Mapping[str, str] = os.environ, files: bool = True
    ) -> Self:
        """Read and check the configuration in force (`locations.find_config` says which file that is).

        `files=False` leaves out the checks that open other files (certificates, rules): for commands that a person may
        run without the right to read the server's keys. Raises SettingsError with every problem at once.
        """
        found = locations.find_config(path, environ)
        return cls._checked(_Document.read(found, environ), files=files)

    @classmethod
    def loads(cls, text: str, *, environ: Mapping[str, str] | None = None, files: bool = True) -> Self:
        """As `load`, from a text."""
        return cls._checked(_Document.parse("mailback.toml", text, environ or {}), files=files)

    @classmethod
    def _checked(cls, document: _Document, *, files: bool) -> Self:
        settings, bad = document.validated(cls)
        document.blame_missing(bad)
        for conflict in _conflicts(settings, files=files):
            if bad.isdisjoint(conflict.keys):
                document.blame(conflict)
        if document.problems:
            raise SettingsError(sorted(document.problems, key=lambda problem: problem.line))
        return settings

    @cached_property
    def accepted_domains(self) -> frozenset[str]:
        """Recipient domains that the receiver takes mail for from anybody."""
        if self.smtpd.domains is not None:
            return frozenset(self.smtpd.domains)
        return frozenset((*self.mail.sending_domains, *filter(None, [self.mail.bounce_domain])))

    @property
    def authserv_id(self) -> str:
        """The name that results of authentication are written under."""
        name = self.auth.authserv_id or self.mail.host_name
        # A host without a name has an address for one, which would have to be quoted (RFC 8601 section 2.2).
        return name if re.fullmatch(r"[A-Za-z0-9._-]{1,255}", name) else "localhost"

    @property
    def quarantine_route(self) -> str:
        """Where the receiver puts replies that are held for a person."""
        return self.smtpd.quarantine_to or f"maildir:{self.service.state_directory / 'quarantine'}"

    @property
    def serves(self) -> bool:
        """Whether `mailback serve` has anything to do."""
        listens = (self.smtpd.listen, self.milter.listen, self.policyd.listen, self.policyd.socketmap, self.web.listen)
        return any(listens) or self.follow.on

    def warnings(self) -> list[str]:
        """What can be run but is hardly meant; `mailback config check` and the server's start tell it."""
        return list(_warnings(self))

    def needs_restart(self, newer: Settings) -> list[str]:
        """Keys that differ in `newer` and that a reload cannot change."""
        return [
            f"{section}.{key}"
            for section, key, field in all_keys()
            if is_fixed(field) and getattr(getattr(self, section), key) != getattr(getattr(newer, section), key)
        ]

    def keeping_fixed(self, older: Settings) -> Self:
        """These settings, with the values of `older` for the keys that a reload cannot change."""
        kept: dict[str, dict[str, Any]] = {}
        for name in older.needs_restart(self):
            section, key = name.split(".")
            kept.setdefault(section, {})[key] = getattr(getattr(older, section), key)
        return self.model_copy(
            update={section: getattr(self, section).model_copy(update=values) for section, values in kept.items()}
        )


def all_keys() -> Iterator[tuple[str, str, FieldInfo]]:
    """Every key there is, in order: section, key, field."""
    for section, holder in Settings.model_fields.items():
        model = holder.annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        for key, field in model.model_fields.items():
            yield section, key, field


def is_fixed(field: FieldInfo) -> bool:
    """True for a key that only a restart can change."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("restart"))


def is_secret(field: FieldInfo) -> bool:
    """True for a key whose value may hold a password."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("secret"))


def is_hidden(field: FieldInfo) -> bool:
    """True for a key whose whole value is a secret, where others hold one within (a URL with its password)."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("hidden"))


def variable(section: str, key: str) -> str:
    """The environment variable that sets a key."""
    return f"MAILBACK_{section}_{key}".upper()


# Reading ----------------------------------------------------------------------------------------------------


class Conflict(NamedTuple):
    """Something wrong between keys that are each right by themselves; the first key is told."""

    keys: tuple[str, ...]
    what: str
    expected: str


_MOST_SYNTAX_ERRORS = 20
_VARIABLE = re.compile(r"MAILBACK_(?P<section>[A-Z]+)_(?P<key>\w+)")
_PLATFORM = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$")
"""What Kubernetes sets for a service called `mailback` or `mailback-milter`; not meant for us."""
_S = TypeVar("_S", bound="Settings")


class _Document:
    """A configuration file as read, the environment laid over it, and what was found wrong so far."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.data: dict[str, Any] = {}
        self.lines: dict[tuple[str | int, ...], int] = {}
        self.from_environment: dict[tuple[str, str], str] = {}
        self.unread: set[str] = set()  # keys on lines with a syntax error: nothing is known of them
        self.problems: list[Problem] = []

    @classmethod
    def read(cls, path: Path | None, environ: Mapping[str, str]) -> _Document:
        if path is None:
            return cls.parse("", "", environ)
        document = cls(str(path))
        try:
            raw = path.read_bytes()
        except OSError as error:
            document._problem(0, "", f"cannot be read: {error.strerror}", "a readable configuration file")
            return document
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            document._problem(line, "", "is not UTF-8 here", "text in UTF-8")
            return document
        return cls.parse(str(path), text, environ)

    @classmethod
    def parse(cls, file: str, text: str, environ: Mapping[str, str]) -> _Document:
        document = cls(file)
        readable = document._without_syntax_errors(text.replace("\r\n", "\n"))
        if readable is not None:
            document.data = tomllib.loads(readable)
            document.lines = key_lines(readable)
        document._lay_over(environ)
        return document

    def _problem(self, line: int, key: str, what: str, expected_: str) -> None:
        self.problems.append(Problem(self.file, line, key, what, expected_))

    def _without_syntax_errors(self, text: str) -> str | None:
        """The text with lines that are no TOML blanked out, so that what is wrong further down is told as well.

        None where what follows an error cannot be made sense of (an open bracket or string): guesses would mislead.
        """
        lines = text.split("\n")
        for _ in range(_MOST_SYNTAX_ERRORS):
            try:
                tomllib.loads("\n".join(lines))
            except tomllib.TOMLDecodeError as error:
                what, line = _syntax_error(error, len(lines))
            except RecursionError:
                self._problem(0, "", "values are nested too deeply", "what the template shows")
                return None
            else:
                return "\n".join(lines)
            statement = re.match(r"\s*([A-Za-z0-9_-]+)", lines[line - 1])
            self._problem(line, "", what, "")
            if statement is None or "Unclosed" in what or "Unterminated" in what:
                return None
            self.unread.add(statement[1])
            lines[line - 1] = ""
        return None

    def _lay_over(self, environ: Mapping[str, str]) -> None:
        """Values from the environment; an empty one empties a list, and else counts as unset."""
        for section, key, field in all_keys():
            name = variable(section, key)
            if not environ.get(name) and not (name in environ and _is_list(field)):
                continue
            table = self.data.setdefault(section, {})
            if isinstance(table, dict):
                table[key] = _from_text(environ[name], field)
                self.from_environment[section, key] = name
        self._blame_variables(environ)

    def _blame_variables(self, environ: Mapping[str, str]) -> None:
        """Tell variables that set a key of a section which it does not have."""
        known = {variable(section, key) for section, key, _ in all_keys()}
        for name in sorted(environ.keys() - known):
            owner = _VARIABLE.fullmatch(name)
            if owner is None or owner["section"].lower() not in Settings.model_fields or _PLATFORM.search(name):
                continue
            what, wanted = _unknown((owner["section"].lower(), owner["key"].lower()))
            self.problems.append(Problem("environment", 0, name, what.replace("key", "variable", 1), wanted))

    def validated(self, model: type[_S]) -> tuple[_S, set[str]]:
        """The settings without the keys that are wrong, and which those are.

        The rest is validated all the same, so that contradictions between right keys are told in the same breath.
        """
        bad: set[str] = {f"{section}.{key}" for section, key, _ in all_keys() if key in self.unread}
        self._complete_store()
        data = _tuples(self.data)
        try:
            return model.model_validate(data), bad
        except ValidationError as error:
            for found in error.errors(include_url=False):
                place = found["loc"]
                self._blame_value(place, found)
                bad.add(".".join(str(name) for name in place[:2]))
                _remove(data, place[:2])
        return model.model_validate(data), bad

    def _complete_store(self) -> None:
        """Put the password into the URL, or the state folder into the default one."""
        store, service = self.data.setdefault("store", {}), self.data.get("service", {})
        if not isinstance(store, dict) or not isinstance(service, dict):
            return  # told as no table
        directory = service.get("state_directory")
        if "url" not in store and isinstance(directory, str) and directory:
            store["url"] = locations.default_store_url(Path(directory))
        if "password_file" in store:
            self._put_password(store)

    def _put_password(self, store: dict[str, Any]) -> None:
        path, url = store.get("password_file"), store.get("url")
        if not isinstance(path, str):
            return  # told as a value of the wrong type
        if not isinstance(url, str) or not url.startswith("postgresql"):
            self.blame(Conflict(("store.password_file",), "a password without a server", "a PostgreSQL `url`"))
            return
        try:
            store["url"] = locations.with_password(url, Path(path).read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is not text"
            self.blame(Conflict(("store.password_file",), f"{path}: {reason}", "a file that can be read"))

    def blame_missing(self, bad: set[str]) -> None:
        """Tell a key that another makes necessary; the other's own value may be wrong."""
        smtpd = self.data.get("smtpd", {})
        if "smtpd.next_hop" in bad or not isinstance(smtpd, dict) or not smtpd.get("listen") or "next_hop" in smtpd:
            return
        keys = ("smtpd.next_hop", "smtpd.listen")
        self.blame(Conflict(keys, "is missing: people's mail must go somewhere", _ROUTE))

    def _blame_value(self, place: tuple[int | str, ...], found: Any) -> None:
        field = _field(place)
        key = ".".join(str(name) for name in place[:2])
        if found["type"] == "extra_forbidden":
            what, wanted = _unknown(place)
        elif field is None:
            what, wanted = f"{_shown(found['input'])} is no table", f"a table: [{place[0]}]"
        else:
            custom = found.get("ctx", {}).get("error")
            what = str(custom) if custom is not None else f"{_shown(found['input'])} will not do"
            wanted = expected(field)
            if is_secret(field) and custom is None:
                what = f"a {type(found['input']).__name__} will not do"
        self._blame(place, key, what, wanted)

    def _blame(self, place: tuple[int | str, ...], key: str, what: str, wanted: str) -> None:
        name = self.from_environment.get((str(place[0]), str(place[1]))) if len(place) > 1 else None
        if name is not None:
            self.problems.append(Problem("environment", 0, name, what, wanted))
            return
        line = next((self.lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self.lines), 0)
        self._problem(line, key, what, wanted)

    def blame(self, conflict: Conflict) -> None:
        """Tell a contradiction, at the first of its keys that is set."""
        places: list[tuple[int | str, ...]] = [tuple(key.split(".")) for key in conflict.keys]
        place = next(
            (p for p in places if p in self.lines or (str(p[0]), str(p[-1])) in self.from_environment), places[0]
        )
        self._blame(place, conflict.keys[0], conflict.what, conflict.expected)


def _syntax_error(error: tomllib.TOMLDecodeError, last_line: int) -> tuple[str, int]:
    """What tomllib says, and the line; it puts the place into its words only."""
    told = re.fullmatch(r"(.*?) \((?:at line (\d+), column \d+|at end of document)\)", str(error), re.DOTALL)
    if told is None:
        return str(error), 0
    return f"not TOML: {told[1]}", int(told[2]) if told[2] else last_line


def _from_text(text: str, field: FieldInfo) -> object:
    """A value of the environment: text for keys that take text, else as TOML writes it; several by commas or spaces."""
    if _is_list(field):
        return tuple(text.replace(",", " ").split())
    annotation = _without_none(field.annotation)
    if annotation in (bool, int, float):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text  # refused with what was expected
    return text


def _is_list(field: FieldInfo) -> bool:
    return get_origin(_without_none(field.annotation)) is tuple


def _tuples(value: Any) -> Any:
    """Lists as tuples, as strict validation wants them: what is frozen holds no list."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _remove(data: dict[str, Any], place: tuple[int | str, ...]) -> None:
    holder = data if len(place) == 1 else data.get(str(place[0]), {})
    if isinstance(holder, dict):
        holder.pop(str(place[-1]), None)


def _field(place: tuple[int | str, ...]) -> FieldInfo | None:
    return next((field for section, key, field in all_keys() if (section, key) == place[:2]), None)


def _shown(value: object) -> str:
    """A value as the file writes it, short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    told = f'"{value}"' if isinstance(value, str) else str(list(value) if isinstance(value, tuple) else value)
    return told if len(told) <= 80 else f"{told[:77]}..."


def _unknown(place: tuple[int | str, ...]) -> tuple[str, str]:
    """What to say of a section or key that does not exist."""
    from difflib import get_close_matches

    name = str(place[-1])
    if len(place) == 1:
        known = list(Settings.model_fields)
        owner = [section for section, key, _ in all_keys() if key == name]
        kind = "section"
    else:
        known = [key for section, key, _ in all_keys() if section == place[0]]
        owner = [section for section, key, _ in all_keys() if key == name]
        kind = "key"
    if owner:
        return f"unknown {kind}", f"it in {' or '.join(f'[{section}]' for section in owner)}"
    if close := get_close_matches(name, known, n=1, cutoff=0.6):
        return f"unknown {kind}, did you mean {close[0]!r}?", ""
    return f"unknown {kind}", f"one of {', '.join(known)}"


# Contradictions ---------------------------------------------------------------------------------------------


def _conflicts(settings: Settings, *, files: bool) -> Iterator[Conflict]:
    yield from _endpoint_conflicts(settings.llm)
    yield from _listen_conflicts(settings)
    yield from _receiver_conflicts(settings.smtpd)
    if settings.signing.secret_file and not settings.mail.bounce_domain:
        yield Conflict(
            ("signing.secret_file", "mail.bounce_domain"),
            "return paths are signed in a domain of their own, and none is named",
            "`mail.bounce_domain`, or no `secret_file`",
        )
    if files:
        yield from _file_conflicts(settings)


def _endpoint_conflicts(llm: LlmSettings) -> Iterator[Conflict]:
    if llm.url is not None and llm.model is None:
        yield Conflict(("llm.model", "llm.url"), "is missing: the endpoint has to be told which model", "its name")


def _listen_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Two parts, or one twice, on the same address: the second could not start."""
    seen: list[tuple[str, str, Address]] = []
    for key in ("smtpd.listen", "milter.listen", "policyd.listen", "policyd.socketmap", "web.listen"):
        section, name = key.split(".")
        for listen in getattr(getattr(settings, section), name):
            address = listen_address(listen)
            taken = next((f"{listen_} of {key_}" for key_, listen_, other in seen if other.collides(address)), None)
            if taken is not None:
                yield Conflict((key,), f'"{listen}" is already taken by {taken}', "an address of its own")
            seen.append((key, f'"{listen}"', address))


def _receiver_conflicts(smtpd: SmtpdSettings) -> Iterator[Conflict]:
    if smtpd.quarantine_to == "discard":
        yield Conflict(
            ("smtpd.quarantine_to",), "what is held for a person would be thrown away", "a Maildir or server"
        )
    for key in ("next_hop", "bounces_to", "quarantine_to"):
        route: str | None = getattr(smtpd, key)
        if route and any(_leads_to(route, listen) for listen in smtpd.listen):
            yield Conflict(
                (f"smtpd.{key}", "smtpd.listen"),
                f'"{route}" is the receiver itself: mail would go round for ever',
                "another server, a Maildir or discard",
            )
    if smtpd.tls_key_file and not smtpd.tls_certificate_file:
        yield Conflict(
            ("smtpd.tls_key_file", "smtpd.tls_certificate_file"), "a key without a certificate", "both, or neither"
        )
    if smtpd.tls_required and not smtpd.tls_certificate_file:
        yield Conflict(
            ("smtpd.tls_required", "smtpd.tls_certificate_file"),
            "TLS cannot be asked for without a certificate",
            "`tls_certificate_file`",
        )
    if smtpd.proxy_protocol and not smtpd.proxy_clients:
        yield Conflict(
            ("smtpd.proxy_clients", "smtpd.proxy_protocol"),
            "nobody's PROXY header would be believed",
            "the proxy's address",
        )


def _leads_to(route: str, listen: str) -> bool:
    scheme, _, place = route.partition(":")
    return scheme in {"smtp", "lmtp"} and listen_address(place).collides(listen_address(listen))


def _file_conflicts(settings: Settings) -> Iterator[Conflict]:
    for key, path in (
        ("smtpd.tls_certificate_file", settings.smtpd.tls_certificate_file),
        ("smtpd.tls_key_file", settings.smtpd.tls_key_file),
        ("web.key_file", settings.web.key_file),
        ("llm.key_file", settings.llm.key_file),
    ):
        if path is not None and (reason := _unreadable(path)):
            yield Conflict((key,), f"{path}: {reason}", "a file that this user can read")
    secret = settings.signing.secret_file
    if secret is not None and (reason := _unreadable(secret)):
        yield Conflict(
            ("signing.secret_file",),
            f"{secret}: {reason}",
            "a file that this user can read; `mailback signing keygen` makes one",
        )
    yield from _key_conflicts(settings.signing)
    yield from _account_conflicts(settings)
    directory = settings.rules.directory
    if directory is not None and not directory.is_dir():
        yield Conflict(("rules.directory",), f"{directory} is no folder", "an existing folder with your rule files")
    yield from _certificate_conflicts(settings.smtpd)


def _account_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Users and groups that this host does not have."""
    named: tuple[tuple[str, str | None, Callable[[str], object]], ...] = (
        ("service.user", settings.service.user, _user),
        ("service.group", settings.service.group, _group),
        ("milter.socket_group", settings.milter.socket_group, grp.getgrnam),
        ("policyd.socket_group", settings.policyd.socket_group, grp.getgrnam),
    )
    for key, name, look_up in named:
        try:
            if name is not None:
                look_up(name)
        except (KeyError, OverflowError):
            kind = "user" if key.endswith("user") else "group"
            yield Conflict((key,), f"there is no {kind} {name!r}", f"a {kind} of this host")


def _user(name: str) -> object:
    return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)


def _group(name: str) -> object:
    return int(name) if name.isdigit() else grp.getgrnam(name)  # a number needs no entry


def _key_conflicts(signing: SigningSettings) -> Iterator[Conflict]:
    from mailback.returnpath import KeyFileError, Keys

    if signing.secret_file is None or _unreadable(signing.secret_file):
        return
    try:
        Keys.load(signing.secret_file)
    except KeyFileError as error:
        for problem in error.problems:
            yield Conflict(("signing.secret_file",), problem, "a key file as `mailback signing keygen` makes it")


def _unreadable(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _certificate_conflicts(smtpd: SmtpdSettings) -> Iterator[Conflict]:
    certificate, key = smtpd.tls_certificate_file, smtpd.tls_key_file
    if certificate is None or _unreadable(certificate) or (key is not None and _unreadable(key)):
        return
    import ssl  # only who offers TLS pays for loading it

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        reason = "the key is another certificate's" if "KEY_VALUES_MISMATCH" in str(error) else str(error)
        yield Conflict(
            ("smtpd.tls_certificate_file", "smtpd.tls_key_file"),
            f"{certificate} cannot be used: {reason}",
            "a PEM certificate chain and its own key",
        )


_PRIVATE_URLS = (
    "http://127.",
    "http://localhost",
    "http://[::1]",
    "https://127.",
    "https://localhost",
    "https://[::1]",
)


def _warnings(settings: Settings) -> Iterator[str]:
    if not settings.serves:
        yield "nothing listens or is followed: no section has a `listen`, so `mailback serve` has nothing to serve"
    if settings.smtpd.listen and not settings.accepted_domains:
        yield "[smtpd] accepts mail from trusted_clients only: set mail.sending_domains or smtpd.domains"
    if any(network.endswith("/0") for network in settings.smtpd.trusted_clients):
        yield "[smtpd] trusted_clients holds the whole internet: this is an open relay"
    if any(network.endswith("/0") for network in settings.smtpd.proxy_clients) and settings.smtpd.proxy_protocol:
        yield "[smtpd] proxy_clients holds the whole internet: anybody can claim any client address"
    if settings.trust.require == "always":
        yield 'trust.require is "always": reports that prove nothing suppress nobody, they wait for a person'
    if settings.llm.url is not None and not settings.llm.url.startswith(_PRIVATE_URLS):
        yield "[llm] url: the text of replies that are read with little confidence leaves this host"
    if any(listen_address(listen).family == "tcp" for listen in settings.milter.listen):
        yield "[milter] listens on a TCP port: the protocol stalls about 88 ms a message there, a unix socket does not"

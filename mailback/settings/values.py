"""The types of values: what each takes, the check behind it, and what is expected in words.

A check raises ValueError with the reason, or gives back the value in its one spelling: absolute paths, domains in lower
case. `expected` tells what a key takes, for problems and for the reference. Emits no log events.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator
from pydantic.fields import FieldInfo

from mailback import locations
from mailback.address import is_address
from mailback.settings.listening import HOST_PORT, LISTEN, host, is_domain, listen_address, port, socket_path

ROUTE = '"smtp:HOST:PORT", "lmtp:HOST:PORT", "lmtp:unix:/PATH", "maildir:/PATH" or "discard"'


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
        return f"lmtp:unix:{socket_path(rest.removeprefix('unix:'))}"
    match = HOST_PORT.fullmatch(rest)
    if scheme not in {"smtp", "lmtp"} or match is None:
        raise ValueError(f"{value!r} is no place to send mail on to")
    host(match[1])
    if not port(match[2]):
        raise ValueError("0 is no port to connect to")
    return value


def _domain(value: str) -> str:
    if not is_domain(value):
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
    match = HOST_PORT.fullmatch(value)
    host = match[1].removeprefix("[").removesuffix("]") if match else value.removeprefix("[").removesuffix("]")
    if match and port(match[2]) == 0:
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
    if not (is_address(value) if "@" in value else is_domain(value)):
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
Owner = Annotated[str, AfterValidator(_owner)]
TimeZone = Annotated[str, AfterValidator(_timezone)]
Scanner = Annotated[str, AfterValidator(_scanner)]
EndpointUrl = Annotated[str, AfterValidator(_endpoint_url)]
StoreUrl = Annotated[str, AfterValidator(_store_url)]
FilePaths = Annotated[tuple[FilePath, ...], BeforeValidator(_one_or_many)]
ListenString = Annotated[str, AfterValidator(_listen)]
Listens = Annotated[tuple[ListenString, ...], BeforeValidator(_one_or_many)]
ReceiverListens = Annotated[tuple[Annotated[str, AfterValidator(_receiver_listen)], ...], BeforeValidator(_one_or_many)]
_EXPECTED: dict[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: 'a path, such as "/etc/mailback/..."',
    _listen: LISTEN,
    _endpoint_url: '"https://HOST/v1" or "http://127.0.0.1:PORT/v1"',
    _scanner: '"unix:/run/clamav/clamd.ctl" or "inet:3310@127.0.0.1"',
    _receiver_listen: f'{LISTEN}, each also with "lmtp:" before it',
    _route: ROUTE,
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
    annotation = without_none(field.annotation)
    if get_origin(annotation) is tuple:
        element = get_args(annotation)[0]
        single = any(getattr(note, "func", None) is _one_or_many for note in field.metadata)
        return f"{'one, or a list, each' if single else 'a list, each'} {_expected_one(element, ())}"
    return _expected_one(annotation, tuple(field.metadata))


def without_none(annotation: Any) -> Any:
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
    bounds = {name: getattr(note, name) for note in notes for name in ("ge", "gt", "le", "lt") if hasattr(note, name)}
    words = {"ge": "from {}", "gt": "greater than {}", "le": "to {}", "lt": "and less than {}"}
    return " ".join([_EXPECTED[annotation], *(words[name].format(bound) for name, bound in bounds.items())])

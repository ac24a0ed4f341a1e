"""Addresses to listen on and to connect to: what a string names, and whether two of them can be open at once.

Everything raises ValueError with the reason. Emits no log events.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Literal, NamedTuple


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
HOST_PORT = re.compile(r"(\[[^\[\]\s]+\]|[^\[\]:/@\s]*):(\d{1,5})")
_FD = re.compile(r"fd:([!-9;-~]{1,255})")  # systemd.socket(5): printable ASCII without the colon
_UNIX_PATH_LIMIT = 107  # sun_path of Linux holds 108 octets with the closing NUL
LISTEN = '"127.0.0.1:8025", "[::1]:8025", "*:8025", "unix:/run/mailback/NAME.sock", "inet:8891@127.0.0.1" or "fd:NAME"'


def listen_address(listen: str) -> Address:
    """What a `listen` string names. Raises ValueError with the reason."""
    lmtp = listen.startswith("lmtp:")
    place = listen.removeprefix("lmtp:")
    for prefix in ("unix:", "local:"):
        if place.startswith(prefix):
            return Address("unix", socket_path(place.removeprefix(prefix)), 0, lmtp)
    if place.startswith("/"):
        return Address("unix", socket_path(place), 0, lmtp)
    if match := _FD.fullmatch(place):
        return Address("fd", match[1], 0, lmtp)
    if match := _INET.fullmatch(place):
        return Address("tcp", host(match[2]), port(match[1]), lmtp)
    if match := HOST_PORT.fullmatch(place):
        return Address("tcp", host(match[1]) if match[1] not in ("", "*") else "*", port(match[2]), lmtp)
    raise ValueError(f"{listen!r} is no address to listen on")


def socket_path(path: str) -> str:
    """The path made absolute: the name is told to other processes, whose working folder is another."""
    if not path:
        raise ValueError("a unix socket needs a path")
    path = str(Path(path).absolute())
    if len(os.fsencode(path)) > _UNIX_PATH_LIMIT:
        raise ValueError(f"the path of a unix socket may have {_UNIX_PATH_LIMIT} octets, this has more: {path!r}")
    return path


def port(digits: str) -> int:
    if (port := int(digits)) > 65535:
        raise ValueError(f"{digits} is no port: the highest is 65535")
    return port


def host(text: str) -> str:
    """An IP address in its one spelling, or a host name in lower case."""
    bare = text.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        if text.startswith("[") or re.fullmatch(r"[\d.]+", bare) or not is_domain(bare):
            raise ValueError(f"{text!r} is neither an IP address nor a host name") from None
    return bare.lower()


_LABEL = re.compile(r"[^\W_](?:[\w-]{0,61}[^\W_])?|_[\w-]{1,62}")


def is_domain(text: str) -> bool:
    return 0 < len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.removesuffix(".").split("."))

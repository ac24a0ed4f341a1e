"""How many connections and messages one client, and all together, may have. Counted in each worker process.

Pure bookkeeping on numbers that are handed in; the session decides what to answer. Emits no log events.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

WINDOW_S = 60.0
MAX_CLIENTS_REMEMBERED = 10_000
"""Clients whose message times are kept; past it those that were quiet for a window are forgotten."""


class Networks:
    """A set of IP networks; IPv4 addresses that arrive on an IPv6 socket (`::ffff:192.0.2.1`) count as IPv4."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ip_network(network, strict=False) for network in networks]

    def __contains__(self, address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


def client_key(address: str) -> str:
    """What limits count by: the address, or the /64 of an IPv6 one, which is what a single customer has."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, IPv4Address):
        return str(ip)
    return str(IPv6Network((int(ip) >> 64 << 64, 64)))


def plain_address(address: str) -> str:
    """An IP address in its one spelling: without zone, and IPv4 where it is IPv4 mapped into IPv6."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ip)


class ConnectionLimit:
    """Open connections, in all and by client."""

    def __init__(self, total: int, per_client: int) -> None:
        self._total = total
        self._per_client = per_client
        self._open = 0
        self._by_client: Counter[str] = Counter()

    def enter(self, client: str | None) -> str | None:
        """Count a connection in; the reason why it is one too many, or None. `client` is None on a unix socket.

        A refused connection is not counted and must not be left.
        """
        if self._open >= self._total:
            return "too many connections"
        if client is not None:
            key = client_key(client)
            if self._by_client[key] >= self._per_client:
                return "too many connections from your address"
            self._by_client[key] += 1
        self._open += 1
        return None

    def leave(self, client: str | None) -> None:
        self._open -= 1
        if client is None:
            return
        key = client_key(client)
        self._by_client[key] -= 1
        if not self._by_client[key]:
            del self._by_client[key]

    @property
    def open(self) -> int:
        return self._open


class MessageRate:
    """Messages of a client within the last minute."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._times: dict[str, deque[float]] = {}

    def take(self, client: str | None, now: float) -> bool:
        """Count one message at `now` (monotonic seconds); False, and not counted, when the minute is used up."""
        if not self._per_minute or client is None:
            return True
        key = client_key(client)
        times = self._times.get(key)
        if times is None:
            self._forget(now)
            times = self._times[key] = deque(maxlen=self._per_minute)
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        if len(times) == self._per_minute:
            return False
        times.append(now)
        return True

    def _forget(self, now: float) -> None:
        if len(self._times) < MAX_CLIENTS_REMEMBERED:
            return
        quiet = [key for key, times in self._times.items() if not times or times[-1] <= now - WINDOW_S]
        for key in quiet or list(self._times)[:1]:
            del self._times[key]

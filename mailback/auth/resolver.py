"""The one resolver: DNS over dnspython, cached, and within a budget for each message.

    lookups = resolver.lookups()            # one a message: carries what time and questions are left
    lookups.txt("example.org")              # -> records as bytes; empty when there are none
    lookups.ask("example.org", "MX")        # -> values; raises UnansweredError when DNS gives no answer in time

Bounds. One question takes at most `timeout_s`; all questions of one message together at most `budget_s`, so that a dead
server costs a message that long and no longer, and a thread never hangs. A message asks at most `_MAX_QUESTIONS` times
over the wire (the cache is free). Answers that are there are kept for their TTL within bounds, answers that are not
(no such name, no such record) as RFC 2308 says, failures for a few seconds (RFC 9520), so that a burst of mail from a
domain with dead servers does not pay for each message. The cache is bounded in entries and in octets.

A server that seems dead is asked again for the next name: its silence may be that of the domain asked for, and anybody
can own a domain whose servers are silent. After `_SILENCES` of them in a row a thread asks for the root, which nobody
can silence; if that is not answered either, the server is dead, and until it answers again nothing waits for it.

A message can also be judged by what the cache knows alone (`lookups(at_once=True)`), on an event loop for instance:
`Lookups.missed` tells afterwards whether DNS would have been asked.

Safe to use from any thread; make one in each process, after it forked. Emits no log events: what was not answered is
the `temperror` of the check that asked.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mailback.address import domain_key

if TYPE_CHECKING:
    from dns.message import Message
    from dns.rdata import Rdata

Value = bytes | str | tuple[int, str]
"""TXT: octets, strings joined; A, AAAA: address; PTR: host; MX: preference and host. Names without trailing dot."""
Values = tuple[Value, ...]

_MAX_QUESTIONS = 100  # over the wire, of one message: ten MX mechanisms may ask for eleven each
_MAX_RECORDS = 100
_MAX_ANSWER_OCTETS = 32 * 1024
_LONGEST_LIFE_S = 3600.0
_LONGEST_NEGATIVE_LIFE_S = 300.0  # a record just published should not be missed for long
_SHORTEST_LIFE_S = 1.0  # a TTL of zero still serves the message at hand
_UNTOLD_NEGATIVE_LIFE_S = 30.0
_FAILURE_LIFE_S = 10.0
_UDP_OCTETS = 1232  # fits every path unfragmented; longer answers come by TCP
_ENTRY_OCTETS = 200  # what an entry costs beside its values, roughly
_LEAST_WAIT_S = 0.001
_SILENCES = 3
_PROBE_EVERY_S = 2.0


class UnansweredError(Exception):
    """DNS gave no answer (no server answered in time, SERVFAIL, budget used up); what asked is a `temperror`."""


@dataclass(frozen=True, slots=True)
class _Answer:
    values: Values
    failure: str
    """Why there is no answer; empty when there is one, be it that nothing exists."""
    life_s: float
    octets: int
    silent: bool = False
    """No server said anything."""


class Resolver:
    """DNS servers and the cache in front of them; one serves the whole process."""

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        timeout_s: float = 2.0,
        budget_s: float = 5.0,
        max_entries: int = 20_000,
        max_octets: int = 16 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`nameservers` are `address`, `address:port` or `[address]:port`; none means those of /etc/resolv.conf.

        Raises ValueError that names what is wrong.
        """
        if timeout_s <= 0 or budget_s <= 0:
            raise ValueError("the time-out of a DNS question and the budget of a message must be more than 0 seconds")
        self.timeout_s = timeout_s
        self.budget_s = budget_s
        self._wire = _wire(nameservers, timeout_s)
        self._clock = clock
        self._max_entries = max_entries
        self._max_octets = max_octets
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[str, str], tuple[float, _Answer]] = OrderedDict()
        self._octets = 0
        self._silences = 0
        self._watched = False
        self._dead = threading.Event()

    @property
    def dead(self) -> bool:
        """Whether no server answers anything, so that none is waited for."""
        return self._dead.is_set()

    def lookups(self, budget_s: float | None = None, *, at_once: bool = False) -> Lookups:
        """The questions of one message; their time starts now. `at_once`: the cache is asked, and nothing else."""
        return Lookups(self, self.budget_s if budget_s is None else budget_s, at_once=at_once)

    def answers(self) -> bool:
        """Ask now whether any server answers; blocks for at most `timeout_s`."""
        return _answers(self._wire, self.timeout_s)

    def watch(self) -> None:
        """Find out in a thread whether the servers answer, and while they do not, when they do again."""
        with self._lock:
            if self._watched:
                return
            self._watched = True
        threading.Thread(target=self._watch, name="dns-watch", daemon=True).start()

    def _watch(self) -> None:
        while not self.answers():
            self._dead.set()
            time.sleep(_PROBE_EVERY_S)
        self._dead.clear()
        with self._lock:
            self._silences, self._watched = 0, False

    def cached(self, name: str, kind: str) -> _Answer | None:
        """The answer kept for a name, if it still lives."""
        with self._lock:
            entry = self._cache.get((name, kind))
            if entry is None:
                return None
            if entry[0] <= self._clock():
                self._forget((name, kind))
                return None
            self._cache.move_to_end((name, kind))
            return entry[1]

    def fetch(self, name: str, kind: str, wait_s: float) -> _Answer:
        """Ask the servers and keep what they say. A failure for want of time is not kept: it says nothing of DNS."""
        if self.dead:
            return _failed("no DNS server answers")
        answer = _asked(self._wire, name, kind, min(wait_s, self.timeout_s))
        if not answer.failure or wait_s >= self.timeout_s:
            self._keep((name, kind), answer)
        self._heard(answer)
        return answer

    def _heard(self, answer: _Answer) -> None:
        if not answer.silent:
            self._silences = 0
            return
        with self._lock:
            self._silences += 1
            doubtful = self._silences >= _SILENCES
        if doubtful:
            self.watch()

    def _keep(self, key: tuple[str, str], answer: _Answer) -> None:
        with self._lock:
            self._forget(key)
            self._cache[key] = (self._clock() + answer.life_s, answer)
            self._octets += answer.octets
            while len(self._cache) > self._max_entries or self._octets > self._max_octets:
                self._forget(next(iter(self._cache)))

    def _forget(self, key: tuple[str, str]) -> None:
        entry = self._cache.pop(key, None)
        if entry is not None:
            self._octets -= entry[1].octets


class Lookups:
    """The DNS questions of one message, with the time and number that are left for them. For one thread at a time."""

    __slots__ = ("_at_once", "_deadline", "_questions", "_resolver", "missed")

    def __init__(self, resolver: Resolver, budget_s: float, *, at_once: bool = False) -> None:
        self._resolver = resolver
        self._deadline = time.monotonic() + budget_s
        self._questions = _MAX_QUESTIONS
        self._at_once = at_once
        self.missed = False
        """Something was not in the cache and could not be asked: with time for DNS, the answer may be another one."""

    def ask(self, name: str, kind: str) -> Values:
        """The records of `kind` (`A`, `AAAA`, `MX`, `PTR`, `TXT`) at `name`, aliases followed; empty when there are
        none, or when no such name can exist. Raises UnansweredError."""
        asked = name.rstrip(".").lower() if name.isascii() else domain_key(name)
        if not _can_exist(asked):
            return ()
        answer = self._resolver.cached(asked, kind) or self._fetched(asked, kind)
        if answer.failure:
            raise UnansweredError(answer.failure)
        return answer.values

    def txt(self, name: str) -> tuple[bytes, ...]:
        """TXT records, the strings of each joined. Raises UnansweredError."""
        return tuple(value for value in self.ask(name, "TXT") if isinstance(value, bytes))

    def _fetched(self, name: str, kind: str) -> _Answer:
        if self._at_once and not self._resolver.dead:
            self.missed = True
            raise UnansweredError("DNS was not asked")
        left = self._deadline - time.monotonic()
        if left < _LEAST_WAIT_S:
            raise UnansweredError("the time for DNS was used up")
        if not self._questions:
            raise UnansweredError(f"more than {_MAX_QUESTIONS} DNS questions for one message")
        self._questions -= 1
        return self._resolver.fetch(name, kind, left)


def _can_exist(name: str) -> bool:
    """RFC 1035 section 3.1: labels of 1 to 63 octets, 255 in all; the root itself is never asked for."""
    return len(name) <= 253 and all(0 < len(label) <= 63 for label in name.split("."))


if TYPE_CHECKING:
    from dns.resolver import Resolver as _Wire


def _wire(nameservers: Sequence[str], timeout_s: float) -> _Wire:
    import dns.nameserver
    import dns.resolver

    wire: _Wire | None = _of_this_host() if not nameservers else None
    if wire is None:
        wire = dns.resolver.Resolver(configure=False)
        named = nameservers or _LOCAL
        wire.nameservers = [dns.nameserver.Do53Nameserver(*_endpoint(server)) for server in named]
    wire.use_edns(0, 0, _UDP_OCTETS)
    wire.timeout = timeout_s / 2  # so that one lost packet is sent again
    wire.search = []
    return wire


_LOCAL = ("127.0.0.1",)


def _of_this_host() -> _Wire | None:
    """As /etc/resolv.conf says; None where that names no server, which means one on this host (resolv.conf(5))."""
    import dns.resolver

    try:
        return dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return None


def _endpoint(server: str) -> tuple[str, int]:
    """Address and port; raises ValueError that names what was expected."""
    import ipaddress

    host, port = server, "53"
    if server.startswith("["):
        host, _, rest = server[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif server.count(":") == 1:
        host, port = server.split(":")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"DNS server {server!r}: expected an IP address, with :port if it is not 53") from None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"DNS server {server!r}: expected a port between 1 and 65535")
    return host, int(port)


def _asked(wire: _Wire, name: str, kind: str, wait_s: float) -> _Answer:
    import dns.exception
    import dns.name
    import dns.resolver

    # Label by label: as text, a backslash of an SPF macro would be an escape.
    question = dns.name.Name([*name.encode("ascii").split(b"."), b""])
    try:
        found = wire.resolve(question, kind, lifetime=wait_s, raise_on_no_answer=False, search=False)
    except dns.resolver.NXDOMAIN as gone:
        response: Message = gone.response(question)  # type: ignore[no-untyped-call]
        return _Answer((), "", _negative_life(response), _ENTRY_OCTETS)
    except dns.resolver.LifetimeTimeout:
        return _failed(f"no DNS server answered for {name} in time", silent=True)
    except (dns.exception.DNSException, OSError, ValueError) as error:
        return _failed(f"DNS failed for {name}: {type(error).__name__}")
    if found.rrset is None:
        return _Answer((), "", _negative_life(found.response), _ENTRY_OCTETS)
    records = list(found.rrset)
    size = sum(_size(record) for record in records)
    if len(records) > _MAX_RECORDS or size > _MAX_ANSWER_OCTETS:
        # Dropped, not cut: half of the records could mean the opposite of all. Kept as a failure for as long as others.
        return _failed(f"the DNS answer for {name} is too large to be honest")
    life = min(max(float(found.chaining_result.minimum_ttl), _SHORTEST_LIFE_S), _LONGEST_LIFE_S)
    return _Answer(tuple(map(_READ[kind], records)), "", life, size + _ENTRY_OCTETS)


def _answers(wire: _Wire, wait_s: float) -> bool:
    """Whether the servers answer at all, for the root: it needs no server of a stranger. An error is an answer."""
    import dns.exception
    import dns.name
    import dns.resolver

    try:
        wire.resolve(dns.name.root, "NS", lifetime=wait_s, raise_on_no_answer=False, search=False)
    except dns.resolver.LifetimeTimeout:
        return False
    except (dns.exception.DNSException, OSError, ValueError):
        return True
    return True


def _failed(why: str, *, silent: bool = False) -> _Answer:
    return _Answer((), why, _FAILURE_LIFE_S, _ENTRY_OCTETS, silent)


def _negative_life(response: Message) -> float:
    """RFC 2308 section 5: the lesser of the SOA record's own TTL and its minimum field."""
    import dns.rdatatype

    for rrset in response.authority:
        if rrset.rdtype == dns.rdatatype.SOA:
            life = float(min(rrset.ttl, rrset[0].minimum))
            return min(max(life, _SHORTEST_LIFE_S), _LONGEST_NEGATIVE_LIFE_S)
    return _UNTOLD_NEGATIVE_LIFE_S


def _size(record: Rdata) -> int:
    return sum(map(len, getattr(record, "strings", ()))) + 32


_READ: Final[dict[str, Callable[[Any], Value]]] = {  # by type of record; each has a class of its own
    "A": lambda record: str(record.address),
    "AAAA": lambda record: str(record.address),
    "PTR": lambda record: str(record.target.to_text(omit_final_dot=True)),
    "MX": lambda record: (int(record.preference), str(record.exchange.to_text(omit_final_dot=True))),
    "TXT": lambda record: b"".join(record.strings),
}

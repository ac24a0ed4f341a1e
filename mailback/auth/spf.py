"""SPF: may this client send for the domain of the envelope sender (RFC 7208), by pyspf over our resolver.

pyspf keeps the RFC's limits (ten look-ups, two void ones); the time it may take is the message's budget for DNS. For
the null sender the HELO name is checked (section 2.4). A record longer than `_LONGEST_RECORD` is a permerror: regular
expressions of pyspf take quadratic time, and no honest one is that long (section 3.4 asks for 450 octets).

Imported by the first message that needs it: pyspf takes 100 ms. Emits no log events.
"""

from __future__ import annotations

import contextlib
import ipaddress
from typing import Any, Final

import spf as pyspf  # type: ignore[import-untyped]

from mailback.address import domain_key, split
from mailback.auth.domains import is_domain
from mailback.auth.resolver import Lookups, UnansweredError
from mailback.auth.results import Result, Spf
from mailback.envelope import Envelope

_LONGEST_RECORD = 4 * 1024
_LONGEST_LOCAL = 255
_VOID_LIMIT: Final = pyspf.MAX_VOID_LOOKUPS
_ASKED = frozenset({"A", "AAAA", "MX", "PTR", "TXT"})


class _Query(pyspf.query):  # type: ignore[misc]
    """One evaluation, asking our resolver in place of pyspf's own DNS."""

    def __init__(self, lookups: Lookups, client: str, sender: str, helo: str, receiver: str) -> None:
        super().__init__(i=client, s=sender, h=helo, receiver=receiver, strict=True)
        self._lookups = lookups

    def dns(self, name: str, qtype: str, cnames: Any = None, ignore_void: bool = False) -> list[Any]:  # noqa: ARG002
        """Records as pyspf has them: strings of a TXT record in a tuple. Counts void look-ups (section 4.6.4)."""
        if qtype not in _ASKED:
            return []
        try:
            values = self._lookups.ask(name, qtype)
        except UnansweredError as error:
            raise pyspf.TempError(str(error)) from None
        if not values and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > _VOID_LIMIT:
                raise pyspf.PermError(f"more than {_VOID_LIMIT} look-ups that find nothing")
        return [(value,) for value in values] if qtype == "TXT" else list(values)

    def validated_ptrs(self) -> list[str]:
        """The names of the client that lead back to it; DNS errors on the way are no matches (section 5.5)."""
        found: list[str] = []
        with contextlib.suppress(pyspf.TempError):
            names = self.dns_ptr(self.i)[: pyspf.MAX_PTR]
            for name in names:
                with contextlib.suppress(pyspf.TempError):
                    if self.cidrmatch(self.dns_a(name, self.A), self.cidrmax):
                        found.append(name)
        return found

    def dns_spf(self, domain: str) -> str | None:
        record: str | None = super().dns_spf(domain)
        if record is not None and len(record) > _LONGEST_RECORD:
            raise pyspf.PermError(f"the record of {domain} is too long")
        return record


def evaluate(envelope: Envelope, lookups: Lookups, receiver: str) -> Spf:
    """The result for the envelope sender, or for the HELO name when the sender is null. Never raises on mail."""
    identity = "mailfrom" if envelope.sender else "helo"
    local, host = split(envelope.sender)
    domain = domain_key(host if envelope.sender else (envelope.helo or ""))
    client = _client(envelope.client_address)
    told = Spf(Result.NONE, domain, identity, envelope.sender)
    if client is None:
        return _with(told, Result.NONE, "the client's address is not known")
    if not is_domain(domain):
        # Section 4.3: an address literal, a single label and what is no name at all publish nothing.
        return _with(told, Result.NONE, "no domain that could publish a record")
    sender = f"{local[:_LONGEST_LOCAL]}@{domain}" if envelope.sender else ""
    helo = domain_key(envelope.helo or "") or "unknown"
    query = _Query(lookups, client, sender, helo, receiver)
    try:
        result, _, explanation = query.check()
    except Exception as error:  # pyspf asserts and converts at will: what it chokes on is the record of a stranger
        return _with(told, Result.PERMERROR, f"the record cannot be evaluated: {type(error).__name__}")
    return _with(told, Result(result), _reason(query, Result(result), explanation))


def _client(address: str | None) -> str | None:
    """The address of the peer as SPF compares it; an IPv4 peer of an IPv6 socket is an IPv4 peer."""
    try:
        client = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return None
    mapped = client.ipv4_mapped if isinstance(client, ipaddress.IPv6Address) else None
    return str(mapped or client)


def _with(told: Spf, result: Result, reason: str) -> Spf:
    return Spf(result, told.domain, told.identity, told.address, reason)


def _reason(query: _Query, result: Result, explanation: str) -> str:
    """What matched, or what went wrong. The explanation that a domain publishes is a stranger's text: left out."""
    if result in (Result.PERMERROR, Result.TEMPERROR):
        return explanation.partition("Error: ")[2] or explanation
    if result is Result.NONE:
        return "no SPF record"
    return f"matched {query.mechanism}" if query.mechanism else "nothing matched"

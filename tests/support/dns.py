"""A DNS server on loopback, UDP and TCP on one free port: answers like a recursive resolver, and errs on demand.

    with DnsServer() as server:
        server.add("example.test", "TXT", '"v=spf1 -all"')
        server.err("dead.test", "drop")
        Resolver([server.address])

Names are absolute without the closing dot; values are in zone file syntax. CNAME chains are followed within what the
server knows; a loop is answered with SERVFAIL, or with the records of the loop (`loops_answered`).
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
import time
from dataclasses import dataclass
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.rrset
import dns.zone

_ROOT = dns.name.root
_MAX_CHAIN = 12


@dataclass(frozen=True)
class Question:
    name: str
    kind: str
    transport: str


def txt(*strings: bytes | str) -> str:
    """A TXT value: every argument at most 255 octets, quoted as in a zone file."""
    return " ".join(_quoted(text.encode() if isinstance(text, str) else text) for text in strings)


def long_txt(text: bytes | str) -> str:
    """A TXT value of any length, cut into strings."""
    octets = text.encode() if isinstance(text, str) else text
    return txt(*(octets[at : at + 255] for at in range(0, len(octets), 255)))


def _quoted(octets: bytes) -> str:
    inner = "".join(chr(o) if 32 <= o < 127 and o not in b'"\\' else f"\\{o:03}" for o in octets)
    return f'"{inner}"'


class DnsServer:
    """Everything it is told about lives in one zone at the root."""

    def __init__(self, *, negative_ttl: int = 300, loops_answered: bool = False) -> None:
        self.zone = dns.zone.Zone(_ROOT, relativize=False)
        self.questions: list[Question] = []
        self.negative_ttl = negative_ttl
        self.loops_answered = loops_answered
        self.tcp_drip_s = 0.0
        """A pause after each octet of an answer over TCP."""
        self._errors: dict[tuple[str, str], tuple[str, float]] = {}
        self._udp, self._tcp = _sockets(self)
        self.port = int(self._udp.server_address[1])
        self.address = f"127.0.0.1:{self.port}"

    def add(self, name: str, kind: str, *values: str, ttl: int = 300) -> None:
        """Add records; `kind` is A, TXT, CNAME and the like."""
        node = dns.name.from_text(name)
        rdtype = dns.rdatatype.from_text(kind)
        rdataset = self.zone.find_rdataset(node, rdtype, create=True)
        for value in values:
            rdataset.add(dns.rdata.from_text(dns.rdataclass.IN, rdtype, value, _ROOT, relativize=False), ttl)

    def remove(self, name: str) -> None:
        self.zone.delete_node(dns.name.from_text(name))

    def err(self, name: str, how: str, *, kind: str = "", delay_s: float = 0.0) -> None:
        """Let questions for `name` (`*` for all) fail: `servfail`, `refused`, `drop`, `truncate` (over UDP only),
        `empty`, `garbage`, `delay`, or `spoofed` (forgeries arrive before the answer, over UDP)."""
        self._errors[name.lower(), kind] = how, delay_s

    def heal(self) -> None:
        """Answer everything again."""
        self._errors.clear()

    def asked(self, name: str, kind: str | None = None) -> int:
        """How many questions came for a name."""
        return sum(q.name == name.lower() and kind in (None, q.kind) for q in self.questions)

    def __enter__(self) -> DnsServer:
        for server in (self._udp, self._tcp):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self._udp, self._tcp):
            server.shutdown()
            server.server_close()

    def reply(self, wire: bytes, transport: str) -> bytes | None:
        """The answer to one question; None for silence."""
        query = dns.message.from_wire(wire)
        asked = query.question[0]
        name = asked.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(asked.rdtype)
        self.questions.append(Question(name, kind, transport))
        how, delay_s = self._error(name, kind)
        time.sleep(delay_s)
        if how == "drop":
            return None
        if how == "garbage":
            return b"\x00" * 5
        response = dns.message.make_response(query, recursion_available=True)
        if how in ("servfail", "refused"):
            response.set_rcode(dns.rcode.from_text(how.upper()))
        elif how == "truncate" and transport == "udp":
            response.flags |= dns.flags.TC
        elif how != "empty":
            self._answer(response, asked.name, asked.rdtype)
        limit = max(query.payload, 512) if transport == "udp" else 65535
        return response.to_wire(max_size=limit, prepend_length=False) if _fits(response, limit) else _cut(query)

    def forgeries(self, wire: bytes) -> list[bytes]:
        """What an attacker off the path sends before the answer comes, where a name is to be `spoofed`."""
        query = dns.message.from_wire(wire)
        name = query.question[0].name
        if self._error(name.to_text(omit_final_dot=True).lower(), "")[0] != "spoofed":
            return []
        forged = dns.message.make_response(query, recursion_available=True)
        forged.answer.append(dns.rrset.from_text(name, 300, "IN", "TXT", '"forged"'))
        forged.id ^= 1
        other = dns.message.make_response(dns.message.make_query("other.test.", "TXT", id=query.id))
        other.answer.append(dns.rrset.from_text("other.test.", 300, "IN", "TXT", '"forged"'))
        return [forged.to_wire(), b"junk", other.to_wire()]

    def _error(self, name: str, kind: str) -> tuple[str, float]:
        keys = ((name, kind), (name, ""), ("*", ""))
        return next((found for key in keys if (found := self._errors.get(key))), ("", 0.0))

    def _answer(self, response: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> None:
        seen: list[dns.name.Name] = []
        while len(seen) < _MAX_CHAIN:
            node = self.zone.get_node(name)
            if node is None and not self._has_below(name):
                response.set_rcode(dns.rcode.NXDOMAIN)
            found = node.get_rdataset(dns.rdataclass.IN, rdtype) if node else None
            alias = node.get_rdataset(dns.rdataclass.IN, dns.rdatatype.CNAME) if node and found is None else None
            if found is not None or alias is None:
                self._add(response, name, found)
                return
            if name in seen:
                break
            self._add(response, name, alias)
            seen.append(name)
            name = alias[0].target
        if not self.loops_answered:
            response.answer.clear()
            response.set_rcode(dns.rcode.SERVFAIL)

    def _add(self, response: dns.message.Message, name: dns.name.Name, found: Any) -> None:
        if found is not None:
            response.answer.append(dns.rrset.from_rdata_list(name, found.ttl, list(found)))
            return
        soa = f"ns.test. hostmaster.test. 1 3600 600 86400 {self.negative_ttl}"
        response.authority.append(dns.rrset.from_text(_ROOT, self.negative_ttl, "IN", "SOA", soa))

    def _has_below(self, name: dns.name.Name) -> bool:
        return any(known.is_subdomain(name) for known in self.zone.nodes)


def _fits(response: dns.message.Message, limit: int) -> bool:
    return len(response.to_wire(max_size=65535)) <= limit


def _cut(query: dns.message.Message) -> bytes:
    response = dns.message.make_response(query, recursion_available=True)
    response.flags |= dns.flags.TC
    return response.to_wire()


class _Udp(socketserver.ThreadingUDPServer):
    daemon_threads = True
    dns: DnsServer


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    dns: DnsServer


class _UdpQuestion(socketserver.BaseRequestHandler):
    server: _Udp

    def handle(self) -> None:
        wire, sock = self.request
        for forgery in self.server.dns.forgeries(wire):
            sock.sendto(forgery, self.client_address)
        reply = self.server.dns.reply(wire, "udp")
        if reply is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                sock.sendto(reply, self.client_address)


class _TcpQuestion(socketserver.BaseRequestHandler):
    server: _Tcp

    def handle(self) -> None:
        with contextlib.suppress(OSError, struct.error):
            self.request.settimeout(10)
            (length,) = struct.unpack("!H", self._exactly(2))
            reply = self.server.dns.reply(self._exactly(length), "tcp")
            if reply is not None:
                self._send(struct.pack("!H", len(reply)) + reply)

    def _send(self, data: bytes) -> None:
        step = 1 if self.server.dns.tcp_drip_s else len(data)
        for at in range(0, len(data), step):
            self.request.sendall(data[at : at + step])
            time.sleep(self.server.dns.tcp_drip_s)

    def _exactly(self, octets: int) -> bytes:
        data = b""
        while len(data) < octets and (more := self.request.recv(octets - len(data))):
            data += more
        return data


def _sockets(owner: DnsServer) -> tuple[_Udp, _Tcp]:
    """UDP and TCP on the same port, which takes a try or two."""
    for _ in range(50):
        udp = _Udp(("127.0.0.1", 0), _UdpQuestion)
        try:
            tcp = _Tcp(("127.0.0.1", udp.server_address[1]), _TcpQuestion)
        except OSError:
            udp.server_close()
            continue
        udp.dns = tcp.dns = owner
        return udp, tcp
    raise OSError("no port is free for both UDP and TCP")


def silent_port() -> socket.socket:
    """A UDP socket that never answers: a dead DNS server. Close it when done."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock

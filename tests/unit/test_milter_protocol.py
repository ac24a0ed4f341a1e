"""The milter protocol on the wire, and a session under whatever octets."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailback.outbound.check import ALLOWED, Answer
from mailback_milter import protocol
from mailback_milter.direction import DirectionRules
from mailback_milter.protocol import ProtocolError
from mailback_milter.session import Reading, Rules, Session


class Everybody:
    def answer(self, recipient: str, *, sender: str | None = None, **scope: str | None) -> Answer:
        return ALLOWED


def session() -> Session:
    return Session(Rules(Everybody(), DirectionRules.of(["OUT"], ["news.example"], None), "tempfail", 2000, "mx.test"))


def test_packets_of_a_buffer_end_where_the_next_begins() -> None:
    buffer = protocol.packet(b"H", b"host\0") + protocol.packet(b"T") + b"\0\0\0\x09Mab"
    found = list(protocol.packets(buffer))
    assert found == [(ord("H"), b"host\0", 10), (ord("T"), b"", 15)]


@pytest.mark.parametrize("length", [0, protocol.PACKET_MAX + 1, 0xFFFFFFFF])
def test_a_length_that_nobody_sends_is_an_error(length: int) -> None:
    with pytest.raises(ProtocolError):
        list(protocol.packets(struct.pack("!I", length) + b"M"))


def test_macros_lose_their_braces_and_an_odd_one_is_dropped() -> None:
    data = b"Mi\0004A1\0{daemon_name}\0mx\0{auth_authen}\0j\xf6e\0lonely\0"
    assert protocol.macros(data) == {"i": "4A1", "daemon_name": "mx", "auth_authen": r"j\xf6e"}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"mx.far.example\0004\x09\xdd203.0.113.9\0", ("mx.far.example", "203.0.113.9")),
        (b"mx.far.example\0006\x09\xddIPv6:2001:db8::1\0", ("mx.far.example", "2001:db8::1")),
        (b"localhost\0L\0\0/run/socket\0", ("localhost", None)),
        (b"unknown\0U", ("unknown", None)),
        (b"", ("", None)),
    ],
)
def test_the_peer_of_a_connect(data: bytes, told: tuple[str, str | None]) -> None:
    assert protocol.peer(data) == told


def test_an_older_protocol_is_answered_in_its_version() -> None:
    said = session().take(ord("O"), struct.pack("!III", 2, 0x3F, 0x7F))
    assert isinstance(said, bytes)
    version, actions, steps = struct.unpack("!III", said[5:17])
    assert (version, actions & ~0x3F, steps & ~0x7F) == (2, 0, 0)


commands = st.sampled_from(sorted(b"ABCDEHKLMNOQRTUZ"))


@given(st.lists(st.tuples(commands, st.binary(max_size=80)), max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_octets_make_a_session_raise_anything_else(said: list[tuple[int, bytes]]) -> None:
    it = session()
    it.take(ord("O"), struct.pack("!III", 6, 0x1FF, 0x1FFFFF))
    for command, data in said:
        try:
            answer = it.take(command, data)
        except ProtocolError:
            return
        assert isinstance(answer, bytes | Reading)
        if isinstance(answer, Reading):
            assert len(answer.raw) <= 2000 + len(b"\r\n")


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_framing_loses_and_invents_nothing(octets: bytes) -> None:
    try:
        found = list(protocol.packets(octets))
    except ProtocolError:
        return
    used = found[-1][2] if found else 0
    assert b"".join(protocol.packet(bytes([command]), data) for command, data, _ in found) == octets[:used]

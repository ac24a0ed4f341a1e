"""The socketmap: netstrings whole, split and broken, and every kind of key that Postfix tries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailback.outbound.check import Check
from mailback.outbound.connection import Connections
from mailback.outbound.socketmap import NETSTRING_MAX, SocketmapConnection, netstring
from mailback.store.errors import StoreUnavailable
from mailback.store.records import Suppression

TEXT = b"<ann@example.com>: suppressed since 2026-01-31, hard_bounce/user_unknown (mailback explain ann@example.com)"


class Listed:
    """ann is suppressed; reading fails while `down` is set."""

    def __init__(self) -> None:
        self.down: Exception | None = None
        self.asked: list[str] = []

    def lookup(self, key: str, scopes: Sequence[str] = ("all",), now: datetime | None = None) -> Suppression | None:
        self.asked.append(key)
        if self.down is not None:
            raise self.down
        if key != "ann@example.com":
            return None
        return Suppression(
            key, key, "all", "", "hard_bounce", "user_unknown", "event", datetime(2026, 1, 31, tzinfo=UTC), None
        )


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True


class Peer:
    """A connection with its list and its wire."""

    def __init__(self) -> None:
        self.listed = Listed()
        self.troubles: list[Exception] = []
        self.wire = Wire()
        self.connection = SocketmapConnection(
            Check(self.listed), lambda _, error: self.troubles.append(error), Connections()
        )
        self.connection.connection_made(self.wire)

    def ask(self, *chunks: bytes) -> bytes:
        self.wire.sent = b""
        for chunk in chunks:
            if not self.wire.closed:  # as an event loop does
                self.connection.data_received(chunk)
        return self.wire.sent


def test_access_table_answers_an_action() -> None:
    assert Peer().ask(netstring(b"access ann@example.com")) == netstring(b"OK 550 5.7.1 " + TEXT)


def test_transport_table_answers_the_error_transport() -> None:
    assert Peer().ask(netstring(b"transport ann@example.com")) == netstring(b"OK error:5.7.1 " + TEXT)


@pytest.mark.parametrize(
    "key",
    [b"bob@example.com", b"example.com", b".example.com", b"com", b"ann@", b"@example.com", b"ann", b"*", b"", b"<>",
     b"\xff\xfe@example.com", b"ann@example.com\x00"],
)  # fmt: skip
def test_keys_that_cannot_be_on_the_list_are_not_found(key: bytes) -> None:
    assert Peer().ask(netstring(b"access " + key)) == b"9:NOTFOUND ,"


@pytest.mark.parametrize("key", [b"example.com", b".example.com", b"ann@", b"@example.com", b"ann", b"*", b""])
def test_keys_without_user_or_domain_cost_no_lookup(key: bytes) -> None:
    peer = Peer()
    peer.ask(netstring(b"transport " + key))
    assert peer.listed.asked == []


@pytest.mark.parametrize("question", [b"acces ann@example.com", b"ACCESS ann@example.com", b"access", b"", b" x"])
def test_misspelled_table_is_a_permanent_error_that_names_the_tables(question: bytes) -> None:
    peer = Peer()
    assert peer.ask(netstring(question)) == netstring(b"PERM no such table; there are: access, transport")
    assert not peer.wire.closed


def test_unreadable_store_is_a_temporary_error_so_that_mail_waits() -> None:
    peer = Peer()
    peer.listed.down = StoreUnavailable("disk\nfull", "free some")
    assert peer.ask(netstring(b"access ann@example.com")) == netstring(rb"TEMP disk\x{0A}full")
    peer.listed.down = ValueError("a mistake of ours")
    assert peer.ask(netstring(b"access ann@example.com")).partition(b":")[2].startswith(b"TEMP ")
    assert [type(error) for error in peer.troubles] == [StoreUnavailable, ValueError]


def test_netstrings_split_anywhere_and_run_together_are_all_answered() -> None:
    stream = netstring(b"access ann@example.com") + netstring(b"access x@y.example") + netstring(b"access z")
    whole = Peer().ask(stream)
    assert whole.count(b"NOTFOUND ,") == 2
    for cut in range(1, len(stream)):
        assert Peer().ask(stream[:cut], stream[cut:]) == whole
    assert Peer().ask(*(bytes([octet]) for octet in stream)) == whole


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"hello", b"PERM no netstring"),
        (b"-1:x,", b"PERM no netstring"),
        (b"01:x,", b"PERM no netstring"),
        (b" 5:ab c,", b"PERM no netstring"),
        (b"1234567:", b"PERM no netstring"),
        (b"8:access xX", b"PERM a netstring that does not end with a comma"),
        (b"%d:" % (NETSTRING_MAX + 1), b"PERM a netstring of 100001 octets"),
    ],
)  # fmt: skip
def test_what_is_no_netstring_is_told_so_and_cut_off(sent: bytes, reason: bytes) -> None:
    peer = Peer()
    assert peer.ask(sent) == netstring(reason)
    assert peer.wire.closed


def test_good_questions_before_a_broken_one_are_answered_first() -> None:
    peer = Peer()
    answers = peer.ask(netstring(b"access z") + b"oops")
    assert answers == b"9:NOTFOUND ,17:PERM no netstring,"


def test_question_of_the_largest_size_is_still_a_question() -> None:
    question = b"access " + b"a" * (NETSTRING_MAX - 20) + b"@example.com"
    peer = Peer()
    assert peer.ask(netstring(question)) == b"9:NOTFOUND ,"
    assert not peer.wire.closed


def test_a_length_never_finished_waits_in_bounded_memory() -> None:
    peer = Peer()
    assert peer.ask(b"1", b"2", b"3", b"4", b"5", b"6") == b""
    assert not peer.wire.closed
    assert peer.ask(b"7") == netstring(b"PERM no netstring")


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_no_octets_at_all_make_it_raise_and_every_answer_is_a_netstring(chunks: list[bytes]) -> None:
    sent = Peer().ask(*chunks)
    while sent:
        length, _, rest = sent.partition(b":")
        assert rest[int(length) : int(length) + 1] == b","
        assert rest.startswith((b"OK ", b"NOTFOUND ", b"TEMP ", b"PERM "))
        sent = rest[int(length) + 1 :]

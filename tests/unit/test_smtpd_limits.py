"""Counting clients: nobody escapes the count by spelling an address differently, and no count is kept for ever."""

from __future__ import annotations

import pytest

from mailback_smtpd import limits
from mailback_smtpd.limits import ConnectionLimit, MessageRate, Networks, client_key, plain_address


def test_an_ipv4_address_on_an_ipv6_socket_is_the_same_client() -> None:
    assert plain_address("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain_address("fe80::1%eth0") == "fe80::1"
    assert plain_address("2001:DB8:0::1") == "2001:db8::1"
    assert plain_address("no address") == "no address"


def test_addresses_of_one_ipv6_customer_count_together() -> None:
    assert client_key("2001:db8:0:1::1") == client_key("2001:db8:0:1:ffff::2")
    assert client_key("2001:db8:0:1::1") != client_key("2001:db8:0:2::1")
    assert client_key("192.0.2.1") != client_key("192.0.2.2")


@pytest.mark.parametrize(
    ("address", "inside"), [("127.0.0.9", True), ("::1", True), ("128.0.0.1", False), ("::2", False), ("evil", False)]
)
def test_networks_hold_what_they_say(address: str, inside: bool) -> None:
    assert (address in Networks(["127.0.0.0/8", "::1/128"])) is inside


def test_a_connection_that_was_refused_takes_no_room() -> None:
    limit = ConnectionLimit(total=2, per_client=1)
    assert limit.enter("192.0.2.1") is None
    assert limit.enter("192.0.2.1") == "too many connections from your address"
    assert limit.enter("192.0.2.2") is None
    assert limit.enter("192.0.2.3") == "too many connections"
    limit.leave("192.0.2.1")
    assert limit.enter("192.0.2.3") is None
    assert limit.open == 2


def test_connections_over_a_unix_socket_count_in_all_only() -> None:
    limit = ConnectionLimit(total=3, per_client=1)
    assert [limit.enter(None) for _ in range(4)] == [None, None, None, "too many connections"]


def test_a_minute_slides() -> None:
    rate = MessageRate(2)
    assert [rate.take("a", now) for now in (0.0, 30.0, 59.0)] == [True, True, False]
    assert [rate.take("a", now) for now in (60.0, 61.0, 90.0)] == [True, False, True]
    assert rate.take("b", 61.0)


def test_no_limit_means_none() -> None:
    rate = MessageRate(0)
    assert all(rate.take("a", 0.0) for _ in range(1000))


def test_a_client_with_many_addresses_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CLIENTS_REMEMBERED", 100)
    rate = MessageRate(1)
    for number in range(1000):
        rate.take(f"192.0.{number // 256}.{number % 256}", number * 1.0)
    assert len(rate._times) <= 100

"""Which way a message goes, by what Postfix tells at MAIL."""

from __future__ import annotations

import pytest

from mailback_milter.direction import Direction, DirectionRules, Sender, is_loopback

RULES = DirectionRules.of(["ORIGINATING"], ["News.example", "bücher.example"], "bounce.example")


def sender(
    address: str = "news@news.example",
    *,
    queue_id: str | None = None,
    daemon_name: str | None = "mx.news.example",
    auth_user: str | None = None,
    client_address: str | None = "203.0.113.9",
) -> Sender:
    return Sender(address, queue_id, daemon_name, auth_user, client_address)


@pytest.mark.parametrize(
    ("said", "direction"),
    [
        pytest.param(sender(), Direction.INBOUND, id="our-domain-forged-from-outside"),
        pytest.param(sender("x@far.example"), Direction.INBOUND, id="stranger"),
        pytest.param(sender(""), Direction.INBOUND, id="bounce-from-outside"),
        pytest.param(sender("x@far.example", daemon_name="ORIGINATING"), Direction.OUTBOUND, id="submission-port"),
        pytest.param(sender("", daemon_name="ORIGINATING"), Direction.OUTBOUND, id="receipt-from-submission-port"),
        pytest.param(sender("x@far.example", auth_user="app"), Direction.OUTBOUND, id="logged-in"),
        pytest.param(sender(client_address="127.0.0.1"), Direction.OUTBOUND, id="local-application"),
        pytest.param(sender(client_address="::1"), Direction.OUTBOUND, id="local-application-ipv6"),
        pytest.param(sender("b+1@bounce.example", client_address="::1"), Direction.OUTBOUND, id="our-return-path"),
        pytest.param(sender("x@BÜCHER.example", client_address="::1"), Direction.OUTBOUND, id="spelling-of-the-domain"),
        pytest.param(sender("", client_address="127.0.0.1"), Direction.INBOUND, id="bounce-through-a-content-filter"),
        pytest.param(sender("x@far.example", client_address="127.0.0.1"), Direction.INBOUND, id="content-filter"),
        pytest.param(sender(queue_id="4A1"), Direction.SUBMITTED, id="sendmail-command"),
        pytest.param(sender("", queue_id="4A1"), Direction.REPORT, id="written-by-postfix"),
        pytest.param(
            sender("", queue_id="4A1", daemon_name="ORIGINATING"), Direction.REPORT, id="daemon-name-in-main-cf"
        ),
    ],
)
def test_direction_of(said: Sender, direction: Direction) -> None:
    assert RULES.direction(said) is direction


def test_without_sending_domains_every_local_sender_is_ours() -> None:
    rules = DirectionRules.of([], [], None)
    assert rules.direction(sender("x@far.example", client_address="127.0.0.1")) is Direction.OUTBOUND
    assert rules.direction(sender("", client_address="127.0.0.1")) is Direction.INBOUND
    assert rules.direction(sender("x@far.example")) is Direction.INBOUND


@pytest.mark.parametrize("client", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_loopback_addresses(client: str) -> None:
    assert is_loopback(client)


@pytest.mark.parametrize("client", [None, "", "unknown", "192.0.2.127", "::ffff:192.0.2.1", "2001:db8::1"])
def test_other_addresses_are_not_loopback(client: str | None) -> None:
    assert not is_loopback(client)

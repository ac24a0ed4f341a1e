"""Ways to get an innocent address suppressed, each shown to fail, and each one's twin by a rightful sender, to succeed:
through the one walk, engine and store, over a real DNS server. `tests/support/attacks.py` has the table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from mailback.auth import Authenticator, Resolver
from mailback.engine import Engine, Knowledge
from mailback.envelope import Envelope, Source
from mailback.provenance.authentication import Checks
from mailback.returnpath import Key, Keys, ReturnPaths
from mailback.settings import Settings
from mailback.store import Store
from mailback.store.records import JournalEntry
from tests.support.attacks import (
    ATTACKS,
    DOMAIN,
    SENDER,
    SENDING,
    Attack,
    World,
    names,
    records,
    the_innocent_stay,
    the_rightful_is_believed,
)  # fmt: skip
from tests.support.dns import DnsServer

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEYS = Keys((Key(1, date(2026, 1, 1), b"k" * 32),))
PATHS = ReturnPaths(KEYS, DOMAIN, 14)


class Walk(World):
    """The engine, asked as both doors ask it."""

    def __init__(self, tag: str, folder: Path, server: DnsServer) -> None:
        super().__init__(tag)
        key = folder / "keys"
        key.write_text(KEYS.text())
        settings = Settings.loads(
            f"mail.bounce_domain = '{DOMAIN}'\nmail.sending_domains = ['{SENDING}']\nsigning.secret_file = '{key}'\n"
        )
        self.store = Store.open(f"sqlite:///{folder}/mailback.db")
        self.store.upgrade()
        knowledge = Knowledge.load(settings)
        resolver = Resolver([server.address])
        checks = Checks(
            resolver, Authenticator(resolver, "mx.sender.test"), knowledge.speakers, sending_domains=[SENDING]
        )
        self.engine = Engine(settings, self.store, knowledge, checks)

    @property
    def now(self) -> datetime:
        return NOW

    def send(self, message_id: str, *recipients: str, days_ago: int = 0) -> str:
        at = NOW - timedelta(hours=3, days=days_ago)
        path = PATHS.sign(SENDER, recipients, at)
        assert path is not None
        entry = JournalEntry(at, message_id, SENDER, recipients, return_path=path.partition("@")[0])
        self.store.submit(lambda transaction: transaction.journal(entry)).result()
        return path

    def deliver(self, to: str, raw: bytes, *, sender: str, client: str, helo: str) -> bool:
        if not sender and PATHS.refuses(to, NOW) is not None:
            return False
        envelope = Envelope(
            sender, (to,), source=Source.SMTPD, received_at=NOW, client_address=client, helo=helo
        )  # fmt: skip
        self.engine.inbound(envelope, raw)
        return True

    def suppressed(self) -> set[str]:
        return {suppression.address_key for suppression in self.store.suppressions()}

    def unsubscribe_address(self, recipient: str) -> str:
        return PATHS.unsubscribe_address(recipient, NOW)


@pytest.fixture(scope="module")
def server() -> Iterator[DnsServer]:
    with DnsServer() as running:
        records(running)
        yield running


@pytest.mark.parametrize("attack", ATTACKS, ids=names)
def test_the_innocent_stay(tmp_path: Path, server: DnsServer, attack: Attack) -> None:
    world = Walk(attack.tag, tmp_path, server)
    the_innocent_stay(world, attack)
    world.store.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=names)
def test_the_rightful_twin_is_believed(tmp_path: Path, server: DnsServer, attack: Attack) -> None:
    world = Walk(attack.tag, tmp_path, server)
    the_rightful_is_believed(world, attack)
    world.store.close()

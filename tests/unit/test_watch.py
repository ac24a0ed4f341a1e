"""Providers by MX, asked of a real DNS server in the background; breakers told, and closed by time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailback.auth.resolver import Resolver
from mailback.bounce import rules
from mailback.bounce.providers import ProviderNames
from mailback.engine import Engine
from mailback.outbound.watch import Watch
from mailback.policy.breaker import CLOSED, Terms, claimed, new, tripped
from mailback.recipient.hosting import Hosting
from mailback.recipient.mailhosts import look_up
from mailback.resources import rules_dir
from mailback.settings import Settings
from mailback.store import Store, Transaction
from mailback.store.records import JournalEntry
from tests.support.dns import DnsServer
from tests.support.server import free_port, running, wait_for
from tests.unit.test_breakers import outcome


@pytest.fixture(scope="module")
def names() -> ProviderNames:
    return ProviderNames(rules.load([rules_dir()]))


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        server.add("company.test", "MX", "10 aspmx.l.google.com.", "20 mx.elsewhere.test.")
        server.add("aspmx.l.google.com", "A", "192.0.2.1")
        server.add("small.test", "MX", "10 mx1.hoster.test.")
        server.add("mx1.hoster.test", "AAAA", "2001:db8::1")
        server.add("plain.test", "A", "192.0.2.7")
        server.add("never.test", "MX", "0 .")
        server.add("astray.test", "MX", "10 nowhere.test.")
        server.add("nowhere.test", "TXT", '"no address"')
        server.err("dead.test", "servfail")
        server.err("silent-mx.test", "servfail", kind="A")
        yield server


def resolver(dns: DnsServer) -> Resolver:
    return Resolver([dns.address], timeout_s=1.0, budget_s=3.0)


def wish(store: Store, *domains: str) -> None:
    store.submit(lambda transaction: transaction.wish_domains(domains)).result()


@pytest.mark.parametrize(
    ("domain", "mail", "hosts"),
    [
        ("company.test", "mx", ("aspmx.l.google.com", "mx.elsewhere.test")),
        ("small.test", "mx", ("mx1.hoster.test",)),
        ("plain.test", "address", ()),
        ("never.test", "null_mx", ()),
        ("astray.test", "no_host", ("nowhere.test",)),
        ("missing.test", "none", ()),
        ("dead.test", "unknown", ()),
        ("", "none", ()),
        ("no_such..domain", "none", ()),
    ],
)
def test_where_a_domain_takes_mail(dns: DnsServer, domain: str, mail: str, hosts: tuple[str, ...]) -> None:
    found = look_up(resolver(dns).lookups(), domain)
    assert (found.mail, found.hosts) == (mail, hosts)


def test_mx_hosts_whose_addresses_dns_does_not_tell_are_no_proof_against_a_domain(dns: DnsServer) -> None:
    dns.add("half.test", "MX", "10 silent.test.")
    dns.err("silent.test", "servfail")
    assert look_up(resolver(dns).lookups(), "half.test").mail == "mx"


def test_wished_domains_get_their_provider_and_are_not_asked_again(
    dns: DnsServer, store: Store, names: ProviderNames
) -> None:
    wish(store, "company.test", "small.test", "plain.test", "dead.test")
    watch = Watch(store, names, resolver(dns))
    watch.look()
    watch.look()
    watch.close()
    found = {name: store.mail_domain(name) for name in ("company.test", "small.test", "plain.test", "dead.test")}
    told = {name: (known[0].mail, known[0].provider) for name, known in found.items() if known}
    assert told == {
        "company.test": ("mx", "google"), "small.test": ("mx", "hoster.test"), "plain.test": ("address", None),
        "dead.test": ("unknown", None),
    }  # fmt: skip
    assert store.wished_domains(10) == []
    assert dns.asked("company.test", "MX") == 1
    wish(store, "company.test")
    assert store.wished_domains(10) == [], "what is fresh is not asked for again"


def test_domains_that_mail_goes_to_are_looked_up_before_anything_comes_back(
    dns: DnsServer, store: Store, names: ProviderNames
) -> None:
    watch = Watch(store, names, resolver(dns))
    watch.look()
    entry = JournalEntry(datetime.now(UTC), "<1@sender.test>", "news@sender.test", ("ann@company.test",))
    store.submit(lambda transaction: transaction.journal(entry)).result()
    watch.look()
    watch.close()
    known = store.mail_domain("company.test")
    assert known is not None
    assert known[0].provider == "google"


def test_an_event_is_told_by_mx_and_never_waits_for_dns(dns: DnsServer, store: Store, names: ProviderNames) -> None:
    engine = Engine(Settings(), store)
    engine.observe([outcome(1, domain="company.test", mx="")]).result()
    assert [event.provider for event in store.events()] == [None]
    assert dns.questions == []
    assert store.wished_domains(10) == ["company.test"]
    watch = Watch(store, names, resolver(dns))
    watch.look()
    watch.close()
    engine = Engine(Settings(), store)
    engine.observe([outcome(2, domain="company.test", mx="")]).result()
    assert [event.provider for event in store.events()][-1] == "google"


def test_the_server_that_refuses_tells_the_provider_until_dns_does(
    dns: DnsServer, store: Store, names: ProviderNames
) -> None:
    Engine(Settings(), store).observe([outcome(1, domain="small.test", mx="x.pphosted.com")]).result()
    known = store.mail_domain("small.test")
    assert known is not None
    assert (known[0].provider, known[0].source) == ("proofpoint", "report")
    watch = Watch(store, names, resolver(dns))
    watch.look()
    watch.close()
    known = store.mail_domain("small.test")
    assert known is not None
    assert (known[0].provider, known[0].source) == ("hoster.test", "dns")


def test_memory_forgets_in_time_and_asks_the_store_once(store: Store) -> None:
    asked = []
    now = [0.0]

    def find(name: str) -> None:
        asked.append(name)

    hosting = Hosting(find, lambda: now[0])
    assert [hosting.provider("company.test") for _ in range(5)] == [None] * 5
    assert asked == ["company.test"]
    assert hosting.taken() == ["company.test"]
    assert hosting.taken() == []
    now[0] = 6.0
    hosting.provider("company.test")
    assert asked == ["company.test"] * 2
    assert hosting.provider("not a domain") is None
    assert hosting.taken() == ["company.test"]


def test_what_became_of_breakers_is_logged_once_and_time_closes_them(
    store: Store, names: ProviderNames, capfd: pytest.CaptureFixture[str]
) -> None:
    start = datetime.now(UTC)
    breaker = tripped(new("google", "ip", "*", start - timedelta(days=9)), Terms(), "rate", "why", start)
    store.submit(lambda transaction: transaction.put_breaker(breaker, "test")).result()
    now = [start]
    watch = Watch(store, names, None, lambda: now[0])
    watch.look()
    watch.look()
    now[0] = start + timedelta(hours=1)
    watch.look()
    for number in range(3):
        after = claimed(breaker, f"{number}@gmail.com", "policy:1", start + timedelta(hours=1, minutes=5 * number))
        assert after is not None
        breaker = after
    store.submit(lambda transaction: transaction.put_breaker(breaker, "test")).result()
    now[0] = start + timedelta(hours=2)
    watch.look()
    watch.close()
    said = capfd.readouterr().err
    assert [said.count(f"breaker.{state}") for state in ("opened", "half_open", "closed")] == [1, 1, 1]
    assert [one.state for one in store.breakers()] == [CLOSED]


def test_a_wave_is_told_once_and_so_is_its_end(
    store: Store, names: ProviderNames, capfd: pytest.CaptureFixture[str]
) -> None:
    def begin(transaction: Transaction) -> int:
        return transaction.begin_wave("receiver.test", "user_unknown", datetime.now(UTC), 0.5, timedelta(days=100))

    number = store.submit(begin).result()
    watch = Watch(store, names, None)
    watch.look()
    watch.look()
    told = capfd.readouterr().err
    assert told.count("wave.opened") == 1
    assert "receiver.test" in told
    store.submit(lambda transaction: transaction.undo_wave(number, "operator:ann")).result()
    watch.look()
    watch.look()
    assert capfd.readouterr().err.count("wave.closed") == 1


def test_a_store_that_is_away_is_told_once_and_the_watch_goes_on(
    tmp_path: Path, names: ProviderNames, capfd: pytest.CaptureFixture[str]
) -> None:
    with Store.open(f"sqlite:///{tmp_path}/away/mailback.db") as store:
        watch = Watch(store, names, None)
        watch.look()
        watch.look()
        (tmp_path / "away").mkdir()
        store.upgrade()
        watch.look()
    said = capfd.readouterr().err
    assert said.count("watch.store_unavailable") == 1
    assert said.count("watch.store_back") == 1


def test_the_service_asks_dns_in_the_background_and_tells_breakers(dns: DnsServer, tmp_path: Path) -> None:
    config = tmp_path / "mailback.toml"
    config.write_text(
        f'[store]\nurl = "sqlite:///{tmp_path}/state/mailback.db"\n[policyd]\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[auth]\nnameservers = ["{dns.address}"]\n'
    )
    with running(config) as server, Store.open(f"sqlite:///{tmp_path}/state/mailback.db") as store:
        wish(store, "company.test")
        wait_for(
            lambda: (known := store.mail_domain("company.test")) and known[0].provider == "google", what=server.log()
        )
        now = datetime.now(UTC)
        breaker = tripped(new("google", "ip", "*", now), Terms(), "rate", "why", now)
        store.submit(lambda transaction: transaction.put_breaker(breaker, "test")).result()
        wait_for(lambda: "breaker.opened" in server.log(), what=server.log())
    assert server.stop() == 0

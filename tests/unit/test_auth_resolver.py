"""The resolver against a real DNS server on loopback: what it keeps, what it costs when DNS is dead or hostile."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mailback.auth.resolver import Resolver, UnansweredError
from tests.support.dns import DnsServer, long_txt, silent_port, txt


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as running:
        yield running


@pytest.fixture
def resolver(server: DnsServer) -> Resolver:
    return Resolver([server.address], timeout_s=1.0, budget_s=3.0)


def test_strings_of_a_txt_record_are_joined_without_a_space(server: DnsServer, resolver: Resolver) -> None:
    server.add("a.test", "TXT", txt("v=spf1 ip4:192.0", ".2.1 -all"))
    assert resolver.lookups().txt("A.test") == (b"v=spf1 ip4:192.0.2.1 -all",)


def test_every_kind_of_record_is_read(server: DnsServer, resolver: Resolver) -> None:
    server.add("a.test", "A", "192.0.2.1", "192.0.2.2")
    server.add("a.test", "AAAA", "2001:db8::1")
    server.add("a.test", "MX", "10 MX.a.test.")
    server.add("1.2.0.192.in-addr.arpa", "PTR", "a.test.")
    lookups = resolver.lookups()
    assert sorted(map(str, lookups.ask("a.test", "A"))) == ["192.0.2.1", "192.0.2.2"]
    assert lookups.ask("a.test", "AAAA") == ("2001:db8::1",)
    assert lookups.ask("a.test", "MX") == ((10, "MX.a.test"),)
    assert lookups.ask("1.2.0.192.in-addr.arpa", "PTR") == ("a.test",)


def test_an_answer_is_asked_for_once_until_its_ttl_is_over(server: DnsServer) -> None:
    now = [1000.0]
    resolver = Resolver([server.address], clock=lambda: now[0])
    server.add("a.test", "TXT", txt("one"), ttl=60)
    assert resolver.lookups().txt("a.test") == (b"one",)
    server.remove("a.test")
    server.add("a.test", "TXT", txt("two"), ttl=60)
    now[0] += 59
    assert resolver.lookups().txt("a.test") == (b"one",)
    now[0] += 2
    assert resolver.lookups().txt("a.test") == (b"two",)
    assert server.asked("a.test") == 2


@pytest.mark.parametrize("exists", [False, True])
def test_what_is_not_there_is_remembered_as_long_as_the_soa_says(exists: bool) -> None:
    now = [1000.0]
    with DnsServer(negative_ttl=20) as server:
        if exists:
            server.add("a.test", "A", "192.0.2.1")
        resolver = Resolver([server.address], clock=lambda: now[0])
        assert resolver.lookups().txt("a.test") == ()
        now[0] += 19
        assert resolver.lookups().txt("a.test") == ()
        assert server.asked("a.test") == 1
        now[0] += 2
        assert resolver.lookups().txt("a.test") == ()
        assert server.asked("a.test") == 2


def test_a_negative_answer_is_not_kept_for_the_week_that_a_stranger_asks_for() -> None:
    now = [1000.0]
    with DnsServer(negative_ttl=7 * 86400) as server:
        resolver = Resolver([server.address], clock=lambda: now[0])
        resolver.lookups().txt("a.test")
        now[0] += 301
        resolver.lookups().txt("a.test")
        assert server.asked("a.test") == 2


def test_a_failure_is_remembered_for_some_seconds_only(server: DnsServer) -> None:
    now = [1000.0]
    resolver = Resolver([server.address], clock=lambda: now[0])
    server.err("a.test", "servfail")
    for _ in range(3):
        with pytest.raises(UnansweredError):
            resolver.lookups().txt("a.test")
    first = server.asked("a.test")
    now[0] += 11
    with pytest.raises(UnansweredError):
        resolver.lookups().txt("a.test")
    assert server.asked("a.test") == 2 * first


@pytest.mark.timeout(30)
def test_a_dead_server_costs_a_message_its_budget_and_no_more() -> None:
    with silent_port() as dead:
        resolver = Resolver([f"127.0.0.1:{dead.getsockname()[1]}"], timeout_s=600.0, budget_s=0.7)
        lookups = resolver.lookups()
        for number in range(20):
            with pytest.raises(UnansweredError):
                lookups.txt(f"n{number}.test")


def test_one_dead_server_of_two_does_not_keep_the_answer_from_us(server: DnsServer) -> None:
    server.add("a.test", "TXT", txt("here"))
    with silent_port() as dead:
        resolver = Resolver([f"127.0.0.1:{dead.getsockname()[1]}", server.address], timeout_s=1.0)
        assert resolver.lookups().txt("a.test") == (b"here",)


def test_a_failure_for_want_of_budget_is_not_held_against_the_name(server: DnsServer, resolver: Resolver) -> None:
    server.add("slow.test", "TXT", txt("here"))
    server.err("slow.test", "delay", delay_s=0.2)
    with pytest.raises(UnansweredError):
        resolver.lookups(budget_s=0.05).txt("slow.test")
    assert resolver.lookups().txt("slow.test") == (b"here",)


@pytest.mark.parametrize("how", ["servfail", "refused", "drop", "garbage"])
def test_a_server_that_errs_gives_no_answer_and_no_other_exception(server: DnsServer, how: str) -> None:
    server.err("a.test", how)
    with pytest.raises(UnansweredError):
        Resolver([server.address], timeout_s=0.3).lookups().txt("a.test")


def test_a_truncated_answer_is_asked_for_again_over_tcp(server: DnsServer, resolver: Resolver) -> None:
    server.add("big.test", "TXT", long_txt("x" * 3000))
    server.add("small.test", "TXT", txt("y"))
    server.err("small.test", "truncate")
    assert resolver.lookups().txt("big.test") == (b"x" * 3000,)
    assert resolver.lookups().txt("small.test") == (b"y",)
    assert {q.transport for q in server.questions} == {"udp", "tcp"}


@pytest.mark.timeout(30)
def test_an_answer_that_drips_over_tcp_does_not_hold_a_thread(server: DnsServer) -> None:
    server.add("big.test", "TXT", long_txt("x" * 3000))
    server.tcp_drip_s = 0.02
    lookups = Resolver([server.address], timeout_s=0.4, budget_s=0.6).lookups()
    with pytest.raises(UnansweredError):
        lookups.txt("big.test")


def test_an_answer_forged_from_off_the_path_is_passed_over(server: DnsServer, resolver: Resolver) -> None:
    server.add("a.test", "TXT", txt("true"))
    server.err("a.test", "spoofed")
    assert resolver.lookups().txt("a.test") == (b"true",)


def test_an_answer_of_60_kb_is_refused_and_not_kept_in_memory(server: DnsServer, resolver: Resolver) -> None:
    for number in range(20):
        server.add("huge.test", "TXT", long_txt(f"{number}".ljust(3000, "x")))
    with pytest.raises(UnansweredError, match="too large"):
        resolver.lookups().txt("huge.test")
    assert resolver._octets < 1000


def test_aliases_are_followed(server: DnsServer, resolver: Resolver) -> None:
    server.add("a.test", "CNAME", "b.test.")
    server.add("b.test", "CNAME", "c.test.")
    server.add("c.test", "TXT", txt("end"))
    assert resolver.lookups().txt("a.test") == (b"end",)


@pytest.mark.parametrize("answered", [False, True])
def test_a_loop_of_aliases_ends(answered: bool) -> None:
    with DnsServer(loops_answered=answered) as server:
        server.add("a.test", "CNAME", "b.test.")
        server.add("b.test", "CNAME", "a.test.")
        with pytest.raises(UnansweredError):
            Resolver([server.address]).lookups().txt("a.test")


def test_one_message_cannot_ask_without_end(server: DnsServer, resolver: Resolver) -> None:
    lookups = resolver.lookups()
    for number in range(100):
        lookups.txt(f"n{number}.test")
    with pytest.raises(UnansweredError, match="more than"):
        lookups.txt("n100.test")
    assert len(server.questions) == 100
    assert lookups.txt("n5.test") == ()  # what is known is still told


@pytest.mark.parametrize("name", ["", ".", "a..test", "x" * 64 + ".test", ".".join(["abc"] * 80)])
def test_names_that_cannot_exist_are_not_asked_for(server: DnsServer, resolver: Resolver, name: str) -> None:
    assert resolver.lookups().txt(name) == ()
    assert server.questions == []


@pytest.mark.parametrize("name", ["a\\.b.test", "a\\000.test", "a b.test", 'a".test', "a\x00\n.test", "a+b=c.test"])
def test_odd_characters_stand_for_themselves(server: DnsServer, resolver: Resolver, name: str) -> None:
    assert resolver.lookups().txt(name) == ()
    assert len(server.questions) == 1


def test_internationalised_names_are_asked_for_as_a_labels(server: DnsServer, resolver: Resolver) -> None:
    server.add("xn--bcher-kva.test", "TXT", txt("here"))
    assert resolver.lookups().txt("BÜCHER.test") == (b"here",)


def test_the_cache_is_bounded_in_entries_and_in_octets(server: DnsServer) -> None:
    few = Resolver([server.address], max_entries=5)
    lookups = few.lookups()
    for number in range(20):
        lookups.txt(f"n{number}.test")
    assert len(few._cache) == 5
    server.add("a.test", "TXT", long_txt("x" * 900))
    server.add("b.test", "TXT", long_txt("x" * 900))
    small = Resolver([server.address], max_octets=2000)
    lookups = small.lookups()
    lookups.txt("a.test")
    lookups.txt("b.test")
    assert [name for name, _ in small._cache] == ["b.test"]
    assert 0 < small._octets <= 2000


def test_many_threads_share_one_resolver(server: DnsServer, resolver: Resolver) -> None:
    for number in range(10):
        server.add(f"n{number}.test", "TXT", txt(f"value {number}"))
    wrong: list[object] = []

    def ask() -> None:
        for turn in range(200):
            number = turn % 10
            found = resolver.lookups().txt(f"n{number}.test")
            if found != (f"value {number}".encode(),):
                wrong.append(found)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("server_name", ["ns.example.org", "192.0.2.1:0", "192.0.2.1:x", "[::1]:99999", ""])
def test_a_wrong_server_is_told_at_once(server_name: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Resolver([server_name])


def test_servers_may_be_named_with_and_without_port() -> None:
    assert Resolver(["192.0.2.1", "192.0.2.1:5353", "::1", "[::1]", "[::1]:54"]) is not None

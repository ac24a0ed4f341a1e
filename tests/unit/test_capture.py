"""The check at capture: whom it may never refuse, whom it must, and that silence of DNS refuses nobody."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mailback
from mailback.bounce import rules
from mailback.bounce.rulefile import RulesError
from mailback.recipient.capture import VERDICTS, CaptureCheck, CaptureRules, distance
from mailback.resources import rules_dir
from mailback.store import Store
from mailback.store.records import MailDomain
from tests.support.command import Run, within
from tests.support.dns import DnsServer, silent_port
from tests.support.records import a_suppression, do


@pytest.fixture(scope="module")
def lists() -> CaptureRules:
    return CaptureRules.load([rules_dir()], rules.load([rules_dir()]))


def takes_mail(name: str) -> MailDomain:
    return MailDomain(name, "mx", (f"mx.{name}",))


@pytest.mark.parametrize(
    ("entered", "meant"),
    [
        ("ann@gmial.com", "ann@gmail.com"), ("ann@gamil.com", "ann@gmail.com"), ("ann@gmai.com", "ann@gmail.com"),
        ("ann@gmaill.com", "ann@gmail.com"), ("ann@gnail.com", "ann@gmail.com"), ("ann@gmail.con", "ann@gmail.com"),
        ("ann@gmail.co", "ann@gmail.com"), ("ann@gmail.cm", "ann@gmail.com"), ("ann@hotmal.com", "ann@hotmail.com"),
        ("ann@hotmial.com", "ann@hotmail.com"), ("ann@hotmail.comm", "ann@hotmail.com"),
        ("ann@yaho.com", "ann@yahoo.com"), ("ann@yahooo.com", "ann@yahoo.com"), ("ann@outlok.com", "ann@outlook.com"),
        ("ann@iclod.com", "ann@icloud.com"), ("ann@googlemial.com", "ann@googlemail.com"),
        ("ann@hotmial.fr", "ann@hotmail.fr"), ("Ann.Example+x@GMIAL.com", "Ann.Example+x@gmail.com"),
        ("ann@company.con", "ann@company.com"), ("ann@gmailcom", "ann@gmail.com"), ("ann@gmail", "ann@gmail.com"),
        ("ann@gmail,com", "ann@gmail.com"),
    ],
)  # fmt: skip
def test_a_slip_of_the_finger_is_told_with_what_was_meant(lists: CaptureRules, entered: str, meant: str) -> None:
    found = CaptureCheck(lists, takes_mail)(entered)
    assert (found.verdict, found.suggestion) == ("blocked", meant)


@pytest.mark.parametrize(
    "domain",
    [
        "gmail.com", "mail.com", "email.com", "ymail.com", "gmx.com", "gmx.net", "web.de", "live.com", "live.de",
        "aol.com", "yahoo.cz", "yahoo.de", "hotmail.cz", "outlook.fr", "grange.fr", "plant.nl", "mange.fr", "liberi.it",
        "hmail.com", "free.fr", "tree.fr", "inbox.lv", "example.com", "smail.com", "company.co", "thing.co",
        "cloud.com", "icecloud.com",
        "comcast.com", "gmaix.com", "post.ch", "proton.me", "mail.de", "email.de", "orange.com", "qq.com", "me.com",
    ],
)  # fmt: skip
def test_a_real_domain_that_takes_mail_is_no_misspelling(lists: CaptureRules, domain: str) -> None:
    found = CaptureCheck(lists, takes_mail)(f"ann@{domain}")
    assert (found.verdict, found.suggestion) == ("ok", None), found.reasons


def test_names_of_providers_are_never_misspelt(lists: CaptureRules) -> None:
    check = CaptureCheck(lists, takes_mail)
    for provider in rules.load([rules_dir()]).providers.values():
        for host in provider.hosts:
            assert check.misspelt(host, None) is None, host


def test_two_slips_or_a_word_count_only_where_no_mail_is_taken(lists: CaptureRules) -> None:
    dead = CaptureCheck(lists, lambda name: MailDomain(name, "none"))
    alive = CaptureCheck(lists, takes_mail)
    for entered, meant in (("ann@hotmaail.cmo", "ann@hotmail.com"), ("ann@wandoo.fr", "ann@wanadoo.fr"),
                           ("ann@orangr.fr", "ann@orange.fr"), ("ann@htomial.com", "ann@hotmail.com")):  # fmt: skip
        assert dead(entered).suggestion == meant
    assert alive("ann@orangr.fr").verdict == "ok"
    assert alive("ann@htomial.com").verdict == "ok"


@pytest.mark.parametrize(
    ("entered", "verdict", "reason"),
    [
        ("info@company.test", "risky", "role"), ("Sales+eu@company.test", "risky", "role"),
        ("no-reply@company.test", "blocked", "role"), ("ann@mailinator.com", "blocked", "disposable"),
        ("ann@any.mailinator.com", "blocked", "disposable"), ("a..b@company.test", "blocked", "syntax"),
        ("ann", "blocked", "syntax"), ("", "blocked", "syntax"), ("ann@", "blocked", "syntax"),
        ("ann b@company.test", "blocked", "syntax"), ("ann@[192.0.2.1]", "blocked", "syntax"),
        ("ann@localhost", "blocked", "syntax"), ("a" * 65 + "@company.test", "blocked", "syntax"),
        ("x" * 100_000, "blocked", "syntax"), ("josé@müller.test", "ok", None), ("用户@例え.テスト", "ok", None),
        ('"ann b"@company.test', "ok", None), ("  ann@company.test ", "ok", None),
        ("informatics@company.test", "ok", None),
    ],
)  # fmt: skip
def test_what_is_told_of_an_address(lists: CaptureRules, entered: str, verdict: str, reason: str | None) -> None:
    found = CaptureCheck(lists, takes_mail)(entered)
    assert found.verdict == verdict, found
    assert [one.id for one in found.reasons] == ([reason] if reason else [])


def test_a_disposable_service_is_told_by_its_servers_whatever_its_domain_of_the_week(lists: CaptureRules) -> None:
    check = CaptureCheck(lists, lambda name: MailDomain(name, "mx", ("mail2.mailinator.com",)))
    assert [reason.id for reason in check("ann@brand-new.test").reasons] == ["disposable"]


def test_who_opted_out_may_opt_in_again_and_a_dead_mailbox_is_refused(lists: CaptureRules) -> None:
    held = {
        "dead@x.test": a_suppression(),
        "full@x.test": a_suppression(datetime(2100, 1, 1, tzinfo=UTC), type="soft_bounce"),
        "out@x.test": a_suppression(type="complaint", subcategory="unsubscribe_request"),
    }  # fmt: skip
    check = CaptureCheck(lists, takes_mail, held.get)
    assert [check(who).verdict for who in held] == ["blocked", "risky", "risky"]
    assert "only a new opt-in" in check("out@x.test").reasons[0].says


@settings(deadline=None)
@given(st.text(max_size=80) | st.builds("{}@{}".format, st.text(max_size=20), st.text(max_size=40)))
def test_nothing_that_is_entered_raises(entered: str) -> None:
    assert mailback.validate(entered, dns=False).verdict in VERDICTS


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_distance_is_symmetric_and_zero_only_for_the_same(one: str, other: str) -> None:
    assert distance(one, other) == distance(other, one)
    assert (distance(one, other) == 0) is (one == other)


def test_an_operators_lists_add_and_remove(tmp_path: Path) -> None:
    (tmp_path / "capture.toml").write_text(
        '[disposable]\ndomains = ["burn.test"]\nremove = ["yopmail.com"]\n[misspelt]\nreal = ["gmial.com"]\n'
    )
    check = CaptureCheck(CaptureRules.load([rules_dir(), tmp_path]), takes_mail)
    assert [check(f"ann@{d}").verdict for d in ("burn.test", "yopmail.com", "gmial.com")] == ["blocked", "ok", "ok"]
    (tmp_path / "capture.toml").write_text("[roles]\nshared = [1]\n[disposable]\nfoo = 1\n")
    with pytest.raises(RulesError) as caught:
        CaptureRules.load([tmp_path])
    assert [problem.split(":")[1] for problem in caught.value.problems] == ["2", "4"]


# ---- with DNS, and the command ---------------------------------------------------------------------------------------


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        server.add("company.test", "MX", "10 aspmx.l.google.com.")
        server.add("aspmx.l.google.com", "A", "192.0.2.1")
        server.add("plain.test", "A", "192.0.2.2")
        server.add("never.test", "MX", "0 .")
        server.err("dead.test", "servfail")
        yield server


@pytest.fixture
def told(tmp_path: Path, dns: DnsServer, store: Store, capfd: pytest.CaptureFixture[str]) -> Run:
    config = tmp_path / "mailback.toml"
    config.write_text(
        f'[store]\nurl = "sqlite:///{store.path}"\n'
        f'[auth]\nnameservers = ["{dns.address}"]\ntimeout_s = 1.0\nbudget_s = 2.0\n'
    )

    return within(config, capfd)


def test_domains_are_asked_for_their_mail_and_silence_refuses_nobody(told: Run, dns: DnsServer, store: Store) -> None:
    whom = ("ann@company.test", "ann@plain.test", "ann@never.test", "ann@missing.test", "ann@dead.test")
    answer = told("validate", "--json", *whom)
    assert [line["verdict"] for line in answer.lines] == ["ok", "ok", "blocked", "blocked", "unknown"]
    assert [line["reasons"] for line in answer.lines][2:] == [["no_mail"], ["no_domain"], ["dns"]]
    assert answer.lines[0]["provider"] == "google"
    assert answer.code == 1
    known = store.mail_domain("company.test")
    assert known is not None
    assert known[0].provider == "google"
    before = dns.asked("company.test")
    assert told("validate", "bob@company.test").code == 0
    assert dns.asked("company.test") == before, "what the store knows is not asked again"


def test_dns_that_dies_later_does_not_unlearn_what_was_known(told: Run, dns: DnsServer, store: Store) -> None:
    told("validate", "ann@company.test")
    do(store, lambda tx: tx._connection.execute("UPDATE domain SET at = at - 200000000000, expires_at = 1"))
    dns.err("company.test", "servfail")
    assert told("validate", "--json", "ann@company.test").lines[0]["verdict"] == "ok"


def test_every_attempt_is_kept_with_who_and_where_from_the_refused_too(told: Run, store: Store) -> None:
    told("validate", "Ann@gmial.com", "--source", "newsletter form", "--by", "203.0.113.9")
    told("validate", "Ann@gmial.com", "--dry-run")
    [attempt] = store.captures("ann@gmial.com")
    assert (attempt.address, attempt.verdict, attempt.reasons[0]) == ("Ann@gmial.com", "blocked", "misspelt")
    explained = told("explain", "ann@gmial.com", "--json").lines[0]
    assert [one["verdict"] for one in explained["captures"]] == ["blocked"]
    assert "newsletter form" in told("explain", "ann@gmial.com").out
    assert (attempt.source, attempt.actor, attempt.suggestion) == ("newsletter form", "203.0.113.9", "Ann@gmail.com")


def test_exit_codes_and_the_lists_of_standard_input(told: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    assert told("validate", "--no-dns", "info@company.test").code == 0
    assert told("validate", "--no-dns", "--strict", "info@company.test").code == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("ann@company.test\n\nx@gmial.com\n"))
    answer = told("validate", "--no-dns", "--json", "-")
    assert (answer.code, [line["address"] for line in answer.lines]) == (1, ["ann@company.test", "x@gmial.com"])
    assert told("validate").code == 2


def test_a_suppressed_address_is_told(told: Run, store: Store) -> None:
    do(store, lambda tx: tx.suppress(a_suppression(address_key="ann@company.test"), "test"))
    [line] = told("validate", "--json", "ann@company.test").lines
    assert (line["verdict"], line["reasons"]) == ("blocked", ["suppressed"])


def test_maintenance_forgets_old_attempts(told: Run, store: Store) -> None:
    told("validate", "--no-dns", "ann@company.test", "bob@company.test")
    old = int((datetime.now(UTC) - timedelta(days=366)).timestamp() * 1e6)
    do(store, lambda tx: tx._connection.execute("UPDATE capture SET at = ? WHERE address_key LIKE 'ann%'", (old,)))
    assert told("store", "maintain").code == 0
    assert store.captures("ann@company.test") == []
    assert len(store.captures("bob@company.test")) == 1


def test_the_function_of_the_library(dns: DnsServer) -> None:
    assert mailback.validate("ann@company.test", nameservers=[dns.address]).verdict == "ok"
    assert mailback.validate("ann@never.test", nameservers=[dns.address]).verdict == "blocked"
    assert mailback.validate("ann@gmial.com", dns=False).suggestion == "ann@gmail.com"


@pytest.mark.timeout(30)
def test_a_dead_dns_server_costs_its_budget_and_no_more() -> None:
    dead = silent_port()
    found = mailback.validate("ann@company.test", nameservers=[f"127.0.0.1:{dead.getsockname()[1]}"])
    dead.close()
    assert found.verdict == "unknown"


def test_config_check_tells_what_is_wrong_with_all_rule_files_at_once(told: Run, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "capture.toml").write_text("[roles]\nfoo = 1\n")
    (tmp_path / "rules" / "breakers.toml").write_text('[[breaker]]\nid = "x"\ncount = 1\n')
    with (tmp_path / "mailback.toml").open("a") as file:
        file.write(f'[rules]\ndirectory = "{tmp_path}/rules"\n')
    answer = told("config", "check")
    assert answer.code == 2
    assert "capture.toml:2: unknown key 'foo'" in answer.err
    assert "breakers.toml:3: count is below 2" in answer.err

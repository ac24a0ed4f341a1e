"""What authentication means for belief: who may speak for whom, over a real DNS server; and what the engine tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mailback.auth import Authenticator, Resolver
from mailback.auth import resolver as module
from mailback.bounce.taxonomy import Provenance
from mailback.engine import Engine, Knowledge
from mailback.envelope import Envelope
from mailback.message import parse
from mailback.provenance.authentication import Checks
from mailback.provenance.speakers import Speakers
from mailback.settings import Settings
from mailback.store import Store
from tests.support.dns import DnsServer, long_txt, silent_port, txt
from tests.support.mail import dsn, reply
from tests.support.server import wait_for
from tests.support.signing import ed25519_key, rsa_key, signed

MX, STRANGER = "192.0.2.7", "203.0.113.9"
REPORT = dsn("bob@receiver.test", message_id="<one@sender.test>")


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as running:
        for name in ("receiver.test", "mx.receiver.test", "mx.cloud.test", "freemail.test"):
            running.add(name, "TXT", txt(f"v=spf1 ip4:{MX} -all"))
        running.add("s1._domainkey.receiver.test", "TXT", long_txt(rsa_key().record))
        running.add("s1._domainkey.freemail.test", "TXT", long_txt(rsa_key().record))
        running.add("s1._domainkey.sender.test", "TXT", long_txt(rsa_key().record))
        running.add("ed._domainkey.sender.test", "TXT", txt(ed25519_key().record))
        running.add("hosted.test", "MX", "10 in.cloud.test.")
        running.add("in.cloud.test", "A", MX)
        yield running


class Court:
    """An engine that authenticates, and the store behind it."""

    def __init__(self, folder: Path, server: DnsServer, **options: object) -> None:
        settings = Settings.loads('[mail]\nsending_domains = ["sender.test"]\n')
        resolver = Resolver([server.address], timeout_s=1.0)
        self.store = Store.open(f"sqlite:///{folder}/mailback.db")
        self.store.upgrade()
        trusted = options.pop("trusted_ids", ())
        told = {"relays": ["127.0.0.0/8", "198.51.100.0/24"], "sending_domains": ["sender.test"]} | options
        checks = Checks(
            resolver,
            Authenticator(resolver, "mx.sender.test", trusted_ids=trusted),  # type: ignore[arg-type]
            Knowledge.load(settings).speakers,
            **told,  # type: ignore[arg-type]
        )
        self.engine = Engine(settings, self.store, Knowledge.load(settings), checks)

    def grade(
        self, raw: bytes, *, client: str = STRANGER, helo: str = "host.evil.test", sender: str = ""
    ) -> Provenance:
        self.engine.inbound(Envelope(sender, ("bounces@sender.test",), client_address=client, helo=helo), raw)
        return list(self.store.events())[-1].provenance


@pytest.fixture
def court(tmp_path: Path, server: DnsServer) -> Iterator[Court]:
    made = Court(tmp_path, server)
    yield made
    made.store.close()


def from_(author: str, raw: bytes = REPORT) -> bytes:
    return raw.replace(b"Mail Delivery System <MAILER-DAEMON@mx.receiver.test>", author.encode())


def by(author: str, domain: str, raw: bytes = REPORT) -> bytes:
    return signed(from_(author, raw), rsa_key(), domain=domain)


def about(recipient: str) -> bytes:
    return dsn(recipient, message_id="<one@sender.test>")


def test_the_recipients_own_server_is_believed(court: Court) -> None:
    assert court.grade(REPORT, client=MX, helo="mx.receiver.test") is Provenance.AUTHENTICATED


def test_a_signature_of_the_recipients_mail_system_is_believed_wherever_it_comes_from(court: Court) -> None:
    report = by("Postmaster <postmaster@receiver.test>", "receiver.test")
    assert court.grade(report, helo="gateway.other.test") is Provenance.AUTHENTICATED


def test_the_provider_that_takes_a_domains_mail_speaks_for_it(court: Court) -> None:
    assert court.grade(about("ann@hosted.test"), client=MX, helo="mx.cloud.test") is Provenance.AUTHENTICATED


def test_a_provider_does_not_speak_for_the_domains_of_others(court: Court) -> None:
    assert court.grade(about("ann@elsewhere.test"), client=MX, helo="mx.cloud.test") is Provenance.UNPROVEN


@pytest.mark.parametrize(
    ("author", "sender"),
    [
        ("Mallory <mallory@freemail.test>", ""),
        ("Mallory <mallory@freemail.test>", "mallory@freemail.test"),
        ('"postmaster@freemail.test" <mallory@freemail.test>', ""),
        ("=?utf-8?q?postmaster=40freemail=2Etest?= <mallory@freemail.test>", ""),
        ("postmaster@freemail.test, mallory@freemail.test", ""),
        ("postmaster+mallory@freemail.test", ""),
    ],
)
def test_a_customer_of_a_provider_does_not_speak_for_its_other_customers(
    court: Court, author: str, sender: str
) -> None:
    report = by(author, "freemail.test", about("victim@freemail.test"))
    assert court.grade(report, sender=sender, helo="host.evil.test") is Provenance.UNPROVEN


def test_a_customer_who_sends_through_his_provider_does_not_speak_for_the_others(court: Court) -> None:
    raw = from_("mallory@freemail.test", about("victim@freemail.test"))
    told = court.grade(raw, client=MX, helo="freemail.test", sender="mallory@freemail.test")
    assert told is Provenance.UNPROVEN


def test_the_server_that_mail_was_forwarded_to_does_not_speak_for_the_address_before(court: Court) -> None:
    raw = about("bob@receiver.test").replace(
        b"Final-Recipient:", b"Original-Recipient: rfc822; victim@elsewhere.test\r\nFinal-Recipient:"
    )
    assert court.grade(raw, client=MX, helo="mx.receiver.test") is Provenance.AUTHENTICATED
    assert [s.address for s in court.store.suppressions()] == ["bob@receiver.test"]


def test_a_stranger_who_fails_his_own_spf_is_forged(court: Court) -> None:
    assert court.grade(about("ann@elsewhere.test"), helo="mx.cloud.test") is Provenance.FORGED
    assert court.grade(about("bob@receiver.test"), helo="mx.receiver.test") is Provenance.UNPROVEN


@pytest.mark.parametrize("client", ["127.0.0.1", "::ffff:127.0.0.1", "198.51.100.3", None])
def test_mail_that_a_host_of_ours_passed_on_is_not_held_against_that_host(court: Court, client: str) -> None:
    assert court.grade(about("ann@elsewhere.test"), client=client, helo="mx.cloud.test") is Provenance.UNPROVEN


@pytest.mark.parametrize("client", ["198.51.100.3", STRANGER])
def test_an_upstreams_results_are_believed_from_our_relays_only(tmp_path: Path, server: DnsServer, client: str) -> None:
    court = Court(tmp_path, server, trusted_ids=["edge.sender.test"])
    raw = b"Authentication-Results: edge.sender.test; spf=pass smtp.helo=mx.receiver.test\r\n" + REPORT
    expected = Provenance.AUTHENTICATED if client != STRANGER else Provenance.UNPROVEN
    assert court.grade(raw, client=client, helo="edge.sender.test") is expected
    court.store.close()


# -- what is returned -----------------------------------------------------------------------------------------


def returning(letter: bytes, recipient: str) -> bytes:
    head, _, _ = REPORT.rpartition(b"Content-Type: message/rfc822\r\n\r\n")
    report = head.replace(b"bob@receiver.test", recipient.encode())
    return report + b"Content-Type: text/rfc822-headers\r\n\r\n" + letter + b"\r\n--=_report_7b1f--\r\n"


def letter(to: str, cc: str = "") -> bytes:
    fields = f"From: News <news@sender.test>\r\nTo: {to}\r\n" + (f"Cc: {cc}\r\n" if cc else "")
    return f"{fields}Subject: The November issue\r\nMessage-ID: <two@sender.test>\r\n\r\nGood morning\r\n".encode()


@pytest.mark.parametrize("selector", ["s1", "ed"])
def test_our_signature_on_the_returned_header_proves_the_recipient_it_names(court: Court, selector: str) -> None:
    key = rsa_key() if selector == "s1" else ed25519_key()
    original = signed(letter("Bob <bob@receiver.test>"), key, domain="sender.test", selector=selector)
    block = original.partition(b"\r\n\r\n")[0] + b"\r\n"
    assert court.grade(returning(block, "bob@receiver.test")) is Provenance.RETURNED_ORIGINAL
    assert court.grade(returning(block, "victim@receiver.test")) is Provenance.UNPROVEN


@pytest.mark.parametrize(
    ("to", "cc", "changed"),
    [
        ("bob@receiver.test", "victim@receiver.test", (b"", b"")),
        ('"victim@receiver.test" <bob@evil.test>', "", (b"", b"")),
        ("bob@evil.test", "", (b"bob@evil.test", b"victim@receiver.test")),
        ("bob@evil.test", "", (b"To:", b"To: victim@receiver.test\r\nTo:")),
    ],
)
def test_what_we_signed_for_somebody_else_proves_nothing_about_the_victim(
    court: Court, to: str, cc: str, changed: tuple[bytes, bytes]
) -> None:
    original = signed(letter(to, cc), rsa_key(), domain="sender.test").replace(*changed, 1)
    block = original.partition(b"\r\n\r\n")[0] + b"\r\n"
    assert court.grade(returning(block, "victim@receiver.test")) is not Provenance.RETURNED_ORIGINAL


# -- complaints -----------------------------------------------------------------------------------------------


def complaint(author: str, recipient: str) -> bytes:
    return (
        f"From: {author}\r\nTo: fbl@sender.test\r\nSubject: FW: news\r\nMessage-ID: <arf@provider.test>\r\n"
        'Date: Fri, 20 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; boundary="b"; '
        "report-type=feedback-report\r\n\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\n"
        f"Feedback-Type: abuse\r\nUser-Agent: Test/1\r\nVersion: 1\r\nOriginal-Rcpt-To: <{recipient}>\r\n\r\n--b\r\n"
        f"Content-Type: message/rfc822\r\n\r\nFrom: news@sender.test\r\nTo: {recipient}\r\nSubject: news\r\n"
        "\r\nx\r\n--b--\r\n"
    ).encode()


SPEAKERS = """\
[[feedback]]
name = "one provider's loop"
senders = ["loop@receiver.test"]
recipients = ["brand.test"]
[[feedback]]
name = "a loop for many"
senders = ["receiver.test"]
"""


@pytest.mark.parametrize(
    ("author", "recipient", "believed"),
    [
        ("abuse@receiver.test", "ann@receiver.test", True),
        ("mallory@receiver.test", "ann@receiver.test", False),
        ("abuse@receiver.test", "ann@elsewhere.test", False),
    ],
)
def test_a_complaint_is_believed_by_the_role_that_sends_it(
    court: Court, author: str, recipient: str, believed: bool
) -> None:
    raw = signed(complaint(author, recipient), rsa_key(), domain="receiver.test")
    assert (court.grade(raw, sender="x@evil.test") is Provenance.AUTHENTICATED) is believed


@pytest.mark.parametrize(
    ("author", "recipient", "believed"),
    [
        ("loop@receiver.test", "ann@brand.test", True),
        ("loop@receiver.test", "ann@elsewhere.test", False),
        ("other@sub.receiver.test", "ann@elsewhere.test", True),
        ("loop@evil.test", "ann@brand.test", False),
    ],
)
def test_a_feedback_loop_speaks_for_whom_the_operator_says(
    tmp_path: Path, court: Court, author: str, recipient: str, believed: bool
) -> None:
    (tmp_path / "speakers.toml").write_text(SPEAKERS)
    assert court.engine._checks is not None
    court.engine._checks.speakers = Speakers.load([tmp_path])
    raw = signed(complaint(author, recipient), rsa_key(), domain="receiver.test")
    assert (court.grade(raw, sender="x@evil.test") is Provenance.AUTHENTICATED) is believed


# -- what is told ---------------------------------------------------------------------------------------------


def test_the_results_stand_on_top_in_the_event_and_in_the_json(court: Court) -> None:
    envelope = Envelope("", ("bounces@sender.test",), client_address=MX, helo="mx.receiver.test")
    assessment = court.engine.assess(envelope, REPORT)
    told = assessment.classification.to_dict()["authentication"]
    outcome = court.engine.commit(assessment).result()
    assert isinstance(told, dict)
    assert told["spf"] == {"result": "pass", "domain": "mx.receiver.test", "identity": "helo"}
    name, value = outcome.add_headers[0]
    assert name == "Authentication-Results"
    assert value.startswith("mx.sender.test;\n\tspf=pass smtp.helo=mx.receiver.test;")
    assert [n for n, _ in outcome.add_headers].count(name) == 1
    assert next(iter(court.store.events())).authentication == told


def test_nothing_is_claimed_where_nothing_was_checked(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/mailback.db") as store:
        store.upgrade()
        outcome = Engine(Settings.loads(""), store).inbound(Envelope(), REPORT)
        assert next(iter(store.events())).authentication is None
    assert all(name != "Authentication-Results" for name, _ in outcome.add_headers)


def test_an_event_loop_never_waits_for_dns(court: Court, server: DnsServer) -> None:
    envelope = Envelope("", ("bounces@sender.test",), client_address=MX, helo="mx.receiver.test")
    assert court.engine.assess_at_once(envelope, REPORT) is None
    assert server.questions == []
    court.engine.assess(envelope, REPORT)
    asked = len(server.questions)
    assert court.engine.assess_at_once(envelope, REPORT) is not None
    assert len(server.questions) == asked


def test_a_reply_whose_author_fails_dmarc_is_told_so(court: Court, server: DnsServer) -> None:
    server.add("_dmarc.receiver.test", "TXT", txt("v=DMARC1; p=reject"))
    answer = reply("ann@receiver.test", message_id="<r@receiver.test>")
    told = court.engine.assess(
        Envelope("ann@receiver.test", ("news@sender.test",), client_address=STRANGER, helo="evil.test"), answer
    ).classification.authentication
    assert told is not None
    assert told.failed
    assert not replace(told, dmarc=replace(told.dmarc, result="pass")).failed  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "host", "expected"),
    [
        ("auth.authserv_id = 'auth.sender.test'\nmail.hostname = 'mx.sender.test'\n", "h", "auth.sender.test"),
        ("mail.hostname = 'mx.sender.test'\n", "h", "mx.sender.test"),
        ("", "host.sender.test", "host.sender.test"),
        ("", "::1", "localhost"),
        ("", "a host", "localhost"),
    ],
)
def test_a_host_of_any_name_can_write_results(
    monkeypatch: pytest.MonkeyPatch, text: str, host: str, expected: str
) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: host)
    settings = Settings.loads(text + "auth.nameservers = ['127.0.0.1:9']\n")
    assert settings.authserv_id == expected
    checks = Checks.of(settings, Speakers())
    assert checks is not None
    assert checks.authenticator.authserv_id == expected


# -- dead DNS -------------------------------------------------------------------------------------------------


def test_a_dead_server_gives_temperror_and_costs_nothing_once_it_is_known_to_be_dead() -> None:
    with silent_port() as dead:
        resolver = Resolver([f"127.0.0.1:{dead.getsockname()[1]}"], timeout_s=0.1, budget_s=0.5)
        resolver.watch()
        wait_for(lambda: resolver.dead, what="the server is known to be dead")
        authenticator = Authenticator(resolver, "mx.sender.test")
        checks = Checks(resolver, authenticator, Speakers())
        inquiry = checks.inquiry(at_once=True)
        envelope = Envelope("", ("x@sender.test",), client_address=MX, helo="mx.receiver.test")
        told = inquiry.authentication(envelope, REPORT, parse(REPORT))
    assert told.spf.result == "temperror"
    assert not inquiry.missed, "nothing is gained by asking a dead server in a thread"


def test_a_server_that_answers_again_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROBE_EVERY_S", 0.05)
    with DnsServer() as server:
        server.add("a.test", "TXT", txt("here"))
        server.err("*", "drop")
        resolver = Resolver([server.address], timeout_s=0.1, budget_s=2.0)
        for number in range(3):
            with pytest.raises(module.UnansweredError):
                resolver.lookups().txt(f"n{number}.test")
        wait_for(lambda: resolver.dead, what="three silences in a row")
        server.heal()
        wait_for(lambda: not resolver.dead, what="the root is answered")
        assert resolver.lookups().txt("a.test") == (b"here",)


def test_silent_domains_of_a_stranger_do_not_make_the_server_dead() -> None:
    with DnsServer() as server:
        server.add("a.test", "TXT", txt("here"))
        resolver = Resolver([server.address], timeout_s=0.1, budget_s=2.0)
        for number in range(6):
            server.err(f"n{number}.test", "drop")
            with pytest.raises(module.UnansweredError):
                resolver.lookups().txt(f"n{number}.test")
        assert not resolver.dead
        assert resolver.lookups().txt("a.test") == (b"here",)


# -- replies ------------------------------------------------------------------------------------------------------


def _opts_out(court: Court, *, client: str, sender: str, author: str = "ann@receiver.test") -> Provenance:
    raw = reply(author, message_id="<r@receiver.test>", text="Please remove me from your mailing list, unsubscribe.")
    return court.grade(raw, client=client, helo="host.test", sender=sender)


def test_an_authenticated_person_opts_himself_out(court: Court) -> None:
    assert _opts_out(court, client=MX, sender="ann@receiver.test") is Provenance.AUTHENTICATED
    assert court.store.lookup("ann@receiver.test") is not None


def test_nobody_opts_out_a_person_from_a_host_that_her_domain_disowns(court: Court) -> None:
    assert _opts_out(court, client=STRANGER, sender="ann@receiver.test") is Provenance.UNPROVEN
    assert court.store.lookup("ann@receiver.test") is None
    [item] = court.store.reviews()
    assert item.wanted is not None, "a person may still approve it"


def test_who_is_authenticated_as_somebody_else_is_not_believed_by_that(court: Court) -> None:
    assert _opts_out(court, client=MX, sender="mallory@freemail.test") is Provenance.UNPROVEN

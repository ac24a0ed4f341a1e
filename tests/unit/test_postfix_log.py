"""Postfix's log: every form, every status, and what must not be taken for a delivery or a failure."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from mailback.bounce.taxonomy import Kind
from mailback.ingest import syslog
from mailback.ingest.postfix_log import DeliveryLog, Message, Rules, delivery
from mailback.observation import Observation

NOW = datetime(2026, 11, 26, tzinfo=UTC)
GONE = (
    "to=<gone@b.example>, relay=mx.b.example[192.0.2.9]:25, delay=1.2, delays=0.1/0/1/0.1, dsn=5.1.1, status=bounced "
    "(host mx.b.example[192.0.2.9] said: 550 5.1.1 <gone@b.example>: User unknown (in reply to RCPT TO command))"
)


def read(text: str, log: DeliveryLog | None = None, *, year: int | None = None) -> list[Observation]:
    """The outcomes that lines tell; a line may leave out time, host and process id: `smtp: QUEUEID: ...`."""
    log = log or DeliveryLog(Rules())
    reader = syslog.Lines(syslog.Clock(NOW, UTC, year))
    found = []
    for line in text.strip().splitlines():
        agent, colon, rest = line.partition(": ")
        whole = f"Nov 25 10:00:00 mx postfix/{agent}[7]: {rest}" if colon and agent.isalpha() else line
        record = reader.record(whole)
        if record is not None:
            found += log.read(record)
    return found


def begun(
    queue_id: str = "4YxK1p2Qz3z9rT", message_id: str = "<1@example.com>", sender: str = "news@example.com"
) -> str:
    return (
        f"smtpd: {queue_id}: client=app.example.com[192.0.2.7]\n"
        f"cleanup: {queue_id}: message-id={message_id}\n"
        f"qmgr: {queue_id}: from=<{sender}>, size=4711, nrcpt=1 (queue active)\n"
    )


@pytest.mark.parametrize(
    ("line", "at"),
    [
        ("Nov 25 10:00:01 mx postfix/smtp[7]: ", "2026-11-25T10:00:01+00:00"),
        ("Nov  5 10:00:01 mx postfix/smtp[7]: ", "2026-11-05T10:00:01+00:00"),
        ("<22>Nov 25 10:00:01 mx postfix/smtp[7]: ", "2026-11-25T10:00:01+00:00"),
        ("Nov 25 10:00:01.250000 mx postfix/smtp[7]: ", "2026-11-25T10:00:01.250000+00:00"),
        ("Nov 25 10:00:01 mx postfix/smtp[7]: [ID 197553 mail.info] ", "2026-11-25T10:00:01+00:00"),
        ("2026-11-25T10:00:01.123456+01:00 mx postfix/smtp[7]: ", "2026-11-25T09:00:01.123456+00:00"),
        ("2026-11-25T10:00:01+0100 mx postfix/smtp[7]: ", "2026-11-25T09:00:01+00:00"),
        ("2026-11-25T10:00:01Z mx postfix/smtp[7]: ", "2026-11-25T10:00:01+00:00"),
        ("2026-11-25 10:00:01 mx postfix/smtp[7]: ", "2026-11-25T10:00:01+00:00"),
        ("Wed 2026-11-25 10:00:01 UTC mx postfix/smtp[7]: ", "2026-11-25T10:00:01+00:00"),
        ("1795600801.250000 mx postfix/smtp[7]: ", "2026-11-25T10:00:01.250000+00:00"),
        ("<22>1 2026-11-25T10:00:01.5Z mx postfix/smtp 7 - - ", "2026-11-25T10:00:01.500000+00:00"),
        ('<22>1 2026-11-25T10:00:01Z mx postfix/smtp 7 - [origin@1 ip="a] b"] ', "2026-11-25T10:00:01+00:00"),
        ("Nov 25 10:00:01 <mail.info> mx postfix/smtp[7]: ", "2026-11-25T10:00:01+00:00"),
        ("Nov 25 10:00:01 [192.0.2.1] postfix/smtp[7]: ", "2026-11-25T10:00:01+00:00"),
        ("Nov 25 10:00:01 mx postfix-out/smtp[7]: ", "2026-11-25T10:00:01+00:00"),
        ("Nov 25 10:00:01 mx postfix/relay/smtp[7]: ", "2026-11-25T10:00:01+00:00"),
    ],
)
def test_every_form_of_a_line_tells_its_time_and_outcome(line: str, at: str) -> None:
    [told] = read(f"{line}4YxK1p2Qz3z9rT: {GONE}")
    assert told.at.isoformat() == at
    assert (told.kind, told.failure.recipient) == (Kind.BOUNCE, "gone@b.example")


def test_lines_of_the_journal_tell_the_same() -> None:
    entry = (
        '{"__REALTIME_TIMESTAMP": "1795600801250000", "_HOSTNAME": "mx", "SYSLOG_IDENTIFIER": "postfix/smtp", '
        f'"MESSAGE": "4YxK1p2Qz3z9rT: {GONE}"}}'
    )
    [told] = read(entry)
    assert told.at.isoformat() == "2026-11-25T10:00:01.250000+00:00"
    lines = syslog.Lines(syslog.Clock(datetime.now(UTC)))
    assert lines.record(entry) == lines.record(f"\x1e{entry}") == lines.record(f"data: {entry}") is not None
    octets = list(f"4YxK1p2Qz3z9rT: {GONE}".encode())
    [told] = read(
        f'{{"__REALTIME_TIMESTAMP":"1795600801250000","SYSLOG_IDENTIFIER":"postfix/smtp","MESSAGE":{octets}}}'
    )
    assert told.failure.recipient == "gone@b.example"
    exported = (
        f"__REALTIME_TIMESTAMP=1795600801250000\nSYSLOG_IDENTIFIER=postfix/smtp\nMESSAGE=4YxK1p2Qz3z9rT: {GONE}\n\n"
    )
    binary = b"_HOSTNAME=mx\nMESSAGE\n" + (3).to_bytes(8, "little") + b"a\nb\n\n"
    first, second = syslog.export_records(exported.encode() + binary)
    assert syslog.of_journal(first) is not None
    assert second == {"_HOSTNAME": "mx", "MESSAGE": "a\nb"}


def test_what_another_program_quotes_of_the_log_is_not_believed() -> None:
    assert not read(f"Nov 25 10:00:01 mx app[3]: it said postfix/smtp[7]: 4YxK1p2Qz3z9rT: {GONE}")
    assert not read(f"Nov 25 10:00:01 mx app: Nov 25 10:00:01 mx postfix/smtp[7]: 4YxK1p2Qz3z9rT: {GONE}")
    assert not read(f"Nov 25 10:00:01 mx sendmail/other[7]: 4YxK1p2Qz3z9rT: {GONE}")


def test_the_new_year_puts_december_into_the_year_before() -> None:
    clock = syslog.Clock(datetime(2027, 1, 3, tzinfo=UTC), UTC)
    assert str(clock.read("Dec 31 23:59:59")) == "2026-12-31 23:59:59+00:00"
    assert str(clock.read("Jan  1 00:00:01")) == "2027-01-01 00:00:01+00:00"
    assert str(clock.read("Jan  4 00:00:00")) == "2027-01-04 00:00:00+00:00", "clocks may be a day ahead"
    assert str(clock.read("Feb 29 00:00:00")) == "2024-02-29 00:00:00+00:00"
    assert clock.read("Foo 29 00:00:00") is None


def test_an_old_log_is_counted_on_from_the_year_of_its_first_line() -> None:
    clock = syslog.Clock(NOW, UTC, 2019)
    stamps = ("Nov  1 00:00:00", "Dec 31 23:59:59", "Jan  1 00:00:00", "Dec 31 00:00:00", "Jan  2 00:00:00")
    assert [moment.year for stamp in stamps if (moment := clock.read(stamp))] == [2019, 2019, 2020, 2020, 2021]


def test_the_fields_of_a_refusal_at_smtp_time() -> None:
    [told] = read(begun() + f"smtp: 4YxK1p2Qz3z9rT: {GONE}")
    failure = told.failure
    assert (failure.status, failure.smtp_code) == ("5.1.1", "550")
    assert failure.diagnostic == "550 5.1.1 <gone@b.example>: User unknown"
    assert (failure.remote_mta, failure.reporting_mta) == ("mx.b.example", "mx")
    assert (told.message_id, told.sender, told.client_address) == ("<1@example.com>", "news@example.com", "192.0.2.7")
    assert told.sent_at is not None
    assert (told.at - told.sent_at).total_seconds() == 1.2
    assert told.attempts == 1
    assert told.notes == ["delay 1.2 s (before queue / in queue / connecting / sending: 0.1/0/1/0.1)"]


@pytest.mark.parametrize(
    ("recipient", "relay", "outcome", "status", "remote"),
    [
        # relays by IPv6, connections used again, fields of later versions
        ("a@b.example", "mx.b.example[2001:db8::1]:25, conn_use=2", ("dsn=5.1.1, status=bounced (host "
         "mx.b.example[2001:db8::1] said: 550 5.1.1 no such user (in reply to RCPT TO command))"), "5.1.1",
         "mx.b.example"),
        ("a@b.example", "mx.b.example[192.0.2.1]:25", "tls=verified, dsn=2.0.0, status=sent (250 Ok)", "2.0.0",
         "mx.b.example"),
        # local parts that are quoted (info_log_address_format = external) and that are not (internal); SMTPUTF8
        (r'"odd, \"name\" > x"@b.example', "mx.b.example[192.0.2.1]:25", "dsn=2.0.0, status=sent (250 Ok)", "2.0.0",
         "mx.b.example"),
        ("user name@b.example", "mx.b.example[192.0.2.1]:25", "dsn=2.0.0, status=sent (250 Ok)", "2.0.0",
         "mx.b.example"),
        ("grüße@bücher.example", "mx.b.example[private/dovecot-lmtp]", "dsn=2.0.0, status=sent (250 Ok)", "2.0.0",
         None),
        ("a@b.example", "mx.b.example[192.0.2.1]:25", ("dsn=5.6.7, status=bounced (SMTPUTF8 is required, but was not "
         "offered by host mx.b.example[192.0.2.1])"), "5.6.7", "mx.b.example"),
        # nobody was reached
        ("a@b.example", "none", ("dsn=5.4.4, status=bounced (Host or domain name not found. Name service error for "
         "name=b.example type=A: Host not found)"), "5.4.4", None),
        ("a@b.example", "none", "dsn=5.1.0, status=bounced (Domain b.example does not accept mail (nullMX))", "5.1.0",
         None),
        ("a@b.example", "mx.b.example[192.0.2.1]:25", ("dsn=5.7.1, status=bounced (host mx.b.example[192.0.2.1] "
         "refused to talk to me: 554 5.7.1 Client host [198.51.100.7] blocked)"), "5.7.1", "mx.b.example"),
    ],
)  # fmt: skip
def test_recipients_and_relays_however_they_are_written(
    recipient: str, relay: str, outcome: str, status: str, remote: str | None
) -> None:
    for queue_id in ("4YxK1p2Qz3z9rT", "8A1B2C3D4E"):
        line = f"to=<{recipient}>, relay={relay}, delay=1.2, delays=0/0/1/0.2, {outcome}"
        [told] = read(f"smtp: {queue_id}: {line}")
        assert (told.failure.recipient, told.failure.status, told.failure.remote_mta) == (recipient, status, remote)


def test_the_address_that_was_mailed_is_the_one_before_aliases() -> None:
    [told] = read(
        "local: 4YxK1p2Qz3z9rT: to=<joe@host.example>, orig_to=<team@example.com>, relay=local, delay=0.1, "
        'delays=0/0/0/0.1, dsn=5.1.1, status=bounced (unknown user: "joe")'
    )
    assert told.failure.mailed == "team@example.com"
    assert told.failure.final_recipient == "joe@host.example"
    [told] = read("local: 4YxK1p2Qz3z9rT: to=<root@host.example>, orig_to=<root>, relay=local, delay=0, dsn=2.0.0, "
                  "status=sent (delivered to mailbox)")  # fmt: skip
    assert told.failure.mailed == "root@host.example", "a bare name is no address that anybody mailed"


def test_of_an_alias_that_may_have_several_members_the_one_that_failed_is_told() -> None:
    active = "qmgr: 4YxK1p2Qz3z9rT: from=<news@example.com>, size=1200, nrcpt={} (queue active)\n"
    failed = (
        "smtp: 4YxK1p2Qz3z9rT: to=<bob@d.example>, orig_to=<team@example.com>, relay=mx.d.example[192.0.2.9]:25, "
        "delay=0.1, delays=0/0/0/0.1, dsn=5.1.1, status=bounced (host mx.d.example[192.0.2.9] said: 550 5.1.1 no such "
        "user (in reply to RCPT TO command))"
    )
    for members, mailed in ((2, "bob@d.example"), (1, "team@example.com")):
        [told] = read(active.format(members) + failed)
        assert told.failure.mailed == mailed
        assert "sent to team@example.com" in told.notes


def test_the_words_of_a_line_that_postfix_cut_off_are_read() -> None:
    """At 2,000 characters (msg_syslog(3))."""
    [told] = read(
        "smtp: 4YxK1p2Qz3z9rT: to=<bob@d.example>, relay=mx.d.example[192.0.2.9]:25, delay=0.1, delays=0/0/0/0.1, "
        "dsn=5.1.1, status=bounced (host mx.d.example[192.0.2.9] said: 550 5.1.1 Blocked by Spamhaus; see https://ww"
    )
    assert told.failure.diagnostic == "550 5.1.1 Blocked by Spamhaus; see https://ww"


def test_tries_are_counted_and_an_expired_message_fails_for_all_that_still_waited() -> None:
    waits = (
        "to=<{}@c.example>, relay=mx.c.example[192.0.2.10]:25, delay={}, delays=0/0/0/0, dsn=4.2.2, status=deferred "
        "(host mx.c.example[192.0.2.10] said: 452 4.2.2 Mailbox full (in reply to RCPT TO command))"
    )
    found = read(
        begun()
        + f"smtp: 4YxK1p2Qz3z9rT: {waits.format('full', 10)}\n"
        + f"smtp: 4YxK1p2Qz3z9rT: {waits.format('later', 10)}\n"
        + f"smtp: 4YxK1p2Qz3z9rT: {waits.format('full', 310)}\n"
        + f"smtp: 4YxK1p2Qz3z9rT: {waits.format('full', 310)}\n"
        + "smtp: 4YxK1p2Qz3z9rT: to=<later@c.example>, relay=mx.c.example[192.0.2.10]:25, delay=310, delays=0/0/0/0, "
        "dsn=2.0.0, status=sent (250 2.0.0 Ok)\n"
        "qmgr: 4YxK1p2Qz3z9rT: from=<news@example.com>, status=expired, returned to sender\n"
        "qmgr: 4YxK1p2Qz3z9rT: removed\n"
    )
    assert [(one.kind.value, one.failure.recipient.partition("@")[0], one.attempts) for one in found] == [
        ("delay", "full", 1), ("delay", "later", 1), ("delay", "full", 2), ("delay", "full", 2),
        ("delivered", "later", 2), ("bounce", "full", 2),
    ]  # fmt: skip
    assert found[2].identity == found[3].identity != found[0].identity
    assert (found[-1].failure.action, found[-1].failure.status) == ("failed", "4.2.2")
    assert found[-1].failure.diagnostic == "452 4.2.2 Mailbox full"


def test_a_soft_bounce_by_configuration_is_a_delay() -> None:
    [told] = read(f"smtp: 4YxK1p2Qz3z9rT: {GONE.replace('status=bounced', 'status=SOFTBOUNCE')}")
    assert told.kind is Kind.DELAY


def test_a_short_queue_id_that_comes_again_is_another_message() -> None:
    found = read(
        begun("3F8A91C2B") + f"smtp: 3F8A91C2B: {GONE}\nqmgr: 3F8A91C2B: removed\n"
        + begun("3F8A91C2B", "<2@example.com>") + f"smtp: 3F8A91C2B: {GONE}\n"
        # the line that it left on is in a file that was not read
        + "cleanup: 3F8A91C2B: message-id=<3@example.com>\n" + f"smtp: 3F8A91C2B: {GONE}\n"
    )  # fmt: skip
    assert [one.message_id for one in found] == ["<1@example.com>", "<2@example.com>", "<3@example.com>"]


def test_two_instances_that_use_one_queue_id_at_once_are_kept_apart() -> None:
    found = read(
        "Nov 25 10:00:00 mx postfix/cleanup[7]: 3F8A91C2B: message-id=<in@example.com>\n"
        "Nov 25 10:00:00 mx postfix-out/cleanup[7]: 3F8A91C2B: message-id=<out@example.com>\n"
        f"Nov 25 10:00:00 mx postfix/relay/smtp[7]: 3F8A91C2B: {GONE}\n"
        f"Nov 25 10:00:00 mx postfix-out/smtp[7]: 3F8A91C2B: {GONE}\n"
        "Nov 25 10:00:00 other postfix/cleanup[7]: 3F8A91C2B: message-id=<far@example.com>\n"
        f"Nov 25 10:00:00 other postfix/smtp[7]: 3F8A91C2B: {GONE}\n"
    )
    assert [one.message_id for one in found] == ["<in@example.com>", "<out@example.com>", "<far@example.com>"]


def test_a_service_with_a_syslog_name_of_its_own_still_finds_its_message() -> None:
    found = read(begun() + f"Nov 25 10:00:00 mx bulk/smtp[7]: 4YxK1p2Qz3z9rT: {GONE}")
    assert [one.message_id for one in found] == ["<1@example.com>"]


SENT = "to=<bob@b.example>, relay={}, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent ({})"


@pytest.mark.parametrize(
    ("agent", "relay", "words"),
    [
        ("smtp", "mx.b.example[192.0.2.9]:25", "250 2.0.0 Ok: queued as 4YxZZp2Qz3z9rT"),
        ("smtp", "127.0.0.1[127.0.0.1]:2525", "250 2.0.0 Ok"),
        ("lmtp", "mx[private/dovecot-lmtp]", "250 2.0.0 <bob@b.example> xyz Saved"),
        ("lmtp", "127.0.0.1[127.0.0.1]:24", "250 2.1.5 Ok SESSIONID=<1>"),
        ("virtual", "virtual", "delivered to maildir"),
        ("local", "local", "delivered to mailbox"),
        ("local", "local", "delivered to command: /usr/bin/procmail"),
        ("pipe", "dovecot", "delivered via dovecot service"),
    ],
)
def test_what_arrives_in_a_mailbox_or_at_another_host_is_delivered(agent: str, relay: str, words: str) -> None:
    [told] = read(begun() + f"{agent}: 4YxK1p2Qz3z9rT: {SENT.format(relay, words)}")
    assert (told.kind, told.failure.action, told.failure.status) == (Kind.DELIVERED, "delivered", "2.0.0")


@pytest.mark.parametrize(
    ("agent", "relay", "words"),
    [
        ("smtp", "127.0.0.1[127.0.0.1]:10024",
         "250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 4YxZZp2Qz3z9rT"),
        ("smtp", "amavis.internal[172.18.0.4]:10024", "250 2.0.0 from MTA(smtp:[172.18.0.2]:10025): 250 2.0.0 Ok"),
        ("smtp", "127.0.0.1[127.0.0.1]:10024", "250 2.7.0 Ok, discarded, id=08014-10 - spam"),
        ("lmtp", "::1[::1]:10024", "250 2.0.0 Ok: queued as 4YxZZp2Qz3z9rT"),
        ("smtp", "127.0.0.1[127.0.0.1]:8025", "250 2.6.0 recorded as reply 01K892BR6GY9ZXNF852Y2TDK3M"),
        ("smtp", "out.example.com[192.0.2.80]:25", "250 2.0.0 Ok: queued as 4YxOUTp2Qz3z9rT"),
        ("smtp", "Smart.example.net[192.0.2.25]:587", "250 Ok"),
        ("smtp", "elsewhere.example.net[192.0.2.26]:587", "250 Ok"),
        ("local", "local", "forwarded as 4YxZZp2Qz3z9rT"),
        ("pipe", "spamassassin", "delivered via spamassassin service"),
        ("discard", "none", "discarded"),
    ],
)  # fmt: skip
def test_what_is_only_handed_on_is_no_delivery_to_a_person(agent: str, relay: str, words: str) -> None:
    log = DeliveryLog(Rules(relays=frozenset({"smart.example.net", "192.0.2.26"})))
    inner = begun("4YxOUTp2Qz3z9rT", "<1@example.com>")  # the outer instance, whose log is read as well
    assert not read(inner + begun() + f"{agent}: 4YxK1p2Qz3z9rT: {SENT.format(relay, words)}", log)
    assert log.tally.handed_on == 1
    [told] = read(f"smtp: 4YxOUTp2Qz3z9rT: {SENT.format('mx.b.example[192.0.2.9]:25', '250 Ok')}", log)
    assert told.message_id == "<1@example.com>", "the second queue tells what became of it"


def test_notifications_probes_and_rejects_of_incoming_mail_are_no_outcomes() -> None:
    log = DeliveryLog(Rules())
    assert not read(
        begun("4YxNOTp2Qz3z9rT", "<dsn@mx>", "")
        + f"smtp: 4YxNOTp2Qz3z9rT: {GONE}\n"
        + "bounce: 4YxK1p2Qz3z9rT: sender non-delivery notification: 4YxNDNp2Qz3z9rT\n"
        + f"smtp: 4YxNDNp2Qz3z9rT: {GONE}\n"
        + f"smtp: 4YxPROp2Qz3z9rT: {GONE.replace('status=bounced', 'status=undeliverable')}\n"
        + f"smtp: 4YxPROp2Qz3z9rT: {GONE.replace('status=bounced', 'status=deliverable')}\n"
        + "smtpd: NOQUEUE: reject: RCPT from x[192.0.2.1]: 550 5.1.1 User unknown; from=<> to=<a@b.example>\n"
        + "smtpd: 4YxK1p2Qz3z9rT: reject: RCPT from x[192.0.2.1]: 550 5.1.1 <a@b.example>: Recipient address rejected; "
        "from=<x@y.example> to=<a@b.example> proto=ESMTP helo=<x>\n",
        log,
    )
    assert log.tally.not_ours == 2


def test_our_own_refusal_is_no_failure_of_the_address() -> None:
    log = DeliveryLog(Rules())
    assert not read(
        "error: 4YxK1p2Qz3z9rT: to=<a@b.example>, relay=none, delay=0.1, delays=0/0/0/0, dsn=5.1.1, status=bounced "
        "(<a@b.example>: suppressed since 2026-11-01, hard_bounce/user_unknown (mailback explain <a@b.example>))",
        log,
    )
    assert log.tally.refused_here == 1


def test_mail_of_a_domain_that_is_not_ours_is_marked_so() -> None:
    rules = Rules(domains=frozenset({"example.com"}))
    [ours] = read(begun() + f"smtp: 4YxK1p2Qz3z9rT: {GONE}", DeliveryLog(rules))
    [below] = read(begun(sender="b+1@mail.example.com") + f"smtp: 4YxK1p2Qz3z9rT: {GONE}", DeliveryLog(rules))
    assert below.ours
    [foreign] = read(begun(sender="x@far.example") + f"smtp: 4YxK1p2Qz3z9rT: {GONE}", DeliveryLog(rules))
    [unknown] = read(f"smtp: 4YxK1p2Qz3z9rT: {GONE}", DeliveryLog(rules))
    assert (ours.ours, foreign.ours, unknown.ours) == (True, False, True)


PRETENDED = "relay=mx[192.0.2.9]:25, delay=1, delays=0/0/0/1, dsn=5.1.1, status=bounced (550 5.1.1 "


@pytest.mark.parametrize(
    "recipient",
    [
        f"victim@b.example>, {PRETENDED}x@d.example",
        f'"victim@b.example>, {PRETENDED}"@d.example',
        'real@d.example>, orig_to=<victim@b.example',
    ],
)  # fmt: skip
def test_an_address_that_pretends_to_be_fields_fails_nobody_else(recipient: str) -> None:
    told = delivery(
        f"to=<{recipient}>, relay=local, delay=0.1, delays=0/0/0/0.1, dsn=2.0.0, status=sent (delivered to mailbox)"
    )
    assert told is None or told.status == "sent", told
    assert told is None or told.recipient.startswith('"') or told.original


def test_a_message_in_the_queue_survives_a_restart() -> None:
    before = DeliveryLog(Rules())
    waits = GONE.replace("status=bounced", "status=deferred").replace("dsn=5", "dsn=4")
    read(begun() + f"smtp: 4YxK1p2Qz3z9rT: {waits}\n", before)
    read(begun("4YxGONp2Qz3z9rT") + "qmgr: 4YxGONp2Qz3z9rT: removed\n", before)
    changed, gone = before.changes()
    assert [name.rpartition(" ")[2] for name, _ in changed] == ["4YxK1p2Qz3z9rT", "gone@b.example"]
    assert gone == []
    after = DeliveryLog(Rules())
    after.restore(json.loads(json.dumps(changed)), NOW)
    assert after.changes() == ([], [])
    [told] = read("qmgr: 4YxK1p2Qz3z9rT: from=<news@example.com>, status=expired, returned to sender\n", after)
    assert (told.message_id, told.failure.recipient, told.kind) == ("<1@example.com>", "gone@b.example", Kind.BOUNCE)
    read("qmgr: 4YxK1p2Qz3z9rT: removed\n", after)
    changed, gone = after.changes()
    assert changed == []
    assert {name.rpartition(" ")[2] for name in gone} == {"4YxK1p2Qz3z9rT", "gone@b.example"}


def test_a_try_for_one_of_many_recipients_keeps_that_one_only() -> None:
    log = DeliveryLog(Rules())
    waits = GONE.replace("status=bounced", "status=deferred")
    read(begun() + "".join(f"smtp: 4YxK1p2Qz3z9rT: {waits.replace('gone', f'r{n}')}\n" for n in range(100)), log)
    assert len(log.changes()[0]) == 101
    read(f"smtp: 4YxK1p2Qz3z9rT: {waits.replace('gone', 'r7').replace('delay=1.2', 'delay=99')}\n", log)
    assert len(log.changes()[0]) == 2


def test_what_was_never_seen_to_leave_is_forgotten_at_last() -> None:
    log = DeliveryLog(Rules())
    stale = Message("mx", "postfix", "4YxK1p2Qz3z9rT", at=datetime(2026, 1, 1, tzinfo=UTC))
    log.restore([(stale.name, stale.state()), ("postfix-queue:broken", {})], NOW)
    changed, gone = log.changes()
    assert changed == []
    assert set(gone) == {stale.name, "postfix-queue:broken"}


def test_no_line_takes_long_however_it_is_made() -> None:
    reader = syslog.Lines(syslog.Clock(NOW, UTC))
    for line in ("a" * 1_000_000, "a/" * 500_000, "Nov 25 10:00:01 mx " + "a" * 1_000_000 + "/b[7]: x: y",
                 "Nov 25 10:00:01 mx postfix/smtp[7]: ABCDEF: to=<" + '"\\' * 400_000):  # fmt: skip
        record = reader.record(line)
        if record is not None:
            DeliveryLog(Rules()).read(record)

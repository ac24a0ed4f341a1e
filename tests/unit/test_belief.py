"""Belief within the walk: what is suppressed, for whom, and under which grade, with return paths signed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from mailback.bounce.taxonomy import Action, Provenance
from mailback.engine import Engine, Outcome
from mailback.envelope import Envelope, Source
from mailback.returnpath import Key, Keys, ReturnPaths
from mailback.settings import Settings
from mailback.store import Store
from mailback.store.records import Event, JournalEntry
from tests.support.mail import dsn

SENT = datetime(2026, 11, 20, 9, tzinfo=UTC)  # the reports of tests.support.mail are written at 9:30 that day
WHEN = datetime(2026, 11, 20, 12, tzinfo=UTC)
BOUNCE_DOMAIN = "bounce.sender.test"
SENDER = "news@sender.test"
ADA, EVE = "ada@receiver.test", "eve@receiver.test"
KEYS = Keys((Key(1, date(2026, 1, 1), b"k" * 32),))
PATHS = ReturnPaths(KEYS, BOUNCE_DOMAIN, 14)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    key = tmp_path / "keys"
    key.write_text(KEYS.text())
    return Settings.loads(f"mail.bounce_domain = '{BOUNCE_DOMAIN}'\nsigning.secret_file = '{key}'\n")


@pytest.fixture
def engine(settings: Settings, store: Store) -> Engine:
    return Engine(settings, store)


def verp(*recipients: str) -> str:
    path = PATHS.sign(SENDER, recipients, SENT)
    assert path is not None
    return path


def journal(store: Store, *recipients: str, message_id: str = "<1@sender.test>", at: datetime = SENT) -> str:
    """Send a message: its return path, signed and remembered."""
    path = verp(*recipients)
    entry = JournalEntry(at, message_id, SENDER, recipients, return_path=path.partition("@")[0])
    store.submit(lambda transaction: transaction.journal(entry)).result()
    return path


def receive(engine: Engine, to: str, raw: bytes, *, after: timedelta = timedelta()) -> Outcome:
    envelope = Envelope(sender="", recipients=(to,), source=Source.SMTPD, received_at=WHEN + after)
    return engine.inbound(envelope, raw)


def the_event(store: Store) -> Event:
    [event] = store.events()
    return event


def test_a_bounce_to_its_own_signed_return_path_suppresses_without_a_journal(engine: Engine, store: Store) -> None:
    outcome = receive(engine, verp(ADA), dsn(ADA, message_id="<1@sender.test>"))
    assert outcome.decisions[0].action is Action.SUPPRESS_PERMANENTLY
    assert the_event(store).provenance is Provenance.SIGNED
    assert store.lookup(ADA) is not None


def test_with_signing_on_an_unproven_bounce_goes_to_review(engine: Engine, store: Store) -> None:
    outcome = receive(engine, SENDER, dsn(ADA, message_id="<1@sender.test>"))
    assert outcome.decisions[0].action is Action.MANUAL_REVIEW
    assert the_event(store).provenance is Provenance.UNPROVEN
    assert store.lookup(ADA) is None


@pytest.mark.parametrize(("require", "held"), [("auto", False), ("always", False), ("never", True)])
def test_trust_require_decides_about_the_unproven(settings: Settings, store: Store, require: str, held: bool) -> None:
    chosen = settings.model_copy(update={"trust": settings.trust.model_copy(update={"require": require})})
    receive(Engine(chosen, store), SENDER, dsn(ADA, message_id="<1@sender.test>"))
    assert (store.lookup(ADA) is not None) is held


def test_without_signing_nothing_needs_proof_and_the_journal_still_gives_its_grade(store: Store) -> None:
    journal(store, ADA)
    receive(Engine(Settings(), store), SENDER, dsn(ADA, message_id="<1@sender.test>"))
    assert the_event(store).provenance is Provenance.JOURNAL
    receive(Engine(Settings(), store), SENDER, dsn(EVE, message_id="<unknown@sender.test>"))
    assert store.lookup(ADA) is not None
    assert store.lookup(EVE) is not None


def test_an_unproven_bounce_that_comes_again_with_proof_is_acted_on(engine: Engine, store: Store) -> None:
    raw = dsn(ADA, message_id="<1@sender.test>")
    receive(engine, SENDER, raw)
    assert store.lookup(ADA) is None
    receive(engine, verp(ADA), raw)
    assert store.lookup(ADA) is not None
    assert the_event(store).provenance is Provenance.SIGNED


def test_a_forged_bounce_before_the_true_one_does_not_shadow_it(engine: Engine, store: Store) -> None:
    receive(engine, verp(EVE), dsn(ADA, message_id="<1@sender.test>"))
    assert the_event(store).provenance is Provenance.FORGED
    assert store.lookup(ADA) is None
    receive(engine, verp(ADA), dsn(ADA, message_id="<1@sender.test>"))
    assert store.lookup(ADA) is not None


def test_a_tag_to_several_counts_with_the_journal_only(engine: Engine, store: Store) -> None:
    path = journal(store, ADA, "bob@receiver.test")
    receive(engine, path, dsn(ADA, message_id="<1@sender.test>"))
    receive(engine, path, dsn(EVE, message_id="<1@sender.test>"))
    receive(engine, path, dsn(EVE, message_id="<unknown@sender.test>"))
    grades = [event.provenance for event in store.events()]
    assert grades == [Provenance.SIGNED, Provenance.FORGED, Provenance.UNPROVEN]
    assert store.lookup(ADA) is not None
    assert store.lookup(EVE) is None


def test_a_recipient_too_long_for_the_address_is_proven_by_the_journal(engine: Engine, store: Store) -> None:
    long = "a.very.long.name.of.somebody@department.of.receiver.test"
    path = verp(long)
    receive(engine, path, dsn(long, message_id="<1@sender.test>"))
    assert store.lookup(long) is None
    journal(store, long, message_id="<another@sender.test>")
    receive(engine, path, dsn(long, message_id="<2@sender.test>"))
    assert store.lookup(long) is not None
    receive(engine, path, dsn(EVE, message_id="<3@sender.test>"))
    assert store.lookup(EVE) is None


def test_forwarded_mail_suppresses_the_address_that_we_mailed(engine: Engine, store: Store) -> None:
    raw = dsn("elsewhere@other.test", message_id="<1@sender.test>").replace(
        b"Final-Recipient:", f"Original-Recipient: rfc822; {ADA}\r\nFinal-Recipient:".encode()
    )
    receive(engine, verp(ADA), raw)
    assert store.lookup(ADA) is not None
    assert store.lookup("elsewhere@other.test") is None


def test_a_victim_named_as_the_original_recipient_of_ones_own_bounce_is_not_touched(
    engine: Engine, store: Store
) -> None:
    raw = dsn(EVE, message_id="<1@sender.test>").replace(
        b"Final-Recipient:", f"Original-Recipient: rfc822; {ADA}\r\nFinal-Recipient:".encode()
    )
    receive(engine, verp(EVE), raw)
    assert store.lookup(ADA) is None
    assert store.lookup(EVE) is not None


def test_a_bounce_after_the_return_path_has_run_out_suppresses_nobody(engine: Engine, store: Store) -> None:
    receive(engine, verp(ADA), dsn(ADA, message_id="<1@sender.test>"), after=timedelta(days=20))
    assert "expired" in str(the_event(store).evidence[-1])
    assert store.lookup(ADA) is None


def test_a_message_id_that_others_have_too_proves_nothing_without_the_return_path(engine: Engine, store: Store) -> None:
    """A newsletter whose copies share one: any of its readers could report of any other."""
    path = journal(store, ADA, message_id="<list@sender.test>")
    journal(store, EVE, message_id="<list@sender.test>")
    receive(engine, SENDER, dsn(ADA, message_id="<list@sender.test>"))
    assert the_event(store).provenance is Provenance.UNPROVEN
    assert store.lookup(ADA) is None
    receive(engine, path, dsn(ADA, message_id="<list@sender.test>"))
    assert store.lookup(ADA) is not None


def test_a_message_id_of_one_recipient_alone_is_known_to_nobody_else(engine: Engine, store: Store) -> None:
    journal(store, ADA)
    receive(engine, SENDER, dsn(ADA, message_id="<1@sender.test>"))
    assert the_event(store).provenance is Provenance.JOURNAL


def test_a_server_may_leave_out_a_subaddress_of_the_recipient_that_the_return_path_proves(
    engine: Engine, store: Store
) -> None:
    receive(engine, verp("ada+news@receiver.test"), dsn(ADA, message_id="<1@sender.test>"))
    assert the_event(store).provenance is Provenance.SIGNED
    assert store.lookup("ada+news@receiver.test") is not None
    assert store.lookup(ADA) is None


def test_unsubscribe_addresses_that_refer_to_the_journal_outlive_its_retention(engine: Engine, store: Store) -> None:
    now = datetime.now(UTC)
    for source, days in (("milter", 100), ("unsubscribe", 100), ("unsubscribe", 1000)):
        entry = JournalEntry(now - timedelta(days=days), f"<{source}{days}@sender.test>", SENDER, (ADA,), source=source)
        store.submit(lambda transaction, entry=entry: transaction.journal(entry)).result()  # type: ignore[misc]
    forgotten = store.submit(lambda transaction: transaction.forget_journal(now - timedelta(days=90), 100)).result()
    assert forgotten == 2
    assert [entry.message_id for entry in store.journal()] == ["<unsubscribe100@sender.test>"]


def test_a_failure_from_before_the_message_was_sent_is_forged(engine: Engine, store: Store) -> None:
    journal(store, ADA, at=SENT + timedelta(days=5))
    receive(engine, SENDER, dsn(ADA, message_id="<1@sender.test>"), after=timedelta(days=6))
    assert the_event(store).provenance is Provenance.FORGED


def test_the_reason_of_the_grade_is_kept_as_evidence(engine: Engine, store: Store) -> None:
    receive(engine, verp(EVE), dsn(ADA, message_id="<1@sender.test>"))
    told = [evidence for evidence in the_event(store).evidence if evidence["layer"] == "provenance"]
    assert [(one["says"], one["text"]) for one in told] == [
        ("forged", "the return path was given out for another recipient")
    ]


def test_mail_to_a_signed_address_can_be_passed_on_to_whom_the_sender_had_named(engine: Engine, store: Store) -> None:
    several = verp(ADA, EVE)
    assert receive(engine, several, dsn(ADA, message_id="<1@sender.test>")).restored == ((several, SENDER),)
    single = journal(store, ADA)
    assert receive(engine, single, dsn(ADA, message_id="<2@sender.test>")).restored == ((single, SENDER),)
    assert receive(engine, SENDER, dsn(ADA, message_id="<3@sender.test>")).restored == ()


def test_an_auto_reply_tells_whose_it_is(engine: Engine, store: Store) -> None:
    raw = (
        b"From: Ada <ada.lovelace@elsewhere.test>\r\nTo: news@sender.test\r\nSubject: Out of office: The issue\r\n"
        b"Auto-Submitted: auto-replied\r\nMessage-ID: <r@receiver.test>\r\n\r\nI am on holiday until Monday.\r\n"
    )
    receive(engine, verp(ADA), raw)
    event = the_event(store)
    assert (event.recipient, event.provenance) == (ADA, Provenance.SIGNED)
    assert store.lookup(ADA) is None


def test_a_thousand_recipients_in_a_forged_report_are_forged_each(engine: Engine, store: Store) -> None:
    groups = "".join(
        f"Final-Recipient: rfc822; v{n}@r.test\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n" for n in range(999)
    )
    raw = dsn(ADA, message_id="<1@sender.test>").replace(
        b"Final-Recipient: rfc822; ada", groups.encode() + b"Final-Recipient: rfc822; ada", 1
    )
    receive(engine, journal(store, ADA), raw)
    assert store.stats().by_provenance == {"forged": 999, "signed": 1}
    assert [s.address for s in store.suppressions()] == [ADA]


def test_the_recipient_of_a_complaint_that_was_blacked_out_is_told_by_our_marker(engine: Engine, store: Store) -> None:
    marked = journal(store, ADA)
    raw = _complaint("redacted@receiver.test", marked)
    receive(engine, "fbl@sender.test", raw)
    assert the_event(store).provenance is Provenance.SIGNED
    assert store.lookup(ADA) is not None
    assert store.lookup("redacted@receiver.test") is None


def _complaint(recipient: str, return_path: str, message_id: str = "<1@sender.test>") -> bytes:
    return (
        "From: Feedback <fbl@provider.test>\r\nTo: fbl@sender.test\r\nSubject: FW: The November issue\r\n"
        "Date: Fri, 20 Nov 2026 10:00:00 +0000\r\nMessage-ID: <arf@provider.test>\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain\r\n\r\nThis is an email abuse report.\r\n"
        "--b\r\nContent-Type: message/feedback-report\r\n\r\n"
        f"Feedback-Type: abuse\r\nUser-Agent: Test/1\r\nVersion: 1\r\nOriginal-Mail-From: <{return_path}>\r\n"
        f"Original-Rcpt-To: <{recipient}>\r\n\r\n"
        "--b\r\nContent-Type: message/rfc822\r\n\r\n"
        f"Return-Path: <{return_path}>\r\nFrom: News <news@sender.test>\r\nTo: {recipient}\r\n"
        f"Subject: The November issue\r\nMessage-ID: {message_id}\r\n\r\nGood morning\r\n--b--\r\n"
    ).encode()


def test_the_grade_survives_a_second_commit_of_the_same_assessment(engine: Engine, store: Store) -> None:
    envelope = Envelope(sender="", recipients=(verp(ADA),), received_at=WHEN)
    assessment = engine.assess(envelope, dsn(ADA, message_id="<1@sender.test>"))
    for _ in range(2):
        engine.commit(assessment).result()
    assert len([e for e in the_event(store).evidence if e["layer"] == "provenance"]) == 1
    assert replace(assessment).events[0].provenance is Provenance.UNPROVEN

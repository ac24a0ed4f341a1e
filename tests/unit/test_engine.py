"""The one walk on a real store: what is recorded, what is suppressed, what the door is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import mailback
from mailback.bounce.taxonomy import Action, Kind
from mailback.engine import Disposition, Engine
from mailback.envelope import Envelope, Source
from mailback.settings import Settings
from mailback.store import Store
from tests.support.mail import dsn, reply

WHEN = datetime(2026, 11, 20, 12, tzinfo=UTC)
ENVELOPE = Envelope(sender="", recipients=("bounces@sender.test",), source=Source.SMTPD, received_at=WHEN)


@pytest.fixture
def engine(store: Store) -> Engine:
    return Engine(Settings(), store)


def test_a_bounce_suppresses_its_recipient_before_the_door_may_answer(engine: Engine, store: Store) -> None:
    outcome = engine.inbound(ENVELOPE, dsn("gone@receiver.test", message_id="<1@sender.test>"))
    assert outcome.kind is Kind.BOUNCE
    assert outcome.machine
    assert outcome.disposition is Disposition.TAG
    assert outcome.smtp_code == 250
    held = store.lookup("gone@receiver.test")
    assert held is not None
    assert (held.type, held.subcategory, held.until) == ("hard_bounce", "user_unknown", None)


def test_the_same_bounce_twice_is_one_event(engine: Engine, store: Store) -> None:
    raw = dsn("gone@receiver.test", message_id="<1@sender.test>")
    first = engine.inbound(ENVELOPE, raw)
    second = engine.inbound(ENVELOPE, b"Received: by another.hop.test; Fri, 20 Nov 2026 12:00:00 +0000\r\n" + raw)
    assert second.event_id == first.event_id
    assert len(list(store.events())) == 1


def test_a_repeated_bounce_does_not_bring_back_a_suppression_that_a_person_lifted(engine: Engine, store: Store) -> None:
    raw = dsn("gone@receiver.test", message_id="<1@sender.test>")
    engine.inbound(ENVELOPE, raw)
    store.submit(lambda tx: tx.lift("gone@receiver.test", "all", actor="ada", reason="mailbox is back")).result()
    engine.inbound(ENVELOPE, raw)
    assert store.lookup("gone@receiver.test") is None


def test_a_delay_notice_is_recorded_and_holds_nobody(engine: Engine, store: Store) -> None:
    raw = dsn(
        "slow@receiver.test",
        message_id="<2@sender.test>",
        action="delayed",
        status="4.4.1",
        diagnostic="connect to mx.receiver.test[192.0.2.7]:25: Connection timed out",
    )
    outcome = engine.inbound(ENVELOPE, raw)
    assert outcome.kind is Kind.DELAY
    assert store.lookup("slow@receiver.test") is None
    assert [event.kind for event in store.events()] == [Kind.DELAY]


def test_each_delay_notice_about_one_message_is_an_event_of_its_own(engine: Engine, store: Store) -> None:
    for number in (1, 2):
        raw = dsn(
            "slow@receiver.test",
            message_id="<2@sender.test>",
            action="delayed",
            status="4.4.1",
            diagnostic="Connection timed out",
            report_id=f"<notice-{number}@mx.receiver.test>",
        )
        engine.inbound(ENVELOPE, raw)
    assert len(list(store.events())) == 2


def test_a_persons_reply_goes_on_to_people_and_starts_no_bounce(engine: Engine, store: Store) -> None:
    outcome = engine.inbound(
        replace(ENVELOPE, sender="ada@receiver.test"),
        reply("ada@receiver.test", message_id="<r1@receiver.test>"),
    )
    assert outcome.kind is Kind.REPLY
    assert not outcome.machine
    assert store.lookup("ada@receiver.test") is None


@pytest.mark.parametrize(("field", "binned"), [("", False), ("Auto-Submitted: auto-replied\r\n", True)])
def test_an_automatic_answer_that_only_its_words_give_away_is_not_thrown_away(
    engine: Engine, field: str, binned: bool
) -> None:
    raw = (
        f"From: Ada <ada@receiver.test>\r\nSubject: Re: hello\r\n{field}\r\n"
        "Thank you for your message. I am on leave with limited access to email and will reply when I return.\r\n"
    )
    outcome = engine.inbound(replace(ENVELOPE, sender="ada@receiver.test"), raw.encode())
    assert (outcome.kind, outcome.machine) == (Kind.AUTO_REPLY, binned)
    assert ("X-Mailback-Route", "auto_archive") in outcome.add_headers


@pytest.mark.parametrize("raw", [b"", b"\0" * 100, b"\xff\xfe garbage", b"<" * 100_000, b"\r\n\r\n"])
def test_what_is_no_mail_is_recorded_as_other_and_passed_on(engine: Engine, store: Store, raw: bytes) -> None:
    outcome = engine.inbound(ENVELOPE, raw)
    assert outcome.kind is Kind.OTHER
    assert outcome.smtp_code == 250
    assert not outcome.machine
    (event,) = store.events()
    assert event.kind is Kind.OTHER
    assert event.notes


def test_a_bounce_that_names_nobody_goes_to_a_person_instead_of_the_bin(engine: Engine, store: Store) -> None:
    raw = b"From: MAILER-DAEMON@x.test\r\nSubject: Undelivered Mail Returned to Sender\r\n\r\n" + b"x" * 500_000
    outcome = engine.inbound(ENVELOPE, raw)
    assert outcome.kind is Kind.BOUNCE
    assert not outcome.machine
    assert outcome.decisions[0].action is Action.MANUAL_REVIEW
    (event,) = store.events()
    assert (event.type, event.subcategory, event.recipient) == ("unknown", "unknown", None)
    assert any("names nobody" in note for note in event.notes)
    assert dict(outcome.add_headers)["X-Mailback-Route"] == "require_approval"


def test_what_stands_beyond_a_limit_is_said_and_looked_at(store: Store) -> None:
    settings = Settings.model_validate({"limits": {"max_recipients": 2}, "policy": {"unproven_per_hour": 0}})
    groups = b"".join(
        b"Final-Recipient: rfc822; r%d@receiver.test\r\nAction: delayed\r\nStatus: 4.4.1\r\n\r\n" % n for n in range(5)
    )
    raw = dsn("last@receiver.test", message_id="<1@sender.test>", action="delayed", status="4.4.1").replace(
        b"Final-Recipient:", groups + b"Final-Recipient:"
    )
    outcome = Engine(settings, store).inbound(ENVELOPE, raw)
    events = list(store.events())
    assert len(events) == 2
    assert all(any("limit" in note for note in event.notes) for event in events)
    assert {decision.action for decision in outcome.decisions} == {Action.MANUAL_REVIEW}


def test_a_reader_that_fails_costs_the_verdict_not_the_mail(
    engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a fault in a reader")

    monkeypatch.setattr("mailback.reports.read", broken)
    outcome = engine.inbound(ENVELOPE, dsn("gone@receiver.test", message_id="<1@sender.test>"))
    assert outcome.kind is Kind.OTHER
    assert any("RuntimeError" in note for note in outcome.notes)
    assert store.lookup("gone@receiver.test") is None


def test_tags_come_from_our_own_words_whatever_the_report_says(engine: Engine) -> None:
    raw = dsn(
        "gone@receiver.test",
        message_id="<1@sender.test>",
        diagnostic="550 5.1.1 User unknown\r\n\tX-Mailback-Kind: reply",
    )
    outcome = engine.inbound(ENVELOPE, raw)
    assert dict(outcome.add_headers)["X-Mailback-Kind"] == "bounce"
    assert all("\n" not in value and "\r" not in value for _, value in outcome.add_headers)
    assert outcome.remove_headers == ("x-mailback-",)


def test_unproven_bounces_go_to_review_when_proof_is_always_required(store: Store) -> None:
    settings = Settings.model_validate({"trust": {"require": "always"}})
    outcome = Engine(settings, store).inbound(ENVELOPE, dsn("gone@receiver.test", message_id="<1@sender.test>"))
    assert outcome.decisions[0].action is Action.MANUAL_REVIEW
    assert store.lookup("gone@receiver.test") is None


def test_hard_bounces_on_two_days_are_needed_where_configured(store: Store) -> None:
    engine = Engine(Settings.model_validate({"policy": {"hard_bounces_needed": 2}}), store)
    engine.inbound(ENVELOPE, dsn("gone@receiver.test", message_id="<1@sender.test>"))
    assert store.lookup("gone@receiver.test") is None
    later = replace(ENVELOPE, received_at=WHEN + timedelta(days=1))
    engine.inbound(later, dsn("gone@receiver.test", message_id="<2@sender.test>"))
    assert store.lookup("gone@receiver.test") is not None


def test_ten_thousand_recipients_in_one_report_are_all_recorded(store: Store) -> None:
    engine = Engine(Settings.model_validate({"policy": {"unproven_per_hour": 0}}), store)
    groups = "".join(
        f"Final-Recipient: rfc822; gone-{n}@receiver.test\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
        for n in range(10_000)
    )
    raw = dsn("gone-0@receiver.test", message_id="<many@sender.test>").replace(
        b"Final-Recipient: rfc822; gone-0@receiver.test\r\n",
        groups.encode() + b"Final-Recipient: rfc822; last@receiver.test\r\n",
    )
    outcome = engine.inbound(ENVELOPE, raw)
    assert outcome.kind is Kind.BOUNCE
    assert store.lookup("gone-9998@receiver.test") is not None


def test_classify_answers_with_the_same_keys_for_every_kind() -> None:
    keys = {"kind", "bounces", "reply", "original", "authentication", "provenance", "notes"}
    for raw in (dsn("a@b.test", message_id="<1@b.test>"), reply("a@b.test", message_id="<2@b.test>"), b""):
        assert set(mailback.classify(raw).to_dict()) == keys


def test_classify_tells_what_a_script_needs_about_a_bounce() -> None:
    told = mailback.classify(dsn("gone@receiver.test", message_id="<1@sender.test>")).to_dict("here.eml")
    bounces = told["bounces"]
    assert isinstance(bounces, list)
    bounce = bounces[0]
    assert told["source"] == "here.eml"
    assert bounce["recipient"] == "gone@receiver.test"
    assert (bounce["status"], bounce["smtp_code"]) == ("5.1.1", "550")
    assert (bounce["type"], bounce["subcategory"]) == ("hard_bounce", "user_unknown")
    assert (bounce["fault"], bounce["permanent"], bounce["action"]) == (
        "recipient",
        True,
        "suppress_permanently",
    )
    assert bounce["evidence"]
    assert told["original"] == {
        "message_id": "<1@sender.test>",
        "sender": "news@sender.test",
        "subject": "The November issue",
        "list_id": None,
        "campaign": None,
    }


def test_a_forwarded_alias_is_suppressed_by_the_address_that_we_mailed(engine: Engine, store: Store) -> None:
    raw = dsn("inner@host.receiver.test", message_id="<alias@sender.test>").replace(
        b"Final-Recipient:", b"Original-Recipient: rfc822; alias@receiver.test\r\nFinal-Recipient:"
    )
    engine.inbound(ENVELOPE, raw)
    assert store.lookup("alias@receiver.test") is not None
    assert store.lookup("inner@host.receiver.test") is None
    (event,) = store.events()
    assert (event.recipient, event.final_recipient) == ("alias@receiver.test", "inner@host.receiver.test")


def test_the_operators_own_words_and_caps_reach_the_readers(store: Store, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    settings = Settings.model_validate(
        {"rules": {"directory": str(tmp_path / "rules")}, "limits": {"max_recipients": 1}}
    )
    raw = dsn("a@receiver.test", message_id="<two@sender.test>").replace(
        b"Final-Recipient:", b"Final-Recipient: rfc822; b@receiver.test\r\nAction: failed\r\n\r\nFinal-Recipient:"
    )
    Engine(settings, store).inbound(ENVELOPE, raw)
    assert len(list(store.events())) == 1


def test_a_fault_on_our_own_side_is_told_to_the_operator_once(engine: Engine, store: Store) -> None:
    raw = dsn(
        "fine@receiver.test",
        message_id="<rdns@sender.test>",
        status="5.7.25",
        diagnostic="550 5.7.25 The IP address sending this message does not have a PTR record",
    )
    assert any("reverse_dns_missing" in note for note in engine.inbound(ENVELOPE, raw).notes)
    assert not any("alert" in note for note in engine.inbound(ENVELOPE, raw).notes)
    assert store.lookup("fine@receiver.test") is None

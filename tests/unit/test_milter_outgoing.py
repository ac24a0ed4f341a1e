"""What the milter does with mail that goes out, and with bounces to return paths: a session, packet by packet."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from mailback.bounce.taxonomy import Kind
from mailback.engine import Disposition, Outcome
from mailback.outbound.check import ALLOWED, Answer
from mailback.outbound.outgoing import Outgoing
from mailback.policy.routes import Delivery
from mailback.reports import OriginalNames
from mailback.returnpath import Key, Keys, ReturnPaths, Standing
from mailback.store import Store
from mailback.store.records import Breaker
from mailback_milter import protocol
from mailback_milter.direction import DirectionRules
from mailback_milter.protocol import Action, Command, Step
from mailback_milter.session import Reading, Rules, Sending, Session

PATHS = ReturnPaths(
    Keys((Key(1, date(2026, 1, 1), b"k" * 32),)), "bounce.sender.test", 14, senders=frozenset({"sender.test"})
)
EVERYTHING = 0x1FFFFF
OUTCOME = Outcome(Disposition.TAG, Kind.BOUNCE, True, 250, "2.6.0", "recorded", (), ("x-mailback-",), "01J")


class Check:
    """Suppressed are the dead, and for the weekly list and the campaign c1 those who have had enough; some have to wait
    while their provider refuses our mail."""

    held = True

    def answer(self, recipient: str, *, sender: str | None = None, **scope: str | None) -> Answer:
        enough = "enough" in recipient and (scope.get("list_id") == "weekly" or scope.get("campaign") == "c1")
        if enough or "dead" in recipient:
            return Answer(False, 550, "5.7.1", f"<{recipient}>: suppressed")
        if "waits" in recipient and self.held:
            breaker = Breaker("receiver.test", "ip", "*", "open", datetime(2026, 1, 1, tzinfo=UTC))
            return Answer(False, 451, "4.7.1", f"<{recipient}>: mail is held", breaker=breaker)
        return ALLOWED


@pytest.fixture
def rules(store: Store) -> Rules:
    return Rules(
        check=Check(),
        directions=DirectionRules.of(["ORIGINATING"], ["sender.test"], "bounce.sender.test"),
        failure_action="tempfail",
        max_message_bytes=1_000_000,
        authserv_id="mx.sender.test",
        outgoing=Outgoing(store, PATHS, OriginalNames(), 2048),
        return_paths=PATHS,
    )


class Mta:
    """What an MTA says to a session."""

    def __init__(self, rules: Rules, actions: int = 0x1FF, steps: int = EVERYTHING) -> None:
        self.session = Session(rules)
        opened = self.session.take(Command.NEGOTIATE, struct.pack("!III", 6, actions, steps))
        assert isinstance(opened, bytes)
        _, self.actions, self.steps = struct.unpack_from("!III", opened, 5)

    def mail(self, sender: str, *recipients: str, **macros: str) -> list[bytes]:
        """MAIL and RCPT; what each recipient was answered."""
        known = {"{daemon_name}": "mx", "{client_addr}": "203.0.113.9"} | macros
        pairs = b"".join(f"{name}\0{value}\0".encode() for name, value in known.items())
        self.session.take(Command.MACRO, b"M" + pairs)
        self.session.take(Command.MAIL, f"<{sender}>\0".encode())
        said = [self.session.take(Command.RECIPIENT, f"<{who}>\0".encode()) for who in recipients]
        return [answer for answer in said if isinstance(answer, bytes)]

    def out(self, *recipients: str, sender: str = "news@sender.test") -> list[bytes]:
        return self.mail(sender, *recipients, **{"{daemon_name}": "ORIGINATING"})

    def end(self, *fields: tuple[str, str], body: bytes = b"Good morning,\r\n\r\nhere  is news.\r\n") -> object:
        self.session.take(Command.DATA, b"")
        for name, value in fields or (("Subject", " News"), ("Message-ID", " <1@sender.test>")):
            self.session.take(Command.HEADER, f"{name}\0{value}\0".encode())
        self.body = self.session.take(Command.BODY, body)
        self.session.take(Command.MACRO, b"Ei\x004B2\0")
        return self.session.take(Command.END_OF_MESSAGE, b"")


def sender_of(answer: object) -> str | None:
    """The envelope sender that an answer asks for."""
    assert isinstance(answer, bytes)
    [*changes, last] = [(command, data) for command, data, _ in protocol.packets(answer)]
    assert last == (ord("c"), b"")
    found = [data for command, data in changes if command == ord("e")]
    return found[0].decode().strip("<>\0") if found else None


def test_mail_to_one_leaves_under_its_own_return_path_once_the_journal_is_committed(rules: Rules, store: Store) -> None:
    mta = Mta(rules)
    assert mta.out("ada@receiver.test") == [protocol.CONTINUE]
    sending = mta.end(
        ("Message-ID", " <1@sender.test>"), ("Subject", " =?utf-8?q?Caf=C3=A9?="), ("List-Id", " <weekly>")
    )
    assert isinstance(sending, Sending)
    assert rules.outgoing is not None
    rules.outgoing.remember(sending.entry).result()
    signed = sender_of(mta.session.sent(sending.return_path))
    assert signed is not None
    assert PATHS.verify(signed).recipient == "ada@receiver.test"
    [entry] = store.find_journal(return_path=signed.partition("@")[0])
    assert (entry.message_id, entry.envelope_sender, entry.recipients, entry.queue_id) == (
        "<1@sender.test>", "news@sender.test", ("ada@receiver.test",), "4B2",
    )  # fmt: skip
    assert (entry.subject, entry.list_id, entry.text) == ("Café", "weekly", "Good morning, here is news.")


def test_mail_to_several_leaves_under_one_tag(rules: Rules) -> None:
    mta = Mta(rules)
    mta.out("ada@receiver.test", "dead@receiver.test", "bob@receiver.test")
    sending = mta.end()
    assert isinstance(sending, Sending)
    assert sending.entry.recipients == ("ada@receiver.test", "bob@receiver.test")
    assert sending.return_path is not None
    assert sending.return_path.startswith("prvs=")


@pytest.mark.parametrize("sender", ["", "other@elsewhere.test"])
def test_what_is_not_ours_to_sign_is_remembered_all_the_same(rules: Rules, sender: str) -> None:
    mta = Mta(rules)
    mta.out("ada@receiver.test", sender=sender)
    sending = mta.end()
    assert isinstance(sending, Sending)
    assert sending.return_path is None
    assert sender_of(mta.session.sent(sending.return_path)) is None


def test_of_the_body_only_the_beginning_is_taken(rules: Rules) -> None:
    mta = Mta(rules)
    mta.out("ada@receiver.test")
    sending = mta.end(body=b"word " * 13_000)
    assert mta.body == protocol.SILENCE
    assert isinstance(sending, Sending)
    assert sending.entry.text is not None
    assert len(sending.entry.text) <= 2048


def test_an_mta_that_wants_an_answer_to_each_piece_of_the_body_is_told_to_skip_the_rest(rules: Rules) -> None:
    mta = Mta(rules, steps=EVERYTHING & ~Step.QUIET_BODY)
    mta.out("ada@receiver.test")
    assert isinstance(mta.end(), Sending)
    assert mta.body == protocol.SKIP


def test_a_message_that_must_be_remembered_needs_no_answer_at_data(rules: Rules) -> None:
    assert Mta(rules).steps & Step.NO_DATA
    assert not Mta(replace(rules, outgoing=None)).steps & Step.NO_DATA


def test_where_no_text_is_kept_the_body_is_not_even_looked_at(rules: Rules, store: Store) -> None:
    mta = Mta(replace(rules, outgoing=Outgoing(store, PATHS, OriginalNames(), 0)))
    mta.out("ada@receiver.test")
    sending = mta.end()
    assert isinstance(sending, Sending)
    assert sending.entry.text is None


def test_without_a_journal_a_message_is_signed_at_its_end(rules: Rules) -> None:
    mta = Mta(replace(rules, outgoing=Outgoing(None, PATHS, OriginalNames(), 2048)))
    mta.out("ada@receiver.test")
    assert sender_of(mta.end()) is not None


def test_with_neither_a_message_that_goes_out_is_not_sent_to_us(rules: Rules) -> None:
    mta = Mta(replace(rules, outgoing=None, return_paths=None))
    mta.out("ada@receiver.test")
    assert mta.session.take(Command.DATA, b"") == protocol.ACCEPT
    assert not mta.actions & Action.CHANGE_SENDER


def test_a_journal_that_cannot_be_written_keeps_the_message_with_its_sender(rules: Rules) -> None:
    from mailback.store.errors import StoreUnavailable

    mta = Mta(rules)
    mta.out("ada@receiver.test")
    assert isinstance(mta.end(), Sending)
    answer = mta.session.failed(Command.END_OF_MESSAGE, StoreUnavailable("disk full", "free space"))
    assert b"451 4.3.0" in answer


def test_authentication_results_of_our_own_stay_in_mail_that_goes_out_even_when_we_fail(rules: Rules) -> None:
    results = ("Authentication-Results", " mx.sender.test; auth=pass smtp.auth=news")
    mta = Mta(replace(rules, failure_action="accept"))
    mta.out("ada@receiver.test")
    assert isinstance(mta.end(results), Sending)
    assert mta.session.failed(Command.END_OF_MESSAGE, RuntimeError("boom")) == protocol.CONTINUE
    mta.mail("", "ada@sender.test")
    assert isinstance(mta.end(results), Reading)
    removed = protocol.remove_field(1, b"Authentication-Results")
    assert mta.session.failed(Command.END_OF_MESSAGE, RuntimeError("boom")) == removed + protocol.CONTINUE


def test_an_mta_that_lets_nobody_sign_gets_its_message_unsigned(rules: Rules) -> None:
    mta = Mta(rules, actions=Action.ADD_FIELDS | Action.CHOOSE_MACROS)
    mta.out("ada@receiver.test")
    sending = mta.end()
    assert isinstance(sending, Sending)
    assert sender_of(mta.session.sent(sending.return_path)) is None


def test_mail_of_sendmail_is_signed_and_remembered(rules: Rules) -> None:
    mta = Mta(rules)
    mta.mail("app@sender.test", "ada@receiver.test", "dead@receiver.test", i="4C4")
    sending = mta.end()
    assert isinstance(sending, Sending)
    assert sending.entry.recipients == ("ada@receiver.test",)
    assert sending.return_path is not None


# -- opted out of a list or campaign ------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [("List-Id", " The weekly <weekly>"), ("X-Campaign-ID", " c1")])
def test_mail_of_a_list_is_refused_for_who_opted_out_of_it(rules: Rules, field: tuple[str, str]) -> None:
    mta = Mta(rules)
    assert mta.out("enough@receiver.test") == [protocol.CONTINUE], "the list is not known yet"
    refused = mta.end(field)
    assert isinstance(refused, bytes)
    assert b"550 5.7.1 <enough@receiver.test>: suppressed" in refused


def test_the_others_of_a_list_get_its_mail_all_the_same(rules: Rules) -> None:
    mta = Mta(rules)
    mta.out("ada@receiver.test", "enough@receiver.test", "bob@receiver.test")
    sending = mta.end(("List-Id", " <weekly>"), ("Message-ID", " <1@sender.test>"))
    assert isinstance(sending, Sending)
    assert sending.entry.recipients == ("ada@receiver.test", "bob@receiver.test")
    answer = mta.session.sent(sending.return_path)
    assert protocol.remove_recipient("enough@receiver.test") in answer
    assert answer.endswith(protocol.CONTINUE)


def test_where_nobody_may_be_taken_out_the_message_is_refused_as_a_whole(rules: Rules) -> None:
    mta = Mta(rules, actions=0x1FF & ~Action.REMOVE_RECIPIENT)
    mta.out("ada@receiver.test", "enough@receiver.test")
    refused = mta.end(("List-Id", " <weekly>"))
    assert isinstance(refused, bytes)
    assert b"550 5.7.1" in refused


def test_other_mail_reaches_who_opted_out_of_a_list(rules: Rules) -> None:
    mta = Mta(rules)
    mta.out("enough@receiver.test")
    assert isinstance(mta.end(("List-Id", " <other>")), Sending)


# -- what comes back ------------------------------------------------------------------------------------------


def signed(*recipients: str) -> str:
    path = PATHS.sign("news@sender.test", recipients)
    assert path is not None
    return path


@pytest.mark.parametrize("local", ["news", "v199" + "0" * 40, "prvs=1234abcdef=news=sender.test", "SRS0=x=y=z.test=a"])
def test_a_bounce_to_an_address_that_we_did_not_give_out_is_refused_before_data(rules: Rules, local: str) -> None:
    [answer] = Mta(rules).mail("", f"{local}@Bounce.Sender.test")
    assert b"550 5.7.1" in answer
    assert local.encode() not in answer


@pytest.mark.parametrize(
    ("sender", "recipient"),
    [
        ("", signed("ada@receiver.test")),
        ("", signed("ada@receiver.test").upper()),
        ("", signed("a@x.test", "b@x.test")),
        ("", "postmaster@bounce.sender.test"),
        ("", "news@sender.test"),
        ("ada@receiver.test", "news@bounce.sender.test"),
    ],
)
def test_what_may_be_an_answer_is_taken(rules: Rules, sender: str, recipient: str) -> None:
    assert Mta(rules).mail(sender, recipient) == [protocol.CONTINUE]


def test_a_report_of_this_postfix_is_never_refused(rules: Rules) -> None:
    mta = Mta(rules)
    assert mta.mail("", "news@bounce.sender.test", i="4D6") == [protocol.CONTINUE]
    assert isinstance(mta.end(), Reading)


def test_an_expired_return_path_says_so_in_the_log_only(rules: Rules) -> None:
    paths = replace(PATHS, max_age_days=-5)
    assert paths.refuses(signed("ada@receiver.test")) is Standing.EXPIRED
    [answer] = Mta(replace(rules, return_paths=paths)).mail("", signed("ada@receiver.test"))
    assert b"550 5.7.1" in answer


def test_what_came_to_a_signed_address_is_delivered_to_the_one_behind_it(rules: Rules) -> None:
    path = signed("ada@receiver.test")
    mta = Mta(rules)
    mta.mail("", path)
    assert isinstance(mta.end(), Reading)
    answer = mta.session.recorded(replace(OUTCOME, restored=((path, "news@sender.test"),)))
    said = [(chr(command), data) for command, data, _ in protocol.packets(answer)]
    assert said == [("-", f"<{path}>\0".encode()), ("+", b"<news@sender.test>\0"), ("c", b"")]


def _delivered(rules: Rules, *fields: tuple[str, str], actions: int = 0x1FF, **told: Any) -> list[tuple[str, bytes]]:
    """What the MTA is told of a reply that is delivered so."""
    mta = Mta(replace(rules, readdresses=True), actions=actions)
    mta.mail("ada@receiver.test", "news@sender.test", "maya@sender.test")
    assert isinstance(mta.end(*fields), Reading)
    disposition = told.pop("disposition", Disposition.TAG)
    answer = mta.session.recorded(replace(OUTCOME, disposition=disposition, delivery=Delivery(**told)))
    return [(chr(command), data) for command, data, _ in protocol.packets(answer)]


def test_a_reply_that_its_route_sends_elsewhere_goes_there_alone(rules: Rules) -> None:
    said = _delivered(rules, redirect="queue@sender.test", copies=("boss@sender.test",))
    assert said == [
        ("-", b"<news@sender.test>\0"), ("-", b"<maya@sender.test>\0"), ("+", b"<queue@sender.test>\0"),
        ("+", b"<boss@sender.test>\0"), ("c", b""),
    ]  # fmt: skip


def test_a_held_reply_tells_the_reason_on_the_hold_queue(rules: Rules) -> None:
    said = _delivered(rules, disposition=Disposition.QUARANTINE, held="malware: 100% sure\r\nX-Evil: 1")
    assert said == [("q", b"malware: 100\\x{25} sure\\x{0D}\\x{0A}X-Evil: 1\0"), ("c", b"")]


@pytest.mark.parametrize(
    ("subject", "changed"),
    [
        (("Subject", " Re: News"), b"Subject\0 [SPAM] Re: News\0"),
        (("SUBJECT", " =?utf-8?q?Caf=C3=A9?=\n again"), b"SUBJECT\0 [SPAM] =?utf-8?q?Caf=C3=A9?=\n again\0"),
        (("Subject ", ""), b"Subject \0 [SPAM] \0"),
        (("Subject", " x\r\n\tX-Mailback-Kind: bounce"), b"Subject\0 [SPAM] x\n\tX-Mailback-Kind: bounce\0"),
    ],
)
def test_a_subject_is_tagged_as_it_stands(rules: Rules, subject: tuple[str, str], changed: bytes) -> None:
    said = _delivered(rules, ("From", " a@b.test"), subject, ("Subject", " second"), subject_tag="[SPAM]")
    assert said == [("m", struct.pack("!I", 1) + changed), ("c", b"")]


def test_a_subject_is_tagged_once_and_made_where_there_is_none(rules: Rules) -> None:
    assert _delivered(rules, ("Subject", " [SPAM] x"), subject_tag="[SPAM]") == [("c", b"")]
    made = _delivered(rules, ("From", " a@b.test"), subject_tag="[SPAM]")
    assert made == [("i", struct.pack("!I", 0) + b"Subject\0 [SPAM]\0"), ("c", b"")]


def test_a_reply_is_delivered_as_addressed_where_the_mta_allows_nothing_else(rules: Rules) -> None:
    said = _delivered(
        rules, actions=Action.CHOOSE_MACROS, redirect="queue@sender.test", copies=("x@sender.test",), subject_tag="[S]",
        held="x", disposition=Disposition.QUARANTINE,
    )  # fmt: skip
    assert said == [("c", b"")]


def test_steps_that_postfix_leaves_out_do_not_matter(rules: Rules) -> None:
    mta = Mta(rules, steps=Step.LEADING_SPACE)
    mta.out("ada@receiver.test")
    assert isinstance(mta.end(), Sending)
    assert mta.body == protocol.CONTINUE


def test_a_recipient_whose_provider_refuses_us_is_asked_to_wait(rules: Rules) -> None:
    answers = Mta(rules).out("ada@receiver.test", "waits@receiver.test")
    assert answers[0] == protocol.CONTINUE
    assert b"451 4.7.1 <waits@receiver.test>: mail is held" in answers[1]


def test_mail_from_sendmail_that_has_to_wait_is_taken_into_the_queue(rules: Rules) -> None:
    mta = Mta(rules)
    said = mta.mail("cron@sender.test", "waits@receiver.test", i="4B1")
    assert said == [protocol.CONTINUE]
    sending = mta.end()
    assert isinstance(sending, Sending)
    assert sending.entry.recipients == ("waits@receiver.test",)


def test_nobody_is_taken_off_a_message_because_a_breaker_opened_meanwhile(rules: Rules) -> None:
    check = Check()
    check.held = False
    mta = Mta(replace(rules, check=check))
    assert mta.out("ada@receiver.test", "waits@receiver.test") == [protocol.CONTINUE] * 2
    check.held = True
    sending = mta.end()
    assert isinstance(sending, Sending)
    assert sending.entry.recipients == ("ada@receiver.test", "waits@receiver.test")
    assert b"waits" not in mta.session.sent(sending.return_path)

"""What waits for a person, and what a person's word does and undoes."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailback.bounce.taxonomy import Action, Kind, Provenance, Subcategory, Type
from mailback.cli.review import countdown
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.learn import samples
from mailback.policy.decision import Decision
from mailback.policy.handling import HandlingRules
from mailback.reply import routing
from mailback.resources import rules_dir
from mailback.review import queue
from mailback.review.deciding import Answer, Consequences, Right, approve, correct, open_for
from mailback.settings import Settings
from mailback.store import Store
from mailback.store.reading import ReviewFilter
from mailback.store.records import Review
from tests.support.command import Run, within
from tests.support.mail import dsn
from tests.support.records import a_suppression, an_event, do, in_days

RULES = Consequences(HandlingRules.load([rules_dir()]), routing.shipped(), lambda *_: None)
UNKNOWN, FULL = Subcategory.USER_UNKNOWN, Subcategory.MAILBOX_FULL


@pytest.fixture
def told(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    config = tmp_path / "mailback.toml"
    config.write_text(f"[store]\nurl = 'sqlite:///{store.path}'\n[service]\nstate_directory = '{tmp_path}/state'\n")

    return within(config, capsys)


def engine_of(store: Store, **sections: dict[str, object]) -> Engine:
    return Engine(Settings.model_validate(sections), store)


def doubtful(store: Store) -> Engine:
    """Proof is asked for, so that nothing unproven acts."""
    return engine_of(store, trust={"require": "always"})


def bounce(engine: Engine, who: str, raw: bytes | None = None, **fields: str) -> Action:
    envelope = Envelope("", ("news@sender.test",), client_address="203.0.113.9", source=Source.SMTPD,
                        received_at=datetime.now(UTC))  # fmt: skip
    raw = raw or dsn(who, message_id=f"<{who.partition('@')[0]}@sender.test>", **fields)  # type: ignore[arg-type]
    return engine.inbound(envelope, raw).decisions[0].action


def suppressed(store: Store) -> set[str]:
    return {s.address for s in store.suppressions(active_at=datetime.now(UTC))}


def waiting(store: Store) -> list[Review]:
    return list(store.reviews())


def approved(store: Store, number: int, by: str = "operator:ann", *, many: bool = False) -> Answer:
    return do(store, lambda t: approve(t, number, RULES, by=by, many=many))


def corrected(store: Store, number: int, right: Right, by: str = "operator:ann", *, again: bool = False) -> Answer:
    return do(store, lambda t: correct(t, number, right, RULES, by=by, again=again))


def reply_item(event_id: str, intent: str, *, alone: bool = False, text: str = "Please call our lawyers.") -> Review:
    now = datetime.now(UTC)
    return Review(
        id=0, event_id=event_id, at=now, kind=Kind.REPLY, recipient="bob@example.org", recipient_key="bob@example.org",
        domain="example.org", type=None, subcategory=None, intent=intent, confidence=0.5, route="require_approval",
        reason="low confidence", alone=alone, text=text, wanted=None, due=now + timedelta(minutes=30),
    )  # fmt: skip


def queue_reply(store: Store, intent: str, *, alone: bool = False) -> int:
    event = an_event(f"reply {intent}", kind=Kind.REPLY, type=None, subcategory=None)
    do(store, lambda t: (t.record(event), t.reviews.add(reply_item(event.id, intent, alone=alone))))
    item = do(store, lambda t: t.reviews.of_event(event.id))
    assert item is not None
    return item.id


# What waits --------------------------------------------------------------------------------------------------------


def test_what_is_not_proven_waits_with_what_it_asks_for_and_a_deadline(store: Store) -> None:
    assert bounce(doubtful(store), "ada@receiver.test") is Action.MANUAL_REVIEW
    [item] = waiting(store)
    assert (item.told, item.recipient, item.state) == ("hard_bounce/user_unknown", "ada@receiver.test", "open")
    assert "unproven" in item.reason
    assert item.wanted is not None
    assert item.due is not None
    assert timedelta(hours=23) < item.due - datetime.now(UTC) < timedelta(hours=25)


def test_what_acts_at_once_does_not_wait(store: Store) -> None:
    bounce(engine_of(store), "ada@receiver.test")
    assert waiting(store) == []


def test_what_the_budget_and_a_wave_hold_back_waits(store: Store) -> None:
    engine = engine_of(store, policy={"unproven_per_hour": 1})
    for who in ("a@receiver.test", "b@receiver.test"):
        bounce(engine, who)
    [item] = waiting(store)
    assert (item.recipient, "this hour" in item.reason) == ("b@receiver.test", True)
    assert item.wanted is not None


def test_a_bounce_that_names_nobody_waits(store: Store) -> None:
    head = b"From: MAILER-DAEMON@mx.test\r\nSubject: Undelivered Mail Returned to Sender\r\n"
    raw = head + b"\r\nIt could not be delivered.\r\n"
    envelope = Envelope("", ("news@sender.test",), received_at=datetime.now(UTC))
    outcome = engine_of(store).inbound(envelope, raw)
    assert outcome.kind is Kind.BOUNCE
    [item] = waiting(store)
    assert (item.recipient, "names nobody" in item.reason) == (None, True)


def test_the_same_report_again_is_one_item(store: Store) -> None:
    for _ in range(3):
        bounce(doubtful(store), "ada@receiver.test")
    assert len(waiting(store)) == 1


def test_better_proof_closes_the_item_that_waited_for_it(store: Store) -> None:
    event = an_event("one", provenance=Provenance.UNPROVEN)
    do(store, lambda t: (t.record(event), t.reviews.add(reply_item(event.id, "x"))))
    assert do(store, lambda t: t.reviews.settle([event.id], "approved", "event:2", "signed since")) == 1
    assert waiting(store) == []


def test_confirming_a_wave_closes_what_waited_because_of_it(store: Store) -> None:
    engine = engine_of(store, policy={"wave_minimum": 3})
    start = datetime.now(UTC)
    for hour in range(30):
        envelope = Envelope("", ("n@s.test",), client_address="203.0.113.9", source=Source.SMTPD,
                            received_at=start - timedelta(hours=30 - hour))  # fmt: skip
        engine.inbound(envelope, dsn(f"u{hour}@receiver.test", message_id=f"<u{hour}@sender.test>"))
    for n in range(12):
        bounce(engine, f"burst{n}@receiver.test")
    [wave] = store.waves(only_open=True)
    assert len(waiting(store)) > 0
    do(store, lambda t: t.confirm_wave(wave.id, "operator:ann"))
    assert waiting(store) == []


# Approving ---------------------------------------------------------------------------------------------------------


def test_approval_makes_the_suppression_that_was_held_back(store: Store) -> None:
    bounce(doubtful(store), "ada@receiver.test")
    assert suppressed(store) == set()
    assert approved(store, 1).done
    assert suppressed(store) == {"ada@receiver.test"}
    [event] = store.events()
    assert event.action is Action.SUPPRESS_PERMANENTLY
    assert any("approved by operator:ann" in note for note in event.notes)
    assert [(e.verb, e.actor) for e in store.audit_trail(subject="ada@receiver.test")] == [
        ("suppress", "operator:ann"), ("approve", "operator:ann"),
    ]  # fmt: skip
    assert store.verify_audit().holds


def test_a_hold_during_the_review_ends_with_it(store: Store) -> None:
    engine = engine_of(store, policy={"hold_during_review": True})
    held = {"status": "5.7.1", "diagnostic": "550 5.7.1 recipient rejected, not accepting mail from you"}
    bounce(engine, "ada@receiver.test", **held)  # type: ignore[arg-type]
    [item] = waiting(store)
    if not suppressed(store):
        pytest.fail(f"nothing was held: {item}")
    approved(store, item.id)
    assert suppressed(store) == set()


def test_the_second_of_two_who_decide_is_told_what_the_first_did(store: Store) -> None:
    bounce(doubtful(store), "ada@receiver.test")
    assert approved(store, 1).done
    late = corrected(store, 1, Right(Type.SOFT_BOUNCE, FULL), by="operator:eve")
    assert (late.done, "approved by operator:ann" in late.said) == (False, True)
    assert suppressed(store) == {"ada@receiver.test"}


def test_of_many_who_decide_at_once_one_does(store: Store) -> None:
    bounce(doubtful(store), "ada@receiver.test")
    start = threading.Barrier(8)

    def decide(n: int) -> bool:
        with Store.open(f"sqlite:///{store.path}") as own:
            start.wait(10)
            if n % 2:
                return approved(own, 1, by=f"operator:{n}").done
            return corrected(own, 1, Right(Type.SOFT_BOUNCE, FULL), by=f"operator:{n}").done

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(decide, range(8))) == 1
    decided = [entry.verb for entry in store.audit_trail() if entry.verb in ("approve", "correct")]
    assert len(decided) == 1
    [item] = store.reviews(ReviewFilter(state=None))
    assert bool(suppressed(store)) == (item.state == "approved")


# Correcting --------------------------------------------------------------------------------------------------------


def test_a_correction_undoes_what_the_verdict_did_and_does_what_the_right_one_asks(store: Store) -> None:
    bounce(engine_of(store), "ada@receiver.test")
    [event] = store.events()
    number = do(store, lambda t: open_for(t, event.id, "operator:ann"))
    assert number is not None
    assert suppressed(store) == {"ada@receiver.test"}
    answer = corrected(store, number, Right(Type.SOFT_BOUNCE, FULL))
    assert answer.done, answer.said
    assert suppressed(store) == set()
    [event] = store.events()
    assert (event.type, event.subcategory, event.permanent) == ("soft_bounce", "mailbox_full", False)
    assert event.action is Action.RETRY_WITH_DELAY
    assert event.evidence[-1]["layer"] == "person"
    [item] = store.reviews(ReviewFilter(state="corrected"))
    assert (item.told, item.right) == ("hard_bounce/user_unknown", "soft_bounce/mailbox_full")


def test_what_stood_before_the_wrong_verdict_stands_again(store: Store) -> None:
    earlier = a_suppression(in_days(3), address_key="ada@receiver.test", address="ada@receiver.test")
    do(store, lambda t: t.suppress(earlier, "operator:ann"))
    bounce(engine_of(store), "ada@receiver.test")
    [event] = store.events()
    number = do(store, lambda t: open_for(t, event.id, "operator:ann"))
    assert number is not None
    corrected(store, number, Right(Type.SOFT_BOUNCE, FULL))
    assert store.lookup("ada@receiver.test") == earlier


def test_a_correction_suppresses_where_the_right_verdict_asks_for_it(store: Store) -> None:
    bounce(engine_of(store), "ada@receiver.test", status="5.0.0", diagnostic="something went wrong")
    [item] = waiting(store)
    assert suppressed(store) == set()
    assert corrected(store, item.id, Right(Type.HARD_BOUNCE, UNKNOWN)).done
    assert suppressed(store) == {"ada@receiver.test"}


def test_a_decision_can_be_taken_again_by_who_says_so(store: Store) -> None:
    bounce(doubtful(store), "ada@receiver.test")
    approved(store, 1)
    assert corrected(store, 1, Right(Type.SOFT_BOUNCE, FULL), again=True).done
    assert suppressed(store) == set()
    assert corrected(store, 1, Right(Type.HARD_BOUNCE, UNKNOWN), again=True).done
    assert suppressed(store) == {"ada@receiver.test"}


def test_later_and_better_reports_do_not_overrule_a_person(store: Store) -> None:
    event = an_event("one", provenance=Provenance.UNPROVEN)
    do(store, lambda t: t.record(event))
    number = do(store, lambda t: open_for(t, event.id, "operator:ann"))
    assert number is not None
    corrected(store, number, Right(Type.SOFT_BOUNCE, FULL))
    again = do(store, lambda t: t.record(an_event("one", provenance=Provenance.SIGNED)))
    assert not again.better
    [kept] = store.events()
    assert kept.subcategory == "mailbox_full"


def test_whom_a_report_is_about_can_be_told_where_it_names_nobody(store: Store) -> None:
    event = an_event("nobody", recipient=None, recipient_key=None, type="unknown", subcategory="unknown")
    do(store, lambda t: t.record(event))
    number = do(store, lambda t: open_for(t, event.id, "operator:ann"))
    assert number is not None
    right = Right(Type.HARD_BOUNCE, UNKNOWN)
    assert not corrected(store, number, right).done
    assert corrected(store, number, Right(Type.HARD_BOUNCE, UNKNOWN, recipient="Ada@Receiver.test")).done
    assert suppressed(store) == {"Ada@Receiver.test"}
    assert [e.recipient for e in store.events(key="ada@receiver.test")] == ["Ada@Receiver.test"]


def test_a_report_cannot_be_turned_against_somebody_else(store: Store) -> None:
    bounce(doubtful(store), "ada@receiver.test")
    answer = corrected(store, 1, Right(Type.HARD_BOUNCE, UNKNOWN, recipient="eve@receiver.test"))
    assert not answer.done
    assert suppressed(store) == set()


def test_a_persons_words_taken_for_a_bounce_no_longer_count_as_one(store: Store) -> None:
    bounce(engine_of(store), "ada@receiver.test")
    [event] = store.events()
    number = do(store, lambda t: open_for(t, event.id, "operator:ann"))
    assert number is not None
    assert corrected(store, number, Right(intent="question")).done
    [event] = store.events()
    assert (event.kind, event.type, event.permanent) == (Kind.REPLY, None, False)
    assert suppressed(store) == set()


# Replies -----------------------------------------------------------------------------------------------------------


def written(store: Store, text: str, subject: str = "Re: The November issue", number: int = 1) -> str:
    """A reply through the engine; its event's id."""
    raw = (
        f"From: Ada <ada@receiver.test>\r\nTo: news@sender.test\r\nSubject: {subject}\r\n"
        f"Message-ID: <r{number}@receiver.test>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
    ).encode()
    envelope = Envelope("ada@receiver.test", ("news@sender.test",), source=Source.SMTPD, received_at=datetime.now(UTC))
    return engine_of(store).inbound(envelope, raw).event_id


def test_a_reply_that_a_person_must_see_waits_with_its_words_and_the_deadline_of_its_intent(store: Store) -> None:
    written(store, "Our lawyers will sue you. You will receive a letter from our attorney under GDPR article 17.")
    [item] = waiting(store)
    assert (item.intent, item.kind, item.alone) == ("legal", Kind.REPLY, True)
    assert item.text is not None
    assert "attorney" in item.text
    assert item.due is not None
    assert timedelta(0) < item.due - item.at <= timedelta(minutes=60)


def test_a_dangerous_reply_waits_to_be_looked_at(store: Store) -> None:
    written(store, "I know where you live and I will find you.")
    [item] = waiting(store)
    assert (item.route, "abuse" in item.reason) == ("escalate", True)


def test_a_reply_that_needs_nobody_does_not_wait(store: Store) -> None:
    written(store, "Please unsubscribe me from this newsletter.")
    assert waiting(store) == []
    assert suppressed(store) == {"ada@receiver.test"}


def test_an_opt_out_that_was_none_is_undone_and_one_that_was_missed_is_made(store: Store, told: Run) -> None:
    event = written(store, "Please unsubscribe me from this newsletter.")
    assert told("review", "correct", "--event", event, "--as-intent", "question").code == 0
    assert suppressed(store) == set()
    [kept] = store.events()
    assert (kept.intent, kept.type, kept.action) == ("question", None, Action.NO_ACTION)
    assert told("review", "correct", "--event", event, "--as-intent", "unsubscribe").code == 0
    assert suppressed(store) == {"ada@receiver.test"}


# The score ---------------------------------------------------------------------------------------------------------


def test_a_failure_that_was_a_full_mailbox_counts_as_one_in_the_score(store: Store, told: Run) -> None:
    bounce(engine_of(store), "ada@receiver.test")
    [event] = told("events", "--json").lines
    assert told("review", "correct", "--event", event["id"], "--as-cause", "mailbox_full").code == 0
    ledger = do(store, lambda t: t.ledger("ada@receiver.test"))
    assert [(entry.cause, entry.fact) for entry in ledger] == [("mailbox_full", event["id"])]
    assert told("review", "correct", "--event", event["id"], "--as-cause", "user_unknown").code == 0
    ledger = do(store, lambda t: t.ledger("ada@receiver.test"))
    assert "mailbox_full" not in [entry.cause for entry in ledger]


# What corrections teach --------------------------------------------------------------------------------------------


def test_a_correction_becomes_a_sample_and_outranks_what_was_told(store: Store) -> None:
    bounce(engine_of(store), "ada@receiver.test")
    [event] = store.events()
    before = list(samples.of_events(store.events()))
    assert [s.says for s in before] == [UNKNOWN]
    number = do(store, lambda t: open_for(t, event.id, "operator:ann"))
    assert number is not None
    corrected(store, number, Right(Type.SOFT_BOUNCE, FULL))
    said = samples.of_corrections(store.reviews(ReviewFilter(state="corrected")))
    after = samples.outranked(before, said)
    assert [(s.says, s.family) for s in after] == [(FULL, samples.CORRECTED)]


def test_of_two_corrections_of_one_wording_the_later_counts() -> None:
    def item(number: int, right: str, day: int) -> Review:
        return Review(
            number, str(number), datetime(2026, 1, 1, tzinfo=UTC), Kind.BOUNCE, None, None, None, "hard_bounce",
            "user_unknown", None, 0.9, "require_approval", "", False, "550 no mailbox here", None, None,
            state="corrected", closed_at=datetime(2026, 1, day, tzinfo=UTC), right_subcategory=right,
        )  # fmt: skip

    [one] = samples.of_corrections([item(1, "mailbox_full", 9), item(2, "user_unknown", 3)])
    assert one.says is FULL


def test_stats_tell_what_was_wrongly_told_as_what(store: Store, told: Run) -> None:
    for n in range(3):
        bounce(doubtful(store), f"u{n}@receiver.test")
    for number in (1, 2):
        corrected(store, number, Right(Type.SOFT_BOUNCE, FULL))
    approved(store, 3)
    review = told("stats", "--json").lines[0]["review"]
    assert review["corrections"] == [
        {"told": "hard_bounce/user_unknown", "right": "soft_bounce/mailbox_full", "count": 2}
    ]
    assert (review["open"], review["decided"]) == (0, {"corrected": 2, "approved": 1})
    assert "soft_bounce/mailbox_full" in told("stats").out


# The command line --------------------------------------------------------------------------------------------------


def test_legal_and_security_are_never_decided_in_bulk(store: Store, told: Run) -> None:
    legal, plain = queue_reply(store, "legal", alone=True), queue_reply(store, "billing")
    answer = told("review", "approve", "--all")
    assert (answer.code, "one by one" in answer.err) == (1, True)
    assert [item.id for item in waiting(store)] == [legal]
    other = queue_reply(store, "question")
    assert told("review", "approve", str(legal), str(other)).code == 1
    assert [item.id for item in waiting(store)] == [legal]
    assert told("review", "correct", str(legal), str(plain), "--as-intent", "support").code == 1
    assert told("review", "approve", str(legal)).code == 0
    assert waiting(store) == []


def test_a_filter_that_finds_one_legal_item_is_bulk_all_the_same(store: Store, told: Run) -> None:
    queue_reply(store, "legal", alone=True)
    assert told("review", "approve", "--all", "--intent", "legal").code == 1
    assert len(waiting(store)) == 1


def test_filters_choose_what_is_approved_and_nothing_else(store: Store, told: Run) -> None:
    for who in ("ada@one.test", "bob@two.test", "eve@two.test"):
        bounce(doubtful(store), who)
    answer = told("review", "approve", "--all", "--domain", "two.test", "--cause", "user_unknown", "--json")
    assert (answer.code, [line["done"] for line in answer.lines]) == (0, [True, True])
    assert suppressed(store) == {"bob@two.test", "eve@two.test"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["approve"], ["approve", "1", "--all"], ["approve", "1", "--kind", "bounce"], ["approve", "--cause", "full"],
        ["list", "--intent", "bilingual"], ["correct", "1"], ["correct", "--as-cause", "user_unknown"],
        ["correct", "1", "--as-cause", "user_unknown", "--as-intent", "legal"],
        ["correct", "1", "--as-cause", "user_unknown", "--as-type", "soft_bounce"],
        ["correct", "1", "--as-intent", "legal", "--recipient", "a@b.test"],
    ],
)  # fmt: skip
def test_a_call_that_says_nothing_clear_decides_nothing(store: Store, told: Run, arguments: list[str]) -> None:
    bounce(doubtful(store), "ada@receiver.test")
    assert told("review", *arguments).code == 2
    assert len(waiting(store)) == 1


def test_what_is_not_there_is_told_by_its_number(store: Store, told: Run) -> None:
    answer = told("review", "approve", "7")
    assert (answer.code, "item 7" in answer.err) == (1, True)
    assert told("review", "show", "7").code == 1
    assert told("review", "correct", "--event", "nothing", "--as-cause", "user_unknown").code == 1


def test_the_list_begins_with_what_is_overdue_and_tells_the_time_that_is_left(store: Store, told: Run) -> None:
    bounce(doubtful(store), "later@receiver.test")
    number = queue_reply(store, "billing")
    do(store, lambda t: t._connection.execute("UPDATE review SET due = 1 WHERE id = ?", (number,)))
    lines = told("review", "list", "--json").lines
    assert [line["recipient"] for line in lines] == ["bob@example.org", "later@receiver.test"]
    assert (lines[0]["overdue"], lines[1]["overdue"]) == (True, False)
    assert 0 < lines[1]["left_s"] <= 24 * 3600
    assert [line["item"] for line in told("review", "list", "--overdue", "--json").lines] == [number]
    assert "overdue" in told("review", "list").out
    assert told("stats", "--json").lines[0]["review"]["overdue"] == 1


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(30, "30 s"), (150, "2 min"), (3 * 3600, "3 h"), (3 * 86400, "3 d"), (-90, "1 min overdue"), (0, "0 s overdue")],
)
def test_the_countdown_is_in_words(seconds: int, shown: str) -> None:
    item = reply_item("1", "billing")
    assert item.due is not None
    assert countdown(item, item.due - timedelta(seconds=seconds)) == shown


def test_show_tells_what_was_read_and_what_approval_does(store: Store, told: Run) -> None:
    bounce(doubtful(store), "ada@receiver.test", diagnostic="550 5.1.1 No such \x1b[31mmailbox here")
    shown = told("review", "show", "1").out
    assert "suppresses ada@receiver.test for ever" in shown
    assert "No such" in shown
    assert "\x1b" not in shown
    [line] = told("review", "show", "1", "--json").lines
    assert line["approval"].startswith("suppresses")
    assert line["evidence"]


def test_an_event_that_acted_at_once_is_corrected_by_its_id(store: Store, told: Run) -> None:
    bounce(engine_of(store), "ada@receiver.test")
    [event] = told("events", "--json").lines
    answer = told("review", "correct", "--event", event["id"], "--as-cause", "mailbox_full", "--note", "they wrote")
    assert answer.code == 0, answer.err
    assert suppressed(store) == set()
    assert json.loads(told("explain", "ada@receiver.test", "--json").out)["suppressed"] is False


def test_the_doctor_tells_what_is_overdue(store: Store, told: Run) -> None:
    number = queue_reply(store, "billing")
    do(store, lambda t: t._connection.execute("UPDATE review SET due = 1 WHERE id = ?", (number,)))
    findings = [line for line in told("doctor", "--json").lines if line["area"] == "review"]
    assert [line["state"] for line in findings] == ["warn"]


def test_what_may_be_a_legal_matter_is_decided_by_itself_too(store: Store, told: Run) -> None:
    event = an_event("conflict", kind=Kind.REPLY, intent="billing", reply={"runner_up": "legal"}, at=datetime.now(UTC))
    decision = Decision(Action.MANUAL_REVIEW, "conflicting intents: billing or legal")
    deadlines = queue.Deadlines(timedelta(hours=1))
    do(store, lambda t: queue.queue(t, t.record(event), event, decision, handling=None, deadlines=deadlines))
    assert told("review", "approve", "--all").code == 1
    assert len(waiting(store)) == 1

"""What we refuse ourselves comes back to us, by the log and as bounces: it must not feed the hold that it tells of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mailback
from mailback.bounce.taxonomy import Action
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.ingest import syslog
from mailback.ingest.postfix_log import DeliveryLog, Rules
from mailback.outbound.check import Answer, deferral, probing, refusal
from mailback.policy.breaker import HALF_OPEN, Terms, at, new, tripped
from mailback.reports import ours
from mailback.settings import Settings
from mailback.store import Store
from mailback.store.records import Suppression
from tests.support.mail import dsn

NOW = datetime.now(UTC)
CAUSES = ("hard_bounce/user_unknown", "soft_bounce/mailbox_full", "asked by telephone (twice)")
WHO = "ann@gmail.com"


def held(cause: str, until: datetime | None = None, who: str = WHO) -> Answer:
    kind, slash, subcategory = cause.partition("/")
    type_, told = (kind, subcategory) if slash else (None, None)
    return refusal(who, Suppression(who, who, "all", cause, type_, told, "event", NOW, until))


def braked(cause: str, who: str = WHO) -> Answer:
    trip = tripped(new("google", "ip", "192.0.2.25", NOW), Terms(), "rate", f"{cause}: 12 of 40 within the hour", NOW)
    return deferral(who, trip, NOW)


ANSWERS = {
    "for ever": held(CAUSES[0]),
    "until a date": held(CAUSES[1], NOW + timedelta(days=7)),
    "by a person": held(CAUSES[2]),
    "a breaker": braked("block_bounce/ip_blocked"),
    "a breaker opened by hand": braked("they refuse us"),
    "a message that tries": probing(WHO, NOW + timedelta(hours=1)),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_bounce_that_quotes_our_refusal_says_nothing_of_the_address(answer: Answer) -> None:
    raw = dsn(WHO, message_id="<1@sender.test>", status=answer.enhanced, diagnostic=answer.reply)
    [finding] = mailback.classify(raw).findings
    assert (finding.verdict.subcategory.value, finding.verdict.permanent) == ("policy_violation", False)
    assert finding.handling.action is Action.NO_ACTION
    assert finding.verdict.evidence[0].rule == "our own refusal"


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_the_log_tells_no_outcome_of_what_we_refused_or_put_off(answer: Answer) -> None:
    agent, status = ("retry", "deferred") if answer.later else ("error", "bounced")
    log = DeliveryLog(Rules())
    record = syslog.Lines(syslog.Clock(NOW, UTC, None)).record(
        f"{NOW:%b %d %H:%M:%S} mx postfix/{agent}[7]: 4YxK1p2Qz3z9rT: to=<{WHO}>, relay=none, delay=0.1, "
        f"delays=0/0/0/0, dsn={answer.enhanced}, status={status} ({answer.text})"
    )
    assert record is not None
    assert log.read(record) == []
    assert log.tally.refused_here == 1


@given(st.emails(), st.sampled_from(CAUSES))
def test_whatever_the_address_its_refusal_is_known_again(who: str, cause: str) -> None:
    for answer in (held(cause, who=who), braked(cause, who), probing(who, NOW)):
        assert ours.refused(" ".join(answer.reply.split()))


def test_what_others_say_is_not_taken_for_ours() -> None:
    for said in ("550 5.1.1 User unknown", "account suppressed since 2026-01-01 (see policy)", "held until paid", ""):
        assert not ours.refused(said)


def test_a_breaker_that_tries_is_not_opened_by_the_bounces_of_what_it_holds(store: Store) -> None:
    engine = Engine(Settings.loads("[mail]\nsending_addresses = ['192.0.2.25']\n"), store)
    trip = tripped(new("gmail.com", "ip", "192.0.2.25", NOW), Terms(), "rate", "why", NOW - timedelta(hours=2))
    store.submit(lambda transaction: transaction.put_breaker(trip, "test")).result()
    for number in range(30):
        answer = braked("block_bounce/ip_blocked", f"p{number}@gmail.com")
        raw = dsn(
            f"p{number}@gmail.com", message_id=f"<{number}@sender.test>", status=answer.enhanced,
            diagnostic=answer.reply,
        )  # fmt: skip
        engine.inbound(Envelope("", ("bounces@sender.test",), source=Source.SMTPD, received_at=NOW), raw)
    assert {at(breaker, NOW).state for breaker in store.breakers()} == {HALF_OPEN}

"""What must never be mixed up in the store: the same failure told twice, a weaker reason over a stronger, history."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailback.bounce.taxonomy import Action, Fault, Provenance
from mailback.store import Store, Transaction
from mailback.store.precedence import combine, is_own_word
from mailback.store.records import Suppression
from tests.support.records import NOW, a_suppression, an_event, do, end_all, in_days


def test_an_event_comes_back_as_it_went_in(store: Store) -> None:
    event = an_event(
        final_recipient="rfc822;x", domain="example.org", provider="p", report_message_id="<r@x>", subject="Grüße ✉",
        original_message_id="<o@x>", envelope_sender="", original_sender="a@b", campaign="c", list_id="l",
        subscriber="s", client_address="192.0.2.1", queue_id="4Xyz", smtp_code="550", status="5.1.1",
        diagnostic="550 5.1.1 no such user", reporting_mta="mx", remote_mta="mx2", delivery_attempts=3,
        original_sent_at=NOW - timedelta(hours=1), fault=Fault.RECIPIENT, permanent=True, confidence=0.97,
        risk={"deliverability": 0.9}, action=Action.SUPPRESS_PERMANENTLY, provenance=Provenance.JOURNAL,
        authentication={"spf": "pass"}, engagement={"sent": 3, "last": None}, reputation={"ip": 0.5},
        evidence=[{"layer": "status", "rule": "5.1.1", "weight": 0.4}], notes=["truncated"], raw_sha256="0" * 64,
        raw_size=6000, processing_us=412, intent="question", route="notify_owner", due_at=NOW + timedelta(hours=1),
        reply={"flags": ["low_confidence"], "new_contact": None},
    )  # fmt: skip
    recorded = do(store, lambda t: t.record(event))
    assert recorded == (event.id, True, False)
    assert list(store.events()) == [event]
    assert do(store, lambda t: t.history("bob@example.org", None)) == [event]
    assert do(store, lambda t: t.history("bob@example.org", NOW + timedelta(microseconds=1))) == []


def test_a_history_of_any_length_is_told_by_its_latest(store: Store) -> None:
    do(store, lambda t: [t.record(an_event(f"e{n}", at=NOW + timedelta(seconds=n))) for n in range(30)])
    told = do(store, lambda t: t.history("bob@example.org", NOW + timedelta(seconds=5), limit=3))
    assert [event.identity for event in told] == ["e27", "e28", "e29"]
    assert len(do(store, lambda t: t.history("bob@example.org", NOW + timedelta(seconds=5)))) == 25


def test_the_same_failure_told_twice_is_one_event(store: Store) -> None:
    first = do(store, lambda t: t.record(an_event()))
    again = do(store, lambda t: t.record(an_event()))
    assert again == (first.event_id, False, False)
    assert len(list(store.events())) == 1


def test_a_better_proof_raises_the_event_and_says_so(store: Store) -> None:
    first = do(store, lambda t: t.record(an_event(diagnostic="no such user", at=NOW)))
    better = an_event(
        provenance=Provenance.SIGNED, at=NOW + timedelta(days=1), confidence=0.9, evidence=[{"rule": "r"}]
    )
    assert do(store, lambda t: t.record(better)) == (first.event_id, False, True)
    [event] = store.events()
    assert (event.provenance, event.confidence, event.evidence) == (Provenance.SIGNED, 0.9, [{"rule": "r"}])
    assert event.at == NOW
    assert event.diagnostic == "no such user", "what the better report does not tell must stay"
    worse = do(store, lambda t: t.record(an_event(provenance=Provenance.FORGED, confidence=0.1)))
    assert worse == (first.event_id, False, False)
    assert next(store.events()).confidence == 0.9


def test_identities_too_long_for_the_index_stay_apart(store: Store) -> None:
    assert do(store, lambda t: t.record(an_event("x" * 5000 + "a"))).new
    assert do(store, lambda t: t.record(an_event("x" * 5000 + "b"))).new
    assert not do(store, lambda t: t.record(an_event("x" * 5000 + "a"))).new


def test_undecodable_and_endless_text_is_stored_not_raised(store: Store) -> None:
    hostile = an_event(diagnostic="\udcff\0" + "x" * 1_000_000, subject="\ud800", notes=["\udc80"])
    do(store, lambda t: t.record(hostile))
    [event] = store.events()
    assert event.diagnostic is not None
    assert "\0" not in event.diagnostic
    assert len(event.diagnostic) <= 8192


def test_a_time_without_a_zone_fails_its_unit_only(store: Store) -> None:
    broken = store.submit(lambda t: t.record(an_event("naive", at=NOW.replace(tzinfo=None))))
    with pytest.raises(ValueError, match="zone"):
        broken.result(10)
    assert do(store, lambda t: t.record(an_event())).new


def test_a_permanent_suppression_is_not_shortened_by_a_temporary_one(store: Store) -> None:
    assert do(store, lambda t: t.suppress(a_suppression(None), "m"))
    assert not do(store, lambda t: t.suppress(a_suppression(in_days(7), type="soft_bounce"), "m"))
    found = store.lookup("bob@example.org")
    assert found is not None
    assert found.until is None
    assert found.type == "hard_bounce"


def test_a_bounce_does_not_replace_a_complaint(store: Store) -> None:
    do(store, lambda t: t.suppress(a_suppression(None, type="complaint"), "m"))
    assert not do(store, lambda t: t.suppress(a_suppression(None), "m"))
    found = store.lookup("bob@example.org")
    assert found is not None
    assert found.type == "complaint"


def test_a_complaint_replaces_a_bounce_and_the_longer_temporary_wins(store: Store) -> None:
    long, short = in_days(30), in_days(7)
    assert do(store, lambda t: t.suppress(a_suppression(short, type="soft_bounce"), "m"))
    assert do(store, lambda t: t.suppress(a_suppression(long, type="soft_bounce"), "m"))
    assert not do(store, lambda t: t.suppress(a_suppression(short, type="soft_bounce"), "m"))
    assert do(store, lambda t: t.suppress(a_suppression(None, type="complaint"), "m"))
    assert [c.verb for c in store.explain("bob@example.org").changes] == ["added", "replaced", "replaced"]


_ENDS = st.one_of(st.none(), st.integers(1, 400).map(lambda d: NOW + timedelta(days=d)))
_TYPES = st.sampled_from(["hard_bounce", "soft_bounce", "complaint"])
_ANY = st.builds(lambda until, type_, moved: a_suppression(until, type=type_, suggestion=moved), _ENDS, _TYPES,
                 st.sampled_from([None, "new@example.org"]))  # fmt: skip


@given(_ANY, _ANY)
def test_no_combination_ends_earlier_or_forgets_a_persons_word(standing: Suppression, new: Suppression) -> None:
    combined = combine(standing, new)
    stands = combined[0] if combined else standing
    for one in (standing, new):
        assert stands.until is None or (one.until is not None and stands.until >= one.until)
    assert is_own_word(stands) == (is_own_word(standing) or is_own_word(new))
    assert stands.suggestion == (standing.suggestion or new.suggestion)
    assert combine(stands, new) is None, "telling the same again must change nothing"


def test_lifting_keeps_who_when_and_why(store: Store) -> None:
    do(store, lambda t: t.suppress(a_suppression(None), "event:1"))
    do(store, lambda t: t.suppress(a_suppression(None, scope="list:a"), "event:1"))
    assert do(store, lambda t: t.lift("bob@example.org", "list:b", actor="ann", reason="typo")) == 0
    assert do(store, lambda t: t.lift("bob@example.org", "all", actor="ann", reason="typo")) == 1
    assert do(store, lambda t: t.lift("bob@example.org", None, actor="ann", reason="wave")) == 1
    assert do(store, lambda t: t.active("bob@example.org")) == []
    assert store.lookup("bob@example.org", ("all", "list:a")) is None
    explained = store.explain("bob@example.org")
    assert [(c.scope, c.verb, c.actor, c.reason) for c in explained.changes[2:]] == [
        ("all", "lifted", "ann", "typo"),
        ("list:a", "lifted", "ann", "wave"),
    ]
    assert [(s.lifted_by, s.lifted_reason) for s in explained.suppressions] == [("ann", "typo"), ("ann", "wave")]
    assert do(store, lambda t: t.suppress(a_suppression(in_days(1)), "event:2")), "a lifted one is no obstacle"
    assert [c.verb for c in store.explain("bob@example.org").changes if c.scope == "all"] == [
        "added", "lifted", "renewed",
    ]  # fmt: skip
    found = store.lookup("bob@example.org")
    assert found is not None
    assert found.lifted_at is None
    assert found.until is not None


def test_an_expired_suppression_holds_nothing_back_and_no_longer_outranks(store: Store) -> None:
    do(store, lambda t: t.suppress(a_suppression(in_days(1), type="complaint"), "m"))
    end_all(store)
    assert store.lookup("bob@example.org") is None
    assert do(store, lambda t: t.active("bob@example.org")) == []
    assert do(store, lambda t: t.suppress(a_suppression(in_days(1), type="soft_bounce"), "m"))
    assert [c.verb for c in store.explain("bob@example.org").changes] == ["added", "renewed"]
    assert store.lookup("bob@example.org") is not None
    assert store.lookup("bob@example.org", now=in_days(2)) is None


def test_a_suppression_that_is_over_already_is_not_begun(store: Store) -> None:
    assert not do(store, lambda t: t.suppress(a_suppression(in_days(-1)), "m"))
    assert list(store.suppressions()) == []
    assert list(store.audit_trail()) == []


def test_a_unit_that_fails_takes_nothing_of_the_others_along(store: Store) -> None:
    def broken(transaction: Transaction) -> None:
        transaction.record(an_event("broken"))
        transaction.suppress(a_suppression(None, address_key="eve@example.org"), "m")
        raise LookupError("on purpose")

    before = store.submit(lambda t: t.suppress(a_suppression(None), "m"))
    failed = store.submit(broken)
    after = store.submit(lambda t: t.suppress(a_suppression(None, address_key="ann@example.org"), "m"))
    assert before.result(10)
    assert after.result(10)
    with pytest.raises(LookupError, match="on purpose"):
        failed.result(10)
    assert list(store.events()) == []
    assert store.lookup("eve@example.org") is None
    assert store.verify_audit().rows == 2
    assert store.verify_audit().holds, "the chain must not count on a row that was rolled back"


def test_a_unit_sees_what_the_units_before_it_did(store: Store) -> None:
    store.submit(lambda t: t.suppress(a_suppression(None), "m"))
    assert len(do(store, lambda t: t.active("bob@example.org"))) == 1


def test_every_change_is_in_the_audit_trail(store: Store) -> None:
    do(store, lambda t: t.suppress(a_suppression(None), "event:1"))
    do(store, lambda t: t.suppress(a_suppression(None), "event:2"))  # changes nothing
    do(store, lambda t: t.lift("bob@example.org", None, actor="ann", reason="typo"))
    do(store, lambda t: t.audit("ann", "reload", "rules", {"files": 3}))
    told = [(e.actor, e.verb, e.subject) for e in store.audit_trail()]
    assert told == [
        ("event:1", "suppress", "bob@example.org"), ("ann", "lift", "bob@example.org"), ("ann", "reload", "rules"),
    ]  # fmt: skip
    assert [e.detail.get("files") for e in store.audit_trail(after=2)] == [3]
    assert len(list(store.audit_trail(subject="bob@example.org"))) == 2

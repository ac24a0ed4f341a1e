"""What a report is believed for, and each contradiction by its name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from mailback.bounce.taxonomy import Provenance
from mailback.provenance.grading import Claim, Proofs, Reporter, Returned, Sending, grade
from mailback.returnpath import Standing, Verified

ADA, EVE = "ada@receiver.test", "eve@receiver.test"
SENT = datetime(2026, 11, 20, 12, tzinfo=UTC)
CLAIM = Claim((ADA,), SENT + timedelta(minutes=5))
VERP = Proofs(
    return_path=Verified(Standing.SIGNED, recipient=ADA, names_recipient=True, day=date(2026, 11, 20)),
    return_path_recipient=ADA,
)
BATV = Proofs(return_path=Verified(Standing.SIGNED, sender="news@sender.test", day=date(2026, 12, 4)))
WENT = Sending(SENT, ADA)
NEVER_WENT = Sending(SENT, None)
GOOD, BAD = Reporter("pass", frozenset({ADA}), related=True), Reporter("fail")


@pytest.mark.parametrize(
    ("proofs", "expected"),
    [
        (VERP, Provenance.SIGNED),
        (replace(BATV, sending=WENT), Provenance.SIGNED),
        (Proofs(returned=Returned(True, frozenset({ADA}))), Provenance.RETURNED_ORIGINAL),
        (Proofs(sending=WENT), Provenance.JOURNAL),
        (Proofs(reporter=GOOD), Provenance.AUTHENTICATED),
        (Proofs(), Provenance.UNPROVEN),
        (Proofs(sending=WENT, reporter=GOOD), Provenance.JOURNAL),
        (replace(VERP, returned=Returned(True, frozenset({ADA})), sending=WENT, reporter=GOOD), Provenance.SIGNED),
    ],
)
def test_the_strongest_proof_gives_the_grade(proofs: Proofs, expected: Provenance) -> None:
    found = grade(CLAIM, proofs)
    assert found.provenance is expected
    assert found.recipient == (ADA if expected is not Provenance.UNPROVEN else None)
    assert found.because


@pytest.mark.parametrize(
    ("proofs", "why"),
    [
        (replace(BATV), "does not say to whom"),
        (Proofs(return_path=Verified(Standing.EXPIRED, recipient=ADA, names_recipient=True)), "expired"),
        (Proofs(return_path=Verified(Standing.WRONG)), "wrong"),
        (Proofs(return_path=Verified(Standing.UNSIGNED)), "nothing shows"),
        (Proofs(returned=Returned(False, frozenset({ADA}))), "nothing shows"),
        (Proofs(returned=Returned(True, frozenset({EVE}))), "nothing shows"),
        (Proofs(reporter=Reporter("pass")), "nothing shows"),
        (Proofs(reporter=Reporter("pass", frozenset({EVE}), related=True)), "nothing shows"),
        (Proofs(reporter=Reporter("fail", related=True)), "nothing shows"),
        (Proofs(reporter=Reporter("softfail")), "nothing shows"),
        (replace(VERP, return_path_recipient=None), "does not say to whom"),
    ],
)
def test_what_proves_nothing_is_unproven_and_says_why(proofs: Proofs, why: str) -> None:
    found = grade(CLAIM, proofs)
    assert found.provenance is Provenance.UNPROVEN
    assert why in found.because


@pytest.mark.parametrize(
    ("claim", "proofs", "why"),
    [
        (Claim((EVE,)), VERP, "another recipient"),
        (Claim((EVE,)), replace(VERP, sending=WENT), "another recipient"),
        (CLAIM, Proofs(sending=NEVER_WENT), "never went"),
        (CLAIM, replace(BATV, sending=NEVER_WENT), "never went"),
        (CLAIM, Proofs(sending=NEVER_WENT, reporter=GOOD), "never went"),
        (replace(CLAIM, failed_at=SENT - timedelta(days=2)), Proofs(sending=WENT), "dated before"),
        (replace(CLAIM, failed_at=SENT - timedelta(days=3)), VERP, "dated before"),
        (CLAIM, Proofs(sending=WENT, reporter=BAD), "fails its own SPF"),
        (CLAIM, Proofs(reporter=BAD), "fails its own SPF"),
    ],
)
def test_a_contradiction_is_forged_whatever_else_speaks_for_it(claim: Claim, proofs: Proofs, why: str) -> None:
    found = grade(claim, proofs)
    assert found.provenance is Provenance.FORGED
    assert why in found.because
    assert found.recipient is None


def test_forwarded_mail_is_proven_for_the_address_that_we_mailed() -> None:
    assert grade(Claim(("elsewhere@other.test", ADA)), VERP).recipient == ADA


def test_who_speaks_for_the_address_that_mail_was_forwarded_to_does_not_speak_for_the_one_before() -> None:
    claim = replace(CLAIM, recipients=(ADA, EVE))
    assert grade(claim, Proofs(reporter=Reporter("pass", frozenset({EVE}), related=True))).recipient == EVE


def test_clocks_that_are_some_hours_off_contradict_nothing() -> None:
    late = replace(CLAIM, failed_at=SENT - timedelta(hours=13))
    assert grade(late, Proofs(sending=WENT)).provenance is Provenance.JOURNAL
    assert grade(late, VERP).provenance is Provenance.SIGNED


def test_a_good_mac_outweighs_a_gateway_with_a_broken_spf_record() -> None:
    assert grade(CLAIM, replace(VERP, reporter=BAD)).provenance is Provenance.SIGNED


def test_the_last_day_of_a_batv_tag_is_no_day_of_sending() -> None:
    assert grade(CLAIM, replace(BATV, sending=WENT)).provenance is Provenance.SIGNED
    assert grade(CLAIM, BATV).provenance is Provenance.UNPROVEN

"""`breakers.toml`: what ships is sensible, an operator's own lies over it, and every mistake is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailback.bounce import rules
from mailback.bounce.rulefile import RulesError
from mailback.bounce.taxonomy import CAUSES, Fault, Subcategory
from mailback.policy.breaker_rules import BreakerRules
from mailback.policy.handling import HandlingRules
from mailback.resources import rules_dir
from tests.support.records import an_event


@pytest.fixture(scope="module")
def shipped() -> BreakerRules:
    return BreakerRules.load([rules_dir()])


def load(folder: Path, text: str) -> BreakerRules:
    (folder / "breakers.toml").write_text(text)
    return BreakerRules.load([rules_dir(), folder])


def test_no_row_counts_what_is_the_recipients_fault(shipped: BreakerRules) -> None:
    for row in shipped.rows:
        assert row.causes, row.id
        assert {CAUSES[Subcategory(cause)].fault for cause in row.causes} == {Fault.SENDER}, row.id


def test_every_cause_that_is_held_against_a_sender_has_a_row(shipped: BreakerRules) -> None:
    handling = HandlingRules.load([rules_dir()])
    told = {cause for row in shipped.rows if row.provider is None for cause in row.causes}
    scoped = {sub.value for (_, sub), row in handling.rows.items() if sub is not None and row.scope != "address"}
    assert scoped <= told


def test_providers_of_presets_exist(shipped: BreakerRules) -> None:
    known = rules.load([rules_dir()]).providers
    assert {row.provider for row in shipped.rows if row.provider} <= set(known)


def test_codes_and_wordings_limit_a_row(tmp_path: Path) -> None:
    found = load(tmp_path, '[[breaker]]\nid = "mine"\nprovider = "google"\ncodes = ["5.7.x"]\ntexts = ["slow down"]\n')
    event = an_event(provider="google", fault=Fault.SENDER, status="5.7.9", diagnostic="550 Please SLOW DOWN now")
    assert (row := found.rule(event)) is not None
    assert row.id == "mine"
    for other in (
        {"status": "5.6.9"}, {"diagnostic": "550 go away"}, {"provider": "yahoo"}, {"fault": Fault.RECIPIENT},
    ):  # fmt: skip
        told = {"provider": "google", "fault": Fault.SENDER, "status": "5.7.9", "diagnostic": "slow down"} | other
        assert found.rule(an_event(**told)) is None, other


def test_a_row_of_the_same_id_replaces_the_shipped_one_and_can_switch_it_off(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        '[defaults]\nshare = 0.5\n[[breaker]]\nid = "spam"\nenabled = false\n'
        '[[breaker]]\nid = "rate"\ncauses = ["rate_limited"]\ncount = 99\n',
    )
    rows = {row.id: row for row in found.rows}
    assert "spam" not in rows
    assert (rows["rate"].count, rows["rate"].share, rows["rate"].terms.pace_s) == (99, 0.5, 0)


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RulesError) as caught:
        load(
            tmp_path,
            '[[breaker]]\nid = "Bad Id"\ncount = 1\nshare = 7\n'
            '[[breaker]]\nid = "b"\ncauses = ["nonsense"]\ncodes = ["9.9.9"]\n'
            'texts = ["(a"]\nside = "planet"\nfoo = 1\n',
        )
    problems = "\n".join(caught.value.problems)
    words = {
        2: "Bad Id",
        3: "single refusal",
        4: "share",
        7: "nonsense",
        8: "9.9.9",
        9: "pattern",
        10: "planet",
        11: "foo",
    }
    for line, word in words.items():
        assert any(f":{line}: " in told and word in told for told in caught.value.problems), (line, word, problems)

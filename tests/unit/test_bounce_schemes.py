"""The taxonomy against others': complete both ways, and the page made from the data."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailback.bounce import rules, schemes
from mailback.bounce.rulefile import RulesError
from mailback.bounce.schemes import Scheme
from mailback.bounce.taxonomy import CAUSES, Subcategory
from mailback.resources import rules_dir

SHIPPED = schemes.load([rules_dir()])
DOCS = Path(__file__).resolve().parents[2] / "docs" / "taxonomy.md"


def test_names_the_schemes_that_people_come_from() -> None:
    assert set(SHIPPED) == {"iana", "kumomta", "ses", "sendgrid", "postmark", "sparkpost"}


@pytest.mark.parametrize("scheme", SHIPPED.values(), ids=list(SHIPPED))
def test_every_cause_has_a_word_and_every_word_a_cause(scheme: Scheme) -> None:
    assert set(scheme.ours) == set(Subcategory)
    assert scheme.id == "iana" or set(scheme.ours.values()) <= set(scheme.theirs)


@pytest.mark.parametrize("scheme", SHIPPED.values(), ids=list(SHIPPED))
def test_the_way_there_and_back_never_kills_a_living_address(scheme: Scheme) -> None:
    """A cause that is not permanent may not come back as one that is: a coarse scheme must err to the soft side."""
    hardened = [
        cause
        for cause, word in scheme.ours.items()
        if scheme.theirs and CAUSES[scheme.theirs[word]].permanent and not CAUSES[cause].permanent
    ]
    assert hardened == ([Subcategory.RECIPIENT_REJECTED] if scheme.id == "ses" else [])  # SES: one class for both


def test_iana_codes_come_back_through_the_status_rules() -> None:
    loaded = rules.load([rules_dir()])
    for cause in (Subcategory.USER_UNKNOWN, Subcategory.MAILBOX_FULL, Subcategory.MAILBOX_TEMPORARILY_FULL):
        klass, _, code = SHIPPED["iana"].ours[cause].partition(".")
        rule = loaded.statuses[code]
        assert (rule.permanent if klass == "5" else rule.persistent) is cause


def test_the_page_is_made_from_the_data() -> None:
    assert DOCS.read_text("utf-8") == schemes.markdown([rules_dir()]), "run python -m mailback.bounce.schemes"


def test_a_cause_without_a_word_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "taxonomy.toml").write_text(
        '[[scheme]]\nid = "x"\nname = "X"\nreference = "r"\n'
        '[scheme.ours]\nunknown = "A"\n[scheme.theirs]\nA = "unknown"\n'
    )
    with pytest.raises(RulesError) as caught:
        schemes.load([tmp_path])
    assert any("user_unknown is missing" in problem for problem in caught.value.problems)

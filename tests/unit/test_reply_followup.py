"""When somebody who says "not now" asks to be written to: told in words, null rather than a guess."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from mailback.bounce.rulefile import RulesError
from mailback.reply import followup
from mailback.resources import rules_dir

SENT = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("language", "text", "day"),
    [
        ("en", "Not now, please ask again in March.", "2027-03-01"),
        ("en", "Our contract ends in May, so talk to me again in October please.", "2027-10-01"),
        ("en", "Come back on 15 January, we decide then.", "2027-01-15"),
        ("en", "Try me in three months.", "2027-02-20"),
        ("en", "Not this quarter. Q2 2027 maybe.", "2027-04-01"),
        ("en", "Maybe next quarter.", "2027-01-01"),
        ("en", "Next year perhaps.", "2027-01-01"),
        ("en", "We are busy until the end of February.", "2027-02-28"),
        ("en", "Bad timing, 2 weeks from now is better.", "2026-12-04"),
        ("en", "After the summer.", "2027-09-01"),
        ("de", "Melden Sie sich nach dem Umbau, also ab April, nochmal.", "2027-04-01"),
        ("de", "Bitte in zwei Monaten wieder.", "2027-01-20"),
        ("de", "Nach Dezember gern.", "2027-01-01"),
        ("fr", "Recontactez-moi dans un an.", "2027-11-20"),
        ("fr", "Plutôt à la rentrée.", "2027-09-01"),
        ("es", "Vuelva a escribirme en febrero de 2028.", "2028-02-01"),
        ("pt", "Talvez no ano que vem.", "2027-01-01"),
        ("it", "Ci risentiamo a settembre.", "2027-09-01"),
        ("nl", "Neem over een half jaar... nee, in juni contact op.", "2027-06-01"),
        ("pl", "Proszę przypomnieć się w październiku.", "2027-10-01"),
        ("sv", "Hör av dig igen i januari.", "2027-01-01"),
        ("ja", "来月またご連絡ください。", "2026-12-01"),
        ("zh", "三月份您再找我聊。", "2027-03-01"),
    ],
)
def test_the_day_that_is_told(language: str, text: str, day: str) -> None:
    assert followup.follow_up_date(text, SENT, language) == date.fromisoformat(day)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Not now."),
        ("en", "It may be a good idea, but we are on the march these days."),
        ("en", "Ask again after the harvest."),
        ("en", "In a few weeks."),
        ("en", "We bought this in 2019 for 3 months of work."),
        ("pl", "We wtorek będą pieniądze i się odezwę."),
        ("it", "Il set di dati non ci serve."),
        (None, ""),
    ],
)
def test_no_day_is_guessed(language: str | None, text: str) -> None:
    assert followup.follow_up_date(text, SENT, language) is None


def test_the_end_of_a_short_month_and_of_a_leap_year_exist() -> None:
    late = datetime(2027, 12, 31, tzinfo=UTC)
    assert followup.follow_up_date("Try again in two months.", late, "en") == date(2028, 2, 29)
    assert followup.follow_up_date("Try again in 999 years.", late, "en") is None


def test_an_operators_own_times_count_and_wrong_ones_are_told(tmp_path: Path) -> None:
    (tmp_path / followup.FILE).write_text('[times]\nnamed = ["after the harvest = 10-15"]\n', "utf-8")
    rules = followup.FollowUpRules.load([rules_dir(), tmp_path])
    assert followup.follow_up_date("Ask again after the harvest.", SENT, "en", rules) == date(2027, 10, 15)
    for wrong in ('[times]\nnamed = ["after = 13-01"]\n', '[units]\nwhole = ["soon = decade"]\n'):
        (tmp_path / followup.FILE).write_text(wrong, "utf-8")
        with pytest.raises(RulesError):
            followup.FollowUpRules.load([rules_dir(), tmp_path])


@pytest.mark.timeout(30)
@pytest.mark.parametrize("piece", ["in three ", "next ", "in march ", "1 ", "三月", "q1 "])
def test_work_is_bounded_whatever_the_length(piece: str) -> None:
    followup.follow_up_date(piece * (8_000_000 // len(piece)), SENT, "en")

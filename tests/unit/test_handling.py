"""Handling rows: the shipped file says what the table says, and an operator's file changes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailback.bounce.rulefile import RulesError
from mailback.bounce.taxonomy import CAUSES, Action, Subcategory, Type
from mailback.bounce.verdict import Verdict
from mailback.policy.handling import Handling, HandlingRules
from mailback.resources import rules_dir

HOUR = 3600

# type | subcategories | action | retry after, hours | days | scope | alert: the table of the specification
TABLE = """
hard_bounce | user_unknown domain_invalid mailbox_disabled address_moved | suppress_permanently | | | address |
hard_bounce | recipient_rejected | manual_review | | 7 | address |
hard_bounce | message_too_large policy_violation relay_denied | manual_review | | | address |
soft_bounce | mailbox_full | retry_with_delay | 24 | 7 | address |
soft_bounce | mailbox_temporarily_full | retry_with_delay | 2 | 7 | address |
soft_bounce | server_temporarily_unavailable | retry_with_delay | 1 | 1 | address |
soft_bounce | message_temporarily_delayed | no_action | | | address |
soft_bounce | content_rejected protocol_error | manual_review | | | address |
soft_bounce | routing_error configuration_error | retry_with_delay | 4 | 1 | address |
block_bounce | ip_blocked | suppress_temporarily | | 30 | ip_provider |
block_bounce | domain_blocked | suppress_temporarily | | 30 | domain_provider |
block_bounce | reputation_blocked | suppress_temporarily | | 14 | domain_provider |
block_bounce | sender_rejected | manual_review | | | address |
block_bounce | reverse_dns_missing tls_required | manual_review | | | address | alert
block_bounce | rate_limited | retry_with_delay | 1 | | ip_provider |
challenge_bounce | greylisted | retry_with_delay | 0.25 | | address |
challenge_bounce | challenge_response_required | manual_review | | | address |
challenge_bounce | spf_fail dkim_fail dmarc_fail auth_fail | manual_review | | 7 | domain_provider | alert
spam_bounce | spam_detected virus_detected | manual_review | | | address | alert
auto_reply | out_of_office acknowledgement | no_action | | | address |
auto_reply | left_organisation | manual_review | | | address |
delayed_bounce | message_temporarily_delayed | no_action | | | address |
complaint | spam_complaint unsubscribe_request | suppress_permanently | | | address |
delivered | delivered | no_action | | | address |
unknown | unknown | manual_review | | 3 | address |
"""


def _rows() -> list[tuple[Type, Subcategory, Handling]]:
    rows = []
    for line in TABLE.strip().splitlines():
        kind, names, action, hours, days, scope, alert = (cell.strip() for cell in line.split("|"))
        handling = Handling(
            action=Action(action),
            retry_after_s=int(float(hours) * HOUR) if hours else None,
            suppress_days=int(days) if days else None,
            scope=scope,
            alert=alert == "alert",
        )
        rows += [(Type(kind), Subcategory(name), handling) for name in names.split()]
    return rows


def verdict(kind: Type, subcategory: Subcategory) -> Verdict:
    return Verdict(kind, subcategory, 0.9)


shipped = HandlingRules.load([rules_dir()])


@pytest.mark.parametrize(("kind", "subcategory", "handling"), _rows())
def test_the_shipped_file_is_the_table(kind: Type, subcategory: Subcategory, handling: Handling) -> None:
    assert shipped.handling(verdict(kind, subcategory)) == handling


def test_the_table_covers_every_subcategory_under_its_type() -> None:
    assert {(kind, subcategory) for kind, subcategory, _ in _rows()} >= {
        (cause.type, subcategory) for subcategory, cause in CAUSES.items()
    }


@pytest.mark.parametrize("subcategory", list(Subcategory))
def test_a_delay_asks_for_nothing_whatever_its_cause(subcategory: Subcategory) -> None:
    assert shipped.handling(verdict(Type.DELAYED_BOUNCE, subcategory)).action is Action.NO_ACTION


def test_only_what_is_the_recipients_own_fault_suppresses_the_address() -> None:
    for subcategory, cause in CAUSES.items():
        handling = shipped.handling(verdict(cause.type, subcategory))
        if handling.action is Action.SUPPRESS_PERMANENTLY:
            assert cause.permanent or cause.type is Type.COMPLAINT
        if handling.action is Action.SUPPRESS_TEMPORARILY:
            assert handling.scope != "address"


def own(tmp_path: Path, text: str) -> HandlingRules:
    (tmp_path / "handling.toml").write_text(text)
    return HandlingRules.load([rules_dir(), tmp_path])


def test_an_operators_row_replaces_one_verdict_only(tmp_path: Path) -> None:
    rules = own(
        tmp_path,
        '[[handling]]\ntype = "soft_bounce"\nsubcategories = ["mailbox_full"]\naction = "manual_review"\n',
    )
    assert rules.handling(verdict(Type.SOFT_BOUNCE, Subcategory.MAILBOX_FULL)) == Handling(Action.MANUAL_REVIEW)
    other = verdict(Type.SOFT_BOUNCE, Subcategory.MAILBOX_TEMPORARILY_FULL)
    assert rules.handling(other) == shipped.handling(other)


def test_an_override_changes_single_values_for_one_provider_or_list(tmp_path: Path) -> None:
    rules = own(
        tmp_path,
        """
[[override]]
list = "news.example"
type = "soft_bounce"
suppress_days = 2

[[override]]
provider = "google"
type = "soft_bounce"
subcategories = ["mailbox_full"]
retry_after_s = 60
suppress_days = 9
""",
    )
    full = verdict(Type.SOFT_BOUNCE, Subcategory.MAILBOX_FULL)
    at_google = rules.handling(full, provider="google")
    assert (at_google.retry_after_s, at_google.suppress_days) == (60, 9)
    assert rules.handling(full, provider="google", list_id="news.example").suppress_days == 2
    assert rules.handling(full) == shipped.handling(full)
    assert rules.handling(full, provider="yahoo") == shipped.handling(full)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[handling]]\ntype = "soft_bounce"\naction = "retry"\n', ":3: action is 'retry'"),
        ('[[handling]]\ntype = "soft_bounce"\naction = "retry_with_delay"\n', "needs retry_after_s"),
        ('[[handling]]\ntype = "block_bounce"\naction = "suppress_temporarily"\n', "needs suppress_days"),
        ('[[handling]]\ntype = "unknown"\naction = "no_action"\nsuppress_days = -1\n', ":4: suppress_days is -1"),
        ('[[handling]]\ntype = "unknown"\naction = "no_action"\nscope = "world"\n', ":4: scope is 'world'"),
        ('[[handling]]\ntype = "unknown"\naction = "no_action"\nsubcategories = ["no"]\n', ":4: subcategories"),
        ('[[handling]]\ntype = "unknown"\naction = "suppress_permanently"\nscope = "ip_provider"\n', "for ever"),
        ('[[override]]\ntype = "unknown"\naction = "no_action"\n', "names a provider, a list"),
        ('[[handling]]\ntype = "unknown"\naction = "no_action"\nspeed = 1\n', "unknown key 'speed'"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(RulesError) as caught:
        own(tmp_path, text)
    assert any(told in problem for problem in caught.value.problems), caught.value.problems

"""The vote: who outranks whom, what abstains, and what a verdict may never do."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from mailback.bounce import rules
from mailback.bounce.classify import Classifier, Engagement, reputation_risk
from mailback.bounce.taxonomy import Fault, Kind, Subcategory, Type
from mailback.bounce.verdict import Verdict
from mailback.reports.report import DeliveryFailure, Report
from mailback.resources import rules_dir


@lru_cache(maxsize=1)
def classifier() -> Classifier:
    return Classifier(rules.load([rules_dir()]))


def verdict(
    diagnostic: str = "",
    status: str | None = None,
    code: str | None = None,
    *,
    kind: Kind = Kind.BOUNCE,
    action: str = "failed",
    cause: Subcategory | None = None,
    host: str | None = None,
    text: str = "",
    engagement: Engagement | None = None,
) -> Verdict:
    failure = DeliveryFailure(
        "bo@a.example",
        action=action,
        status=status,
        smtp_code=code,
        diagnostic=diagnostic,
        remote_mta=host,
        cause=cause,
    )
    return classifier().verdict(failure, Report(kind, [failure], explanation=lambda: text), engagement)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("Host or domain name not found. Name service error for name={} type=A: Host not found", "5.4.4"),
        ("unable to look up host {}: Name or service not known", "5.4.4"),
        ("550 5.1.2 <bo@a.example>... Host unknown (Name server: {}: host not found)", "5.1.2"),
        ("Sorry, I couldn't find any host named {}. (#5.1.2)", "5.1.2"),
    ],
)
def test_a_relay_host_that_is_not_found_says_nothing_of_the_recipients_domain(said: str, status: str) -> None:
    for name in ("a.example", "mx.a.example"):
        assert verdict(said.format(name), status).subcategory is Subcategory.DOMAIN_INVALID
    elsewhere = verdict(said.format("smtp.smarthots.example"), status)
    assert (elsewhere.subcategory, elsewhere.permanent) == (Subcategory.ROUTING_ERROR, False)


def test_the_domain_of_a_large_provider_is_not_gone_because_a_resolver_says_so() -> None:
    said = "Host or domain name not found. Name service error for name=gmail.com type=MX: Host not found"
    failure = DeliveryFailure("bo@gmail.com", action="failed", status="5.4.4", diagnostic=said)
    told = classifier().verdict(failure, Report(Kind.BOUNCE, [failure]))
    assert (told.subcategory, told.permanent) == (Subcategory.ROUTING_ERROR, False)


class TestVote:
    def test_agreeing_layers_are_surer_than_one(self) -> None:
        both = verdict("550 5.1.1 user unknown", "5.1.1", "550")
        alone = verdict("", "5.1.1", "550")
        assert both.confidence > alone.confidence > 0.8

    def test_a_general_code_leaves_the_vote_when_a_text_is_specific(self) -> None:
        told = verdict("550 5.7.1 Greylisted, try again", "5.7.1", "550")
        assert told.subcategory is Subcategory.GREYLISTED
        assert told.confidence > 0.9
        assert next(e for e in told.evidence if e.layer == "status").weight == 0

    def test_a_specific_text_wins_over_a_specific_code_with_less_confidence(self) -> None:
        told = verdict("550 5.1.1 sent too many messages this hour", "5.1.1", "550")
        assert told.subcategory is Subcategory.RATE_LIMITED
        assert not told.permanent
        assert told.confidence < 0.75

    def test_a_code_decides_where_no_words_help(self) -> None:
        assert verdict("550 5.2.2 sorry", "5.2.2", "550").subcategory is Subcategory.MAILBOX_FULL

    def test_what_else_the_words_may_mean_is_told_and_counts_nothing(self) -> None:
        told = verdict("554 5.7.1 mailbox full; sender rejected", "5.7.1", "554")
        rival = next(e for e in told.evidence if e.says not in (told.subcategory, "policy_violation"))
        assert {rival.says, told.subcategory.value} == {"mailbox_full", "sender_rejected"}
        assert rival.weight == 0
        assert rival.text

    def test_an_unlisted_code_falls_back_to_its_subject(self) -> None:
        told = verdict("", "5.6.99", None)
        assert told.subcategory is Subcategory.CONTENT_REJECTED
        assert told.confidence < 0.6

    def test_nothing_known_is_unknown_with_low_confidence(self) -> None:
        told = verdict("")
        assert (told.type, told.subcategory) == (Type.UNKNOWN, Subcategory.UNKNOWN)
        assert told.confidence < 0.2
        assert told.evidence == ()

    @pytest.mark.parametrize("status", ["garbage", "5.1", "5.1.1.1", "9.9.9", "5..1", "", "2.1.5", "5.x.1", "٥.١.١"])
    def test_what_is_no_failure_code_does_not_vote(self, status: str) -> None:
        assert verdict("", status).subcategory is Subcategory.UNKNOWN

    def test_evidence_names_rule_and_words(self) -> None:
        (status, text) = verdict("550 5.1.1 <bo@a.example> User unknown", "5.1.1", "550").evidence
        assert (status.layer, status.rule, status.says) == ("status", "5.1.1", "user_unknown")
        assert (text.layer, text.text) == ("text", "user unknown")


class TestWhatAReportStates:
    def test_a_stated_cause_is_taken_as_it_is(self) -> None:
        told = verdict("550 user unknown", "5.1.1", kind=Kind.COMPLAINT, cause=Subcategory.SPAM_COMPLAINT)
        assert (told.type, told.subcategory) == (Type.COMPLAINT, Subcategory.SPAM_COMPLAINT)
        assert not told.permanent
        assert told.evidence[0].layer == "report"

    @pytest.mark.parametrize("action", ["delivered", "relayed", "expanded"])
    def test_success_is_delivered_whatever_the_words(self, action: str) -> None:
        assert verdict("user unknown", "2.1.5", action=action, kind=Kind.DELIVERED).type is Type.DELIVERED


class TestDelay:
    def test_keeps_its_cause_and_is_never_permanent(self) -> None:
        told = verdict("450 4.1.1 user unknown", "4.1.1", "450", action="delayed", kind=Kind.DELAY)
        assert (told.type, told.subcategory) == (Type.DELAYED_BOUNCE, Subcategory.USER_UNKNOWN)
        assert not told.permanent
        assert told.fault is Fault.RECIPIENT

    def test_without_a_cause_is_a_delay_and_sure_of_it(self) -> None:
        told = verdict("", None, action="delayed", kind=Kind.DELAY)
        assert told.subcategory is Subcategory.MESSAGE_TEMPORARILY_DELAYED
        assert told.confidence > 0.9

    def test_given_up_is_soft(self) -> None:
        assert verdict("delivery time expired", "4.4.7").type is Type.SOFT_BOUNCE


class TestFull:
    def test_class_4_is_temporarily_full(self) -> None:
        assert verdict("mailbox full", "4.2.2").subcategory is Subcategory.MAILBOX_TEMPORARILY_FULL

    def test_the_reply_code_tells_where_no_status_does(self) -> None:
        assert verdict("452 mailbox full", None, "452").subcategory is Subcategory.MAILBOX_TEMPORARILY_FULL

    def test_a_full_disk_of_the_server_is_not_a_full_mailbox(self) -> None:
        told = verdict("452 4.3.1 Insufficient system storage", "4.3.1", "452")
        assert told.fault is Fault.RECEIVER


class TestProviders:
    def test_one_code_means_another_thing_at_one_provider(self) -> None:
        words = "550 5.4.1 refused"
        assert verdict(words, "5.4.1", host="x.mail.protection.outlook.com").subcategory is Subcategory.USER_UNKNOWN
        assert verdict(words, "5.4.1", host="mx.a.example").fault is not Fault.RECIPIENT

    def test_words_of_a_provider_give_it_away(self) -> None:
        told = verdict("550 5.7.27 not accepted - gsmtp", "5.7.27", "550")
        assert told.subcategory is Subcategory.SPF_FAIL

    def test_a_name_that_only_ends_alike_is_another_host(self) -> None:
        assert verdict("", "5.4.1", host="mx.notoutlook.com").fault is not Fault.RECIPIENT

    @pytest.mark.parametrize("host", ["MX.Outlook.COM.", "dns; mx.outlook.com", "<bo@outlook.com>"])
    def test_hosts_are_read_in_every_spelling(self, host: str) -> None:
        failure = DeliveryFailure("", remote_mta=host)
        assert classifier().provider(failure) == "microsoft"


class TestWords:
    def test_continued_lines_are_one_sentence(self) -> None:
        told = verdict("550-5.2.1 The user is receiving mail at 550-5.2.1 a rate that 550 5.2.1 prevents more", "5.2.1")
        assert told.subcategory is Subcategory.RATE_LIMITED

    def test_the_clients_own_words_around_the_reply_do_not_count(self) -> None:
        told = verdict("Connected to 192.0.2.1 but sender was rejected. Remote host said: 452 4.2.2 mailbox full")
        assert told.subcategory is Subcategory.MAILBOX_FULL

    def test_words_of_the_address_do_not_count(self) -> None:
        assert verdict("550 <mailbox.full@a.example>", None, "550").subcategory is not Subcategory.MAILBOX_FULL

    def test_the_explanation_helps_where_the_diagnostic_is_silent(self) -> None:
        told = verdict("", text="Your message could not be delivered: the mailbox is full.")
        assert told.subcategory is Subcategory.MAILBOX_FULL
        assert told.confidence < 0.8

    def test_the_explanation_is_not_asked_where_the_diagnostic_is_clear(self) -> None:
        told = verdict("550 user unknown", text="It may also be that the mailbox is full.")
        assert told.subcategory is Subcategory.USER_UNKNOWN

    def test_a_huge_explanation_is_scanned_once_for_all_recipients(self, monkeypatch: pytest.MonkeyPatch) -> None:
        subject = Classifier(rules.load([rules_dir()]))
        scans: list[int] = []
        found = subject._patterns.found

        def counted(data: bytes) -> list[int]:
            scans.append(len(data))
            return found(data)

        monkeypatch.setattr(subject._patterns, "found", counted)
        failures = [DeliveryFailure(f"u{n}@a.example", status="5.0.0") for n in range(50)]
        report = Report(Kind.BOUNCE, failures, explanation=lambda: "the mailbox is full " * 5000)
        told = {subject.verdict(failure, report).subcategory for failure in failures}
        assert told == {Subcategory.MAILBOX_FULL}
        assert len(scans) == 1
        assert scans[0] <= 8192


class TestTextsSeenBefore:
    """What was made of a diagnostic is kept: of the words only, never of what else the failure has."""

    WORDS = "550 5.7.1 mailbox unavailable"

    def test_the_same_words_with_other_codes_or_hosts_are_judged_anew(self) -> None:
        first = verdict("mailbox full", "5.2.2", "552")
        assert (first.subcategory, first.type) == (Subcategory.MAILBOX_FULL, Type.SOFT_BOUNCE)
        assert verdict("mailbox full", "4.2.2", "452").subcategory is Subcategory.MAILBOX_TEMPORARILY_FULL
        hosts = ("mx.a.example", "example-com.mail.protection.outlook.com", "mx.a.example")
        told = [verdict("550 5.4.1 refused", "5.4.1", "550", host=host) for host in hosts]
        assert told[0] == told[2] != told[1]

    def test_verdicts_are_the_same_before_and_after(self) -> None:
        fresh = verdict(self.WORDS, "5.7.1", "550")
        assert verdict(self.WORDS, "5.7.1", "550") == fresh
        classifier().forget()
        assert verdict(self.WORDS, "5.7.1", "550") == fresh

    def test_long_texts_are_not_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        subject = Classifier(rules.load([rules_dir()]))
        scans: list[int] = []
        found = subject._patterns.found

        def counted(data: bytes) -> list[int]:
            scans.append(len(data))
            return found(data)

        monkeypatch.setattr(subject._patterns, "found", counted)
        for words in ("mailbox full ", "mailbox full " * 100):
            failure = DeliveryFailure("u@a.example", diagnostic=words)
            for _ in range(2):
                subject.verdict(failure, Report(Kind.BOUNCE, [failure]))
        assert len(scans) == 3


class TestEngagement:
    unknown = ("550 5.1.1 user unknown", "5.1.1", "550")

    def test_a_reader_makes_a_dead_address_less_sure_but_does_not_overrule(self) -> None:
        active = Engagement(sent=20, opens=15, clicks=4, recent=True)
        told = verdict(*self.unknown, engagement=active)
        assert told.subcategory is Subcategory.USER_UNKNOWN
        assert told.confidence < verdict(*self.unknown).confidence

    def test_no_history_abstains(self) -> None:
        assert verdict(*self.unknown, engagement=Engagement()).evidence == verdict(*self.unknown).evidence

    @pytest.mark.parametrize(("opens", "risk"), [(50, 0.2), (7, 0.4), (1, 0.8)])
    def test_risk_by_rate(self, opens: int, risk: float) -> None:
        assert verdict(*self.unknown, engagement=Engagement(sent=100, opens=opens)).risk.engagement == risk


class TestRisk:
    def test_falls_with_doubt_and_counts_half_without_reputation(self) -> None:
        told = verdict("550 5.1.1 user unknown", "5.1.1", "550")
        assert told.risk.deliverability == pytest.approx(0.9 - (1 - told.confidence) * 0.2)
        assert told.risk.reputation == pytest.approx((0.6 + 0.5) / 2)
        assert told.risk.engagement == 0.5

    def test_a_good_domain_risks_less(self) -> None:
        assert reputation_risk(Type.HARD_BOUNCE, 0.9) == pytest.approx((0.6 + 0.1) / 2)


class TestModel:
    class Sure:
        name = "test-model"

        def __init__(self, says: Subcategory) -> None:
            self.says = says

        def vote(self, text: bytes) -> tuple[Subcategory, float] | None:
            return (self.says, 0.9) if text else None

    def subject(self, says: Subcategory) -> Classifier:
        return Classifier(rules.load([rules_dir()]), self.Sure(says))

    def test_decides_alone_where_the_rules_abstain(self) -> None:
        failure = DeliveryFailure("bo@a.example", diagnostic="zzz qqq")
        told = self.subject(Subcategory.MAILBOX_FULL).verdict(failure, Report(Kind.BOUNCE, [failure]))
        assert told.subcategory is Subcategory.MAILBOX_FULL
        assert told.evidence[0].layer == "model"

    def test_does_not_overrule_words_and_code(self) -> None:
        failure = DeliveryFailure("bo@a.example", status="5.1.1", diagnostic="user unknown")
        told = self.subject(Subcategory.MAILBOX_FULL).verdict(failure, Report(Kind.BOUNCE, [failure]))
        assert told.subcategory is Subcategory.USER_UNKNOWN


def test_an_operators_own_words_are_heard(tmp_path: Path) -> None:
    (tmp_path / "text.toml").write_text(
        '[[rule]]\nid = "own"\nsays = "user_unknown"\nstrength = 0.99\npatterns = ["gone fishing"]\n'
    )
    subject = Classifier(rules.load([rules_dir(), tmp_path]), cache=tmp_path)
    failure = DeliveryFailure("bo@a.example", diagnostic="550 Gone   fishing")
    assert subject.verdict(failure, Report(Kind.BOUNCE, [failure])).subcategory is Subcategory.USER_UNKNOWN


@pytest.mark.parametrize(
    "junk", ["\0" * 3000, "\ud800" * 100, "<" * 100_000, "@" * 50_000, "550-" * 9000, " \t" * 40_000]
)
def test_any_diagnostic_gets_a_verdict(junk: str) -> None:
    assert verdict(junk, "5.0.0", "554", text=junk).confidence <= 0.99

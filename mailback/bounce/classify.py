"""Why a delivery failed: layers vote, and the vote becomes a verdict with its evidence, confidence and risk.

    status      enhanced status code, or the bare reply code where that is all there is     weight 0.4
    text        wordings, and rules of single providers                                     weight 0.3
    model       a classifier learnt from labelled diagnostics                               weight 0.2
    engagement  what the recipient did with earlier mail                                    weight 0.1

Each layer abstains rather than guesses, and a layer that abstains leaves the denominator. What a vote counts is the
weight of its layer times its strength (how often the rule alone is right). Codes lie more often than words do, so a
specific text outranks a code: a general code that disagrees with it leaves the vote, a specific one counts half.
What else a text may mean, nearly as strongly, is told in the evidence and counts nothing.
A cause that the report itself states (a feedback type, an auto-reply) is taken as it is, as layer `report`.

Pure computation: no clock, no I/O after construction, safe to call from several threads. Emits no log events.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from mailback.address import domain
from mailback.bounce import dialect
from mailback.bounce.patterns import PatternSet, cache_directory, prepare
from mailback.bounce.providers import ProviderNames
from mailback.bounce.rules import Rules, TextRule
from mailback.bounce.taxonomy import CAUSES, Kind, Subcategory, Type
from mailback.bounce.verdict import Evidence, Risk, Verdict
from mailback.reports import ours
from mailback.reports.report import CAUSE_STATED, DeliveryFailure, Report

WEIGHTS = {"status": 0.4, "text": 0.3, "model": 0.2, "engagement": 0.1}
SPECIFIC = 0.8
"""Strength from which a text outranks a code."""
GENERAL = 0.5
"""Strength below which a code is general: it leaves the vote when a specific text disagrees with it."""

_MAX_TEXT = 4096  # characters of a diagnostic that are read: what matters stands at its beginning
_USUAL = 512  # bytes of a prepared diagnostic whose answers are kept; what is longer is seldom told twice
_TEXTS_KEPT = 2048
_USUAL_REPORT = 2048  # bytes of an explanation for people, which most servers word alike each time
_REPORTS_KEPT = 512
_MAX_REPORT = 8192  # of the explanation for people, which has a preamble
_EMPTY_SUMMARY = re.compile(r"\n55\d 5\.0\.0 Service unavailable(?=\r?\n|$)")
"""Sendmail's own line under a reply it was given: exit code 69 in words (sysexits.h), whatever the cause was."""
_REPORT_DISCOUNT = 0.75  # the explanation is written for everybody: it names causes that were not this one
_OUTRANKED = 0.5
_NEAR = 0.03  # strengths that differ by less are alike
_RIVALLED = 0.85  # two causes told alike strongly: one of them is right, seldom both
_CLOSE = 0.1  # how much weaker a rival may be that the evidence names
_RIVALS = 6  # hits among which a rival is looked for
_KIN = 0.7  # how far a vote for a cause of the same type and permanence supports another
_EVIDENCE_TEXT = 120
_NOTHING_KNOWN = 0.1
_SUREST = 0.99
_ENGAGED, _ACTIVE = 0.05, 0.1  # opens and clicks a message: moderate, active
_DELIVERED = frozenset({"delivered", "relayed", "expanded"})
_FULL = frozenset({Subcategory.MAILBOX_FULL, Subcategory.MAILBOX_TEMPORARILY_FULL})
_NEVER_DELAYED = frozenset({Type.AUTO_REPLY, Type.COMPLAINT, Type.DELIVERED})


@dataclass(frozen=True, slots=True)
class Engagement:
    """What the recipient did with earlier mail."""

    sent: int = 0
    opens: int = 0
    clicks: int = 0
    recent: bool = False
    """Opened or clicked within the window that the operator calls recent."""

    @property
    def rate(self) -> float:
        """Opens and clicks a message."""
        return (self.opens + self.clicks) / max(self.sent, 1)


class DiagnosticModel(Protocol):
    """A learnt classifier of diagnostics; see `Classifier`."""

    @property
    def name(self) -> str:
        """What stands in the evidence."""

    def vote(self, text: bytes) -> tuple[Subcategory, float] | None:
        """The likeliest cause and its probability for a prepared text, or None when it is not sure enough."""


@dataclass(slots=True)
class _Vote:
    """What one layer says. Votes for codes are shared between messages: nobody changes one."""

    layer: str
    rule: str
    says: Subcategory
    strength: float
    weight: float
    text: str = ""
    explains: bool = False
    """The rule is one for this very code: it tells what the code means here."""


@dataclass(slots=True)
class _Votes:
    """The votes on one failure; None for a layer that abstains."""

    code: _Vote | None
    text: _Vote | None
    rival: _Vote | None
    """What else the words may mean: told in the evidence, and counted as nothing."""
    model: _Vote | None = None
    engagement: _Vote | None = None

    def cast(self) -> list[_Vote]:
        """Those that count."""
        told = (self.code, self.text, self.model, self.engagement)
        return [vote for vote in told if vote is not None and vote.weight]


_Status = tuple[str, str, int]
"""An enhanced status code: class, subject and detail."""


_Hit = tuple[TextRule, int, float, bytes]
"""A text rule that holds, its strength here, and where its words stand: the number of its pattern (a number beyond all
patterns for a rule that is told by a provider's code alone) and the text."""


class _Opinion(NamedTuple):
    """What the votes come to. Shared between messages, as all that stands in it."""

    votes: _Votes
    says: Subcategory
    confidence: float
    evidence: tuple[Evidence, ...]


class _Heard(NamedTuple):
    """What was found in a diagnostic, and what is thought of it by that alone."""

    found: tuple[int, ...]
    """Patterns, by their numbers."""
    hits: Sequence[_Hit]
    opinion: _Opinion


class Classifier:
    """Gives verdicts by a set of rules, and a model where one is handed in."""

    def __init__(
        self,
        rules: Rules,
        model: DiagnosticModel | None = None,
        *,
        engine: str = "auto",
        cache: Path | None = None,
    ) -> None:
        """Compile the rules.

        `cache` is where the compiled patterns are kept between starts; by default the user's cache folder.
        """
        self._rules = rules
        self._model = model
        told: list[TextRule] = []  # the rule of each pattern
        nodes: list[dialect.Node] = []
        for rule in rules.texts.values():
            told += [rule] * len(rule.patterns)
            nodes += rule.patterns
        self._marks: dict[int, str] = {}
        """The providers that further patterns give away, by their numbers."""
        for provider in rules.providers.values():
            self._marks |= dict.fromkeys(range(len(nodes), len(nodes) + len(provider.marks)), provider.id)
            nodes += provider.marks
        self._patterns = PatternSet(
            nodes,
            engine="re" if engine == "re" else "hyperscan" if engine == "hyperscan" else "auto",
            cache=cache or cache_directory(),
        )
        self._rule_of = dict(enumerate(told))
        self._by_code: dict[str, list[int]] = {}
        for number, rule in enumerate((r for r in rules.texts.values() if r.provider and not r.patterns), len(nodes)):
            self._rule_of[number] = rule
            self._by_code.setdefault(rule.provider or "", []).append(number)
        self._unlimited = frozenset(number for number, rule in self._rule_of.items() if _is_unlimited(rule))
        self._limits = {number: rule.provider for number, rule in self._rule_of.items() if not _is_unlimited(rule)}
        """The provider that a rule is limited to, if it is to one."""
        self._order = {number: _rank(rule) for number, rule in self._rule_of.items()}
        self.names = names = ProviderNames(rules)
        self._provider_of = names.of_host
        # Codes are few, and come again and again.
        self._code_vote = lru_cache(maxsize=4096)(_code_voter(rules))
        self._allows = lru_cache(maxsize=4096)(self._allowed)
        self._told_by_code = lru_cache(maxsize=4096)(self._rules_of_code)
        self._last = threading.local()
        # A server's day is a few diagnostics again and again, once their addresses are hidden.
        self._usual_opinion = lru_cache(maxsize=_TEXTS_KEPT)(self._opinion)
        self._usual_report = lru_cache(maxsize=_REPORTS_KEPT)(self._patterns.found)

    def forget(self) -> None:
        """Forget the texts that were judged lately: for measuring what one costs that comes for the first time."""
        self._usual_opinion.cache_clear()
        self._usual_report.cache_clear()

    def verdict(self, failure: DeliveryFailure, report: Report, engagement: Engagement | None = None) -> Verdict:
        """Why the delivery to one recipient failed (or what else became of it); never raises."""
        if failure.cause is not None:
            evidence = Evidence("report", report.dialect or report.kind.value, 1.0, failure.cause.value)
            return _verdict(
                failure.cause, _type(failure.cause, failure, report), failure.cause_confidence, (evidence,), engagement
            )
        if failure.action in _DELIVERED:
            evidence = Evidence("report", f"action {failure.action}", 1.0, Subcategory.DELIVERED.value)
            return _verdict(Subcategory.DELIVERED, Type.DELIVERED, CAUSE_STATED, (evidence,), engagement)
        if ours.refused(failure.diagnostic):  # quotes the cause of a hold of ours, which is no news
            cause = Subcategory.POLICY_VIOLATION
            evidence = Evidence("report", "our own refusal", 1.0, cause.value, failure.diagnostic[:_EVIDENCE_TEXT])
            return _verdict(cause, _type(cause, failure, report), CAUSE_STATED, (evidence,), engagement)
        votes, says, confidence, told = self._heard(failure, report)
        if engagement is not None and (vote := _engagement_vote(says, engagement)) is not None:
            votes = replace(votes, engagement=vote)
            (says, confidence), told = _count(votes), _evidence(votes)
        delayed = failure.action == "delayed" or report.kind is Kind.DELAY
        if says is Subcategory.UNKNOWN and delayed:
            says, confidence = Subcategory.MESSAGE_TEMPORARILY_DELAYED, CAUSE_STATED
        says = _fullness(says, failure)
        return _verdict(says, _type(says, failure, report), confidence, told, engagement)

    def provider(self, failure: DeliveryFailure, of_domain: Callable[[str], str | None] | None = None) -> str | None:
        """Id of the provider that refused (or that returned the mail); None when it is no known one.

        The server that refused tells it, else `of_domain`, who knows the MX records of the recipient's domain, else the
        names of addresses and of the server that reports.
        """
        if failure.remote_mta and (found := self._provider_of(failure.remote_mta)):
            return found
        if of_domain is not None and (found := of_domain(domain(failure.mailed))):
            return found
        hosts = (failure.final_recipient or "", failure.recipient, failure.reporting_mta or "")
        return next(filter(None, map(self._provider_of, hosts)), None)

    def _heard(self, failure: DeliveryFailure, report: Report) -> _Opinion:
        """What the layers say of the diagnostic and the codes; where that is little, the report's words too."""
        said = failure.diagnostic[:_MAX_TEXT]
        data = _ANOTHER_NAME if self._misses_another_name(said, failure) else prepare(_joined(said))
        hosts = self._hosts(failure)
        opinion = self._usual_opinion if len(data) <= _USUAL else self._opinion
        heard = opinion(data, failure.status, failure.smtp_code, hosts)
        if (heard.hits and heard.hits[0][2] >= GENERAL) or not report.text:
            return heard.opinion
        hits = [*heard.hits, *self._report_hits(report, failure, hosts | self._marked(heard.found))]
        if not hits:
            return heard.opinion
        return self._concluded(data, failure.status, failure.smtp_code, sorted(hits, key=_strongest))

    def _misses_another_name(self, said: str, failure: DeliveryFailure) -> bool:
        """Whether a name was not found that says nothing of the recipient's domain: a relay host's, mistyped or gone
        from the DNS; or a large provider's, which all of its users would miss."""
        found = _LOOKED_UP.search(said) if "ost" in said else None
        if found is None:
            return False
        name = found[1].rstrip(".").lower()
        addressed = (failure.final_recipient or "", failure.recipient, failure.original_recipient or "")
        domains = [told for who in addressed if (told := domain(who))]
        if not domains or self._provider_of(name) is not None:
            return bool(domains)
        return not any(name == told or name.endswith(f".{told}") for told in domains)

    def _hosts(self, failure: DeliveryFailure) -> frozenset[str]:
        """The providers that the names of servers and addresses tell."""
        told = (failure.remote_mta, failure.reporting_mta, failure.recipient, failure.final_recipient)
        return frozenset([found for host in told if host and (found := self._provider_of(host)) is not None])

    def _marked(self, found: Iterable[int]) -> frozenset[str]:
        """The providers that patterns give away."""
        marks = self._marks
        return frozenset([marks[number] for number in found if number in marks])

    def _opinion(self, data: bytes, status: str | None, smtp_code: str | None, hosts: frozenset[str]) -> _Heard:
        """What is thought of a diagnostic with its codes, from servers of these providers."""
        found = tuple(self._patterns.found(data)) if data else ()
        hits = self._hits(found, data, status, smtp_code, hosts | self._marked(found))
        return _Heard(found, hits, self._concluded(data, status, smtp_code, hits))

    def _concluded(self, data: bytes, status: str | None, smtp_code: str | None, hits: Sequence[_Hit]) -> _Opinion:
        """The votes of the layers, where these rules hold, and what they come to."""
        code = self._code_vote(status, smtp_code)
        text = rival = None
        if hits:
            text, rival = self._text_vote(hits, status, smtp_code), self._rival(hits)
        # The model costs as much as all other layers together: where a specific text and the code agree, it is not
        # asked. Where they do not, it turns no specific text, but its doubt rightly lowers the confidence (measured).
        told_outright = text is not None and code is not None and text.strength >= SPECIFIC and code.says is text.says
        model = None
        if self._model is not None and data and not told_outright:
            told = self._model.vote(data)
            if told is not None:
                model = _Vote("model", self._model.name, told[0], told[1], WEIGHTS["model"])
        if code is not None and text is not None and code.says is not text.says:
            code = _beside(code, text)
        votes = _Votes(code, text, rival, model)
        return _Opinion(votes, *_count(votes), _evidence(votes))

    def _hits(
        self, found: Iterable[int], data: bytes, status: str | None, smtp_code: str | None, providers: Set[str]
    ) -> list[_Hit]:
        """The rules that hold for a diagnostic, the strongest first."""
        numbers = self._holding(found, status, smtp_code, providers)
        if status is not None:
            for provider in providers:
                numbers += self._told_by_code(provider, status, smtp_code)
        if len(numbers) > 1:
            numbers.sort(key=self._order.__getitem__)
        rule_of = self._rule_of
        return [(rule := rule_of[number], number, rule.strength, data) for number in numbers]

    def _report_hits(self, report: Report, failure: DeliveryFailure, providers: Set[str]) -> list[_Hit]:
        """What the explanation for people says; scanned once a report, however many recipients it names."""
        last = self._last
        if getattr(last, "text", None) is not report.text:
            last.data = prepare(_EMPTY_SUMMARY.sub("", report.text[:_MAX_REPORT]))
            found = self._usual_report if len(last.data) <= _USUAL_REPORT else self._patterns.found
            last.found = found(last.data)
            last.text = report.text
        discount = _REPORT_DISCOUNT if len(report.failures) <= 1 else _REPORT_DISCOUNT / 2
        numbers = self._holding(last.found, failure.status, failure.smtp_code, providers)
        rule_of = self._rule_of
        return [(rule := rule_of[number], number, rule.strength * discount, last.data) for number in numbers]

    def _holding(
        self, found: Iterable[int], status: str | None, smtp_code: str | None, providers: Set[str]
    ) -> list[int]:
        """The patterns among these whose rules hold: their limits (provider, codes) are met."""
        unlimited = self._unlimited
        return [n for n in found if n in unlimited or self._holds(n, status, smtp_code, providers)]

    def _holds(self, number: int, status: str | None, smtp_code: str | None, providers: Set[str]) -> bool:
        if number not in self._limits:
            return False  # it gives a provider away, and is no rule
        limit = self._limits[number]
        return (limit is None or limit in providers) and self._allows(number, status, smtp_code)

    def _allowed(self, number: int, status: str | None, smtp_code: str | None) -> bool:
        """Whether the codes are among those that a rule is limited to."""
        rule, split = self._rule_of[number], _split_status(status)
        if rule.statuses and (split is None or not any(allowed.holds(split) for allowed in rule.statuses)):
            return False
        return not rule.codes or smtp_code in rule.codes

    def _rules_of_code(self, provider: str, status: str, smtp_code: str | None) -> tuple[int, ...]:
        """The rules that a provider's code tells without any words."""
        if _split_status(status) is None:
            return ()
        numbers = self._by_code.get(provider, ())
        return tuple(number for number in numbers if self._allowed(number, status, smtp_code))

    def _text_vote(self, hits: Sequence[_Hit], status: str | None, smtp_code: str | None) -> _Vote:
        rule, _, strength, _ = hits[0]
        if len(hits) > 1 and _rivalled(hits):
            strength *= _RIVALLED
        says = rule.temporary if _klass(_split_status(status), smtp_code) == "4" else rule.says
        layer = "provider" if rule.provider else "text"
        return _Vote(layer, rule.id, says, strength, WEIGHTS["text"], self._words(hits[0]), bool(rule.statuses))

    def _rival(self, hits: Sequence[_Hit]) -> _Vote | None:
        """Another cause, told nearly as strongly as the first."""
        first, _, strongest, _ = hits[0]
        for hit in hits[1:_RIVALS]:
            rule, _, strength, _ = hit
            if rule.says is not first.says:
                if strength < strongest - _CLOSE:
                    return None
                layer = "provider" if rule.provider else "text"
                return _Vote(layer, rule.id, rule.says, strength, 0.0, self._words(hit))
        return None

    def _words(self, hit: _Hit) -> str:
        """The words that a rule was told by; the reason of one that is told by a code."""
        rule, number, _, data = hit
        words = self._patterns.matched(number, data) if number < len(self._patterns) else rule.reason
        return words[:_EVIDENCE_TEXT]


def _rivalled(hits: Sequence[_Hit]) -> bool:
    """Whether another rule says something else, nearly as strongly as the first; the strongest come first."""
    says, near = hits[0][0].says, hits[0][2] - _NEAR
    for rule, _, strength, _ in hits[1:]:
        if strength <= near:
            return False
        if rule.says is not says and not _akin(rule.says, says):
            return True
    return False


def _is_unlimited(rule: TextRule) -> bool:
    """Whether it holds wherever its words stand, as nearly all rules do."""
    return not (rule.provider or rule.statuses or rule.codes)


def _rank(rule: TextRule) -> tuple[float, int]:
    """Order of rules: the strongest first, a provider's own before one for everybody."""
    return -rule.strength, 0 if rule.provider else 1


def _strongest(hit: _Hit) -> tuple[float, int]:
    """The same of hits, which may count less."""
    rule, _, strength, _ = hit
    return -strength, 0 if rule.provider else 1


def _code_voter(rules: Rules) -> Callable[[str | None, str | None], _Vote | None]:
    """A function that gives the vote of an enhanced status code, or of the reply code where it says more."""

    def vote(status: str | None, smtp_code: str | None) -> _Vote | None:
        split = _split_status(status)
        best = rules.replies.get(smtp_code or "")
        if split is not None and split[0] != "2":
            rule = rules.statuses.get(f"{split[1]}.{split[2]}") or rules.subjects.get(split[1])
            if rule is not None and (best is None or rule.strength >= best.strength):
                best = rule
        if best is None or best.strength == 0:
            return None
        klass = _klass(split, smtp_code)
        says = best.persistent if klass == "4" else best.permanent
        return _Vote("status", best.code.replace("x", klass, 1), says, best.strength, WEIGHTS["status"], best.means)

    return vote


def _klass(status: _Status | None, smtp_code: str | None) -> str:
    """`4` or `5`: the class of the enhanced code, else of the reply code; empty when there is neither."""
    return status[0] if status else (smtp_code or "")[:1]


def _akin(one: Subcategory, other: Subcategory) -> bool:
    """Whether two causes lead to the same handling of the address: the same type, as permanent."""
    if one is other:
        return True
    a, b = CAUSES[one], CAUSES[other]
    return a.type is b.type and a.permanent == b.permanent


def _count(votes: _Votes) -> tuple[Subcategory, float]:
    """The cause with the most support, and the confidence in it.

    Confidence is the winner's share of all that was voted, times the chance that not all rules that speak for it err.
    """
    cast = votes.cast()
    if not cast:
        return Subcategory.UNKNOWN, _NOTHING_KNOWN
    winner = cast[0].says
    if len(cast) > 1:
        support: dict[Subcategory, float] = {}
        for vote in _deciding(votes, cast):
            support[vote.says] = support.get(vote.says, 0.0) + vote.strength * vote.weight
        winner = max(support, key=support.__getitem__)
    total = agreed = 0.0
    all_err = 1.0
    for vote in cast:
        agreement = 1.0 if vote.says is winner else _KIN if _akin(vote.says, winner) else 0.0
        mass = vote.strength * vote.weight
        total += mass
        agreed += mass * agreement
        all_err *= 1.0 - vote.strength * agreement
    if not total:
        return Subcategory.UNKNOWN, _NOTHING_KNOWN
    return winner, min(agreed / total * (1.0 - all_err), _SUREST)


def _deciding(votes: _Votes, cast: list[_Vote]) -> list[_Vote]:
    """The votes that choose the cause; a model that is not among them still lowers the confidence.

    Among causes that rules tell the model breaks ties. It turns no specific text, and a cause that it alone tells wins
    only where every rule abstains or is general.
    """
    model, text = votes.model, votes.text
    if model is None:
        return cast
    if text is not None and text.strength >= SPECIFIC:
        told = {text.says}
    else:
        told = {vote.says for vote in cast if vote is not model and vote.strength >= GENERAL}
    return [vote for vote in cast if vote is not model] if told and model.says not in told else cast


def _beside(code: _Vote, text: _Vote) -> _Vote:
    """The vote of a code as it counts beside a text that says something else: left out, halved or as it is."""
    if text.strength < GENERAL:
        return code
    if code.strength < GENERAL or text.explains:
        weight = 0.0
    elif text.strength >= SPECIFIC:
        weight = code.weight * _OUTRANKED
    else:
        return code
    return _Vote(code.layer, code.rule, code.says, code.strength, weight, code.text)


def _engagement_vote(leading: Subcategory, engagement: Engagement) -> _Vote | None:
    """A recipient who reads our mail has hardly gone; one who never did may well have.

    The layer takes no side among the causes: it supports the leading one, or it speaks for a passing trouble.
    """
    if engagement.sent == 0 or CAUSES[leading].type is not Type.HARD_BOUNCE:
        return None
    if engagement.recent and engagement.rate > _ACTIVE:
        return _engaged(Subcategory.SERVER_TEMPORARILY_UNAVAILABLE, "active")
    return None if engagement.rate > _ENGAGED else _engaged(leading, "inactive")


def _engaged(says: Subcategory, trend: str) -> _Vote:
    return _Vote("engagement", trend, says, GENERAL, WEIGHTS["engagement"])


def _evidence(votes: _Votes) -> tuple[Evidence, ...]:
    told = (votes.code, votes.text, votes.rival, votes.model, votes.engagement)
    cast = [vote for vote in told if vote is not None]
    return tuple([Evidence(v.layer, v.rule, v.strength * v.weight, v.says, v.text) for v in cast])


def _verdict(
    says: Subcategory,
    kind: Type,
    confidence: float,
    evidence: tuple[Evidence, ...],
    engagement: Engagement | None,
) -> Verdict:
    return Verdict(kind, says, confidence, evidence, _risk(kind, confidence, engagement))


def _type(says: Subcategory, failure: DeliveryFailure, report: Report) -> Type:
    """The type of a cause; a delay keeps its own type whatever the cause (taxonomy)."""
    if CAUSES[says].type in _NEVER_DELAYED:
        return CAUSES[says].type
    if failure.action == "delayed" or report.kind is Kind.DELAY:
        return Type.DELAYED_BOUNCE
    return CAUSES[says].type


def _fullness(says: Subcategory, failure: DeliveryFailure) -> Subcategory:
    """A full mailbox is told in words that do not say for how long; the class of the code does (RFC 3463 x.2.2)."""
    if says not in _FULL:
        return says
    klass = (failure.status or failure.smtp_code or "")[:1]
    wanted = {"4": Subcategory.MAILBOX_TEMPORARILY_FULL, "5": Subcategory.MAILBOX_FULL}
    return wanted.get(klass, says)


# Risk of a type: to further delivery, to the sender's reputation.
_RISK = {
    Type.HARD_BOUNCE: (0.9, 0.6),
    Type.SOFT_BOUNCE: (0.3, 0.1),
    Type.BLOCK_BOUNCE: (0.7, 0.9),
    Type.CHALLENGE_BOUNCE: (0.4, 0.3),
    Type.SPAM_BOUNCE: (0.8, 1.0),
    Type.AUTO_REPLY: (0.0, 0.0),
    Type.DELAYED_BOUNCE: (0.2, 0.1),
    Type.COMPLAINT: (0.8, 1.0),
    Type.DELIVERED: (0.0, 0.0),
    Type.UNKNOWN: (0.5, 0.3),
}


@lru_cache(maxsize=1024)
def _risk(kind: Type, confidence: float, engagement: Engagement | None) -> Risk:
    """How much this failure endangers; without knowledge of reputation or engagement these count as 0.5."""
    return Risk(
        deliverability=max(0.0, _RISK[kind][0] - (1.0 - confidence) * 0.2),
        reputation=reputation_risk(kind, 0.5),
        engagement=_engagement_risk(engagement),
    )


def reputation_risk(kind: Type, reputation: float) -> float:
    """How much a failure of this type endangers a sender's reputation, which is so, from 0 (bad) to 1 (good)."""
    return (_RISK[kind][1] + 1.0 - reputation) / 2


def _engagement_risk(engagement: Engagement | None) -> float:
    if engagement is None or engagement.sent == 0:
        return 0.5
    if engagement.rate > _ACTIVE:
        return 0.2
    return 0.4 if engagement.rate > _ENGAGED else 0.8


@lru_cache(maxsize=1024)
def _split_status(status: str | None) -> _Status | None:
    """`5.7.606` as class, subject and detail; None for what is no enhanced status code (RFC 3463 section 2)."""
    parts = (status or "").split(".")
    if len(parts) != 3 or parts[0] not in ("2", "4", "5") or not all(p.isdecimal() for p in parts):
        return None
    return parts[0], str(int(parts[1])), int(parts[2])


_LOOKED_UP = re.compile(
    r"(?:error for name=|look ?up host |any host named |host not found: |\(name server: )"
    r"([a-z0-9_-]+(?:\.[a-z0-9_-]+)+)",
    re.IGNORECASE,
)
"""How mail servers name the host that they looked for: Postfix (its notification and its log), qmail, Sendmail."""
_ANOTHER_NAME = b"the name of another host than the recipient's was not found"
"""What rules read instead where the name says nothing of the recipient (`routing-error.next-hop`)."""

_QUOTED = re.compile(r": ?(?=[245]\d\d[ -])")
"""Where a quotation may begin: with a literal, for which a text is searched five times faster than for the words."""
_SAID = re.compile(r"(?:said|returned was|responded|response|server message)[^:]{0,45}$", re.IGNORECASE)
_SAID_BEFORE = 60
_CONTINUATION = re.compile(r"([245]\d\d)-(?:([245]\.\d{1,3}\.\d{1,3}) )?")


def _joined(diagnostic: str) -> str:
    """What the server said as one sentence.

    The words of the client around it go (`host x said:`, `but sender was rejected. Remote host said:`), and so does the
    code that opens each further line of a reply: it stands in the way of phrases.
    """
    for quoted in _QUOTED.finditer(diagnostic, 0, 600):
        if _SAID.search(diagnostic[max(0, quoted.start() - _SAID_BEFORE) : quoted.start()]):
            diagnostic = diagnostic[quoted.end() :]
            break
    first = _CONTINUATION.search(diagnostic, 0, 80) if "-" in diagnostic[:80] else None
    if first is None:
        return diagnostic
    code, status = first.groups()
    heads = [f" {code}-", f" {code} "]
    if status:
        heads = [f" {code}-{status} ", f" {code} {status} ", *heads]
    for head in heads:
        diagnostic = diagnostic.replace(head, " ")
    return diagnostic

"""DMARC: whose message it is, what speaks for that domain, and what its owner asks for."""

from __future__ import annotations

import pytest

from mailback.auth import dmarc
from mailback.auth.domains import aligned, author_domains, organizational
from mailback.auth.resolver import UnansweredError
from mailback.auth.results import Dkim, Dmarc, Result, Spf

NO_SPF = Spf(Result.NONE)


def check(
    author: str,
    *,
    spf: Spf = NO_SPF,
    dkim: tuple[Dkim, ...] = (),
    share: float = 0.0,
    **records: str,
) -> Dmarc:
    """`records` are DMARC records by domain, dots as underscores."""
    known = {f"_dmarc.{domain.replace('_', '.')}": (record.encode(),) for domain, record in records.items()}
    return dmarc.evaluate([author.encode()], spf=spf, dkim=dkim, records=lambda name: known.get(name, ()), share=share)


def passed(domain: str) -> Dkim:
    return Dkim(Result.PASS, domain)


REJECT = "v=DMARC1; p=reject"


def test_an_aligned_signature_passes() -> None:
    told = check("ada@a.test", dkim=(Dkim(Result.FAIL, "a.test"), passed("a.test")), a_test=REJECT)
    assert told == Dmarc(Result.PASS, "a.test", "reject", "none", "a.test")


def test_an_aligned_spf_pass_passes() -> None:
    assert check("ada@a.test", spf=Spf(Result.PASS, "bounces.a.test"), a_test=REJECT).result is Result.PASS


def test_what_passes_for_another_domain_does_not_count() -> None:
    told = check("ada@a.test", spf=Spf(Result.PASS, "evil.test"), dkim=(passed("b.test"),), a_test=REJECT)
    assert (told.result, told.disposition) == (Result.FAIL, "reject")


@pytest.mark.parametrize(("tag", "method"), [("adkim", "dkim"), ("aspf", "spf")])
def test_strict_alignment_wants_the_very_domain(tag: str, method: str) -> None:
    record = f"v=DMARC1; p=reject; {tag}=s"
    for domain, result in (("a.test", Result.PASS), ("mail.a.test", Result.FAIL)):
        spf = Spf(Result.PASS, domain) if method == "spf" else NO_SPF
        dkim = (passed(domain),) if method == "dkim" else ()
        assert check("ada@a.test", spf=spf, dkim=dkim, a_test=record).result is result


def test_a_subdomain_without_a_record_has_the_subdomain_policy() -> None:
    told = check("ada@deep.down.a.test", a_test="v=DMARC1; p=reject; sp=quarantine")
    assert (told.policy, told.disposition, told.record_domain) == ("quarantine", "quarantine", "a.test")
    assert check("ada@a.test", a_test="v=DMARC1; p=reject; sp=quarantine").policy == "reject"
    assert check("ada@x.a.test", a_test=REJECT).policy == "reject"


def test_a_record_of_its_own_comes_before_that_of_the_organisation() -> None:
    told = check("ada@x.a.test", x_a_test="v=DMARC1; p=none; sp=reject", a_test=REJECT)
    assert (told.policy, told.record_domain) == ("none", "x.a.test")


@pytest.mark.parametrize(
    ("policy", "share", "falls"),
    [
        ("reject", 0.29, "reject"),
        ("reject", 0.30, "quarantine"),
        ("quarantine", 0.99, "none"),
        ("none", 0.99, "none"),
    ],
)
def test_pct_exempts_a_share_to_the_next_milder_policy(policy: str, share: float, falls: str) -> None:
    told = check("ada@a.test", share=share, a_test=f"v=DMARC1; p={policy}; pct=30")
    assert (told.policy, told.disposition) == (policy, falls)


@pytest.mark.parametrize("pct", ["", "x", "-1", "1000", "300", "٣"])
def test_a_pct_that_is_none_means_all(pct: str) -> None:
    assert check("ada@a.test", share=0.999, a_test=f"v=DMARC1; p=reject; pct={pct}").disposition == "reject"


@pytest.mark.parametrize("rest", ["; foo", "; rua=mailto:a@a.test; rua=mailto:b@a.test", "; =; x y=1", ";;"])
def test_what_is_wrong_behind_the_policy_is_passed_over(rest: str) -> None:
    assert check("ada@a.test", a_test=f"v=DMARC1; p=reject{rest}").disposition == "reject"


def test_without_a_record_there_is_no_result() -> None:
    assert check("ada@a.test", dkim=(passed("a.test"),)).result is Result.NONE


@pytest.mark.parametrize(
    "record",
    ["v=DMARC1", "v=DMARC1; p=nonsense", "p=reject; v=DMARC1", "v=DMARC2; p=reject", "v=DMARC1; p=reject; p=none",
     "v=DMARC1; " + "x=y; " * 3000, "v=DMARC1 p=reject", ""],
)  # fmt: skip
def test_a_record_that_cannot_be_read_is_none(record: str) -> None:
    assert check("ada@a.test", a_test=record).result is Result.NONE


def test_a_record_with_a_bad_policy_but_reports_asks_for_nothing() -> None:
    told = check("ada@a.test", a_test="v=DMARC1; p=nonsense; rua=mailto:x@a.test")
    assert (told.result, told.policy) == (Result.FAIL, "none")


def test_two_records_are_none() -> None:
    told = dmarc.evaluate(
        [b"ada@a.test"],
        spf=NO_SPF,
        dkim=(),
        records=lambda name: (REJECT.encode(), b"v=DMARC1; p=none") if name == "_dmarc.a.test" else (),
        share=0.0,
    )
    assert told.result is Result.NONE


def test_other_records_at_the_same_name_do_not_disturb() -> None:
    told = dmarc.evaluate(
        [b"ada@a.test"],
        spf=NO_SPF,
        dkim=(),
        records=lambda name: (b"v=spf1 -all", REJECT.encode(), b"\xff"),
        share=0.0,
    )
    assert told.policy == "reject"


def test_dns_that_does_not_answer_is_a_temporary_error_and_no_reason_to_reject() -> None:
    def records(name: str) -> tuple[bytes, ...]:
        raise UnansweredError(f"no answer for {name}")

    told = dmarc.evaluate([b"ada@a.test"], spf=NO_SPF, dkim=(), records=records, share=0.0)
    assert (told.result, told.disposition) == (Result.TEMPERROR, "")


def test_what_might_have_passed_makes_a_failure_temporary() -> None:
    told = check("ada@a.test", spf=Spf(Result.TEMPERROR, "a.test"), a_test=REJECT)
    assert (told.result, told.disposition) == (Result.TEMPERROR, "none")
    assert check("ada@a.test", spf=Spf(Result.TEMPERROR, "b.test"), a_test=REJECT).result is Result.FAIL


@pytest.mark.parametrize("froms", [[], [b"ada@a.test", b"ada@a.test"], [b"ada@a.test, eve@b.test"], [b"x" * 20000]])
def test_several_authors_or_none_are_nobody(froms: list[bytes]) -> None:
    told = dmarc.evaluate(froms, spf=NO_SPF, dkim=(passed("a.test"),), records=lambda _: (REJECT.encode(),), share=0)
    assert told.result is Result.PERMERROR


def test_two_authors_of_one_domain_are_as_good_as_one() -> None:
    assert check("ada@a.test, bob@A.test", dkim=(passed("a.test"),), a_test=REJECT).result is Result.PASS


def test_nothing_below_a_public_suffix_speaks_for_it() -> None:
    assert organizational("co.uk") == "co.uk"
    assert not aligned("a.co.uk", "co.uk")
    assert not aligned("a.co.uk", "b.co.uk")
    assert aligned("x.a.co.uk", "y.a.co.uk")
    assert not aligned("eve.github.io", "ada.github.io")
    told = check("ada@co.uk", dkim=(passed("evil.co.uk"),), co_uk=REJECT)
    assert told.result is Result.FAIL


def test_internationalised_domains_align_by_their_a_labels() -> None:
    told = dmarc.evaluate(
        ["ada@post.bücher.test".encode()],
        spf=NO_SPF,
        dkim=(passed("xn--bcher-kva.test"),),
        records=lambda name: (REJECT.encode(),) if name == "_dmarc.xn--bcher-kva.test" else (),
        share=0.0,
    )
    assert (told.result, told.domain) == (Result.PASS, "post.xn--bcher-kva.test")


AUTHORS = [
    ("Ada <ada@a.test>", ("a.test",)),
    ("ada@a.test (Ada, <eve@evil.test>)", ("a.test",)),
    ('"eve@evil.test, x" <ada@a.test>', ("a.test",)),
    ("eve@evil.test <ada@a.test>", ("a.test",)),
    ("=?utf-8?q?=3Ceve=40evil.test=3E?= <ada@a.test>", ("a.test",)),
    ("<ada@a.test> <eve@b.test>", ("a.test", "b.test")),
    ("Team: ada@a.test, Bob <bob@b.test>;", ("a.test", "b.test")),
    ('"ada@evil.test"@a.test', ("a.test",)),
    ("<@relay.test:ada@a.test>", ("a.test",)),
    ("ada@a.test.", ("a.test",)),
    ("ada@(comment)a.test", ("a.test",)),
    ("Ada <ada@a.test", ("a.test",)),
    ("Nobody", ()),
    ("undisclosed:;", ()),
    ("", ()),
]


@pytest.mark.parametrize(("value", "domains"), AUTHORS)
def test_whose_domain_stands_in_a_from_field(value: str, domains: tuple[str, ...]) -> None:
    assert author_domains(value) == domains


@pytest.mark.timeout(30)
@pytest.mark.parametrize("piece", ["<", "(", '"', "\\", ",", "a@b.test,", "<a@b.test>", ":", "()", '""', "<(", '"('])
def test_a_hostile_from_field_is_read_in_linear_time(piece: str) -> None:
    author_domains(piece * (100_000 // len(piece)))

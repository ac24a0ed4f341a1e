"""A dangerous reply is told by what it carries and who sends it, and ordinary mail is not taken for one."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from email.header import Header
from pathlib import Path

import pytest

from mailback.bounce.rulefile import RulesError
from mailback.message import Message, parse
from mailback.reply import safety
from mailback.reply.safety import Known, Safety, Said, Verdict
from mailback.resources import rules_dir

_OURS = Known(domains=["milltown.example"], names=["Ada Quill"])


def _mail(sender: str, kind: str = "text/plain", body: bytes = b"Fine.", filename: str = "") -> Message:
    named = f'Content-Disposition: attachment; filename="{filename}"\r\n' if filename else ""
    head = f"From: {sender}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n{named}\r\n"
    return parse(head.encode() + base64.encodebytes(body))


def _archive(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("filename", "sign"),
    [
        ("invoice.exe", "executable_attachment"),
        ("invoice.pdf.scr", "double_extension"),
        ("Budget.XLSM", "macro_attachment"),
    ],
)
def test_an_attachment_that_runs_is_malware(filename: str, sign: str) -> None:
    told = safety.assess(_mail("jo@far.example", "application/octet-stream", filename=filename))
    assert (told.verdict, told.signals) == (Verdict.MALWARE, (sign,))


def test_an_executable_in_an_archive_is_malware_even_from_an_allowed_sender() -> None:
    mail = _mail("jo@far.example", "application/zip", _archive("doc/letter.js"), "letter.zip")
    assert safety.assess(mail, Known(allowed=["far.example"])).verdict is Verdict.MALWARE


@pytest.mark.parametrize("body", [_archive("letter.pdf"), b"PK\x03\x04 no archive", b""])
def test_a_harmless_or_broken_archive_is_clean(body: bytes) -> None:
    assert safety.assess(_mail("jo@far.example", "application/zip", body, "letter.zip")).verdict is Verdict.CLEAN


def test_a_link_that_shows_another_host_is_phishing_unless_the_sender_is_allowed() -> None:
    mail = _mail("jo@far.example", "text/html", b'<a href="http://evil.test/x">www.bank.example/login</a>')
    assert safety.assess(mail).verdict is Verdict.PHISHING
    assert safety.assess(mail, Known(allowed=["jo@far.example"])).verdict is Verdict.CLEAN


@pytest.mark.parametrize("shown", [b"our site", b"shop.bank.example", b"https://bank.example/terms"])
def test_a_link_that_leads_where_it_says_is_clean(shown: bytes) -> None:
    mail = _mail("jo@far.example", "text/html", b'<a href="https://www.bank.example/x">' + shown + b"</a>")
    assert safety.assess(mail).verdict is Verdict.CLEAN


@pytest.mark.parametrize("sender", ["Ada Quill <ada@far.example>", "jo@rnilltown.example", "jo@mi11town.example"])
def test_posing_as_one_of_ours_is_impersonation(sender: str) -> None:
    assert safety.assess(_mail(sender), _OURS).verdict is Verdict.IMPERSONATION


@pytest.mark.parametrize(
    "sender", ["Ada Quill <ada@milltown.example>", "ada@eu.milltown.example", "Jo <jo@far.example>"]
)
def test_our_own_people_and_strangers_are_clean(sender: str) -> None:
    assert safety.assess(_mail(sender), _OURS).verdict is Verdict.CLEAN


def test_failed_authentication_alone_is_no_verdict() -> None:
    told = safety.assess(_mail("jo@far.example"), _OURS, authentication_failed=True)
    assert (told.verdict, told.score) == (Verdict.CLEAN, 0.0)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "piece", [b"<a ", b"<a href=http://x", b"<a href=http://x>", b"<a href=http://x.example>y.example<"]
)
def test_hostile_links_cost_linear_time(piece: bytes) -> None:
    mail = _mail("jo@far.example", "text/html", piece * (100_000 // len(piece)))
    safety.assess(mail)


# Words -------------------------------------------------------------------------------------------------------------

_WORDED = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "safety.jsonl").read_text("utf-8").splitlines()
    if line
]


def _reply(text: str, subject: str = "Re: offer", sender: str = "jo@far.example", more: str = "") -> Message:
    head = (
        f"From: {sender}\r\nTo: Mona Lundquist <maya@milltown.example>\r\n"
        f"Subject: {Header(subject, 'utf-8').encode()}\r\nIn-Reply-To: <1@milltown.example>\r\n{more}"
    )
    kind = "" if "Content-Type" in more else "Content-Type: text/plain; charset=utf-8\r\n"
    return parse(f"{head}{kind}\r\n{text}\r\n".encode())


def _told(text: str, subject: str = "Re: offer", **fields: str) -> Safety:
    thread = [fields.pop("thread")] if "thread" in fields else []
    return safety.assess(_reply(text, subject, **fields), said=Said(text, thread))


@pytest.mark.parametrize("item", _WORDED, ids=lambda item: f"{item['verdict']}-{item['language']}-{item['subject']}")
def test_words_are_told_in_every_language_and_anger_reports_and_business_are_clean(item: dict[str, str]) -> None:
    answer = _told(item["text"], item["subject"])
    assert answer.verdict == item["verdict"], answer


def test_what_the_thread_is_about_is_no_spam() -> None:
    text = "Our backlinks and the organic traffic matter more than guest posts; is that in your SEO package?"
    assert _told(text).verdict is Verdict.SPAM
    thread = "We offer an SEO package with backlinks, guest posts and more organic traffic."
    assert _told(text, thread=thread).verdict is Verdict.CLEAN


def test_one_word_of_advertising_is_no_spam_and_a_mail_that_answers_nothing_is_told() -> None:
    text = "We offer SEO services."
    assert _told(text).verdict is Verdict.CLEAN
    unasked = parse(f"From: jo@far.example\r\nTo: a@milltown.example\r\nSubject: Offer\r\n\r\n{text}\r\n".encode())
    assert safety.assess(unasked, said=Said(text)).signals == ("advertising", "answers_nothing")


def test_words_alone_phish_nobody_but_failed_authentication_makes_them_likelier() -> None:
    text = "Your account will be suspended. Verify your account."
    assert _told(text).verdict is Verdict.CLEAN
    more = "Authentication-Results: mx.example; dmarc=fail header.from=far.example\r\n"
    assert _told(text, more=more).verdict is Verdict.PHISHING


def test_any_server_that_says_that_authentication_failed_is_heard_and_none_that_says_it_passed() -> None:
    text = "We noticed unusual activity on your account, see https://far.example/x"
    assert _told(text).verdict is Verdict.CLEAN
    for said in ("dmarc=fail", "spf=fail; dkim=fail (bad signature)"):
        more = f"Authentication-Results: anybody.test; {said}\r\n"
        assert _told(text, more=more).signals[-1] == "authentication_failed"
    assert (
        "authentication_failed" not in _told(text, more="Authentication-Results: x; dmarc=pass; spf=fail\r\n").signals
    )


# Links -------------------------------------------------------------------------------------------------------------


def _page(html: str, new: str, sender: str = "jo@far.example") -> Safety:
    message = _reply(html, sender=sender, more="Content-Type: text/html; charset=utf-8\r\n")
    return safety.assess(message, _OURS, said=Said(new, (), lambda _: new))


def test_a_link_of_our_own_mail_that_a_reply_quotes_counts_for_nothing() -> None:
    html = 'Yes please.<blockquote><a href="https://click.counter.test/x">www.bank.example</a></blockquote>'
    assert _page(html, "Yes please.").verdict is Verdict.CLEAN
    assert _page(html, "Yes please. www.bank.example").verdict is Verdict.PHISHING


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("https://eur01.safelinks.protection.outlook.com/?url=https%3A%2F%2Fbank.example", "www.bank.example"),
        ("https://urldefense.com/v3/__https://bank.example__;!!x", "https://bank.example/terms"),
        ("https://files.far.example/1", "report.pdf"),
        ("https://files.far.example/1", "Budget 2026"),
        ("https://t.counter.test/1", "www.far.example"),
        ("https://other.example/", "Node.js"),
        ("mailto:jo@far.example", "jo@far.example"),
        ("https://www.münchen.example/", "münchen.example"),
        ("http://192.168.1.7/status", "the printer"),
    ],
)
def test_links_that_people_send_are_clean(target: str, shown: str) -> None:
    assert _page(f'<a href="{target}">{shown}</a>', shown).verdict is Verdict.CLEAN


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("http://evil.test/login", "<b>www.bank.example</b>"),
        ("http://evil.test/login", "https://bank.example/login"),
        ("https://www.bank.example@evil.test/", "here"),
        ("https://milltown.example.evil.test/login", "here"),
        ("https://paypal.com.evil.test/login", "here"),
        ("https://www.xn--pypal-4ve.com/", "here"),
        ("https://rnicrosoft.com/", "here"),
        ("javascript:location='x'", "here"),
    ],
)
def test_links_that_lie_are_phishing(target: str, shown: str) -> None:
    page = f'<p>Go <a class="x" href="{target}">{shown}</a></p>'
    assert _page(page, "Go www.bank.example https://bank.example/login here").verdict is Verdict.PHISHING


def test_a_form_for_a_password_within_a_mail_is_phishing() -> None:
    assert _page('<form><input name=p type="password"></form>', "Sign in").verdict is Verdict.PHISHING


# Writers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sender",
    [
        "Ada Quill <ada.quill77@freemail.example>",
        '"Quill, Ada" <ceo@far.example>',
        "Ada Quill (CEO) <ceo@far.example>",
        "CEO Ada Quill <ceo@far.example>",
        "Frau Ada Quill - Geschäftsführung <ceo@far.example>",
        "\u0410d\u0430 Quill <ceo@far.example>",
        "Mona Lundquist <maya@far.example>",
        '"ada@milltown.example" <x@far.example>',
        "jo@milltovvn.example",
        "jo@milltwon.example",
        "jo@miltown.example",
        "jo@milltown-support.example",
        "jo@login-milltown.example",
        "jo@milltown.example.far.example",
        "jo@m\u0456lltown.example",
        "jo@xn--mlltown-gjg.example",
        "jo@mail.mi11town.example",
    ],
)
def test_who_poses_as_one_of_ours_is_told(sender: str) -> None:
    assert safety.assess(_reply("Hello", sender=sender), _OURS, said=Said("Hello")).verdict is Verdict.IMPERSONATION


@pytest.mark.parametrize(
    "sender",
    [
        "Ada <ada@far.example>",
        "Adam Quill <adam@far.example>",
        "Jo Milltown <jo@far.example>",
        "jo@milltown-rovers.example",
        "jo@hilltop.example",
        "jo@town.example",
        "jo@m\u00fcller.example",
        "jo@xn--80aswg.example",
        '"Jo via Docs" <shares@docs.example>',
        "Jo <jo@notmilltownish.example>",
        "Maya <maya@far.example>",
    ],
)
def test_who_bears_a_like_name_by_rights_is_clean(sender: str) -> None:
    assert safety.assess(_reply("Hello", sender=sender), _OURS, said=Said("Hello")).verdict is Verdict.CLEAN


def test_mail_under_our_own_name_that_fails_authentication_is_an_impersonation() -> None:
    mail = _reply("Hello", sender="Ada Quill <ada@milltown.example>")
    assert safety.assess(mail, _OURS, said=Said("Hello")).verdict is Verdict.CLEAN
    failed = safety.assess(mail, _OURS, authentication_failed=True, said=Said("Hello"))
    assert failed.verdict is Verdict.IMPERSONATION


def test_where_nobody_said_who_we_are_the_one_it_is_addressed_to_is_ours() -> None:
    assert safety.assess(_reply("Hello", sender="maya@mi11town.example")).verdict is Verdict.IMPERSONATION
    assert safety.assess(_reply("Hello", sender="maya@milltown.example")).verdict is Verdict.CLEAN


def test_a_famous_name_adds_to_what_else_is_wrong_and_is_nothing_by_itself() -> None:
    text = "We noticed unusual activity on your account."
    assert _told(text, sender="PayPal Service <x@far.example>").verdict is Verdict.PHISHING
    assert _told("See you at the Amazon talk.", sender="Amazon Fan Club <x@far.example>").verdict is Verdict.CLEAN
    assert _told(text, sender="PayPal <service@mail.paypal.com>").verdict is Verdict.CLEAN


def test_an_allowed_writer_is_believed_only_while_nothing_shows_another_one_wrote_it() -> None:
    known = Known(domains=["milltown.example"], allowed=["far.example"])
    text = "Your account will be suspended within 24 hours, verify your account: https://x.test"
    assert safety.assess(_reply(text), known, said=Said(text)).verdict is Verdict.CLEAN
    assert safety.assess(_reply(text), known, authentication_failed=True, said=Said(text)).verdict is Verdict.PHISHING


def test_the_words_of_an_operator_extend_those_that_ship(tmp_path: Path) -> None:
    (tmp_path / "replies_safety.toml").write_text('[abuse]\nthreats = ["you will regret this"]\n')
    rules = safety.SafetyRules.load([rules_dir(), tmp_path])
    mail = _reply("You will regret this!")
    assert safety.assess(mail, said=Said("You will regret this!"), rules=rules).verdict is Verdict.ABUSE
    assert safety.assess(mail, said=Said("You will regret this!")).verdict is Verdict.CLEAN


@pytest.mark.parametrize("piece", ["verify your ", "a* ", "死ね", "ｅ", "https://a", "<", "'", "fuck you "])
def test_a_text_of_nothing_but_beginnings_is_read_to_its_end(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    assert safety.assess(_reply(text), said=Said(text)).verdict in Verdict


def test_nothing_that_people_answer_to_mail_is_taken_for_a_danger() -> None:
    """The replies that intents are learnt from: angry, legal, about invoices, passwords, suspicious mail. What is
    unclassified there may well be spam."""
    replies = Path(__file__).parents[2] / "data" / "replies"
    told = [
        json.loads(line) for file in sorted(replies.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()
    ]
    told = [item for item in told if item["intent"] != "unclassified"]
    assert len(told) > 4000
    wrong = [
        (item["id"], answer)
        for item in told
        if not (answer := safety.assess(_reply(item["text"], item["subject"] or ""), said=Said(item["text"]))).clean
    ]
    assert len(wrong) * 2000 <= len(told), wrong


_WORDS = [
    line.split("\t")
    for line in (Path(__file__).parents[1] / "data" / "safety_words.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize(("verdict", "spoken", "subject", "text"), _WORDS, ids=[f"{o[0]}-{o[3][:40]}" for o in _WORDS])
def test_a_ploy_is_told_by_words_that_stand_together_and_business_with_the_same_words_is_clean(
    verdict: str, spoken: str, subject: str, text: str
) -> None:
    answers = "In-Reply-To: <1@oakswell.example>\r\n" if verdict in ("clean", "abuse") else ""
    head = f"From: jo@elm.example\r\nTo: maya@oakswell.example\r\nSubject: {Header(subject, 'utf-8').encode()}\r\n"
    mail = parse(f"{head}{answers}MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}".encode())
    assert safety.assess(mail, said=Said(text)).verdict.value == verdict, spoken


def test_kinds_of_words_far_from_each_other_make_no_ploy() -> None:
    fraud = "Our bank has changed, pay all outstanding invoices to the new IBAN below."
    apart = f"We have changed banks and our new IBAN will follow. {'The hall was cold and the tea was good. ' * 12}"
    assert not safety.assess(_reply(fraud), said=Said(fraud)).clean
    told = f"{apart} Please tell us which invoices are outstanding, we pay immediately."
    assert safety.assess(_reply(told), said=Said(told)).clean


def test_a_link_to_our_own_pages_or_those_of_the_thread_is_nobody_elses() -> None:
    text = "Your account expires today. Please renew it at https://pages.test/renew or it will be closed."
    assert not safety.assess(_reply(text), said=Said(text)).clean
    ours = text.replace("pages.test", "app.milltown.example")
    assert safety.assess(_reply(ours), _OURS, said=Said(ours)).clean
    thread = ["See https://pages.test/renew for how a customer renews."]
    assert safety.assess(_reply(text), said=Said(text, thread)).clean


def test_a_ploy_of_an_operator_is_told_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    own = tmp_path / safety.FILE
    own.write_text('[ploy]\nsigns = ["spam 0.7 tea_trade = casino, wages"]\n')
    text = "Wages are paid in the casino."
    told = safety.assess(_reply(text), said=Said(text), rules=safety.SafetyRules.load([rules_dir(), tmp_path]))
    assert (told.verdict, "tea_trade" in told.signals) == (Verdict.SPAM, True)
    own.write_text('[ploy]\nsigns = ["spam 0.7 tea_trade = kettle"]\n')
    with pytest.raises(RulesError, match="kettle"):
        safety.SafetyRules.load([rules_dir(), tmp_path])

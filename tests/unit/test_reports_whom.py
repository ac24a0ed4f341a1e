"""Whom a report in free text is about: told from glued words, contacts, authors and the sender's own trouble."""

from typing import Any

import pytest

import mailback
from mailback.reports import addresses


@pytest.mark.parametrize(
    "text",
    [
        "收件人li@d.example的邮箱已满",
        "ユーザーli@d.exampleは存在しません",
        "li@d.example님에게 전달할 수 없습니다",
        "адресli@d.example не найден",
        "您发给li@d.example的信件被退回",
    ],
)
def test_words_of_another_script_are_no_part_of_an_address(text: str) -> None:
    assert addresses.in_text(text) == ["li@d.example"]


@pytest.mark.parametrize(
    "address",
    [
        "иван1@почта.рф",
        "用户@例子.公司",
        "anna@müller.example",
        "jörg@bücher.example",
        "мария.ivanova@d.example",
        "x@a株式会社.jp",
    ],
)
def test_an_address_in_another_script_stays_whole(address: str) -> None:
    assert addresses.in_text(f"<{address}> unknown") == [address]


def _told(body: str) -> Any:
    raw = (
        "Return-Path: <>\nFrom: Mail Delivery Subsystem <mailer-daemon@mx.dest.example>\nTo: news@sender.example\n"
        f"Subject: Undeliverable mail\nAuto-Submitted: auto-replied\nContent-Type: text/plain; charset=utf-8\n\n{body}"
    )
    told: Any = mailback.classify(raw.encode()).to_dict()
    (bounce,) = told["bounces"]
    return bounce


@pytest.mark.parametrize(
    "below",
    [
        "Kind regards\n\njohn.admin@dest.example\n",
        "Bei Fragen wenden Sie sich an:\n\nhilfe.da@dest.example\n",
        "The address has changed. Please use:\n\nann.new@dest.example\n",
        "お問い合わせ先：\n\ninfo.jp@dest.example\n",
        "Il giorno 3 marzo, Bob ha scritto:\nbob@third.example\n",
    ],
)
def test_an_address_that_the_line_above_introduces_has_not_failed(below: str) -> None:
    told = _told(f"Your message to ann@dest.example could not be delivered: 550 user unknown\n\n{below}")
    assert told["recipient"] == "ann@dest.example"


@pytest.mark.parametrize(
    "above",
    [
        "We were unable to contact the following recipients:",
        "Could not contact the server for:",
        "With regards to your message, delivery failed for the following recipient:",
        "The message could not be delivered. Please contact the recipient by other means:",
        "Hata: iletişim kurulamadı, teslim edilemedi:",
        "Bitte wenden Sie sich direkt an den Empfänger:",
        "次の宛先に配信できなかったことをご連絡いたします。",
    ],
)
def test_a_line_that_speaks_of_contact_and_of_failure_names_the_recipient(above: str) -> None:
    assert _told(f"{above}\n\nann@dest.example\n")["recipient"] == "ann@dest.example"


def test_a_link_to_an_address_names_it() -> None:
    assert _told("Delivery failed to <mailto:ann@dest.example>: 550 no such user\n")["recipient"] == "ann@dest.example"


@pytest.mark.parametrize(
    "said",
    [
        "550 Your account has been suspended",
        "550 Ihr Konto wurde gesperrt",
        "525 5.7.13 Sender's user account disabled",
        "550 mail from disabled user",
        "550 user unknown in SMTP AUTH",
        "550 您的帐户已被停用",
        "550 Sender mailbox is over quota",
        "550 5.2.1 User has been temporarily disabled, try again later",
        "450 4.2.1 mailbox is temporarily locked for maintenance",
        "550 Empfänger ist vorübergehend gesperrt",
    ],
)
def test_a_stopped_sender_or_a_stop_for_a_time_is_nothing_permanent(said: str) -> None:
    assert not _told(f"<ann@dest.example>: {said}\n")["permanent"]


def test_the_name_of_a_virus_is_no_other_cause() -> None:
    told = _told("<ann@dest.example>: 554 5.7.1 Virus gefunden: Heuristics.Phishing.Email.SpoofedDomain (ClamAV)\n")
    assert told["subcategory"] == "virus_detected"


@pytest.mark.parametrize(
    ("answered", "path", "kind"),
    [
        ("<1@our.example>", "<ann@dest.example>", "reply"),
        ("<1@mail.our.example>", "<ann@dest.example>", "reply"),
        ("<1@other.example>", "<ann@dest.example>", "other"),
        ("<1@our.example>", "<dev-bounces@lists.example>", "other"),
    ],
)
def test_precedence_and_list_id_alone_make_no_answer_bulk(answered: str, path: str, kind: str) -> None:
    raw = (
        f"Return-Path: {path}\nFrom: Ann <ann@dest.example>\nTo: sales@our.example\nSubject: Re: Offer\n"
        f"In-Reply-To: {answered}\nPrecedence: bulk\nList-Id: <dev.lists.example>\n\nYes, send me the price please.\n"
    )
    assert mailback.classify(raw.encode()).kind == kind


@pytest.mark.parametrize(
    ("sender", "subject", "text", "kind"),
    [
        ("dev-owner@lists.example", "Pendiente de moderación", "Lo revisarán los moderadores.", "challenge"),
        ("dev-owner@lists.example", "Uw bericht wacht op goedkeuring", "De moderatoren bekijken het.", "challenge"),
        ("dev-owner@lists.example", "您的邮件等待审核", "管理员审核后发布。", "challenge"),
        ("postmaster@our.example", "Ihr Postfach fast voll", "Ihr Postfach ist zu 95 % gefüllt.", "report"),
        ("postmaster@our.example", "メールボックスの容量が残りわずかです", "容量の 95% を使用しています。", "report"),
    ],
)
def test_holds_and_warnings_of_a_full_mailbox_are_told_in_other_languages(
    sender: str, subject: str, text: str, kind: str
) -> None:
    raw = (
        f"Return-Path: <>\nFrom: {sender}\nTo: news@our.example\nSubject: {subject}\nAuto-Submitted: auto-generated\n"
        f"Content-Type: text/plain; charset=utf-8\n\n{text}\n"
    )
    assert mailback.classify(raw.encode()).kind == kind


@pytest.mark.parametrize(
    "said",
    [
        "Falha na entrega para estes destinatários ou grupos:",
        "Toimitus epäonnistui seuraaville vastaanottajille tai ryhmille:",
        "Livrarea a eșuat către acești destinatari sau grupuri:",
    ],
)
def test_exchange_names_its_recipients_without_fields_in_other_languages(said: str) -> None:
    assert _told(f"{said}\n\nann@dest.example\nx\n")["recipient"] == "ann@dest.example"

"""Automatic answers: what decides, and what must not."""

from __future__ import annotations

import re
from email.header import Header
from pathlib import Path

import pytest

import mailback
from mailback import reports
from mailback.bounce.taxonomy import Kind, Subcategory
from mailback.envelope import Envelope, Source
from mailback.message import parse


def _read(header: str, text: str, envelope: Envelope | None = None) -> reports.Report:
    raw = f"From: Dana <dana@corp.example>\nTo: news@sender.example\n{header}MIME-Version: 1.0\n\n{text}\n"
    return reports.read(parse(raw.encode()), envelope)


@pytest.mark.parametrize(
    "header",
    [
        "Precedence: bulk\n",
        "Precedence: list\nList-Id: <x.example>\n",
        "List-Unsubscribe: <mailto:off@x.example>\n",
        "X-Auto-Response-Suppress: All\n",
        "Auto-Submitted: no\n",
        "X-Autoreply: no\n",
    ],
)
def test_signs_of_bulk_mail_alone_never_decide(header: str) -> None:
    report = _read(f"Subject: Re: offer\n{header}", "Yes, I would like to hear more about it.")
    assert report.kind in {Kind.REPLY, Kind.OTHER}


@pytest.mark.parametrize(
    "header",
    [
        "Subject: Re: offer\nAuto-Submitted: auto-replied\n",
        "Subject: Re: offer\nAuto-Submitted: Auto-Replied (vacation)\n",
        "Subject: Re: offer\nX-Autoreply: yes\n",
        "Subject: Re: offer\nX-Autorespond: offer\n",
        "Subject: Re: offer\nPrecedence: auto_reply\n",
        "Subject: Re: offer\nX-Mailer: vacation 1.2\n",
        "Subject: Re: offer\nX-POST-MessageClass: 9; Autoresponder\n",
        "Subject: Automatic reply: offer\n",
        "Subject: Out of Office: offer\n",
        "Subject: Abwesenheitsnotiz: Angebot\n",
        "Subject: Réponse automatique : offre\n",
        "Subject: Respuesta automática: oferta\n",
        "Subject: Resposta automática: oferta\n",
        "Subject: Risposta automatica: offerta\n",
        "Subject: Automatisch antwoord: aanbod\n",
        "Subject: Automatiskt svar: erbjudande\n",
        "Subject: Automatisk svar: tilbud\n",
        "Subject: Automaattinen vastaus: tarjous\n",
        "Subject: Odpowiedź automatyczna: oferta\n",
        "Subject: Automatická odpověď: nabídka\n",
        "Subject: Автоответ: предложение\n",
        "Subject: Otomatik Yanıt: teklif\n",
        "Subject: Αυτόματη απάντηση: προσφορά\n",
        "Subject: 自動応答: ご提案\n",
        "Subject: 自动回复: 报价\n",
        "Subject: 자동 회신: 제안\n",
    ],
)
def test_what_only_responders_write_decides_alone(header: str) -> None:
    report = _read(header, "I am away.")
    assert report.kind is Kind.AUTO_REPLY
    assert report.failures == []


def test_a_person_who_answers_an_automatic_reply_is_a_person() -> None:
    assert _read("Subject: Re: Automatic reply: offer\nIn-Reply-To: <x@y>\n", "Welcome back!").kind is Kind.REPLY


def test_words_of_absence_in_a_persons_mail_do_not_decide() -> None:
    report = _read("Subject: Re: offer\nIn-Reply-To: <x@y>\n", "I was on vacation and out of the office. Yes, send it.")
    assert report.kind is Kind.REPLY


def test_an_answer_from_the_null_sender_is_automatic_whatever_its_language() -> None:
    envelope = Envelope(sender="", recipients=("news@sender.example",), source=Source.SMTPD)
    report = _read("Subject: Gaur itxita\nIn-Reply-To: <x@y>\n", "Bulegotik kanpo nago.", envelope)
    assert report.kind is Kind.AUTO_REPLY


def test_the_sender_of_an_imported_message_is_unknown_not_null() -> None:
    assert _read("Subject: Re: offer\n", "Yes.", Envelope()).kind is Kind.REPLY


@pytest.mark.parametrize(
    ("subject", "text", "cause"),
    [
        ("Automatic reply: x", "I am on leave until Monday.", Subcategory.OUT_OF_OFFICE),
        (
            "Automatic reply: x",
            "Thank you for contacting us. We have received your request.",
            Subcategory.ACKNOWLEDGEMENT,
        ),
        ("Automatic reply: x", "Emil is no longer with the company.", Subcategory.LEFT_ORGANISATION),
        ("Automatische Antwort: x", "Emil ist nicht mehr bei uns tätig.", Subcategory.LEFT_ORGANISATION),
        ("Réponse automatique : x", "Emil ne travaille plus chez nous.", Subcategory.LEFT_ORGANISATION),
        ("Réponse automatique : x", "Nous avons bien reçu votre demande.", Subcategory.ACKNOWLEDGEMENT),
        ("自動返信: x", "お問い合わせいただきありがとうございます。", Subcategory.ACKNOWLEDGEMENT),
        ("自動返信: x", "田中は3月末で退職いたしました。", Subcategory.LEFT_ORGANISATION),
        ("Réponse automatique : x", "Je ne suis plus chez Blanc Frères.", Subcategory.LEFT_ORGANISATION),
        ("I've moved on", "Please write to the studio from now on.", Subcategory.LEFT_ORGANISATION),
        ("Automatisch antwoord: x", "Ik werk niet op woensdag.", Subcategory.OUT_OF_OFFICE),
        ("Automatic reply: x", "Hmm.", Subcategory.OUT_OF_OFFICE),
    ],
)
def test_the_sort_of_answer(subject: str, text: str, cause: Subcategory) -> None:
    assert _read(f"Subject: {subject}\n", text).cause is cause


def test_the_new_contact_of_somebody_who_left_is_kept() -> None:
    report = _read(
        "Subject: Automatic reply: x\n",
        "Dana (dana@corp.example) has left the company. Write to frida@corp.example, news@sender.example.",
    )
    assert report.moved_to == "frida@corp.example"


def test_a_mailbox_that_is_gone_is_a_bounce_only_when_it_is_named() -> None:
    named = _read("Subject: Automatic reply: x\n", "The address sales@corp.example is no longer in use.")
    assert (named.kind, [f.recipient for f in named.failures]) == (Kind.BOUNCE, ["sales@corp.example"])
    assert named.failures[0].cause is Subcategory.MAILBOX_DISABLED
    unnamed = _read("Subject: Automatic reply: x\n", "Our fax is no longer in use. I am away.")
    assert unnamed.kind is Kind.AUTO_REPLY


def test_out_of_office_from_postmaster_is_no_bounce() -> None:
    raw = (
        "Return-Path: <>\nFrom: postmaster@corp.example\nTo: news@sender.example\nSubject: Automatic reply: offer\n"
        "Auto-Submitted: auto-generated\n\nI am out of the office; mail could not be delivered to me in person.\n"
    )
    assert reports.read(parse(raw.encode())).kind is Kind.AUTO_REPLY


@pytest.mark.parametrize(
    "text",
    [
        "This is an automated response. I am away until 12 May.",
        "Diese Nachricht wurde automatisch erstellt. Ich bin ab 18. Mai wieder da.",
        "Je suis absente.\n\nCeci est un message automatique.",
        "Este correo se ha generado automáticamente.",
        "Esta é uma mensagem automática.",
        "Questa è una risposta automatica.",
        "Dit is een automatisch bericht.",
        "To jest automatyczna odpowiedź.",
        "Detta är ett automatiskt svar.",
        "Dette er et automatisk svar.",
        "Tämä on automaattinen vastaus.",
        "このメールは自動返信です。",
        "这是一封自动回复邮件。",
        "Thank you, your request was received and a ticket has been created.",
    ],
)
def test_a_machine_that_says_what_it_is_needs_no_header_field(text: str) -> None:
    assert _read("Subject: Re: offer\nIn-Reply-To: <1@sender.example>\n", text).kind is Kind.AUTO_REPLY


@pytest.mark.parametrize(
    "text",
    [
        "Thanks for your automated reply, I would rather talk to a person.",
        "Is this an automated message?",
        "Please resend it.\n\n> This is an automated message, please do not reply to this email.",
        "Please resend it.\n\nOn 3 May Maya Lind wrote:\nThis is an automated message.",
        "Bitte noch einmal.\n\nVon: Maya Lind\nDies ist eine automatisch erzeugte Nachricht.",
    ],
)
def test_a_person_who_quotes_or_mentions_a_machine_is_a_person(text: str) -> None:
    assert _read("Subject: Re: offer\nIn-Reply-To: <1@sender.example>\n", text).kind is Kind.REPLY


def test_a_newsletter_that_says_it_is_automated_is_no_answer() -> None:
    told = _read("Subject: Offers\nList-Unsubscribe: <mailto:a@b.example>\n", "This is an automated message.")
    assert told.kind is not Kind.AUTO_REPLY


_WORDED = [
    line.split("\t")
    for line in (Path(__file__).parents[1] / "data" / "automatic_answers.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]
_FIELDS = {
    "irt": "In-Reply-To: <out-1@oakswell.example>\n",
    "list": "List-Id: <news.elm.example>\nList-Unsubscribe: <mailto:off@elm.example>\n",
    "-": "",
}
_SORTS = {
    "ooo": Subcategory.OUT_OF_OFFICE,
    "ack": Subcategory.ACKNOWLEDGEMENT,
    "left": Subcategory.LEFT_ORGANISATION,
}


def _worded(subject: str, fields: str, text: str) -> bytes:
    return (
        "From: Jo Ash <jo.ash@elm.example>\nTo: Mona Lundquist <maya@oakswell.example>\n"
        "Date: Wed, 8 Jul 2026 09:00:00 +0200\n"
        f"Subject: {Header(subject, 'utf-8').encode()}\n{_FIELDS[fields]}"
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n" + text.replace("\\n", "\n")
    ).encode()


@pytest.mark.parametrize(
    ("sort", "language", "subject", "fields", "text"), _WORDED, ids=[f"{o[0]}-{o[1]}-{o[2][:30]}" for o in _WORDED]
)
def test_an_automatic_answer_is_told_by_what_it_says_and_no_person_or_newsletter_is_taken_for_one(
    sort: str, language: str, subject: str, fields: str, text: str
) -> None:
    told = mailback.classify(_worded(subject, fields, text))
    assert (told.kind is Kind.AUTO_REPLY) is (sort in _SORTS), language
    if sort in _SORTS:
        assert told.reply is not None
        assert told.reply.cause is _SORTS[sort]
    if sort == "left":
        named = re.search(r"[\w.]+@\w+\.example", text, re.ASCII)
        assert named is not None
        assert told.reply is not None
        assert told.reply.new_contact == named[0]


def test_a_greeting_by_name_is_a_persons() -> None:
    text = "I am on annual leave from Monday and Priya covers for me."
    assert mailback.classify(_worded("Annual leave", "-", f"Hello, {text}")).kind is Kind.AUTO_REPLY
    assert mailback.classify(_worded("Annual leave", "-", f"Hello Maya, {text}")).kind is Kind.REPLY


def test_words_that_only_stand_in_what_is_quoted_make_no_automatic_answer() -> None:
    text = (
        "ok\n\nOn 7 July Jo wrote:\n> Thank you for your message. I am out of the office with limited access to email."
    )
    assert mailback.classify(_worded("Re: hello", "irt", text)).kind is Kind.REPLY


@pytest.mark.parametrize("piece", ["out of the office ", "?", "a@b.example ", "urgent? ", "不在", "https://"])
def test_nothing_but_moves_is_read_to_its_end(piece: str) -> None:
    mailback.classify(_worded("Away", "-", piece * (100_000 // len(piece))))


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Out of office", "I'm on a silent retreat, and so is my mail."),
        ("Abwesenheit", "Mails werden von Frau Arnold bearbeitet."),
        ("Absence", "Parti marcher vers Compostelle."),
        ("Your message has been received", "Kevin has put your mail in a queue."),
        ("不在のお知らせ", "猫が代わりに読みます。"),
    ],
)
def test_a_subject_that_says_it_all_needs_no_known_words_below(subject: str, text: str) -> None:
    assert mailback.classify(_worded(subject, "irt", text)).kind is Kind.AUTO_REPLY
    assert mailback.classify(_worded(f"Re: {subject}", "irt", text)).kind is Kind.REPLY


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Hi there! We got this and a human will look at it when the shop is quiet.", Subcategory.ACKNOWLEDGEMENT),
        ("Your application is safely here. No news within three weeks means no.", Subcategory.ACKNOWLEDGEMENT),
        (
            "Thank you for your message. I am on research leave. Back at my desk in September.",
            Subcategory.OUT_OF_OFFICE,
        ),
        ("Gone fishing. Literally. Back Monday.", Subcategory.OUT_OF_OFFICE),
    ],
)
def test_what_no_word_calls_an_absence_is_one_by_its_meaning_or_its_end(text: str, cause: Subcategory) -> None:
    raw = _worded("Automatic reply: Your invoice", "irt", text)
    told = mailback.classify(b"Auto-Submitted: auto-replied\n" + raw)
    assert told.reply is not None
    assert told.reply.cause is cause


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("I'm at the county show today and back at my desk tomorrow. For feed call the yard.", Kind.AUTO_REPLY),
        ("Estos días estoy en la feria de Valencia y no vuelvo a la oficina hasta el próximo lunes.", Kind.AUTO_REPLY),
        ("I'm at the county show today and back tomorrow, will look at it then.", Kind.REPLY),
        ("I'm away until Monday. Can you send the prices meanwhile?", Kind.REPLY),
    ],
)
def test_who_tells_an_absence_its_end_and_nothing_else_answers_nobody_in_particular(text: str, kind: Kind) -> None:
    assert mailback.classify(_worded("Re: Your quote", "irt", text)).kind is kind

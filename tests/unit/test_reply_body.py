"""What a person wrote is told from what stands below and between it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mailback.message import parse
from mailback.reply import body

_OURS = "Dear Ms Orr,\n\nWould a ten minute call about the loading bay suit you on Friday?\n\nReply STOP to opt out."


def _text(text: str, *, thread: tuple[str, ...] = (), sender: str = "") -> str:
    return body.read(text, thread, sender=sender).text


@pytest.mark.parametrize(
    "attribution",
    [
        "On Mon, 5 Jan 2026 at 10:12, Ida Orr <ida@orr.example> wrote:",
        "On Mon, 5 Jan 2026 at 10:12, Ida Orr\n<ida@orr.example> wrote:",
        "Am 05.01.2026 um 10:12 schrieb Ida Orr:",
        "Le lun. 5 janv. 2026 à 10:12, Ida Orr <ida@orr.example> a écrit :",
        "El lun, 5 ene 2026 a las 10:12, Ida Orr (<ida@orr.example>) escribió:",
        "Op ma 5 jan 2026 om 10:12 schreef Ida Orr <ida@orr.example>:",
        "Il giorno lun 5 gen 2026 alle ore 10:12 Ida Orr <ida@orr.example> ha scritto:",
        "Em seg., 5 de jan. de 2026 às 10:12, Ida Orr <ida@orr.example> escreveu:",
        "2026年1月5日(月) 10:12 Ida Orr <ida@orr.example>:",
    ],
)
def test_history_below_an_attribution_line_is_not_the_persons(attribution: str) -> None:
    assert _text(f"Fine by me.\n\n{attribution}\n\n> May we call?\n> Ida") == "Fine by me."


def test_history_below_copied_header_fields_is_not_the_persons() -> None:
    history = "Von: Ida Orr\nGesendet: Montag, 5. Januar 2026 10:12\nAn: Jo Bell\nBetreff: Anruf\n\nDürfen wir anrufen?"
    assert _text(f"Ja, gern.\n\n{history}") == "Ja, gern."


def test_answers_between_quoted_lines_stay() -> None:
    text = "On 5 Jan 2026, Ida Orr wrote:\n> How many seats?\nTwelve.\n> From when?\nMay."
    assert _text(text).split() == ["Twelve.", "May."]


@pytest.mark.parametrize("line", ["Ida Orr wrote:", "On Mon, Ida wrote:", "Ida schrieb:", "*Ida Orr* a écrit :"])
def test_a_name_above_quoted_lines_needs_no_date(line: str) -> None:
    assert _text(f"Twelve.\n\n{line}\n> How many seats?").strip() == "Twelve."


@pytest.mark.parametrize(
    "said",
    [
        "Ida wrote:\nno quotation follows",
        "Here is what Ida from the billing office in Bern wrote:\n> Pay twice.",
        "Ida wrote: see below\n> Pay.",
    ],
)
def test_a_sentence_that_names_a_writer_stays(said: str) -> None:
    assert _text(said).startswith(said.splitlines()[0])


def test_a_sentence_about_writing_is_no_attribution() -> None:
    assert _text("On Monday I wrote to your colleague.\nNobody answered.").endswith("Nobody answered.")


def test_our_own_words_unmarked_below_are_not_the_persons() -> None:
    assert _text(f"Friday is good.\n\n{_OURS}", thread=(_OURS,)) == "Friday is good."


def test_an_answer_in_one_of_our_own_words_stays() -> None:
    assert _text("STOP", thread=(_OURS,)) == "STOP"


@pytest.mark.parametrize(
    "below",
    ["-- \nJo Bell\nHead of Yards", "Sent from my iPhone", "Von meinem iPhone gesendet", "Envoyé de mon iPhone"],
)
def test_signatures_are_not_what_was_said(below: str) -> None:
    assert _text(f"Not this year.\n\n{below}") == "Not this year."


@pytest.mark.parametrize("below", ["Mvh Søren", "VG Søren", "/Søren", "Kind regards, Søren Holm", "mvh, Søren"])
def test_a_polite_ending_and_the_name_on_one_line_are_not_what_was_said(below: str) -> None:
    assert _text(f"Ring gerne i morgen.\n\n{below}", sender="Søren Holm") == "Ring gerne i morgen."


def test_a_sentence_that_ends_in_the_name_stays() -> None:
    assert _text("Ring i morgen.\n\nSpørg efter Søren", sender="Søren Holm") == "Ring i morgen.\n\nSpørg efter Søren"


def test_the_writers_name_at_the_end_is_not_what_was_said() -> None:
    assert _text("Not this year.\n\nJo Bell\n+44 20 7946 0000", sender="Jo Bell") == "Not this year."


@pytest.mark.parametrize(
    "below",
    [
        "Warm wishes from the coast,\nJo",
        "Jo Bell (Mrs)",
        "Jo Bell MRCVS\nBook a demo of our pet plan!",
        "Prof. Dr. Jo Bell, Head of Yards",
        "J. Bell\nBell Yards Ltd | Unit 9, Dock Road",
        "Jo Bell | Yards | Bell & Co",
    ],
)
def test_the_writers_name_is_known_with_what_people_put_around_it(below: str) -> None:
    for sender in ("Jo Bell", "Bell, Jo"):
        assert _text(f"Not this year.\n\n{below}", sender=sender) == "Not this year."


@pytest.mark.parametrize(
    "text",
    [
        "Not this year. Ask again when the yard is dry,\nJo Bell will know.",
        "Please make it out to\nBell Yards Ltd.",
        "Who signs?\n\nI do, Jo Bell the younger does not, and that is that",
    ],
)
def test_the_writers_name_within_a_sentence_ends_nothing(text: str) -> None:
    assert _text(text, sender="Jo Bell") == text


@pytest.mark.parametrize(
    "notice",
    [
        "This message may contain confidential information. If you have received it by mistake please delete it.",
        "Emails to and from this office are monitored for security. Tell us if it is not meant for you, and delete it.",
    ],
)
def test_legal_notices_in_other_words_are_not_what_was_said(notice: str) -> None:
    assert _text(f"Not this year.\n\nKind regards,\nJo Bell\n\n{notice}", sender="Jo Bell") == "Not this year."


def test_nothing_but_history_leaves_nothing() -> None:
    read = body.read("On Mon, 5 Jan 2026 at 10:12, Ida Orr <ida@orr.example> wrote:\n> May we call?")
    assert (read.text, read.quoted) == ("", True)


def test_a_quotation_of_html_is_told_from_the_new_text() -> None:
    page = b"<p>No thanks.</p><blockquote><p>Shall we call?</p></blockquote>"
    message = parse(b"Content-Type: text/html; charset=utf-8\r\n\r\n" + page)
    assert body.read(body.visible(message)).text == "No thanks."


_HOSTILE = {
    "spaces": " " * 100_000,
    "attributions": "On Mon, 5 Jan 2026 Ann <a@b.example> wrote\n" * 2300,
    "one attribution": "On Mon, 5 Jan 2026 Ann <a@b.example> wrote " * 2300,
    "nested quotes": "\n".join(">" * (depth % 400) + " x" for depth in range(500)),
    "one long line": "a" * 100_000,
    "header fields": "From: x\n" * 12_500,
    "openers": "On 1\n" * 20_000,
    "angles": "<" * 100_000,
    "delimiters": "-- \n" * 25_000,
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", list(_HOSTILE))
def test_hostile_text_costs_linear_time(name: str) -> None:
    text = _HOSTILE[name]
    body.read(text, [text])


_MAIL = [
    json.loads(line) for line in (Path(__file__).parents[1] / "data" / "new_text.jsonl").read_text("utf-8").splitlines()
]


@pytest.mark.parametrize("item", _MAIL, ids=lambda item: item["name"])
def test_of_every_mail_program_only_the_new_text_is_left(item: dict[str, Any]) -> None:
    if "html" in item:
        head = "From: Jo Ash <jo@elm.example>\nMIME-Version: 1.0\nContent-Type: text/html; charset=utf-8\n\n"
        seen = body.visible(parse(f"{head}<html><body>{item['html']}</body></html>".encode()))
    else:
        seen = item["text"]
    assert _text(seen, sender=item["sender"]).split() == item["new"].split()


_QUESTIONS = "Hi Jo,\n\nDoes Tuesday at ten suit you?\n\nHow many people will join the demo then?\n\nBest regards\nMaya"
_COPIED = "From: Maya <maya@oakswell.example>\nSent: Tuesday, July 7, 2026 9:14 AM\nTo: Jo\nSubject: demo\n\n"


@pytest.mark.parametrize("above", ["See my answers below in red.\n\n", "Antworten im Text:\n\n", ""])
def test_answers_between_our_unmarked_lines_are_kept_where_our_mail_is_known(above: str) -> None:
    answered = _QUESTIONS.replace("suit you?", "suit you?\nYes, that suits us well.")
    answered = answered.replace("demo then?", "demo then?\nTwelve, with the two from Leeds.")
    told = _text(f"{above}{_COPIED}{answered}", thread=(_QUESTIONS,))
    answers = "Yes, that suits us well.\nTwelve, with the two from Leeds."
    assert told.removeprefix(above.strip()).strip() == answers
    assert "Twelve" not in _text(f"{above}{_COPIED}{answered}")


def test_a_mail_that_we_do_not_know_is_history_whatever_stands_above_it() -> None:
    assert (
        _text(f"See below.\n\n{_COPIED}Dear Jo,\nI never saw this.\nNor this.\nPat", thread=(_QUESTIONS,))
        == "See below."
    )


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "piece",
    [
        "<div class=", "<div class=gmail_attr>", "<span id=divRplyFwdMsg>", "<div class=gmail_signature>y\n", "</div",
    ],
)  # fmt: skip
def test_elements_without_end_cost_linear_time(piece: str) -> None:
    raw = f"From: a@b.example\nContent-Type: text/html\n\n{piece * (100_000 // len(piece))}"
    mail = parse(raw.encode())
    body.read(body.visible(mail))


@pytest.mark.parametrize(
    "text",
    [
        "Our lawyer will send you a cease and desist letter under the GDPR if you keep processing my data.",
        "I ask for a copy of all personal data that you hold about me, under article 15 of the GDPR.",
        "Solicito el borrado de sus datos personales de mi persona conforme al RGPD y una respuesta por escrito.",
        "You have published confidential information of ours, which is strictly confidential and must be removed.",
        "Hello,\n\nwe run Avast antivirus software on all machines.\n\nDoes your tool get along with it",
        "Guten Tag,\n\nwenn Sie nicht zahlen, klagen wir vor dem Amtsgericht Leipzig.\n\nWir warten bis Freitag.",
        "Hola:\n\nno compartimos información confidencial sin un acuerdo firmado.\n\nEnvíenos uno, por favor.",
        "Wir fordern Sie auf, die Verarbeitung unserer vertraulichen Daten einzustellen, sonst klagen wir vor Gericht.",
    ],
)
def test_a_letter_about_data_or_law_is_no_disclaimer(text: str) -> None:
    assert _text(text) == text

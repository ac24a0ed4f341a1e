"""An intent is told from words in many languages, never from negated ones, and a doubtful one goes to a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailback.bounce.rulefile import RulesError
from mailback.reply import intent, routing
from mailback.reply.flags import Flag
from mailback.reply.intent import Intent, Reading
from mailback.reply.routing import Route

_ENDING = "We have not heard from you. Shall I close your file?"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("We are interested, tell me more.", Intent.INTERESTED),
        ("Haben Sie besten Dank, aber kein Interesse.", Intent.OBJECTION),
        ("Retirez-moi de vos envois.", Intent.UNSUBSCRIBE),
        ("De momento no, escríbame en octubre.", Intent.NOT_NOW),
        ("A fatura veio errada, quero reembolso.", Intent.BILLING),
        ("Non funziona più il login.", Intent.SUPPORT),
        ("Daarvoor moet u bij mijn collega Joris zijn.", Intent.REFERRAL),
        ("Nasz prawnik odpowie w sprawie RODO.", Intent.LEGAL),
        ("Hur fungerar det med två kontor?", Intent.QUESTION),
        ("パスワードが漏れたようです。不正アクセスがありました。", Intent.SECURITY),
        ("请把我移除,别再发了", Intent.UNSUBSCRIBE),
        ("I am on annual leave until the 14th.", Intent.OUT_OF_OFFICE),
        ("Thank you, but we'll stick with what we have.", Intent.OBJECTION),
        ("not intrested, dont email again", Intent.UNSUBSCRIBE),
        ("I've booked the 14:00 slot, see you Thursday.", Intent.MEETING_BOOKED),
    ],
)
def test_each_intent_is_told(text: str, told: Intent) -> None:
    assert intent.read(text).intent is told


@pytest.mark.parametrize("text", ["Please don't unsubscribe me!", "Do not take me off the list."])
def test_a_request_that_is_negated_is_none(text: str) -> None:
    assert intent.read(text).intent is not Intent.UNSUBSCRIBE


def test_a_negation_in_another_clause_does_not_count() -> None:
    assert intent.read("No, unsubscribe me.").intent is Intent.UNSUBSCRIBE


@pytest.mark.parametrize(
    ("answer", "asked", "told"),
    [
        ("Yes", "May I call you about the demo?", Intent.INTERESTED),
        ("yes.", _ENDING, Intent.OBJECTION),
        ("Nope!", "May I call you about the demo?", Intent.OBJECTION),
        ("no", _ENDING, Intent.UNCLASSIFIED),
        ("ok", "May I call you about the demo?", Intent.UNCLASSIFIED),
        ("はい", "ご案内の配信を停止してよろしいですか。", Intent.OBJECTION),
        ("yes", "Does Tuesday at 3 pm suit you?", Intent.MEETING_BOOKED),
        ("Ja", "Passt Ihnen Donnerstag um 10 Uhr?", Intent.MEETING_BOOKED),
        ("ok", "May I send you our brochure?", Intent.INTERESTED),
        ("No", "Did that solve your problem?", Intent.SUPPORT),
        ("non", "Est-ce que ça marche maintenant ?", Intent.SUPPORT),
        ("no", "Has the refund arrived?", Intent.BILLING),
        ("No.", "We saw a login from Lagos. Was this you?", Intent.SECURITY),
        ("No.", "Would you like to keep receiving our letter?", Intent.UNSUBSCRIBE),
        ("Nee", "Wilt u onze nieuwsbrief blijven ontvangen?", Intent.UNSUBSCRIBE),
        ("yes", "Would you like us to stop writing to you?", Intent.UNSUBSCRIBE),
        ("yes", "Did you get my letter?", Intent.UNCLASSIFIED),
        ("yes", "Want to see a demo? To stop receiving these mails, click here.", Intent.INTERESTED),
    ],
)
def test_a_bare_answer_is_read_by_what_was_asked(answer: str, asked: str, told: Intent) -> None:
    assert intent.read(answer, "Re: hello", [asked]).intent is told


def test_our_own_subject_in_the_answer_says_nothing() -> None:
    assert intent.read("The other one.", "Re: Your invoice is ready").evidence == ()


def test_the_subject_speaks_where_nothing_was_written() -> None:
    assert intent.read("", "Unsubscribe").intent is Intent.UNSUBSCRIBE


def test_words_that_tell_nothing_are_unclassified_and_unsure() -> None:
    reading = intent.read("Zebra crossing umbrella.")
    assert (reading.intent, reading.confidence < 0.6) == (Intent.UNCLASSIFIED, True)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "text", ["not " * 250_000, "a" * 1_000_000, "im interested " * 80_000, "?" * 1_000_000, "不" * 1_000_000]
)
def test_hostile_text_costs_linear_time(text: str) -> None:
    intent.read(text, text, [text])


def _reading(first: Intent, confidence: float, second: Intent | None = None, other: float = 0.0) -> Reading:
    return Reading(first, confidence, second, other, ())


def test_a_sure_reading_takes_the_route_of_its_intent() -> None:
    assert routing.route(_reading(Intent.SUPPORT, 0.9)) == routing.Routing(Route.NOTIFY_OWNER, 1800, ())


def test_a_fair_reading_acts_and_is_flagged() -> None:
    told = routing.route(_reading(Intent.NOT_NOW, 0.7))
    assert (told.route, told.flags) == (Route.AUTO_ARCHIVE, (Flag.LOW_CONFIDENCE,))


def test_a_doubtful_reading_goes_to_a_person_with_a_deadline() -> None:
    told = routing.route(_reading(Intent.OBJECTION, 0.5))
    assert told == routing.Routing(Route.REQUIRE_APPROVAL, 3600, (Flag.LOW_CONFIDENCE,))


@pytest.mark.parametrize(
    "reading",
    [
        _reading(Intent.BILLING, 0.9, Intent.SUPPORT, 0.8),
        _reading(Intent.INTERESTED, 0.95, Intent.NOT_NOW, 0.55),
        _reading(Intent.OBJECTION, 0.95, Intent.INTERESTED, 0.5),
    ],
)
def test_conflicting_intents_go_to_a_person_at_once(reading: Reading) -> None:
    told = routing.route(reading)
    assert told == routing.Routing(Route.REQUIRE_APPROVAL, 900, (Flag.CONFLICTING_INTENTS,))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("Soll ich Sie jetzt hier entfernen?", Intent.OBJECTION),
        ("Should I\nstop?", Intent.OBJECTION),
        ("We will stop now.\n\nShould I\n\nstop", Intent.INTERESTED),
        ("配信を終了してよろしいですか", Intent.OBJECTION),
        ("Soll ich Sie anrufen? Kollegen kann ich entfernen", Intent.INTERESTED),
        ("shall i " * 2000, Intent.INTERESTED),
    ],
)
def test_a_bare_yes_is_read_by_the_question_before_it(asked: str, told: Intent) -> None:
    assert intent.read("yes", thread=[asked]).intent is told


@pytest.mark.parametrize("text", ["ok", "Okay.", "Sure", "sure!", "fine"])
def test_a_word_that_may_be_a_shrug_promises_nothing(text: str) -> None:
    assert intent.read(text, thread=["Here is our price list."]).intent is Intent.UNCLASSIFIED


def test_a_weak_second_intent_is_no_conflict() -> None:
    assert not routing.conflicts(_reading(Intent.INTERESTED, 0.6, Intent.OBJECTION, 0.48))


def test_every_problem_of_an_operators_routes_is_told(tmp_path: Path) -> None:
    (tmp_path / routing.FILE).write_text('[legal]\nroute = "bin"\nacts = 3.0\nasks = 0.5\n', encoding="utf-8")
    with pytest.raises(RulesError) as caught:
        routing.load([tmp_path])
    told = "\n".join(caught.value.problems)
    assert "bin" in told
    assert "acts" in told
    assert "interested" in told

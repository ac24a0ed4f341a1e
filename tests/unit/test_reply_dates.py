"""The day of return is told where words say so, in the order and year that the writer means, else not at all."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from mailback.bounce.rulefile import RulesError
from mailback.reply import dates, language
from mailback.reply.spans import easter
from mailback.resources import rules_dir

_SENT = datetime(2026, 3, 9, 9, 0, tzinfo=timezone(timedelta(hours=1)))  # a Monday
_IN_CHICAGO = _SENT.astimezone(timezone(timedelta(hours=-6)))


@pytest.mark.parametrize(
    ("spoken", "text", "day"),
    [
        ("en", "I am away and will be back on 23 March.", date(2026, 3, 23)),
        ("en", "I am out until March 23, 2026.", date(2026, 3, 23)),
        ("en", "Out of office through 20 March.", date(2026, 3, 21)),
        ("en", "I return on Thursday.", date(2026, 3, 12)),
        ("en", "I am away and back on 5 January.", date(2027, 1, 5)),
        ("de", "Ich bin bis einschließlich 20.03.2026 nicht im Haus.", date(2026, 3, 21)),
        ("de", "Ab dem 23. März bin ich wieder im Büro.", date(2026, 3, 23)),
        ("fr", "Je suis absente, de retour le 23 mars.", date(2026, 3, 23)),
        ("es", "Estoy de vacaciones y vuelvo el 23 de marzo.", date(2026, 3, 23)),
        ("it", "Sono in ferie, rientro il 23 marzo.", date(2026, 3, 23)),
        ("nl", "Ik ben afwezig t/m 20 maart.", date(2026, 3, 21)),
        ("pl", "Jestem na urlopie, wracam 23 marca.", date(2026, 3, 23)),
        ("sv", "Jag är tillbaka den 23 mars.", date(2026, 3, 23)),
        ("ja", "3月23日に出社いたします。", date(2026, 3, 23)),
    ],
)
def test_the_day_is_told_in_the_writers_language(spoken: str, text: str, day: date) -> None:
    assert dates.return_date(text, _SENT, spoken) == day


@pytest.mark.parametrize(("sent", "day"), [(_SENT, date(2026, 5, 4)), (_IN_CHICAGO, date(2026, 4, 5))])
def test_order_of_day_and_month_follows_the_writers_clock(sent: datetime, day: date) -> None:
    assert dates.return_date("Back on 4/5.", sent, "en") == day


@pytest.mark.parametrize("sent", [_SENT, _IN_CHICAGO])
@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("Out of the office from 3/30/2026 through 04/04/2026, returning 04/05/2026.", date(2026, 4, 5)),
        ("Out of the office from 30/3/2026 through 04/05/2026, returning 05/05/2026.", date(2026, 5, 5)),
    ],
)
def test_a_date_that_reads_one_way_only_shows_the_order_of_the_others(sent: datetime, text: str, day: date) -> None:
    assert dates.return_date(text, sent, "en") == day


@pytest.mark.parametrize(
    "text",
    [
        "I am on leave without a date of return.",
        "I am away. Our spring sale runs on 23 March.",
        "I am away. Call 020 7946 0123, room 4/5.",
        "My office hours are 9-5.",
    ],
)
def test_no_cue_gives_no_date(text: str) -> None:
    assert dates.return_date(text, _SENT, "en") is None


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", ["1 " * 500_000, "back on 3 to " * 80_000, "until " * 160_000, "23 march " * 110_000])
def test_hostile_text_costs_linear_time(text: str) -> None:
    dates.return_date(text, _SENT, "en")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("could you send me the price please", "en"),
        ("bitte schicken sie mir keine mails mehr", "de"),
        ("merci de me retirer de la liste", "fr"),
        ("no estoy interesado, gracias por el correo", "es"),
        ("não tenho interesse, obrigado", "pt"),
        ("non sono interessato, grazie", "it"),
        ("geen interesse, bedankt voor je mail", "nl"),
        ("dziękuję, nie jestem zainteresowany", "pl"),
        ("nej tack, vi är inte intresserade", "sv"),
        ("配信を停止してください", "ja"),
        ("请不要再发邮件", "zh"),
    ],
)
def test_the_language_is_told_from_a_line(text: str, told: str) -> None:
    assert language.detect(text) == told


def test_the_conversation_decides_where_the_answer_is_in_no_language() -> None:
    assert language.detect("+1", ["haben wir ihre adresse noch richtig"]) == "de"


def test_nothing_to_tell_by_is_no_language() -> None:
    assert language.detect("12345") is None


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("Back on Monday 23rd.", date(2026, 3, 23)),
        ("Vuelvo el lunes 23", date(2026, 3, 23)),
        ("Ich bin Montag, den 23. zurück", date(2026, 3, 23)),
        ("Back on Monday at 9", date(2026, 3, 16)),
        ("Back a week from Monday", date(2026, 3, 23)),
        ("Back Monday week", date(2026, 3, 23)),
    ],
)
def test_a_weekday_with_a_day_of_the_month_is_that_day(text: str, day: date) -> None:
    assert dates.return_date(text, _SENT, language.detect(text)) == day


def test_a_weekday_that_is_not_on_its_day_of_the_month_is_no_date() -> None:
    assert dates.return_date("I return on Monday 24th", _SENT, "en") is None


@pytest.mark.parametrize("mistaken", ["es", "cs", None])
def test_the_names_of_another_language_tell_the_date_where_its_own_do_not(mistaken: str | None) -> None:
    assert dates.return_date("De retour le lundi 23 mars.", _SENT, mistaken) == date(2026, 3, 23)


_TOLD = [
    line.split("\t")
    for line in (Path(__file__).parents[1] / "data" / "return_dates.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize(("spoken", "sent", "day", "text"), _TOLD, ids=[f"{one[0]}-{one[3][:40]}" for one in _TOLD])
def test_what_people_write_about_their_return_is_read_or_left_open(spoken: str, sent: str, day: str, text: str) -> None:
    morning = datetime.fromisoformat(f"{sent}T09:00+02:00")
    told = dates.return_date(text, morning, language.detect(text))
    assert (told.isoformat() if told else "-") == day, spoken


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "piece",
    ["the 3 ", "23 march the 17 ", "in 2 weeks ", "monday to tuesday ", "1/2 ", "kw 3, ", "再来週の", "八月"],
)
def test_nothing_but_dates_costs_linear_time(piece: str) -> None:
    dates.return_date(piece * (1_000_000 // len(piece)), _SENT, "en")


def test_every_wording_of_every_language_that_ships_is_a_rule() -> None:
    for calendar in dates.shipped().calendars.values():
        list(calendar.spans.find("until tomorrow", _SENT.date()))


def test_a_wording_of_an_operator_is_read_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    own = tmp_path / dates.FILE
    own.write_text('[spans]\nen = ["once the oxen are home = +3 days"]\n')
    rules = dates.DateRules.load([rules_dir(), tmp_path])
    assert dates.return_date("Back once the oxen are home", _SENT, "en", rules) == date(2026, 3, 12)
    own.write_text('[spans]\nen = ["someday = perhaps", "(open = day 1"]\n')
    with pytest.raises(RulesError) as wrong:
        dates.DateRules.load([rules_dir(), tmp_path])
    assert [problem for problem in wrong.value.problems if "someday" in problem or "(open" in problem] == list(
        wrong.value.problems
    )
    assert len(wrong.value.problems) == 2


@pytest.mark.parametrize(
    "sunday", [date(2024, 3, 31), date(2026, 4, 5), date(2027, 3, 28), date(2038, 4, 25), date(2285, 3, 22)]
)
def test_easter_is_where_the_almanac_has_it(sunday: date) -> None:
    assert easter(sunday.year) == sunday


@pytest.mark.parametrize(
    ("spoken", "text", "day"),
    [
        ("en", "I come back to work on the first of April.", date(2026, 4, 1)),
        ("en", "My leave ends on 20 March.", date(2026, 3, 21)),
        ("en", "Closed on 17 March for a holiday; we reopen the following day.", date(2026, 3, 18)),
        ("de", "Ich bin am Freitag, 13. März, nicht im Büro.", date(2026, 3, 14)),
        ("de", "Mein erster Arbeitstag ist der 24. März.", date(2026, 3, 24)),
        ("de", "Geschlossen bis Montag, 16. März.", date(2026, 3, 16)),
        ("de", "Geschlossen bis einschließlich Montag, 16. März.", date(2026, 3, 17)),
        ("fr", "Je suis absente aujourd'hui et demain.", date(2026, 3, 11)),
        ("nl", "Wegens vakantie gesloten tot 23 maart.", date(2026, 3, 23)),
        ("cs", "Jsem na dovolené do 20. 3. včetně.", date(2026, 3, 21)),
        ("cs", "Vracím se v pondělí 23. března.", date(2026, 3, 23)),
        ("ru", "Вернусь в офис в понедельник, 23 марта.", date(2026, 3, 23)),
        ("el", "Επιστρέφω στις 23 Μαρτίου.", date(2026, 3, 23)),
        (None, "20 Mart'a kadar izindeyim, 23 Mart'ta ofiste olacağım.", date(2026, 3, 23)),
        ("ko", "3월 20일까지 휴가입니다. 23일부터 출근합니다.", date(2026, 3, 23)),
        ("zh", "3月16日至20日外出培训，23日回来。", date(2026, 3, 23)),
        ("en", "OOO 16-20 Mar. Back 23rd.", date(2026, 3, 23)),
        ("en", "Out until Friday, back on 23rd.", date(2026, 3, 23)),
        ("de", "Ich bin bis 22. weg.", date(2026, 3, 23)),
        ("de", "Urlaub! Ich lese Ihre Mail ab dem 1. April.", date(2026, 4, 1)),
        ("cs", "Do 20. 3. mám dovolenou, ozvu se v pondělí 23. 3.", date(2026, 3, 23)),
        ("tr", "23 Mart'a kadar izindeyim. 24 Mart Salı günü ofisteyim.", date(2026, 3, 24)),
    ],
)
def test_the_words_next_to_a_date_belong_to_it(spoken: str | None, text: str, day: date) -> None:
    assert dates.return_date(text, _SENT, spoken) == day


@pytest.mark.parametrize(
    ("spoken", "text"),
    [
        ("en", "From 16 March I am on leave."),
        ("en", "I have been on sick leave since 2 March."),
        ("en", "I was back for a day on the 7th and then they wanted me again."),
        ("fr", "Je suis en congé maternité depuis le 2 février."),
        ("fr", "En congé depuis le 9 mars."),
        ("de", "Ich bin seit dem 2. Februar im Urlaub."),
        ("es", "Estoy de baja desde el 2 de febrero."),
        ("pt", "Estou de férias desde o dia 2 de março."),
        ("nl", "Ik ben sinds 2 maart met verlof."),
        ("sv", "Jag är ledig sedan den 2 mars."),
        ("pl", "Jestem na urlopie od 2 marca."),
    ],
)
def test_the_beginning_of_an_absence_is_no_day_of_return(spoken: str, text: str) -> None:
    assert dates.return_date(text, _SENT, spoken) is None


@pytest.mark.parametrize(
    ("spoken", "text", "day"),
    [
        ("en", "No signal up here. Home on the 19th, will look at it then.", date(2026, 3, 19)),
        ("en", "I'll be at my desk again on 23 March.", date(2026, 3, 23)),
        ("zh", "这两天在外地跑客户,下周三才进公司。", date(2026, 3, 18)),
        ("zh", "我在出差,3月20日回单位。", date(2026, 3, 20)),
    ],
)
def test_who_comes_home_or_to_the_office_is_back(spoken: str, text: str, day: date) -> None:
    assert dates.return_date(text, _SENT, spoken) == day


@pytest.mark.parametrize(
    ("spoken", "text", "day"),
    [
        ("en", "I am on leave for two weeks from 16 March.", date(2026, 3, 30)),
        ("en", "On leave from Monday, 16 March for 3 weeks.", date(2026, 4, 6)),
        ("en", "Away for ten days starting today.", date(2026, 3, 19)),
        ("de", "Ab Montag, den 16. März, bin ich zwei Wochen im Urlaub.", date(2026, 3, 30)),
        ("fr", "En congé à compter du 16 mars pour trois semaines.", date(2026, 4, 6)),
        ("es", "Estoy de baja durante 10 días a partir del 11 de marzo.", date(2026, 3, 21)),
        ("pt", "Estou de licença por 20 dias, a contar de 09/03.", date(2026, 3, 29)),
        ("it", "Sono in ferie per due settimane a partire dal 16 marzo.", date(2026, 3, 30)),
        ("nl", "Vanaf 16 maart ben ik gedurende twee weken met verlof.", date(2026, 3, 30)),
        ("pl", "Od 16 marca jestem na urlopie przez dwa tygodnie.", date(2026, 3, 30)),
        ("sv", "Jag är ledig i två veckor från den 16 mars.", date(2026, 3, 30)),
        ("ja", "3月16日から2週間休暇をいただきます。", date(2026, 3, 30)),
        ("zh", "我从3月16日起休假10天。", date(2026, 3, 26)),
        ("en", "I have been on leave for 12 weeks since 1 February.", date(2026, 4, 26)),
        ("en", "I was out for two weeks from 16 February and am catching up.", None),
        ("en", "I am on leave for two weeks.", None),
        ("en", "Travelling, so replies will be slow for the next ten days.", date(2026, 3, 19)),
        ("en", "Away. A colleague will answer within the next two days.", None),
        ("en", "Out of reach for the next few days.", None),
        ("de", "Ich bin die nächsten zwei Wochen im Urlaub.", date(2026, 3, 23)),
        ("de", "Ich bin nicht da; ein Kollege antwortet in den nächsten zwei Tagen.", None),
        ("nl", "De komende drie weken ben ik met verlof.", date(2026, 3, 30)),
        ("it", "Per i prossimi 5 giorni non leggo la posta.", date(2026, 3, 14)),
        ("en", "I finish today and start again Monday week.", date(2026, 3, 23)),
        ("en", "We have been open for two weeks. From 16 March I am away.", None),
        ("en", "Away for two weeks from 16 March, back on 27 March.", date(2026, 3, 27)),
    ],
)
def test_a_beginning_and_a_length_tell_the_day_after(spoken: str, text: str, day: date | None) -> None:
    assert dates.return_date(text, _SENT, spoken) == day


@pytest.mark.parametrize(
    ("spoken", "text", "day"),
    [
        ("de", "Wieder erreichbar ab Mo. 23.3.", date(2026, 3, 23)),
        ("de", "Bin ab Do wieder da, so Gott will.", date(2026, 3, 12)),
        ("de", "Ab KW 12 wieder im Büro. So lange vertritt mich Frau Roth.", date(2026, 3, 16)),
        ("de", "Ich bin bis So. verreist.", date(2026, 3, 16)),
        ("fr", "De retour lun. 23 mars.", date(2026, 3, 23)),
        ("nl", "Ik ben vr weer terug.", date(2026, 3, 13)),
        ("nl", "Ik ben er zo weer.", None),
        ("nl", "Afwezig t/m vr 20/3, ik lees uw bericht zo spoedig mogelijk.", date(2026, 3, 21)),
        ("pl", "Wracam w pon. 23.03.", date(2026, 3, 23)),
        ("sv", "Jag är åter tis. 24/3.", date(2026, 3, 24)),
        ("en", "My working days are Tuesday to Thursday, so you'll hear from me on Tuesday.", date(2026, 3, 10)),
        ("en", "Out 09/03 - 13/03, back Monday 16th.", date(2026, 3, 16)),
        ("en", "Away, back Friday. On 20 March we move.", date(2026, 3, 13)),
        ("it", "Rientro in sede venerdì 13. La gara del 20 marzo la segue Rossi.", date(2026, 3, 13)),
        ("pl", "Do 13 marca przebywam na urlopie, w biurze będę znowu w poniedziałek 16 marca.", date(2026, 3, 16)),
        ("de", "Mein Urlaub (18. bis 22. März): Frau Roth vertritt mich.", date(2026, 3, 23)),
    ],
)
def test_short_names_of_days_are_days_where_they_are_meant(spoken: str, text: str, day: date | None) -> None:
    assert dates.return_date(text, _SENT, spoken) == day

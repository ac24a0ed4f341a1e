"""Tables of deliveries, opens and clicks: any column names, any form of time, nothing counted twice, errors by line."""

from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mailback.bounce.rulefile import RulesError
from mailback.bounce.taxonomy import Kind
from mailback.cli import ingest as command
from mailback.cli import main
from mailback.ingest import tables
from mailback.ingest.tables import Columns, Dates, Facts, Holds, Table, Words, plain
from mailback.observation import Interaction, Observation
from mailback.resources import rules_dir
from mailback.store import Store
from tests.support.command import Run, Told

NOW = datetime(2026, 11, 26, tzinfo=UTC)
WORDS = Words.load([rules_dir()])


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state/mailback.db"


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MAILBACK_STORE_URL", url)

    def call(*arguments: str) -> Told:
        capsys.readouterr()
        code = main.run(list(arguments))
        out, err = capsys.readouterr()
        return Told(code, out, err)

    return call


def made(text: str, holds: Holds = Holds.EVENTS, dates: Dates | None = None, **mapped: str) -> list[object]:
    """The facts of a table, or what is wrong with its rows."""
    facts = Facts(holds, WORDS, Columns(WORDS, mapped), dates or Dates())
    return [row.error or facts.of(row.values, NOW) for row in Table(io.BytesIO(text.encode())).rows()]


def one(text: str, holds: Holds = Holds.EVENTS, dates: Dates | None = None, **mapped: str) -> Observation:
    [found] = made(text, holds, dates, **mapped)
    assert isinstance(found, Observation), found
    return found


LIST_OVER_LINES = """[
{"email": "a@b.example", "event": "bounce", "timestamp": 1795600801},
{"email": "a@b.example", "event": "processed", "timestamp": 1795600801}
]
"""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("email,event,timestamp,reason\na@b.example,bounce,1795600801,550 5.1.1 User unknown\n", Kind.BOUNCE),
        ("Email Address;Status;Date\na@b.example;Delivered;2026-11-25\n", Kind.DELIVERED),
        ("recipient\ttype\tsent_at\na@b.example\tdeferred\t2026-11-25T10:00:01Z\n", Kind.DELAY),
        ('"To"|"Result"|"When"\n"<a@b.example>"|"Spam Report"|"Wed, 25 Nov 2026 11:00:01 +0100"\n', Kind.COMPLAINT),
        ('{"recipient": "a@b.example", "event": "unsubscribed", "ts": 1795600801123}\n', Kind.UNSUBSCRIBE),
        ('[{"rcpt_to": "a@b.example", "type": "delivery", "timestamp": "1795600801"}]\n', Kind.DELIVERED),
        (LIST_OVER_LINES, Kind.BOUNCE),
        ("email,event,date\ra@b.example,bounce,2026-11-25\rb@b.example,open,2026-11-25\r", Kind.BOUNCE),
        ("email,event,date\r\na@b.example,bounce,2026-11-25\r\n", Kind.BOUNCE),
    ],
)  # fmt: skip
def test_columns_are_found_by_the_names_that_platforms_give_them(text: str, kind: Kind) -> None:
    found = made("\ufeff" + text)[0]
    assert isinstance(found, Observation), found
    assert (found.kind, found.failure.recipient) == (kind, "a@b.example")
    assert found.at.astimezone(UTC).date().isoformat() == "2026-11-25"


MAILGUN: dict[str, dict[str, Any]] = {
    "signature": {"timestamp": "1529006854", "token": "a8ce0edb2dd8301dee6c240523", "signature": "d2271d"},
    "event-data": {
        "id": "G9Bn5sl1TC6nu79C8C0bwg", "timestamp": 1795600801.25, "log-level": "error", "event": "failed",
        "severity": "permanent", "reason": "bounce", "recipient": "a@b.example", "recipient-domain": "b.example",
        "delivery-status": {
            "attempt-no": 2, "message": "", "code": 550, "description": "5.1.1 The email account does not exist",
        },
        "message": {"headers": {"to": "A <a@b.example>", "message-id": "1@s.example", "from": "N <n@s.example>"}},
        "campaigns": [], "tags": ["news"],
    },
}  # fmt: skip
SES: dict[str, Any] = {
    "eventType": "Bounce",
    "bounce": {
        "bounceType": "Permanent", "bounceSubType": "General", "timestamp": "2026-11-25T10:00:01.250Z",
        "bouncedRecipients": [
            {"emailAddress": "a@b.example", "action": "failed", "status": "5.1.1",
             "diagnosticCode": "smtp; 550 5.1.1 user unknown"},
            {"emailAddress": "c@b.example", "action": "failed", "status": "5.2.2",
             "diagnosticCode": "smtp; 552 5.2.2 mailbox full"},
        ],
        "reportingMTA": "dsn; a8-70.smtp-out.amazonses.com",
    },
    "mail": {
        "timestamp": "2026-11-25T09:59:59.000Z", "source": "n@s.example", "messageId": "0000014a",
        "destination": ["a@b.example", "c@b.example", "fine@b.example"],
        "commonHeaders": {"from": ["n@s.example"], "to": ["a@b.example"], "messageId": "<1@s.example>"},
    },
}  # fmt: skip


@pytest.mark.parametrize("indent", [None, 2], ids=["on a line", "for people"])
def test_a_webhook_of_mailgun_tells_what_the_server_said_and_when_it_happened(indent: int | None) -> None:
    found = one(json.dumps(MAILGUN, indent=indent) + "\n")
    assert found.at.timestamp() == 1795600801.25
    assert found.failure.diagnostic == "5.1.1 The email account does not exist"
    assert (found.failure.smtp_code, found.failure.status) == ("550", "5.1.1")
    assert (found.kind, found.message_id, found.attempts) == (Kind.BOUNCE, "<1@s.example>", 2)


def test_failures_for_a_while_are_delays_and_what_was_never_sent_is_passed_over() -> None:
    told = MAILGUN["event-data"] | {"severity": "temporary"}
    assert one(json.dumps({"event-data": told})).kind is Kind.DELAY
    assert made(json.dumps({"event-data": MAILGUN["event-data"] | {"reason": "suppress-bounce"}})) == [None]
    for sub_type in ("Suppressed", "OnAccountSuppressionList"):
        assert made(json.dumps(SES | {"bounce": SES["bounce"] | {"bounceSubType": sub_type}})) == [None, None]


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "by a queue"])
@pytest.mark.parametrize("indent", [None, 4], ids=["on a line", "for people"])
def test_an_event_of_ses_is_a_row_for_each_recipient_it_names(indent: int | None, wrapped: bool) -> None:
    event = {"Type": "Notification", "Message": json.dumps(SES)} if wrapped else SES
    found = made(json.dumps([event, event], indent=indent) + "\n")[:2]
    assert [
        (one.failure.recipient, one.failure.status, one.failure.diagnostic, one.message_id, one.at.second)
        for one in found
        if isinstance(one, Observation)
    ] == [
        ("a@b.example", "5.1.1", "550 5.1.1 user unknown", "<1@s.example>", 1),
        ("c@b.example", "5.2.2", "552 5.2.2 mailbox full", "<1@s.example>", 1),
    ]
    opened = {"eventType": "Open", "mail": SES["mail"], "open": {"timestamp": "2026-11-25T10:00:01.250Z"}}
    assert [one.recipient for one in made(json.dumps(opened)) if isinstance(one, Interaction)] == [
        "a@b.example", "c@b.example", "fine@b.example",
    ]  # fmt: skip


def test_a_word_for_the_cause_stands_for_its_code_where_the_server_says_none() -> None:
    full = SES["bounce"] | {"bounceType": "Transient", "bounceSubType": "MailboxFull",
                            "bouncedRecipients": [{"emailAddress": "a@b.example"}]}  # fmt: skip
    told = one(json.dumps(SES | {"bounce": full}))
    assert (told.kind, told.failure.status) == (Kind.BOUNCE, "5.2.2")
    complaint = {
        "eventType": "Complaint", "mail": SES["mail"],
        "complaint": {"timestamp": "2026-11-25T10:00:01Z", "complainedRecipients": [{"emailAddress": "a@b.example"}]},
    }  # fmt: skip
    assert one(json.dumps(complaint)).kind is Kind.COMPLAINT
    complaint["complaint"]["complaintFeedbackType"] = "not-spam"
    assert made(json.dumps(complaint)) == [None]


def test_an_object_that_was_cut_off_costs_itself_alone() -> None:
    good = json.dumps({"email": "a@b.example", "event": "open", "time": "2026-11-25"}, indent=1)
    told = made(f'{good[:-30]}\n{good}\n{{"email": "b@b.example",\n{good}\n')
    assert [isinstance(one, Interaction) for one in told] == [False, True, False, True]


def test_a_bounce_brings_its_codes_and_words() -> None:
    found = one(
        "email,event,time,response,message-id,campaign\n"
        'a@b.example,bounced,2026-11-25T10:00:00Z,"550-5.1.1 The account, told\nso, is gone",<1@s.example>,spring\n'
    )
    assert (found.failure.smtp_code, found.failure.status) == ("550", "5.1.1")
    assert found.failure.diagnostic == "550 5.1.1 The account, told so, is gone"
    assert (found.message_id, found.campaign) == ("<1@s.example>", "spring")


def test_hard_and_soft_without_words_say_a_class_and_no_more() -> None:
    hard, soft, told = (
        one(f"email,event,time,reason\na@b.example,{event},2026-11-25,{reason}\n").failure
        for event, reason in (("hard_bounce", ""), ("Soft Bounce", ""), ("hard", "552 5.2.2 full"))
    )
    assert (hard.status, soft.status, told.status) == ("5.0.0", "4.0.0", "5.2.2")


def test_opens_and_clicks_are_no_outcomes_of_delivery() -> None:
    text = "email,time\na@b.example,2026-11-25\n"
    for holds, what in ((Holds.OPENS, "open"), (Holds.CLICKS, "click")):
        [found] = made(text, holds)
        assert isinstance(found, Interaction)
        assert found.what == what


def test_a_daily_table_of_deliveries_says_yes_and_no_and_names_subscribers() -> None:
    facts = Facts(
        Holds.DELIVERIES, WORDS, Columns(WORDS), Dates(year=2026), {"123": "a@b.example", "789": "c@b.example"}.get
    )
    table = Table(io.BytesIO(b"date,user_id,delivered(Y/N)\n1/3,123,Y\n1/3,456,Y\n1/4,789,N\n"))
    found = [row.error or facts.of(row.values, NOW) for row in table.rows()]
    assert [
        (one.at.date().isoformat(), one.kind, one.failure.recipient, one.subscriber)
        for one in found
        if isinstance(one, Observation)
    ] == [
        ("2026-01-03", Kind.DELIVERED, "a@b.example", "123"),
        ("2026-01-04", Kind.BOUNCE, "c@b.example", "789"),
    ]
    assert found[1] == "no subscriber is known by '456'; import them first: mailback subscriber import FILE"


@pytest.mark.parametrize(
    ("text", "dates", "expected"),
    [
        ("2026-11-25", Dates(), "2026-11-25T00:00:00+00:00"),
        ("2026-11-25 10:00:01 UTC", Dates(), "2026-11-25T10:00:01+00:00"),
        ("1795600801", Dates(), "2026-11-25T10:00:01+00:00"),
        ("1795600801123", Dates(), "2026-11-25T10:00:01.123000+00:00"),
        ("11/25/2026 10:00", Dates(), "2026-11-25T10:00:00+00:00"),
        ("25.11.2026", Dates(day_first=True), "2026-11-25T00:00:00+00:00"),
        ("25/11/26", Dates(day_first=True), "2026-11-25T00:00:00+00:00"),
        ("12/3", Dates(), "2025-12-03T00:00:00+00:00"),
        ("1/3", Dates(), "2026-01-03T00:00:00+00:00"),
        ("1/3", Dates(year=2023), "2023-01-03T00:00:00+00:00"),
        ("13/45/2026", Dates(), None),
        ("yesterday", Dates(), None),
        ("999999999999999999", Dates(), None),
        ("", Dates(), None),
    ],
)
def test_times_in_every_form(text: str, dates: Dates, expected: str | None) -> None:
    found = dates.read(text, NOW)
    assert (found.isoformat() if found else None) == expected


def test_what_is_wrong_with_a_row_is_told_in_words() -> None:
    assert made("email,event,time\nnobody,bounce,2026-11-25\n") == ["no mail address in 'email'"]
    assert made("email,event,time\na@b.example,bounce,soon\n") == ["'soon' is no time"]
    assert made("email,event\na@b.example,bounce\n") == ["no time in any column"]
    [unknown] = made("email,event,time\na@b.example,teleported,2026-11-25\n")
    assert "teleported" in str(unknown)
    assert made("email,time\na@b.example,2026-11-25\n") == ["nothing says what happened"]
    assert made("email,time\na@b.example,2026-11-25,x,y\n", Holds.OPENS) == ["4 fields where the header has 2"]
    assert made('{"email": 1\n') != []
    assert made("email,event,time\na@b.example,processed,2026-11-25\n") == [None]
    assert made("email,event,time\na@b.example,open,2027-11-25\n") == ["'2027-11-25' is still to come"]


def test_a_column_can_be_mapped(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("Kunde,Zeit,Wer\nx,2026-11-25,a@b.example\n")
    told = run("ingest", "csv", "--opens", "--map", "Wer=recipient", "--map", "zeit=at", "--json", str(path))
    assert told.lines[0]["new"] == {"open": 1}
    assert run("ingest", "csv", "--map", "Wer=who", str(path)).code == 2


def test_the_fields_of_the_command_are_those_of_the_reader() -> None:
    assert command.FIELDS == tables.FIELDS


def test_a_table_that_grew_is_read_on_and_one_that_is_read_again_counts_nothing_twice(
    run: Run, tmp_path: Path, url: str
) -> None:
    path = tmp_path / "opens.csv"
    rows = [f"a{n % 10}@b.example,2026-11-{n % 25 + 1:02d}T10:00:{n % 60:02d}Z\n" for n in range(2500)]
    path.write_text("email,time\n" + "".join(rows[:2000]))
    [first] = run("ingest", "csv", "--opens", "--json", str(path)).lines
    path.write_text("email,time\n" + "".join(rows))
    [second] = run("ingest", "csv", "--opens", "--json", str(path)).lines
    assert (first["rows"], second["rows"]) == (2000, 500)
    [third] = run("ingest", "csv", "--opens", "--again", "--json", str(path)).lines
    assert (third["rows"], third["new"]) == (2500, {"open": 0})
    shuffled = tmp_path / "shuffled.csv.gz"
    shuffled.write_bytes(gzip.compress(("email,time\n" + "".join(reversed(rows))).encode()))
    [fourth] = run("ingest", "csv", "--opens", "--json", str(shuffled)).lines
    assert fourth["new"] == {"open": 0}
    with Store.open(url) as store:
        counted = [store.engagement(f"a{n}@b.example") for n in range(10)]
    assert sum(one.opens for one in counted if one) == len(set(rows))


def test_rows_of_one_line_are_never_parted_by_a_place(run: Run, tmp_path: Path) -> None:
    rows = [{"email": f"a{n}@b.example", "event": "open", "timestamp": 1795600801 + n} for n in range(2500)]
    path = tmp_path / "hook.json"
    path.write_text(json.dumps(rows[:1500]) + "\n" + json.dumps(rows[1500:]) + "\n")
    [told] = run("ingest", "csv", "--json", str(path)).lines
    assert told["new"] == {"open": 2500}


def test_wrong_rows_are_told_with_their_lines_and_the_others_count(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        'email,event,time\na@b.example,open,2026-11-25\n\nnobody,open,2026-11-25\n"c@b.example",click,never\n'
    )
    told = run("ingest", "csv", "--json", str(path))
    assert told.code == 1
    assert f"{path}:4: no mail address" in told.err
    assert f"{path}:5: 'never' is no time" in told.err
    assert told.lines[0]["new"] == {"open": 1}


def test_a_quote_that_never_closes_is_told_with_its_line_and_what_stands_before_it_counts(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        'email,event,time,agent\na@b.example,open,2026-11-25,"5"" screen"\nb@b.example,open,2026-11-25,"Mo\n'
        "c@b.example,open,2026-11-25,\nd@b.example,open,2026-11-25,\n"
    )
    told = run("ingest", "csv", "--json", str(path))
    assert told.code == 1
    assert f"{path}:3: a quote is opened here that nothing closes" in told.err
    assert told.lines[0]["new"] == {"open": 1}
    path.write_text(path.read_text().replace('"Mo\n', '"Mo"\n'))
    told = run("ingest", "csv", "--json", str(path))
    assert (told.code, told.lines[0]["new"]) == (0, {"open": 3}), "read again from there once it is put right"


def test_wrong_rows_are_read_again_when_the_file_is_and_a_row_that_was_half_written_too(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("wer,event,time\na@b.example,open,2026-11-25\n")
    assert run("ingest", "csv", str(path)).code == 1, "no column of addresses"
    told = run("ingest", "csv", "--map", "wer=recipient", "--json", str(path))
    assert (told.code, told.lines[0]["new"]) == (0, {"open": 1})
    with path.open("a") as file:
        file.write("c@b.example,open,2026-11-2")
    run("ingest", "csv", "--map", "wer=recipient", "--json", str(path))
    with path.open("a") as file:
        file.write("6\nd@b.example,open,2026-11-26\n")
    told = run("ingest", "csv", "--map", "wer=recipient", "--json", str(path))
    assert (told.lines[0]["rows"], told.lines[0]["new"]) == (2, {"open": 2})
    told = run("ingest", "csv", "--map", "wer=recipient", "--json", str(path))
    assert told.lines[0]["rows"] == 0


def test_an_address_in_another_charset_is_told_and_never_recorded(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(
        "email,event,time\njosé@b.example,open,2026-11-25\nbob@b.example,open,2026-11-25\n".encode("latin-1")
    )
    told = run("ingest", "csv", "--json", str(path))
    assert told.code == 1
    assert "is no UTF-8; convert the file to it first" in told.err
    assert told.lines[0]["new"] == {"open": 1}


def test_what_a_table_calls_id_merges_no_days(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        "id,email,event,time\n"
        "7,a@b.example,delivered,2026-11-24\n7,a@b.example,delivered,2026-11-25\n7,a@b.example,open,2026-11-25\n"
        "7,a@b.example,delivered,2026-11-25\n"
    )
    assert run("ingest", "csv", "--json", str(path)).lines[0]["new"] == {"delivered": 2, "open": 1}


def test_a_subscriber_whom_nobody_knows_is_told(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("subscriber_id,event,time\n99,open,2026-11-25\n")
    told = run("ingest", "csv", str(path))
    assert "no subscriber is known by '99'; import them first: mailback subscriber import FILE" in told.err


def test_a_bounce_in_a_table_suppresses_and_a_delivery_counts(run: Run, tmp_path: Path, url: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        "email,event,time,response\n"
        "gone@b.example,bounce,2026-11-25T10:00:00Z,550 5.1.1 User unknown\n"
        "fine@b.example,delivered,2026-11-25T10:00:00Z,250 ok\n"
        "angry@b.example,complaint,2026-11-25T10:00:00Z,\n"
    )
    assert run("ingest", "csv", str(path)).code == 0
    assert run("check", "gone@b.example").code == 1
    assert run("check", "angry@b.example").code == 1
    assert run("check", "fine@b.example").code == 0
    with Store.open(url) as store:
        known = store.engagement("fine@b.example")
    assert known is not None
    assert known.sent == 1
    [explained] = run("explain", "--json", "fine@b.example").lines
    assert explained["engagement"] == {"sent": 1, "opens": 0, "clicks": 0, "last": None}
    assert "engagement: 1 arrived, 0 opens, 0 clicks, last read -" in run("explain", "fine@b.example").out
    assert run("explain", "--json", "gone@b.example").lines[0]["engagement"] is None


def test_an_operators_own_words_add_to_those_that_ship(tmp_path: Path) -> None:
    (tmp_path / "tables.toml").write_text('[columns]\nrecipient = ["empfaenger"]\n[outcomes]\nbounce = ["zurueck"]\n')
    words = Words.load([rules_dir(), tmp_path])
    assert words.columns["recipient"][0] == "empfaenger"
    assert words.outcomes["zurueck"] == "bounce"
    assert "email" in words.columns["recipient"]
    (tmp_path / "tables.toml").write_text('[columns]\nrecipient = ["E-Mail"]\nwho = ["x"]\n')
    with pytest.raises(RulesError) as told:
        Words.load([tmp_path])
    assert len(told.value.problems) == 2


def test_names_are_compared_without_case_blanks_and_signs() -> None:
    assert plain(" E-Mail_Address ") == "emailaddress"
    assert all(plain(name) == name for names in WORDS.columns.values() for name in names)
    assert all(plain(word) == word for word in WORDS.outcomes)

"""Lists of sending services: taken over with what they mean, and nobody for a fault of somebody else's."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailback.cli.main import run as command
from mailback.store import Store
from mailback.store.records import Suppression

SES = {
    "SuppressedDestinationSummaries": [
        {"EmailAddress": "gone@a.test", "Reason": "BOUNCE", "LastUpdateTime": "2026-03-04T05:06:07.000000+00:00"},
        {"EmailAddress": "angry@a.test", "Reason": "COMPLAINT", "LastUpdateTime": 1772600767.5},
    ]
}
SENDGRID = """status,reason,email,created
5.1.1,550 5.1.1 The email account that you tried to reach does not exist.,gone@a.test,1772600767
5.7.1,554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using zen.spamhaus.org,fine@a.test,1772600767
4.2.2,452 4.2.2 The recipient's inbox is full,full@a.test,1772600767
,,nothing@a.test,2026-03-04 05:06:07
"""
MAILGUN = """address,code,error,created_at
gone@a.test,605,Not delivering to previously bounced address,"Wed, 04 Mar 2026 05:06:07 UTC"
dead@a.test,550,5.1.1 <dead@a.test> User unknown,"Wed, 04 Mar 2026 05:06:07 UTC"
"""
POSTMARK = json.dumps(
    {
        "Suppressions": [
            {
                "EmailAddress": "gone@a.test",
                "SuppressionReason": "HardBounce",
                "CreatedAt": "2026-03-04T05:06:07-08",
            },
            {"EmailAddress": "angry@a.test", "SuppressionReason": "SpamComplaint", "CreatedAt": "2026-03-04T05:06:07Z"},
            {"EmailAddress": "left@a.test", "SuppressionReason": "ManualSuppression", "Origin": "Recipient"},
        ]
    }
)


@dataclass
class Desk:
    """A configuration, and what its commands print."""

    path: Path
    captured: pytest.CaptureFixture[str]

    def with_name(self, name: str) -> Path:
        return self.path.with_name(name)


@pytest.fixture
def config(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    path = tmp_path / "mailback.toml"
    path.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/mailback.db"\n')
    return Desk(path, capfd)


def run(config: Desk, *arguments: str) -> tuple[int, str]:
    config.captured.readouterr()
    code = command([arguments[0], arguments[1], "--config", str(config.path), *arguments[2:]])
    told = config.captured.readouterr()
    return code, told.out + told.err


def taken(config: Desk, text: str, *options: str) -> tuple[int, str, dict[str, Suppression]]:
    file = config.with_name("list.csv")
    file.write_text(text, "utf-8")
    code, output = run(config, "suppress", "import", *options, str(file))
    store_file = config.with_name("mailback.db")
    if not store_file.exists():
        return code, output, {}
    with Store.open(f"sqlite:///{store_file}") as store:
        return code, output, {s.address: s for s in store.suppressions()}


def causes(found: dict[str, Suppression]) -> dict[str, tuple[str | None, str | None]]:
    return {address: (s.type, s.subcategory) for address, s in found.items()}


def test_ses_as_its_api_tells_it(config: Desk) -> None:
    code, _, found = taken(config, json.dumps(SES), "--format", "ses")
    assert code == 0
    assert causes(found) == {
        "gone@a.test": ("hard_bounce", None),
        "angry@a.test": ("complaint", "spam_complaint"),
    }
    assert found["gone@a.test"].since == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert found["gone@a.test"].source == "import"


def test_a_bounce_that_was_not_the_addresss_fault_is_left_out(config: Desk) -> None:
    code, output, found = taken(config, SENDGRID, "--format", "sendgrid")
    assert code == 0
    assert causes(found) == {
        "gone@a.test": ("hard_bounce", "user_unknown"),
        "nothing@a.test": ("hard_bounce", None),
    }
    assert "2 left out: not their fault" in output
    assert found["gone@a.test"].since == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("email,created,ip\nx@a.test,1772600767,192.0.2.1\n", ("complaint", "spam_complaint")),
        ('[{"email": "x@a.test", "created_at": 1772600767, "group_id": 3}]', ("complaint", "unsubscribe_request")),
        (
            '{"email": "x@a.test", "status": "5.1.1"}\n{"email": "y@a.test", "ip": "1"}\n',
            ("hard_bounce", "user_unknown"),
        ),
    ],
)
def test_each_list_of_sendgrid_is_told_by_its_columns(config: Desk, text: str, cause: tuple[str, str]) -> None:
    code, _, found = taken(config, text, "--format", "sendgrid")
    assert (code, causes(found)["x@a.test"]) == (0, cause)


def test_a_list_that_does_not_say_what_it_is_asks(config: Desk) -> None:
    text = "email,created\nx@a.test,1772600767\n"
    code, output, found = taken(config, text, "--format", "sendgrid")
    assert (code, found) == (2, {})
    assert "--kind" in output
    code, _, found = taken(config, text, "--format", "sendgrid", "--kind", "unsubscribe")
    assert (code, causes(found)) == (0, {"x@a.test": ("complaint", "unsubscribe_request")})


def test_mailgun_bounces_and_what_people_unsubscribed_from(config: Desk) -> None:
    code, _, found = taken(config, MAILGUN, "--format", "mailgun")
    assert code == 0
    assert causes(found)["dead@a.test"] == ("hard_bounce", "user_unknown")
    assert "gone@a.test" in found
    text = "address,tags,created_at\nall@a.test,*,\none@a.test,weekly,\n"
    _, _, found = taken(config, text, "--format", "mailgun")
    assert (found["all@a.test"].scope, found["one@a.test"].scope) == ("all", "list:weekly")
    assert found["one@a.test"].type == "complaint"


def test_postmark_tells_its_reasons(config: Desk) -> None:
    code, _, found = taken(config, POSTMARK, "--format", "postmark")
    assert code == 0
    assert causes(found) == {
        "gone@a.test": ("hard_bounce", None),
        "angry@a.test": ("complaint", "spam_complaint"),
        "left@a.test": ("complaint", "unsubscribe_request"),
    }
    assert found["gone@a.test"].since == datetime(2026, 3, 4, 13, 6, 7, tzinfo=UTC)


def test_mailchimp_cleaned_and_unsubscribed_of_one_audience(config: Desk) -> None:
    text = '"Email Address",UNSUB_TIME,UNSUB_REASON\nleft@a.test,"2026-03-04 05:06:07","NORMAL"\n'
    code, _, found = taken(config, text, "--format", "mailchimp", "--scope", "list:weekly")
    assert (code, found["left@a.test"].scope) == (0, "list:weekly")
    assert causes(found)["left@a.test"] == ("complaint", "unsubscribe_request")
    text = '"Email Address",CLEAN_TIME\ngone@a.test,"2026-03-04 05:06:07"\n'
    assert causes(taken(config, text, "--format", "mailchimp")[2])["gone@a.test"] == ("hard_bounce", None)


@pytest.mark.parametrize("text", ["[1, 2]", "{]", '[{"email": ', "[[]]"])
def test_what_is_no_list_is_told_and_imports_nothing(config: Desk, text: str) -> None:
    code, output, found = taken(config, text, "--format", "sendgrid")
    assert (code, found) == (2, {})
    assert "no list of sendgrid" in output


def test_a_record_without_an_address_is_told_and_the_others_are_taken(config: Desk) -> None:
    code, output, found = taken(config, "email,status\nnobody,5.1.1\n,5.1.1\nx@a.test,5.1.1\n", "--format", "sendgrid")
    assert (code, list(found)) == (1, ["x@a.test"])
    assert "line 2" in output
    assert "line 3" in output


def test_a_complaint_never_ends_by_a_date_whatever_the_import_says(config: Desk) -> None:
    options = ("--format", "sendgrid", "--kind", "complaint", "--until", "7d")
    code, _, found = taken(config, "email,created\nangry@a.test,1772600767\n", *options)
    assert (code, found["angry@a.test"].until) == (0, None)


def test_kind_without_a_service_is_a_wrong_call(config: Desk) -> None:
    assert taken(config, "address\nx@a.test\n", "--kind", "bounce")[0] == 2


@pytest.mark.parametrize("service", ["ses", "sendgrid", "mailgun", "postmark", "mailchimp"])
def test_what_is_exported_for_a_service_holds_each_address_once(config: Desk, service: str) -> None:
    taken(config, POSTMARK, "--format", "postmark")
    run(config, "suppress", "add", "--reason", "list only", "--scope", "list:x", "other@a.test")
    code, output = run(config, "suppress", "export", "--format", service)
    assert code == 0
    for address in ("gone@a.test", "angry@a.test", "left@a.test"):
        assert output.count(address) == 1
    assert "other@a.test" not in output


def test_the_columns_of_exports_are_those_of_the_services(config: Desk) -> None:
    taken(config, POSTMARK, "--format", "postmark")
    assert "angry@a.test,COMPLAINT" in run(config, "suppress", "export", "--format", "ses")[1].splitlines()
    rows = list(csv.DictReader(io.StringIO(run(config, "suppress", "export", "--format", "mailgun")[1])))
    assert set(rows[0]) == {"address", "code", "error", "created_at"}
    [request] = map(json.loads, run(config, "suppress", "export", "--format", "postmark")[1].splitlines())
    assert {"EmailAddress": "gone@a.test"} in request["Suppressions"]


def test_what_mailgun_was_told_of_a_bounce_comes_back_as_it_was(config: Desk) -> None:
    text = "address,code,error\ngone@a.test,550,5.1.1 no such user\nmoved@a.test,551,551 5.1.6 user has moved\n"
    _, _, found = taken(config, text, "--format", "mailgun")
    reasons = {address: suppression.reason for address, suppression in found.items()}
    assert reasons == {"gone@a.test": "550 5.1.1 no such user", "moved@a.test": "551 5.1.6 user has moved"}
    exported = run(config, "suppress", "export", "--format", "mailgun")[1]
    rows = {row["address"]: (row["code"], row["error"]) for row in csv.DictReader(io.StringIO(exported))}
    assert rows == {"gone@a.test": ("550", "5.1.1 no such user"), "moved@a.test": ("551", "5.1.6 user has moved")}


def test_a_bounce_without_a_servers_words_comes_back_from_mailgun(config: Desk) -> None:
    taken(config, "address,reason,type\ngone@a.test,by hand,hard_bounce\n", "--format", "csv")
    exported = run(config, "suppress", "export", "--format", "mailgun")[1]
    run(config, "suppress", "remove", "--reason", "to try", "gone@a.test")
    code, output, found = taken(config, exported, "--format", "mailgun")
    assert code == 0, output
    assert found["gone@a.test"].type == "hard_bounce"


def test_ses_bulk_files_have_no_names_and_come_back_as_they_were_written(config: Desk) -> None:
    code, _, found = taken(config, "gone@a.test,BOUNCE\nangry@a.test,COMPLAINT\n", "--format", "ses")
    assert code == 0
    assert causes(found) == {"gone@a.test": ("hard_bounce", None), "angry@a.test": ("complaint", "spam_complaint")}
    code, exported = run(config, "suppress", "export", "--format", "ses")
    assert sorted(exported.splitlines()) == ["angry@a.test,COMPLAINT", "gone@a.test,BOUNCE"]


def test_mailchimp_members_as_its_api_tells_them(config: Desk) -> None:
    """The answer has lists beside that of the members, and members who are mailed."""
    members = [
        {"email_address": "here@a.test", "status": "subscribed"},
        {"email_address": "gone@a.test", "status": "cleaned", "last_changed": "2026-03-04T05:06:07+00:00"},
        {"email_address": "left@a.test", "status": "unsubscribed", "unsubscribe_reason": "N/A (by an admin)"},
        {"email_address": "old@a.test", "status": "archived"},
    ]
    answer = {"members": members, "list_id": "9f2", "total_items": 4, "_links": [{"rel": "self", "href": "x"}]}
    code, output, found = taken(config, json.dumps(answer), "--format", "mailchimp")
    assert code == 0, output
    assert causes(found) == {"gone@a.test": ("hard_bounce", None), "left@a.test": ("complaint", "unsubscribe_request")}
    assert found["gone@a.test"].since == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def test_mailchimp_tells_who_complained_among_who_left(config: Desk) -> None:
    text = '"Email Address",UNSUB_TIME,UNSUB_REASON\nangry@a.test,"2026-03-04 05:06:07","ABUSE"\n'
    assert causes(taken(config, text, "--format", "mailchimp")[2])["angry@a.test"] == ("complaint", "spam_complaint")


def test_a_service_that_keeps_a_list_of_each_kind_gets_each_in_a_file(config: Desk) -> None:
    taken(config, POSTMARK, "--format", "postmark")
    told = {
        kind: run(config, "suppress", "export", "--format", "mailgun", "--kind", kind)[1]
        for kind in ("bounce", "complaint", "unsubscribe")
    }
    listed = {kind: [row["address"] for row in csv.DictReader(io.StringIO(text))] for kind, text in told.items()}
    assert listed == {"bounce": ["gone@a.test"], "complaint": ["angry@a.test"], "unsubscribe": ["left@a.test"]}

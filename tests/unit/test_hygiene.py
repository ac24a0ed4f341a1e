"""Lists sorted into keep, verify and drop: each reason, lists of all shapes, and a million lines in little memory."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailback.bounce.taxonomy import Fault, Kind
from mailback.cli.hygiene_picture import draw
from mailback.policy.hygiene import DROP, KEEP, VERIFY, HygieneRules, judge
from mailback.recipient.capture import _is_ordinary
from mailback.store import Store, Transaction
from mailback.store.history import History, Subscribed
from mailback.store.records import Event, JournalEntry, MailDomain, Reading
from tests.support.command import Run, Told, within
from tests.support.records import a_suppression, an_event, do, end_all

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=400)
RECENT = NOW - timedelta(days=3)


@pytest.fixture
def told(tmp_path: Path, store: Store, capfd: pytest.CaptureFixture[str]) -> Run:
    config = tmp_path / "mailback.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{store.path}"\n')

    return within(config, capfd)


@pytest.mark.parametrize(
    ("history", "action", "reasons", "reengage"),
    [
        (None, KEEP, [], False),
        (History(suppressions=(a_suppression(),)), DROP, ["suppressed"], False),
        (History(suppressions=(a_suppression(NOW + timedelta(days=3), type="soft_bounce"),)), VERIFY, ["held"], False),
        (History(suppressions=(a_suppression(RECENT, type="soft_bounce"),)), KEEP, ["returns"], True),
        (
            History(
                suppressions=(a_suppression(RECENT, type="soft_bounce"),),
                lists=(Subscribed("mine", True, "bounce", LONG_AGO),),
                last_bounce=RECENT - timedelta(days=7),
            ),
            KEEP,
            ["returns"],
            True,
        ),
        (
            History(suppressions=(a_suppression(RECENT - timedelta(days=9), type="soft_bounce"),), last_bounce=RECENT),
            VERIFY,
            ["bouncing"],
            False,
        ),
        (History(suppressions=(a_suppression(type="complaint"),)), DROP, ["opted_out"], False),
        (History(suppressions=(a_suppression(RECENT, type="complaint"),)), KEEP, [], False),
        (History(suppressions=(a_suppression(scope="list:other"),)), KEEP, [], False),
        (History(suppressions=(a_suppression(scope="list:mine"),)), DROP, ["suppressed"], False),
        (History(lists=(Subscribed("mine", True, "unsubscribe_request", RECENT),)), DROP, ["opted_out"], False),
        (History(lists=(Subscribed("mine", True, "bounce", None),)), DROP, ["suppressed"], False),
        (History(lists=(Subscribed("other", True, "unsubscribe_request", RECENT),)), KEEP, [], False),
        (History(sent=40, last_delivered=RECENT, last_read=RECENT), KEEP, [], False),
        (History(sent=40, last_delivered=RECENT, last_read=LONG_AGO), VERIFY, ["dormant"], True),
        (History(sent=40, last_delivered=RECENT, last_read=LONG_AGO, last_reply=RECENT), KEEP, [], False),
        (History(sent=40, last_delivered=RECENT), VERIFY, ["unread"], False),
        (History(sent=3, last_delivered=RECENT), KEEP, [], False),
        (History(last_mailed=LONG_AGO), VERIFY, ["stale"], False),
        (History(last_mailed=RECENT), KEEP, [], False),
        (History(last_bounce=RECENT, last_delivered=RECENT - timedelta(days=1)), VERIFY, ["bouncing"], False),
        (History(last_bounce=RECENT, last_delivered=RECENT + timedelta(days=1)), KEEP, [], False),
        (History(last_bounce=RECENT, sent=9, last_read=LONG_AGO), VERIFY, ["bouncing", "dormant"], False),
    ],
)
def test_each_story_has_its_place(history: History | None, action: str, reasons: list[str], reengage: bool) -> None:
    judged = judge((), history, HygieneRules(), NOW, list_id="mine")
    assert (judged.action, [reason.id for reason in judged.reasons], judged.reengage) == (action, reasons, reengage)


def fill(store: Store) -> None:
    """One address for each story, as the store comes to know it."""
    do(store, lambda tx: tx.suppress(a_suppression(address_key="dead@x.test", address="dead@x.test"), "test"))
    do(store, lambda tx: tx.put_domain(MailDomain("gone.test", "none")))
    do(store, lambda tx: tx.put_domain(MailDomain("company.test", "mx", ("aspmx.l.google.com",), "google")))
    do(store, lambda tx: tx.journal(JournalEntry(LONG_AGO, "<1@s>", "n@s.test", ("stale@x.test",))))
    do(store, lambda tx: tx.record(an_event("b", kind=Kind.BOUNCE, recipient_key="bad@x.test", at=RECENT)))
    do(store, lambda tx: tx.read_by("asleep@x.test", Reading.OPEN, LONG_AGO, "fact"))
    do(store, lambda tx: tx.suppress(a_suppression(NOW + timedelta(days=9), address_key="was@x.test"), "test"))
    end_all(store, "was@x.test")


def test_without_a_list_named_only_who_left_all_of_them_is_dropped() -> None:
    left, stays = Subscribed("one", True, "unsubscribe_request", RECENT), Subscribed("two", False, None, None)
    assert judge((), History(lists=(left, stays)), HygieneRules(), NOW).action == KEEP
    assert judge((), History(lists=(left, left)), HygieneRules(), NOW).action == DROP


LIST = """\
Name;E-Mail;City
Ann;ann@company.test;Bonn
Bob;dead@x.test;Rome
Cid;CID@gone.test;Oslo
Dee;dee@gmial.com;Graz
Eva;ann@Company.TEST;Wien
Fay;;Linz
Gus;stale@x.test;Kiel
Hal;bad@x.test;Bern
Ida;asleep@x.test;Bari
Jon;info@company.test;Pisa
Kim;was@x.test;Jena
Lea;"lea""x@company.test";Ulm
"""
EXPECTED = {
    "ann@company.test": ("keep", []), "dead@x.test": ("drop", ["suppressed"]), "CID@gone.test": ("drop", ["no_domain"]),
    "dee@gmial.com": ("drop", ["misspelt"]), "ann@Company.TEST": ("drop", ["duplicate"]), "": ("drop", ["syntax"]),
    "stale@x.test": ("verify", ["stale"]), "bad@x.test": ("verify", ["bouncing"]),
    "asleep@x.test": ("verify", ["dormant"]), "info@company.test": ("verify", ["role"]),
    "was@x.test": ("keep", ["returns"]), 'lea"x@company.test': ("drop", ["syntax"]),
}  # fmt: skip


def test_a_list_with_a_header_is_told_line_by_line(told: Run, store: Store, tmp_path: Path) -> None:
    fill(store)
    (tmp_path / "list.csv").write_text("\ufeff" + LIST, "utf-8")
    answer = told("hygiene", str(tmp_path / "list.csv"), "--json")
    assert answer.code == 0, answer.err
    assert {line["address"]: (line["action"], line["reasons"]) for line in answer.lines} == EXPECTED
    assert [line["line"] for line in answer.lines] == list(range(2, 14))
    by_address = {line["address"]: line for line in answer.lines}
    assert by_address["dee@gmial.com"]["suggestion"] == "dee@gmail.com"
    assert by_address["ann@company.test"]["provider"] == "google"
    assert [who for who, line in by_address.items() if line["reengage"]] == ["asleep@x.test", "was@x.test"]


def test_a_quote_that_nothing_closes_ends_it_with_its_line(told: Run, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text('email,name\na@b.test,"x"\nb@b.test,"y\nc@b.test,z\n')
    answer = told("hygiene", str(file))
    assert answer.code == 1
    assert f"{file}:3: a quote is opened here that nothing closes" in answer.err


def _record(event: Event, transaction: Transaction) -> None:
    transaction.record(event)


def test_bounces_that_were_not_its_fault_say_nothing_of_an_address(told: Run, store: Store, tmp_path: Path) -> None:
    for number, (who, fault) in enumerate((("ours@x.test", Fault.SENDER), ("theirs@x.test", Fault.RECIPIENT))):
        event = an_event(str(number), kind=Kind.BOUNCE, recipient_key=who, at=RECENT, fault=fault)
        do(store, partial(_record, event))
    (tmp_path / "list.txt").write_text("ours@x.test\ntheirs@x.test\n")
    lines = told("hygiene", str(tmp_path / "list.txt"), "--json").lines
    assert {line["address"]: line["action"] for line in lines} == {"ours@x.test": "keep", "theirs@x.test": "verify"}


def test_the_list_comes_back_with_its_columns_and_four_more(told: Run, store: Store, tmp_path: Path) -> None:
    fill(store)
    (tmp_path / "list.csv").write_text(LIST)
    answer = told("hygiene", str(tmp_path / "list.csv"), "--out", str(tmp_path / "out.csv"))
    assert answer.code == 0
    assert "12 addresses; 2 may be asked once" in answer.out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text()), delimiter=";"))
    assert [row["Name"] for row in rows] == [line.split(";")[0] for line in LIST.splitlines()[1:]]
    assert (rows[3]["hygiene"], rows[3]["hygiene_suggestion"]) == ("drop", "dee@gmail.com")
    told("hygiene", str(tmp_path / "list.csv"), "--out", str(tmp_path / "kept.csv"), "--only", "keep")
    kept = list(csv.DictReader(io.StringIO((tmp_path / "kept.csv").read_text()), delimiter=";"))
    assert [row["Name"] for row in kept] == ["Ann", "Kim"]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("ann@x.test\nbob@x.test\n", ()), ("ann@x.test\r\nbob@x.test", ()), ("Ann,ann@x.test\nBob,bob@x.test\n", ()),
        ("id\tContact\n1\tann@x.test\n2\tbob@x.test\n", ("--column", "contact")),
        ("id|email\n1|ann@x.test\n\n2|bob@x.test\n", ()), ("email\nann@x.test\nbob@x.test\n", ()),
    ],
)  # fmt: skip
def test_lists_of_other_shapes_are_read(told: Run, tmp_path: Path, text: str, options: tuple[str, ...]) -> None:
    (tmp_path / "list.csv").write_text(text, newline="")
    answer = told("hygiene", str(tmp_path / "list.csv"), "--json", *options)
    assert [line["address"] for line in answer.lines] == ["ann@x.test", "bob@x.test"], answer.err


def test_what_cannot_be_read_is_told_with_its_place(told: Run, tmp_path: Path) -> None:
    def asked(content: bytes, *options: str) -> Told:
        (tmp_path / "list.csv").write_bytes(content)
        return told("hygiene", str(tmp_path / "list.csv"), *options)

    latin = asked("email\nann@x.test\nj\u00f6rg@x.test\n".encode("latin-1"))
    assert (latin.code, "list.csv:3: not UTF-8" in latin.err) == (1, True)
    unnamed = asked(b"id,when\n1,2\n")
    assert (unnamed.code, "--column" in unnamed.err) == (2, True)
    assert asked(b"id,email\n1,a@x.test\n", "--column", "nope").code == 2
    assert asked(b"").code == 0
    assert told("hygiene", str(tmp_path / "missing.csv")).code == 1


def test_the_picture_is_svg_whatever_the_name_of_the_list(told: Run, store: Store, tmp_path: Path) -> None:
    fill(store)
    (tmp_path / "list.csv").write_text(LIST)
    assert told("hygiene", str(tmp_path / "list.csv"), "--picture", str(tmp_path / "p.svg")).code == 0
    root = ET.parse(tmp_path / "p.svg").getroot()
    words = " ".join(text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text"))
    for told_ in ("12 addresses", "keep 2 (16.7%)", "drop 6 (50.0%)", "verify: stale"):
        assert told_ in words
    ET.fromstring(draw(0, {}, {}, "<&'\x00\ud800.csv"))
    ET.fromstring(draw(5, {"keep": 5}, {("keep", "returns"): 2}, "list"))


def test_domains_are_asked_of_dns_only_when_told_to(told: Run, tmp_path: Path, store: Store) -> None:
    from tests.support.dns import DnsServer

    (tmp_path / "list.csv").write_text("ann@missing.test\nbob@null.test\n")
    with DnsServer() as dns:
        dns.add("null.test", "MX", "0 .")
        with (tmp_path / "mailback.toml").open("a") as file:
            file.write(f'[auth]\nnameservers = ["{dns.address}"]\n')
        answer = told("hygiene", str(tmp_path / "list.csv"), "--json")
        assert [line["action"] for line in answer.lines] == ["keep", "keep"]
        assert dns.questions == []
        answer = told("hygiene", str(tmp_path / "list.csv"), "--json", "--dns")
        assert [line["reasons"] for line in answer.lines] == [["no_domain"], ["no_mail"]]
    assert (known := store.mail_domain("null.test")) is not None
    assert known[0].mail == "null_mx"


def test_memory_does_not_grow_with_the_list(told: Run, store: Store, tmp_path: Path) -> None:
    """Beside eight octets an address for telling duplicates: 150,000 lines must not need 100 MB more than 1,000."""
    program = (
        "import resource, sys; from mailback.cli.main import run; code = run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    peaks = []
    for count in (1_000, 150_000):
        path = tmp_path / f"{count}.csv"
        with path.open("w") as file:
            file.writelines(f"{n},user{n}@domain{n % 997}.example,{'x' * 40}\n" for n in range(count))
        done = subprocess.run(
            [sys.executable, "-c", program, "--config", str(tmp_path / "mailback.toml"), "hygiene", str(path),
             "--out", str(tmp_path / "out.csv")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert f"{count} addresses" in done.stdout
        peaks.append(int(done.stderr.split()[-1]))
    assert peaks[1] - peaks[0] < 100_000, peaks


@given(st.from_regex(r"[a-zA-Z0-9._+-]{1,20}@[a-zA-Z0-9.-]{1,30}", fullmatch=True))
def test_what_passes_for_an_address_beyond_doubt_passes_the_library_too(text: str) -> None:
    from email_validator import EmailNotValidError, validate_email

    if _is_ordinary(text):
        try:
            validate_email(text, check_deliverability=False, test_environment=True, strict=True)
        except EmailNotValidError as error:
            raise AssertionError(text) from error


def test_an_erased_address_is_dropped_though_nothing_is_known_of_it(told: Run, store: Store, tmp_path: Path) -> None:
    fill(store)
    assert told("forget", "asleep@x.test", "--reason", "asked by letter").code == 0
    (tmp_path / "list.csv").write_text("asleep@x.test\nzoe@x.test\n")
    lines = told("hygiene", str(tmp_path / "list.csv"), "--json").lines
    assert [line["action"] for line in lines] == ["drop", "keep"]


def test_json_lines_are_one_an_address(told: Run, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("".join(f"u{n}@x.test\n" for n in range(1201)))
    answer = told("hygiene", str(tmp_path / "list.csv"), "--json")
    assert [json.loads(line)["line"] for line in answer.out.splitlines()] == list(range(1, 1202))

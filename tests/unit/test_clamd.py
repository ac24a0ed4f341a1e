"""A virus scanner is asked about every reply, and its faults cost neither mail nor verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailback.cli.main import run
from mailback.engine import Engine
from mailback.envelope import Envelope, Source
from mailback.reply.clamd import REST_S, Clamd, ClamdError, Scan
from mailback.settings import Settings, SettingsError
from mailback.store import Store
from tests.support.clamd import VIRUS, Scanner, scanner_at
from tests.support.mail import dsn, reply


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Scanner]:
    with scanner_at(tmp_path / "clamd.ctl") as found:
        yield found


def test_a_virus_is_found_and_what_is_none_is_not(scanner: Scanner) -> None:
    clamd = Clamd(scanner.where)
    assert clamd.scan(b"Hello") == Scan()
    assert clamd.scan(b"x" * 200_000 + VIRUS) == Scan(found="Test.Virus-1")
    assert clamd.scan(b"") == Scan()
    assert scanner.streams == [b"Hello", b"x" * 200_000 + VIRUS, b""]


def test_a_scanner_on_a_tcp_port_is_asked_the_same_way() -> None:
    with scanner_at() as scanner:
        assert Clamd(scanner.where).scan(VIRUS).found == "Test.Virus-1"
        assert Clamd(scanner.where).ping().startswith("ClamAV")


@pytest.mark.parametrize(
    ("mode", "trouble"),
    [
        ("hang", "no answer in time"),
        ("hang up", "hung up"),
        ("stream: Can't allocate memory ERROR", "memory"),
        ("nonsense", "nonsense"),
        ("", "hung up"),
    ],
)
def test_a_scanner_that_fails_says_why_and_finds_nothing(scanner: Scanner, mode: str, trouble: str) -> None:
    scanner.mode = mode
    scan = Clamd(scanner.where, timeout_s=0.3).scan(b"Hello")
    assert scan.found is None
    assert trouble in (scan.trouble or "")


def test_a_scanner_that_is_not_there_is_told(tmp_path: Path) -> None:
    scan = Clamd(f"unix:{tmp_path}/none.ctl").scan(b"Hello")
    assert "No such file" in (scan.trouble or "")


def test_after_a_failure_the_scanner_rests_and_is_asked_again_later(scanner: Scanner) -> None:
    now = [0.0]
    clamd = Clamd(scanner.where, clock=lambda: now[0])
    scanner.mode = "nonsense"
    clamd.scan(b"one")
    scanner.mode = "scan"
    assert clamd.scan(b"two").trouble == "clamd failed a moment ago"
    assert scanner.streams == [b"one"]
    now[0] += REST_S
    assert clamd.scan(VIRUS).found == "Test.Virus-1"


def test_what_is_too_large_is_not_sent_and_what_clamd_finds_too_large_is_told(scanner: Scanner) -> None:
    assert "larger" in (Clamd(scanner.where, max_bytes=10).scan(b"x" * 11).trouble or "")
    assert scanner.streams == []
    scanner.limit = 100_000
    assert "StreamMaxLength" in (Clamd(scanner.where).scan(b"x" * 5_000_000).trouble or "")


def test_a_name_from_the_scanner_cannot_drive_a_terminal_or_a_header(scanner: Scanner) -> None:
    scanner.mode = "stream: Evil\r\nX-Header: 1\x1b[31m FOUND"
    found = Clamd(scanner.where).scan(b"x").found
    assert found is not None
    assert found.isprintable()
    assert "\n" not in found


def inbound(store: Store, scanner: Scanner, raw: bytes, **safety: float) -> tuple[list[str], str, str]:
    settings = Settings.model_validate({"safety": {"clamd": scanner.where, **safety}})
    envelope = Envelope("ada@receiver.test", ("news@sender.test",), source=Source.SMTPD, received_at=datetime.now(UTC))
    outcome = Engine(settings, store).inbound(envelope, raw)
    [event] = store.events()
    told = (event.reply or {}).get("safety")
    verdict = told["verdict"] if isinstance(told, dict) else ""
    return list(outcome.notes), verdict, outcome.disposition.value


def test_a_reply_with_a_virus_is_held_and_waits_for_a_person(store: Store, scanner: Scanner) -> None:
    raw = reply("ada@receiver.test", message_id="<1@receiver.test>", text=VIRUS.decode())
    notes, verdict, disposition = inbound(store, scanner, raw)
    assert (notes, verdict, disposition) == ([], "malware", "quarantine")
    [item] = store.reviews()
    assert "scanner:Test.Virus-1" in item.reason


def test_a_reply_goes_on_unscanned_and_says_so_when_the_scanner_fails(store: Store, scanner: Scanner) -> None:
    scanner.mode = "hang"
    raw = reply("ada@receiver.test", message_id="<1@receiver.test>", text="Sounds great, tell me more.")
    notes, verdict, disposition = inbound(store, scanner, raw, clamd_timeout_s=0.3)
    assert verdict == "clean"
    assert disposition != "quarantine"
    assert any("not scanned for viruses" in note for note in notes)
    [event] = store.events()
    assert any("not scanned" in note for note in event.notes)


def test_a_bounce_is_not_scanned(store: Store, scanner: Scanner) -> None:
    inbound(store, scanner, dsn("ada@receiver.test", message_id="<1@sender.test>"))
    assert scanner.streams == []


def test_no_event_loop_waits_for_the_scanner(store: Store, scanner: Scanner) -> None:
    engine = Engine(Settings.model_validate({"safety": {"clamd": scanner.where}}), store)
    envelope = Envelope("ada@receiver.test", ("news@sender.test",), received_at=datetime.now(UTC))
    raw = reply("ada@receiver.test", message_id="<1@receiver.test>")
    assert engine.assess_at_once(envelope, raw) is None
    assert scanner.streams == []
    assert engine.assess(envelope, raw).classification.reply is not None
    assert len(scanner.streams) == 1


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("Win.Trojan.Agent-1", "malware"),
        ("Heuristics.Phishing.Email.SpoofedDomain", "phishing"),
        ("Heuristics.Encrypted.Zip", "clean"),
        ("PUA.Win.Tool.X", "clean"),
    ],
)
def test_what_the_scanner_calls_it_tells_how_bad_it_is(store: Store, scanner: Scanner, name: str, verdict: str) -> None:
    scanner.mode = f"stream: {name} FOUND"
    raw = reply("ada@receiver.test", message_id="<1@receiver.test>", text="Sounds great, tell me more.")
    assert inbound(store, scanner, raw)[1] == verdict


@pytest.mark.parametrize("where", ["lmtp:unix:/x", "fd:clamd", "*:3310", "inet:0@127.0.0.1", "clamd"])
def test_a_socket_that_nobody_can_connect_to_is_a_wrong_setting(where: str) -> None:
    with pytest.raises(SettingsError, match=r"safety\.clamd"):
        Settings.loads(f'[safety]\nclamd = "{where}"\n')


def test_the_doctor_asks_the_scanner(
    store: Store, scanner: Scanner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mailback.toml"
    config.write_text(f"[store]\nurl = 'sqlite:///{store.path}'\n[safety]\nclamd = '{scanner.where}'\n")

    def state() -> str:
        capsys.readouterr()
        run(["doctor", "--json", "--config", str(config)])
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        return next(str(line["state"]) for line in lines if line["area"] == "clamd")

    assert state() == "ok"
    scanner.mode = "hang up"
    assert state() == "fail"
    with pytest.raises(ClamdError):
        Clamd(scanner.where).ping()

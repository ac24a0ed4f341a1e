"""`mailback ingest`: what is told, in text and JSON; what is wrong with a call or a file; nothing counted twice."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mailback.cli import main
from tests.support.command import Run, Told

LOG = """\
Nov 25 10:00:00 mx postfix/smtpd[1]: 4YxK1p2Qz3z9rT: client=app.example.com[192.0.2.7]
Nov 25 10:00:00 mx postfix/cleanup[2]: 4YxK1p2Qz3z9rT: message-id=<1@example.com>
Nov 25 10:00:00 mx postfix/qmgr[3]: 4YxK1p2Qz3z9rT: from=<news@example.com>, size=4711, nrcpt=2 (queue active)
Nov 25 10:00:01 mx postfix/smtp[4]: 4YxK1p2Qz3z9rT: to=<gone@b.example>, relay=mx.b.example[192.0.2.9]:25, delay=1.2, \
delays=0.1/0/1/0.1, dsn=5.1.1, status=bounced (host mx.b.example[192.0.2.9] said: 550 5.1.1 <gone@b.example>: \
User unknown (in reply to RCPT TO command))
Nov 25 10:00:01 mx postfix/smtp[4]: 4YxK1p2Qz3z9rT: to=<bob@b.example>, relay=mx.b.example[192.0.2.9]:25, delay=1.3, \
delays=0.1/0/1/0.2, dsn=2.0.0, status=sent (250 2.0.0 Ok)
"""


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MAILBACK_STORE_URL", f"sqlite:///{tmp_path}/state/mailback.db")

    def command(*arguments: str) -> Told:
        capsys.readouterr()
        code = main.run(list(arguments))
        out, err = capsys.readouterr()
        return Told(code, out, err)

    return command


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "mail.log"
    path.write_text(LOG)
    return path


def test_a_log_becomes_events_and_a_suppression(run: Run, log: Path) -> None:
    told = run("ingest", "postfix-log", str(log))
    assert told.code == 0, told.err
    assert "bounce" in told.out
    assert "5 lines" in told.out
    assert run("check", "gone@b.example").code == 1
    assert run("check", "bob@b.example").code == 0
    assert {event["kind"] for event in run("events", "--json").lines} == {"bounce", "delivered"}


def test_it_is_read_on_from_where_it_was_left_under_any_name(run: Run, log: Path) -> None:
    run("ingest", "postfix-log", str(log))
    moved = log.with_name("mail.log.1.gz")
    later = LOG.splitlines()[-1].replace("bob", "eve") + "\n"
    moved.write_bytes(gzip.compress((LOG + later).encode()))
    [told] = run("ingest", "postfix-log", "--json", str(moved)).lines
    assert told["lines"] == 1
    assert told["new"] == {"delivered": 1}
    assert [event["message_id"] for event in run("events", "--json").lines] == ["<1@example.com>"] * 3, (
        "the message that was in the queue is remembered"
    )


def test_reading_it_again_records_nothing_twice(run: Run, log: Path) -> None:
    run("ingest", "postfix-log", str(log))
    [told] = run("ingest", "postfix-log", "--again", "--json", str(log)).lines
    assert told["outcomes"] == {"bounce": 1, "delivered": 1}
    assert told["new"] == {"bounce": 0, "delivered": 0}


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress])
def test_packed_logs_are_told_by_their_content(run: Run, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "anything"
    path.write_bytes(pack(LOG.encode()))
    [told] = run("ingest", "postfix-log", "--json", str(path)).lines
    assert told["new"] == {"bounce": 1, "delivered": 1}


def test_a_log_without_a_last_line_end_is_read_whole(run: Run, log: Path) -> None:
    log.write_text(LOG.rstrip("\n"))
    [told] = run("ingest", "postfix-log", "--json", str(log)).lines
    assert told["new"] == {"bounce": 1, "delivered": 1}
    log.write_text(LOG)
    [told] = run("ingest", "postfix-log", "--json", str(log)).lines
    assert told["new"] == {"delivered": 0}, "its last line was perhaps not complete, and is read again"


def test_a_file_that_cannot_be_read_does_not_stop_the_others(run: Run, log: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(os.urandom(10_000))[:5000])
    told = run("ingest", "postfix-log", "--json", str(tmp_path / "nowhere"), str(broken), str(log))
    assert told.code == 1
    assert "nowhere" in told.err
    assert "broken.gz" in told.err
    assert told.lines[0]["new"] == {"bounce": 1, "delivered": 1}


def test_another_log_with_the_same_first_line_is_read_from_its_beginning(run: Run, log: Path) -> None:
    run("ingest", "postfix-log", str(log))
    log.write_text(LOG.splitlines()[0] + "\n" + LOG.splitlines()[-1].replace("bob", "eve") + "\n")
    [told] = run("ingest", "postfix-log", "--json", str(log)).lines
    assert told["lines"] == 2


def test_a_zone_that_there_is_not_is_a_wrong_call(run: Run, log: Path) -> None:
    told = run("ingest", "postfix-log", "--timezone", "Mars/Olympus", str(log))
    assert told.code == 2
    assert "Mars/Olympus" in told.err


def test_the_year_of_an_old_log_can_be_told(run: Run, log: Path) -> None:
    run("ingest", "postfix-log", "--year", "2019", "--timezone", "UTC", str(log))
    assert {event["at"][:13] for event in run("events", "--json").lines} == {"2019-11-25T10"}


def as_journal(form: str) -> bytes:
    """The log as `journalctl -o json` or `-o export` writes it."""
    entries = []
    for number, line in enumerate(LOG.splitlines()):
        program, _, text = line[len("Nov 25 10:00:00 mx ") :].partition(": ")
        entries.append({
            "__CURSOR": f"s={number}", "__REALTIME_TIMESTAMP": str(1795600800_000000 + number), "_HOSTNAME": "mx",
            "SYSLOG_IDENTIFIER": program.partition("[")[0], "MESSAGE": text,
        })  # fmt: skip
    if form == "json":
        return "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    return "".join("".join(f"{name}={value}\n" for name, value in entry.items()) + "\n" for entry in entries).encode()


@pytest.mark.parametrize("form", ["json", "export"])
def test_an_exported_journal_tells_the_same_outcomes_as_the_log(run: Run, log: Path, tmp_path: Path, form: str) -> None:
    path = tmp_path / form
    path.write_bytes(as_journal(form))
    [told] = run("ingest", "postfix-log", "--json", str(path)).lines
    assert (told["lines"], told["new"]) == (5, {"bounce": 1, "delivered": 1})
    [told] = run("ingest", "postfix-log", "--json", str(log)).lines
    assert told["new"] == {"bounce": 0, "delivered": 0}
    path.write_bytes(as_journal(form) + as_journal(form)[: as_journal(form).index(b"SYSLOG")])
    [told] = run("ingest", "postfix-log", "--json", str(path)).lines
    assert told["new"] == {}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input_is_read_packed_or_not(
    run: Run, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    class Input:
        buffer = io.BufferedReader(Pipe(pack(LOG.encode())))  # type: ignore[type-var]  # a raw stream

    monkeypatch.setattr("sys.stdin", Input())
    [told] = run("ingest", "postfix-log", "--json", "-").lines
    assert told["new"] == {"bounce": 1, "delivered": 1}


class Pipe(io.RawIOBase):
    """What cannot be positioned."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, into: bytearray, /) -> int:  # type: ignore[override]
        return self._data.readinto(into)

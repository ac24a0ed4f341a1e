"""Reading mbox files and Maildir folders: on from where it ended, nothing twice, nothing touched unless asked."""

from __future__ import annotations

import gzip
import mailbox
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mailback.cli import main
from mailback.ingest import mailbox as read
from mailback.ingest.mailbox import envelope_of
from tests.support.command import Run, Told
from tests.support.mail import dsn, reply

FROM = b"From MAILER-DAEMON Fri Nov 20 12:30:00 2026\n"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MAILBACK_STORE_URL", f"sqlite:///{tmp_path}/state/mailback.db")
    monkeypatch.setenv("MAILBACK_AUTH_ENABLED", "false")

    def call(*arguments: str) -> Told:
        capsys.readouterr()
        code = main.run(list(arguments))
        out, err = capsys.readouterr()
        return Told(code, out, err)

    return call


def bounce(number: int) -> bytes:
    return dsn(f"gone{number}@receiver.test", message_id=f"<{number}@sender.test>").replace(b"\r\n", b"\n")


def mbox_of(*numbers: int) -> bytes:
    return b"".join(FROM + bounce(number) + b"\n" for number in numbers)


def recipients(run: Run) -> set[str]:
    return {event["recipient"] for event in run("events", "--json").lines}


def test_an_mbox_is_read_on_from_where_it_was_left(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mbox"
    path.write_bytes(mbox_of(1, 2, 3))
    told = run("ingest", "mbox", "--json", str(path))
    assert told.code == 0, told.err
    assert told.lines == [{"messages": 3, "kinds": {"bounce": 3}, "failed": 0}]
    path.write_bytes(mbox_of(1, 2, 3, 4, 5))
    [told_later] = run("ingest", "mbox", "--json", str(path)).lines
    assert told_later["messages"] == 2
    assert len(run("events", "--json").lines) == 5
    assert path.read_bytes() == mbox_of(1, 2, 3, 4, 5)


def test_an_mbox_that_did_not_change_is_not_read_again(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mbox"
    path.write_bytes(mbox_of(*range(40)))
    for messages in (40, 0, 0):
        assert run("ingest", "mbox", "--json", str(path)).lines[0]["messages"] == messages
    assert run("ingest", "mbox", "--json", "--again", str(path)).lines[0]["messages"] == 40
    path.write_bytes(mbox_of(*range(41)))
    for messages in (1, 0):
        assert run("ingest", "mbox", "--json", str(path)).lines[0]["messages"] == messages


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
def test_a_run_that_is_interrupted_goes_on_near_where_it_was(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "mbox"
    path.write_bytes(pack(mbox_of(*range(330))))
    monkeypatch.setattr(read, "_PLACES_AT_ONCE", 50)
    send = read.MailFeed.send

    def fails(feed: read.MailFeed, *arguments: Any) -> None:
        if b"<300@sender.test>" in arguments[0]:
            raise OSError(5, "Input/output error")
        send(feed, *arguments)

    with monkeypatch.context() as broken:
        broken.setattr(read.MailFeed, "send", fails)
        assert run("ingest", "mbox", "--json", str(path)).code == 1
    [told] = run("ingest", "mbox", "--json", str(path)).lines
    assert 30 <= told["messages"] <= 30 + 50 + 101, "what was under way, and since the last place"
    assert len(recipients(run)) == 330


def test_the_last_message_may_still_be_being_written(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mbox"
    whole = mbox_of(1, 2)
    path.write_bytes(whole[:-400])
    run("ingest", "mbox", str(path))
    path.write_bytes(whole)
    run("ingest", "mbox", str(path))
    assert {"gone1@receiver.test", "gone2@receiver.test"} <= recipients(run)


def test_the_time_of_an_event_is_when_the_message_came(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mbox.gz"
    path.write_bytes(gzip.compress(mbox_of(1)))
    run("ingest", "mbox", str(path))
    [event] = run("events", "--json").lines
    assert (event["at"], event["source"]) == ("2026-11-20T12:30:00Z", "mailbox")


def test_what_is_no_mbox_is_told_and_the_others_are_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "letter").write_bytes(bounce(1))
    (tmp_path / "mbox").write_bytes(mbox_of(2))
    (tmp_path / "empty").write_bytes(b"")
    told = run("ingest", "mbox", "--json", *(str(tmp_path / name) for name in ("letter", "nowhere", "empty", "mbox")))
    assert told.code == 1
    assert "letter: is no mbox" in told.err
    assert "nowhere" in told.err
    assert told.lines[0]["messages"] == 1


@pytest.fixture
def maildir(tmp_path: Path) -> mailbox.Maildir:
    box = mailbox.Maildir(tmp_path / "Maildir")
    for number in (1, 2):
        box.add(bounce(number))
    return box


def names(box: mailbox.Maildir) -> dict[str, int]:
    root = Path(box._path)
    return {part: len(list((root / part).iterdir())) for part in ("new", "cur")}


def test_a_maildir_is_read_once_and_left_as_it_was(run: Run, tmp_path: Path, maildir: mailbox.Maildir) -> None:
    path = str(tmp_path / "Maildir")
    for entry in (tmp_path / "Maildir" / "new").iterdir():
        os.utime(entry, (WRITTEN.timestamp(), WRITTEN.timestamp()))
    assert run("ingest", "maildir", "--json", path).lines[0]["messages"] == 2
    assert {event["at"] for event in run("events", "--json").lines} == {"2026-11-20T12:30:00Z"}
    assert run("ingest", "maildir", "--json", path).lines[0]["messages"] == 0
    assert names(maildir) == {"new": 2, "cur": 0}
    maildir.add(bounce(3))
    first = next((tmp_path / "Maildir" / "new").iterdir())
    first.rename(tmp_path / "Maildir" / "cur" / f"{first.name}:2,RS")  # read by a person, and still the same message
    assert run("ingest", "maildir", "--json", path).lines[0]["messages"] == 1
    assert run("ingest", "maildir", "--again", "--json", path).lines[0]["messages"] == 3
    assert recipients(run) == {f"gone{number}@receiver.test" for number in (1, 2, 3)}


WRITTEN = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("options", "left"),
    [(["--seen"], {"new": 0, "cur": 2}), (["--delete"], {"new": 0, "cur": 0})],
)
def test_messages_are_flagged_or_removed_where_told(
    run: Run, tmp_path: Path, maildir: mailbox.Maildir, options: list[str], left: dict[str, int]
) -> None:
    told = run("ingest", "maildir", *options, str(tmp_path / "Maildir"))
    assert told.code == 0, told.err
    assert names(maildir) == left
    assert all(entry.name.endswith(":2,S") for entry in (tmp_path / "Maildir" / "cur").iterdir())


def test_messages_are_filed_into_another_maildir(run: Run, tmp_path: Path, maildir: mailbox.Maildir) -> None:
    done = mailbox.Maildir(tmp_path / "done")
    told = run("ingest", "maildir", "--move-to", str(tmp_path / "done"), str(tmp_path / "Maildir"))
    assert told.code == 0, told.err
    assert (names(maildir), names(done)) == ({"new": 0, "cur": 0}, {"new": 0, "cur": 2})
    assert run("ingest", "maildir", "--move-to", str(tmp_path / "nowhere"), str(tmp_path / "Maildir")).code == 2
    assert run("ingest", "maildir", str(tmp_path / "done" / "cur")).code == 1


def test_a_store_that_cannot_commit_leaves_every_message_where_it_is(
    run: Run, tmp_path: Path, maildir: mailbox.Maildir, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mailback.store import Store, StoreUnavailable

    class Full(Store):
        def submit(self, work: Callable[..., Any], **options: Any) -> Any:
            future = super().submit(work, **options)
            future.result()
            raise StoreUnavailable("the disk is full", "free some space")

    monkeypatch.setattr("mailback.store.Store", Full, raising=False)
    told = run("ingest", "maildir", "--delete", str(tmp_path / "Maildir"))
    assert told.code == 1
    assert "free some space" in told.err
    assert names(maildir) == {"new": 2, "cur": 0}


def test_the_envelope_is_read_from_what_the_delivering_server_wrote() -> None:
    head = (
        b"Return-Path: <prvs=1+a=news@sender.test>\nDelivered-To: b+17=x@bounce.sender.test\n"
        b"Received: from mx by host; Fri, 20 Nov 2026 13:30:00 +0100\nTo: someone@sender.test\n"
    )
    envelope = envelope_of(head + reply("ada@receiver.test", message_id="<9@receiver.test>"), None)
    assert envelope.sender == "prvs=1+a=news@sender.test"
    assert envelope.recipients[0] == "b+17=x@bounce.sender.test"
    assert "someone@sender.test" in envelope.recipients
    assert envelope.received_at == WRITTEN
    assert envelope_of(b"Return-Path: <>\n\n", WRITTEN).sender == ""
    assert envelope_of(b"From: Ada <ada@receiver.test>\n\n", WRITTEN).sender == "ada@receiver.test"
    assert envelope_of(b"\x00\xff", datetime(2999, 1, 1, tzinfo=UTC)).received_at <= datetime.now(UTC)

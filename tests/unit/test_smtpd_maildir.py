"""Maildir delivery: a message is there whole or not at all, and a full disk loses nothing."""

from __future__ import annotations

import errno
import mailbox
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailback_smtpd.maildir import Maildir
from mailback_smtpd.outgoing import Outgoing
from mailback_smtpd.reply import Reply
from tests.support.receiver import LoopThread


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


def message(number: int = 0, sender: str = "a@b.test") -> Outgoing:
    return Outgoing(sender, ("x@y.test", "z@y.test"), b"Subject: %d\r\n\r\n\0\xff\r\n" % number, "01ID")


def deliver(loop: LoopThread, path: Path, *messages: Outgoing) -> list[list[Reply]]:
    import asyncio

    async def work() -> list[list[Reply]]:
        folder = Maildir(path)
        try:
            return await asyncio.gather(*(folder.deliver(each) for each in messages))
        finally:
            await folder.close()

    return loop.run(work())


def test_octets_arrive_as_they_are_behind_a_return_path(loop: LoopThread, tmp_path: Path) -> None:
    (told,) = deliver(loop, tmp_path / "in" / "box", message())
    assert [reply.accepted for reply in told] == [True, True]
    (path,) = (tmp_path / "in" / "box" / "new").iterdir()
    assert path.read_bytes() == b"Return-Path: <a@b.test>\r\nSubject: 0\r\n\r\n\0\xff\r\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list((tmp_path / "in" / "box" / "tmp").iterdir()) == []


def test_the_null_sender_is_told_as_such(loop: LoopThread, tmp_path: Path) -> None:
    deliver(loop, tmp_path, message(sender=""))
    (path,) = (tmp_path / "new").iterdir()
    assert path.read_bytes().startswith(b"Return-Path: <>\r\n")


def test_a_hundred_at_once_are_a_hundred(loop: LoopThread, tmp_path: Path) -> None:
    told = deliver(loop, tmp_path, *(message(number) for number in range(100)))
    assert all(reply.accepted for replies in told for reply in replies)
    box = mailbox.Maildir(tmp_path, create=False)
    assert sorted(int(str(each["Subject"])) for each in box) == list(range(100))
    box.close()


@pytest.mark.parametrize(
    ("number", "reply"), [(errno.ENOSPC, "452 4.3.1"), (errno.EDQUOT, "452 4.3.1"), (errno.EIO, "451 4.3.0")]
)
def test_a_disk_that_fails_leaves_the_mail_with_the_peer(
    loop: LoopThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reply: str
) -> None:
    deliver(loop, tmp_path, message())

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("mailback_smtpd.maildir.os.fsync", fail)
    (told,) = deliver(loop, tmp_path, message(1))
    monkeypatch.undo()
    assert {each.line.decode()[:9] for each in told} == {reply}
    assert len(list((tmp_path / "new").iterdir())) == 1
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_path_that_is_no_folder_is_a_temporary_failure(loop: LoopThread, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (told,) = deliver(loop, tmp_path / "file" / "box", message())
    assert told[0].temporary


def test_a_maildir_that_was_removed_meanwhile_is_made_again(loop: LoopThread, tmp_path: Path) -> None:
    import asyncio
    import shutil

    async def work() -> Reply:
        folder = Maildir(tmp_path / "box")
        await folder.deliver(message())
        await asyncio.to_thread(shutil.rmtree, tmp_path / "box")
        (told, _) = await folder.deliver(message())
        await folder.close()
        return told

    assert loop.run(work()).accepted

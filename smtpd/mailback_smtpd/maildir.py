"""Delivery to a Maildir: written to `tmp`, synced, renamed to `new`, the folder synced; so it is whole or not there.

The message lies there octet for octet as it was received, CRLF line ends included, with `Return-Path` in front.

Log events:
    maildir_failed      a message could not be stored; the peer was answered 452 or 451 and keeps it. `error` says
                        why: free space, or give the user that Mailback runs as the right to write to `path`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from mailback.service.log import get_logger
from mailback_smtpd.content import return_path
from mailback_smtpd.outgoing import Outgoing
from mailback_smtpd.reply import Reply

log = get_logger("smtpd")

WRITERS = 4
"""Messages written at a time: each waits for the disk, which serves several syncs at once."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Maildir:
    """One Maildir for all recipients; it is made when the first message comes."""

    keeps: ClassVar[bool] = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = itertools.count()
        self._host = socket.gethostname().replace("/", r"\057").replace(":", r"\072")
        self._threads = ThreadPoolExecutor(WRITERS, thread_name_prefix="maildir")

    async def deliver(self, message: Outgoing) -> list[Reply]:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, self._store, return_path(message.sender), message.content)
        except OSError as error:
            log.error("maildir_failed", path=str(self._path), error=str(error))
            return [_refusal(error)] * len(message.recipients)
        return [Reply(250, "2.0.0", "stored")] * len(message.recipients)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    def _store(self, *parts: bytes) -> None:
        if not (self._path / "new").is_dir():
            self._make()
        name = self._name()
        temporary, final = self._path / "tmp" / name, self._path / "new" / name
        try:
            _write(temporary, parts)
            temporary.rename(final)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(final.parent)

    def _make(self) -> None:
        """Make the Maildir; `new` comes last, because it is what tells that all of it is there."""
        for folder in ("tmp", "cur", "new"):
            (self._path / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync_folder(self._path)
        _sync_folder(self._path.parent)

    def _name(self) -> str:
        """Unique among all deliveries of all hosts to this Maildir: time, process, counter and host."""
        now = time.time_ns()
        microseconds = now % 1_000_000_000 // 1000
        return f"{now // 1_000_000_000}.M{microseconds}P{os.getpid()}Q{next(self._count)}.{self._host}"


def _write(path: Path, parts: tuple[bytes, ...]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(error: OSError) -> Reply:
    """Always temporary: the peer keeps the mail until somebody has seen to the folder."""
    if error.errno in _FULL:
        return Reply(452, "4.3.1", "insufficient storage, please try again later")
    return Reply(451, "4.3.0", "cannot store the message now, please try again later")

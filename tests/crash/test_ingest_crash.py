"""SIGKILL while a log is read: the next run goes on there, and at the end every outcome stands once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.support.server import wait_for

MESSAGES = 6_000


def log_of(messages: int) -> str:
    """Each message is tried in vain and again; every tenth expires, every seventh is refused.

    What becomes of a message stands far behind its first try, so a crash finds thousands of them in the queue.
    """
    first, last = [], []
    for number in range(messages):
        queue_id = f"4YxK{number:06d}zBc"
        head = f"Nov 25 {number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d} mx postfix/"
        try_ = f"{head}smtp[1]: {queue_id}: to=<r{number}@b.example>, relay=mx.b.example[192.0.2.9]:25, "
        first += [
            f"{head}cleanup[1]: {queue_id}: message-id=<{number}@example.com>\n",
            f"{head}qmgr[1]: {queue_id}: from=<news@example.com>, size=1, nrcpt=1 (queue active)\n",
            f"{try_}delay=1, delays=0/0/0/1, dsn=4.2.2, status=deferred (said: 452 4.2.2 Mailbox full)\n",
        ]
        if number % 10 == 0:
            last.append(f"{head}qmgr[1]: {queue_id}: from=<news@example.com>, status=expired, returned to sender\n")
        elif number % 7 == 0:
            last.append(f"{try_}delay=9, delays=0/0/0/9, dsn=5.1.1, status=bounced (said: 550 5.1.1 User unknown)\n")
        else:
            last.append(f"{try_}delay=9, delays=0/0/0/9, dsn=2.0.0, status=sent (250 2.0.0 Ok)\n")
        last.append(f"{head}qmgr[1]: {queue_id}: removed\n")
    return "".join(first + last)


def state_of(database: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(database) as connection:
        return connection.execute(
            "SELECT identity, kind, recipient, subcategory, action, delivery_attempts, original_message_id FROM event"
            " ORDER BY identity"
        ).fetchall()


def command(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"MAILBACK_STORE_URL": f"sqlite:///{folder}/mailback.db"}
    line = [sys.executable, "-m", "mailback.cli.main", "ingest", "postfix-log", "--timezone", "UTC", str(log)]
    return subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL)


def count(database: Path) -> int:
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM event").fetchone()[0])
    except sqlite3.Error:
        return 0


def test_a_log_that_was_read_with_crashes_tells_the_same_as_one_read_at_once(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_text(log_of(MESSAGES))
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    assert command(tmp_path / "whole", log).wait(timeout=300) == 0
    expected = state_of(tmp_path / "whole" / "mailback.db")
    assert len(expected) == 2 * MESSAGES
    broken = tmp_path / "broken" / "mailback.db"
    crashes = 0
    for _ in range(3):
        before = count(broken)
        process = command(tmp_path / "broken", log)
        wait_for(lambda before=before, running=process: count(broken) > before or running.poll() is not None, 120)  # type: ignore[misc]
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            crashes += 1
        process.wait(timeout=60)
    assert crashes > 0
    assert 0 < count(broken) < len(expected), "it was killed on its way"
    assert command(tmp_path / "broken", log).wait(timeout=300) == 0
    assert state_of(broken) == expected

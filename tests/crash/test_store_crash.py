"""Acknowledged means committed: whatever the moment of a SIGKILL, nothing acknowledged is lost or doubled.

Two processes write to one database from several threads and note each unit that was acknowledged in a file of their
own, after its future resolved. Both are killed at a random moment, again and again, on the same database. Nothing is
repaired in between: the next round just opens it.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from mailback.store import Store

ROUNDS = 30
_LIMIT_S = 60
_ROOT = Path(__file__).parents[2]

# Acknowledgements are written with one os.write each and never buffered: what stands in the file was acknowledged.
_WRITER = """
import os, sys, threading
from mailback.store import Store
from tests.support.records import a_suppression, an_event
url, run, log = sys.argv[1:]
out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
store = Store.open(url, busy_timeout_s=30)
store.upgrade()

def unit(name):
    def work(t):
        assert t.record(an_event(name)).new
        assert t.suppress(a_suppression(address_key=name, event_id="e"), "crash")
    return work

def write(thread):
    n = 0
    while True:
        names = [f"{run}-{thread}-{n + i}" for i in range(5)]
        n += 5
        for name, future in [(name, store.submit(unit(name))) for name in names]:
            future.result()
            os.write(out, name.encode() + b"\\n")

for thread in range(4):
    threading.Thread(target=write, args=(thread,), daemon=True).start()
os.write(out, b"\\n")
threading.Event().wait()
"""


def start(url: str, run: str, log: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-W", "error", "-c", _WRITER, url, run, str(log)], cwd=_ROOT)


def wait_for_work(log: Path, writer: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not (log.exists() and log.stat().st_size > 1):
        assert writer.poll() is None, "the writer must run until it is killed"
        assert time.monotonic() < deadline, "the writer acknowledged nothing"
        time.sleep(0.005)


def kill(writers: list[subprocess.Popen[bytes]], moments: random.Random) -> None:
    moments.shuffle(writers)
    for writer in writers:
        time.sleep(moments.uniform(0, 0.06))
        writer.send_signal(signal.SIGKILL)
    assert [writer.wait(10) for writer in writers] == [-signal.SIGKILL] * len(writers)


def acknowledged(log: Path) -> list[str]:
    whole, _, _ = log.read_text("ascii").rpartition("\n")  # a name cut short by the kill could be mistaken for another
    return [line for line in whole.split("\n") if line]


def test_what_was_acknowledged_before_a_kill_is_there_exactly_once(tmp_path: Path) -> None:
    moments = random.Random()
    path = tmp_path / "mailback.db"
    url = f"sqlite:///{path}"
    told: list[str] = []
    for n in range(ROUNDS):
        logs = [tmp_path / f"{n}-{side}.log" for side in "ab"]
        writers = [start(url, f"{n}{side}", log) for side, log in zip("ab", logs, strict=True)]
        for log, writer in zip(logs, writers, strict=True):
            wait_for_work(log, writer)
        kill(writers, moments)
        new = [name for log in logs for name in acknowledged(log)]
        assert_kept(path, new)
        told += new
    assert_sound(url, told)


def assert_kept(path: Path, names: list[str]) -> None:
    """Each name once as an event and once as a suppression, seen by a plain connection that opens the file as it is."""
    connection = sqlite3.connect(path)
    try:
        for table, column in (("event", "identity"), ("suppression", "address_key")):
            kept = Counter(row[0] for row in connection.execute(f"SELECT {column} FROM {table}"))
            assert [name for name in names if kept[name] != 1] == []
    finally:
        connection.close()


def assert_sound(url: str, told: list[str]) -> None:
    assert len(told) > ROUNDS * 10, "too little was written for the kills to hit anything"
    with Store.open(url) as store:
        assert store.check() == [], "integrity, schema and audit chain"
        assert not store.upgrade()
        events = Counter(event.identity for event in store.events())
        suppressed = {suppression.address_key for suppression in store.suppressions()}
        audited = Counter(entry.subject for entry in store.audit_trail())
        changed = Counter(dict.fromkeys(suppressed, 1))
    assert set(events) == suppressed, "a unit is kept whole or not at all"
    assert events == audited == changed, "one event, one suppression, one audit row a unit"
    assert set(told) <= set(events)


_STARTER = """
import sys
from mailback.store import Store
import alembic.command, sqlalchemy.dialects.sqlite
print("ready", flush=True)
Store.open(sys.argv[1]).upgrade()
"""


def test_a_kill_during_the_first_upgrade_leaves_nothing_half_made(tmp_path: Path) -> None:
    moments = random.Random()
    for n in range(12):
        url = f"sqlite:///{tmp_path}/{n}.db"
        starter = subprocess.Popen([sys.executable, "-c", _STARTER, url], cwd=_ROOT, stdout=subprocess.PIPE)
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"ready\n"
        time.sleep(moments.uniform(0, 0.15))
        starter.kill()
        starter.wait(10)
        starter.stdout.close()
        with Store.open(url) as store:
            store.upgrade()
            assert store.check() == []

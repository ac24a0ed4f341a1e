"""The milter is killed with SIGKILL under load, at random moments, many times.

What it told the MTA to accept must be in the store exactly once; a session that is cut is the MTA's to send again.
"""

from __future__ import annotations

import random
import sqlite3
import struct
import threading
import time
from pathlib import Path

from tests.support.mail import dsn
from tests.support.mta import Mta
from tests.support.server import RunningMailback, kill_quietly, wait_for

ROUNDS = 6
WORKER_KILLS = 3
"""In each round, before the whole service is killed; the supervisor's back-off grows with each death in a row."""
SENDERS = 4
ACCEPT = b"a"
CONTINUE = b"c"


class Load:
    """Sessions of an MTA that keep bringing bounces, and remember which were accepted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._numbers = iter(range(1_000_000))
        self.accepted: list[str] = []
        self._threads = [threading.Thread(target=self._bring_all, daemon=True) for _ in range(SENDERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait_until_it_flows(self) -> None:
        """Bounces are accepted again, whatever was killed before."""
        before = len(self.accepted)
        wait_for(lambda: len(self.accepted) > before + SENDERS, 60, "the milter answers again")

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive()

    def _bring_all(self) -> None:
        while not self._stop.is_set():
            try:
                mta = Mta(self._path)
                try:
                    self._bring_some(mta)
                finally:
                    mta.hang_up()
            except (OSError, EOFError, AssertionError, struct.error):
                time.sleep(0.02)  # killed under our hands: nothing was promised

    def _bring_some(self, mta: Mta) -> None:
        while not self._stop.is_set():
            with self._lock:
                number = next(self._numbers)
            address = f"gone-{number}@receiver.test"
            if _bring(mta, address, number) in (ACCEPT, CONTINUE):
                with self._lock:
                    self.accepted.append(address)


def _bring(mta: Mta, address: str, number: int) -> bytes:
    """One bounce, step by step; the milter's last word on it."""
    head, _, body = dsn(address, message_id=f"<m{number}@sender.test>").partition(b"\r\n\r\n")
    mta.mail("<>")
    assert mta.recipient("<bounces@sender.test>") == (CONTINUE, b"")
    assert mta.data() == CONTINUE
    for field in head.replace(b"\r\n ", b"\n ").split(b"\r\n"):
        name, _, value = field.partition(b":")
        mta.header(name.decode(), value)
    assert mta.body(body) == CONTINUE
    return mta.end(i=f"{number:X}")[-1][0]


def test_every_bounce_accepted_before_a_kill_is_there_exactly_once(tmp_path: Path) -> None:
    database = tmp_path / "mailback.db"
    path = tmp_path / "milter.sock"
    config = tmp_path / "mailback.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{database}"\n[milter]\nlisten = "unix:{path}"\nworkers = 2\n')
    server = RunningMailback(config)
    load = Load(path)
    dice = random.Random(20261123)
    server.start()
    load.start()
    try:
        for _ in range(ROUNDS):
            for _ in range(WORKER_KILLS):
                load.wait_until_it_flows()
                time.sleep(dice.uniform(0.0, 0.15))
                kill_quietly(dice.choice(server.workers()))
            load.wait_until_it_flows()
            time.sleep(dice.uniform(0.0, 0.15))
            server.kill_everything()
            server.start()
        load.wait_until_it_flows()
        load.stop()
    finally:
        server.stop()
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counted = dict(connection.execute("SELECT recipient, count(*) FROM event GROUP BY recipient"))
    connection.close()
    assert len(load.accepted) > ROUNDS * WORKER_KILLS * SENDERS
    assert {address: counted.get(address) for address in load.accepted} == dict.fromkeys(load.accepted, 1)
    assert set(counted.values()) == {1}

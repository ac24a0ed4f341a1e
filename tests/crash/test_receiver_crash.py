"""The receiver is killed with SIGKILL under load, at random moments, many times.

What was acknowledged with 250 must be in the store exactly once, the database intact, the audit chain whole, and the
server back by itself.
"""

from __future__ import annotations

import random
import smtplib
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from tests.support.mail import dsn
from tests.support.server import RunningMailback, free_port, kill_quietly, wait_for

ROUNDS = 25
SENDERS = 4


class Load:
    """Senders that keep offering bounces, each about an address of its own, and remember which were taken."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._numbers = iter(range(1_000_000))
        self.acknowledged: list[str] = []
        self._threads = [threading.Thread(target=self._send_all, daemon=True) for _ in range(SENDERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive()

    def _send_all(self) -> None:
        while not self._stop.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self._port, timeout=20) as client:
                    self._send_some(client)
            except (OSError, smtplib.SMTPException):
                time.sleep(0.02)  # killed under our hands: nothing was promised

    def _send_some(self, client: smtplib.SMTP) -> None:
        while not self._stop.is_set():
            with self._lock:
                number = next(self._numbers)
            address = f"gone-{number}@receiver.test"
            client.sendmail("", ["bounces@sender.test"], dsn(address, message_id=f"<m{number}@sender.test>"))
            with self._lock:
                self.acknowledged.append(address)


@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_every_bounce_acknowledged_before_a_kill_is_there_exactly_once(tmp_path: Path, victim: str) -> None:
    port = free_port()
    database = tmp_path / "mailback.db"
    config = tmp_path / "mailback.toml"
    config.write_text(
        f'[store]\nurl = "sqlite:///{database}"\n'
        f'[smtpd]\nlisten = "127.0.0.1:{port}"\nnext_hop = "maildir:{tmp_path}/inbox"\nbounces_to = "discard"\n'
        "workers = 2\n"
    )
    server = RunningMailback(config)
    server.start()
    load = Load(port)
    load.start()
    dice = random.Random(20261122)
    try:
        for _ in range(ROUNDS if victim == "worker" else ROUNDS // 3):
            before = len(load.acknowledged)
            wait_for(lambda seen=before: len(load.acknowledged) > seen, 60, "mail flows again after the kill")  # type: ignore[misc]
            time.sleep(dice.uniform(0.0, 0.15))
            if victim == "worker":
                for pid in server.workers():
                    kill_quietly(pid)
            else:
                server.kill()
                server.start()
        load.stop()
    finally:
        server.stop()
    _assert_exactly_once(database, load.acknowledged)


def _assert_exactly_once(database: Path, acknowledged: list[str]) -> None:
    assert len(acknowledged) > 2 * ROUNDS
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counted = dict(connection.execute("SELECT recipient, count(*) FROM event GROUP BY recipient"))
        held = {address for (address,) in connection.execute("SELECT address FROM suppression")}
    connection.close()
    assert {address: counted.get(address) for address in acknowledged} == dict.fromkeys(acknowledged, 1)
    assert set(acknowledged) <= held
    assert set(counted.values()) == {1}

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

from tests.support.mail import dsn
from tests.support.server import RunningMailback, free_port, kill_quietly, wait_for

ROUNDS = 8
WORKER_KILLS = 3
"""In each round, before the whole service is killed; the supervisor's back-off grows with each death in a row."""
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

    def wait_until_it_flows(self) -> None:
        """Bounces are taken again, whatever was killed before."""
        before = len(self.acknowledged)
        wait_for(lambda: len(self.acknowledged) > before + SENDERS, 60, "mail flows again")

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


def test_every_bounce_acknowledged_before_a_kill_is_there_exactly_once(tmp_path: Path) -> None:
    port = free_port()
    database = tmp_path / "mailback.db"
    config = tmp_path / "mailback.toml"
    config.write_text(
        f'[store]\nurl = "sqlite:///{database}"\n'
        f'[smtpd]\nlisten = "127.0.0.1:{port}"\nnext_hop = "maildir:{tmp_path}/inbox"\nbounces_to = "discard"\n'
        "workers = 2\n"
        # A burst from one client is what the guard is there to hold back; here every bounce is to suppress.
        "[policy]\nunproven_per_hour = 0\nwave_minimum = 0\n"
    )
    server = RunningMailback(config)
    load = Load(port)
    dice = random.Random(20261122)
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

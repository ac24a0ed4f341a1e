"""The receiver is killed with SIGKILL under load, at random moments, many times.

What was acknowledged with 250 must be in the store exactly once, the database intact, and the server back by itself.
"""

from __future__ import annotations

import smtplib
import sqlite3
from pathlib import Path

from tests.support.load import Load, kill_in_rounds
from tests.support.mail import dsn
from tests.support.server import RunningMailback, free_port

ROUNDS = 8


class SmtpLoad(Load):
    """Clients of the receiver."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def broken(self) -> tuple[type[Exception], ...]:
        return OSError, smtplib.SMTPException

    def session(self) -> None:
        with smtplib.SMTP("127.0.0.1", self._port, timeout=20) as client:
            while self.goes_on:
                address, number = self.next_address()
                client.sendmail("", ["bounces@sender.test"], dsn(address, message_id=f"<m{number}@sender.test>"))
                self.acknowledge(address)


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
    load = SmtpLoad(port)
    kill_in_rounds(RunningMailback(config), load, ROUNDS, seed=20261122)
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counted = dict(connection.execute("SELECT recipient, count(*) FROM event GROUP BY recipient"))
        held = {address for (address,) in connection.execute("SELECT address FROM suppression")}
    connection.close()
    assert {address: counted.get(address) for address in load.acknowledged} == dict.fromkeys(load.acknowledged, 1)
    assert set(load.acknowledged) <= held
    assert set(counted.values()) == {1}

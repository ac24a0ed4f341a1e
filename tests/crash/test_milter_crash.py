"""The milter is killed with SIGKILL under load, at random moments, many times.

What it told the MTA to accept must be in the store exactly once; a session that is cut is the MTA's to send again.
"""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path

from tests.support.load import Load, kill_in_rounds
from tests.support.mail import dsn
from tests.support.mta import Mta
from tests.support.server import RunningMailback

ROUNDS = 6
ACCEPT = b"a"
CONTINUE = b"c"


class MilterLoad(Load):
    """Sessions of an MTA."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def broken(self) -> tuple[type[Exception], ...]:
        return OSError, EOFError, AssertionError, struct.error

    def session(self) -> None:
        mta = Mta(self._path)
        try:
            while self.goes_on:
                address, number = self.next_address()
                if _bring(mta, address, number) in (ACCEPT, CONTINUE):
                    self.acknowledge(address)
        finally:
            mta.hang_up()


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
    load = MilterLoad(path)
    kill_in_rounds(RunningMailback(config), load, ROUNDS, seed=20261123)
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counted = dict(connection.execute("SELECT recipient, count(*) FROM event GROUP BY recipient"))
    connection.close()
    assert {address: counted.get(address) for address in load.acknowledged} == dict.fromkeys(load.acknowledged, 1)
    assert set(counted.values()) == {1}

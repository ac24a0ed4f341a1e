"""The policy server as it runs: forked by the supervisor, on a real database, asked over real sockets."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mailback import address
from mailback.outbound import part
from mailback.outbound.part import Troubles
from mailback.outbound.socketmap import netstring
from mailback.store import Store, StoreUnavailable
from mailback.store.records import Suppression

PATIENCE_S = 20.0

SERVICE = """
import sys
from types import SimpleNamespace
from mailback.outbound.part import PolicydPart
from mailback.service import log
from mailback.service.supervisor import supervise
from mailback.settings import Settings
log.configure(SimpleNamespace(level="info", format="json", addresses=False))
sys.exit(supervise([PolicydPart(Settings.load(sys.argv[1], environ={}))], drain_timeout_s=5))
"""


class Server:
    """A policy server on two unix sockets; `log` is what it has said so far."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.database = folder / "db" / "mailback.db"
        self.log: list[dict[str, Any]] = []
        config = folder / "mailback.toml"
        config.write_text(
            f'[store]\nurl = "sqlite:///{self.database}"\n'
            f'[policyd]\nlisten = "unix:{folder}/policy"\nsocketmap = "unix:{folder}/socketmap"\nworkers = {workers}\n'
        )
        self.process = subprocess.Popen([sys.executable, "-c", SERVICE, str(config)], stderr=subprocess.PIPE, text=True)

    def expect(self, event: str) -> dict[str, Any]:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(json.loads(line))
            if self.log[-1]["event"] == event:
                return self.log[-1]
        raise AssertionError(f"the log ended without {event}: {self.log}")

    def connect(self, front: str) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE_S)
        client.connect(str(self.folder / front))
        return client

    def policy(self, recipient: str) -> str:
        with self.connect("policy") as client:
            client.sendall(f"request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient={recipient}\n\n".encode())
            return client.recv(1000).decode()

    def socketmap(self, question: str) -> str:
        with self.connect("socketmap") as client:
            client.sendall(netstring(question.encode()))
            return client.recv(1000).decode().partition(":")[2]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            self.expect("nothing more")
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "db").mkdir()
    with Store.open(f"sqlite:///{tmp_path}/db/mailback.db") as store:
        store.upgrade()
        suppress(store, "Ann@Example.com")
        yield store


def suppress(store: Store, who: str) -> None:
    row = Suppression(
        address.key(who), who, "all", "", "hard_bounce", "user_unknown", "operator",
        datetime(2026, 1, 31, tzinfo=UTC), None,
    )  # fmt: skip
    store.submit(lambda transaction: transaction.suppress(row, "test")).result(PATIENCE_S)


@pytest.fixture(params=[1, 2])
def server(request: pytest.FixtureRequest, tmp_path: Path, database: Store) -> Iterator[Server]:
    with serving(tmp_path, request.param) as running:
        running.expect("ready")
        yield running


@contextlib.contextmanager
def serving(folder: Path, workers: int) -> Iterator[Server]:
    running = Server(folder, workers)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()
        assert running.process.stderr is not None
        running.process.stderr.close()


def test_all_fronts_answer_from_the_database_and_follow_it_at_once(server: Server, database: Store) -> None:
    words = "suppressed since 2026-01-31, hard_bounce/user_unknown (mailback explain"
    assert server.policy("ann@example.com") == f"action=550 5.7.1 <ann@example.com>: {words} ann@example.com)\n\n"
    assert server.policy("ANN@EXAMPLE.COM").startswith("action=550 5.7.1 <ANN@EXAMPLE.COM>")
    assert server.socketmap("access ann@example.com").startswith(f"OK 550 5.7.1 <ann@example.com>: {words}")
    assert server.socketmap("transport ann@example.com").startswith("OK error:5.7.1 <ann@example.com>")
    assert server.policy("bob@example.com") == "action=DUNNO\n\n"
    suppress(database, "bob@example.com")
    assert server.policy("bob@example.com").startswith("action=550 ")
    key = address.key("bob@example.com")
    database.submit(lambda t: t.lift(key, "all", actor="test", reason="came back")).result(PATIENCE_S)
    assert server.policy("bob@example.com") == "action=DUNNO\n\n"
    assert server.stop() == 0
    assert not (server.folder / "policy").exists()


def test_lost_database_lets_mail_flow_at_one_front_and_wait_at_the_other_and_heals(
    server: Server, database: Store
) -> None:
    database.close()
    away = server.folder / "away"
    server.database.parent.rename(away)
    assert server.policy("ann@example.com") == "action=DUNNO\n\n"
    assert server.expect("store.unavailable")["advice"]
    assert server.socketmap("access ann@example.com").startswith("TEMP ")
    away.rename(server.database.parent)
    assert server.policy("ann@example.com").startswith("action=550 ")
    assert server.stop() == 0
    assert not any("exception" in entry for entry in server.log)


def test_sigterm_answers_the_question_that_has_begun(server: Server) -> None:
    with server.connect("socketmap") as client:
        question = netstring(b"access ann@example.com")
        client.sendall(question + question[:5])
        assert client.recv(1000).startswith(b"120:OK 550")
        server.process.send_signal(signal.SIGTERM)
        server.expect("stopping")
        client.sendall(question[5:])
        assert client.recv(1000).startswith(b"120:OK 550")
        assert client.recv(1000) == b""
    assert server.stop() == 0


def test_part_without_a_database_serves_all_the_same_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    with serving(tmp_path, 1) as running:
        assert running.expect("store.unavailable")["front"] == "start"
        running.expect("ready")
        assert running.policy("ann@example.com") == "action=DUNNO\n\n"
        assert running.stop() == 0


class Told:
    """What would be logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Any]] = []

    def error(self, event: str, **values: object) -> None:
        self.lines.append((event, values.get("count")))

    def info(self, event: str, **values: object) -> None:
        self.lines.append((event, values.get("count")))


def test_trouble_is_told_once_in_ten_seconds_with_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    monkeypatch.setattr(part, "_log", told)
    now = time.monotonic()
    troubles = Troubles(lambda: now)
    down = StoreUnavailable("no", "do")
    for _ in range(1000):
        troubles.tell("policy", down)
    assert told.lines == [("store.unavailable", 1)]
    now += 10.1
    troubles.tell("policy", down)
    assert told.lines[1:] == [("store.unavailable", 1000)]
    troubles.over()
    troubles.over()
    assert told.lines[2:] == [("store.back", None)]
    troubles.tell("policy", ValueError("x"))
    assert told.lines[3:] == [("policyd.failed", 1)]

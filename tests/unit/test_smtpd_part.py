"""The receiver as real processes on inherited sockets: what stopping one of them does to the others."""

from __future__ import annotations

import contextlib
import os
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailback.service.sockets import SocketError
from mailback.settings import Settings
from mailback.store import StoreUnavailable
from mailback_smtpd.part import SmtpdPart, tls_context
from tests.support.mail import reply
from tests.support.server import free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]

PARENT = """
import os, sys
from mailback.settings import Settings
from mailback_smtpd.part import SmtpdPart

part = SmtpdPart(Settings.load(sys.argv[1]))
part.open()
children = []
for _ in range(part.workers):
    child = os.fork()
    if not child:
        os._exit(part.run(lambda: os.write(1, b"%d\\n" % os.getpid())))
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
part.close()
print(codes, flush=True)
"""


class Parent:
    """A parent with its workers, as the service has them, without the service."""

    def __init__(self, folder: Path, smtpd: str, workers: int) -> None:
        config = folder / "mailback.toml"
        config.write_text(
            f'[store]\nurl = "sqlite:///{folder}/mailback.db"\n[mail]\nsending_domains = ["sender.test"]\n'
            f'[auth]\nenabled = false\n[smtpd]\nnext_hop = "maildir:{folder}/inbox"\nworkers = {workers}\n{smtpd}'
        )
        path = os.pathsep.join(str(ROOT / root) for root in (".", "smtpd"))
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(config)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        self.workers = [int(self.line()) for _ in range(workers)]

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> str:
        """SIGTERM to all workers; their exit codes."""
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)
        codes = self.line()
        self.process.wait(30)
        return codes


@contextlib.contextmanager
def parent(folder: Path, smtpd: str, workers: int = 1) -> Iterator[Parent]:
    started = Parent(folder, smtpd, workers)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.end()
        assert started.process.stdout is not None
        started.process.stdout.close()


def ended(pid: int) -> bool:
    """No such process, or one that only waits for its parent to ask."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def greets(port: int) -> bool:
    """Whether anybody accepts there; the socket itself stays open in the parent, so a connection says nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=1.0) as probe:
        try:
            return probe.recv(10) != b""
        except TimeoutError:
            return False


def send(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.sendmail("ada@receiver.test", ["news@sender.test"], reply("ada@receiver.test", message_id="<1@x.test>"))


def test_two_workers_serve_one_port_and_one_may_stop(tmp_path: Path) -> None:
    port = free_port()
    with parent(tmp_path, f'listen = "127.0.0.1:{port}"', workers=2) as running:
        for _ in range(4):
            send(port)
        os.kill(running.workers[0], signal.SIGTERM)
        wait_for(lambda: ended(running.workers[0]), what="the worker ends")
        for _ in range(4):
            send(port)
        assert running.end() == "[0, 0]"
    assert len(list((tmp_path / "inbox" / "new").iterdir())) == 8


def test_a_worker_that_stops_leaves_the_unix_socket_to_the_others(tmp_path: Path) -> None:
    path = tmp_path / "lmtp.sock"
    with parent(tmp_path, f'listen = "lmtp:unix:{path}"', workers=2) as running:
        os.kill(running.workers[0], signal.SIGTERM)
        wait_for(lambda: ended(running.workers[0]), what="the worker ends")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            assert client.recv(100).endswith(b"LMTP Mailback\r\n")
        assert running.end() == "[0, 0]"
    assert not path.exists()


def test_a_stop_waits_for_the_message_that_is_under_way(tmp_path: Path) -> None:
    port = free_port()
    with parent(tmp_path, f'listen = "127.0.0.1:{port}"') as running:
        client = smtplib.SMTP("127.0.0.1", port, timeout=20)
        client.ehlo("peer.test")
        client.mail("ada@receiver.test")
        client.rcpt("news@sender.test")
        os.kill(running.workers[0], signal.SIGTERM)
        wait_for(lambda: not greets(port), what="no new connection is taken")
        code, _ = client.data(reply("ada@receiver.test", message_id="<1@x.test>"))
        assert code == 250
        client.close()
        assert running.line() == "[0]"
    assert len(list((tmp_path / "inbox" / "new").iterdir())) == 1


def settings(folder: Path, smtpd: str) -> Settings:
    return Settings.loads(
        f'[store]\nurl = "sqlite:///{folder}/none/mailback.db"\n[smtpd]\nnext_hop = "discard"\n{smtpd}', files=False
    )


def test_an_address_that_is_taken_is_told_before_anything_is_forked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        part = SmtpdPart(settings(tmp_path, f'listen = "127.0.0.1:{taken.getsockname()[1]}"'))
        with pytest.raises(SocketError):
            part.open()


def test_a_store_that_cannot_be_opened_ends_the_worker_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "none").write_text("a file where the folder should be")
    part = SmtpdPart(settings(tmp_path, f'listen = "127.0.0.1:{free_port()}"'))
    part.open()
    try:
        with pytest.raises(StoreUnavailable):
            part.run(lambda: None)
    finally:
        part.close()


def test_a_certificate_that_cannot_be_read_is_told_before_anything_is_forked(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("this is no certificate")
    given = settings(tmp_path, f'listen = "127.0.0.1:{free_port()}"\ntls_certificate_file = "{tmp_path}/cert.pem"')
    with pytest.raises(OSError, match=r"(?i)pem"):
        tls_context(given.smtpd)


def test_workers_of_zero_is_one_a_core(tmp_path: Path) -> None:
    assert SmtpdPart(settings(tmp_path, 'listen = "127.0.0.1:1"\nworkers = 0')).workers == os.cpu_count()

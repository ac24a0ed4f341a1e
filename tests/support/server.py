"""A running `mailback serve`, its configuration written for one test, on loopback and free ports."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

READY_WITHIN_S = 60.0


_FIRST_PORT, _PORTS_A_WORKER = 12_000, 1_000
"""Below the ports that the kernel gives to outgoing connections (32768 and up), which come and go meanwhile; each test
process takes its own."""
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 20
_given: Iterator[int] = itertools.cycle(range(_PORTS_A_WORKER))


def free_port() -> int:
    """A TCP port of loopback that nothing listens on now, and that is given to nobody else for a long time."""
    for number in itertools.islice(_given, _PORTS_A_WORKER):
        port = _FIRST_PORT + _WORKER * _PORTS_A_WORKER + number
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def wait_for(condition: Callable[[], object], within_s: float = 30.0, what: str = "") -> None:
    """Wait until the condition is true; AssertionError with `what` when it is not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what or condition}"
        time.sleep(0.02)


class RunningMailback:
    """One `mailback serve` process; its log goes to a file that `log()` reads."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._log = config.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until every socket listens."""
        seen = len(self.log())
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mailback.cli.main", "serve", "--config", str(self._config)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment(),
            )  # fmt: skip
        wait_for(lambda: self._ready(seen), READY_WITHIN_S, "ready")

    def _environment(self) -> dict[str, str]:
        """No test asks the DNS servers of this host: who authenticates or looks providers up names its own."""
        quiet = {"MAILBACK_AUTH_ENABLED": "false", "MAILBACK_PROVIDERS_LOOK_UP": "false"}
        return os.environ | ({} if "[auth]" in self._config.read_text() else quiet)

    def _ready(self, seen: int) -> bool:
        text = self.log()[seen:]
        assert self._process is not None
        assert self._process.poll() is None, f"mailback ended with {self._process.returncode}:\n{text}"
        return any("ready" in line.split() or '"event":"ready"' in line.replace(" ", "") for line in text.splitlines())

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=60)

    def kill_everything(self) -> None:
        """SIGKILL to the parent and to every worker, as a power cut would end them."""
        assert self._process is not None
        workers = self.workers()
        self._process.kill()
        for pid in workers:
            kill_quietly(pid)
        self._process.wait(timeout=30)

    def workers(self) -> list[int]:
        """Process ids of the workers that live now."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


@contextlib.contextmanager
def running(config: Path) -> Iterator[RunningMailback]:
    """Start it, and stop it at the end whatever happened."""
    server = RunningMailback(config)
    server.start()
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.stop()


def kill_quietly(pid: int) -> None:
    """SIGKILL a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

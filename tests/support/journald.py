"""A private systemd-journald: a namespace of its own (systemd-journald.service(8)), which leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.server import wait_for

_DAEMON = Path("/lib/systemd/systemd-journald")
_MACHINE = Path("/etc/machine-id")


def unavailable() -> str | None:
    """Why no private journal can be kept here; None when one can."""
    if os.geteuid() != 0:
        return "a journal of its own needs root"
    if not _DAEMON.exists() or shutil.which("journalctl") is None or not _MACHINE.exists():
        return "systemd-journald is not installed, or this machine has no id"
    return None


class PrivateJournal:
    """Takes syslog messages as programs write them, and is read by `journalctl --namespace`."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._sockets = Path(f"/run/systemd/journal.{namespace}")

    def write(self, program: str, text: str) -> None:
        """One message of the mail system, as syslog(3) sends it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.connect(str(self._sockets / "dev-log"))
            peer.send(f"<22>Nov 25 10:00:00 {program}[7]: {text}".encode())

    @property
    def reader(self) -> list[str]:
        """The command that reads it."""
        return ["journalctl", f"--namespace={self.namespace}"]


@contextmanager
def running() -> Iterator[PrivateJournal]:
    """Start it, and take away at the end what it left."""
    journal = PrivateJournal(f"mailback{os.getpid()}")
    folder = Path(f"/run/systemd/journal.{journal.namespace}")
    process = subprocess.Popen([_DAEMON, journal.namespace], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for((folder / "dev-log").exists, what="the journal's socket")
        yield journal
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        machine = f"{_MACHINE.read_text().strip()}.{journal.namespace}"
        for left in (folder, Path("/var/log/journal") / machine, Path("/run/log/journal") / machine):
            shutil.rmtree(left, ignore_errors=True)

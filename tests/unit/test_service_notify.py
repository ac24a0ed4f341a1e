"""sd_notify against real datagram sockets, and its silence where nobody listens."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailback.service import notify


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_each_state_in_systemds_words(systemd: socket.socket) -> None:
    calls: list[tuple[Callable[[], bool], bytes]] = [
        (lambda: notify.ready("serving smtpd\nSTOPPING=1"), b"READY=1\nSTATUS=serving smtpd STOPPING=1"),
        (notify.ready, b"READY=1"),
        (notify.stopping, b"STOPPING=1"),
        (notify.watchdog, b"WATCHDOG=1"),
        (lambda: notify.status("fine"), b"STATUS=fine"),
    ]
    for call, said in calls:
        assert call()
        assert systemd.recv(1000) == said


def test_reloading_carries_the_monotonic_time_that_notify_reload_compares(systemd: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    notify.reloading()
    match = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", systemd.recv(1000))
    assert match
    assert before <= int(match[1]) <= time.monotonic_ns() // 1000


def test_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"mailback-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert notify.ready()
        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize("where", [None, "", "relative", "/nowhere/at/all", "vsock:2:1"])
def test_nobody_listening_is_no_error(where: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if where is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", where)
    assert not notify.ready()


@pytest.mark.parametrize(
    ("micros", "pid", "interval"),
    [("60000000", None, 30.0), ("60000000", "me", 30.0), ("60000000", "1", None), ("", None, None), ("0", None, None),
     ("x", None, None)],
)  # fmt: skip
def test_watchdog_interval_is_half_and_only_for_the_process_it_watches(
    micros: str, pid: str | None, interval: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", micros)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "me" else pid)
    assert notify.watchdog_interval_s() == interval


def test_worker_forgets_systemd(systemd: socket.socket) -> None:
    assert notify.ready()
    notify.forget()
    assert not notify.ready()

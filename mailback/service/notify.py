"""What the service tells systemd: sd_notify(3), spoken without libsystemd.

Without NOTIFY_SOCKET in the environment every function does nothing, so the same code runs under a terminal, a
container or another init. A message that cannot be sent is dropped: a service must not fail because its supervisor
does not listen. Nothing here logs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time


def notify(*assignments: str) -> bool:
    """Send assignments such as `READY=1` in one datagram; whether there was somebody to take it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):  # sd_notify(3) also knows vsock:, which is for virtual machines' hosts
        return False
    target = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.settimeout(1.0)
        out.sendto("\n".join(assignments).encode(errors="backslashreplace"), target)
        return True
    return False


def ready(status: str = "") -> bool:
    """Started, or a reload is over, whichever way it ended."""
    return notify("READY=1", *_status(status))


def reloading() -> bool:
    """A reload starts. MONOTONIC_USEC lets systemd tell this reload from an earlier one (Type=notify-reload)."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping(status: str = "") -> bool:
    return notify("STOPPING=1", *_status(status))


def status(text: str) -> bool:
    """One line for `systemctl status`."""
    return notify(*_status(text))


def watchdog() -> bool:
    """Still alive."""
    return notify("WATCHDOG=1")


def watchdog_interval_s() -> float | None:
    """How often `watchdog` has to be called at the latest, halved; None when no watchdog waits for this process."""
    micros, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not micros.isdigit() or int(micros) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(micros) / 2_000_000


def forget() -> None:
    """In a worker: the parent alone speaks to systemd."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        os.environ.pop(name, None)


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split())}",) if text else ()

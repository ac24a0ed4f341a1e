"""A virus scanner asked over its socket: clamd's INSTREAM, as clamd(8) describes it.

    scanner = Clamd("unix:/run/clamav/clamd.ctl")
    scanner.scan(raw)       # Scan(found="Eicar-Test-Signature") or Scan() or Scan(trouble="clamd does not answer")

A scanner that cannot be asked costs no mail and no verdict: the message goes on unscanned, and says so. After a failure
it is left alone for half a minute, so that a scanner that hangs holds up one message and not all of them.

Blocks, at most for the timeout; safe to use from any thread. Emits no log events: what went wrong stands in the answer.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailback.settings import Settings

_CHUNK = 1 << 16
_ANSWER_CAP = 4096
REST_S = 30.0
"""Seconds that a scanner which failed is left alone."""
_NAME = re.compile(r"[^\w.:/+-]+")
_LONGEST_NAME = 120


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scanner said."""

    found: str | None = None
    """The name of what it found, in letters that are safe anywhere."""
    trouble: str | None = None
    """Why it did not look, in words; None where it did."""


class ClamdError(Exception):
    """The scanner cannot be asked, or said something that is no answer."""


class Clamd:
    """One scanner."""

    def __init__(
        self, where: str, *, timeout_s: float = 10.0, max_bytes: int = 26_214_400,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`where` is `unix:PATH` or `inet:PORT@HOST`, as `settings.listen_address` reads it."""
        self._where = where
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._rests_until = float("-inf")

    @classmethod
    def of(cls, settings: Settings) -> Clamd | None:
        """The scanner that the settings name; None where they name none."""
        safety = settings.safety
        if safety.clamd is None:
            return None
        return cls(safety.clamd, timeout_s=safety.clamd_timeout_s, max_bytes=safety.clamd_max_bytes)

    def scan(self, raw: bytes) -> Scan:
        """Look at the bytes of a message. Never raises."""
        if len(raw) > self._max_bytes:
            return Scan(trouble=f"larger than {self._max_bytes} octets")
        if self._clock() < self._rests_until:
            return Scan(trouble="clamd failed a moment ago")
        try:
            return _read(self._asked(b"zINSTREAM\0", raw))
        except (OSError, ClamdError) as error:
            self._rests_until = self._clock() + REST_S
            return Scan(trouble=f"clamd: {_reason(error)}")

    def ping(self) -> str:
        """The scanner's version. Raises ClamdError or OSError where it does not answer as clamd does."""
        said = self._asked(b"zVERSION\0")
        if not said.startswith("ClamAV"):
            raise ClamdError(f"answers {said[:60]!r}, which is not clamd's answer")
        return said

    def _asked(self, command: bytes, content: bytes | None = None) -> str:
        """Send a command, and a stream with it; the answer without its end."""
        deadline = self._clock() + self._timeout_s
        with self._connected() as connection:
            try:
                connection.sendall(command)
                for place in range(0, len(content or b""), _CHUNK):
                    chunk = (content or b"")[place : place + _CHUNK]
                    self._until(connection, deadline)
                    connection.sendall(struct.pack("!L", len(chunk)) + chunk)
                if content is not None:
                    connection.sendall(struct.pack("!L", 0))
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has closed, and may have said why: StreamMaxLength
            return self._answer(connection, deadline)

    def _connected(self) -> socket.socket:
        from mailback.settings import listen_address

        address = listen_address(self._where)
        if address.family == "tcp":
            return socket.create_connection((address.host, address.port), timeout=self._timeout_s)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._timeout_s)
        try:
            connection.connect(address.host)
        except OSError:
            connection.close()
            raise
        return connection

    def _until(self, connection: socket.socket, deadline: float) -> None:
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError(f"no answer within {self._timeout_s:g} s")
        connection.settimeout(left)

    def _answer(self, connection: socket.socket, deadline: float) -> str:
        said = b""
        while b"\0" not in said and len(said) < _ANSWER_CAP:
            self._until(connection, deadline)
            try:
                more = connection.recv(_ANSWER_CAP)
            except ConnectionResetError:
                break
            if not more:
                break
            said += more
        return said.partition(b"\0")[0].decode("utf-8", "replace").strip()


def _read(said: str) -> Scan:
    """`stream: OK`, `stream: NAME FOUND`, `... ERROR`."""
    if said.endswith(" FOUND"):
        name = said.removesuffix(" FOUND").partition(":")[2]
        return Scan(found=_NAME.sub("_", name.strip())[:_LONGEST_NAME] or "unnamed")
    if said == "stream: OK":
        return Scan()
    if "size limit exceeded" in said:
        raise ClamdError("its StreamMaxLength is smaller than safety.clamd_max_bytes")
    raise ClamdError(f"answers {said[:80]!r}" if said else "hung up without an answer")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

"""A server that speaks clamd's protocol on loopback: INSTREAM and VERSION, with the faults that a real one can have."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VIRUS = b"X5O!P%@AP-not-a-virus-but-a-test-of-mailback"


class Scanner:
    """What the server does, and what it has seen."""

    def __init__(self) -> None:
        self.where = ""
        self.streams: list[bytes] = []
        self.limit = 1 << 26
        self.mode = "scan"
        """`scan`, `hang`, `hang up`, `error`, or a whole answer."""
        self.released = threading.Event()


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        scanner: Scanner = self.server.scanner  # type: ignore[attr-defined]
        command = self._until_nul()
        if scanner.mode == "hang up":
            return
        if scanner.mode == "hang":
            scanner.released.wait(60)
            return
        if command == b"zVERSION":
            self._say(b"ClamAV 1.4.2/27500/Wed Nov 25 08:00:00 2026")
        elif command == b"zINSTREAM":
            self._scan(scanner)
        else:
            self._say(b"UNKNOWN COMMAND")

    def _scan(self, scanner: Scanner) -> None:
        stream = b""
        while size := struct.unpack("!L", self.rfile.read(4))[0]:
            stream += self.rfile.read(size)
            if len(stream) > scanner.limit:
                self._say(b"INSTREAM size limit exceeded. ERROR")
                return
        scanner.streams.append(stream)
        if scanner.mode == "scan":
            self._say(b"stream: Test.Virus-1 FOUND" if VIRUS in stream else b"stream: OK")
        else:
            self._say(scanner.mode.encode())

    def _until_nul(self) -> bytes:
        said = b""
        while (octet := self.rfile.read(1)) not in (b"", b"\0"):
            said += octet
        return said

    def _say(self, answer: bytes) -> None:
        self.wfile.write(answer + b"\0")


class _Tcp(socketserver.ThreadingTCPServer):
    scanner: Scanner
    daemon_threads = True
    allow_reuse_address = True


class _Unix(socketserver.ThreadingUnixStreamServer):
    scanner: Scanner
    daemon_threads = True


@contextmanager
def scanner_at(path: Path | None = None) -> Iterator[Scanner]:
    """A scanner at a unix socket, or at a free port of loopback."""
    scanner = Scanner()
    server: _Tcp | _Unix
    if path is None:
        server = _Tcp(("127.0.0.1", 0), _Connection)
        scanner.where = f"inet:{server.server_address[1]}@127.0.0.1"
    else:
        server = _Unix(str(path), _Connection)
        scanner.where = f"unix:{path}"
    server.scanner = scanner
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield scanner
    finally:
        scanner.released.set()
        server.shutdown()
        server.server_close()
        thread.join(10)

"""The MTA's end of the milter protocol, version 6, spoken over a unix socket."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from pathlib import Path

DEADLINE_S = 10.0

# The milter protocol, version 6: actions, steps and macro stages as numbers on the wire (libmilter's mfdef.h).
ADD, CHANGE, HOLD, MACROS = 0x01, 0x10, 0x20, 0x100
NO_CONNECT, NO_END_OF_HEADER, NO_UNKNOWN, NO_DATA = 0x01, 0x40, 0x100, 0x200
QUIET = {b"C": 0x1000, b"H": 0x2000, b"M": 0x4000, b"L": 0x80, b"B": 0x80000}
LEADING_SPACE = 0x100000
EVERYTHING = 0x1FFFFF
STAGES = {0: "connect", 1: "helo", 2: "mail", 3: "rcpt", 4: "data", 5: "end of message", 6: "end of header"}


def wire(command: bytes, data: bytes = b"") -> bytes:
    return struct.pack("!I", len(data) + 1) + command + data


class Mta:
    """The other end of the protocol: what Postfix does, with every choice in the hand of the test."""

    def __init__(self, path: Path, actions: int = 0x1FF, steps: int = EVERYTHING) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_S)
        self.file = self.socket.makefile("rb")
        try:
            self._negotiate(path, actions, steps)
        except BaseException:
            self.hang_up()
            raise

    def _negotiate(self, path: Path, actions: int, steps: int) -> None:
        self.socket.connect(str(path))
        self._send(b"O", struct.pack("!III", 6, actions, steps))
        command, data = self.receive()
        assert command == b"O"
        _, self.actions, self.steps = struct.unpack("!III", data[:12])
        self.in_header = False
        self.asked: dict[str, str] = {}
        rest = data[12:]
        while rest:
            (stage,) = struct.unpack("!I", rest[:4])
            names, _, rest = rest[4:].partition(b"\0")
            self.asked[STAGES[stage]] = names.decode()

    def _send(self, command: bytes, data: bytes = b"") -> None:
        self.socket.sendall(wire(command, data))

    def receive(self) -> tuple[bytes, bytes]:
        head = self.file.read(4)
        if len(head) < 4:
            raise EOFError("the milter hung up")
        packet = self.file.read(struct.unpack("!I", head)[0])
        return packet[:1], packet[1:]

    def say(
        self, command: bytes, data: bytes = b"", macros: Mapping[str, str] | None = None
    ) -> tuple[bytes, bytes] | None:
        """Send one step, with macros before it; its answer, or None where none was negotiated."""
        if macros:
            named = {name if len(name) == 1 else f"{{{name}}}": value for name, value in macros.items()}
            pairs = b"".join(f"{name}\0{value}\0".encode("utf-8", "surrogateescape") for name, value in named.items())
            self._send(b"D", command + pairs)
        self._send(command, data)
        return None if self.steps & QUIET.get(command, 0) else self.receive()

    def helo(self, name: bytes = b"mx.far.example") -> None:
        assert self.say(b"H", name + b"\0") in (None, (b"c", b""))

    def mail(self, sender: str = "<joe@far.example>", **macros: str) -> None:
        known = {"daemon_name": "mx", "client_addr": "203.0.113.9", "client_name": "mx.far.example"} | macros
        assert self.say(b"M", sender.encode() + b"\0", {k: v for k, v in known.items() if v}) in (None, (b"c", b""))

    def recipient(self, address: str = "<news@news.example>") -> tuple[bytes, bytes]:
        answer = self.say(b"R", address.encode() + b"\0")
        assert answer is not None
        return answer

    def data(self) -> bytes:
        self.in_header = True
        if self.steps & NO_DATA:
            return b"c"
        answer = self.say(b"T")
        assert answer is not None
        return answer[0]

    def header(self, name: str, value: bytes) -> None:
        assert self.say(b"L", name.encode() + b"\0" + value + b"\0") in (None, (b"c", b""))

    def end_header(self) -> None:
        if self.in_header and not self.steps & NO_END_OF_HEADER:
            assert self.say(b"N") in (None, (b"c", b""))
        self.in_header = False

    def body(self, chunk: bytes) -> bytes:
        self.end_header()
        answer = self.say(b"B", chunk)
        return b"c" if answer is None else answer[0]

    def end(self, **macros: str) -> list[tuple[bytes, bytes]]:
        """End the message; the changes asked for, and last the answer."""
        self.end_header()
        said = [self.say(b"E", macros=macros)]
        while said[-1] is not None and said[-1][0] in b"ihmq":
            said.append(self.receive())
        return [packet for packet in said if packet is not None]

    def message(self, sender: str = "<joe@far.example>", **macros: str) -> list[tuple[bytes, bytes]]:
        """A whole message, of the smallest kind."""
        self.mail(sender, **macros)
        assert self.recipient() == (b"c", b"")
        assert self.data() == b"c"
        self.header("Subject", b" hello")
        assert self.body(b"hello\r\n") == b"c"
        return self.end(i="4A1")

    def abort(self) -> None:
        self._send(b"A")

    def close(self) -> None:
        """End the conversation as the protocol wants it."""
        self._send(b"Q")
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection without a word."""
        self.file.close()
        self.socket.close()

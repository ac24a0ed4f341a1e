"""The milter protocol on the wire, version 6, as Postfix and sendmail speak it: packets, and nothing about mail.

A packet is a length (four octets, of what follows), a command of one octet, and data. There is no RFC; Postfix
describes what it speaks in MILTER_README and in its source (milter8.c), sendmail in libmilter (mfdef.h), whose names
the constants here keep in words.

Emits no log events.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

VERSION = 6
PACKET_MAX = 2 << 20
"""Octets; Postfix sends bodies by 64 kB and a header field of 100 kB at most (header_size_limit)."""


class Command:
    """What the MTA says."""

    ABORT = ord("A")
    BODY = ord("B")
    CONNECT = ord("C")
    MACRO = ord("D")
    END_OF_MESSAGE = ord("E")
    HELO = ord("H")
    QUIT_NEW_CONNECTION = ord("K")
    HEADER = ord("L")
    MAIL = ord("M")
    END_OF_HEADER = ord("N")
    NEGOTIATE = ord("O")
    QUIT = ord("Q")
    RECIPIENT = ord("R")
    DATA = ord("T")
    UNKNOWN = ord("U")


class Action:
    """What a milter asks to be allowed (SMFIF_)."""

    ADD_FIELDS = 0x01
    ADD_RECIPIENT = 0x04
    REMOVE_RECIPIENT = 0x08
    CHANGE_FIELDS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    CHOOSE_MACROS = 0x100


class Step:
    """How the MTA may shorten the conversation (SMFIP_): steps not told, steps that it expects no answer to."""

    NO_CONNECT = 0x01
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    NO_END_OF_HEADER = 0x40
    SKIP_ALLOWED = 0x400
    QUIET_HEADER = 0x80
    QUIET_CONNECT = 0x1000
    QUIET_HELO = 0x2000
    QUIET_MAIL = 0x4000
    QUIET_BODY = 0x80000
    LEADING_SPACE = 0x100000
    """Header values come and go with the space after the colon."""


class Stage:
    """For which macros are chosen (SMFIM_)."""

    CONNECT, HELO, MAIL, RECIPIENT, DATA, END_OF_MESSAGE, END_OF_HEADER = range(7)


class ProtocolError(Exception):
    """The peer does not speak the milter protocol."""


def packet(command: bytes, data: bytes = b"") -> bytes:
    """One packet."""
    return struct.pack("!I", len(data) + 1) + command + data


# What a milter answers.
SILENCE = b""
CONTINUE = packet(b"c")
ACCEPT = packet(b"a")
DISCARD = packet(b"d")
SKIP = packet(b"s")


def negotiated(version: int, actions: int, steps: int, macros: Iterable[tuple[int, str]]) -> bytes:
    """The answer to the opening; `macros` are those wanted, by stage."""
    chosen = b"".join(struct.pack("!I", stage) + names.encode() + b"\0" for stage, names in macros)
    return packet(b"O", struct.pack("!III", min(version, VERSION), actions, steps) + chosen)


def reply(code: int, enhanced: str, text: str) -> bytes:
    """An SMTP reply of the milter's own; `text` must be one line without `%`."""
    return packet(b"y", f"{code} {enhanced} {text}".encode() + b"\0")


def insert_field(index: int, name: str, value: str) -> bytes:
    """Put a header field in at a place; 0 is the top."""
    return packet(b"i", struct.pack("!I", index) + f"{name}\0{value}\0".encode())


def remove_field(index: int, name: bytes) -> bytes:
    """Remove the field that is the index-th of its name, from 1."""
    return packet(b"m", struct.pack("!I", index) + name + b"\0\0")


def change_sender(address: str) -> bytes:
    """Another envelope sender. Parameters are left out: the message keeps those of MAIL, RET and ENVID among them."""
    return packet(b"e", f"<{address}>".encode() + b"\0")


def change_field(index: int, name: bytes, value: bytes) -> bytes:
    """Another value for the field that is the index-th of its name, from 1; folds end with LF."""
    return packet(b"m", struct.pack("!I", index) + name + b"\0" + value + b"\0")


def add_recipient(address: str) -> bytes:
    """One more recipient."""
    return packet(b"+", f"<{address}>".encode() + b"\0")


def remove_recipient(address: str) -> bytes:
    """One recipient less; `address` as it was said at RCPT."""
    return packet(b"-", f"<{address}>".encode() + b"\0")


def replace_recipient(old: str, new: str) -> bytes:
    """Another recipient in the place of one; `old` as it was said at RCPT."""
    return remove_recipient(old) + add_recipient(new)


def quarantine(reason: str) -> bytes:
    """Hold the message."""
    return packet(b"q", reason.encode() + b"\0")


def packets(buffer: bytes) -> Iterator[tuple[int, bytes, int]]:
    """The complete packets of a buffer: command, data, and where the next one begins.

    Raises ProtocolError for a packet that nobody sends.
    """
    begin, size = 0, len(buffer)
    while size - begin >= _HEAD.size:
        length, command = _HEAD.unpack_from(buffer, begin)
        if not 0 < length <= PACKET_MAX:
            raise ProtocolError(f"a packet of {length} octets")
        end = begin + 4 + length
        if end > size:
            return
        yield command, buffer[begin + 5 : end], end
        begin = end


_HEAD = struct.Struct("!IB")
"""Of a packet: the length of what follows it, and the command that this begins with."""


def opening(data: bytes) -> tuple[int, int, int]:
    """Version, actions and steps that the MTA offers."""
    if len(data) < 12:
        raise ProtocolError(f"an opening of {len(data)} octets")
    version, actions, steps = struct.unpack_from("!III", data)
    return version, actions, steps


def macros(data: bytes) -> dict[str, str]:
    """The values of a set of macros, without the braces of long names; its first octet is their command."""
    parts = text(data[1:].removesuffix(b"\0")).split("\0")
    return {name.strip("{}"): value for name, value in zip(parts[::2], parts[1::2], strict=False)}


def peer(data: bytes) -> tuple[str, str | None]:
    """Name and IP address of the SMTP client, the latter None where it has none."""
    name, _, rest = data.partition(b"\0")
    if rest[:1] not in (b"4", b"6"):
        return text(name), None
    return text(name), text(rest[3:].partition(b"\0")[0]).removeprefix("IPv6:")


def text(octets: bytes) -> str:
    """As text; what is not UTF-8 is shown as `\\xff`, never as surrogates, which could not be stored."""
    return octets.decode("utf-8", "backslashreplace")

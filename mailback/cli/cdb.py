"""Writes a constant database (cdb), the read-only table that Postfix maps from disk (`cdb:` tables).

The format is D. J. Bernstein's: 256 pairs of offset and size, the records, then 256 hash tables, all numbers 32 bits,
little-endian. Postfix notices by itself that a table was replaced. Emits no log events.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from typing import BinaryIO

_PAIR = struct.Struct("<LL")
_TABLES = 256
_LARGEST = (1 << 32) - 1


def write(file: BinaryIO, records: Iterable[tuple[bytes, bytes]]) -> int:
    """Write the records to an empty, seekable file; how many. Raises ValueError past the 4 GB it can address."""
    at = _TABLES * _PAIR.size
    file.write(bytes(at))  # the pointers, written last
    hashes = [array("L") for _ in range(_TABLES)]  # hash, offset, hash, offset, ...
    count = 0
    for key, value in records:
        told = hash_of(key)
        hashes[told & 0xFF].extend((told, at))
        file.write(_PAIR.pack(len(key), len(value)) + key + value)
        at += _PAIR.size + len(key) + len(value)
        count += 1
        if at > _LARGEST:
            raise ValueError("a cdb file cannot hold more than 4 GB")
    pointers = []
    for entries in hashes:
        slots = len(entries)  # two numbers an entry, so twice as many slots as entries: half of them stay free
        pointers.append((at, slots))
        file.write(_table(entries, slots))
        at += slots * _PAIR.size
    file.seek(0)
    file.write(b"".join(_PAIR.pack(*pointer) for pointer in pointers))
    return count


def _table(entries: array[int], slots: int) -> bytes:
    table = bytearray(slots * _PAIR.size)
    for n in range(0, len(entries), 2):
        told, offset = entries[n], entries[n + 1]
        slot = (told >> 8) % slots
        while _PAIR.unpack_from(table, slot * _PAIR.size)[1]:  # no record lies at offset 0, so 0 is a free slot
            slot = (slot + 1) % slots
        _PAIR.pack_into(table, slot * _PAIR.size, told, offset)
    return bytes(table)


def hash_of(key: bytes) -> int:
    """The format's hash: 5381, then `h * 33 ^ c`, in 32 bits."""
    told = 5381
    for octet in key:
        told = ((told << 5) + told & 0xFFFFFFFF) ^ octet
    return told

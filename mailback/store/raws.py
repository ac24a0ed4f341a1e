"""Messages as they came in, by the hash that their events refer to. Standard library only. Emits no log events.

They are packed, and of a very long one the beginning is kept: it holds the header, the words and the report, and what
is behind it is the returned original or an attachment.
"""

from __future__ import annotations

import sqlite3
import zlib
from datetime import datetime

from mailback.store import codec
from mailback.store.journal import Fetch

MOST = 65_536
"""Octets that are kept of one message; packing them takes some milliseconds, while others wait to write."""
_PUT = "INSERT INTO raw (sha256, at, message) VALUES (?, ?, ?) ON CONFLICT (sha256) DO NOTHING"
_FIND = "SELECT message FROM raw WHERE sha256 = ?"
_FORGET = "DELETE FROM raw WHERE sha256 IN (SELECT sha256 FROM raw WHERE at < ? ORDER BY at LIMIT ?)"
_KNOWN = "SELECT 1 FROM raw WHERE sha256 = ?"


def keep(connection: sqlite3.Connection, sha256: str, raw: bytes, at: datetime) -> None:
    """Keep a message; one that is kept already stays as it is."""
    if connection.execute(_KNOWN, (sha256,)).fetchone() is None:
        connection.execute(_PUT, (sha256, codec.ticks(at), zlib.compress(raw[:MOST], 6)))


def find(fetch: Fetch, sha256: str) -> bytes | None:
    """A message, or its first `MOST` octets; None where it is not kept, or not any more."""
    rows = fetch(_FIND, (sha256,))
    return zlib.decompress(rows[0][0]) if rows else None


def forget(connection: sqlite3.Connection, before: datetime, most: int) -> int:
    """Remove up to `most` messages from before that time, the oldest first; how many there were."""
    return connection.execute(_FORGET, (codec.ticks(before), most)).rowcount

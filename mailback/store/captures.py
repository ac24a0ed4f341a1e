"""Attempts to enter an address, within the store's transaction and for reading. Standard library only."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime

from mailback.store import codec
from mailback.store.records import Capture

_COLUMNS = "at, address, address_key, verdict, reasons, suggestion, domain, provider, source, actor"
_INSERT = f"INSERT INTO capture ({_COLUMNS}) VALUES ({','.join('?' * 10)})"
OF_ADDRESS = f"SELECT {_COLUMNS} FROM capture WHERE address_key = ? ORDER BY at, id"
_BEFORE = "DELETE FROM capture WHERE id IN (SELECT id FROM capture WHERE at < ? ORDER BY at LIMIT ?)"


def add(connection: sqlite3.Connection, capture: Capture) -> None:
    connection.execute(
        _INSERT,
        (
            codec.ticks(capture.at), codec.text(capture.address), capture.address_key, capture.verdict,
            json.dumps(capture.reasons), codec.optional_text(capture.suggestion), codec.optional_text(capture.domain),
            codec.optional_text(capture.provider), codec.optional_text(capture.source), codec.text(capture.actor),
        ),
    )  # fmt: skip


def forget(connection: sqlite3.Connection, before: datetime, most: int) -> int:
    """Remove up to `most` attempts from before that time; how many there were."""
    return connection.execute(_BEFORE, (codec.ticks(before), most)).rowcount


def capture_of(row: codec.Row) -> Capture:
    at, address, key, verdict, reasons, *rest = row
    return Capture(codec.moment(at), address, key, verdict, tuple(json.loads(reasons)), *rest)

"""Erasing an address: everything about it goes, and what is left is a keyed hash that still suppresses.

The key is a file beside the database, made at the first erasure: without it nobody can try addresses against the hashes
in a copy of the database. Back it up with the database; where it is lost, erased addresses are mailed again. As long as
there is no such file, a look-up costs nothing more.

The audit trail is rewritten for an erasure, which is the one exception to its rule: rows about the address tell the
hash instead, the chain is made anew from the first of them on, and a row tells that it was done, by whom, and which
hash the chain ended with before. A copy of that last hash still proves that nothing else was changed before it.

What stays: an address within free text of events about somebody else (a server's words naming another user), and
copies outside: backups, logs, exports. Standard library only, because look-ups use it. Emits no log events.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from mailback.store.places import QUEUED

_PREFIX = "erased:"
"""No address begins so: it has no @."""
_SUFFIX = ".erasure.key"
_DIGITS = 40
LOOKED_FOR_S = 1.0
"""How often a process that knows of no key looks whether there is one by now."""

_BY_KEY = (
    ("wave_member", "address_key"), ("engagement", "address_key"),
    ("retry", "address_key"), ("subscriber_change", "address_key"), ("subscriber", "address_key"),
    ("score", "address_key"), ("probe", "address_key"), ("capture", "address_key"), ("review", "recipient_key"),
    ("suppression_change", "address_key"), ("suppression", "address_key"),
)  # fmt: skip
"""Tables whose rows are each about one address, and the column that tells which."""


ANY = f"SELECT 1 FROM suppression WHERE address_key >= '{_PREFIX}' AND address_key < '{_PREFIX[:-1]};' LIMIT 1"
"""Whether anybody was erased."""


class Erased:
    """The key of one database; knows the hash of an address once there is one."""

    def __init__(self, database: Path) -> None:
        self._file = key_file(database)
        self._key: bytes | None = None
        self._next = 0.0

    def hashed(self, key: str) -> str | None:
        """What stands in the place of an erased address (`mailback.address.key`); None where nothing was erased yet."""
        if self._key is None and time.monotonic() >= self._next:
            self._next = time.monotonic() + LOOKED_FOR_S
            with contextlib.suppress(FileNotFoundError):
                self._key = self._file.read_bytes()
        return None if self._key is None else _hash(self._key, key)


def is_hash(key: str) -> bool:
    """Whether a row is about an erased address."""
    return key.startswith(_PREFIX)


def key_file(database: Path) -> Path:
    """Where the key of a database lies."""
    return database.with_name(database.name + _SUFFIX)


def make_key(database: Path) -> bool:
    """Make the key if there is none, for whoever owns the database; whether it is new. Raises OSError."""
    file = key_file(database)
    owner = database.stat()
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as made:
        made.write(secrets.token_bytes(32))
        made.flush()
        os.fchmod(descriptor, owner.st_mode & 0o640)
        if os.geteuid() == 0 and owner.st_uid != 0:  # the unit's sandbox allows no chown
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.fsync(descriptor)
    return True


def erase(connection: sqlite3.Connection, key: str, hashed: str) -> int:
    """Remove every row about an address, and its name from the audit trail; how many rows were removed.

    Within the caller's transaction. What was deleted is overwritten in the file as well (`secure_delete`).
    """
    connection.execute("PRAGMA secure_delete = ON")
    found = connection.execute(_EVENTS, (key, key, key)).fetchall()
    events = [event for event, _ in found]
    removed = len(events)
    connection.executemany("DELETE FROM raw WHERE sha256 = ?", [(sha256,) for _, sha256 in found if sha256])
    connection.executemany("DELETE FROM event WHERE id = ?", [(event,) for event in events])
    removed += sum(
        connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (key,)).rowcount for table, column in _BY_KEY
    )
    removed += _erase_journal(connection, key)
    connection.execute(_UNDER_WAY, (f"{QUEUED}%", key, json.dumps(key)[1:-1]))
    connection.execute("UPDATE breaker SET probe_key = NULL WHERE probe_key = ?", (key,))
    connection.executemany("DELETE FROM rate WHERE cause LIKE ? ESCAPE '\\'", [(f"%{_escaped(key)}%",)])
    _reseal(connection, key, hashed)
    return removed


_EVENTS = (
    "SELECT id, raw_sha256 FROM event WHERE recipient_key = ? OR lower(final_recipient) = ?"
    " OR lower(envelope_sender) = ?"
)


_UNDER_WAY = "DELETE FROM place WHERE name LIKE ? AND (instr(lower(name), ?) OR instr(lower(position), lower(?)))"


def _erase_journal(connection: sqlite3.Connection, key: str) -> int:
    """What went to the address alone goes; of what went to others too, that it went to this one."""
    ids = [row[0] for row in connection.execute(
        "SELECT journal_id FROM journal_recipient WHERE recipient_key = ?", (key,)
    )]  # fmt: skip
    connection.execute("DELETE FROM journal_recipient WHERE recipient_key = ?", (key,))
    alone = (
        "DELETE FROM journal WHERE id = ? AND NOT EXISTS"
        " (SELECT 1 FROM journal_recipient WHERE journal_id = journal.id)"
    )
    connection.executemany(alone, [(number,) for number in ids])
    return len(ids)


def _reseal(connection: sqlite3.Connection, key: str, hashed: str) -> None:
    """Put the hash for the address into the audit trail, and make the chain anew from there."""
    from mailback.store import audit as trail
    from mailback.store.codec import canonical_json

    rows = connection.execute(
        "SELECT sequence, at, actor, verb, subject, detail, previous_hash, hash FROM audit"
        " WHERE sequence >= (SELECT min(sequence) FROM audit WHERE subject = ?1"
        " OR instr(lower(detail), lower(?2)) OR instr(lower(actor), ?1)) ORDER BY sequence",
        (key, json.dumps(key)[1:-1]),
    ).fetchall()
    if not rows:
        return
    [(trigger,)] = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = 'audit_no_update'"
    )
    connection.execute("DROP TRIGGER audit_no_update")
    previous = rows[0][6]
    for sequence, at, actor, verb, subject, detail, _, _ in rows:
        line = trail.Line(
            sequence, at, _without(actor, key, hashed), verb, hashed if subject == key else subject,
            canonical_json(_plain(json.loads(detail), key, hashed)),
        )  # fmt: skip
        told = trail.chain_hash(previous, line)
        connection.execute(
            "UPDATE audit SET actor = ?, subject = ?, detail = ?, previous_hash = ?, hash = ? WHERE sequence = ?",
            (line.actor, line.subject, line.detail, previous, told, sequence),
        )
        previous = told
    connection.execute(trigger)


def _plain(value: object, key: str, hashed: str) -> object:
    if isinstance(value, str):
        return _without(value, key, hashed)
    if isinstance(value, list):
        return [_plain(item, key, hashed) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item, key, hashed) for name, item in value.items()}
    return value


def _without(text: str, key: str, hashed: str) -> str:
    return re.sub(re.escape(key), hashed, text, flags=re.IGNORECASE) if "@" in text else text


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _hash(secret: bytes, key: str) -> str:
    return _PREFIX + hmac.digest(secret, key.encode("utf-8", "surrogatepass"), "sha256").hex()[:_DIGITS]


def tables() -> Iterator[tuple[str, str]]:
    """The tables that are about one address each, with their column; a test holds the schema to them."""
    yield from _BY_KEY

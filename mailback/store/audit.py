"""The append-only trail: who did what to which address, each row carrying the hash of the one before.

A row's hash is SHA-256 over the previous hash and the row as canonical JSON. Rows are added inside the transaction of the
change they tell of, under SQLite's single write lock, so the chain holds across processes. Triggers refuse UPDATE, DELETE
and gaps; the chain shows what was changed around them. It cannot show rows cut off at the *end*: who must prove that
keeps the last hash elsewhere (`mailback store check` prints it).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mailback.store.codec import Row, canonical_json, moment
from mailback.store.records import AuditEntry

FIRST_PREVIOUS = "0" * 64


@dataclass(slots=True)
class Tail:
    """The end of the chain, as the running transaction sees it."""

    sequence: int
    hash: str


def chain_hash(previous: str, sequence: int, at: int, actor: str, verb: str, subject: str, detail: str) -> str:
    """The hash of one row; `detail` is its JSON text as stored, so that verifying needs no second encoding of it."""
    line = previous + canonical_json([sequence, at, actor, verb, subject, detail])
    return hashlib.sha256(line.encode("ascii")).hexdigest()


def append(tail: Tail, at: int, actor: str, verb: str, subject: str, detail: Mapping[str, object]) -> Row:
    """The next row of the chain; moves `tail` on."""
    stored = canonical_json(detail)
    sequence, previous = tail.sequence + 1, tail.hash
    tail.sequence = sequence
    tail.hash = chain_hash(previous, sequence, at, actor, verb, subject, stored)
    return (sequence, at, actor, verb, subject, stored, previous, tail.hash)


@dataclass(frozen=True, slots=True)
class Verification:
    """What walking the chain found."""

    rows: int
    last_hash: str
    broken_at: int | None
    """Sequence of the first row that does not follow from the one before; None when the chain holds."""
    problem: str | None

    @property
    def holds(self) -> bool:
        return self.broken_at is None


def verify(rows: Iterable[tuple[int, int, str, str, str, str, str, str]]) -> Verification:
    """Walk the rows in order of sequence and find the first that is missing, moved or changed."""
    count, expected = 0, FIRST_PREVIOUS
    for sequence, at, actor, verb, subject, detail, previous, told in rows:
        problem = None
        if sequence != count + 1:
            problem = f"row {count + 1} is missing"
        elif previous != expected:
            problem = "does not follow from the row before it"
        elif told != chain_hash(previous, sequence, at, actor, verb, subject, detail):
            problem = "was changed after it was written"
        if problem:
            return Verification(count, expected, sequence, problem)
        count, expected = sequence, told
    return Verification(count, expected, None, None)


def entry_of(row: tuple[int, int, str, str, str, str, str, str]) -> AuditEntry:
    sequence, at, actor, verb, subject, detail, previous, own = row
    return AuditEntry(sequence, moment(at), actor, verb, subject, json.loads(detail), previous, own)

"""The append-only trail: who did what to which address, each row carrying the hash of the one before.

A row's hash is SHA-256 over the previous hash and the row as canonical JSON. Rows are added inside the transaction of
the change they tell of, under SQLite's single write lock, so the chain holds across processes. Triggers refuse UPDATE,
DELETE and gaps; the chain shows what was changed around them. It cannot show rows cut off at the *end*: who must prove
that none are keeps `Verification.last_hash` elsewhere from time to time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mailback.store.codec import canonical_json, moment
from mailback.store.records import AuditEntry

FIRST_PREVIOUS = "0" * 64


@dataclass(slots=True)
class Tail:
    """The end of the chain, as the running transaction sees it."""

    sequence: int
    hash: str


class Line(NamedTuple):
    """What a row tells, as stored; the hashes stand beside it."""

    sequence: int
    at: int
    actor: str
    verb: str
    subject: str
    detail: str
    """Canonical JSON; hashed as text, so that verifying needs no second encoding of it."""


Stored = tuple[int, int, str, str, str, str, str, str]
"""A row of the table: a line, the hash before it, its own."""


def chain_hash(previous: str, line: Line) -> str:
    return hashlib.sha256((previous + canonical_json(line)).encode("ascii")).hexdigest()


def append(tail: Tail, *, at: int, actor: str, verb: str, subject: str, detail: Mapping[str, object]) -> Stored:
    """The next row of the chain; moves `tail` on."""
    line = Line(tail.sequence + 1, at, actor, verb, subject, canonical_json(detail))
    previous = tail.hash
    tail.sequence, tail.hash = line.sequence, chain_hash(previous, line)
    return (*line, previous, tail.hash)


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


def verify(rows: Iterable[Stored]) -> Verification:
    """Walk the rows in order of sequence and find the first that is missing, moved or changed."""
    count, expected = 0, FIRST_PREVIOUS
    for row in rows:
        line, previous, told = Line(*row[:6]), row[6], row[7]
        problem = None
        if line.sequence != count + 1:
            problem = f"row {count + 1} is missing"
        elif previous != expected:
            problem = "does not follow from the row before it"
        elif told != chain_hash(previous, line):
            problem = "was changed after it was written"
        if problem:
            return Verification(count, expected, line.sequence, problem)
        count, expected = line.sequence, told
    return Verification(count, expected, None, None)


def entry_of(row: Stored) -> AuditEntry:
    sequence, at, actor, verb, subject, detail, previous, own = row
    return AuditEntry(sequence, moment(at), actor, verb, subject, json.loads(detail), previous, own)

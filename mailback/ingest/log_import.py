"""`mailback ingest postfix-log`: logs that are there, each from where reading ended to its end.

Place, events and the state of messages still in the queue are one transaction, so reading may be interrupted at any
instant and goes on there. Reading a log again, or by another way (the journal, a copy), records nothing twice: an
outcome is told by what it says, not by where it stood.

Emits no log events.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, BinaryIO

from mailback.ingest import logfiles, syslog
from mailback.ingest.feed import Feed
from mailback.ingest.logfiles import Piece
from mailback.ingest.postfix_log import DeliveryLog
from mailback.observation import Observation
from mailback.store.places import QUEUED

if TYPE_CHECKING:
    from mailback.store import Store, Transaction

PLACE = "log:"
"""How the names of places begin that tell how far a log was read."""
_EXPORT = b"__CURSOR="
_BATCH = 5_000
"""Observations that are handed over at once, at most; the recipients of an expired message of a mailing list are many.
"""


class LogReader:
    """Reads pieces of logs into outcomes and hands them over with their place."""

    def __init__(self, store: Store, feed: Feed, log: DeliveryLog) -> None:
        self._feed = feed
        self.log = log
        log.restore(((place.name, place.position) for place in store.places(QUEUED)), datetime.now(UTC))

    def take(self, observations: Sequence[Observation], name: str | None, position: dict[str, Any]) -> None:
        """Hand outcomes over with the place behind them and the state of the queue. Raises StoreUnavailable."""
        states, gone = self.log.changes()

        def then(transaction: Transaction) -> None:
            for queued, state in states:
                transaction.put_place(queued, state)
            for queued in gone:
                transaction.forget_place(queued)
            if name is not None:
                transaction.put_place(name, position)

        for begin in range(0, max(0, len(observations) - _BATCH), _BATCH):
            self._feed.send(observations[begin : begin + _BATCH], _nothing)
        self._feed.send(observations[(len(observations) - 1) // _BATCH * _BATCH if observations else 0 :], then)

    def finish(self) -> None:
        """Return when everything handed over is durable. Raises StoreUnavailable."""
        self._feed.finish()

    def outcomes(self, piece: Piece, lines: syslog.Lines | None) -> list[Observation]:
        """What the lines of a piece tell; without `lines` it is in the journal's export format."""
        found: list[Observation] = []
        read, tally = self.log.read, self.log.tally
        records = _exported(piece.data) if lines is None else map(lines.record, _split(piece.data))
        for record in records:
            tally.lines += 1
            if record is not None:
                found += read(record)
        return found


def _nothing(_: Transaction) -> None:
    pass


def _split(data: bytes) -> list[str]:
    return data.decode("utf-8", "replace").removesuffix("\n").split("\n")


def _exported(data: bytes) -> Iterator[syslog.Record | None]:
    return map(syslog.of_journal, syslog.export_records(data))


def read_log(
    reader: LogReader,
    store: Store,
    path: str,
    *,
    zone: tzinfo | None = None,
    year: int | None = None,
    again: bool = False,
    step: Callable[[int], None] = lambda _: None,
) -> None:
    """Read one log from its place to its end; `step` is told the octets read (not compressed) since it was last called.

    Raises OSError, Damaged, StoreUnavailable; whatever was read before is kept.
    """
    with logfiles.open_log(path) as (stream, seekable):
        if seekable:
            name, first, start, year = _begin(stream, store, year, again=again)
            written = datetime.fromtimestamp(os.stat(0 if path == "-" else path).st_mtime, UTC)  # noqa: PTH116
        else:
            name, first, start = None, _peeked(stream), 0
            written = datetime.now(UTC)
        clock = syslog.Clock(written, zone, year)
        export = first.startswith(_EXPORT)
        lines = None if export else syslog.Lines(clock)
        separator = b"\n\n" if export else b"\n"
        at = start
        for piece in logfiles.pieces(stream, start, separator=separator, to_end=True):
            position = {"offset": piece.end, "tail": piece.tail, "path": path, "year": clock.year}
            observations = reader.outcomes(piece, lines)
            reader.take(observations, name if piece.tail else None, position)
            step(piece.end - at)
            at = piece.end


def _begin(
    stream: BinaryIO, store: Store, year: int | None, *, again: bool
) -> tuple[str | None, bytes, int, int | None]:
    """Position the log: the name of its place (None where it has none), its first octets, where reading begins, and
    the year there, where years are counted."""
    first = logfiles.first_octets(stream)
    known = logfiles.fingerprint(first)
    if known is None:
        return None, first, 0, year
    name = PLACE + known
    place = None if again else store.place(name)
    if place is None:
        return name, first, 0, year
    start = logfiles.resume(stream, place.position)
    return name, first, start, (place.position.get("year") or year) if start else year


def _peeked(stream: BinaryIO) -> bytes:
    """The first octets of what cannot be positioned."""
    peek = getattr(stream, "peek", None)
    return bytes(peek(16)[:16]) if peek is not None else b""

"""Messages that lie in a mailbox, through the same walk as those that come in: mbox files and Maildir folders.

What the SMTP conversation said is read from what the delivering server wrote into the message: Return-Path,
Delivered-To and the like, and the time from the mailbox itself, else from the uppermost Received field. Whoever wrote
such fields proves nothing by them: a signed return path is believed for its MAC only.

A message that was read is left where it is and as it is, unless told otherwise, and never removed unless told so.
Whatever is done to it (a flag, another folder, removal) is done once what follows from it is durable. Reading goes on
where it ended; a message that is read twice all the same is the same events.

Emits no log events. Raises OSError for what cannot be read or written, StoreUnavailable.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from mailback.envelope import Envelope, Source
from mailback.ingest import logfiles, mbox
from mailback.message import fields
from mailback.reports import addresses
from mailback.reports.dates import date
from mailback.store.errors import StoreUnavailable

if TYPE_CHECKING:
    from mailback.engine import Engine, Outcome
    from mailback.message import Headers
    from mailback.store import Store, Transaction

MBOX, MAILDIR = "mbox:", "maildir:"
"""How the names of places begin."""
_UNDER_WAY = 100
"""Messages that wait for their commit at once, and share it."""
_HEAD = 256 * 1024
_RECIPIENT_FIELDS = (
    "delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "x-delivered-to", "x-rcpt-to",
    "x-forwarded-to", "to",
)  # fmt: skip
"""Where delivering servers write the envelope's recipient; To last, since a report is addressed to a return path."""
_MOST_RECIPIENTS = 20
_KNOWN_BY = 1024
_PLACES_AT_ONCE = 500


class After(StrEnum):
    """What becomes of a message once it is recorded."""

    KEEP = "keep"
    SEEN = "seen"
    """Flagged as seen."""
    MOVE = "move"
    DELETE = "delete"


class NotAMailbox(Exception):  # noqa: N818 - a condition of the file
    """The path leads to something else."""


class MailFeed:
    """Hands messages to the engine, some under way at once, and does what belongs after each once it is durable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: deque[tuple[Future[Outcome], Callable[[], None]]] = deque()
        self.kinds: Counter[str] = Counter()
        self.failed = 0
        self.notes: Counter[str] = Counter()

    def send(self, raw: bytes, at: datetime | None, then: Callable[[], None], sender: str | None = None) -> None:
        """Hand a message over; `then` runs once it is durable. Raises StoreUnavailable, or what an earlier `then` did.

        `at` is when it came, where the mailbox tells; `sender` its envelope sender, likewise.
        """
        assessment = self._engine.assess(envelope_of(raw, at, sender), raw)
        self._waiting.append((self._engine.commit(assessment), then))
        while len(self._waiting) > _UNDER_WAY:
            self._settle()

    def finish(self) -> None:
        """Return when everything handed over is durable and dealt with. Raises as `send`."""
        while self._waiting:
            self._settle()

    def _settle(self) -> None:
        future, then = self._waiting.popleft()
        try:
            outcome = future.result()
        except StoreUnavailable:
            self._waiting.clear()
            raise
        except Exception:  # a fault of ours in one message costs that one; it stays where it is
            self.failed += 1
            return
        self.kinds[outcome.kind.value] += 1
        self.notes.update(note for note in outcome.notes if note.startswith("alert:"))
        then()


def envelope_of(raw: bytes, at: datetime | None, sender: str | None = None) -> Envelope:
    """The envelope of a message that was delivered."""
    groups = fields(raw[:_HEAD])
    if not groups:
        return Envelope(sender=sender or "", source=Source.MAILBOX, received_at=_not_ahead(at))
    head = groups[0]
    return_path = head.get("return-path")
    if return_path is not None:
        sender = return_path.partition("<")[2].partition(">")[0].strip() if "<" in return_path else return_path.strip()
    elif sender is None:
        sender = next(iter(addresses.of_header(head.get("from") or "")), "")
    return Envelope(
        sender=sender,
        recipients=_recipients(head),
        source=Source.MAILBOX,
        received_at=_not_ahead(at or _received(head)),
    )


def _recipients(head: Headers) -> tuple[str, ...]:
    found = [who for name in _RECIPIENT_FIELDS for value in head.get_all(name) for who in addresses.of_header(value)]
    return tuple(dict.fromkeys(found))[:_MOST_RECIPIENTS]


def _received(head: Headers) -> datetime | None:
    """When the uppermost server took it (RFC 5321 section 4.4), else when it says that it was written."""
    stamp = (head.get("received") or "").rpartition(";")[2]
    return date(stamp) or date(head.get("date"))


def _not_ahead(at: datetime | None) -> datetime:
    now = datetime.now(UTC)
    return min(at, now) if at is not None else now


# -- mbox --------------------------------------------------------------------------------------------------------


def read_mbox(
    store: Store, feed: MailFeed, path: str, *, again: bool = False, step: Callable[[int], None] = lambda _: None
) -> None:
    """Read an mbox (packed or not) from its place to its end.

    The place is written every some hundred messages, and is before the last one, which may still be being written: it
    is read again the next time if it has changed. Raises NotAMailbox, logfiles.Damaged.
    """
    with logfiles.open_log(path) as (stream, seekable):
        name = MBOX + hashlib.sha256(stream.read(_KNOWN_BY)).hexdigest()[:32] if seekable else None
        if name is not None:
            stream.seek(0)
        way = _Way(store, name, path)
        start, before = way.begin(stream, again=again)
        first = stream.readline(logfiles.LONGEST_LINE)
        if first and not mbox.is_mbox(first):
            raise NotAMailbox("is no mbox: its first line does not begin with 'From '")
        at = start
        for message in mbox.split(stream, first, start, before) if first else ():
            if not way.known(message):
                feed.send(message.raw, message.at, partial(way.passed, _mark(message)), message.sender)
            if message.end is not None:
                step(message.end - at)
                at = message.end
        feed.finish()
        way.end()


class _Mark(NamedTuple):
    """A message without its text."""

    what: str
    end: int | None
    tail: bytes


def _mark(message: mbox.Message) -> _Mark:
    return _Mark(hashlib.sha256(message.raw).hexdigest(), message.end, message.tail)


class _Way:
    """How far an mbox was read, and which message stood there."""

    def __init__(self, store: Store, name: str | None, path: str) -> None:
        self._store = store
        self._name = name
        self._position: dict[str, object] = {"offset": 0, "tail": "", "path": path}
        self._last: object = None
        """What marks the message before which reading ended, until one stands there again."""
        self._since = 0

    def begin(self, stream: BinaryIO, *, again: bool) -> tuple[int, bytes]:
        """Position the file; where that is, and the octets before it."""
        place = self._store.place(self._name) if self._name is not None and not again else None
        if place is None:
            return 0, b""
        start = logfiles.resume(stream, place.position)
        if start == (place.position.get("offset") or 0):
            self._last = place.position.get("last")
        stream.seek(max(0, start - logfiles.TAIL))
        before = stream.read(min(start, logfiles.TAIL))
        self._position |= {"offset": start, "tail": logfiles.hash_of(before)}
        return start, before

    def known(self, message: mbox.Message) -> bool:
        """Whether it is the last one of the time before, as it was then; to be asked of the first one at least."""
        before, self._last = self._last, None
        if before is None or before != _mark(message).what:
            return False
        self._go_to(_mark(message))
        return True

    def passed(self, mark: _Mark) -> None:
        """A message is durable, and so are all before it."""
        self._go_to(mark)
        self._since += 1
        if self._since >= _PLACES_AT_ONCE:
            self._put()

    def end(self) -> None:
        if self._since:
            self._put()

    def _go_to(self, mark: _Mark) -> None:
        if mark.end is None:
            self._position["last"] = mark.what
        else:
            self._position |= {"offset": mark.end, "tail": logfiles.hash_of(mark.tail), "last": None}

    def _put(self) -> None:
        self._since = 0
        if self._name is not None:
            name, position = self._name, dict(self._position)
            self._store.submit(lambda transaction: transaction.put_place(name, position)).result()


# -- Maildir -----------------------------------------------------------------------------------------------------


class Lying(NamedTuple):
    """One message of a Maildir."""

    path: Path
    name: str
    """Its unique name, the same whatever its flags and folder (`new` or `cur`)."""


def is_maildir(path: Path) -> bool:
    """Whether a folder has what every Maildir has."""
    return (path / "cur").is_dir() and (path / "new").is_dir()


class Maildir:
    """A Maildir: messages in `new` and `cur`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not is_maildir(path):
            raise NotAMailbox("is no Maildir: it has no folders new and cur")
        self._hash = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]

    def messages(self) -> Iterator[Lying]:
        """What lies there, by time of delivery."""
        found = [entry for part in ("new", "cur") for entry in (self.path / part).iterdir()]
        found = [entry for entry in found if not entry.name.startswith(".") and entry.is_file()]
        for entry in sorted(found, key=lambda entry: entry.name):
            yield Lying(entry, entry.name.partition(":2,")[0])

    def place(self, message: Lying) -> str:
        return f"{self.prefix}{message.name}"

    @property
    def prefix(self) -> str:
        """How the names of the places of its messages begin."""
        return f"{MAILDIR}{self._hash}:"


def read_maildir(
    store: Store,
    feed: MailFeed,
    path: Path,
    *,
    after: After = After.KEEP,
    to: Path | None = None,
    again: bool = False,
    step: Callable[[int], None] = lambda _: None,
) -> None:
    """Read what was not read yet of a Maildir, oldest first; `to` is the Maildir that messages are moved to.

    Which messages were read is remembered by name as long as they lie there. Raises NotAMailbox.
    """
    folder = Maildir(path)
    target = Maildir(to) if to is not None else None
    known = {place.name for place in store.places(folder.prefix)}
    there = list(folder.messages())
    _forget(store, known - {folder.place(message) for message in there})
    done: list[str] = []
    for message in there:
        step(1)
        if folder.place(message) in known and not again:
            continue
        try:
            with message.path.open("rb") as file:
                raw = file.read(mbox.MESSAGE_LIMIT)
            at = datetime.fromtimestamp(message.path.stat().st_mtime, UTC)
        except FileNotFoundError:
            continue  # a reader of the mailbox moved or removed it meanwhile

        def then(message: Lying = message) -> None:
            if after is After.KEEP or after is After.SEEN:
                done.append(folder.place(message))
            _deal(message, after, target)
            if len(done) >= _PLACES_AT_ONCE:
                _remember(store, done)

        feed.send(raw, at, then)
    feed.finish()
    _remember(store, done)


def _deal(message: Lying, after: After, target: Maildir | None) -> None:
    """Do with a message what is asked; one that is gone meanwhile needs nothing more."""
    with contextlib.suppress(FileNotFoundError):
        if after is After.DELETE:
            message.path.unlink()
        elif after is After.MOVE and target is not None:
            message.path.rename(target.path / "cur" / _flagged(message.path.name))
        elif after is After.SEEN:
            message.path.rename(message.path.parents[1] / "cur" / _flagged(message.path.name))


def _flagged(name: str) -> str:
    """The name of a message in `cur` with the flag for seen; flags stand in their order (maildir(5))."""
    unique, _, flags = name.partition(":2,")
    return f"{unique}:2,{''.join(sorted({*flags, 'S'}))}"


def _remember(store: Store, done: list[str]) -> None:
    names = list(done)
    done.clear()

    def put(transaction: Transaction) -> None:
        for name in names:
            transaction.put_place(name, {})

    if names:
        store.submit(put).result()


def _forget(store: Store, names: set[str]) -> None:
    def forget(transaction: Transaction) -> None:
        for name in names:
            transaction.forget_place(name)

    if names:
        store.submit(forget).result()

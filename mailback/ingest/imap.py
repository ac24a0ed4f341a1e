"""A folder of an IMAP server (RFC 9051, RFC 3501), read on from the last message that was read.

The place is UIDVALIDITY with the highest UID that was read. Where the server gave the folder a new UIDVALIDITY, its
UIDs mean nothing any more and the folder is read whole; that tells nothing twice, since a message is known by what it
says.

Messages are fetched with BODY.PEEK, so reading marks nothing as seen; without anything to do afterwards the folder is
opened for reading only. Nothing is expunged that was not ours to remove: imap-tools sends EXPUNGE with every change of
a flag, which would remove what *somebody else* has marked as deleted, so flags, moves and removals are sent by UID here
(UID MOVE of RFC 6851, UID EXPUNGE of RFC 4315). A server without UIDPLUS leaves what is removed marked as deleted.

Emits no log events. Raises `ImapError` with what to do, StoreUnavailable.
"""

from __future__ import annotations

import imaplib
import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mailback.ingest.mailbox import After, MailFeed

if TYPE_CHECKING:
    from imap_tools import BaseMailBox

    from mailback.store import Store

PLACE = "imap:"
"""How the names of places begin."""
TLS = ("implicit", "starttls", "none")
PORTS = {"implicit": 993, "starttls": 143, "none": 143}
LARGEST = 64 * 1024 * 1024
"""Octets of one message that are fetched."""
_AT_ONCE = 20
_TIMEOUT_S = 60.0
_UID = re.compile(rb"\bUID (\d+)")
_INTERNALDATE = re.compile(rb'\bINTERNALDATE "([^"]+)"')


class ImapError(Exception):
    """The server, or what is asked of it, cannot be used."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.what = what
        self.advice = advice


class Server(NamedTuple):
    """Where the folder lies, and who asks."""

    host: str
    port: int
    user: str
    password: str
    tls: str
    """One of `TLS`."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""

    @property
    def name(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


class Fetched(NamedTuple):
    """One message as the server gave it."""

    uid: int
    at: datetime | None
    raw: bytes


def connect(server: Server) -> BaseMailBox:
    """Connect and log in. The caller logs out."""
    import imap_tools

    try:
        box = _connected(server)
    except ssl.SSLError as error:
        raise ImapError(
            f"{server.host}: no TLS: {error.reason or error}",
            "give the name that stands in its certificate, --ca-file for one of your own authority, or another --tls",
        ) from error
    except (OSError, imaplib.IMAP4.error, imap_tools.errors.ImapToolsError) as error:
        raise ImapError(f"{server.host}:{server.port}: {error}", "check host, port and --tls") from error
    try:
        # LOGIN is ASCII; PLAIN takes any user name and password (RFC 4616).
        ascii_only = server.user.isascii() and server.password.isascii()
        (box.login if ascii_only else box.login_utf8)(server.user, server.password, initial_folder=None)
    except (imaplib.IMAP4.error, imap_tools.errors.ImapToolsError) as error:
        box.client.shutdown()
        raise ImapError(
            f"{server.name}: the server refuses the login", "check the user and what the password file holds"
        ) from error
    # What a server can do for a user it tells after the login only (MOVE, UIDPLUS); imaplib asked before.
    _, told = box.client.capability()
    box.client.capabilities = tuple((told[-1] or b"").decode("ascii", "replace").upper().split())
    return box


def _connected(server: Server) -> BaseMailBox:
    from imap_tools import MailBox, MailBoxStartTls, MailBoxUnencrypted

    if server.tls == "none":
        return MailBoxUnencrypted(server.host, server.port, _TIMEOUT_S)
    context = ssl.create_default_context(cafile=str(server.ca_file) if server.ca_file else None)
    if server.tls == "starttls":
        return MailBoxStartTls(server.host, server.port, _TIMEOUT_S, ssl_context=context)
    return MailBox(server.host, server.port, _TIMEOUT_S, ssl_context=context)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder as it is read, and what becomes of its messages."""

    box: BaseMailBox
    server: Server
    name: str
    after: After = After.KEEP
    to: str | None = None
    """The folder that messages are moved to."""

    def read(
        self,
        store: Store,
        feed: MailFeed,
        *,
        again: bool = False,
        begun: Callable[[int], None] = lambda _: None,
        step: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Read what was not read yet; `begun` is told how many messages that are, `step` each time some are done."""
        try:
            validity = self._open()
            known = store.place(self.place)
            read = 0
            if known is not None and not again and known.position.get("uidvalidity") == validity:
                read = int(known.position.get("uid") or 0)
            uids = sorted(uid for uid in map(int, self.box.uids(f"UID {read + 1}:*", charset=None)) if uid > read)
            begun(len(uids))
            for start in range(0, len(uids), _AT_ONCE):
                wanted = uids[start : start + _AT_ONCE]
                self._read_some(feed, wanted)
                _remember(store, self.place, {"uidvalidity": validity, "uid": wanted[-1]})
                step(len(wanted))
        except (imaplib.IMAP4.abort, OSError) as error:
            raise ImapError(
                f"{self.server.name}: the connection broke ({error})", "run it again: it goes on there"
            ) from error
        except imaplib.IMAP4.error as error:
            raise ImapError(f"{self.server.name}: {error}", "look at the server's log") from error

    @property
    def place(self) -> str:
        """How the place of this folder is called."""
        return f"{PLACE}{self.server.name}/{self.name}"

    def _open(self) -> int:
        """Select the folder; its UIDVALIDITY, which servers must tell (RFC 9051 section 2.3.1.1)."""
        if self.to is not None:
            _select(self.box, self.to, readonly=True)  # told now, and not after a day's reading
        _select(self.box, self.name, readonly=self.after is After.KEEP)
        _, told = self.box.client.response("UIDVALIDITY")
        return int(told[-1]) if told and told[-1] is not None and bytes(told[-1]).isdigit() else 0

    def _read_some(self, feed: MailFeed, uids: Sequence[int]) -> None:
        done: list[int] = []
        for message in _fetch(self.box, uids):
            feed.send(message.raw, message.at, partial(done.append, message.uid))
        feed.finish()
        _deal(self.box, done, self.after, self.to)


def _remember(store: Store, name: str, position: dict[str, int]) -> None:
    store.submit(lambda transaction: transaction.put_place(name, position)).result()


def _select(box: BaseMailBox, folder: str, *, readonly: bool) -> None:
    from imap_tools.errors import MailboxFolderSelectError

    try:
        box.folder.set(folder, readonly)
    except MailboxFolderSelectError as error:
        raise ImapError(f"the server has no folder {folder!r} for this user", "create it, or give another") from error


def _fetch(box: BaseMailBox, uids: Sequence[int]) -> Iterator[Fetched]:
    """The messages; those that are gone meanwhile are left out."""
    numbers = ",".join(map(str, uids))
    answer = _command(box, "FETCH", numbers, f"(UID INTERNALDATE BODY.PEEK[]<0.{LARGEST}>)")
    items: list[tuple[bytes, bytes]] = []
    for item in answer:
        if isinstance(item, tuple):
            items.append((item[0], item[1]))
        elif isinstance(item, bytes) and items:  # what follows the literal belongs to the same message
            items[-1] = (items[-1][0] + b" " + item, items[-1][1])
    for told, raw in items:
        uid = _UID.search(told)
        if uid is not None and int(uid[1]) in uids:
            yield Fetched(int(uid[1]), _internal_date(told), raw)


def _internal_date(told: bytes) -> datetime | None:
    found = _INTERNALDATE.search(told)
    try:
        return datetime.strptime(found[1].decode().strip(), "%d-%b-%Y %H:%M:%S %z").astimezone(UTC) if found else None
    except (ValueError, OverflowError):
        return None


def _deal(box: BaseMailBox, uids: Sequence[int], after: After, to: str | None) -> None:
    from imap_tools.utils import encode_folder

    if not uids or after is After.KEEP:
        return
    numbers = ",".join(map(str, uids))
    if after is After.SEEN:
        _command(box, "STORE", numbers, "+FLAGS.SILENT", r"(\Seen)")
        return
    if after is After.MOVE and to is not None:
        if "MOVE" in box.client.capabilities:
            _command(box, "MOVE", numbers, encode_folder(to))
            return
        _command(box, "COPY", numbers, encode_folder(to))
    _command(box, "STORE", numbers, "+FLAGS.SILENT", r"(\Deleted)")
    if "UIDPLUS" in box.client.capabilities:
        _command(box, "EXPUNGE", numbers)


def _command(box: BaseMailBox, name: str, *arguments: Any) -> list[Any]:
    """A command by UIDs. Raises IMAP4.error for any answer but OK."""
    status, answer = box.client.uid(name, *arguments)
    if status != "OK":
        raise imaplib.IMAP4.error(f"UID {name}: {answer}")
    return answer

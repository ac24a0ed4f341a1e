"""Unsubscribing by a link or an address that we gave out: the two forms of `List-Unsubscribe` (RFC 2369, RFC 8058).

`mint` makes both for one recipient; `mail` turns a click into the mail that the address would have got, so that a click
and a mail take the same walk through the engine, prove themselves by the same MAC and end in the same event. Needs
signed return paths. Emits no log events.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from mailback import address
from mailback.envelope import Envelope, Source
from mailback.returnpath import ReturnPaths

if TYPE_CHECKING:
    from mailback.store import Store

ONE_CLICK = "List-Unsubscribe=One-Click"
"""What a mail client posts (RFC 8058 section 3.1)."""


class Minted(NamedTuple):
    """What was given out for one recipient."""

    recipient: str
    mailto: str
    """The address of `List-Unsubscribe: <mailto:...>`."""
    token: str
    """The last part of the link's URL."""

    def fields(self, link: str | None) -> dict[str, str]:
        """The header fields of the message to this recipient; `link` is the URL that the token is put behind."""
        mailto = f"<mailto:{self.mailto}>"
        if link is None:
            return {"List-Unsubscribe": mailto}
        return {
            "List-Unsubscribe": f"<{link.rstrip('/')}/{self.token}>, {mailto}",
            "List-Unsubscribe-Post": ONE_CLICK,
        }


def mint(
    store: Store, paths: ReturnPaths, recipient: str, *, list_id: str | None = None, at: datetime | None = None
) -> Minted:
    """The address and the token that unsubscribe `recipient`, and nobody else.

    From `list_id` where one is named and the journal still knows it, else from everything. What does not stand in the
    address itself is told to the journal. Raises StoreUnavailable where that cannot be done.
    """
    from mailback.store.records import JournalEntry

    now = at or datetime.now(UTC)
    minted = paths.unsubscribe_address(recipient, now)
    verified = paths.verify(minted, now)
    if verified.recipient is None or list_id:
        entry = JournalEntry(
            now, None, "", (recipient,), return_path=verified.return_path, list_id=list_id, source="unsubscribe"
        )
        store.submit(lambda transaction: transaction.journal(entry)).result()
    return Minted(recipient, minted, minted.partition("@")[0])


def recipient_of(store: Store, paths: ReturnPaths, token: str) -> str | None:
    """Whom a token was minted for, as look-ups compare it; None for one that is wrong, too old, or nobody's.

    Raises StoreUnavailable where the journal has to be asked and cannot be.
    """
    verified = paths.verify(f"{token}@{paths.domain}")
    if not verified.signed or not verified.unsubscribes:
        return None
    if verified.recipient is not None or verified.return_path is None:
        return verified.recipient
    entries = store.find_journal(return_path=verified.return_path, limit=1)
    return address.key(entries[0].recipients[0]) if entries else None


def mail(paths: ReturnPaths, token: str, recipient: str, client_address: str | None) -> tuple[Envelope, bytes]:
    """The mail that says what a click says."""
    to = f"{token}@{paths.domain}"
    envelope = Envelope(recipients=(to,), client_address=client_address, source=Source.WEBHOOK)
    lines = (
        f"From: <{recipient}>",
        f"To: <{to}>",
        "Subject: unsubscribe",
        f"Message-ID: <{token}.{envelope.received_at:%Y%m%d}@one-click.invalid>",
        "Content-Type: text/plain; charset=utf-8",
        "",
        ONE_CLICK,
    )
    return envelope, "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n"

"""A message on its way out: the signed return path it leaves under, and what the journal remembers of it.

The journal's entry is what proves a bounce later, so a door lets a message go only once its entry is committed. The
commit is the store's group commit: messages that leave at the same time share one fsync.

Emits no log events; the doors do.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mailback.message import Limits, Message, parse
from mailback.reports import OriginalNames
from mailback.reports.original import marks
from mailback.returnpath import ReturnPaths
from mailback.store.records import JournalEntry

if TYPE_CHECKING:
    from mailback.settings import Settings
    from mailback.store import Store

BODY_READ = 16_384
"""Octets of a body that are looked at for its visible text; the head of an HTML page alone may take as many as 8 kB."""

_LIMITS = Limits(max_parts=20, max_depth=5, max_text_bytes=BODY_READ)
_LONGEST_TEXT_SCANNED = 4


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is done with every message that goes out."""

    store: Store | None
    """Whose journal remembers it; None: nothing is remembered."""
    paths: ReturnPaths | None
    """None: return paths are not signed."""
    names: OriginalNames
    text_bytes: int

    @classmethod
    def of(cls, settings: Settings, store: Store, paths: ReturnPaths | None) -> Outgoing | None:
        """As the settings ask for; None where nothing at all is to be done."""
        if not settings.journal.outbound and paths is None:
            return None
        return cls(
            store=store if settings.journal.outbound else None,
            paths=paths,
            names=OriginalNames(
                campaign=tuple(settings.mail.campaign_headers),
                list_id=tuple(settings.mail.list_headers),
                subscriber=tuple(settings.mail.subscriber_headers),
            ),
            text_bytes=settings.journal.text_bytes,
        )

    @property
    def reads_header(self) -> bool:
        return self.store is not None

    @property
    def reads_body(self) -> bool:
        return self.store is not None and self.text_bytes > 0

    def sign(self, sender: str, recipients: Sequence[str]) -> str | None:
        """The return path that the message leaves under; None where it stays as it is."""
        return self.paths.sign(sender, recipients) if self.paths is not None else None

    def entry(
        self, sender: str, recipients: Sequence[str], raw: bytes, *, return_path: str | None, queue_id: str | None
    ) -> JournalEntry:
        """What is remembered of a message; `raw` is its header and the beginning of its body. Never raises."""
        message = parse(raw, _LIMITS)
        known = marks(message.headers, self.names)
        return JournalEntry(
            at=datetime.now(UTC),
            message_id=known.message_id,
            envelope_sender=sender,
            recipients=tuple(recipients),
            return_path=return_path.rpartition("@")[0].lower() if return_path else None,
            subject=known.subject,
            campaign=known.campaign,
            list_id=known.list_id,
            subscriber=known.subscriber,
            queue_id=queue_id,
            source="milter",
            text=self._beginning(message),
        )

    def remember(self, entry: JournalEntry) -> Future[int]:
        """Resolves once the entry is durable; fails with StoreUnavailable, and then the message must wait."""
        assert self.store is not None
        return self.store.submit(lambda transaction: transaction.journal(entry))

    def _beginning(self, message: Message) -> str | None:
        """The first words that a reader sees, white space collapsed, in so many octets."""
        if not self.reads_body:
            return None
        words = " ".join(message.text[: _LONGEST_TEXT_SCANNED * self.text_bytes].split())
        return words.encode("utf-8", "replace")[: self.text_bytes].decode("utf-8", "ignore") or None

"""For programs that send mail: ask before it, remember what went out, sign it, and mint what unsubscribes from it.

    import mailback

    with mailback.outbox() as outbox:
        if outbox.check("ada@example.org").allowed:
            path = outbox.sign("news@example.com", ["ada@example.org"])
            minted = outbox.unsubscribe("ada@example.org", list_id="weekly.example.com")
            for name, value in minted.fields("https://example.com/unsubscribe").items():
                message[name] = value
            outbox.remember(
                message_id=message["Message-ID"], sender="news@example.com", recipients=["ada@example.org"],
                return_path=path, list_id="weekly.example.com",
            )

and behind that URL, for a POST that brings a token:

        who = outbox.unsubscribed(token)      # None: no token of ours, answer 404

Mail that goes out through the milter is signed and remembered there; `remember` is for what goes another way.
Everything is durable when a call returns. Emits no log events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mailback import returnpath
from mailback.outbound import unsubscribing
from mailback.outbound.remembering import Remembering
from mailback.reports import original
from mailback.returnpath import LONGEST_LOCAL
from mailback.store.records import JournalEntry

if TYPE_CHECKING:
    from mailback.outbound.check import Answer
    from mailback.outbound.unsubscribing import Minted
    from mailback.returnpath import ReturnPaths
    from mailback.settings import Settings
    from mailback.store import Store


class NotSigningError(RuntimeError):
    """Return paths are not signed: `signing.secret_file` and `mail.bounce_domain` are not both set."""

    def __init__(self) -> None:
        super().__init__("return paths are not signed: set signing.secret_file and mail.bounce_domain")


class Outbox:
    """The store and the keys, for a program that sends. Safe to use from any thread; open one in each process."""

    def __init__(self, settings: Settings, store: Store) -> None:
        """Raises KeyFileError when the keys of return paths cannot be used."""
        self._settings = settings
        self._store = store
        self._paths = returnpath.load(settings)
        self._out = Remembering.of(settings, store)

    @classmethod
    def open(cls, config: str | Path | None = None) -> Self:
        """By the configuration in force (`config` names another file). Makes the database where there is none.

        Raises SettingsError, KeyFileError or StoreUnavailable, each with what to do.
        """
        from mailback.settings import Settings
        from mailback.store import Store

        settings = Settings.load(config)
        store = Store.open(settings.store.url, busy_timeout_s=settings.store.busy_timeout_s)
        store.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        store.upgrade()
        return cls(settings, store)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._store.close()

    def check(self, recipient: str, *, sender: str | None = None) -> Answer:
        """Whether a recipient may be mailed; `allowed`, and the reason where not.

        `later`: not now, because his provider holds our mail off, or one message is trying whether he takes mail again.
        """
        return self._out.check.answer(recipient, sender=sender)

    def sign(self, sender: str, recipients: Sequence[str]) -> str | None:
        """The signed return path (envelope sender) for a message; None where it keeps `sender`: nothing is signed, or
        a recipient is exempt."""
        return self._paths.sign(sender, recipients) if self._paths is not None else None

    def remember(
        self,
        *,
        message_id: str | None,
        sender: str,
        recipients: Iterable[str],
        return_path: str | None = None,
        at: datetime | None = None,
        subject: str | None = None,
        campaign: str | None = None,
        list_id: str | None = None,
        subscriber: str | None = None,
        text: str | None = None,
    ) -> int:
        """Write a message that goes out to the journal; the number of its entry. Raises StoreUnavailable."""
        entry = JournalEntry(
            at=at or datetime.now(UTC),
            message_id=original.message_id(message_id),
            envelope_sender=sender,
            recipients=tuple(recipients),
            return_path=return_path.rpartition("@")[0].lower() if return_path else None,
            subject=subject,
            campaign=campaign,
            list_id=list_id,
            subscriber=subscriber,
            source="application",
            text=text,
        )
        return self._store.submit(lambda transaction: self._out.write(transaction, entry)).result()

    def unsubscribe(self, recipient: str, *, list_id: str | None = None) -> Minted:
        """Mint the address and the one-click token by which a recipient unsubscribes, from `list_id` if one is named.

        Raises NotSigningError, or StoreUnavailable where the journal has to remember it and cannot.
        """
        return unsubscribing.mint(self._store, self._signing(), recipient, list_id=list_id)

    def unsubscribed(self, token: str) -> str | None:
        """Somebody used a one-click link: suppress the recipient it was given out for, and tell who that is.

        None for what is no token of ours, or has run out. A token that comes again changes nothing. Raises
        NotSigningError and StoreUnavailable.
        """
        from mailback.engine import Engine

        paths, token = self._signing(), token.strip().lower()
        recipient = unsubscribing.recipient_of(self._store, paths, token) if len(token) <= LONGEST_LOCAL else None
        if recipient is not None:
            Engine(self._settings, self._store).inbound(*unsubscribing.mail(paths, token, recipient, None))
        return recipient

    def _signing(self) -> ReturnPaths:
        if self._paths is None:
            raise NotSigningError
        return self._paths

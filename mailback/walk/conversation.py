"""A reply within its conversation: what it answers, who wrote it, whose it is, and what is done because of it.

Before the reading, `Conversations.context` finds the messages of ours that a reply answers: the journal is asked for
the Message-IDs of In-Reply-To and References (RFC 5322 section 3.6.4) and for the signed return path that an automatic
answer came to. Their texts are the thread: what stands there the person did not write, and "yes" is read by them.

Within the store's transaction `judge` says whom the reply is about, how far that is believed, and what is done.
A writer is believed, best first, by the return path that was given out for him, by the journal (it answers a message
that went to him), or by authentication that is aligned with his From. Who answers a message that went to somebody else
altogether is a stranger, whatever he asks for.

Emits no log events. A store that cannot be read costs the thread, never the mail; the commit then says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from mailback import address
from mailback.bounce.taxonomy import Action, Kind, Type
from mailback.policy import replies
from mailback.policy.decision import Decision
from mailback.policy.owners import Owners
from mailback.provenance.belief import Answered, Hearing
from mailback.reply import Known, Reply, contact, safety
from mailback.reply.intent import Intent
from mailback.reply.routing import Route
from mailback.store.errors import StoreUnavailable
from mailback.store.records import Event, JournalEntry

if TYPE_CHECKING:
    from mailback.auth import Authentication
    from mailback.envelope import Envelope
    from mailback.message import Message
    from mailback.reports.report import Report
    from mailback.settings import Settings
    from mailback.store import Store

_IDS = 12
"""Message-IDs of a reply that are looked up, the latest ones."""
_ENTRIES = 20
"""Entries of one Message-ID that are looked at; one with more went to a list."""
_ID = re.compile(r"<[^<>\s]{1,990}>")
_HEADER_READ = 20_000


@dataclass(frozen=True, slots=True)
class Context:
    """What a reply is read and judged by, beside its own text."""

    writer: str | None
    """From, else the envelope sender."""
    sent: tuple[JournalEntry, ...]
    """The messages of ours that it answers, oldest first."""
    known: Known
    authenticated: bool = False
    """Authentication is aligned with the writer's domain."""
    doubted: bool = False
    """Authentication failed, or the writer's own domain says that this host may not send for it."""

    @property
    def mailed(self) -> str | None:
        """The writer as the latest of those messages was addressed to him; None where none went to him."""
        told = (who for entry in reversed(self.sent) for who in entry.recipients)
        return next((who for who in told if _same(who, self.writer)), None)

    @property
    def thread(self) -> tuple[str, ...]:
        """The texts that are known of those messages, oldest first."""
        return tuple(entry.text for entry in self.sent if entry.text)


class Conversations:
    """What replies need to know for good; safe to use from any thread."""

    def __init__(self, settings: Settings, store: Store, owners: Owners, *, proof_needed: bool) -> None:
        self._store = store
        self._owners = owners
        self._bounce_domain = settings.mail.bounce_domain
        ours = (*settings.mail.sending_domains, *filter(None, [settings.mail.bounce_domain]))
        self._us = safety.Known(
            domains=frozenset(map(address.domain_key, ours)),
            names=frozenset(settings.replies.our_names),
            allowed=frozenset(
                address.key(who) if "@" in who else address.domain_key(who) for who in settings.replies.allow
            ),
        )
        self._rules = replies.OptOutRules(settings.replies.opt_out_scope, proof_needed)

    def context(
        self,
        envelope: Envelope,
        message: Message,
        report: Report,
        answered: Answered,
        authentication: Authentication | None = None,
    ) -> Context:
        """What is known about a reply before it is read. Never raises."""
        writer = _writer(message, envelope)
        try:
            sent, stranger = self._answered(message, report, answered, writer)
        except StoreUnavailable:
            sent, stranger = (), False
        failed = authentication is not None and authentication.failed
        authenticated = (
            authentication is not None and writer is not None and authentication.wrote(writer, envelope.sender)
        )
        known = Known(self._us, failed, envelope.received_at, stranger)
        doubted = failed or (not authenticated and _disowned(authentication, writer))
        return Context(writer, sent, known, authenticated, doubted)

    def _answered(
        self, message: Message, report: Report, answered: Answered, writer: str | None
    ) -> tuple[tuple[JournalEntry, ...], bool]:
        """The messages of ours that it answers, and whether all of them went to somebody else."""
        found: dict[int | None, JournalEntry] = {}
        strangers = known = 0
        for entries in self._entries(message, report, answered, writer):
            entry = next(
                (entry for entry in entries if any(_same(who, writer) for who in entry.recipients)),
                entries[-1] if entries else None,
            )
            if entry is None:
                continue
            known += 1
            strangers += len(entries) < _ENTRIES and not _near(entries, writer)
            found[entry.id] = entry
        sent = sorted(found.values(), key=lambda entry: entry.at)
        return tuple(sent), known > 0 and strangers == known

    def _entries(
        self, message: Message, report: Report, answered: Answered, writer: str | None
    ) -> Iterator[list[JournalEntry]]:
        find = self._store.find_journal
        for path in answered.paths:
            if path.signed and path.return_path and not path.unsubscribes:
                yield find(return_path=path.return_path, limit=_ENTRIES)
        for message_id in _ids(message, report):
            to_writer = find(message_id=message_id, key=address.key(writer)) if writer else []
            yield to_writer or find(message_id=message_id, limit=_ENTRIES)

    # -- within the transaction -------------------------------------------------------------------------------

    def judge(
        self, hearing: Hearing, event: Event, reply: Reply, context: Context, recipients: Sequence[str]
    ) -> tuple[Event, Decision]:
        """The event about whom the reply is, graded, with its reading, route and owner; and what is done because of it.

        `recipients` are those of the envelope.
        """
        last = context.sent[-1] if context.sent else None
        if last is not None:
            _note_original(event, last)
        judged = hearing.of_writer(event, context.writer, context.mailed, authenticated=context.authenticated)
        owner = self._owners.owner(judged.recipient, self._sender_of(last), recipients)
        if owner is None and reply.route is Route.NOTIFY_OWNER:
            reply = replace(reply, route=Route.REQUIRE_APPROVAL)
        _note_reading(judged, reply, owner)
        judged.identity = _identity(judged, reply)
        decision = replies.decide(judged, reply, self._rules, authentication_failed=context.doubted)
        waits = decision.action is Action.MANUAL_REVIEW and reply.acts
        judged.route = Route.REQUIRE_APPROVAL if waits else reply.route
        seconds = reply.sla_s if reply.sla_s is not None or not waits else _DOUBT_SLA_S
        judged.due_at = None if seconds is None else event.at + timedelta(seconds=seconds)
        return judged, decision

    def _sender_of(self, entry: JournalEntry | None) -> str | None:
        """Who of us sent a message, where its envelope sender is a mailbox that somebody reads."""
        sender = entry.envelope_sender if entry is not None else ""
        return sender if sender and address.domain(sender) != self._bounce_domain else None


_DOUBT_SLA_S = 3600
"""Within how long somebody decides about an opt-out whose writer is in doubt."""


def _note_original(event: Event, entry: JournalEntry) -> None:
    """What the journal knows of the message that is answered, where the reply itself does not tell it."""
    event.original_message_id = event.original_message_id or entry.message_id
    event.original_sender = event.original_sender or entry.envelope_sender or None
    event.campaign = event.campaign or entry.campaign
    event.list_id = event.list_id or entry.list_id
    event.subscriber = event.subscriber or entry.subscriber
    event.original_sent_at = event.original_sent_at or entry.at


def _note_reading(event: Event, reply: Reply, owner: str | None) -> None:
    """The reading, without the text of the reply."""
    event.intent = reply.intent.value
    event.confidence = reply.confidence
    told = reply.to_dict()
    event.reply = {name: told[name] for name in _KEPT} | {"owner": owner}
    event.evidence = [*[evidence.to_dict() for evidence in reply.evidence], *event.evidence]
    if event.kind is Kind.AUTO_REPLY:
        event.type = Type.AUTO_REPLY.value
        event.subcategory = reply.cause.value if reply.cause else None
    elif reply.intent is Intent.UNSUBSCRIBE:
        event.type, event.subcategory = (word.value for word in replies.OPT_OUT)


_KEPT = (
    "runner_up", "runner_up_confidence", "flags", "return_date", "follow_up_date", "new_contact", "language", "safety",
)  # fmt: skip


def _identity(event: Event, reply: Reply) -> str:
    """What makes two messages one reply: Message-ID, writer and words, whichever way and however often it came."""
    if not event.report_message_id:
        return event.identity
    parts = (event.kind.value, event.report_message_id, event.recipient_key or "", reply.text)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _writer(message: Message, envelope: Envelope) -> str | None:
    """Who wrote it: the one address of From, else the envelope sender."""
    written = contact.author(message.header("from"))[1]
    return next((who for who in (written, envelope.sender) if address.is_address(who)), None)


def _disowned(authentication: Authentication | None, writer: str | None) -> bool:
    """Whether the SPF record of the writer's domain excludes the host that brought it (RFC 7208 section 2.6.4)."""
    if authentication is None or writer is None or authentication.spf.result != "fail":
        return False
    return address.domain_key(authentication.spf.domain) == address.domain(writer)


def _ids(message: Message, report: Report) -> list[str]:
    """The Message-IDs that it answers, without repetition; of many the latest."""
    fields = (message.header("references"), message.header("in-reply-to"))
    told = [found for field in fields for found in _ID.findall(field[-_HEADER_READ:])]
    if report.kind is Kind.AUTO_REPLY and report.original is not None and report.original.message_id:
        told.append(report.original.message_id)
    return list(dict.fromkeys(reversed(told)))[:_IDS]


def _same(recipient: str, writer: str | None) -> bool:
    """Whether a recipient is the writer, but for an extension (`ada+news@` and `ada@`) and spelling."""
    if writer is None:
        return False
    return _bare(recipient) == _bare(writer)


def _bare(who: str) -> tuple[str, str]:
    local, _, domain = address.key(who).rpartition("@")
    return local.partition("+")[0], domain


def _near(entries: Iterable[JournalEntry], writer: str | None) -> bool:
    """Whether any of the recipients is of the writer's domain, or one above or below it."""
    domain = address.domain(writer) if writer else ""
    theirs = {address.domain(who) for entry in entries for who in entry.recipients}
    return any(one == domain or one.endswith(f".{domain}") or domain.endswith(f".{one}") for one in theirs if one)

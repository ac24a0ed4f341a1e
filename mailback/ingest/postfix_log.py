"""What Postfix's log tells: what became of each message of ours, for each recipient, with every try.

    QUEUEID: client=app.example.com[192.0.2.7]                                          smtpd    a message comes in
    QUEUEID: uid=33 from=<www-data>                                                     pickup   ... by sendmail(1)
    QUEUEID: message-id=<1@example.com>                                                 cleanup
    QUEUEID: from=<news@example.com>, size=4711, nrcpt=1 (queue active)                 qmgr
    QUEUEID: to=<a@b.example>, orig_to=<c@d.example>, relay=mx.b.example[192.0.2.9]:25, delay=1.2, delays=0/0/1/0.2,
        dsn=5.1.1, status=bounced (host mx.b.example[192.0.2.9] said: 550 5.1.1 ...)    smtp, lmtp, local, virtual, ...
    QUEUEID: from=<news@example.com>, status=expired, returned to sender                qmgr
    QUEUEID: sender non-delivery notification: OTHERID                                  bounce
    QUEUEID: removed                                                                    qmgr

Lines belong together by host and queue id. Short queue ids are used again, so an id that comes in anew, or one that was
removed, begins another message; long ones (`enable_long_queue_ids`) never are. Several instances on one host
(`postfix/`, `postfix-out/`) are kept apart where they use the same id at once.

What is an outcome:

`bounced`       the message failed for good: a bounce.
`deferred`      it failed this time (`SOFTBOUNCE` likewise): a delay, each try of its own.
`expired`       the queue gave up: a bounce for each recipient that was still deferred, with the words of its last try.
                The line itself names no recipient, so the last try of each is remembered.
`sent`          delivered, unless the mail was only handed on: see below.
`deliverable`, `undeliverable`      address probes (verify(8)): no mail of ours, no outcome.

`sent` says only that the next hop took the message. It is no delivery to a person, and gives no outcome, when

- the next hop put it into a queue whose log we read as well (`queued as QUEUEID` of an id that came in here): a content
  filter gave it back, or an inner instance handed it to an outer one. That queue tells what becomes of it;
- the next hop is this host and says `queued as`, or that it kept the message (our own receiver; a filter that drops or
  quarantines spam), or it answers for the MTA behind it as amavis does;
- the operator named the next hop as a relay (`follow.relays`): a smart host, a filter;
- it was `forwarded as QUEUEID` (an alias or .forward), or discarded;
- pipe(8) gave it to a program that does not deliver to mailboxes as far as we know.

Nor is there an outcome where we refused the recipient or put him off ourselves, or a notification of Postfix is on its
way (null sender): that is no mail of ours. Rejects of incoming mail (`NOQUEUE: reject:`) name no queue id, and no
status, and so are none.

Nothing here raises on any text. Remote servers and senders of mail choose some of what stands in a line: addresses and
replies. The fields before them are Postfix's own, an address in them ends at its own `>`, and a line whose address
holds what looks like further fields is not believed.

Emits no log events.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from mailback import address
from mailback.bounce.taxonomy import Kind, Provenance
from mailback.envelope import Source
from mailback.ingest.syslog import Record
from mailback.observation import Observation
from mailback.reports import diagnostic, ours
from mailback.reports.original import message_id
from mailback.reports.report import DeliveryFailure
from mailback.store.places import QUEUED

OPEN_MESSAGES = 200_000
"""Messages in the queue that are remembered at once; past that the oldest are forgotten, and their Message-IDs."""
RECIPIENTS = 10_000
"""Recipients of one message whose tries are remembered."""
KEPT = timedelta(days=60)
"""How long a message is remembered that was never seen to leave the queue."""
RECENT = 50_000
"""Queue ids that are known to have come in, also after their message left."""

_TEXT = re.compile(r"(?!NOQUEUE:)([0-9A-Za-z]{5,20}): (.*)", re.DOTALL)
"""A queue id, short (hexadecimal) or long (base 52), and what is said of it; `NOQUEUE` is none."""

_ADDRESS = r'((?:"(?:\\.|[^"\\])*"@)?[^>]*)'
_DELIVERY = re.compile(
    rf"to=<{_ADDRESS}>, (?:orig_to=<{_ADDRESS}>, )?"
    r"relay=([^,]+)((?:, [a-z_]+=[^,\s]*)*), status=([A-Za-z-]+)(?: \((.*?)\)?)?$",
    re.DOTALL,
)
_FIELD = re.compile(r", ([a-z_]+)=([^,\s]*)")
_FROM = re.compile(rf"from=<{_ADDRESS}>(?:, status=(expired|force-expired)|, size=\d+, nrcpt=(\d+))?")
_CLIENT = re.compile(r"client=([^\[\s,]*)\[([^\]]*)\]")
_NOTIFIED = re.compile(
    r"(?:sender|postmaster) (?:non-delivery|delivery status|delay) notification: ([0-9A-Za-z]{5,20})"
)
_SPOOFED = re.compile(r">, (?:orig_to|relay)=")

_SAID = re.compile(
    r"host (\S+?)\[([^\]]*)\](?::\d+)? (?:said|refused to talk to me): (.*?)(?: \(in reply to [A-Za-z ]+?\))?",
    re.DOTALL,
)
_RELAY = re.compile(r"([^\[\s]*)(?:\[([^\]]*)\])?(?::\d+)?")
_QUEUED = re.compile(r"queued (?:mail for delivery )?as ([0-9A-Za-z]{5,20})\b")
_FORWARDED = re.compile(r"forwarded as [0-9A-Za-z]{5,20}")
_VIA = re.compile(r"delivered via (\S+) service")
_FILTERED = re.compile(r"\bfrom MTA\(")
"""How amavis passes on what the MTA behind it said."""
_KEPT_HERE = re.compile(r"250 2\.6\.0 recorded as |\bdiscarded?\b|\bquarantined?\b", re.IGNORECASE)
"""How programs of this host say that they kept a message: our own receiver, filters that drop or quarantine spam."""

_DELIVERS = frozenset({"smtp", "lmtp", "local", "virtual", "pipe", "error", "retry", "discard"})
_QUEUES = frozenset({"qmgr", "nqmgr", "oqmgr"})
_KINDS = {
    "bounced": Kind.BOUNCE, "deferred": Kind.DELAY, "softbounce": Kind.DELAY, "sent": Kind.DELIVERED,
}  # fmt: skip
_ACTIONS = {Kind.BOUNCE: "failed", Kind.DELAY: "delayed", Kind.DELIVERED: "delivered"}
_LONGEST_SHORT_ID = 12
_BECAUSE = "our own Postfix says so in its log"
_MAILBOX_PROGRAMS = frozenset({"cyrus", "deliver", "dovecot", "dovecot-lda", "lda", "maildrop", "procmail"})
"""Services of pipe(8), as master.cf names them, that deliver into mailboxes; whatever else it runs may be a filter that
hands the mail in again."""


class Rules(NamedTuple):
    """What only the operator knows."""

    domains: Set[str] = frozenset()
    """Domains that we send from, with those below them, as A-labels in lower case; empty: mail of any sender but the
    null one is ours."""
    relays: Set[str] = frozenset()
    """Next hops, by name, address or name of a pipe service, that hand mail on: what they take is not delivered yet."""
    mailbox_programs: Set[str] = _MAILBOX_PROGRAMS

    def owns(self, sender: str | None) -> bool:
        """Whether mail of this sender is ours; where the log does not tell the sender, it is taken for ours."""
        if sender is None:
            return True
        if not self.domains or sender == "":
            return sender != ""
        domain = address.domain(sender)
        while domain and domain not in self.domains:
            domain = domain.partition(".")[2]
        return domain != ""


@dataclass(slots=True)
class _Try:
    """The last try for one recipient that is still in the queue."""

    count: int
    delay: str
    """As the line says it: a line that is read twice counts once."""
    last: dict[str, Any]
    """What the line said: told again should the queue give up."""

    def state(self) -> dict[str, Any]:
        """What is needed to go on after a restart."""
        return {"count": self.count, "delay": self.delay, "last": self.last}


@dataclass(slots=True)
class Message:
    """A message in the queue."""

    host: str
    instance: str
    queue_id: str
    message_id: str | None = None
    sender: str | None = None
    client: str | None = None
    recipients: int | None = None
    """How many it goes to, once aliases are expanded."""
    notification: bool = False
    """It is a bounce or warning that Postfix itself sends."""
    tries: dict[str, _Try] = field(default_factory=dict)
    """By recipient."""
    at: datetime | None = None
    """Of the last line about it."""

    @property
    def name(self) -> str:
        """How its state is called among the places."""
        return f"{QUEUED}{self.host} {self.instance} {self.queue_id}"

    def name_of_try(self, recipient: str) -> str:
        """How the state of one recipient is called; by itself, since a message may have thousands of them."""
        return f"{self.name} {recipient}"

    def state(self) -> dict[str, Any]:
        """What is needed to go on after a restart, but for the tries."""
        return {
            "message_id": self.message_id, "sender": self.sender, "client": self.client, "recipients": self.recipients,
            "notification": self.notification, "at": self.at.isoformat() if self.at else None,
        }  # fmt: skip

    @classmethod
    def of_state(cls, name: str, state: dict[str, Any]) -> Message | None:
        """The message as `state` told it; None for what is none."""
        parts = name.removeprefix(QUEUED).split(" ")
        if len(parts) != 3:
            return None
        at = datetime.fromisoformat(state["at"]) if state.get("at") else None
        return cls(
            parts[0], parts[1], parts[2], state.get("message_id"), state.get("sender"), state.get("client"),
            state.get("recipients"), bool(state.get("notification")), at=at,
        )  # fmt: skip


class _Kept:
    """Which states the store has, and how they differ from those here since it was last told."""

    def __init__(self) -> None:
        self._stored: set[str] = set()
        self._changed: dict[str, Callable[[], dict[str, Any]]] = {}
        self._gone: set[str] = set()

    def found(self, name: str) -> None:
        """The store has it."""
        self._stored.add(name)

    def put(self, name: str, state: Callable[[], dict[str, Any]]) -> None:
        """It changed; `state` is asked for when the store is told, and not for what is gone until then."""
        self._changed[name] = state
        self._gone.discard(name)

    def drop(self, name: str) -> None:
        """It is of no use any more."""
        self._changed.pop(name, None)
        if name in self._stored:
            self._gone.add(name)

    def take(self) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
        """What the store has to put and to forget; it is taken as done."""
        changed, gone = [(name, state()) for name, state in self._changed.items()], list(self._gone)
        self._changed.clear()
        self._gone.clear()
        self._stored.difference_update(gone)
        self._stored.update(name for name, _ in changed)
        return changed, gone


class Delivery(NamedTuple):
    """One line about one recipient, in its fields."""

    recipient: str
    original: str | None
    relay: str
    fields: dict[str, str]
    status: str
    words: str


@dataclass(slots=True)
class Tally:
    """What was read."""

    lines: int = 0
    outcomes: int = 0
    handed_on: int = 0
    """`sent` to a filter, a relay, an alias: no delivery yet."""
    not_ours: int = 0
    """Outcomes of other people's mail and of notifications."""
    refused_here: int = 0
    """Refused by our own suppression list, or put off by a breaker or a try of ours."""
    doubtful: int = 0
    """Lines with an address that looks like a field."""


class DeliveryLog:
    """Follows messages through the queue; one for all logs that are read together."""

    def __init__(self, rules: Rules | None = None) -> None:
        self._rules = rules or Rules()
        self._open: dict[tuple[str, str], Message] = {}
        """By host and queue id; of two instances with one id the one that came in last."""
        self._also: dict[tuple[str, str, str], Message] = {}
        """By host, instance and queue id."""
        self._recent: dict[str, None] = {}
        self._kept = _Kept()
        self.tally = Tally()

    def restore(self, states: Iterable[tuple[str, dict[str, Any]]], now: datetime) -> None:
        """Take up the messages that were in the queue when reading ended, but none that no queue keeps so long."""
        messages: dict[str, Message] = {}
        tries = []
        for name, state in states:
            self._kept.found(name)
            message = Message.of_state(name, state)
            if message is None:
                tries.append((name, state))
            elif message.at is None or message.at < now - KEPT:
                self._kept.drop(name)
            else:
                self._keep(message)
                messages[name] = message
        for name, state in tries:
            parts = name.split(" ", 3)
            message = messages.get(" ".join(parts[:3]))
            if message is None or len(parts) != 4:
                self._kept.drop(name)
            else:
                message.tries[parts[3]] = _Try(**state)

    def changes(self) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
        """Since the last call: states to keep with their names, and names of states that are of no use any more."""
        return self._kept.take()

    def read(self, record: Record) -> list[Observation]:
        """The outcomes that one record tells: none mostly, or one, or those of an expired message."""
        instance, _, agent = record.program.rpartition("/")
        found = _TEXT.match(record.text)
        if found is None:
            return []
        queue_id, said = found.groups()
        first = said[0] if said else ""
        instance = instance.partition("/")[0]
        if first == "t" and agent in _DELIVERS:
            return self._delivery(record, instance, agent, queue_id, said)
        if first == "f":
            return self._from(record, instance, agent, queue_id, said)
        if first == "m" and said.startswith("message-id="):
            self._message_id(record, instance, queue_id, said[11:])
        elif first in "cu" and said.startswith(("client=", "uid=")):
            self._arrived(record, instance, queue_id, said)
        elif first == "r" and said == "removed":
            self._left(record.host, instance, queue_id)
        elif first in "sp" and (notified := _NOTIFIED.match(said)):
            self._message(record, instance, notified[1]).notification = True
        return []

    # -- messages ---------------------------------------------------------------------------------------------

    def _find(self, host: str, instance: str, queue_id: str) -> Message | None:
        return self._also.get((host, instance, queue_id)) or self._open.get((host, queue_id))

    def _message(self, record: Record, instance: str, queue_id: str) -> Message:
        message = self._find(record.host, instance, queue_id)
        if message is None:
            message = Message(record.host, instance, queue_id)
            self._keep(message)
        self._touch(message, record.at)
        return message

    def _keep(self, message: Message) -> None:
        self._open[message.host, message.queue_id] = message
        self._also[message.host, message.instance, message.queue_id] = message
        self._recent[message.queue_id] = None
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
        if len(self._also) > OPEN_MESSAGES:
            self._forget(next(iter(self._also.values())))

    def _touch(self, message: Message, at: datetime) -> None:
        message.at = at
        self._kept.put(message.name, message.state)

    def _forget(self, message: Message) -> None:
        self._also.pop((message.host, message.instance, message.queue_id), None)
        if self._open.get((message.host, message.queue_id)) is message:
            del self._open[message.host, message.queue_id]
        self._kept.drop(message.name)
        for recipient in list(message.tries):
            self._untry(message, recipient)

    def _untry(self, message: Message, recipient: str) -> _Try | None:
        """Forget the tries for a recipient; the last one."""
        tried = message.tries.pop(recipient, None)
        if tried is not None:
            self._kept.drop(message.name_of_try(recipient))
        return tried

    def _arrived(self, record: Record, instance: str, queue_id: str, said: str) -> None:
        """smtpd or pickup: a message that is new, whatever had this queue id before."""
        before = self._also.get((record.host, instance, queue_id))
        if before is not None:
            self._forget(before)
        message = Message(record.host, instance, queue_id)
        self._keep(message)
        self._touch(message, record.at)
        client = _CLIENT.match(said)
        if client is not None and client[2] != "unknown":
            message.client = client[2]

    def _message_id(self, record: Record, instance: str, queue_id: str, told: str) -> None:
        known = message_id(told)
        message = self._find(record.host, instance, queue_id)
        if message is not None and message.message_id not in (None, known):
            if message.instance == instance:
                self._forget(message)  # the line that it left on was not seen, and its short id is used again
            message = None
        if message is None:
            message = Message(record.host, instance, queue_id)
            self._keep(message)
        message.message_id = known
        self._touch(message, record.at)

    def _left(self, host: str, instance: str, queue_id: str) -> None:
        message = self._find(host, instance, queue_id)
        if message is not None:
            self._forget(message)

    # -- outcomes ---------------------------------------------------------------------------------------------

    def _from(self, record: Record, instance: str, agent: str, queue_id: str, said: str) -> list[Observation]:
        found = _FROM.match(said)
        if found is None or agent not in _QUEUES:
            return []
        message = self._message(record, instance, queue_id)
        if found[2] is None:
            message.sender = found[1]
            message.recipients = int(found[3]) if found[3] else None
            return []
        message.sender = found[1] or message.sender
        tried = [self._untry(message, recipient) for recipient in list(message.tries)]
        given_up = [(Delivery(**one.last), one.count) for one in tried if one is not None]
        return [
            self._outcome(record, message, last, Kind.BOUNCE, count)
            for last, count in given_up
            if self._counts(message, last)
        ]

    def _delivery(self, record: Record, instance: str, agent: str, queue_id: str, said: str) -> list[Observation]:
        told = delivery(said)
        if told is None:
            self.tally.doubtful += said.startswith("to=<")
            return []
        kind = _KINDS.get(told.status.lower())
        if kind is None:
            return []
        message = self._find(record.host, instance, queue_id)
        if message is None:
            message = Message(record.host, instance, queue_id)
            self._keep(message)
        if kind is Kind.DELIVERED and self._handed_on(agent, told):
            self.tally.handed_on += 1
            self._untry(message, told.recipient)
            return []
        if not self._counts(message, told):
            return []
        return [self._outcome(record, message, told, kind, self._tried(record, message, told, kind))]

    def _counts(self, message: Message, told: Delivery) -> bool:
        """Whether the line says anything about mail of ours on its way out."""
        if told.relay == "none" and ours.refused(told.words):
            self.tally.refused_here += 1
            return False
        if message.notification or message.sender == "":
            self.tally.not_ours += 1
            return False
        return True

    def _tried(self, record: Record, message: Message, told: Delivery, kind: Kind) -> int:
        """How often this recipient was tried; the try is remembered where others may follow."""
        before = message.tries.get(told.recipient)
        count = 1 if before is None else before.count + 1
        if kind is not Kind.DELAY:
            self._untry(message, told.recipient)
            return count
        delay = told.fields.get("delay", "")
        if before is not None and before.delay == delay:
            return before.count  # a line that was read before
        if before is not None or len(message.tries) < RECIPIENTS:
            tried = message.tries[told.recipient] = _Try(count, delay, told._asdict())
            self._kept.put(message.name_of_try(told.recipient), tried.state)
            self._touch(message, record.at)
        return count

    def _outcome(self, record: Record, message: Message, told: Delivery, kind: Kind, attempts: int) -> Observation:
        self.tally.outcomes += 1
        delay = _seconds(told.fields.get("delay"))
        return Observation(
            at=record.at,
            kind=kind,
            source=Source.LOG,
            dialect="postfix log",
            failure=_failure(told, kind, record.host, message.recipients),
            identity=_identity(message, told, record.at),
            message_id=message.message_id,
            grade=Provenance.AUTHENTICATED,
            because=_BECAUSE,
            ours=self._rules.owns(message.sender),
            sender=message.sender,
            queue_id=message.queue_id,
            client_address=message.client,
            attempts=attempts,
            sent_at=record.at - timedelta(seconds=delay) if delay is not None else None,
            notes=_notes(told),
        )

    def _handed_on(self, agent: str, told: Delivery) -> bool:
        """Whether `sent` is no delivery to a person: the module says when."""
        if agent == "discard":
            return True
        if agent == "local":
            return _FORWARDED.match(told.words) is not None
        if agent == "pipe":
            via = _VIA.match(told.words)
            service = via[1] if via is not None else told.relay
            return service in self._rules.relays or service not in self._rules.mailbox_programs
        relay = _RELAY.match(told.relay)
        name, ip = (relay[1].lower(), relay[2] or "") if relay is not None else (told.relay, "")
        if name in self._rules.relays or ip in self._rules.relays:
            return True
        if _FILTERED.search(told.words):
            return True
        queued = _QUEUED.search(told.words)
        if _is_here(name, ip):
            return queued is not None or _KEPT_HERE.search(told.words) is not None
        return queued is not None and queued[1] in self._recent


def delivery(said: str) -> Delivery | None:
    """The fields of a line about one recipient; None for another line, or one that an address pretends to be."""
    found = _DELIVERY.match(said)
    if found is None:
        return None
    recipient, original, relay, fields, status, words = found.groups()
    if _SPOOFED.search(words or "") or not recipient or "\ufffd" in recipient:
        return None
    return Delivery(recipient, original or None, relay, dict(_FIELD.findall(fields)), status, words or "")


def _failure(told: Delivery, kind: Kind, host: str, recipients: int | None) -> DeliveryFailure:
    """The same as a reader of Postfix's own notification makes of it: so one rule reads both.

    Of an alias that may have members beside this one (`recipients` of the message are several), only the member failed.
    """
    said = _SAID.fullmatch(told.words)
    relay = _RELAY.match(told.relay)
    remote = relay[1] if relay is not None and relay[2] and "/" not in relay[2] else None
    words, kind_of_words = told.words, "x-postfix"
    if said is not None:
        remote, words, kind_of_words = said[1], said[3], "smtp"
    elif kind is Kind.DELIVERED and remote:
        kind_of_words = "smtp"
    stated = told.fields.get("dsn")
    codes = diagnostic.codes(words)
    shared = kind is Kind.BOUNCE and recipients is not None and recipients > 1
    original = told.original if told.original and "@" in told.original and not shared else None
    return DeliveryFailure(
        recipient=told.recipient,
        original_recipient=original,
        final_recipient=told.recipient,
        action=_ACTIONS[kind],
        status=stated if kind is Kind.DELIVERED else diagnostic.settle(stated, codes.status, codes.smtp_code),
        stated_status=stated,
        smtp_code=codes.smtp_code,
        diagnostic=diagnostic.tidy(words),
        diagnostic_type=kind_of_words,
        reporting_mta=host or None,
        remote_mta=remote,
    )


def _identity(message: Message, told: Delivery, at: datetime) -> str:
    """What tells this line from all others about its recipient, by whatever file or journal it is read again.

    The total delay grows from try to try; in text it is the same in every form of the log, unlike the time. A short
    queue id may come again, another day at the earliest that matters.
    """
    which = message.message_id or f"{message.host} {message.queue_id}"
    day = "" if message.message_id or len(message.queue_id) > _LONGEST_SHORT_ID else at.date().isoformat()
    return "\0".join((which, day, told.recipient, told.status, told.fields.get("delay", "")))


def _notes(told: Delivery) -> list[str]:
    return [*_timings(told), *([f"sent to {told.original}"] if told.original else [])]


def _timings(told: Delivery) -> list[str]:
    delay, delays = told.fields.get("delay"), told.fields.get("delays")
    if delay is None:
        return []
    return [f"delay {delay} s" + (f" (before queue / in queue / connecting / sending: {delays})" if delays else "")]


def _seconds(text: str | None) -> float | None:
    try:
        return min(float(text or ""), 1e9)
    except ValueError:
        return None


def _is_here(name: str, ip: str) -> bool:
    return ip.startswith("127.") or ip == "::1" or (not ip and name == "localhost")

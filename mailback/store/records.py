"""Records of the store, one a table row; plain data, no SQL. Times are aware datetimes in UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import Any

from mailback.bounce.taxonomy import Action, Fault, Kind, Provenance

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Event:
    """One thing that happened to one recipient (SPEC of the `event` table); the row that `explain` replays."""

    id: str
    """Sortable unique id (26 characters, time first)."""
    identity: str
    """What makes two reports of the same failure one event; unique in the table."""
    at: datetime
    kind: Kind
    source: str
    recipient: str | None = None
    """The address as mailed; None for a message that is about nobody."""
    recipient_key: str | None = None
    """`mailback.address.key(recipient)`: what look-ups compare."""
    final_recipient: str | None = None
    domain: str | None = None
    provider: str | None = None
    report_message_id: str | None = None
    original_message_id: str | None = None
    envelope_sender: str | None = None
    original_sender: str | None = None
    subject: str | None = None
    campaign: str | None = None
    list_id: str | None = None
    subscriber: str | None = None
    client_address: str | None = None
    queue_id: str | None = None
    smtp_code: str | None = None
    status: str | None = None
    diagnostic: str | None = None
    reporting_mta: str | None = None
    remote_mta: str | None = None
    delivery_attempts: int | None = None
    original_sent_at: datetime | None = None
    type: str | None = None
    subcategory: str | None = None
    fault: Fault | None = None
    permanent: bool = False
    confidence: float | None = None
    risk: dict[str, float] | None = None
    action: Action | None = None
    provenance: Provenance = Provenance.UNPROVEN
    authentication: dict[str, object] | None = None
    engagement: dict[str, object] | None = None
    reputation: dict[str, float] | None = None
    evidence: list[dict[str, object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw_sha256: str | None = None
    raw_size: int | None = None
    processing_us: int | None = None
    """How long the walk from bytes to this record took, in microseconds, without the commit."""
    intent: str | None = None
    """What a reply asks for; None for everything that is no reply."""
    route: str | None = None
    """Where a reply goes: `notify_owner`, `auto_archive`, `require_approval`, `escalate`, `spam`."""
    due_at: datetime | None = None
    """Until when somebody must have seen a reply; None where nobody needs to."""
    reply: dict[str, object] | None = None
    """What else was read in a reply: runner-up, flags, dates, new contact, language, safety, owner; never its text."""
    sending_ip: str | None = None
    """The address of ours that the mail left from, where it is known."""

    def copy(self) -> Event:
        """Another record of the same values; `dataclasses.replace` takes five times as long for so many."""
        return Event(*_VALUES(self))


_VALUES = attrgetter(*Event.__slots__)


@dataclass(slots=True)
class Suppression:
    """One reason not to mail an address, in one scope."""

    address_key: str
    address: str
    """The original spelling."""
    scope: str
    """`all`, `list:ID`, `campaign:ID`, `stream:transactional` or `stream:marketing`."""
    reason: str
    """Free text or TYPE/SUBCATEGORY."""
    type: str | None
    subcategory: str | None
    source: str
    """`event`, `score` (an escalation: the ledger takes it back where its facts change), `operator`, `import`, ..."""
    since: datetime
    until: datetime | None
    """None is for ever."""
    event_id: str | None = None
    suggestion: str | None = None
    """A new address, where the bounce told one."""
    lifted_at: datetime | None = None
    """Set once somebody lifted it; the store fills these three, and `Transaction.suppress` ignores them."""
    lifted_by: str | None = None
    lifted_reason: str | None = None

    def active(self, now: datetime) -> bool:
        """Whether it holds mail back at `now`: not lifted, not over."""
        return self.lifted_at is None and (self.until is None or self.until > now)


@dataclass(frozen=True, slots=True)
class Wave:
    """A burst of like verdicts about one provider, beyond its normal rate."""

    id: int
    provider: str
    subcategory: str
    opened_at: datetime
    closed_at: datetime | None
    state: str
    """`open`: new permanent suppressions for its provider are frozen; `undone`; `confirmed`."""
    normal: float
    """Permanent suppressions of its kind an hour, before it."""
    members: int
    """Addresses that it suppressed or would have."""


class Step(StrEnum):
    """What a line of the score ledger does."""

    BOUNCE = "bounce"
    """Counts against the address."""
    HELD = "held"
    """Would, but too many reports asked for the like at once: somebody has to look first."""
    ALIVE = "alive"
    """Shows that the address lives: the score begins anew."""


CLOCK_ERROR = timedelta(days=1)
"""How far after now something may be dated by a clock that is merely wrong; beyond it would outlast all that is yet to
come, and counts for nothing."""

SCORE = "score"
"""The source of suppressions that the score ledger makes and takes back."""
GONE = "gone"
"""The cause of a bounce by which the address was suppressed for ever, so that nothing more need be counted."""


@dataclass(slots=True, unsafe_hash=True)
class ScoreEntry:
    """One fact in the score ledger of an address. Never changed; not frozen, as ledgers are read for every event of an
    address that bounced, and a frozen record takes three times as long to make."""

    address_key: str
    step: Step
    at: datetime
    fact: str
    """What tells this fact from others of its day: the id of an event; the cause of what is no event."""
    cause: str
    """Subcategory of a bounce or `gone`; `delivered`, `open`, `click`, `reply`, `lifted` or `opt_in`."""
    suppress_days: int | None = None
    """What an escalation at this bounce imposes, where the handling rules say; so with the next two."""
    needed: int | None = None
    window_days: int | None = None

    @property
    def day(self) -> int:
        """Days since 1970 UTC: what the ledger counts in."""
        return (self.at - _EPOCH).days


@dataclass(frozen=True, slots=True)
class Review:
    """One thing that waits for a person, or was decided by one."""

    id: int
    event_id: str
    at: datetime
    kind: Kind
    recipient: str | None
    recipient_key: str | None
    domain: str | None
    """Of the recipient."""
    type: str | None
    """As told, as are the next two; what is right stands in `right_type` and so on."""
    subcategory: str | None
    intent: str | None
    confidence: float | None
    route: str
    """`require_approval` or `escalate`."""
    reason: str
    """Why it waits, in words."""
    alone: bool
    """True: it is never decided together with others."""
    text: str | None
    """What was read: the diagnostic of a bounce, the new text of a reply."""
    wanted: Suppression | None
    """What approval makes."""
    due: datetime | None
    """When somebody must have decided; None: at leisure."""
    breached_at: datetime | None = None
    """When it was noted that nobody had."""
    state: str = "open"
    """`open`, `approved`, `corrected`, `expired`."""
    closed_at: datetime | None = None
    closed_by: str | None = None
    note: str | None = None
    right_type: str | None = None
    right_subcategory: str | None = None
    right_intent: str | None = None

    @property
    def told(self) -> str:
        """The verdict in one word: the intent, or TYPE/SUBCATEGORY."""
        return self.intent or "/".join(filter(None, (self.type, self.subcategory))) or self.kind.value

    @property
    def right(self) -> str | None:
        """What a person said it is; None where nobody corrected it."""
        return self.right_intent or "/".join(filter(None, (self.right_type, self.right_subcategory))) or None

    def overdue(self, now: datetime) -> bool:
        return self.state == "open" and self.due is not None and self.due <= now


@dataclass(frozen=True, slots=True)
class Probe:
    """The message that shows whether an address takes mail again after a hold."""

    address_key: str
    hold_until: datetime
    """The end of the hold that it comes after."""
    at: datetime
    """When it was let through."""
    token: str
    """What the fronts know it by, separated by blanks."""
    tries: int
    """It and those before it of which nothing was heard."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """How mail from one of our addresses or domains to one provider stands; `mailback.policy.breaker` moves it."""

    provider: str
    """An id of `providers.toml`, or the domain where the provider is not a known one."""
    side: str
    """`ip` or `domain`: what of ours the provider refuses."""
    sender: str
    """That address or organisational domain; `*` where it is not known, which stands for all of ours."""
    state: str
    """`closed`: mail flows; `open`: it is held; `half_open`: single messages try."""
    since: datetime
    until: datetime | None = None
    """When an open one becomes half open; None: only by hand."""
    rule: str = ""
    """Which rule tripped it last; `operator` where a person did."""
    reason: str = ""
    trips: int = 0
    """In a row: each makes the pause longer."""
    pace_s: int = 0
    """Seconds between two messages that pass while it is open; 0: none passes."""
    probe_every_s: int = 300
    """Seconds between two messages that pass while it is half open."""
    probes_needed: int = 3
    quiet_s: int = 1800
    """So many tries and seconds without a refusal close it, where no delivery is told."""
    probes: int = 0
    """Messages that passed since it is half open."""
    probe_at: datetime | None = None
    """When the last message passed."""
    probe_key: str | None = None
    """Whom it went to."""
    probe_token: str = ""
    """What the fronts know it by, separated by blanks: asked again about it, the answer is the same."""

    @property
    def name(self) -> str:
        """As commands and logs name it: `google/ip/192.0.2.1`."""
        return f"{self.provider}/{self.side}/{self.sender}"


@dataclass(frozen=True, slots=True)
class MailDomain:
    """What is known of a domain that is mailed to."""

    name: str
    """As A-labels in lower case."""
    mail: str
    """`mx`: its MX records say where mail goes; `address`: no MX, but an address (RFC 5321 section 5.1); `null_mx`:
    takes none (RFC 7505); `no_host`: its MX records lead nowhere; `none`: neither; `unknown`: DNS has not told."""
    hosts: tuple[str, ...] = ()
    """Of its MX records, the preferred first."""
    provider: str | None = None
    source: str = "dns"
    """`dns`, or `report` where the server that spoke for it told the provider."""
    at: datetime | None = None
    """When DNS was asked, or the report came."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """One address on one list."""

    address_key: str
    list_id: str
    """Empty where the list has no name."""
    address: str
    external_id: str | None = None
    """How another system calls this person."""
    source: str | None = None
    """Where the address came from."""
    status: str = "in"
    """`in` or `out`. This and the next six follow from what was told."""
    opt_in_at: datetime | None = None
    """The latest, as it was told."""
    opt_out_at: datetime | None = None
    out_by: str | None = None
    """`bounce`, `spam_complaint`, `unsubscribe_request`, `import`, ...; None for who is in."""
    bounce_status: str = "none"
    """`none`, `soft` (until `bounce_until`) or `hard`."""
    bounce_count: int = 0
    """Soft bounces in a row."""
    bounce_until: datetime | None = None
    own_out_at: datetime | None = None
    """The latest opt-out by the person, as it was told; also one that a later opt-in ended."""
    own_out_by: str | None = None
    hard_since: datetime | None = None

    @property
    def own_out(self) -> bool:
        """Whether the person is out by own word."""
        return self.own_out_at is not None and (self.opt_in_at is None or self.own_out_at >= self.opt_in_at)

    def bounce_status_at(self, now: datetime) -> str:
        """The bounce status, a soft one as long as it has not decayed."""
        decayed = self.bounce_status == "soft" and self.bounce_until is not None and self.bounce_until <= now
        return "none" if decayed else self.bounce_status


@dataclass(frozen=True, slots=True)
class SubscriberChange:
    """One step in the life of a subscriber: who changed it, why, and how it stood afterwards."""

    address_key: str
    list_id: str
    at: datetime
    actor: str
    reason: str
    status: str
    opt_in_at: datetime | None
    opt_out_at: datetime | None
    out_by: str | None
    bounce_status: str
    bounce_count: int


@dataclass(frozen=True, slots=True)
class Retry:
    """One message to one recipient that failed for a while, and when it should be sent again."""

    id: int
    """Set by the store."""
    address_key: str
    address: str
    thread: str
    """The Message-ID, else the event's id: what tells this message from others of the recipient."""
    message_id: str | None
    retried_as: str | None
    """The Message-ID that it was sent again under."""
    event_id: str
    """Of the last failure."""
    campaign: str | None
    list_id: str | None
    provider: str | None
    type: str | None
    subcategory: str | None
    failures: int
    first_at: datetime
    """Of the first failure."""
    failed_at: datetime
    """Of the last failure."""
    due_at: datetime | None
    state: str
    """`open`; `sent` again, its outcome is not known; `closed` by an outcome; `exhausted`; `skipped`."""
    because: str
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Capture:
    """One attempt to enter an address, with what the check thought of it."""

    at: datetime
    address: str
    address_key: str
    verdict: str
    """`ok`, `risky`, `unknown` or `blocked`."""
    reasons: tuple[str, ...]
    suggestion: str | None
    domain: str | None
    provider: str | None
    source: str | None
    """Where it was entered: a form, an import."""
    actor: str
    """Who entered it, or ran the check."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What an endpoint says that a reply means; nothing but a person acts on it."""

    event_id: str
    source: str
    """Who says so: `llm:MODEL`."""
    state: str
    """`asked`, `told`, `refused` (its answer is none that may be given), `failed`, `withheld` (never asked)."""
    attempts: int
    asked_at: datetime
    intent: str | None = None
    confidence: float | None = None
    because: str | None = None


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One message that went out, in one SMTP transaction."""

    at: datetime
    message_id: str | None
    """With its angle brackets."""
    envelope_sender: str
    """As the sender gave it, before it was signed."""
    recipients: tuple[str, ...]
    """As mailed. An entry that was looked up for one recipient may tell that one only."""
    return_path: str | None = None
    """Local part of the signed return path, in lower case; None where it was not signed."""
    subject: str | None = None
    campaign: str | None = None
    list_id: str | None = None
    subscriber: str | None = None
    queue_id: str | None = None
    source: str = "milter"
    """`milter`, `operator`, `import`, ..."""
    text: str | None = None
    """The beginning of the visible text, for whoever reads the answer to it."""
    id: int | None = None
    """Set by the store."""


class Reading(StrEnum):
    """What shows that somebody looks at our mail."""

    OPEN = "open"
    CLICK = "click"


@dataclass(frozen=True, slots=True)
class Engagement:
    """What one recipient did with our mail."""

    address_key: str
    sent: int
    """Messages that arrived."""
    opens: int
    clicks: int
    last_sent: datetime | None
    last_open: datetime | None
    last_click: datetime | None

    @property
    def last(self) -> datetime | None:
        """When the recipient last opened or clicked."""
        return max(filter(None, (self.last_open, self.last_click)), default=None)

    def is_recent(self, now: datetime, days: int) -> bool:
        """Whether the recipient opened or clicked within so many days before `now`: a reader whom to be patient with.

        A clock that runs ahead does no harm: what is later than `now` is recent as well.
        """
        return self.last is not None and self.last >= now - timedelta(days=days)

    def to_dict(self) -> dict[str, object]:
        """As an event keeps it."""
        return {
            "sent": self.sent, "opens": self.opens, "clicks": self.clicks,
            "last": self.last.isoformat().replace("+00:00", "Z") if self.last else None,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """How far a source of events was read: a log file, a mailbox, a table."""

    name: str
    position: dict[str, Any]
    """What the reader of that source needs to go on; plain JSON."""
    at: datetime
    """When it was put there."""


@dataclass(frozen=True, slots=True)
class SuppressionChange:
    """One step in the life of a suppression: who changed it, when, why, and how it stood afterwards."""

    address_key: str
    scope: str
    at: datetime
    actor: str
    verb: str
    """`added`, `renewed` (the one before was lifted or over), `replaced` by a stronger one, `extended`, `backdated` (an
    earlier report of the same failure came in), `lifted`, `restored` (what had taken its place was taken back)."""
    reason: str
    type: str | None
    subcategory: str | None
    source: str
    since: datetime
    until: datetime | None
    event_id: str | None
    suggestion: str | None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the append-only trail."""

    sequence: int
    at: datetime
    actor: str
    verb: str
    subject: str
    detail: dict[str, object]
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known about one address, oldest first; what `mailback explain` shows."""

    key: str
    suppressions: list[Suppression]
    """One a scope: in force, lifted or over."""
    changes: list[SuppressionChange]
    events: list[Event]
    score: list[ScoreEntry]
    """What counts for and against it."""
    engagement: Engagement | None = None
    """What the recipient did with our mail, where that is known."""
    captures: list[Capture] = field(default_factory=list)
    """How often it was entered, and what the check thought of it."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many events of one kind, type and subcategory a period saw."""

    kind: Kind
    type: str | None
    subcategory: str | None
    count: int
    mean_confidence: float | None


@dataclass(frozen=True, slots=True)
class Correction:
    """How often a person said that one thing was told as another."""

    told: str
    """TYPE/SUBCATEGORY, or an intent."""
    right: str
    count: int


@dataclass(frozen=True, slots=True)
class Reviews:
    """What waits for a person now, and what became of what waited before."""

    open: int
    overdue: int
    breached: int
    """Deadlines of the period that passed with nobody having decided."""
    decided: dict[str, int]
    """Closed within the period, by state."""
    corrections: list[Correction]
    """Most frequent first."""


@dataclass(frozen=True, slots=True)
class Stats:
    """A period in figures; what `mailback stats` shows."""

    since: datetime | None
    until: datetime | None
    events: int
    tallies: list[Tally]
    """Most frequent first."""
    by_provenance: dict[str, int]
    by_action: dict[str, int]
    confidence: dict[str, int]
    """Verdicts by confidence, in steps of a tenth: `0.9` counts 0.9 up to 1."""
    processing_us: dict[str, int]
    """`p50`, `p95`, `p99` and `max` of the time from bytes to record; empty where nothing was measured."""
    suppressions_active: int
    """At the end of the period, as the list stands now."""
    suppression_changes: dict[str, int]
    """Changes within the period by verb: `added`, `lifted`, ..."""
    review: Reviews
    """Items that wait are those of now, whatever the period."""
    by_intent: dict[str, int] = field(default_factory=dict)
    """Replies and automatic answers, by what they ask for."""
    by_route: dict[str, int] = field(default_factory=dict)

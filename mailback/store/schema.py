"""The tables, as SQLAlchemy Core sees them. Migrations create them; a test holds the two together.

Times are whole microseconds since 1970 UTC: exact, small in an index, the same in every database. In the sqlite3 shell
read them with `datetime(at / 1e6, 'unixepoch')`.

No foreign key ties a suppression to the event that caused it: events have a retention, suppressions outlive them, and
the id stays a useful reference in logs and exports.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

event = Table(
    "event",
    metadata,
    Column("id", String(26), nullable=False),
    Column("identity", String(200), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("source", String(32), nullable=False),
    Column("recipient", Text),
    Column("recipient_key", Text),
    Column("final_recipient", Text),
    Column("domain", Text),
    Column("provider", Text),
    Column("report_message_id", Text),
    Column("original_message_id", Text),
    Column("envelope_sender", Text),
    Column("original_sender", Text),
    Column("subject", Text),
    Column("campaign", Text),
    Column("list_id", Text),
    Column("subscriber", Text),
    Column("client_address", Text),
    Column("queue_id", Text),
    Column("smtp_code", Text),
    Column("status", Text),
    Column("diagnostic", Text),
    Column("reporting_mta", Text),
    Column("remote_mta", Text),
    Column("delivery_attempts", Integer),
    Column("original_sent_at", BigInteger),
    Column("type", String(32)),
    Column("subcategory", String(64)),
    Column("fault", String(16)),
    Column("permanent", Boolean, nullable=False),
    Column("confidence", Float),
    Column("risk", Text, comment="JSON"),
    Column("action", String(32)),
    Column("provenance", String(32), nullable=False),
    Column("authentication", Text, comment="JSON"),
    Column("engagement", Text, comment="JSON"),
    Column("reputation", Text, comment="JSON"),
    Column("evidence", Text, nullable=False, comment="JSON"),
    Column("notes", Text, nullable=False, comment="JSON"),
    Column("raw_sha256", String(64)),
    Column("raw_size", BigInteger),
    Column("processing_us", BigInteger),
    Column("intent", String(32), comment="what a reply asks for"),
    Column("route", String(32), comment="where a reply goes"),
    Column("due_at", BigInteger, comment="until when somebody must have seen a reply"),
    Column("reply", Text, comment="JSON: what else was read in a reply"),
    Column("sending_ip", Text),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("identity"),  # what makes two reports of one failure one event
    Index(None, "recipient_key", "at", "id"),  # the history of an address; explain
    Index(None, "at", "id"),  # the pages of `mailback events`; the period of `mailback stats`
    Index(None, "due_at", sqlite_where=text("due_at IS NOT NULL")),  # replies that nobody has answered in time
)

# One row an address and scope: the reason in force, or the last one once it was lifted or ran out. The primary key *is*
# the table (WITHOUT ROWID), so a look-up is one descent of one tree.
suppression = Table(
    "suppression",
    metadata,
    Column("address_key", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("scope", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("type", String(32)),
    Column("subcategory", String(64)),
    Column("source", String(32), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger),
    Column("event_id", String(26)),
    Column("suggestion", Text),
    Column("lifted_at", BigInteger),
    Column("lifted_by", Text),
    Column("lifted_reason", Text),
    PrimaryKeyConstraint("address_key", "scope"),
    sqlite_with_rowid=False,
)

suppression_change = Table(
    "suppression_change",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
    Column("address_key", Text, nullable=False),
    Column("scope", String(200), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("verb", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("type", String(32)),
    Column("subcategory", String(64)),
    Column("source", String(32), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger),
    Column("event_id", String(26)),
    Column("suggestion", Text),
    PrimaryKeyConstraint("id"),
    Index(None, "address_key", "id"),
)

# What went out: a row a message, and one more for each recipient. One message of a mailing list goes to many, in one
# transaction or in many with the same Message-ID; so whom it went to is asked of the recipient's side.
journal = Table(
    "journal",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("message_id", Text),
    Column("envelope_sender", Text),
    Column("return_path", Text, comment="local part of the signed return path, lower case"),
    Column("subject", Text),
    Column("campaign", Text),
    Column("list_id", Text),
    Column("subscriber", Text),
    Column("queue_id", Text),
    Column("source", String(32), nullable=False),
    Column("text", Text, comment="the beginning of the visible text"),
    PrimaryKeyConstraint("id"),
    Index(None, "message_id"),
    Index(None, "return_path"),
    Index(None, "at"),  # retention
)

journal_recipient = Table(
    "journal_recipient",
    metadata,
    Column("recipient_key", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("journal_id", BigInteger, nullable=False),
    Column("recipient", Text, nullable=False),
    PrimaryKeyConstraint("recipient_key", "at", "journal_id"),
    Index(None, "journal_id"),
    sqlite_with_rowid=False,
)

# How many of something there were in an hour, by what caused it: what budgets and waves are told by.
rate = Table(
    "rate",
    metadata,
    Column("cause", Text, nullable=False),
    Column("hour", BigInteger, nullable=False, comment="hours since 1970 UTC"),
    Column("count", BigInteger, nullable=False),
    PrimaryKeyConstraint("cause", "hour"),
    sqlite_with_rowid=False,
)

# A burst of like verdicts about one provider, and the suppressions that it made or would have made.
wave = Table(
    "wave",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("subcategory", String(64), nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
    Column("state", String(16), nullable=False),
    Column("normal", Float, nullable=False, comment="permanent suppressions an hour, before"),
    PrimaryKeyConstraint("id"),
    Index(None, "state", "provider", "subcategory"),
)

wave_member = Table(
    "wave_member",
    metadata,
    Column("wave_id", BigInteger, nullable=False),
    Column("address_key", Text, nullable=False),
    Column("scope", String(200), nullable=False),
    Column("event_id", String(26), nullable=False),
    Column("suppression", Text, nullable=False, comment="JSON"),
    Column("frozen", Boolean, nullable=False, server_default=text("0"), comment="kept back, never made by the wave"),
    PrimaryKeyConstraint("wave_id", "address_key", "scope"),
    sqlite_with_rowid=False,
)

# What recipients did with our mail: sums and latest times, so no order of arrival changes them.
engagement = Table(
    "engagement",
    metadata,
    Column("address_key", Text, nullable=False),
    Column("sent", BigInteger, nullable=False),
    Column("opens", BigInteger, nullable=False),
    Column("clicks", BigInteger, nullable=False),
    Column("last_sent", BigInteger),
    Column("last_open", BigInteger),
    Column("last_click", BigInteger),
    PrimaryKeyConstraint("address_key"),
    sqlite_with_rowid=False,
)

# Hashes of the opens and clicks that were counted.
engagement_fact = Table(
    "engagement_fact",
    metadata,
    Column("identity", LargeBinary, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("identity"),
    sqlite_with_rowid=False,
)

# How far each source of events was read; written in the transaction that holds what was read.
place = Table(
    "place",
    metadata,
    Column("name", Text, nullable=False),
    Column("position", Text, nullable=False, comment="JSON"),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("name"),
    sqlite_with_rowid=False,
)

# What waits for a person, an item an event, and what became of it. `type`, `subcategory` and `intent` stay as they were
# told; what is right stands beside them. The text is what was read: a correction teaches the models with it.
review = Table(
    "review",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
    Column("event_id", String(26), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("recipient", Text),
    Column("recipient_key", Text),
    Column("domain", Text),
    Column("type", String(32)),
    Column("subcategory", String(64)),
    Column("intent", String(32)),
    Column("confidence", Float),
    Column("route", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("alone", Boolean, nullable=False, comment="never decided together with others"),
    Column("text", Text),
    Column("wanted", Text, comment="JSON: the suppression that approval makes"),
    Column("due", BigInteger),
    Column("breached_at", BigInteger, comment="when it was noted that nobody had decided in time"),
    Column("state", String(16), nullable=False),
    Column("closed_at", BigInteger),
    Column("closed_by", Text),
    Column("note", Text),
    Column("right_type", String(32)),
    Column("right_subcategory", String(64)),
    Column("right_intent", String(32)),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("event_id"),
    Index(None, "state", "due"),
)

# Messages that failed for a while, one row a message and recipient: when to send them again.
retry = Table(
    "retry",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
    Column("address_key", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("thread", Text, nullable=False, comment="Message-ID, else the first event's id"),
    Column("message_id", Text),
    Column("retried_as", Text),
    Column("event_id", String(26), nullable=False),
    Column("campaign", Text),
    Column("list_id", Text),
    Column("provider", Text),
    Column("type", String(32)),
    Column("subcategory", String(64)),
    Column("failures", Integer, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("failed_at", BigInteger, nullable=False),
    Column("due_at", BigInteger),
    Column("state", String(16), nullable=False),
    Column("because", Text, nullable=False),
    Column("closed_at", BigInteger),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("address_key", "thread"),
    Index(None, "state", "due_at"),
)

# Who is on a list: a row an address and list. What somebody told stands beside what follows from it, so that plain SQL
# can read the second.
subscriber = Table(
    "subscriber",
    metadata,
    Column("address_key", Text, nullable=False),
    Column("list_id", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("external_id", Text),
    Column("source", Text),
    Column("status", String(8), nullable=False),
    Column("opt_in_at", BigInteger),
    Column("opt_out_at", BigInteger),
    Column("out_by", String(64)),
    Column("bounce_status", String(8), nullable=False),
    Column("bounce_count", Integer, nullable=False),
    Column("bounce_until", BigInteger),
    Column("own_out_at", BigInteger),
    Column("own_out_by", String(64)),
    Column("hard_since", BigInteger),
    PrimaryKeyConstraint("address_key", "list_id"),
    Index(None, "external_id"),
    sqlite_with_rowid=False,
)

subscriber_change = Table(
    "subscriber_change",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
    Column("address_key", Text, nullable=False),
    Column("list_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("status", String(8), nullable=False),
    Column("opt_in_at", BigInteger),
    Column("opt_out_at", BigInteger),
    Column("out_by", String(64)),
    Column("bounce_status", String(8), nullable=False),
    Column("bounce_count", Integer, nullable=False),
    PrimaryKeyConstraint("id"),
    Index(None, "address_key", "id"),
)

# What counts for and against an address: a line a bounce, and a line a day and kind of what shows that the mailbox
# lives. An address has few; the fold in `policy.score` reads them all.
score = Table(
    "score",
    metadata,
    Column("address_key", Text, nullable=False),
    Column("step", String(8), nullable=False),
    Column("day", Integer, nullable=False, comment="days since 1970 UTC"),
    Column("fact", String(200), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("cause", String(64), nullable=False),
    Column("suppress_days", Integer),
    Column("needed", Integer),
    Column("window_days", Integer),
    PrimaryKeyConstraint("address_key", "step", "day", "fact"),
    sqlite_with_rowid=False,
)

# How mail to each provider stands, for each of our addresses and domains that it has refused often enough.
breaker = Table(
    "breaker",
    metadata,
    Column("provider", Text, nullable=False),
    Column("side", String(16), nullable=False),
    Column("sender", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger),
    Column("rule", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("trips", Integer, nullable=False),
    Column("pace_s", Integer, nullable=False),
    Column("probe_every_s", Integer, nullable=False),
    Column("probes_needed", Integer, nullable=False),
    Column("quiet_s", Integer, nullable=False),
    Column("probes", Integer, nullable=False),
    Column("probe_at", BigInteger),
    Column("probe_key", Text),
    Column("probe_token", Text, nullable=False, server_default=""),
    PrimaryKeyConstraint("provider", "side", "sender"),
    Index(None, "state"),  # what is not closed, asked for by every process that answers recipients
    sqlite_with_rowid=False,
)

# The message that tries an address whose hold has run out, so that all others wait for what becomes of it.
probe = Table(
    "probe",
    metadata,
    Column("address_key", Text, nullable=False),
    Column("hold_until", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("token", Text, nullable=False, comment="what each front knows it by"),
    Column("tries", Integer, nullable=False),
    PrimaryKeyConstraint("address_key"),
    sqlite_with_rowid=False,
)

# What is known of the domains that are mailed to: who runs their mail, and whether they take any.
domain = Table(
    "domain",
    metadata,
    Column("name", Text, nullable=False),
    Column("mail", String(16), nullable=False),
    Column("hosts", Text, nullable=False, comment="JSON"),
    Column("provider", Text),
    Column("source", String(16), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, comment="0: DNS is to be asked"),
    PrimaryKeyConstraint("name"),
    Index(None, "expires_at"),
    sqlite_with_rowid=False,
)

# Messages as they came in, packed, for as long as somebody may have to read one; events refer to them by their hash.
raw = Table(
    "raw",
    metadata,
    Column("sha256", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("message", LargeBinary, nullable=False, comment="zlib; the beginning, of a very long one"),
    PrimaryKeyConstraint("sha256"),
    Index(None, "at"),  # retention
)

# Addresses as they were entered, each time anew, with the verdict of the check; the refused ones too.
capture = Table(
    "capture",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("address", Text, nullable=False),
    Column("address_key", Text, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("reasons", Text, nullable=False, comment="JSON"),
    Column("suggestion", Text),
    Column("domain", Text),
    Column("provider", Text),
    Column("source", Text, comment="where it was entered"),
    Column("actor", Text, nullable=False, comment="who entered it, or ran the check"),
    PrimaryKeyConstraint("id"),
    Index(None, "address_key", "at"),
    Index(None, "at"),  # retention
)

# What an endpoint suggests about a reply that waits in the review: never more than something to show to a person.
suggestion = Table(
    "suggestion",
    metadata,
    Column("event_id", String(26), nullable=False),
    Column("source", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Column("intent", String(32)),
    Column("confidence", Float),
    Column("because", Text),
    PrimaryKeyConstraint("event_id"),
    Index(None, "asked_at"),
    sqlite_with_rowid=False,
)

# Append-only and without gaps: triggers refuse everything else (see the first migration). Each row's hash covers the
# row and the hash before it.
audit = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), autoincrement=False, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("verb", String(32), nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False, comment="canonical JSON"),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    PrimaryKeyConstraint("sequence"),
)

"""Events, suppressions with their history, and the audit trail.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# REPLACE fires no DELETE trigger unless recursive_triggers is on, so adding is guarded as well: only the next number.
_SQLITE_AUDIT_GUARDS = (
    "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
    "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
    (
        "CREATE TRIGGER audit_next_only BEFORE INSERT ON audit"
        " WHEN NEW.sequence <> coalesce((SELECT max(sequence) FROM audit), 0) + 1"
        " BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END"
    ),
)


def upgrade() -> None:
    _event()
    _suppression()
    _suppression_change()
    _audit()


def _event() -> None:
    op.create_table(
        "event",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("identity", sa.String(200), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("source", sa.String(32), nullable=False),
        *(
            sa.Column(name, sa.Text())
            for name in (
                "recipient", "recipient_key", "final_recipient", "domain", "provider", "report_message_id",
                "original_message_id", "envelope_sender", "original_sender", "subject", "campaign", "list_id",
                "subscriber", "client_address", "queue_id", "smtp_code", "status", "diagnostic", "reporting_mta",
                "remote_mta",
            )
        ),
        sa.Column("delivery_attempts", sa.Integer()),
        sa.Column("original_sent_at", sa.BigInteger()),
        sa.Column("type", sa.String(32)),
        sa.Column("subcategory", sa.String(64)),
        sa.Column("fault", sa.String(16)),
        sa.Column("permanent", sa.Boolean(), nullable=False),
        sa.Column("confidence", sa.Float()),
        sa.Column("risk", sa.Text(), comment="JSON"),
        sa.Column("action", sa.String(32)),
        sa.Column("provenance", sa.String(32), nullable=False),
        sa.Column("authentication", sa.Text(), comment="JSON"),
        sa.Column("engagement", sa.Text(), comment="JSON"),
        sa.Column("reputation", sa.Text(), comment="JSON"),
        sa.Column("evidence", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("notes", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("raw_sha256", sa.String(64)),
        sa.Column("raw_size", sa.BigInteger()),
        sa.Column("processing_us", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
        sa.UniqueConstraint("identity", name="uq_event_identity"),
    )  # fmt: skip
    op.create_index("ix_event_recipient_key_at_id", "event", ["recipient_key", "at", "id"])
    op.create_index("ix_event_at_id", "event", ["at", "id"])


def _suppression() -> None:
    op.create_table(
        "suppression",
        sa.Column("address_key", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("type", sa.String(32)),
        sa.Column("subcategory", sa.String(64)),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger()),
        sa.Column("event_id", sa.String(26)),
        sa.Column("suggestion", sa.Text()),
        sa.Column("lifted_at", sa.BigInteger()),
        sa.Column("lifted_by", sa.Text()),
        sa.Column("lifted_reason", sa.Text()),
        sa.PrimaryKeyConstraint("address_key", "scope", name="pk_suppression"),
        sqlite_with_rowid=False,
    )


def _suppression_change() -> None:
    op.create_table(
        "suppression_change",
        sa.Column("id", _ROW_NUMBER, nullable=False),
        sa.Column("address_key", sa.Text(), nullable=False),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("verb", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("type", sa.String(32)),
        sa.Column("subcategory", sa.String(64)),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger()),
        sa.Column("event_id", sa.String(26)),
        sa.Column("suggestion", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_suppression_change"),
    )
    op.create_index("ix_suppression_change_address_key_id", "suppression_change", ["address_key", "id"])


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("sequence", _ROW_NUMBER, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("verb", sa.String(32), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False, comment="canonical JSON"),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit"),
    )
    if op.get_bind().dialect.name == "sqlite":
        for guard in _SQLITE_AUDIT_GUARDS:
            op.execute(guard)


def downgrade() -> None:
    for table in ("audit", "suppression_change", "suppression", "event"):
        op.drop_table(table)

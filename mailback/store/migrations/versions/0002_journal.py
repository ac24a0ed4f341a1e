"""The journal of outgoing mail.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "journal",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.Text()),
        sa.Column("envelope_sender", sa.Text()),
        sa.Column("return_path", sa.Text(), comment="local part of the signed return path, lower case"),
        sa.Column("subject", sa.Text()),
        sa.Column("campaign", sa.Text()),
        sa.Column("list_id", sa.Text()),
        sa.Column("subscriber", sa.Text()),
        sa.Column("queue_id", sa.Text()),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("text", sa.Text(), comment="the beginning of the visible text"),
        sa.PrimaryKeyConstraint("id", name="pk_journal"),
    )
    for column in ("message_id", "return_path", "at"):
        op.create_index(f"ix_journal_{column}", "journal", [column])
    op.create_table(
        "journal_recipient",
        sa.Column("recipient_key", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("journal_id", sa.BigInteger(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("recipient_key", "at", "journal_id", name="pk_journal_recipient"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_journal_recipient_journal_id", "journal_recipient", ["journal_id"])


def downgrade() -> None:
    for table in ("journal_recipient", "journal"):
        op.drop_table(table)

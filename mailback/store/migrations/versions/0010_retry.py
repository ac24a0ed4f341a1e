"""Messages worth sending again.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "retry",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("address_key", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("thread", sa.Text(), nullable=False, comment="Message-ID, else the first event's id"),
        sa.Column("message_id", sa.Text()),
        sa.Column("retried_as", sa.Text()),
        sa.Column("event_id", sa.String(26), nullable=False),
        sa.Column("campaign", sa.Text()),
        sa.Column("list_id", sa.Text()),
        sa.Column("provider", sa.Text()),
        sa.Column("type", sa.String(32)),
        sa.Column("subcategory", sa.String(64)),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("failed_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger()),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("because", sa.Text(), nullable=False),
        sa.Column("closed_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_retry"),
        sa.UniqueConstraint("address_key", "thread", name="uq_retry_address_key_thread"),
    )
    op.create_index("ix_retry_state_due_at", "retry", ["state", "due_at"])


def downgrade() -> None:
    op.drop_table("retry")

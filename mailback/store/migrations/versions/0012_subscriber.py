"""Subscribers and their history.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "subscriber",
        sa.Column("address_key", sa.Text(), nullable=False),
        sa.Column("list_id", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text()),
        sa.Column("source", sa.Text()),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("opt_in_at", sa.BigInteger()),
        sa.Column("opt_out_at", sa.BigInteger()),
        sa.Column("out_by", sa.String(64)),
        sa.Column("bounce_status", sa.String(8), nullable=False),
        sa.Column("bounce_count", sa.Integer(), nullable=False),
        sa.Column("bounce_until", sa.BigInteger()),
        sa.Column("own_out_at", sa.BigInteger()),
        sa.Column("own_out_by", sa.String(64)),
        sa.Column("hard_since", sa.BigInteger()),
        sa.PrimaryKeyConstraint("address_key", "list_id", name="pk_subscriber"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_subscriber_external_id", "subscriber", ["external_id"])
    op.create_table(
        "subscriber_change",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("address_key", sa.Text(), nullable=False),
        sa.Column("list_id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("opt_in_at", sa.BigInteger()),
        sa.Column("opt_out_at", sa.BigInteger()),
        sa.Column("out_by", sa.String(64)),
        sa.Column("bounce_status", sa.String(8), nullable=False),
        sa.Column("bounce_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_subscriber_change"),
    )
    op.create_index("ix_subscriber_change_address_key_id", "subscriber_change", ["address_key", "id"])


def downgrade() -> None:
    op.drop_table("subscriber_change")
    op.drop_table("subscriber")

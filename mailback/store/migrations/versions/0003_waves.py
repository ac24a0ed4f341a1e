"""Rates by the hour, and waves with their members.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rate",
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False, comment="hours since 1970 UTC"),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("cause", "hour", name="pk_rate"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "wave",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("subcategory", sa.String(64), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger()),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("normal", sa.Float(), nullable=False, comment="permanent suppressions an hour, before"),
        sa.PrimaryKeyConstraint("id", name="pk_wave"),
    )
    op.create_index("ix_wave_state_provider_subcategory", "wave", ["state", "provider", "subcategory"])
    op.create_table(
        "wave_member",
        sa.Column("wave_id", sa.BigInteger(), nullable=False),
        sa.Column("address_key", sa.Text(), nullable=False),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("event_id", sa.String(26), nullable=False),
        sa.Column("suppression", sa.Text(), nullable=False, comment="JSON"),
        sa.PrimaryKeyConstraint("wave_id", "address_key", "scope", name="pk_wave_member"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in ("wave_member", "wave", "rate"):
        op.drop_table(table)

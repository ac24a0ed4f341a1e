"""Attempts to enter an address.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "capture",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("address_key", sa.Text(), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("suggestion", sa.Text()),
        sa.Column("domain", sa.Text()),
        sa.Column("provider", sa.Text()),
        sa.Column("source", sa.Text(), comment="where it was entered"),
        sa.Column("actor", sa.Text(), nullable=False, comment="who entered it, or ran the check"),
        sa.PrimaryKeyConstraint("id", name="pk_capture"),
    )
    op.create_index("ix_capture_address_key_at", "capture", ["address_key", "at"])
    op.create_index("ix_capture_at", "capture", ["at"])


def downgrade() -> None:
    op.drop_table("capture")

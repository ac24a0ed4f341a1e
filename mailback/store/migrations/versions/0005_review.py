"""What waits for a person.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "review",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("event_id", sa.String(26), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("recipient", sa.Text()),
        sa.Column("recipient_key", sa.Text()),
        sa.Column("domain", sa.Text()),
        sa.Column("type", sa.String(32)),
        sa.Column("subcategory", sa.String(64)),
        sa.Column("intent", sa.String(32)),
        sa.Column("confidence", sa.Float()),
        sa.Column("route", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("alone", sa.Boolean(), nullable=False, comment="never decided together with others"),
        sa.Column("text", sa.Text()),
        sa.Column("wanted", sa.Text(), comment="JSON: the suppression that approval makes"),
        sa.Column("due", sa.BigInteger()),
        sa.Column("breached_at", sa.BigInteger(), comment="when it was noted that nobody had decided in time"),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("closed_at", sa.BigInteger()),
        sa.Column("closed_by", sa.Text()),
        sa.Column("note", sa.Text()),
        sa.Column("right_type", sa.String(32)),
        sa.Column("right_subcategory", sa.String(64)),
        sa.Column("right_intent", sa.String(32)),
        sa.PrimaryKeyConstraint("id", name="pk_review"),
        sa.UniqueConstraint("event_id", name="uq_review_event_id"),
    )
    op.create_index("ix_review_state_due", "review", ["state", "due"])


def downgrade() -> None:
    op.drop_table("review")

"""What an endpoint suggests about replies that were read with little confidence.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "suggestion",
        sa.Column("event_id", sa.String(26), nullable=False),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("intent", sa.String(32)),
        sa.Column("confidence", sa.Float()),
        sa.Column("because", sa.Text()),
        sa.PrimaryKeyConstraint("event_id", name="pk_suggestion"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_suggestion_asked_at", "suggestion", ["asked_at"])


def downgrade() -> None:
    op.drop_table("suggestion")

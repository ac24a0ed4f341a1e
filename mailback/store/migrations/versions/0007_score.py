"""The score ledger.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "score",
        sa.Column("address_key", sa.Text(), nullable=False),
        sa.Column("step", sa.String(8), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False, comment="days since 1970 UTC"),
        sa.Column("fact", sa.String(200), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.String(64), nullable=False),
        sa.Column("suppress_days", sa.Integer()),
        sa.Column("needed", sa.Integer()),
        sa.Column("window_days", sa.Integer()),
        sa.PrimaryKeyConstraint("address_key", "step", "day", "fact", name="pk_score"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("score")

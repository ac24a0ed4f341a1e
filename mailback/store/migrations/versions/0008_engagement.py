"""What recipients did with our mail.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "engagement",
        sa.Column("address_key", sa.Text(), nullable=False),
        sa.Column("sent", sa.BigInteger(), nullable=False),
        sa.Column("opens", sa.BigInteger(), nullable=False),
        sa.Column("clicks", sa.BigInteger(), nullable=False),
        sa.Column("last_sent", sa.BigInteger()),
        sa.Column("last_open", sa.BigInteger()),
        sa.Column("last_click", sa.BigInteger()),
        sa.PrimaryKeyConstraint("address_key", name="pk_engagement"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "engagement_fact",
        sa.Column("identity", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("identity", name="pk_engagement_fact"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in ("engagement_fact", "engagement"):
        op.drop_table(table)

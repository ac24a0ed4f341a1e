"""Messages as they came in, for as long as somebody may have to read one.

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "raw",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False, comment="zlib; the beginning, of a very long one"),
        sa.PrimaryKeyConstraint("sha256", name="pk_raw"),
    )
    op.create_index("ix_raw_at", "raw", ["at"])


def downgrade() -> None:
    op.drop_table("raw")

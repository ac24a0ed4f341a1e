"""The message that tries an address whose hold has run out.

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "probe",
        sa.Column("address_key", sa.Text, nullable=False),
        sa.Column("hold_until", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("token", sa.Text, nullable=False, comment="what each front knows it by"),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("address_key", name="pk_probe"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("probe")

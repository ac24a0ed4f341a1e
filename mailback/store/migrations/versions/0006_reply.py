"""What a reply means, kept with its event.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("event", sa.Column("intent", sa.String(32), comment="what a reply asks for"))
    op.add_column("event", sa.Column("route", sa.String(32), comment="where a reply goes"))
    op.add_column("event", sa.Column("due_at", sa.BigInteger(), comment="until when somebody must have seen a reply"))
    op.add_column("event", sa.Column("reply", sa.Text(), comment="JSON: what else was read in a reply"))


def downgrade() -> None:
    for column in ("reply", "due_at", "route", "intent"):
        op.drop_column("event", column)

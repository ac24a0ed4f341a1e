"""Find replies by their deadline.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_event_due_at", "event", ["due_at"], sqlite_where=sa.text("due_at IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("ix_event_due_at", "event")

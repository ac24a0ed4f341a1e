"""Which message tries a half-open breaker, told by what the fronts know it by.

Revision ID: 0018
Revises: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("breaker", sa.Column("probe_token", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("breaker", "probe_token")

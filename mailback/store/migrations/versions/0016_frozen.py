"""Tell what a wave made from what it kept back, so that its decision can be taken back whole.

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column(
        "frozen", sa.Boolean, nullable=False, server_default=sa.text("0"), comment="kept back, never made by the wave"
    )
    op.add_column("wave_member", column)


def downgrade() -> None:
    op.drop_column("wave_member", "frozen")

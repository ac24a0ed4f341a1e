"""Breakers, what is known of recipient domains, and the sending address of an event.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("event", sa.Column("sending_ip", sa.Text()))
    op.create_table(
        "breaker",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("side", sa.String(16), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger()),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("trips", sa.Integer(), nullable=False),
        sa.Column("pace_s", sa.Integer(), nullable=False),
        sa.Column("probe_every_s", sa.Integer(), nullable=False),
        sa.Column("probes_needed", sa.Integer(), nullable=False),
        sa.Column("quiet_s", sa.Integer(), nullable=False),
        sa.Column("probes", sa.Integer(), nullable=False),
        sa.Column("probe_at", sa.BigInteger()),
        sa.Column("probe_key", sa.Text()),
        sa.PrimaryKeyConstraint("provider", "side", "sender", name="pk_breaker"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_breaker_state", "breaker", ["state"])
    op.create_table(
        "domain",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("mail", sa.String(16), nullable=False),
        sa.Column("hosts", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("provider", sa.Text()),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False, comment="0: DNS is to be asked"),
        sa.PrimaryKeyConstraint("name", name="pk_domain"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_domain_expires_at", "domain", ["expires_at"])


def downgrade() -> None:
    for table in ("domain", "breaker"):
        op.drop_table(table)
    op.drop_column("event", "sending_ip")

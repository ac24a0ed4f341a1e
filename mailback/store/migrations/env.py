"""Run by Alembic: migrate over the connection that `mailback.store.upgrade` opened, in its transaction."""

from __future__ import annotations

from alembic import context

from mailback.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite's DDL is transactional once the driver keeps its hands off BEGIN; all steps or none.
    transactional_ddl=True,
    transaction_per_migration=False,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

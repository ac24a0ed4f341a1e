"""Alembic migrations, one a schema change, numbered; run by `mailback.store.upgrade`."""

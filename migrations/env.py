"""Runs the migrations on the connection that `pacslite.catalog.schema.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from pacslite.catalog.models import Base

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("run `pacslite migrate`: it knows the database and holds the lock")
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    # SQLite can alter little of a table: Alembic makes a new one and copies the rows.
    render_as_batch=connection.dialect.name == "sqlite",
    transactional_ddl=True,
    compare_server_default=True,
)
context.run_migrations()

"""Runs the migrations on the connection that `pacslite.catalog.schema.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from pacslite.catalog.models import SCHEMA

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("run `pacslite migrate`: it knows the database and holds the lock")
context.configure(
    connection=connection,
    target_metadata=SCHEMA,
    # SQLite can alter little of a table: Alembic makes a new one and copies the rows.
    render_as_batch=connection.dialect.name == "sqlite",
    transactional_ddl=True,
    compare_server_default=True,
)
context.run_migrations()

"""Every test of the catalog runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from tests.support.databases import catalog, database_url, new_database, postgres

__all__ = ["catalog", "database_url", "new_database", "postgres"]

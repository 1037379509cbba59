"""Catalogs for every integration test."""

from __future__ import annotations

from tests.support.databases import catalog, database_url, new_database, postgres

__all__ = ["catalog", "database_url", "new_database", "postgres"]

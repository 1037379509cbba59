"""Catalogs, an S3 server, and archives to be made anew, for every integration test."""

from __future__ import annotations

from tests.support.databases import catalog, database_url, new_database, postgres
from tests.support.rebuilding import anywhere, empty, local
from tests.support.s3_server import s3_endpoint

__all__ = ["anywhere", "catalog", "database_url", "empty", "local", "new_database", "postgres", "s3_endpoint"]

"""How the server of the catalog is connected to."""

from __future__ import annotations

import psycopg
import pytest

from pacslite.catalog.database import Catalog
from tests.support.databases import PostgresServer


@pytest.mark.parametrize(("more", "idle"), [("", "30"), ("&keepalives_idle=7", "7")])
def test_a_server_that_is_gone_without_a_word_is_given_up(postgres: PostgresServer, more: str, idle: str) -> None:
    """By the system's defaults a connection to a machine that has lost its power lives for two hours, and every write with it."""
    catalog = Catalog(postgres.new_database() + more)
    for engine in (catalog._reads, catalog._writes, catalog._autocommit):
        with engine.connect() as conn:
            driver = conn.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            told = driver.info.get_parameters()
            assert (told["keepalives_idle"], told["keepalives_count"], told["tcp_user_timeout"]) == (idle, "3", "60000")
    catalog.close()

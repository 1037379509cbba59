"""How the server of the catalog is connected to."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import text

from pacslite.catalog.database import Catalog
from pacslite.errors import Busy
from tests.support.databases import PostgresServer
from tests.support.processes import until


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


def test_after_a_busy_moment_few_connections_are_kept(postgres: PostgresServer) -> None:
    """Six processes with the defaults of ours have to live with PostgreSQL's: 100 connections."""
    url = postgres.new_database()
    with closing(Catalog(url)) as catalog:
        catalog.migrate()
        all_in = threading.Barrier(12)

        def use(number: int) -> None:
            with catalog.read() as conn:
                conn.execute(text("SELECT 1"))
                all_in.wait(20)

        def glance(number: int) -> None:
            with catalog._glances.taken(catalog._autocommit) as conn:
                conn.execute(text("SELECT 1"))
                all_in.wait(20)

        with ThreadPoolExecutor(12) as threads:
            for work in (use, glance):
                list(threads.map(work, range(12)))
        name = url.partition("@/")[2].partition("?")[0]
        with psycopg.connect(host=str(postgres.socket_directory), user=postgres.user, dbname="postgres") as conn:
            kept = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
            until(lambda: conn.execute(kept, [name]).fetchone()[0] <= 12)  # type: ignore[index]


def test_a_server_without_a_connection_left_is_waited_for(postgres: PostgresServer) -> None:
    """Others give theirs back; who waited in vain hears that the catalog is busy, not that it is gone."""
    url = postgres.new_database()
    name = url.partition("@/")[2].partition("?")[0]
    with psycopg.connect(host=str(postgres.socket_directory), user=postgres.user, dbname="postgres", autocommit=True) as conn:
        conn.execute(f"CREATE ROLE r{name} LOGIN")  # type: ignore[arg-type]  # a limit does not hold for a superuser
        conn.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 1")  # type: ignore[arg-type]
    limited = url.replace(f"{postgres.user}@", f"r{name}@")
    holds = psycopg.connect(host=str(postgres.socket_directory), user=f"r{name}", dbname=name)
    with closing(Catalog(limited, busy_timeout_s=0.2)) as impatient, pytest.raises(Busy), impatient.read() as conn:
        conn.execute(text("SELECT 1"))

    def read(catalog: Catalog) -> int | None:
        with catalog.read() as conn:
            return conn.execute(text("SELECT 1")).scalar()

    with closing(Catalog(limited, busy_timeout_s=30)) as patient, ThreadPoolExecutor(1) as threads:
        waits = threads.submit(read, patient)
        assert wait([waits], 0.3).not_done
        holds.close()
        assert waits.result(30) == 1

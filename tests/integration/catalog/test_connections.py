"""How the server of the catalog is connected to."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import bindparam, func, select, text

from pacslite.catalog.database import Catalog
from pacslite.catalog.engines import POSTGRESQL_LEADERS, kept_for_reading
from pacslite.catalog.models import peer
from pacslite.catalog.statements import Prepared
from pacslite.errors import Busy, Unavailable
from tests.support.databases import PostgresServer
from tests.support.processes import until


@pytest.mark.parametrize(("more", "idle"), [("", "30"), ("&keepalives_idle=7", "7")])
def test_a_server_that_is_gone_without_a_word_is_given_up(postgres: PostgresServer, more: str, idle: str) -> None:
    """By the system's defaults a connection to a machine that has lost its power lives for two hours, and every write with it."""
    catalog = Catalog(postgres.new_database() + more)
    for engine in (catalog._reads, catalog._writes):
        with engine.connect() as conn:
            driver = conn.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            told = driver.info.get_parameters()
            assert (told["keepalives_idle"], told["keepalives_count"], told["tcp_user_timeout"]) == (idle, "3", "60000")
    catalog.close()


def test_after_a_busy_moment_few_connections_are_kept(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    with closing(Catalog(url, kept_connections=5)) as catalog:
        catalog.migrate()
        all_in = threading.Barrier(12)

        def use(number: int) -> None:
            with catalog.read() as conn:
                conn.execute(text("SELECT 1"))
                all_in.wait(20)

        with ThreadPoolExecutor(12) as threads:
            list(threads.map(use, range(12)))
        name = url.partition("@/")[2].partition("?")[0]
        with psycopg.connect(host=str(postgres.socket_directory), user=postgres.user, dbname="postgres") as conn:
            kept = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
            until(lambda: conn.execute(kept, [name]).fetchone()[0] <= 5 + 1 + 1)  # type: ignore[index]  # one for writing, one of the pool


@pytest.mark.parametrize("processes", [2, 6, 9, 13])
def test_what_all_processes_keep_fits_into_a_server_as_it_is_installed(processes: int) -> None:
    """PostgreSQL has 100 connections by default, and keeps some for its administrators."""
    kept = kept_for_reading(processes)
    assert kept >= 2
    assert processes * (kept + 1 + POSTGRESQL_LEADERS) < 97


def test_a_transaction_that_reads_sees_one_state_and_cannot_write(postgres: PostgresServer) -> None:
    with closing(Catalog(postgres.new_database())) as catalog:
        catalog.migrate()
        count = text("SELECT count(*) FROM peer")
        add = "INSERT INTO peer (ae_title, host, port, created_at, updated_at) VALUES ('A', 'h', 1, '', '')"
        with catalog.read() as conn:
            before = conn.execute(count).scalar()
            catalog.write(lambda writing: writing.exec_driver_sql(add))
            assert conn.execute(count).scalar() == before == 0
        with catalog.read() as conn:
            assert conn.execute(count).scalar() == 1
        with pytest.raises(Unavailable), catalog.read() as conn:
            conn.exec_driver_sql("DELETE FROM peer")
        with pytest.raises(Unavailable), catalog._connections.taken(catalog._reads) as conn, catalog._translated():
            conn.exec_driver_sql("DELETE FROM peer")
        assert catalog.write(lambda writing: writing.execute(count).scalar()) == 1


def test_nothing_of_a_transaction_that_failed_stays_on_its_connection(postgres: PostgresServer) -> None:
    """SQLAlchemy does not know of the transaction in which is read; the connection is given back without it."""
    state = Prepared(select(func.now() == func.statement_timestamp()))  # within a transaction `now` is when that began
    with closing(Catalog(postgres.new_database())) as catalog:
        for failing in ("SELECT 1 / 0", "SELECT pg_terminate_backend(pg_backend_pid())"):
            with pytest.raises(Unavailable), catalog.read() as conn:
                conn.exec_driver_sql(failing)
            assert [catalog.glance(state) for _ in range(3)] == [True, True, True], failing
        with pytest.raises(KeyError), catalog.read():
            raise KeyError
        assert [catalog.glance(state) for _ in range(3)] == [True, True, True]


def test_statements_that_read_stay_prepared(postgres: PostgresServer) -> None:
    statement = Prepared(select(peer.c.host).where(peer.c.ae_title == bindparam("title")))
    with closing(Catalog(postgres.new_database())) as catalog:
        catalog.migrate()
        for _ in range(10):
            with catalog.read() as conn:
                statement.first(conn, {"title": "A"})
                conn.execute(text("SELECT 1"))
        with catalog.read() as conn:
            assert conn.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%host%%'").scalar() == 1


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

"""A PostgreSQL that is frozen answers nothing, and its kernel acknowledges what is sent: every wait for it ends all the same."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from sqlalchemy import Connection, select, text

from pacslite.catalog import models
from pacslite.catalog.database import Catalog
from pacslite.catalog.statements import Prepared
from pacslite.errors import Busy, OutcomeUnknown, Unavailable
from tests.support.databases import PostgresServer
from tests.support.processes import until

NAMES = Prepared(select(models.peer.c.ae_title))
DEADLINE_S = 60  # of the test: without a bound it would be for ever


@pytest.fixture(scope="module")
def url(postgres: PostgresServer) -> str:
    made = postgres.new_database()
    catalog = Catalog(made)
    catalog.migrate()
    catalog.close()
    return made


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    made = Catalog(url, busy_timeout_s=1, pool_size=4, statement_timeout_s=2)
    made.write(lambda conn: conn.execute(models.peer.delete()))
    made.rows(NAMES, {})
    yield made
    made.close()


def add(conn: Connection, title: str) -> None:
    conn.execute(text("INSERT INTO peer (ae_title, host, port, created_at, updated_at) VALUES (:n, 'h', 1, 'x', 'x')"), {"n": title})


def look(catalog: Catalog) -> list[str]:
    with catalog.read() as conn:
        return [str(title) for title in conn.execute(select(models.peer.c.ae_title)).scalars()]


def slow(catalog: Catalog, seconds: float) -> None:
    with catalog.read() as conn:
        conn.execute(text(f"SELECT pg_sleep({seconds})"))


def goes_on(catalog: Catalog) -> bool:
    try:
        return look(catalog) is not None and catalog.rows(NAMES, {}) is not None and catalog.write(lambda conn: True)
    except (Unavailable, Busy):
        return False


def test_whatever_is_asked_of_a_frozen_server_ends_and_goes_on_when_it_thaws(catalog: Catalog, postgres: PostgresServer) -> None:
    asked = [lambda: look(catalog), lambda: catalog.rows(NAMES, {}), lambda: catalog.write(lambda conn: add(conn, "A"))]
    with ThreadPoolExecutor(24) as threads:
        with postgres.frozen():
            for future in [threads.submit(asked[number % 3]) for number in range(24)]:
                error = future.exception(DEADLINE_S)
                assert isinstance(error, Unavailable | Busy), error
                assert not isinstance(error, OutcomeUnknown)
        until(lambda: goes_on(catalog))
        catalog.write(lambda conn: add(conn, "B"))
        assert look(catalog) == ["B"]  # what was told to have failed has not been done


def test_a_commit_that_nobody_answers_has_an_unknown_outcome(catalog: Catalog, postgres: PostgresServer) -> None:
    with ExitStack() as until_here, pytest.raises(OutcomeUnknown):
        catalog.write(lambda conn: add(conn, "A"), ready=lambda: until_here.enter_context(postgres.frozen()))
    until(lambda: goes_on(catalog))
    until(lambda: look(catalog) == ["A"])  # it had been sent


def test_a_server_that_is_only_slow_is_waited_for_up_to_the_bound(catalog: Catalog) -> None:
    slow(catalog, 1.2)  # after two thirds of a second it is asked whether it answers
    with pytest.raises(Unavailable):
        slow(catalog, 8)
    assert look(catalog) == []  # at once: others are not suspected


def test_a_connection_that_is_frozen_alone_ends_at_the_bound(catalog: Catalog, postgres: PostgresServer) -> None:
    look(catalog)
    with postgres.frozen(only_connections=True):
        with pytest.raises(Unavailable):
            look(catalog)
        until(lambda: goes_on(catalog))

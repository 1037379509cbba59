"""How the databases are connected to, and how their transactions begin and end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pacslite.errors import ConfigurationError

if TYPE_CHECKING:
    from pacslite.catalog.silence import Silence

# Each process keeps so many pages of the write-ahead log before a commit has to copy them (64 MiB); the worker does it earlier.
_WAL_PAGES = 16000
# A machine that loses its power says nothing: by the system's defaults its connections, and its locks in the database, live for two hours.
_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
_UNACKNOWLEDGED_MS = 60_000
POSTGRESQL_LEADERS = 4
"""Transactions that one process may have under way on PostgreSQL, each with a connection of its own."""
# Of the 100 connections that a server has by default, what its administrators and commands of ours need taken off.
_SERVED = 80
# "too many clients", or "connections" for a database or role; the SQLSTATE 53300 is not told to who is refused.
_FULL = ("too many c", "remaining connection slots")
_PAUSE_S = 0.02


def parse_url(url: str) -> URL:
    """The URL of a catalog; raises ConfigurationError for what is none."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError("database_url: is not a database URL") from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise ConfigurationError("database_url: the catalog is sqlite:///FILE or postgresql://HOST/DATABASE")
    return parsed


def dialect_of(url: str) -> Dialect:
    """What a catalog speaks; nothing is connected."""
    return create_engine(parse_url(url)).dialect


def database_file(url: URL) -> Path:
    """The file of an SQLite catalog, whose directory is made; raises ConfigurationError."""
    file = Path(url.database or "")
    try:
        file.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"database_url: {file.parent} cannot be made: {error.strerror}") from error
    return file


def sqlite_engine(url: URL, pool_size: int, busy_timeout_s: float, *, writes: bool) -> Engine:
    """An engine for reading, or for writing."""
    # hide_parameters: an error of the database may reach a log, the values of a row may not.
    engine = create_engine(url, pool_size=pool_size, max_overflow=128, pool_timeout=busy_timeout_s, hide_parameters=True)
    pragmas = [
        f"PRAGMA busy_timeout = {int(busy_timeout_s * 1000)}",
        "PRAGMA foreign_keys = ON",
        "PRAGMA synchronous = NORMAL",  # the log is synced after each commit, but outside of the writers' lock: WriteAheadLog
        "PRAGMA temp_store = MEMORY",
        f"PRAGMA cache_size = {-32000 if writes else -8000}",
        f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}",
        "PRAGMA journal_mode = WAL" if writes else "PRAGMA query_only = ON",
    ]

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own
        for pragma in pragmas:
            connection.execute(pragma).close()

    begin_statement = "BEGIN IMMEDIATE" if writes else "BEGIN"

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        driver: Any = conn.connection.driver_connection
        if not driver.in_transaction:  # by `begin_write`
            driver.execute(begin_statement).close()

    return engine


def _alive(url: URL) -> dict[str, int]:
    """A server that is gone without a word is given up; what the URL says of that counts."""
    wanted = {"keepalives": 1, **_KEEPALIVES, "tcp_user_timeout": _UNACKNOWLEDGED_MS}
    return {name: value for name, value in wanted.items() if name not in url.query}


def kept_for_reading(processes: int) -> int:
    """Connections that each of so many processes keeps between uses on PostgreSQL, so that there is one for everybody."""
    return max(2, _SERVED // processes - POSTGRESQL_LEADERS)


def postgresql_engine(url: URL, pool_size: int, busy_timeout_s: float, silence: Silence, *, writes: bool) -> Engine:
    """An engine for writing, or for reading: statements each on its own, or in what `begin_read` begins."""
    engine = create_engine(
        url,
        # `Connections` keeps those in use often; what the pool keeps besides is taken from other processes.
        pool_size=pool_size if writes else 1,
        max_overflow=0 if writes else 2 * pool_size - 1,
        pool_timeout=busy_timeout_s,
        pool_pre_ping=False,
        hide_parameters=True,
        isolation_level="READ COMMITTED" if writes else "AUTOCOMMIT",
        connect_args={"connect_timeout": max(2, int(busy_timeout_s)), "application_name": "pacslite"} | _alive(url),
    )
    _wait_for_room(engine, busy_timeout_s, silence)
    settings = [f"SET lock_timeout = {int(busy_timeout_s * 1000)}", "SET synchronous_commit = on"]
    settings += [f"SET tcp_{name} = {value}" for name, value in _KEEPALIVES.items()]
    if not writes:
        settings.append("SET default_transaction_read_only = on")

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            for setting in settings:
                cursor.execute(setting)
        connection.commit()

    return engine


def _wait_for_room(engine: Engine, seconds: float, silence: Silence) -> None:
    """A server without a connection left is asked again: another process gives one back in a moment."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, _record: object, arguments: Any, options: Any) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return silence.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                if not any(text in str(error) for text in _FULL):
                    raise
                if time.monotonic() > deadline:
                    raise PoolTimeout("the database has no connection left") from error
            time.sleep(_PAUSE_S)


def unbounded(conn: Connection) -> None:
    """Statements of this connection may take as long as they do; a server that does not answer is given up all the same."""
    if conn.dialect.name == "postgresql":
        driver: Any = conn.connection.driver_connection
        driver.bound_s = None


def begin_write(conn: Connection) -> None:
    """Begin a transaction. On SQLite past SQLAlchemy, whose own way to it costs as much as a small statement.

    A statement that goes through SQLAlchemy finds the transaction begun (`sqlite_engine`).
    """
    if conn.dialect.name == "sqlite":
        execute(conn, "BEGIN IMMEDIATE")
    else:
        conn.begin()


def begin_read(conn: Connection) -> None:
    """Begin a transaction that only reads, and sees one state. Past SQLAlchemy, for which the connection knows single statements alone."""
    execute(conn, "BEGIN" if conn.dialect.name == "sqlite" else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")


def end_transaction(conn: Connection, *, commit: bool) -> None:
    """Commit or roll back what `begin_write` or `begin_read` began."""
    if not conn.in_transaction():
        execute(conn, "COMMIT" if commit else "ROLLBACK")
    elif commit:
        conn.commit()
    else:
        conn.rollback()


def execute(conn: Connection, statement: str) -> None:
    """Run a statement without parameters and rows past SQLAlchemy, which costs more than the statement."""
    driver: Any = conn.connection.driver_connection
    driver.execute(statement).close()

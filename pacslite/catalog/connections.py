"""Connections to the catalog's database in use: kept open from one use to the next, with our errors in place of the database's."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pacslite.catalog.engines import begin_read, end_transaction
from pacslite.errors import Busy, OutOfSpace, PacsliteError, Unavailable

if TYPE_CHECKING:
    from pacslite.catalog.silence import Silence

RETRYABLE = frozenset({"40001", "40P01"})
"""SQLSTATEs of PostgreSQL after which the same may be done again: serialization failure, deadlock."""

_OUT_OF_SPACE, _BUSY = frozenset({"53100", "SQLITE_FULL"}), frozenset({"55P03", "57014", "53300"})


class Connections:
    """Connections kept open between uses: taking one from SQLAlchemy's pool costs as much as a small transaction."""

    def __init__(self, bound: int, silence: Silence | None = None) -> None:
        self._bound = bound
        self._idle: deque[Connection] = deque()
        self._silence = silence

    def taken(self, engine: Engine, doubted: tuple[type[BaseException], ...] = ()) -> Taken:
        """A connection without a transaction, for a `with`; what is not committed at the end is rolled back.

        One on which an error of the kinds `doubted` was met is not used again: its transaction may still be open.
        """
        return Taken(self, engine, doubted)

    def take(self, engine: Engine) -> Connection:
        """A connection that nobody uses; raises Unavailable while the server does not answer."""
        if self._silence is not None:
            self._silence.check()
        try:
            return self._idle.pop()
        except IndexError:
            return engine.connect()

    def give_back(self, conn: Connection, *, healthy: bool) -> None:
        """Keep a connection for the next user, or close one that is not healthy."""
        if healthy and len(self._idle) < self._bound:
            self._idle.append(conn)
        else:
            conn.close()

    def close(self, *, doubted: bool = False) -> None:
        """Close those that nobody uses; nothing is asked on those that are doubted."""
        with suppress(IndexError):
            while True:
                conn = self._idle.pop()
                if doubted:
                    conn.invalidate()
                conn.close()


class Taken:
    """A connection in use. A class, like those below: every statement passes here, and generators cost several times as much."""

    __slots__ = ("_conn", "_connections", "_doubted", "_engine")

    def __init__(self, connections: Connections, engine: Engine, doubted: tuple[type[BaseException], ...]) -> None:
        self._connections, self._engine, self._doubted = connections, engine, doubted

    def __enter__(self) -> Connection:
        self._conn = self._connections.take(self._engine)
        return self._conn

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        conn, healthy = self._conn, False
        try:
            if error is None:
                if conn.in_transaction():
                    conn.rollback()
                healthy = not conn.invalidated
            elif isinstance(error, self._doubted):
                conn.invalidate()
        finally:
            self._connections.give_back(conn, healthy=healthy)


class Translated:
    """Raises our errors for those of the database."""

    __slots__ = ("_driver_error",)

    def __init__(self, driver_error: type[Exception]) -> None:
        self._driver_error = driver_error

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, (DBAPIError, self._driver_error, PoolTimeout)):
            raise translate(error) from error


class Read:
    """A connection in a transaction that only reads."""

    __slots__ = ("_conn", "_taken", "_translated")

    def __init__(self, taken: Taken, translated: Translated) -> None:
        self._taken, self._translated = taken, translated

    def __enter__(self) -> Connection:
        with self._translated:
            self._conn = conn = self._taken.__enter__()
            try:
                begin_read(conn)
            except BaseException as error:
                self._taken.__exit__(type(error), error, None)
                raise
            return conn

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._translated:
            try:
                if error is None:
                    end_transaction(self._conn, commit=True)  # PostgreSQL's driver forgets prepared statements at a rollback
            finally:
                self._taken.__exit__(kind, error, trace)
        self._translated.__exit__(kind, error, trace)


def _driver_level(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def sqlstate(error: BaseException) -> str:
    """PostgreSQL's SQLSTATE or SQLite's error name, "" when it has none."""
    origin = _driver_level(error)
    return str(getattr(origin, "sqlstate", None) or getattr(origin, "sqlite_errorname", None) or "")


def translate(error: BaseException) -> PacsliteError:
    """Our error for the database's; its text names no value of a row."""
    state, origin = sqlstate(error), _driver_level(error)
    if isinstance(error, PoolTimeout) or state in _BUSY or state.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or state in RETRYABLE:
        return Busy("the catalog is busy")
    if state in _OUT_OF_SPACE:
        return OutOfSpace("no room for the catalog")
    if isinstance(error, DBAPIError) and error.statement is None and str(origin):
        # Nothing was asked yet: the text is why there is no connection, and names no value of a row and no password.
        return Unavailable("the catalog cannot be reached", str(origin).splitlines()[0])
    return Unavailable(f"the catalog cannot be used ({type(origin).__name__} {state})".replace(" )", ")"))

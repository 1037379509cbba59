"""Core statements compiled once for each dialect and run by the driver itself.

SQLAlchemy's execution costs several times what SQLite needs for the statement; the paths that run for every instance go
past it. Values are passed as the driver takes them: text, numbers, bytes, None.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, ClassVar
from weakref import WeakSet

from sqlalchemy import Connection, Dialect, Executable, Insert
from sqlalchemy.sql.compiler import SQLCompiler

_Order = Callable[[Mapping[str, Any]], tuple[Any, ...]]
_Compiled = tuple[str, _Order | None, dict[str, Any]]


class Prepared:
    """A statement whose bound parameters are given by name at each run."""

    __slots__ = ("__weakref__", "_compiled", "_statement")

    known: ClassVar[WeakSet[Prepared]] = WeakSet()

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}
        self.known.add(self)

    def run(self, conn: Connection, parameters: Mapping[str, Any]) -> Any:
        """The driver's cursor after the statement has run."""
        sql, order, constants = self._compiled.get(conn.dialect.name) or self.compile(conn.dialect)
        if constants:
            parameters = {**constants, **parameters}
        # The driver's own connection: SQLAlchemy's cursor is one call more, and a cursor of its own another.
        driver: Any = conn.connection.dbapi_connection
        return driver.execute(sql, order(parameters) if order is not None else parameters)

    def do(self, conn: Connection, parameters: Mapping[str, Any]) -> int:
        """Runs a statement that gives no rows; how many rows it has changed."""
        cursor = self.run(conn, parameters)
        try:
            return cursor.rowcount  # type: ignore[no-any-return]
        finally:
            cursor.close()

    def first(self, conn: Connection, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The first row, or None."""
        cursor = self.run(conn, parameters)
        try:
            return cursor.fetchone()  # type: ignore[no-any-return]
        finally:
            cursor.close()

    def all(self, conn: Connection, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """All rows."""
        cursor = self.run(conn, parameters)
        try:
            return cursor.fetchall()  # type: ignore[no-any-return]
        finally:
            cursor.close()

    def only(self, conn: Connection, parameters: Mapping[str, Any]) -> Any:
        """The first column of the one row that `RETURNING` gives."""
        cursor = self.run(conn, parameters)
        try:
            return cursor.fetchall()[0][0]
        finally:
            cursor.close()

    def is_for(self, dialect: Dialect) -> bool:
        """False for a statement that is written in another dialect (`INSERT ... ON CONFLICT`)."""
        module = type(self._statement).__module__.split(".")
        return module[:2] != ["sqlalchemy", "dialects"] or module[2] == dialect.name

    def compile(self, dialect: Dialect) -> _Compiled:
        """The text of the statement, what orders its parameters (None: by name), and its constants."""
        compiled = self._for(dialect.name).compile(dialect=dialect)  # type: ignore[attr-defined]
        assert isinstance(compiled, SQLCompiler)
        order = _in_order(tuple(compiled.positiontup)) if compiled.positiontup is not None else None
        constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required and bind.value is not None}
        self._compiled[dialect.name] = (compiled.string, order, constants)
        return self._compiled[dialect.name]

    def _for(self, dialect: str) -> Executable:
        """The statement as this database gets it."""
        return self._statement


class PreparedInsert(Prepared):
    """An INSERT of one row whose number the database makes. SQLite tells it without `RETURNING`, which costs it as much as the row."""

    __slots__ = ()

    def __init__(self, statement: Insert) -> None:
        super().__init__(statement)

    def number(self, conn: Connection, parameters: Mapping[str, Any]) -> int:
        """Runs the statement; the number of the row."""
        if conn.dialect.name == "sqlite":
            return self.run(conn, parameters).lastrowid  # type: ignore[no-any-return]
        return self.only(conn, parameters)  # type: ignore[no-any-return]

    def _for(self, dialect: str) -> Executable:
        statement: Any = self._statement
        return statement if dialect == "sqlite" else statement.returning(*statement.table.primary_key)  # type: ignore[no-any-return]


@lru_cache(maxsize=1024)
def _in_order(names: tuple[str, ...]) -> _Order:
    """What takes the values of these names, in their order."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda parameters: tuple([parameters[name] for name in names])


def compile_all(dialect: Dialect) -> None:
    """Compile all statements made so far, so that processes forked afterwards need not."""
    for statement in list(Prepared.known):
        if statement.is_for(dialect):
            statement.compile(dialect)


def lock_keys(conn: Connection, keys: Iterable[str]) -> None:
    """Hold locks of these names until the transaction ends; nothing where writers come one after the other.

    In sorted order, so that batches of several leaders and processes cannot wait in a circle.
    """
    if conn.dialect.name != "postgresql":
        return
    numbers = sorted({key_number(key) for key in keys})
    if numbers:
        sql = "SELECT pg_advisory_xact_lock(k) FROM unnest(%s::bigint[]) WITH ORDINALITY AS t(k, n) ORDER BY n"
        conn.exec_driver_sql(sql, (numbers,))


def key_number(key: str) -> int:
    """The number by which PostgreSQL knows a lock."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest(), "big", signed=True)


def now_text() -> str:
    """The present time as the catalog writes times: ISO 8601, UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")[:26] + "Z"


def time_text(moment: datetime) -> str:
    """A time as the catalog writes it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"

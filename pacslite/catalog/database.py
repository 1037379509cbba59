"""The catalog's database: short reads, grouped writes, and its schema.

`Catalog.read`, `write` and, for one statement by itself, `first`, `rows` and `glance` are the only ways to a connection. Of what the
tables mean no more is known here than what is hidden from whom (`sight`), and that on PostgreSQL each transaction announces itself
to the feed of changes (`changes.announce`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pacslite import metrics
from pacslite.catalog import changes, schema
from pacslite.catalog.connections import RETRYABLE, Connections, Read, Translated, sqlstate, translate
from pacslite.catalog.engines import (
    POSTGRESQL_LEADERS,
    begin_write,
    database_file,
    end_transaction,
    execute,
    parse_url,
    postgresql_engine,
    sqlite_engine,
    unbounded,
)
from pacslite.catalog.group_commit import GroupCommit, Item, Take
from pacslite.catalog.models import REVISION
from pacslite.catalog.process_lock import ProcessLock
from pacslite.catalog.statements import Prepared, key_number, lock_keys
from pacslite.catalog.visibility import EVERYTHING, Sight, Visibility, sight
from pacslite.catalog.write_ahead_log import WriteAheadLog
from pacslite.durability import sync_directory
from pacslite.errors import Busy, OutcomeUnknown, PacsliteError, Unavailable

if TYPE_CHECKING:
    from pacslite.catalog.silence import Silence

T = TypeVar("T")
_ATTEMPTS = 8


class Catalog:
    """One database, one process. Safe for threads; to be made after a fork, not before.

    `visibility` is what its user may see: `seen_by` gives the same catalog to somebody else, and whoever reads patients, studies
    or series passes `sight(conn)` on to the statements.
    """

    visibility: Visibility = EVERYTHING

    def __init__(
        self, url: str, *, busy_timeout_s: float = 20, pool_size: int = 16, kept_connections: int = 2, statement_timeout_s: float = 60
    ) -> None:
        self.url = parse_url(url)
        self.busy_timeout_s = busy_timeout_s
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._lock: ProcessLock | None = None
        silence = None
        if self.is_sqlite:
            file = database_file(self.url)
            self._lock = ProcessLock(file)
            self._reads = sqlite_engine(self.url, pool_size, busy_timeout_s, writes=False)
            self._writes = sqlite_engine(self.url, 1, busy_timeout_s, writes=True)
        else:
            silence = self._silence(max(statement_timeout_s, busy_timeout_s + 1))
            self._reads = postgresql_engine(self.url, pool_size, busy_timeout_s, silence, writes=False)
            self._writes = postgresql_engine(self.url, POSTGRESQL_LEADERS, busy_timeout_s, silence, writes=True)
        leaders = 1 if self.is_sqlite else POSTGRESQL_LEADERS
        kept = pool_size if self.is_sqlite else kept_connections
        self._connections, self._write_connections = Connections(kept, silence), Connections(leaders, silence)
        self._driver_error: type[Exception] = self._writes.dialect.loaded_dbapi.Error
        self._log = WriteAheadLog(database_file(self.url)) if self.is_sqlite else None
        self._group = GroupCommit(self._commit, leaders, self._log.sync if self._log else None)

    def _silence(self, bound_s: float) -> Silence:
        from pacslite.catalog.silence import Silence  # with psycopg

        def end_idle() -> None:
            for connections in (self._connections, self._write_connections):
                connections.close(doubted=True)

        return Silence(bound_s, end_idle)

    def seen_by(self, visibility: Visibility) -> Catalog:
        """This catalog for somebody who may not see everything."""
        if visibility == self.visibility:
            return self
        seen = copy(self)
        seen.visibility = visibility
        return seen

    def sight(self, conn: Connection) -> Sight | None:
        """What is hidden from the user of this catalog in this transaction; None when nothing is."""
        return sight(conn, self.visibility) if self.visibility.is_limited else None

    def read(self) -> AbstractContextManager[Connection]:
        """A connection that sees one state of the catalog; to be left before anything is sent to anybody."""
        return Read(self._connections.taken(self._reads), self._translated())

    def glance(self, statement: Prepared) -> Any:
        """The first column of the first row as of now, None without a row: for what every request asks."""
        row = self.first(statement, {})
        return row[0] if row is not None else None

    def first(self, statement: Prepared, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The first row as of now of one statement by itself, None without a row."""
        with self._translated(), self._connections.taken(self._reads) as conn:
            return statement.first(conn, parameters)

    def rows(self, statement: Prepared, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """All rows as of now of one statement by itself."""
        with self._translated(), self._connections.taken(self._reads) as conn:
            return statement.all(conn, parameters)

    def write(self, work: Callable[[Connection], T], keys: tuple[str, ...] = (), ready: Callable[[], None] | None = None) -> T:
        """The result of `work`, once it is committed. Raises what `work` raises (nothing is kept then), Busy, OutcomeUnknown.

        `ready` is called between the last statement and the commit, and may be called more than once: it returns when
        what the rows speak of is durable. What it raises, `write` raises, and nothing of this work is kept.

        `work` may run more than once and does nothing but SQL. `keys` name what it changes (`study:UID`): on PostgreSQL
        two writes that share a key never overlap.
        """
        began, outcome = time.perf_counter(), "failed"
        try:
            result: T = self._group.run(work, keys, self.busy_timeout_s, ready)
            outcome = "success"
            return result
        except Busy:
            outcome = "busy"
            raise
        finally:
            metrics.WRITE_SECONDS.observe(time.perf_counter() - began, outcome)

    @property
    def is_contended(self) -> bool:
        """Whether a write would keep writers of other processes waiting (SQLite)."""
        return self._lock is not None and self._lock.is_contended

    def _commit(self, take: Take, deadline: float) -> None:
        began, lock = time.perf_counter(), self._lock
        if lock is not None:
            lock.acquire(deadline)
        waited = time.perf_counter() - began
        try:
            batch = take()
            attempt = 1
            while not self._try_batch([item for item in batch if not item.finished], last=attempt >= _ATTEMPTS):
                attempt += 1
        finally:
            if lock is not None:
                lock.release()
        # Counted when others can go on.
        metrics.BATCH_SIZE.observe(len(batch))
        if lock is not None:
            metrics.LOCK_WAIT_SECONDS.observe(waited)

    def _try_batch(self, batch: list[Item], *, last: bool) -> bool:
        """Runs and commits the batch; False when it has to run again."""
        committing = False
        try:
            with self._write_connections.taken(self._writes, (DBAPIError, self._driver_error)) as conn:
                begin_write(conn)
                lock_keys(conn, (key for item in batch for key in item.keys))
                changes.announce(conn)
                for item in batch:
                    self._run(conn, item, alone=len(batch) == 1)
                    if item.error is not None and not last and sqlstate(item.error) in RETRYABLE:
                        end_transaction(conn, commit=False)
                        return False
                if _unready(batch):
                    end_transaction(conn, commit=False)
                    return False  # the others run again
                committing = any(item.error is None for item in batch)
                end_transaction(conn, commit=committing)
        except (DBAPIError, self._driver_error, PoolTimeout) as error:
            if not committing and not last and sqlstate(error) in RETRYABLE:
                return False
            failure = OutcomeUnknown("the commit of the catalog failed; nobody knows its outcome") if committing else translate(error)
            for item in batch:
                item.fail(failure)
            return True
        for item in batch:
            item.finished = True
            if isinstance(item.error, (DBAPIError, self._driver_error)):
                item.error = translate(item.error)
        return True

    def _run(self, conn: Connection, item: Item, *, alone: bool) -> None:
        if alone:
            with item:
                item.result = item.work(conn)
            return
        execute(conn, "SAVEPOINT item")
        with item:
            item.result = item.work(conn)
        execute(conn, "RELEASE SAVEPOINT item" if item.error is None else "ROLLBACK TO SAVEPOINT item")

    def _translated(self) -> Translated:
        return Translated(self._driver_error)

    def revision(self) -> str | None:
        """The revision of the schema in the database, None when there is none."""
        with self._translated(), self._reads.connect() as conn:
            if not inspect(conn).has_table("alembic_version"):
                return None
            revision: str | None = conn.execute(text("SELECT version_num FROM alembic_version")).scalar()
            return revision

    def check_revision(self) -> None:
        """Raises Unavailable unless the schema is the one this program was made for."""
        found = self.revision()
        if found != REVISION:
            raise Unavailable(f"the catalog has schema {found or 'none'}, this program needs {REVISION}: run `pacslite migrate`")

    def check_writable(self) -> None:
        """Raises Unavailable when rows can be read and not written; never waits for writers."""
        if not self.is_sqlite:
            with self.read() as conn:
                if conn.execute(text("SELECT pg_is_in_recovery()")).scalar():
                    raise Unavailable("the catalog cannot be written: its database is a standby")
            return
        file = database_file(self.url)
        for path in (file, file.with_name(file.name + "-wal"), file.with_name(file.name + "-shm"), file.parent):
            if path.exists() and not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                raise Unavailable(f"the catalog cannot be written: {path.name} is read-only for the account that runs the server")

    def migrate(self, target: str = "head") -> None:
        """Bring the schema to this program's revision; only one process at a time does it, in one transaction."""
        if target == "head" and self.revision() == REVISION:
            return
        held: AbstractContextManager[None] = nullcontext()
        if self._lock:
            held = self._lock.held(time.monotonic() + max(60, self.busy_timeout_s))
        with held, self._translated(), self._writes.connect() as conn, conn.begin():
            unbounded(conn)
            if not self.is_sqlite:
                conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key_number("migrate")})
            schema.upgrade(conn, target)
        self.make_durable()
        if self.is_sqlite:
            # SQLite does that for its journal, not for a new database.
            sync_directory(database_file(self.url).parent)

    def make_durable(self) -> None:
        """What could be read until now is durable when this returns: for whoever promises something after reading only.

        On SQLite a commit is seen a moment before its sync; `write` itself returns after it.
        """
        try:
            if self._log:
                self._log.sync()
        except OSError as error:
            raise Unavailable(f"the catalog cannot be synced: {error.strerror}") from error

    def checkpoint(self) -> int:
        """Copy SQLite's write-ahead log into the database; pages that remain in the log. The worker calls it."""
        if not self.is_sqlite:
            return 0
        with self._translated(), self._writes.connect() as conn:
            driver: Any = conn.connection.driver_connection
            _, in_log, copied = driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return int(max(0, in_log - copied))

    def wal_bytes(self) -> int | None:
        """Size of SQLite's write-ahead log; None where there is no such file."""
        file = database_file(self.url) if self.is_sqlite else None
        try:
            return None if file is None else file.with_name(file.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        """Close all connections; the catalog is not used afterwards."""
        self._connections.close()
        self._write_connections.close()
        self._reads.dispose()
        self._writes.dispose()
        if self._log:
            self._log.close()
        if self._lock:
            self._lock.close()
            self._lock = None


def _unready(batch: list[Item]) -> bool:
    """Waits until everything the rows of a batch speak of is durable; whether some of it never will be."""
    failed = False
    for item in batch:
        if item.ready is None or item.error is not None:
            continue
        try:
            item.ready()
        except PacsliteError as error:
            item.fail(error)
            failed = True
    return failed

"""The whole catalog as lines of JSON that belong to no database: written in one read transaction, read into an empty catalog.

The first line tells the form and the revision of the schema. Then comes each table, parents first: its columns, and one line a row.
The last line tells how many rows there were and how far numbers were given out. Bytes are base64.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sqlalchemy import Column, Connection, LargeBinary, Table, column, func, insert, inspect, select, table, text

from pacslite.catalog.jobs import HOLD
from pacslite.catalog.models import REVISION, SCHEMA, blob, change, job, patient, written_ahead
from pacslite.errors import StorageError

FORM = 1
_ROWS_READ, _ROWS_WRITTEN = 1000, 500
# What means something to this database alone.
_LEFT_EMPTY = frozenset({change.c.transaction_id})
# Tables in which a new schema has rows.
_SEEDED = frozenset({"alembic_version", "audit_state", "access_generation", "access_state"})

Line = dict[str, Any] | list[Any]


def lines(conn: Connection) -> Iterator[Line]:
    """The catalog as this transaction sees it."""
    yield {"form": FORM, "revision": REVISION}
    counts: dict[str, int] = {}
    for of in SCHEMA.sorted_tables:
        if of is written_ahead:  # the bytes are in the storage too, and so in the backup
            continue
        columns = list(of.columns)
        binary = [one.name for one in columns if isinstance(one.type, LargeBinary)]
        yield {"table": of.name, "columns": [one.name for one in columns], "binary": binary}
        counts[of.name] = 0
        for row in _rows(conn, of, columns):
            counts[of.name] += 1
            yield row
    yield {"rows": counts, "numbers": _numbers(conn)}


def _rows(conn: Connection, of: Table, columns: list[Column[Any]]) -> Iterator[list[Any]]:
    statement = select(*columns).order_by(*of.primary_key.columns).execution_options(yield_per=_ROWS_READ)
    if of is job:
        statement = statement.where(job.c.kind != HOLD)
    packed = [number for number, one in enumerate(columns) if isinstance(one.type, LargeBinary)]
    empty = [number for number, one in enumerate(columns) if one in _LEFT_EMPTY]
    for found in conn.execute(statement):
        row = list(found)
        for number in packed:
            if row[number] is not None:
                row[number] = base64.b64encode(row[number]).decode()
        for number in empty:
            row[number] = None
        yield row


def _numbers(conn: Connection) -> dict[str, int]:
    """The last number given out in each table that has numbers of the database: none of them is given out again."""
    if conn.dialect.name == "sqlite":
        known = conn.execute(text("SELECT name, seq FROM sqlite_sequence"))
        return {str(name): int(last) for name, last in known if name in SCHEMA.tables}
    last: dict[str, int] = {}
    for of, name in _numbered():
        sequence = conn.execute(text("SELECT pg_get_serial_sequence(:of, :name)"), {"of": of.name, "name": name}).scalar()
        if sequence is not None:
            given = conn.execute(text(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")).scalar_one()
            last[of.name] = int(given)
    return last


def _numbered() -> Iterator[tuple[Table, str]]:
    for of in SCHEMA.sorted_tables:
        if of.autoincrement_column is not None:
            yield of, of.autoincrement_column.name


def revision_of(first: Line) -> str:
    """The revision of the schema that a snapshot is of, by its first line; raises StorageError."""
    if not isinstance(first, dict) or "form" not in first:
        raise StorageError("this is no snapshot of a catalog")
    if first["form"] != FORM:
        raise StorageError(f"the snapshot has form {first['form']}, which this release does not read")
    return str(first["revision"])


def is_empty(conn: Connection) -> bool:
    """Whether there is nothing at all in the database, or a new schema."""
    names = [name for name in inspect(conn).get_table_names() if name not in _SEEDED]
    return not any(conn.execute(text(f'SELECT 1 FROM "{name}" LIMIT 1')).first() for name in names)


def restore(conn: Connection, snapshot: Iterable[Line], changed: Callable[[str, dict[str, Any]], bool]) -> int:
    """Put the rows of a snapshot into the empty tables of its revision; how many. To be done in one transaction.

    `changed` may alter a row of a table, and says whether it stays. Raises StorageError when the snapshot ends too early.
    """
    remaining, written, of = iter(snapshot), 0, ("", [""], [""])
    batch: list[dict[str, Any]] = []

    def flush() -> None:
        if batch:
            conn.execute(insert(table(of[0], *(column(name) for name in of[1]))), batch)
            batch.clear()

    revision_of(next(remaining, {}))
    for name in _SEEDED.intersection(inspect(conn).get_table_names()) - {"alembic_version"}:
        conn.execute(text(f"DELETE FROM {name}"))
    for line in remaining:
        if isinstance(line, list):
            row = dict(zip(of[1], line, strict=True))
            for name in of[2]:
                row[name] = base64.b64decode(row[name]) if row[name] is not None else None
            if changed(of[0], row):
                batch.append(row)
                written += 1
            if len(batch) >= _ROWS_WRITTEN:
                flush()
            continue
        flush()
        if "rows" in line:
            _go_on_from(conn, line["numbers"])
            return written
        of = line["table"], line["columns"], line["binary"]
    raise StorageError("the snapshot of the catalog has no end")


def _go_on_from(conn: Connection, last: dict[str, int]) -> None:
    """Let numbers go on behind the last one that was given out, also where its row is gone."""
    names = set(inspect(conn).get_table_names())
    for of, key in _numbered():
        if of.name not in names:
            continue
        given = max(last.get(of.name, 0), conn.execute(text(f"SELECT coalesce(max({key}), 0) FROM {of.name}")).scalar_one())
        if conn.dialect.name == "postgresql":
            sequence = conn.execute(text("SELECT pg_get_serial_sequence(:of, :name)"), {"of": of.name, "name": key}).scalar()
            if sequence is not None:
                conn.execute(select(func.setval(sequence, max(1, given), given > 0)))
        elif given and (of.dialect_options["sqlite"]["autoincrement"] or of is patient):
            conn.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": of.name})
            conn.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :seq)"), {"name": of.name, "seq": given})


def blob_rows(snapshot: Iterable[Line]) -> Iterator[dict[str, Any]]:
    """The rows of the blobs in a snapshot."""
    remaining = iter(snapshot)
    for line in remaining:
        if isinstance(line, dict) and line.get("table") == blob.name:
            columns = line["columns"]
            break
    for line in remaining:
        if isinstance(line, dict):
            return
        yield dict(zip(columns, line, strict=True))

"""Bytes of small files that the catalog keeps until their storage has them on the disk (`core.settling`).

The row is written by the transaction that records the file, so one sync of the catalog's log makes both durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from pacslite.catalog.models import blob, written_ahead
from pacslite.catalog.statements import Prepared


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A file that may not be on the disk yet."""

    pk: int
    blob_uid: str
    storage_key: str
    size_bytes: int


_INSERT = Prepared(insert(written_ahead).values({name: bindparam(name) for name in ("blob_uid", "storage_key", "content")}))
_FIRST = (
    select(written_ahead.c.pk, written_ahead.c.blob_uid, written_ahead.c.storage_key, func.length(written_ahead.c.content))
    .where(written_ahead.c.pk > bindparam("after"))
    .order_by(written_ahead.c.pk)
    .limit(bindparam("count"))
)
_CONTENT = select(written_ahead.c.content).where(written_ahead.c.pk == bindparam("row"))
_DROP = delete(written_ahead).where(written_ahead.c.pk.in_(bindparam("rows", expanding=True)))
_NAMED = select(blob.c.pk).where(blob.c.uid == bindparam("uid"), blob.c.storage_key == bindparam("key"), blob.c.state == "live")
_SPAN = Prepared(select(func.coalesce(func.max(written_ahead.c.pk) - func.min(written_ahead.c.pk) + 1, 0)))


def add(conn: Connection, blob_uid: str, storage_key: str, content: bytes) -> None:
    """Keep the bytes of a file."""
    _INSERT.do(conn, {"blob_uid": blob_uid, "storage_key": storage_key, "content": content})


def after(conn: Connection, pk: int, count: int) -> list[Unsettled]:
    """The files after a number, the oldest first."""
    return [Unsettled(*row) for row in conn.execute(_FIRST, {"after": pk, "count": count})]


def content(conn: Connection, pk: int) -> bytes | None:
    """The bytes that are kept; None when somebody else has found them to be on the disk."""
    kept: bytes | None = conn.execute(_CONTENT, {"row": pk}).scalar()
    return kept


def is_needed(conn: Connection, file: Unsettled) -> bool:
    """Whether the catalog still wants these bytes under this key: a deleted file is not brought back."""
    return conn.execute(_NAMED, {"uid": file.blob_uid, "key": file.storage_key}).first() is not None


def drop(conn: Connection, pks: Sequence[int]) -> None:
    """Forget bytes that are on the disk."""
    conn.execute(_DROP, {"rows": list(pks)})


def span(conn: Connection) -> int:
    """About how many files wait."""
    row = _SPAN.first(conn, {})
    return int(row[0]) if row is not None else 0

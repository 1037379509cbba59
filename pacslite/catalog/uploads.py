"""Resumable uploads in the catalog: how far each has come, whose it is, and what became of it.

The `offset` tells only bytes that are on stable storage. It moves for the writer whose token the row has, and for nobody else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from pacslite.catalog.file_models import upload as table

OPEN, COMPLETE, FAILED, EXPIRED, TERMINATED = "open", "complete", "failed", "expired", "terminated"
WHOLE, PARTIAL, FINAL = "whole", "partial", "final"
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload. `form` is what was said of the file, `parts` the uploads a final one is made of, `length` None while unknown."""

    uid: str
    kind: str
    state: str
    owner_id: int | None
    created_by: str
    form: Mapping[str, Any]
    length: int | None
    offset: int
    parts: tuple[str, ...]
    file_uid: str | None
    problem: str | None
    updated_at: str
    expires_at: str

    @property
    def is_whole(self) -> bool:
        """Whether all its bytes have come."""
        return self.length is not None and self.offset == self.length


_COLUMNS = [table.c[name] for name in Upload.__dataclass_fields__]


def add(conn: Connection, upload: Upload, now: str, writer: str | None = None) -> None:
    """A new upload."""
    values = {name: getattr(upload, name) for name in Upload.__dataclass_fields__}
    values |= {"form": json.dumps(dict(upload.form)), "parts": json.dumps(upload.parts), "created_at": now, "lease_owner": writer}
    conn.execute(insert(table).values(**values))


def find(conn: Connection, uid: str) -> Upload | None:
    """The upload of that id."""
    row = conn.execute(select(*_COLUMNS).where(table.c.uid == uid)).one_or_none()
    return None if row is None else _upload(row)


def count_open(conn: Connection, created_by: str, owner_id: int | None) -> int:
    """How many uploads of somebody are under way."""
    mine = table.c.created_by == created_by, table.c.state == OPEN, table.c.owner_id.is_not_distinct_from(owner_id)
    return int(conn.execute(select(func.count()).select_from(table).where(*mine)).scalar_one())


def claim(conn: Connection, uid: str, writer: str) -> Upload | None:
    """From here on this writer's token counts; the upload as it is now, None when it is not open any more."""
    mine = table.c.uid == uid, table.c.state == OPEN
    row = conn.execute(update(table).where(*mine).values(lease_owner=writer).returning(*_COLUMNS)).one_or_none()
    return None if row is None else _upload(row)


def advance(conn: Connection, uid: str, writer: str, offset: int, length: int | None, now: str, expires_at: str) -> bool:
    """So many bytes are on stable storage; False when another writer's token counts, or the upload is not open any more."""
    mine = table.c.uid == uid, table.c.state == OPEN, table.c.lease_owner == writer
    values = {"offset": offset, "length": length, "updated_at": now, "expires_at": expires_at}
    return conn.execute(update(table).where(*mine).values(**values)).rowcount > 0


def complete(conn: Connection, uid: str, writer: str, size: int, file_uid: str, now: str) -> bool:
    """The upload became a file; False when another writer's token counts, or it is not open any more."""
    mine = table.c.uid == uid, table.c.state == OPEN, table.c.lease_owner == writer
    values = {"state": COMPLETE, "offset": size, "length": size, "file_uid": file_uid, "updated_at": now, "lease_owner": None}
    return conn.execute(update(table).where(*mine).values(**values)).rowcount > 0


def end(conn: Connection, uids: Iterable[str], state: str, now: str, problem: str | None = None) -> int:
    """Open uploads that become no files; how many."""
    mine = table.c.uid.in_(list(uids)), table.c.state == OPEN
    values = {"state": state, "problem": problem, "updated_at": now, "lease_owner": None}
    return conn.execute(update(table).where(*mine).values(**values)).rowcount


def remove(conn: Connection, uid: str) -> None:
    """Forget an upload."""
    conn.execute(delete(table).where(table.c.uid == uid))


def unfinished(conn: Connection, after: str, *, expired: str | None = None, untouched: str | None = None) -> list[Upload]:
    """A page of open uploads by id, behind `after`: those that expired, or that nobody has touched, before a time."""
    mine = [table.c.state == OPEN, table.c.uid > after]
    mine += [table.c.expires_at <= expired] if expired is not None else []
    mine += [table.c.updated_at <= untouched] if untouched is not None else []
    return [_upload(row) for row in conn.execute(select(*_COLUMNS).where(*mine).order_by(table.c.uid).limit(_AT_ONCE))]


def still_open(conn: Connection, uids: Iterable[str]) -> set[str]:
    """Which of these are open."""
    return set(conn.execute(select(table.c.uid).where(table.c.uid.in_(list(uids)), table.c.state == OPEN)).scalars())


def forget(conn: Connection, until: str) -> int:
    """Forget uploads that ended before a time; how many."""
    return conn.execute(delete(table).where(table.c.state != OPEN, table.c.updated_at < until)).rowcount


def _upload(row: Row[Any]) -> Upload:
    values = dict(row._mapping)
    return Upload(**{**values, "form": json.loads(values["form"]), "parts": tuple(json.loads(values["parts"] or "[]"))})

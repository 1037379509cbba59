"""Bytes that files share: equal ones are kept once, counted, and doomed with the last reference.

A live blob of files is found by its digest (`shared_sha256`, unique). A reference is taken by one conditional UPDATE and dropped
by another, so that whoever comes at the same time sees either of both and never a count in between; a doomed blob has no such digest
any more and never comes back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, case, delete, insert, literal_column, null, select, update
from sqlalchemy.dialects import postgresql, sqlite

from pacslite.catalog.arrival import NewBlob
from pacslite.catalog.file_models import blob_info, rendition
from pacslite.catalog.models import blob
from pacslite.catalog.statements import Prepared, now_text

LIVE, DOOMED = "live", "doomed"


class StoredBlob(NamedTuple):
    """Where bytes lie and what they are. Whether they are packed there, their key tells (`storage.packing`)."""

    pk: int
    uid: str
    storage_key: str
    store_name: str
    size_bytes: int
    sha256: str
    media_type: str
    state: str


_COLUMNS = tuple(blob.c[name] for name in StoredBlob._fields)
_IS_SHARED = blob.c.shared_sha256 == bindparam("digest")
_FIND = Prepared(select(*_COLUMNS).where(blob.c.pk == bindparam("blob_pk")))
_FIND_SHARED = Prepared(select(*_COLUMNS).where(_IS_SHARED))
_LINK = Prepared(
    update(blob)
    .where(_IS_SHARED, blob.c.state == LIVE, blob.c.size_bytes == bindparam("size"))
    .values(reference_count=blob.c.reference_count + 1)
    .returning(blob.c.pk)
)
_LINK_AGAIN = Prepared(
    update(blob)
    .where(blob.c.pk == bindparam("blob_pk"), blob.c.state != DOOMED, blob.c.reference_count > 0)
    .values(reference_count=blob.c.reference_count + 1)
    .returning(blob.c.uid)
)
_WRITTEN = ("uid", "storage_key", "store_name", "size_bytes", "sha256", "media_type", "created_at", "shared_sha256")
_VALUES: dict[str, Any] = {name: bindparam(name) for name in _WRITTEN}


def _insert_or_link(dialect: Any) -> Prepared:
    statement = dialect.insert(blob).values(_VALUES)
    # The index of the few that have a digest, spelled as it is made.
    filled: Any = literal_column("shared_sha256 IS NOT NULL")
    counted = {"reference_count": blob.c.reference_count + 1}
    statement = statement.on_conflict_do_update(index_elements=[blob.c.shared_sha256], index_where=filled, set_=counted)
    return Prepared(statement.returning(blob.c.pk, blob.c.uid))


_INSERT = {"sqlite": _insert_or_link(sqlite), "postgresql": _insert_or_link(postgresql)}
_INSERT_ALONE = Prepared(insert(blob).values({name: bindparam(name) for name in _WRITTEN[:-1]}).returning(blob.c.pk))
_REPAIR = Prepared(
    update(blob)
    .where(blob.c.pk == bindparam("blob_pk"), _IS_SHARED)
    .values(
        uid=bindparam("new_uid"),
        storage_key=bindparam("key"),
        store_name=bindparam("store"),
        state=LIVE,
        encoding=null(),
        stored_bytes=null(),
    )
)
_IS_LAST = blob.c.reference_count <= bindparam("dropped")
_RELEASE = Prepared(
    update(blob)
    .where(blob.c.pk == bindparam("blob_pk"), blob.c.state != DOOMED)
    .values(
        reference_count=blob.c.reference_count - bindparam("dropped"),
        state=case((_IS_LAST, literal_column("'doomed'")), else_=blob.c.state),
        doomed_at=case((_IS_LAST, bindparam("now")), else_=blob.c.doomed_at),
        shared_sha256=case((_IS_LAST, null()), else_=blob.c.shared_sha256),
    )
    .returning(blob.c.state)
)
_RESULTS = select(rendition.c.result_blob).where(
    rendition.c.blob_pk.in_(bindparam("sources", expanding=True)), rendition.c.result_blob.is_not(None)
)


def find(conn: Connection, blob_pk: int) -> StoredBlob | None:
    """The blob of this number."""
    row = _FIND.first(conn, {"blob_pk": blob_pk})
    return None if row is None else StoredBlob(*row)


def find_shared(conn: Connection, sha256: str) -> StoredBlob | None:
    """The blob of files that holds these bytes, live or quarantined."""
    row = _FIND_SHARED.first(conn, {"digest": sha256})
    return None if row is None else StoredBlob(*row)


def link_or_none(conn: Connection, sha256: str, size: int) -> int | None:
    """Take a reference to live bytes of this digest; None when there are none (any more)."""
    rows = _LINK.all(conn, {"digest": sha256, "size": size})
    return rows[0][0] if rows else None


def link_again(conn: Connection, blob_pk: int) -> str | None:
    """Take one more reference to bytes that are referred to; their unique id, None when they are doomed."""
    rows = _LINK_AGAIN.all(conn, {"blob_pk": blob_pk})
    return rows[0][0] if rows else None


def insert_shared(conn: Connection, new: NewBlob) -> tuple[int, bool]:
    """A blob that others may share, with one reference: its number, and whether it is new.

    When somebody was faster with the same bytes, a reference to theirs is taken, and those of `new` are in nobody's use.
    """
    row = {**_row(new), "shared_sha256": new.sha256}
    pk, uid = _INSERT[conn.dialect.name].all(conn, row)[0]
    return pk, uid == new.uid


def insert_alone(conn: Connection, new: NewBlob) -> int:
    """A blob that nobody shares, with one reference: what is made of others."""
    pk: int = _INSERT_ALONE.only(conn, _row(new))
    return pk


def _row(new: NewBlob) -> dict[str, Any]:
    return {
        "uid": new.uid,
        "storage_key": new.storage_key,
        "store_name": new.store_name,
        "size_bytes": new.size_bytes,
        "sha256": new.sha256,
        "media_type": new.media_type,
        "created_at": now_text(),
    }


def repair(conn: Connection, blob_pk: int, new: NewBlob) -> bool:
    """Give a blob whose bytes are lost or damaged the same bytes anew, for all who share it; False when it is gone meanwhile."""
    row = {"blob_pk": blob_pk, "digest": new.sha256, "new_uid": new.uid, "key": new.storage_key, "store": new.store_name}
    return _REPAIR.do(conn, row) == 1


def release(conn: Connection, blob_pks: Iterable[int], now: str | None = None) -> int:
    """Drop a reference for each mention of a blob; how many blobs were doomed by it.

    What was made of a doomed blob is doomed with it.
    """
    doomed = _release(conn, blob_pks, now or now_text())
    if not doomed:
        return 0
    results = [pk for (pk,) in conn.execute(_RESULTS, {"sources": doomed})]
    conn.execute(delete(rendition).where(rendition.c.blob_pk.in_(doomed)))
    conn.execute(delete(blob_info).where(blob_info.c.blob_pk.in_(doomed)))
    return len(doomed) + len(_release(conn, results, now or now_text()))


def _release(conn: Connection, blob_pks: Iterable[int], now: str) -> list[int]:
    doomed = []
    for pk, dropped in sorted(Counter(blob_pks).items()):  # in one order: two that drop the same ones do not wait in a circle
        rows = _RELEASE.all(conn, {"blob_pk": pk, "dropped": dropped, "now": now})
        if rows and rows[0][0] == DOOMED:
            doomed.append(pk)
    return doomed

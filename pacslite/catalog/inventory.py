"""What the catalog says about stored bytes, in pages: for verification, sweeping and erasing.

Blobs are found by the unique id within their key, which is indexed; a transaction lasts one page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, text, update

from pacslite.catalog import access_models, account_models, holds, renditions
from pacslite.catalog.file_models import file, file_part, file_version, quota, rendition, study_hold, upload
from pacslite.catalog.jobs import REBUILDING
from pacslite.catalog.models import (
    SCHEMA,
    audit_event,
    audit_pending,
    audit_state,
    blob,
    instance,
    job,
    job_item,
    metadata,
    peer,
    peer_statistics,
    series,
    study,
    version,
    written_ahead,
)

LIVE, DOOMED, QUARANTINED = "live", "doomed", "quarantined"
# What does not stand on instances, or names them by UID only, outlives the rows of the others.
_KEPT_TABLES = frozenset(
    {
        written_ahead,
        peer,
        peer_statistics,
        job,
        job_item,
        audit_pending,
        audit_event,
        audit_state,
        study_hold,
        quota,
        upload,
        *account_models.TABLES,
        *access_models.TABLES,
    }
)


@dataclass(frozen=True, slots=True)
class BlobRow:
    """One blob as the catalog knows it."""

    pk: int
    uid: str
    storage_key: str
    store_name: str
    size_bytes: int
    sha256: str
    state: str
    stored_bytes: int | None = None

    @property
    def size_stored(self) -> int:
        """How long the bytes are where they lie: less than `size_bytes` when they are packed."""
        return self.size_bytes if self.stored_bytes is None else self.stored_bytes


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """What the catalog took from the bytes of one blob, to be compared with them."""

    version_pk: int
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    extractor_version: int
    json: bytes
    frame_index: bytes | None


BLOB_COLUMNS = (
    blob.c.pk,
    blob.c.uid,
    blob.c.storage_key,
    blob.c.store_name,
    blob.c.size_bytes,
    blob.c.sha256,
    blob.c.state,
    blob.c.stored_bytes,
)
_BY_UID = select(*BLOB_COLUMNS).where(blob.c.uid.in_(bindparam("uids", expanding=True)))
_AFTER = select(*BLOB_COLUMNS).where(blob.c.pk > bindparam("after")).order_by(blob.c.pk).limit(bindparam("count"))
_SET_STATE = update(blob).where(blob.c.pk == bindparam("blob_pk"), blob.c.state == bindparam("old")).values(state=bindparam("new"))
_INSTANCES = (
    select(
        version.c.pk,
        study.c.study_instance_uid,
        series.c.series_instance_uid,
        instance.c.sop_instance_uid,
        version.c.transfer_syntax_uid,
        metadata.c.extractor_version,
        metadata.c.json,
        metadata.c.frame_index,
    )
    .select_from(version)
    .join(metadata, metadata.c.version_pk == version.c.pk)
    .join(instance, instance.c.pk == version.c.instance_pk)
    .join(series, series.c.pk == instance.c.series_pk)
    .join(study, study.c.pk == series.c.study_pk)
    .where(version.c.blob_pk == bindparam("blob_pk"))
    .order_by(version.c.pk)
)
_DOOMED = (
    select(*BLOB_COLUMNS)
    .where(blob.c.state == DOOMED, blob.c.doomed_at <= bindparam("until"), blob.c.store_name == bindparam("store_name"))
    .where(~select(version.c.pk).where(version.c.blob_pk == blob.c.pk).exists())
    .where(~select(file_part.c.pk).where(file_part.c.blob_pk == blob.c.pk).exists(), ~renditions.is_result_in_use())
    .order_by(blob.c.doomed_at, blob.c.pk)
    .limit(bindparam("count"))
)
_DOOMED_OF = _DOOMED.where(blob.c.uid.in_(bindparam("uids", expanding=True)))
# "" sorts before every time: what is claimed is found again after a crash, and by nothing that looks for a time of deletion.
_CLAIM = (
    update(blob).where(blob.c.pk.in_(bindparam("pks", expanding=True)), blob.c.state == DOOMED).values(doomed_at="").returning(blob.c.pk)
)
_FORGET = delete(blob).where(blob.c.pk == bindparam("blob_pk"), blob.c.state == DOOMED)
_DIGESTS = (
    select(blob.c.uid, blob.c.size_bytes, blob.c.sha256, version.c.data_set_digest)
    .outerjoin(version, version.c.blob_pk == blob.c.pk)
    .where(blob.c.uid.in_(bindparam("uids", expanding=True)))
)
_PAYLOADS = select(job.c.payload).where(job.c.state.in_(("queued", "running")))


def count_blobs(conn: Connection) -> int:
    """How many blobs there are, in whatever state."""
    return int(conn.execute(select(func.count()).select_from(blob)).scalar_one())


def blobs_of(conn: Connection, uids: Sequence[str]) -> dict[str, BlobRow]:
    """The blobs of these unique ids."""
    return {row.uid: row for row in (BlobRow(*found) for found in conn.execute(_BY_UID, {"uids": list(uids)}))}


def rows_at(conn: Connection, store_name: str, keys: Sequence[str], uids: Sequence[str]) -> dict[str, BlobRow]:
    """The rows that say that their bytes are at these keys of this store, by key; `uids` are those the keys may have."""
    wanted = frozenset(keys)
    return {row.storage_key: row for row in blobs_of(conn, uids).values() if row.store_name == store_name and row.storage_key in wanted}


def twins(conn: Connection, row: BlobRow) -> list[BlobRow]:
    """Other live blobs that hold, or should hold, the same bytes. Reads every row: for the few that are damaged."""
    same = blob.c.sha256 == row.sha256, blob.c.size_bytes == row.size_bytes, blob.c.state == LIVE, blob.c.pk != row.pk
    return [BlobRow(*found) for found in conn.execute(select(*BLOB_COLUMNS).where(*same).limit(10))]


def files_of(conn: Connection, blob_pk: int) -> list[str]:
    """The files whose versions have the bytes, or bytes that these were made of; the first few."""
    part = select(file.c.uid).join(file_version, file_version.c.file_pk == file.c.pk).join(file_part)
    made = select(rendition.c.blob_pk).where(rendition.c.result_blob == blob_pk)
    statement = part.where(or_(file_part.c.blob_pk == blob_pk, file_part.c.blob_pk.in_(made))).order_by(file.c.pk).limit(10)
    return list(dict.fromkeys(conn.execute(statement).scalars()))


def digests_of(conn: Connection, uids: Sequence[str]) -> dict[str, tuple[int, str, str | None]]:
    """Size, SHA-256, and SHA-256 of the data set where a version holds it, by unique id."""
    return {uid: (size, sha256, data_set) for uid, size, sha256, data_set in conn.execute(_DIGESTS, {"uids": list(uids)})}


def blobs_after(conn: Connection, pk: int, count: int) -> list[BlobRow]:
    """The next blobs in the order of their numbers."""
    return [BlobRow(*found) for found in conn.execute(_AFTER, {"after": pk, "count": count})]


def instances_of(conn: Connection, blob_pk: int) -> list[StoredInstance]:
    """The versions that the bytes are of."""
    return [StoredInstance(*found) for found in conn.execute(_INSTANCES, {"blob_pk": blob_pk})]


def change_state(conn: Connection, pk: int, old: str, new: str) -> bool:
    """Set the state of a blob that is still in the old one; whether it was."""
    return bool(conn.execute(_SET_STATE, {"blob_pk": pk, "old": old, "new": new}).rowcount)


def mark_whole(conn: Connection, pk: int, stored_bytes: int | None) -> None:
    """Bytes that were damaged are whole again; not those of a blob that was deleted meanwhile."""
    conn.execute(update(blob).where(blob.c.pk == pk, blob.c.state != DOOMED).values(state=LIVE, stored_bytes=stored_bytes))


def is_named_by_job(conn: Connection, uid: str) -> bool:
    """Whether a job that is not done names the unique id."""
    return any(uid in payload for (payload,) in conn.execute(_PAYLOADS))


def claim_doomed(conn: Connection, until: str, store_name: str, count: int, uids: Sequence[str] | None = None) -> list[BlobRow]:
    """Blobs of a store, or only these of them, doomed up to that time, that nothing refers to; the longest doomed first.

    Once this is committed they are lost: `instances.record` brings none of them back.
    """
    if holds.is_held(conn):
        return []
    values = {"until": until, "store_name": store_name, "count": count}
    found = conn.execute(_DOOMED, values) if uids is None else conn.execute(_DOOMED_OF, {**values, "uids": list(uids)})
    rows = [BlobRow(*row) for row in found]
    claimed = set(conn.execute(_CLAIM, {"pks": [row.pk for row in rows]}).scalars()) if rows else set()
    return [row for row in rows if row.pk in claimed]


def forget(conn: Connection, pks: Sequence[int]) -> None:
    """Drop the rows of doomed blobs whose bytes are erased; what was made of them is doomed."""
    renditions.let_go(conn, pks)
    for pk in pks:
        conn.execute(_FORGET, {"blob_pk": pk})


def begin_rebuilding(conn: Connection, at: str) -> None:
    """Empty the catalog but for `_KEPT_TABLES`, and note that it is being made anew; numbers begin at 1 again."""
    if conn.dialect.name == "postgresql":
        names = ", ".join(table.name for table in SCHEMA.sorted_tables if table not in _KEPT_TABLES)
        conn.execute(text(f"TRUNCATE TABLE {names} RESTART IDENTITY"))
    else:
        for table in reversed(SCHEMA.sorted_tables):
            if table not in _KEPT_TABLES:
                conn.execute(delete(table))
        conn.execute(text("DELETE FROM sqlite_sequence WHERE name NOT IN ('account', 'written_ahead')"))
    end_rebuilding(conn)  # one that was interrupted
    row = {"kind": REBUILDING, "state": "running", "run_after_at": at, "lease_until_at": "9999", "created_at": at, "updated_at": at}
    conn.execute(insert(job).values(row))


def end_rebuilding(conn: Connection) -> None:
    """The catalog is whole again."""
    conn.execute(delete(job).where(job.c.kind == REBUILDING))


def is_rebuilding(conn: Connection) -> bool:
    """Whether a rebuild has begun and not come to its end: rows that are missing yet say nothing about bytes."""
    return conn.execute(select(job.c.id).where(job.c.kind == REBUILDING).limit(1)).first() is not None

"""Moving bytes to another place: which blobs are to go, and the one row that says from when on they are there.

The blob keeps its row and its unique id; a second row, doomed from the start, stands for the bytes that are left behind, so that
erasure takes them in its time and nobody takes them for bytes without a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, false, func, insert, or_, select, update

from pacslite.catalog.file_models import file, file_part, file_version
from pacslite.catalog.inventory import BLOB_COLUMNS, DOOMED, LIVE, BlobRow
from pacslite.catalog.legal_holds import held_files, held_instances
from pacslite.catalog.models import blob, instance, series, version

IDENTITY = "identity"
"""The encoding of bytes that are as they are because packing gains nothing."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Blobs stored before a time: of files of these types (`dicom` stands for instances), of series of these modalities; all when empty.

    Without `to_store` those that are not packed, else those that lie in another store. What is on hold is left out, or is what is
    meant when `held`.
    """

    before: str
    to_store: str | None
    file_types: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    min_bytes: int = 0
    held: bool = False


def chosen_after(conn: Connection, choice: Choice, pk: int, count: int) -> list[BlobRow]:
    """The next blobs to move, in the order of their numbers."""
    statement = select(*BLOB_COLUMNS).where(blob.c.pk > pk, *_conditions(choice)).order_by(blob.c.pk).limit(count)
    return [BlobRow(*found) for found in conn.execute(statement)]


def count(conn: Connection, choice: Choice) -> tuple[int, int]:
    """How many blobs are to move, and how many bytes they are where they lie."""
    stored = func.coalesce(func.sum(func.coalesce(blob.c.stored_bytes, blob.c.size_bytes)), 0)
    number, size = conn.execute(select(func.count(), stored).where(*_conditions(choice))).one()
    return int(number), int(size)


def leave_as_it_is(conn: Connection, row: BlobRow) -> None:
    """Note that packing a blob gains nothing, so that nobody tries again."""
    conn.execute(update(blob).where(blob.c.pk == row.pk, blob.c.encoding.is_(None)).values(encoding=IDENTITY))


def _conditions(choice: Choice) -> list[ColumnElement[bool]]:
    elsewhere = blob.c.encoding.is_(None) if choice.to_store is None else blob.c.store_name != choice.to_store
    on_hold = or_(held_instances().exists(), held_files().exists())
    return [
        blob.c.state == LIVE,
        blob.c.created_at < choice.before,
        blob.c.size_bytes >= choice.min_bytes,
        elsewhere,
        or_(_of_instances(choice), _of_files(choice)),
        on_hold if choice.held else ~on_hold,
    ]


def _of_instances(choice: Choice) -> ColumnElement[bool]:
    if choice.file_types and "dicom" not in choice.file_types and not choice.modalities:
        return false()
    statement = select(version.c.pk).where(version.c.blob_pk == blob.c.pk)
    if choice.modalities:
        joined = version.join(instance, instance.c.pk == version.c.instance_pk).join(series, series.c.pk == instance.c.series_pk)
        statement = statement.select_from(joined).where(series.c.modality.in_(choice.modalities))
    return statement.correlate(blob).exists()


def _of_files(choice: Choice) -> ColumnElement[bool]:
    if choice.modalities and not choice.file_types:
        return false()
    joined = file_part.join(file_version, file_version.c.pk == file_part.c.version_pk).join(file, file.c.pk == file_version.c.file_pk)
    of_blob = [file_part.c.blob_pk == blob.c.pk]
    if choice.file_types:
        of_blob.append(file.c.file_type.in_(choice.file_types))
    return select(file_part.c.pk).select_from(joined).where(*of_blob).correlate(blob).exists()


@dataclass(frozen=True, slots=True)
class NewPlace:
    """Where the bytes of a blob are from now on."""

    storage_key: str
    store_name: str
    encoding: str | None
    stored_bytes: int | None


def claim(conn: Connection, store_name: str, keys: Sequence[str]) -> bool:
    """Keep bytes that were left behind at these places for a blob that comes back to them; False while they are being erased."""
    there = and_(blob.c.store_name == store_name, blob.c.storage_key.in_(keys), blob.c.state == DOOMED, blob.c.uid.contains("~"))
    if conn.execute(select(blob.c.pk).where(there, blob.c.doomed_at == "").limit(1)).first() is not None:
        return False
    conn.execute(delete(blob).where(there))
    return True


def switch(conn: Connection, old: BlobRow, new: NewPlace, left_uid: str, doomed_at: str, now: str) -> bool:
    """Point the row to the new place, and have what is left behind erased.

    False, and nothing changed, when the blob was moved or deleted meanwhile.
    """
    as_it_was = (blob.c.pk == old.pk, blob.c.state == LIVE, blob.c.storage_key == old.storage_key, blob.c.store_name == old.store_name)
    values = {name: getattr(new, name) for name in NewPlace.__dataclass_fields__}
    if not conn.execute(update(blob).where(*as_it_was).values(values)).rowcount:
        return False
    left = {
        "uid": left_uid,
        "storage_key": old.storage_key,
        "store_name": old.store_name,
        "size_bytes": old.size_stored,
        "sha256": old.sha256,
        "media_type": "application/octet-stream",
        "state": DOOMED,
        "reference_count": 0,
        "doomed_at": doomed_at,
        "created_at": now,
    }
    conn.execute(delete(blob).where(blob.c.uid == left_uid))  # of bytes that came back to this place and leave it again
    conn.execute(insert(blob).values(left))
    return True

"""How much there is in the catalog, for metrics; and what it says of the time.

Sums are taken page by page in the order of primary keys, so that no transaction is long, however much there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, or_, select, text

from pacslite.catalog.file_models import file, file_part, file_version
from pacslite.catalog.files import is_there
from pacslite.catalog.models import blob, change, instance, job, patient, series, study, version

PAGE_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Page:
    """What a page of rows adds up to, by name; `last_pk` is None when it was the last one."""

    last_pk: int | None
    sums: Mapping[tuple[str, ...], int]


def _page_of(table: Any, *columns: Any) -> Any:
    return select(table.c.pk, *columns).where(table.c.pk > bindparam("after")).order_by(table.c.pk).limit(PAGE_ROWS).subquery().c


_BLOBS = _page_of(blob, blob.c.store_name, blob.c.state, blob.c.size_bytes)
_SUM_BLOBS = select(_BLOBS.store_name, _BLOBS.state, func.count(), func.sum(_BLOBS.size_bytes), func.max(_BLOBS.pk)).group_by(
    _BLOBS.store_name, _BLOBS.state
)
_FILES = _page_of(file, file.c.file_type, file.c.state)
_SUM_FILES = select(_FILES.file_type, _FILES.state, func.count(), func.max(_FILES.pk)).group_by(_FILES.file_type, _FILES.state)
_STUDIES = _page_of(study, study.c.number_of_study_related_series, study.c.number_of_study_related_instances)
_SUM_STUDIES = select(
    func.count(),
    func.sum(_STUDIES.number_of_study_related_series),
    func.sum(_STUDIES.number_of_study_related_instances),
    func.max(_STUDIES.pk),
)


def blobs_after(conn: Connection, pk: int) -> Page:
    """Number (`count, store, state`) and bytes (`bytes, store`) of a page of blobs."""
    rows = conn.execute(_SUM_BLOBS, {"after": pk}).all()
    sums: dict[tuple[str, ...], int] = {}
    for store, state, count, size, _ in rows:
        sums["count", store, state] = count
        sums["bytes", store] = sums.get(("bytes", store), 0) + int(size)
    total = sum(row[2] for row in rows)
    return Page(max(row[4] for row in rows) if total == PAGE_ROWS else None, sums)


def studies_after(conn: Connection, pk: int) -> Page:
    """Number of studies of a page, of their series and of their instances."""
    count, series, instances, last = conn.execute(_SUM_STUDIES, {"after": pk}).one()
    sums: dict[tuple[str, ...], int] = {("studies",): count, ("series",): int(series or 0), ("instances",): int(instances or 0)}
    return Page(last if count == PAGE_ROWS else None, sums)


def files_after(conn: Connection, pk: int) -> Page:
    """Number of files of a page that are not in the trash, by type (`files, type`)."""
    rows = conn.execute(_SUM_FILES, {"after": pk}).all()
    sums: dict[tuple[str, ...], int] = {("files", name): count for name, state, count, _ in rows if state == "live"}
    return Page(max(row[3] for row in rows) if sum(row[2] for row in rows) == PAGE_ROWS else None, sums)


def count_patients(conn: Connection) -> int:
    """How many patients there are; who became part of another does not count."""
    return conn.execute(select(func.count()).select_from(patient).where(patient.c.merged_into.is_(None))).scalar_one()


def jobs_by_state(conn: Connection) -> dict[str, int]:
    """How many jobs are in each state."""
    rows = conn.execute(select(job.c.state, func.count()).group_by(job.c.state))
    return dict(rows.tuples().all())


def first_due_at(conn: Connection) -> str | None:
    """Since when the queued job is due that is due longest; None when none is queued."""
    return conn.execute(select(func.min(job.c.run_after_at)).where(job.c.state == "queued")).scalar()


def count_doomed(conn: Connection) -> int:
    """Blobs that wait for their erasure."""
    return conn.execute(select(func.count()).select_from(blob).where(text("state = 'doomed'"))).scalar_one()


def database_time(conn: Connection) -> float | None:
    """The clock of the database server, in seconds since 1970; None where the database has none of its own."""
    if conn.dialect.name != "postgresql":
        return None
    return float(conn.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def last_change_at(conn: Connection) -> str | None:
    """When the newest change happened."""
    return conn.execute(select(change.c.at).order_by(change.c.seq.desc()).limit(1)).scalar()


@dataclass(frozen=True, slots=True)
class StoreSums:
    """Blobs of a store that are in use: bytes where they lie, and how many of them are packed."""

    stored_bytes: int
    packed_count: int


def by_store(conn: Connection) -> dict[str, StoreSums]:
    """What each store holds."""
    stored = func.sum(func.coalesce(blob.c.stored_bytes, blob.c.size_bytes))
    statement = select(blob.c.store_name, stored, func.count(blob.c.stored_bytes)).where(blob.c.state != "doomed")
    return {name: StoreSums(int(size or 0), packed) for name, size, packed in conn.execute(statement.group_by(blob.c.store_name))}


def by_file_type(conn: Connection) -> dict[str, tuple[int, int]]:
    """Number and bytes (of all versions) of files that are there, by type; under `dicom` instances.

    Instances that are files of another type are counted there.
    """
    kept = file.c.state == "live", is_there(), or_(file.c.file_type != "dicom", file.c.dicom_sop_uid.is_(None))
    counts = conn.execute(select(file.c.file_type, func.count()).where(*kept).group_by(file.c.file_type)).all()
    joined = file.join(file_version, file_version.c.file_pk == file.c.pk).join(file_part, file_part.c.version_pk == file_version.c.pk)
    summed = select(file.c.file_type, func.sum(file_part.c.size_bytes)).select_from(joined).where(*kept).group_by(file.c.file_type)
    sizes = {name: int(size) for name, size in conn.execute(summed)}
    found = {name: (int(count), sizes.get(name, 0)) for name, count in counts}
    others = _instances_of(conn, *kept)
    instances = conn.execute(select(func.coalesce(func.sum(study.c.number_of_study_related_instances), 0))).scalar_one()
    of_versions = select(func.coalesce(func.sum(blob.c.size_bytes), 0)).join(version, version.c.blob_pk == blob.c.pk)
    bytes_of_instances = conn.execute(of_versions).scalar_one()
    if instances:
        found["dicom"] = max(0, int(instances) - others[0]), max(0, int(bytes_of_instances) - others[1])
    return found


def _instances_of(conn: Connection, *which: ColumnElement[bool]) -> tuple[int, int]:
    """Number and bytes of the instances that these files are; each once, however many files it is."""
    uids = file.c.dicom_study_uid, file.c.dicom_series_uid, file.c.dicom_sop_uid
    named = select(*uids).where(file.c.dicom_sop_uid.is_not(None), *which).distinct().subquery().c
    joined = (
        select(func.count(instance.c.pk.distinct()), func.coalesce(func.sum(blob.c.size_bytes), 0))
        .join(series, series.c.pk == instance.c.series_pk)
        .join(study, study.c.pk == series.c.study_pk)
        .join(version, version.c.instance_pk == instance.c.pk)
        .join(blob, blob.c.pk == version.c.blob_pk)
        .join(named.dicom_sop_uid.table, named.dicom_sop_uid == instance.c.sop_instance_uid)
        .where(named.dicom_series_uid == series.c.series_instance_uid, named.dicom_study_uid == study.c.study_instance_uid)
    )
    count, size = conn.execute(joined).one()
    return int(count), int(size)


def shared_bytes(conn: Connection) -> int:
    """Bytes that equal files did not need."""
    more = func.coalesce(func.sum((blob.c.reference_count - 1) * blob.c.size_bytes), 0)
    return int(conn.execute(select(more).where(blob.c.shared_sha256.is_not(None), blob.c.reference_count > 1)).scalar_one())

"""Files of a patient in lists, and how much they are. Newest first; a page follows the last row of the one before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from pacslite.catalog.file_models import file
from pacslite.catalog.files import FILE_COLUMNS, LIVE, FileRow, is_there
from pacslite.catalog.models import blob, instance, series, study, version
from pacslite.catalog.visibility import Sight, file_clauses
from pacslite.dicom.attributes import Level


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to; days as YYYY-MM-DD, both within."""

    file_type: str | None = None
    medical_category: str | None = None
    study_date_from: str | None = None
    study_date_to: str | None = None
    state: str = LIVE


@dataclass(frozen=True, slots=True)
class TypeSum:
    """Files of one type: how many, and the bytes of all their versions as they were sent, equal ones once per file."""

    count: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DicomSum:
    """What a patient has in studies."""

    studies: int = 0
    series: int = 0
    instances: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StorageInfo:
    """How much of a patient is kept. Studies are counted apart."""

    by_type: dict[str, TypeSum] = field(default_factory=dict)
    versions: int = 0
    dicom: DicomSum = field(default_factory=DicomSum)


def _where(patient_id: int, filters: Filters, sight: Sight | None) -> list[ColumnElement[bool]]:
    found = [file.c.patient_pk == patient_id, file.c.state == filters.state, is_there(), *file_clauses(sight)]
    if filters.file_type is not None:
        found.append(file.c.file_type == filters.file_type)
    if filters.medical_category is not None:
        found.append(file.c.medical_category == filters.medical_category)
    if filters.study_date_from is not None:
        found.append(file.c.study_date >= filters.study_date_from)
    if filters.study_date_to is not None:
        found.append(file.c.study_date <= filters.study_date_to)
    return found


def page(
    conn: Connection, patient_id: int, filters: Filters, after: tuple[str, int] | None, limit: int, sight: Sight | None
) -> list[FileRow]:
    """Files of a patient, newest first, behind that time and number."""
    statement = select(*FILE_COLUMNS).where(*_where(patient_id, filters, sight))
    if after is not None:
        at, pk = after
        statement = statement.where(or_(file.c.created_at < at, and_(file.c.created_at == at, file.c.pk < pk)), file.c.created_at <= at)
    return _rows(conn, statement.order_by(file.c.created_at.desc(), file.c.pk.desc()).limit(limit))


def count(conn: Connection, patient_id: int, filters: Filters, sight: Sight | None) -> int:
    """How many files of a patient there are."""
    statement = select(func.count()).select_from(file).where(*_where(patient_id, filters, sight))
    return int(conn.execute(statement).scalar_one())


def newest_of_each_type(conn: Connection, patient_id: int, filters: Filters, most: int, sight: Sight | None) -> list[FileRow]:
    """Up to so many files of each type, newest first."""
    order = func.row_number().over(partition_by=file.c.file_type, order_by=(file.c.created_at.desc(), file.c.pk.desc()))
    numbered = select(file.c.pk, order.label("n")).where(*_where(patient_id, filters, sight)).subquery("numbered")
    statement = select(*FILE_COLUMNS).join(numbered, numbered.c.pk == file.c.pk).where(numbered.c.n <= most)
    return _rows(conn, statement.order_by(file.c.created_at.desc(), file.c.pk.desc()))


def _rows(conn: Connection, statement: Select[Any]) -> list[FileRow]:
    return [FileRow(*row) for row in conn.execute(statement)]


def storage_info(conn: Connection, patient_id: int, sight: Sight | None) -> StorageInfo:
    """How much of a patient is in sight."""
    where = _where(patient_id, Filters(), sight)
    sums = func.count(), func.sum(file.c.size_bytes), func.sum(file.c.version_number)
    found = conn.execute(select(file.c.file_type, *sums).where(*where).group_by(file.c.file_type).order_by(file.c.file_type)).all()
    by_type = {kind: TypeSum(number, int(size)) for kind, number, size, _ in found}
    return StorageInfo(by_type, sum(int(versions) for *_, versions in found), _dicom(conn, patient_id, sight))


def _dicom(conn: Connection, patient_id: int, sight: Sight | None) -> DicomSum:
    joined = (
        study.join(series, series.c.study_pk == study.c.pk)
        .join(instance, instance.c.series_pk == series.c.pk)
        .join(version, version.c.instance_pk == instance.c.pk)
        .join(blob, blob.c.pk == version.c.blob_pk)
    )
    seen = sight.clauses(Level.INSTANCE) if sight is not None else ()
    counts = (
        func.count(study.c.pk.distinct()),
        func.count(series.c.pk.distinct()),
        func.count(instance.c.pk.distinct()),
        func.coalesce(func.sum(blob.c.size_bytes), 0),
    )
    row = conn.execute(select(*counts).select_from(joined).where(study.c.patient_pk == patient_id, *seen)).one()
    return DicomSum(*(int(value) for value in row))

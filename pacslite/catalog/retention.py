"""What is old: files by the age of their newest version, series by that of what came last, files in the trash."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select

from pacslite.catalog.file_models import file, file_part, file_version
from pacslite.catalog.legal_holds import holds_file, holds_study
from pacslite.catalog.models import blob, instance, series, study, version


class OldFile(NamedTuple):
    """A file that is old."""

    pk: int
    uid: str
    file_type: str
    is_held: bool
    size_bytes: int


class OldSeries(NamedTuple):
    """A series that is old."""

    pk: int
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    is_held: bool
    size_bytes: int


def files_after(
    conn: Connection, pk: int, before: str, count: int, *, file_types: tuple[str, ...] = (), states: tuple[str, ...] = ("live",)
) -> list[OldFile]:
    """The next files in these states whose newest version is older than a time."""
    newest = (file_version.c.file_pk == file.c.pk) & (file_version.c.number == file.c.version_number)
    conditions: list[ColumnElement[bool]] = [file.c.pk > pk, file.c.state.in_(states), file_version.c.created_at < before]
    if file_types:
        conditions.append(file.c.file_type.in_(file_types))
    return _files(conn, [file.join(file_version, newest)], conditions, count)


def trash_after(conn: Connection, pk: int, before: str, count: int) -> list[OldFile]:
    """The next files that have been in the trash since before a time."""
    return _files(conn, [file], [file.c.pk > pk, file.c.state == "trash", file.c.deleted_at < before], count)


def _files(conn: Connection, source: list[Any], conditions: list[ColumnElement[bool]], count: int) -> list[OldFile]:
    versions = file_version.alias("all_versions")
    size = (
        select(func.coalesce(func.sum(file_part.c.size_bytes), 0))
        .join(versions, versions.c.pk == file_part.c.version_pk)
        .where(versions.c.file_pk == file.c.pk)
        .correlate(file)
        .scalar_subquery()
    )
    columns = (file.c.pk, file.c.uid, file.c.file_type, holds_file(), size)
    statement = select(*columns).select_from(*source).where(*conditions).order_by(file.c.pk).limit(count)
    return [OldFile(found[0], found[1], found[2], bool(found[3]), int(found[4])) for found in conn.execute(statement)]


def series_after(conn: Connection, pk: int, before: str, count: int, *, modalities: tuple[str, ...] = ()) -> list[OldSeries]:
    """The next series to which nothing has come since before a time."""
    size = (
        select(func.coalesce(func.sum(blob.c.size_bytes), 0))
        .join(version, version.c.blob_pk == blob.c.pk)
        .join(instance, instance.c.pk == version.c.instance_pk)
        .where(instance.c.series_pk == series.c.pk)
        .correlate(series)
        .scalar_subquery()
    )
    held = holds_study(study.c.study_instance_uid)
    columns = (series.c.pk, study.c.study_instance_uid, series.c.series_instance_uid, series.c.modality, held, size)
    conditions: list[ColumnElement[bool]] = [series.c.pk > pk, series.c.updated_at < before]
    if modalities:
        conditions.append(series.c.modality.in_(modalities))
    joined = series.join(study, study.c.pk == series.c.study_pk)
    found = conn.execute(select(*columns).select_from(joined).where(*conditions).order_by(series.c.pk).limit(count))
    return [OldSeries(row[0], row[1], row[2], row[3] or "", bool(row[4]), int(row[5])) for row in found]

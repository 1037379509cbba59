"""Studies and files that must not go: whatever deletes, or thins out by age, leaves them alone until the hold is lifted.

The hold of a file is a column of it. That of a study is a row by its UID, so that it outlives a catalog made anew.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, delete, insert, or_, select

from pacslite.catalog.file_models import file, file_part, file_version, study_hold
from pacslite.catalog.models import blob, instance, series, study, version
from pacslite.errors import Conflict


class Hold(NamedTuple):
    """Who has put a study on hold, and when."""

    study_instance_uid: str
    created_by: str
    created_at: str


def of_study(conn: Connection, study_instance_uid: str) -> Hold | None:
    """The hold on a study, if there is one."""
    row = conn.execute(select(study_hold).where(study_hold.c.study_instance_uid == study_instance_uid)).first()
    return None if row is None else Hold(*row)


def place(conn: Connection, hold: Hold) -> Hold:
    """Put a study on hold; the hold that is there already stays as it is."""
    found = of_study(conn, hold.study_instance_uid)
    if found is None:
        conn.execute(insert(study_hold).values(**hold._asdict()))
    return found or hold


def lift(conn: Connection, study_instance_uid: str) -> bool:
    """Lift the hold on a study; whether there was one."""
    return bool(conn.execute(delete(study_hold).where(study_hold.c.study_instance_uid == study_instance_uid)).rowcount)


def refuse(conn: Connection, study_instance_uid: str) -> None:
    """Raises Conflict when a study, or a DICOM file that is a part of it, must not go."""
    held = select(file.c.pk).where(file.c.dicom_study_uid == study_instance_uid, file.c.legal_hold)
    if of_study(conn, study_instance_uid) is not None or conn.execute(held.limit(1)).first() is not None:
        raise Conflict("The study is under legal hold.")


def holds_study(study_uid: ColumnElement[str]) -> ColumnElement[bool]:
    """Condition: the study of that UID is on hold, by itself or by a DICOM file of it."""
    by_file = select(file.c.pk).where(file.c.dicom_study_uid == study_uid, file.c.legal_hold).correlate_except(file)
    return or_(study_uid.in_(select(study_hold.c.study_instance_uid)), by_file.exists())


def holds_file() -> ColumnElement[bool]:
    """Condition on rows of `file`: it is on hold, by itself or by its study."""
    held = select(study_hold.c.study_instance_uid)
    return or_(file.c.legal_hold, file.c.dicom_study_uid.in_(held), file.c.study_instance_uid.in_(held))


def held_instances() -> Select[tuple[int]]:
    """The blobs of instances that are on hold, as a condition correlated with `blob`."""
    joined = version.join(instance, instance.c.pk == version.c.instance_pk).join(series, series.c.pk == instance.c.series_pk)
    joined = joined.join(study, study.c.pk == series.c.study_pk)
    of_blob = version.c.blob_pk == blob.c.pk
    return select(version.c.pk).select_from(joined).where(of_blob, holds_study(study.c.study_instance_uid)).correlate(blob)


def held_files() -> Select[tuple[int]]:
    """The same for the blobs of files."""
    joined = file_part.join(file_version, file_version.c.pk == file_part.c.version_pk).join(file, file.c.pk == file_version.c.file_pk)
    return select(file_part.c.pk).select_from(joined).where(file_part.c.blob_pk == blob.c.pk, holds_file()).correlate(blob)

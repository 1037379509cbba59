"""What archives of patients and studies hold, the newest versions of live files; and what a patient has already, for those who bring more.

`sight` is what the caller may see, None for all: what it hides is not there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select

from pacslite.catalog.file_models import file, file_part, file_version
from pacslite.catalog.models import blob, patient, study
from pacslite.catalog.visibility import Sight, file_clauses
from pacslite.dicom.attributes import Level

_LIVE = "live"
_MOST_FILES = 100


class ArchivedRow(NamedTuple):
    """One part of the newest version of a file, and where its bytes as they were sent are."""

    file_id: str
    file_type: str
    study_date: str | None
    created_at: str
    position: int
    original_filename: str
    storage_key: str
    store_name: str
    size_bytes: int
    sha256: str


class KnownPart(NamedTuple):
    """A part of a version of a live file."""

    file_id: str
    file_pk: int
    version_number: int
    position: int
    sha256: str


_PART = (
    file.c.uid,
    file.c.file_type,
    file.c.study_date,
    file.c.created_at,
    file_part.c.position,
    file_part.c.original_filename,
    blob.c.storage_key,
    blob.c.store_name,
    blob.c.size_bytes,
    blob.c.sha256,
)
_NEWEST = (file_version.c.file_pk == file.c.pk) & (file_version.c.number == file.c.version_number)


def has_patient(conn: Connection, patient_pk: int, sight: Sight | None = None) -> bool:
    """Whether there is such a patient, and the caller sees it."""
    seen = sight.clauses(Level.PATIENT) if sight is not None else ()
    return conn.execute(select(patient.c.pk).where(patient.c.pk == patient_pk, *seen)).first() is not None


def studies_of(conn: Connection, patient_pk: int, sight: Sight | None = None) -> list[str]:
    """The studies of a patient, those under each number they had together (a directory names each once), oldest first."""
    seen = sight.clauses(Level.STUDY) if sight is not None else ()
    statement = select(study.c.study_instance_uid).where(study.c.patient_pk == patient_pk, *seen)
    by_itself = func.coalesce(study.c.origin_patient, study.c.patient_pk)
    order = by_itself, study.c.study_date_normal, study.c.study_time_normal, study.c.pk
    return list(conn.execute(statement.order_by(*order)).scalars())


def files_of_patient(conn: Connection, patient_pk: int, sight: Sight | None, most: int) -> list[ArchivedRow]:
    """At most so many parts of the files of a patient that are no instances, files in the order they came in, parts in theirs."""
    return _files(conn, file.c.patient_pk == patient_pk, sight, most)


def files_of_study(conn: Connection, study_uid: str, sight: Sight | None, most: int) -> list[ArchivedRow]:
    """At most so many parts of the files that are tied to a study."""
    return _files(conn, file.c.study_instance_uid == study_uid, sight, most)


def _files(conn: Connection, condition: ColumnElement[bool], sight: Sight | None, most: int) -> list[ArchivedRow]:
    statement = (
        select(*_PART)
        .select_from(file)
        .join(file_version, _NEWEST)
        .join(file_part, file_part.c.version_pk == file_version.c.pk)
        .join(blob, blob.c.pk == file_part.c.blob_pk)
        .where(condition, file.c.state == _LIVE, file.c.dicom_sop_uid.is_(None), *file_clauses(sight))
        .order_by(file.c.created_at, file.c.pk, file_part.c.position)
        .limit(most)
    )
    return [ArchivedRow._make(row) for row in conn.execute(statement)]


def instances_of_files(conn: Connection, patient_pk: int, sight: Sight | None, most: int) -> list[tuple[str, str, str]]:
    """Study, series and SOP Instance UIDs of the DICOM files of a patient."""
    columns = file.c.dicom_study_uid, file.c.dicom_series_uid, file.c.dicom_sop_uid
    of_patient = file.c.patient_pk == patient_pk, file.c.state == _LIVE, file.c.dicom_sop_uid.is_not(None)
    statement = select(*columns).where(*of_patient, *file_clauses(sight)).order_by(file.c.pk).limit(most)
    return [(found[0], found[1], found[2]) for found in conn.execute(statement)]


def known_parts(conn: Connection, patient_pk: int, digests: Iterable[str], most: int = 1000) -> list[KnownPart]:
    """Parts of versions of a patient's live files that came with one of these digests, oldest first."""
    columns = (file.c.uid, file.c.pk, file_version.c.number, file_part.c.position, file_part.c.sha256)
    statement = (
        select(*columns)
        .select_from(file)
        .join(file_version, file_version.c.file_pk == file.c.pk)
        .join(file_part, file_part.c.version_pk == file_version.c.pk)
        .where(file.c.patient_pk == patient_pk, file.c.state == _LIVE, file_part.c.sha256.in_(list(digests)))
        .order_by(file.c.pk, file_version.c.number, file_part.c.position)
        .limit(most)
    )
    return [KnownPart._make(row) for row in conn.execute(statement)]


def files_of_blob(conn: Connection, blob_uid: str) -> list[str]:
    """The ids of the files, the trash included, of which some version has these bytes; the first hundred."""
    statement = (
        select(file.c.uid)
        .distinct()
        .select_from(blob)
        .join(file_part, file_part.c.blob_pk == blob.c.pk)
        .join(file_version, file_version.c.pk == file_part.c.version_pk)
        .join(file, file.c.pk == file_version.c.file_pk)
        .where(blob.c.uid == blob_uid)
        .limit(_MOST_FILES)
    )
    return list(conn.execute(statement).scalars())

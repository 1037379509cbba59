"""Files in the catalog: records with their versions and parts, and what a transaction writes of them.

Lists and sums of a patient are in `catalog.file_lists`. Whoever reads passes what is in sight; what is not is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, delete, func, insert, or_, select, text, update

from pacslite.catalog import blobs
from pacslite.catalog.arrival import PatientIdentity
from pacslite.catalog.blobs import StoredBlob
from pacslite.catalog.file_models import file, file_part, file_version, purged_file, rendition
from pacslite.catalog.models import blob, instance, patient, series, study, version
from pacslite.catalog.statements import Prepared
from pacslite.catalog.visibility import Sight, file_clauses
from pacslite.dicom.attributes import Level

LIVE, TRASH = "live", "trash"
Uids = tuple[str, str, str]
"""Study, series and SOP Instance UID."""


class FileRow(NamedTuple):
    """A file; `patient_pk` is the public number of its patient."""

    pk: int
    uid: str
    patient_pk: int
    file_type: str
    medical_category: str | None
    study_date: str | None
    body_part: str | None
    description: str | None
    study_instance_uid: str | None
    dicom_study_uid: str | None
    dicom_series_uid: str | None
    dicom_sop_uid: str | None
    version_number: int
    state: str
    legal_hold: bool
    created_by: str
    created_at: str
    updated_at: str
    deleted_at: str | None

    @property
    def uids(self) -> Uids | None:
        """The instance that a DICOM file is, None of other files."""
        if self.dicom_sop_uid is None:
            return None
        return self.dicom_study_uid or "", self.dicom_series_uid or "", self.dicom_sop_uid


class VersionRow(NamedTuple):
    """A version of a file."""

    pk: int
    file_pk: int
    number: int
    type: str
    description: str | None
    created_by: str
    owner_id: int | None
    created_at: str


class PartRow(NamedTuple):
    """One of the bytes of a version, as they were sent. `blob_pk` of a DICOM file is that of the instance's version."""

    pk: int
    version_pk: int
    position: int
    original_filename: str
    blob_pk: int | None
    dicom_version: int | None
    size_bytes: int
    sha256: str
    media_type: str


class MadeRow(NamedTuple):
    """What is made of a blob, and its bytes when it is ready."""

    blob_pk: int
    name: str
    state: str
    result_blob: int | None
    size_bytes: int | None
    sha256: str | None
    media_type: str | None


class Identity(NamedTuple):
    """Who a patient is to DICOM; `key` is the name of their lock."""

    patient_id: str
    issuer: str
    study: str
    merged_into: int | None

    @property
    def key(self) -> str:
        """The same that an arrival has."""
        return PatientIdentity(self.patient_id, self.issuer, self.study).key


_FILE = tuple(file.c[name] for name in FileRow._fields)
_VERSION = tuple(file_version.c[name] for name in VersionRow._fields)
_PART = tuple(file_part.c[name] for name in PartRow._fields)
_MADE = (
    rendition.c.blob_pk,
    rendition.c.name,
    rendition.c.state,
    rendition.c.result_blob,
    blob.c.size_bytes,
    blob.c.sha256,
    blob.c.media_type,
)
_study, _series, _instance = study.alias("fst"), series.alias("fse"), instance.alias("fin")
_WRITTEN_FILE = FileRow._fields[1:]
_INSERT_FILE = Prepared(insert(file).values({name: bindparam(name) for name in _WRITTEN_FILE}).returning(file.c.pk))
_INSERT_VERSION = Prepared(
    insert(file_version).values({name: bindparam(name) for name in VersionRow._fields[1:]}).returning(file_version.c.pk)
)
_INSERT_PART = Prepared(insert(file_part).values({name: bindparam(name) for name in PartRow._fields[1:]}))
_once = (
    select(file_part.c.sha256, file_part.c.size_bytes)
    .join(file_version, file_version.c.pk == file_part.c.version_pk)
    .where(file_version.c.file_pk == bindparam("file_pk"), file_part.c.blob_pk.is_not(None))
    .distinct()
    .subquery("once")
)
_RECOUNT = Prepared(
    update(file)
    .where(file.c.pk == bindparam("file_pk"))
    .values(size_bytes=select(func.coalesce(func.sum(_once.c.size_bytes), 0)).scalar_subquery())
)
_ADVANCE = Prepared(
    update(file).where(file.c.pk == bindparam("file_pk")).values(version_number=bindparam("number"), updated_at=bindparam("now"))
)
_NEWEST = Prepared(
    select(*_VERSION, *_PART)
    .join(file, and_(file.c.pk == file_version.c.file_pk, file.c.version_number == file_version.c.number))
    .join(file_part, file_part.c.version_pk == file_version.c.pk)
    .where(file_version.c.file_pk == bindparam("file_pk"))
    .order_by(file_part.c.position)
)
_MADE_OF_ONE = Prepared(
    select(*_MADE).outerjoin(blob, blob.c.pk == rendition.c.result_blob).where(rendition.c.blob_pk == bindparam("blob_pk"))
)
_IDENTITY = Prepared(
    select(patient.c.identity_id, patient.c.identity_issuer, patient.c.identity_study, patient.c.merged_into).where(
        patient.c.pk == bindparam("patient")
    )
)


def is_there() -> ColumnElement[bool]:
    """Condition on files: a DICOM file is there as long as its instance is."""
    found = (
        select(_instance.c.pk)
        .join(_series, _series.c.pk == _instance.c.series_pk)
        .join(_study, _study.c.pk == _series.c.study_pk)
        .where(
            _instance.c.sop_instance_uid == file.c.dicom_sop_uid,
            _series.c.series_instance_uid == file.c.dicom_series_uid,
            _study.c.study_instance_uid == file.c.dicom_study_uid,
        )
        .correlate(file)
    )
    return or_(file.c.dicom_sop_uid.is_(None), found.exists())


def identity(conn: Connection, patient_id: int) -> Identity | None:
    """Who a patient is, None when there is no such patient."""
    row = _IDENTITY.first(conn, {"patient": patient_id})
    return None if row is None else Identity(*row)


def sees_patient(conn: Connection, patient_id: int, sight: Sight | None) -> bool:
    """Whether there is such a patient in sight."""
    if sight is None:
        return _IDENTITY.first(conn, {"patient": patient_id}) is not None
    clauses = sight.clauses(Level.PATIENT)
    return conn.execute(select(patient.c.pk).where(patient.c.pk == patient_id, *clauses)).first() is not None


def find(conn: Connection, uid: str, sight: Sight | None = None) -> FileRow | None:
    """The record of a file, in the trash or not."""
    row = conn.execute(select(*_FILE).where(file.c.uid == uid, *file_clauses(sight))).first()
    return None if row is None else FileRow(*row)


def rows_of(conn: Connection, statement: Select[Any]) -> list[FileRow]:
    """The files of a statement that was made with `FILE_COLUMNS`."""
    return [FileRow(*row) for row in conn.execute(statement)]


FILE_COLUMNS = _FILE


def has_instance(conn: Connection, row: FileRow) -> bool:
    """Whether the instance that a DICOM file is has not been deleted; True of other files."""
    return row.uids is None or conn.execute(select(file.c.pk).where(file.c.pk == row.pk, is_there())).first() is not None


def was_purged(conn: Connection, uid: str, sight: Sight | None = None) -> bool:
    """Whether there was such a file, of a patient in sight."""
    seen = (text(sight.gone_file_condition("purged_file.uid")),) if sight is not None else ()
    found = conn.execute(select(purged_file.c.patient_id).where(purged_file.c.uid == uid, *seen)).scalar()
    return found is not None and (sight is None or sees_patient(conn, found, sight))


def versions(conn: Connection, file_pk: int, number: int | None = None) -> list[VersionRow]:
    """The versions of a file, newest first, or the one of this number."""
    statement = select(*_VERSION).where(file_version.c.file_pk == file_pk)
    if number is not None:
        statement = statement.where(file_version.c.number == number)
    return [VersionRow(*row) for row in conn.execute(statement.order_by(file_version.c.number.desc()))]


def newest_versions(conn: Connection, file_pks: Sequence[int]) -> dict[int, VersionRow]:
    """The newest version of each file, by the file's number."""
    statement = select(*_VERSION).join(file, and_(file.c.pk == file_version.c.file_pk, file.c.version_number == file_version.c.number))
    return {row.file_pk: VersionRow(*row) for row in conn.execute(statement.where(file.c.pk.in_(file_pks)))}


def parts(conn: Connection, version_pks: Sequence[int]) -> dict[int, list[PartRow]]:
    """The parts of versions in order, by the version's number."""
    found: dict[int, list[PartRow]] = {}
    statement = select(*_PART).where(file_part.c.version_pk.in_(version_pks)).order_by(file_part.c.version_pk, file_part.c.position)
    for row in conn.execute(statement):
        found.setdefault(row.version_pk, []).append(PartRow(*row))
    if any(part.dicom_version is not None for listed in found.values() for part in listed):
        blob_of = _dicom_blobs(conn, version_pks)
        return {pk: [part._replace(blob_pk=blob_of.get(part.pk, part.blob_pk)) for part in listed] for pk, listed in found.items()}
    return found


def _dicom_blobs(conn: Connection, version_pks: Sequence[int]) -> dict[int, int]:
    """The blob of the instance's version for each part that is one."""
    statement = (
        select(file_part.c.pk, version.c.blob_pk)
        .join(file_version, file_version.c.pk == file_part.c.version_pk)
        .join(file, file.c.pk == file_version.c.file_pk)
        .join(_study, _study.c.study_instance_uid == file.c.dicom_study_uid)
        .join(_series, and_(_series.c.study_pk == _study.c.pk, _series.c.series_instance_uid == file.c.dicom_series_uid))
        .join(_instance, and_(_instance.c.series_pk == _series.c.pk, _instance.c.sop_instance_uid == file.c.dicom_sop_uid))
        .join(version, and_(version.c.instance_pk == _instance.c.pk, version.c.number == file_part.c.dicom_version))
        .where(file_part.c.version_pk.in_(version_pks))
    )
    return {row.pk: row.blob_pk for row in conn.execute(statement)}


def newest_of(conn: Connection, file_pk: int) -> tuple[VersionRow, list[PartRow]] | None:
    """The newest version of one file with its parts, as the table has them; quicker than what asks for many."""
    found = _NEWEST.all(conn, {"file_pk": file_pk})
    if not found:
        return None
    width = len(_VERSION)
    return VersionRow(*found[0][:width]), [PartRow(*row[width:]) for row in found]


def made_of_one(conn: Connection, blob_pk: int) -> dict[str, MadeRow]:
    """What is made of one blob, by name."""
    return {row[1]: MadeRow(*row) for row in _MADE_OF_ONE.all(conn, {"blob_pk": blob_pk})}


def made_of(conn: Connection, blob_pks: Iterable[int]) -> dict[int, dict[str, MadeRow]]:
    """What is made of blobs, by blob and name."""
    found: dict[int, dict[str, MadeRow]] = {}
    statement = select(*_MADE).outerjoin(blob, blob.c.pk == rendition.c.result_blob).where(rendition.c.blob_pk.in_(set(blob_pks)))
    for row in conn.execute(statement):
        found.setdefault(row.blob_pk, {})[row.name] = MadeRow(*row)
    return found


def instance_blob(conn: Connection, uids: Uids, number: int) -> StoredBlob | None:
    """The bytes of a version of an instance."""
    statement = (
        select(version.c.blob_pk)
        .join(instance, instance.c.pk == version.c.instance_pk)
        .join(series, series.c.pk == instance.c.series_pk)
        .join(study, study.c.pk == series.c.study_pk)
        .where(
            study.c.study_instance_uid == uids[0],
            series.c.series_instance_uid == uids[1],
            instance.c.sop_instance_uid == uids[2],
            version.c.number == number,
        )
    )
    found = conn.execute(statement).scalar()
    return None if found is None else blobs.find(conn, found)


def count_of_instance(conn: Connection, uids: Uids) -> int:
    """How many records point at an instance, those in the trash too."""
    statement = select(file.c.pk).where(
        file.c.dicom_sop_uid == uids[2], file.c.dicom_series_uid == uids[1], file.c.dicom_study_uid == uids[0]
    )
    return len(conn.execute(statement).all())


def insert_file(conn: Connection, row: Mapping[str, Any]) -> int:
    """A new record; its number. `row` has all fields of `FileRow` but `pk`."""
    pk: int = _INSERT_FILE.only(conn, row)
    return pk


def insert_version(conn: Connection, row: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> int:
    """A version with its parts; its number. What they lack of the fields of `VersionRow` and `PartRow` is `pk` and `version_pk`."""
    pk: int = _INSERT_VERSION.only(conn, row)
    for part in listed:
        _INSERT_PART.do(conn, {**part, "version_pk": pk})
    recount(conn, row["file_pk"])
    return pk


def recount(conn: Connection, file_pk: int) -> None:
    """Bring the size of a file up to date with its versions; whoever takes one away calls it."""
    _RECOUNT.do(conn, {"file_pk": file_pk})


def change(conn: Connection, file_pk: int, values: Mapping[str, Any]) -> None:
    """Change columns of a record."""
    conn.execute(update(file).where(file.c.pk == file_pk).values(dict(values)))


def advance(conn: Connection, file_pk: int, number: int, now: str) -> None:
    """Its newest version has this number from now on."""
    _ADVANCE.do(conn, {"file_pk": file_pk, "number": number, "now": now})


def all_parts(conn: Connection, file_pk: int) -> list[tuple[VersionRow, PartRow]]:
    """The parts of all versions of a file, the oldest first, as the table has them."""
    statement = (
        select(*_VERSION, *_PART)
        .join(file_part, file_part.c.version_pk == file_version.c.pk)
        .where(file_version.c.file_pk == file_pk)
        .order_by(file_version.c.number, file_part.c.position)
    )
    width = len(_VERSION)
    return [(VersionRow(*row[:width]), PartRow(*row[width:])) for row in conn.execute(statement)]


def purge(conn: Connection, row: FileRow, now: str) -> int:
    """Drop a record with all versions, and their references to bytes; how many blobs were doomed by it."""
    referred = [part.blob_pk for _, part in all_parts(conn, row.pk) if part.blob_pk is not None]
    of_file = select(file_version.c.pk).where(file_version.c.file_pk == row.pk)
    conn.execute(delete(file_part).where(file_part.c.version_pk.in_(of_file)))
    conn.execute(delete(file_version).where(file_version.c.file_pk == row.pk))
    conn.execute(delete(file).where(file.c.pk == row.pk))
    conn.execute(insert(purged_file).values(uid=row.uid, patient_id=row.patient_pk, purged_at=now))
    return blobs.release(conn, referred, now)

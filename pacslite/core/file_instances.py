"""Files that are DICOM instances: they go the way of every instance, and their records point there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pacslite.catalog import deletions, patients
from pacslite.catalog import files as rows
from pacslite.catalog.arrival import PatientIdentity, identity_of
from pacslite.core.file_records import FileRecord, FileVersion
from pacslite.core.ingest import Expected, read_limits
from pacslite.core.parts import WithCatalog, WithIngest, WithSettings, WithSpool, WithStores
from pacslite.dicom.instance import read_instance
from pacslite.dicom.uids import clean_uid
from pacslite.errors import Busy, Gone, PatientMismatch, UidMismatch

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.changes import Origin
    from pacslite.dicom.instance import Instance
    from pacslite.storage.spool import SpoolFile


class Parts(WithSettings, WithCatalog, WithStores, WithSpool, WithIngest, Protocol):
    """What this needs of a process."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The version of an instance that a file became, and its bytes: those sent, or those that were there already."""

    uids: tuple[str, str, str]
    number: int
    size_bytes: int
    sha256: str
    outcome: str = "stored"


def accept(
    parts: Parts,
    file: SpoolFile,
    origin: Origin,
    identity: rows.Identity | None = None,
    study_uid: str | None = None,
    uids: tuple[str, str, str] | None = None,
) -> Taken:
    """Take a file in as an instance, of this patient and study, or as a version of the instance of these UIDs.

    Raises PatientMismatch, UidMismatch, StudyMismatch, and what `Ingest.accept` raises.
    """
    read = read_instance(file.path if file.content is None else file.content, read_limits(parts.settings, parts.spool.directory))
    if identity is not None:
        _check_patient(parts, read, identity)
    if uids is not None and uids != (read.study_instance_uid, read.series_instance_uid, read.sop_instance_uid):
        raise UidMismatch("A version of a DICOM file has the same Study, Series and SOP Instance UID.")
    accepted = parts.ingest.accept(file, origin, Expected(study_instance_uid=clean_uid(study_uid) if study_uid else None))
    found = accepted.study_instance_uid, accepted.series_instance_uid, accepted.sop_instance_uid
    with parts.catalog.read() as conn:
        stored = rows.instance_blob(conn, found, accepted.version_number)
    if stored is None:
        raise Busy("The instance was deleted while it arrived.")
    return Taken(found, accepted.version_number, stored.size_bytes, stored.sha256, accepted.outcome)


def _check_patient(parts: Parts, read: Instance, identity: rows.Identity) -> None:
    """Raises PatientMismatch unless the instance is of this patient, or of one who became part of them.

    An issuer counts where both sides name one.
    """
    theirs = identity_of(read.values, read.study_instance_uid, parts.settings.default_issuer)
    same_issuer = not (theirs.issuer_given and identity.issuer) or theirs.issuer == identity.issuer
    is_same = (theirs.patient_id, theirs.study) == (identity.patient_id, identity.study) and same_issuer
    if not is_same and not _is_part_of(parts, theirs, identity):
        raise PatientMismatch("The Patient ID in the DICOM file is not that of the patient.")


def _is_part_of(parts: Parts, theirs: PatientIdentity, identity: rows.Identity) -> bool:
    with parts.catalog.read() as conn:
        named = patients.of_identity(conn, theirs)
        known = patients.of_identity(conn, PatientIdentity(identity.patient_id, identity.issuer, identity.study))
        return named is not None and known is not None and patients.survivor(conn, named.id) == known.id


def restore(parts: Parts, record: FileRecord, old: FileVersion, origin: Origin) -> Taken:
    """Make the bytes of an older version of an instance its newest version again; raises Gone."""
    uids = record.study_instance_uid or "", record.series_instance_uid or "", record.sop_instance_uid or ""
    with parts.catalog.read() as conn:
        stored = rows.instance_blob(conn, uids, old.parts[0].dicom_version or 0)
    if stored is None:
        raise Gone("The bytes of this version are gone.")
    with parts.stores.open(stored) as stream:
        file = parts.spool.copy(stream, ".dcm")
    return accept(parts, file, origin, uids=uids)


def blob_of(conn: Connection, row: rows.FileRow, number: int | None) -> int | None:
    """The bytes of a version of a DICOM file, None of another file."""
    found = rows.instance_blob(conn, row.uids, number) if row.uids is not None and number is not None else None
    return found.pk if found is not None else None


def remove(conn: Connection, uids: tuple[str, str, str], origin: Origin) -> None:
    """Take an instance out of the catalog, within the transaction that purges its last record."""
    deletions.delete_target(conn, deletions.Target(*uids), origin)

"""Files as their users see them: a record, its versions, their parts, and how far what is made of those is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pacslite.catalog import files as rows
from pacslite.catalog import renditions
from pacslite.catalog.files import FileRow, MadeRow, PartRow, VersionRow
from pacslite.core.file_types import Variant
from pacslite.errors import Gone, NotFound, PreconditionFailed

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.visibility import Sight

SERVED = "served"
PENDING, READY, FAILED, NONE = "pending", "ready", "failed", "none"
_PICTURES = (Variant.LARGE, Variant.MEDIUM, Variant.THUMBNAIL)


@dataclass(frozen=True, slots=True)
class FilePart:
    """The bytes of a version, or one of several in order: as they were sent, and as they are given out when that is another file.

    `pictures` tells for each variant that there is, or is to be, whether it is there. `processing` is that of a video.
    `media` is what was found out about the bytes, None as long as that is nothing.
    """

    position: int
    original_filename: str
    blob_pk: int | None
    dicom_version: int | None
    original_size: int
    original_sha256: str
    original_media_type: str
    size_bytes: int
    sha256: str
    media_type: str
    processing: str | None
    pictures: Mapping[str, bool]
    media: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One version of a file."""

    number: int
    type: str
    description: str | None
    created_by: str
    owner_id: int | None
    created_at: str
    parts: tuple[FilePart, ...]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of a patient with its newest version. A DICOM file has the UIDs of its instance."""

    id: str
    pk: int
    patient_id: int
    file_type: str
    medical_category: str | None
    study_date: str | None
    body_part: str | None
    description: str | None
    study_instance_uid: str | None
    series_instance_uid: str | None
    sop_instance_uid: str | None
    state: str
    legal_hold: bool
    created_by: str
    created_at: str
    updated_at: str
    deleted_at: str | None
    version: FileVersion

    @property
    def is_dicom(self) -> bool:
        """Whether its bytes are an instance."""
        return self.sop_instance_uid is not None

    @property
    def is_series(self) -> bool:
        """Whether a version of it has several parts."""
        return self.file_type == "photo_series"


def record_of(conn: Connection, row: FileRow) -> FileRecord:
    """The record of a row; one of few bytes that are no instance, as most are, by statements that are compiled once."""
    found = rows.newest_of(conn, row.pk)
    if found is None or len(found[1]) > 1 or found[1][0].blob_pk is None:
        return records_of(conn, [row])[0]
    newest, (part,) = found
    pk = found[1][0].blob_pk
    return _record(row, _version(newest, (_part(part, rows.made_of_one(conn, pk), renditions.info(conn, pk)),)))


def records_of(conn: Connection, found: Sequence[FileRow]) -> list[FileRecord]:
    """The records of rows, in a few statements however many they are."""
    newest = rows.newest_versions(conn, [row.pk for row in found])
    versions = {version.number_of: version for version in _versions(conn, list(newest.values()))}
    return [_record(row, versions[newest[row.pk].pk].value) for row in found if row.pk in newest]


def versions_of(conn: Connection, file_pk: int, number: int | None = None) -> list[FileVersion]:
    """The versions of a file, newest first, or the one of this number."""
    return [version.value for version in _versions(conn, rows.versions(conn, file_pk, number))]


@dataclass(frozen=True, slots=True)
class _Numbered:
    number_of: int
    value: FileVersion


def _versions(conn: Connection, found: Sequence[VersionRow]) -> list[_Numbered]:
    parts = rows.parts(conn, [row.pk for row in found])
    blob_pks = [part.blob_pk for listed in parts.values() for part in listed if part.blob_pk is not None]
    made, media = rows.made_of(conn, blob_pks), renditions.infos(conn, blob_pks)
    return [
        _Numbered(
            row.pk,
            _version(
                row,
                tuple(_part(part, made.get(part.blob_pk or 0, {}), media.get(part.blob_pk or 0)) for part in parts.get(row.pk, ())),
            ),
        )
        for row in found
    ]


def _version(row: VersionRow, parts: tuple[FilePart, ...]) -> FileVersion:
    return FileVersion(row.number, row.type, row.description, row.created_by, row.owner_id, row.created_at, parts)


def _part(row: PartRow, made: Mapping[str, MadeRow], media: dict[str, Any] | None) -> FilePart:
    served = made.get(SERVED)
    processing = served.state if served is not None and served.state != NONE else None
    size, sha256, media_type = row.size_bytes, row.sha256, row.media_type
    if served is not None and processing == READY and served.sha256 is not None:
        size, sha256, media_type = served.size_bytes or 0, served.sha256, served.media_type or media_type
    pictures = {name.value: made[name].state == READY for name in _PICTURES if name.value in made and made[name].state in (PENDING, READY)}
    return FilePart(
        row.position,
        row.original_filename,
        row.blob_pk,
        row.dicom_version,
        row.size_bytes,
        row.sha256,
        row.media_type,
        size,
        sha256,
        media_type,
        processing,
        pictures,
        media,
    )


def _record(row: FileRow, version: FileVersion) -> FileRecord:
    return FileRecord(
        row.uid,
        row.pk,
        row.patient_pk,
        row.file_type,
        row.medical_category,
        row.study_date,
        row.body_part,
        row.description,
        row.study_instance_uid or row.dicom_study_uid,
        row.dicom_series_uid,
        row.dicom_sop_uid,
        row.state,
        row.legal_hold,
        row.created_by,
        row.created_at,
        row.updated_at,
        row.deleted_at,
        version,
    )


def live_row(conn: Connection, file_id: str, sight: Sight | None, *, in_trash: bool = False) -> FileRow:
    """The row of a file that is there, with `in_trash` one in the trash too; raises NotFound, or Gone for what was there before."""
    row = rows.find(conn, file_id, sight)
    if row is None:
        if rows.was_purged(conn, file_id, sight):
            raise Gone("The file was deleted for good.")
        raise NotFound("There is no such file.")
    if row.state == rows.TRASH and not in_trash:
        raise Gone("The file is in the trash.")
    if not in_trash and not rows.has_instance(conn, row):
        raise Gone("The instance that the file is was deleted.")
    return row


def check_match(record: FileRecord, if_match: frozenset[str] | None) -> None:
    """By what `/content` gives: for a video that is not converted yet, that is what was sent."""
    if if_match is not None and record.version.parts[0].sha256 not in if_match:
        raise PreconditionFailed("The file is not, or no longer, what If-Match names.")

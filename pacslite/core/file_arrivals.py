"""Files on their way in: what is looked at before, the bytes, and the one transaction that records them.

The bytes are durable before the catalog names them, and kept once however often they come (`core.file_keeping`). A DICOM file goes
the way of every instance (`core.ingest`), and its record points there (`core.file_instances`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from pacslite import metrics
from pacslite.catalog import blobs
from pacslite.catalog import files as rows
from pacslite.catalog.changes import Kind, Origin
from pacslite.catalog.files import FileRow
from pacslite.catalog.statements import lock_keys, now_text
from pacslite.core import file_inspection, file_instances, quotas, renditions
from pacslite.core.file_keeping import Incoming, Linked, keep, lock_names
from pacslite.core.file_names import original_name
from pacslite.core.file_notes import Owner, bytes_of, described, note_change, note_event
from pacslite.core.file_records import FileRecord, check_match, live_row, record_of, versions_of
from pacslite.core.file_types import KEY_NAMES, FileVersionType, MedicalCategory, MedicalFileType
from pacslite.core.parts import WithCatalog, WithIngest, WithSettings, WithSpool, WithStore, WithStores
from pacslite.dicom.uids import clean_uid
from pacslite.errors import BadRequest, Busy, Gone, InvalidForm, NotFound, TooManyVersions, UnsupportedContent
from pacslite.storage.keys import file_key, new_version_id

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.core.file_inspection import Inspected
    from pacslite.storage.spool import SpoolFile

DICOM = "application/dicom"
MOST_PARTS = 1000
"""Pictures of one photo series."""


class Parts(WithSettings, WithCatalog, WithStore, WithStores, WithSpool, WithIngest, Protocol):
    """What files need of a process."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """Bytes in the spool, and what their sender calls them."""

    file: SpoolFile
    filename: str


@dataclass(frozen=True, slots=True)
class Description:
    """What is said of a new file. `file_id` is the id it is to have, a new version id that somebody has been told already."""

    patient_id: int
    file_type: MedicalFileType
    medical_category: MedicalCategory | None = None
    study_date: str | None = None
    body_part: str | None = None
    description: str | None = None
    study_instance_uid: str | None = None
    file_id: str | None = None


def clean_filename(name: str) -> str:
    """A name as it is kept (`file_names.original_name`); what is left of none is `file`."""
    try:
        return original_name(name)
    except BadRequest:
        return "file"


def add(
    parts: Parts,
    arrived: Sequence[Arrived],
    about: Description,
    owner: Owner,
    origin: Origin,
    also: Callable[[Connection, str], None] | None = None,
) -> FileRecord:
    """A new file of a patient, with what arrived as its first version. The spool files are gone afterwards, whatever happens.

    `also` is done in the same transaction, with the id of the file; what it raises takes everything back.
    Raises InvalidForm for an unknown patient, UnsupportedContent, Conflict (a DICOM file of somebody else), QuotaExceeded, OutOfSpace,
    and what `Ingest.accept` raises.
    """
    try:
        seen = _inspected(parts, arrived, about.file_type, owner)
        identity = known_patient(parts, about.patient_id)
        new = _NewVersion(0, FileVersionType.BASELINE, None, owner, origin, also=also)
        keys = (identity.key, *lock_names([owner.account_id]))
        if seen[0].media_type == DICOM:
            instance = file_instances.accept(parts, arrived[0].file, origin, identity, about.study_instance_uid)
            work = partial(_record_new, parts, about, new, _dicom_parts(arrived, instance), instance.uids)
            return _counted(parts.catalog.write(lambda conn: work(conn, []), (*keys, f"study:{instance.uids[0]}")))
        incoming = [_incoming(one, found, about) for one, found in zip(arrived, seen, strict=True)]
        return _counted(keep(parts, incoming, partial(_record_new, parts, about, new, _plain_parts(arrived, seen), None), keys))
    finally:
        _discard(arrived)


def add_version(
    parts: Parts,
    file_id: str,
    arrived: Sequence[Arrived],
    version_type: FileVersionType,
    description: str | None,
    owner: Owner,
    origin: Origin,
    if_match: frozenset[str] | None = None,
) -> FileRecord:
    """Make what arrived the newest version of a file. The spool files are gone afterwards, whatever happens.

    With `if_match` only while the content's SHA-256 is one of these: raises PreconditionFailed. Raises NotFound, Gone, TooManyVersions,
    UidMismatch, and what `add` raises.
    """
    try:
        with parts.catalog.read() as conn:
            record = record_of(conn, live_row(conn, file_id, parts.catalog.sight(conn)))
        check_match(record, if_match)
        file_type = MedicalFileType(record.file_type)
        seen = _inspected(parts, arrived, file_type, owner)
        if (seen[0].media_type == DICOM) != record.is_dicom:
            raise UnsupportedContent("A version of a DICOM file is a DICOM file, one of another file is none.")
        new = _NewVersion(record.pk, version_type, description, owner, origin, if_match)
        keys = (f"file:{file_id}", *lock_names([owner.account_id]))
        if record.is_dicom:
            uids = record.study_instance_uid or "", record.series_instance_uid or "", record.sop_instance_uid or ""
            instance = file_instances.accept(parts, arrived[0].file, origin, None, None, uids)
            work = partial(_record_version, parts, file_id, new, _dicom_parts(arrived, instance))
            return _counted(parts.catalog.write(lambda conn: work(conn, []), keys))
        about = Description(record.patient_id, file_type, study_date=record.study_date)
        incoming = [_incoming(one, found, about) for one, found in zip(arrived, seen, strict=True)]
        return _counted(keep(parts, incoming, partial(_record_version, parts, file_id, new, _plain_parts(arrived, seen)), keys))
    finally:
        _discard(arrived)


def _counted(record: FileRecord) -> FileRecord:
    metrics.FILE_VERSIONS.add(record.file_type)
    return record


def _discard(arrived: Sequence[Arrived]) -> None:
    for one in arrived:
        one.file.discard()


@dataclass(frozen=True, slots=True)
class _NewVersion:
    """A version on its way."""

    file_pk: int
    type: FileVersionType
    description: str | None
    owner: Owner
    origin: Origin
    if_match: frozenset[str] | None = None
    restored: int | None = None
    also: Callable[[Connection, str], None] | None = None


_PartValues = dict[str, Any]


def _inspected(parts: Parts, arrived: Sequence[Arrived], file_type: MedicalFileType, owner: Owner) -> list[Inspected]:
    """What each of the bytes is; raises InvalidForm for the wrong number of them."""
    most = MOST_PARTS if file_type is MedicalFileType.PHOTO_SERIES else 1
    if not 1 <= len(arrived) <= most:
        message = "is missing" if not arrived else f"is given {len(arrived)} times; a {file_type} has at most {most}"
        raise InvalidForm.at("file", message)
    quotas.check(parts, owner, sum(one.file.size_bytes for one in arrived))
    found = [file_inspection.inspect(one.file.path, one.filename, file_type, parts.settings) for one in arrived]
    if len(found) > 1 and any(one.media_type == DICOM for one in found):
        raise UnsupportedContent("A photo series holds no DICOM files.")
    return found


def known_patient(parts: Parts, patient_id: int) -> rows.Identity:
    """The patient of a form; raises InvalidForm when there is none, or none that this user sees."""
    with parts.catalog.read() as conn:
        seen = rows.sees_patient(conn, patient_id, parts.catalog.sight(conn))
        identity = rows.identity(conn, patient_id) if seen else None
    if identity is None or identity.merged_into is not None:
        raise _unknown_patient()
    return identity


def _unknown_patient() -> InvalidForm:
    return InvalidForm.at("patient_id", "there is no such patient; wanted is the id that GET /api/v1/patients?q= tells, not the mrn")


def _incoming(one: Arrived, found: Inspected, about: Description) -> Incoming:
    names = KEY_NAMES[about.file_type]
    day = (about.study_date or datetime.now(UTC).date().isoformat()).replace("-", "")
    is_one = about.file_type is not MedicalFileType.PHOTO_SERIES

    def new_key() -> str:
        uid = about.file_id if about.file_id is not None and is_one else new_version_id()
        return file_key(about.patient_id, names.folder, day, names.prefix, uid, found.extension)

    return Incoming(one.file, found.media_type, new_key)


def _plain_parts(arrived: Sequence[Arrived], seen: Sequence[Inspected]) -> list[_PartValues]:
    return [
        {
            "position": position,
            "original_filename": clean_filename(one.filename),
            "blob_pk": None,
            "dicom_version": None,
            "size_bytes": one.file.size_bytes,
            "sha256": one.file.sha256,
            "media_type": found.media_type,
        }
        for position, (one, found) in enumerate(zip(arrived, seen, strict=True))
    ]


def _dicom_parts(arrived: Sequence[Arrived], instance: file_instances.Taken) -> list[_PartValues]:
    name = clean_filename(arrived[0].filename)
    told = {"dicom_version": instance.number, "size_bytes": instance.size_bytes, "sha256": instance.sha256, "media_type": DICOM}
    return [{"position": 0, "original_filename": name, "blob_pk": None, **told}]


def _record_new(
    parts: Parts,
    about: Description,
    new: _NewVersion,
    listed: list[_PartValues],
    uids: tuple[str, str, str] | None,
    conn: Connection,
    linked: list[Linked],
) -> FileRecord:
    """The rows of a new file; raises InvalidForm when the patient has gone meanwhile."""
    _hold_patient(conn, about.patient_id)
    now = now_text()
    of_instance = dict(zip(("dicom_study_uid", "dicom_series_uid", "dicom_sop_uid"), uids or (None, None, None), strict=True))
    row: dict[str, Any] = {
        "uid": about.file_id or new_version_id(),
        "patient_pk": about.patient_id,
        "file_type": about.file_type.value,
        "medical_category": about.medical_category.value if about.medical_category else None,
        "study_date": about.study_date,
        "body_part": about.body_part,
        "description": about.description,
        "study_instance_uid": clean_uid(about.study_instance_uid) if about.study_instance_uid else None,
        **of_instance,
        "version_number": 0,
        "state": rows.LIVE,
        "legal_hold": False,
        "created_by": new.owner.username,
        "created_at": now,
        "updated_at": now,
        "deleted_at": None,
    }
    made = FileRow(rows.insert_file(conn, row), **row)
    if not rows.has_instance(conn, made):  # its last record was purged since the instance was found to be there
        raise Busy("The instance was deleted while it arrived.")
    return _put_version(conn, parts, made, new, listed, linked, now)


def _hold_patient(conn: Connection, patient_id: int) -> None:
    """The patient stays until this transaction ends: one whose last study is deleted goes, unless there is a file."""
    identity = rows.identity(conn, patient_id)
    if identity is not None:
        lock_keys(conn, [identity.key])
        identity = rows.identity(conn, patient_id)
    if identity is None or identity.merged_into is not None:
        raise _unknown_patient()


def _record_version(
    parts: Parts, file_id: str, new: _NewVersion, listed: list[_PartValues], conn: Connection, linked: list[Linked]
) -> FileRecord:
    row = live_row(conn, file_id, parts.catalog.sight(conn))
    if new.if_match is not None:
        check_match(record_of(conn, row), new.if_match)
    if row.version_number >= parts.settings.max_versions_per_file:
        raise TooManyVersions(f"{row.version_number} versions of this file are stored, which is the bound")
    return _put_version(conn, parts, row, new, listed, linked, now_text())


def _put_version(
    conn: Connection, parts: Parts, row: FileRow, new: _NewVersion, listed: list[_PartValues], linked: list[Linked], now: str
) -> FileRecord:
    """The next version of a file, its change and its event, in the transaction that counts its bytes."""
    before = {part.sha256 for _, part in rows.all_parts(conn, row.pk)} if row.version_number else set()
    added = {part["sha256"]: part["size_bytes"] for part in listed if part["sha256"] not in before}
    if linked:
        listed = [{**part, "blob_pk": link.pk} for part, link in zip(listed, linked, strict=True)]
    number = row.version_number + 1
    version: dict[str, Any] = {
        "file_pk": row.pk,
        "number": number,
        "type": new.type.value,
        "description": new.description,
        "created_by": new.owner.username,
        "owner_id": new.owner.account_id,
        "created_at": now,
    }
    rows.insert_version(conn, version, listed)
    rows.advance(conn, row.pk, number, now)
    quotas.charge(conn, new.owner.account_id, sum(added.values()), parts.settings)
    row = row._replace(version_number=number, updated_at=now)
    _note_version(conn, row, new, version, listed, linked)
    if new.also is not None:
        new.also(conn, row.uid)
    for part in listed:
        blob_pk = part["blob_pk"] or file_instances.blob_of(conn, row, part["dicom_version"])
        if blob_pk is not None:
            renditions.queue(conn, blob_pk, part["media_type"])
    return record_of(conn, row)


def _note_version(
    conn: Connection,
    row: FileRow,
    new: _NewVersion,
    version: Mapping[str, Any],
    listed: Sequence[_PartValues],
    linked: Sequence[Linked],
) -> None:
    kind = Kind.FILE_CREATED if version["number"] == 1 else Kind.FILE_VERSIONED
    told = [{**{name: value for name, value in part.items() if name != "blob_pk"}, **bytes_of(conn, part["blob_pk"])} for part in listed]
    detail = {
        "file": described(row),
        "version": {name: value for name, value in version.items() if name != "file_pk"},
        "parts": told,
        **({"restored": new.restored} if new.restored is not None else {}),
    }
    if kind is Kind.FILE_CREATED and (whose := rows.identity(conn, row.patient_pk)) is not None:
        detail["identity"] = {"mrn": whose.patient_id, "issuer": whose.issuer, "study": whose.study}
    note_change(conn, kind, row, new.origin, detail)
    for link in linked:
        if link.repaired is not None:
            note_change(conn, Kind.FILE_REPAIRED, row, new.origin, {"was": link.repaired.uid, **bytes_of(conn, link.pk)})
    action = "file.restore" if new.restored is not None else "file.upload" if kind is Kind.FILE_CREATED else "file.version"
    note_event(conn, action, row, new.owner, new.origin, version=version["number"])


def restore(parts: Parts, file_id: str, number: int, owner: Owner, origin: Origin) -> FileRecord:
    """Make an older version of a file its newest, as a new version with the same bytes; raises NotFound, Gone."""
    with parts.catalog.read() as conn:
        row = live_row(conn, file_id, parts.catalog.sight(conn))
        record, found = record_of(conn, row), versions_of(conn, row.pk, number)
    if not found:
        raise NotFound("There is no such version.")
    old = found[0]
    new = _NewVersion(record.pk, FileVersionType(old.type), f"restored from version {number}", owner, origin, restored=number)
    listed: list[_PartValues] = [
        {
            "position": part.position,
            "original_filename": part.original_filename,
            "blob_pk": None if record.is_dicom else part.blob_pk,
            "dicom_version": part.dicom_version,
            "size_bytes": part.original_size,
            "sha256": part.original_sha256,
            "media_type": part.original_media_type,
        }
        for part in old.parts
    ]
    if record.is_dicom:
        taken = file_instances.restore(parts, record, old, origin)
        listed = [{**part, "dicom_version": taken.number} for part in listed]

    def work(conn: Connection) -> FileRecord:
        links = []
        for part in listed if not record.is_dicom else ():
            linked = blobs.link_again(conn, part["blob_pk"])
            if linked is None:
                raise Gone("The bytes of this version are gone.")
            links.append(Linked(part["blob_pk"], linked))
        return _record_version(parts, file_id, new, listed, conn, links)

    locks = lock_names([owner.account_id], (part["sha256"] for part in listed if not record.is_dicom))
    return _counted(parts.catalog.write(work, (f"file:{file_id}", *locks)))

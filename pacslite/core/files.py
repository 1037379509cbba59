"""The files of patients: added, versioned, restored, described, deleted and brought back; everybody who does so comes here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pacslite.catalog import files as rows
from pacslite.catalog import legal_holds
from pacslite.catalog.changes import Kind, Origin
from pacslite.catalog.files import FileRow
from pacslite.catalog.statements import now_text
from pacslite.core import file_instances, quotas
from pacslite.core.file_arrivals import Arrived, Description, Parts, add, add_version, clean_filename, restore
from pacslite.core.file_keeping import lock_names
from pacslite.core.file_notes import Owner, described, note_change, note_event, owner_of
from pacslite.core.file_records import FilePart, FileRecord, FileVersion, check_match, live_row, record_of, versions_of
from pacslite.dicom.uids import clean_uid
from pacslite.errors import Conflict, Gone, NotFound

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "Arrived",
    "Description",
    "FilePart",
    "FileRecord",
    "FileVersion",
    "Origin",
    "Owner",
    "Parts",
    "add",
    "add_version",
    "check_current",
    "clean_filename",
    "delete",
    "get",
    "owner_of",
    "purge",
    "restore",
    "undelete",
    "update",
    "versions",
]


def get(parts: Parts, file_id: str, *, in_trash: bool = False) -> FileRecord:
    """A file with its newest version; raises NotFound, or Gone for one in the trash, purged, or whose instance was deleted."""
    with parts.catalog.read() as conn:
        return record_of(conn, live_row(conn, file_id, parts.catalog.sight(conn), in_trash=in_trash))


def versions(parts: Parts, file_id: str, number: int | None = None) -> tuple[FileRecord, list[FileVersion]]:
    """A file and its versions, newest first, or the one of this number; raises NotFound, Gone."""
    with parts.catalog.read() as conn:
        row = live_row(conn, file_id, parts.catalog.sight(conn))
        found = versions_of(conn, row.pk, number)
        if not found:
            raise NotFound("There is no such version.")
        return record_of(conn, row), found


def check_current(parts: Parts, file_id: str, if_match: frozenset[str] | None) -> FileRecord:
    """The file, before anything is received for it; raises PreconditionFailed when its content is none of these."""
    record = get(parts, file_id)
    check_match(record, if_match)
    return record


def update(parts: Parts, file_id: str, values: Mapping[str, Any], owner: Owner, origin: Origin) -> FileRecord:
    """Change what is said of a file: medical_category, study_date, body_part, description, study_instance_uid.

    Raises NotFound, Gone, and Conflict for another study of a DICOM file, or of one that is to be kept by law.
    """
    given = dict(values)
    if given.get("study_instance_uid"):
        given["study_instance_uid"] = clean_uid(given["study_instance_uid"])

    def work(conn: Connection) -> FileRecord:
        row = live_row(conn, file_id, parts.catalog.sight(conn))
        if row.uids is not None and "study_instance_uid" in given:
            raise Conflict("A DICOM file belongs to the study of its instance.")
        changed = {name: value for name, value in given.items() if getattr(row, name) != value}
        if not changed:
            return record_of(conn, row)
        if "study_instance_uid" in changed:
            _check_hold(conn, row)  # a file that leaves a study on hold would leave the hold as well
        now = now_text()
        rows.change(conn, row.pk, {**changed, "updated_at": now})
        row = row._replace(**changed, updated_at=now)
        note_change(conn, Kind.FILE_UPDATED, row, origin, {"file": described(row)})
        note_event(conn, "file.update", row, owner, origin, fields=sorted(changed))
        return record_of(conn, row)

    return parts.catalog.write(work, (f"file:{file_id}",))


def delete(parts: Parts, file_id: str, owner: Owner, origin: Origin) -> None:
    """Put a file into the trash; raises NotFound, Gone, and Conflict when it is to be kept by law."""

    def work(conn: Connection) -> None:
        row = live_row(conn, file_id, parts.catalog.sight(conn))
        _check_hold(conn, row)
        now = now_text()
        rows.change(conn, row.pk, {"state": rows.TRASH, "deleted_at": now, "updated_at": now})
        row = row._replace(state=rows.TRASH, deleted_at=now, updated_at=now)
        note_change(conn, Kind.FILE_DELETED, row, origin, {"file": described(row)})
        note_event(conn, "file.delete", row, owner, origin)

    parts.catalog.write(work, (f"file:{file_id}",))


def _check_hold(conn: Connection, row: FileRow) -> None:
    studies = {row.dicom_study_uid, row.study_instance_uid} - {None}
    if row.legal_hold or any(legal_holds.of_study(conn, uid) is not None for uid in studies if uid):
        raise Conflict("The file is under legal hold.")


def undelete(parts: Parts, file_id: str, owner: Owner, origin: Origin) -> FileRecord:
    """Bring a file back from the trash, if it is there; raises NotFound, Gone."""

    def work(conn: Connection) -> FileRecord:
        row = live_row(conn, file_id, parts.catalog.sight(conn), in_trash=True)
        if not rows.has_instance(conn, row):
            raise Gone("The instance that the file is was deleted.")
        if row.state == rows.LIVE:
            return record_of(conn, row)
        now = now_text()
        rows.change(conn, row.pk, {"state": rows.LIVE, "deleted_at": None, "updated_at": now})
        row = row._replace(state=rows.LIVE, deleted_at=None, updated_at=now)
        note_change(conn, Kind.FILE_UNDELETED, row, origin, {"file": described(row)})
        note_event(conn, "file.undelete", row, owner, origin)
        return record_of(conn, row)

    return parts.catalog.write(work, (f"file:{file_id}",))


def purge(parts: Parts, file_id: str, owner: Owner, origin: Origin) -> None:
    """Erase a file for good, in the trash or not: its bytes go with the last file that has them, after the time of grace.

    The last record of an instance takes that along. Raises NotFound, Gone, Conflict.
    """
    with parts.catalog.read() as conn:
        row = live_row(conn, file_id, parts.catalog.sight(conn), in_trash=True)
        listed = rows.all_parts(conn, row.pk)
    locks = lock_names((version.owner_id for version, _ in listed), (part.sha256 for _, part in listed))
    keys = (f"file:{file_id}", *locks, *((f"study:{row.uids[0]}",) if row.uids else ()))

    def work(conn: Connection) -> None:
        row = live_row(conn, file_id, parts.catalog.sight(conn), in_trash=True)
        _check_hold(conn, row)
        for account_id, size in _kept_by(conn, row).items():
            quotas.charge(conn, account_id, -size)
        rows.purge(conn, row, now_text())
        if row.uids is not None and not rows.count_of_instance(conn, row.uids):
            file_instances.remove(conn, row.uids, origin)
        note_change(conn, Kind.FILE_PURGED, row, origin, {"file": described(row)})
        note_event(conn, "file.purge", row, owner, origin)

    parts.catalog.write(work, keys)


def _kept_by(conn: Connection, row: FileRow) -> dict[int | None, int]:
    """How much each account was charged for the bytes of a file: who brought them first."""
    charged: dict[int | None, int] = {}
    seen: set[str] = set()
    for version, part in rows.all_parts(conn, row.pk):
        if part.sha256 not in seen:
            seen.add(part.sha256)
            charged[version.owner_id] = charged.get(version.owner_id, 0) + part.size_bytes
    return charged

"""Files as dictionaries, named as over REST, for callers in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pacslite.catalog import blobs
from pacslite.core.files import FilePart, FileRecord, FileVersion

if TYPE_CHECKING:
    from pacslite.app import Pacs

_RECORD = (
    "id",
    "patient_id",
    "file_type",
    "medical_category",
    "study_date",
    "body_part",
    "description",
    "study_instance_uid",
    "series_instance_uid",
    "sop_instance_uid",
)


def shown(pacs: Pacs, record: FileRecord, version: FileVersion) -> dict[str, Any]:
    """A file with one of its versions; sizes, hashes and paths are of what was brought."""
    told: dict[str, Any] = {name: getattr(record, name) for name in _RECORD}
    told |= {"version_type": version.type, "version_number": version.number, "version_description": version.description}
    told |= {"created_by": version.created_by, "created_at": version.created_at}
    parts = [_part(pacs, part) for part in version.parts]
    told |= parts[0]
    return {**told, "items": parts} if record.is_series else told


def _part(pacs: Pacs, part: FilePart) -> dict[str, Any]:
    path = None
    if part.blob_pk is not None:
        with pacs.catalog.read() as conn:
            found = blobs.find(conn, part.blob_pk)
        path = None if found is None else pacs.stores.local_path(found)
    return {
        "original_filename": part.original_filename,
        "mime_type": part.original_media_type,
        "file_size": part.original_size,
        "file_hash": part.original_sha256,
        "path": path,
        "filename": None if path is None else path.name,
    }

"""Files as JSON: what every answer about one says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from pacslite.core.files import FilePart, FileRecord, FileVersion
from pacslite.web.forms import rule
from pacslite.web.messages import Request
from pacslite.web.operations import ROOT

_VARIANTS = rule("URL of each smaller picture there is; null while it is being made.")
_PROCESSING = rule("How far the conversion of a video is: pending, ready or failed; null of other files.")
_MEDIA = rule(
    "What was found out about the content, null until that is known, or when it is nothing. Of pictures width and height, upright; "
    "of videos also duration_s, frame_rate, video_codec, audio_codec, container; of PDFs pages, page_width_pt, page_height_pt; "
    "of models triangles, degenerate_triangles, dimensions and bounds in units of the file, is_watertight. More may follow."
)


@dataclass(frozen=True, slots=True)
class ItemView:
    """One picture of a photo series."""

    position: int
    original_filename: str
    file_hash: str
    file_size: int
    mime_type: str
    content_url: str
    variants: dict[str, str | None] = field(metadata=_VARIANTS)
    media: dict[str, Any] | None = field(metadata=_MEDIA)


@dataclass(frozen=True, slots=True)
class FileView:
    """A file with its newest version. Of a photo series, name, type, size and hash are those of its first picture."""

    id: str
    patient_id: int
    file_type: str
    medical_category: str | None
    study_date: str | None
    body_part: str | None
    description: str | None
    original_filename: str
    mime_type: str
    file_size: int
    file_hash: str = field(metadata=rule("SHA-256 of the content."))
    version_number: int
    versions_url: str
    content_url: str
    variants: dict[str, str | None] = field(metadata=_VARIANTS)
    processing: str | None = field(metadata=_PROCESSING)
    media: dict[str, Any] | None = field(metadata=_MEDIA)
    created_by: str
    created_at: str
    updated_at: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    sop_instance_uid: str | None
    legal_hold: bool
    deleted_at: str | None = field(metadata=rule("When it was put into the trash."))
    items: tuple[ItemView, ...] | None = field(default=None, metadata=rule("Of a photo series, in order."))


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version of a file."""

    id: str
    version_number: int
    version_type: str
    version_description: str | None
    created_by: str
    created_at: str
    file_size: int
    file_hash: str
    mime_type: str
    original_filename: str
    content_url: str
    variants: dict[str, str | None] = field(metadata=_VARIANTS)
    processing: str | None = field(metadata=_PROCESSING)
    media: dict[str, Any] | None = field(metadata=_MEDIA)
    items: tuple[ItemView, ...] | None = None


@dataclass(frozen=True, slots=True)
class VersionList:
    """The versions of a file, newest first."""

    items: tuple[VersionView, ...]
    total: int
    next: str | None


def url_of(request: Request, file_id: str) -> str:
    """Where a file is."""
    return f"{request.base_url}{ROOT}/files/{file_id}"


def view_of(request: Request, record: FileRecord) -> FileView:
    """A file as it is answered."""
    url, version = url_of(request, record.id), record.version
    first = version.parts[0]
    return FileView(
        record.id,
        record.patient_id,
        record.file_type,
        record.medical_category,
        record.study_date,
        record.body_part,
        record.description,
        first.original_filename,
        first.media_type,
        first.size_bytes,
        first.sha256,
        version.number,
        f"{url}/versions",
        f"{url}/content",
        _variants(url, version, first, record.is_series),
        first.processing,
        first.media,
        record.created_by,
        record.created_at,
        record.updated_at,
        record.study_instance_uid,
        record.series_instance_uid,
        record.sop_instance_uid,
        record.legal_hold,
        record.deleted_at,
        _items(url, version, {}) if record.is_series else None,
    )


def version_view(request: Request, record: FileRecord, version: FileVersion) -> VersionView:
    """A version as it is answered."""
    url, first, number = url_of(request, record.id), version.parts[0], {"version": version.number}
    return VersionView(
        f"{record.id}.{version.number}",
        version.number,
        version.type,
        version.description,
        version.created_by,
        version.created_at,
        first.size_bytes,
        first.sha256,
        first.media_type,
        first.original_filename,
        f"{url}/content?{urlencode(number)}",
        _variants(url, version, first, record.is_series),
        first.processing,
        first.media,
        _items(url, version, number) if record.is_series else None,
    )


def _items(url: str, version: FileVersion, query: dict[str, int]) -> tuple[ItemView, ...]:
    return tuple(
        ItemView(
            part.position,
            part.original_filename,
            part.sha256,
            part.size_bytes,
            part.media_type,
            f"{url}/content?{urlencode({**query, 'item': part.position})}",
            _variants(url, version, part, True),
            part.media,
        )
        for part in version.parts
    )


def _variants(url: str, version: FileVersion, part: FilePart, is_series: bool) -> dict[str, str | None]:
    """Their URLs name the version: they may be kept for long."""
    item = {"item": part.position} if is_series else {}
    return {
        name: f"{url}/content?{urlencode({'version': version.number, **item, 'variant': name})}" if is_ready else None
        for name, is_ready in part.pictures.items()
    }

"""`/studies`: what DICOMweb has no transaction for: undeleting, versions, and archives to download."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacslite.admin.jobs import JobView, accepted
from pacslite.core import restoration_job
from pacslite.core.access import Right
from pacslite.core.file_archive import open_study_archive
from pacslite.core.removal import Origin, Target, target_of
from pacslite.core.restoration import count, undelete
from pacslite.core.retrieve import Resource, versions
from pacslite.web.archives import archive_reply
from pacslite.web.forms import rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation, json_reply

if TYPE_CHECKING:
    from pacslite.app import Pacs

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UndeletedView:
    """What came back of a deletion."""

    instances: int = field(metadata=rule("Instances that came back; 0 when nothing was missing."))
    versions: int = field(metadata=rule("Their versions."))
    arrived_anew: int = field(metadata=rule("Instances that were sent again since they were deleted, and stay as they are."))
    lost: int = field(metadata=rule("Versions whose bytes are damaged or erased."))


def undelete_study(pacs: Pacs, request: Request, study: str) -> Reply:
    """Brings back a study."""
    return _undelete(pacs, request, study)


def undelete_series(pacs: Pacs, request: Request, study: str, series: str) -> Reply:
    """Brings back a series."""
    return _undelete(pacs, request, study, series)


def undelete_instance(pacs: Pacs, request: Request, study: str, series: str, instance: str) -> Reply:
    """Brings back an instance."""
    return _undelete(pacs, request, study, series, instance)


def _undelete(pacs: Pacs, request: Request, *uids: str) -> Reply:
    target = target_of(*uids)
    origin = Origin("api", address=request.address, actor=request.actor, request_id=request.request_id)
    if count(pacs, target) > restoration_job.LARGE:
        return accepted(request, restoration_job.queue(pacs, target, origin))
    done = undelete(pacs, target, origin)
    view = UndeletedView(done.instances, done.versions, done.arrived_anew, done.lost)
    about = {"action": f"{target.kind}.undelete", "object_id": target.lowest_uid, "address": origin.address, "outcome": "success"}
    _log.info("instances undeleted", extra={**about, "instances": done.instances, "lost": done.lost})
    return json_reply(view)


@dataclass(frozen=True, slots=True)
class InstanceVersion:
    """One version of an instance."""

    version_number: int
    version_type: str | None = field(metadata=rule("baseline, followup, treatment, surgical or final; null when nobody has said."))
    version_description: str | None
    created_by: str | None
    created_at: str
    file_size: int
    file_hash: str = field(metadata=rule("SHA-256 of the stored file."))
    transfer_syntax_uid: str
    content_url: str = field(metadata=rule("The instance resource of DICOMweb that names this version."))


@dataclass(frozen=True, slots=True)
class InstanceVersions:
    """The versions of an instance, newest first."""

    items: tuple[InstanceVersion, ...]
    total: int
    next: str | None


def list_instance_versions(pacs: Pacs, request: Request, study: str, series: str, instance: str) -> Reply:
    """Lists the versions of an instance."""
    resource = _resource(target_of(study, series, instance))
    url = f"{request.dicomweb_url}/studies/{study}/series/{series}/instances/{instance}?version="
    found = tuple(
        InstanceVersion(
            row.number,
            row.type,
            row.description,
            row.author,
            row.created_at,
            row.size_bytes,
            row.sha256,
            row.transfer_syntax_uid,
            f"{url}{row.number}",
        )
        for row in versions(pacs.catalog, resource)
    )
    return json_reply(InstanceVersions(found, len(found), None))


def get_study_archive(pacs: Pacs, request: Request, study: str) -> Reply:
    """A study as a ZIP file, with the files tied to it for who may read files."""
    may_read_files = request.principal is not None and Right.FILES_READ in request.principal.rights
    archive = open_study_archive(pacs, _resource(target_of(study)), with_files=may_read_files)
    return archive_reply(archive)


def _resource(target: Target) -> Resource:
    return Resource(target.study_instance_uid, target.series_instance_uid, target.sop_instance_uid)


_SUMMARY = "Bring back a deleted {} whose bytes are not erased yet (removal_grace_s); a large one by a job"
_SERIES = "/studies/{study}/series/{series}"

OPERATIONS = (
    Operation(
        "GET",
        "/studies/{study}/archive",
        get_study_archive,
        "A study as a ZIP file with DICOMDIR, the files tied to it beside it; ranges may be asked for",
        "studies",
        {200: None},
        Right.DICOMWEB_READ,
        problems=(404, 410, 413),
    ),
    Operation(
        "GET",
        f"{_SERIES}/instances/{{instance}}/versions",
        list_instance_versions,
        "Versions of an instance, newest first",
        "studies",
        {200: InstanceVersions},
        Right.DICOMWEB_READ,
        problems=(404, 410),
    ),
    Operation(
        "POST",
        "/studies/{study}/undelete",
        undelete_study,
        _SUMMARY.format("study"),
        "studies",
        {200: UndeletedView, 202: JobView},
        Right.DICOMWEB_WRITE,
        problems=(404, 410),
    ),
    Operation(
        "POST",
        f"{_SERIES}/undelete",
        undelete_series,
        _SUMMARY.format("series"),
        "studies",
        {200: UndeletedView, 202: JobView},
        Right.DICOMWEB_WRITE,
        problems=(404, 410),
    ),
    Operation(
        "POST",
        f"{_SERIES}/instances/{{instance}}/undelete",
        undelete_instance,
        _SUMMARY.format("instance"),
        "studies",
        {200: UndeletedView, 202: JobView},
        Right.DICOMWEB_WRITE,
        problems=(404, 410),
    ),
)

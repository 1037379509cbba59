"""`/changes`: the ordered feed of everything that happened, by polling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pacslite.core import jobs
from pacslite.core.access import Right
from pacslite.web.forms import rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation, Parameter, json_reply
from pacslite.web.pages import LIMIT, check_parameters, limit_of, number_in

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.catalog.changes import Change


@dataclass(frozen=True, slots=True)
class JobOfChange:
    """The job that has changed its state."""

    id: str
    kind: str
    state: str


@dataclass(frozen=True, slots=True)
class ChangeView:
    """One thing that happened. Fields that do not apply are absent."""

    seq: int
    at: str
    type: str = field(metadata=rule("What happened: instance.stored, version.added, study.deleted, job.changed, ..."))
    id: str = field(
        metadata=rule("What it happened to: a SOP Instance, Series Instance or Study Instance UID, or the id of a file, patient or job.")
    )
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    version_number: int | None = None
    job: JobOfChange | None = None
    file_id: str | None = None
    patient_id: int | None = field(default=None, metadata=rule("Of changes to files and patients."))


_TYPES = {"file_versioned": "file.version"}


@dataclass(frozen=True, slots=True)
class ChangeList:
    """A page of the feed, in order."""

    items: tuple[ChangeView, ...]
    total: int = field(metadata=rule("How many changes follow `since`."))
    next: str | None
    last_seq: int = field(metadata=rule("The number of the newest change; `since` for the next poll is that of the last item seen."))


def list_changes(pacs: Pacs, request: Request) -> Reply:
    """A page of changes."""
    given = check_parameters(request, ("since", "limit"))
    since, limit = number_in(given, "since") or 0, limit_of(given)
    may_read = request.principal is not None and Right.FILES_READ in request.principal.rights
    found, total, last = jobs.feed(pacs.catalog, since, limit, files=may_read)
    following = None
    if len(found) == limit and total > limit:
        following = f"{request.base_url}{request.path}?{urlencode({**given, 'since': found[-1].seq})}"
    return json_reply({"items": [view_of(change) for change in found], "total": total, "next": following, "last_seq": last})


def view_of(change: Change) -> dict[str, Any]:
    """A change as others see it; who did it and from where is for the audit."""
    uids = {
        "study_instance_uid": change.study_instance_uid,
        "series_instance_uid": change.series_instance_uid,
        "sop_instance_uid": change.sop_instance_uid,
    }
    detail = change.detail
    told: dict[str, Any] = {"seq": change.seq, "at": change.at, "type": _TYPES.get(change.kind, change.kind.replace("_", "."))}
    told["id"] = change.file_id or detail.get("job") or detail.get("id") or change.sop_instance_uid or change.series_instance_uid
    told["id"] = told["id"] or change.study_instance_uid or str(change.patient_id or "")
    told |= {name: uid for name, uid in uids.items() if uid}
    if change.version_number is not None:
        told["version_number"] = change.version_number
    if "job" in detail:
        told["job"] = {"id": detail["job"], "kind": detail.get("kind", ""), "state": detail.get("state", "")}
    if change.file_id or "file_id" in detail:
        told["file_id"] = change.file_id or detail["file_id"]
    if change.patient_id is not None:
        told["patient_id"] = change.patient_id
    return told


OPERATIONS = (
    Operation(
        "GET",
        "/changes",
        list_changes,
        "Everything that happened after `since`, in order",
        "changes",
        {200: ChangeList},
        Right.DICOMWEB_READ,
        parameters=(
            Parameter("since", "The number of the last change that is known; 0 by default.", "integer"),
            LIMIT,
        ),
    ),
)

"""`/studies`: what DICOMweb has no transaction for."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacslite.core.removal import Origin, target_of
from pacslite.core.restoration import undelete
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
    origin = Origin("api", address=request.environ.get("REMOTE_ADDR", ""), actor=request.actor, request_id=request.request_id)
    done = undelete(pacs, target, origin)
    view = UndeletedView(done.instances, done.versions, done.arrived_anew, done.lost)
    about = {"action": f"{target.kind}.undelete", "object_id": target.lowest_uid, "address": origin.address, "outcome": "success"}
    _log.info("instances undeleted", extra={**about, "instances": done.instances, "lost": done.lost})
    return json_reply(view)


_SUMMARY = "Bring back a deleted {} whose bytes are not erased yet (removal_grace_s)"
_SERIES = "/studies/{study}/series/{series}"

OPERATIONS = (
    Operation(
        "POST",
        "/studies/{study}/undelete",
        undelete_study,
        _SUMMARY.format("study"),
        "studies",
        {200: UndeletedView},
        problems=(404, 410),
    ),
    Operation(
        "POST",
        f"{_SERIES}/undelete",
        undelete_series,
        _SUMMARY.format("series"),
        "studies",
        {200: UndeletedView},
        problems=(404, 410),
    ),
    Operation(
        "POST",
        f"{_SERIES}/instances/{{instance}}/undelete",
        undelete_instance,
        _SUMMARY.format("instance"),
        "studies",
        {200: UndeletedView},
        problems=(404, 410),
    ),
)

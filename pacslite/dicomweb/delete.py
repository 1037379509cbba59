"""DELETE of a study, a series or an instance.

PS3.18 has no such transaction; this is the form that other origin servers have, with the statuses of PS3.18 8.5.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pacslite.core.removal import Origin, remove, target_of
from pacslite.dicomweb.metadata import etags
from pacslite.web.messages import Reply, Request
from pacslite.web.replies import check_if_match

if TYPE_CHECKING:
    from pacslite.app import Pacs

_log = logging.getLogger(__name__)


def delete_resource(pacs: Pacs, request: Request, study: str, series: str | None = None, instance: str | None = None) -> Reply:
    """`DELETE /studies/{study}[/series/{series}[/instances/{instance}]]`: 204, 404 when unknown, 410 when it was deleted before.

    With If-Match, 412 unless it names the metadata as it is now, in any of its forms.
    """
    if request.header("If-Match") is not None:
        check_if_match(request, *etags(pacs, request, study, series, instance))
    target = target_of(study, series, instance)
    origin = Origin("dicomweb", address=request.address, actor=request.actor, request_id=request.request_id)
    deleted = remove(pacs.catalog, target, origin)
    about = {"action": f"{target.kind}.delete", "object_id": target.lowest_uid, "address": origin.address, "outcome": "success"}
    _log.info("instances deleted", extra={**about, "instances": deleted.instances, "versions": deleted.versions})
    return Reply(204)

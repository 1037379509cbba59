"""`application/zip` of a study, series or instance (PS3.18 8.7.3.1): the files as stored, with DICOMDIR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacslite.core.archive import open_archive
from pacslite.dicomweb.resource import requested
from pacslite.web.archives import archive_reply
from pacslite.web.messages import Reply, Request

if TYPE_CHECKING:
    from pacslite.app import Pacs


def retrieve_archive(pacs: Pacs, request: Request, study: str, series: str | None = None, instance: str | None = None) -> Reply:
    """`GET /studies/{study}[/series/{series}[/instances/{instance}]]` with `Accept: application/zip`."""
    archive = open_archive(pacs, requested(request, study, series, instance))
    return archive_reply(archive, ("Vary", "Accept"))

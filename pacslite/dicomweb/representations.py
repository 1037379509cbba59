"""A study, series or instance in the form the caller wants it (PS3.18 table 10.4.4-1): instances, bulk data, or an archive."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pacslite.dicomweb.archive import retrieve_archive
from pacslite.dicomweb.bulk_data import retrieve_all_bulk_data
from pacslite.dicomweb.media_types import DICOM, OCTET_STREAM, ZIP, MediaRange, acceptable
from pacslite.dicomweb.wado import retrieve_instances
from pacslite.web.messages import Handler, Reply, Request

if TYPE_CHECKING:
    from pacslite.app import Pacs


def retrieve_resource(pacs: Pacs, request: Request, study: str, series: str | None = None, instance: str | None = None) -> Reply:
    """`GET /studies/{study}[/series/{series}[/instances/{instance}]]`."""
    accepted = acceptable(request.header("Accept"), tuple(request.arguments("accept")), pacs.settings.strict_accept)
    return _handler(accepted.first or accepted.second)(pacs, request, study, series, instance)


@lru_cache(maxsize=512)
def _handler(ranges: tuple[MediaRange, ...]) -> Handler:
    """By the range liked best; among equals instances, which is what `*/*` means too."""
    liked = {retrieve_instances: 0.0, retrieve_archive: 0.0, retrieve_all_bulk_data: 0.0}
    for one in ranges:
        if one.name in (DICOM, "*/*", "application/*"):
            handler: Handler = retrieve_instances
        elif one.name == ZIP and not one.multipart:
            if one.transfer_syntax not in (None, "*"):
                continue  # an archive holds what is stored
            handler = retrieve_archive
        elif one.name == OCTET_STREAM and one.multipart:
            handler = retrieve_all_bulk_data
        else:
            continue
        liked[handler] = max(liked[handler], one.quality)
    return max(liked, key=liked.__getitem__)

"""Bulk data and pixel data resources (PS3.18 10.4.1.1.5, 10.4.1.1.6): one value by its URL, or all below a study, series or instance.

What is below several instances is found while it is sent, instance by instance: nothing is held but the list of instances.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from pacslite.core import bulk_data, retrieve
from pacslite.core.bulk_data import PIXEL_DATA_PATHS, BulkData
from pacslite.core.retrieve import Item, Resource
from pacslite.dicom.data_set import NATIVE
from pacslite.dicomweb import multipart_related
from pacslite.dicomweb.media_types import (
    OCTET_STREAM,
    Acceptable,
    Offer,
    acceptable,
    bulk_offers,
    choose,
    content_type,
    frame_offers,
)
from pacslite.dicomweb.multipart_related import OutgoingPart
from pacslite.dicomweb.resource import instance_url, requested, suffix
from pacslite.dicomweb.wado import frame_parts, frame_pieces, headers, multipart, one_body, retrieve_frames
from pacslite.errors import FrameNotFound, Gone, NotAcceptable, NotFound
from pacslite.web.messages import Reply, Request
from pacslite.web.replies import http_date, names_etag

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.catalog.database import Catalog
    from pacslite.dicom.limits import Limits
    from pacslite.storage.stores import Stores

_OCTETS = bulk_offers(OCTET_STREAM)


def retrieve_bulk_data(pacs: Pacs, request: Request, study: str, series: str, instance: str, bulk_path: str) -> Reply:
    """`GET .../instances/{instance}/bulkdata/{path}`: what a BulkDataURI of the metadata names."""
    resource = requested(request, study, series, instance)
    if bulk_path.upper() == bulk_data.PIXEL_DATA:
        frames = _compressed_frames(pacs, resource)
        if frames:
            return retrieve_frames(pacs, request, study, series, instance, ",".join(map(str, range(1, frames + 1))))
    value = bulk_data.find(pacs.catalog, pacs.stores, resource, bulk_path, _limits(pacs))
    offer = choose(_accepted(pacs, request), bulk_offers(value.media_type or OCTET_STREAM))
    if offer is None:
        raise NotAcceptable(f"The bulk data is {value.media_type or OCTET_STREAM}.")
    return _one_value(request, resource, value, offer)


def _compressed_frames(pacs: Pacs, resource: Resource) -> int:
    """How many frames of compressed pixel data there are; 0 for native ones, and for pixels too short or ill described to be frames."""
    try:
        image = retrieve.plan_frames(pacs.catalog, resource)
    except FrameNotFound:
        return 0
    return 0 if image.item.transfer_syntax_uid in NATIVE else image.index.number_of_frames


def retrieve_all_bulk_data(pacs: Pacs, request: Request, study: str, series: str | None = None, instance: str | None = None) -> Reply:
    """`GET /studies/{study}[/series/{series}[/instances/{instance}]]/bulkdata`: every value that metadata names, a part each."""
    resource = requested(request, study, series, instance)
    accepted = _accepted(pacs, request)
    if choose(accepted, _OCTETS[1:]) is None:
        raise NotAcceptable("Bulk data is multipart/related of application/octet-stream.")
    return _several(pacs, request, resource, _Wanted(accepted, None))


def retrieve_pixel_data(pacs: Pacs, request: Request, study: str, series: str | None = None, instance: str | None = None) -> Reply:
    """`GET /studies/{study}[/series/{series}[/instances/{instance}]]/pixeldata`: that of the images, not of icons."""
    resource = requested(request, study, series, instance)
    accepted = _accepted(pacs, request)
    if series is not None and instance is not None:
        item = retrieve.plan(pacs.catalog, resource)[0]
        offer = choose(accepted, frame_offers(item.transfer_syntax_uid, True))
        if offer is not None and not offer.multipart:
            if item.transfer_syntax_uid in NATIVE and offer.name == OCTET_STREAM:
                return _one_value(request, resource, _only(bulk_data.each(*_of(pacs, item), PIXEL_DATA_PATHS, _limits(pacs))), offer)
            return retrieve_frames(pacs, request, study, series, instance, "1" if _has_one_frame(pacs, resource) else "1,2")
    return _several(pacs, request, resource, _Wanted(accepted, PIXEL_DATA_PATHS))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is accepted, and of which values; None for all."""

    accepted: Acceptable
    paths: frozenset[str] | None


def _has_one_frame(pacs: Pacs, resource: Resource) -> bool:
    return retrieve.plan_frames(pacs.catalog, resource).index.number_of_frames == 1


def _of(pacs: Pacs, item: Item) -> tuple[Catalog, Stores, Item]:
    return pacs.catalog, pacs.stores, item


def _only(values: list[BulkData]) -> BulkData:
    if not values:
        raise NotFound("The instance has no pixel data.")
    return values[0]


def _limits(pacs: Pacs) -> Limits:
    return retrieve.limits_of(pacs.settings, pacs.spool.directory)


def _accepted(pacs: Pacs, request: Request) -> Acceptable:
    return acceptable(request.header("Accept"), tuple(request.arguments("accept")), pacs.settings.strict_accept)


def _one_value(request: Request, resource: Resource, value: BulkData, offer: Offer) -> Reply:
    etag = f'"{value.item.sha256[:32]}-{hashlib.sha256(value.path.encode()).hexdigest()[:16]}"'
    location = _location(request, resource, value)
    if not offer.multipart:
        kind = OCTET_STREAM if offer.name == OCTET_STREAM else offer.name
        named = ("Content-Type", kind), ("Content-Location", location), ("Last-Modified", http_date(value.item.created_at))
        return Reply(200, headers(etag, *named), one_body([retrieve.read_small(piece) for piece in value.pieces]))
    return multipart([OutgoingPart(content_type(offer), value.pieces, location)], offer.name, headers("W/" + etag))


def _location(request: Request, resource: Resource, value: BulkData) -> str:
    url = instance_url(request.dicomweb_url, value.item)
    return f"{url}/bulkdata/{value.path}{suffix(resource, value.item.version_number)}"


def _several(pacs: Pacs, request: Request, resource: Resource, wanted: _Wanted) -> Reply:
    items = retrieve.plan_whole(pacs.catalog, pacs.stores, resource, pacs.settings.max_retrieve_instances)
    retrieve.check_files(pacs.stores, items)
    for syntax in {item.transfer_syntax_uid for item in items}:
        if choose(wanted.accepted, frame_offers(syntax, False)) is None:
            raise NotAcceptable(f"Pixel data in the transfer syntax {syntax} cannot be given in an acceptable media type.")
    digest = hashlib.sha256("|".join([request.dicomweb_url, *(item.sha256 for item in items)]).encode()).hexdigest()
    etag = f'W/"{digest[:32]}-{"bulk" if wanted.paths is None else "pixel"}"'
    if names_etag(request.header("If-None-Match"), etag):
        return Reply(200, headers(etag))  # becomes 304 without a body
    parts = _parts(pacs, request, resource, items, wanted)
    first = next(parts, None)
    if first is None:
        raise NotFound("There is no bulk data." if wanted.paths is None else "There is no pixel data.")
    reply = multipart_related.stream(chain((first,), parts), first.content_type.partition(";")[0])
    reply.headers += headers(etag)
    return reply


def _parts(pacs: Pacs, request: Request, resource: Resource, items: tuple[Item, ...], wanted: _Wanted) -> Iterator[OutgoingPart]:
    for item in items:
        try:
            yield from _parts_of(pacs, request, resource, item, wanted)
        except (NotFound, Gone):
            continue  # deleted since the answer began


def _parts_of(pacs: Pacs, request: Request, resource: Resource, item: Item, wanted: _Wanted) -> Iterator[OutgoingPart]:
    for value in bulk_data.each(*_of(pacs, item), wanted.paths, _limits(pacs)):
        if value.path == bulk_data.PIXEL_DATA and (value.encapsulated or choose(wanted.accepted, _OCTETS[1::2]) is None):
            yield from _frames(pacs, request, resource, item, wanted.accepted)
            continue
        offer = choose(wanted.accepted, bulk_offers(value.media_type or OCTET_STREAM)[1::2])
        kind = content_type(offer) if offer is not None else OCTET_STREAM
        yield OutgoingPart(kind, value.pieces, _location(request, resource, value))


def _frames(pacs: Pacs, request: Request, resource: Resource, item: Item, accepted: Acceptable) -> Iterator[OutgoingPart]:
    offer = choose(accepted, frame_offers(item.transfer_syntax_uid, False))
    assert offer is not None  # looked at before the answer began
    named = Resource(item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid, item.version_number)
    try:
        image = retrieve.plan_frames(pacs.catalog, named)
    except FrameNotFound:
        return
    numbers = range(1, image.index.number_of_frames + 1)
    pieces = frame_pieces(pacs, named, image, offer, numbers)
    yield from frame_parts(request, resource, image.item, offer, zip(numbers, pieces, strict=True))

"""WADO-RS (PS3.18 10.4): studies, series, instances, frames and bulk data.

A transfer syntax other than the stored one is made here only among the native ones; what would have to be decompressed or
compressed is 406 until that can be done.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from pacslite.core import bulk_data, conversion, frames, retrieve
from pacslite.core.content import FileBody, StreamBody
from pacslite.core.retrieve import Item, Resource
from pacslite.dicom.data_set import NATIVE
from pacslite.dicom.uids import clean_uid
from pacslite.dicomweb import multipart_related
from pacslite.dicomweb.media_types import (
    DICOM,
    EXPLICIT_LE,
    OCTET_STREAM,
    Offer,
    acceptable,
    bulk_offers,
    choose,
    content_type,
    frame_offers,
    instance_offers,
)
from pacslite.dicomweb.multipart_related import OutgoingPart
from pacslite.errors import InvalidFrameNumber, NotAcceptable
from pacslite.web.messages import Body, Headers, Reply, Request, Segment, SegmentsBody
from pacslite.web.replies import names_etag

if TYPE_CHECKING:
    from pacslite.app import Pacs

_FRAME_LIST = re.compile(r"[1-9]\d{0,8}(?:,[1-9]\d{0,8})*")
_MOST_FRAMES = 100_000
_ARCHIVE_SYNTAX = "Add transfer-syntax=* to get what is stored."


def retrieve_instances(pacs: Pacs, request: Request, study: str, series: str | None = None, instance: str | None = None) -> Reply:
    """`GET /studies/{study}[/series/{series}[/instances/{instance}]]`."""
    resource = _resource(study, series, instance)
    items = retrieve.plan(pacs.catalog, resource)
    offers = [_instance_offer(pacs, request, item.transfer_syntax_uid, instance is not None) for item in items]
    chosen = [offer for offer in offers if offer is not None]
    if len(chosen) < len(items):
        raise NotAcceptable(
            f"{len(items) - len(chosen)} of {len(items)} instances cannot be given in an acceptable media type and "
            f"transfer syntax. {_ARCHIVE_SYNTAX}"
        )
    syntaxes = "|".join(f"{item.sha256}{offer.transfer_syntax}" for item, offer in zip(items, chosen, strict=True))
    etag = hashlib.sha256(f"{syntaxes}|{request.dicomweb_url}".encode()).hexdigest()[:32]
    if not chosen[0].multipart:
        headers = _headers(f'"{etag}"', ("Content-Type", content_type(chosen[0])))
        return Reply(200, headers, _instance_body(pacs, items[0], chosen[0]))
    headers = _headers(f'W/"{etag}"')
    if names_etag(request.header("If-None-Match"), headers[0][1]):
        return Reply(200, headers)
    root = request.dicomweb_url
    if all(item.transfer_syntax_uid == offer.transfer_syntax for item, offer in zip(items, chosen, strict=True)):
        bodies: Sequence[Segment] = retrieve.stored_each(pacs.store, items)
    else:
        bodies = [_instance_body(pacs, item, offer) for item, offer in zip(items, chosen, strict=True)]
    parts = [
        OutgoingPart(content_type(offer), (body,), instance_url(root, item))
        for item, offer, body in zip(items, chosen, bodies, strict=True)
    ]
    return _multipart(parts, DICOM, headers)


def retrieve_frames(pacs: Pacs, request: Request, study: str, series: str, instance: str, frame_list: str) -> Reply:
    """`GET /studies/{study}/series/{series}/instances/{instance}/frames/{list}`."""
    numbers = parse_frame_list(frame_list)
    image = retrieve.plan_frames(pacs.catalog, _resource(study, series, instance))
    offer = _frame_offer(pacs, request, image.item.transfer_syntax_uid, len(numbers) == 1)
    if offer is None:
        raise NotAcceptable(f"The frames cannot be given in an acceptable media type and transfer syntax. {_ARCHIVE_SYNTAX}")
    etag = f'"{image.item.sha256[:32]}-{frame_list[:64]}"'
    limits = retrieve.limits_of(pacs.settings, pacs.spool.directory)
    pieces = [frames.frame(pacs.store, image, number, limits) for number in numbers]
    if not offer.multipart:
        return Reply(200, _headers(etag, ("Content-Type", content_type(offer))), _one_body(pieces[0]))
    location = f"{instance_url(request.dicomweb_url, image.item)}/frames/"
    kind = content_type(offer)
    parts = [OutgoingPart(kind, piece, f"{location}{number}") for number, piece in zip(numbers, pieces, strict=True)]
    return _multipart(parts, offer.name, _headers("W/" + etag))


def retrieve_bulk_data(pacs: Pacs, request: Request, study: str, series: str, instance: str, bulk_path: str) -> Reply:
    """`GET .../instances/{instance}/bulkdata/{path}`: what a BulkDataURI of the metadata names."""
    resource = _resource(study, series, instance)
    if bulk_path.upper() == bulk_data.PIXEL_DATA:
        image = retrieve.plan_frames(pacs.catalog, resource)
        if image.item.transfer_syntax_uid not in NATIVE:
            every = ",".join(map(str, range(1, image.index.number_of_frames + 1)))
            return retrieve_frames(pacs, request, study, series, instance, every)
    value = bulk_data.find(pacs.catalog, pacs.store, resource, bulk_path, retrieve.limits_of(pacs.settings, pacs.spool.directory))
    accepted = acceptable(request.header("Accept"), tuple(request.arguments("accept")), pacs.settings.strict_accept)
    offer = choose(accepted, bulk_offers(value.media_type or OCTET_STREAM))
    if offer is None:
        raise NotAcceptable(f"The bulk data is {value.media_type or OCTET_STREAM}.")
    etag = f'"{value.item.sha256[:32]}-{hashlib.sha256(bulk_path.encode()).hexdigest()[:16]}"'
    kind = OCTET_STREAM if offer.name == OCTET_STREAM else offer.name
    if not offer.multipart:
        return Reply(200, _headers(etag, ("Content-Type", kind)), _one_body([retrieve.read_small(piece) for piece in value.pieces]))
    location = f"{instance_url(request.dicomweb_url, value.item)}/bulkdata/{bulk_path}"
    return _multipart([OutgoingPart(content_type(offer), value.pieces, location)], offer.name, _headers("W/" + etag))


def parse_frame_list(text: str) -> tuple[int, ...]:
    """Ascending positive numbers joined by commas (PS3.18 10.1.1); raises InvalidFrameNumber."""
    if not _FRAME_LIST.fullmatch(text):
        raise InvalidFrameNumber("The frame list is not made of positive integers joined by commas.")
    numbers = tuple(map(int, text.split(",")))
    if len(numbers) > _MOST_FRAMES or any(a >= b for a, b in pairwise(numbers)):
        raise InvalidFrameNumber("The frame list does not ascend.")
    return numbers


def instance_url(root: str, item: Item) -> str:
    """The URL of the instance resource under the DICOMweb root."""
    return f"{root}/studies/{item.study_instance_uid}/series/{item.series_instance_uid}/instances/{item.sop_instance_uid}"


def _resource(study: str, series: str | None = None, instance: str | None = None) -> Resource:
    return Resource(clean_uid(study), None if series is None else clean_uid(series), None if instance is None else clean_uid(instance))


def _instance_offer(pacs: Pacs, request: Request, stored: str, single_part: bool) -> Offer | None:
    query = tuple(request.arguments("accept"))
    return _negotiated(request.header("Accept"), query, pacs.settings.strict_accept, instance_offers(stored, single_part))


def _frame_offer(pacs: Pacs, request: Request, stored: str, single_part: bool) -> Offer | None:
    query = tuple(request.arguments("accept"))
    return _negotiated(request.header("Accept"), query, pacs.settings.strict_accept, frame_offers(stored, single_part))


@lru_cache(maxsize=1024)
def _negotiated(header: str | None, query: tuple[str, ...], strict: bool, offers: tuple[Offer, ...]) -> Offer | None:
    return choose(acceptable(header, query, strict), offers)


def _instance_body(pacs: Pacs, item: Item, offer: Offer) -> bytes | FileBody | StreamBody:
    if offer.transfer_syntax == item.transfer_syntax_uid:
        return retrieve.stored(pacs.store, item)
    limits = retrieve.limits_of(pacs.settings, pacs.spool.directory)
    return conversion.converted(pacs.store, item, offer.transfer_syntax or EXPLICIT_LE, limits)


def _one_body(pieces: Sequence[Segment]) -> Body:
    return pieces[0] if len(pieces) == 1 else SegmentsBody(pieces)


def _headers(etag: str, *more: tuple[str, str]) -> Headers:
    return [("ETag", etag), ("Cache-Control", "private, no-cache"), ("Vary", "Accept"), *more]


def _multipart(parts: Sequence[OutgoingPart], root_type: str, headers: Headers) -> Reply:
    reply = multipart_related.encode(parts, root_type)
    reply.headers += headers
    return reply

"""WADO-RS (PS3.18 10.4): studies, series, instances and frames.

A transfer syntax other than the stored one is made here only among the native ones; what would have to be decompressed or
compressed is 406 until that can be done.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from pacslite.core import conversion, frames, retrieve
from pacslite.core.content import FileBody, StreamBody
from pacslite.core.retrieve import Item, Piece, Resource
from pacslite.dicomweb import multipart_related
from pacslite.dicomweb.media_types import (
    DICOM,
    EXPLICIT_LE,
    Offer,
    acceptable,
    choose,
    content_type,
    frame_offers,
    instance_offers,
)
from pacslite.dicomweb.multipart_related import OutgoingPart
from pacslite.dicomweb.resource import instance_url, requested, suffix
from pacslite.errors import InvalidFrameNumber, NotAcceptable
from pacslite.web.messages import Body, Headers, Reply, Request, Segment, SegmentsBody
from pacslite.web.replies import http_date, names_etag

if TYPE_CHECKING:
    from pacslite.app import Pacs

_FRAME_LIST = re.compile(r"[1-9]\d{0,8}(?:,[1-9]\d{0,8})*")
_MOST_FRAMES = 100_000
_ARCHIVE_SYNTAX = "Add transfer-syntax=* to get what is stored."


def retrieve_instances(pacs: Pacs, request: Request, study: str, series: str | None = None, instance: str | None = None) -> Reply:
    """`GET /studies/{study}[/series/{series}[/instances/{instance}]]`."""
    resource = requested(request, study, series, instance)
    items = retrieve.plan_whole(pacs.catalog, pacs.store, resource, pacs.settings.max_retrieve_instances)
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
        changed = ("Last-Modified", http_date(items[0].created_at))
        of_one = headers(f'"{etag}"', ("Content-Type", content_type(chosen[0])), changed)
        return Reply(200, of_one, _instance_body(pacs, items[0], chosen[0]))
    if names_etag(request.header("If-None-Match"), f'W/"{etag}"'):
        return Reply(200, headers(f'W/"{etag}"'))
    root = request.dicomweb_url
    if all(item.transfer_syntax_uid == offer.transfer_syntax for item, offer in zip(items, chosen, strict=True)):
        bodies: Sequence[Segment] = retrieve.stored_each(pacs.store, items)
    else:
        bodies = [_instance_body(pacs, item, offer) for item, offer in zip(items, chosen, strict=True)]
    parts = [
        OutgoingPart(content_type(offer), (body,), instance_url(root, item) + suffix(resource, item.version_number))
        for item, offer, body in zip(items, chosen, bodies, strict=True)
    ]
    return multipart(parts, DICOM, headers(f'W/"{etag}"'))


def retrieve_frames(pacs: Pacs, request: Request, study: str, series: str, instance: str, frame_list: str) -> Reply:
    """`GET /studies/{study}/series/{series}/instances/{instance}/frames/{list}`."""
    numbers = parse_frame_list(frame_list)
    resource = requested(request, study, series, instance)
    image = retrieve.plan_frames(pacs.catalog, resource)
    offer = _frame_offer(pacs, request, image.item.transfer_syntax_uid, len(numbers) == 1 or image.index.frame_bits > 0)
    if offer is None:
        raise NotAcceptable(f"The frames cannot be given in an acceptable media type and transfer syntax. {_ARCHIVE_SYNTAX}")
    named = frame_list if len(frame_list) <= 32 else hashlib.sha256(frame_list.encode()).hexdigest()[:32]
    etag = f'"{image.item.sha256[:32]}-{named}-{offer.transfer_syntax}"'
    changed = ("Last-Modified", http_date(image.item.created_at))
    limits = retrieve.limits_of(pacs.settings, pacs.spool.directory)
    if not offer.multipart and len(numbers) > 1:
        return Reply(200, headers(etag, ("Content-Type", content_type(offer)), changed), frames.packed(pacs.store, image, numbers, limits))
    pieces = [frames.frame(pacs.store, image, number, limits) for number in numbers]
    if not offer.multipart:
        return Reply(200, headers(etag, ("Content-Type", content_type(offer)), changed), one_body(pieces[0]))
    parts = frame_parts(request, resource, image.item, offer, zip(numbers, pieces, strict=True))
    return multipart(list(parts), offer.name, headers("W/" + etag, changed))


def frame_parts(
    request: Request, resource: Resource, item: Item, offer: Offer, pieces: Iterable[tuple[int, tuple[Piece, ...]]]
) -> Iterator[OutgoingPart]:
    """A part for each frame; `pieces` gives number and bytes."""
    location, end = f"{instance_url(request.dicomweb_url, item)}/frames/", suffix(resource, item.version_number)
    kind = content_type(offer)
    for number, piece in pieces:
        yield OutgoingPart(kind, piece, f"{location}{number}{end}")


def parse_frame_list(text: str) -> tuple[int, ...]:
    """Ascending positive numbers joined by commas (PS3.18 10.1.1); raises InvalidFrameNumber."""
    if not _FRAME_LIST.fullmatch(text):
        raise InvalidFrameNumber("The frame list is not made of positive integers joined by commas.")
    numbers = tuple(map(int, text.split(",")))
    if len(numbers) > _MOST_FRAMES or any(a >= b for a, b in pairwise(numbers)):
        raise InvalidFrameNumber("The frame list does not ascend.")
    return numbers


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


def one_body(pieces: Sequence[Segment]) -> Body:
    """The pieces as one body."""
    return pieces[0] if len(pieces) == 1 else SegmentsBody(pieces)


def headers(etag: str, *more: tuple[str, str]) -> Headers:
    """The headers of everything that is retrieved."""
    return [("ETag", etag), ("Cache-Control", "private, no-cache"), ("Vary", "Accept"), *more]


def multipart(parts: Sequence[OutgoingPart], root_type: str, more: Headers) -> Reply:
    """A multipart answer with more headers."""
    reply = multipart_related.encode(parts, root_type)
    reply.headers += more
    return reply

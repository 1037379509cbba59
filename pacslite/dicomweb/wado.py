"""WADO-RS (PS3.18 10.4): studies, series, instances and frames, as stored or in another transfer syntax."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain, pairwise, starmap
from typing import TYPE_CHECKING

from pacslite.core import frames, pixel_module, retrieve
from pacslite.core.content import FileBody, StreamBody
from pacslite.core.retrieve import Item, Piece, Resource
from pacslite.dicom.data_set import NATIVE
from pacslite.dicomweb import multipart_related
from pacslite.dicomweb.media_types import (
    DICOM,
    EXPLICIT_LE,
    OCTET_STREAM,
    UNNAMEABLE,
    Offer,
    acceptable,
    choose,
    content_type,
    frame_offers,
    instance_offers,
)
from pacslite.dicomweb.multipart_related import OutgoingPart
from pacslite.dicomweb.resource import instance_url, requested, suffix
from pacslite.errors import InvalidFrameNumber, NotAcceptable, UndecodablePixels
from pacslite.web.messages import Body, Headers, Reply, Request, Segment, SegmentsBody
from pacslite.web.replies import http_date, names_etag

if TYPE_CHECKING:
    from pacslite.app import Pacs

_log = logging.getLogger(__name__)
_FRAME_LIST = re.compile(r"[1-9]\d{0,8}(?:,[1-9]\d{0,8})*")
_MOST_FRAMES = 100_000
_OTHERWISE = "some instances cannot be given in the transfer syntax asked for and come in another one, which their parts name"
_ARCHIVE_SYNTAX = "Add transfer-syntax=* to get what is stored."


def retrieve_instances(pacs: Pacs, request: Request, study: str, series: str | None = None, instance: str | None = None) -> Reply:
    """`GET /studies/{study}[/series/{series}[/instances/{instance}]]`."""
    resource = requested(request, study, series, instance)
    items = retrieve.plan_whole(pacs.catalog, pacs.stores, resource, pacs.settings.max_retrieve_instances)
    chosen = _instance_offers(pacs, request, items, instance is not None)
    if not chosen[0].multipart:
        chosen[0], body = _instance_body(pacs, request, items[0], chosen[0])
    syntaxes = "|".join(f"{item.sha256}{offer.transfer_syntax}" for item, offer in zip(items, chosen, strict=True))
    root = request.dicomweb_url
    etag = hashlib.sha256(f"{syntaxes}|{root}".encode()).hexdigest()[:32]
    if not chosen[0].multipart:
        changed = ("Last-Modified", http_date(items[0].created_at))
        return Reply(200, headers(f'"{etag}"', ("Content-Type", content_type(chosen[0])), changed), body)
    if names_etag(request.header("If-None-Match"), f'W/"{etag}"'):
        return Reply(200, headers(f'W/"{etag}"'))
    if any(item.transfer_syntax_uid != offer.transfer_syntax for item, offer in zip(items, chosen, strict=True)):
        return _made_each(pacs, request, resource, zip(items, chosen, strict=True), headers(f'W/"{etag}"'))
    bodies: Sequence[Segment] = retrieve.stored_each(pacs.stores, items)
    parts = [
        OutgoingPart(content_type(offer), (body,), instance_url(root, item) + suffix(resource, item.version_number))
        for item, offer, body in zip(items, chosen, bodies, strict=True)
    ]
    return multipart(parts, DICOM, headers(f'W/"{etag}"'))


def _made_each(pacs: Pacs, request: Request, resource: Resource, chosen: Iterable[tuple[Item, Offer]], more: Headers) -> Reply:
    """Instances of which some are made, each when its turn comes. Until the first that is given as asked, there may still be a 406.

    Of one that cannot be decoded, or not written so, found in the midst of an answer, an error could only break that off.
    So it comes in another transfer syntax, which its part names.
    """

    def tries() -> Iterator[tuple[Item, Offer, bytes | FileBody | StreamBody | UndecodablePixels]]:
        for item, offer in chosen:
            try:
                yield item, *_instance_body(pacs, request, item, offer, begin=True)
            except UndecodablePixels as error:
                yield item, offer, error

    def part(item: Item, offer: Offer, body: bytes | FileBody | StreamBody | UndecodablePixels) -> OutgoingPart:
        if isinstance(body, UndecodablePixels):
            _log.warning("an instance is sent in another transfer syntax than asked for", extra={"object_id": item.sop_instance_uid})
            offer, body = _as_it_is(pacs, item, offer)
        return OutgoingPart(content_type(offer), (body,), instance_url(request.dicomweb_url, item) + suffix(resource, item.version_number))

    each, ahead = tries(), []
    for found in each:
        ahead.append(found)
        if not isinstance(found[2], UndecodablePixels):
            break
    if isinstance(error := ahead[-1][2], UndecodablePixels):
        raise error
    reply = multipart_related.stream(starmap(part, chain(ahead, each)), DICOM)
    reply.headers += [*more, ("Warning", f'299 pacslite "{_OTHERWISE}"')] if len(ahead) > 1 else more
    return reply


def _begun(body: bytes | FileBody | StreamBody) -> bytes | FileBody | StreamBody:
    """A stream with its first piece made: what is wrong with the first frame shows then."""
    if not isinstance(body, StreamBody):
        return body
    pieces = body.chunks()
    first = next(pieces, b"")
    return StreamBody(body.length, lambda: chain((first,), pieces))


def _as_it_is(pacs: Pacs, item: Item, offer: Offer) -> tuple[Offer, bytes | FileBody | StreamBody]:
    """The instance as it is stored, or in explicit little endian when it is stored in something that is never sent."""
    if item.transfer_syntax_uid in UNNAMEABLE:
        return replace(offer, transfer_syntax=EXPLICIT_LE), pacs.conversions.instance(item, EXPLICIT_LE)
    return replace(offer, transfer_syntax=item.transfer_syntax_uid), retrieve.stored(pacs.stores, item)


def retrieve_frames(pacs: Pacs, request: Request, study: str, series: str, instance: str, frame_list: str) -> Reply:
    """`GET /studies/{study}/series/{series}/instances/{instance}/frames/{list}`."""
    numbers = parse_frame_list(frame_list)
    resource = requested(request, study, series, instance)
    image = retrieve.plan_frames(pacs.catalog, resource)
    without: frozenset[str | None] = frozenset()
    refused: NotAcceptable = NotAcceptable(f"The frames cannot be given in an acceptable media type and transfer syntax. {_ARCHIVE_SYNTAX}")
    while offer := _frame_offer(pacs, request, image, len(numbers), without):
        try:
            return _given_frames(pacs, request, resource, image, offer, numbers)
        except UndecodablePixels as error:
            # What the caller likes less may be possible.
            refused, without = error if not without else refused, without | {offer.transfer_syntax}
    raise refused


def _given_frames(pacs: Pacs, request: Request, resource: Resource, image: retrieve.Frames, offer: Offer, numbers: Sequence[int]) -> Reply:
    frame_list = ",".join(map(str, numbers))
    named = frame_list if len(frame_list) <= 32 else hashlib.sha256(frame_list.encode()).hexdigest()[:32]
    etag = f'"{image.item.sha256[:32]}-{named}-{offer.transfer_syntax}"'
    changed = ("Last-Modified", http_date(image.item.created_at))
    limits = retrieve.limits_of(pacs.settings, pacs.spool.directory)
    if not offer.multipart and len(numbers) > 1:
        return Reply(200, headers(etag, ("Content-Type", content_type(offer)), changed), frames.packed(pacs.stores, image, numbers, limits))
    if len(numbers) > 1 and _is_made(image.item, offer):
        image.index.segments(numbers[-1])  # they ascend: once the answer has begun, one that is not there could only break it off
        made = frame_pieces(pacs, resource, image, offer, numbers)
        each = frame_parts(request, resource, image.item, offer, zip(numbers, made, strict=True))
        reply = multipart_related.stream(chain((next(each),), each), offer.name)
        reply.headers += headers("W/" + etag, changed)
        return reply
    pieces = list(frame_pieces(pacs, resource, image, offer, numbers))
    if not offer.multipart:
        return Reply(200, headers(etag, ("Content-Type", content_type(offer)), changed), one_body(pieces[0]))
    parts = frame_parts(request, resource, image.item, offer, zip(numbers, pieces, strict=True))
    return multipart(list(parts), offer.name, headers("W/" + etag, changed))


def frame_pieces(
    pacs: Pacs, resource: Resource, image: retrieve.Frames, offer: Offer, numbers: Iterable[int]
) -> Iterator[tuple[Piece, ...]]:
    """The bytes of frames as they are offered, each when it is asked for."""
    limits = retrieve.limits_of(pacs.settings, pacs.spool.directory)
    if not _is_made(image.item, offer):
        for number in numbers:
            yield frames.frame(pacs.stores, image, number, limits)
        return
    description = pixel_module.describe(pacs.catalog, resource, image.item)
    for number in numbers:
        yield (pacs.conversions.frame(image, description, number, offer.transfer_syntax or EXPLICIT_LE),)


def _is_made(item: Item, offer: Offer) -> bool:
    """Whether frames have to go through a codec."""
    return offer.transfer_syntax != item.transfer_syntax_uid and not (item.transfer_syntax_uid in NATIVE and offer.name == OCTET_STREAM)


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


def _instance_offers(pacs: Pacs, request: Request, items: Sequence[Item], single_part: bool) -> list[Offer]:
    """How each of the instances is given; raises NotAcceptable unless all of them can be."""
    header, query, strict = request.header("Accept"), tuple(request.arguments("accept")), pacs.settings.strict_accept
    offers = [_negotiated(header, query, strict, item.transfer_syntax_uid, single_part) for item in items]
    chosen = [offer for offer in offers if offer is not None]
    if len(chosen) < len(items):
        raise NotAcceptable(
            f"{len(items) - len(chosen)} of {len(items)} instances cannot be given in an acceptable media type and "
            f"transfer syntax. {_ARCHIVE_SYNTAX}"
        )
    return chosen


def _frame_offer(pacs: Pacs, request: Request, image: retrieve.Frames, count: int, without: frozenset[str | None]) -> Offer | None:
    header, query, strict = request.header("Accept"), tuple(request.arguments("accept")), pacs.settings.strict_accept
    single_part = count == 1 or image.index.frame_bits > 0
    return _negotiated(header, query, strict, image.item.transfer_syntax_uid, single_part, min(count, 2), without)


@lru_cache(maxsize=1024)
def _negotiated(
    header: str | None,
    query: tuple[str, ...],
    strict: bool,
    stored: str,
    single_part: bool,
    frame_count: int = 0,
    without: frozenset[str | None] = frozenset(),
) -> Offer | None:
    """What the caller likes best of an instance, or of its frames: of one, or of several (2)."""
    offers = frame_offers(stored, single_part) if frame_count else instance_offers(stored, single_part)
    if frame_count > 1:
        # Several ones follow each other in a single part as bits (8.7.3.3.1), not as code streams.
        offers = tuple(offer for offer in offers if offer.multipart or offer.name == OCTET_STREAM)
    return choose(acceptable(header, query, strict), tuple(offer for offer in offers if offer.transfer_syntax not in without))


def _instance_body(
    pacs: Pacs, request: Request, item: Item, offer: Offer, *, begin: bool = False, tried: frozenset[str | None] = frozenset()
) -> tuple[Offer, bytes | FileBody | StreamBody]:
    """The instance as it is offered, or as the caller likes it next best where its pixels cannot be had so.

    One that cannot be decoded comes as it is stored, if the caller named no other transfer syntax: one damaged image is no reason to
    withhold a study, and of its pixels there is no other form to be had (compare 8.7.3.4).
    """
    if offer.transfer_syntax == item.transfer_syntax_uid:
        return offer, retrieve.stored(pacs.stores, item)
    try:
        made = pacs.conversions.instance(item, offer.transfer_syntax or EXPLICIT_LE)
        return offer, _begun(made) if begin else made
    except UndecodablePixels:
        other = _other_offer(request, item, offer, tried)
        if other is None:
            raise
    return _instance_body(pacs, request, item, other, begin=begin, tried=tried | {offer.transfer_syntax})


def _other_offer(request: Request, item: Item, offer: Offer, tried: frozenset[str | None]) -> Offer | None:
    accepted = acceptable(request.header("Accept"), tuple(request.arguments("accept")))
    others = (other for other in instance_offers(item.transfer_syntax_uid, not offer.multipart) if other.multipart == offer.multipart)
    found = choose(accepted, tuple(other for other in others if other.transfer_syntax not in {*tried, offer.transfer_syntax}))
    if found is not None or item.transfer_syntax_uid in NATIVE:
        return found
    stored = replace(offer, transfer_syntax=item.transfer_syntax_uid, stored=True, default=True)
    return stored if choose(accepted, (stored,)) is not None else None


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

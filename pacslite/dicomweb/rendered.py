"""Rendered and thumbnail resources (PS3.18 10.4.1.1.3, 10.4.1.1.4) of studies, series, instances and frames."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from pacslite import __version__
from pacslite.codec.render_options import GIF, IMAGE_TYPES, Options
from pacslite.core import rendering, retrieve
from pacslite.core.content import FileBody, pieces_of
from pacslite.core.rendering import Kind, Means, Rendered, Subject
from pacslite.core.retrieve import Item, Resource
from pacslite.dicom.data_set import NATIVE
from pacslite.dicomweb import rendered_parameters as parameters
from pacslite.dicomweb.media_types import DICOM_XML, Acceptable, Offer, acceptable, choose
from pacslite.dicomweb.multipart_related import OutgoingPart, encode, stream
from pacslite.dicomweb.resource import instance_url, requested, suffix
from pacslite.dicomweb.wado import parse_frame_list
from pacslite.errors import FrameNotFound, Gone, NotAcceptable, NotFound, TooLarge
from pacslite.web.messages import Headers, Reply, Request
from pacslite.web.replies import names_etag

if TYPE_CHECKING:
    from pacslite.app import Pacs

# Accept lists call the XML of older editions by this name too; here it is XML as it is (media_types._LEGACY).
_XML = rendering.XML
# Instances of one answer: each of them is looked at before the first byte goes out.
_MOST_INSTANCES = 10_000
# Of these, how many are decoded before the first byte, so that what cannot be is told of in time.
_MOST_TRIED = 200
# A PDF viewer of a browser draws through a plug-in of the page it makes around the file, with styles of its own.
_PDF_POLICY = "default-src 'none'; object-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'self'"
_log = logging.getLogger(__name__)


def render_instance(pacs: Pacs, request: Request, study: str, series: str, instance: str) -> Reply:
    """`GET .../instances/{instance}/rendered`."""
    return _render(pacs, request, requested(request, study, series, instance), None)


def render_frames(pacs: Pacs, request: Request, study: str, series: str, instance: str, frame_list: str) -> Reply:
    """`GET .../instances/{instance}/frames/{list}/rendered`."""
    return _render(pacs, request, requested(request, study, series, instance), parse_frame_list(frame_list))


def render_series(pacs: Pacs, request: Request, study: str, series: str | None = None) -> Reply:
    """`GET /studies/{study}[/series/{series}]/rendered`: every instance that can be rendered, one part each."""
    means = means_of(pacs)
    wanted = requested(request, study, series)
    items = retrieve.plan(pacs.catalog, wanted)
    if len(items) > _MOST_INSTANCES:
        raise NotAcceptable(f"More than {_MOST_INSTANCES} instances are not rendered in one answer; ask for the series or instances.")
    chosen, warnings = _renderable(pacs, request, means, wanted, items)
    if not chosen:
        raise NotAcceptable("No instance can be rendered in an acceptable media type; a study or series is multipart/related.")
    if len(chosen) < len(items):
        warnings = [*warnings, f"{len(items) - len(chosen)} of {len(items)} instances cannot be rendered in an acceptable media type"]
    named = "|".join(item.sha256 + options.media_type for item, options in chosen)
    etag = "W/" + _etag(named, request.environ.get("QUERY_STRING", ""))
    headers = _headers(etag, warnings)
    if names_etag(request.header("If-None-Match"), etag):
        return Reply(200, headers)
    types = {options.media_type for _, options in chosen}
    reply = stream(_each(pacs, request, means, wanted, chosen), min(types) if len(types) == 1 else chosen[0][1].media_type)
    reply.headers += headers
    return reply


def _renderable(
    pacs: Pacs, request: Request, means: Means, wanted: Resource, items: Sequence[Item]
) -> tuple[list[tuple[Item, Options]], Sequence[str]]:
    """The instances that can be rendered acceptably, and warnings. Those with pixels to decode are tried, up to a number."""
    accepted = _accepted(pacs, request)
    chosen: list[tuple[Item, Options]] = []
    warnings: Sequence[str] = []
    left, untried = _MOST_TRIED, 0
    for item in items:
        try:
            found = rendering.subject(means, resource_of(item, wanted))
        except (NotFound, Gone):
            continue  # deleted since it was looked up
        offer = choose(accepted, _offers(found.media_types, single=False))
        if offer is None:
            continue
        options, said = parameters.options(request, _named(offer))
        try:
            rendering.check(means, found, options)
            if _is_kept(found, options):
                if left > 0:
                    _close(_rendered(pacs, means, found, options))
                untried += left <= 0
                left -= 1
        except (NotAcceptable, FrameNotFound, TooLarge):
            continue
        warnings = warnings or said
        chosen.append((item, options))
    if untried:
        warnings = [*warnings, f"{untried} of {len(items)} instances are decoded while this is sent and left out if they cannot be"]
    return chosen, warnings


def _each(pacs: Pacs, request: Request, means: Means, wanted: Resource, chosen: Sequence[tuple[Item, Options]]) -> Iterator[OutgoingPart]:
    """A part for each instance, rendered when its turn comes: one picture at a time is in memory."""
    for item, options in chosen:
        location = f"{instance_url(request.dicomweb_url, item)}/rendered{suffix(wanted, item.version_number)}"
        try:
            result = _rendered(pacs, means, rendering.subject(means, resource_of(item, wanted)), options)
        except (NotFound, Gone):
            continue  # deleted since the answer began
        except NotAcceptable:
            # One damaged image among very many is no reason to break off.
            _log.warning(
                "an instance is left out of rendered ones: its pixels cannot be decoded", extra={"object_id": item.sop_instance_uid}
            )
            continue
        yield OutgoingPart(result.media_type, (result.body,), location)


def thumbnail(pacs: Pacs, request: Request, study: str, series: str | None = None, instance: str | None = None) -> Reply:
    """`GET /studies/{study}[/series/{series}[/instances/{instance}]]/thumbnail`."""
    means = means_of(pacs)
    wanted = requested(request, study, series, instance)
    if instance is not None:
        return _thumbnail(pacs, request, means, rendering.subject(means, wanted), None)
    return _thumbnail(pacs, request, means, _representative(means, wanted), None)


def thumbnail_of_frame(pacs: Pacs, request: Request, study: str, series: str, instance: str, frame_list: str) -> Reply:
    """`GET .../instances/{instance}/frames/{list}/thumbnail`: of several frames the first."""
    means = means_of(pacs)
    found = rendering.subject(means, requested(request, study, series, instance))
    numbers = parse_frame_list(frame_list)
    if found.index is not None:
        for number in numbers:
            found.index.segments(number)
    return _thumbnail(pacs, request, means, found, numbers[0])


def means_of(pacs: Pacs) -> Means:
    """What rendering works with."""
    limits = retrieve.limits_of(pacs.settings, pacs.spool.directory)
    return Means(pacs.catalog, pacs.stores, limits, pacs.codecs.run, pacs.settings.max_rendered_pixels)


def resource_of(item: Item, above: Resource) -> Resource:
    """The resource of an instance of a series or study, of the same time."""
    version = None if above.version is None else item.version_number
    return Resource(item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid, version)


def _render(pacs: Pacs, request: Request, resource: Resource, frames: Sequence[int] | None) -> Reply:
    means = means_of(pacs)
    found = rendering.subject(means, resource)
    if frames is not None:
        _check_frames(found, frames)
    offer = _offer(pacs, request, found, several=frames is not None and len(frames) > 1)
    options, warnings = parameters.options(request, _named(offer))
    etag = _picture_tag(found, options, frames, offer.multipart)
    headers = _headers(etag if not offer.multipart else "W/" + etag, warnings)
    if names_etag(request.header("If-None-Match"), etag):
        return Reply(200, headers)  # becomes 304 without a body
    if not offer.multipart:
        result = _rendered(pacs, means, found, options, frames)
        return Reply(200, [*type_headers(found, result), *headers], result.body)
    url, after = instance_url(request.dicomweb_url, found.item), suffix(resource, found.item.version_number)
    if frames is None:
        parts = [_part(rendering.render(means, found, options), f"{url}/rendered{after}")]
    else:
        parts = [_part(rendering.render(means, found, options, (n,)), f"{url}/frames/{n}/rendered{after}") for n in frames]
    reply = encode(parts, options.media_type)
    reply.headers += headers
    return reply


def _offer(pacs: Pacs, request: Request, found: Subject, *, several: bool) -> Offer:
    if not found.media_types:
        raise NotAcceptable(found.known.problem)
    offer = choose(_accepted(pacs, request), _offers(found.media_types, single=True, several=several))
    if offer is None:
        raise NotAcceptable(f"The instance is rendered as {', '.join(found.media_types)}.")
    return offer


def _check_frames(found: Subject, frames: Sequence[int]) -> None:
    """Frames beyond the last are 404 whatever is accepted (PS3.18 10.4.3)."""
    if found.known.kind is Kind.IMAGE and found.index is not None:
        for number in frames:
            found.index.segments(number)
    elif found.index is None:
        raise FrameNotFound("The instance has no frames.")


def _part(result: Rendered, location: str) -> OutgoingPart:
    return OutgoingPart(result.media_type, (result.body,), location)


def _thumbnail(pacs: Pacs, request: Request, means: Means, found: Subject, frame: int | None) -> Reply:
    offer = choose(_accepted(pacs, request), _offers(IMAGE_TYPES, single=True, multipart=False))
    if offer is None:
        raise NotAcceptable(f"A thumbnail is one of {', '.join(IMAGE_TYPES)}.")
    options, warnings = parameters.options(request, _named(offer), thumbnail=True)
    etag = _etag(found.item.sha256, f"thumbnail|{options}|{frame}")
    headers = _headers(etag, warnings)
    if names_etag(request.header("If-None-Match"), etag):
        return Reply(200, headers)
    result = _kept(pacs, found, options, etag, lambda: rendering.thumbnail(means, found, options, frame))
    return Reply(200, [("Content-Type", result.media_type), *headers], result.body)


def _picture_tag(found: Subject, options: Options, frames: Sequence[int] | None, multipart: bool) -> str:
    frame_text = "" if frames is None else ",".join(map(str, frames))
    return _etag(found.item.sha256, f"{options}|{frame_text}|{multipart}")


def _rendered(pacs: Pacs, means: Means, found: Subject, options: Options, frames: Sequence[int] | None = None) -> Rendered:
    name = _picture_tag(found, options, frames, False)
    return _kept(pacs, found, options, name, lambda: rendering.render(means, found, options, frames))


def _is_kept(found: Subject, options: Options) -> bool:
    """What has to be decoded, or is an animation, is made once and kept as a file; anything else is made sooner than found."""
    if found.known.kind is not Kind.IMAGE:
        return False
    return found.item.transfer_syntax_uid not in NATIVE or (options.media_type == GIF and found.number_of_frames > 1)


def _kept(pacs: Pacs, found: Subject, options: Options, etag: str, render: Callable[[], Rendered]) -> Rendered:
    if not _is_kept(found, options):
        return render()
    results = pacs.conversions.results
    name = "rendered-" + etag.strip('"')
    file, size = results.open(name, lambda: pieces_of(render().body))
    return Rendered(options.media_type, FileBody(results.directory, 0, size, file))


def _close(result: Rendered) -> None:
    if isinstance(result.body, FileBody) and result.body.file is not None:
        result.body.file.close()


def _representative(means: Means, resource: Resource) -> Subject:
    """The instance in the middle of the first series with pictures; without pictures the first one."""
    items = retrieve.plan(means.catalog, resource)
    series: dict[str, list[Item]] = {}
    for item in items:
        if not item.sop_class_uid.startswith(rendering.NO_PICTURES):
            series.setdefault(item.series_instance_uid, []).append(item)
    for members in list(series.values())[:8]:
        found = rendering.subject(means, resource_of(members[len(members) // 2], resource))
        if found.known.kind is Kind.IMAGE:
            return found
    return rendering.subject(means, resource_of(items[0], resource))


def _accepted(pacs: Pacs, request: Request) -> Acceptable:
    return acceptable(request.header("Accept"), tuple(request.arguments("accept")), pacs.settings.strict_accept)


@lru_cache(maxsize=256)
def _offers(media_types: tuple[str, ...], single: bool, multipart: bool = True, several: bool = False) -> tuple[Offer, ...]:
    """The media types without transfer syntax (8.7.4); of several frames only an animated GIF is a single part."""
    offers = []
    for is_multipart in (False, True) if not several else (True, False):
        if multipart if is_multipart else single:
            names = (GIF,) if several and not is_multipart else media_types
            offers += [Offer(DICOM_XML if name == _XML else name, is_multipart, stored=False) for name in names]
    return tuple(offers)


def _named(offer: Offer) -> str:
    return _XML if offer.name == DICOM_XML else offer.name


def _etag(content: str, parameters_text: str) -> str:
    return f'"{hashlib.sha256(f"{content}|{parameters_text}|{__version__}".encode()).hexdigest()[:32]}"'


def _headers(etag: str, warnings: Sequence[str]) -> Headers:
    return [
        ("ETag", etag),
        ("Cache-Control", "private, no-cache"),
        ("Vary", "Accept"),
        *(("Warning", f'299 pacslite "{text}"') for text in warnings),
    ]


def type_headers(found: Subject, result: Rendered) -> Headers:
    """Content-Type, and the policy under which a browser may show it."""
    media_type = result.media_type
    headers = [("Content-Type", f"{media_type}; charset=utf-8" if found.known.kind is Kind.REPORT else media_type)]
    if media_type == rendering.HTML:
        from pacslite.core.rendering_report import POLICY

        headers.append(("Content-Security-Policy", POLICY))
    elif media_type == "application/pdf":
        headers.append(("Content-Security-Policy", _PDF_POLICY))
    elif found.known.kind is Kind.DOCUMENT:
        headers.append(("Content-Security-Policy", "default-src 'none'; sandbox"))
    return headers

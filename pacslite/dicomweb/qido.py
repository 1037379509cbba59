"""QIDO-RS (PS3.18 10.6): the six search resources of Table 10.6.1-1 over `core.query`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pacslite.core import query
from pacslite.core.access import Right
from pacslite.core.query_keys import PRIVATE_GROUP, SPECIFIC_CHARACTER_SET, Dialect, Key, build_keys, private_tag
from pacslite.dicom.attributes import LEVELS, Level, Returned, of_level
from pacslite.dicom.document import PrivateTag
from pacslite.dicom.indexed_attributes import indexed_attributes
from pacslite.dicom.uids import clean_uid
from pacslite.dicomweb import multipart_related, native_xml
from pacslite.dicomweb.media_types import DICOM_JSON, DICOM_XML, METADATA_OFFERS, acceptable, choose
from pacslite.dicomweb.multipart_related import OutgoingPart
from pacslite.dicomweb.qido_json import INSTANCE_AVAILABILITY, RETRIEVE_URL, encode_page
from pacslite.dicomweb.qido_parameters import Parameters, parse_parameters
from pacslite.errors import NotAcceptable
from pacslite.web.messages import Reply, Request, Route
from pacslite.web.replies import tag_of

if TYPE_CHECKING:
    from pacslite.app import Pacs

_DEFAULTS = {level: tuple(a.tag for a in of_level(level) if a.returned is not Returned.ASKED) for level in LEVELS}
# Answered whatever is asked, or never: all text is UTF-8 (8.7.3.5.3).
_KEPT = [("Cache-Control", "private, no-cache"), ("Vary", "Accept")]
_MADE_HERE = frozenset({RETRIEVE_URL, INSTANCE_AVAILABILITY, SPECIFIC_CHARACTER_SET})


def search_studies(pacs: Pacs, request: Request) -> Reply:
    """`/studies`: attributes of patients and studies."""
    return _search(pacs, request, Level.STUDY, (Level.PATIENT, Level.STUDY))


def search_series(pacs: Pacs, request: Request, study: str | None = None) -> Reply:
    """`/series` shows study attributes too, `/studies/{study}/series` does not (10.6.3.3.2)."""
    shown = (Level.SERIES,) if study else LEVELS[:3]
    return _search(pacs, request, Level.SERIES, shown, study)


def search_instances(pacs: Pacs, request: Request, study: str | None = None, series: str | None = None) -> Reply:
    """`/instances`, those of a study (with series attributes), and those of a series (10.6.3.3.3)."""
    shown = LEVELS[3:] if series else LEVELS[2:] if study else LEVELS
    return _search(pacs, request, Level.INSTANCE, shown, study, series)


ROUTES = (
    Route("GET", "/dicom-web/studies", search_studies, Right.DICOMWEB_READ, hot=True),
    Route("GET", "/dicom-web/series", search_series, Right.DICOMWEB_READ, hot=True),
    Route("GET", "/dicom-web/instances", search_instances, Right.DICOMWEB_READ, hot=True),
    Route("GET", "/dicom-web/studies/<study>/series", search_series, Right.DICOMWEB_READ, hot=True),
    Route("GET", "/dicom-web/studies/<study>/instances", search_instances, Right.DICOMWEB_READ, hot=True),
    Route("GET", "/dicom-web/studies/<study>/series/<series>/instances", search_instances, Right.DICOMWEB_READ, hot=True),
)


def _search(
    pacs: Pacs, request: Request, level: Level, shown: tuple[Level, ...], study: str | None = None, series: str | None = None
) -> Reply:
    accepted = acceptable(request.header("Accept"), tuple(request.arguments("accept")), pacs.settings.strict_accept)
    offer = choose(accepted, METADATA_OFFERS)
    if offer is None:
        raise NotAcceptable("The answer is application/dicom+json or multipart/related; type=application/dicom+xml.")
    parameters = parse_parameters(request.query)
    parents = [query.uid_key(one, clean_uid(uid)) for one, uid in ((Level.STUDY, study), (Level.SERIES, series)) if uid]
    asked = _query(pacs, parameters, level, shown, parents)
    page = query.find(pacs.catalog, asked)
    objects = encode_page(page, level, request.dicomweb_url, asked.private_fields)
    warnings = []
    if page.remaining:  # 8.3.4.4.1
        warnings.append(f"There are {page.remaining} additional results that can be requested")
    headers = [("Warning", f'299 {request.dicomweb_url}: "{text}"') for text in warnings]
    if not objects:
        return Reply(204, headers)
    return _reply(objects, headers, offer.name)


def _query(pacs: Pacs, parameters: Parameters, level: Level, shown: tuple[Level, ...], parents: list[Key]) -> query.Query:
    settings = pacs.settings
    limit = settings.query_default_limit if parameters.limit is None else min(parameters.limit, settings.query_max_limit)
    keys = build_keys(parameters.terms, Dialect(options=replace(parameters.options, ignore_case=settings.match_ignore_case)))
    public, private = _fields(parameters, level, shown)
    return query.Query(
        level,
        (*parents, *keys),
        public,
        limit,
        parameters.offset,
        private,
        order=parameters.order,
        indexed=indexed_attributes(settings.index_attributes),
        max_documents=settings.max_search_documents,
    )


def _fields(parameters: Parameters, level: Level, shown: tuple[Level, ...]) -> tuple[tuple[int, ...], tuple[PrivateTag, ...]]:
    """What the answer holds: the defaults of its levels, what was matched, and what was asked for besides."""
    tags = [tag for one in shown for tag in _DEFAULTS[one]]
    if parameters.include_all:
        tags += [a.tag for one in LEVELS[: LEVELS.index(level) + 1] for a in of_level(one)]
    asked = [*(path[0] for path, _ in parameters.terms), *parameters.include]
    tags += [tag for tag in asked if not tag & PRIVATE_GROUP and tag not in _MADE_HERE]
    creators = {path[0]: text for path, text in parameters.terms}
    private = [found for tag in asked if (found := private_tag(tag, creators))]
    return tuple(dict.fromkeys(tags)), tuple(dict.fromkeys(private))


def _reply(objects: list[str], headers: list[tuple[str, str]], media_type: str) -> Reply:
    if media_type == DICOM_XML:
        parts = [OutgoingPart(DICOM_XML, [native_xml.encode(json.loads(one))]) for one in objects]
        reply = multipart_related.encode(parts, DICOM_XML)
        reply.headers += headers
        return reply
    body = ("[" + ",".join(objects) + "]").encode()
    return Reply(200, [("Content-Type", DICOM_JSON), ("ETag", tag_of(body)), *_KEPT, *headers], body)

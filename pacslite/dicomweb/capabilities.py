"""The capabilities description (PS3.18 8.9, annex H): a WADL document of the routes, as XML or as JSON.

It is made from the route tables the server runs on, so it lists what there is. What a route's handler takes and gives beyond
its path is told by the table below; a handler that is not in it is listed by its name alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from pacslite.codec.render_options import IMAGE_TYPES
from pacslite.core.access import Right
from pacslite.dicomweb.media_types import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    OCTET_STREAM,
    Offer,
    acceptable,
    choose,
)
from pacslite.errors import NotAcceptable
from pacslite.web.messages import Reply, Request, Route

if TYPE_CHECKING:
    from pacslite.app import Pacs

WADL_XML = "application/vnd.sun.wadl+xml"
WADL_JSON = "application/vnd.sun.wadl+json"
_NAMESPACE = "http://wadl.dev.java.net/2009/02"

# `*/*` gets the first; names of the second kind are what general clients ask for.
_OFFERS = tuple(Offer(name, False) for name in (WADL_XML, DICOM_XML, WADL_JSON, DICOM_JSON))


def multipart(name: str) -> str:
    """A multipart/related media type whose parts are of that type."""
    return f'multipart/related; type="{name}"'


@dataclass(frozen=True, slots=True)
class Facts:
    """What is told of a handler: what it is for, query parameters, media types it takes and gives, statuses of success."""

    title: str
    gives: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (200,)


_JSON_OR_XML = (DICOM_JSON, multipart(DICOM_XML))
_STORED = ("image/jpeg", "image/jls", "image/jp2", "image/jpx", "image/jphc", "image/dicom-rle", "video/mpeg", "video/mp4")
_FRAMES = (OCTET_STREAM, *_STORED)
_BULK = (OCTET_STREAM, "*/*")
_SEARCH = ("limit", "offset", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching", "orderby", "{attribute}")
_RENDERED_QUERY = ("accept", "annotation", "quality", "viewport", "window", "iccprofile")
_PICTURES_OF_MANY = tuple(map(multipart, IMAGE_TYPES))
_URI_QUERY = (
    "requestType",
    "studyUID",
    "seriesUID",
    "objectUID",
    "contentType",
    "charset",
    "transferSyntax",
    "annotation",
    "rows",
    "columns",
    "region",
    "windowCenter",
    "windowWidth",
    "frameNumber",
    "imageQuality",
    "version",
)

FACTS: dict[str, Facts] = {
    "describe_capabilities": Facts("Retrieve Capabilities", (WADL_XML, WADL_JSON), query=("accept",)),
    "search_studies": Facts("Search for Studies", _JSON_OR_XML, query=("accept", *_SEARCH), statuses=(200, 204)),
    "search_series": Facts("Search for Series", _JSON_OR_XML, query=("accept", *_SEARCH), statuses=(200, 204)),
    "search_instances": Facts("Search for Instances", _JSON_OR_XML, query=("accept", *_SEARCH), statuses=(200, 204)),
    "retrieve_instances": Facts("Retrieve Instances", (multipart(DICOM), DICOM), query=("accept", "version")),
    "retrieve_resource": Facts(
        "Retrieve Instances", (multipart(DICOM), DICOM, multipart(OCTET_STREAM), "application/zip"), query=("accept", "version")
    ),
    "retrieve_metadata": Facts("Retrieve Metadata", _JSON_OR_XML, query=("accept", "version")),
    "retrieve_frames": Facts("Retrieve Frames", (*map(multipart, _FRAMES), *_FRAMES), query=("accept", "version")),
    "retrieve_bulk_data": Facts("Retrieve Bulk Data", _BULK, query=("accept", "version")),
    "retrieve_all_bulk_data": Facts("Retrieve Bulk Data", (multipart(OCTET_STREAM),), query=("accept", "version")),
    "retrieve_pixel_data": Facts("Retrieve Pixel Data", tuple(map(multipart, _FRAMES)), query=("accept", "version")),
    "store_instances": Facts(
        "Store Instances",
        (DICOM_JSON, DICOM_XML),
        (multipart(DICOM), DICOM, multipart(DICOM_JSON), multipart(DICOM_XML)),
        ("accept",),
        (200, 202),
    ),
    "store_instances_of_study": Facts(
        "Store Instances",
        (DICOM_JSON, DICOM_XML),
        (multipart(DICOM), DICOM, multipart(DICOM_JSON), multipart(DICOM_XML)),
        ("accept",),
        (200, 202),
    ),
    "render_series": Facts("Retrieve Rendered", _PICTURES_OF_MANY, query=_RENDERED_QUERY),
    "render_instance": Facts("Retrieve Rendered", IMAGE_TYPES, query=_RENDERED_QUERY),
    "render_frames": Facts("Retrieve Rendered", IMAGE_TYPES, query=_RENDERED_QUERY),
    "thumbnail": Facts("Retrieve Thumbnail", IMAGE_TYPES, query=("accept", "viewport")),
    "thumbnail_of_frame": Facts("Retrieve Thumbnail", IMAGE_TYPES, query=("accept", "viewport")),
    "request_commitment": Facts("Request Storage Commitment", (DICOM_JSON, DICOM_XML), (DICOM_JSON,), statuses=(200, 202)),
    "check_commitment": Facts("Result Check of Storage Commitment", (DICOM_JSON, DICOM_XML), statuses=(200, 202)),
    "retrieve_by_uri": Facts("Retrieve by URI (PS3.18 9)", (DICOM, "image/jpeg", "image/png", "image/gif"), query=_URI_QUERY),
    "delete_resource": Facts("Delete", statuses=(204,)),
}


@dataclass(slots=True)
class Resource:
    """One step of the paths: its methods, and what lies below it."""

    path: str
    methods: list[Route] = field(default_factory=list)
    below: dict[str, Resource] = field(default_factory=dict)


def tree_of(routes: Iterable[Route], root: str) -> Resource:
    """The routes below a root as a tree of resources."""
    tree = Resource("/")
    for route in routes:
        if route.rule != root and not route.rule.startswith(root + "/"):
            continue
        node = tree
        for step in route.rule.removeprefix(root).strip("/").split("/"):
            if step:
                name = "{" + step.strip("<>").partition(":")[2] + "}" if ":" in step else step.replace("<", "{").replace(">", "}")
                node = node.below.setdefault(name, Resource(name))
        if route.method != "OPTIONS" and all(route.method != known.method for known in node.methods):
            node.methods.append(route)
    return tree


Json = dict[str, Any]


def description(tree: Resource, base: str) -> Json:
    """The document as plain values, in the shape of WADL."""
    return {"application": {"xmlns": _NAMESPACE, "resources": [{"base": base, "resource": [_resource(tree)]}]}}


def _resource(node: Resource) -> Json:
    described: Json = {"path": node.path}
    if node.path.startswith("{"):
        described["param"] = [{"name": node.path.strip("{}"), "style": "template", "required": "true"}]
    if node.methods:
        described["method"] = [_method(route) for route in node.methods]
    if node.below:
        described["resource"] = [_resource(one) for one in node.below.values()]
    return described


def _method(route: Route) -> Json:
    name = route.handler.__name__
    facts = FACTS.get(name, Facts(name.replace("_", " ").capitalize()))
    asked: Json = {}
    if facts.query:
        asked["param"] = [{"name": one, "style": "query"} for one in facts.query]
    if facts.gives:
        asked.setdefault("param", []).append({"name": "Accept", "style": "header", "default": facts.gives[0]})
    if facts.takes:
        asked["representation"] = [{"mediaType": one} for one in facts.takes]
    given: Json = {"status": " ".join(map(str, facts.statuses))}
    if facts.gives:
        given["representation"] = [{"mediaType": one} for one in facts.gives]
    described: Json = {"name": route.method, "id": "".join(part.capitalize() for part in name.split("_")), "title": facts.title}
    return described | ({"request": asked} if asked else {}) | {"response": [given]}


def as_xml(document: Json) -> bytes:
    """The document as WADL."""
    return ('<?xml version="1.0" encoding="UTF-8"?>' + "".join(_elements(document))).encode()


def _elements(values: Json) -> Iterable[str]:
    for name, value in values.items():
        if name == "title":
            yield f"<doc title={quoteattr(value)}/>"
            continue
        for one in value if isinstance(value, list) else [value]:
            attributes = "".join(f" {key}={quoteattr(text)}" for key, text in one.items() if isinstance(text, str) and key != "title")
            children = {key: child for key, child in one.items() if not isinstance(child, str) or key == "title"}
            yield f"<{name}{attributes}>{''.join(_elements(children))}</{name}>"


def routes(root: str, others: Sequence[Route]) -> tuple[Route, ...]:
    """The routes of the description itself: OPTIONS on the root as 8.9 has it, and GET for those who can send nothing else."""
    ours: list[Route] = []

    @cache
    def tree() -> Resource:
        return tree_of([*ours, *others], root)

    def describe_capabilities(pacs: Pacs, request: Request) -> Reply:
        """`OPTIONS /` and `GET /`."""
        return _described(pacs, request, tree)

    rights = {"OPTIONS": Right.PUBLIC, "GET": Right.DICOMWEB_READ}
    ours += [Route(method, rule, describe_capabilities, right) for rule in (root, f"{root}/") for method, right in rights.items()]
    return tuple(ours)


def _described(pacs: Pacs, request: Request, tree: Callable[[], Resource]) -> Reply:
    accepted = acceptable(request.header("Accept"), tuple(request.arguments("accept")), pacs.settings.strict_accept)
    offer = choose(accepted, _OFFERS)
    if offer is None:
        raise NotAcceptable(f"The capabilities are described as {WADL_XML} or {WADL_JSON}.")
    document = description(tree(), request.dicomweb_url)
    body = json.dumps(document).encode() if offer.name.endswith("json") else as_xml(document)
    name = "application/json" if offer.name == DICOM_JSON else "application/xml" if offer.name == DICOM_XML else offer.name
    return Reply(200, [("Content-Type", name), ("Allow", "GET, HEAD, OPTIONS"), ("Vary", "Accept"), ("Cache-Control", "no-cache")], body)

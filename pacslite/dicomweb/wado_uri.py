"""WADO-URI (PS3.18 9): one instance by query parameters, as a DICOM file or rendered.

The parameters are checked here and said again in the words of WADO-RS, whose handlers then answer.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pacslite.core import retrieve
from pacslite.core.retrieve import Resource
from pacslite.dicom.document import values_of
from pacslite.dicom.uids import clean_uid, is_uid
from pacslite.dicomweb.media_types import DICOM, DICOM_XML, Offer, acceptable, choose, parse_accept
from pacslite.dicomweb.resource import requested
from pacslite.dicomweb.wado import retrieve_instances
from pacslite.errors import BadRequest, FrameNotFound, NotAcceptable
from pacslite.web.messages import Reply, Request

if TYPE_CHECKING:
    from pacslite.app import Pacs

_XML = "text/xml"
_NUMBER = re.compile(r"[1-9]\d{0,8}")
_FRACTION = re.compile(r"0(?:\.\d{0,12})?|1(?:\.0{0,12})?|\.\d{1,12}")
_ANNOTATIONS = frozenset(("patient", "technique"))
# What says how a picture is made; a DICOM file is not one (9.4.1.2).
_OF_PICTURES = (
    "annotation",
    "rows",
    "columns",
    "region",
    "windowCenter",
    "windowWidth",
    "frameNumber",
    "imageQuality",
    "presentationUID",
    "presentationSeriesUID",
)
_OF_FILES = ("anonymize", "transferSyntax")
_NAMES = ("requestType", "studyUID", "seriesUID", "objectUID", "contentType", "charset", *_OF_PICTURES, *_OF_FILES)


def retrieve_by_uri(pacs: Pacs, request: Request) -> Reply:
    """`GET /dicom-web/wado?requestType=WADO&studyUID=...&seriesUID=...&objectUID=...`."""
    given = _parameters(request)
    if given.get("requestType") != "WADO":
        raise BadRequest("requestType is missing or is not WADO.")
    study, series, instance = (_uid(given, name) for name in ("studyUID", "seriesUID", "objectUID"))
    resource = requested(request, study, series, instance)
    image = _image(pacs, resource)
    media_type = _media_type(given, image)
    version = [("version", text) for text in request.arguments("version")]
    if media_type is None or media_type == DICOM:
        return retrieve_instances(pacs, _as_file(request, given, version), study, series, instance)
    _refuse(given, _OF_FILES, "only with application/dicom")
    if "presentationUID" in given or "presentationSeriesUID" in given:
        _refuse_presentation(given)
    query = [*_picture(given, image), *version]
    frame = _frame(given, image)
    from pacslite.dicomweb import rendered

    inner = _inner(request, media_type, query)
    if frame is None:
        return rendered.render_instance(pacs, inner, study, series, instance)
    return rendered.render_frames(pacs, inner, study, series, instance, frame)


@dataclass(frozen=True, slots=True)
class _Image:
    """What has to be known of an instance to read the parameters; no frames: it is no image."""

    frames: int
    rows: int
    columns: int
    media_types: tuple[str, ...]


def _parameters(request: Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in request.query:
        if name in _NAMES:
            if name in found:
                raise BadRequest(f"{name} is given twice.")
            found[name] = value
    return found


def _uid(given: Mapping[str, str], name: str) -> str:
    if not given.get(name):
        raise BadRequest(f"{name} is missing.")
    return clean_uid(given[name])


def _image(pacs: Pacs, resource: Resource) -> _Image:
    from pacslite.core import rendering
    from pacslite.dicomweb import rendered

    subject = rendering.subject(rendered.means_of(pacs), resource)
    try:
        frames = retrieve.plan_frames(pacs.catalog, resource).index.number_of_frames
    except FrameNotFound:
        return _Image(0, 0, 0, subject.media_types)
    document = _document(pacs, resource)
    rows, columns = (int(next(iter(values_of(document.get(tag))), "0")) for tag in ("00280010", "00280011"))
    return _Image(frames, rows, columns, subject.media_types)


def _document(pacs: Pacs, resource: Resource) -> dict[str, Any]:
    with retrieve.documents(pacs.catalog, resource) as rows:
        found: dict[str, Any] = json.loads(zlib.decompress(next(rows).json), strict=False)
    return found


def _media_type(given: Mapping[str, str], image: _Image) -> str | None:
    """The media type asked for, None where none is: pictures of one frame and texts are rendered, anything else is a file."""
    asked = given.get("contentType")
    if asked is None:
        is_file = not image.media_types or (image.frames > 1 and "frameNumber" not in given) or any(name in given for name in _OF_FILES)
        return None if is_file else image.media_types[0]
    for one in parse_accept(asked):
        if one.transfer_syntax is not None:
            raise BadRequest("contentType has no parameter transfer-syntax; there is the query parameter transferSyntax.")
    if re.search(r";\s*charset\s*=", asked, re.IGNORECASE):
        raise BadRequest("contentType has no parameter charset; there is the query parameter charset.")
    names = (*image.media_types, DICOM)
    # Accept lists call the XML of older editions text/xml too; here it is XML as it is.
    offers = tuple(Offer(DICOM_XML if name == _XML else name, False) for name in names)
    offer = choose(acceptable(asked), offers)
    if offer is None:
        raise NotAcceptable(f"contentType can be {', '.join(names)}.")
    name = _XML if offer.name == DICOM_XML else offer.name
    if name.startswith("text/"):
        _check_charset(given.get("charset"))
    return name


def _check_charset(text: str | None) -> None:
    """Text goes out as UTF-8 (9.4.1.1)."""
    if text is not None and not any(name.partition(";")[0].strip().lower() in ("utf-8", "*") for name in text.split(",")):
        raise NotAcceptable("Text is given in UTF-8 only.")


def _refuse(given: Mapping[str, str], names: tuple[str, ...], when: str) -> None:
    wrong = [name for name in names if name in given]
    if wrong:
        raise BadRequest(f"{', '.join(wrong)}: {when}.")


def _as_file(request: Request, given: Mapping[str, str], version: list[tuple[str, str]]) -> Request:
    _refuse(given, _OF_PICTURES, "not with application/dicom")
    if "anonymize" in given:
        if given["anonymize"] != "yes":
            raise BadRequest("anonymize can only be yes.")
        raise NotAcceptable("Instances are not anonymized here.")
    syntax = given.get("transferSyntax")
    if syntax is None:
        return _inner(request, DICOM, version)
    if syntax != "*" and not is_uid(syntax):
        raise BadRequest("transferSyntax is not a UID.")
    return _inner(request, f"{DICOM}; transfer-syntax={syntax}", version)


def _refuse_presentation(given: Mapping[str, str]) -> None:
    if "presentationUID" not in given or "presentationSeriesUID" not in given:
        raise BadRequest("presentationUID and presentationSeriesUID are given together.")
    for name in ("presentationUID", "presentationSeriesUID"):
        _uid(given, name)
    _refuse(given, ("windowCenter", "windowWidth", "region", "annotation"), "not with presentationUID")
    raise NotAcceptable("Presentation states are not applied here.")


def _inner(request: Request, accept: str, query: list[tuple[str, str]]) -> Request:
    """The same request in the words of WADO-RS."""
    return request.asking(accept, urlencode(query))


def _frame(given: Mapping[str, str], image: _Image) -> str | None:
    text = given.get("frameNumber")
    if text is None:
        return None
    if image.frames < 2:
        raise BadRequest("frameNumber: the instance does not have several frames.")
    if not _NUMBER.fullmatch(text) or int(text) > image.frames:
        raise BadRequest(f"frameNumber is a whole number from 1 to {image.frames}.")
    return text


def _picture(given: Mapping[str, str], image: _Image) -> list[tuple[str, str]]:
    """The query parameters of Retrieve Rendered that mean the same."""
    query = []
    if "annotation" in given:
        if not all(part in _ANNOTATIONS for part in given["annotation"].split(",")):
            raise BadRequest("annotation is patient, technique or both.")
        query.append(("annotation", given["annotation"]))
    if ("windowCenter" in given) != ("windowWidth" in given):
        raise BadRequest("windowCenter and windowWidth are given together.")
    if "windowCenter" in given:
        query.append(("window", f"{given['windowCenter']},{given['windowWidth']},linear"))
    if "imageQuality" in given:
        query.append(("quality", given["imageQuality"]))
    viewport = _viewport(given, image)
    if viewport:
        query.append(("viewport", viewport))
    return query


def _viewport(given: Mapping[str, str], image: _Image) -> str:
    """The box of `rows` and `columns`, and the source region (9.4.1.2); with one of them, the other follows from the picture."""
    if not any(name in given for name in ("rows", "columns", "region")):
        return ""
    if not image.frames or not image.rows or not image.columns:
        raise BadRequest("rows, columns and region: the instance is no image.")
    for name in ("rows", "columns"):
        if name in given and not _NUMBER.fullmatch(given[name]):
            raise BadRequest(f"{name} is a positive whole number.")
    left, top, right, bottom = _region(given.get("region", "0,0,1,1"))
    x, y = round(left * image.columns), round(top * image.rows)
    width, height = max(1, round(right * image.columns) - x), max(1, round(bottom * image.rows) - y)
    rows, columns = int(given.get("rows", 0)), int(given.get("columns", 0))
    if not rows and not columns:
        rows, columns = height, width
    columns = columns or max(1, round(rows * width / height))
    rows = rows or max(1, round(columns * height / width))
    return f"{columns},{rows}" if "region" not in given else f"{columns},{rows},{x},{y},{width},{height}"


def _region(text: str) -> tuple[float, float, float, float]:
    """Left, top, right and bottom as fractions of the picture."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(_FRACTION.fullmatch(part) for part in parts):
        raise BadRequest("region is four numbers from 0 to 1.")
    left, top, right, bottom = map(float, parts)
    if left >= right or top >= bottom:
        raise BadRequest("region: its upper left corner comes first, and it is not empty.")
    return left, top, right, bottom

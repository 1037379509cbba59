"""What a URL of the Studies Service names: study, series, instance, and with `?version=` an earlier version (our own extension)."""

from __future__ import annotations

import re
from datetime import datetime

from pacslite.catalog.statements import time_text
from pacslite.core.retrieve import Item, Resource
from pacslite.dicom.uids import clean_uid
from pacslite.errors import BadRequest
from pacslite.web.messages import Request

_NUMBER = re.compile(r"[1-9]\d{0,8}")
# RFC 3339; a "+" that was not percent-encoded has become a space.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d(?:\.\d{1,6})?)(?:([Zz])|([ +-])(\d\d:\d\d))")


def requested(request: Request, study: str, series: str | None = None, instance: str | None = None) -> Resource:
    """The resource of a request; raises InvalidUid, and BadRequest for a version that is none."""
    uids = clean_uid(study), None if series is None else clean_uid(series), None if instance is None else clean_uid(instance)
    return Resource(*uids, version_of(request, instance is not None))


def version_of(request: Request, of_instance: bool) -> int | str | None:
    """`version=n` or `version=<time of RFC 3339>`; raises BadRequest."""
    given = request.arguments("version")
    if not given:
        return None
    text = given[0]
    if len(given) == 1 and of_instance and _NUMBER.fullmatch(text):
        return int(text)
    found = _TIME.fullmatch(text) if len(given) == 1 else None
    if found is None:
        wanted = "the number of a version, or a time of RFC 3339" if of_instance else "a time of RFC 3339"
        raise BadRequest(f"The parameter version is {wanted}, and is given once.")
    date, time, zulu, sign, offset = found.groups()
    zone = "+00:00" if zulu else sign.replace(" ", "+") + offset
    try:
        return time_text(datetime.fromisoformat(f"{date}T{time}{zone}"))
    except (ValueError, OverflowError):
        raise BadRequest("The parameter version is no time that exists.") from None


def instance_url(root: str, item: Item) -> str:
    """The URL of the instance resource under the DICOMweb root."""
    return f"{root}/studies/{item.study_instance_uid}/series/{item.series_instance_uid}/instances/{item.sop_instance_uid}"


def suffix(resource: Resource, number: int) -> str:
    """What URLs in an answer end with, so that they name the same version as the request."""
    return "" if resource.version is None else f"?version={number}"

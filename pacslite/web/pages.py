"""Lists of the REST interface: `limit` and `cursor` in, `{"items", "total", "next"}` out (docs: REST contract); and numbers in URLs."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from pacslite.errors import InvalidForm, NotFound
from pacslite.web.messages import Request
from pacslite.web.operations import Parameter

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
LIMIT = Parameter("limit", f"Items of a page, {DEFAULT_LIMIT} by default, at most {MAX_LIMIT}.", "integer")
PAGE = (LIMIT, Parameter("cursor", "From `next`."))
MOST_NUMBER = 2**63 - 1
"""Of a row, or of bytes."""
MOST_COUNT = 10**9 - 1
"""Of a version, or of an item."""


def check_parameters(request: Request, known: Sequence[str]) -> dict[str, str]:
    """The query parameters; raises InvalidForm for an unknown or repeated one."""
    given: dict[str, str] = {}
    for name, value in request.query:
        if name not in known or name in given:
            message = "is given twice" if name in given else "is not a parameter of this resource"
            raise InvalidForm.at(name, message)
        if "\0" in value:
            raise InvalidForm.at(name, "holds a NUL")
        given[name] = value
    return given


def limit_of(given: dict[str, str]) -> int:
    """The page size asked for; raises InvalidForm."""
    limit = whole_number(given.get("limit", str(DEFAULT_LIMIT)))
    if limit is None or not 1 <= limit <= MAX_LIMIT:
        raise InvalidForm.at("limit", f"is not a whole number from 1 to {MAX_LIMIT}")
    return limit


def whole_number(text: str, most: int = MOST_NUMBER) -> int | None:
    """The number that a text is, None when it is none, or one that nothing could have."""
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MOST_NUMBER))
    return int(text) if is_number and int(text) <= most else None


def number_in(given: Mapping[str, str], name: str, least: int = 0, most: int = MOST_NUMBER) -> int | None:
    """The number that a query parameter gives, None without it; raises InvalidForm."""
    if name not in given:
        return None
    number = whole_number(given[name], most)
    if number is None or number < least:
        raise InvalidForm.at(name, "is not a whole number")
    return number


def number_of(text: str, kind: str, most: int = MOST_NUMBER) -> int:
    """The number of a patient, a user or the like in a path; raises NotFound for what is none."""
    number = whole_number(text, most)
    if number is None:
        raise NotFound(f"There is no such {kind}.")
    return number


def key_in(given: Mapping[str, str]) -> str | None:
    """The key behind which the page asked for begins, None for the first page; raises InvalidForm."""
    cursor = given.get("cursor")
    if not cursor:
        return None
    try:
        key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:  # no ASCII, no base64, or no UTF-8
        raise wrong_cursor() from None
    if "\0" in key:
        raise wrong_cursor()
    return key


def keyed_number(text: str) -> int:
    """A number that is a key of a cursor, or part of one; raises InvalidForm."""
    number = whole_number(text)
    if number is None:
        raise wrong_cursor()
    return number


def wrong_cursor() -> InvalidForm:
    """What is raised for a cursor that was not made here."""
    return InvalidForm.at("cursor", "is not a cursor of this server")


def next_url(request: Request, given: Mapping[str, str], key: str) -> str:
    """Where the next page is: the same query behind an opaque cursor, which holds the key of the last item."""
    cursor = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
    return f"{request.base_url}{request.path}?{urlencode({**given, 'cursor': cursor})}"


def page_of(request: Request, items: Sequence[Any], key: Callable[[Any], str]) -> dict[str, Any]:
    """One page of a short list that is whole in memory and sorted by `key`."""
    given = check_parameters(request, ("limit", "cursor"))
    limit, after = limit_of(given), key_in(given)
    left = [item for item in items if after is None or key(item) > after]
    following = next_url(request, given, key(left[limit - 1])) if len(left) > limit else None
    return {"items": [dataclasses.asdict(item) for item in left[:limit]], "total": len(items), "next": following}

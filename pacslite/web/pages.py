"""Lists of the REST interface: `limit` and `cursor` in, `{"items", "total", "next"}` out (docs: REST contract)."""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from pacslite.errors import InvalidForm
from pacslite.web.messages import Request

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000


def check_parameters(request: Request, known: Sequence[str]) -> dict[str, str]:
    """The query parameters; raises InvalidForm for an unknown or repeated one."""
    given: dict[str, str] = {}
    for name, value in request.query:
        if name not in known or name in given:
            message = "is given twice" if name in given else "is not a parameter of this resource"
            raise InvalidForm(f"{name}: {message}", ((name, message),))
        given[name] = value
    return given


def limit_of(given: dict[str, str]) -> int:
    """The page size asked for; raises InvalidForm."""
    text = given.get("limit", str(DEFAULT_LIMIT))
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MAX_LIMIT:
        message = f"is not a whole number from 1 to {MAX_LIMIT}"
        raise InvalidForm(f"limit: {message}", (("limit", message),))
    return int(text)


def encode_cursor(key: str) -> str:
    """An opaque cursor behind which the next page begins."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """The key in a cursor; raises InvalidForm."""
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        message = "is not a cursor of this server"
        raise InvalidForm(f"cursor: {message}", (("cursor", message),)) from None


def next_url(request: Request, given: Mapping[str, str], limit: int, cursor: str) -> str:
    """Where the next page is: the same query behind a cursor."""
    return f"{request.base_url}{request.path}?{urlencode({**given, 'limit': limit, 'cursor': cursor})}"


def page_of(request: Request, items: Sequence[Any], key: Callable[[Any], str]) -> dict[str, Any]:
    """One page of a short list that is whole in memory and sorted by `key`."""
    given = check_parameters(request, ("limit", "cursor"))
    limit = limit_of(given)
    after = decode_cursor(given["cursor"]) if given.get("cursor") else None
    left = [item for item in items if after is None or key(item) > after]
    following = None
    if len(left) > limit:
        query = urlencode({"limit": limit, "cursor": encode_cursor(key(left[limit - 1]))})
        following = f"{request.base_url}{request.path}?{query}"
    return {"items": [dataclasses.asdict(item) for item in left[:limit]], "total": len(items), "next": following}

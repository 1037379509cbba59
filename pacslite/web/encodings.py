"""Compression of answers for callers who take it (RFC 9110 12.5.3): JSON in memory; kept files bring their own. And charsets."""

from __future__ import annotations

import codecs
import re
import zlib
from contextlib import suppress
from functools import lru_cache

from pacslite.errors import NotAcceptable
from pacslite.web.messages import Reply, Request

# Below this a packet carries it anyway.
LEAST_BYTES = 1400
_LEVEL = 4
_GZIP = 16 + zlib.MAX_WBITS
_ZERO = re.compile(r"q=0(\.0*)?")
_MOST_CHARACTERS = 1024


def takes_gzip(request: Request) -> bool:
    """Whether the caller accepts gzip."""
    header = request.header("Accept-Encoding")
    return header is not None and accepts_gzip(header[:_MOST_CHARACTERS])


@lru_cache(maxsize=256)
def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header takes gzip."""
    weights: dict[str, bool] = {}
    for item in header.lower().split(","):
        coding, *parameters = (part.strip() for part in item.split(";"))
        weights[coding] = not any(_ZERO.fullmatch(parameter.replace(" ", "")) for parameter in parameters)
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))


def check_charset(request: Request, reply: Reply) -> None:
    """Raises NotAcceptable when the reply is text, and neither UTF-8 nor a charset that has these characters alike is accepted.

    Charsets nobody knows are ignored (PS3.18 8.8.5).
    """
    header = request.header("Accept-Charset")
    kind = (reply.header("Content-Type") or "").lower()
    if header is None or not (kind.startswith("text/") or "json" in kind or "xml" in kind):
        return
    weights = _charsets(header[:_MOST_CHARACTERS])
    if not weights or weights.get("utf-8", weights.get("*", False)):
        return
    accepted = [name for name, taken in weights.items() if taken]
    if not (isinstance(reply.body, bytes) and reply.body.isascii() and any(_has_ascii(name) for name in accepted)):
        raise NotAcceptable("Text is UTF-8 here, which Accept-Charset does not name.")


@lru_cache(maxsize=256)
def _charsets(header: str) -> dict[str, bool]:
    weights: dict[str, bool] = {}
    for item in header.split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        with suppress(LookupError, ValueError):
            known = name if name == "*" else codecs.lookup(name).name
            weights[known] = not any(_ZERO.fullmatch(parameter.replace(" ", "")) for parameter in parameters)
    return weights


def _has_ascii(charset: str) -> bool:
    with suppress(LookupError, ValueError):
        return "{AZaz09}~".encode(charset) == b"{AZaz09}~"
    return False


def is_compressible(reply: Reply) -> bool:
    """Whether the reply is JSON in memory of some length, not encoded yet."""
    if not isinstance(reply.body, bytes) or len(reply.body) < LEAST_BYTES or reply.status == 206:
        return False
    kind = (reply.header("Content-Type") or "").partition(";")[0]
    return kind.endswith(("json", "+xml")) and reply.header("Content-Encoding") is None


def tag_of_gzip(etag: str) -> str:
    """The ETag of the compressed form: a strong one names the very bytes (RFC 9110 8.8.3.3)."""
    return f'{etag[:-1]}-gzip"' if etag.endswith('"') else etag


def compressed(body: bytes) -> bytes:
    """The body as gzip; the same bytes for the same body."""
    machine = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return machine.compress(body) + machine.flush()

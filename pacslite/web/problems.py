"""Errors as `application/problem+json` (RFC 9457): the only place where an error becomes an HTTP answer.

Outside the REST interface the same goes out as XML, as a page or as plain text to callers who accept only that (PS3.18 8.6.3).
"""

from __future__ import annotations

import json
import logging
import re
from functools import lru_cache
from html import escape
from http import HTTPStatus

from pacslite import errors
from pacslite.error_map import mapping_of
from pacslite.web.messages import Headers, Reply, Request

log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_S = 2

_HTML, _XML, _PLAIN = "text/html; charset=utf-8", "application/problem+xml", "text/plain; charset=utf-8"
# What a caller may name who can read such a body; the first form counts where several are liked alike.
_FORMS = {
    PROBLEM_JSON: ("application/problem+json", "application/json", "application/dicom+json"),
    _HTML: ("text/html", "application/xhtml+xml"),
    _XML: ("application/problem+xml", "application/xml", "text/xml", "application/dicom+xml"),
    _PLAIN: ("text/plain",),
}
_RANGE = re.compile(r"\s*([\w.+*-]+/[\w.+*-]+)\s*(?:;.*?)??(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*)?", re.ASCII | re.DOTALL)
_MOST_CHARACTERS = 2048


def problem(error: Exception, request_id: str) -> Reply:
    """The answer to a request that ended in this error; an error nobody raised on purpose is logged, not shown."""
    row = mapping_of(error)
    if not isinstance(error, errors.PacsliteError):
        log.error("request failed", exc_info=error)
        return _reply(row.http, row.slug, row.title, "The server failed to answer; the log has the request id.", request_id)
    if row.http >= 500:
        reason = getattr(error, "reason", "")
        log.warning("request failed: %s", error, extra={"problem": row.slug, **({"reason": reason} if reason else {})})
    reply = _reply(row.http, row.slug, row.title, str(error), request_id, getattr(error, "fields", ()))
    reply.headers.extend(_headers_of(error, row.http))
    return reply


def http_problem(status: int, detail: str, request_id: str) -> Reply:
    """A problem of HTTP itself (unknown path, wrong method, ...) that never reached a handler."""
    title = HTTPStatus(status).phrase
    return _reply(status, title.lower().replace(" ", "-"), title, detail, request_id)


def _headers_of(error: errors.PacsliteError, status: int) -> Headers:
    """What RFC 9110 wants beside the status: 401, 405, 415, 416, 429, 503."""
    headers: Headers = []
    if isinstance(error, errors.MethodNotAllowed):
        headers.append(("Allow", ", ".join(error.allowed)))
    elif isinstance(error, errors.RangeNotSatisfiable):
        headers.append(("Content-Range", f"bytes */{error.size_bytes}"))
    elif isinstance(error, errors.UnsupportedContent) and error.supported:
        headers.append(("Accept", ", ".join(error.supported)))
    elif isinstance(error, errors.TooManyRequests):
        headers.append(("Retry-After", str(error.retry_after_s)))
    elif isinstance(error, errors.Unauthenticated):
        invalid = ', error="invalid_token"' if error.invalid else ""  # RFC 6750 3.1
        headers.append(("WWW-Authenticate", f'Bearer realm="pacslite"{invalid}'))
    elif status == 503:
        headers.append(("Retry-After", str(RETRY_AFTER_S)))
    return headers


def _reply(status: int, slug: str, title: str, detail: str, request_id: str, fields: tuple[tuple[str, str], ...] = ()) -> Reply:
    document: dict[str, object] = {"type": slug, "title": title, "status": status, "detail": detail, "request_id": request_id}
    if fields:
        document["errors"] = [{"field": name, "message": message} for name, message in fields]
    body = json.dumps(document, ensure_ascii=False).encode()
    return Reply(status, [("Content-Type", PROBLEM_JSON), ("Cache-Control", "no-store")], body)


def accepted_form(reply: Reply, request: Request, strict: bool) -> Reply:
    """The problem in the form the caller reads, which is JSON in the REST interface.

    Where none fits, as when only images are accepted, it is JSON too, which programs that ask for images read; in strict mode
    the page that PS3.18 8.6.3 wants.
    """
    accept = request.header("Accept")
    if request.path.startswith("/api/") or (accept is None and not strict):
        return reply
    form = _form((accept or "*/*")[:_MOST_CHARACTERS]) or (_HTML if strict else PROBLEM_JSON)
    reply.headers.append(("Vary", "Accept"))
    if form != PROBLEM_JSON:
        assert isinstance(reply.body, bytes)
        document = json.loads(reply.body)
        reply.body = _ENCODERS[form](document).encode()
        reply.headers = [(name, form if name == "Content-Type" else value) for name, value in reply.headers]
    return reply


@lru_cache(maxsize=256)
def _form(accept: str) -> str | None:
    """The form liked best by the most specific range that fits it."""
    ranges = [(found[1].lower(), float(found[2] or 1)) for one in accept.split(",") if (found := _RANGE.fullmatch(one))]

    def liking(names: tuple[str, ...]) -> float:
        for wanted in (names, (names[0].partition("/")[0] + "/*",), ("*/*",)):
            fitting = [quality for name, quality in ranges if name in wanted]
            if fitting:
                return max(fitting)
        return 0.0

    liked = {form: liking(names) for form, names in _FORMS.items()}
    best = max(liked, key=liked.__getitem__)
    return best if liked[best] > 0 else None


def _lines(document: dict[str, object]) -> list[tuple[str, str]]:
    return [(name, str(document[name])) for name in ("title", "status", "detail", "request_id", "type")]


def _as_page(document: dict[str, object]) -> str:
    title = escape(f"{document['status']} {document['title']}")
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in _lines(document)[2:])
    head = f'<meta charset="utf-8"><title>{title}</title>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{title}</h1><dl>{rows}</dl></body></html>'


def _as_xml(document: dict[str, object]) -> str:
    """The XML of RFC 7807, appendix A."""
    rows = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in _lines(document))
    return f'<?xml version="1.0" encoding="UTF-8"?><problem xmlns="urn:ietf:rfc:7807">{rows}</problem>'


def _as_text(document: dict[str, object]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in _lines(document))


_ENCODERS = {_HTML: _as_page, _XML: _as_xml, _PLAIN: _as_text}

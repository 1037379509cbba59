"""Errors as `application/problem+json` (RFC 9457): the only place where an error becomes an HTTP answer."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus

from pacslite import errors
from pacslite.error_map import mapping_of
from pacslite.web.messages import Headers, Reply

log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_S = 2


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
        headers.append(("WWW-Authenticate", 'Bearer realm="pacslite"'))
    elif status == 503:
        headers.append(("Retry-After", str(RETRY_AFTER_S)))
    return headers


def _reply(status: int, slug: str, title: str, detail: str, request_id: str, fields: tuple[tuple[str, str], ...] = ()) -> Reply:
    document: dict[str, object] = {"type": slug, "title": title, "status": status, "detail": detail, "request_id": request_id}
    if fields:
        document["errors"] = [{"field": name, "message": message} for name, message in fields]
    body = json.dumps(document, ensure_ascii=False).encode()
    return Reply(status, [("Content-Type", PROBLEM_JSON), ("Cache-Control", "no-store")], body)

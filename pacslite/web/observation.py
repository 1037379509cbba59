"""What is counted, and logged, of each web request when it is over."""

from __future__ import annotations

import logging
from typing import Any

from pacslite import metrics
from pacslite.web.messages import Request, Route

_log = logging.getLogger(__name__)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


# What a module is called where its name says less than what it serves.
_CALLED = {"representations": "retrieve", "wado": "frames", "description": "openapi"}


def route_class(route: Route | None) -> str:
    """The word under which a route is counted: the module that serves it, or "none" for a path without a route."""
    if route is None:
        return "none"
    name = route.handler.__module__.rpartition(".")[2]
    return _CALLED.get(name, name)


def note(environ: dict[str, Any], response: Any, seconds: float, *, logs: bool) -> None:
    """Counts a request; with `logs` it is a line of the log too, without its URL, which may hold a name."""
    route = environ.get("pacslite.route")
    name, method = route_class(route), environ.get("REQUEST_METHOD", "")
    method = method if method in _METHODS else metrics.OTHER
    status = response.status_code
    length = response.response_length
    sent = length if length is not None and method != "HEAD" else response.sent
    metrics.HTTP_SECONDS.observe(seconds, name, method, f"{status // 100}xx" if status else "broken")
    metrics.HTTP_SENT_BYTES.add(name, amount=sent)
    if logs:
        about: dict[str, Any] = {"method": method, "route": route.rule if route is not None else None, "status": status}
        request = environ.get("pacslite.request")
        if isinstance(request, Request):
            about |= {"request_id": request.request_id, "actor": request.actor, "address": request.address}
        _log.info("request", extra={**about, "bytes": sent, "duration_ms": round(seconds * 1000, 1)})

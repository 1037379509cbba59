"""One request from environment to answer: hooks, handler, the single catch, and the headers every answer has.

`web.app` and `web.front` both come here, so a resource behaves the same whichever of them carries it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pacslite import tracing
from pacslite.core.access import seen_by, visibility
from pacslite.errors import PacsliteError
from pacslite.logs import add, bound
from pacslite.settings import Settings
from pacslite.web.addresses import HostCheck, host_check
from pacslite.web.encodings import check_charset, compressed, is_compressible, tag_of_gzip, takes_gzip
from pacslite.web.incoming import drain
from pacslite.web.messages import Headers, Reply, Request, Route
from pacslite.web.problems import accepted_form, http_problem, problem
from pacslite.web.replies import Environ, StartResponse, conditional, send
from pacslite.web.security_headers import Added, security_headers

Hook = Callable[[Any, Request, Route], None]
Record = Callable[[Any, Request, Route, Mapping[str, str], int], None]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_EXPOSED = (
    "ETag, Location, Content-Location, Content-Disposition, Content-Range, Retry-After, Warning, X-Request-ID, "
    "Upload-Offset, Upload-Length, Upload-Defer-Length, Upload-Expires, Upload-Metadata, Upload-Concat, "
    "Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm"
)
_ALLOWED_HEADERS = (
    "Accept, Authorization, Cache-Control, Content-Type, If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, "
    "Range, X-Requested-With, X-Request-ID, "
    "Upload-Offset, Upload-Length, Upload-Defer-Length, Upload-Metadata, Upload-Concat, Upload-Checksum, Tus-Resumable, "
    "X-HTTP-Method-Override"
)
_PREFLIGHT_VARY = "Access-Control-Request-Method, Access-Control-Request-Headers"


@dataclass(frozen=True, slots=True)
class Site:
    """What every request needs: the application, its settings, and the hooks called before each handler.

    A hook raises (Unauthenticated, Forbidden, TooManyRequests) to refuse, or fills `request.principal`. `record` puts what came
    of a request on record before it is answered.
    """

    pacs: Any
    settings: Settings
    before: tuple[Hook, ...] = ()
    record: Record | None = None
    _check_host: HostCheck | None = field(init=False)
    _security_headers: Added = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_check_host", host_check(self.settings))
        object.__setattr__(self, "_security_headers", security_headers(self.settings))

    def request(self, environ: Environ) -> Request:
        """The request of this environment; the same object for the same environment."""
        known = environ.get("pacslite.request")
        if isinstance(known, Request):
            return known
        given = environ.get("HTTP_X_REQUEST_ID")
        request_id = given if given and _REQUEST_ID.fullmatch(given) else os.urandom(8).hex()
        request = Request(environ, request_id, self.settings.public_url, self.settings.trusted_proxies)
        environ["pacslite.request"] = request
        return request

    def answer(self, request: Request, route: Route, arguments: Mapping[str, str]) -> Reply:
        """What the handler replies, or the problem it ended in; never raises."""
        request.environ["pacslite.route"] = route
        # NUL is in no name here, and no text that PostgreSQL is asked about holds one.
        arguments = {name: value.replace("\0", _REPLACEMENT) for name, value in arguments.items()}
        if not tracing.is_on():
            return self._answer(request, route, arguments)
        carrier = {name: request.header(name) for name in ("traceparent", "tracestate")}
        with tracing.entry(f"{request.method} {route.rule}", carrier, request_id=request.request_id) as span:
            reply = self._answer(request, route, arguments)
            span.set_attributes(
                {"http.request.method": request.method, "http.route": route.rule, "http.response.status_code": reply.status}
            )
        return reply

    def _answer(self, request: Request, route: Route, arguments: Mapping[str, str]) -> Reply:
        try:
            if self._check_host is not None:
                self._check_host(request.environ)
            if request.method != "OPTIONS":  # what there is, anybody may ask (PS3.18 8.9, Fetch 3.2)
                for hook in self.before:
                    hook(self.pacs, request, route)
                if request.actor:
                    add(actor=request.actor)
            if route.check is not None:
                route.check(request)
            # Whatever the handler reads, it reads as the caller may see it.
            reply = route.handler(seen_by(self.pacs, visibility(request.principal)), request, **arguments)
            return self._recorded(request, route, arguments, _finished(request, reply) if request.method in ("GET", "HEAD") else reply)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is becomes an answer
            if request.method not in ("GET", "HEAD"):
                drain(request.environ)
            return self._recorded(request, route, arguments, self.problem(request, error))

    def _recorded(self, request: Request, route: Route, arguments: Mapping[str, str], reply: Reply) -> Reply:
        """The reply once it is on record; what cannot be put on record is not given out."""
        if self.record is None:
            return reply
        try:
            self.record(self.pacs, request, route, arguments, reply.status)
        except PacsliteError as error:
            return self.problem(request, error)
        return reply

    def problem(self, request: Request, error: Exception) -> Reply:
        """The answer to a request that ended in this error."""
        return accepted_form(problem(error, request.request_id), request, self.settings.strict_accept)

    def http_problem(self, request: Request, status: int, detail: str) -> Reply:
        """The answer to a request that never reached a handler."""
        return accepted_form(http_problem(status, detail, request.request_id), request, self.settings.strict_accept)

    def respond(self, environ: Environ, start_response: StartResponse, route: Route, arguments: Mapping[str, str]) -> Iterable[bytes]:
        """The whole way: answer, common headers, body."""
        request = self.request(environ)
        with bound(request_id=request.request_id):
            reply = self.answer(request, route, arguments)
            reply.headers += self.common_headers(request, reply.headers)
            try:
                return send(reply, environ, start_response)
            except PacsliteError as error:
                reply = self.problem(request, error)
                reply.headers += self.common_headers(request, reply.headers)
                return send(reply, environ, start_response)

    def common_headers(self, request: Request, present: Headers) -> Headers:
        """What is added to every answer: request id, protection against sniffing and framing, CORS when configured."""
        origins = self.settings.cors_origins
        headers = [("X-Request-ID", request.request_id), *self._security_headers(request.environ, present)]
        route = request.environ.get("pacslite.route")
        if route is not None:
            headers += route.always
        if origins:
            headers.append(("Vary", "Origin"))
            origin = request.header("Origin")
            if origin in origins:
                headers += [("Access-Control-Allow-Origin", str(origin)), ("Access-Control-Expose-Headers", _EXPOSED)]
        return headers

    def preflight(self, request: Request) -> Reply | None:
        """The answer to a CORS preflight (Fetch standard 3.2.2), which carries no credentials; None when it is none."""
        if request.method != "OPTIONS" or not request.header("Access-Control-Request-Method"):
            return None
        if request.header("Origin") not in self.settings.cors_origins:
            return Reply(204, [("Vary", _PREFLIGHT_VARY)])
        return Reply(
            204,
            [
                ("Vary", _PREFLIGHT_VARY),
                ("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
                ("Access-Control-Allow-Headers", _ALLOWED_HEADERS),
                ("Access-Control-Max-Age", "7200"),
            ],
        )


def _finished(request: Request, reply: Reply) -> Reply:
    """The reply after what HTTP adds to every answer: compression, conditions, ranges."""
    check_charset(request, reply)
    if not is_compressible(reply):
        return conditional(request, reply)
    if "Accept-Encoding" not in (reply.header("Vary") or ""):  # what chose among kept forms has said so
        reply.headers.append(("Vary", "Accept-Encoding"))
    # A range is of the plain bytes.
    if request.header("Range") is not None or not takes_gzip(request):
        return conditional(request, reply)
    reply.headers = [(name, tag_of_gzip(value) if name == "ETag" else value) for name, value in reply.headers]
    reply.headers.append(("Content-Encoding", "gzip"))
    answered = conditional(request, reply)
    if answered is reply:
        assert isinstance(reply.body, bytes)
        reply.body = compressed(reply.body)
    return answered

"""One request from environment to answer: hooks, handler, the single catch, and the headers every answer has.

`web.app` and `web.front` both come here, so a resource behaves the same whichever of them carries it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pacslite.errors import PacsliteError
from pacslite.logs import bound
from pacslite.settings import Settings
from pacslite.web.incoming import drain
from pacslite.web.messages import Handler, Headers, Reply, Request
from pacslite.web.problems import problem
from pacslite.web.replies import Environ, StartResponse, conditional, send

Hook = Callable[[Any, Request], None]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_EXPOSED = (
    "ETag, Location, Content-Location, Content-Disposition, Content-Range, Retry-After, Warning, X-Request-ID, "
    "Upload-Offset, Upload-Length, Upload-Expires, Upload-Metadata, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size"
)
_ALLOWED_HEADERS = (
    "Accept, Authorization, Content-Type, If-Match, If-None-Match, If-Range, Range, X-Request-ID, "
    "Upload-Offset, Upload-Length, Upload-Metadata, Upload-Concat, Upload-Checksum, Tus-Resumable"
)


@dataclass(frozen=True, slots=True)
class Site:
    """What every request needs: the application, its settings, and the hooks called before each handler.

    A hook raises (Unauthenticated, Forbidden, TooManyRequests) to refuse, or fills `request.actor`.
    """

    pacs: Any
    settings: Settings
    before: tuple[Hook, ...] = ()

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

    def answer(self, request: Request, handler: Handler, arguments: Mapping[str, str]) -> Reply:
        """What the handler replies, or the problem it ended in; never raises."""
        try:
            for hook in self.before:
                hook(self.pacs, request)
            reply = handler(self.pacs, request, **arguments)
            return conditional(request, reply) if request.method in ("GET", "HEAD") else reply
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is becomes an answer
            if request.method not in ("GET", "HEAD"):
                drain(request.environ)
            return problem(error, request.request_id)

    def respond(self, environ: Environ, start_response: StartResponse, handler: Handler, arguments: Mapping[str, str]) -> Iterable[bytes]:
        """The whole way: answer, common headers, body."""
        request = self.request(environ)
        with bound(request_id=request.request_id):
            reply = self.answer(request, handler, arguments)
            reply.headers += self.common_headers(request, reply.headers)
            try:
                return send(reply, environ, start_response)
            except PacsliteError as error:
                reply = problem(error, request.request_id)
                reply.headers += self.common_headers(request, reply.headers)
                return send(reply, environ, start_response)

    def common_headers(self, request: Request, present: Headers) -> Headers:
        """What is added to every answer: request id, protection against sniffing and framing, CORS when configured."""
        origins = self.settings.cors_origins
        headers = [
            ("X-Request-ID", request.request_id),
            ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "cross-origin" if origins else "same-origin"),
        ]
        if not any(name.lower() == "content-security-policy" for name, _ in present):
            headers.append(("Content-Security-Policy", "default-src 'none'; frame-ancestors 'self'"))
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
            return Reply(204)
        return Reply(
            204,
            [
                ("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
                ("Access-Control-Allow-Headers", _ALLOWED_HEADERS),
                ("Access-Control-Max-Age", "7200"),
            ],
        )

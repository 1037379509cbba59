"""The Flask factory: route tables in, one WSGI application out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from pacslite.core import passwords
from pacslite.logs import bound
from pacslite.web.front import Front, WsgiApplication
from pacslite.web.incoming import drain
from pacslite.web.messages import Reply, Route
from pacslite.web.replies import send
from pacslite.web.site import Hook, Record, Site
from pacslite.web.threads import aside


def create(pacs: Any, routes: Sequence[Route], before: tuple[Hook, ...] = (), record: Record | None = None) -> WsgiApplication:
    """The web application of `pacs`: hot routes past Flask, the others through it."""
    passwords.waits = aside
    site = Site(pacs, pacs.settings, before, record)
    return Front(site, routes, create_flask(site, routes))


def create_flask(site: Site, routes: Iterable[Route]) -> Flask:
    """The Flask application, which serves every route, the hot ones too."""
    app = Flask("pacslite", static_folder=None)
    # A path is taken as it is: no redirect to a tidier one.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    for route in routes:
        endpoint = f"{route.method} {route.rule}"
        app.add_url_rule(route.rule, endpoint, _view(site, route), methods=[route.method])

    @app.before_request
    def preflight() -> Response | None:
        if request.method != "OPTIONS":
            return None
        reply = site.preflight(site.request(request.environ))
        if reply is None and request.url_rule is not None and not request.url_rule.endpoint.startswith("OPTIONS "):
            allowed = app.create_url_adapter(request).allowed_methods()  # type: ignore[union-attr]
            reply = Reply(204, [("Allow", ", ".join(sorted(allowed)))])
        return None if reply is None else _response(reply)

    @app.after_request
    def common_headers(response: Response) -> Response:
        for name, value in site.common_headers(site.request(request.environ), list(response.headers)):
            response.headers.add(name, value)
        return response

    @app.errorhandler(HTTPException)
    def of_http(error: HTTPException) -> Response:
        return _response(_of_http(error, site))

    @app.errorhandler(Exception)
    def of_others(error: Exception) -> Response:
        ours = site.request(request.environ)
        with bound(request_id=ours.request_id):
            return _response(site.problem(ours, error))

    return app


def _view(site: Site, route: Route) -> Callable[..., Response]:
    def view(**arguments: str) -> Response:
        ours = site.request(request.environ)
        with bound(request_id=ours.request_id):
            return _response(site.answer(ours, route, arguments))

    return view


def _response(reply: Reply) -> Response:
    """A Flask response that carries the reply as `send` would; its body passes Flask untouched."""
    started: list[Any] = []
    body = send(reply, request.environ, lambda status, headers: started.extend((status, headers)))
    response = Response(body, status=started[0], direct_passthrough=True)
    response.headers.clear()
    # HEAD of what has no known length has none either (RFC 9110 8.6); Werkzeug would make it 0.
    response.automatically_set_content_length = False
    for name, value in started[1]:
        response.headers.add(name, value)
    return response


def _of_http(error: HTTPException, site: Site) -> Reply:
    if request.method not in ("GET", "HEAD"):
        drain(request.environ)
    status = error.code or 500
    reply = site.http_problem(site.request(request.environ), status, _DETAILS.get(status, error.description or ""))
    allowed = getattr(error, "valid_methods", None)
    if status == 405 and allowed:
        reply.headers.append(("Allow", ", ".join(sorted(allowed))))
    return reply


_DETAILS = {404: "There is no such resource.", 405: "The resource has no such method."}

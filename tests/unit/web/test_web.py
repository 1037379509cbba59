"""Requests and replies: the same answer whether Flask or the front carries it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pacslite import errors
from pacslite.core.access import Right
from pacslite.settings import Settings, load
from pacslite.web.app import create_flask
from pacslite.web.front import Front
from pacslite.web.messages import FileBody, Reply, Request, Route, SegmentsBody, StreamBody
from pacslite.web.site import Site


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def call(application: Callable[..., Iterable[bytes]], path: str, method: str = "GET", **environ: str) -> Answer:
    started: list[Any] = []
    whole: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "pacs",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "10.0.0.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        **environ,
    }
    body = application(whole, lambda status, headers, exc_info=None: started.extend((status, headers)))
    data = b"".join(body)
    if hasattr(body, "close"):
        body.close()
    return Answer(int(started[0].split()[0]), {k.lower(): v for k, v in started[1]}, data)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(bytes(range(100)))
    return path


def routes(file: Path) -> list[Route]:
    def echo(pacs: object, request: Request, word: str) -> Reply:
        return Reply(200, [("Content-Type", "text/plain"), ("ETag", '"v1"')], f"{pacs} {word} {request.base_url}".encode())

    def whole(pacs: object, request: Request) -> Reply:
        return Reply(200, [("Content-Type", "application/octet-stream"), ("ETag", '"f"')], FileBody(file, 10, 80))

    def parts(pacs: object, request: Request) -> Reply:
        return Reply(200, [], SegmentsBody([b"<", FileBody(file, 1, 3), StreamBody(2, lambda: iter([b"a", b"b"])), b">"]))

    def missing(pacs: object, request: Request) -> Reply:
        return Reply(200, [], FileBody(file.with_name("none"), 0, 1))

    def short(pacs: object, request: Request) -> Reply:
        return Reply(200, [], FileBody(file, 90, 11))

    def refused(pacs: object, request: Request) -> Reply:
        raise errors.InvalidForm("Two fields are wrong.", (("a", "is missing"), ("b", "is none of x, y")))

    def busy(pacs: object, request: Request) -> Reply:
        raise errors.Busy("The catalog is busy.")

    def broken(pacs: object, request: Request) -> Reply:
        raise ZeroDivisionError("secret")

    handlers = {"whole": whole, "parts": parts, "missing": missing, "short": short, "refused": refused, "busy": busy, "broken": broken}
    return [
        Route("GET", "/echo/<word>", echo, Right.PUBLIC, hot=True),
        *(Route("GET", f"/{name}", h, Right.PUBLIC, hot=True) for name, h in handlers.items()),
    ]


@pytest.fixture(params=["flask", "front"])
def make(request: pytest.FixtureRequest, file: Path) -> Callable[..., Any]:
    def build(settings: Settings | None = None, before: Any = ()) -> Any:
        site = Site("pacs", settings or load(environment={}), before)
        flask = create_flask(site, routes(file))
        if request.param == "flask":
            return flask
        return Front(site, routes(file), flask)

    return build


def test_a_handler_is_carried_with_its_arguments_and_common_headers(make: Any) -> None:
    answer = call(make(), "/echo/hello")
    assert (answer.status, answer.body) == (200, b"pacs hello http://pacs:80")
    assert answer.headers["content-length"] == "25"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert len(answer.headers["x-request-id"]) == 16


def test_a_request_id_of_the_caller_is_kept_when_well_formed(make: Any) -> None:
    assert call(make(), "/echo/x", HTTP_X_REQUEST_ID="abc-1.2_3").headers["x-request-id"] == "abc-1.2_3"
    assert call(make(), "/echo/x", HTTP_X_REQUEST_ID="a b").headers["x-request-id"] != "a b"


def test_head_is_get_without_body(make: Any) -> None:
    for path in ("/echo/hello", "/whole", "/parts"):
        got, head = call(make(), path, HTTP_X_REQUEST_ID="r"), call(make(), path, "HEAD", HTTP_X_REQUEST_ID="r")
        assert head.body == b""
        assert head.headers == got.headers


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=0-9", 206, range(10, 20), "bytes 0-9/80"),
        ("bytes=70-", 206, range(80, 90), "bytes 70-79/80"),
        ("bytes=70-1000", 206, range(80, 90), "bytes 70-79/80"),
        ("bytes=-5", 206, range(85, 90), "bytes 75-79/80"),
        ("bytes=-1000", 206, range(10, 90), "bytes 0-79/80"),
        ("bytes=80-", 416, None, "bytes */80"),
        ("bytes=-0", 416, None, "bytes */80"),
        ("bytes=9-0", 200, range(10, 90), None),
        ("bytes=0-1,3-4", 200, range(10, 90), None),
        ("lines=0-1", 200, range(10, 90), None),
        ("bytes=-", 200, range(10, 90), None),
    ],
)
def test_ranges_of_a_single_part_body(make: Any, asked: str, status: int, body: range | None, content_range: str | None) -> None:
    answer = call(make(), "/whole", HTTP_RANGE=asked)
    assert (answer.status, answer.headers.get("content-range")) == (status, content_range)
    if body is not None:
        assert answer.body == bytes(body)
        assert answer.headers["content-length"] == str(len(body))


def test_a_range_counts_only_for_the_version_it_names(make: Any) -> None:
    assert call(make(), "/whole", HTTP_RANGE="bytes=0-1", HTTP_IF_RANGE='"f"').status == 206
    assert call(make(), "/whole", HTTP_RANGE="bytes=0-1", HTTP_IF_RANGE='"old"').status == 200


@pytest.mark.parametrize(("header", "status"), [('"v1"', 304), ('W/"v1"', 304), ('"a", "v1"', 304), ("*", 304), ('"v2"', 200)])
def test_what_the_caller_has_is_not_sent_again(make: Any, header: str, status: int) -> None:
    answer = call(make(), "/echo/x", HTTP_IF_NONE_MATCH=header)
    assert answer.status == status
    assert answer.headers["etag"] == '"v1"'
    assert (answer.body == b"") == (status == 304)
    assert ("content-length" in answer.headers) == (status == 200)


def test_segments_are_sent_in_order_with_their_length(make: Any) -> None:
    answer = call(make(), "/parts")
    assert (answer.body, answer.headers["content-length"]) == (b"<\x01\x02\x03ab>", "7")


@pytest.mark.parametrize("path", ["/missing", "/short"])
def test_bytes_that_are_not_there_are_an_error_before_anything_is_sent(make: Any, path: str) -> None:
    answer = call(make(), path)
    assert answer.status == 500
    assert json.loads(answer.body)["type"] == "blob-missing"


def test_a_problem_names_the_fields_and_the_request(make: Any) -> None:
    answer = call(make(), "/refused", HTTP_X_REQUEST_ID="r1")
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body) == {
        "type": "invalid-form",
        "title": "Invalid request body",
        "status": 400,
        "detail": "Two fields are wrong.",
        "request_id": "r1",
        "errors": [{"field": "a", "message": "is missing"}, {"field": "b", "message": "is none of x, y"}],
    }


def test_busy_says_when_to_come_again(make: Any) -> None:
    answer = call(make(), "/busy")
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")


def test_an_unforeseen_error_shows_nothing_of_itself(make: Any) -> None:
    answer = call(make(), "/broken")
    assert (answer.status, json.loads(answer.body)["type"]) == (500, "internal-error")
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body


def test_unknown_paths_and_methods_are_problems(make: Any) -> None:
    assert json.loads(call(make(), "/none").body)["status"] == 404
    answer = call(make(), "/echo/x", "DELETE")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert answer.headers["content-type"] == "application/problem+json"


def test_hooks_come_before_every_handler_and_may_refuse(make: Any) -> None:
    def hook(pacs: object, request: Request, route: Route) -> None:
        if request.header("Authorization") is None:
            raise errors.Unauthenticated("No credentials.")

    application = make(before=(hook,))
    answer = call(application, "/echo/x")
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="pacslite"')
    assert call(application, "/echo/x", HTTP_AUTHORIZATION="Bearer x").status == 200


def test_cors_is_for_configured_origins_only(make: Any) -> None:
    application = make(load(environment={}, cors_origins="https://a.example,https://b.example"))
    allowed = call(application, "/echo/x", HTTP_ORIGIN="https://a.example")
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    assert "ETag" in allowed.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in call(application, "/echo/x", HTTP_ORIGIN="https://c.example").headers
    assert "access-control-allow-origin" not in call(make(), "/echo/x", HTTP_ORIGIN="https://a.example").headers
    # An error has the headers too, or the script cannot read it.
    assert call(application, "/busy", HTTP_ORIGIN="https://a.example").headers["access-control-allow-origin"] == "https://a.example"


def test_a_preflight_needs_no_login(make: Any) -> None:
    def hook(pacs: object, request: Request, route: Route) -> None:
        raise errors.Unauthenticated("No credentials.")

    application = make(load(environment={}, cors_origins="https://a.example"), (hook,))
    answer = call(application, "/echo/x", "OPTIONS", HTTP_ORIGIN="https://a.example", HTTP_ACCESS_CONTROL_REQUEST_METHOD="GET")
    assert answer.status == 204
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-allow-origin"] == "https://a.example"


@pytest.mark.parametrize(
    ("settings", "environ", "expected"),
    [
        ({}, {"HTTP_HOST": "h.example:8080"}, "http://h.example:8080"),
        ({}, {"HTTP_HOST": "[::1]:80", "SCRIPT_NAME": "/pacs/"}, "http://[::1]:80/pacs"),
        ({"public_url": "https://p.example/x/"}, {"HTTP_HOST": "h"}, "https://p.example/x"),
        ({}, {"HTTP_HOST": "h", "HTTP_X_FORWARDED_HOST": "evil"}, "http://h"),
        ({}, {"HTTP_HOST": "", "SERVER_NAME": "::1", "SERVER_PORT": "8080"}, "http://[::1]:8080"),
        # A Host without the port, as dicomweb-client sends it, is completed when it is the address that was called.
        ({}, {"HTTP_HOST": "localhost", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8080"}, "http://localhost:8080"),
        ({}, {"HTTP_HOST": "10.0.0.9", "SERVER_NAME": "10.0.0.9", "SERVER_PORT": "8080"}, "http://10.0.0.9:8080"),
        ({}, {"HTTP_HOST": "localhost", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "80"}, "http://localhost"),
        ({}, {"HTTP_HOST": "pacs.example", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8080"}, "http://pacs.example"),
        (
            {},
            {"HTTP_HOST": "localhost", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8080", "HTTP_X_FORWARDED_FOR": "::1"},
            "http://localhost",
        ),
        (
            {"trusted_proxies": "10.0.0.1"},
            {"HTTP_HOST": "h", "HTTP_X_FORWARDED_HOST": "p.example, q", "HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_PREFIX": "/a"},
            "https://p.example/a",
        ),
        (
            {"trusted_proxies": "10.0.0.1"},
            {"HTTP_HOST": "h", "HTTP_FORWARDED": 'for=1.2.3.4;proto=https;host="p.example:8443"'},
            "https://p.example:8443",
        ),
    ],
)
def test_the_base_url_is_the_one_the_caller_sees(settings: dict[str, str], environ: dict[str, str], expected: str) -> None:
    given = load(environment={}, **settings)
    whole = {"REQUEST_METHOD": "GET", "REMOTE_ADDR": "10.0.0.1", "wsgi.url_scheme": "http", **environ}
    assert Request(whole, "", given.public_url, given.trusted_proxies).base_url == expected


@pytest.mark.parametrize("host", ['h"', "h/x", "h\\", "h e", "<h>"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(errors.BadRequest):
        _ = Request({"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "HTTP_HOST": host}).base_url


def test_the_query_is_decoded_and_bounded() -> None:
    def query(text: str) -> list[tuple[str, str]]:
        return Request({"REQUEST_METHOD": "GET", "QUERY_STRING": text}).query

    assert query("a=1&b=%C3%A9+x%2B&a=&c") == [("a", "1"), ("b", "é x+"), ("a", ""), ("c", "")]
    for text in ("a=%ff", "&".join(["a=1"] * 1001)):
        with pytest.raises(errors.BadRequest):
            query(text)


def test_frozen_routes_must_agree_on_names() -> None:
    site = Site(SimpleNamespace(), load(environment={}))
    handler = lambda pacs, request: Reply(200)  # noqa: E731
    with pytest.raises(ValueError, match="called a elsewhere"):
        Front(
            site,
            [Route("GET", "/x/<a>", handler, Right.PUBLIC, hot=True), Route("GET", "/x/<b>/y", handler, Right.PUBLIC, hot=True)],
            lambda *_: (),
        )

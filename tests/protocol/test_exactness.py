"""What nobody has described is refused, not ignored: unknown query parameters, and fields where an operation takes none."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pacslite.core.access import Right
from tests.support.file_site import Site, file_site
from tests.support.http import Answer

API = "/api/v1"
OTHERS_ASK = {"/health/live", "/health/ready", "/metrics"}
"""What monitors ask, who append what they like."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with file_site(tmp_path_factory.mktemp("exactness")) as found:
        yield found


def operations() -> list[Any]:
    """All that the server has."""
    from pacslite import admin, files

    return [one for one in (*admin.OPERATIONS, *files.OPERATIONS) if one.path not in OTHERS_ASK and one.right is not Right.PUBLIC]


def path_of(operation: Any) -> str:
    return API + re.sub(r"\{\w+\}", "1", operation.path)


def refused(answer: Answer, method: str, *fields: str) -> None:
    assert answer.status == 400, answer
    if method != "HEAD":
        problem = json.loads(answer.body)
        assert problem["type"] == "invalid-form"
        assert [one["field"] for one in problem["errors"]] == list(fields)


@pytest.mark.parametrize("operation", operations(), ids=lambda one: f"{one.method} {one.path}")
def test_unknown_parameters_are_400(site: Site, operation: Any) -> None:
    headers = {"Content-Type": "application/json"}
    refused(site.ask(operation.method, path_of(operation) + "?foreign=1", b"{}", headers, site.admin), operation.method, "foreign")


@pytest.mark.parametrize(
    "operation",
    [one for one in operations() if one.form is None and one.method in ("POST", "PUT", "PATCH") and "/uploads" not in one.path],
    ids=lambda one: f"{one.method} {one.path}",
)
def test_fields_where_there_is_no_form_are_400(site: Site, operation: Any) -> None:
    headers = {"Content-Type": "application/json"}
    refused(site.ask(operation.method, path_of(operation), b'{"foreign": 1}', headers, site.admin), operation.method, "foreign")
    for body in (b'{"foreign', b"[" * 200_000, b"[1]"):
        assert site.ask(operation.method, path_of(operation), body, headers, site.admin).status == 400
    for body in (b"", b"{}", b"null"):
        assert site.ask(operation.method, path_of(operation), body, headers, site.admin).status != 400


def test_monitors_may_append_what_they_like(site: Site) -> None:
    for path in sorted(OTHERS_ASK):
        assert site.ask("GET", f"{path}?at=1", None, {}, site.admin).status == 200


@pytest.mark.parametrize(("method", "path", "status"), [("PUT", "/changes", 405), ("POST", "/none", 404), ("DELETE", "/patients", 405)])
def test_a_connection_goes_on_after_a_body_that_nobody_takes(site: Site, method: str, path: str, status: int) -> None:
    """RFC 9112, 9.6: a server that closes says so; else the client's next request meets a connection that is being closed."""
    connection = http.client.HTTPConnection("127.0.0.1", site.guarded.server.port, timeout=60)
    for size, said in ((500_000, "keep-alive"), (10, "keep-alive"), (10_000_000, "close")):
        connection.request(method, API + path, b"x" * size, {"Authorization": f"Bearer {site.admin}"})
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, answer.headers["Connection"]) == (status, said)
    connection.close()

"""What the log of a server says of requests, and what it never says."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.processes import Server, serving, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        tmp_path_factory.mktemp("logs") / "data", "--dimse-processes", "1", "--web-processes", "1", PACSLITE_LOG_LEVEL="debug"
    ) as it:
        yield it


def said(server: Server, request_id: str) -> dict[str, Any]:
    """The line about one request."""

    def line() -> dict[str, Any] | None:
        lines = [json.loads(text) for text in server.logged().splitlines()]
        return next((each for each in lines if each.get("request_id") == request_id), None)

    found: dict[str, Any] = until(line, what=f"a line about {request_id}")
    return found


def raw(server: Server, request: bytes) -> tuple[int, dict[str, str], bytes]:
    with socket.create_connection(server.ready["http"].split(":"), timeout=60) as connection:
        connection.sendall(request)
        with closing(http.client.HTTPResponse(connection)) as answer:
            answer.begin()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def stow(server: Server, request_id: str, *files: bytes) -> int:
    with closing(http.client.HTTPConnection(server.ready["http"], timeout=60)) as connection:
        connection.request("POST", "/dicom-web/studies", body(files), {"Content-Type": CONTENT_TYPE, "X-Request-ID": request_id})
        return connection.getresponse().status


def test_a_store_over_the_web_is_one_line_that_tells_what_became_of_it(server: Server) -> None:
    ds = image()
    ds.PatientName, ds.PatientID = "Sickman^Secretus", "SECRETID"
    assert stow(server, "stored-1", part10(ds)) == 200
    line = said(server, "stored-1")
    assert (line["action"], line["object_id"], line["outcome"]) == ("study.store", ds.StudyInstanceUID, "success")
    assert (line["stored"], line["refused"]) == (1, 0)
    assert stow(server, "refused-1", part10(ds)[:-40]) == 409
    assert said(server, "refused-1")["outcome"] == "refused"
    assert said(server, "refused-1")["reasons"]
    assert "sickman" not in server.logged().lower()
    assert "SECRETID" not in server.logged()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        ("GET /dicom-web/studies?PatientName=Sickman^Ödön HTTP/1.1\r\nHost: h\r\n\r\n".encode(), 400),
        (b"GET /dicom-web/studies?PatientName=Sickman HTTP/1.1\r\nHost: h\r\nPatient Sickman\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nSick\xffman: x\r\n\r\n", 400),
        (b"GET /?a=Sickman" + b"a" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX-A: Sickman" + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nExpect: Sickman\r\nContent-Length: 1\r\n\r\na", 417),
    ],
)
def test_a_malformed_request_gets_a_problem_and_is_not_repeated(server: Server, request_bytes: bytes, status: int) -> None:
    answered, headers, content = raw(server, request_bytes)
    problem = json.loads(content)
    assert (answered, problem["status"], headers["content-type"]) == (status, status, "application/problem+json")
    assert headers["x-request-id"] == problem["request_id"]
    assert said(server, problem["request_id"])["message"] == "malformed request refused"
    assert b"sickman" not in content.lower()
    assert "sickman" not in server.logged().lower()


def test_what_is_made_is_for_the_owner_and_the_group(server: Server) -> None:
    made: list[Path] = list(server.data.rglob("*"))
    assert [path for path in made if path.stat().st_mode & 0o007] == []

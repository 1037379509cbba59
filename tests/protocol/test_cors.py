"""Cross-origin requests over the wire (Fetch standard 3.2), as the REST contract has them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.http import WebServer, running

OURS, OTHER = "https://viewer.example", "https://evil.example"
EXPOSED = {
    "ETag", "Location", "Content-Location", "Content-Disposition", "Content-Range", "Retry-After", "Warning", "X-Request-ID",
    "Upload-Offset", "Upload-Length", "Upload-Expires", "Upload-Metadata", "Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size",
    "Upload-Concat", "Upload-Defer-Length", "Tus-Checksum-Algorithm",
}  # fmt: skip
OF_TUS = {"Tus-Resumable", "Upload-Length", "Upload-Offset", "Upload-Metadata", "Upload-Concat", "Upload-Checksum", "Upload-Defer-Length"}
PATHS = [
    "/dicom-web/studies",
    "/dicom-web/studies/1.2.3/metadata",
    "/api/v1/peers",
    "/dicom-web/nothing",
    "/viewer/",
    "/api/v1/openapi.json",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("cors"), cors_origins=f"https://a.example,{OURS}") as it:
        it.root = ""
        yield it


@pytest.mark.parametrize("path", PATHS)
def test_a_listed_origin_is_echoed_in_errors_too(server: WebServer, path: str) -> None:
    answer = server.get(path, Origin=OURS)
    assert answer.headers["access-control-allow-origin"] == OURS
    assert {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")} == EXPOSED
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", [OTHER, "null", OURS + ".evil.example", OURS.upper() + "/"])
def test_other_origins_get_nothing(server: WebServer, path: str, origin: str) -> None:
    for method in ("GET", "OPTIONS"):
        answer = server.request(method, path, headers={"Origin": origin, "Access-Control-Request-Method": "GET"})
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        # A cache must not give one origin's answer to another.
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("path", PATHS)
def test_a_preflight_needs_no_login_and_allows_what_viewers_and_uploads_send(server: WebServer, path: str) -> None:
    headers = {"Origin": OURS, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization, upload-offset"}
    answer = server.request("OPTIONS", path, headers=headers)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == OURS
    assert {"GET", "POST", "PATCH", "DELETE", "PUT", "HEAD"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    allowed = {name.strip() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert OF_TUS | {"Authorization", "Content-Type", "Accept", "If-Match", "If-None-Match", "Range"} <= allowed
    assert "access-control-allow-credentials" not in answer.headers


def test_without_origins_there_is_no_cors(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("none")) as server:
        answer = server.get("/studies", Origin=OURS)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"

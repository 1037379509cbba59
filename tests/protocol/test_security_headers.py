"""What every answer forbids browsers: a policy by default, no sniffing, no foreign frames, HTTPS for ever where it was used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http import WebServer, running

PATHS = [
    "/",
    "/login",
    "/viewer/",
    "/viewer/app-config.js",
    "/health/live",
    "/api/v1/openapi.json",
    "/dicom-web/studies",
    "/nothing",
    "/api/v1/jobs/x",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("headers"), trusted_proxies="127.0.0.1") as found:
        found.root = ""
        yield found


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("path", PATHS)
def test_every_answer_forbids_sniffing_foreign_frames_and_telling_other_sites(server: WebServer, method: str, path: str) -> None:
    headers = server.request(method, path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] in ("SAMEORIGIN", "DENY")
    assert headers["referrer-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    policy = dict(one.strip().partition(" ")[::2] for one in headers["content-security-policy"].split(";"))
    assert policy["frame-ancestors"] in ("'self'", "'none'")
    assert policy["base-uri"] in ("'self'", "'none'")
    assert policy["default-src"] in ("'none'", "'self'")
    assert policy["form-action"] in ("'self'", "'none'")


@pytest.mark.parametrize("path", ["/health/live", "/dicom-web/studies", "/nothing"])
def test_data_may_load_and_run_nothing(server: WebServer, path: str) -> None:
    policy = server.request("GET", path).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_browsers_that_came_by_tls_are_told_to_stay_there(server: WebServer) -> None:
    told = {"X-Forwarded-Proto": "https"}
    assert server.request("GET", "/health/live", headers=told).headers["strict-transport-security"] == "max-age=31536000"
    assert server.request("GET", "/nothing", headers=told).headers["strict-transport-security"] == "max-age=31536000"
    assert "strict-transport-security" not in server.request("GET", "/health/live").headers
    assert "strict-transport-security" in server.request("GET", "/health/live", headers={"Forwarded": "for=10.0.0.1;proto=https"}).headers


def test_who_is_no_trusted_proxy_says_nothing_about_tls(tmp_path: Path) -> None:
    with running(tmp_path, trusted_proxies="10.9.9.9") as other:
        other.root = ""
        answer = other.request("GET", "/health/live", headers={"X-Forwarded-Proto": "https", "Forwarded": "proto=https"})
    assert "strict-transport-security" not in answer.headers


def test_a_public_url_of_https_says_it_for_all(tmp_path: Path) -> None:
    with running(tmp_path, public_url="https://pacs.example", hsts_seconds="600") as other:
        other.root = ""
        assert other.request("GET", "/health/live").headers["strict-transport-security"] == "max-age=600"

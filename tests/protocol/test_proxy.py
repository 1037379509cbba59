"""Every URL in an answer works through a real proxy with a path prefix (Annex I note; RFC 7239)."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests.support import nginx
from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.http import Answer, WebServer, running

PREFIX = "/imaging/pacs"
BULK = "application/octet-stream"
pytestmark = pytest.mark.skipif(not nginx.found(), reason="there is no nginx")


@dataclass(frozen=True)
class Site:
    """A server and the port of the proxy before it; `url` is what its callers know."""

    server: WebServer
    port: int
    url: str

    def follow(self, url: str, accept: str = "*/*", method: str = "GET", data: bytes | None = None, **headers: str) -> Answer:
        """Asks for an absolute URL as a caller of the proxy would; one that leads past it fails."""
        assert url.startswith(self.url), url
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            target = url.removeprefix(self.url) or "/"
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, PREFIX + target, data, {"Accept": accept, **named})
            reply = connection.getresponse()
            return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()


FORWARDED = ("Host $http_host", "X-Forwarded-Proto $scheme", "X-Forwarded-Host $http_host", f"X-Forwarded-Prefix {PREFIX}")
WAYS: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "the older headers": (FORWARDED, {"trusted_proxies": "127.0.0.1"}, "http://127.0.0.1:{port}"),
    "headers of another scheme and port": (
        ("X-Forwarded-Proto https", "X-Forwarded-Host pacs.example", "X-Forwarded-Port 8443", f"X-Forwarded-Prefix {PREFIX}"),
        {"trusted_proxies": "127.0.0.0/8"},
        "https://pacs.example:8443",
    ),
    "Forwarded": (
        ("Host $http_host", 'Forwarded "for=$remote_addr;proto=$scheme;host=$http_host"', f"X-Forwarded-Prefix {PREFIX}"),
        {"trusted_proxies": "127.0.0.1"},
        "http://127.0.0.1:{port}",
    ),
    "a public URL": ((), {"public_url": "https://pacs.example" + PREFIX + "/"}, "https://pacs.example"),
}


@contextmanager
def site(directory: Path, way: str) -> Iterator[Site]:
    headers, settings, url = WAYS[way]
    directory.mkdir()
    with running(directory, **settings) as server, nginx.proxying(directory / "nginx", server.port, PREFIX, headers) as port:
        yield Site(server, port, url.format(port=port) + PREFIX)


@pytest.fixture(scope="module", params=WAYS)
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Dataset]]:
    with site(tmp_path_factory.mktemp("proxy") / "data", request.param) as it:
        ds = image(np.arange(600, dtype=np.uint16).reshape(1, 20, 30))
        answer = it.follow(f"{it.url}/dicom-web/studies", "application/dicom+json", "POST", body([part10(ds)]), Content_Type=CONTENT_TYPE)
        assert answer.status == 200, answer.body
        for url in urls_of(json.loads(answer.body)):
            assert it.follow(url).status == 200
        yield it, ds


def urls_of(value: Any) -> list[str]:
    """All absolute URLs in a JSON value."""
    return re.findall(r"https?://[^\"\\\s<]+", json.dumps(value))


def test_urls_of_searches_lead_through_the_proxy(proxied: tuple[Site, Dataset]) -> None:
    """Checklist 49: RetrieveURL has the public base URL."""
    it, ds = proxied
    study = f"/dicom-web/studies/{ds.StudyInstanceUID}"
    for path in ("/dicom-web/studies", study + "/series", study + "/instances", "/dicom-web/instances"):
        found = json.loads(it.follow(it.url + path, "application/dicom+json").body)
        (url,) = found[0]["00081190"]["Value"]
        assert found[0]["00081190"]["vr"] == "UR"
        assert it.follow(url).status == 200


@pytest.mark.parametrize("level", [2, 4, 6])
def test_bulk_data_leads_through_the_proxy(proxied: tuple[Site, Dataset], level: int) -> None:
    it, ds = proxied
    whole = f"studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    path = f"{it.url}/dicom-web/{'/'.join(whole.split('/')[:level])}/metadata"
    for encoding in ("identity", "gzip"):
        answer = it.follow(path, "application/dicom+json", Accept_Encoding="identity")
        assert it.follow(path, "application/dicom+json", Accept_Encoding=encoding).status == 200
        (found,) = json.loads(answer.body)
        bulk = it.follow(found["7FE00010"]["BulkDataURI"], BULK)
        assert bulk.body == ds.PixelData
        assert it.follow(found["7FE00010"]["BulkDataURI"], BULK, Range="bytes=-5").body == ds.PixelData[-5:]


def test_parts_are_located_behind_the_proxy(proxied: tuple[Site, Dataset]) -> None:
    """Checklist 18, 21: Content-Location of a part, which is the BulkDataURI of the metadata, leads to the resource."""
    it, ds = proxied
    instance = f"{it.url}/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    for path, accept in (("", "application/dicom"), ("/frames/1", BULK), ("/bulkdata/7FE00010", BULK)):
        answer = it.follow(instance + path, f'multipart/related; type="{accept}"')
        (location,) = re.findall(rb"Content-Location: (\S+)\r\n", answer.body)
        assert it.follow(location.decode()).status == 200
        (length,) = re.findall(rb"Content-Length: (\d+)\r\n", answer.body)
        assert int(length) > 0
    assert location.decode() == instance + "/bulkdata/7FE00010"


def test_the_viewer_and_redirects_stay_behind_the_proxy(proxied: tuple[Site, Dataset]) -> None:
    it, _ = proxied
    answer = it.follow(it.url + "/viewer")
    assert answer.status == 308
    assert urlsplit(answer.headers["location"]).path == PREFIX + "/viewer/"
    assert f'href="{PREFIX}/viewer/"' in it.follow(it.url + "/").body.decode()
    script = it.follow(f"{it.url}/viewer/app-config.js").body.decode()
    config = json.loads(script.partition("=")[2].strip().rstrip(";"))
    assert config["routerBasename"] == PREFIX + "/viewer/"
    source = config["dataSources"][0]["configuration"]
    assert {source[name] for name in ("qidoRoot", "wadoRoot", "wadoUriRoot")} == {PREFIX + "/dicom-web"}


def test_locations_and_pages_of_rest_lead_through_the_proxy(proxied: tuple[Site, Dataset]) -> None:
    it, _ = proxied
    peers = f"{it.url}/api/v1/peers"
    for title in ("A1", "A2", "A3"):
        form = json.dumps({"ae_title": title, "host": "127.0.0.1", "port": 104}).encode()
        made = it.follow(peers, "application/json", "POST", form, Content_Type="application/json")
        assert made.status == 201
        assert made.headers["location"] == f"{peers}/{title}"
    titles, url = [], f"{peers}?limit=2"
    while url:
        page = json.loads(it.follow(url).body)
        titles += [peer["ae_title"] for peer in page["items"]]
        url = page["next"]
    assert titles == ["A1", "A2", "A3"]


def test_the_capabilities_name_the_public_base(proxied: tuple[Site, Dataset]) -> None:
    it, _ = proxied
    described = ElementTree.fromstring(it.follow(f"{it.url}/dicom-web/", "*/*", "OPTIONS").body)
    (resources,) = described
    assert resources.get("base") == f"{it.url}/dicom-web"


def test_a_proxy_that_is_not_trusted_is_not_believed(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        store = image()
        server.request("POST", "/studies", body([part10(store)]), {"Content-Type": CONTENT_TYPE})
        forged = {
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Prefix": "/x",
            "Forwarded": "host=evil.example",
        }
        answer = server.request("GET", "/studies", headers=forged)
        assert b"evil" not in answer.body
        assert server.url.encode() in answer.body

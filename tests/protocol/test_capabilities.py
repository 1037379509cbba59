"""The capabilities description (PS3.18 8.9, annex H)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest

from pacslite.dicomweb.routes import ROUTES
from tests.support.http import WebServer, running

WADL = "{http://wadl.dev.java.net/2009/02}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("capabilities")) as it:
        yield it


def of_xml(node: ElementTree.Element, path: str = "") -> set[tuple[str, str]]:
    """Method and path of everything below."""
    here = f"{path}/{(node.get('path') or '').strip('/')}".rstrip("/")
    found = {(str(method.get("name")), here) for method in node.findall(f"{WADL}method")}
    return found.union(*(of_xml(one, here) for one in node.findall(f"{WADL}resource")))


def of_json(node: dict[str, Any], path: str = "") -> set[tuple[str, str]]:
    here = f"{path}/{node['path'].strip('/')}".rstrip("/")
    found = {(method["name"], here) for method in node.get("method", ())}
    return found.union(*(of_json(one, here) for one in node.get("resource", ())))


def expected() -> set[tuple[str, str]]:
    def path(rule: str) -> str:
        return rule.removeprefix("/dicom-web").replace("<path:", "<").replace("<", "{").replace(">", "}").rstrip("/")

    return {(route.method, path(route.rule)) for route in ROUTES if route.method != "OPTIONS" and route.rule.startswith("/dicom-web")}


@pytest.mark.parametrize("method", ["OPTIONS", "GET"])
@pytest.mark.parametrize("path", ["/", ""])
@pytest.mark.parametrize("accept", [None, "*/*", "application/vnd.sun.wadl+xml", "application/xml", "application/dicom+xml"])
def test_the_description_lists_every_route_as_wadl(server: WebServer, method: str, path: str, accept: str | None) -> None:
    answer = server.request(method, path, headers={"Accept": accept} if accept else {})
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] in ("application/vnd.sun.wadl+xml", "application/xml")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    resources = ElementTree.fromstring(answer.body).find(f"{WADL}resources")
    assert resources is not None
    assert resources.get("base") == server.url
    top = resources.findall(f"{WADL}resource")
    assert set().union(*map(of_xml, top)) == expected()


@pytest.mark.parametrize("accept", ["application/json", "application/dicom+json", "application/vnd.sun.wadl+json"])
def test_the_description_is_json_too(server: WebServer, accept: str) -> None:
    answer = server.request("OPTIONS", "/", headers={"Accept": accept})
    assert answer.headers["content-type"] in ("application/json", "application/vnd.sun.wadl+json")
    (resources,) = json.loads(answer.body)["application"]["resources"]
    assert resources["base"] == server.url
    assert set().union(*map(of_json, resources["resource"])) == expected()


def test_another_type_is_406(server: WebServer) -> None:
    assert server.request("OPTIONS", "/", headers={"Accept": "image/png"}).status == 406


def test_every_method_says_what_it_is_for(server: WebServer) -> None:
    root = ElementTree.fromstring(server.request("OPTIONS", "/").body)
    methods = root.findall(f".//{WADL}method")
    assert methods
    for method in methods:
        doc = method.find(f"{WADL}doc")
        assert method.get("id")
        assert doc is not None
        assert doc.get("title")
    assert {one.get("mediaType") for one in root.findall(f".//{WADL}representation")} >= {"application/dicom+json", "application/dicom"}

"""Serving the viewer: its page for every path of the application, its files with the right headers, nothing else."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from werkzeug.test import Client

from pacslite.settings import load
from pacslite.ui import viewer, viewer_package
from pacslite.web import app
from pacslite.web.encodings import accepts_gzip
from tests.support.viewer_tarball import FILES, SCRIPT, UNTOUCHED, tarball, trust


def client(data: Path, **settings: str) -> Client:
    return Client(app.create(SimpleNamespace(settings=load(environment={}, data=data, **{"auth": "0", **settings})), viewer.ROUTES))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    viewer_package.install(tmp_path, tarball=trust(monkeypatch, tarball(tmp_path / "app.tgz", FILES)))
    return tmp_path


def configured(script: str) -> dict[str, object]:
    assert script.startswith("window.config = ")
    parsed: dict[str, object] = json.loads(script.removeprefix("window.config = ").rstrip().removesuffix(";"))
    return parsed


def test_the_slash_is_added_and_the_query_kept(installed: Path) -> None:
    answer = client(installed).get("/viewer?patientName=x")
    assert (answer.status_code, answer.headers["Location"]) == (308, "/viewer/?patientName=x")


@pytest.mark.parametrize("path", ["/viewer/", "/viewer/viewer?StudyInstanceUIDs=1.2.3", "/viewer/index.html", "/viewer/a/b/c"])
def test_every_path_of_the_application_is_its_page(installed: Path, path: str) -> None:
    answer = client(installed).get(path)
    assert (answer.status_code, answer.mimetype, answer.headers["Cache-Control"]) == (200, "text/html", "no-cache")
    assert "window.PUBLIC_URL = '/viewer/'" in answer.text
    assert 'src="/viewer/app-config.js"' in answer.text


@pytest.mark.parametrize("path", ["/viewer/", f"/viewer/{SCRIPT}", "/viewer/app-config.js"])
def test_pages_and_scripts_are_isolated(installed: Path, path: str) -> None:
    headers = client(installed).get(path).headers
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_the_policy_names_no_other_host(installed: Path) -> None:
    (policy,) = client(installed).get("/viewer/").headers.getlist("Content-Security-Policy")
    assert "http" not in policy
    assert "*" not in policy


def test_the_configuration_has_roots_of_the_same_origin(installed: Path) -> None:
    answer = client(installed).get("/viewer/app-config.js")
    config = configured(answer.text)
    assert (answer.mimetype, answer.headers["Cache-Control"]) == ("text/javascript", "no-store")
    source = config["dataSources"][0]["configuration"]
    assert config["routerBasename"] == "/viewer/"
    assert {source[key] for key in ("qidoRoot", "wadoRoot", "wadoUriRoot")} == {"/dicom-web"}


def test_a_path_prefix_is_everywhere(installed: Path) -> None:
    prefixed = client(installed, public_url="https://pacs.example/imaging")
    config = configured(prefixed.get("/viewer/app-config.js").text)
    assert config["routerBasename"] == "/imaging/viewer/"
    assert config["dataSources"][0]["configuration"]["wadoRoot"] == "/imaging/dicom-web"
    assert 'href="/imaging/viewer/app.bundle.css"' in prefixed.get("/viewer/").text
    assert prefixed.get("/viewer").headers["Location"] == "/imaging/viewer/"


@pytest.mark.parametrize(
    ("name", "kind"),
    [(SCRIPT, "text/javascript"), ("app.bundle.css", "text/css"), ("assets/one.png", "image/png"), ("manifest.json", "application/json")],
)
def test_files_have_their_types_and_lengths(installed: Path, name: str, kind: str) -> None:
    answer = client(installed).get(f"/viewer/{name}")
    assert (answer.status_code, answer.mimetype) == (200, kind)
    assert int(answer.headers["Content-Length"]) == len(answer.data)


def test_compressed_only_for_those_who_take_it(installed: Path) -> None:
    web = client(installed)
    plain = web.get(f"/viewer/{SCRIPT}", headers={"Accept-Encoding": "br, gzip;q=0"})
    packed = web.get(f"/viewer/{SCRIPT}", headers={"Accept-Encoding": "gzip, deflate, br"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.data) < len(plain.data)
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
    assert plain.headers["ETag"] != packed.headers["ETag"]


def test_what_cannot_change_is_cached_for_ever_and_the_rest_asked_for_again(installed: Path) -> None:
    web = client(installed)
    assert "immutable" in web.get(f"/viewer/{UNTOUCHED}").headers["Cache-Control"]
    changing = web.get(f"/viewer/{SCRIPT}")
    assert changing.headers["Cache-Control"] == "no-cache"
    again = web.get(f"/viewer/{SCRIPT}", headers={"If-None-Match": changing.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("header", ["Content-Security-Policy", "Cross-Origin-Embedder-Policy"])
def test_an_unchanged_script_keeps_its_policies(installed: Path, header: str) -> None:
    web = client(installed)
    first = web.get(f"/viewer/{SCRIPT}")
    again = web.get(f"/viewer/{SCRIPT}", headers={"If-None-Match": first.headers["ETag"]})
    assert again.headers.getlist(header) == first.headers.getlist(header)


@pytest.mark.parametrize(
    "path",
    [
        "absent.js",
        "sw.js",
        f"{SCRIPT}.gz",
        viewer_package.LIST_NAME,
        "..%2f.lock",
        "%2e%2e/%2e%2e/catalog.db",
        "assets/../../.lock",
        "assets%5c..%5cviewer.json",
        "/etc/passwd.txt",
        "one.png%00",
    ],
)
def test_nothing_but_listed_files_is_ever_sent(installed: Path, path: str) -> None:
    answer = client(installed).get(f"/viewer/{path}")
    assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")


def test_without_the_viewer_a_page_says_how_to_get_it(tmp_path: Path) -> None:
    web = client(tmp_path)
    answer = web.get("/viewer/")
    assert (answer.status_code, answer.mimetype) == (503, "text/html")
    assert "pacslite viewer install" in answer.text
    assert viewer_package.VERSION in answer.text
    assert web.get(f"/viewer/{SCRIPT}").status_code == 404


def test_a_viewer_installed_later_is_served_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = client(tmp_path)
    assert web.get("/viewer/").status_code == 503
    viewer_package.install(tmp_path, tarball=trust(monkeypatch, tarball(tmp_path / "app.tgz", FILES)))
    assert web.get("/viewer/").status_code == 200


@pytest.mark.parametrize(
    ("header", "taken"),
    [("gzip", True), ("*", True), ("", False), ("gzip;q=0, *", False), ("GZIP; q=0.5", True), ("br", False), ("*;q=0.000", False)],
)
def test_accept_encoding_is_read_as_rfc_9110_says(header: str, taken: bool) -> None:
    assert accepts_gzip(header) is taken

"""The viewer in a real browser, through a real proxy under a path: nothing it asks for leaves that path."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pacslite import samples
from pacslite.samples import ct, identity
from tests.e2e.test_viewer import viewer_files  # noqa: F401 - a fixture
from tests.support import browser, nginx, processes
from tests.support.viewer_page import ViewerPage

PREFIX = "/imaging/pacs"
HEADERS = ("X-Forwarded-Proto $scheme", "X-Forwarded-Host $http_host", f"X-Forwarded-Prefix {PREFIX}")


@pytest.mark.full
@pytest.mark.skipif(not nginx.found(), reason="there is no nginx")
def test_studies_are_listed_and_drawn_behind_a_proxy_with_a_prefix(viewer_files: Path, tmp_path: Path) -> None:  # noqa: F811
    data = tmp_path / "data"
    data.mkdir()
    (data / "viewer").symlink_to(viewer_files)
    samples.generate(tmp_path / "sample")
    with processes.serving(data, PACSLITE_TRUSTED_PROXIES="127.0.0.1") as server:
        taken = processes.pacslite("import", tmp_path / "sample", "--data", data)
        assert taken.returncode == 0, taken.stderr
        upstream = urlsplit(server.url).port
        assert upstream is not None
        with nginx.proxying(tmp_path / "nginx", upstream, PREFIX, HEADERS) as port, browser.chromium(tmp_path) as chromium:
            page = ViewerPage(chromium, f"http://127.0.0.1:{port}{PREFIX}")
            page.open_list()
            assert "Phantom, Zoë" in page.patient_names(3)
            page.open_study(identity.CT_STUDY.uid)
            page.drawn()
            assert page.images() == ct.SLICES
            errors = chromium.console_errors()
            chromium.quit()
            exchanges = chromium.exchanges()
    assert errors == []
    assert [exchange for exchange in exchanges if exchange.failed] == []
    assert any("/frames/" in exchange.url for exchange in exchanges)
    asked = {urlsplit(exchange.url) for exchange in exchanges if exchange.url.startswith("http")}
    assert {(url.port, url.path.startswith(PREFIX + "/")) for url in asked} == {(port, True)}

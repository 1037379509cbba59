"""The viewer with a login, in a real browser: first the login page, then the study; nothing after the logout, and nothing for other sites.

One visit by one browser is made for all tests; each test holds one rule about what was seen.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pacslite import app, samples
from pacslite.core import users
from pacslite.core.access import Role
from pacslite.samples import identity
from pacslite.settings import load
from tests.e2e.test_viewer import _another_slice, viewer_files
from tests.support import browser, processes
from tests.support.browser import Browser
from tests.support.http import WebServer, running
from tests.support.viewer_page import ViewerPage

__all__ = ["viewer_files"]  # a fixture
PASSWORD = "correct horse battery"
STUDY = f"/viewer/viewer?StudyInstanceUIDs={identity.CT_STUDY.uid}"
_ATTACK = """<!doctype html><title>evil</title><iframe id=frame src="%ROOT%/login"></iframe>
<form id=form method=post action="%ROOT%/account/tokens"><input name=name value=stolen><input name=scope value=dicomweb:read>
<input name=days value=30></form><form id=out method=post action="%ROOT%/logout"></form>"""


@dataclass
class Visit:
    """What a browser saw."""

    first_page: str = ""
    after_wrong: str = ""
    after_login: str = ""
    images: int = 0
    names: list[str] = field(default_factory=list)
    uploaded: int = 0
    script_reads_cookie: str = ""
    foreign_read: str = ""
    foreign_form: str = ""
    foreign_store: str = ""
    foreign_logout: str = ""
    tokens_after: int = -1
    status_before: int = 0
    status_after: int = 0
    led_back_to: str = ""


@pytest.fixture(scope="module")
def visit(viewer_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """The whole visit, once."""
    scratch = tmp_path_factory.mktemp("login-visit")
    data = scratch / "data"
    data.mkdir()
    (data / "viewer").symlink_to(viewer_files)
    with running(data, auth="1", web_processes="2") as server:
        pacs = app.build(load(environment={}, data=data))
        users.create(pacs.accounts, "ann", PASSWORD, Role.CLINICIAN)
        pacs.close()
        samples.generate(scratch / "sample")
        taken = processes.pacslite("import", scratch / "sample", "--data", data)
        assert taken.returncode == 0, taken.stderr
        seen = Visit()
        with browser.chromium(scratch) as chromium:
            root = f"http://127.0.0.1:{server.port}"
            _log_in(chromium, root, seen)
            _look(ViewerPage(chromium, root), seen, _another_slice(scratch))
            _attack(chromium, root, seen)
            _log_out(chromium, root, server, seen)
        yield seen


def _shoot(chromium: Browser, name: str) -> None:
    """Keeps a picture of the page for people, where a directory is named for it."""
    if where := os.environ.get("PACSLITE_TEST_SCREENSHOTS"):
        chromium.driver.save_screenshot(str(Path(where) / f"{name}.png"))


def _send(chromium: Browser, name: str, password: str) -> None:
    chromium.script("document.getElementById('username').value = '';")
    chromium.elements("#username")[0].send_keys(name)
    chromium.elements("#password")[0].send_keys(password)
    chromium.elements("main button")[0].click()


def _log_in(chromium: Browser, root: str, seen: Visit) -> None:
    chromium.open(root + "/")
    _shoot(chromium, "start")
    chromium.open(root + STUDY)
    chromium.shows("Log in")
    seen.first_page = chromium.driver.current_url
    _shoot(chromium, "login")
    _send(chromium, "ann", "wrong")
    chromium.wait("document.querySelector('[role=alert]') !== null")
    seen.after_wrong = chromium.script("return document.querySelector('[role=alert]').innerText;")
    _shoot(chromium, "login-wrong")
    _send(chromium, "ann", PASSWORD)


def _look(page: ViewerPage, seen: Visit, another: Path) -> None:
    page.shown()
    seen.after_login = page.browser.driver.current_url
    seen.images = page.images()
    page.open_list()
    seen.names = page.patient_names(4)
    seen.script_reads_cookie = page.browser.script("return document.cookie;")
    page.upload(another)
    seen.uploaded = _in_page(page.browser, "fetch('/dicom-web/instances?PatientID=SAMPLE-0009').then(a => a.json()).then(a => a.length)")
    for path, name in (("/", "start-logged-in"), ("/account", "account")):
        page.browser.open(page.root + path)
        _shoot(page.browser, name)


def _in_page(chromium: Browser, promise: str) -> Any:
    return chromium.driver.execute_async_script(f"const done = arguments[0]; {promise}.then(done, error => done(String(error)));")


@contextmanager
def _foreign_site(page: str) -> Iterator[str]:
    """Another origin: the same host with another port, to whose forms a browser even adds a SameSite cookie."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}/"
        site.shutdown()
        thread.join()


def _attack(chromium: Browser, root: str, seen: Visit) -> None:
    with _foreign_site(_ATTACK.replace("%ROOT%", root)) as site:
        chromium.open(site)
        seen.foreign_read = _in_page(
            chromium, f"fetch('{root}/dicom-web/studies', {{credentials: 'include'}}).then(a => 'read ' + a.status)"
        )
        seen.foreign_store = _in_page(
            chromium,
            f"fetch('{root}/dicom-web/studies', {{method: 'POST', mode: 'no-cors', credentials: 'include', body: 'x'}}).then(a => a.type)",
        )
        chromium.script("document.getElementById('form').submit();")
        chromium.wait("!document.title.includes('evil')")
        seen.foreign_form = chromium.script("return document.body.innerText;")
        chromium.open(site)
        chromium.script("document.getElementById('out').submit();")
        chromium.wait("!document.title.includes('evil')")
        seen.foreign_logout = chromium.script("return document.body.innerText;")
    chromium.open(root + "/account")
    seen.tokens_after = len(chromium.elements("tbody tr"))


def _log_out(chromium: Browser, root: str, server: WebServer, seen: Visit) -> None:
    cookie = {"Cookie": f"pacslite_session={chromium.driver.get_cookie('pacslite_session')['value']}"}
    seen.status_before = server.request("GET", "/studies", headers=cookie).status
    ViewerPage(chromium, root).open_list()
    _in_page(chromium, "fetch('/logout', {method: 'POST', redirect: 'manual'}).then(a => a.type)")
    seen.status_after = server.request("GET", "/studies", headers=cookie).status
    chromium.script(f"history.pushState({{}}, '', '{STUDY}'); dispatchEvent(new PopStateEvent('popstate', {{state: {{}}}}));")
    chromium.wait("location.pathname === '/login'")
    seen.led_back_to = parse_qs(urlsplit(chromium.driver.current_url).query)["next"][0]


def test_the_study_asks_for_a_login_first(visit: Visit) -> None:
    found = urlsplit(visit.first_page)
    assert (found.path, parse_qs(found.query)["next"]) == ("/login", [STUDY])


def test_a_wrong_password_is_told(visit: Visit) -> None:
    assert visit.after_wrong == "The name or the password is wrong."


def test_the_login_leads_to_the_study_and_its_pictures(visit: Visit) -> None:
    assert visit.after_login.endswith(STUDY)
    assert visit.images > 1


def test_the_list_shows_studies(visit: Visit) -> None:
    assert "Phantom, Zoë" in visit.names


def test_uploads_go_by_the_cookie(visit: Visit) -> None:
    assert visit.uploaded == 1


def test_no_script_reads_the_cookie(visit: Visit) -> None:
    assert "pacslite" not in visit.script_reads_cookie


def test_another_origin_reads_and_changes_nothing(visit: Visit) -> None:
    assert "Failed to fetch" in visit.foreign_read
    assert "Failed to fetch" in visit.foreign_store
    assert "another site" in visit.foreign_form
    assert "another site" in visit.foreign_logout
    assert visit.tokens_after == 0


def test_after_the_logout_there_is_nothing_to_see(visit: Visit) -> None:
    assert (visit.status_before, visit.status_after) == (200, 401)


def test_a_login_that_ends_in_the_viewer_leads_to_the_login_and_back(visit: Visit) -> None:
    assert visit.led_back_to == STUDY

"""What somebody who tries to break in found, and finds no more: each test is a way in, or a way to keep others out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count, cycle
from pathlib import Path

import pytest
from werkzeug.test import Client

from pacslite import app
from pacslite.core import passwords
from pacslite.core.access import Right
from pacslite.core.dicom_logins import DicomLogins
from pacslite.core.limits import Limits
from pacslite.errors import Busy, TooManyRequests
from pacslite.settings import Address, Settings, load
from pacslite.web import app as web
from pacslite.web.authentication import authenticate
from pacslite.web.rate_limits import limited
from pacslite.web.threads import Patience, Threads, aside
from tests.protocol.test_dimse_accounts import CONGESTION, REFUSED, WITH_PASSWORD, identity, outcome
from tests.support.accounts import PASSWORD, Guarded, guarded
from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.dimse import Listener, listening
from tests.support.http import WebServer, running
from tests.support.processes import within_a_minute

RATE = 10
OUTSIDE = "https://evil.example"


@pytest.fixture
def limits(tmp_path: Path) -> Iterator[Limits]:
    found = Limits(load(environment={}, data=tmp_path, login_rate_per_minute=RATE))
    yield found
    found.close()


def is_refused(attempt: Callable[[], None]) -> bool:
    """Whether one of twice as many attempts as there may be is."""
    try:
        for _ in range(2 * RATE):
            attempt()
    except TooManyRequests:
        return True
    return False


def test_guesses_under_one_name_are_counted_however_it_is_written(limits: Limits) -> None:
    """Names that are one account (NFKC, case) have one count: else each way to write one is a fresh one, from any number of addresses."""
    names = cycle(("admin", "ADMIN", "\uff41dmin", "\uff21\uff24min", "a\uff4dmin"))
    numbers = count(1)
    assert is_refused(lambda: limits.login(next(names), f"192.0.2.{next(numbers)}"))


def test_nobody_uses_up_the_logins_by_a_provider_of_others(limits: Limits) -> None:
    """They name nobody beforehand, so they count by address alone."""
    assert is_refused(lambda: limits.login("", "192.0.2.1"))
    limits.login("", "192.0.2.2")


@contextmanager
def listener(data: Path) -> Iterator[tuple[Listener, Guarded]]:
    settings = Settings(data=data, dicom=Address("127.0.0.1", 0), dicom_user_identity="check", login_rate_per_minute=4)
    pacs = app.build(settings)
    pacs.catalog.migrate()
    try:
        with listening(pacs, DicomLogins(pacs.accounts, pacs.limits)) as found:
            yield found, Guarded(None, pacs.accounts)  # type: ignore[arg-type]
    finally:
        pacs.close()


def test_guesses_by_associations_are_limited_by_address_and_good_logins_are_not_counted(tmp_path: Path) -> None:
    """One password tried under every name never meets the lock of a name; devices log in for every association."""
    good = identity(WITH_PASSWORD, "clinician", PASSWORD)
    with listener(tmp_path) as (dicom, _):
        within_a_minute(25)
        assert [outcome(dicom, good) for _ in range(6)] == ["accepted"] * 6
        guesses = [outcome(dicom, identity(WITH_PASSWORD, f"somebody{n}", PASSWORD)) for n in range(7)]
        assert guesses[0] == REFUSED
        assert guesses[-1] == CONGESTION
        assert outcome(dicom, good) == CONGESTION


def test_logins_that_wait_keep_no_thread_from_others(tmp_path: Path) -> None:
    """Hashing is bounded, so a flood of logins waits; with one thread a process still answers everybody else."""
    pacs = app.build(load(environment={}, data=tmp_path))
    pacs.catalog.migrate()
    pool = Threads(1, Patience(8, 60, 1))
    client = Client(web.create(pacs, app.routes(), limited(authenticate)), use_cookies=False)
    form = {"username": "nobody", "password": "guessed password"}
    try:
        with ExitStack() as hashing:
            for _ in range(passwords._AT_ONCE):
                hashing.enter_context(passwords._slots)
            waiting = pool.submit(client.post, "/api/v1/auth/login", json=form)
            assert pool.submit(client.get, "/api/v1/health/live").result(60).status_code == 200
            assert not waiting.done()
        assert waiting.result(60).status_code == 401
    finally:
        pool.shutdown()
        pacs.close()


def test_of_logins_that_wait_there_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "waits", aside)
    pool = Threads(1, Patience(4, 60, 1))
    with ExitStack() as hashing:
        for _ in range(passwords._AT_ONCE):
            hashing.enter_context(passwords._slots)
        waiting = [pool.submit(passwords.verified, "guessed password", None) for _ in range(3)]
        with pytest.raises(Busy):
            waiting[2].result(60)
    assert [future.result(60) for future in waiting[:2]] == [(False, None)] * 2
    pool.shutdown()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("guarded")) as found:
        yield found


def test_a_token_of_an_administrator_that_only_reads_keeps_no_links_of_others(site: Guarded) -> None:
    """What a token may do follows from its scopes, whatever the role of its owner."""
    headers = {"Authorization": f"Bearer {site.bearer('admin')}", "Content-Type": CONTENT_TYPE}
    stored = site.server.request("POST", "/dicom-web/studies", body([part10(image(study="1.2.7"))]), headers)
    assert stored.status == 200
    form = {"study_instance_uid": "1.2.7", "expires_in": 60}
    assert site.ask("POST", "/api/v1/shares", site.bearer("viewer"), form).status == 201
    token, admin = site.api_token("admin", frozenset({Right.DICOMWEB_READ})).secret, site.bearer("admin")
    assert json.loads(site.ask("GET", "/api/v1/shares", token).body)["total"] == 0
    (made,) = json.loads(site.ask("GET", "/api/v1/shares", admin).body)["items"]
    link = f"/api/v1/shares/{made['id']}"
    assert site.ask("DELETE", link, token).status == 404
    assert site.ask("DELETE", link, admin).status == 204


@pytest.mark.parametrize("form", ['{"username": "\\ud800", "password": "x"}', '{"\\udfff": 1}'])
def test_what_is_no_text_is_told_and_ends_nothing(site: Guarded, form: str) -> None:
    """Halves of characters, which databases and hashes cannot hold: an error of the caller, not of the server."""
    answer = site.server.request("POST", "/api/v1/auth/login", form.encode(), {"Content-Type": "application/json"})
    assert answer.status == 400, answer.body


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server where nobody logs in, which another site's page may know under its own port."""
    with running(tmp_path_factory.mktemp("open"), cors_origins="https://ours.example") as found:
        found.root = ""
        yield found


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"Origin": OUTSIDE}, False),
        ({"Origin": "null"}, False),
        ({"Origin": OUTSIDE, "Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),
        ({}, True),
        ({"Origin": "http://127.0.0.1:{port}"}, True),
        ({"Origin": "https://ours.example", "Sec-Fetch-Site": "cross-site"}, True),
        ({"Origin": "http://proxy.example", "Sec-Fetch-Site": "same-origin"}, True),
    ],
)
def test_without_logins_no_page_of_another_site_changes_anything(open_server: WebServer, headers: dict[str, str], passes: bool) -> None:
    """A browser lets any page send a POST without a body to this machine, where everybody is the administrator."""
    sent = {name: value.format(port=open_server.port) for name, value in headers.items()}
    answer = open_server.request("POST", "/api/v1/studies/1.2.3/undelete", headers=sent)
    assert answer.status == (404 if passes else 403)
    assert open_server.request("GET", "/dicom-web/studies", headers=sent).status in (200, 204)

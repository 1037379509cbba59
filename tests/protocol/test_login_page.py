"""The login page and the pages behind it: no script, no open redirect, no form of another site, a cookie that only we can read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from pacslite import app
from pacslite.catalog.database import Catalog
from pacslite.core import audit, audit_chain, users
from pacslite.core.access import Role
from pacslite.settings import load
from tests.support.http import Answer, WebServer, running
from tests.support.processes import children_of, until, within_a_minute

PASSWORD = "correct horse battery"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PREFIXED = "/imaging"


def add_user(data: Path, name: str, role: Role, password: str = PASSWORD) -> None:
    pacs = app.build(load(environment={}, data=data))
    users.create(pacs.accounts, name, password, role)
    pacs.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with running(tmp_path_factory.mktemp("login"), auth="1", trusted_proxies="127.0.0.1") as found:
        found.root = ""
        for name, role in (("ann", Role.CLINICIAN), ("vic", Role.VIEWER), ("changer", Role.VIEWER)):
            add_user(found.data, name, role)
        yield found


def origin(server: WebServer) -> str:
    return server.url


def post(server: WebServer, path: str, fields: dict[str, str] | list[tuple[str, str]], cookie: str = "", **headers: str) -> Answer:
    given = {"Origin": origin(server), "Sec-Fetch-Site": "same-origin", **{k.replace("_", "-"): v for k, v in headers.items()}}
    given = {name: value for name, value in {**FORM, **given, "Cookie": cookie}.items() if value}
    return server.request("POST", path, urlencode(fields).encode(), given)


def log_in(server: WebServer, name: str = "ann", password: str = PASSWORD, then: str = "/", **headers: str) -> Answer:
    return post(server, "/login", {"username": name, "password": password, "next": then}, **headers)


def cookie_of(answer: Answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


@pytest.fixture(scope="module")
def cookie(server: WebServer) -> str:
    return cookie_of(log_in(server))


def test_the_page_needs_no_script_and_may_not_be_framed(server: WebServer) -> None:
    answer = server.request("GET", "/login?next=/viewer/")
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "form-action 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    text = answer.body.decode()
    assert "<script" not in text
    assert " style=" not in text
    assert 'value="/viewer/"' in text
    for field in ("username", "password"):
        assert f'<label for="{field}"' in text


def test_the_right_password_leads_on_with_a_cookie(server: WebServer) -> None:
    answer = log_in(server, then="/viewer/viewer?StudyInstanceUIDs=1.2.3")
    assert (answer.status, answer.headers["location"]) == (303, "/viewer/viewer?StudyInstanceUIDs=1.2.3")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("pacslite_session=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "Secure" not in cookie
    assert server.request("GET", "/dicom-web/studies", headers={"Cookie": cookie_of(answer)}).status == 204


def test_over_tls_the_cookie_is_one_that_nobody_else_can_set(server: WebServer) -> None:
    told = {"X_Forwarded_Proto": "https", "Origin": "https" + origin(server).removeprefix("http")}
    answer = log_in(server, **told)
    assert answer.status == 303
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert name == "__Host-pacslite_session"
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= {part.strip() for part in rest.split(";")}
    secure = {"X-Forwarded-Proto": "https", "Cookie": cookie_of(answer)}
    assert server.request("GET", "/dicom-web/studies", headers=secure).status == 204
    plain = {**secure, "Cookie": cookie_of(answer).removeprefix("__Host-")}
    assert server.request("GET", "/dicom-web/studies", headers=plain).status == 401


def test_below_a_path_the_cookie_is_for_that_path(server: WebServer) -> None:
    told = {"X_Forwarded_Proto": "https", "X_Forwarded_Prefix": PREFIXED, "Origin": "https" + origin(server).removeprefix("http")}
    answer = log_in(server, then=PREFIXED + "/account", **told)
    assert answer.headers["location"] == PREFIXED + "/account"
    assert answer.headers["set-cookie"].startswith("__Secure-pacslite_session=")
    assert f"Path={PREFIXED}" in answer.headers["set-cookie"]


@pytest.mark.parametrize(("name", "password"), [("ann", "wrong"), ("nobody", PASSWORD), ("", ""), ("ann\0", PASSWORD), ("x" * 5000, "y")])
def test_a_wrong_name_or_password_is_told_alike(server: WebServer, name: str, password: str) -> None:
    answer = log_in(server, name, password, X_Forwarded_For="198.51.100.7")
    assert answer.status == 401
    assert "www-authenticate" in answer.headers
    assert "set-cookie" not in answer.headers
    assert "The name or the password is wrong." in answer.body.decode()


def test_what_is_typed_is_escaped_and_the_password_not_given_back(server: WebServer) -> None:
    text = log_in(server, '"><script>alert(1)</script>', "secret-that-was-typed", '/"><b>').body.decode()
    assert "<script>" not in text
    assert "<b>" not in text
    assert "secret-that-was-typed" not in text


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n//evil.example",
        "javascript:alert(1)",
        "evil.example",
        " //evil.example",
        "///evil.example",
        "/%0d%0aSet-Cookie: x=y" + "\r\nX-Evil: 1",
        "/" + "a" * 5000,
        "",
    ],
)
def test_nobody_is_led_to_another_site(server: WebServer, cookie: str, wanted: str) -> None:
    assert log_in(server, then=wanted).headers["location"] == "/"
    answer = server.request("GET", "/login?next=" + quote(wanted), headers={"Cookie": cookie})
    assert (answer.status, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"},
        {"Origin": "https://evil.example", "Sec_Fetch_Site": ""},
        {"Origin": "null", "Sec_Fetch_Site": ""},
        {"Origin": "", "Sec_Fetch_Site": "same-site"},
        {"Origin": "", "Sec_Fetch_Site": "cross-site"},
    ],
)
def test_forms_of_other_sites_are_refused(server: WebServer, cookie: str, headers: dict[str, str]) -> None:
    assert log_in(server, **headers).status == 403
    assert post(server, "/account/tokens", {"name": "x", "scope": "dicomweb:read", "days": "7"}, cookie, **headers).status == 403
    assert post(server, "/logout", {}, cookie, **headers).status == 403
    assert server.request("GET", "/dicom-web/studies", headers={"Cookie": cookie}).status == 204


def test_only_a_form_is_taken_and_no_large_one(server: WebServer) -> None:
    json_type = {"Content-Type": "application/json", "Origin": origin(server)}
    assert server.request("POST", "/login", b"{}", json_type).status == 415
    assert log_in(server, password="x" * 100_000).status == 413
    assert server.request("POST", "/login", b"a&" * 500, {**FORM, "Origin": origin(server)}).status == 400


def test_failures_lock_the_name_for_the_address_on_the_page_too(server: WebServer) -> None:
    answers = [log_in(server, "vic", "wrong", X_Forwarded_For="198.51.100.8") for _ in range(6)]
    assert [answer.status for answer in answers] == [401] * 5 + [429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert "Too many attempts" in answers[-1].body.decode()
    assert log_in(server, "vic", X_Forwarded_For="198.51.100.8").status == 429
    assert log_in(server, "vic", X_Forwarded_For="198.51.100.9").status == 303


def test_a_flood_is_refused_before_passwords_are_looked_at_by_two_processes_together(tmp_path: Path) -> None:
    with running(tmp_path, auth="1", web_processes="2", login_rate_per_minute="8", trusted_proxies="127.0.0.1") as strict:
        strict.root = ""
        add_user(tmp_path, "ann", Role.VIEWER)
        until(lambda: len(children_of(strict.process.pid)) == 2, what="two web processes")
        within_a_minute(25)
        with ThreadPoolExecutor(4) as pool:
            pages = pool.map(lambda n: log_in(strict, f"name{n}", "wrong", X_Forwarded_For="198.51.100.1"), range(15))
            answers = list(pages)
        statuses = Counter(answer.status for answer in answers)
        assert set(statuses) == {401, 429}
        assert 8 <= statuses[401] <= 9
        refused = next(answer for answer in answers if answer.status == 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert log_in(strict, X_Forwarded_For="198.51.100.2").status == 303


def test_a_lock_of_one_process_holds_in_the_other(tmp_path: Path) -> None:
    with running(tmp_path, auth="1", web_processes="2", trusted_proxies="127.0.0.1") as both:
        both.root = ""
        add_user(tmp_path, "ann", Role.VIEWER)
        until(lambda: len(children_of(both.process.pid)) == 2, what="two web processes")
        statuses = Counter(log_in(both, "ann", "wrong", X_Forwarded_For="198.51.100.1").status for _ in range(12))
        assert statuses == {401: 5, 429: 7}
        assert {log_in(both, X_Forwarded_For="198.51.100.1").status for _ in range(4)} == {429}


def test_logging_out_ends_the_login(server: WebServer) -> None:
    mine = cookie_of(log_in(server))
    answer = post(server, "/logout", {}, mine)
    assert (answer.status, answer.headers["location"]) == (303, "/login?out=1")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert server.request("GET", "/dicom-web/studies", headers={"Cookie": mine}).status == 401


def test_pages_lead_to_the_login_and_back(server: WebServer, cookie: str) -> None:
    for path in ("/account", "/viewer/", "/viewer/viewer?StudyInstanceUIDs=1.2.3&x=%20"):
        answer = server.request("GET", path)
        assert (answer.status, answer.headers["location"]) == (303, f"/login?next={quote(path, safe='')}")
        assert log_in(server, then=path).headers["location"] == path
    assert server.request("GET", "/account", headers={"Cookie": cookie}).status == 200


def test_the_start_page_says_who_is_logged_in(server: WebServer, cookie: str) -> None:
    stranger, known = server.request("GET", "/").body.decode(), server.request("GET", "/", headers={"Cookie": cookie}).body.decode()
    assert 'href="/login"' in stranger
    assert "Log out" not in stranger
    assert "Welcome, ann" in known
    assert 'action="/logout"' in known
    for link in ("/viewer/", "/api/v1/docs", "/docs/conformance", "/account"):
        assert f'href="{link}"' in known
    for said in ("/dicom-web<", "/api/v1/files/upload<", "/api/v1/files/uploads<"):
        assert said in stranger
    assert server.request("GET", "/docs/conformance").status == 200
    assert server.request("GET", "/pacslite.css").headers["content-type"].startswith("text/css")


def test_a_password_is_changed_by_who_knows_the_present_one(server: WebServer) -> None:
    mine, other = cookie_of(log_in(server, "changer")), cookie_of(log_in(server, "changer"))
    new = "another horse battery"

    def change(current: str, one: str, two: str) -> Answer:
        return post(server, "/account/password", {"current_password": current, "new_password": one, "new_password_again": two}, mine)

    assert change(PASSWORD, new, new + "x").status == 400
    assert change("wrong", new, new).status == 400
    assert change(PASSWORD, "short", "short").status == 400
    assert change(PASSWORD, new, new).status == 303
    assert server.request("GET", "/dicom-web/studies", headers={"Cookie": mine}).status == 204
    assert server.request("GET", "/dicom-web/studies", headers={"Cookie": other}).status == 401
    assert log_in(server, "changer", new).status == 303


def test_a_token_is_shown_once_and_can_be_removed(server: WebServer, cookie: str) -> None:
    made = post(server, "/account/tokens", [("name", "<b>backup"), ("scope", "dicomweb:read"), ("days", "30")], cookie)
    assert made.status == 201
    text = made.body.decode()
    assert "<b>" not in text
    secret = re.findall(r'class="secret">([^<]+)<', text)[0]
    bearer = {"Authorization": f"Bearer {secret}"}
    assert server.request("GET", "/dicom-web/studies", headers=bearer).status == 204
    shown = server.request("GET", "/account", headers={"Cookie": cookie}).body.decode()
    assert secret not in shown
    assert post(server, re.findall(r'action="(/account/tokens/[^"]+/remove)"', shown)[0], {}, cookie).status == 303
    assert server.request("GET", "/dicom-web/studies", headers=bearer).status == 401


def test_a_token_needs_a_name_a_purpose_and_rights_of_the_role(server: WebServer, cookie: str) -> None:
    assert post(server, "/account/tokens", {"name": "", "scope": "dicomweb:read", "days": "30"}, cookie).status == 400
    assert post(server, "/account/tokens", {"name": "x", "days": "30"}, cookie).status == 400
    assert post(server, "/account/tokens", {"name": "x", "scope": "dicomweb:read", "days": "99999"}, cookie).status == 400
    assert post(server, "/account/tokens", {"name": "x", "scope": "admin", "days": "30"}, cookie).status == 403


def test_what_the_pages_change_is_on_record_once(server: WebServer) -> None:
    add_user(server.data, "told", Role.VIEWER)
    assert log_in(server, "told", "wrong").status == 401
    mine = cookie_of(log_in(server, "told"))
    assert post(server, "/account/tokens", [("name", "x"), ("scope", "dicomweb:read"), ("days", "30")], mine).status == 201
    page = server.request("GET", "/account", headers={"Cookie": mine}).body.decode()
    assert post(server, re.findall(r'action="(/account/tokens/[^"]+/remove)"', page)[0], {}, mine).status == 303
    new = {"current_password": PASSWORD, "new_password": "one more horse", "new_password_again": "one more horse"}
    assert post(server, "/account/password", new, mine).status == 303
    assert post(server, "/logout", {}, mine).status == 303
    with closing(Catalog(f"sqlite:///{server.data / 'catalog.db'}")) as catalog:
        audit_chain.advance(catalog, audit_chain.anchor_of(server.data))
        events = [entry.event for entry in reversed(audit.page(catalog, audit.Filter(actor="told"), None, 100)[0])]
    assert [(event.action, event.outcome) for event in events] == [
        ("auth.login", "refused"),
        ("auth.login", "success"),
        ("token.create", "success"),
        ("token.delete", "success"),
        ("user.password", "success"),
        ("auth.logout", "success"),
    ]
    assert {(event.address, event.protocol) for event in events} == {("127.0.0.1", "http")}
    assert all(event.request_id for event in events)


def test_a_forged_cookie_is_nobody(server: WebServer) -> None:
    for forged in ("pacslite_session=" + "A" * 43, "pacslite_session=;;", "pacslite_session=%00"):
        assert server.request("GET", "/account", headers={"Cookie": forged}).status == 303
        assert server.request("GET", "/dicom-web/studies", headers={"Cookie": forged}).status == 401


def test_without_logins_the_pages_say_so(tmp_path: Path) -> None:
    with running(tmp_path) as other:
        other.root = ""
        assert "Nobody logs in here" in other.request("GET", "/").body.decode()
        assert other.request("GET", "/login?next=/viewer/").headers["location"] == "/viewer/"
        assert other.request("GET", "/account").headers["location"] == "/"
        assert log_in(other).status == 409

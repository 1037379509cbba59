"""Every route of the route table against every credential: 401 without one that counts, 403 without the right, else neither.

The tables are those the server runs on, so a new route joins these tests by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from pacslite import app
from pacslite.core.access import RIGHTS_OF_ROLE, SCOPES, Right, Role, rights_of_login
from pacslite.web.authentication import COOKIE
from pacslite.web.messages import Route
from tests.support.accounts import PASSWORD, Guarded, guarded
from tests.support.http import Answer

ROUTES = app.routes()
# What anybody may see; everything else asks for a login. A new one is a decision to be made here.
PUBLIC = re.compile(
    r"(/api/v1)?/health/(live|ready)|/api/v1/auth/\S+|/|/login\S*|/logout|/account|(/docs)?/conformance|"
    r"/pacslite\.css|/viewer(/\S*)?|/static/\S*|OPTIONS /dicom-web/?|OPTIONS /api/v1/files/uploads(/\S*)?"
    r"|/api/v1/shares/<\S*|/share/\S*|/api/v1/files/<file_id>/signed"
)
_ARGUMENTS = {"user_id": "999999", "token_id": "0", "job_id": "0", "ae_title": "NOBODY", "frame_list": "1", "transaction": "1.2.9"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("guarded")) as found:
        yield found


@pytest.fixture(scope="module")
def invalid(site: Guarded) -> dict[str, str]:
    return site.invalid()


@pytest.fixture(scope="module")
def of_role(site: Guarded) -> dict[Role, str]:
    return {role: site.bearer(role.value) for role in Role}


def path_of(route: Route) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda found: _ARGUMENTS.get(found[1], "1.2.3"), route.rule)


def name_of(route: Route) -> str:
    return f"{route.method} {route.rule}"


guarded_routes = pytest.mark.parametrize("route", [one for one in ROUTES if one.right is not Right.PUBLIC], ids=name_of)


def assert_refused(answer: Answer, status: int) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    if answer.body:  # HEAD has none
        problem = json.loads(answer.body)
        assert (problem["status"], problem["type"]) == (status, {401: "unauthenticated", 403: "forbidden"}[status])
    if status == 401:
        assert answer.headers["www-authenticate"].startswith('Bearer realm="pacslite"')


@pytest.mark.parametrize("route", [one for one in ROUTES if one.right is Right.PUBLIC], ids=name_of)
def test_only_what_is_listed_is_public(route: Route) -> None:
    assert PUBLIC.fullmatch(name_of(route) if route.method == "OPTIONS" else route.rule)


@guarded_routes
def test_every_route_is_401_without_a_credential(site: Guarded, route: Route) -> None:
    assert_refused(site.ask(route.method, path_of(route)), 401)


@guarded_routes
def test_every_route_is_401_for_every_credential_that_does_not_count(site: Guarded, invalid: dict[str, str], route: Route) -> None:
    for wrong, token in invalid.items():
        answer = site.ask(route.method, path_of(route), token)
        assert answer.status == 401, wrong
        assert 'error="invalid_token"' in answer.headers["www-authenticate"], wrong


@guarded_routes
def test_every_route_is_403_for_the_roles_without_its_right_and_open_for_the_others(
    site: Guarded, of_role: dict[Role, str], route: Route
) -> None:
    for role, token in of_role.items():
        answer = site.ask(route.method, path_of(route), token)
        if route.right is Right.SELF or route.right in rights_of_login(role):
            assert answer.status not in (401, 403), (role, answer.body)
        else:
            assert_refused(answer, 403)


# What changes studies as well as files: the handler asks for `dicomweb:write` besides the right of the route.
_ASKS_FOR_MORE = re.compile(r"/api/v1/patients/<patient_id>/(un)?merge")


@pytest.mark.parametrize("right", sorted(SCOPES))
def test_an_api_token_opens_the_routes_of_its_scopes_and_no_others(site: Guarded, right: Right) -> None:
    token = site.api_token("admin", frozenset({right})).secret
    for route in ROUTES:
        if route.right in (Right.PUBLIC, Right.SELF):
            continue
        answer = site.ask(route.method, path_of(route), token)
        if route.right is right and not _ASKS_FOR_MORE.fullmatch(route.rule):
            assert answer.status not in (401, 403), name_of(route)
        else:
            assert answer.status == 403, name_of(route)


def test_a_service_does_what_its_tokens_say_and_nothing_by_its_password(site: Guarded) -> None:
    assert site.ask("GET", "/dicom-web/studies", site.bearer("service")).status == 403
    token = site.api_token("service", RIGHTS_OF_ROLE[Role.SERVICE]).secret
    assert site.ask("GET", "/dicom-web/studies", token).status == 204
    assert site.ask("GET", "/api/v1/users", token).status == 403


@pytest.mark.parametrize(
    "authorization", ["Basic YWRtaW46YWRtaW4=", "Bearer", "Bearer ", "Bearer a b", "bearer\tx", "Token x", "", "Bearer " + "x" * 8000]
)
def test_other_authorizations_are_401_and_the_cookie_does_not_help(site: Guarded, authorization: str) -> None:
    answer = site.ask("GET", "/dicom-web/studies", Authorization=authorization)
    assert_refused(answer, 401)


def test_the_word_bearer_is_told_by_no_case(site: Guarded, of_role: dict[Role, str]) -> None:
    assert site.ask("GET", "/dicom-web/studies", Authorization=f"bEARER {of_role[Role.VIEWER]}").status == 204


def test_health_needs_no_login_and_minds_no_bad_one(site: Guarded) -> None:
    for path in ("/health/live", "/health/ready", "/api/v1/health/live"):
        assert site.ask("GET", path).status == 200
        assert site.ask("GET", path, "nonsense").status == 200


def test_unknown_paths_and_methods_tell_nothing(site: Guarded) -> None:
    assert site.ask("GET", "/api/v1/nothing").status == 404
    assert site.ask("PUT", "/api/v1/users").status == 405


# --- browsers ------------------------------------------------------------------------------------------------------


def begin(site: Guarded, name: str = "clinician", **headers: str) -> tuple[str, str, Answer]:
    """Cookie, CSRF token and the answer of a new session."""
    answer = site.ask("POST", "/api/v1/auth/session", body={"username": name, "password": PASSWORD}, **headers)
    assert answer.status == 200, answer.body
    cookie = answer.headers["set-cookie"].partition(";")[0]
    return cookie, json.loads(answer.body)["csrf_token"], answer


def test_a_browser_gets_a_cookie_that_scripts_cannot_read(site: Guarded) -> None:
    _, _, answer = begin(site)
    attributes = {part.strip() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert attributes == {"Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Lax"}
    view = json.loads(answer.body)
    assert (view["username"], view["role"]) == ("clinician", "clinician")
    assert answer.headers["cache-control"] == "no-store"


def test_the_cookie_reads_and_its_session_is_shown(site: Guarded) -> None:
    cookie, csrf, _ = begin(site)
    assert site.ask("GET", "/dicom-web/studies", Cookie=cookie).status == 204
    shown = json.loads(site.ask("GET", "/api/v1/auth/session", Cookie=f"a=b; {cookie}; c=d").body)
    assert (shown["username"], shown["csrf_token"]) == ("clinician", csrf)
    assert site.ask("GET", "/api/v1/auth/session").status == 401
    assert site.ask("GET", "/api/v1/auth/session", site.bearer("viewer")).status == 409


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"X-CSRF-Token": "0" * 64}, False),
        ({"X-CSRF-Token": "", "Sec-Fetch-Site": "same-origin"}, False),
        ({"X-CSRF-Token": "{csrf}", "Origin": "https://evil.example"}, False),
        ({"X-CSRF-Token": "{csrf}", "Sec-Fetch-Site": "cross-site"}, False),
        ({"X-CSRF-Token": "{csrf}"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://127.0.0.1:{port}"}, True),
        ({"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin", "X-CSRF-Token": "{csrf}"}, True),
    ],
)
def test_with_a_cookie_only_a_page_of_ours_changes_something(site: Guarded, headers: dict[str, str], passes: bool) -> None:
    cookie, csrf, _ = begin(site)
    sent = {name: value.format(csrf=csrf, port=site.server.port) for name, value in headers.items()}
    for method, path in (("DELETE", "/dicom-web/studies/1.2.3"), ("POST", "/api/v1/tokens"), ("POST", "/dicom-web/studies")):
        answer = site.ask(method, path, Cookie=cookie, **sent)
        assert (answer.status not in (401, 403)) is passes, answer.body
    # A token in a header is sent by no browser by itself.
    assert site.ask("DELETE", "/dicom-web/studies/1.2.3", site.bearer("clinician"), Origin="https://evil.example").status == 404


def test_the_csrf_token_of_another_session_does_not_serve(site: Guarded) -> None:
    cookie, _, _ = begin(site)
    _, other, _ = begin(site)
    assert site.ask("DELETE", "/dicom-web/studies/1.2.3", Cookie=cookie, X_CSRF_Token=other).status == 403


def test_no_other_site_logs_a_browser_in(site: Guarded) -> None:
    form = {"username": "viewer", "password": PASSWORD}
    assert site.ask("POST", "/api/v1/auth/session", body=form, Origin="https://evil.example").status == 403
    assert site.ask("POST", "/api/v1/auth/session", body=form, Sec_Fetch_Site="cross-site").status == 403
    sent = {"Content-Type": "text/plain"}
    assert site.server.request("POST", "/api/v1/auth/session", json.dumps(form).encode(), sent).status == 415


def test_logging_out_ends_the_session_and_takes_the_cookie(site: Guarded) -> None:
    cookie, csrf, _ = begin(site)
    assert site.ask("DELETE", "/api/v1/auth/session", Cookie=cookie).status == 403
    answer = site.ask("DELETE", "/api/v1/auth/session", Cookie=cookie, X_CSRF_Token=csrf)
    assert answer.status == 204
    assert answer.headers["set-cookie"].startswith(f"{COOKIE}=; Path=/; Max-Age=0;")
    assert_refused(site.ask("GET", "/dicom-web/studies", Cookie=cookie), 401)


@pytest.mark.parametrize("value", ["x", "A" * 43, "a b", '"' + "A" * 43 + '"', "A" * 4000])
def test_cookies_of_others_are_401(site: Guarded, value: str) -> None:
    assert_refused(site.ask("GET", "/dicom-web/studies", Cookie=f"{COOKIE}={value}"), 401)


def test_behind_tls_and_under_a_path_the_cookie_is_for_these_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    with guarded(tmp_path_factory.mktemp("tls"), public_url="https://pacs.example/pacs", allowed_hosts="*") as site:
        _, _, answer = begin(site, Origin="https://pacs.example")
        assert {"Path=/pacs", "Secure", "HttpOnly"} <= {part.strip() for part in answer.headers["set-cookie"].split(";")}

"""Logging in by password, refreshing, logging out, and the accounts themselves, over REST."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest

from pacslite.core import passwords
from pacslite.core.access import Role
from tests.support.accounts import PASSWORD, Guarded, guarded
from tests.support.http import Answer
from tests.support.processes import until

LOGIN, REFRESH, LOGOUT = "/api/v1/auth/login", "/api/v1/auth/refresh", "/api/v1/auth/logout"
SECRET = "a secret of the tests that is long enough"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("accounts"), secret_key=SECRET, trusted_proxies="127.0.0.1") as found:
        yield found


@pytest.fixture(scope="module")
def admin(site: Guarded) -> str:
    return site.bearer("admin")


def log_in(site: Guarded, name: str, password: str = PASSWORD, address: str = "198.51.100.1") -> Answer:
    return site.ask("POST", LOGIN, body={"username": name, "password": password}, X_Forwarded_For=address)


def told(answer: Answer, status: int = 200) -> Any:
    assert answer.status == status, answer.body
    return json.loads(answer.body)


def whoami(site: Guarded, token: str) -> int:
    return site.ask("GET", "/api/v1/users/me", token).status


def test_a_login_gives_tokens_that_say_who_and_until_when(site: Guarded) -> None:
    answer = log_in(site, "Viewer")  # names are told apart without regard to case
    given = told(answer)
    assert set(given) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (given["token_type"], given["expires_in"], answer.headers["cache-control"]) == ("bearer", 900, "no-store")
    assert jwt.get_unverified_header(given["access_token"]) == {"alg": "HS256", "typ": "JWT"}
    claims = jwt.decode(given["access_token"], SECRET, algorithms=["HS256"])
    assert claims["sub"] == str(site.ids["viewer"])
    assert claims["exp"] - claims["iat"] == 900
    assert abs(claims["iat"] - time.time()) < 60
    assert len(claims["jti"]) == 24
    me = told(site.ask("GET", "/api/v1/users/me", given["access_token"]))
    assert me == {
        "id": site.ids["viewer"],
        "username": "viewer",
        "role": "viewer",
        "groups": [],
        "rights": ["dicomweb:read", "files:read"],
    }


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"username": "viewer"}, 400),
        ({"username": "viewer", "password": ""}, 400),
        ({"username": "viewer", "password": "x" * 1025}, 400),
        ({"username": ["viewer"], "password": PASSWORD}, 400),
        ({"username": "viewer", "password": PASSWORD, "role": "admin"}, 400),
    ],
)
def test_a_login_is_a_form_of_two_fields(site: Guarded, body: Any, status: int) -> None:
    assert site.ask("POST", LOGIN, body=body).status == status


def test_a_wrong_name_and_a_wrong_password_are_answered_alike(site: Guarded) -> None:
    answers = [log_in(site, name, "wrong password", "198.51.100.2") for name in ("viewer", "nobody", "\u0001", "x" * 256)]
    texts = set()
    for answer in answers:
        problem = told(answer, 401)
        assert answer.headers["www-authenticate"] == 'Bearer realm="pacslite"'
        texts.add((problem["detail"], problem["title"]))
    assert len(texts) == 1


def test_a_wrong_name_is_hashed_as_a_wrong_password_is(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []

    class Counting:
        def verify(self, kept: str, password: str) -> bool:
            verified.append(kept.rpartition("$")[0].rpartition("$")[0])
            raise passwords.VerificationError

    known = passwords.hashed(PASSWORD)
    nobodys = passwords._nobodys()
    monkeypatch.setattr(passwords, "_HASHER", Counting())
    assert passwords.verified("wrong", known) == passwords.verified("wrong", None) == (False, None)
    assert verified[0] == verified[1] == "$argon2id$v=19$m=65536,t=3,p=4"
    assert nobodys != known


def test_a_refresh_token_serves_once_and_its_theft_ends_the_login(site: Guarded) -> None:
    """RFC 9700 4.14.2: refresh tokens rotate; one that is shown twice ends all that came of the login."""
    first = told(log_in(site, "clinician"))
    second = told(site.ask("POST", REFRESH, body={"refresh_token": first["refresh_token"]}))
    assert second["refresh_token"] != first["refresh_token"]
    assert whoami(site, first["access_token"]) == whoami(site, second["access_token"]) == 200
    assert site.ask("POST", REFRESH, body={"refresh_token": first["refresh_token"]}).status == 401
    assert site.ask("POST", REFRESH, body={"refresh_token": second["refresh_token"]}).status == 401
    assert whoami(site, first["access_token"]) == whoami(site, second["access_token"]) == 401


def test_of_refreshes_at_the_same_time_one_is_served(site: Guarded) -> None:
    token = site.login("clinician").refresh_token
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: site.ask("POST", REFRESH, body={"refresh_token": token}).status, range(6)))
    assert sorted(answers) == [200, 401, 401, 401, 401, 401]


def test_logging_out_ends_access_and_refresh_tokens_at_once(site: Guarded) -> None:
    pair, other = site.login("clinician"), site.login("clinician")
    assert whoami(site, pair.access_token) == 200
    assert site.ask("POST", LOGOUT, pair.access_token, {"refresh_token": pair.refresh_token}).status == 204
    assert whoami(site, pair.access_token) == 401
    assert site.ask("POST", REFRESH, body={"refresh_token": pair.refresh_token}).status == 401
    assert whoami(site, other.access_token) == 200


def test_logging_out_takes_either_token_but_not_none(site: Guarded) -> None:
    by_access, by_refresh = site.login("clinician"), site.login("clinician")
    assert site.ask("POST", LOGOUT, by_access.access_token).status == 204
    assert site.ask("POST", LOGOUT, body={"refresh_token": by_refresh.refresh_token}).status == 204
    for pair in (by_access, by_refresh):
        assert whoami(site, pair.access_token) == 401
        assert site.ask("POST", LOGOUT, pair.access_token, {"refresh_token": pair.refresh_token}).status == 401
    assert site.ask("POST", LOGOUT).status == 401
    assert site.ask("POST", LOGOUT, body={}).status == 401


# --- failures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lockable", "not-even-a-user"])
def test_five_failures_lock_a_name_for_an_address_and_no_others(site: Guarded, name: str) -> None:
    if name == "lockable":
        site.user(name)
    assert [log_in(site, name, "wrong password", "203.0.113.5").status for _ in range(5)] == [401] * 5
    locked = log_in(site, name, PASSWORD, "203.0.113.5")
    assert locked.status == 429
    assert 290 <= int(locked.headers["retry-after"]) <= 300
    assert log_in(site, "viewer", PASSWORD, "203.0.113.5").status == 200
    assert log_in(site, name, PASSWORD, "203.0.113.6").status == (200 if name == "lockable" else 401)


def test_a_network_of_ipv6_counts_as_one_address(site: Guarded) -> None:
    for end in range(5):
        assert log_in(site, "viewer", "wrong password", f"2001:db8::{end}").status == 401
    assert log_in(site, "viewer", PASSWORD, "2001:db8::ffff").status == 429
    assert log_in(site, "viewer", PASSWORD, "2001:db8:0:1::1").status == 200


def test_a_good_login_forgets_the_failures_before(site: Guarded) -> None:
    for _ in range(2):
        for _ in range(4):
            assert log_in(site, "clinician", "wrong password", "203.0.113.7").status == 401
        assert log_in(site, "clinician", PASSWORD, "203.0.113.7").status == 200


def test_guesses_at_the_same_time_are_no_more_than_five(site: Guarded) -> None:
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: log_in(site, "clinician", "wrong password", "203.0.113.8").status, range(12)))
    assert sorted(statuses) == [401] * 5 + [429] * 7


def test_good_logins_at_the_same_time_are_all_let_in(site: Guarded) -> None:
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: log_in(site, "clinician", PASSWORD, "203.0.113.9").status, range(12)))
    assert statuses == [200] * 12


def test_two_servers_over_one_catalog_lock_together_and_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """The lock is in the catalog: `guarded` starts another server over the same data."""
    with guarded(tmp_path, login_lock_s="60") as site:
        assert [log_in(site, "viewer", "wrong password").status for _ in range(3)] == [401] * 3
    with guarded_again(tmp_path) as second:
        assert [log_in(second, "viewer", "wrong password").status for _ in range(3)] == [401, 401, 429]


def guarded_again(data: Path) -> Any:
    from contextlib import contextmanager

    from tests.support.http import running

    @contextmanager
    def again() -> Iterator[Any]:
        with running(data, auth="1", login_lock_s="60") as server:
            server.root = ""
            made = object.__new__(Guarded)
            made.server = server
            yield made

    return again()


# --- users ---------------------------------------------------------------------------------------------------------


def test_administrators_make_change_and_remove_users(site: Guarded, admin: str) -> None:
    form = {"username": "Dr.Who", "password": "a blue police box", "role": "viewer"}
    answer = site.ask("POST", "/api/v1/users", admin, form)
    made = told(answer, 201)
    assert made | {"id": 0, "created_at": ""} == {
        "id": 0,
        "username": "Dr.Who",
        "role": "viewer",
        "created_at": "",
        "disabled": False,
        "groups": [],
    }
    path = f"/api/v1/users/{made['id']}"
    assert answer.headers["location"].endswith(path)
    assert told(site.ask("GET", path, admin)) == made
    assert made in told(site.ask("GET", "/api/v1/users?limit=1000", admin))["items"]
    assert told(site.ask("PATCH", path, admin, {"role": "clinician", "groups": ["radiology"]})) == made | {
        "role": "clinician",
        "groups": ["radiology"],
    }
    assert log_in(site, "dr.who", "a blue police box").status == 200
    assert site.ask("DELETE", path, admin).status == 204
    assert site.ask("DELETE", path, admin).status == site.ask("GET", path, admin).status == 404
    assert log_in(site, "dr.who", "a blue police box").status == 401
    again = told(site.ask("POST", "/api/v1/users", admin, form), 201)
    assert again["id"] != made["id"]


def test_a_name_is_taken_whatever_its_case(site: Guarded, admin: str) -> None:
    form = {"username": "VIEWER", "password": PASSWORD, "role": "viewer"}
    assert site.ask("POST", "/api/v1/users", admin, form).status == 409


@pytest.mark.parametrize(
    "wrong",
    [
        {"username": ""},
        {"username": "local"},
        {"username": "_x"},
        {"username": "a b"},
        {"username": "x" * 65},
        {"role": "root"},
        {"password": "sesame"},
        {"password": "password123"},
        {"password": "aaaaaaaaaaaa"},
        {"password": "somebody.new"},
        {"password": "x y" * 100},
        {"groups": ["<b>"]},
        {"id": 7},
    ],
)
def test_forms_of_users_are_checked(site: Guarded, admin: str, wrong: dict[str, Any]) -> None:
    form = {"username": "somebody.new", "password": PASSWORD, "role": "viewer"} | wrong
    problem = told(site.ask("POST", "/api/v1/users", admin, form), 400)
    assert problem["type"] == "invalid-form"
    assert [error["field"] for error in problem["errors"]] == list(wrong)
    assert str(wrong.get("password", "\0")) not in problem["detail"]


def test_a_change_of_role_counts_for_tokens_that_are_out(site: Guarded, admin: str) -> None:
    number = site.user("promoted", Role.VIEWER)
    token = site.bearer("promoted")
    assert site.ask("DELETE", "/dicom-web/studies/1.2", token).status == 403
    site.ask("PATCH", f"/api/v1/users/{number}", admin, {"role": "clinician"})
    assert site.ask("DELETE", "/dicom-web/studies/1.2", token).status == 404
    site.ask("PATCH", f"/api/v1/users/{number}", admin, {"role": "viewer"})
    assert site.ask("DELETE", "/dicom-web/studies/1.2", token).status == 403


def test_disabling_a_user_counts_for_everything_it_is_logged_in_by(site: Guarded, admin: str) -> None:
    number = site.user("leaving", Role.CLINICIAN)
    pair = site.login("leaving")
    secret = site.api_token("leaving", frozenset({*told_rights("clinician")})).secret
    assert whoami(site, pair.access_token) == whoami(site, secret) == 200
    assert told(site.ask("PATCH", f"/api/v1/users/{number}", admin, {"disabled": True}))["disabled"] is True
    assert whoami(site, pair.access_token) == whoami(site, secret) == 401
    assert site.ask("POST", REFRESH, body={"refresh_token": pair.refresh_token}).status == 401
    assert log_in(site, "leaving", PASSWORD, "203.0.113.11").status == 401
    site.ask("PATCH", f"/api/v1/users/{number}", admin, {"disabled": False})
    assert whoami(site, pair.access_token) == 401  # it ended
    assert whoami(site, secret) == 200  # a token is taken away by removing it


def told_rights(role: str) -> Any:
    from pacslite.core.access import RIGHTS_OF_ROLE

    return RIGHTS_OF_ROLE[Role(role)]


def test_a_new_password_ends_the_logins_of_the_old_one(site: Guarded, admin: str) -> None:
    number = site.user("renewed")
    token = site.bearer("renewed")
    assert site.ask("PATCH", f"/api/v1/users/{number}", admin, {"password": "quite another one"}).status == 200
    assert whoami(site, token) == 401
    assert log_in(site, "renewed", PASSWORD, "203.0.113.12").status == 401
    assert log_in(site, "renewed", "quite another one", "203.0.113.12").status == 200


def test_users_change_their_own_password_by_the_old_one(site: Guarded) -> None:
    site.user("careful")
    mine, other = site.bearer("careful"), site.bearer("careful")
    path = "/api/v1/users/me/password"
    wrong = told(site.ask("POST", path, mine, {"current_password": "wrong", "password": "quite another one"}), 400)
    assert wrong["errors"][0]["field"] == "current_password"
    assert site.ask("POST", path, mine, {"current_password": PASSWORD, "password": "quite another one"}).status == 204
    assert (whoami(site, mine), whoami(site, other)) == (200, 401)
    assert site.ask("POST", path, site.api_token("careful", told_rights("viewer")).secret, {}).status == 400


def test_the_last_administrator_stays(tmp_path: Path) -> None:
    with guarded(tmp_path) as site:
        admin, path = site.bearer("admin"), f"/api/v1/users/{site.ids['admin']}"
        for change in ({"role": "viewer"}, {"disabled": True}):
            assert site.ask("PATCH", path, admin, change).status == 409
        assert site.ask("DELETE", path, admin).status == 409
        assert told(site.ask("GET", path, admin))["role"] == "admin"
        site.user("second", Role.ADMIN)
        assert site.ask("DELETE", path, admin).status == 204
        assert whoami(site, admin) == 401


def test_numbers_of_users_are_numbers(site: Guarded, admin: str) -> None:
    for number in ("0", "-1", "x", "9" * 30, "%D9%A1"):
        assert site.ask("GET", f"/api/v1/users/{number}", admin).status == 404


# --- keys ----------------------------------------------------------------------------------------------------------


def test_tokens_of_a_previous_key_are_believed_while_it_is_named(tmp_path: Path) -> None:
    old, new = "the old secret that is long enough too", "the new secret that is long enough too"
    with guarded(tmp_path, secret_key=new, previous_secret_keys=f"{'x' * 32},{old}") as site:
        token = site.bearer("viewer")
        assert jwt.decode(token, new, algorithms=["HS256"])
        assert whoami(site, token) == 200
        assert whoami(site, site.resigned(token, old)) == 200
        assert whoami(site, site.resigned(token, "y" * 32)) == 401


def test_the_key_is_made_once_and_kept_for_the_owner_alone(tmp_path: Path) -> None:
    with guarded(tmp_path) as site:
        token, kept = site.bearer("viewer"), tmp_path / "secret.key"
        assert whoami(site, token) == 200
        assert kept.stat().st_mode & 0o777 == 0o600
        assert jwt.decode(token, kept.read_text().strip(), algorithms=["HS256"])
        assert len(kept.read_text()) > 60


def test_access_tokens_live_as_long_as_the_setting_says(tmp_path: Path) -> None:
    with guarded(tmp_path, access_token_seconds="2") as site:
        token = site.bearer("viewer")
        assert whoami(site, token) == 200
        ends = jwt.decode(token, options={"verify_signature": False})["exp"]
        until(lambda: time.time() >= ends)
        assert whoami(site, token) == 401

"""API tokens: what they give, whose they are, how they end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pacslite.core import users
from pacslite.core.access import SCOPES, Right, Role
from tests.support.accounts import Guarded, guarded
from tests.support.http import Answer

TOKENS = "/api/v1/tokens"
READ = ["dicomweb:read"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("tokens")) as found:
        yield found


def told(answer: Answer, status: int = 200) -> Any:
    assert answer.status == status, answer.body
    return json.loads(answer.body)


def make(site: Guarded, name: str, scopes: list[str] | None = None, **more: Any) -> Any:
    form = {"name": "viewer on the wall", "scopes": READ if scopes is None else scopes, **more}
    return told(site.ask("POST", TOKENS, site.bearer(name), form), 201)


def test_a_token_is_shown_once_and_only_its_hash_is_kept(site: Guarded) -> None:
    made = make(site, "viewer", expires_in=60)
    assert set(made) == {"id", "name", "scopes", "expires_at", "token"}
    assert re.fullmatch(r"pacslite_[\w-]{43}", made["token"])
    listed = site.ask("GET", TOKENS, site.bearer("viewer"))
    assert made["token"].encode() not in listed.body
    (item,) = [one for one in told(listed)["items"] if one["id"] == made["id"]]
    assert {name: item[name] for name in ("name", "scopes", "expires_at")} == {
        name: made[name] for name in ("name", "scopes", "expires_at")
    }
    for file in site.server.data.glob("catalog.db*"):
        assert made["token"].encode() not in file.read_bytes()
    assert site.ask("GET", "/dicom-web/studies", made["token"]).status == 204


def test_a_token_never_gives_more_than_its_owners_role(site: Guarded) -> None:
    for role, beyond in (("viewer", "dicomweb:write"), ("clinician", "admin"), ("service", "admin")):
        form = {"name": "more", "scopes": [*READ, beyond]}
        assert site.ask("POST", TOKENS, site.bearer(role), form).status == 403
    site.user("demoted", Role.CLINICIAN)
    token = site.api_token("demoted", frozenset({Right.DICOMWEB_READ, Right.DICOMWEB_WRITE})).secret
    assert site.ask("DELETE", "/dicom-web/studies/1.2", token).status == 404
    users.change(site.accounts, site.ids["demoted"], users.Change(role=Role.VIEWER))
    assert site.ask("DELETE", "/dicom-web/studies/1.2", token).status == 403
    assert site.ask("GET", "/dicom-web/studies", token).status == 204


def test_a_token_makes_no_tokens(site: Guarded) -> None:
    token = site.api_token("viewer", frozenset({Right.DICOMWEB_READ})).secret
    assert site.ask("POST", TOKENS, token, {"name": "child", "scopes": READ}).status == 403
    assert site.ask("GET", TOKENS, token).status == 403
    assert site.ask("DELETE", f"{TOKENS}/0", token).status == 403


def test_a_removed_token_ends_at_once(site: Guarded) -> None:
    made = make(site, "viewer")
    assert site.ask("GET", "/dicom-web/studies", made["token"]).status == 204
    assert site.ask("DELETE", f"{TOKENS}/{made['id']}", site.bearer("viewer")).status == 204
    assert site.ask("GET", "/dicom-web/studies", made["token"]).status == 401
    assert site.ask("DELETE", f"{TOKENS}/{made['id']}", site.bearer("viewer")).status == 404


def test_tokens_of_others_are_not_there_except_for_administrators(site: Guarded) -> None:
    made = make(site, "clinician")
    assert site.ask("DELETE", f"{TOKENS}/{made['id']}", site.bearer("viewer")).status == 404
    assert made["id"] not in {one["id"] for one in told(site.ask("GET", TOKENS, site.bearer("viewer")))["items"]}
    assert site.ask("GET", "/dicom-web/studies", made["token"]).status == 204
    assert site.ask("DELETE", f"{TOKENS}/{made['id']}", site.bearer("admin")).status == 204
    assert site.ask("GET", "/dicom-web/studies", made["token"]).status == 401


def test_administrators_make_tokens_for_services_and_others_only_their_own(site: Guarded) -> None:
    made = make(site, "admin", ["dicomweb:write"], user_id=site.ids["service"])
    assert told(site.ask("GET", "/api/v1/users/me", made["token"]))["username"] == "service"
    form = {"name": "theirs", "scopes": READ, "user_id": site.ids["clinician"]}
    assert site.ask("POST", TOKENS, site.bearer("viewer"), form).status == 403
    assert site.ask("POST", TOKENS, site.bearer("admin"), form | {"user_id": 10**9}).status == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"scopes": []},
        {"scopes": ["everything"]},
        {"scopes": ["public"]},
        {"expires_in": 0},
        {"expires_in": 10**9},
        {"expires_in": "1"},
        {"secret": "mine"},
    ],
)
def test_forms_of_tokens_are_checked(site: Guarded, wrong: dict[str, Any]) -> None:
    problem = told(site.ask("POST", TOKENS, site.bearer("viewer"), {"name": "x", "scopes": READ} | wrong), 400)
    assert [error["field"] for error in problem["errors"]] == list(wrong)


def test_an_account_has_no_endless_tokens(site: Guarded) -> None:
    site.user("greedy")
    for _ in range(100):
        site.api_token("greedy", frozenset({Right.DICOMWEB_READ}))
    assert site.ask("POST", TOKENS, site.bearer("greedy"), {"name": "one more", "scopes": READ}).status == 409


def test_every_scope_can_be_given(site: Guarded) -> None:
    assert set(make(site, "admin", sorted(SCOPES))["scopes"]) == {scope.value for scope in SCOPES}

"""Changes of accounts, logins, tokens, groups and labels are on record if and only if they are there, whatever becomes of the answer."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from pacslite import app
from pacslite.catalog import accounts as rows
from pacslite.catalog.audit import Event, Filter
from pacslite.catalog.database import Catalog
from pacslite.core import api_tokens, audit_chain, external_logins, logins, passwords, restrictions, users
from pacslite.core.access import LOCAL_ADMIN, Right, Role
from pacslite.core.accounts import Accounts, seconds_of
from pacslite.core.audit import page
from pacslite.errors import Conflict, InvalidForm, NotFound, Unauthenticated
from pacslite.settings import load
from pacslite.web.audit import record_request
from pacslite.web.authentication import authenticate
from pacslite.web.messages import Reply, Request
from pacslite.web.site import Site
from tests.support.processes import ROOT, environment

PASSWORD = "correct horse battery"
ORIGIN = Event("", actor="chief", actor_id=7, address="192.0.2.1", request_id="r-1", protocol="http")


def log(catalog: Catalog, data: Path) -> list[Event]:
    """What the log says, oldest first."""
    audit_chain.advance(catalog, audit_chain.anchor_of(data))
    return [entry.event for entry in reversed(page(catalog, Filter(), None, 1000)[0])]


@pytest.fixture
def accounts(catalog: Catalog, tmp_path: Path) -> Iterator[Accounts]:
    found = Accounts(load(environment={}, data=tmp_path, oidc_default_role="viewer"), catalog)
    yield found
    found.close()


def test_every_change_is_in_its_own_transaction(accounts: Accounts, catalog: Catalog, tmp_path: Path) -> None:
    """Nobody answers here: what is on record was noted with the change."""
    ann = users.create(accounts, "ann", PASSWORD, Role.CLINICIAN, ("ward",), ORIGIN)
    pair = logins.login(accounts, "ann", PASSWORD, ORIGIN)
    caller = accounts.recognize(pair.access_token)
    made = api_tokens.create(accounts, caller, ann.id, "wall", [Right.DICOMWEB_READ], 60, ORIGIN)
    api_tokens.remove(accounts, caller, made.token.id, ORIGIN)
    users.change_own_password(accounts, caller, PASSWORD, "another good one", ORIGIN)
    following = logins.refresh(accounts, pair.refresh_token, ORIGIN)
    logins.logout(accounts, None, following.refresh_token, ORIGIN)
    logins.begin_browser_login(accounts, "ann", "another good one", ORIGIN)
    users.change(accounts, ann.id, users.Change(Role.VIEWER, disabled=True, groups=()), ORIGIN)
    users.remove(accounts, ann.id, ORIGIN)
    restrictions.add_group(catalog, "heart", ORIGIN)
    bob = external_logins.begin(accounts, {"iss": "i", "sub": "s", accounts.settings.oidc_username_claim: "bob"}, ORIGIN)
    restrictions.set_members(catalog, "heart", ["bob"], [], ORIGIN)
    restrictions.put_label(catalog, "vip", ["heart"], ORIGIN)
    restrictions.remove_label(catalog, "vip", ORIGIN)
    restrictions.remove_group(catalog, "heart", ORIGIN)
    events = log(catalog, tmp_path)
    number = str(ann.id)
    assert [(event.action, event.object_id) for event in events] == [
        ("user.create", number),
        ("auth.login", ""),
        ("token.create", made.token.id),
        ("token.delete", made.token.id),
        ("user.password", number),
        ("auth.refresh", ""),
        ("auth.logout", ""),
        ("auth.login", ""),
        ("user.update", number),
        ("user.delete", number),
        ("group.create", "heart"),
        ("user.create", str(bob.recognized.principal.account_id)),
        ("auth.login", ""),
        ("group.members", "heart"),
        ("label.update", "vip"),
        ("label.delete", "vip"),
        ("group.delete", "heart"),
    ]
    assert {(event.outcome, event.address, event.request_id, event.protocol) for event in events} == {
        ("success", ORIGIN.address, ORIGIN.request_id, "http")
    }
    of_logins = [(event.actor, event.actor_id) for event in events if event.action.startswith("auth.")]
    assert of_logins == [("ann", ann.id)] * 4 + [("bob", bob.recognized.principal.account_id)]
    assert {event.actor for event in events if not event.action.startswith("auth.")} == {"chief"}
    details = {event.action: dict(event.detail) for event in events}
    assert details["user.update"] == {"username": "ann", "role": "viewer", "disabled": True, "groups": []}
    assert details["user.password"] == {"username": "ann", "password": "new"}
    assert details["group.members"] == {"added": ["bob"], "removed": []}
    assert details["label.update"] == {"groups": ["heart"]}
    assert not [secret for secret in (PASSWORD, "another good one", made.secret, pair.refresh_token) if secret in repr(events)]


def test_what_is_not_done_leaves_no_success(accounts: Accounts, catalog: Catalog, tmp_path: Path) -> None:
    name, _ = users.first_administrator(accounts, PASSWORD) or ("", "")
    admin = users.get_by_name(accounts, name)
    known = len(log(catalog, tmp_path))
    refused: list[tuple[type[Exception], Callable[[], Any]]] = [
        (Conflict, lambda: users.create(accounts, "ADMIN", None, Role.VIEWER, (), ORIGIN)),
        (Conflict, lambda: users.change(accounts, admin.id, users.Change(disabled=True), ORIGIN)),
        (Conflict, lambda: users.remove(accounts, admin.id, ORIGIN)),
        (NotFound, lambda: api_tokens.remove(accounts, LOCAL_ADMIN, "nothing", ORIGIN)),
        (NotFound, lambda: api_tokens.create(accounts, LOCAL_ADMIN, 999, "n", [Right.JOBS], 60, ORIGIN)),
        (Unauthenticated, lambda: logins.login(accounts, name, "wrong", ORIGIN)),
        (Unauthenticated, lambda: logins.logout(accounts, None, "wrong", ORIGIN)),
        (Unauthenticated, lambda: logins.refresh(accounts, "wrong", ORIGIN)),
        (NotFound, lambda: restrictions.remove_group(catalog, "nothing", ORIGIN)),
        (NotFound, lambda: restrictions.remove_label(catalog, "nothing", ORIGIN)),
        (InvalidForm, lambda: restrictions.put_label(catalog, "vip", ["nobody"], ORIGIN)),
    ]
    for expected, attempt in refused:
        with pytest.raises(expected):
            attempt()
    assert len(log(catalog, tmp_path)) == known


def test_a_refresh_token_shown_twice_is_told_as_the_end_of_its_login(accounts: Accounts, catalog: Catalog, tmp_path: Path) -> None:
    users.create(accounts, "ann", PASSWORD, Role.VIEWER, (), ORIGIN)
    pair = logins.login(accounts, "ann", PASSWORD, ORIGIN)
    logins.refresh(accounts, pair.refresh_token, ORIGIN)
    with pytest.raises(Unauthenticated):
        logins.refresh(accounts, pair.refresh_token, ORIGIN)
    last = log(catalog, tmp_path)[-1]
    assert (last.action, last.actor, dict(last.detail)) == ("auth.logout", "ann", {"reason": "a refresh token was shown twice"})


@pytest.fixture
def pacs(tmp_path: Path) -> Any:
    found = app.build(load(environment={}, data=tmp_path, auth=False))
    found.catalog.migrate()
    yield found
    found.close()


def ask(pacs: Any, method: str, path: str, form: dict[str, Any], rule: str = "", *, breaks: bool = False) -> Reply:
    """The answer of the site itself; with `breaks` the handler ends in an error when all is done."""
    route = next(one for one in app.routes() if (one.method, one.rule) == (method, rule or path))
    content = json.dumps(form).encode()
    given = {"REQUEST_METHOD": method, "PATH_INFO": path, "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(content))}
    more = {"wsgi.input": io.BytesIO(content), "wsgi.url_scheme": "http", "HTTP_HOST": "localhost", "REMOTE_ADDR": "127.0.0.1"}

    def broken(parts: Any, request: Request, **arguments: str) -> Reply:
        route.handler(parts, request, **arguments)
        raise RuntimeError("the process breaks between commit and answer")

    site = Site(pacs, pacs.settings, (authenticate,), record_request)
    arguments = {"user_id": path.rpartition("/")[2]} if rule else {}
    return site.answer(Request({**given, **more}, "r-2"), replace(route, handler=broken) if breaks else route, arguments)


def test_a_change_whose_answer_is_lost_is_on_record_and_one_that_is_answered_once(pacs: Any, tmp_path: Path) -> None:
    form = {"username": "ann", "password": PASSWORD, "role": "viewer"}
    assert ask(pacs, "POST", "/api/v1/users", form, breaks=True).status == 500
    ann = users.get_by_name(pacs.accounts, "ann")
    patch = "/api/v1/users/<user_id>"
    assert ask(pacs, "PATCH", f"/api/v1/users/{ann.id}", {"role": "clinician"}, patch).status == 200
    assert ask(pacs, "POST", "/api/v1/users", form).status == 409
    told = [(event.action, event.outcome, event.actor) for event in log(pacs.catalog, tmp_path)]
    assert told == [
        ("user.create", "success", "local"),
        ("user.create", "failed", "local"),  # what the caller was told
        ("user.update", "success", "local"),
        ("user.create", "failed", "local"),
    ]


_DIES = """
import os, sys
from pacslite.catalog.database import Catalog
write = Catalog.write
def dying(self, work, keys=(), ready=None):
    result = write(self, work, keys, ready)
    if keys == ("accounts",):
        os._exit(9)
    return result
Catalog.write = dying
from pacslite.cli import run
run(sys.argv[1:])
"""


def test_a_command_that_dies_after_its_commit_is_on_record(pacs: Any, tmp_path: Path) -> None:
    arguments = ["user", "add", "ann", "--no-password", "--role", "service", "--data", str(tmp_path)]
    died = subprocess.run([sys.executable, "-c", _DIES, *arguments], cwd=ROOT, env=environment(), timeout=60, check=False)
    assert died.returncode == 9
    told = [(event.action, event.outcome, event.protocol, dict(event.detail)) for event in log(pacs.catalog, tmp_path)]
    assert told == [
        ("cli.user.add", "success", "cli", {"state": "begun"}),
        ("user.create", "success", "cli", {"username": "ann", "role": "service", "groups": []}),
    ]


def test_how_a_command_ended_is_on_record(pacs: Any, tmp_path: Path) -> None:
    from pacslite.cli import run

    assert run(["user", "add", "ann", "--no-password", "--data", str(tmp_path)]) == 0
    assert run(["user", "add", "ann", "--no-password", "--data", str(tmp_path)]) == 3
    told = [(event.action, event.outcome, dict(event.detail)) for event in log(pacs.catalog, tmp_path)]
    begun = ("cli.user.add", "success", {"state": "begun"})
    created = ("user.create", "success", {"username": "ann", "role": "viewer", "groups": []})
    assert told == [
        begun,
        created,
        ("cli.user.add", "success", {"exit_code": 0}),
        begun,
        ("cli.user.add", "failed", {"exit_code": 3}),
    ]


def test_the_use_of_a_token_is_noted_once_an_hour(accounts: Accounts, catalog: Catalog) -> None:
    def add(conn: Connection) -> int:
        return rows.add(conn, "ann", "ann", "viewer", passwords.hashed(PASSWORD)).id

    owner = catalog.write(add)
    made = api_tokens.create(accounts, LOCAL_ADMIN, owner, "wall", [Right.DICOMWEB_READ], 60)

    def last_used() -> str | None:
        accounts.close()
        return api_tokens.listed(accounts, LOCAL_ADMIN, owner)[0].last_used_at

    assert last_used() is None
    principal = accounts.recognize(made.secret)
    first = last_used()
    assert first is not None
    assert abs(seconds_of(first) - seconds_of(made.token.created_at)) < 60
    accounts.recognize(made.secret)
    accounts.still(principal)
    fresh = Accounts(accounts.settings, catalog)  # another process, or the next start
    fresh.recognize(made.secret)
    fresh.close()
    assert last_used() == first
    accounts._noted[made.token.id] -= 3601
    accounts.still(principal)
    second = last_used()
    assert second is not None
    assert second > first

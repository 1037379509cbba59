"""User identity negotiation (PS3.7 D.3.3.7) against the accounts: every kind of credential, and every service for every role."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import pdu_primitives as primitives

from pacslite import app
from pacslite.catalog.peers import SERVICES
from pacslite.core import users
from pacslite.core.access import RIGHT_OF_SERVICE, SCOPES, Right, Role, rights_of_login
from pacslite.core.dicom_logins import DicomLogins
from pacslite.dimse import commands, pdus
from pacslite.settings import Address, Settings
from tests.support.accounts import PASSWORD, Guarded
from tests.support.data_sets import image
from tests.support.dimse import (
    Listener,
    associate_rq,
    listening,
)
from tests.support.retrieval import keep
from tests.support.services import OFFER, STUDY, status_of

NAME, WITH_PASSWORD, JWT = 1, 2, 5
REFUSED, CONGESTION = (1, 1, 1), (2, 3, 1)


@contextmanager
def guarded_listener(data: Path, policy: str = "required") -> Iterator[tuple[Listener, Guarded]]:
    pacs = app.build(Settings(data=data, dicom=Address("127.0.0.1", 0), dicom_user_identity=policy))
    pacs.catalog.migrate()
    try:
        keep(pacs, image(study=STUDY))
        with listening(pacs, DicomLogins(pacs.accounts)) as running:
            yield running, Guarded(None, pacs.accounts)  # type: ignore[arg-type]
    finally:
        pacs.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Listener, Guarded]]:
    with guarded_listener(tmp_path_factory.mktemp("identities")) as found:
        yield found


def identity(kind: int, first: str, second: str = "") -> primitives.UserIdentityNegotiation:
    item = primitives.UserIdentityNegotiation()
    item.user_identity_type, item.primary_field, item.secondary_field = kind, first.encode(), second.encode()
    item.positive_response_requested = True
    return item


def outcome(listener: Listener, *user: Any) -> tuple[int, ...] | str:
    """Result, source and reason of a rejection, else "accepted"."""
    with listener.peer() as peer:
        peer.send(associate_rq(OFFER, user=user))
        kind, body = peer.pdu()
        if kind == pdus.ASSOCIATE_RJ:
            return tuple(body[1:4])
        assert kind == pdus.ASSOCIATE_AC
        peer.release()
        return "accepted"


def test_a_password_a_token_and_an_api_token_let_in(site: tuple[Listener, Guarded]) -> None:
    listener, accounts = site
    secret = accounts.api_token("viewer", frozenset({Right.DICOMWEB_READ})).secret
    for item in (
        identity(WITH_PASSWORD, "VIEWER", PASSWORD),
        identity(WITH_PASSWORD, "viewer", secret),
        identity(JWT, accounts.bearer("viewer")),
        identity(JWT, secret),
    ):
        assert outcome(listener, item) == "accepted"


@pytest.mark.parametrize(
    "item",
    [
        identity(NAME, "admin"),
        identity(NAME, "nobody"),
        identity(WITH_PASSWORD, "nobody", PASSWORD),
        identity(WITH_PASSWORD, "viewer", "wrong password"),
        identity(WITH_PASSWORD, "", "x"),
    ],
)
def test_who_proves_nothing_is_rejected(site: tuple[Listener, Guarded], item: Any) -> None:
    assert outcome(site[0], item) == REFUSED
    assert outcome(site[0]) == REFUSED


def test_no_credential_that_does_not_count_lets_in(site: tuple[Listener, Guarded]) -> None:
    listener, accounts = site
    for wrong, token in accounts.invalid().items():
        assert outcome(listener, identity(JWT, token)) == REFUSED, wrong
    theirs = accounts.api_token("viewer", frozenset({Right.DICOMWEB_READ})).secret
    assert outcome(listener, identity(WITH_PASSWORD, "admin", theirs)) == REFUSED


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("role", list(Role))
def test_a_role_gives_the_services_its_rights_cover_and_0124_for_the_rest(site: tuple[Listener, Guarded], role: Role, service: str) -> None:
    listener, accounts = site
    with listener.peer() as peer:
        peer.associate(OFFER, user=[identity(JWT, accounts.bearer(role.value))])
        allowed = RIGHT_OF_SERVICE[service] in rights_of_login(role)
        assert (status_of(peer, service) != commands.NOT_AUTHORIZED) is allowed
        assert peer.echo(11) == 0
        peer.release()


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("right", sorted(SCOPES))
def test_a_scope_gives_the_services_it_covers(site: tuple[Listener, Guarded], right: Right, service: str) -> None:
    listener, accounts = site
    with listener.peer() as peer:
        peer.associate(OFFER, user=[identity(JWT, accounts.api_token("admin", frozenset({right})).secret)])
        assert (status_of(peer, service) != commands.NOT_AUTHORIZED) is (RIGHT_OF_SERVICE[service] is right)
        peer.release()


def test_what_is_taken_from_a_user_counts_for_open_associations(site: tuple[Listener, Guarded]) -> None:
    listener, accounts = site
    number = accounts.user("passing", Role.CLINICIAN)
    with listener.peer() as by_password, listener.peer() as by_token:
        by_password.associate(OFFER, user=[identity(WITH_PASSWORD, "passing", PASSWORD)])
        by_token.associate(OFFER, user=[identity(JWT, accounts.bearer("passing"))])
        for peer in (by_password, by_token):
            assert status_of(peer, "find") == commands.SUCCESS
        users.change(accounts.accounts, number, users.Change(role=Role.SERVICE))
        for peer in (by_password, by_token):
            assert status_of(peer, "find") == commands.NOT_AUTHORIZED
        users.change(accounts.accounts, number, users.Change(role=Role.VIEWER))
        assert status_of(by_password, "find") == commands.SUCCESS
        users.change(accounts.accounts, number, users.Change(disabled=True))
        for peer in (by_password, by_token):
            assert status_of(peer, "find") == commands.NOT_AUTHORIZED
            peer.release()
    assert outcome(listener, identity(WITH_PASSWORD, "passing", PASSWORD)) == REFUSED


def test_failures_count_here_too(tmp_path: Path) -> None:
    with guarded_listener(tmp_path, "check") as (listener, _):
        for _ in range(5):
            assert outcome(listener, identity(WITH_PASSWORD, "admin", "wrong password")) == REFUSED
        assert outcome(listener, identity(WITH_PASSWORD, "admin", PASSWORD)) == CONGESTION
        assert outcome(listener) == "accepted"  # `check` asks only those who say who they are

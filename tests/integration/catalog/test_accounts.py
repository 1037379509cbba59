"""Accounts and what they log in with, in both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from pacslite.catalog import accounts as rows
from pacslite.catalog import credentials, inventory
from pacslite.catalog.account_models import api_token, login_failure, login_session, refresh_token
from pacslite.catalog.audit import Event
from pacslite.catalog.credentials import ApiToken, Rotation, Session
from pacslite.catalog.database import Catalog
from pacslite.catalog.statements import now_text, time_text
from pacslite.core import logins, passwords, users
from pacslite.core.access import SCOPES, Principal, Right, Role
from pacslite.core.accounts import Accounts, principal_of
from pacslite.errors import ConfigurationError, Conflict, TooManyRequests, Unauthenticated
from pacslite.settings import Settings, load

ADDRESS = "192.0.2.1"
ORIGIN = Event("", address=ADDRESS, protocol="http")
PASSWORD = "correct horse battery"


def at(seconds: float) -> str:
    return time_text(datetime.now(UTC) + timedelta(seconds=seconds))


@pytest.fixture
def accounts(catalog: Catalog, tmp_path: Path) -> Iterator[Accounts]:
    found = Accounts(load(environment={}, data=tmp_path), catalog)
    yield found
    found.close()


@pytest.fixture
def ann(catalog: Catalog) -> rows.Account:
    return catalog.write(lambda conn: rows.add(conn, "Ann", "ann", "clinician", None, "https://login|7", ("b", "a")))


@pytest.fixture
def others(catalog: Catalog, tmp_path: Path) -> Iterator[Accounts]:
    """The accounts as another process sees them."""
    url = catalog.url.render_as_string(hide_password=False)
    second = Catalog(url)
    yield Accounts(load(environment={}, data=tmp_path), second)
    second.close()


def generation(catalog: Catalog) -> int:
    return int(catalog.glance(rows.GENERATION))


def test_an_account_is_found_by_number_name_and_elsewhere(catalog: Catalog, ann: rows.Account) -> None:
    with catalog.read() as conn:
        assert rows.by_id(conn, ann.id) == rows.by_name(conn, "ann") == rows.by_external_id(conn, "https://login|7") == ann
        assert rows.by_id(conn, ann.id + 1) is rows.by_name(conn, "bob") is rows.by_external_id(conn, "x") is None
        assert rows.listed(conn) == [ann]
        assert (rows.count(conn), rows.count_enabled(conn, "clinician"), rows.count_enabled(conn, "admin")) == (1, 1, 0)
    assert ann.groups == {"a", "b"}


def test_numbers_are_not_used_again(catalog: Catalog, ann: rows.Account) -> None:
    catalog.write(lambda conn: rows.remove(conn, ann.id))
    assert catalog.write(lambda conn: rows.add(conn, "Bob", "bob", "viewer", None)).id > ann.id


def test_removing_an_account_removes_all_it_is_logged_in_by(catalog: Catalog, ann: rows.Account) -> None:
    def fill(conn: Connection) -> None:
        credentials.add_session(conn, Session("s", ann.id, at(60)), ADDRESS, "cookie")
        credentials.add_refresh_token(conn, "refresh", "s")
        credentials.add_token(conn, ApiToken("t", ann.id, "n", "jobs", now_text(), at(60)), "token")

    catalog.write(fill)
    catalog.write(lambda conn: rows.remove(conn, ann.id))
    with catalog.read() as conn:
        for table in (login_session, refresh_token, api_token):
            assert conn.execute(select(func.count()).select_from(table)).scalar_one() == 0


def test_every_loss_of_rights_is_told_by_the_generation(catalog: Catalog, ann: rows.Account) -> None:
    catalog.write(lambda conn: credentials.add_session(conn, Session("s", ann.id, at(60)), ADDRESS))
    catalog.write(lambda conn: credentials.add_token(conn, ApiToken("t", ann.id, "n", "jobs", now_text(), at(60)), "h"))
    for change in (
        lambda conn: rows.change(conn, ann.id, role="viewer"),
        lambda conn: rows.set_groups(conn, ann.id, ["c"]),
        lambda conn: credentials.end_session(conn, "s"),
        lambda conn: rows.end_sessions(conn, ann.id),
        lambda conn: credentials.remove_token(conn, "t", ann.id),
        lambda conn: rows.remove(conn, ann.id),
    ):
        before = generation(catalog)
        catalog.write(change)
        assert generation(catalog) > before


def test_a_login_counts_until_it_ends_or_is_ended(catalog: Catalog, ann: rows.Account) -> None:
    catalog.write(lambda conn: credentials.add_session(conn, Session("s", ann.id, at(60)), ADDRESS, "cookie"))
    catalog.write(lambda conn: credentials.add_session(conn, Session("over", ann.id, at(-1)), ADDRESS))
    with catalog.read() as conn:
        assert credentials.session_by_id(conn, "s") == credentials.session_by_secret(conn, "cookie")
        assert credentials.session_by_id(conn, "over") is None
    catalog.write(lambda conn: credentials.end_session(conn, "s"))
    with catalog.read() as conn:
        assert credentials.session_by_id(conn, "s") is None


def test_of_refreshes_at_the_same_time_one_is_done(catalog: Catalog, ann: rows.Account) -> None:
    catalog.write(lambda conn: credentials.add_session(conn, Session("s", ann.id, at(60)), ADDRESS))
    catalog.write(lambda conn: credentials.add_refresh_token(conn, "old", "s"))
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda n: catalog.write(lambda conn: credentials.rotate(conn, "old", f"new{n}"))[0], range(4)))
    assert outcomes.count(Rotation.DONE) == 1
    # The first of the others ends the login, so that later ones find none.
    assert outcomes.count(Rotation.USED_BEFORE) >= 1
    with catalog.read() as conn:
        assert credentials.session_by_id(conn, "s") is None


def test_attempts_are_counted_before_they_are_made(catalog: Catalog) -> None:
    def claim(_: int) -> bool:
        return catalog.write(lambda conn: credentials.claim_attempt(conn, "k", 5, at(900), at(300)), ("login:k",))[0]

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(claim, range(20))) == [False] * 15 + [True] * 5
    catalog.write(lambda conn: credentials.forget_attempts(conn, "k"))
    assert claim(0)
    catalog.write(lambda conn: credentials.claim_attempt(conn, "short", 1, at(900), at(-1)))
    assert catalog.write(lambda conn: credentials.claim_attempt(conn, "short", 1, at(900), at(300))) == (True, "")
    assert catalog.write(lambda conn: credentials.claim_attempt(conn, "short", 1, at(900), at(300)))[0] is False


def test_pruning_forgets_what_is_over(catalog: Catalog, ann: rows.Account) -> None:
    def fill(conn: Connection) -> None:
        for name, seconds in (("s", 60), ("over", -100)):
            credentials.add_session(conn, Session(name, ann.id, at(seconds)), ADDRESS)
            credentials.add_refresh_token(conn, name, name)
            credentials.add_token(conn, ApiToken(name, ann.id, name, "jobs", now_text(), at(seconds)), name)
            credentials.claim_attempt(conn, name, 5, at(seconds), at(seconds))

    catalog.write(fill)
    assert catalog.write(lambda conn: credentials.prune(conn, at(-50))) == 3
    with catalog.read() as conn:
        for column in (login_session.c.id, refresh_token.c.secret_hash, api_token.c.id, login_failure.c.key):
            assert conn.execute(select(column)).scalars().all() == ["s"]


def test_a_catalog_made_anew_keeps_its_accounts(catalog: Catalog, ann: rows.Account) -> None:
    before = generation(catalog)
    catalog.write(lambda conn: inventory.begin_rebuilding(conn, now_text()))
    with catalog.read() as conn:
        assert rows.by_id(conn, ann.id) == ann
    assert generation(catalog) == before
    catalog.write(lambda conn: rows.remove(conn, ann.id))
    assert catalog.write(lambda conn: rows.add(conn, "Bob", "bob", "viewer", None)).id > ann.id


# --- the core over them --------------------------------------------------------------------------------------------


def begin(accounts: Accounts, account: rows.Account) -> logins.TokenPair:
    return accounts.catalog.write(lambda conn: logins.begin_token_login(accounts, conn, account, ADDRESS))


def test_what_one_process_ends_no_other_recognizes(accounts: Accounts, others: Accounts, ann: rows.Account) -> None:
    pair = begin(accounts, ann)
    for seen in (accounts, others):
        assert seen.recognize(pair.access_token).username == "Ann"
    logins.logout(accounts, None, pair.refresh_token)
    for seen in (accounts, others):
        with pytest.raises(Unauthenticated):
            seen.recognize(pair.access_token)


def test_recognizing_again_reads_one_number_only(accounts: Accounts, ann: rows.Account, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = begin(accounts, ann)
    principal = accounts.recognize(pair.access_token)
    monkeypatch.setattr(accounts.catalog, "read", None)
    assert accounts.recognize(pair.access_token) is principal


def test_what_is_remembered_is_bounded(accounts: Accounts, ann: rows.Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacslite.core.accounts._MAX_REMEMBERED", 3)
    for _ in range(10):
        accounts.recognize(begin(accounts, ann).access_token)
    for n in range(10):
        with pytest.raises(Unauthenticated):
            accounts.recognize(f"pacslite_{n}")
    assert len(accounts._remembered) <= 3


def test_still_tells_what_became_of_somebody(accounts: Accounts, others: Accounts, ann: rows.Account) -> None:
    principal = accounts.recognize(begin(accounts, ann).access_token)
    assert accounts.still(principal) == principal
    users.change(others, ann.id, users.Change(role=Role.VIEWER, groups=("c",)))
    changed = accounts.still(principal)
    assert changed is not None
    assert (changed.role, changed.groups) == (Role.VIEWER, {"c"})
    users.remove(others, ann.id)
    assert accounts.still(principal) is None
    local = Principal(None, "local", Role.ADMIN, SCOPES)
    assert accounts.still(local) is local


def test_hashes_of_older_parameters_are_renewed_by_a_login(accounts: Accounts) -> None:
    from argon2 import PasswordHasher

    weak = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    made = accounts.catalog.write(lambda conn: rows.add(conn, "old", "old", "viewer", weak))
    logins.login(accounts, "old", PASSWORD, ORIGIN)
    renewed = users.get(accounts, made.id).password_hash
    assert renewed is not None
    assert renewed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    logins.login(accounts, "old", PASSWORD, ORIGIN)
    assert users.get(accounts, made.id).password_hash == renewed


def test_a_password_is_one_whatever_the_keyboard_makes_of_it(accounts: Accounts) -> None:
    kept = passwords.hashed("Pässwort \ufb01n")
    assert passwords.verified("Pa\u0308sswort fin", kept) == (True, None)
    assert passwords.verified("Passwort fin", kept) == (False, None)
    assert passwords.verified("x" * 100_000, kept) == (False, None)


def test_the_first_administrator_is_made_once(accounts: Accounts, others: Accounts) -> None:
    with ThreadPoolExecutor(2) as pool:
        made = [one for one in pool.map(users.first_administrator, (accounts, others)) if one is not None]
    ((name, password),) = made
    assert (name, len(password)) == ("admin", 20)
    assert logins.login(accounts, name, password, ORIGIN).username == "admin"
    assert users.first_administrator(accounts) is None


def test_the_settings_may_name_the_first_administrator(catalog: Catalog, tmp_path: Path) -> None:
    def of(**given: str) -> Accounts:
        settings: Settings = load(environment={}, data=tmp_path, **given)
        return Accounts(settings, catalog)

    users.first_administrator_of_settings(of())
    with pytest.raises(ConfigurationError, match="admin_password"):
        users.first_administrator_of_settings(of(admin_password="short"))
    with pytest.raises(ConfigurationError, match="username"):
        users.first_administrator_of_settings(of(admin_user="a b", admin_password=PASSWORD))
    users.first_administrator_of_settings(of(admin_user="chief", admin_password=PASSWORD))
    users.first_administrator_of_settings(of(admin_user="other", admin_password="another good one"))
    assert [one.username for one in users.listed(of())] == ["chief"]
    assert logins.login(of(), "chief", PASSWORD, ORIGIN).account_id == users.get_by_name(of(), "chief").id


def test_a_name_in_several_forms_is_one_name(accounts: Accounts) -> None:
    users.create(accounts, "Zo\u0308e", None, Role.VIEWER)
    for same in ("zöe", "ZÖE", "Zo\u0308E"):
        assert users.get_by_name(accounts, same).username == "Zöe"
        with pytest.raises(Conflict):
            users.create(accounts, same, None, Role.VIEWER)


def test_an_account_without_a_password_has_none_to_guess(accounts: Accounts) -> None:
    users.create(accounts, "device", None, Role.SERVICE)
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            logins.login(accounts, "device", "", ORIGIN)
    with pytest.raises(TooManyRequests):
        logins.login(accounts, "device", "", ORIGIN)


def test_a_passing_token_leaves_nothing(accounts: Accounts) -> None:
    with users.passing_token(accounts, "test", frozenset({Right.DICOMWEB_READ}), 60) as secret:
        assert accounts.recognize(secret).rights == {Right.DICOMWEB_READ}
    with pytest.raises(Unauthenticated):
        accounts.recognize(secret)
    assert users.listed(accounts) == []


def test_scopes_give_no_more_than_the_role(ann: rows.Account) -> None:
    assert principal_of(ann, "token", "", SCOPES).rights == SCOPES - {Right.ADMIN}

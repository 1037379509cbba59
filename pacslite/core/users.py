"""The accounts of users: made, changed and removed by administrators, over REST and the command line alike."""

from __future__ import annotations

import logging
import re
import secrets
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pacslite.catalog import accounts as rows
from pacslite.catalog import credentials
from pacslite.catalog.accounts import Account as Account
from pacslite.catalog.statements import now_text, time_text
from pacslite.core import passwords
from pacslite.core.access import Right, Role
from pacslite.core.accounts import API_TOKEN_PREFIX
from pacslite.core.audit import NOBODY, Event, change_of, note
from pacslite.core.logins import username_key
from pacslite.core.secret_keys import fingerprint
from pacslite.errors import ConfigurationError, Conflict, InvalidForm, NotFound, Unauthenticated

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.core.access import Principal
    from pacslite.core.accounts import Accounts

FIRST_ADMINISTRATOR = "admin"
_NAME = re.compile(r"[^\W_][\w.@+-]{0,63}")
_GROUP = re.compile(r"[^\W_][\w .@+-]{0,63}")
_RESERVED = frozenset({"local"})  # who acts where nobody logs in
_MOST_GROUPS = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of an account; None leaves things as they are."""

    role: Role | None = None
    password: str | None = None
    disabled: bool | None = None
    groups: tuple[str, ...] | None = None


def listed(accounts: Accounts) -> list[Account]:
    """All accounts by name."""
    with accounts.catalog.read() as conn:
        return rows.listed(conn)


def get(accounts: Accounts, account_id: int) -> Account:
    """One account; raises NotFound."""
    with accounts.catalog.read() as conn:
        return _found(rows.by_id(conn, account_id) if account_id < 2**63 else None)


def get_by_name(accounts: Accounts, username: str) -> Account:
    """The account of that name; raises NotFound."""
    with accounts.catalog.read() as conn:
        return _found(rows.by_name(conn, username_key(username)))


def create(
    accounts: Accounts, username: str, password: str | None, role: Role, groups: tuple[str, ...] = (), origin: Event = NOBODY
) -> Account:
    """A new account, without a password one that logs in by tokens alone; raises InvalidForm, Conflict."""
    name = checked_name(username)
    if password is not None:
        passwords.check(password, name, accounts.settings.password_min_length)
    _check_groups(groups)
    kept = passwords.hashed(password) if password is not None else None
    key = username_key(name)

    def add(conn: Connection) -> Account:
        if rows.by_name(conn, key) is not None:
            raise Conflict("There is a user of this name.")
        made = rows.add(conn, name, key, role.value, kept, groups=groups)
        note(conn, change_of(origin, "user.create", made.id, username=name, role=role.value, groups=sorted(groups)))
        return made

    return accounts.catalog.write(add, ("accounts",))


def change(
    accounts: Accounts, account_id: int, wanted: Change, origin: Event = NOBODY, *, keep_session: str = "", action: str = "user.update"
) -> Account:
    """Changes an account; a new password ends its logins, but for `keep_session`. Raises NotFound, InvalidForm, Conflict."""
    known = get(accounts, account_id)
    kept = None
    if wanted.password is not None:
        passwords.check(wanted.password, known.username, accounts.settings.password_min_length)
        kept = passwords.hashed(wanted.password)
    _check_groups(wanted.groups or ())
    given = {"role": wanted.role.value if wanted.role else None, "disabled": wanted.disabled, "password_hash": kept}
    values = {name: value for name, value in given.items() if value is not None}

    def apply(conn: Connection) -> Account:
        _found(rows.by_id(conn, account_id))
        rows.change(conn, account_id, **values)
        if wanted.groups is not None:
            rows.set_groups(conn, account_id, wanted.groups)
        if kept is not None or wanted.disabled:
            rows.end_sessions(conn, account_id, keep_session)
        _keep_an_administrator(conn, known)
        note(conn, change_of(origin, action, account_id, username=known.username, **_told(wanted)))
        return _found(rows.by_id(conn, account_id))

    return accounts.catalog.write(apply, ("accounts",))


def _told(wanted: Change) -> dict[str, Any]:
    """What the audit log says of a change: of a password only that there is a new one."""
    given = {
        "role": wanted.role.value if wanted.role else None,
        "disabled": wanted.disabled,
        "groups": sorted(wanted.groups) if wanted.groups is not None else None,
        "password": "new" if wanted.password is not None else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def change_own_password(accounts: Accounts, principal: Principal, old: str, new: str, origin: Event) -> None:
    """A user's own new password, for which the old one is asked; ends the other logins. Raises Unauthenticated, TooManyRequests."""
    from pacslite.core.logins import check_password

    if principal.account_id is None or principal.kind != "user":
        raise Conflict("This login has no password.")
    try:
        check_password(accounts, principal.username, old, origin.address, lambda conn, account: None)
    except Unauthenticated:
        raise InvalidForm.at("current_password", "is wrong") from None
    wanted = Change(password=new)
    change(accounts, principal.account_id, wanted, origin, keep_session=principal.credential_id, action="user.password")


def remove(accounts: Accounts, account_id: int, origin: Event = NOBODY) -> None:
    """Forgets an account and ends everything it is logged in by; raises NotFound, Conflict."""

    def apply(conn: Connection) -> None:
        known = _found(rows.by_id(conn, account_id) if account_id < 2**63 else None)
        rows.remove(conn, account_id)
        _keep_an_administrator(conn, known)
        note(conn, change_of(origin, "user.delete", account_id, username=known.username))

    accounts.catalog.write(apply, ("accounts",))


def checked_name(username: str) -> str:
    """The name in its one form; raises InvalidForm."""
    name = unicodedata.normalize("NFKC", username)
    if not _NAME.fullmatch(name) or name.casefold() in _RESERVED:
        fault = "is not 1 to 64 letters, digits and .@+-_, beginning with a letter or digit; `local` is taken"
        raise InvalidForm.at("username", fault)
    return name


def first_administrator(accounts: Accounts, password: str | None = None) -> tuple[str, str] | None:
    """Makes the first administrator when there is no account at all: name and password, None when there is one."""
    name = checked_name(accounts.settings.admin_user or FIRST_ADMINISTRATOR)
    with accounts.catalog.read() as conn:
        if rows.count(conn):
            return None
    if password is not None:
        passwords.check(password, name, accounts.settings.password_min_length)
    given = password if password is not None else secrets.token_urlsafe(15)
    kept = passwords.hashed(given)

    def add(conn: Connection) -> bool:
        if rows.count(conn):
            return False
        made = rows.add(conn, name, username_key(name), Role.ADMIN.value, kept)
        note(conn, change_of(NOBODY, "user.create", made.id, username=name, role=Role.ADMIN.value))
        return True

    return (name, given) if accounts.catalog.write(add, ("accounts",)) else None


def first_administrator_of_settings(accounts: Accounts) -> None:
    """The first administrator that the settings name with a password; later ones of the same settings change nothing."""
    if accounts.settings.admin_password is None:
        return
    try:
        made = first_administrator(accounts, accounts.settings.admin_password)
    except InvalidForm as error:
        raise ConfigurationError(f"admin_user or admin_password: {error}") from None
    if made is not None:
        _log.info("the first administrator was made", extra={"actor": made[0]})


@contextmanager
def passing_token(accounts: Accounts, purpose: str, scopes: frozenset[Right], seconds: int) -> Iterator[str]:
    """An API token while the block lasts, of an account that nobody logs in to: for a program with access to the catalog."""
    name = f"_{purpose}-{secrets.token_hex(4)}"  # no name that a user can have
    secret = API_TOKEN_PREFIX + secrets.token_urlsafe(32)
    until = time_text(datetime.now(UTC) + timedelta(seconds=seconds))

    def add(conn: Connection) -> int:
        owner = rows.add(conn, name, name, Role.SERVICE.value, None)
        token = credentials.ApiToken(str(uuid.uuid4()), owner.id, purpose, " ".join(sorted(scopes)), now_text(), until)
        credentials.add_token(conn, token, fingerprint(secret))
        note(conn, change_of(NOBODY, "token.create", token.id, name=purpose, username=name, scopes=token.scopes))
        return owner.id

    def forget(conn: Connection) -> None:
        rows.remove(conn, account_id)
        note(conn, change_of(NOBODY, "user.delete", account_id, username=name))

    account_id = accounts.catalog.write(add, ("accounts",))
    try:
        yield secret
    finally:
        accounts.catalog.write(forget, ("accounts",))


def _keep_an_administrator(conn: Connection, changed: Account) -> None:
    """Raises Conflict, and so takes the change back, when it leaves nobody who could undo it."""
    if changed.role == Role.ADMIN.value and not changed.disabled and not rows.count_enabled(conn, Role.ADMIN.value):
        raise Conflict("This is the last administrator who can log in.")


def _check_groups(groups: tuple[str, ...]) -> None:
    if len(groups) > _MOST_GROUPS or not all(_GROUP.fullmatch(name) for name in groups):
        fault = f"are not at most {_MOST_GROUPS} names of 1 to 64 letters, digits, spaces and .@+-_"
        raise InvalidForm.at("groups", fault)


def _found(account: Account | None) -> Account:
    if account is None:
        raise NotFound("There is no such user.")
    return account

"""API tokens: named, with scopes and an end; the secret is shown once, only its hash is kept."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pacslite.catalog import accounts as rows
from pacslite.catalog import credentials
from pacslite.catalog.credentials import ApiToken as ApiToken
from pacslite.catalog.statements import now_text, time_text
from pacslite.core.access import RIGHTS_OF_ROLE, Principal, Right, Role
from pacslite.core.accounts import API_TOKEN_PREFIX
from pacslite.core.audit import NOBODY, Event, change_of, note
from pacslite.core.secret_keys import fingerprint
from pacslite.errors import Conflict, Forbidden, InvalidForm, NotFound

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.core.accounts import Accounts

DEFAULT_SECONDS, LONGEST_SECONDS = 90 * 86400, 5 * 366 * 86400
_MOST = 100


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token and its secret, which is told now and never again."""

    token: ApiToken
    secret: str = field(repr=False)


def create(
    accounts: Accounts,
    principal: Principal,
    account_id: int,
    name: str,
    scopes: Iterable[Right],
    seconds: int = DEFAULT_SECONDS,
    origin: Event = NOBODY,
) -> NewToken:
    """A token of an account, the caller's own or, for administrators, any; raises Forbidden, NotFound, Conflict, InvalidForm."""
    _check_owner(principal, account_id)
    wanted = frozenset(scopes)
    if not wanted:
        raise InvalidForm.at("scopes", "names none")
    secret = API_TOKEN_PREFIX + secrets.token_urlsafe(32)
    made = ApiToken(
        str(uuid.uuid4()),
        account_id,
        name,
        " ".join(sorted(wanted)),
        now_text(),
        time_text(datetime.now(UTC) + timedelta(seconds=seconds)),
    )

    def add(conn: Connection) -> None:
        owner = rows.by_id(conn, account_id)
        if owner is None:
            raise NotFound("There is no such user.")
        beyond = wanted - RIGHTS_OF_ROLE[Role(owner.role)]
        if beyond:
            raise Forbidden(f"The role {owner.role} does not give {' '.join(sorted(beyond))}.")
        if credentials.count_tokens(conn, account_id) >= _MOST:
            raise Conflict(f"An account has at most {_MOST} tokens; remove some.")
        credentials.add_token(conn, made, fingerprint(secret))
        note(conn, change_of(origin, "token.create", made.id, name=name, username=owner.username, scopes=made.scopes))

    accounts.catalog.write(add, (f"tokens:{account_id}",))
    return NewToken(made, secret)


def listed(accounts: Accounts, principal: Principal, account_id: int) -> list[ApiToken]:
    """The tokens of an account, the caller's own or, for administrators, any; raises Forbidden."""
    _check_owner(principal, account_id)
    with accounts.catalog.read() as conn:
        return credentials.tokens(conn, account_id)


def remove(accounts: Accounts, principal: Principal, token_id: str, origin: Event = NOBODY) -> None:
    """Ends a token, which counts at once; raises NotFound, for somebody else's too unless the caller is administrator."""
    anybodys = Right.ADMIN in principal.rights
    owner = None if anybodys else _own(principal)

    def end(conn: Connection) -> bool:
        removed = credentials.remove_token(conn, token_id, owner)
        if removed:
            note(conn, change_of(origin, "token.delete", token_id))
        return removed

    if not accounts.catalog.write(end):
        raise NotFound("There is no such token.")


def _check_owner(principal: Principal, account_id: int) -> None:
    if Right.ADMIN not in principal.rights and account_id != _own(principal):
        raise Forbidden("These are the tokens of somebody else.")


def _own(principal: Principal) -> int:
    """Tokens are made by people who have logged in: one that has leaked makes no others."""
    if principal.kind != "user" or principal.account_id is None:
        raise Forbidden("Tokens are kept by users who have logged in, and by administrators.")
    return principal.account_id

"""Logins by an OpenID provider: which account is meant, and which role it has.

An account is told by issuer and subject alone, which the provider never gives to anybody else; a name or an e-mail address that is the same
proves nothing. The role follows from the provider's claims at each login.
"""

from __future__ import annotations

import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pacslite.catalog import accounts as rows
from pacslite.core.access import Role
from pacslite.core.audit import Event, change_of, note
from pacslite.core.logins import BrowserLogin, begin_browser_session, note_login, username_key
from pacslite.core.users import checked_name
from pacslite.errors import Forbidden, InvalidForm
from pacslite.oidc.attempt import Attempt as Attempt

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.core.accounts import Accounts
    from pacslite.oidc.provider import Provider
    from pacslite.settings import Settings

_STRONGEST_FIRST = (Role.ADMIN, Role.CLINICIAN, Role.VIEWER)


def provider_of(settings: Settings) -> Provider | None:
    """The provider that the settings name."""
    if not settings.oidc_issuer or not settings.oidc_client_id:
        return None
    return _provider(settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret, settings.oidc_scopes)


@lru_cache(maxsize=4)
def _provider(issuer: str, client_id: str, client_secret: str | None, scopes: str) -> Provider:
    """One for the process: it knows what the provider has said of itself."""
    from pacslite.oidc.provider import Provider

    return Provider(issuer, client_id, client_secret, scopes)


def new_attempt() -> Attempt:
    """Secrets for one login."""
    return Attempt(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))


def begin(accounts: Accounts, claims: dict[str, Any], origin: Event) -> BrowserLogin:
    """A login of whom the claims name, whose account is made at the first one; raises Forbidden."""
    settings = accounts.settings
    external_id = f"{claims['iss']}|{claims['sub']}"
    role = role_of(settings, claims)
    name = claims.get(settings.oidc_username_claim)

    def apply(conn: Connection) -> BrowserLogin:
        known = rows.by_external_id(conn, external_id)
        if known is None:
            known = rows.add(conn, *_free_name(conn, name), role.value, None, external_id)
            note(conn, change_of(origin, "user.create", known.id, username=known.username, role=role.value, by="oidc"))
        elif known.disabled:
            raise Forbidden("This account is disabled.")
        elif known.role != role.value:
            rows.change(conn, known.id, role=role.value)
            note(conn, change_of(origin, "user.update", known.id, username=known.username, role=role.value, by="oidc"))
        note_login(conn, origin, known)
        return begin_browser_session(accounts, conn, rows.by_id(conn, known.id) or known, origin.address)

    return accounts.catalog.write(apply, ("accounts",))


def role_of(settings: Settings, claims: dict[str, Any]) -> Role:
    """The strongest role that the groups of the claims give; raises Forbidden when they give none."""
    value: Any = claims
    for step in settings.oidc_role_claim.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    groups = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    given = {settings.oidc_roles[group] for group in groups if isinstance(group, str) and group in settings.oidc_roles}
    if settings.oidc_default_role:
        given.add(settings.oidc_default_role)
    found = next((role for role in _STRONGEST_FIRST if role.value in given), None)
    if found is None:
        raise Forbidden("This user has no role here; see oidc_roles.")
    return found


def _free_name(conn: Connection, claimed: Any) -> tuple[str, str]:
    """Name and key of a new account; raises Forbidden when somebody else has it: it is never taken over."""
    try:
        name = checked_name(claimed if isinstance(claimed, str) else "")
    except InvalidForm:
        raise Forbidden("The provider gives no name that an account can have; see oidc_username_claim.") from None
    if rows.by_name(conn, username_key(name)) is not None:
        raise Forbidden("Another account has this name already; an administrator can rename or remove it.")
    return name, username_key(name)

"""Users of DICOM associations (PS3.7 D.3.3.7): the same accounts, and the same limit of failures, as over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacslite.core import logins
from pacslite.core.access import Principal
from pacslite.core.accounts import API_TOKEN_PREFIX, Accounts, password_id, principal_of
from pacslite.core.callers import IdentityKind, UserIdentity
from pacslite.errors import Unauthenticated

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.accounts import Account
    from pacslite.core.limits import Limits


class DicomLogins:
    """Recognizes users by name and password, by an access token, or by an API token in the place of either.

    A name alone proves nothing and recognizes nobody.
    """

    def __init__(self, accounts: Accounts, limits: Limits | None = None) -> None:
        self._accounts, self._limits = accounts, limits

    def __call__(self, identity: UserIdentity, address: str, calling_aet: str) -> Principal | None:
        """The user, None when the identity is not accepted; raises TooManyRequests, Busy, Unavailable."""
        try:
            if identity.kind is IdentityKind.JWT:
                return self._accounts.recognize(identity.secret)
            if identity.kind is IdentityKind.PASSWORD:
                return self._limited(identity, address)
        except Unauthenticated:
            pass
        return None

    def still(self, principal: Principal) -> Principal | None:
        """The user as of now."""
        return self._accounts.still(principal)

    def _limited(self, identity: UserIdentity, address: str) -> Principal | None:
        """Devices log in for each association, so what counts is what fails; beyond the rate nothing is looked at."""
        if self._limits is not None:
            self._limits.login(identity.name, address, counts=False)
        try:
            found = self._by_password(identity, address)
        except Unauthenticated:
            found = None
        if found is None and self._limits is not None:
            self._limits.login(identity.name, address)
        return found

    def _by_password(self, identity: UserIdentity, address: str) -> Principal | None:
        # Devices know fields for a name and a password; an API token fits into the second.
        if identity.secret.startswith(API_TOKEN_PREFIX):
            owner = self._accounts.recognize(identity.secret)
            return owner if logins.username_key(owner.username) == logins.username_key(identity.name) else None

        def recognized(conn: Connection, account: Account) -> Principal:
            return principal_of(account, "user", password_id(account))

        return logins.check_password(self._accounts, identity.name, identity.secret, address, recognized)

"""Who shows a credential: access tokens, API tokens, cookies of browsers, and whether what was recognized still counts.

What was recognized is remembered until it expires, or until the generation of the catalog's accounts changes: every request
asks for that one number, so that ending a login or changing an account counts at once in every process.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING

import jwt

from pacslite.catalog import accounts as rows
from pacslite.catalog import credentials
from pacslite.catalog.statements import now_text
from pacslite.core import secret_keys
from pacslite.core.access import RIGHTS_OF_ROLE, Kind, Principal, Right, Role, rights_of_login
from pacslite.core.secret_keys import SecretKeys, fingerprint
from pacslite.errors import Unauthenticated

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.accounts import Account
    from pacslite.catalog.database import Catalog
    from pacslite.settings import Settings

API_TOKEN_PREFIX = "pacslite_"
_ALGORITHM = "HS256"
_CLAIMS = ["sub", "iat", "exp", "jti", "sid"]
_LONGEST_TOKEN = 4096
_MAX_REMEMBERED = 4096
_PASSWORD = "password:"
_USE_NOTED_EVERY_S = 3600

_log = logging.getLogger(__name__)
INVALID = "The login is not valid, or over."


@dataclass(frozen=True, slots=True)
class Recognized:
    """Whom a credential stands for until `until` (seconds since 1970), and what proves that a page of ours sent a form."""

    principal: Principal
    until: float
    csrf_token: str = ""


class Accounts:
    """The accounts as one process sees them; any thread may ask."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self.settings, self.catalog = settings, catalog
        self._remembered: dict[Hashable, tuple[int, Recognized]] = {}
        self._noted: dict[str, float] = {}
        self._uses: dict[str, str] = {}
        self._uses_lock = threading.Lock()
        self._uses_writer: threading.Thread | None = None

    @cached_property
    def keys(self) -> SecretKeys:
        """The secrets; read when first needed, and made when absent."""
        return secret_keys.load(self.settings)

    def recognize(self, bearer: str) -> Principal:
        """Whom an access token or API token stands for; raises Unauthenticated."""
        principal = self._recall(fingerprint(bearer), lambda conn: self._of_bearer(conn, bearer)).principal
        if principal.kind == "token":
            self._note_use(principal.credential_id)
        return principal

    def recognize_cookie(self, secret: str) -> Recognized:
        """Whom the cookie of a browser stands for; raises Unauthenticated."""
        digest = fingerprint(secret)

        def read(conn: Connection) -> Recognized | None:
            session = credentials.session_by_secret(conn, digest)
            return self._of_session(conn, session) if session is not None else None

        return self._recall(("cookie", digest), read)

    def still(self, principal: Principal) -> Principal | None:
        """The same as of now: None when the login has ended, with other rights when the account has changed."""
        if principal.account_id is None:
            return principal
        try:
            found = self._recall(principal, lambda conn: self._again(conn, principal)).principal
        except Unauthenticated:
            return None
        if found.kind == "token":
            self._note_use(found.credential_id)
        return found

    def access_token(self, session: credentials.Session) -> tuple[str, int]:
        """A new access token of a login, and the seconds it lasts."""
        now, ends_at = int(time.time()), int(seconds_of(session.expires_at))
        expires_in = min(self.settings.access_token_seconds, max(1, ends_at - now))
        claims = {"sub": str(session.account_id), "iat": now, "exp": now + expires_in, "jti": secrets.token_hex(12), "sid": session.id}
        return jwt.encode(claims, self.keys.raw, _ALGORITHM), expires_in

    def csrf_token(self, session_id: str) -> str:
        """What a page of ours shows to prove that it is one."""
        return hmac.digest(self.keys.derive("csrf"), session_id.encode(), "sha256").hex()

    def close(self) -> None:
        """Returns when what is noted of the use of tokens is written."""
        with self._uses_lock:
            writer = self._uses_writer
        if writer is not None:
            writer.join(5)

    def _note_use(self, token_id: str) -> None:
        """Once an hour for each token, beside the request: who shows it waits for no write."""
        now = time.time()
        if now - self._noted.get(token_id, 0.0) < _USE_NOTED_EVERY_S:
            return
        with self._uses_lock:
            if now - self._noted.get(token_id, 0.0) < _USE_NOTED_EVERY_S:
                return
            if len(self._noted) >= _MAX_REMEMBERED:
                self._noted.clear()
            self._noted[token_id] = now
            self._uses[token_id] = now_text()
            if self._uses_writer is None:
                writer = threading.Thread(target=self._write_uses, name="token-uses", daemon=True)
                with suppress(RuntimeError):  # the system has no thread left: the next use is noted with this one
                    writer.start()
                    self._uses_writer = writer

    def _write_uses(self) -> None:
        while True:
            with self._uses_lock:
                uses, self._uses = self._uses, {}
                if not uses:
                    self._uses_writer = None
                    return
            try:
                self.catalog.write(partial(_write_uses, uses))
            except Exception as error:  # noqa: BLE001 - nothing depends on it; the next hour notes it
                _log.warning("when tokens were used was not noted", extra={"reason": str(error), "tokens": len(uses)})

    def _recall(self, key: Hashable, read: Callable[[Connection], Recognized | None]) -> Recognized:
        generation = int(self.catalog.glance(rows.GENERATION) or 0)  # before what it speaks of is read
        known = self._remembered.get(key)
        if known is not None and known[0] == generation and known[1].until > time.time():
            return known[1]
        with self.catalog.read() as conn:
            found = read(conn)
        if found is None or found.until <= time.time():
            self._remembered.pop(key, None)
            raise Unauthenticated(INVALID, invalid=True)
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = generation, found
        return found

    def _of_bearer(self, conn: Connection, bearer: str) -> Recognized | None:
        if bearer.startswith(API_TOKEN_PREFIX):
            token = credentials.token_by_secret(conn, fingerprint(bearer))
            return self._of_token(conn, token) if token is not None else None
        claims = self._claims(bearer)
        session = credentials.session_by_id(conn, claims["sid"])
        if session is None or str(session.account_id) != claims["sub"]:
            return None
        found = self._of_session(conn, session)
        return Recognized(found.principal, min(found.until, float(claims["exp"]))) if found is not None else None

    def _claims(self, token: str) -> dict[str, str]:
        """What an access token says; raises Unauthenticated. The algorithm is ours, whatever the token names."""
        if len(token) > _LONGEST_TOKEN:
            raise Unauthenticated(INVALID, invalid=True)
        for key in (self.keys.raw, *self.keys.previous):
            try:
                claims: dict[str, str] = jwt.decode(token, key, algorithms=[_ALGORITHM], options={"require": _CLAIMS})
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError):
                break
            if isinstance(claims["sid"], str):
                return claims
        raise Unauthenticated(INVALID, invalid=True)

    def _of_session(self, conn: Connection, session: credentials.Session) -> Recognized | None:
        account = rows.by_id(conn, session.account_id)
        if account is None or account.disabled:
            return None
        principal = principal_of(account, "user", session.id)
        return Recognized(principal, seconds_of(session.expires_at), self.csrf_token(session.id))

    def _of_token(self, conn: Connection, token: credentials.ApiToken) -> Recognized | None:
        account = rows.by_id(conn, token.account_id)
        if account is None or account.disabled:
            return None
        if token.last_used_at is not None:
            self._noted.setdefault(token.id, seconds_of(token.last_used_at))
        scopes = frozenset(Right(scope) for scope in token.scopes.split())
        return Recognized(principal_of(account, "token", token.id, scopes), seconds_of(token.expires_at))

    def _again(self, conn: Connection, principal: Principal) -> Recognized | None:
        assert principal.account_id is not None
        if principal.kind == "token":
            token = credentials.token_by_id(conn, principal.credential_id)
            return self._of_token(conn, token) if token is not None else None
        if not principal.credential_id.startswith(_PASSWORD):
            session = credentials.session_by_id(conn, principal.credential_id)
            return self._of_session(conn, session) if session is not None else None
        account = rows.by_id(conn, principal.account_id)
        if account is None or account.disabled or password_id(account) != principal.credential_id:
            return None
        return Recognized(principal_of(account, "user", principal.credential_id), float("inf"))


def _write_uses(uses: dict[str, str], conn: Connection) -> None:
    for token_id, at in sorted(uses.items()):
        credentials.note_use(conn, token_id, at)


def principal_of(account: Account, kind: Kind, credential_id: str, scopes: frozenset[Right] | None = None) -> Principal:
    """The account as a caller; `scopes` are those of the token it shows."""
    role = Role(account.role)
    rights = rights_of_login(role) if scopes is None else scopes & RIGHTS_OF_ROLE[role]
    return Principal(account.id, account.username, role, rights, account.groups, kind, credential_id)


def password_id(account: Account) -> str:
    """Names a login by password alone, as long as the password stays the same."""
    return _PASSWORD + fingerprint(account.password_hash or "")[:32]


def seconds_of(text: str) -> float:
    """A time of the catalog as seconds since 1970."""
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()

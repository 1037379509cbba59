"""A web server where people log in, with a user of each role, and credentials of every sort, good and bad."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jwt

from pacslite import app
from pacslite.catalog import accounts as rows
from pacslite.core import api_tokens, logins, passwords, users
from pacslite.core.access import SCOPES, Right, Role
from pacslite.core.accounts import Accounts
from pacslite.settings import load
from tests.support.http import Answer, WebServer, running

PASSWORD = "correct horse battery"
ELSEWHERE = "192.0.2.77"
# Some other server's key, and what an attacker would sign with when the algorithm were not fixed.
_FOREIGN_KEY = "another installation's secret, long enough for HS256"


@dataclass
class Guarded:
    """The server, the accounts behind it, and a way to ask it as somebody."""

    server: WebServer
    accounts: Accounts
    ids: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for role in Role:
            self.user(role.value, role)

    def user(self, name: str, role: Role = Role.VIEWER) -> int:
        """A new user with `PASSWORD`; the number."""
        made = self.accounts.catalog.write(lambda conn: rows.add(conn, name, name, role.value, _hash_of_password()))
        self.ids[name] = made.id
        return self.ids[name]

    def login(self, name: str) -> logins.TokenPair:
        """Tokens of a user, made beside the server and without its password, which takes time."""
        account = users.get_by_name(self.accounts, name)
        return self.accounts.catalog.write(lambda conn: logins.begin_token_login(self.accounts, conn, account, ELSEWHERE))

    def bearer(self, name: str) -> str:
        """An access token."""
        return self.login(name).access_token

    def api_token(self, name: str, scopes: frozenset[Right], seconds: int = 3600) -> api_tokens.NewToken:
        """An API token of a user."""
        owner = self.accounts.recognize(self.bearer(name))
        return api_tokens.create(self.accounts, owner, self.ids[name], "test", scopes, seconds)

    def ask(self, method: str, path: str, bearer: str | None = None, body: Any = None, **headers: str) -> Answer:
        """One request; `body` goes as JSON."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if bearer is not None:
            sent["Authorization"] = f"Bearer {bearer}"
        content = None
        if body is not None:
            sent["Content-Type"], content = "application/json", json.dumps(body).encode()
        return self.server.request(method, path, content, sent)

    def resigned(self, token: str, key: str | bytes | None = None, algorithm: str = "HS256", **claims: Any) -> str:
        """The token with other claims, signed by the server's key or another."""
        old = jwt.decode(token, options={"verify_signature": False})
        return jwt.encode(old | claims, key if key is not None else self.accounts.keys.raw, algorithm)

    def invalid(self) -> dict[str, str]:
        """Credentials that count for nothing, by what is wrong with them; those of an administrator, were they right."""
        good = self.bearer("admin")
        head, claims, signature = good.split(".")
        ended = self.login("admin")
        logins.logout(self.accounts, self.accounts.recognize(ended.access_token), ended.refresh_token)
        made = self.api_token("admin", SCOPES)
        api_tokens.remove(self.accounts, self.accounts.recognize(good), made.token.id)
        over = self.api_token("admin", SCOPES, seconds=-1)
        return {
            "expired": self.resigned(good, exp=int(time.time()) - 1),
            "tampered": f"{head}.{_packed(_unpacked(claims) | {'sub': '1'})}.{signature}",
            "without a signature": f"{head}.{claims}.",
            "alg none": f"{_packed({'alg': 'none', 'typ': 'JWT'})}.{claims}.",
            "alg None with a signature": f"{_packed({'alg': 'None', 'typ': 'JWT'})}.{claims}.{signature}",
            "alg RS256": f"{_packed({'alg': 'RS256', 'typ': 'JWT'})}.{claims}.{signature}",
            "alg HS512": self.resigned(good, algorithm="HS512"),
            "wrong key": self.resigned(good, _FOREIGN_KEY),
            "somebody else's login": self.resigned(good, sub=str(self.ids["viewer"])),
            "without a login": self.resigned(good, sid="0" * 32),
            "without an end": jwt.encode(_unpacked(claims) | {"exp": None}, self.accounts.keys.raw, "HS256"),
            "logged out": ended.access_token,
            "revoked API token": made.secret,
            "expired API token": over.secret,
            "unknown API token": "pacslite_" + "A" * 43,
            "disabled user": self._of_disabled(),
            "removed user": self._of_removed(),
            "old password": self._of_old_password(),
            "refresh token": self.login("admin").refresh_token,
            "garbage": "x.y.z",
        }

    def _of_disabled(self) -> str:
        self.user("disabled", Role.ADMIN)
        token = self.bearer("disabled")
        users.change(self.accounts, self.ids["disabled"], users.Change(disabled=True))
        return token

    def _of_removed(self) -> str:
        self.user("removed", Role.ADMIN)
        token = self.bearer("removed")
        users.remove(self.accounts, self.ids.pop("removed"))
        return token

    def _of_old_password(self) -> str:
        self.user("forgetful", Role.ADMIN)
        token = self.bearer("forgetful")
        users.change(self.accounts, self.ids["forgetful"], users.Change(password="another good one"))
        return token


@contextmanager
def guarded(data: Path, **settings: str) -> Iterator[Guarded]:
    """A server where people log in, over a new data directory."""
    chosen = {"auth": "1", "api_rate_per_minute": "0", "login_rate_per_minute": "0", **settings}
    environment = {f"PACSLITE_{name.upper()}": value for name, value in {"data": str(data), **chosen}.items()}
    with running(data, **chosen) as server:
        server.root = ""
        catalog = app.build_catalog(load(environment=environment))
        try:
            accounts = Accounts(load(environment=environment), catalog)
            yield Guarded(server, accounts)
            accounts.close()
        finally:
            catalog.close()


@cache
def _hash_of_password() -> str:
    return passwords.hashed(PASSWORD)


def _packed(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _unpacked(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found

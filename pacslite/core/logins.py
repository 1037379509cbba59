"""Logging in and out: passwords with their limit of failures, refresh tokens that serve once, sessions of browsers."""

from __future__ import annotations

import hmac
import math
import secrets
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, TypeVar

from pacslite.catalog import accounts as rows
from pacslite.catalog import credentials
from pacslite.catalog.credentials import Rotation, Session
from pacslite.catalog.statements import time_text
from pacslite.core import passwords
from pacslite.core.accounts import INVALID, Recognized, principal_of, seconds_of
from pacslite.core.audit import NOBODY, Event, change_of, note
from pacslite.core.secret_keys import fingerprint
from pacslite.errors import Busy, TooManyRequests, Unauthenticated

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.accounts import Account
    from pacslite.core.access import Principal
    from pacslite.core.accounts import Accounts

T = TypeVar("T")
_WRONG = "The name or the password is wrong."
_FORGET_FAILURES_S = 900
_OVER_FOR_DAYS = 7
_PATIENCE_S = 15.0
_LONGEST_NAME = 256
# Attempts under one name from one address come one after the other, so that good ones at the same time do not look like guesses.
_turns = tuple(threading.Lock() for _ in range(64))


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a program gets by logging in."""

    access_token: str
    expires_in: int
    refresh_token: str
    username: str = ""
    account_id: int | None = None


@dataclass(frozen=True, slots=True)
class BrowserLogin:
    """What a browser gets by logging in; `secret` goes into its cookie and nowhere else."""

    secret: str
    recognized: Recognized


def username_key(username: str) -> str:
    """The name as names are compared."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username).casefold()).replace("\0", "\N{REPLACEMENT CHARACTER}")


def login(accounts: Accounts, username: str, password: str, origin: Event) -> TokenPair:
    """A new login; raises Unauthenticated, TooManyRequests, Busy."""

    def begin(conn: Connection, account: Account) -> TokenPair:
        note_login(conn, origin, account)
        return begin_token_login(accounts, conn, account, origin.address)

    return check_password(accounts, username, password, origin.address, begin)


def begin_browser_login(accounts: Accounts, username: str, password: str, origin: Event) -> BrowserLogin:
    """A new login of a browser; raises Unauthenticated, TooManyRequests, Busy."""

    def begin(conn: Connection, account: Account) -> BrowserLogin:
        note_login(conn, origin, account)
        return begin_browser_session(accounts, conn, account, origin.address)

    return check_password(accounts, username, password, origin.address, begin)


def note_login(conn: Connection, origin: Event, account: Account) -> None:
    """Puts a login on record, in the transaction that begins it."""
    note(conn, replace(change_of(origin, "auth.login"), actor=account.username, actor_id=account.id))


def begin_browser_session(accounts: Accounts, conn: Connection, account: Account, address: str) -> BrowserLogin:
    """The session of a browser whose user is known, however that came."""
    secret = secrets.token_urlsafe(32)
    session = _new_session(account, accounts.settings.session_seconds)
    credentials.add_session(conn, session, address, fingerprint(secret))
    recognized = Recognized(principal_of(account, "user", session.id), seconds_of(session.expires_at), accounts.csrf_token(session.id))
    return BrowserLogin(secret, recognized)


def begin_token_login(accounts: Accounts, conn: Connection, account: Account, address: str) -> TokenPair:
    """The tokens of a program whose user is known, however that came."""
    session, refresh_token = _new_session(account, accounts.settings.refresh_token_seconds), secrets.token_urlsafe(32)
    credentials.add_session(conn, session, address)
    credentials.add_refresh_token(conn, fingerprint(refresh_token), session.id)
    return TokenPair(*accounts.access_token(session), refresh_token, account.username, account.id)


def check_password(accounts: Accounts, username: str, password: str, address: str, then: Callable[[Connection, Account], T]) -> T:
    """What `then` makes in the catalog once the password is known to be right; raises Unauthenticated, TooManyRequests, Busy.

    Whether the name exists shows neither in the answer nor in the time it takes.
    """
    key = _key(accounts, username[:_LONGEST_NAME], address)
    with _turn(key):
        _claim(accounts, key)
        try:
            account, rehashed = _verify(accounts, username[:_LONGEST_NAME], password)
        except Busy:
            accounts.catalog.write(lambda conn: credentials.take_back_attempt(conn, key), (f"login:{key}",))
            raise

        def succeed(conn: Connection) -> T:
            credentials.forget_attempts(conn, key)
            if rehashed is not None:
                rows.upgrade_hash(conn, account.id, account.password_hash or "", rehashed)
            return then(conn, rows.by_id(conn, account.id) or account)

        return accounts.catalog.write(succeed, (f"login:{key}",))


def refresh(accounts: Accounts, refresh_token: str, origin: Event = NOBODY) -> TokenPair:
    """New tokens for a refresh token that was not used before; raises Unauthenticated.

    One that was used before ends the login: somebody has stolen it, before its use or after (RFC 9700 4.14.2).
    """
    fresh = secrets.token_urlsafe(32)
    old_hash = fingerprint(refresh_token)

    def rotate(conn: Connection) -> tuple[Rotation, Session | None]:
        outcome, session = credentials.rotate(conn, old_hash, fingerprint(fresh))
        if outcome is Rotation.DONE and session is not None:
            _note_of(conn, change_of(origin, "auth.refresh"), session.account_id)
        elif session is not None:
            _note_of(conn, change_of(origin, "auth.logout", reason="a refresh token was shown twice"), session.account_id)
        return outcome, session

    outcome, session = accounts.catalog.write(rotate, (f"refresh:{old_hash}",))
    if outcome is not Rotation.DONE or session is None:
        raise Unauthenticated(INVALID, invalid=True)
    return TokenPair(*accounts.access_token(session), fresh)


def logout(accounts: Accounts, principal: Principal | None, refresh_token: str | None, origin: Event = NOBODY) -> None:
    """Ends the logins that are shown, with their access tokens; raises Unauthenticated when neither counts."""
    if principal is not None and principal.kind != "user":
        principal = None

    def end(conn: Connection) -> bool:
        session = credentials.session_of_refresh_token(conn, fingerprint(refresh_token)) if refresh_token else None
        ended = {session.id: session.account_id} if session is not None else {}
        if principal is not None and principal.account_id is not None:
            ended[principal.credential_id] = principal.account_id
        for one, account_id in ended.items():
            credentials.end_session(conn, one)
            _note_of(conn, change_of(origin, "auth.logout"), account_id)
        return bool(ended)

    if not accounts.catalog.write(end):
        raise Unauthenticated(INVALID, invalid=True)


def _note_of(conn: Connection, event: Event, account_id: int) -> None:
    """Notes what became of a login, by the name of whose it is."""
    owner = rows.by_id(conn, account_id)
    note(conn, replace(event, actor=owner.username if owner is not None else "", actor_id=account_id))


def _new_session(account: Account, seconds: int) -> Session:
    return Session(secrets.token_hex(16), account.id, time_text(datetime.now(UTC) + timedelta(seconds=seconds)))


def _claim(accounts: Accounts, key: str) -> None:
    settings, now = accounts.settings, datetime.now(UTC)
    forget_at, lock_until = (time_text(now + timedelta(seconds=s)) for s in (_FORGET_FAILURES_S, settings.login_lock_s))
    allowed, until = accounts.catalog.write(
        lambda conn: credentials.claim_attempt(conn, key, settings.login_attempts, forget_at, lock_until), (f"login:{key}",)
    )
    if not allowed:
        left = max(1, math.ceil(seconds_of(until) - time.time()))
        raise TooManyRequests("Too many failed logins under this name from this address; try again later.", left)


def _verify(accounts: Accounts, username: str, password: str) -> tuple[Account, str | None]:
    with accounts.catalog.read() as conn:
        account = rows.by_name(conn, username_key(username))
    usable = account.password_hash if account is not None and not account.disabled else None
    right, rehashed = passwords.verified(password, usable)
    if not right or account is None:
        raise Unauthenticated(_WRONG)
    return account, rehashed


def _key(accounts: Accounts, username: str, address: str) -> str:
    """Neither names nor addresses are kept of failures: a name may be a password typed into the wrong field."""
    text = f"{username_key(username)}\0{_network(address)}".encode("utf-8", "surrogatepass")
    return hmac.digest(accounts.keys.derive("login failures"), text, "sha256").hex()


def _network(address: str) -> str:
    """The address as it is counted: of IPv6 the network that one customer gets."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped or parsed.version == 4:
        return str(mapped or parsed)
    return str(ip_network(f"{parsed}/64", strict=False))


@contextmanager
def _turn(key: str) -> Iterator[None]:
    lock = _turns[int(key[:8], 16) % len(_turns)]
    if not lock.acquire(timeout=_PATIENCE_S):
        raise Busy("too many logins at once")
    try:
        yield
    finally:
        lock.release()


def prune(accounts: Accounts) -> int:
    """Forgets logins and tokens that are over for a week, and failed attempts that no longer count; how many."""
    before = time_text(datetime.now(UTC) - timedelta(days=_OVER_FOR_DAYS))
    return accounts.catalog.write(lambda conn: credentials.prune(conn, before))

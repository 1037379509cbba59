"""What accounts log in with: logins and their refresh tokens, API tokens, and failed attempts.

Secrets are never here, only their hashes: they are long random numbers, for which SHA-256 is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, update

from pacslite.catalog.account_models import account, api_token, login_failure, login_session, refresh_token
from pacslite.catalog.accounts import advance
from pacslite.catalog.statements import now_text


@dataclass(frozen=True, slots=True)
class Session:
    """A login that is neither over nor ended, and whose account may log in."""

    id: str
    account_id: int
    expires_at: str


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A named token of an account; `scopes` are separated by spaces."""

    id: str
    account_id: int
    name: str
    scopes: str
    created_at: str
    expires_at: str
    last_used_at: str | None = None


class Rotation(Enum):
    """What came of showing a refresh token."""

    DONE = "done"
    UNKNOWN = "unknown"
    USED_BEFORE = "used before"


_SESSION_COLUMNS = (login_session.c.id, login_session.c.account_id, login_session.c.expires_at)
_LIVE = (login_session.c.ended_at.is_(None), login_session.c.expires_at > bindparam("now"))
_OF_ENABLED = (account.c.id == login_session.c.account_id, account.c.disabled.is_(False))
_SESSION_BY_ID = select(*_SESSION_COLUMNS).where(login_session.c.id == bindparam("id"), *_LIVE, *_OF_ENABLED)
_SESSION_BY_SECRET = select(*_SESSION_COLUMNS).where(login_session.c.secret_hash == bindparam("secret_hash"), *_LIVE, *_OF_ENABLED)
_TOKEN_COLUMNS = (
    api_token.c.id,
    api_token.c.account_id,
    api_token.c.name,
    api_token.c.scopes,
    api_token.c.created_at,
    api_token.c.expires_at,
    api_token.c.last_used_at,
)
_TOKEN_LIVE = (api_token.c.expires_at > bindparam("now"), account.c.id == api_token.c.account_id, account.c.disabled.is_(False))
_TOKEN_BY_SECRET = select(*_TOKEN_COLUMNS).where(api_token.c.secret_hash == bindparam("secret_hash"), *_TOKEN_LIVE)
_TOKEN_BY_ID = select(*_TOKEN_COLUMNS).where(api_token.c.id == bindparam("id"), *_TOKEN_LIVE)


def session_by_id(conn: Connection, session_id: str) -> Session | None:
    """A login that counts now."""
    return _session(conn.execute(_SESSION_BY_ID, {"id": session_id, "now": now_text()}).one_or_none())


def session_by_secret(conn: Connection, secret_hash: str) -> Session | None:
    """The login of a browser that counts now."""
    return _session(conn.execute(_SESSION_BY_SECRET, {"secret_hash": secret_hash, "now": now_text()}).one_or_none())


def session_of_refresh_token(conn: Connection, secret_hash: str) -> Session | None:
    """The login that a refresh token belongs to, used or not, as long as it counts."""
    wanted = select(*_SESSION_COLUMNS).where(
        refresh_token.c.secret_hash == secret_hash, refresh_token.c.session_id == login_session.c.id, *_LIVE, *_OF_ENABLED
    )
    return _session(conn.execute(wanted, {"now": now_text()}).one_or_none())


def add_session(conn: Connection, session: Session, address: str, secret_hash: str | None = None) -> None:
    """A new login; `secret_hash` is of a browser's cookie."""
    conn.execute(
        insert(login_session).values(
            id=session.id,
            account_id=session.account_id,
            secret_hash=secret_hash,
            address=address,
            created_at=now_text(),
            expires_at=session.expires_at,
        )
    )


def end_session(conn: Connection, session_id: str) -> None:
    """Ends a login, and with it its access and refresh tokens."""
    conn.execute(
        update(login_session).where(login_session.c.id == session_id, login_session.c.ended_at.is_(None)).values(ended_at=now_text())
    )
    advance(conn)


def add_refresh_token(conn: Connection, secret_hash: str, session_id: str) -> None:
    """A refresh token of a login."""
    conn.execute(insert(refresh_token).values(secret_hash=secret_hash, session_id=session_id))


def rotate(conn: Connection, old_hash: str, new_hash: str) -> tuple[Rotation, Session | None]:
    """Puts a new refresh token in the place of one that was not used yet; one that was ends its login."""
    session = session_of_refresh_token(conn, old_hash)
    if session is None:
        return Rotation.UNKNOWN, None
    unused = update(refresh_token).where(refresh_token.c.secret_hash == old_hash, refresh_token.c.used_at.is_(None))
    if not conn.execute(unused.values(used_at=now_text())).rowcount:
        end_session(conn, session.id)
        return Rotation.USED_BEFORE, session
    add_refresh_token(conn, new_hash, session.id)
    return Rotation.DONE, session


def add_token(conn: Connection, token: ApiToken, secret_hash: str) -> None:
    """A new API token."""
    conn.execute(
        insert(api_token).values(
            id=token.id,
            account_id=token.account_id,
            name=token.name,
            scopes=token.scopes,
            secret_hash=secret_hash,
            created_at=token.created_at,
            expires_at=token.expires_at,
        )
    )


def token_by_secret(conn: Connection, secret_hash: str) -> ApiToken | None:
    """The API token that counts now."""
    return _token(conn.execute(_TOKEN_BY_SECRET, {"secret_hash": secret_hash, "now": now_text()}).one_or_none())


def token_by_id(conn: Connection, token_id: str) -> ApiToken | None:
    """The same by its public id."""
    return _token(conn.execute(_TOKEN_BY_ID, {"id": token_id, "now": now_text()}).one_or_none())


def tokens(conn: Connection, account_id: int) -> list[ApiToken]:
    """All tokens of an account, expired ones too, oldest first."""
    wanted = select(*_TOKEN_COLUMNS).where(api_token.c.account_id == account_id).order_by(api_token.c.created_at, api_token.c.id)
    return [ApiToken(*row) for row in conn.execute(wanted)]


def count_tokens(conn: Connection, account_id: int) -> int:
    """How many tokens an account has."""
    return int(conn.execute(select(func.count()).select_from(api_token).where(api_token.c.account_id == account_id)).scalar_one())


def remove_token(conn: Connection, token_id: str, account_id: int | None) -> bool:
    """Forgets a token, of this account or of any; whether there was one."""
    of_account = () if account_id is None else (api_token.c.account_id == account_id,)
    removed = conn.execute(delete(api_token).where(api_token.c.id == token_id, *of_account)).rowcount > 0
    if removed:
        advance(conn)
    return removed


def note_use(conn: Connection, token_id: str, at: str) -> None:
    """Remembers that a token was used; nothing when a later use is known."""
    earlier = or_(api_token.c.last_used_at.is_(None), api_token.c.last_used_at < at)
    conn.execute(update(api_token).where(api_token.c.id == token_id, earlier).values(last_used_at=at))


def claim_attempt(conn: Connection, key: str, most: int, forget_at: str, lock_until: str) -> tuple[bool, str]:
    """Counts an attempt before it is made; whether it may be made, and when the lock ends if not.

    The last attempt that may be made puts the lock on, so that however many come at once no more than `most` fail.
    """
    now = now_text()
    row = conn.execute(
        select(login_failure.c.attempts, login_failure.c.until_at).where(login_failure.c.key == key).with_for_update()
    ).one_or_none()
    if row is None:
        conn.execute(insert(login_failure).values(key=key, attempts=1, until_at=lock_until if most == 1 else forget_at))
        return True, ""
    attempts, until_at = (0, "") if row[1] <= now else row
    if attempts >= most:
        return False, until_at
    until_at = lock_until if attempts + 1 >= most else forget_at
    conn.execute(update(login_failure).where(login_failure.c.key == key).values(attempts=attempts + 1, until_at=until_at))
    return True, ""


def forget_attempts(conn: Connection, key: str) -> None:
    """Somebody has logged in under this key."""
    conn.execute(delete(login_failure).where(login_failure.c.key == key))


def take_back_attempt(conn: Connection, key: str) -> None:
    """An attempt that was counted was not made."""
    conn.execute(update(login_failure).where(login_failure.c.key == key).values(attempts=login_failure.c.attempts - 1))


def prune(conn: Connection, ended_before: str) -> int:
    """Forgets logins that are over, expired tokens of long ago, and attempts that no longer count."""
    gone = conn.execute(
        delete(login_session).where(or_(login_session.c.ended_at < ended_before, login_session.c.expires_at < ended_before))
    ).rowcount
    gone += conn.execute(delete(api_token).where(api_token.c.expires_at < ended_before)).rowcount
    return gone + conn.execute(delete(login_failure).where(login_failure.c.until_at < now_text())).rowcount


def _session(row: Any) -> Session | None:
    return None if row is None else Session(*row)


def _token(row: Any) -> ApiToken | None:
    return None if row is None else ApiToken(*row)

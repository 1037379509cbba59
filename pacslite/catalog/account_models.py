"""Tables of accounts, of what they log in with, and of failed attempts."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, Table, UniqueConstraint, false

from pacslite.catalog.models import _ID, _TEXT, Base, _text


def _account() -> Column[int]:
    return Column("account_id", _ID, ForeignKey("account.id", ondelete="CASCADE"), nullable=False)


class Account(Base):
    """Somebody who may log in. Numbers are never used again: the audit log names accounts by them."""

    __table__ = Table(
        "account",
        Base.metadata,
        Column("id", _ID, primary_key=True),
        _text("username"),
        _text("username_key"),  # as names are compared: in one case and one normal form
        Column("password_hash", _TEXT),  # none for accounts that log in elsewhere or by tokens alone
        _text("role"),
        Column("disabled", Boolean, nullable=False, server_default=false()),
        Column("external_id", _TEXT),  # issuer and subject of another login service
        _text("created_at"),
        _text("updated_at"),
        UniqueConstraint("username_key"),
        UniqueConstraint("external_id"),
        sqlite_autoincrement=True,
    )


class AccountGroup(Base):
    """A group that an account is in."""

    __table__ = Table(
        "account_group",
        Base.metadata,
        Column("account_id", _ID, ForeignKey("account.id", ondelete="CASCADE"), primary_key=True),
        Column("name", _TEXT, primary_key=True),
        Index(None, "name"),
    )


class LoginSession(Base):
    """One login, with all the tokens that came of it: what ends it ends them. That of a browser is told by its cookie."""

    __table__ = Table(
        "login_session",
        Base.metadata,
        Column("id", _TEXT, primary_key=True),
        _account(),
        Column("secret_hash", _TEXT),
        _text("address"),
        _text("created_at"),
        _text("expires_at"),
        Column("ended_at", _TEXT),
        UniqueConstraint("secret_hash"),
        Index(None, "account_id"),
        Index(None, "expires_at"),
    )


class RefreshToken(Base):
    """A refresh token of a login; it serves once."""

    __table__ = Table(
        "refresh_token",
        Base.metadata,
        Column("secret_hash", _TEXT, primary_key=True),
        Column("session_id", _TEXT, ForeignKey("login_session.id", ondelete="CASCADE"), nullable=False),
        Column("used_at", _TEXT),
        Index(None, "session_id"),
    )


class ApiToken(Base):
    """A named token with scopes; only the hash of its secret is here."""

    __table__ = Table(
        "api_token",
        Base.metadata,
        Column("id", _TEXT, primary_key=True),
        _account(),
        _text("name"),
        _text("scopes"),
        _text("secret_hash"),
        _text("created_at"),
        _text("expires_at"),
        Column("last_used_at", _TEXT),
        UniqueConstraint("secret_hash"),
        Index(None, "account_id"),
        Index(None, "expires_at"),
    )


class LoginFailure(Base):
    """Failed attempts under one name from one address; the key is a keyed hash of both."""

    __table__ = Table(
        "login_failure",
        Base.metadata,
        Column("key", _TEXT, primary_key=True),
        Column("attempts", Integer, nullable=False),
        _text("until_at"),  # forgotten then; while locked, the end of the lock
        Index(None, "until_at"),
    )


class AccessGeneration(Base):
    """One number that grows with every change by which a credential may give less than before."""

    __table__ = Table(
        "access_generation",
        Base.metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("value", _ID, nullable=False),
    )


account = Account.__table__
account_group = AccountGroup.__table__
login_session = LoginSession.__table__
refresh_token = RefreshToken.__table__
api_token = ApiToken.__table__
login_failure = LoginFailure.__table__
access_generation = AccessGeneration.__table__

TABLES = (account, account_group, login_session, refresh_token, api_token, login_failure, access_generation)

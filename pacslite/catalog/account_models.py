"""Tables of accounts, of what they log in with, and of failed attempts."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, Table, UniqueConstraint, false

from pacslite.catalog.models import _ID, _TEXT, SCHEMA, _text


def _account() -> Column[int]:
    return Column("account_id", _ID, ForeignKey("account.id", ondelete="CASCADE"), nullable=False)


account = Table(
    "account",
    SCHEMA,
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
"""Somebody who may log in. Numbers are never used again: the audit log names accounts by them."""

account_group = Table(
    "account_group",
    SCHEMA,
    Column("account_id", _ID, ForeignKey("account.id", ondelete="CASCADE"), primary_key=True),
    Column("name", _TEXT, primary_key=True),
    Index(None, "name"),
)
"""A group that an account is in."""

login_session = Table(
    "login_session",
    SCHEMA,
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
"""One login, with all the tokens that came of it: what ends it ends them. That of a browser is told by its cookie."""

refresh_token = Table(
    "refresh_token",
    SCHEMA,
    Column("secret_hash", _TEXT, primary_key=True),
    Column("session_id", _TEXT, ForeignKey("login_session.id", ondelete="CASCADE"), nullable=False),
    Column("used_at", _TEXT),
    Index(None, "session_id"),
)
"""A refresh token of a login; it serves once."""

api_token = Table(
    "api_token",
    SCHEMA,
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
"""A named token with scopes; only the hash of its secret is here."""

login_failure = Table(
    "login_failure",
    SCHEMA,
    Column("key", _TEXT, primary_key=True),
    Column("attempts", Integer, nullable=False),
    _text("until_at"),  # forgotten then; while locked, the end of the lock
    Index(None, "until_at"),
)
"""Failed attempts under one name from one address; the key is a keyed hash of both."""

access_generation = Table(
    "access_generation",
    SCHEMA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", _ID, nullable=False),
)
"""One number that grows with every change by which a credential may give less than before."""

TABLES = (account, account_group, login_session, refresh_token, api_token, login_failure, access_generation)

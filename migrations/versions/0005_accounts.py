"""Accounts, logins, tokens, and failed attempts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, _TEXT, nullable=nullable)


def _of_account(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=f"fk_{table}_account_id", ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", _ID, nullable=False),
        _text("username"),
        _text("username_key"),
        _text("password_hash", nullable=True),
        _text("role"),
        sa.Column("disabled", sa.Boolean(), server_default=sa.false(), nullable=False),
        _text("external_id", nullable=True),
        _text("created_at"),
        _text("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_account"),
        sa.UniqueConstraint("username_key", name="uq_account_username_key"),
        sa.UniqueConstraint("external_id", name="uq_account_external_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "account_group",
        sa.Column("account_id", _ID, nullable=False),
        _text("name"),
        _of_account("account_group"),
        sa.PrimaryKeyConstraint("account_id", "name", name="pk_account_group"),
    )
    op.create_index("ix_account_group_name", "account_group", ["name"])
    _create_logins()
    op.create_table(
        "login_failure",
        _text("key"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _text("until_at"),
        sa.PrimaryKeyConstraint("key", name="pk_login_failure"),
    )
    op.create_index("ix_login_failure_until_at", "login_failure", ["until_at"])
    op.create_table(
        "access_generation",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", _ID, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_access_generation"),
    )
    op.execute("INSERT INTO access_generation (id, value) VALUES (1, 1)")


def _create_logins() -> None:
    op.create_table(
        "login_session",
        _text("id"),
        sa.Column("account_id", _ID, nullable=False),
        _text("secret_hash", nullable=True),
        _text("address"),
        _text("created_at"),
        _text("expires_at"),
        _text("ended_at", nullable=True),
        _of_account("login_session"),
        sa.PrimaryKeyConstraint("id", name="pk_login_session"),
        sa.UniqueConstraint("secret_hash", name="uq_login_session_secret_hash"),
    )
    op.create_table(
        "refresh_token",
        _text("secret_hash"),
        _text("session_id"),
        _text("used_at", nullable=True),
        sa.ForeignKeyConstraint(["session_id"], ["login_session.id"], name="fk_refresh_token_session_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("secret_hash", name="pk_refresh_token"),
    )
    op.create_index("ix_refresh_token_session_id", "refresh_token", ["session_id"])
    op.create_table(
        "api_token",
        _text("id"),
        sa.Column("account_id", _ID, nullable=False),
        *(_text(name) for name in ("name", "scopes", "secret_hash", "created_at", "expires_at")),
        _text("last_used_at", nullable=True),
        _of_account("api_token"),
        sa.PrimaryKeyConstraint("id", name="pk_api_token"),
        sa.UniqueConstraint("secret_hash", name="uq_api_token_secret_hash"),
    )
    for table in ("login_session", "api_token"):
        for column in ("account_id", "expires_at"):
            op.create_index(f"ix_{table}_{column}", table, [column])

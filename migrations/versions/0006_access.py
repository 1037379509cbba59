"""Groups, labels, what limits the sight of patients, studies and series, and share links."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def _text(name: str, *, nullable: bool = False, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, _TEXT, nullable=nullable, server_default=default)


def upgrade() -> None:
    op.create_table("access_group", _text("name"), _text("created_at"), sa.PrimaryKeyConstraint("name", name="pk_access_group"))
    op.create_table("peer_group", _text("ae_title"), _text("name"), sa.PrimaryKeyConstraint("ae_title", "name", name="pk_peer_group"))
    op.create_index("ix_peer_group_name", "peer_group", ["name"])
    op.create_table(
        "access_label", _text("name"), _text("groups"), _text("created_at"), sa.PrimaryKeyConstraint("name", name="pk_access_label")
    )
    op.create_table(
        "access_rule",
        sa.Column("pk", _ID, nullable=False),
        _text("rule"),
        sa.PrimaryKeyConstraint("pk", name="pk_access_rule"),
        sa.UniqueConstraint("rule", name="uq_access_rule_rule"),
    )
    _create_objects()
    op.create_table(
        "access_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        _text("token", default=""),
        sa.PrimaryKeyConstraint("id", name="pk_access_state"),
    )
    op.execute("INSERT INTO access_state (id, token) VALUES (1, '')")
    # Groups that accounts are in already.
    op.execute("INSERT INTO access_group (name, created_at) SELECT DISTINCT name, '2026-01-01T00:00:00.000000Z' FROM account_group")
    _create_shares()


def _create_objects() -> None:
    named = ("study_instance_uid", "series_instance_uid", "level", "patient_id", "issuer")
    op.create_table(
        "access_object",
        sa.Column("pk", _ID, nullable=False),
        *(_text(name) for name in ("level", "study_instance_uid", "series_instance_uid", "patient_id", "issuer")),
        sa.Column("rule_pk", _ID, nullable=False),
        _text("updated_at"),
        sa.ForeignKeyConstraint(["rule_pk"], ["access_rule.pk"], name="fk_access_object_rule_pk"),
        sa.PrimaryKeyConstraint("pk", name="pk_access_object"),
        sa.UniqueConstraint(*named, name="uq_access_object_named"),
    )
    op.create_index("ix_access_object_rule_pk", "access_object", ["rule_pk"])


def _create_shares() -> None:
    op.create_table(
        "share",
        _text("id"),
        _text("study_instance_uid"),
        sa.Column("account_id", sa.BigInteger(), nullable=True),
        *(_text(name) for name in ("created_by", "credential_kind", "credential_id", "created_at", "expires_at")),
        sa.Column("max_uses", sa.Integer(), nullable=True),
        sa.Column("uses", sa.Integer(), server_default="0", nullable=False),
        _text("last_used_at", nullable=True),
        _text("revoked_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_share"),
    )
    op.create_index("ix_share_created_at_id", "share", ["created_at", "id"])
    op.create_index("ix_share_expires_at", "share", ["expires_at"])

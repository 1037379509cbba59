"""The audit log. What happened before is not in it: it follows the changes from the newest on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
_TEXTS = ("at", "action", "outcome", "actor", "object_type", "object_id", "study_instance_uid")
_MORE_TEXTS = ("address", "protocol", "calling_aet", "request_id")


def upgrade() -> None:
    op.create_table(
        "audit_pending",
        sa.Column("id", _ID, nullable=False),
        sa.Column("payload", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_pending"),
    )
    op.create_table(
        "audit_event",
        sa.Column("seq", _ID, autoincrement=False, nullable=False),
        *(sa.Column(name, _TEXT, nullable=False) for name in (*_TEXTS, *_MORE_TEXTS)),
        sa.Column("actor_id", sa.BigInteger(), nullable=True),
        sa.Column("patient_id", sa.BigInteger(), nullable=True),
        sa.Column("detail", _TEXT, nullable=False),
        sa.Column("hash", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_event"),
    )
    op.create_index("ix_audit_event_at", "audit_event", ["at"])
    for name in ("actor", "action", "patient_id", "study_instance_uid"):
        op.create_index(f"ix_audit_event_{name}_seq", "audit_event", [name, "seq"])
    op.create_table(
        "audit_state",
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_audit_state"),
    )
    op.execute("INSERT INTO audit_state (name, value) SELECT 'changes', coalesce(max(seq), 0) FROM change")

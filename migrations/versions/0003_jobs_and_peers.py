"""Jobs that others can tell by an id, with what became of each of their items; DICOMweb peers, preferences, statistics."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
_COUNTS = (
    "associations_received",
    "associations_sent",
    "instances_received",
    "bytes_received",
    "instances_sent",
    "bytes_sent",
    "failures",
)


def upgrade() -> None:
    for name in ("uid", "memo", "progress_unit", "started_at", "ended_at"):
        op.add_column("job", sa.Column(name, _TEXT, nullable=True))
    conn = op.get_bind()
    for (job_id,) in conn.execute(sa.text("SELECT id FROM job")).all():
        conn.execute(sa.text("UPDATE job SET uid = :uid WHERE id = :id"), {"uid": str(uuid.uuid4()), "id": job_id})
    op.execute("UPDATE job SET state = 'succeeded' WHERE state = 'done'")
    op.execute("UPDATE job SET ended_at = updated_at WHERE state IN ('succeeded', 'failed', 'cancelled')")
    op.create_index("ix_job_uid", "job", ["uid"], unique=True)
    op.create_table(
        "job_item",
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("item", _TEXT, nullable=False),
        sa.Column("outcome", _TEXT, nullable=False),
        sa.Column("detail", _TEXT, nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_job_item_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "item", name="pk_job_item"),
    )
    op.create_index("ix_job_item_job_id_outcome_item", "job_item", ["job_id", "outcome", "item"])
    op.add_column("peer", sa.Column("kind", _TEXT, server_default="dicom", nullable=False))
    op.add_column("peer", sa.Column("url", _TEXT, nullable=True))
    op.add_column("peer", sa.Column("headers", _TEXT, nullable=True))
    op.add_column("peer", sa.Column("transfer_syntaxes", _TEXT, nullable=True))
    op.add_column("peer", sa.Column("coercion_warnings", sa.Boolean(), nullable=True))
    op.create_table(
        "peer_statistics",
        sa.Column("ae_title", _TEXT, nullable=False),
        *(sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in _COUNTS),
        sa.Column("last_seen_at", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("ae_title", name="pk_peer_statistics"),
    )

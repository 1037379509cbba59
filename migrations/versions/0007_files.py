"""Files, their versions and parts, what is made of their bytes, resumable uploads, quotas, merged patients."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def _text(name: str, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, _TEXT, nullable=False, server_default=default)


def _maybe(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, _TEXT, nullable=True) for name in names]


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=f"pk_{table}")


def _refers(table: str, column: str, to: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{to}.pk"], name=f"fk_{table}_{column}")


def _filled_index(table: str, name: str, column: str, *, unique: bool = False) -> None:
    filled = sa.text(f"{column} IS NOT NULL")
    op.create_index(name, table, [column], unique=unique, sqlite_where=filled, postgresql_where=filled)


def upgrade() -> None:
    _widen_known_tables()
    op.create_table(
        "written_ahead",
        sa.Column("pk", _ID, nullable=False),
        _text("blob_uid"),
        _text("storage_key"),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        _key("written_ahead", "pk"),
        sqlite_autoincrement=True,
    )
    _create_files()
    _create_versions()
    _create_renditions()
    _create_uploads()
    _create_accounting()


def _widen_known_tables() -> None:
    for column in (*_maybe("shared_sha256", "encoding"), sa.Column("stored_bytes", sa.BigInteger(), nullable=True)):
        op.add_column("blob", column)
    _filled_index("blob", "uq_blob_shared_sha256", "shared_sha256", unique=True)
    op.add_column("patient", sa.Column("created_by", _TEXT, nullable=True))
    op.add_column("patient", sa.Column("merged_into", sa.BigInteger(), nullable=True))
    _filled_index("patient", "ix_patient_merged_into", "merged_into")
    op.add_column("study", sa.Column("origin_patient", sa.BigInteger(), nullable=True))
    _filled_index("study", "ix_study_origin_patient", "origin_patient")
    op.add_column("change", sa.Column("file_id", _TEXT, nullable=True))
    op.add_column("change", sa.Column("patient_id", sa.BigInteger(), nullable=True))
    op.add_column("share", sa.Column("file_id", _TEXT, nullable=True))


def _create_files() -> None:
    op.create_table(
        "file",
        sa.Column("pk", _ID, nullable=False),
        _text("uid"),
        sa.Column("patient_pk", _ID, nullable=False),
        sa.Column("origin_patient", sa.BigInteger(), nullable=True),
        _text("file_type"),
        *_maybe("medical_category", "study_date", "body_part", "description", "study_instance_uid"),
        *_maybe("dicom_study_uid", "dicom_series_uid", "dicom_sop_uid"),
        sa.Column("version_number", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        _text("state", "live"),
        sa.Column("legal_hold", sa.Boolean(), nullable=False, server_default=sa.false()),
        *(_text(name) for name in ("created_by", "created_at", "updated_at")),
        *_maybe("deleted_at"),
        _refers("file", "patient_pk", "patient"),
        _key("file", "pk"),
        sa.UniqueConstraint("uid", name="uq_file_uid"),
    )
    op.create_index("ix_file_patient_pk_created_at_pk", "file", ["patient_pk", "created_at", "pk"])
    for column in ("deleted_at", "study_instance_uid", "dicom_sop_uid", "origin_patient"):
        _filled_index("file", f"ix_file_{column}", column)
    op.create_table(
        "purged_file",
        _text("uid"),
        sa.Column("patient_id", sa.BigInteger(), nullable=False),
        _text("purged_at"),
        _key("purged_file", "uid"),
    )


def _create_versions() -> None:
    op.create_table(
        "file_version",
        sa.Column("pk", _ID, nullable=False),
        sa.Column("file_pk", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        _text("type"),
        *_maybe("description"),
        _text("created_by"),
        sa.Column("owner_id", sa.BigInteger(), nullable=True),
        _text("created_at"),
        _refers("file_version", "file_pk", "file"),
        _key("file_version", "pk"),
        sa.UniqueConstraint("file_pk", "number", name="uq_file_version_file_pk_number"),
    )
    op.create_table(
        "file_part",
        sa.Column("pk", _ID, nullable=False),
        sa.Column("version_pk", _ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        _text("original_filename"),
        sa.Column("blob_pk", _ID, nullable=True),
        sa.Column("dicom_version", sa.Integer(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        _text("sha256"),
        _text("media_type"),
        _refers("file_part", "version_pk", "file_version"),
        _refers("file_part", "blob_pk", "blob"),
        _key("file_part", "pk"),
        sa.UniqueConstraint("version_pk", "position", name="uq_file_part_version_pk_position"),
    )
    op.create_index("ix_file_part_blob_pk", "file_part", ["blob_pk"])


def _create_renditions() -> None:
    op.create_table(
        "rendition",
        sa.Column("blob_pk", _ID, autoincrement=False, nullable=False),
        _text("name"),
        _text("state", "pending"),
        sa.Column("result_blob", _ID, nullable=True),
        *_maybe("problem"),
        _text("updated_at"),
        _refers("rendition", "blob_pk", "blob"),
        _refers("rendition", "result_blob", "blob"),
        _key("rendition", "blob_pk", "name"),
    )
    op.create_index("ix_rendition_result_blob", "rendition", ["result_blob"])
    op.create_table(
        "blob_info",
        sa.Column("blob_pk", _ID, autoincrement=False, nullable=False),
        _text("info"),
        _refers("blob_info", "blob_pk", "blob"),
        _key("blob_info", "blob_pk"),
    )


def _create_uploads() -> None:
    op.create_table(
        "upload",
        _text("uid"),
        _text("kind", "whole"),
        _text("state", "open"),
        sa.Column("owner_id", sa.BigInteger(), nullable=True),
        _text("created_by"),
        _text("form", "{}"),
        sa.Column("length", sa.BigInteger(), nullable=True),
        sa.Column("offset", sa.BigInteger(), server_default="0", nullable=False),
        *_maybe("parts", "file_uid", "problem", "lease_owner"),
        *(_text(name) for name in ("created_at", "updated_at", "expires_at")),
        _key("upload", "uid"),
    )
    op.create_index("ix_upload_expires_at", "upload", ["expires_at"])
    op.create_index("ix_upload_created_by_state", "upload", ["created_by", "state"])


def _create_accounting() -> None:
    op.create_table(
        "quota",
        sa.Column("account_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("quota_bytes", sa.BigInteger(), nullable=True),
        sa.Column("used_bytes", sa.BigInteger(), server_default="0", nullable=False),
        _key("quota", "account_id"),
    )
    holds = (_text(name) for name in ("study_instance_uid", "created_by", "created_at"))
    op.create_table("study_hold", *holds, _key("study_hold", "study_instance_uid"))
    op.create_table(
        "patient_merge",
        sa.Column("id", _ID, nullable=False),
        sa.Column("from_patient", sa.BigInteger(), nullable=False),
        sa.Column("into_patient", sa.BigInteger(), nullable=False),
        _text("moved"),
        *(_text(name) for name in ("created_by", "created_at")),
        *_maybe("reverted_at"),
        _key("patient_merge", "id"),
    )
    op.create_index("ix_patient_merge_from_patient", "patient_merge", ["from_patient"])
    op.create_index("ix_patient_merge_into_patient", "patient_merge", ["into_patient"])

"""The first catalog: patients to instances, versions, blobs, changes, jobs and peers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "blob",
        sa.Column("pk", _ID, nullable=False),
        sa.Column("uid", _TEXT, nullable=False),
        sa.Column("storage_key", _TEXT, nullable=False),
        sa.Column("store_name", _TEXT, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", _TEXT, nullable=False),
        sa.Column("media_type", _TEXT, nullable=False),
        sa.Column("state", _TEXT, server_default="live", nullable=False),
        sa.Column("reference_count", sa.Integer(), server_default="1", nullable=False),
        sa.Column("doomed_at", _TEXT, nullable=True),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("pk", name="pk_blob"),
        sa.UniqueConstraint("uid", name="uq_blob_uid"),
    )
    op.create_index(
        "ix_blob_doomed",
        "blob",
        ["doomed_at"],
        unique=False,
        sqlite_where=sa.text("state = 'doomed'"),
        postgresql_where=sa.text("state = 'doomed'"),
    )
    op.create_table(
        "change",
        sa.Column("seq", _ID, nullable=False),
        sa.Column("transaction_id", sa.BigInteger(), nullable=True),
        sa.Column("at", _TEXT, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("study_instance_uid", _TEXT, nullable=True),
        sa.Column("series_instance_uid", _TEXT, nullable=True),
        sa.Column("sop_instance_uid", _TEXT, nullable=True),
        sa.Column("version_number", sa.Integer(), nullable=True),
        sa.Column("blob_uid", _TEXT, nullable=True),
        sa.Column("protocol", _TEXT, nullable=True),
        sa.Column("calling_aet", _TEXT, nullable=True),
        sa.Column("address", _TEXT, nullable=True),
        sa.Column("actor", _TEXT, nullable=True),
        sa.Column("request_id", _TEXT, nullable=True),
        sa.Column("detail", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("seq", name="pk_change"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "conflict",
        sa.Column("id", _ID, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("study_instance_uid", _TEXT, nullable=False),
        sa.Column("series_instance_uid", _TEXT, nullable=False),
        sa.Column("sop_instance_uid", _TEXT, nullable=False),
        sa.Column("detail", _TEXT, nullable=True),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_conflict"),
        sa.UniqueConstraint("study_instance_uid", "series_instance_uid", "sop_instance_uid", "kind", name="uq_conflict_instance_kind"),
    )
    op.create_table(
        "job",
        sa.Column("id", _ID, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("state", _TEXT, server_default="queued", nullable=False),
        sa.Column("dedupe_key", _TEXT, nullable=True),
        sa.Column("payload", _TEXT, server_default="{}", nullable=False),
        sa.Column("result", _TEXT, nullable=True),
        sa.Column("error", _TEXT, nullable=True),
        sa.Column("actor", _TEXT, nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), server_default="5", nullable=False),
        sa.Column("progress_done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("progress_total", sa.Integer(), nullable=True),
        sa.Column("run_after_at", _TEXT, nullable=False),
        sa.Column("lease_owner", _TEXT, nullable=True),
        sa.Column("lease_until_at", _TEXT, nullable=True),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("updated_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
    )
    op.create_index("ix_job_state_run_after_at_id", "job", ["state", "run_after_at", "id"], unique=False)
    op.create_index(
        "uq_job_dedupe_key",
        "job",
        ["dedupe_key"],
        unique=True,
        sqlite_where=sa.text("state IN ('queued', 'running')"),
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_table(
        "patient",
        sa.Column("pk", _ID, nullable=False),
        sa.Column("identity_id", _TEXT, nullable=False),
        sa.Column("identity_issuer", _TEXT, nullable=False),
        sa.Column("identity_study", _TEXT, nullable=False),
        sa.Column("patient_name", _TEXT, nullable=True),
        sa.Column("patient_name_alphabetic", _TEXT, server_default="", nullable=False),
        sa.Column("patient_name_ideographic", _TEXT, server_default="", nullable=False),
        sa.Column("patient_name_phonetic", _TEXT, server_default="", nullable=False),
        sa.Column("patient_id", _TEXT, nullable=True),
        sa.Column("issuer_of_patient_id", _TEXT, nullable=True),
        sa.Column("patient_birth_date", _TEXT, nullable=True),
        sa.Column("patient_birth_date_normal", _TEXT, server_default="", nullable=False),
        sa.Column("patient_birth_time", _TEXT, nullable=True),
        sa.Column("patient_birth_time_normal", _TEXT, server_default="", nullable=False),
        sa.Column("patient_sex", _TEXT, nullable=True),
        sa.Column("ethnic_group", _TEXT, nullable=True),
        sa.Column("patient_comments", _TEXT, nullable=True),
        sa.Column("attributes_digest", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("updated_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("pk", name="pk_patient"),
        sa.UniqueConstraint(
            "identity_id", "identity_issuer", "identity_study", name="uq_patient_identity_id_identity_issuer_identity_study"
        ),
    )
    op.create_index("ix_patient_patient_birth_date_normal", "patient", ["patient_birth_date_normal"], unique=False)
    op.create_index("ix_patient_patient_id", "patient", ["patient_id"], unique=False)
    op.create_index("ix_patient_patient_name_alphabetic", "patient", ["patient_name_alphabetic"], unique=False)
    for group in ("ideographic", "phonetic"):
        filled = sa.text(f"patient_name_{group} <> ''")
        name = f"patient_name_{group}"
        op.create_index(f"ix_patient_{name}", "patient", [name], unique=False, sqlite_where=filled, postgresql_where=filled)
    op.create_table(
        "peer",
        sa.Column("ae_title", _TEXT, nullable=False),
        sa.Column("host", _TEXT, nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("allow", _TEXT, server_default="store find move get", nullable=False),
        sa.Column("tls", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("updated_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("ae_title", name="pk_peer"),
    )
    op.create_table(
        "tombstone",
        sa.Column("study_instance_uid", _TEXT, nullable=False),
        sa.Column("series_instance_uid", _TEXT, nullable=False),
        sa.Column("sop_instance_uid", _TEXT, nullable=False),
        sa.Column("deleted_at", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", "series_instance_uid", "sop_instance_uid", name="pk_tombstone"),
    )
    op.create_table(
        "study",
        sa.Column("pk", _ID, nullable=False),
        sa.Column("patient_pk", _ID, nullable=False),
        sa.Column("study_date", _TEXT, nullable=True),
        sa.Column("study_date_normal", _TEXT, server_default="", nullable=False),
        sa.Column("study_time", _TEXT, nullable=True),
        sa.Column("study_time_normal", _TEXT, server_default="", nullable=False),
        sa.Column("accession_number", _TEXT, nullable=True),
        sa.Column("referring_physician_name", _TEXT, nullable=True),
        sa.Column("referring_physician_name_alphabetic", _TEXT, server_default="", nullable=False),
        sa.Column("referring_physician_name_ideographic", _TEXT, server_default="", nullable=False),
        sa.Column("referring_physician_name_phonetic", _TEXT, server_default="", nullable=False),
        sa.Column("timezone_offset_from_utc", _TEXT, nullable=True),
        sa.Column("study_description", _TEXT, nullable=True),
        sa.Column("name_of_physicians_reading_study", _TEXT, nullable=True),
        sa.Column("name_of_physicians_reading_study_alphabetic", _TEXT, server_default="", nullable=False),
        sa.Column("name_of_physicians_reading_study_ideographic", _TEXT, server_default="", nullable=False),
        sa.Column("name_of_physicians_reading_study_phonetic", _TEXT, server_default="", nullable=False),
        sa.Column("admitting_diagnoses_description", _TEXT, nullable=True),
        sa.Column("patient_age", _TEXT, nullable=True),
        sa.Column("patient_size", _TEXT, nullable=True),
        sa.Column("patient_size_value", sa.Double(), nullable=True),
        sa.Column("patient_weight", _TEXT, nullable=True),
        sa.Column("patient_weight_value", sa.Double(), nullable=True),
        sa.Column("study_instance_uid", _TEXT, nullable=False),
        sa.Column("study_id", _TEXT, nullable=True),
        sa.Column("modalities_in_study", _TEXT, nullable=True),
        sa.Column("sop_classes_in_study", _TEXT, nullable=True),
        sa.Column("number_of_study_related_series", sa.Integer(), server_default="0", nullable=False),
        sa.Column("number_of_study_related_instances", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attributes_digest", sa.LargeBinary(), nullable=True),
        sa.Column("change_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("updated_at", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["patient_pk"], ["patient.pk"], name="fk_study_patient_pk"),
        sa.PrimaryKeyConstraint("pk", name="pk_study"),
        sa.UniqueConstraint("study_instance_uid", name="uq_study_study_instance_uid"),
    )
    op.create_index("ix_study_accession_number", "study", ["accession_number"], unique=False)
    op.create_index("ix_study_patient_pk", "study", ["patient_pk"], unique=False)
    op.create_index("ix_study_referring_physician_name_alphabetic", "study", ["referring_physician_name_alphabetic"], unique=False)
    op.create_index(
        "ix_study_study_date_normal_study_time_normal_pk", "study", ["study_date_normal", "study_time_normal", "pk"], unique=False
    )
    op.create_index("ix_study_study_id", "study", ["study_id"], unique=False)
    op.create_table(
        "series",
        sa.Column("pk", _ID, nullable=False),
        sa.Column("study_pk", _ID, nullable=False),
        sa.Column("series_date", _TEXT, nullable=True),
        sa.Column("series_date_normal", _TEXT, server_default="", nullable=False),
        sa.Column("series_time", _TEXT, nullable=True),
        sa.Column("series_time_normal", _TEXT, server_default="", nullable=False),
        sa.Column("modality", _TEXT, nullable=True),
        sa.Column("manufacturer", _TEXT, nullable=True),
        sa.Column("institution_name", _TEXT, nullable=True),
        sa.Column("station_name", _TEXT, nullable=True),
        sa.Column("series_description", _TEXT, nullable=True),
        sa.Column("institutional_department_name", _TEXT, nullable=True),
        sa.Column("performing_physician_name", _TEXT, nullable=True),
        sa.Column("performing_physician_name_alphabetic", _TEXT, server_default="", nullable=False),
        sa.Column("performing_physician_name_ideographic", _TEXT, server_default="", nullable=False),
        sa.Column("performing_physician_name_phonetic", _TEXT, server_default="", nullable=False),
        sa.Column("operators_name", _TEXT, nullable=True),
        sa.Column("operators_name_alphabetic", _TEXT, server_default="", nullable=False),
        sa.Column("operators_name_ideographic", _TEXT, server_default="", nullable=False),
        sa.Column("operators_name_phonetic", _TEXT, server_default="", nullable=False),
        sa.Column("manufacturer_model_name", _TEXT, nullable=True),
        sa.Column("body_part_examined", _TEXT, nullable=True),
        sa.Column("protocol_name", _TEXT, nullable=True),
        sa.Column("series_instance_uid", _TEXT, nullable=False),
        sa.Column("series_number", _TEXT, nullable=True),
        sa.Column("series_number_value", sa.Double(), nullable=True),
        sa.Column("frame_of_reference_uid", _TEXT, nullable=True),
        sa.Column("laterality", _TEXT, nullable=True),
        sa.Column("performed_procedure_step_start_date", _TEXT, nullable=True),
        sa.Column("performed_procedure_step_start_date_normal", _TEXT, server_default="", nullable=False),
        sa.Column("performed_procedure_step_start_time", _TEXT, nullable=True),
        sa.Column("performed_procedure_step_start_time_normal", _TEXT, server_default="", nullable=False),
        sa.Column("performed_procedure_step_id", _TEXT, nullable=True),
        sa.Column("performed_procedure_step_description", _TEXT, nullable=True),
        sa.Column("number_of_series_related_instances", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attributes_digest", sa.LargeBinary(), nullable=True),
        sa.Column("change_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("updated_at", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["study_pk"], ["study.pk"], name="fk_series_study_pk"),
        sa.PrimaryKeyConstraint("pk", name="pk_series"),
        sa.UniqueConstraint("series_instance_uid", "study_pk", name="uq_series_series_instance_uid_study_pk"),
    )
    op.create_index("ix_series_modality_study_pk", "series", ["modality", "study_pk"], unique=False)
    op.create_index("ix_series_study_pk_series_number_value_pk", "series", ["study_pk", "series_number_value", "pk"], unique=False)
    op.create_table(
        "instance",
        sa.Column("pk", _ID, nullable=False),
        sa.Column("series_pk", _ID, nullable=False),
        sa.Column("image_type", _TEXT, nullable=True),
        sa.Column("instance_creation_date", _TEXT, nullable=True),
        sa.Column("instance_creation_date_normal", _TEXT, server_default="", nullable=False),
        sa.Column("instance_creation_time", _TEXT, nullable=True),
        sa.Column("instance_creation_time_normal", _TEXT, server_default="", nullable=False),
        sa.Column("sop_class_uid", _TEXT, nullable=False),
        sa.Column("sop_instance_uid", _TEXT, nullable=False),
        sa.Column("acquisition_date", _TEXT, nullable=True),
        sa.Column("acquisition_date_normal", _TEXT, server_default="", nullable=False),
        sa.Column("content_date", _TEXT, nullable=True),
        sa.Column("content_date_normal", _TEXT, server_default="", nullable=False),
        sa.Column("acquisition_date_time", _TEXT, nullable=True),
        sa.Column("acquisition_date_time_first", _TEXT, server_default="", nullable=False),
        sa.Column("acquisition_date_time_last", _TEXT, server_default="", nullable=False),
        sa.Column("acquisition_time", _TEXT, nullable=True),
        sa.Column("acquisition_time_normal", _TEXT, server_default="", nullable=False),
        sa.Column("content_time", _TEXT, nullable=True),
        sa.Column("content_time_normal", _TEXT, server_default="", nullable=False),
        sa.Column("acquisition_number", _TEXT, nullable=True),
        sa.Column("acquisition_number_value", sa.Double(), nullable=True),
        sa.Column("instance_number", _TEXT, nullable=True),
        sa.Column("instance_number_value", sa.Double(), nullable=True),
        sa.Column("slice_location", _TEXT, nullable=True),
        sa.Column("slice_location_value", sa.Double(), nullable=True),
        sa.Column("number_of_frames", _TEXT, nullable=True),
        sa.Column("number_of_frames_value", sa.Double(), nullable=True),
        sa.Column("rows", _TEXT, nullable=True),
        sa.Column("columns", _TEXT, nullable=True),
        sa.Column("bits_allocated", _TEXT, nullable=True),
        sa.Column("content_label", _TEXT, nullable=True),
        sa.Column("content_description", _TEXT, nullable=True),
        sa.Column("completion_flag", _TEXT, nullable=True),
        sa.Column("verification_flag", _TEXT, nullable=True),
        sa.Column("transfer_syntax_uid", _TEXT, nullable=False),
        sa.Column("version_number", sa.Integer(), nullable=False),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.Column("updated_at", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["series_pk"], ["series.pk"], name="fk_instance_series_pk"),
        sa.PrimaryKeyConstraint("pk", name="pk_instance"),
        sa.UniqueConstraint("sop_instance_uid", "series_pk", name="uq_instance_sop_instance_uid_series_pk"),
    )
    op.create_index(
        "ix_instance_series_pk_instance_number_value_pk", "instance", ["series_pk", "instance_number_value", "pk"], unique=False
    )
    op.create_table(
        "request_attribute",
        sa.Column("series_pk", _ID, nullable=False),
        sa.Column("item", sa.Integer(), nullable=False),
        sa.Column("scheduled_procedure_step_id", _TEXT, nullable=True),
        sa.Column("requested_procedure_id", _TEXT, nullable=True),
        sa.ForeignKeyConstraint(["series_pk"], ["series.pk"], name="fk_request_attribute_series_pk"),
        sa.PrimaryKeyConstraint("series_pk", "item", name="pk_request_attribute"),
    )
    op.create_index("ix_request_attribute_requested_procedure_id", "request_attribute", ["requested_procedure_id"], unique=False)
    op.create_index("ix_request_attribute_scheduled_procedure_step_id", "request_attribute", ["scheduled_procedure_step_id"], unique=False)
    op.create_table(
        "version",
        sa.Column("pk", _ID, nullable=False),
        sa.Column("instance_pk", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("blob_pk", _ID, nullable=False),
        sa.Column("transfer_syntax_uid", _TEXT, nullable=False),
        sa.Column("data_set_digest", _TEXT, nullable=False),
        sa.Column("type", _TEXT, nullable=True),
        sa.Column("description", _TEXT, nullable=True),
        sa.Column("author", _TEXT, nullable=True),
        sa.Column("created_at", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["blob_pk"], ["blob.pk"], name="fk_version_blob_pk"),
        sa.ForeignKeyConstraint(["instance_pk"], ["instance.pk"], name="fk_version_instance_pk"),
        sa.PrimaryKeyConstraint("pk", name="pk_version"),
        sa.UniqueConstraint("instance_pk", "number", name="uq_version_instance_pk_number"),
    )
    op.create_index("ix_version_blob_pk", "version", ["blob_pk"], unique=False)
    op.create_table(
        "metadata",
        sa.Column("version_pk", _ID, autoincrement=False, nullable=False),
        sa.Column("extractor_version", sa.Integer(), nullable=False),
        sa.Column("json", sa.LargeBinary(), nullable=False),
        sa.Column("frame_index", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["version_pk"], ["version.pk"], name="fk_metadata_version_pk"),
        sa.PrimaryKeyConstraint("version_pk", name="pk_metadata"),
    )

"""Tables of the catalog, the same on SQLite and PostgreSQL.

Columns of indexed attributes are generated from `dicom.attributes`. Text sorts and compares by code point on both databases
(collation "C" on PostgreSQL), so that ranges, prefixes and pages mean the same. Times are text, ISO 8601 in UTC with
microseconds. Rows refer to each other by numbers named `_pk`, so that `patient_id` and `study_id` are what DICOM calls so.
`tests/integration/catalog/test_migrations.py` holds the migrations to these tables.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects import postgresql

from pacslite.dicom.attributes import REQUEST_ATTRIBUTES_SEQUENCE, SEQUENCE_ITEMS, Attribute, Level, Source, of_level

REVISION = "0008"
"""The revision of the schema these tables are; the newest under migrations/versions."""

# INTEGER PRIMARY KEY is SQLite's row id; any other type would cost an index.
_ID = BigInteger().with_variant(Integer(), "sqlite")
_TEXT = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


PEER_COUNTS = (
    "associations_received",
    "associations_sent",
    "instances_received",
    "bytes_received",
    "instances_sent",
    "bytes_sent",
    "failures",
)
"""What is counted of a peer."""


SCHEMA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables: what migrations are compared with."""


def _attribute_columns(attributes: tuple[Attribute, ...]) -> list[Column[object]]:
    columns: list[Column[object]] = []
    for attribute in attributes:
        if attribute.column and attribute.source is not Source.KEPT:
            columns.append(Column(attribute.column, _TEXT, nullable=attribute.column not in _REQUIRED))
            if attribute.has_normal_form:
                columns.extend(_match_column(attribute, name) for name in attribute.match_columns)
    return columns


def _match_column(attribute: Attribute, name: str) -> Column[object]:
    if attribute.vr in ("IS", "DS"):
        return Column(name, Double)
    # Never NULL: databases disagree where NULL sorts, and pages are cut by these.
    return Column(name, _TEXT, nullable=False, server_default="")


_REQUIRED = frozenset({"study_instance_uid", "series_instance_uid", "sop_instance_uid", "sop_class_uid"})


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default="0")


def _text(name: str, default: str | None = None) -> Column[str]:
    return Column(name, _TEXT, nullable=False, server_default=default)


def _parent(name: str, *, index: bool = False) -> Column[int]:
    return Column(name, _ID, ForeignKey(f"{name.removesuffix('_pk')}.pk"), nullable=False, index=index)


def _index_where_filled(table: str, column: str) -> Index:
    """For what few rows have; a search has to say `column <> ''` to be served by it."""
    filled = text(f"{column} <> ''")
    return Index(f"ix_{table}_{column}", column, sqlite_where=filled, postgresql_where=filled)


def _filled_index(table: str, column: str) -> Index:
    """For what few rows have; NULL in the others."""
    filled = text(f"{column} IS NOT NULL")
    return Index(f"ix_{table}_{column}", column, sqlite_where=filled, postgresql_where=filled)


patient = Table(
    "patient",
    SCHEMA,
    Column("pk", _ID, primary_key=True),
    _text("identity_id"),
    _text("identity_issuer"),
    _text("identity_study"),
    *_attribute_columns(of_level(Level.PATIENT)),
    Column("attributes_digest", LargeBinary),
    _text("created_at"),
    _text("updated_at"),
    # Made by a person, it stays when its last study goes; a merged one leads to who it became part of.
    Column("created_by", _TEXT),
    Column("merged_into", BigInteger),
    UniqueConstraint("identity_id", "identity_issuer", "identity_study"),
    Index(None, "patient_id"),
    Index(None, "patient_name_alphabetic"),
    *(_index_where_filled("patient", f"patient_name_{group}") for group in ("ideographic", "phonetic")),
    _filled_index("patient", "merged_into"),
    Index(None, "patient_birth_date_normal"),
)
"""A patient: PatientID and issuer, trimmed; with an empty PatientID one of its own per study (`identity_study`)."""

study = Table(
    "study",
    SCHEMA,
    Column("pk", _ID, primary_key=True),
    _parent("patient_pk", index=True),
    *_attribute_columns(of_level(Level.STUDY)),
    Column("modalities_in_study", _TEXT),
    Column("sop_classes_in_study", _TEXT),
    _count("number_of_study_related_series"),
    _count("number_of_study_related_instances"),
    Column("attributes_digest", LargeBinary),
    Column("change_seq", BigInteger, nullable=False, server_default="0"),
    _text("created_at"),
    _text("updated_at"),
    # Whose it is by itself, when it is with another because they were merged.
    Column("origin_patient", BigInteger),
    _filled_index("study", "origin_patient"),
    UniqueConstraint("study_instance_uid"),
    # The default order of studies, newest first, is this index read backwards.
    Index(None, "study_date_normal", "study_time_normal", "pk"),
    Index(None, "accession_number"),
    Index(None, "study_id"),
    Index(None, "referring_physician_name_alphabetic"),
)
"""A study; it stays with the patient of its first instance. Attributes are those of the version last stored."""

series = Table(
    "series",
    SCHEMA,
    Column("pk", _ID, primary_key=True),
    _parent("study_pk"),
    *_attribute_columns(of_level(Level.SERIES)),
    _count("number_of_series_related_instances"),
    Column("attributes_digest", LargeBinary),
    Column("change_seq", BigInteger, nullable=False, server_default="0"),
    _text("created_at"),
    _text("updated_at"),
    UniqueConstraint("series_instance_uid", "study_pk"),
    Index(None, "study_pk", "series_number_value", "pk"),
    Index(None, "modality", "study_pk"),
)
"""A series of one study: the same UID in two studies is two series."""

request_attribute = Table(
    "request_attribute",
    SCHEMA,
    Column("series_pk", _ID, ForeignKey("series.pk"), primary_key=True),
    Column("item", Integer, primary_key=True),
    *_attribute_columns(SEQUENCE_ITEMS[REQUEST_ATTRIBUTES_SEQUENCE]),
    Index(None, "scheduled_procedure_step_id"),
    Index(None, "requested_procedure_id"),
)
"""An item of a series' Request Attributes Sequence (0040,0275), in its order."""

instance = Table(
    "instance",
    SCHEMA,
    Column("pk", _ID, primary_key=True),
    _parent("series_pk"),
    *_attribute_columns(of_level(Level.INSTANCE)),
    Column("transfer_syntax_uid", _TEXT, nullable=False),
    Column("version_number", Integer, nullable=False),
    _text("created_at"),
    _text("updated_at"),
    UniqueConstraint("sop_instance_uid", "series_pk"),
    Index(None, "series_pk", "instance_number_value", "pk"),
)
"""An instance of one series; `version_number` is its newest version, which is the one everybody sees."""


def _value_table(table: str) -> Table:
    """Values searched by an index of their own (`catalog.search_values`), beside the rows of a table."""
    owner, filled = f"{table}_pk", text("number IS NOT NULL")
    return Table(
        f"{table}_value",
        SCHEMA,
        Column(owner, _ID, ForeignKey(f"{table}.pk", ondelete="CASCADE"), primary_key=True, autoincrement=False),
        Column("name", _TEXT, primary_key=True),
        Column("item", Integer, primary_key=True, autoincrement=False),
        _text("value", ""),
        _text("value1", ""),
        _text("value2", ""),
        Column("number", Double),
        Index(None, "name", "value", owner),
        Index(f"ix_{table}_value_number", "name", "number", owner, sqlite_where=filled, postgresql_where=filled),
        sqlite_with_rowid=False,  # a tree and an insertion less for each value
    )


search_index = Table(
    "search_index",
    SCHEMA,
    Column("tag", _TEXT, primary_key=True),
    _text("level"),
    _text("state", "building"),
    Column("last_pk", BigInteger, nullable=False, server_default="0"),
)
"""An attribute indexed by configuration: at which level, and how far what was there before is indexed."""

blob = Table(
    "blob",
    SCHEMA,
    Column("pk", _ID, primary_key=True),
    _text("uid"),
    _text("storage_key"),
    _text("store_name"),
    Column("size_bytes", BigInteger, nullable=False),
    _text("sha256"),
    _text("media_type"),
    _text("state", "live"),
    Column("reference_count", Integer, nullable=False, server_default="1"),
    Column("doomed_at", _TEXT),
    _text("created_at"),
    # Of a live blob of files: equal bytes find it by this. Instances are told apart by their UIDs and have none.
    Column("shared_sha256", _TEXT),
    # How the bytes are packed where they lie (`identity`: packing gains nothing), and how long they are then; as they are when empty.
    Column("encoding", _TEXT),
    Column("stored_bytes", BigInteger),
    UniqueConstraint("uid"),
    Index(
        "uq_blob_shared_sha256",
        "shared_sha256",
        unique=True,
        sqlite_where=text("shared_sha256 IS NOT NULL"),
        postgresql_where=text("shared_sha256 IS NOT NULL"),
    ),
    Index("ix_blob_doomed", "doomed_at", sqlite_where=text("state = 'doomed'"), postgresql_where=text("state = 'doomed'")),
    # Doomed blobs are few; others are in no index but that of their id and, of files, of their digest.
)
"""Immutable bytes in a store. `uid` is the unique id inside the key; `state` is live, doomed or quarantined."""

written_ahead = Table(
    "written_ahead",
    SCHEMA,
    Column("pk", _ID, primary_key=True),
    _text("blob_uid"),
    _text("storage_key"),
    Column("content", LargeBinary, nullable=False),
    sqlite_autoincrement=True,  # who settles a number must not meet another file under it
)
"""Bytes of a small file that its storage may not have on the disk yet; see `catalog.written_ahead`."""

version = Table(
    "version",
    SCHEMA,
    Column("pk", _ID, primary_key=True),
    _parent("instance_pk"),
    Column("number", Integer, nullable=False),
    _parent("blob_pk", index=True),
    _text("transfer_syntax_uid"),
    _text("data_set_digest"),
    Column("type", _TEXT),
    Column("description", _TEXT),
    Column("author", _TEXT),
    _text("created_at"),
    UniqueConstraint("instance_pk", "number"),
)
"""One version of an instance; never changed but for a repair of lost bytes."""

metadata = Table(
    "metadata",
    SCHEMA,
    Column("version_pk", _ID, ForeignKey("version.pk"), primary_key=True, autoincrement=False),
    Column("extractor_version", Integer, nullable=False),
    Column("json", LargeBinary, nullable=False),
    Column("frame_index", LargeBinary),
)
"""DICOM JSON of a version without bulk data (zlib), and where its frames lie; made once at ingest."""

change = Table(
    "change",
    SCHEMA,
    Column("seq", _ID, primary_key=True),
    # PostgreSQL only: a reader passes over what an older, still open transaction may yet come before.
    Column("transaction_id", BigInteger),
    _text("at"),
    _text("kind"),
    Column("study_instance_uid", _TEXT),
    Column("series_instance_uid", _TEXT),
    Column("sop_instance_uid", _TEXT),
    Column("version_number", Integer),
    Column("blob_uid", _TEXT),
    Column("protocol", _TEXT),
    Column("calling_aet", _TEXT),
    Column("address", _TEXT),
    Column("actor", _TEXT),
    Column("request_id", _TEXT),
    Column("detail", _TEXT),
    Column("file_id", _TEXT),
    Column("patient_id", BigInteger),  # whose file it is, by our number
    sqlite_autoincrement=True,  # a number is never used twice, even when the newest rows are pruned
)
"""One entry of the ordered feed of everything that happened; see `catalog.changes`."""

conflict = Table(
    "conflict",
    SCHEMA,
    Column("id", _ID, primary_key=True),
    _text("kind"),
    _text("study_instance_uid"),
    _text("series_instance_uid"),
    _text("sop_instance_uid"),
    Column("detail", _TEXT),
    _text("created_at"),
    UniqueConstraint("study_instance_uid", "series_instance_uid", "sop_instance_uid", "kind", name="uq_conflict_instance_kind"),
)
"""Something stored that contradicts what was there: `sop_instance_uid` or `patient_id`; waits for a person."""

tombstone = Table(
    "tombstone",
    SCHEMA,
    Column("study_instance_uid", _TEXT, primary_key=True),
    Column("series_instance_uid", _TEXT, primary_key=True),
    Column("sop_instance_uid", _TEXT, primary_key=True),
    _text("deleted_at"),
)
"""What was deleted, so that asking for it is answered with Gone; "" for the UIDs below the level deleted."""

job = Table(
    "job",
    SCHEMA,
    Column("id", _ID, primary_key=True),
    _text("kind"),
    _text("state", "queued"),
    Column("dedupe_key", _TEXT),
    _text("payload", "{}"),
    Column("result", _TEXT),
    Column("error", _TEXT),
    Column("actor", _TEXT),
    _count("attempts"),
    Column("max_attempts", Integer, nullable=False, server_default="5"),
    _count("progress_done"),
    Column("progress_total", Integer),
    _text("run_after_at"),
    Column("lease_owner", _TEXT),
    Column("lease_until_at", _TEXT),
    _text("created_at"),
    _text("updated_at"),
    # Numbers are ours; a job is told by this to others.
    Column("uid", _TEXT),
    Column("memo", _TEXT),
    Column("progress_unit", _TEXT),
    Column("started_at", _TEXT),
    Column("ended_at", _TEXT),
    Index("ix_job_uid", "uid", unique=True),
    Index(None, "state", "run_after_at", "id"),
    Index(
        "uq_job_dedupe_key",
        "dedupe_key",
        unique=True,
        sqlite_where=text("state IN ('queued', 'running')"),
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
)
"""Work to be done outside of a request, with a lease; see `catalog.jobs`."""

job_item = Table(
    "job_item",
    SCHEMA,
    Column("job_id", _ID, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("item", _TEXT, primary_key=True),
    _text("outcome"),
    Column("detail", _TEXT),
    Index(None, "job_id", "outcome", "item"),
)
"""What became of one thing that a job deals with, an instance mostly: by it a job goes on where it stopped."""

peer = Table(
    "peer",
    SCHEMA,
    Column("ae_title", _TEXT, primary_key=True),
    _text("host"),
    Column("port", Integer, nullable=False),
    _text("allow", "store find move get"),  # what it may ask of us, in this order
    Column("tls", Boolean, nullable=False, server_default=false()),
    _text("created_at"),
    _text("updated_at"),
    _text("kind", "dicom"),
    Column("url", _TEXT),
    Column("headers", _TEXT),  # of every request to a DICOMweb server, as JSON; they hold its secrets
    Column("transfer_syntaxes", _TEXT),
    Column("coercion_warnings", Boolean),
)
"""A remote application entity, or a DICOMweb server, that the server knows."""

peer_statistics = Table(
    "peer_statistics",
    SCHEMA,
    Column("ae_title", _TEXT, primary_key=True),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in PEER_COUNTS),
    Column("last_seen_at", _TEXT),
)
"""What has passed between us and a peer since it was made known."""

audit_pending = Table(
    "audit_pending",
    SCHEMA,
    Column("id", _ID, primary_key=True),
    _text("payload"),
)
"""An event of the audit log that was noted and has no place in the chain yet."""

audit_event = Table(
    "audit_event",
    SCHEMA,
    Column("seq", _ID, primary_key=True, autoincrement=False),
    *(_text(name) for name in ("at", "action", "outcome", "actor", "object_type", "object_id", "study_instance_uid")),
    *(_text(name) for name in ("address", "protocol", "calling_aet", "request_id")),
    Column("actor_id", BigInteger),
    Column("patient_id", BigInteger),
    _text("detail"),
    _text("hash"),
    Index(None, "at"),
    Index(None, "actor", "seq"),
    Index(None, "action", "seq"),
    Index(None, "patient_id", "seq"),
    Index(None, "study_instance_uid", "seq"),
)
"""An entry of the audit log, never changed; `hash` is over the entry and the hash of the one before (`catalog.audit`)."""

audit_state = Table(
    "audit_state",
    SCHEMA,
    Column("name", _TEXT, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""How far somebody is who follows the audit log, or whom it follows."""

VALUES_OF_LEVEL = {level: _value_table(table.name) for level, table in zip(Level, (patient, study, series, instance), strict=True)}

TABLE_OF_LEVEL = {Level.PATIENT: patient, Level.STUDY: study, Level.SERIES: series, Level.INSTANCE: instance}

from pacslite.catalog import access_models as _more  # noqa: E402, F401
from pacslite.catalog import account_models as _  # noqa: E402, F401  whoever has the tables has them all
from pacslite.catalog import file_models as _files  # noqa: E402, F401

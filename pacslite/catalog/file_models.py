"""Tables of the other medical files: files, their versions and parts, what is made of their bytes, uploads, quotas, merges.

A file has versions, a version has parts: one, or in order those of a photo series. A part names immutable bytes (`blob`), which
equal files share, or for a DICOM file the version of the instance that the catalog has already. What is made of bytes (a smaller
picture, an MP4) belongs to the bytes, not to the file, so it is made once.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, Table, UniqueConstraint, false

from pacslite.catalog.models import _ID, _TEXT, SCHEMA, _filled_index, _parent, _text

file = Table(
    "file",
    SCHEMA,
    Column("pk", _ID, primary_key=True),
    _text("uid"),
    _parent("patient_pk"),
    Column("origin_patient", BigInteger),
    _text("file_type"),
    Column("medical_category", _TEXT),
    Column("study_date", _TEXT),
    Column("body_part", _TEXT),
    Column("description", _TEXT),
    Column("study_instance_uid", _TEXT),
    Column("dicom_study_uid", _TEXT),
    Column("dicom_series_uid", _TEXT),
    Column("dicom_sop_uid", _TEXT),
    Column("version_number", Integer, nullable=False),
    # Of all its versions as they were sent, equal ones once; 0 of an instance, whose bytes are counted with its study.
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
    _text("state", "live"),
    Column("legal_hold", Boolean, nullable=False, server_default=false()),
    _text("created_by"),
    _text("created_at"),
    _text("updated_at"),
    Column("deleted_at", _TEXT),
    UniqueConstraint("uid"),
    # A patient's list, newest first, is this index read backwards.
    Index(None, "patient_pk", "created_at", "pk"),
    _filled_index("file", "deleted_at"),
    _filled_index("file", "study_instance_uid"),
    _filled_index("file", "dicom_sop_uid"),
    _filled_index("file", "origin_patient"),
)
"""A file of a patient; `version_number` is its newest version. `state` is live or trash; a purged one is in `purged_file`.

`study_instance_uid` ties it to a study. A DICOM file has the UIDs of its instance in `dicom_*`, and then no bytes of its own.
`origin_patient` is whose it is by itself, when it is with another because they were merged.
"""

file_version = Table(
    "file_version",
    SCHEMA,
    Column("pk", _ID, primary_key=True),
    _parent("file_pk"),
    Column("number", Integer, nullable=False),
    _text("type"),
    Column("description", _TEXT),
    _text("created_by"),
    Column("owner_id", BigInteger),
    _text("created_at"),
    UniqueConstraint("file_pk", "number"),
)
"""One version of a file; never changed. `owner_id` is the account whose quota it counts for."""

file_part = Table(
    "file_part",
    SCHEMA,
    Column("pk", _ID, primary_key=True),
    Column("version_pk", _ID, ForeignKey("file_version.pk"), nullable=False),
    Column("position", Integer, nullable=False),
    _text("original_filename"),
    Column("blob_pk", _ID, ForeignKey("blob.pk"), index=True),
    Column("dicom_version", Integer),
    Column("size_bytes", BigInteger, nullable=False),
    _text("sha256"),
    _text("media_type"),
    UniqueConstraint("version_pk", "position"),
)
"""The bytes of a version as they were sent, by position from 0; size, digest and media type are repeated from the blob for lists.

`dicom_version` is the version of the instance when the file is a DICOM file, and `blob_pk` is empty then.
"""

purged_file = Table(
    "purged_file",
    SCHEMA,
    Column("uid", _TEXT, primary_key=True),
    Column("patient_id", BigInteger, nullable=False),
    _text("purged_at"),
)
"""A file that was erased for good, so that asking for it is answered with Gone."""

rendition = Table(
    "rendition",
    SCHEMA,
    Column("blob_pk", _ID, ForeignKey("blob.pk"), primary_key=True, autoincrement=False),
    Column("name", _TEXT, primary_key=True),
    _text("state", "pending"),
    Column("result_blob", _ID, ForeignKey("blob.pk"), index=True),
    Column("problem", _TEXT),
    _text("updated_at"),
)
"""What is made of a blob: `served` (the MP4 of a video), `large`, `medium`, `thumbnail`. `state` is pending, ready, failed or none.

`none` says that there is nothing to be made. The result is a blob of its own, swept when the source goes.
"""

blob_info = Table(
    "blob_info",
    SCHEMA,
    Column("blob_pk", _ID, ForeignKey("blob.pk"), primary_key=True, autoincrement=False),
    _text("info"),
)
"""What was found out about bytes, as JSON: width, height, duration_s, pages, triangles, dimensions, is_watertight, ..."""

upload = Table(
    "upload",
    SCHEMA,
    Column("uid", _TEXT, primary_key=True),
    _text("kind", "whole"),
    _text("state", "open"),
    Column("owner_id", BigInteger),
    _text("created_by"),
    _text("form", "{}"),
    Column("length", BigInteger),
    Column("offset", BigInteger, nullable=False, server_default="0"),
    Column("parts", _TEXT),
    Column("file_uid", _TEXT),
    Column("problem", _TEXT),
    Column("lease_owner", _TEXT),
    _text("created_at"),
    _text("updated_at"),
    _text("expires_at"),
    Index(None, "expires_at"),
    Index(None, "created_by", "state"),
)
"""A resumable upload (tus). `state` is open, complete, failed, expired or terminated; `kind` whole, partial or final.

`form` is its metadata and `parts` the uploads it is made of, as JSON. `lease_owner` is the token of who may move its offset.
"""

quota = Table(
    "quota",
    SCHEMA,
    Column("account_id", BigInteger, primary_key=True, autoincrement=False),
    Column("quota_bytes", BigInteger),
    Column("used_bytes", BigInteger, nullable=False, server_default="0"),
)
"""How much an account may keep, and how much it keeps in files: all versions, the trash included; account 0 stands for nobody's."""

study_hold = Table(
    "study_hold",
    SCHEMA,
    Column("study_instance_uid", _TEXT, primary_key=True),
    _text("created_by"),
    _text("created_at"),
)
"""A study that must not go, by its UID."""

patient_merge = Table(
    "patient_merge",
    SCHEMA,
    Column("id", _ID, primary_key=True),
    Column("from_patient", BigInteger, nullable=False),
    Column("into_patient", BigInteger, nullable=False),
    _text("moved"),
    _text("created_by"),
    _text("created_at"),
    Column("reverted_at", _TEXT),
    Index(None, "from_patient"),
    Index(None, "into_patient"),
)
"""A patient that became part of another: `moved` (JSON) is how much changed hands. By `origin_patient` of it all it is undone."""

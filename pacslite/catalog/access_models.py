"""Tables of what limits the sight of patients, studies, series and files, and of share links.

What is limited is named by what DICOM calls it and not by its row, so that a restriction outlives a deletion, and holds again
for what is brought back or sent anew.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, UniqueConstraint

from pacslite.catalog.models import _ID, _TEXT, SCHEMA, _count, _text

access_group = Table("access_group", SCHEMA, Column("name", _TEXT, primary_key=True), _text("created_at"))
"""A group of accounts and peers; accounts are in it by `account_group`."""

peer_group = Table(
    "peer_group",
    SCHEMA,
    Column("ae_title", _TEXT, primary_key=True),
    Column("name", _TEXT, primary_key=True),
    Index(None, "name"),
)
"""A group that a peer is in."""

access_label = Table("access_label", SCHEMA, Column("name", _TEXT, primary_key=True), _text("groups"), _text("created_at"))
"""A label that restricts: `groups` (a JSON list) may see what carries it."""

access_rule = Table("access_rule", SCHEMA, Column("pk", _ID, primary_key=True), _text("rule"), UniqueConstraint("rule"))
"""Groups and labels as objects have them, each combination once (JSON)."""

access_object = Table(
    "access_object",
    SCHEMA,
    Column("pk", _ID, primary_key=True),
    *(_text(name) for name in ("level", "study_instance_uid", "series_instance_uid", "patient_id", "issuer")),
    Column("rule_pk", _ID, ForeignKey("access_rule.pk"), nullable=False, index=True),
    _text("updated_at"),
    UniqueConstraint("study_instance_uid", "series_instance_uid", "level", "patient_id", "issuer", name="uq_access_object_named"),
)
"""A patient, study, series or file that is limited or labelled.

`patient_id` and `issuer` are empty but for patients; `study_instance_uid` of a patient is that of its only study when it has
no PatientID (`Patient.identity_study`), and of a file (level FILE) its id, which is a UUID and so no UID.
"""

access_state = Table("access_state", SCHEMA, Column("id", Integer, primary_key=True, autoincrement=False), _text("token", ""))
"""One row: `token` is another after each change of any of these, and never the same in two catalogs; "" while nothing is limited."""

share = Table(
    "share",
    SCHEMA,
    Column("id", _TEXT, primary_key=True),
    _text("study_instance_uid"),
    Column("account_id", BigInteger),  # none for the administrator of a server without logins
    _text("created_by"),
    _text("credential_kind"),
    _text("credential_id"),
    _text("created_at"),
    _text("expires_at"),
    Column("max_uses", Integer),
    _count("uses"),
    Column("last_used_at", _TEXT),
    Column("revoked_at", _TEXT),
    Column("file_id", _TEXT),
    Index(None, "created_at", "id"),
    Index(None, "expires_at"),
)
"""A link to one study, or to one file (`study_instance_uid` is "" then).

It ends at its time, after so many uses, when it is revoked, or with the access of who made it.
"""

TABLES = frozenset({access_group, peer_group, access_label, access_rule, access_object, access_state, share})
"""They outlive a catalog that is made anew."""

"""Tables of what limits the sight of patients, studies, series and files, and of share links.

What is limited is named by what DICOM calls it and not by its row, so that a restriction outlives a deletion, and holds again
for what is brought back or sent anew.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, UniqueConstraint

from pacslite.catalog.models import _ID, _TEXT, Base, _count, _text


class AccessGroup(Base):
    """A group of accounts and peers; accounts are in it by `account_group`."""

    __table__ = Table("access_group", Base.metadata, Column("name", _TEXT, primary_key=True), _text("created_at"))


class PeerGroup(Base):
    """A group that a peer is in."""

    __table__ = Table(
        "peer_group",
        Base.metadata,
        Column("ae_title", _TEXT, primary_key=True),
        Column("name", _TEXT, primary_key=True),
        Index(None, "name"),
    )


class AccessLabel(Base):
    """A label that restricts: `groups` (a JSON list) may see what carries it."""

    __table__ = Table("access_label", Base.metadata, Column("name", _TEXT, primary_key=True), _text("groups"), _text("created_at"))


class AccessRule(Base):
    """Groups and labels as objects have them, each combination once (JSON)."""

    __table__ = Table("access_rule", Base.metadata, Column("pk", _ID, primary_key=True), _text("rule"), UniqueConstraint("rule"))


class AccessObject(Base):
    """A patient, study, series or file that is limited or labelled.

    `patient_id` and `issuer` are empty but for patients; `study_instance_uid` of a patient is that of its only study when it has
    no PatientID (`Patient.identity_study`), and of a file (level FILE) its id, which is a UUID and so no UID.
    """

    __table__ = Table(
        "access_object",
        Base.metadata,
        Column("pk", _ID, primary_key=True),
        *(_text(name) for name in ("level", "study_instance_uid", "series_instance_uid", "patient_id", "issuer")),
        Column("rule_pk", _ID, ForeignKey("access_rule.pk"), nullable=False, index=True),
        _text("updated_at"),
        UniqueConstraint("study_instance_uid", "series_instance_uid", "level", "patient_id", "issuer", name="uq_access_object_named"),
    )


class AccessState(Base):
    """One row: `token` is another after each change of any of these, and never the same in two catalogs; "" while nothing is limited."""

    __table__ = Table("access_state", Base.metadata, Column("id", Integer, primary_key=True, autoincrement=False), _text("token", ""))


class Share(Base):
    """A link to one study, or to one file (`study_instance_uid` is "" then).

    It ends at its time, after so many uses, when it is revoked, or with the access of who made it.
    """

    __table__ = Table(
        "share",
        Base.metadata,
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


access_group = AccessGroup.__table__
peer_group = PeerGroup.__table__
access_label = AccessLabel.__table__
access_rule = AccessRule.__table__
access_object = AccessObject.__table__
access_state = AccessState.__table__
share = Share.__table__

TABLES = frozenset({access_group, peer_group, access_label, access_rule, access_object, access_state, share})
"""They outlive a catalog that is made anew."""

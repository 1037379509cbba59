"""Instances and their versions: what is there, and the one transaction that records an arrival."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, bindparam, case, insert, null, select, update

from pacslite.catalog import changes, placement, search_values, written_ahead
from pacslite.catalog.arrival import COLUMNS, Arrival, NewBlob
from pacslite.catalog.changes import Kind
from pacslite.catalog.models import blob, conflict, instance, metadata, version
from pacslite.catalog.models import series as series_table
from pacslite.catalog.models import study as study_table
from pacslite.catalog.placement import Place
from pacslite.catalog.statements import Prepared, PreparedInsert, now_text
from pacslite.dicom.attributes import Level


@dataclass(frozen=True, slots=True)
class Existing:
    """The newest version of an instance and its bytes; `state` is that of the blob."""

    version_pk: int
    number: int
    data_set_digest: str
    transfer_syntax_uid: str
    storage_key: str
    store_name: str
    size_bytes: int
    sha256: str
    state: str


class Intent(StrEnum):
    """What an arrival is to become."""

    ADD = "add"  # a new instance, or a version on top of the newest
    REPAIR = "repair"  # new bytes for the newest version
    RESTORE = "restore"  # the same as ADD, with the bytes of a deleted version


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of an arrival; `outcome` is stored, new_version, repaired, or changed when it was overtaken."""

    outcome: str
    version_number: int = 0


@dataclass(frozen=True, slots=True)
class AsOf:
    """When and as which version something was recorded in a catalog that is lost; no number when nobody knows it."""

    at: str
    version_number: int | None = None
    patient_pk: int | None = None  # of a patient who is not there yet


OVERTAKEN = Recorded("changed")
"""Nothing was recorded: the newest version is not the one the caller has seen, or bytes to be restored are being erased."""


_INSTANCE_COLUMNS = ("sop_instance_uid", "sop_class_uid", *COLUMNS[Level.INSTANCE], "transfer_syntax_uid", "version_number", "updated_at")
_UIDS = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")
_NEWEST = (version.c.instance_pk == instance.c.pk) & (version.c.number == instance.c.version_number)

_FIND = Prepared(
    select(
        version.c.pk,
        version.c.number,
        version.c.data_set_digest,
        version.c.transfer_syntax_uid,
        blob.c.storage_key,
        blob.c.store_name,
        blob.c.size_bytes,
        blob.c.sha256,
        blob.c.state,
    )
    .select_from(instance)
    .join(series_table, series_table.c.pk == instance.c.series_pk)
    .join(study_table, study_table.c.pk == series_table.c.study_pk)
    .join(version, _NEWEST)
    .join(blob, blob.c.pk == version.c.blob_pk)
    .where(
        instance.c.sop_instance_uid == bindparam("sop"),
        series_table.c.series_instance_uid == bindparam("series"),
        study_table.c.study_instance_uid == bindparam("study"),
    )
)
_ELSEWHERE = Prepared(
    select(study_table.c.study_instance_uid, series_table.c.series_instance_uid)
    .select_from(instance)
    .join(series_table, series_table.c.pk == instance.c.series_pk)
    .join(study_table, study_table.c.pk == series_table.c.study_pk)
    .where(instance.c.sop_instance_uid == bindparam("sop"))
    .limit(1)
)
_INSERT_INSTANCE = PreparedInsert(
    insert(instance).values({name: bindparam(name) for name in ("series_pk", *_INSTANCE_COLUMNS, "created_at")})
)
_UPDATE_INSTANCE = Prepared(
    update(instance).where(instance.c.pk == bindparam("instance_key")).values({name: bindparam(name) for name in _INSTANCE_COLUMNS[1:]})
)
_BLOB_COLUMNS = ("uid", "storage_key", "store_name", "size_bytes", "sha256", "media_type", "created_at")
_INSERT_BLOB = PreparedInsert(insert(blob).values({name: bindparam(name) for name in _BLOB_COLUMNS}))
# An empty time means that the bytes are claimed by their erasure.
_REVIVE_BLOB = Prepared(
    update(blob)
    .where(blob.c.uid == bindparam("revived"), blob.c.state == "doomed", blob.c.doomed_at != "")
    .values(state="live", reference_count=1, doomed_at=null())
    .returning(blob.c.pk)
)
_VERSION_COLUMNS = ("instance_pk", "number", "blob_pk", "transfer_syntax_uid", "data_set_digest", "author", "created_at")
_INSERT_VERSION = PreparedInsert(insert(version).values({name: bindparam(name) for name in _VERSION_COLUMNS}))
_INSERT_METADATA = Prepared(
    insert(metadata).values({name: bindparam(name) for name in ("version_pk", "extractor_version", "json", "frame_index")})
)
_REPAIR_VERSION = Prepared(
    update(version)
    .where(version.c.pk == bindparam("version"))
    .values({name: bindparam(name) for name in ("blob_pk", "transfer_syntax_uid", "data_set_digest")})
)
_REPAIR_METADATA = Prepared(
    update(metadata)
    .where(metadata.c.version_pk == bindparam("version"))
    .values({name: bindparam(name) for name in ("extractor_version", "json", "frame_index")})
)
_RELEASE_BLOB = Prepared(
    update(blob)
    .where(blob.c.pk == bindparam("blob"))
    .values(
        reference_count=blob.c.reference_count - 1,
        state=case((blob.c.reference_count == 1, "doomed"), else_=blob.c.state),
        doomed_at=case((blob.c.reference_count == 1, bindparam("now")), else_=null()),
    )
)
_INSERT_CONFLICT = Prepared(insert(conflict).values({name: bindparam(name) for name in ("kind", *_UIDS, "detail", "created_at")}))
_KNOWN_CONFLICT = Prepared(
    select(conflict.c.id).where(conflict.c.kind == bindparam("kind"), *(conflict.c[name] == bindparam(name) for name in _UIDS))
)


def find_version(conn: Connection, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> Existing | None:
    """The newest version of an instance, None when there is no such instance."""
    row = _FIND.first(conn, {"study": study_instance_uid, "series": series_instance_uid, "sop": sop_instance_uid})
    return Existing(*row) if row else None


def record(
    conn: Connection,
    arrival: Arrival,
    new_blob: NewBlob,
    seen_version_pk: int | None,
    intent: Intent = Intent.ADD,
    as_of: AsOf | None = None,
) -> Recorded:
    """Put an arrival and its bytes into the catalog; the caller commits.

    `seen_version_pk` is the newest version on which the caller has based its intent (None: no such instance). When
    another one is there by now, nothing is written and the outcome is `changed`. `as_of` is for a catalog made anew,
    which is not told whether bytes were restored.
    """
    place = placement.locate(conn, arrival)
    if place.version_pk != seen_version_pk:
        return OVERTAKEN
    now = as_of.at if as_of else now_text()
    if intent is Intent.REPAIR:
        return _repair(conn, arrival, new_blob, place, now)
    revived = _REVIVE_BLOB.all(conn, {"revived": new_blob.uid}) if intent is Intent.RESTORE or as_of else []
    if intent is Intent.RESTORE and not revived:
        return OVERTAKEN
    number = max((place.number or 0) + 1, (as_of and as_of.version_number) or 0)
    kind = Kind.INSTANCE_STORED if place.instance_pk is None else Kind.VERSION_ADDED
    owner = placement.owner(conn, arrival, now, as_of.patient_pk if as_of else None) if place.study_pk is None else None
    detail = {"patient": owner.pk} if owner is not None else None
    seq = changes.add(conn, kind, now, arrival.origin, uids=arrival.uids, version_number=number, blob_uid=new_blob.uid, detail=detail)
    if place.instance_pk is None:
        _note_conflicts(conn, arrival, place, now)
    series_pk = placement.ensure(conn, arrival, place, seq, now, owner)
    instance_pk = _put_instance(conn, arrival, place, series_pk, number, now)
    blob_pk = revived[0][0] if revived else _insert_blob(conn, new_blob, now)
    _insert_version(conn, arrival, instance_pk, number, blob_pk, now)
    return Recorded("stored" if place.instance_pk is None else "new_version", number)


def _insert_blob(conn: Connection, new: NewBlob, now: str) -> int:
    row = {
        "uid": new.uid,
        "storage_key": new.storage_key,
        "store_name": new.store_name,
        "size_bytes": new.size_bytes,
        "sha256": new.sha256,
        "media_type": new.media_type,
        "created_at": now,
    }
    blob_pk = _INSERT_BLOB.number(conn, row)
    if new.content is not None:
        written_ahead.add(conn, new.uid, new.storage_key, new.content)
    return blob_pk


def _insert_version(conn: Connection, arrival: Arrival, instance_pk: int, number: int, blob_pk: int, now: str) -> None:
    row = {
        "instance_pk": instance_pk,
        "number": number,
        "blob_pk": blob_pk,
        "transfer_syntax_uid": arrival.transfer_syntax_uid,
        "data_set_digest": arrival.data_set_digest,
        "author": arrival.origin.actor or arrival.origin.calling_aet or None,
        "created_at": now,
    }
    _INSERT_METADATA.do(conn, {"version_pk": _INSERT_VERSION.number(conn, row), **_metadata_row(arrival)})


def _metadata_row(arrival: Arrival) -> dict[str, Any]:
    return {"extractor_version": arrival.extractor_version, "json": arrival.metadata, "frame_index": arrival.frame_index}


def _put_instance(conn: Connection, arrival: Arrival, place: Place, series_pk: int, number: int, now: str) -> int:
    row = {
        **arrival.instance,
        "sop_class_uid": arrival.sop_class_uid,
        "transfer_syntax_uid": arrival.transfer_syntax_uid,
        "version_number": number,
        "updated_at": now,
    }
    if place.instance_pk is None or place.study_pk is None:
        row |= {"series_pk": series_pk, "sop_instance_uid": arrival.sop_instance_uid, "created_at": now}
        made = _INSERT_INSTANCE.number(conn, row)
        search_values.insert(conn, Level.INSTANCE, made, arrival.instance_values)
        return made
    _UPDATE_INSTANCE.do(conn, {**row, "instance_key": place.instance_pk})
    search_values.replace(conn, Level.INSTANCE, place.instance_pk, arrival.instance_values)
    if place.sop_class_uid != arrival.sop_class_uid:
        placement.recount_sop_classes(conn, place.study_pk)
    return place.instance_pk


def _repair(conn: Connection, arrival: Arrival, new_blob: NewBlob, place: Place, now: str) -> Recorded:
    """The newest version gets bytes again; the damaged ones are doomed."""
    number = place.number or 1
    uids = arrival.uids
    seq = changes.add(conn, Kind.INSTANCE_REPAIRED, now, arrival.origin, uids=uids, version_number=number, blob_uid=new_blob.uid)
    placement.ensure(conn, arrival, place, seq, now)
    key = {"version": place.version_pk}
    blob_pk = _insert_blob(conn, new_blob, now)
    syntax = {"transfer_syntax_uid": arrival.transfer_syntax_uid, "data_set_digest": arrival.data_set_digest}
    _REPAIR_VERSION.do(conn, {**key, **syntax, "blob_pk": blob_pk})
    _REPAIR_METADATA.do(conn, {**key, **_metadata_row(arrival)})
    _put_instance(conn, arrival, place, 0, number, now)
    _RELEASE_BLOB.do(conn, {"blob": place.blob_pk, "now": now})
    return Recorded("repaired", number)


def _note_conflicts(conn: Connection, arrival: Arrival, place: Place, now: str) -> None:
    """What contradicts the catalog is stored all the same, and listed for a person to decide."""
    elsewhere = _ELSEWHERE.first(conn, {"sop": arrival.sop_instance_uid})
    if elsewhere is not None:
        other = {"study_instance_uid": elsewhere[0], "series_instance_uid": elsewhere[1]}
        _insert_conflict(conn, "sop_instance_uid", arrival, other, now)
    if place.study_pk is not None and not placement.names_patient_of(conn, place, arrival):
        other = {"patient": place.patient_pk, "patient_id": arrival.identity.patient_id, "issuer": arrival.identity.issuer}
        _insert_conflict(conn, "patient_id", arrival, other, now)


def _insert_conflict(conn: Connection, kind: str, arrival: Arrival, detail: dict[str, Any], now: str) -> None:
    key = {"kind": kind, **dict(zip(_UIDS, arrival.uids, strict=True))}
    if _KNOWN_CONFLICT.first(conn, key) is None:
        _INSERT_CONFLICT.do(conn, {**key, "detail": json.dumps(detail, ensure_ascii=False), "created_at": now})
        changes.add(conn, Kind.CONFLICT_NOTED, now, arrival.origin, uids=arrival.uids, detail={"kind": kind, **detail})

"""Deleting studies, series and instances: rows go at once, set by set; their blobs are doomed and erased later.

What stays above a deletion is counted anew, and gets the attributes of the version last stored among what is left.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, literal_column, select, update

from pacslite.catalog import changes, patient_numbers, placement, search_values
from pacslite.catalog.arrival import PatientIdentity, row_of
from pacslite.catalog.changes import Kind, Origin
from pacslite.catalog.file_models import file
from pacslite.catalog.models import blob, conflict, instance, metadata, patient, request_attribute, series, study, tombstone, version
from pacslite.catalog.statements import lock_keys, now_text
from pacslite.catalog.visibility import Sight, sees
from pacslite.dicom.attributes import EXTRACTED_TAGS, REQUEST_ATTRIBUTES_SEQUENCE, Level
from pacslite.dicom.document import items_of, tag_key, values_of


@dataclass(frozen=True, slots=True)
class Target:
    """A study, one of its series, or one instance of that."""

    study_instance_uid: str
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None

    @property
    def uids(self) -> dict[str, str]:
        """The UIDs that are given, by column."""
        given = (self.study_instance_uid, self.series_instance_uid, self.sop_instance_uid)
        return {name: uid for name, uid in zip(_UIDS, given, strict=True) if uid is not None}

    @property
    def kind(self) -> str:
        """What it is: study, series or instance."""
        return ("study", "series", "instance")[len(self.uids) - 1]

    @property
    def lowest_uid(self) -> str:
        """The UID of what it is."""
        return self.sop_instance_uid or self.series_instance_uid or self.study_instance_uid

    @property
    def keys(self) -> tuple[str, ...]:
        """What the deletion changes, for `Catalog.write`."""
        return (f"study:{self.study_instance_uid}",)


@dataclass(frozen=True, slots=True)
class Deleted:
    """How much a deletion has taken away."""

    instances: int
    versions: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes of a deleted version that are not erased yet."""

    uid: str
    storage_key: str
    store_name: str
    size_bytes: int
    sha256: str
    doomed_at: str


_KEPT = (blob.c.uid, blob.c.storage_key, blob.c.store_name, blob.c.size_bytes, blob.c.sha256, blob.c.doomed_at)
_IS_DOOMED = blob.c.state == literal_column("'doomed'")  # spelled out, as the index of the few says it
_IDENTITY = ("identity_id", "identity_issuer", "identity_study")
_UIDS = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")
_KINDS = {1: Kind.STUDY_DELETED, 2: Kind.SERIES_DELETED, 3: Kind.INSTANCE_DELETED}


def delete_target(conn: Connection, target: Target, origin: Origin, at: str | None = None, sight: Sight | None = None) -> Deleted | None:
    """Take a study, series or instance out of the catalog; None when there is no such. The caller commits.

    Series and studies that are left empty go with it, and so does a patient of whom nothing is left (`_drop_patient`). `at` is
    for a catalog made anew. What is not in `sight` is not there, and stays.
    """
    instance_pks = _instances(target, sight)
    count = conn.execute(select(func.count()).select_from(instance_pks.subquery())).scalar_one()
    above = conn.execute(_above(target)).first()
    if above is None or not count:
        return None
    study_pk, patient_pk, series_pk = above
    now = at or now_text()
    version_pks = select(version.c.pk).where(version.c.instance_pk.in_(instance_pks))
    versions = _doom(conn, version_pks, now)
    conn.execute(delete(metadata).where(metadata.c.version_pk.in_(version_pks)))
    conn.execute(delete(version).where(version.c.instance_pk.in_(instance_pks)))
    conn.execute(delete(instance).where(instance.c.pk.in_(instance_pks)))
    conn.execute(delete(conflict).where(*(conflict.c[name] == uid for name, uid in target.uids.items())))
    uids = tuple(target.uids.get(name) for name in _UIDS)
    seq = changes.add(
        conn, _KINDS[len(target.uids)], now, origin, uids=(uids[0], uids[1], uids[2]), detail={"instances": count, "versions": versions}
    )
    remember(conn, target, now)
    _tidy(conn, study_pk, patient_pk, series_pk if target.series_instance_uid else None, seq, now)
    return Deleted(count, versions)


def is_there(conn: Connection, target: Target, sight: Sight | None = None) -> bool:
    """Whether there is an instance of the target."""
    return conn.execute(_instances(target, sight).limit(1)).first() is not None


def kept_of(conn: Connection, target: Target, since: str, prefix: str, sight: Sight | None = None) -> list[Kept]:
    """What was deleted after `since` of the target, whose keys begin with `prefix`, and is not being erased yet.

    That is what a deletion of the target, or of something above it, took; when there is nothing of that, what was deleted
    part by part.
    """
    of_study = tombstone.c.study_instance_uid == target.study_instance_uid
    uids = {"series_instance_uid": target.series_instance_uid, "sop_instance_uid": target.sop_instance_uid}
    whole = [tombstone.c[name].in_({"", uid or ""}) for name, uid in uids.items()]
    parts = [tombstone.c[name] == uid for name, uid in uids.items() if uid]
    for scope in (whole, parts):
        times = select(tombstone.c.deleted_at).where(of_study, tombstone.c.deleted_at > since, *scope)
        statement = select(*_KEPT).where(_IS_DOOMED, blob.c.doomed_at.in_(times), blob.c.storage_key.startswith(prefix))
        found = [Kept(*row) for row in conn.execute(statement.order_by(blob.c.uid))]
        if found:
            return _in_sight(conn, target.study_instance_uid, found, sight)
    return []


def _in_sight(conn: Connection, study_uid: str, found: list[Kept], sight: Sight | None) -> list[Kept]:
    if sight is None:
        return found
    series = {one.storage_key.split("/")[2] for one in found}  # radiology/study/series/...
    seen = {uid for uid in series if sees(conn, sight, study_uid, uid)}
    return [one for one in found if one.storage_key.split("/")[2] in seen]


def _instances(target: Target, sight: Sight | None) -> Select[tuple[int]]:
    statement = (
        select(instance.c.pk)
        .join(series, series.c.pk == instance.c.series_pk)
        .join(study, study.c.pk == series.c.study_pk)
        .where(study.c.study_instance_uid == target.study_instance_uid)
    )
    if target.series_instance_uid is not None:
        statement = statement.where(series.c.series_instance_uid == target.series_instance_uid)
    if target.sop_instance_uid is not None:
        statement = statement.where(instance.c.sop_instance_uid == target.sop_instance_uid)
    return statement.where(*sight.clauses(Level.INSTANCE)) if sight is not None else statement


def _above(target: Target) -> Select[Any]:
    statement = select(study.c.pk, study.c.patient_pk, series.c.pk).join(series, series.c.study_pk == study.c.pk)
    statement = statement.where(study.c.study_instance_uid == target.study_instance_uid)
    if target.series_instance_uid is not None:
        statement = statement.where(series.c.series_instance_uid == target.series_instance_uid)
    return statement.limit(1)


def _doom(conn: Connection, version_pks: Select[tuple[int]], now: str) -> int:
    """Drop the references of versions to their blobs; a blob without any is doomed. How many versions there are."""
    references = select(version.c.blob_pk, func.count().label("n")).where(version.c.pk.in_(version_pks)).group_by(version.c.blob_pk)
    counted = references.subquery()
    dropped = select(counted.c.n).where(counted.c.blob_pk == blob.c.pk).scalar_subquery()
    blob_pks = select(version.c.blob_pk).where(version.c.pk.in_(version_pks))
    versions = conn.execute(select(func.count()).select_from(version_pks.subquery())).scalar_one()
    conn.execute(update(blob).where(blob.c.pk.in_(blob_pks)).values(reference_count=blob.c.reference_count - dropped))
    conn.execute(update(blob).where(blob.c.pk.in_(blob_pks), blob.c.reference_count <= 0).values(state="doomed", doomed_at=now))
    return int(versions)


def remember(conn: Connection, target: Target, now: str) -> None:
    """Note that it was deleted, so that asking for it is answered with Gone."""
    row = {name: target.uids.get(name, "") for name in _UIDS}
    conn.execute(delete(tombstone).where(*(tombstone.c[name] == uid for name, uid in row.items())))
    conn.execute(insert(tombstone).values(**row, deleted_at=now))


def _tidy(conn: Connection, study_pk: int, patient_pk: int, series_pk: int | None, seq: int, now: str) -> None:
    """Drop the rows that are left empty above, bring the others up to date."""
    empty = select(series.c.pk).where(
        series.c.study_pk == study_pk, ~select(instance.c.pk).where(instance.c.series_pk == series.c.pk).exists()
    )
    conn.execute(delete(request_attribute).where(request_attribute.c.series_pk.in_(empty)))
    conn.execute(delete(series).where(series.c.pk.in_(empty)))
    gone = conn.execute(delete(study).where(study.c.pk == study_pk, ~select(series.c.pk).where(series.c.study_pk == study_pk).exists()))
    if gone.rowcount:
        # A study of the same patient may be arriving: one of the two has to wait for the other.
        identity = conn.execute(select(*(patient.c[name] for name in _IDENTITY)).where(patient.c.pk == patient_pk)).one()
        lock_keys(conn, [PatientIdentity(*identity).key])
        _drop_patient(conn, patient_pk)
        return
    if series_pk is not None:
        _recount_series(conn, series_pk, seq, now)
    _recount_study(conn, study_pk, seq, now)


def _drop_patient(conn: Connection, patient_pk: int) -> None:
    """A patient of whom nothing is left goes, unless somebody has made them, or merged them with another."""
    merged = patient.alias("merged")
    left = (
        select(study.c.pk).where(study.c.patient_pk == patient_pk),
        select(file.c.pk).where(file.c.patient_pk == patient_pk),
        select(merged.c.pk).where(merged.c.merged_into == patient_pk),
    )
    of_nobody = patient.c.created_by.is_(None), patient.c.merged_into.is_(None)
    if conn.execute(delete(patient).where(patient.c.pk == patient_pk, *of_nobody, *(~one.exists() for one in left))).rowcount:
        patient_numbers.retire(conn, patient_pk)


def _recount_series(conn: Connection, series_pk: int, seq: int, now: str) -> None:
    of_series = instance.c.series_pk == series_pk
    count = select(func.count()).select_from(instance).where(of_series).scalar_subquery()
    kept = {"number_of_series_related_instances": count, "change_seq": seq, "updated_at": now}
    if conn.execute(update(series).where(series.c.pk == series_pk).values(kept)).rowcount:
        _follow_newest(conn, series, Level.SERIES, series_pk, of_series)


def _recount_study(conn: Connection, study_pk: int, seq: int, now: str) -> None:
    of_study = series.c.study_pk == study_pk
    instances = select(func.count()).select_from(instance).join(series, series.c.pk == instance.c.series_pk).where(of_study)
    kept = {
        "number_of_study_related_series": select(func.count()).select_from(series).where(of_study).scalar_subquery(),
        "number_of_study_related_instances": instances.scalar_subquery(),
        "change_seq": seq,
        "updated_at": now,
    }
    conn.execute(update(study).where(study.c.pk == study_pk).values(kept))
    _follow_newest(conn, study, Level.STUDY, study_pk, of_study)
    placement.recount_modalities(conn, study_pk)
    placement.recount_sop_classes(conn, study_pk)


def _follow_newest(conn: Connection, table: Any, level: Level, pk: int, scope: Any) -> None:
    """The attributes of a level become those of the version last stored below it."""
    newest = (
        select(metadata.c.json)
        .join(version, version.c.pk == metadata.c.version_pk)
        .join(instance, (instance.c.pk == version.c.instance_pk) & (instance.c.version_number == version.c.number))
        .join(series, series.c.pk == instance.c.series_pk)
        .where(scope)
        .order_by(version.c.pk.desc())
        .limit(1)
    )
    packed = conn.execute(newest).scalar()
    if packed is None:
        return
    document = json.loads(zlib.decompress(packed), strict=False)  # a NUL stands for the base URL
    values = _values(document)
    requests = _requests(document) if level is Level.SERIES else ()
    indexed = [one for attribute in search_values.attributes_of(conn, level) for one in search_values.values_in(attribute, document)]
    row = row_of(level, values, requests, indexed)
    conn.execute(update(table).where(table.c.pk == pk).values(**row.columns, attributes_digest=row.digest))
    search_values.replace(conn, level, pk, row.values)
    if level is Level.SERIES:
        placement.replace_requests(conn, pk, requests)


def _values(document: dict[str, Any]) -> Mapping[int, tuple[str, ...]]:
    return {tag: values_of(document[key]) for tag in EXTRACTED_TAGS if (key := tag_key(tag)) in document}


def _requests(document: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    items = items_of(document.get(tag_key(REQUEST_ATTRIBUTES_SEQUENCE)))
    texts = [[next(iter(values_of(item.get(key))), "") for key in ("00400009", "00401001")] for item in items]
    return tuple((step, procedure) for step, procedure in texts)

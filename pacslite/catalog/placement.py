"""The patient, study and series above an instance: found, made, and kept up to date by the transaction that records it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from pacslite.catalog import changes, patients, search_values
from pacslite.catalog.arrival import COLUMNS, Arrival
from pacslite.catalog.models import instance, patient, request_attribute, series, study, version
from pacslite.catalog.patient_numbers import NEXT_OF_SQLITE
from pacslite.catalog.statements import Prepared, PreparedInsert
from pacslite.dicom.attributes import Level

Requests = tuple[tuple[str, str], ...]


class Place(NamedTuple):
    """The rows that are there already for an arrival; None throughout when its study is new.

    The patient is the one that the study is of by itself; when patients were merged, it may be with another.
    """

    study_pk: int | None = None
    study_digest: bytes | None = None
    modalities: str | None = None
    sop_classes: str | None = None
    patient_pk: int | None = None
    patient_digest: bytes | None = None
    identity_id: str = ""
    identity_issuer: str = ""
    identity_study: str = ""
    series_pk: int | None = None
    series_digest: bytes | None = None
    modality: str | None = None
    instance_pk: int | None = None
    sop_class_uid: str | None = None
    version_pk: int | None = None
    number: int | None = None
    blob_pk: int | None = None


class Owner(NamedTuple):
    """The patient whom a new study names, whom they have become part of, and whether their attributes are those of the arrival."""

    pk: int
    merged_into: int | None = None
    is_current: bool = True


_LOCATE = Prepared(
    select(
        study.c.pk,
        study.c.attributes_digest,
        study.c.modalities_in_study,
        study.c.sop_classes_in_study,
        patient.c.pk,
        patient.c.attributes_digest,
        patient.c.identity_id,
        patient.c.identity_issuer,
        patient.c.identity_study,
        series.c.pk,
        series.c.attributes_digest,
        series.c.modality,
        instance.c.pk,
        instance.c.sop_class_uid,
        version.c.pk,
        version.c.number,
        version.c.blob_pk,
    )
    .select_from(study)
    .join(patient, patient.c.pk == func.coalesce(study.c.origin_patient, study.c.patient_pk))
    .outerjoin(series, (series.c.study_pk == study.c.pk) & (series.c.series_instance_uid == bindparam("series")))
    .outerjoin(instance, (instance.c.series_pk == series.c.pk) & (instance.c.sop_instance_uid == bindparam("sop")))
    .outerjoin(version, (version.c.instance_pk == instance.c.pk) & (version.c.number == instance.c.version_number))
    .where(study.c.study_instance_uid == bindparam("study"))
)


def _bound(*names: str) -> dict[str, Any]:
    return {name: bindparam(name) for name in names}


_IDENTITY = ("identity_id", "identity_issuer", "identity_study")
_PATIENT = (*COLUMNS[Level.PATIENT], "attributes_digest", "updated_at")
_FIND_PATIENT = Prepared(
    select(patient.c.pk, patient.c.attributes_digest, patient.c.merged_into).where(
        *(patient.c[name] == bindparam(name) for name in _IDENTITY)
    )
)
_INSERT_PATIENT = PreparedInsert(insert(patient).values(_bound(*_IDENTITY, *_PATIENT, "created_at")))
_INSERT_PATIENT_IN_SQLITE = PreparedInsert(insert(patient).values({"pk": NEXT_OF_SQLITE, **_bound(*_IDENTITY, *_PATIENT, "created_at")}))
_INSERT_PATIENT_AS = PreparedInsert(insert(patient).values(_bound("pk", *_IDENTITY, *_PATIENT, "created_at")))
_UPDATE_PATIENT = Prepared(update(patient).where(patient.c.pk == bindparam("patient_key")).values(_bound(*_PATIENT)))
_OLD_PATIENT_COLUMNS = ("patient_name", "patient_birth_date", "patient_sex")
_OLD_PATIENT = Prepared(
    select(*(patient.c[name] for name in _OLD_PATIENT_COLUMNS), patient.c.created_by).where(patient.c.pk == bindparam("patient_key"))
)

_STUDY = (*COLUMNS[Level.STUDY], "attributes_digest")
_STUDY_COUNTS = ("number_of_study_related_series", "number_of_study_related_instances")
_STUDY_KEPT = ("modalities_in_study", "sop_classes_in_study", "change_seq", "updated_at")
_INSERT_STUDY = PreparedInsert(
    insert(study).values(_bound("study_instance_uid", "patient_pk", "origin_patient", *_STUDY, *_STUDY_COUNTS, *_STUDY_KEPT, "created_at"))
)
_UPDATE_STUDY = Prepared(update(study).where(study.c.pk == bindparam("study_key")).values(_bound(*_STUDY)))
_TOUCH_STUDY = Prepared(
    update(study)
    .where(study.c.pk == bindparam("study_key"))
    .values(
        number_of_study_related_series=study.c.number_of_study_related_series + bindparam("more_series"),
        number_of_study_related_instances=study.c.number_of_study_related_instances + bindparam("more_instances"),
        **_bound(*_STUDY_KEPT),
    )
)

_SERIES = (*COLUMNS[Level.SERIES], "attributes_digest")
_INSERT_SERIES = PreparedInsert(
    insert(series).values(
        _bound("series_instance_uid", "study_pk", *_SERIES, "number_of_series_related_instances", "change_seq", "created_at", "updated_at")
    )
)
_UPDATE_SERIES = Prepared(update(series).where(series.c.pk == bindparam("series_key")).values(_bound(*_SERIES)))
_TOUCH_SERIES = Prepared(
    update(series)
    .where(series.c.pk == bindparam("series_key"))
    .values(
        number_of_series_related_instances=series.c.number_of_series_related_instances + bindparam("more_instances"),
        **_bound("change_seq", "updated_at"),
    )
)
_INSERT_REQUEST = Prepared(
    insert(request_attribute).values(_bound("series_pk", "item", "scheduled_procedure_step_id", "requested_procedure_id"))
)
_DELETE_REQUESTS = Prepared(delete(request_attribute).where(request_attribute.c.series_pk == bindparam("series_key")))
_MODALITIES = Prepared(select(series.c.modality).where(series.c.study_pk == bindparam("study_key")).distinct())
_SOP_CLASSES = Prepared(
    select(instance.c.sop_class_uid)
    .join(series, series.c.pk == instance.c.series_pk)
    .where(series.c.study_pk == bindparam("study_key"))
    .distinct()
)
_KEEP_SOP_CLASSES = Prepared(update(study).where(study.c.pk == bindparam("study_key")).values(_bound("sop_classes_in_study")))
_KEEP_MODALITIES = Prepared(update(study).where(study.c.pk == bindparam("study_key")).values(_bound("modalities_in_study")))


def locate(conn: Connection, arrival: Arrival) -> Place:
    """The rows that are there already."""
    uids = arrival.uids
    row = _LOCATE.first(conn, {"study": uids[0], "series": uids[1], "sop": uids[2]})
    return Place._make(row) if row else Place()


def ensure(conn: Connection, arrival: Arrival, place: Place, seq: int, now: str, owner: Owner | None = None) -> int:
    """Bring patient, study and series up to date with an arrival; the key of the series.

    Counts grow by the rows that are new. Attributes become those of the arrival, which is the version last stored. `owner` is
    there for a new study; the change `seq` tells whose it is, for a catalog made anew.
    """
    if place.study_pk is None:
        assert owner is not None
        if not owner.is_current:
            _update_patient(conn, arrival, owner.pk, now)
        survivor = patients.survivor(conn, owner.merged_into) if owner.merged_into is not None else owner.pk
        study_pk = _new_study(conn, arrival, survivor, owner.pk if owner.pk != survivor else None, seq, now)
        return _new_series(conn, arrival, study_pk, seq, now)
    if place.patient_digest != arrival.patient.digest and place.patient_pk is not None and is_same_patient(place, arrival):
        _update_patient(conn, arrival, place.patient_pk, now)
    if place.study_digest != arrival.study.digest:
        _UPDATE_STUDY.do(conn, {**arrival.study.columns, "attributes_digest": arrival.study.digest, "study_key": place.study_pk})
        search_values.replace(conn, Level.STUDY, place.study_pk, arrival.study.values)
    series_pk = place.series_pk
    more_instances = int(place.instance_pk is None)
    if series_pk is None:
        series_pk = _new_series(conn, arrival, place.study_pk, seq, now)
    else:
        if place.series_digest != arrival.series.digest:
            _update_series(conn, arrival, series_pk)
        _TOUCH_SERIES.do(conn, {"series_key": series_pk, "more_instances": more_instances, "change_seq": seq, "updated_at": now})
    _TOUCH_STUDY.do(
        conn,
        {
            "study_key": place.study_pk,
            "more_series": int(place.series_pk is None),
            "more_instances": more_instances,
            "modalities_in_study": _with(place.modalities, arrival.modality),
            "sop_classes_in_study": _with(place.sop_classes, arrival.sop_class_uid),
            "change_seq": seq,
            "updated_at": now,
        },
    )
    if place.series_pk is not None and (place.modality or "") != arrival.modality:
        recount_modalities(conn, place.study_pk)
    return series_pk


def is_same_patient(place: Place, arrival: Arrival) -> bool:
    """Whether the arrival names the patient its study belongs to; one that names no issuer does not contradict."""
    identity = arrival.identity
    if not identity.patient_id:
        return place.identity_study == identity.study
    return place.identity_id == identity.patient_id and (place.identity_issuer == identity.issuer or not identity.issuer_given)


def names_patient_of(conn: Connection, place: Place, arrival: Arrival) -> bool:
    """`is_same_patient`, or whether both have become one by a merge."""
    if is_same_patient(place, arrival) or place.patient_pk is None:
        return True
    row = _FIND_PATIENT.first(conn, _identity(arrival))
    return row is not None and patients.survivor(conn, row[0]) == patients.survivor(conn, place.patient_pk)


def _with(joined: str | None, value: str) -> str | None:
    """The list in order with the value in it; lists are kept sorted, divided by backslashes."""
    if not value or (joined and (joined == value or value in joined.split("\\"))):
        return joined
    return _joined([*(joined.split("\\") if joined else ()), *value.split("\\")])


def _joined(values: list[str]) -> str | None:
    return "\\".join(sorted({v for v in values if v})) or None


def _identity(arrival: Arrival) -> dict[str, str]:
    identity = arrival.identity
    return {"identity_id": identity.patient_id, "identity_issuer": identity.issuer, "identity_study": identity.study}


def owner(conn: Connection, arrival: Arrival, now: str, patient_pk: int | None = None) -> Owner:
    """The patient whom a new study names, who is made when there is none; with the number `patient_pk` in a catalog made anew."""
    names = _identity(arrival)
    row = _FIND_PATIENT.first(conn, names)
    if row is not None:
        return Owner(row[0], row[2], row[1] == arrival.patient.digest)
    columns = {**arrival.patient.columns, **names, "attributes_digest": arrival.patient.digest, "created_at": now, "updated_at": now}
    made = _insert_patient(conn, columns, patient_pk)
    search_values.insert(conn, Level.PATIENT, made, arrival.patient.values)
    return Owner(made)


def _insert_patient(conn: Connection, columns: dict[str, Any], pk: int | None) -> int:
    if pk is not None:
        columns = {**columns, "pk": pk}
        statement = _INSERT_PATIENT_AS
    else:
        statement = _INSERT_PATIENT_IN_SQLITE if conn.dialect.name == "sqlite" else _INSERT_PATIENT
    return statement.number(conn, columns)


def _update_patient(conn: Connection, arrival: Arrival, patient_pk: int, now: str) -> None:
    """Names and birth dates follow the newest instance; the old ones stay in the changes, and what only a person has told stays."""
    old = _OLD_PATIENT.first(conn, {"patient_key": patient_pk})
    new = arrival.patient.columns
    _UPDATE_PATIENT.do(conn, {**new, "attributes_digest": arrival.patient.digest, "updated_at": now, "patient_key": patient_pk})
    search_values.replace(conn, Level.PATIENT, patient_pk, arrival.patient.values)
    before = dict(zip(_OLD_PATIENT_COLUMNS, (old or ())[:-1], strict=True))
    if old is not None and old[-1] is not None:
        patients.keep(conn, patient_pk, before, new)
        new = {name: value or before.get(name) for name, value in new.items()}
    if any(new[name] != value for name, value in before.items()):
        detail: Mapping[str, Any] = {"patient": patient_pk, "before": before, "after": {name: new[name] for name in before}}
        changes.add(conn, changes.Kind.PATIENT_UPDATED, now, arrival.origin, uids=arrival.uids, detail=detail)


def _new_study(conn: Connection, arrival: Arrival, patient_pk: int, origin_patient: int | None, seq: int, now: str) -> int:
    columns = {
        **arrival.study.columns,
        "study_instance_uid": arrival.study_instance_uid,
        "patient_pk": patient_pk,
        "origin_patient": origin_patient,
        "attributes_digest": arrival.study.digest,
        "number_of_study_related_series": 1,
        "number_of_study_related_instances": 1,
        "modalities_in_study": _with(None, arrival.modality),
        "sop_classes_in_study": arrival.sop_class_uid,
        "change_seq": seq,
        "created_at": now,
        "updated_at": now,
    }
    made = _INSERT_STUDY.number(conn, columns)
    search_values.insert(conn, Level.STUDY, made, arrival.study.values)
    return made


def _new_series(conn: Connection, arrival: Arrival, study_pk: int, seq: int, now: str) -> int:
    columns = {
        **arrival.series.columns,
        "series_instance_uid": arrival.series_instance_uid,
        "study_pk": study_pk,
        "attributes_digest": arrival.series.digest,
        "number_of_series_related_instances": 1,
        "change_seq": seq,
        "created_at": now,
        "updated_at": now,
    }
    made = _INSERT_SERIES.number(conn, columns)
    search_values.insert(conn, Level.SERIES, made, arrival.series.values)
    _insert_requests(conn, arrival.request_attributes, made)
    return made


def _update_series(conn: Connection, arrival: Arrival, series_pk: int) -> None:
    _UPDATE_SERIES.do(conn, {**arrival.series.columns, "attributes_digest": arrival.series.digest, "series_key": series_pk})
    search_values.replace(conn, Level.SERIES, series_pk, arrival.series.values)
    replace_requests(conn, series_pk, arrival.request_attributes)


def replace_requests(conn: Connection, series_pk: int, requests: Requests) -> None:
    """The items of Request Attributes Sequence of a series, each (scheduled procedure step ID, requested procedure ID)."""
    _DELETE_REQUESTS.do(conn, {"series_key": series_pk})
    _insert_requests(conn, requests, series_pk)


def _insert_requests(conn: Connection, requests: Requests, series_pk: int) -> None:
    for item, (step_id, procedure_id) in enumerate(requests):
        row = {"scheduled_procedure_step_id": step_id or None, "requested_procedure_id": procedure_id or None}
        _INSERT_REQUEST.do(conn, {"series_pk": series_pk, "item": item, **row})


def recount_modalities(conn: Connection, study_pk: int) -> None:
    """Make ModalitiesInStudy anew from the series that are there."""
    found = [value for row in _MODALITIES.all(conn, {"study_key": study_pk}) for value in (row[0] or "").split("\\")]
    _KEEP_MODALITIES.do(conn, {"study_key": study_pk, "modalities_in_study": _joined(found)})


def recount_sop_classes(conn: Connection, study_pk: int) -> None:
    """Make SOPClassesInStudy anew from the instances that are there."""
    found = [row[0] for row in _SOP_CLASSES.all(conn, {"study_key": study_pk})]
    _KEEP_SOP_CLASSES.do(conn, {"study_key": study_pk, "sop_classes_in_study": _joined(found)})

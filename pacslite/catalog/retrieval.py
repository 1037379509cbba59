"""What retrieval reads: which bytes make up a study, series or instance, and their metadata documents.

The newest version of each instance, unless another is named. Each function is one indexed statement. `sight` is what the
caller may see, None for all: what it hides is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, or_, select, text

from pacslite.catalog.models import blob, instance, metadata, patient, series, study, tombstone, version
from pacslite.catalog.statements import Prepared
from pacslite.catalog.visibility import Sight
from pacslite.dicom.attributes import LEVELS, Level

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog

_FETCHED_ROWS = 100


class ItemRow(NamedTuple):
    """One version of an instance, the newest unless another was named, and where its bytes are."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    version_number: int
    version_pk: int
    storage_key: str
    store_name: str
    size_bytes: int
    sha256: str
    created_at: str = ""


class DocumentRow(NamedTuple):
    """The compressed metadata document of one version of an instance."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    json: bytes
    version_number: int


class VersionRow(NamedTuple):
    """One version of an instance."""

    number: int
    created_at: str
    transfer_syntax_uid: str
    size_bytes: int
    sha256: str
    type: str | None
    description: str | None
    author: str | None


Which = int | str | None
"""A version: by its number, as it was at a time (as the catalog writes times), or the newest."""


_ITEM = (
    study.c.study_instance_uid,
    series.c.series_instance_uid,
    instance.c.sop_instance_uid,
    instance.c.sop_class_uid,
    version.c.transfer_syntax_uid,
    version.c.number,
    version.c.pk,
    blob.c.storage_key,
    blob.c.store_name,
    blob.c.size_bytes,
    blob.c.sha256,
    version.c.created_at,
)
_UNIQUE = {
    Level.PATIENT: patient.c.identity_id,
    Level.STUDY: study.c.study_instance_uid,
    Level.SERIES: series.c.series_instance_uid,
    Level.INSTANCE: instance.c.sop_instance_uid,
}
_DOCUMENT = (study.c.study_instance_uid, series.c.series_instance_uid, instance.c.sop_instance_uid, metadata.c.json, version.c.number)
_earlier = version.alias("earlier")
_WHICH: dict[str, ColumnElement[int]] = {
    "newest": instance.c.version_number,
    "number": bindparam("version"),
    "time": select(func.max(_earlier.c.number))
    .where(_earlier.c.instance_pk == instance.c.pk, _earlier.c.created_at <= bindparam("version"))
    .correlate(instance)
    .scalar_subquery(),
}
_MOST_VERSIONS = 10_000


def _statement(columns: tuple[Any, ...], depth: int, which: str, sight: Sight | None) -> Select[Any]:
    """Instances of a study (1), of a series (2) or one (3), in the order of series and instance numbers."""
    statement = (
        select(*columns)
        .select_from(study)
        .join(series, series.c.study_pk == study.c.pk)
        .join(instance, instance.c.series_pk == series.c.pk)
        .join(version, (version.c.instance_pk == instance.c.pk) & (version.c.number == _WHICH[which]))
        .where(study.c.study_instance_uid == bindparam("study"), *_seen(sight, Level.SERIES))
    )
    if depth > 1:
        statement = statement.where(series.c.series_instance_uid == bindparam("series"))
    if depth > 2:
        return statement.where(instance.c.sop_instance_uid == bindparam("instance"))
    numbers = (series.c.series_number_value, series.c.pk) if depth == 1 else ()
    return statement.order_by(*numbers, instance.c.instance_number_value, instance.c.pk)


def _seen(sight: Sight | None, level: Level) -> tuple[ColumnElement[bool], ...]:
    return sight.clauses(level) if sight is not None else ()


@lru_cache(maxsize=512)
def _items(depth: int, which: str, sight: Sight | None) -> Prepared:
    return Prepared(_statement(_ITEM, depth, which, sight).join(blob, blob.c.pk == version.c.blob_pk))


@lru_cache(maxsize=512)
def _documents(depth: int, which: str, sight: Sight | None) -> Prepared:
    return Prepared(_statement(_DOCUMENT, depth, which, sight).join(metadata, metadata.c.version_pk == version.c.pk))


_FRAME_INDEX = Prepared(select(metadata.c.frame_index).where(metadata.c.version_pk == bindparam("version")))


@lru_cache(maxsize=512)
def _change(depth: int, sight: Sight | None) -> Prepared:
    of_study = study.c.study_instance_uid == bindparam("study")
    joined = study.join(series, series.c.study_pk == study.c.pk)
    if depth == 2:
        of_series = series.c.series_instance_uid == bindparam("series")
        return Prepared(select(series.c.change_seq).select_from(joined).where(of_series, of_study, *_seen(sight, Level.SERIES)))
    if sight is None or not sight.hides_parts:
        return Prepared(select(study.c.change_seq).where(of_study, *_seen(sight, Level.STUDY)))
    # Changes of series that are hidden change nothing; their coming and going neither.
    newest = select(func.max(series.c.change_seq), func.count()).select_from(joined)
    return Prepared(newest.where(of_study, *_seen(sight, Level.SERIES)))


# A deletion of this, of what is above it, or of a part of it: what is not there any more lost its last part so.
@lru_cache(maxsize=512)
def _tombstone(sight: Sight | None) -> Prepared:
    statement = select(tombstone.c.deleted_at).where(
        tombstone.c.study_instance_uid == bindparam("study"),
        or_(bindparam("series") == "", tombstone.c.series_instance_uid.in_(["", bindparam("series")])),
        or_(bindparam("instance") == "", tombstone.c.sop_instance_uid.in_(["", bindparam("instance")])),
    )
    if sight is not None:
        names = sight.names("tombstone.study_instance_uid", "tombstone.series_instance_uid")
        statement = statement.where(text(names))
    return Prepared(statement.limit(1))


_VERSION = (
    version.c.number,
    version.c.created_at,
    version.c.transfer_syntax_uid,
    blob.c.size_bytes,
    blob.c.sha256,
    version.c.type,
    version.c.description,
    version.c.author,
)


@lru_cache(maxsize=512)
def _versions(sight: Sight | None) -> Prepared:
    statement = (
        select(*_VERSION)
        .select_from(study)
        .join(series, series.c.study_pk == study.c.pk)
        .join(instance, instance.c.series_pk == series.c.pk)
        .join(version, version.c.instance_pk == instance.c.pk)
        .join(blob, blob.c.pk == version.c.blob_pk)
        .where(
            study.c.study_instance_uid == bindparam("study"),
            series.c.series_instance_uid == bindparam("series"),
            instance.c.sop_instance_uid == bindparam("instance"),
            *_seen(sight, Level.INSTANCE),
        )
    )
    return Prepared(statement.order_by(version.c.number.desc()).limit(_MOST_VERSIONS))


def _parameters(study_uid: str, series_uid: str | None, instance_uid: str | None) -> tuple[int, dict[str, Any]]:
    parameters: dict[str, Any] = {"study": study_uid}
    if series_uid is not None:
        parameters["series"] = series_uid
        if instance_uid is not None:
            parameters["instance"] = instance_uid
    return len(parameters), parameters


def _choice(parameters: dict[str, Any], which: Which) -> str:
    if which is None:
        return "newest"
    parameters["version"] = which
    return "number" if isinstance(which, int) else "time"


def items(
    conn: Connection,
    study_uid: str,
    series_uid: str | None = None,
    instance_uid: str | None = None,
    which: Which = None,
    sight: Sight | None = None,
) -> list[ItemRow]:
    """The instances of a study or series, or one of them; empty when there is none."""
    depth, parameters = _parameters(study_uid, series_uid, instance_uid)
    choice = _choice(parameters, which)
    return [ItemRow._make(row) for row in _items(depth, choice, sight).all(conn, parameters)]


def items_now(
    catalog: Catalog, study_uid: str, series_uid: str | None = None, instance_uid: str | None = None, which: Which = None
) -> list[ItemRow]:
    """As `items`, by itself and for somebody from whom nothing is hidden: without the transaction, which costs more than the statement."""
    depth, parameters = _parameters(study_uid, series_uid, instance_uid)
    choice = _choice(parameters, which)
    return [ItemRow._make(row) for row in catalog.rows(_items(depth, choice, None), parameters)]


def versions(conn: Connection, study_uid: str, series_uid: str, instance_uid: str, sight: Sight | None = None) -> list[VersionRow]:
    """All versions of an instance, newest first; empty when there is no such instance."""
    _, parameters = _parameters(study_uid, series_uid, instance_uid)
    return [VersionRow._make(row) for row in _versions(sight).all(conn, parameters)]


def selected(conn: Connection, keys: Mapping[Level, str], issuer: str = "", sight: Sight | None = None) -> list[ItemRow]:
    """The instances that have these unique keys, one value for each level given; in the order of studies, series, instances.

    `issuer` is that of the PatientID among them, empty for any.
    """
    parameters = {level.name: value for level, value in keys.items()} | ({"issuer": issuer} if issuer else {})
    rows = _selection(frozenset(keys), bool(issuer), sight).all(conn, parameters)
    return [ItemRow._make(row) for row in rows]


@lru_cache(maxsize=512)
def _selection(levels: frozenset[Level], by_issuer: bool, sight: Sight | None) -> Prepared:
    statement = (
        select(*_ITEM)
        .select_from(study)
        .join(series, series.c.study_pk == study.c.pk)
        .join(instance, instance.c.series_pk == series.c.pk)
        .join(version, (version.c.instance_pk == instance.c.pk) & (version.c.number == instance.c.version_number))
        .join(blob, blob.c.pk == version.c.blob_pk)
    )
    if Level.PATIENT in levels:
        statement = statement.join(patient, patient.c.pk == study.c.patient_pk)
    conditions = [_UNIQUE[level] == bindparam(level.name) for level in LEVELS if level in levels]
    if by_issuer:
        conditions.append(patient.c.identity_issuer == bindparam("issuer"))
    order = (study.c.pk, series.c.series_number_value, series.c.pk, instance.c.instance_number_value, instance.c.pk)
    return Prepared(statement.where(*conditions, *_seen(sight, Level.INSTANCE)).order_by(*order))


def documents(
    conn: Connection,
    study_uid: str,
    series_uid: str | None = None,
    instance_uid: str | None = None,
    which: Which = None,
    sight: Sight | None = None,
) -> Iterator[DocumentRow]:
    """The metadata documents, fetched while they are asked for: use them before the transaction ends."""
    depth, parameters = _parameters(study_uid, series_uid, instance_uid)
    choice = _choice(parameters, which)
    cursor = _documents(depth, choice, sight).run(conn, parameters)
    try:
        while rows := cursor.fetchmany(_FETCHED_ROWS):
            for row in rows:
                yield DocumentRow._make(row)
    finally:
        cursor.close()


def frame_index(conn: Connection, version_pk: int) -> bytes | None:
    """The encoded frame index of a version; None when it has no frames."""
    row = _FRAME_INDEX.first(conn, {"version": version_pk})
    return row[0] if row is not None else None


def change_number(conn: Connection, study_uid: str, series_uid: str | None = None, sight: Sight | None = None) -> str | None:
    """What is another after each change of a study or series that is in sight; None when there is no such."""
    depth, parameters = _parameters(study_uid, series_uid, None)
    row = _change(depth, sight).first(conn, parameters)
    if row is None or row[0] is None:
        return None
    # Others see other series: what is made for one of them must not pass for what is made for another.
    return f"{row[0]}-{row[1]}-{sight.key}" if len(row) > 1 and sight is not None else str(row[0])


def was_deleted(
    conn: Connection, study_uid: str, series_uid: str | None = None, instance_uid: str | None = None, sight: Sight | None = None
) -> bool:
    """Whether this resource, which is not there, is known to have been deleted, by itself, with what was above it or part by part."""
    parameters = {"study": study_uid, "series": series_uid or "", "instance": instance_uid or ""}
    return _tombstone(sight).first(conn, parameters) is not None

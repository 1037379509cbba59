"""Rows of what is made of stored bytes: smaller pictures, the MP4 of a video, and facts found out about them.

Everything belongs to the bytes (`blob`), so that equal files share it. A result is a blob of its own with one reference, that of
its row here: whoever takes the reference away dooms it, and erasure does the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from pacslite.catalog import blobs
from pacslite.catalog.arrival import NewBlob
from pacslite.catalog.blobs import StoredBlob
from pacslite.catalog.file_models import blob_info, file, file_part, file_version, rendition
from pacslite.catalog.models import blob, instance, series, study, version
from pacslite.catalog.statements import Prepared, now_text

PENDING, READY, FAILED, NONE = "pending", "ready", "failed", "none"
DICOM = "application/dicom"
_LIVE, _DOOMED = "live", "doomed"
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Row:
    """How far one thing that is made of bytes is; `problem` says why it failed."""

    name: str
    state: str
    result_blob: int | None
    problem: str | None
    updated_at: str


@dataclass(frozen=True, slots=True)
class Made:
    """What was made and lies durable under its key; no `blob` when the bytes that it was made of will do themselves."""

    name: str
    blob: NewBlob | None


@dataclass(frozen=True, slots=True)
class DicomPlace:
    """Where the instance is that a blob holds, and whose it is."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    version_number: int
    patient_pk: int


def _unless_there(dialect: Any) -> Prepared:
    """Two files with the same bytes may come at the same time."""
    names = {"blob_pk": "source", "name": "called", "state": "is", "updated_at": "at"}
    row: dict[str, Any] = {column: bindparam(name) for column, name in names.items()}
    return Prepared(dialect.insert(rendition).values(row).on_conflict_do_nothing())


_ADD = {"sqlite": _unless_there(sqlite), "postgresql": _unless_there(postgresql)}
_ROWS = Prepared(
    select(rendition.c.name, rendition.c.state, rendition.c.result_blob, rendition.c.problem, rendition.c.updated_at).where(
        rendition.c.blob_pk == bindparam("source")
    )
)
_INFO = Prepared(select(blob_info.c.info).where(blob_info.c.blob_pk == bindparam("source")))
_INFOS = select(blob_info.c.blob_pk, blob_info.c.info).where(blob_info.c.blob_pk.in_(bindparam("sources", expanding=True)))
_BLOB = tuple(blob.c[name] for name in StoredBlob._fields)
# Versions of instances with all that is above them, and the condition that a file points at the instance.
_INSTANCES = (
    version.join(instance, instance.c.pk == version.c.instance_pk)
    .join(series, series.c.pk == instance.c.series_pk)
    .join(study, study.c.pk == series.c.study_pk)
)
_POINTS_THERE = and_(
    file.c.dicom_sop_uid == instance.c.sop_instance_uid,
    file.c.dicom_series_uid == series.c.series_instance_uid,
    file.c.dicom_study_uid == study.c.study_instance_uid,
)


def find_blob_by_uid(conn: Connection, uid: str) -> StoredBlob | None:
    """A blob by its unique id, which is the same in a catalog made anew."""
    found = conn.execute(select(*_BLOB).where(blob.c.uid == uid)).first()
    return StoredBlob(*found) if found is not None else None


def ensure(conn: Connection, blob_pk: int, names: Iterable[str]) -> bool:
    """Have rows for these names; whether one of them is to be made yet."""
    known = rows_of(conn, blob_pk)
    now = now_text()
    missing = [name for name in names if name not in known]
    if missing:
        for name in missing:
            _ADD[conn.dialect.name].do(conn, {"source": blob_pk, "called": name, "is": PENDING, "at": now})
    return bool(missing) or any(row.state == PENDING for row in known.values())


def begin_again(conn: Connection, blob_pk: int) -> None:
    """What has failed is to be tried once more; what is there stays in use."""
    again = {"state": PENDING, "problem": None, "updated_at": now_text()}
    conn.execute(update(rendition).where(rendition.c.blob_pk == blob_pk, rendition.c.state != READY).values(again))


def touch(conn: Connection, blob_pk: int, name: str) -> None:
    """Somebody has asked for it just now."""
    conn.execute(update(rendition).where(*_row(blob_pk, name)).values(updated_at=now_text()))


def lose(conn: Connection, blob_pk: int, name: str) -> None:
    """A result is damaged or gone: it is to be made anew."""
    now = now_text()
    lost = select(rendition.c.result_blob).where(*_row(blob_pk, name), rendition.c.result_blob != blob_pk)
    results = list(conn.execute(lost).scalars())
    again = {"state": PENDING, "result_blob": None, "problem": None, "updated_at": now}
    conn.execute(update(rendition).where(*_row(blob_pk, name)).values(again))
    blobs.release(conn, results, now)


def rows_of(conn: Connection, blob_pk: int) -> dict[str, Row]:
    """What there is of a blob, by name."""
    return {row[0]: Row(*row) for row in _ROWS.all(conn, {"source": blob_pk})}


def states(conn: Connection, blob_pks: Iterable[int]) -> dict[int, dict[str, str]]:
    """How far each thing is, by blob and name; a blob that nothing is made of is not among them."""
    found: dict[int, dict[str, str]] = {}
    for some in _pieces(blob_pks):
        statement = select(rendition.c.blob_pk, rendition.c.name, rendition.c.state).where(rendition.c.blob_pk.in_(some))
        for pk, name, state in conn.execute(statement):
            found.setdefault(pk, {})[name] = state
    return found


def find(conn: Connection, blob_pk: int, name: str) -> tuple[Row, StoredBlob | None] | None:
    """How far one thing is, and its result when it has one."""
    row = rows_of(conn, blob_pk).get(name)
    if row is None:
        return None
    return row, blobs.find(conn, row.result_blob) if row.result_blob is not None else None


def results(conn: Connection, blob_pks: Iterable[int], name: str) -> dict[int, StoredBlob]:
    """The finished results of that name, by the blob they are made of."""
    found: dict[int, StoredBlob] = {}
    for some in _pieces(blob_pks):
        statement = select(rendition.c.blob_pk, *_BLOB).join(blob, blob.c.pk == rendition.c.result_blob)
        statement = statement.where(rendition.c.blob_pk.in_(some), rendition.c.name == name, rendition.c.state == READY)
        for source, *columns in conn.execute(statement):
            found[source] = StoredBlob(*columns)
    return found


def infos(conn: Connection, blob_pks: Iterable[int]) -> dict[int, dict[str, Any]]:
    """What was found out about bytes, by blob."""
    found: dict[int, dict[str, Any]] = {}
    for some in _pieces(blob_pks):
        for pk, told in conn.execute(_INFOS, {"sources": some}):
            found[pk] = json.loads(told)
    return found


def info(conn: Connection, blob_pk: int) -> dict[str, Any] | None:
    """What was found out about one blob."""
    row = _INFO.first(conn, {"source": blob_pk})
    return None if row is None else json.loads(row[0])


def _pieces(pks: Iterable[int]) -> Iterable[Sequence[int]]:
    known = list(dict.fromkeys(pks))
    return (known[at : at + _AT_ONCE] for at in range(0, len(known), _AT_ONCE))


def settle(conn: Connection, source: StoredBlob, made: Sequence[Made], problems: Mapping[str, str], info: Mapping[str, Any] | None) -> bool:
    """Write down what became of a blob's results; False when the blob is no longer live, and then nothing is written.

    What was in their place before is doomed. The caller erases what it has stored when this gives False.
    """
    if conn.execute(select(blob.c.state).where(blob.c.pk == source.pk).with_for_update()).scalar() != _LIVE:
        return False
    now = now_text()
    ensure(conn, source.pk, [*(one.name for one in made), *problems])
    before = rows_of(conn, source.pk)
    for one in made:
        _put(conn, source, one, before[one.name], now)
    for name, problem in problems.items():
        if before[name].state != READY:
            failed = {"state": FAILED, "problem": problem[:500], "updated_at": now}
            conn.execute(update(rendition).where(*_row(source.pk, name)).values(failed))
    if info is not None:
        conn.execute(delete(blob_info).where(blob_info.c.blob_pk == source.pk))
        conn.execute(insert(blob_info).values(blob_pk=source.pk, info=json.dumps(info, ensure_ascii=False, separators=(",", ":"))))
    return True


def _row(blob_pk: int, name: str) -> tuple[Any, Any]:
    return rendition.c.blob_pk == blob_pk, rendition.c.name == name


def _put(conn: Connection, source: StoredBlob, one: Made, before: Row, now: str) -> None:
    pk = source.pk if one.blob is None else blobs.insert_alone(conn, one.blob)
    ready = {"state": READY, "result_blob": pk, "problem": None, "updated_at": now}
    conn.execute(update(rendition).where(*_row(source.pk, one.name)).values(ready))
    if before.result_blob is not None and before.result_blob not in (source.pk, pk):
        blobs.release(conn, [before.result_blob], now)


def drop(conn: Connection, blob_pks: Sequence[int], now: str) -> int:
    """Take away all that is made of these blobs, and what was found out about them; how many results were doomed by it."""
    own = select(rendition.c.result_blob).where(
        rendition.c.blob_pk.in_(blob_pks), rendition.c.result_blob.is_not(None), rendition.c.result_blob != rendition.c.blob_pk
    )
    results = list(conn.execute(own).scalars())
    conn.execute(delete(rendition).where(rendition.c.blob_pk.in_(blob_pks)))
    conn.execute(delete(blob_info).where(blob_info.c.blob_pk.in_(blob_pks)))
    return blobs.release(conn, results, now)


def let_go(conn: Connection, blob_pks: Sequence[int]) -> None:
    """Bytes are about to be forgotten: no row here names them any more, and what was made of them goes too."""
    drop(conn, blob_pks, now_text())
    conn.execute(delete(rendition).where(rendition.c.result_blob.in_(blob_pks)))


def is_result_in_use() -> Any:
    """A condition on `blob`: something live has it as its result."""
    source = blob.alias("source")
    return (
        select(rendition.c.blob_pk)
        .join(source, source.c.pk == rendition.c.blob_pk)
        .where(rendition.c.result_blob == blob.c.pk, rendition.c.blob_pk != blob.c.pk, source.c.state == _LIVE)
        .exists()
    )


# Sweeping: what nobody can ask for any more


def _of_a_dicom_file() -> Any:
    """A condition on `blob`: a file points at the version of the instance whose bytes it is."""
    return select(version.c.pk).select_from(_INSTANCES.join(file, _POINTS_THERE)).where(version.c.blob_pk == blob.c.pk).exists()


def _is_unused() -> Any:
    has_results = select(rendition.c.blob_pk).where(rendition.c.blob_pk == blob.c.pk).exists()
    return and_(has_results, ~_is_of_a_file(), ~_of_a_dicom_file())


def unused_after(conn: Connection, pk: int, count: int) -> list[int]:
    """Blobs beyond a number that have results and that no file needs, neither as its bytes nor as its instance."""
    return list(conn.execute(select(blob.c.pk).where(blob.c.pk > pk, _is_unused()).order_by(blob.c.pk).limit(count)).scalars())


def drop_unused(conn: Connection, blob_pks: Sequence[int], now: str) -> int:
    """Take away what is made of those of these blobs that no file needs still; how many results were doomed."""
    return drop(conn, list(conn.execute(select(blob.c.pk).where(blob.c.pk.in_(blob_pks), _is_unused())).scalars()), now)


# Where the bytes belong


def dicom_place(conn: Connection, blob_pk: int) -> DicomPlace | None:
    """The instance whose version a blob holds."""
    statement = (
        select(
            study.c.study_instance_uid,
            series.c.series_instance_uid,
            instance.c.sop_instance_uid,
            version.c.number,
            study.c.patient_pk,
        )
        .select_from(_INSTANCES)
        .where(version.c.blob_pk == blob_pk)
        .order_by(version.c.pk.desc())
        .limit(1)
    )
    found = conn.execute(statement).first()
    return DicomPlace(*found) if found is not None else None


def _is_of_a_file() -> Any:
    return select(file_part.c.pk).where(file_part.c.blob_pk == blob.c.pk).exists()


def _sources(file_uid: str | None) -> Select[Any]:
    statement = select(*_BLOB).where(blob.c.state == _LIVE, or_(_is_of_a_file(), _of_a_dicom_file()))
    return statement if file_uid is None else statement.where(blob.c.pk.in_(_blobs_of_file(file_uid)))


def sources_after(conn: Connection, pk: int, count: int, file_uid: str | None = None) -> list[StoredBlob]:
    """Blobs beyond a number that are bytes of files, or of one file, in the order of their numbers."""
    statement = _sources(file_uid).where(blob.c.pk > pk).order_by(blob.c.pk).limit(count)
    return [StoredBlob(*row) for row in conn.execute(statement)]


def count_sources(conn: Connection, file_uid: str | None = None) -> int:
    """How many there are in all."""
    return int(conn.execute(select(func.count()).select_from(_sources(file_uid).subquery())).scalar_one())


def _blobs_of_file(file_uid: str) -> Any:
    own = (
        select(file_part.c.blob_pk)
        .join(file_version, file_version.c.pk == file_part.c.version_pk)
        .join(file, file.c.pk == file_version.c.file_pk)
        .where(file.c.uid == file_uid, file_part.c.blob_pk.is_not(None))
    )
    dicom = select(version.c.blob_pk).select_from(_INSTANCES.join(file, _POINTS_THERE)).where(file.c.uid == file_uid)
    return own.union(dicom)


def has_file(conn: Connection, file_uid: str) -> bool:
    """Whether there is a file of that id."""
    return conn.execute(select(file.c.pk).where(file.c.uid == file_uid)).first() is not None

"""The ordered feed of everything that happened; each row is written by the transaction that did it.

Whoever follows the feed must not pass over a number that is still to come. On SQLite writers come one after the other. On PostgreSQL
numbers are given when rows are written, and transactions end in any order: so each one announces, before its first row, above which
number its own will be (`announce`), and nothing above the least of those is told (`settled`) until it is over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, ColumnElement, Connection, and_, bindparam, func, insert, or_, select, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from pacslite.catalog.models import change
from pacslite.catalog.statements import Prepared, PreparedInsert
from pacslite.catalog.visibility import Sight
from pacslite.dicom.attributes import Level

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog

_ALL = 2**62
# Of the locks that speak of changes: PostgreSQL's have two numbers of 32 bits, or one of 64 as those of `lock_keys`.
_OF_CHANGES, _SPAN = 0x6368, 2**31


class Kind(StrEnum):
    """What happened."""

    INSTANCE_STORED = "instance_stored"
    VERSION_ADDED = "version_added"
    INSTANCE_REPAIRED = "instance_repaired"
    CONFLICT_NOTED = "conflict_noted"
    PATIENT_UPDATED = "patient_updated"
    PATIENT_CREATED = "patient_created"
    PATIENT_EDITED = "patient_edited"
    PATIENT_MERGED = "patient_merged"
    PATIENT_UNMERGED = "patient_unmerged"
    STUDY_DELETED = "study_deleted"
    SERIES_DELETED = "series_deleted"
    INSTANCE_DELETED = "instance_deleted"
    JOB_CHANGED = "job_changed"
    FILE_CREATED = "file_created"
    FILE_VERSIONED = "file_versioned"
    FILE_UPDATED = "file_updated"
    FILE_DELETED = "file_deleted"
    FILE_UNDELETED = "file_undeleted"
    FILE_PURGED = "file_purged"
    FILE_REPAIRED = "file_repaired"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who caused it: `protocol` is dimse, stow, dicomweb, import, upload, job or api."""

    protocol: str
    calling_aet: str = ""
    address: str = ""
    actor: str = ""
    association_id: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the feed; `detail` is what the kind needs beside the UIDs."""

    seq: int
    at: str
    kind: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    version_number: int | None
    blob_uid: str
    protocol: str
    calling_aet: str
    address: str
    actor: str
    request_id: str
    detail: Mapping[str, Any]
    file_id: str = ""
    patient_id: int | None = None


class _ThisTransaction(FunctionElement[int]):
    """The number of the running transaction where the database has such numbers."""

    type = BigInteger()
    inherit_cache = True


class _OldestTransaction(FunctionElement[int]):
    """The number of the oldest transaction that is still open; above all where writers come one after the other."""

    type = BigInteger()
    inherit_cache = True


@compiles(_ThisTransaction, "sqlite")
def _no_number(element: _ThisTransaction, compiler: SQLCompiler, **kw: object) -> str:
    return "NULL"


@compiles(_ThisTransaction, "postgresql")
def _number(element: _ThisTransaction, compiler: SQLCompiler, **kw: object) -> str:
    return "CAST(CAST(pg_current_xact_id() AS text) AS bigint)"


@compiles(_OldestTransaction, "sqlite")
def _above_all(element: _OldestTransaction, compiler: SQLCompiler, **kw: object) -> str:
    return "1"


@compiles(_OldestTransaction, "postgresql")
def _oldest(element: _OldestTransaction, compiler: SQLCompiler, **kw: object) -> str:
    return "CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)"


_UIDS = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")
_CALLER = ("protocol", "calling_aet", "address", "actor", "request_id")
_WRITTEN = ("at", "kind", *_UIDS, "version_number", "blob_uid", *_CALLER, "detail", "file_id", "patient_id")
_INSERT = PreparedInsert(insert(change).values({**{name: bindparam(name) for name in _WRITTEN}, "transaction_id": _ThisTransaction()}))
_NEWEST = "COALESCE(pg_sequence_last_value(to_regclass('change_seq_seq')), 0)"
_ANNOUNCE = f"SELECT pg_advisory_xact_lock_shared({_OF_CHANGES}, CAST(MOD({_NEWEST}, {_SPAN}) AS integer))"
_NUMBERED = Prepared(text(f"SELECT {_NEWEST}"))
_ANNOUNCED = Prepared(
    text(
        "SELECT array_agg(CAST(objid AS bigint)) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
        f"WHERE locktype = 'advisory' AND classid = {_OF_CHANGES} AND objsubid = 2 AND datname = current_database()"
    )
)
_FOLLOWING = (
    change.c.seq > bindparam("seq"),
    change.c.seq <= bindparam("until"),
    func.coalesce(change.c.transaction_id, 0) < _OldestTransaction(),
)


@lru_cache(maxsize=512)
def _after(sight: Sight | None, files: bool) -> Prepared:
    statement = select(change.c.seq, *(change.c[name] for name in _WRITTEN)).where(*_FOLLOWING, *_seen(sight, files))
    return Prepared(statement.order_by(change.c.seq).limit(bindparam("limit", type_=BigInteger())))


@lru_cache(maxsize=512)
def _count(sight: Sight | None, files: bool) -> Prepared:
    return Prepared(select(func.count()).select_from(change).where(*_FOLLOWING, *_seen(sight, files)))


def _seen(sight: Sight | None, files: bool) -> tuple[ColumnElement[bool], ...]:
    """Changes of what is in sight: of files that are there, studies, patients; of what is none of these, such as jobs, one's own.

    Without `files` those of files and patients are left out.
    """
    of_study, of_file, of_patient = (change.c[name].is_not(None) for name in ("study_instance_uid", "file_id", "patient_id"))
    others = () if files else (~of_file & ~of_patient,)
    if sight is None:
        return others
    study = text(f"({sight.names('change.study_instance_uid', 'change.series_instance_uid')})")
    file = text(f"EXISTS (SELECT 1 FROM file AS cf WHERE {_and('cf.uid = change.file_id', sight.file_condition('cf'))})")
    patient = text(f"EXISTS (SELECT 1 FROM patient WHERE {_and('patient.pk = change.patient_id', sight.conditions(Level.PATIENT))})")
    own = (change.c.actor == bindparam("actor")) & (bindparam("actor") != "")
    seen = or_(
        and_(of_file, file),
        and_(~of_file, of_study, study),
        and_(~of_file, ~of_study, of_patient, patient),
        and_(~of_file, ~of_study, ~of_patient, own),
    )
    return (*others, seen)


def _and(*conditions: str) -> str:
    return " AND ".join(one for one in conditions if one)


_LAST = select(func.coalesce(func.max(change.c.seq), 0)).where(
    change.c.seq <= bindparam("until"), func.coalesce(change.c.transaction_id, 0) < _OldestTransaction()
)


def announce(conn: Connection) -> None:
    """Said by a transaction that may add entries, before the first and outside of savepoints: theirs get numbers above the present one."""
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql(_ANNOUNCE)


def settled(catalog: Catalog) -> int:
    """Up to which number no entry can come any more. To be asked before the transaction that reads them: its state is of its beginning."""
    if catalog.is_sqlite:
        return _ALL
    newest = int(catalog.glance(_NUMBERED))
    # Who announces after this look takes numbers above the newest. In this order: who announced in between may have an even higher one.
    behind = [(newest - announced) % _SPAN for announced in catalog.glance(_ANNOUNCED) or ()]
    return newest - max((one for one in behind if one < _SPAN // 2), default=0)


def add(
    conn: Connection,
    kind: Kind,
    at: str,
    origin: Origin,
    *,
    uids: tuple[str | None, str | None, str | None] = (None, None, None),
    version_number: int | None = None,
    blob_uid: str | None = None,
    detail: Mapping[str, Any] | None = None,
    file_id: str | None = None,
    patient_id: int | None = None,
) -> int:
    """Append an entry; its number."""
    row = {
        "at": at,
        "kind": kind.value,
        "study_instance_uid": uids[0],
        "series_instance_uid": uids[1],
        "sop_instance_uid": uids[2],
        "version_number": version_number,
        "blob_uid": blob_uid,
        "protocol": origin.protocol,
        "calling_aet": origin.calling_aet or None,
        "address": origin.address or None,
        "actor": origin.actor or None,
        "request_id": origin.request_id or origin.association_id or None,
        "detail": json.dumps(detail, ensure_ascii=False) if detail else None,
        "file_id": file_id,
        "patient_id": patient_id,
    }
    return _INSERT.number(conn, row)


def after(
    conn: Connection, seq: int, limit: int = 1000, sight: Sight | None = None, *, files: bool = True, until: int = _ALL
) -> list[Change]:
    """The entries that follow a number, of what is in sight, in order. With `until` as `settled` says, no gap in them is filled later.

    Without `files` those of files and patients are left out.
    """
    return [_change(row) for row in _after(sight, files).all(conn, {"seq": seq, "until": until, "limit": limit, **_actor(sight)})]


def count_after(conn: Connection, seq: int, sight: Sight | None = None, *, files: bool = True, until: int = _ALL) -> int:
    """How many entries follow a number, of what is in sight."""
    row = _count(sight, files).first(conn, {"seq": seq, "until": until, **_actor(sight)})
    return int(row[0]) if row is not None else 0


def _actor(sight: Sight | None) -> dict[str, str]:
    return {"actor": sight.actor} if sight is not None else {}


def last(conn: Connection, until: int = _ALL) -> int:
    """The number of the newest entry, 0 when there is none."""
    return int(conn.execute(_LAST, {"until": until}).scalar_one())


def _change(row: tuple[Any, ...]) -> Change:
    seq, at, kind, study, series, sop, number, blob_uid, *caller, detail, file_id, patient_id = row
    protocol, calling_aet, address, actor, request_id = caller
    return Change(
        seq,
        at,
        kind,
        study or "",
        series or "",
        sop or "",
        number,
        blob_uid or "",
        protocol or "",
        calling_aet or "",
        address or "",
        actor or "",
        request_id or "",
        json.loads(detail) if detail else {},
        file_id or "",
        patient_id,
    )

"""What there is of a patient in one line of time: studies and files together, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, Text, and_, case, func, literal, or_, select, union_all
from sqlalchemy.sql.elements import ColumnElement

from pacslite.catalog import search
from pacslite.catalog.file_models import file, file_part, file_version
from pacslite.catalog.files import LIVE, is_there
from pacslite.catalog.models import study
from pacslite.catalog.visibility import Sight, file_clauses
from pacslite.dicom.attributes import BY_KEYWORD, Level

STUDY, FILE = "study", "file"
_SHOWN = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)
_ATTRIBUTES = tuple(BY_KEYWORD[keyword] for keyword in _SHOWN)


class Moment(NamedTuple):
    """A place in the line: `when` is `YYYYMMDDHHMMSS...`, or the beginning of it."""

    when: str
    kind: str
    pk: int


class StudyMoment(NamedTuple):
    """A study as far as it is in sight; dates and times as DICOM writes them."""

    study_instance_uid: str
    study_date: str | None
    study_time: str | None
    study_description: str | None
    accession_number: str | None
    modalities_in_study: str | None
    number_of_series: int
    number_of_instances: int


class FileMoment(NamedTuple):
    """A file with its newest version; of a photo series the first picture."""

    pk: int
    id: str
    file_type: str
    medical_category: str | None
    study_date: str | None
    body_part: str | None
    description: str | None
    study_instance_uid: str | None
    version_number: int
    created_by: str
    created_at: str
    original_filename: str
    mime_type: str
    file_size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """Something of the patient and its place in the line."""

    moment: Moment
    study: StudyMoment | None = None
    file: FileMoment | None = None


def page(conn: Connection, patient_pk: int, before: Moment | None, limit: int, sight: Sight | None = None) -> tuple[list[Entry], int]:
    """What there is of a patient, newest first, from below a moment on; and how much there is in all."""
    line = union_all(_studies(patient_pk, sight), _files(patient_pk, sight)).subquery("line")
    when, kind, pk = line.c["when"], line.c.kind, line.c.pk
    total = conn.execute(select(func.count()).select_from(line)).scalar_one()
    statement = select(when, kind, pk).order_by(when.desc(), kind.desc(), pk.desc()).limit(limit)
    if before is not None:
        same_time = and_(kind == before.kind, pk < before.pk)
        statement = statement.where(or_(when < before.when, and_(when == before.when, or_(kind < before.kind, same_time))))
    moments = [Moment(*row) for row in conn.execute(statement)]
    return _entries(conn, moments, sight), int(total)


def _studies(patient_pk: int, sight: Sight | None) -> Select[Any]:
    dated = study.c.study_date_normal + study.c.study_time_normal
    when = case((study.c.study_date_normal != "", dated), else_=_digits(study.c.created_at))
    of_patient = study.c.patient_pk == patient_pk, *(sight.clauses(Level.STUDY) if sight is not None else ())
    return select(when.label("when"), literal(STUDY, Text()).label("kind"), study.c.pk.label("pk")).where(*of_patient)


def _files(patient_pk: int, sight: Sight | None) -> Select[Any]:
    when = func.coalesce(_digits(func.nullif(file.c.study_date, "")), _digits(file.c.created_at))
    of_patient = file.c.patient_pk == patient_pk, file.c.state == LIVE, is_there(), *file_clauses(sight)
    return select(when.label("when"), literal(FILE, Text()).label("kind"), file.c.pk.label("pk")).where(*of_patient)


def _digits(at: Any) -> ColumnElement[str]:
    """A date or time of ours as DICOM writes them."""
    for mark in "-:TZ":
        at = func.replace(at, mark, "")
    found: ColumnElement[str] = at
    return found


def _entries(conn: Connection, moments: Sequence[Moment], sight: Sight | None) -> list[Entry]:
    studies = [one.pk for one in moments if one.kind == STUDY]
    rows: dict[Any, Any] = {row[0]: row[1:] for row in search.rows_of(conn, Level.STUDY, _ATTRIBUTES, studies, sight)}
    files = _newest(conn, [one.pk for one in moments if one.kind == FILE])
    found = [
        Entry(one, StudyMoment(*rows[one.pk]) if one.pk in rows else None) if one.kind == STUDY else Entry(one, None, files.get(one.pk))
        for one in moments
    ]
    return [entry for entry in found if entry.study or entry.file]


def _newest(conn: Connection, pks: Sequence[int]) -> dict[int, FileMoment]:
    columns = [*(file.c[name] for name in ("pk", "uid", *FileMoment._fields[2:11])), *(file_part.c[n] for n in _OF_PART)]
    newest = and_(file_version.c.file_pk == file.c.pk, file_version.c.number == file.c.version_number)
    statement = select(*columns).join(file_version, newest)
    statement = statement.join(file_part, and_(file_part.c.version_pk == file_version.c.pk, file_part.c.position == 0))
    return {row[0]: FileMoment(*row) for row in conn.execute(statement.where(file.c.pk.in_(pks)))}


_OF_PART = ("original_filename", "media_type", "size_bytes")

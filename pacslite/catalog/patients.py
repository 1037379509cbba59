"""Patients as the REST interface knows them: made by hand, searched, merged with others and parted again.

A merge moves rows and keeps of each whose it is by itself (`origin_patient`), also of what arrives later: so it can be undone
exactly. Whoever became part of another stays as a row, by which arrivals find the other one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Subquery, and_, case, func, insert, or_, select, text, union, update

from pacslite.catalog import search_values
from pacslite.catalog.arrival import PatientIdentity, Values, columns_of
from pacslite.catalog.file_models import file, patient_merge
from pacslite.catalog.models import VALUES_OF_LEVEL, patient, study
from pacslite.catalog.patient_numbers import NEXT_OF_SQLITE
from pacslite.catalog.search_conditions import word_key
from pacslite.catalog.search_values import words_in
from pacslite.catalog.visibility import Sight
from pacslite.dicom.attributes import BY_KEYWORD, Level

_NAME = BY_KEYWORD["PatientName"]
_TAGS = {
    name: BY_KEYWORD[keyword].tag for name, keyword in (("name", "PatientName"), ("birth_date", "PatientBirthDate"), ("sex", "PatientSex"))
}
_WORDS = VALUES_OF_LEVEL[Level.PATIENT]
_HIGHEST = "\U0010ffff"
_ASCII_LOWER = str.maketrans({upper: chr(ord(upper) + 32) for upper in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"})


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient; `birth_date` is as DICOM writes it. `merged_into` is the one they became part of."""

    id: int
    mrn: str
    issuer: str
    study: str
    name: str | None
    birth_date: str | None
    sex: str | None
    created_by: str | None
    created_at: str
    updated_at: str
    merged_into: int | None

    @property
    def identity(self) -> PatientIdentity:
        """By which DICOM knows them."""
        return PatientIdentity(self.mrn, self.issuer, self.study)


_COLUMNS = (
    patient.c.pk,
    patient.c.identity_id,
    patient.c.identity_issuer,
    patient.c.identity_study,
    patient.c.patient_name,
    patient.c.patient_birth_date,
    patient.c.patient_sex,
    patient.c.created_by,
    patient.c.created_at,
    patient.c.updated_at,
    patient.c.merged_into,
)


def _in_sight(sight: Sight | None) -> tuple[ColumnElement[bool], ...]:
    return sight.clauses(Level.PATIENT) if sight is not None else ()


def get(conn: Connection, pk: int, sight: Sight | None = None) -> Patient | None:
    """The patient of that number."""
    row = conn.execute(select(*_COLUMNS).where(patient.c.pk == pk, *_in_sight(sight))).first()
    return None if row is None else Patient(*row)


def of_identity(conn: Connection, identity: PatientIdentity) -> Patient | None:
    """The patient whom DICOM knows by that."""
    named = patient.c.identity_id == identity.patient_id, patient.c.identity_issuer == identity.issuer
    row = conn.execute(select(*_COLUMNS).where(*named, patient.c.identity_study == identity.study)).first()
    return None if row is None else Patient(*row)


def page(
    conn: Connection, number: str, words: Sequence[str], after: tuple[str, int] | None, limit: int, sight: Sight | None = None
) -> tuple[list[tuple[Patient, str]], int]:
    """Patients by name, from behind a name and number on, each with the name it is sorted by; and how many fit.

    They fit when every word begins a word of their name, or `number` is in their number, or in one that became part of them.
    """
    wanted = [patient.c.merged_into.is_(None), *_in_sight(sight)]
    if number:
        wanted.append(patient.c.pk.in_(_matching(number, words)))
    sorted_by = patient.c.patient_name_alphabetic
    statement = select(*_COLUMNS, sorted_by).where(*wanted).order_by(sorted_by, patient.c.pk).limit(limit)
    if after is not None:
        name, pk = after
        statement = statement.where(or_(sorted_by > name, and_(sorted_by == name, patient.c.pk > pk)))
    total = conn.execute(select(func.count()).select_from(patient).where(*wanted)).scalar_one()
    return [(Patient(*row[:-1]), row[-1]) for row in conn.execute(statement)], int(total)


def _matching(number: str, words: Sequence[str]) -> Any:
    """The numbers of those who fit: sets of ids, each from an index, which is many times as fast as one condition on rows."""
    one = patient.alias("one")
    is_in = func.lower(one.c.identity_id).contains(number.translate(_ASCII_LOWER), autoescape=True)
    found = [select(one.c.pk).where(is_in), select(one.c.merged_into).where(is_in, one.c.merged_into.is_not(None))]
    if words:
        first, *others = (_with_word(word) for word in words)
        found.append(select(first.c.patient_pk).where(*(first.c.patient_pk.in_(select(other.c.patient_pk)) for other in others)))
    return union(*found)


def _with_word(word: str) -> Subquery:
    key = _WORDS.c.name == word_key(_NAME.tag), _WORDS.c.value >= word, _WORDS.c.value < word + _HIGHEST
    return select(_WORDS.c.patient_pk).where(*key).subquery()


# Made and changed by hand


def add(
    conn: Connection, identity: PatientIdentity, about: Mapping[str, str | None], created_by: str, at: str, pk: int | None = None
) -> int:
    """A patient made by hand, of the next number or this one; the number. `about` has name, birth_date, sex as DICOM writes them."""
    names = {"identity_id": identity.patient_id, "identity_issuer": identity.issuer, "identity_study": identity.study}
    shown = {"patient_id": identity.patient_id or None, "issuer_of_patient_id": identity.issuer or None}
    empty = columns_of(Level.PATIENT, {})
    row = {**empty, **names, **shown, **_given(about), "created_by": created_by, "created_at": at, "updated_at": at}
    number: Any = pk
    if pk is None and conn.dialect.name == "sqlite":
        number = NEXT_OF_SQLITE
    numbered = {} if number is None else {"pk": number}
    made = int(conn.execute(insert(patient).values({**row, **numbered}).returning(patient.c.pk)).scalar_one())
    if pk is not None and conn.dialect.name == "postgresql":  # where numbers come from does not see that one is taken
        sequence = "pg_get_serial_sequence('patient', 'pk')"
        conn.execute(text(f"SELECT setval({sequence}, greatest((SELECT max(pk) FROM patient), nextval({sequence})))"))
    _replace_words(conn, made, about)
    return made


def change(conn: Connection, pk: int, about: Mapping[str, str | None], at: str) -> None:
    """Other values of what `about` names. The digest of what instances told last stays: one that tells the same changes nothing."""
    conn.execute(update(patient).where(patient.c.pk == pk).values(**_given(about), updated_at=at))
    _replace_words(conn, pk, about)


def keep(conn: Connection, pk: int, old: Mapping[str, str | None], told: Mapping[str, Any]) -> None:
    """What was given by hand and an instance says nothing of stays (`old` and `told` by column)."""
    named = {name: old[f"patient_{name}"] for name in _TAGS if old[f"patient_{name}"] and not told[f"patient_{name}"]}
    if named:
        conn.execute(update(patient).where(patient.c.pk == pk).values(**_given(named)))
        _replace_words(conn, pk, named)


def _given(about: Mapping[str, str | None]) -> dict[str, Any]:
    values: Values = {_TAGS[name]: (value,) for name, value in about.items() if value}
    columns = columns_of(Level.PATIENT, values)
    return {column: value for column, value in columns.items() if any(column.startswith(f"patient_{name}") for name in about)}


def _replace_words(conn: Connection, pk: int, about: Mapping[str, str | None]) -> None:
    if "name" in about:
        words = list(words_in(_NAME.tag, about["name"] or ""))
        search_values.replace(conn, Level.PATIENT, pk, words, (word_key(_NAME.tag),))


# Merging


def survivor(conn: Connection, pk: int) -> int:
    """The patient that one has become part of, itself when there is none."""
    while (following := conn.execute(select(patient.c.merged_into).where(patient.c.pk == pk)).scalar()) is not None:
        pk = int(following)
    return pk


def group(conn: Connection, pk: int) -> dict[int, PatientIdentity]:
    """A patient and all who became part of them, and of those, with what DICOM knows them by."""
    found: dict[int, PatientIdentity] = {}
    named = select(patient.c.pk, patient.c.identity_id, patient.c.identity_issuer, patient.c.identity_study)
    rows = conn.execute(named.where(patient.c.pk == pk)).all()
    while rows:
        found.update({row[0]: PatientIdentity(*row[1:]) for row in rows})
        rows = conn.execute(named.where(patient.c.merged_into.in_([row[0] for row in rows]))).all()
    return found


def merge(conn: Connection, pk: int, into: int, created_by: str, at: str, seq: int) -> tuple[int, int]:
    """All that is with one patient goes to another; how many studies and files."""
    moved = []
    for table, more in ((study, {"change_seq": seq, "updated_at": at}), (file, {})):
        kept = func.coalesce(table.c.origin_patient, pk)
        done = conn.execute(update(table).where(table.c.patient_pk == pk).values(patient_pk=into, origin_patient=kept, **more))
        moved.append(done.rowcount)
    conn.execute(update(patient).where(patient.c.pk == pk).values(merged_into=into, updated_at=at))
    row = {"from_patient": pk, "into_patient": into, "moved": json.dumps({"studies": moved[0], "files": moved[1]})}
    conn.execute(insert(patient_merge).values(**row, created_by=created_by, created_at=at))
    return moved[0], moved[1]


def part(conn: Connection, pk: int, own: Sequence[int], at: str, seq: int) -> tuple[int, int]:
    """All that is of a patient, or of those who became part of them (`own`, with themselves), comes back to them; how many of what.

    A file that was brought for the one they are part of goes along when it is of a study that goes.
    """
    moved, other = [], survivor(conn, pk)
    for table, more in ((study, {"change_seq": seq, "updated_at": at}), (file, {})):
        kept = case((table.c.origin_patient == pk, None), else_=table.c.origin_patient)
        done = conn.execute(update(table).where(table.c.origin_patient.in_(own)).values(patient_pk=pk, origin_patient=kept, **more))
        moved.append(done.rowcount)
    undone = patient_merge.c.from_patient == pk, patient_merge.c.reverted_at.is_(None)
    since = select(func.max(patient_merge.c.created_at)).where(*undone).scalar_subquery()
    gone = select(study.c.study_instance_uid).where(study.c.patient_pk == pk)
    of_gone = or_(file.c.study_instance_uid.in_(gone), file.c.dicom_study_uid.in_(gone))
    brought = file.c.patient_pk == other, file.c.origin_patient.is_(None), file.c.created_at >= since, of_gone
    moved[1] += conn.execute(update(file).where(*brought).values(patient_pk=pk)).rowcount
    conn.execute(update(patient).where(patient.c.pk == pk).values(merged_into=None, updated_at=at))
    conn.execute(update(patient_merge).where(*undone).values(reverted_at=at))
    return moved[0], moved[1]

"""Patients: made and changed by people, found, merged with others and parted again. DICOM makes and finds them at ingest."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pacslite.catalog import audit, changes, inventory, restrictions, timeline
from pacslite.catalog import patients as rows
from pacslite.catalog.arrival import PatientIdentity
from pacslite.catalog.changes import Kind, Origin
from pacslite.catalog.patients import Patient
from pacslite.catalog.statements import now_text
from pacslite.catalog.timeline import Entry, Moment
from pacslite.core.audit import NOBODY, Event, change_of
from pacslite.core.parts import WithCatalog, WithSettings
from pacslite.dicom.person_name import words_of
from pacslite.dicom.temporal import normal_date
from pacslite.errors import Busy, Conflict, InvalidForm, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog

__all__ = ["Entry", "Moment", "Origin", "Patient"]

T = TypeVar("T")
_NUMBER_CHARACTERS = 64  # PS3.5 6.2, LO
_GROUP_CHARACTERS, _GROUPS = 64, 3  # PS3.5 6.2, PN
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\\]")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_SEXES = ("M", "F", "O")  # PS3.3 C.7.1.1
_MOST_WORDS = 8
_TRIES = 5
MAX_MERGED = 1000
"""Patients that may be part of one."""


class Parts(WithSettings, WithCatalog, Protocol):
    """What is asked of a process."""


@dataclass(frozen=True, slots=True)
class Cause:
    """At whose wish, for the feed of changes and for the audit log."""

    origin: Origin
    event: Event = NOBODY


@dataclass(frozen=True, slots=True)
class About:
    """What is said of a patient: `given` names of name, birth_date (YYYY-MM-DD) and sex what is to be changed, None for nothing known."""

    given: Mapping[str, str | None] = field(default_factory=dict)


def get(parts: Parts, patient_id: int) -> Patient:
    """A patient, also one that became part of another; raises NotFound."""
    with parts.catalog.read() as conn:
        return _known(conn, parts.catalog, patient_id)


def listed(parts: Parts, q: str, after: tuple[str, int] | None, limit: int) -> tuple[list[tuple[Patient, str]], int]:
    """Patients whose name has words that begin so, or whose number holds it; each with what they are sorted by, and how many there are."""
    text = q.replace("\0", "").strip()
    with parts.catalog.read() as conn:
        return rows.page(conn, text, words_of(text)[:_MOST_WORDS], after, limit, parts.catalog.sight(conn))


def line_of(parts: Parts, patient_id: int, before: Moment | None, limit: int) -> tuple[list[Entry], int]:
    """What there is of a patient, newest first, and how much; raises NotFound."""
    with parts.catalog.read() as conn:
        _known(conn, parts.catalog, patient_id)
        return timeline.page(conn, patient_id, before, limit, parts.catalog.sight(conn))


def create(parts: Parts, mrn: str, issuer: str | None, about: About, cause: Cause, number: int | None = None) -> Patient:
    """A patient made by hand; raises InvalidForm, and Conflict when there is one of that number and issuer.

    `number` is the id they are to have, for whoever brings ids along.
    """
    identity = PatientIdentity(
        _number("mrn", mrn), _number("issuer", issuer or "", may_be_empty=True) or parts.settings.default_issuer.strip()
    )
    told = _checked(about)

    def work(conn: Connection) -> Patient:
        if rows.of_identity(conn, identity) is not None:
            raise Conflict("There is a patient of this mrn and issuer.")
        if number is not None and rows.get(conn, number) is not None:
            raise Conflict("There is a patient of this id.")
        now = now_text()
        made = rows.add(conn, identity, told, cause.origin.actor or cause.origin.protocol, now, number)
        patient = _found(conn, made)
        changes.add(conn, Kind.PATIENT_CREATED, now, cause.origin, detail=_described(patient), patient_id=made)
        _note(conn, cause, "patient.create", made)
        return patient

    return parts.catalog.write(work, (identity.key, *([f"patient:{number}"] if number is not None else [])))


def update(parts: Parts, patient_id: int, about: About, cause: Cause) -> Patient:
    """Other values of what is given; raises NotFound, InvalidForm, and Conflict for one that became part of another."""
    told = _checked(about)

    def work(conn: Connection, own: Mapping[int, PatientIdentity]) -> Patient:
        old = _open(_known(conn, parts.catalog, patient_id))
        if told:
            now = now_text()
            rows.change(conn, patient_id, told, now)
            before = {name: getattr(old, name) for name in told}
            detail = {**_named(old), "before": before, "after": dict(told)}
            changes.add(conn, Kind.PATIENT_EDITED, now, cause.origin, detail=detail, patient_id=patient_id)
        _note(conn, cause, "patient.update", patient_id, fields=sorted(told))
        return _found(conn, patient_id)

    return _under_locks(parts, (patient_id,), work)


def merge(parts: Parts, patient_id: int, into: int, cause: Cause) -> Patient:
    """Has a patient become part of another, who gets all studies and files and what arrives later; the former, as they are now.

    Raises NotFound, InvalidForm (`into`), Conflict when one of them is part of another already, or they are limited differently.
    """
    if into == patient_id:
        raise InvalidForm.at("into", "is the same patient")

    def work(conn: Connection, own: Mapping[int, PatientIdentity]) -> Patient:
        old = _open(_known(conn, parts.catalog, patient_id))
        target = rows.get(conn, into, parts.catalog.sight(conn))
        if target is None:
            raise InvalidForm.at("into", "there is no such patient")
        _open(target)
        if len(own) > MAX_MERGED:
            raise Conflict(f"More than {MAX_MERGED} patients are part of these; part some.")
        if _rule(conn, patient_id) != _rule(conn, into):
            raise Conflict("The two are limited to different groups or labels; an administrator has to make that alike first.")
        now, detail = now_text(), {**_named(old), "into": into, "into_identity": _identity(target)}
        seq = changes.add(conn, Kind.PATIENT_MERGED, now, cause.origin, detail=detail, patient_id=patient_id)
        studies, files = rows.merge(conn, patient_id, into, cause.origin.actor, now, seq)
        _note(conn, cause, "patient.merge", patient_id, into=into, studies=studies, files=files)
        return _found(conn, patient_id)

    return _under_locks(parts, (patient_id, into), work)


def unmerge(parts: Parts, patient_id: int, cause: Cause) -> Patient:
    """Undoes a merge: what was theirs, and what arrived for them since, is theirs again. Raises NotFound, Conflict.

    What limits the other one now limits them as well: nothing becomes seen by parting.
    """

    def work(conn: Connection, own: Mapping[int, PatientIdentity]) -> Patient:
        old = _known(conn, parts.catalog, patient_id)
        if old.merged_into is None:
            raise Conflict("The patient is not part of another.")
        survivor = rows.survivor(conn, patient_id)
        _limit_alike(conn, patient_id, survivor)
        now, detail = now_text(), {**_named(old), "from": survivor}
        seq = changes.add(conn, Kind.PATIENT_UNMERGED, now, cause.origin, detail=detail, patient_id=patient_id)
        studies, files = rows.part(conn, patient_id, list(rows.group(conn, patient_id)), now, seq)
        _note(conn, cause, "patient.unmerge", patient_id, survivor=survivor, studies=studies, files=files)
        return _found(conn, patient_id)

    return _under_locks(parts, (patient_id,), work)


def iso_date(text: str | None) -> str | None:
    """A date of DICOM as `YYYY-MM-DD`, None for what is none."""
    digits = normal_date(text) if text else None
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if digits else None


def _under_locks(parts: Parts, ids: tuple[int, ...], work: Callable[[Connection, Mapping[int, PatientIdentity]], T]) -> T:
    """Runs a transaction while nothing arrives for the patients, those they are part of, and those that are part of them."""
    for _ in range(_TRIES):
        with parts.catalog.read() as conn:
            concerned = _concerned(conn, ids)

        def once(conn: Connection, told: Mapping[int, PatientIdentity] = concerned) -> tuple[T] | None:
            if _concerned(conn, ids) != told:
                return None  # somebody merged one of them meanwhile
            return (work(conn, told),)

        keys = tuple(identity.key for identity in concerned.values())
        done = parts.catalog.write(once, (*keys, *restrictions.KEYS))
        if done is not None:
            return done[0]
    raise Busy("The patients are being merged by somebody else.")


def _concerned(conn: Connection, ids: tuple[int, ...]) -> dict[int, PatientIdentity]:
    """All patients of whom something may be with these, and with whom theirs may be."""
    found: dict[int, PatientIdentity] = {}
    for pk in ids:
        found |= rows.group(conn, rows.survivor(conn, pk))
    return found


def _known(conn: Connection, catalog: Catalog, patient_id: int) -> Patient:
    if inventory.is_rebuilding(conn):
        raise Busy("The catalog is being rebuilt.")
    found = rows.get(conn, patient_id, catalog.sight(conn))
    if found is None:
        raise NotFound("There is no such patient.")
    return found


def _found(conn: Connection, patient_id: int) -> Patient:
    found = rows.get(conn, patient_id)
    assert found is not None
    return found


def _open(patient: Patient) -> Patient:
    if patient.merged_into is not None:
        raise Conflict(f"Patient {patient.id} became part of patient {patient.merged_into}.")
    return patient


def _rule(conn: Connection, patient_id: int) -> str:
    named = restrictions.patient_named(conn, patient_id)
    assert named is not None
    return (restrictions.restriction_of(conn, named) or restrictions.Restriction()).rule


def _limit_alike(conn: Connection, patient_id: int, survivor: int) -> None:
    if _rule(conn, patient_id) == _rule(conn, survivor):
        return
    named, other = restrictions.patient_named(conn, patient_id), restrictions.patient_named(conn, survivor)
    assert named is not None
    assert other is not None
    restrictions.restrict(conn, named, restrictions.restriction_of(conn, other) or restrictions.Restriction())


def _note(conn: Connection, cause: Cause, action: str, patient_id: int, **detail: Any) -> None:
    audit.note(conn, replace(change_of(cause.event, action, patient_id, **detail), patient_id=patient_id))


def _identity(patient: Patient) -> dict[str, str]:
    return {"mrn": patient.mrn, "issuer": patient.issuer, "study": patient.study}


def _named(patient: Patient) -> dict[str, Any]:
    return {"identity": _identity(patient)}


def _described(patient: Patient) -> dict[str, Any]:
    told = {name: getattr(patient, name) for name in ("name", "birth_date", "sex", "created_by", "created_at")}
    return {**_named(patient), **told}


# What is given


def _number(name: str, given: str, *, may_be_empty: bool = False) -> str:
    """A number or issuer, trimmed as at ingest; raises InvalidForm for what no LO is (PS3.5 6.2)."""
    value = given.strip(" \0")
    if not value and not may_be_empty:
        raise InvalidForm.at(name, "is empty")
    if len(value) > _NUMBER_CHARACTERS or _UNPRINTABLE.search(value):
        message = f"is longer than {_NUMBER_CHARACTERS} characters, or has a backslash or control character"
        raise InvalidForm.at(name, message)
    return value


def _checked(about: About) -> dict[str, str | None]:
    """As DICOM writes it; raises InvalidForm."""
    checks = {"name": _name, "birth_date": _birth_date, "sex": _sex}
    faults, told = [], {}
    for name, value in about.given.items():
        try:
            told[name] = checks[name](value) if value is not None else None
        except ValueError as error:
            faults.append((name, str(error)))
    if faults:
        raise InvalidForm.of(faults)
    return told


def _name(given: str) -> str:
    value = given.strip()
    groups = value.split("=")
    if not value.strip("=^ "):
        raise ValueError("is empty")
    if _UNPRINTABLE.search(value) or len(groups) > _GROUPS or any(len(one) > _GROUP_CHARACTERS for one in groups):
        raise ValueError(f"is no person name of up to {_GROUPS} groups of {_GROUP_CHARACTERS} characters, divided by =")
    return value


def _birth_date(given: str) -> str:
    if not _DATE.fullmatch(given):
        raise ValueError("is no date (YYYY-MM-DD)")
    try:
        return date.fromisoformat(given).strftime("%Y%m%d").zfill(8)
    except ValueError:
        raise ValueError("is no date (YYYY-MM-DD)") from None


def _sex(given: str) -> str:
    if given not in _SEXES:
        raise ValueError(f"is none of {', '.join(_SEXES)}")
    return given

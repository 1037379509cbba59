"""`/patients`: patients made and changed by hand, found, merged and parted, and what there is of each in a line of time.

Reading needs `files:read`, writing `files:write`; a merge moves studies as well and needs `dicomweb:write` too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pacslite.core import patients
from pacslite.core.access import Right, require
from pacslite.core.patients import About, Cause, Entry, Moment, Patient, iso_date
from pacslite.web.audit import origin_of
from pacslite.web.forms import parse, rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import ROOT, Operation, Parameter, json_reply
from pacslite.web.pages import PAGE, check_parameters, key_in, keyed_number, limit_of, next_url, number_of

if TYPE_CHECKING:
    from pacslite.app import Pacs

_NAME = "Person name as DICOM writes it (Family^Given^Middle^Prefix^Suffix, other scripts behind =); any text is one family name."
_BIRTH = "YYYY-MM-DD."
_SEX = "M, F or O."
_UNCHANGED = "\0"  # no value of a form has a NUL


@dataclass(frozen=True, slots=True)
class PatientForm:
    """A new patient."""

    mrn: str = field(metadata=rule("PatientID: the number by which DICOM knows them; trimmed.", minLength=1, maxLength=64))
    name: str = field(metadata=rule(_NAME, minLength=1, maxLength=256))
    issuer: str | None = field(default=None, metadata=rule("IssuerOfPatientID; the server's default when it is left out.", maxLength=64))
    birth_date: str | None = field(default=None, metadata=rule(_BIRTH, maxLength=10))
    sex: str | None = field(default=None, metadata=rule(_SEX, maxLength=1))


def _unchanged() -> str:
    return _UNCHANGED


@dataclass(frozen=True, slots=True)
class PatientChange:
    """Other values. What is left out stays, null says that it is not known."""

    name: str = field(default_factory=_unchanged, metadata=rule(_NAME, minLength=1, maxLength=256))
    birth_date: str | None = field(default_factory=_unchanged, metadata=rule(_BIRTH, maxLength=10))
    sex: str | None = field(default_factory=_unchanged, metadata=rule(_SEX, maxLength=1))


@dataclass(frozen=True, slots=True)
class MergeForm:
    """Whom a patient becomes part of."""

    into: int = field(metadata=rule("Id of the patient who gets everything.", minimum=0, maximum=2**63 - 1))


@dataclass(frozen=True, slots=True)
class PatientView:
    """A patient."""

    id: int
    mrn: str = field(metadata=rule("PatientID; empty of patients whose only study names none."))
    issuer: str | None
    name: str | None = field(metadata=rule("As DICOM writes it."))
    birth_date: str | None
    sex: str | None
    created_by: str | None = field(metadata=rule("Who made them by hand; null when an instance did."))
    created_at: str
    updated_at: str
    merged_into: int | None = field(metadata=rule("The patient they became part of, who has all studies and files now."))


@dataclass(frozen=True, slots=True)
class PatientList:
    """A page of patients, by name."""

    items: tuple[PatientView, ...]
    total: int
    next: str | None


@dataclass(frozen=True, slots=True)
class StudyOfTimeline:
    """A study, as far as it is seen."""

    study_instance_uid: str
    study_date: str | None = field(metadata=rule("YYYY-MM-DD."))
    study_time: str | None = field(metadata=rule("As DICOM writes it."))
    description: str | None
    accession_number: str | None
    modalities: tuple[str, ...]
    number_of_series: int
    number_of_instances: int


@dataclass(frozen=True, slots=True)
class FileOfTimeline:
    """A file, by its newest version."""

    id: str
    url: str
    file_type: str
    medical_category: str | None
    study_date: str | None
    body_part: str | None
    description: str | None
    study_instance_uid: str | None
    original_filename: str
    mime_type: str
    file_size: int
    version_number: int
    created_by: str
    created_at: str


@dataclass(frozen=True, slots=True)
class TimelineItem:
    """A study or a file; the other one is null."""

    type: str = field(metadata=rule("study or file."))
    date: str = field(metadata=rule("YYYY-MM-DD: when it was made, as far as is known; else when it arrived."))
    study: StudyOfTimeline | None
    file: FileOfTimeline | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """A page of what there is of a patient, newest first."""

    items: tuple[TimelineItem, ...]
    total: int
    next: str | None


def list_patients(pacs: Pacs, request: Request) -> Reply:
    """A page of patients."""
    given = check_parameters(request, ("q", "limit", "cursor"))
    limit, key, after = limit_of(given), key_in(given), None
    if key is not None:
        number, _, name = key.partition(" ")
        after = name, keyed_number(number)
    found, total = patients.listed(pacs, given.get("q", "")[:256], after, limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    following = next_url(request, given, f"{last[0].id} {last[1]}") if last else None
    return json_reply(PatientList(tuple(_view(one) for one, _ in found[:limit]), total, following))


def make_patient(pacs: Pacs, request: Request) -> Reply:
    """Makes a patient."""
    form = parse(PatientForm, request)
    about = About({"name": form.name, "birth_date": form.birth_date, "sex": form.sex})
    made = patients.create(pacs, form.mrn, form.issuer, about, _cause(request))
    return json_reply(_view(made), 201, [("Location", f"{request.base_url}{ROOT}/patients/{made.id}")])


def get_patient(pacs: Pacs, request: Request, patient_id: str) -> Reply:
    """One patient."""
    return json_reply(_view(patients.get(pacs, number_of(patient_id, "patient"))))


def change_patient(pacs: Pacs, request: Request, patient_id: str) -> Reply:
    """Changes what is known of a patient."""
    form = parse(PatientChange, request)
    told = {"name": form.name, "birth_date": form.birth_date, "sex": form.sex}
    about = About({name: value for name, value in told.items() if value != _UNCHANGED})
    return json_reply(_view(patients.update(pacs, number_of(patient_id, "patient"), about, _cause(request))))


def merge_patient(pacs: Pacs, request: Request, patient_id: str) -> Reply:
    """Has a patient become part of another."""
    require(request.principal, Right.DICOMWEB_WRITE)
    return json_reply(_view(patients.merge(pacs, number_of(patient_id, "patient"), parse(MergeForm, request).into, _cause(request))))


def unmerge_patient(pacs: Pacs, request: Request, patient_id: str) -> Reply:
    """Undoes that."""
    require(request.principal, Right.DICOMWEB_WRITE)
    return json_reply(_view(patients.unmerge(pacs, number_of(patient_id, "patient"), _cause(request))))


def list_timeline(pacs: Pacs, request: Request, patient_id: str) -> Reply:
    """A page of what there is of a patient."""
    given = check_parameters(request, ("limit", "cursor"))
    limit, key, before = limit_of(given), key_in(given), None
    if key is not None:
        when, _, rest = key.partition(" ")
        kind, _, number = rest.partition(" ")
        before = Moment(when, kind, keyed_number(number))
    found, total = patients.line_of(pacs, number_of(patient_id, "patient"), before, limit + 1)
    following = next_url(request, given, " ".join(map(str, found[limit - 1].moment))) if len(found) > limit else None
    return json_reply(Timeline(tuple(_item(request, entry) for entry in found[:limit]), total, following))


def _cause(request: Request) -> Cause:
    origin = patients.Origin("api", address=request.address, actor=request.actor, request_id=request.request_id)
    return Cause(origin, origin_of(request))


def _view(one: Patient) -> PatientView:
    times = one.created_by, one.created_at, one.updated_at, one.merged_into
    return PatientView(one.id, one.mrn, one.issuer or None, one.name, iso_date(one.birth_date), one.sex, *times)


def _item(request: Request, entry: Entry) -> TimelineItem:
    day = entry.moment.when[:8]
    study: Any = entry.study
    file: Any = entry.file
    if study is not None:
        counts = tuple((study.modalities_in_study or "").split("\\")) if study.modalities_in_study else ()
        shown = study.study_description, study.accession_number, counts, study.number_of_series, study.number_of_instances
        study = StudyOfTimeline(study.study_instance_uid, iso_date(study.study_date), study.study_time, *shown)
    if file is not None:
        values = {name: getattr(file, name) for name in FileOfTimeline.__slots__ if name != "url"}
        file = FileOfTimeline(url=f"{request.base_url}{ROOT}/files/{file.id}", **values)
    return TimelineItem(entry.moment.kind, f"{day[:4]}-{day[4:6]}-{day[6:]}", study, file)


_BODY = (404, 409, 413, 415)

OPERATIONS = (
    Operation(
        "GET",
        "/patients",
        list_patients,
        "Patients by name",
        "patients",
        {200: PatientList},
        Right.FILES_READ,
        parameters=(Parameter("q", "Beginnings of words of the name, or a piece of the number."), *PAGE),
    ),
    Operation(
        "POST", "/patients", make_patient, "Make a patient", "patients", {201: PatientView}, Right.FILES_WRITE, PatientForm, (409, 413, 415)
    ),
    Operation(
        "GET", "/patients/{patient_id}", get_patient, "One patient", "patients", {200: PatientView}, Right.FILES_READ, problems=(404,)
    ),
    Operation(
        "PATCH",
        "/patients/{patient_id}",
        change_patient,
        "Change what is known of a patient",
        "patients",
        {200: PatientView},
        Right.FILES_WRITE,
        PatientChange,
        _BODY,
    ),
    Operation(
        "POST",
        "/patients/{patient_id}/merge",
        merge_patient,
        "Have a patient become part of another, with all studies and files",
        "patients",
        {200: PatientView},
        Right.FILES_WRITE,
        MergeForm,
        _BODY,
    ),
    Operation(
        "POST",
        "/patients/{patient_id}/unmerge",
        unmerge_patient,
        "Undo a merge",
        "patients",
        {200: PatientView},
        Right.FILES_WRITE,
        problems=(404, 409),
    ),
    Operation(
        "GET",
        "/patients/{patient_id}/timeline",
        list_timeline,
        "Studies and files of a patient, newest first",
        "patients",
        {200: Timeline},
        Right.FILES_READ,
        problems=(404,),
        parameters=PAGE,
    ),
)

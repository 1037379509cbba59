"""`/files/patient/{id}/...`: what a patient has in files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from pacslite.core import file_lists
from pacslite.core.access import Right
from pacslite.core.file_lists import Filters
from pacslite.core.file_types import MedicalCategory, MedicalFileType
from pacslite.errors import InvalidForm
from pacslite.files.views import FileView, view_of
from pacslite.web.forms import parse, rule
from pacslite.web.messages import Reply, Request
from pacslite.web.operations import Operation, Parameter, json_reply
from pacslite.web.pages import PAGE, check_parameters, key_in, keyed_number, limit_of, next_url, number_of, wrong_cursor

if TYPE_CHECKING:
    from pacslite.app import Pacs

_MIB = 1_048_576
_FILTERS = ("file_type", "medical_category", "study_date_from", "study_date_to", "state")


@dataclass(frozen=True, slots=True)
class FileList:
    """A page of files, newest first."""

    items: tuple[FileView, ...]
    total: int
    next: str | None


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """Files of one type, all their versions as they were sent."""

    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DicomInfo:
    """What the patient has in studies."""

    studies: int
    series: int
    instances: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StorageInfoView:
    """How much of a patient is kept in files, the trash left out; studies are counted apart."""

    patient_id: int
    file_count: int
    total_size_bytes: int
    total_size_mb: float = field(metadata=rule("The same in MiB."))
    by_type: dict[str, TypeInfo]
    dicom: DicomInfo
    versions: int


@dataclass(frozen=True, slots=True)
class PatientCleanupForm:
    """Which of a patient's temporary files are to go."""

    older_than_hours: float = field(metadata=rule("Untouched for that long; 0 takes all.", minimum=0, maximum=876_000))


@dataclass(frozen=True, slots=True)
class PatientCleanupView:
    """What went."""

    deleted_count: int
    freed_bytes: int


def list_files(pacs: Pacs, request: Request, patient_id: str) -> Reply:
    """A page of a patient's files."""
    given = check_parameters(request, (*_FILTERS, "limit", "cursor"))
    limit, after = limit_of(given), _after(key_in(given))
    found, total = file_lists.listed(pacs.catalog, number_of(patient_id, "patient"), _filters(given), after, limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    following = next_url(request, given, f"{last.created_at} {last.pk}") if last else None
    return json_reply(FileList(tuple(view_of(request, record) for record in found[:limit]), total, following))


def _after(key: str | None) -> tuple[str, int] | None:
    if key is None:
        return None
    at, _, pk = key.partition(" ")
    if not at:
        raise wrong_cursor()
    return at, keyed_number(pk)


def _filters(given: dict[str, str]) -> Filters:
    for name, known in (("file_type", MedicalFileType), ("medical_category", MedicalCategory), ("state", ("live", "trash"))):
        if name in given and given[name] not in list(known):
            message = f"is none of {', '.join(known)}"
            raise InvalidForm.at(name, message)
    for name in ("study_date_from", "study_date_to"):
        if name in given:
            _check_day(name, given[name])
    return Filters(**{name: given[name] for name in _FILTERS if name in given})


def _check_day(name: str, text: str) -> None:
    try:
        if len(text) != len("YYYY-MM-DD"):
            raise ValueError
        date.fromisoformat(text)
    except ValueError:
        raise InvalidForm.at(name, "is no day (YYYY-MM-DD)") from None


def list_by_type(pacs: Pacs, request: Request, patient_id: str) -> Reply:
    """A patient's files by type."""
    found = file_lists.categorized(pacs.catalog, number_of(patient_id, "patient"), _filters(check_parameters(request, _FILTERS)))
    return json_reply({kind: [asdict(view_of(request, record)) for record in records] for kind, records in found.items()})


def get_storage_info(pacs: Pacs, request: Request, patient_id: str) -> Reply:
    """How much of a patient is kept."""
    check_parameters(request, ())
    number = number_of(patient_id, "patient")
    info = file_lists.storage_info(pacs.catalog, number)
    total = sum(one.size_bytes for one in info.by_type.values())
    by_type = {kind: TypeInfo(one.count, one.size_bytes) for kind, one in info.by_type.items()}
    dicom = DicomInfo(info.dicom.studies, info.dicom.series, info.dicom.instances, info.dicom.size_bytes)
    count = sum(one.count for one in info.by_type.values())
    return json_reply(StorageInfoView(number, count, total, round(total / _MIB, 2), by_type, dicom, info.versions))


def clean_up(pacs: Pacs, request: Request, patient_id: str) -> Reply:
    """Ends a patient's unfinished uploads."""
    form = parse(PatientCleanupForm, request)
    count, freed = file_lists.clean_up(pacs, number_of(patient_id, "patient"), form.older_than_hours * 3600)
    return json_reply(PatientCleanupView(count, freed))


_NARROWED = (
    Parameter("file_type", "Only files of this type."),
    Parameter("medical_category", "Only files of this category."),
    Parameter("study_date_from", "Only files made on this day or later, YYYY-MM-DD."),
    Parameter("study_date_to", "Only files made on this day or before, YYYY-MM-DD."),
    Parameter("state", "`trash` for what is in the trash, else what is not."),
)

OPERATIONS = (
    Operation(
        "GET",
        "/files/patient/{patient_id}/files",
        list_files,
        "Files of a patient, newest first",
        "files",
        {200: FileList},
        Right.FILES_READ,
        parameters=(*_NARROWED, *PAGE),
        problems=(404,),
        action="file.list",
    ),
    Operation(
        "GET",
        "/files/patient/{patient_id}/files/categorized",
        list_by_type,
        "Files of a patient by type, of each the newest thousand",
        "files",
        {200: dict},
        Right.FILES_READ,
        parameters=_NARROWED,
        problems=(404,),
        action="file.list",
    ),
    Operation(
        "GET",
        "/files/patient/{patient_id}/storage-info",
        get_storage_info,
        "How much of a patient is kept",
        "files",
        {200: StorageInfoView},
        Right.FILES_READ,
        problems=(404,),
        action="file.list",
    ),
    Operation(
        "POST",
        "/files/patient/{patient_id}/cleanup",
        clean_up,
        "End unfinished uploads for a patient; files stay as they are",
        "files",
        {200: PatientCleanupView},
        Right.FILES_WRITE,
        form=PatientCleanupForm,
        problems=(404,),
        action="file.cleanup",
    ),
)

"""Trees of files as other services keep them: what the place of a file tells of its patient, its type and its date.

Names are read and never trusted: nothing here opens a file, and what is not understood is left to the mapping.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum

from pacslite.core.file_types import KEY_NAMES, MedicalCategory, MedicalFileType

_FIRST_YEAR = 1900
_LONGEST_NUMBER = 18
_PATIENT = re.compile(rf"(?:patients?|pat|pt|p)[ _-]?#?0*([0-9]{{1,{_LONGEST_NUMBER}}})", re.IGNORECASE)
_NUMBER = re.compile(rf"0*([0-9]{{1,{_LONGEST_NUMBER}}})")
_USER = re.compile(r"users?[ _-]?([A-Za-z0-9][A-Za-z0-9._@-]{0,63})", re.IGNORECASE)
_YEAR, _MONTH = re.compile(r"(?:19|20)[0-9]{2}"), re.compile(r"0?[1-9]|1[0-2]")
_YEAR_MONTH = re.compile(r"((?:19|20)[0-9]{2})[._-]?(0[1-9]|1[0-2])")
_DAY = re.compile(r"0?[1-9]|[12][0-9]|3[01]")
_DATE = re.compile(r"(?<![0-9])((?:19|20)[0-9]{2})([._-]?)(0[1-9]|1[0-2])\2(0[1-9]|[12][0-9]|3[01])(?![0-9]{2})")
_SEPARATORS = re.compile(r"[\s._-]+")

# Pictures that a service has made of its originals: here they are made anew.
_SIZES = ("large", "medium", "small", "thumbnail", "thumbnails", "thumb", "thumbs", "preview", "previews")
_DERIVED = frozenset((*_SIZES, "cache", "resized", "renditions", "variants", "derived", "tmp", "temp"))
_JUNK = frozenset({"thumbs.db", ".ds_store", "desktop.ini", "@eadir", "__macosx", ".git"})
_ORIGINALS = frozenset({"originals", "original"})
# Folders that hold a patient's folder, or say nothing.
_ABOVE_PATIENTS = frozenset({"patients", "patient"})

_TYPE_WORDS: dict[str, MedicalFileType | None] = {
    **{names.folder: kind for kind, names in KEY_NAMES.items()},
    **{str(kind): kind for kind in MedicalFileType},
    **dict.fromkeys(("image", "images", "picture", "pictures", "fotos", "bilder", "intraoral", "extraoral"), MedicalFileType.PHOTO),
    **dict.fromkeys(("x_ray", "x_rays", "radiograph", "radiographs", "roentgen", "rx"), MedicalFileType.XRAY),
    **dict.fromkeys(("pano", "panos", "opg", "opgs", "opt", "panoramic_xrays", "orthopantomograms"), MedicalFileType.PANORAMIC),
    **dict.fromkeys(("ct", "cts", "ct_scan", "cbct", "cbcts", "dvt", "tomography"), MedicalFileType.CT_SCAN),
    **dict.fromkeys(("dcm", "dicom_files"), MedicalFileType.DICOM),
    **dict.fromkeys(("mr", "mri_scans", "mrt"), MedicalFileType.MRI),
    **dict.fromkeys(("stl", "stls", "stl_files"), MedicalFileType.STL_MODEL),
    **dict.fromkeys(("obj", "objs", "obj_files"), MedicalFileType.OBJ_MODEL),
    **dict.fromkeys(("ply", "plys", "ply_files"), MedicalFileType.PLY_MODEL),
    # Of several types: the file itself tells.
    **dict.fromkeys(("models", "3d", "3d_models", "meshes", "scans", "files", "media", "other", "others", "misc"), None),
    **dict.fromkeys(("docs", "doc", "letters"), MedicalFileType.DOCUMENT),
    **dict.fromkeys(("findings", "befunde"), MedicalFileType.REPORT),
    **dict.fromkeys(("movies", "clips"), MedicalFileType.VIDEO),
    **dict.fromkeys(("series", "photoseries", "photo_sets", "albums"), MedicalFileType.PHOTO_SERIES),
}


class Layout(StrEnum):
    """How a tree is built."""

    PATIENTS = "patients"
    MEDIA = "media"
    IMAGES = "images"
    RADIOLOGY = "radiology"


@dataclass(frozen=True, slots=True)
class Place:
    """What the place of a file tells. `number` is how the tree calls the patient, never our own id by itself.

    `study_date` comes with `dated_by`: `name`, `folder`, or `month` when the folders name no day. Files with the same `series`
    are one photo series. `skipped` says why a file is none to be taken.
    """

    number: str | None = None
    file_type: MedicalFileType | None = None
    medical_category: MedicalCategory | None = None
    study_date: str | None = None
    dated_by: str = ""
    series: tuple[str, ...] = ()
    skipped: str = ""


def place_of(layout: Layout, parts: Sequence[str]) -> Place:
    """What the path of a file tells, whose last part is its name and whose first may be the folder that was given."""
    folders, name = [part.lower() for part in parts[:-1]], parts[-1]
    if name.lower() in _JUNK or name.startswith(("._", ".~", "~$")) or any(folder in _JUNK for folder in folders):
        return Place(skipped="left by an operating system or an office program")
    return _READERS[layout](list(parts[:-1]), name)


def _of_patients(folders: list[str], name: str) -> Place:
    """`patients/patient_{id}/{type}/...`, with years, categories or series folders in between."""
    at = _patient_at(folders)
    if at is None:
        return Place(None, *_dated(folders, name))
    inner = folders[at + 1 :]
    if any(_word(folder) in _DERIVED for folder in inner):
        return Place(skipped="a smaller picture made of another file")
    number = _number_of(folders[at])
    kind, below = _type_of(inner)
    category = next((MedicalCategory(_word(folder)) for folder in inner if _word(folder) in set(MedicalCategory)), None)
    day, how = _date_of(inner, name)
    series: tuple[str, ...] = ()
    if kind is MedicalFileType.PHOTO_SERIES:
        named = [folder for folder in below if not (_YEAR.fullmatch(folder) or _MONTH.fullmatch(folder) or _YEAR_MONTH.fullmatch(folder))]
        series = tuple(folders[: at + 1] + inner) if named else ()
    return Place(number, kind, category, day, how, series)


def _patient_at(folders: list[str]) -> int | None:
    """Which folder is the patient's: the first below `patients`, else one that calls itself so."""
    for at, folder in enumerate(folders[:-1]):
        if folder.lower() in _ABOVE_PATIENTS and _number_of(folders[at + 1]) is not None:
            return at + 1
    return next((at for at, folder in enumerate(folders) if _PATIENT.fullmatch(folder)), None)


def _number_of(folder: str) -> str | None:
    found = _PATIENT.fullmatch(folder) or _NUMBER.fullmatch(folder)
    return found[1] if found else None


def _type_of(folders: list[str]) -> tuple[MedicalFileType | None, list[str]]:
    """The type that a folder names, and the folders below that one."""
    for at, folder in enumerate(folders):
        if _word(folder) in _TYPE_WORDS:
            return _TYPE_WORDS[_word(folder)], folders[at + 1 :]
    return None, []


def _of_media(folders: list[str], name: str) -> Place:
    """`media/originals/{year}/{month}/...`; what lies beside `originals` is made of them."""
    words = [_word(folder) for folder in folders]
    inner = folders[next((at + 1 for at, word in enumerate(words) if word in _ORIGINALS), 0) :]
    if any(_word(folder) in _DERIVED for folder in (inner if len(inner) < len(folders) else folders)):
        return Place(skipped="a smaller picture made of another file")
    return _by_name(inner, name)


def _of_images(folders: list[str], name: str) -> Place:
    """`images/user-*/{year}/{month}/...`: the user is whose pictures they are."""
    if any(_word(folder) in _DERIVED for folder in folders):
        return Place(skipped="a smaller picture made of another file")
    at = next((at for at, folder in enumerate(folders) if _USER.fullmatch(folder)), None)
    if at is None:
        return _by_name(folders, name)
    found = _USER.fullmatch(folders[at])
    number = found[1] if found else ""
    day, how = _date_of(folders[at + 1 :], name)
    kind, _ = _type_of(folders[at + 1 :])
    return Place(number.lstrip("0") or "0" if number.isdigit() else number, kind, None, day, how)


def _of_radiology(folders: list[str], name: str) -> Place:
    """`radiology/{study}/{series}/{image}/{file}` with names that tell nothing; DICOM tells its own patient."""
    if any(_word(folder) in _DERIVED for folder in folders):
        return Place(skipped="a smaller picture made of another file")
    return Place(None, None, None, *_date_of([], name))


def _by_name(folders: list[str], name: str) -> Place:
    """A patient named by a folder or by the beginning of the file's name."""
    whole = [found[1] for folder in folders if (found := _PATIENT.fullmatch(folder))]
    begin = re.match(rf"(?:patient|pat|pt)[ _-]?0*([0-9]{{1,{_LONGEST_NUMBER}}})(?![0-9])", name, re.IGNORECASE)
    number = whole[0] if whole else begin[1] if begin else None
    kind, _ = _type_of(folders)
    day, how = _date_of(folders, name)
    return Place(number, kind, None, day, how)


def _dated(folders: list[str], name: str) -> tuple[MedicalFileType | None, None, str | None, str]:
    kind, _ = _type_of(folders)
    return kind, None, *_date_of(folders, name)


def _date_of(folders: list[str], name: str) -> tuple[str | None, str]:
    """The date in a file's name, else that of the folders, else the first day of their month; and which it was.

    A date in the name counts only within the month of the folders, when those name one.
    """
    named, month = _date_in(name), _month_of(folders)
    if named is not None and (month is None or named[:7] == month[0][:7]):
        return named, "name"
    for folder in folders:
        found = _date_in(folder)
        if found is not None:
            return found, "folder"
    return month if month is not None else (None, "")


def _date_in(text: str) -> str | None:
    for found in _DATE.finditer(text[:255]):
        day = _real(int(found[1]), int(found[3]), int(found[4]))
        if day is not None:
            return day
    return None


def _month_of(folders: list[str]) -> tuple[str, str] | None:
    """The date that folders `2024/05`, `2024/05/17` or `2024-05` name."""
    for at, folder in enumerate(folders):
        joined = _YEAR_MONTH.fullmatch(folder)
        if joined:
            month = _real(int(joined[1]), int(joined[2]), 1)
            return None if month is None else (month, "month")
        if _YEAR.fullmatch(folder) and at + 1 < len(folders) and _MONTH.fullmatch(folders[at + 1]):
            year, number = int(folder), int(folders[at + 1])
            if at + 2 < len(folders) and _DAY.fullmatch(folders[at + 2]):
                day = _real(year, number, int(folders[at + 2]))
                if day is not None:
                    return day, "folder"
            first = _real(year, number, 1)
            return None if first is None else (first, "month")
    return None


def _real(year: int, month: int, day: int) -> str | None:
    """A date that exists and is not to come (somewhere on earth it may be tomorrow already)."""
    try:
        found = date(year, month, day)
    except ValueError:
        return None
    return found.isoformat() if year >= _FIRST_YEAR and (found - datetime.now(UTC).date()).days <= 1 else None


def _word(folder: str) -> str:
    return _SEPARATORS.sub("_", folder.strip().lower()).strip("_")


_READERS: dict[Layout, Callable[[list[str], str], Place]] = {
    Layout.PATIENTS: _of_patients,
    Layout.MEDIA: _of_media,
    Layout.IMAGES: _of_images,
    Layout.RADIOLOGY: _of_radiology,
}

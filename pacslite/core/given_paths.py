"""Paths below the storage as names of files, for callers in Python: what a path tells, and which file it means."""

from __future__ import annotations

import os
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pacslite.catalog import archiving
from pacslite.catalog.database import Catalog
from pacslite.core.file_names import extension_of
from pacslite.core.file_types import KEY_NAMES, MedicalFileType
from pacslite.errors import BadRequest
from pacslite.storage.keys import file_key, is_version_id, new_version_id

_KEY = re.compile(r"patients/patient_([0-9]+)/([a-z_]+)/([0-9]{8})_[a-z]+_([0-9a-f-]{36})((?:\.[a-z0-9]+)*)")
_TYPE_OF_FOLDER = {names.folder: kind for kind, names in KEY_NAMES.items()}


@dataclass(frozen=True, slots=True)
class GivenPath:
    """What a path tells: patient, type, day (YYYY-MM-DD), id and name of a file."""

    patient_id: int
    file_type: MedicalFileType
    day: str
    file_id: str
    name: str


def new_key(patient_id: int, kind: MedicalFileType, day: str, original_filename: str) -> str:
    """A storage key that no file has yet; `day` is YYYY-MM-DD."""
    names, extension = KEY_NAMES[kind], extension_of(original_filename)
    return file_key(patient_id, names.folder, day.replace("-", ""), names.prefix, new_version_id(), extension)


def told_by(base: Path, path: str | os.PathLike[str]) -> GivenPath:
    """What a path below `base`, or one relative to it, tells; raises BadRequest for one that was not made here."""
    text = os.fspath(path)
    if os.path.isabs(text):
        text = os.path.relpath(text, base)
    found = _KEY.fullmatch(Path(os.path.normpath(text)).as_posix())
    if found is None or found[2] not in _TYPE_OF_FOLDER or not is_version_id(found[4]):
        raise BadRequest("this is no path of a file here: generate_file_path gives them")
    day = f"{found[3][:4]}-{found[3][4:6]}-{found[3][6:]}"
    return GivenPath(int(found[1]), _TYPE_OF_FOLDER[found[2]], day, found[4], Path(text).name)


def file_id_of(catalog: Catalog, base: Path, file: str | os.PathLike[str]) -> str:
    """The id of a file that is named by it or by a path; raises BadRequest."""
    if isinstance(file, str):
        with suppress(ValueError):
            return str(uuid.UUID(file))
    file_id = told_by(base, file).file_id
    with catalog.read() as conn:
        found = archiving.files_of_blob(conn, file_id)
    if not found or file_id in found:
        return file_id
    if len(found) > 1:
        raise BadRequest("several files have these bytes: name one by its id")
    return found[0]

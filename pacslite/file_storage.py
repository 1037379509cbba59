"""The files of patients for scripts: `FileStorageService`, a thin face on the core that the server has too.

    with FileStorageService("storage") as service:
        service.create_patient_directories(123)
        file = service.create_with_version("scan.stl", patient_id=123, file_type=MedicalFileType.STL_MODEL)

docs/python.md tells more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from pacslite.catalog.changes import Origin
from pacslite.core import file_content, file_inspection, files, given_paths, patients, renditions
from pacslite.core.cleanup import unfinished
from pacslite.core.file_chunks import Chunks
from pacslite.core.file_content import Which
from pacslite.core.file_lists import Filters, listed, storage_info
from pacslite.core.file_types import KEY_NAMES, PICTURE_SIZES, FileVersionType, MedicalCategory, MedicalFileType, Variant
from pacslite.core.files import Arrived, FileRecord, FileVersion, Owner
from pacslite.core.given_files import Content, day_of, description_of, names_of, number_of, pieces_of, several, spooled, word
from pacslite.core.given_records import shown
from pacslite.core.patients import About, Cause
from pacslite.core.storage_stats import has_room, stats
from pacslite.errors import BadRequest, Conflict, Gone, NotFound
from pacslite.storage.keys import new_version_id

if TYPE_CHECKING:
    from pacslite.app import Pacs
    from pacslite.catalog.blobs import StoredBlob

__all__ = ["FileStorageService", "FileVersionType", "MedicalCategory", "MedicalFileType"]

_MIB = 1024 * 1024
_LIST_PAGE = 1000


class FileStorageService:
    """The files below `base_storage_path`, whose catalog is `<base_storage_path>/catalog.db`. Safe for threads.

    Files are named by their id, or by a path that `generate_file_path` or a record has given. Patients are made when a file is
    brought for a number that is nobody's yet. `settings` are those of docs/settings.md.
    """

    def __init__(self, base_storage_path: str | os.PathLike[str] = "storage", *, created_by: str = "python", **settings: Any) -> None:
        self.base_path = Path(base_storage_path).expanduser().absolute()
        self.created_by = created_by
        self._settings = settings
        self._opened: Pacs | None = None
        self._lock = threading.Lock()

    # Opening and closing

    def initialize(self) -> Self:
        """Make the folders and the catalog, or bring that to this release; every other method does it when it was not done."""
        self._pacs  # noqa: B018
        return self

    def close(self) -> None:
        """Let go of the catalog; the next call opens it again."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def __enter__(self) -> Self:
        return self.initialize()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def _pacs(self) -> Pacs:
        with self._lock:
            if self._opened is None:
                from pacslite import app
                from pacslite.settings import FIELDS, load

                if unknown := sorted(set(self._settings) - set(FIELDS)):
                    raise BadRequest(f"there is no setting {', '.join(unknown)}")
                # The environment is that of a server, which may have its data elsewhere.
                chosen = load(environment={}, **{"data": self.base_path, "storage_root": self.base_path, **self._settings})
                app.prepare_directories(chosen)
                pacs = app.build(chosen)
                try:
                    pacs.catalog.migrate()
                except BaseException:
                    pacs.close()
                    raise
                self._opened = pacs
            return self._opened

    # Patients

    def create_patient_directories(self, patient_id: int | str) -> dict[str, Path]:
        """The folders of a patient by type of file, made with those of smaller pictures; the patient too, if there is none."""
        number = self._patient(patient_id)
        folders = {}
        for kind, names in KEY_NAMES.items():
            folder = self.base_path / "patients" / f"patient_{number}" / names.folder
            for path in (folder, *(folder / size.folder for size in PICTURE_SIZES.values())):
                path.mkdir(mode=0o750, parents=True, exist_ok=True)
            folders[kind.value] = folder
        return folders

    def get_patient_storage_info(self, patient_id: int | str) -> dict[str, Any]:
        """How much of a patient is kept: `file_count`, `total_size_bytes`, `total_size_mb`, `by_type`, `versions`, `dicom`."""
        number = number_of(patient_id)
        info = storage_info(self._pacs.catalog, number)
        by_type = {kind: asdict(one) for kind, one in info.by_type.items()}
        total = sum(one.size_bytes for one in info.by_type.values())
        count = sum(one.count for one in info.by_type.values())
        sums = {"file_count": count, "total_size_bytes": total, "total_size_mb": round(total / _MIB, 2)}
        return {"patient_id": number, **sums, "by_type": by_type, "versions": info.versions, "dicom": asdict(info.dicom)}

    def list_files(self, patient_id: int | str, file_type: MedicalFileType | str | None = None) -> Iterator[dict[str, Any]]:
        """The files of a patient, newest first."""
        filters = Filters(file_type=None if file_type is None else word(MedicalFileType, file_type).value)
        after = None
        while True:
            found, _ = listed(self._pacs.catalog, number_of(patient_id), filters, after, _LIST_PAGE)
            yield from (self._shown(record, record.version) for record in found)
            if len(found) < _LIST_PAGE:
                return
            after = found[-1].created_at, found[-1].pk

    def _patient(self, patient_id: int | str) -> int:
        """The number of a patient, who is made if there is none."""
        number, pacs = number_of(patient_id), self._pacs
        with suppress(NotFound):
            found = patients.get(pacs, number)
            while found.merged_into is not None:
                found = patients.get(pacs, found.merged_into)
            return found.id
        for mrn in (str(number), f"patient_{number}"):  # the first may be somebody's whom DICOM has brought
            try:
                return patients.create(pacs, mrn, None, About(), Cause(Origin("import", actor=self.created_by)), number).id
            except Conflict:
                with suppress(NotFound):  # somebody was faster
                    return patients.get(pacs, number).id
        raise Conflict(f"patient {number} cannot be made: the numbers {number} and patient_{number} are other patients'")

    # Files

    def generate_file_path(
        self,
        patient_id: int | str,
        file_type: MedicalFileType | str,
        original_filename: str,
        study_date: date | str | None = None,
    ) -> tuple[Path, str]:
        """Where a new file of the patient is to lie, and its name there: to be given to `save_file`. Nothing is written."""
        day = day_of(study_date) or datetime.now(UTC).date().isoformat()
        path = self.base_path / given_paths.new_key(number_of(patient_id), word(MedicalFileType, file_type), day, original_filename)
        return path, path.name

    def save_file(
        self,
        content: Content,
        path: str | os.PathLike[str],
        original_filename: str | None = None,
        **about: Any,
    ) -> dict[str, Any]:
        """Keep a file under a path that `generate_file_path` gave; what is kept there already gets a new version. Its record.

        Equal bytes are kept once: then `path` of the record is where they lie.
        """
        told = given_paths.told_by(self.base_path, path)
        name = original_filename or told.name
        if told.day != datetime.now(UTC).date().isoformat():  # else it says when the path was made
            about.setdefault("study_date", told.day)
        if self._exists(told.file_id):
            about.pop("study_date", None)
            return self.create_with_version(content, file_id=told.file_id, original_filename=name, **about)
        return self._added([content], told.patient_id, told.file_type, [name], {**about, "file_id": told.file_id})

    def create_with_version(
        self,
        content: Content | Sequence[Content],
        patient_id: int | str | None = None,
        file_type: MedicalFileType | str | None = None,
        original_filename: str | Sequence[str] | None = None,
        version_type: FileVersionType | str | None = None,
        version_description: str | None = None,
        *,
        file_id: str | os.PathLike[str] | None = None,
        **about: Any,
    ) -> dict[str, Any]:
        """A new file of a patient with its first version, or with `file_id` a new version of that one; its record.

        Several contents are a photo series in this order. `about`: medical_category, study_date, body_part, description,
        study_instance_uid. Without a type it is told by the content.
        """
        contents = several(content)
        names = names_of(contents, original_filename)
        if file_id is None:
            if patient_id is None:
                raise BadRequest("a new file needs a patient_id, a new version a file_id")
            return self._added(contents, patient_id, file_type, names, about)
        record = self._record(file_id)
        kind = word(FileVersionType, version_type or FileVersionType.FOLLOWUP)
        arrived = self._arrived(contents, names)
        made = files.add_version(self._pacs, record.id, arrived, kind, version_description, self._owner, self._origin)
        return self._shown(made, made.version)

    def _added(
        self, contents: Sequence[Content], patient_id: int | str, kind: Any, names: Sequence[str], about: Mapping[str, Any]
    ) -> dict[str, Any]:
        number, arrived = self._patient(patient_id), self._arrived(contents, names)
        try:
            if kind is None:
                one = arrived[0]
                kind = file_inspection.inspect(one.file.path, one.filename, None, self._pacs.settings).file_type
            described = description_of(number, word(MedicalFileType, kind), {"file_id": new_version_id(), **about})
        except BaseException:
            for one in arrived:
                one.file.discard()
            raise
        record = files.add(self._pacs, arrived, described, self._owner, self._origin)
        return self._shown(record, record.version)

    def get_file(self, file: str | os.PathLike[str], version: int | None = None, *, item: int = 0) -> bytes:
        """The bytes of a file as they were brought; of a photo series the picture `item`. Raises NotFound, Gone."""
        with self.open_file(file, version, item=item) as stream:
            return stream.read()

    def open_file(self, file: str | os.PathLike[str], version: int | None = None, *, item: int = 0) -> BinaryIO:
        """The same as an open file, for large ones; the caller closes it."""
        return self._pacs.stores.open(self._blob(file, version, item))

    def get_file_info(self, file: str | os.PathLike[str]) -> dict[str, Any]:
        """The record of a file with its newest version; raises NotFound, Gone."""
        record = self._record(file)
        return self._shown(record, record.version)

    def get_versions(self, file: str | os.PathLike[str]) -> list[dict[str, Any]]:
        """All versions of a file, newest first."""
        record, versions = files.versions(self._pacs, self._id(file))
        return [self._shown(record, version) for version in versions]

    def restore_version(self, file: str | os.PathLike[str], version: int) -> dict[str, Any]:
        """Make an older version the newest again, as a new one."""
        record = files.restore(self._pacs, self._id(file), version, self._owner, self._origin)
        return self._shown(record, record.version)

    def delete_file(self, file: str | os.PathLike[str], *, permanently: bool = False) -> bool:
        """Put a file into the trash, or erase it for good; False when there is none."""
        try:
            (files.purge if permanently else files.delete)(self._pacs, self._id(file), self._owner, self._origin)
        except (NotFound, Gone):
            return False
        return True

    def undelete_file(self, file: str | os.PathLike[str]) -> dict[str, Any]:
        """Bring a file back from the trash."""
        record = files.undelete(self._pacs, self._id(file), self._owner, self._origin)
        return self._shown(record, record.version)

    def save_thumbnail(self, file: str | os.PathLike[str], thumbnail: Content | None = None) -> Path:
        """The thumbnail of a file: made of it, or of the picture that is given; where it lies.

        Raises NotFound when none can be made of a file of that kind, UndecodablePixels.
        """
        from pacslite.core import given_pictures  # the decoders of pictures

        source = self._blob(file, None, 0)
        if thumbnail is None:
            self.make_pictures()
            found = renditions.open(self._pacs, source.pk, Variant.THUMBNAIL.value)
            return self.base_path / found.storage_key
        [arrived] = self._arrived([thumbnail], ["thumbnail"])
        try:
            return self.base_path / given_pictures.give_thumbnail(self._pacs, source, arrived.file.path).storage_key
        finally:
            arrived.file.discard()

    def make_pictures(self) -> int:
        """Make now what is queued to be made of files (pictures, MP4s), which else a server's worker does; how many jobs that was."""
        from pacslite import job_kinds
        from pacslite.core.jobs import Runner

        runner, done = Runner(self._pacs, ("files.renditions",), job_kinds.handler, threading.Event()), 0
        while runner.run_next():
            done += 1
        return done

    # Chunks

    def save_chunk(self, session_id: str, chunk_number: int, data: Content) -> dict[str, Any]:
        """Keep one chunk of an upload; they may come in any order, and again. What there is of the session."""
        size = self._chunks.save(session_id, chunk_number, pieces_of(data))
        return {
            "session_id": session_id,
            "chunk_number": chunk_number,
            "size_bytes": size,
            "received": self._chunks.numbers(session_id),
        }

    def assemble_chunks(self, session_id: str, total_chunks: int | None = None) -> Path:
        """The whole file of a session, there until `cleanup_session`; raises BadRequest when chunks are missing."""
        return self._chunks.assemble(session_id, total_chunks)

    def cleanup_session(self, session_id: str) -> int:
        """Remove all that is there of a session; how many files that was."""
        return self._chunks.end(session_id)[0]

    @property
    def _chunks(self) -> Chunks:
        pacs = self._pacs
        return Chunks(self.base_path / "chunks", pacs.spool, pacs.settings.max_upload_bytes)

    # The storage

    def get_storage_stats(self) -> dict[str, Any]:
        """What is stored in all: `total_size_bytes`, `file_count`, `available_bytes`, `by_type`, `dedup_saved_bytes`, `backends`."""
        found = asdict(stats(self._pacs))
        return {**found, "backends": list(found["backends"]), "total_size_mb": round(found["total_size_bytes"] / _MIB, 2)}

    def has_enough_space(self, required_bytes: int) -> bool:
        """Whether so many bytes fit, beside what is kept free."""
        if required_bytes < 0:
            raise BadRequest("required_bytes is below 0")
        return has_room(self._pacs, required_bytes)

    def cleanup_temp_files(self, older_than_hours: float = 24) -> dict[str, int]:
        """Remove what was begun and not gone on with for that long: `deleted_count` and `freed_bytes`. No file of a patient is touched."""
        if older_than_hours < 0:
            raise BadRequest("older_than_hours is below 0")
        older_than_s = older_than_hours * 3600
        chunks, chunk_bytes = self._chunks.sweep(older_than_s)
        uploads, spool_files, freed = unfinished(self._pacs, older_than_s)
        return {"deleted_count": chunks + uploads + spool_files, "freed_bytes": chunk_bytes + freed}

    # Inside

    @property
    def _owner(self) -> Owner:
        return Owner(None, self.created_by)

    @property
    def _origin(self) -> Origin:
        return Origin("import", actor=self.created_by)

    def _arrived(self, contents: Sequence[Content], names: Sequence[str]) -> list[Arrived]:
        return spooled(self._pacs.spool, self._pacs.settings.max_upload_bytes, contents, names)

    def _id(self, file: str | os.PathLike[str]) -> str:
        return given_paths.file_id_of(self._pacs.catalog, self.base_path, file)

    def _exists(self, file_id: str) -> bool:
        try:
            self._record(file_id)
        except NotFound:
            return False
        return True

    def _record(self, file: str | os.PathLike[str]) -> FileRecord:
        return files.get(self._pacs, self._id(file))

    def _blob(self, file: str | os.PathLike[str], version: int | None, item: int) -> StoredBlob:
        return file_content.find(self._pacs, self._id(file), Which(version, item, Variant.ORIGINAL)).blob

    def _shown(self, record: FileRecord, version: FileVersion) -> dict[str, Any]:
        return shown(self._pacs, record, version)

"""One file of a foreign tree, or one photo series, on its way in: read, filed, read back, and with `move` erased where it was."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pacslite.catalog import archiving, blobs
from pacslite.catalog.blobs import StoredBlob
from pacslite.core import file_inspection, files, import_sources, retrieve
from pacslite.core.file_records import FileRecord, FileVersion, live_row, record_of, versions_of
from pacslite.core.file_types import MedicalFileType
from pacslite.core.files import Arrived, Description, Origin, Owner
from pacslite.core.import_layouts import Place
from pacslite.core.import_mapping import Told
from pacslite.core.import_patients import Patients
from pacslite.core.import_sources import Reading, Source, Unusable
from pacslite.core.importer import Finished, is_directory
from pacslite.core.retrieve import Resource
from pacslite.errors import BadRequest, BlobMissing, Conflict, Gone, InstanceRefused, NotFound, TooLarge, UnsupportedContent

if TYPE_CHECKING:
    from pathlib import Path

    from pacslite.core.files import Parts

_STRIPES = 64
_HEAD_BYTES = 4096
_PIECE_BYTES = 1024 * 1024
_ORIGIN = Origin(protocol="import")
# What is wrong with a file and not with the server; other errors end the import.
_OF_THE_FILE = (BadRequest, InstanceRefused, UnsupportedContent, TooLarge, Conflict, NotFound, Gone, BlobMissing)


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of the tree with what its place and the mapping tell of it."""

    source: Source
    place: Place
    told: Told

    @property
    def skipped(self) -> str:
        """Why it is none to be taken; "" when it is."""
        return "so says the mapping" if self.told.skip else self.place.skipped


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file: stored, duplicate, resumed, skipped, refused or would_store.

    `dated_by` says where the date is from: mapping, name, folder, month (the first of it) or time (that of the last change).
    """

    path: str
    outcome: str
    reason: str = ""
    patient_id: int | None = None
    file_id: str | None = None
    sop_instance_uid: str | None = None
    file_type: str | None = None
    study_date: str | None = None
    dated_by: str = ""
    sha256: str | None = None
    size_bytes: int | None = None
    erased: bool = False
    key: str = ""

    @property
    def row(self) -> dict[str, Any]:
        """For a report."""
        return {name: value for name, value in asdict(self).items() if name != "key"}


@dataclass(frozen=True, slots=True)
class _Filing:
    """Where files are to go, or none when DICOM tells."""

    patient_id: int | None
    file_type: MedicalFileType | None
    study_date: str | None
    dated_by: str


class Taking:
    """Takes files in, one unit at a time. Safe for threads."""

    def __init__(self, parts: Parts, patients: Patients, owner: Owner, patient_id: int | None, *, move: bool, dry_run: bool) -> None:
        self._parts, self._patients, self._owner, self._patient_id = parts, patients, owner, patient_id
        self._move, self._dry_run = move, dry_run
        # Two files with the same bytes at once would both find that there is none yet.
        self._locks = tuple(threading.Lock() for _ in range(_STRIPES))

    def take(self, unit: Sequence[Piece]) -> list[Outcome]:
        """The outcome of each file; raises what is wrong with the server."""
        first = unit[0]
        if first.skipped:
            return [Outcome(first.source.name, "skipped", first.skipped)]
        if first.source.problem:
            return [Outcome(first.source.name, "skipped" if "link" in first.source.problem else "refused", first.source.problem)]
        try:
            if self._dry_run:
                return [self._tried(piece) for piece in unit]
            return self._taken(unit)
        except _OF_THE_FILE as error:
            together = " (of a series that is taken together)" if len(unit) > 1 else ""
            return [Outcome(piece.source.name, "refused", f"{error}{together}") for piece in unit]

    def _taken(self, unit: Sequence[Piece]) -> list[Outcome]:
        with ExitStack() as opened:
            readings = []
            for piece in unit:
                readings.append(import_sources.read(piece.source, self._parts.spool, self._parts.settings.max_upload_bytes))
                opened.callback(readings[-1].spool_file.discard)
            if len(unit) == 1 and _is_dicomdir(readings[0].spool_file.path):
                return [Outcome(unit[0].source.name, "skipped", "a DICOMDIR, which lists instances and is none")]
            filing = self._filing(unit[0], readings[0].spool_file.path, readings[0].modified_at)
            for number in sorted({int(reading.spool_file.sha256[:8], 16) % _STRIPES for reading in readings}):
                opened.enter_context(self._locks[number])
            if filing.patient_id is None:
                return [self._as_instance(readings[0])]
            return self._as_file(unit, readings, filing, filing.patient_id)

    def _filing(self, piece: Piece, path: Path, modified_at: float) -> _Filing:
        """Whose a file is, its type and its date; raises Unusable when nobody tells, and when there is no such patient."""
        told, place = piece.told, piece.place
        patient_id = self._patients.find(told.who, told.number or place.number, dry_run=self._dry_run)
        if patient_id is None:
            patient_id = self._patient_id
        is_told = told.who.is_told or told.number or place.number or patient_id is not None
        if not is_told and not _is_dicom(path):
            raise Unusable("nothing tells whose it is: name the patient in a mapping")
        if not is_told:
            return _Filing(None, MedicalFileType.DICOM, None, "")
        kind = told.file_type or self._type(piece, path)
        if told.study_date:
            return _Filing(patient_id, kind, told.study_date, "mapping")
        if place.study_date:
            return _Filing(patient_id, kind, place.study_date, place.dated_by)
        return _Filing(patient_id, kind, datetime.fromtimestamp(modified_at, UTC).date().isoformat(), "time")

    def _type(self, piece: Piece, path: Path) -> MedicalFileType:
        """The type by the folder, unless the content is another: folders of other services hold what people have put there."""
        if piece.place.file_type is not None:
            with suppress(UnsupportedContent):
                return file_inspection.inspect(path, piece.source.filename, piece.place.file_type, self._parts.settings).file_type
        return file_inspection.inspect(path, piece.source.filename, None, self._parts.settings).file_type

    def _as_instance(self, reading: Reading) -> Outcome:
        """A DICOM file of which only itself tells whose it is."""
        sent = reading.spool_file
        accepted = self._parts.ingest.accept(sent, _ORIGIN)
        resource = Resource(accepted.study_instance_uid, accepted.series_instance_uid, accepted.sop_instance_uid)
        item = retrieve.plan(self._parts.catalog, resource)[0]
        if accepted.outcome == "kept_first":
            return Outcome(reading.source.name, "refused", "another instance has this UID, and duplicate_policy keeps that")
        _read_back(self._parts, item, item.sha256)
        outcome = "duplicate" if accepted.outcome == "duplicate" else "stored"
        about = Outcome(
            reading.source.name, outcome, "", None, None, accepted.sop_instance_uid, "dicom", None, "", sent.sha256, sent.size_bytes
        )
        return self._finished(reading, about)

    def _as_file(self, unit: Sequence[Piece], readings: Sequence[Reading], filing: _Filing, patient_id: int) -> list[Outcome]:
        digests = [reading.spool_file.sha256 for reading in readings]
        known = self._known(patient_id, digests)
        if known is None:
            record = self._add(unit, readings, filing, patient_id)
            version, outcome = record.version, "stored"
        else:
            (record, version), outcome = known, "duplicate"
        self._verify(record, version, digests)
        return [self._finished(reading, _about(reading, outcome, record, filing)) for reading in readings]

    def _known(self, patient_id: int, digests: Sequence[str]) -> tuple[FileRecord, FileVersion] | None:
        """The file of the patient that came with just these bytes before, in one of its versions."""
        with self._parts.catalog.read() as conn:
            found = archiving.known_parts(conn, patient_id, set(digests))
            for file_id, file_pk, number in dict.fromkeys((part.file_id, part.file_pk, part.version_number) for part in found):
                for version in versions_of(conn, file_pk, number):
                    if [part.original_sha256 for part in version.parts] == list(digests):
                        with suppress(Gone):  # an instance that was deleted leaves its record behind
                            return record_of(conn, live_row(conn, file_id, None)), version
        return None

    def _add(self, unit: Sequence[Piece], readings: Sequence[Reading], filing: _Filing, patient_id: int) -> FileRecord:
        told = unit[0].told
        kind = MedicalFileType.PHOTO_SERIES if len(unit) > 1 else filing.file_type
        assert kind is not None
        about = Description(
            patient_id,
            kind,
            told.medical_category or unit[0].place.medical_category,
            filing.study_date,
            told.body_part,
            told.description,
            told.study_instance_uid,
        )
        arrived = [Arrived(reading.spool_file, reading.source.filename) for reading in readings]
        return files.add(self._parts, arrived, about, self._owner, _ORIGIN)

    def _verify(self, record: FileRecord, version: FileVersion, digests: Sequence[str]) -> None:
        """Reads back what is stored; of a DICOM file whose data set was there already, the bytes are those of before."""
        for part, sent in zip(version.parts, digests, strict=True):
            with self._parts.catalog.read() as conn:
                found = blobs.find(conn, part.blob_pk) if part.blob_pk is not None else None
            if found is None:
                raise BlobMissing("the stored bytes are not in the catalog")
            _read_back(self._parts, found, part.original_sha256 if record.is_dicom else sent)

    def _finished(self, reading: Reading, about: Outcome) -> Outcome:
        """With `move` erases the file, whose bytes are durable and were read back."""
        values = asdict(about)
        if not self._move:
            return Outcome(**{**values, "key": Finished.key_of(reading.source.path, reading.state[2], reading.state[3])})
        try:
            import_sources.erase(reading)
        except Unusable as error:
            return Outcome(**{**values, "outcome": "refused", "reason": str(error)})
        return Outcome(**{**values, "erased": True})

    def _tried(self, piece: Piece) -> Outcome:
        """What would become of a file; nothing is written."""
        path = piece.source.path
        sha256, size = import_sources.digest(piece.source)
        filing = self._filing(piece, path, path.lstat().st_mtime)
        known = None
        if filing.patient_id is not None:
            with self._parts.catalog.read() as conn:
                known = next(iter(archiving.known_parts(conn, filing.patient_id, [sha256], 1)), None)
        outcome, kind = "would_store" if known is None else "duplicate", filing.file_type.value if filing.file_type else None
        file_id = known.file_id if known is not None else None
        when = filing.study_date, filing.dated_by
        return Outcome(piece.source.name, outcome, "", filing.patient_id, file_id, None, kind, *when, sha256, size)


def _about(reading: Reading, outcome: str, record: FileRecord, filing: _Filing) -> Outcome:
    dated_by = filing.dated_by if record.study_date == filing.study_date else ""
    sent = reading.spool_file
    of_file = record.patient_id, record.id, record.sop_instance_uid, record.file_type, record.study_date, dated_by
    return Outcome(reading.source.name, outcome, "", *of_file, sent.sha256, sent.size_bytes)


def _read_back(parts: Parts, found: StoredBlob | retrieve.Item, sha256: str) -> None:
    digest = hashlib.sha256()
    with parts.stores.open(found) as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
    if digest.hexdigest() != sha256:
        raise BlobMissing("the stored bytes are not those that were read: look at them with `pacslite verify`")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _is_dicom(path: Path) -> bool:
    return _head(path)[128:132] == b"DICM"


def _is_dicomdir(path: Path) -> bool:
    return is_directory(_head(path))

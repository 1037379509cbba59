"""A ZIP file taken in entry by entry: instances go the way of all instances, the rest become files of the patient.

The archive lies in the spool. Its directory is read and judged first, so that a bomb, or more than fits, is told before anything
is unpacked; then one entry after the other is unpacked into the spool, looked into, and taken or refused by itself. What an entry
says of its length is what it may have: memory and disk are bounded by that. Nothing is ever written under an entry's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pacslite.catalog.file_duplicates import file_with
from pacslite.core import file_instances, files
from pacslite.core.file_arrivals import known_patient
from pacslite.core.file_inspection import Inspected, inspect
from pacslite.core.file_types import MedicalFileType
from pacslite.core.files import Arrived
from pacslite.core.inspection_foreign import archive_in
from pacslite.core.inspection_source import Source
from pacslite.core.zip_reading import MOST_ENTRIES, ZipEntry, count_of, read_directory, unpacked
from pacslite.errors import (
    BadRequest,
    Conflict,
    Gone,
    InstanceRefused,
    InvalidForm,
    PacsliteError,
    RefusedContent,
    TooLarge,
    UnsupportedContent,
)

if TYPE_CHECKING:
    from pacslite.catalog.files import Identity
    from pacslite.core.files import Description, Origin, Owner, Parts
    from pacslite.storage.spool import SpoolFile

STORED, DUPLICATE, REFUSED = "stored", "duplicate", "refused"
MOST_RATIO = 100
# Below this, what comes out harms nobody, and a few equal bytes pack better than 100 to 1.
_HARMLESS_BYTES = 64 * 1024
_DICOM = "application/dicom"
_LONGEST_NAME = 1024
_TOLD_REFUSALS = 100
# What operating systems put into archives by themselves, and the list of what is on a medium (PS3.10 8.6), which is no instance.
_RUBBISH_FOLDERS = frozenset({"__macosx", ".fseventsd", ".spotlight-v100", ".trashes", "$recycle.bin", "system volume information"})
_RUBBISH_NAMES = frozenset({".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "dicomdir", "icon\r"})


@dataclass(frozen=True, slots=True)
class Item:
    """What became of an entry: stored, duplicate (it was there already) or refused, with the reason."""

    name: str
    outcome: str
    file_id: str | None = None
    sop_instance_uid: str | None = None
    problem: str | None = None


def expand(
    parts: Parts, archive: SpoolFile, about: Description, file_type: MedicalFileType | None, owner: Owner, origin: Origin
) -> list[Item]:
    """Takes the entries of a ZIP file in, as `file_type`, or each as what it is. The archive is gone afterwards, whatever happens.

    Raises InvalidForm for an unknown patient or when no entry could be taken, UnsupportedContent for what is no ZIP, TooLarge for
    too many entries or too many bytes, and what the storage raises before anything was taken.
    """
    try:
        if file_type is MedicalFileType.PHOTO_SERIES:
            message = "a series is sent as several pictures, not as an archive"
            raise InvalidForm.at("file_type", message)
        identity = known_patient(parts, about.patient_id)
        with archive.path.open("rb") as file:
            source = Source(file)
            entries = _entries(source)
            _check_bounds(parts, entries)
            taking = _Taking(parts, source, about, file_type, owner, origin, identity)
            items = list(taking.all(entries))
    finally:
        archive.discard()
    if not any(item.outcome in (STORED, DUPLICATE) for item in items):
        raise _nothing_taken(items)
    return items


def _entries(source: Source) -> list[ZipEntry]:
    """The entries that are files of somebody."""
    if not source.head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        raise UnsupportedContent("The file is no ZIP archive, so it cannot be expanded.", ("application/zip",))
    try:
        count = count_of(source)
        if count > MOST_ENTRIES:
            raise TooLarge(f"the archive has {count} entries, more than the {MOST_ENTRIES} that are taken")
        found = read_directory(source)
    except RefusedContent as error:
        raise InvalidForm.at("file", str(error)) from error
    return [entry for entry in found if not entry.is_directory and not _is_rubbish(entry.name)]


def _is_rubbish(name: str) -> bool:
    *folders, last = name.replace("\\", "/").lower().split("/")
    return last in _RUBBISH_NAMES or last.startswith("._") or not _RUBBISH_FOLDERS.isdisjoint(folders)


def _problem(entry: ZipEntry) -> str:
    """Why an entry is not even unpacked; empty when nothing is wrong with it."""
    if entry.problem:
        return entry.problem
    if entry.size > _HARMLESS_BYTES and entry.ratio > MOST_RATIO:
        return f"the entry unpacks to {entry.ratio:.0f} times its length, more than the {MOST_RATIO} times that are taken"
    return ""


def _check_bounds(parts: Parts, entries: list[ZipEntry]) -> None:
    """Refuses what would unpack to more than one upload may have, or than fits, before anything is unpacked."""
    total = sum(entry.size for entry in entries if not _problem(entry))
    if total > parts.settings.max_upload_bytes:
        raise TooLarge(f"The archive unpacks to {total} bytes, more than the {parts.settings.max_upload_bytes} that are taken.")
    parts.spool.check_space(total)


def _nothing_taken(items: list[Item]) -> InvalidForm:
    told = tuple(("file", f"{item.name}: {item.problem}") for item in items[:_TOLD_REFUSALS])
    first = f": {told[0][1]}" if told else ", for it has none"
    return InvalidForm(f"No entry of the archive can be taken{first}", told or (("file", "the archive has no entries"),))


@dataclass(frozen=True, slots=True)
class _Taking:
    """One archive on its way in."""

    parts: Parts
    source: Source
    about: Description
    file_type: MedicalFileType | None
    owner: Owner
    origin: Origin
    identity: Identity

    def all(self, entries: list[ZipEntry]) -> Iterator[Item]:
        """What became of each entry. Once the storage fails, nothing more is tried; the rest is told why."""
        names: set[str] = set()
        stored, stopped = False, ""
        for entry in entries:
            path = entry.name.replace("\\", "/")
            problem = stopped or _problem(entry) or ("the archive has another entry of this name" if path in names else "")
            names.add(path)
            if problem:
                yield _refused(entry, problem)
                continue
            try:
                item = self._take(entry)
            except (BadRequest, UnsupportedContent, InstanceRefused, Conflict, Gone, TooLarge) as error:
                item = _refused(entry, str(error))
            except PacsliteError as error:  # no room, over the quota, the storage or the catalog fails
                if not stored:
                    raise
                stopped = str(error)
                item = _refused(entry, stopped)
            stored |= item.outcome != REFUSED
            yield item

    def _take(self, entry: ZipEntry) -> Item:
        file = self._spooled(entry)
        try:
            return self._take_file(entry, file)
        finally:
            file.discard()

    def _spooled(self, entry: ZipEntry) -> SpoolFile:
        with self.parts.spool.create(".entry", entry.size) as writer:
            for piece in unpacked(self.source, entry):
                writer.write(piece)
            return writer.finish()

    def _take_file(self, entry: ZipEntry, file: SpoolFile) -> Item:
        name = entry.name.replace("\\", "/").rpartition("/")[2]
        found = self._inspected(file, name)
        if found.media_type == _DICOM:
            study = self.about.study_instance_uid
            taken = file_instances.accept(self.parts, file, self.origin, self.identity, study)
            outcome = STORED if taken.outcome in ("stored", "new_version", "repaired") else DUPLICATE
            return Item(_told(entry), outcome, sop_instance_uid=taken.uids[2])
        there = self._same(found.file_type, file.sha256)
        if there is not None:
            return Item(_told(entry), DUPLICATE, there)
        about = replace(self.about, file_type=found.file_type)
        record = files.add(self.parts, [Arrived(file, name)], about, self.owner, self.origin)
        return Item(_told(entry), STORED, record.id)

    def _inspected(self, file: SpoolFile, name: str) -> Inspected:
        try:
            return inspect(file.path, name, self.file_type, self.parts.settings)
        except RefusedContent:
            with file.path.open("rb") as opened:
                nested = archive_in(opened.read(16))
            if nested is not None and not name.lower().endswith((".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp")):
                raise RefusedContent(f"the entry is {nested} itself: archives within archives are not taken") from None
            raise

    def _same(self, file_type: MedicalFileType, sha256: str) -> str | None:
        catalog = self.parts.catalog
        with catalog.read() as conn:
            return file_with(conn, self.about.patient_id, file_type.value, sha256, catalog.sight(conn))


def _told(entry: ZipEntry) -> str:
    return entry.name[:_LONGEST_NAME]


def _refused(entry: ZipEntry, problem: str) -> Item:
    return Item(_told(entry), REFUSED, problem=problem)

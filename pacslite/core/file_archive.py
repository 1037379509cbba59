"""All of a patient, or of a study, as one ZIP file: the instances with DICOMDIR, and beside them the other files under their own names.

Of files the newest versions, as they were sent; a photo series is a folder in its order. What the caller does not see is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from pacslite.catalog import archiving, retrieval
from pacslite.catalog.archiving import ArchivedRow
from pacslite.core import retrieve
from pacslite.core.archive import Archive, Beside, Instances, Parts, assembled
from pacslite.core.entry_names import UniqueNames, safe_name
from pacslite.core.file_types import KEY_NAMES, MedicalFileType
from pacslite.core.retrieve import Resource
from pacslite.errors import BlobMissing, Gone, NotFound, TooLarge
from pacslite.storage.keys import PATIENTS

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.visibility import Sight

_FOLDER = "files"


def open_patient_archive(parts: Parts, patient_id: int, *, with_studies: bool = True) -> Archive:
    """Everything of a patient; raises NotFound, TooLarge, and BlobMissing when bytes are missing."""
    most = parts.settings.max_retrieve_instances
    with parts.catalog.read() as conn:
        sight = parts.catalog.sight(conn)
        if not archiving.has_patient(conn, patient_id, sight):
            raise NotFound("There is no such patient.")
        groups = _all_of(conn, patient_id, sight, most) if with_studies else []
        rows = archiving.files_of_patient(conn, patient_id, sight, most + 1)
    return _archive(parts, groups, rows, f"patient_{patient_id}.zip")


def open_study_archive(parts: Parts, resource: Resource, *, with_files: bool = True) -> Archive:
    """A study, with the files that are tied to it; raises what `open_patient_archive` raises, and Gone."""
    with parts.catalog.read() as conn:
        sight, most = parts.catalog.sight(conn), parts.settings.max_retrieve_instances
        rows = archiving.files_of_study(conn, resource.study_instance_uid, sight, most + 1) if with_files else []
    groups: list[Instances] = []
    try:
        groups.append(Instances(resource, retrieve.plan(parts.catalog, resource)))
    except (NotFound, Gone):
        if not rows:
            raise
    return _archive(parts, groups, rows, f"{resource.study_instance_uid}.zip")


def _all_of(conn: Connection, patient_id: int, sight: Sight | None, most: int) -> list[Instances]:
    """The studies of a patient, and the instances in studies of others that files of the patient are."""
    groups, left = [], most
    for study in archiving.studies_of(conn, patient_id, sight):
        groups.append(Instances(Resource(study), retrieval.items(conn, study, sight=sight)))
        left -= len(groups[-1].items)
        if left < 0:
            raise _too_many(most)
    known = {(item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid) for group in groups for item in group.items}
    for uids in dict.fromkeys(archiving.instances_of_files(conn, patient_id, sight, most + 1)):
        if uids not in known:
            found = retrieval.items(conn, *uids, sight=sight)
            groups += [Instances(Resource(*uids), found)] if found else []
    return groups


def _too_many(most: int) -> TooLarge:
    return TooLarge(f"more instances and files than one request may retrieve ({most}); retrieve studies one by one")


def _archive(parts: Parts, groups: Sequence[Instances], rows: Sequence[ArchivedRow], name: str) -> Archive:
    most = parts.settings.max_retrieve_instances
    if sum(len(group.items) for group in groups) + len(rows) > most:
        raise _too_many(most)
    for group in groups:
        retrieve.check_whole(parts.stores, group.resource, group.items)
    _check(parts, rows)
    return assembled(parts, groups, list(_beside(rows)), name)


def _check(parts: Parts, rows: Sequence[ArchivedRow]) -> None:
    """The bytes of the files are there and whole, before anything is sent: one listing of a distant store tells of many at once."""
    stores, seen = parts.stores, set()
    distant = {(row.store_name, row.storage_key): row for row in rows if not stores.is_local(row)}
    folders = {(name, "/".join(key.split("/")[:2]) + "/") for name, key in distant if key.startswith(PATIENTS)}
    for name, folder in sorted(folders) if len(distant) > 1 else ():
        for found in stores.named(name).list(folder):
            row = distant.get((name, found.key))
            if row is not None and row.size_bytes == found.size_bytes:
                seen.add((name, found.key))
    lost = 0
    for row in rows:
        if (row.store_name, row.storage_key) not in seen:
            try:
                lost += stores.size(row) != row.size_bytes
            except BlobMissing:
                lost += 1
    if lost:
        raise BlobMissing(f"The stored bytes of {lost} of {len(rows)} files are missing.")


def _beside(rows: Sequence[ArchivedRow]) -> Iterator[Beside]:
    unique = UniqueNames()
    for _, group in groupby(rows, key=lambda row: row.file_id):
        listed = list(group)
        folder = f"{_FOLDER}/{KEY_NAMES[MedicalFileType(listed[0].file_type)].folder}"
        if listed[0].file_type != MedicalFileType.PHOTO_SERIES:
            yield from (Beside(unique.of(folder, safe_name(row.original_filename)), row) for row in listed)
            continue
        day = (listed[0].study_date or listed[0].created_at[:10]).replace("-", "")
        inner, digits = unique.of(folder, day), max(3, len(str(len(listed))))
        for row in listed:
            name = safe_name(row.original_filename)
            yield Beside(unique.of(inner, f"{row.position + 1:0{digits}}_{name}"), row)

"""Replays what the journal tells of files and of patients, for `core.reindex`.

The journal holds all that only the catalog knew: the record of a file as it was after each change, versions, and for each of
their bytes where they were and what they are. The bytes are read and compared; what is gone or other than it should be is recorded as
it should be, so that verification finds it. Patients keep their numbers, which are in keys and in the audit log.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pacslite.catalog import blobs, changes, files, patients, quotas, rebuilding
from pacslite.catalog import renditions as made
from pacslite.catalog.arrival import NewBlob, PatientIdentity
from pacslite.catalog.changes import Kind, Origin
from pacslite.core import renditions
from pacslite.core.stocktaking import Place
from pacslite.errors import BlobMissing, StorageError
from pacslite.storage.digests import digests_of
from pacslite.storage.keys import PACKED

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog
    from pacslite.core.journal import Entry
    from pacslite.storage.stores import Stores

_VERSIONS = frozenset({Kind.FILE_CREATED, Kind.FILE_VERSIONED})
_CHANGED = frozenset({Kind.FILE_UPDATED, Kind.FILE_DELETED, Kind.FILE_UNDELETED})
_PATIENTS = frozenset({Kind.PATIENT_CREATED, Kind.PATIENT_EDITED, Kind.PATIENT_MERGED, Kind.PATIENT_UNMERGED})
KINDS = _VERSIONS | _CHANGED | _PATIENTS | {Kind.FILE_PURGED, Kind.FILE_REPAIRED}
_REMEMBERED = 10_000
_PAGE = 500
_PART = frozenset(files.PartRow._fields[3:]) | {"position"}


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes that an entry names: where they are now, and what is wrong with them (`missing`, `hash`)."""

    uid: str
    storage_key: str
    store_name: str
    stored_bytes: int | None = None  # of packed ones
    problem: str = ""


def locate(stores: Stores, key: str, store_name: str) -> Place | None:
    """Where bytes are that were once under this key: there, or where they were moved, or packed."""
    plain = key.removesuffix(PACKED)
    names = [store_name] if stores.knows(store_name) else []
    names += [store.name for store in stores.all if store.name not in names]
    for name in names:
        for candidate in (plain, plain + PACKED):
            place = Place(candidate, name)
            try:
                stores.size(place)
            except BlobMissing:
                continue
            return place
    return None


class FileReplay:
    """What is known while a journal is replayed."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self.parts = 0  # bytes that the journal names, counted once for each mention
        self.lost: dict[str, str] = {}
        self._highest = 0
        self._numbers: dict[tuple[str, int], int] = {}
        self._looked: OrderedDict[str, Bytes] = OrderedDict()
        self._lock = threading.Lock()

    # -- before: what numbers there are

    def scan(self, entry: Entry) -> None:
        """Look at an entry before anything is replayed."""
        told = entry.get("patient_id") or entry.get("detail", {}).get("patient")
        if isinstance(told, int):
            self._highest = max(self._highest, told)
        if entry["kind"] in _VERSIONS:
            self.parts += sum(1 for part in entry["detail"]["parts"] if "blob" in part)

    def begin(self, catalog: Catalog) -> None:
        """Numbers that the journal tells of are given to nobody else."""
        catalog.write(lambda conn: rebuilding.number_from(conn, self._highest))
        catalog.write(rebuilding.forget_usage)

    # -- beside: reading bytes

    def look(self, entry: Entry) -> tuple[Bytes, ...]:
        """Read the bytes that an entry names; runs in a thread of its own."""
        if entry["kind"] == Kind.FILE_REPAIRED:
            return (self._found(entry["detail"], None),)
        if entry["kind"] not in _VERSIONS:
            return ()
        return tuple(self._found(part, part["sha256"]) for part in entry["detail"]["parts"] if "blob" in part)

    def _found(self, told: dict[str, Any], sha256: str | None) -> Bytes:
        with self._lock:
            known = self._looked.get(told["blob"])
        if known is not None:
            return known
        found = self._read(told["blob"], told["storage_key"], told["store"], sha256)
        with self._lock:
            self._looked[told["blob"]] = found
            while len(self._looked) > _REMEMBERED:
                self._looked.popitem(last=False)
        return found

    def _read(self, uid: str, key: str, store_name: str, sha256: str | None) -> Bytes:
        place = locate(self._stores, key, store_name)
        if place is None:
            return Bytes(uid, key, store_name, problem="missing")
        stored = self._stores.named(place.store_name).size(place.storage_key) if place.storage_key.endswith(PACKED) else None
        try:
            with self._stores.open(place) as stream:
                whole = sha256 is None or digests_of(stream).sha256 == sha256
        except StorageError:
            whole = False
        return Bytes(uid, place.storage_key, place.store_name, stored, "" if whole else "hash")

    # -- patients

    def number(self, conn: Connection, entry: Entry, told: int, identity: PatientIdentity) -> int:
        """The number of the patient whom an entry calls `told`."""
        found = rebuilding.number_of(conn, identity, told, self._highest)
        self._numbers[entry["generation"], told] = found
        return found

    def _patient(self, conn: Connection, entry: Entry) -> int | None:
        """The number of the patient of an entry, if they are there."""
        told = entry["patient_id"]
        found = self._numbers.get((entry["generation"], told))
        if found is None:
            identity = _identity(entry)
            known = patients.of_identity(conn, identity) if identity is not None else None
            found = known.id if known is not None else None
        return found

    # -- within the transaction: rows

    def apply(self, conn: Connection, entry: Entry, found: tuple[Bytes, ...], origin: Origin) -> None:
        """Do again what an entry tells, and tell it again."""
        kind = entry["kind"]
        if kind in _PATIENTS:
            self._apply_to_patient(conn, entry, origin)
            return
        patient = self._patient(conn, entry)
        if patient is None:
            patient = self._patient_anew(conn, entry, origin)
        row = files.find(conn, entry["file_id"])
        if kind in _VERSIONS:
            self._put_version(conn, entry, row, patient, found)
        elif kind == Kind.FILE_REPAIRED:
            _repair(conn, entry, found[0])
        elif kind == Kind.FILE_PURGED:
            _purge(conn, entry, row, patient)
        elif row is not None:
            files.change(conn, row.pk, _columns(entry["detail"]["file"]))
        tell(conn, entry, origin, patient)

    def _patient_anew(self, conn: Connection, entry: Entry, origin: Origin) -> int:
        """A patient of whom nothing has come back but files."""
        told, identity = entry["patient_id"], _identity(entry) or PatientIdentity("", "", f"patient {entry['patient_id']}")
        number = self.number(conn, entry, told, identity)
        if patients.get(conn, number) is None:
            patients.add(conn, identity, {}, origin.actor or origin.protocol, entry["at"], number)
        return number

    def _apply_to_patient(self, conn: Connection, entry: Entry, origin: Origin) -> None:
        kind, detail, at = entry["kind"], entry["detail"], entry["at"]
        identity = _identity(entry)
        assert identity is not None
        if kind == Kind.PATIENT_CREATED:
            number = self.number(conn, entry, entry["patient_id"], identity)
            if patients.get(conn, number) is None:
                about = {name: detail.get(name) for name in ("name", "birth_date", "sex")}
                patients.add(conn, identity, about, detail.get("created_by") or "", detail.get("created_at") or at, number)
            tell(conn, entry, origin, number)
            return
        found = self._patient(conn, entry)
        seq = tell(conn, entry, origin, found)
        if found is None:
            return  # nothing of them has come back
        if kind == Kind.PATIENT_EDITED:
            patients.change(conn, found, detail["after"], at)
        elif kind == Kind.PATIENT_MERGED:
            into = patients.of_identity(conn, _identity_in(detail["into_identity"]))
            if into is not None:
                patients.merge(conn, found, into.id, origin.actor, at, seq)
        else:
            patients.part(conn, found, list(patients.group(conn, found)), at, seq)

    def _put_version(self, conn: Connection, entry: Entry, row: files.FileRow | None, patient: int, found: tuple[Bytes, ...]) -> None:
        detail, at = entry["detail"], entry["at"]
        told, version = _columns(detail["file"]), detail["version"]
        pk = row.pk if row is not None else files.insert_file(conn, {**told, "uid": entry["file_id"], "patient_pk": patient})
        before = {part.sha256 for _, part in files.all_parts(conn, pk)}
        more = {part["sha256"]: part["size_bytes"] for part in detail["parts"] if part["sha256"] not in before}
        there = {one.uid: one for one in found}
        listed = []
        for part in detail["parts"]:
            blob_pk = _blob(conn, part, there[part["blob"]], at) if "blob" in part else None
            listed.append({**{name: value for name, value in part.items() if name in _PART}, "blob_pk": blob_pk})
        files.insert_version(conn, {"file_pk": pk, **version}, listed)
        files.change(conn, pk, told)
        quotas.charge(conn, version["owner_id"], sum(more.values()))

    # -- afterwards

    def missing(self, catalog: Catalog) -> list[str]:
        """Keys of bytes that are lost and that a file still has."""
        uids, found = list(self.lost), []
        for at in range(0, len(uids), _PAGE):
            with catalog.read() as conn:
                found += [self.lost[uid] for uid in rebuilding.live_of(conn, uids[at : at + _PAGE])]
        return sorted(found)

    def finish(self, catalog: Catalog) -> None:
        """Numbers go on behind all that were given; what is made of bytes is queued to be made."""
        catalog.write(lambda conn: rebuilding.number_from(conn, self._highest))
        after = 0
        while True:
            with catalog.read() as conn:
                page = made.sources_after(conn, after, _PAGE)
            if not page:
                return

            def queue(conn: Connection, sources: list[blobs.StoredBlob] = page) -> None:
                for source in sources:
                    renditions.queue(conn, source.pk, source.media_type)

            catalog.write(queue)
            after = page[-1].pk


def tell(conn: Connection, entry: Entry, origin: Origin, patient_id: int | None = None) -> int:
    """Keep in the feed what the journal tells; the number of the entry."""
    return changes.add(
        conn,
        Kind(entry["kind"]),
        entry["at"],
        origin,
        uids=(entry.get("study_instance_uid"), entry.get("series_instance_uid"), entry.get("sop_instance_uid")),
        version_number=entry.get("version_number"),
        blob_uid=entry.get("blob_uid"),
        detail=entry.get("detail"),
        file_id=entry.get("file_id"),
        patient_id=patient_id or entry.get("patient_id"),
    )


def _identity(entry: Entry) -> PatientIdentity | None:
    told = entry.get("detail", {}).get("identity")
    return None if told is None else _identity_in(told)


def _identity_in(told: dict[str, str]) -> PatientIdentity:
    return PatientIdentity(told["mrn"], told["issuer"], told["study"])


def _columns(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name in files.FileRow._fields and name not in ("pk", "uid", "patient_pk")}


def _blob(conn: Connection, part: dict[str, Any], found: Bytes, at: str) -> int:
    new = NewBlob(found.uid, found.storage_key, found.store_name, part["size_bytes"], part["sha256"], part["media_type"])
    return rebuilding.take_blob(conn, new, at, found.stored_bytes)[0]


def _repair(conn: Connection, entry: Entry, found: Bytes) -> None:
    was = made.find_blob_by_uid(conn, entry["detail"]["was"])
    if was is not None and was.state != blobs.DOOMED:
        new = NewBlob(found.uid, found.storage_key, found.store_name, was.size_bytes, was.sha256, was.media_type)
        blobs.repair(conn, was.pk, new)


def _purge(conn: Connection, entry: Entry, row: files.FileRow | None, patient: int) -> None:
    if row is None:
        rebuilding.note_purged(conn, entry["file_id"], patient, entry["at"])
        return
    seen: set[str] = set()
    for version, part in files.all_parts(conn, row.pk):
        if part.sha256 not in seen:  # who brought bytes first was charged for them
            seen.add(part.sha256)
            quotas.charge(conn, version.owner_id, -part.size_bytes)
    files.purge(conn, row, entry["at"])

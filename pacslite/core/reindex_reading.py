"""Reads what the storage holds, for `core.reindex`: the bytes that entries of the journal tell of, and those they do not.

Several threads read; nothing here writes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from pacslite.catalog.arrival import NewBlob
from pacslite.catalog.changes import Kind, Origin
from pacslite.core.ingest import arrival_of, read_limits
from pacslite.core.parts import WithSettings, WithSpool, WithStore, WithStores
from pacslite.core.reindex_files import Bytes, FileReplay, locate
from pacslite.core.stocktaking import Place, as_file
from pacslite.dicom.instance import read_instance
from pacslite.errors import BlobMissing, InstanceRefused, InvalidUid
from pacslite.storage.keys import PACKED, instance_key, parse_instance_key

if TYPE_CHECKING:
    from pacslite.catalog.arrival import Arrival
    from pacslite.core.journal import Entry

RECORDED = frozenset({Kind.INSTANCE_STORED, Kind.VERSION_ADDED, Kind.INSTANCE_REPAIRED})
"""Told of when bytes came, or came again."""
_UNKNOWN_ORIGIN = Origin("job")


class Parts(WithSettings, WithStore, WithStores, WithSpool, Protocol):
    """What reading needs of a process."""


@dataclass(frozen=True, slots=True)
class Read:
    """An instance read from the storage, or why it could not be."""

    key: str
    arrival: Arrival | None = None
    blob: NewBlob | None = None
    refusal: str = ""
    is_lost: bool = False  # told of by the journal, and by the bytes that came in its place
    stored_bytes: int | None = None  # of packed ones


@dataclass(frozen=True, slots=True)
class Step:
    """An entry of the journal and, when it is about bytes, what they are; `read` is None when they are gone."""

    entry: Entry
    key: str
    read: Read | None
    found: tuple[Bytes, ...] = ()  # of files

    @property
    def is_readable(self) -> bool:
        """Whether there is an instance to be recorded."""
        return self.read is not None and self.read.arrival is not None


class Reading:
    """What is known of repairs, and how instances are read."""

    def __init__(self, parts: Parts, files: FileReplay) -> None:
        self._store, self._stores, self._spool, self._settings = parts.store, parts.stores, parts.spool, parts.settings
        self._limits = read_limits(parts.settings, parts.spool.directory)
        self._files = files
        self._repairs: dict[tuple[str | int | None, ...], list[str]] = {}  # uids of the blobs, in order, by version

    def scan(self, entry: Entry) -> None:
        """Take note of a repair: what it repaired comes before it in the journal."""
        if entry["kind"] == Kind.INSTANCE_REPAIRED:
            self._repairs.setdefault((*uids_of(entry), entry.get("version_number")), []).append(entry["blob_uid"])

    def step(self, entry: Entry) -> Step:
        """Read what an entry is about; runs in a thread of its own."""
        if entry["kind"] not in RECORDED:
            return Step(entry, "", None, self._files.look(entry))
        uids = (entry["study_instance_uid"], entry["series_instance_uid"], entry["sop_instance_uid"])
        try:
            key = instance_key(*uids, entry["blob_uid"])
        except InvalidUid as error:
            return Step(entry, str(entry["blob_uid"]), Read("", refusal=str(error)))
        try:
            return Step(entry, key, self._read(key, origin_of(entry), entry))
        except BlobMissing:
            return Step(entry, key, self._read_repaired(entry, key))

    def _read_repaired(self, entry: Entry, key: str) -> Read | None:
        """What bytes that are lost held: the same data set as those that came in their place later."""
        study, series, sop_instance = uids_of(entry)
        for uid in self._repairs.get((*uids_of(entry), entry.get("version_number")), ()):
            try:
                read = self._read(instance_key(study, series, sop_instance, uid), origin_of(entry))
            except BlobMissing:
                continue
            if read.arrival is not None and read.blob is not None:
                return Read(
                    key, read.arrival, replace(_blob_told_of(entry, read.blob), uid=entry["blob_uid"], storage_key=key), is_lost=True
                )
        return None

    def _read(self, key: str, origin: Origin, entry: Entry | None = None, store_name: str = "") -> Read:
        try:
            return self._read_at(Place(key, store_name or self._store.name), origin, entry)
        except BlobMissing:
            moved = locate(self._stores, key, self._store.name)
            if moved is None:
                raise
            return self._read_at(moved, origin, entry)

    def _read_at(self, place: Place, origin: Origin, entry: Entry | None) -> Read:
        key = place.storage_key
        parts = parse_instance_key(key)
        if parts is None:
            return Read(key, refusal="the key is not that of an instance")
        stored = self._stores.of(place).size(key) if key.endswith(PACKED) else None
        with as_file(self._stores, self._spool, place) as (path, digests):
            try:
                read = read_instance(path, self._limits)
            except InstanceRefused as error:
                return Read(key, refusal=str(error))
        arrival = arrival_of(read, digests.data_set_digest or digests.sha256, origin, self._settings)
        if arrival.uids != (parts.study_instance_uid, parts.series_instance_uid, parts.sop_instance_uid):
            return Read(key, refusal="the bytes are of another instance than the key names")
        blob = NewBlob(parts.version_id, key, place.store_name, digests.size_bytes, digests.sha256)
        if entry and entry.get("sha256", blob.sha256) != blob.sha256:
            # Recorded as it should be, so that verification finds it and sending it again makes it whole.
            known = _blob_told_of(entry, blob)
            return Read(
                key,
                replace(arrival, data_set_digest=entry.get("data_set_digest", arrival.data_set_digest)),
                known,
                "the SHA-256 is not the journal's",
                stored_bytes=stored,
            )
        return Read(key, arrival, blob, stored_bytes=stored)

    def unknown(self, place: str) -> Read:
        """What lies at a key and in a store that the journal does not tell of; runs in a thread of its own."""
        key, _, store_name = place.partition(" ")
        try:
            return self._read(key, _UNKNOWN_ORIGIN, store_name=store_name)
        except BlobMissing as error:
            return Read(key, refusal=str(error))


def _blob_told_of(entry: Entry, there: NewBlob) -> NewBlob:
    """The blob as the journal tells of it, as far as it does."""
    return replace(there, size_bytes=entry.get("size_bytes", there.size_bytes), sha256=entry.get("sha256", there.sha256))


def origin_of(entry: Entry) -> Origin:
    """Who caused what an entry tells of."""
    names = ("protocol", "calling_aet", "address", "actor", "request_id")
    return Origin(**{name: str(entry.get(name, "")) for name in names})


def uids_of(entry: Entry) -> tuple[str, ...]:
    """The instance that an entry is about."""
    return tuple(entry.get(name, "") for name in ("study_instance_uid", "series_instance_uid", "sop_instance_uid"))

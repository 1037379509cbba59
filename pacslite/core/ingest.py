"""The only way in: an instance in a spool file becomes durable bytes and rows of the catalog.

Order (docs/architecture.md, "The way of an instance"): read and check, put the bytes, one write transaction, answer. The syncs of a large
file go on beside the work: the file's while its header is read, its directories' while the rows are written; the commit
waits for them. Whatever ends this in between leaves at worst a spool file or a blob that nothing refers to; both are swept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import zlib
from collections import OrderedDict
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pacslite import metrics, tracing
from pacslite.catalog import instances
from pacslite.catalog.arrival import Arrival, NewBlob, columns_of, identity_of, modality_of, row_of
from pacslite.catalog.changes import Origin
from pacslite.catalog.database import Catalog
from pacslite.catalog.instances import Existing, Intent
from pacslite.catalog.search_values import IndexedValue, values_in
from pacslite.core.settling import Settling
from pacslite.dicom.attributes import EXTRACTED_TAGS, REQUEST_ATTRIBUTES_SEQUENCE, Level
from pacslite.dicom.compare import same_data_set
from pacslite.dicom.indexed_attributes import indexed_attributes
from pacslite.dicom.instance import EXTRACTOR_VERSION, Instance, read_instance
from pacslite.dicom.limits import Limits
from pacslite.errors import (
    BlobMissing,
    Busy,
    DuplicateRefused,
    InstanceRefused,
    OutcomeUnknown,
    PacsliteError,
    SopClassMismatch,
    SopInstanceMismatch,
    StorageError,
    StudyMismatch,
    TooManyVersions,
)
from pacslite.settings import Settings
from pacslite.storage.blob_store import BlobStore, Placing
from pacslite.storage.digests import data_set_digest
from pacslite.storage.keys import instance_key, new_version_id
from pacslite.storage.spool import Spool, SpoolFile
from pacslite.storage.stores import Located, Stores

__all__ = ["Accepted", "Expected", "Ingest", "Origin", "arrival_of", "read_limits"]

_log = logging.getLogger(__name__)

LIVE = "live"
_KEPT = frozenset({"stored", "new_version", "repaired"})  # the spool file is the store's now
_ATTEMPTS = 10
_SENDERS = 1000
_SCHEDULED_PROCEDURE_STEP_ID, _REQUESTED_PROCEDURE_ID = 0x00400009, 0x00401001
# Items of Request Attributes Sequence that are indexed; a series of more than a handful is not seen in practice.
_MAX_REQUESTS = 100


@dataclass(frozen=True, slots=True)
class Expected:
    """What the request says about the instance; None where it says nothing."""

    study_instance_uid: str | None = None
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of an instance: stored, duplicate, new_version, repaired or kept_first. It is durable."""

    outcome: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    version_number: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Decision:
    """What is to be done with an arrival: `outcome` when it is settled, else what to write on top of which version."""

    outcome: str = ""
    number: int = 0
    seen_version_pk: int | None = None
    intent: Intent = Intent.ADD


class Ingest:
    """Takes instances into one catalog and one store. Safe for threads."""

    def __init__(self, settings: Settings, catalog: Catalog, store: BlobStore, spool: Spool, stores: Stores | None = None) -> None:
        self._settings = settings
        self._catalog = catalog
        self._store = store
        self._stores = stores or Stores(store)
        self._spool = spool
        self._limits = read_limits(settings, spool.directory)
        self.settling = Settling(catalog, store, spool, settings.write_ahead_bytes)
        self._under_way: set[int] = set()
        self._sent_new: OrderedDict[_Sender, bool] = OrderedDict()

    def accept(self, spool_file: SpoolFile, origin: Origin, expected: Expected = Expected()) -> Accepted:
        """Make an instance durable, or raise. The spool file is gone afterwards, whatever happened.

        Raises InstanceRefused leaves (nothing is kept), StorageError, Busy, and OutcomeUnknown when the connection to the
        catalog broke during the commit.
        """
        began, became, size = time.perf_counter(), "failed", spool_file.size_bytes
        try:
            with tracing.span("ingest", source=origin.protocol):
                accepted = self._accept(spool_file, origin, expected)
            became = accepted.outcome
        except InstanceRefused:
            became = "refused"
            raise
        finally:
            metrics.INGESTED.add(origin.protocol, became)
            metrics.INGESTED_BYTES.add(origin.protocol, became, amount=size)
            metrics.INGEST_SECONDS.observe(time.perf_counter() - began, origin.protocol)
        return accepted

    def _accept(self, spool_file: SpoolFile, origin: Origin, expected: Expected) -> Accepted:
        kept, placing = False, None
        try:
            # The store syncs a large file while its header is read.
            placing = self._store.begin(spool_file.path, unsettled=self.settling.takes(spool_file.content))
            self._under_way.add(id(placing))
            read = read_instance(spool_file.path if spool_file.content is None else spool_file.content, self._limits)
            _check_expected(read, expected)
            digest = spool_file.data_set_digest or _data_set_digest(spool_file.path, read.meta.data_set_offset)
            arrival = arrival_of(read, digest, origin, self._settings)
            outcome, number = _Acceptance(self, arrival, spool_file, placing, presumed_new=self._sent_new.get(_sender(origin), False)).run()
            kept = outcome in _KEPT
            if kept and self.settling.takes(spool_file.content):
                self.settling.note()
            self._remember(_sender(origin), sent_new=outcome == "stored")
            return Accepted(outcome, *arrival.uids, arrival.sop_class_uid, number, read.warnings)
        finally:
            if placing is not None:
                self._under_way.discard(id(placing))
            if not kept:
                spool_file.discard()

    def _remember(self, sender: _Sender, *, sent_new: bool) -> None:
        self._sent_new[sender] = sent_new
        if len(self._sent_new) > _SENDERS:
            self._sent_new.popitem(last=False)

    def find(self, arrival: Arrival) -> Existing | None:
        """The newest version of the instance that arrives."""
        with self._catalog.read() as conn:
            return instances.find_version(conn, *arrival.uids)

    def make_durable(self) -> None:
        """Returns when what the catalog shows is on stable storage."""
        self._catalog.make_durable()

    def is_whole(self, existing: Existing) -> bool:
        """Whether the bytes of a version are where they belong: of the right size and, in a file system, unharmed."""
        if existing.state != LIVE or not self._stores.knows(existing.store_name):
            return False
        try:
            if self._stores.size(existing) != existing.size_bytes:
                return False
            path = self._stores.local_path(existing)
            return path is None or _sha256_of(path) == existing.sha256
        except (BlobMissing, FileNotFoundError):
            return False

    def is_same(self, existing: Existing, arrived: Path) -> bool:
        """Whether a stored version and a file hold the same data set, element by element."""
        with self.as_file(existing) as stored:
            return same_data_set(stored, arrived, self._limits)

    def as_file(self, row: Located) -> AbstractContextManager[Path]:
        """A blob as a local file."""
        return self._stores.as_file(row, self._spool)

    def decide(self, existing: Existing | None, arrival: Arrival, arrived: Path) -> _Decision:
        """What an arrival becomes, given the newest version there is; raises DuplicateRefused, TooManyVersions."""
        if existing is None:
            return _Decision()
        whole = self.is_whole(existing)
        if existing.data_set_digest == arrival.data_set_digest:
            if whole:
                return _Decision("duplicate", existing.number)
            return _Decision(seen_version_pk=existing.version_pk, intent=Intent.REPAIR)
        if whole and self.is_same(existing, arrived):
            return _Decision("duplicate", existing.number)
        policy = self._settings.duplicate_policy
        if policy == "refuse":
            raise DuplicateRefused("other content is stored under this SOP Instance UID")
        # With the first version damaged, keeping it would mean to have nothing.
        if policy == "keep_first" and whole:
            return _Decision("kept_first", existing.number)
        if existing.number >= self._settings.max_versions_per_instance:
            raise TooManyVersions(f"{existing.number} versions of this instance are stored, which is the bound")
        return _Decision(seen_version_pk=existing.version_pk)

    def put(self, arrival: Arrival, spool_file: SpoolFile, placing: Placing) -> NewBlob:
        """Give the bytes a new key; durable once `placing` has settled, or with the rows when the catalog keeps them (decision 40)."""
        uid = new_version_id()
        key = instance_key(*arrival.uids, uid)
        placing.place(key)
        content = spool_file.content if self.settling.takes(spool_file.content) else None
        return NewBlob(uid, key, self._store.name, spool_file.size_bytes, spool_file.sha256, content=content)

    def record(self, arrival: Arrival, blob: NewBlob, decision: _Decision, placing: Placing) -> instances.Recorded:
        """The one write transaction; it is committed after the bytes are durable.

        One sender waits for its file while its rows are written; of several, none holds up the others' transactions.
        """
        if len(self._under_way) > 1 or self._catalog.is_contended:
            placing.settle()
        return self._catalog.write(
            lambda conn: instances.record(conn, arrival, blob, decision.seen_version_pk, decision.intent), arrival.keys, placing.settle
        )

    def drop(self, blob: NewBlob) -> None:
        """Erase bytes that the catalog does not name."""
        try:
            self._store.delete(blob.storage_key)
        except StorageError as error:
            # The answer to the sender does not hang on it: what stays is what the sweep looks for.
            _log.warning("bytes nobody refers to are left for the sweep: %s", error, extra={"blob_uid": blob.uid})


class _Acceptance:
    """One instance on its way: decided anew when another sender of the same instance was faster.

    After a new instance a sender's next one most likely is new as well; `presumed_new` saves looking it up. The
    transaction finds out; a wrong guess costs a file that is placed and taken away again.
    """

    def __init__(self, ingest: Ingest, arrival: Arrival, spool_file: SpoolFile, placing: Placing, *, presumed_new: bool) -> None:
        self._presumed_new = presumed_new
        self._ingest = ingest
        self._arrival = arrival
        self._spool_file = spool_file
        self._placing = placing
        self._blob: NewBlob | None = None

    def run(self) -> tuple[str, int]:
        """The outcome and the number of the version."""
        try:
            for _ in range(_ATTEMPTS):
                found = self._try()
                if found is not None:
                    return found
            raise Busy("others keep sending this instance")
        except OutcomeUnknown:
            raise  # the catalog may name the bytes: the sweep finds out
        except PacsliteError:
            # Whatever else ends this (a signal, a fault of the program) may have come after the commit.
            self._drop()
            raise

    def _try(self) -> tuple[str, int] | None:
        decision = self._decide()
        if decision.outcome:
            self._drop()
            self._ingest.make_durable()  # what is there may have been committed a moment ago
            return decision.outcome, decision.number
        if self._blob is None:
            self._blob = self._ingest.put(self._arrival, self._spool_file, self._placing)
        recorded = self._ingest.record(self._arrival, self._blob, decision, self._placing)
        return None if recorded == instances.OVERTAKEN else (recorded.outcome, recorded.version_number)

    def _drop(self) -> None:
        if self._blob is not None:
            self._ingest.drop(self._blob)

    def _decide(self) -> _Decision:
        if self._presumed_new:
            self._presumed_new = False
            return _Decision()
        existing = self._ingest.find(self._arrival)
        if existing is None or self._blob is None:
            return self._ingest.decide(existing, self._arrival, self._spool_file.path)
        with self._ingest.as_file(self._blob) as path:
            return self._ingest.decide(existing, self._arrival, path)


_Sender = tuple[str, str, str]


def _sender(origin: Origin) -> _Sender:
    return origin.protocol, origin.calling_aet, origin.address


def read_limits(settings: Settings, scratch: Path) -> Limits:
    """How instances are read for the catalog."""
    return Limits(
        max_header_bytes=settings.max_header_bytes,
        max_depth=settings.max_sequence_depth,
        bulk_threshold_bytes=settings.bulk_threshold_bytes,
        max_inflated_bytes=settings.max_inflated_bytes,
        reserve_bytes=settings.free_space_reserve_bytes,
        scratch=scratch,
        tags=EXTRACTED_TAGS | {REQUEST_ATTRIBUTES_SEQUENCE},
    )


def arrival_of(read: Instance, data_set_digest: str, origin: Origin, settings: Settings) -> Arrival:
    """What the catalog keeps of an instance that was read within `read_limits`."""
    values, study = read.values, read.study_instance_uid
    requests = _requests(read)
    more = _indexed_values(read, settings)
    return Arrival(
        study_instance_uid=study,
        series_instance_uid=read.series_instance_uid,
        sop_instance_uid=read.sop_instance_uid,
        sop_class_uid=read.sop_class_uid,
        transfer_syntax_uid=read.meta.transfer_syntax_uid,
        identity=identity_of(values, study, settings.default_issuer),
        modality=modality_of(values),
        patient=row_of(Level.PATIENT, values, indexed=more.get(Level.PATIENT, ())),
        study=row_of(Level.STUDY, values, indexed=more.get(Level.STUDY, ())),
        series=row_of(Level.SERIES, values, requests, more.get(Level.SERIES, ())),
        instance=columns_of(Level.INSTANCE, values),
        request_attributes=requests,
        data_set_digest=data_set_digest,
        metadata=zlib.compress(read.metadata, 1),
        extractor_version=EXTRACTOR_VERSION,
        frame_index=read.frame_index.encode() if read.frame_index else None,
        origin=origin,
        instance_values=tuple(more.get(Level.INSTANCE, ())),
    )


def _indexed_values(read: Instance, settings: Settings) -> dict[Level, list[IndexedValue]]:
    """The values of the attributes that a setting has indexed, by level."""
    found: dict[Level, list[IndexedValue]] = {}
    if settings.index_attributes:
        document = json.loads(read.metadata, strict=False)  # a NUL stands for the base URL
        for attribute in indexed_attributes(settings.index_attributes).values():
            found.setdefault(attribute.level, []).extend(values_in(attribute, document))
    return found


def _requests(read: Instance) -> tuple[tuple[str, str], ...]:
    items = read.header.items(REQUEST_ATTRIBUTES_SEQUENCE)[:_MAX_REQUESTS]
    return tuple((item.text(_SCHEDULED_PROCEDURE_STEP_ID), item.text(_REQUESTED_PROCEDURE_ID)) for item in items)


def _check_expected(read: Instance, expected: Expected) -> None:
    if expected.study_instance_uid not in (None, read.study_instance_uid):
        raise StudyMismatch("the data set belongs to another study than the request names")
    if expected.sop_class_uid not in (None, read.sop_class_uid):
        raise SopClassMismatch("the data set is of another SOP class than the request names")
    if expected.sop_instance_uid not in (None, read.sop_instance_uid):
        raise SopInstanceMismatch("the data set is another SOP instance than the request names")


def _data_set_digest(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return data_set_digest(file)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

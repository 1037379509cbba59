"""Makes the catalog anew from the storage alone.

The journal is replayed in its order: each version whose bytes are there is read and recorded with its old time, origin
and number; each deletion is done again. Then come the instances that the journal has not reached (or all of them, when
there is no journal), in the order of their version ids; they are listed. What only the catalog knew of them is not
guessed. The known peers stay.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Protocol

from pacslite.catalog import deletions, instances, inventory, rebuilding
from pacslite.catalog.audit import Event
from pacslite.catalog.changes import Kind
from pacslite.catalog.deletions import Target
from pacslite.catalog.instances import AsOf, Intent
from pacslite.catalog.statements import now_text, time_text
from pacslite.core import audit_chain
from pacslite.core.journal import Entry, Journal
from pacslite.core.lookahead import ahead, batches
from pacslite.core.parts import WithCatalog, WithSettings, WithSpool, WithStore, WithStores
from pacslite.core.reindex_files import KINDS as OF_FILES
from pacslite.core.reindex_files import Bytes, FileReplay, tell
from pacslite.core.reindex_reading import RECORDED, Read, Reading, Step, origin_of, uids_of
from pacslite.core.stocktaking import Progress, take_stock
from pacslite.errors import StorageError
from pacslite.storage.keys import PATIENTS, RADIOLOGY, blob_uid, version_time_ms

if TYPE_CHECKING:
    from sqlalchemy import Connection


_BATCH = 50  # entries of one transaction
_SORTED_KEYS = 100_000  # sorted in memory at once
_LISTED = 10_000

_DELETED = frozenset({Kind.STUDY_DELETED, Kind.SERIES_DELETED, Kind.INSTANCE_DELETED})
# Told by recording itself, once more when what caused them is recorded once more.
_CONSEQUENCES = frozenset({Kind.PATIENT_UPDATED, Kind.CONFLICT_NOTED})


class Parts(WithSettings, WithCatalog, WithStore, WithStores, WithSpool, Protocol):
    """What reindexing needs of a process."""


@dataclass(slots=True)
class ReindexReport:
    """What came of it. Lists stop at 10,000 entries.

    `not_journaled`: keys of versions whose time, origin and number only the lost catalog knew. `missing`: keys of bytes that
    the journal tells of and that are neither there nor deleted. `refused`: key and reason of bytes that are no instance,
    or another one, or of which the journal tells another digest. `copies` are not journaled and hold what the instance
    has anyhow: left to the sweep. `files` are versions of files, `unknown_files` keys below patients/ that no row names:
    files that the journal had not reached, or MP4s of videos, which are made again.
    """

    recorded: int = 0
    files: int = 0
    deleted: int = 0
    copies: int = 0
    not_journaled: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    unknown_files: list[str] = field(default_factory=list)


def reindex(parts: Parts, progress: Progress | None = None) -> ReindexReport:
    """Empty the catalog and make it anew; nobody else may write meanwhile. Interrupted, it begins again when run again."""
    return _Reindexing(parts, progress).run()


class _Reindexing:
    def __init__(self, parts: Parts, progress: Progress | None) -> None:
        self._catalog, self._store, self._spool = parts.catalog, parts.store, parts.spool
        self._settings, self._stores = parts.settings, parts.stores
        self._journal = Journal(self._store, self._spool)
        self._progress = progress or (lambda done, total: None)
        self._report = ReindexReport()
        self._lost: dict[str, dict[str, Entry]] = {}  # by study and key: told of, not there, not deleted so far
        self._files = FileReplay(parts.stores)
        self._reading = Reading(parts, self._files)
        self._not_recorded: set[tuple[str, ...]] = set()
        self._refused: set[str] = set()
        self._done = self._total = 0

    def run(self) -> ReindexReport:
        with self._catalog.read() as conn:
            rebuilding = inventory.is_rebuilding(conn)
        if not rebuilding:
            self._journal.write_new(self._catalog)  # what this catalog knows is not thrown away
            audit_chain.advance(self._catalog, audit_chain.anchor_of(self._settings.data))
        audit_chain.begin_rebuilding(self._catalog)
        self._catalog.write(lambda conn: inventory.begin_rebuilding(conn, now_text()))
        self._look_ahead()
        self._total = sum(1 for store in self._stores.all for _ in store.list(RADIOLOGY)) + self._files.parts
        self._files.begin(self._catalog)
        self._replay()
        self._take_the_rest()
        self._files.finish(self._catalog)
        lost = (key for of_study in self._lost.values() for key in of_study)
        self._report.missing = list(islice(chain(lost, self._files.missing(self._catalog)), _LISTED))
        self._report.unknown_files = list(islice(self._unknown_files(), _LISTED))
        self._catalog.write(inventory.end_rebuilding)
        audit_chain.end_rebuilding(self._catalog, Event(audit_chain.REBUILT, object_type="catalog", protocol="cli"))
        self._keep_journal_in_step()
        return self._report

    def _look_ahead(self) -> None:
        """Find repairs, which are few, and what they repaired comes before them in the journal; and the numbers of patients."""
        for entry in self._journal.entries():
            self._files.scan(entry)
            self._reading.scan(entry)

    def _replay(self) -> None:
        for batch in batches(ahead(self._journal.entries(), self._reading.step), _BATCH):
            again = [self._happens_again(step) for step in batch]
            self._catalog.write(lambda conn, b=batch, a=again: self._apply_all(conn, b, a))  # type: ignore[misc]
            for step in batch:
                self._count(step)

    def _apply_all(self, conn: Connection, batch: list[Step], happens_again: list[bool]) -> None:
        """Nothing but SQL: a transaction may run more than once."""
        for step, again in zip(batch, happens_again, strict=True):
            if step.is_readable:
                self._record(conn, step)
            elif step.entry["kind"] in OF_FILES:
                self._files.apply(conn, step.entry, step.found, origin_of(step.entry))
            elif step.entry["kind"] in _DELETED:
                _delete(conn, step.entry)
            elif not again:
                _tell(conn, step.entry)

    def _record(self, conn: Connection, step: Step) -> None:
        read, entry = step.read, step.entry
        assert read is not None
        assert read.arrival is not None
        assert read.blob is not None
        existing = instances.find_version(conn, *read.arrival.uids)
        number = entry.get("version_number")
        repaired = entry["kind"] == Kind.INSTANCE_REPAIRED and existing is not None and existing.number == number
        seen = existing.version_pk if existing else None
        intent = Intent.REPAIR if repaired else Intent.ADD
        told = entry.get("detail", {}).get("patient")
        patient = self._files.number(conn, entry, told, read.arrival.identity) if told else None
        instances.record(conn, read.arrival, read.blob, seen, intent, AsOf(entry["at"], number, patient))
        if read.stored_bytes is not None:
            rebuilding.place_packed(conn, read.blob.uid, read.stored_bytes)

    def _happens_again(self, step: Step) -> bool:
        """Whether recording tells of this by itself: it was a consequence of something that is recorded again."""
        uids = uids_of(step.entry)
        if step.entry["kind"] in RECORDED:
            (self._not_recorded.discard if step.is_readable else self._not_recorded.add)(uids)
        return step.entry["kind"] in _CONSEQUENCES and uids not in self._not_recorded

    def _count(self, step: Step) -> None:
        kind, read = step.entry["kind"], step.read
        if kind in _DELETED:
            self._report.deleted += 1
            _drop_below(self._lost, _target(step.entry))
        elif kind in RECORDED:
            if kind == Kind.INSTANCE_REPAIRED:
                _drop_version(self._lost, step.entry)
            if read is None:
                self._lost.setdefault(step.entry["study_instance_uid"], {})[step.key] = step.entry
            else:
                self._count_read(read)
        self._report.files += kind in (Kind.FILE_CREATED, Kind.FILE_VERSIONED)
        for found in step.found:
            self._count_bytes(found)

    def _count_bytes(self, found: Bytes) -> None:
        self._done += 1
        self._progress(min(self._done, self._total), self._total)
        if found.problem == "missing":
            self._files.lost[found.uid] = found.storage_key
        elif found.problem and len(self._report.refused) < _LISTED:
            self._report.refused.append((found.storage_key, "the SHA-256 is not the journal's"))

    def _count_read(self, read: Read) -> None:
        if read.is_lost:
            return
        self._done += 1
        self._progress(min(self._done, self._total), self._total)
        if read.refusal:
            self._refused.add(read.key)
            if len(self._report.refused) < _LISTED:
                self._report.refused.append((read.key, read.refusal))
        if read.arrival is not None:
            self._report.recorded += 1

    def _take_the_rest(self) -> None:
        with tempfile.TemporaryDirectory(dir=self._spool.directory) as room:
            unknown = (
                f"{f.info.key} {store.name}"
                for store in self._stores.all
                for f in take_stock(self._catalog, store, RADIOLOGY)
                if f.row is None and f.info.key not in self._refused
            )
            in_order = _in_order_of_ids(unknown, room)
            for batch in batches(ahead(in_order, self._reading.unknown), _BATCH):
                outcomes = self._catalog.write(lambda conn, b=batch: [_take(conn, read) for read in b])  # type: ignore[misc]
                for read, outcome in zip(batch, outcomes, strict=True):
                    self._count_read(read)
                    if outcome == "copy":
                        self._report.copies += 1
                        self._report.recorded -= 1
                    elif outcome and len(self._report.not_journaled) < _LISTED:
                        self._report.not_journaled.append(read.key)

    def _unknown_files(self) -> Iterator[str]:
        """Originals of files that no row names; what is made of originals is made again."""
        for store in self._stores.all:
            for found in take_stock(self._catalog, store, PATIENTS):
                if found.row is None and "." not in blob_uid(found.info.key):
                    yield found.info.key

    def _keep_journal_in_step(self) -> None:
        """Go on with the journal when the numbers came out as they were; else write it anew from what was recorded."""
        if not Journal(self._store, self._spool).is_continued_by(self._catalog):
            self._journal.rewrite(self._catalog)


def _delete(conn: Connection, entry: Entry) -> None:
    if deletions.delete_target(conn, _target(entry), origin_of(entry), entry["at"]) is None:
        deletions.remember(conn, _target(entry), entry["at"])
        _tell(conn, entry)


def _take(conn: Connection, read: Read) -> str:
    """Record what the journal does not tell of; `copy` when the newest version holds the same data set, "" when refused."""
    if read.arrival is None or read.blob is None:
        return ""
    existing = instances.find_version(conn, *read.arrival.uids)
    if existing is not None and existing.data_set_digest == read.arrival.data_set_digest:
        return "copy"
    at = time_text(datetime.fromtimestamp(version_time_ms(read.blob.uid) / 1000, UTC))
    instances.record(conn, read.arrival, read.blob, existing.version_pk if existing else None, as_of=AsOf(at))
    if read.stored_bytes is not None:
        rebuilding.place_packed(conn, read.blob.uid, read.stored_bytes)
    return "recorded"


def _tell(conn: Connection, entry: Entry) -> None:
    """Keep in the feed what cannot be done again: it happened all the same."""
    if entry["kind"] not in list(Kind):
        raise StorageError(f"the journal tells of {entry['kind']!r}, which this release does not know")
    tell(conn, entry, origin_of(entry))


def _target(entry: Entry) -> Target:
    return Target(entry["study_instance_uid"], entry.get("series_instance_uid"), entry.get("sop_instance_uid"))


def _drop_below(lost: dict[str, dict[str, Entry]], target: Target) -> None:
    of_study, prefix = lost.get(target.study_instance_uid, {}), RADIOLOGY + "/".join(target.uids.values()) + "/"
    for key in [key for key in of_study if key.startswith(prefix)]:
        del of_study[key]


def _drop_version(lost: dict[str, dict[str, Entry]], repair: Entry) -> None:
    of_study, repaired = lost.get(repair["study_instance_uid"], {}), (*uids_of(repair), repair.get("version_number"))
    for key in [key for key, entry in of_study.items() if (*uids_of(entry), entry.get("version_number")) == repaired]:
        del of_study[key]


def _in_order_of_ids(keys: Iterable[str], room: str) -> Iterator[str]:
    """The keys in the order of their version ids, sorted in pieces on disk: a catalog may be larger than memory."""
    runs: list[IO[str]] = []
    for batch in batches(keys, _SORTED_KEYS):
        run: IO[str] = tempfile.TemporaryFile("w+", dir=room)  # noqa: SIM115  closed below
        run.writelines(
            f"{blob_uid(key.partition(' ')[0])} {key}\n" for key in sorted(batch, key=lambda one: blob_uid(one.partition(" ")[0]))
        )
        run.seek(0)
        runs.append(run)
    try:
        for line in heapq.merge(*runs):
            yield line.rstrip("\n").partition(" ")[2]
    finally:
        for run in runs:
            run.close()

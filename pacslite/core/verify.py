"""Whether every row of the catalog has its bytes, and what the storage holds beyond them.

Quick: every blob is there and has the right size. Deep: the bytes have the right SHA-256 and read as the instance that
the catalog says they are. A row without bytes is an emergency; bytes without a row are what a crash leaves.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from pacslite.catalog import inventory
from pacslite.core.repair import Outcome, mend
from pacslite.core.stocktaking import Progress, as_file, rows_of, take_stock
from pacslite.core.sweep import BETWEEN_SWEEPS_S, quarantine
from pacslite.dicom import frame_index
from pacslite.errors import BlobDamaged, BlobMissing, InstanceRefused
from pacslite.storage.digests import Digests, digests_of
from pacslite.storage.keys import RADIOLOGY, parse_instance_key

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog
    from pacslite.catalog.inventory import BlobRow, StoredInstance
    from pacslite.dicom.instance import Instance, Limits
    from pacslite.storage.blob_store import BlobStore
    from pacslite.storage.spool import Spool
    from pacslite.storage.stores import Stores

_LISTED = 10_000


class Problem(StrEnum):
    """What is wrong with a blob; `header`: the bytes are whole and the catalog says otherwise than they do."""

    MISSING = "missing"
    SIZE = "size"
    HASH = "hash"
    HEADER = "header"


@dataclass(frozen=True, slots=True)
class Damage:
    """One blob that is not as the catalog says, and whose it is: an instance's, or that of a file."""

    key: str
    problem: Problem
    detail: str
    sop_instance_uid: str | None
    file_id: str | None = None


@dataclass(frozen=True, slots=True)
class Orphan:
    """Bytes that no row names and that are older than any transfer in progress."""

    key: str
    size_bytes: int
    storage: str = ""


@dataclass(slots=True)
class VerifyReport:
    """What was found; the lists stop at 10,000 entries, the counts do not.

    `repaired_count` is what was done something about: `mended_count` of these have their bytes again, from a second copy.
    """

    checked: int = 0
    damaged_count: int = 0
    orphan_count: int = 0
    repaired_count: int = 0
    mended_count: int = 0
    damaged: list[Damage] = field(default_factory=list)
    orphans: list[Orphan] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every row has its bytes; orphans harm nobody."""
        return self.damaged_count == 0

    def add_damage(self, damage: Damage) -> None:
        """Count and list it."""
        self.damaged_count += 1
        if len(self.damaged) < _LISTED:
            self.damaged.append(damage)

    def add_orphan(self, orphan: Orphan) -> None:
        """Count and list it."""
        self.orphan_count += 1
        if len(self.orphans) < _LISTED:
            self.orphans.append(orphan)


class Verifier:
    """One run over a catalog and its storages; memory is bounded (a bit per blob and the lists of the report)."""

    def __init__(self, catalog: Catalog, stores: Stores, spool: Spool, limits: Limits) -> None:
        self.catalog, self.stores, self.spool, self._limits = catalog, stores, spool, limits
        self._right_size = bytearray()

    def run(self, *, deep: bool = False, repair: bool = False, progress: Progress | None = None) -> VerifyReport:
        """Compare; with `repair`, damaged blobs are marked (sent again, they are whole again) and moved to quarantine."""
        report = VerifyReport()
        with self.catalog.read() as conn:
            total = inventory.count_blobs(conn)
        self._look_through_storage(report, repair)
        for row in rows_of(self.catalog):
            if self.concerns(row):
                report.checked += 1
                damage = self.check(row, deep)
                if damage is not None:
                    report.add_damage(damage)
                    became = self.treat(row, damage) if repair else Outcome.LEFT
                    report.repaired_count += became is not Outcome.LEFT
                    report.mended_count += became is Outcome.REPAIRED
            if progress is not None:
                progress(min(report.checked, total), total)
        return report

    def concerns(self, row: BlobRow) -> bool:
        """Whether the row should have its bytes, in a storage that is configured."""
        return row.state != inventory.DOOMED and self.stores.knows(row.store_name)

    def _look_through_storage(self, report: VerifyReport, repair: bool) -> None:
        for store, orphan in self.look_through_storages():
            if orphan is not None:
                report.add_orphan(orphan)
                if repair:
                    report.repaired_count += quarantine(self.catalog, store, orphan.key)

    def look_through_storages(self) -> Iterator[tuple[BlobStore, Orphan | None]]:
        """One listing of each storage instead of a question per blob: remembers whose size is right, and gives what is an orphan.

        Also None for each of the others, so that whoever asks knows how far it is.
        """
        young = time.time() - BETWEEN_SWEEPS_S
        for store in self.stores.all:
            for found in take_stock(self.catalog, store):
                orphan = None
                if found.row is not None:
                    if found.row.size_stored == found.info.size_bytes:
                        self._remember(found.row.pk)
                elif found.info.modified_at.timestamp() < young:
                    orphan = Orphan(found.info.key, found.info.size_bytes, store.name)
                yield store, orphan

    def _remember(self, pk: int) -> None:
        byte, bit = divmod(pk, 8)
        if byte >= len(self._right_size):
            self._right_size.extend(bytes(byte + 1 - len(self._right_size) + 4096))
        self._right_size[byte] |= 1 << bit

    def _was_right(self, pk: int) -> bool:
        byte, bit = divmod(pk, 8)
        return byte < len(self._right_size) and bool(self._right_size[byte] >> bit & 1)

    def check(self, row: BlobRow, deep: bool) -> Damage | None:
        """What is wrong with a blob, None when nothing is; raises StorageError when the storage cannot be asked."""
        if row.state == inventory.QUARANTINED:
            return self._damage(row, Problem.MISSING, "found damaged before; sent again, it is whole again")
        try:
            if not self._was_right(row.pk) and (size := self.stores.of(row).size(row.storage_key)) != row.size_stored:
                return self._damage(row, Problem.SIZE, f"{size} bytes instead of {row.size_stored}")
            return self._check_bytes(row) if deep else None
        except BlobDamaged as error:
            return self._damage(row, Problem.HASH, str(error))
        except BlobMissing:
            return None if self._is_gone(row) else self._damage(row, Problem.MISSING, "no bytes under this key")

    def _is_gone(self, row: BlobRow) -> bool:
        """Whether the row was deleted, doomed, or moved to another place since it was read."""
        with self.catalog.read() as conn:
            now = inventory.blobs_of(conn, [row.uid]).get(row.uid)
        return now is None or now.state == inventory.DOOMED or (now.store_name, now.storage_key) != (row.store_name, row.storage_key)

    def _check_bytes(self, row: BlobRow) -> Damage | None:
        from pacslite.dicom.instance import read_instance

        if not row.storage_key.startswith(RADIOLOGY):
            with self.stores.open(row) as stream:
                return self._hash_fault(row, digests_of(stream))
        with as_file(self.stores, self.spool, row) as (path, digests):
            if fault := self._hash_fault(row, digests):
                return fault
            with self.catalog.read() as conn:
                stored = inventory.instances_of(conn, row.pk)
            try:
                read = read_instance(path, self._limits)
            except InstanceRefused as error:
                return self._damage(row, Problem.HEADER, f"does not read as an instance: {error}")
        for known in stored:
            if difference := _difference(read, known) or _document_fault(known):
                return self._damage(row, Problem.HEADER, difference)
        return None

    def _hash_fault(self, row: BlobRow, digests: Digests) -> Damage | None:
        if digests.sha256 == row.sha256:
            return None
        return self._damage(row, Problem.HASH, f"SHA-256 is {digests.sha256} instead of {row.sha256}")

    def treat(self, row: BlobRow, damage: Damage) -> Outcome:
        """Repair the blob from a second copy, or put it out of use; what only the catalog has wrong stays in use."""
        return Outcome.LEFT if damage.problem is Problem.HEADER else mend(self, row)

    def _damage(self, row: BlobRow, problem: Problem, detail: str) -> Damage:
        parts = parse_instance_key(row.storage_key)
        if parts is not None:
            return Damage(row.storage_key, problem, detail, parts.sop_instance_uid)
        with self.catalog.read() as conn:
            files = inventory.files_of(conn, row.pk)
        return Damage(row.storage_key, problem, detail, None, files[0] if files else None)


def _difference(read: Instance, known: StoredInstance) -> str:
    pairs = (
        ("StudyInstanceUID", read.study_instance_uid, known.study_instance_uid),
        ("SeriesInstanceUID", read.series_instance_uid, known.series_instance_uid),
        ("SOPInstanceUID", read.sop_instance_uid, known.sop_instance_uid),
        ("TransferSyntaxUID", read.meta.transfer_syntax_uid, known.transfer_syntax_uid),
    )
    return "; ".join(f"{name} is {there}, the catalog says {here}" for name, there, here in pairs if there != here)


def _document_fault(known: StoredInstance) -> str:
    try:
        zlib.decompress(known.json)
        if known.frame_index is not None:
            frame_index.decode(known.frame_index)
    except (zlib.error, ValueError) as error:
        return f"the catalog's own metadata of it is damaged: {error}"
    return ""

"""Damaged bytes are replaced by a second copy where there is one; bytes of files are looked at like those of instances."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pytest

from pacslite.catalog import blobs, inventory
from pacslite.catalog.arrival import NewBlob
from pacslite.catalog.database import Catalog
from pacslite.core.ingest import read_limits
from pacslite.core.repair import Outcome, mend
from pacslite.core.stocktaking import rows_of, take_stock
from pacslite.core.verify import Problem, Verifier, VerifyReport
from pacslite.errors import BlobMissing
from pacslite.settings import Settings
from pacslite.storage import packing
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.keys import PACKED, file_key, moved_uid, new_version_id, quarantine_key
from pacslite.storage.spool import Spool
from pacslite.storage.stores import Stores

CONTENT = b"the bytes of a file " * 1000


@dataclass(frozen=True)
class Held:
    """What repairing needs of a process."""

    settings: Settings
    catalog: Catalog
    store: FilesystemStore
    archive: FilesystemStore
    spool: Spool

    @property
    def stores(self) -> Stores:
        """Both of them."""
        return Stores(self.store, [self.archive])

    def verify(self, *, deep: bool = True, repair: bool = True) -> VerifyReport:
        """Look at everything."""
        limits = read_limits(self.settings, self.spool.directory)
        return Verifier(self.catalog, self.stores, self.spool, limits).run(deep=deep, repair=repair)

    def put(self, store: FilesystemStore, key: str, data: bytes) -> None:
        """Bytes without a row."""
        with self.spool.create() as writer:
            writer.write(data)
            store.put(writer.finish().path, key)

    def add(self, data: bytes = CONTENT) -> inventory.BlobRow:
        """Bytes with a row."""
        uid = new_version_id()
        key = file_key(1, "photos", "20250102", "photo", uid, ".jpg")
        with self.spool.create() as writer:
            writer.write(data)
            file = writer.finish()
        self.store.put(file.path, key)
        new = NewBlob(uid, key, self.store.name, file.size_bytes, file.sha256, "image/jpeg")
        self.catalog.write(lambda conn: blobs.insert_alone(conn, new))
        return self.row(uid)

    def row(self, uid: str) -> inventory.BlobRow:
        """What the catalog says of it."""
        with self.catalog.read() as conn:
            return inventory.blobs_of(conn, [uid])[uid]

    def flip(self, row: inventory.BlobRow) -> None:
        """Change one byte."""
        path = self.store.local_path(row.storage_key)
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)

    def content(self, row: inventory.BlobRow) -> bytes:
        """What a reader gets."""
        with self.stores.open(row) as stream:
            return stream.read()


@pytest.fixture
def held(tmp_path: Path, catalog: Catalog) -> Held:
    return Held(
        Settings(data=tmp_path),
        catalog,
        FilesystemStore(tmp_path / "storage"),
        FilesystemStore(tmp_path / "archive", "archive"),
        Spool(tmp_path / "spool"),
    )


def test_a_flipped_byte_of_a_file_is_found_reported_and_quarantined(held: Held) -> None:
    row, whole = held.add(), held.add(b"others")
    held.flip(row)
    assert held.verify(deep=False).is_whole
    report = held.verify()
    assert [(d.key, d.problem, d.sop_instance_uid) for d in report.damaged] == [(row.storage_key, Problem.HASH, None)]
    assert (report.checked, report.repaired_count, report.mended_count) == (2, 1, 0)
    assert held.row(row.uid).state == inventory.QUARANTINED
    assert held.store.size(quarantine_key(row.storage_key)) == row.size_bytes
    with pytest.raises(BlobMissing):
        held.content(row)
    assert held.content(whole) == b"others"


@pytest.mark.parametrize("where", ["archive", "packed", "packed in the archive", "twin"])
def test_a_second_copy_takes_the_place_of_damaged_bytes(held: Held, where: str) -> None:
    row = held.add()
    if where == "twin":
        held.add()
    elif where.startswith("packed"):
        pieces: list[bytes] = []
        packing.pack(io.BytesIO(CONTENT), len(CONTENT), pieces.append)
        held.put(held.archive if "archive" in where else held.store, row.storage_key + PACKED, b"".join(pieces))
    else:
        held.put(held.archive, row.storage_key, CONTENT)
    held.flip(row)
    report = held.verify()
    assert ([d.problem for d in report.damaged], report.mended_count) == ([Problem.HASH], 1)
    assert held.content(row) == CONTENT
    assert held.row(row.uid).state == inventory.LIVE
    assert held.store.size(quarantine_key(row.storage_key)) == row.size_bytes
    assert held.verify().is_whole
    assert list(held.spool.directory.iterdir()) == []


def test_a_copy_that_is_damaged_too_replaces_nothing(held: Held) -> None:
    row = held.add()
    held.put(held.archive, row.storage_key, CONTENT[:-1] + b"?")
    held.flip(row)
    assert mend(held, row) is Outcome.QUARANTINED
    assert mend(held, held.row(row.uid)) is Outcome.LEFT


def test_missing_bytes_come_back_when_a_copy_turns_up_later(held: Held) -> None:
    row = held.add()
    held.store.delete(row.storage_key)
    assert held.verify().mended_count == 0
    held.put(held.archive, row.storage_key, CONTENT)
    report = held.verify()
    assert ([d.problem for d in report.damaged], report.mended_count) == ([Problem.MISSING], 1)
    assert held.content(row) == CONTENT


def test_without_repair_nothing_is_touched(held: Held) -> None:
    row = held.add()
    held.put(held.archive, row.storage_key, CONTENT)
    held.flip(row)
    assert held.verify(repair=False).damaged_count == 1
    assert held.row(row.uid).state == inventory.LIVE
    assert held.store.size(row.storage_key) == row.size_bytes


def test_bytes_belong_to_the_row_that_names_their_place_and_to_no_other(held: Held) -> None:
    row = held.add()
    held.put(held.archive, row.storage_key, CONTENT)
    assert [found.row is None for found in take_stock(held.catalog, held.archive)] == [True]
    moved = NewBlob(moved_uid("archive", row.storage_key), row.storage_key, "archive", row.size_bytes, row.sha256)
    held.catalog.write(lambda conn: blobs.insert_alone(conn, moved))
    assert [found.row is None for found in take_stock(held.catalog, held.archive)] == [False]
    assert len(list(rows_of(held.catalog))) == 2

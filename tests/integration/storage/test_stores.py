"""Bytes are read from the store that their row names, packed ones as what was packed, whole and in ranges."""

from __future__ import annotations

import gzip
import io
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from pacslite.errors import BlobDamaged, BlobMissing, StorageError
from pacslite.storage import packing
from pacslite.storage.blob_store import BlobStore
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.keys import PACKED, blob_uid, file_key, instance_key, new_version_id, parse_instance_key, picture_key
from pacslite.storage.spool import Spool
from pacslite.storage.stores import Stores


@dataclass(frozen=True)
class Row:
    """What the catalog says of bytes."""

    storage_key: str
    store_name: str
    size_bytes: int = 0


def _put(store: BlobStore, spool: Spool, key: str, data: bytes, *, packed: bool = False) -> Row:
    with spool.create() as writer:
        if packed:
            packing.pack(io.BytesIO(data), len(data), writer.write)
        else:
            writer.write(data)
        store.put(writer.finish().path, key)
    return Row(key, store.name, len(data))


def _key(suffix: str = "") -> str:
    return instance_key("1.1", "1.2", "1.3", new_version_id()) + suffix


@pytest.fixture
def content() -> bytes:
    """More than two blocks, of which the last is not whole."""
    return random.Random(7).randbytes(700_000) * 4


def test_a_row_is_read_from_the_store_it_names(store: BlobStore, spool: Spool, tmp_path: Path) -> None:
    archive = FilesystemStore(tmp_path / "archive", "archive")
    stores = Stores(store, [archive])
    here, there = _put(store, spool, _key(), b"here"), _put(archive, spool, _key(), b"there")
    with stores.open(here) as one, stores.open(there, 1, 3) as other:
        assert (one.read(), other.read()) == (b"here", b"her")
    assert (stores.size(there), stores.is_local(there), stores.local_path(there)) == (5, True, archive.local_path(there.storage_key))
    assert [stream.read() for stream in stores.open_each([here, there, here])] == [b"here", b"there", b"here"]
    with pytest.raises(BlobMissing):
        stores.open(Row(here.storage_key, "archive")).close()
    with pytest.raises(StorageError, match="'tape' is not configured"):
        stores.open(Row(here.storage_key, "tape"))


def test_packed_bytes_are_read_as_what_was_packed(store: BlobStore, spool: Spool, content: bytes) -> None:
    stores = Stores(store)
    row = _put(store, spool, _key(PACKED), content, packed=True)
    with stores.open(row) as stream:
        assert stream.read() == content
    assert (stores.size(row), stores.local_path(row), stores.presign(row, 60), stores.is_local(row)) == (len(content), None, None, False)
    for offset, length in [(0, 1), (1_048_575, 2), (1_048_576, 1_048_576), (2_799_999, 50), (2_800_000, 1), (5, 0), (1_500_000, None)]:
        with stores.open(row, offset, length) as stream:
            assert stream.read() == content[offset : None if length is None else offset + length]


def test_packed_bytes_are_a_gzip_file(store: BlobStore, spool: Spool, content: bytes) -> None:
    for data in (content, b"", b"x"):
        row = _put(store, spool, _key(PACKED), data, packed=True)
        with store.open(row.storage_key) as stream:
            assert gzip.decompress(stream.read()) == data
        with Stores(store).open(row) as stream:
            assert stream.read() == data


def test_a_packed_blob_that_is_damaged_is_told(tmp_path: Path, spool: Spool, content: bytes) -> None:
    store = FilesystemStore(tmp_path / "files")
    for at in (50_000, -5, -40):  # within a block; the end; the index
        row = _put(store, spool, _key(PACKED), content, packed=True)
        path = store.local_path(row.storage_key)
        data = bytearray(path.read_bytes())
        data[at] ^= 0x55
        path.write_bytes(data)
        with pytest.raises(BlobDamaged), Stores(store).open(row) as stream:
            stream.read()


def test_a_range_takes_only_the_blocks_it_needs(tmp_path: Path, spool: Spool, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FilesystemStore(tmp_path / "files")
    row = _put(store, spool, _key(PACKED), content, packed=True)
    packing.index_of(store, row.storage_key)
    asked: list[int | None] = []
    real = store.open

    def watching(key: str, offset: int = 0, length: int | None = None) -> object:
        asked.append(length)
        return real(key, offset, length)

    monkeypatch.setattr(store, "open", watching)
    with Stores(store).open(row, 1_100_000, 10) as stream:
        assert stream.read() == content[1_100_000:1_100_010]
    assert len(asked) == 1
    assert (asked[0] or 0) < 1_100_000


def test_keys_of_packed_blobs_have_the_parts_of_the_original() -> None:
    key, uid = _key(), new_version_id()
    photo = file_key(3, "photos", "20250102", "photo", uid, ".jpg")
    assert blob_uid(key + PACKED) == blob_uid(key)
    assert parse_instance_key(key + PACKED) == parse_instance_key(key)
    assert blob_uid(photo + PACKED) == uid
    assert picture_key(photo + PACKED, "large") == picture_key(photo, "large")
    assert blob_uid(picture_key(photo, "large") + PACKED) == f"{uid}.large"
    with pytest.raises(ValueError, match="parts of a file's key"):
        file_key(3, "photos", "20250102", "photo", uid, PACKED)

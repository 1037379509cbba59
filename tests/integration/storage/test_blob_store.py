"""The contract of a blob store, held by every implementation."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pacslite.errors import BlobMissing, StorageError
from pacslite.storage.blob_store import BlobStore
from pacslite.storage.keys import instance_key, new_version_id
from pacslite.storage.spool import Spool


def _key(series: str = "1.2", instance: str = "1.3") -> str:
    return instance_key("1.1", series, instance, new_version_id())


def _put(store: BlobStore, spool: Spool, key: str, data: bytes) -> None:
    with spool.create() as writer:
        writer.write(data)
        store.put(writer.finish().path, key)


def test_put_keeps_the_bytes_and_takes_the_spool_file(store: BlobStore, spool: Spool) -> None:
    key = _key()
    data = os.urandom(200_000)
    _put(store, spool, key, data)
    assert store.size(key) == len(data)
    with store.open(key) as file:
        assert file.read() == data
    assert list(spool.directory.iterdir()) == []


def test_put_of_no_bytes_is_an_empty_blob(store: BlobStore, spool: Spool) -> None:
    key = _key()
    _put(store, spool, key, b"")
    assert store.size(key) == 0
    with store.open(key) as file:
        assert file.read() == b""


def test_put_under_a_taken_key_is_refused_and_the_first_bytes_stay(store: BlobStore, spool: Spool) -> None:
    key = _key()
    _put(store, spool, key, b"first")
    with pytest.raises(StorageError):
        _put(store, spool, key, b"other")
    with store.open(key) as file:
        assert file.read() == b"first"


@pytest.mark.parametrize(("offset", "length"), [(0, 10), (5, 20), (990, None), (999, 1), (1000, None), (990, 100), (0, 0), (5, 0)])
def test_open_of_a_range_gives_exactly_those_bytes(store: BlobStore, spool: Spool, offset: int, length: int | None) -> None:
    key, data = _key(), os.urandom(1000)
    _put(store, spool, key, data)
    expected = data[offset:] if length is None else data[offset : offset + length]
    with store.open(key, offset, length) as file:
        assert file.read() == expected
    with store.open(key, offset, length) as file:
        pieces = list(iter(lambda: file.read(7), b""))
    assert b"".join(pieces) == expected


def test_missing_bytes_are_told_as_missing(store: BlobStore) -> None:
    with pytest.raises(BlobMissing, match="missing"):
        store.open(_key())
    with pytest.raises(BlobMissing, match="missing"):
        store.open(_key(), 5, 10)
    with pytest.raises(BlobMissing, match="missing"):
        store.size(_key())
    with pytest.raises(BlobMissing, match="missing"):
        store.move(_key(), "quarantine/" + _key())


def test_delete_erases_and_may_be_repeated(store: BlobStore, spool: Spool) -> None:
    key, other = _key(), _key()
    _put(store, spool, key, b"x")
    _put(store, spool, other, b"y")
    store.delete(key)
    store.delete(key)
    with pytest.raises(BlobMissing):
        store.size(key)
    assert store.size(other) == 1


def test_move_keeps_the_bytes_under_the_new_key_only(store: BlobStore, spool: Spool) -> None:
    key = _key()
    _put(store, spool, key, b"bytes")
    store.move(key, "quarantine/" + key)
    with pytest.raises(BlobMissing):
        store.size(key)
    with store.open("quarantine/" + key) as file:
        assert file.read() == b"bytes"
    assert list(store.list("radiology/")) == []


def test_list_gives_all_keys_of_a_prefix_in_order(store: BlobStore, spool: Spool) -> None:
    keys = [_key(series, instance) for series in ("1.2", "1.2.5", "1.20") for instance in ("1.3", "1.30", "1.3.4")]
    keys += [instance_key("1.1", "1.2", "1.3", new_version_id()), instance_key("1.10", "1.2", "1.3", new_version_id())]
    for number, key in enumerate(keys):
        _put(store, spool, key, b"x" * number)
    found = list(store.list("radiology/"))
    assert [info.key for info in found] == sorted(keys)
    assert {info.key: info.size_bytes for info in found} == {key: number for number, key in enumerate(keys)}
    assert all(abs(datetime.now(UTC) - info.modified_at) < timedelta(minutes=1) for info in found)
    assert [info.key for info in store.list("radiology/1.1/1.2/")] == sorted(k for k in keys if k.startswith("radiology/1.1/1.2/"))
    assert [info.key for info in store.list("radiology/1.1/1.2")] == sorted(k for k in keys if k.startswith("radiology/1.1/1.2"))
    assert list(store.list("radiology/9/")) == []
    assert list(store.list("journal/")) == []


def test_put_refuses_a_key_that_leaves_its_folder(store: BlobStore, tmp_path: Path) -> None:
    for key in ("radiology/../../x", "/etc/x", "radiology//x", "radiology/.hidden/x", "a\\b/c", "plain"):
        with pytest.raises(ValueError, match="storage key"):
            store.put(tmp_path / "none", key)


def test_check_of_a_working_store_says_nothing(store: BlobStore) -> None:
    store.check()

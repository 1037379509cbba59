"""The sweep takes only what two sweeps an hour apart found unreferenced, and not before quarantine."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from pacslite.catalog.database import Catalog
from pacslite.catalog.models import blob, job
from pacslite.core.sweep import BETWEEN_SWEEPS_S, QUARANTINE_S, quarantine, sweep
from pacslite.errors import BlobMissing, StorageError
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.keys import blob_uid, instance_key, new_version_id

HOUR = 3600


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    return FilesystemStore(tmp_path / "storage")


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "sweep.json"


def _stored(store: FilesystemStore, age_s: float = 2 * HOUR, data: bytes = b"bytes") -> str:
    key = instance_key("1.1", "1.2", "1.3", new_version_id())
    source = store.root.parent / "source"
    source.write_bytes(data)
    store.put(source, key)
    os.utime(store.local_path(key), (time.time() - age_s,) * 2)
    return key


def _refer(catalog: Catalog, key: str, state: str = "live") -> None:
    row: dict[str, Any] = {
        "uid": blob_uid(key),
        "storage_key": key,
        "store_name": "filesystem",
        "size_bytes": 5,
        "sha256": "",
        "media_type": "application/dicom",
        "state": state,
        "created_at": "",
    }
    catalog.write(lambda conn: conn.execute(insert(blob).values(row)))


def test_two_sweeps_an_hour_apart_move_an_unreferenced_blob_to_quarantine(catalog: Catalog, store: FilesystemStore, memory: Path) -> None:
    orphan, kept, doomed = _stored(store), _stored(store), _stored(store)
    _refer(catalog, kept)
    _refer(catalog, doomed, "doomed")
    now = time.time()
    first = sweep(catalog, store, memory, now)
    assert (first.checked, first.candidates, first.quarantined) == (3, 1, ())
    assert sweep(catalog, store, memory, now + HOUR - 1).quarantined == ()
    assert sweep(catalog, store, memory, now + HOUR).quarantined == (orphan,)
    with pytest.raises(BlobMissing):
        store.size(orphan)
    assert store.size("quarantine/" + orphan) == 5
    assert store.size(kept) == store.size(doomed) == 5


def test_a_young_blob_is_no_candidate(catalog: Catalog, store: FilesystemStore, memory: Path) -> None:
    _stored(store, age_s=BETWEEN_SWEEPS_S - 60)
    assert sweep(catalog, store, memory).candidates == 0


def test_a_blob_recorded_between_two_sweeps_stays(catalog: Catalog, store: FilesystemStore, memory: Path) -> None:
    key, now = _stored(store), time.time()
    assert sweep(catalog, store, memory, now).candidates == 1
    _refer(catalog, key)
    assert sweep(catalog, store, memory, now + 2 * HOUR).quarantined == ()
    assert store.size(key) == 5


def test_a_blob_that_a_running_job_names_stays(catalog: Catalog, store: FilesystemStore, memory: Path) -> None:
    key, now = _stored(store), time.time()
    row = {"kind": "x", "state": "running", "payload": f'{{"key": "{key}"}}', "run_after_at": "", "created_at": "", "updated_at": ""}
    catalog.write(lambda conn: conn.execute(insert(job).values(row)))
    sweep(catalog, store, memory, now)
    assert sweep(catalog, store, memory, now + 2 * HOUR).quarantined == ()
    assert store.size(key) == 5


def test_a_row_that_comes_during_the_move_brings_the_bytes_back(
    catalog: Catalog, store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, real = _stored(store), store.move

    def move(source: str, target: str) -> None:
        real(source, target)
        if target.startswith("quarantine/"):
            _refer(catalog, key)

    monkeypatch.setattr(store, "move", move)
    assert not quarantine(catalog, store, key)
    assert store.size(key) == 5


def test_quarantine_is_erased_after_a_week_unless_a_row_names_it(catalog: Catalog, store: FilesystemStore, memory: Path) -> None:
    orphan, damaged = _stored(store), _stored(store)
    for key in (orphan, damaged):
        store.move(key, "quarantine/" + key)
    _refer(catalog, damaged, "quarantined")
    now = time.time()
    assert sweep(catalog, store, memory, now + QUARANTINE_S - 60).erased == 0
    assert sweep(catalog, store, memory, now + QUARANTINE_S + 60).erased == 1
    assert [info.key for info in store.list("quarantine/")] == ["quarantine/" + damaged]


def test_a_catalog_that_knows_little_of_the_storage_sweeps_nothing(
    catalog: Catalog, store: FilesystemStore, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacslite.core.sweep._MANY", 3)
    keys, now = [_stored(store) for _ in range(5)], time.time()
    _refer(catalog, keys[0])
    for at in (now, now + 2 * HOUR):
        with pytest.raises(StorageError, match=r"knows 1 of 5 .* reindex"):
            sweep(catalog, store, memory, at)
    assert len(list(store.list("radiology/"))) == 5


@pytest.mark.parametrize("content", ["", "{", "[]", '{"store": "another", "candidates": {"KEY": 0}}'])
def test_an_unreadable_or_foreign_memory_begins_the_wait_anew(store: FilesystemStore, memory: Path, tmp_path: Path, content: str) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'c.db'}")
    catalog.migrate()
    key = _stored(store)
    memory.write_text(content.replace("KEY", key))
    report = sweep(catalog, store, memory)
    assert (report.candidates, report.quarantined) == (1, ())
    catalog.close()

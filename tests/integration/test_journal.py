"""The journal holds every change once and in order, whatever crash happened while it was written."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from pacslite.catalog import changes
from pacslite.catalog.changes import Kind, Origin
from pacslite.catalog.database import Catalog
from pacslite.core import journal as journal_module
from pacslite.core.journal import Journal
from pacslite.errors import StorageError
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.keys import journal_key, new_version_id
from pacslite.storage.spool import Spool


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    return FilesystemStore(tmp_path / "storage")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def journal(store: FilesystemStore, spool: Spool) -> Journal:
    return Journal(store, spool)


def _happen(catalog: Catalog, *numbers: int) -> None:
    for number in numbers:
        catalog.write(partial(_add, number=number))


def _add(conn: Connection, number: int) -> int:
    at, uids = f"2026-01-01T00:00:00.{number:06}Z", ("1.1", "1.2", f"1.3.{number}")
    origin, detail = Origin("stow", actor="local", address="127.0.0.1"), {"größe": number}
    return changes.add(conn, Kind.INSTANCE_STORED, at, origin, uids=uids, version_number=number, blob_uid=f"b{number}", detail=detail)


def _numbers(journal: Journal) -> list[int]:
    return [entry["version_number"] for entry in journal.entries()]


def test_every_change_is_written_once_and_in_order(catalog: Catalog, journal: Journal, store: FilesystemStore, spool: Spool) -> None:
    _happen(catalog, 1, 2)
    assert journal.write_new(catalog) == 2
    assert journal.write_new(catalog) == 0
    _happen(catalog, 3)
    assert Journal(store, spool).write_new(catalog) == 1  # a worker that has started again
    assert _numbers(journal) == [1, 2, 3]
    entry = next(journal.entries())
    assert {name: entry[name] for name in ("kind", "sop_instance_uid", "blob_uid", "protocol", "actor", "detail")} == {
        "kind": "instance_stored",
        "sop_instance_uid": "1.3.1",
        "blob_uid": "b1",
        "protocol": "stow",
        "actor": "local",
        "detail": {"größe": 1},
    }


def test_many_changes_go_into_several_files(catalog: Catalog, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_LINES", 2)
    _happen(catalog, 1, 2, 3, 4, 5)
    assert journal.write_new(catalog) == 5
    assert _numbers(journal) == [1, 2, 3, 4, 5]


def test_the_changes_of_another_catalog_follow_as_a_generation_of_their_own(
    new_database: Callable[[], str], store: FilesystemStore, spool: Spool
) -> None:
    for first in (10, 20):
        catalog = Catalog(new_database())
        catalog.migrate()
        _happen(catalog, first, first + 1)
        Journal(store, spool).write_new(catalog)
        catalog.close()
    assert _numbers(Journal(store, spool)) == [10, 11, 20, 21]


def test_no_uid_is_in_a_key(catalog: Catalog, journal: Journal, store: FilesystemStore) -> None:
    _happen(catalog, 1)
    journal.write_new(catalog)
    assert all(re.fullmatch(r"journal/\d{8}/[0-9a-f-]{36}\.jsonl\.gz", info.key) for info in store.list("journal/"))


@pytest.mark.parametrize("survivors", [0, 1, 2, 3])
def test_joining_a_past_day_may_be_cut_off_anywhere(
    catalog: Catalog, journal: Journal, store: FilesystemStore, monkeypatch: pytest.MonkeyPatch, survivors: int
) -> None:
    for number in (1, 2, 3):
        _happen(catalog, number)
        journal.write_new(catalog)
    deletions = 3 - survivors

    def delete(key: str) -> None:
        nonlocal deletions
        if deletions == 0:
            raise StorageError("cut off")
        deletions -= 1
        FilesystemStore.delete(store, key)

    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", delete)
        if survivors:
            with pytest.raises(StorageError, match="cut off"):
                journal.join_past_days("99990101")
        else:
            assert journal.join_past_days("99990101") == 1
    assert len(list(store.list("journal/"))) == survivors + 1
    assert _numbers(journal) == [1, 2, 3]
    _happen(catalog, 4)
    assert Journal(store, Spool(store.root.parent / "spool")).write_new(catalog) == 1
    journal.join_past_days("99990101")
    assert _numbers(journal) == [1, 2, 3, 4]


def test_the_present_day_is_not_joined(catalog: Catalog, journal: Journal) -> None:
    for number in (1, 2):
        _happen(catalog, number)
        journal.write_new(catalog)
    assert journal.join_past_days() == 0


@pytest.mark.parametrize(
    "damage",
    [b"", b"no gzip", gzip.compress(b'{"seq":1', mtime=0), gzip.compress(json.dumps({"seq": 1}).encode(), mtime=0)[:-6]],
    ids=["empty", "no gzip", "no JSON", "cut off"],
)
def test_a_damaged_file_is_named(journal: Journal, store: FilesystemStore, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "file").write_bytes(damage)
    key = journal_key("20260101", new_version_id())
    store.put(tmp_path / "file", key)
    if damage:
        with pytest.raises(StorageError, match=key):
            list(journal.entries())
    else:
        assert list(journal.entries()) == []


def test_rewriting_leaves_one_generation(catalog: Catalog, journal: Journal, store: FilesystemStore, spool: Spool) -> None:
    _happen(catalog, 1, 2)
    journal.write_new(catalog)
    before = {entry["generation"] for entry in journal.entries()}
    journal.rewrite(catalog)
    assert _numbers(journal) == [1, 2]
    assert {entry["generation"] for entry in journal.entries()}.isdisjoint(before)
    assert Journal(store, spool).write_new(catalog) == 0

"""Old bytes move to an archive or are packed, are read as before with the same digest, and no crash loses them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import update

from pacslite.catalog import legal_holds
from pacslite.catalog.database import Catalog
from pacslite.catalog.models import blob
from pacslite.core import retrieve
from pacslite.core.content import pieces_of
from pacslite.core.conversion import Conversions
from pacslite.core.data_sets import open_data_sets
from pacslite.core.ingest import Ingest
from pacslite.core.relocation import Outcome, relocate
from pacslite.core.stocktaking import take_stock
from pacslite.core.sweep import quarantine
from pacslite.errors import BlobMissing, InvalidForm, PacsliteError, StorageError
from pacslite.settings import Settings
from pacslite.storage.blob_store import BlobStore
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.keys import PACKED, blob_uid
from pacslite.storage.s3 import S3Options, S3Store
from pacslite.storage.spool import Spool
from tests.support.archive import archive as over
from tests.support.archive import slice_of
from tests.support.data_sets import part10
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY
from tests.support.upkeep import GRACE_S, TEXT, Held


class Killed(Exception):
    """The process ends here."""


@pytest.fixture(params=["files to files", "files to s3, postgresql", "s3 to files"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Held]:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    catalog = Catalog(request.getfixturevalue("postgres").new_database() if "postgresql" in request.param else url)
    catalog.migrate()
    local, distant = FilesystemStore(tmp_path / "storage", "local"), FilesystemStore(tmp_path / "far", "far")
    pair: list[BlobStore] = [local, distant]
    if "s3" in request.param:
        options = S3Options(BUCKET, request.getfixturevalue("s3_endpoint"), None, ACCESS_KEY, SECRET_KEY, None, tmp_path.name)
        pair[1] = S3Store(options, "far")
        if request.param.startswith("s3"):
            pair = [S3Store(options, "local"), distant]
    yield Held(Settings(data=tmp_path, removal_grace_s=GRACE_S), catalog, pair[0], pair[1], Spool(tmp_path / "spool"))
    for store in pair:
        if isinstance(store, S3Store):
            store.close()
    catalog.close()


def test_old_bytes_move_to_the_archive_and_are_read_as_before(held: Held) -> None:
    uids = [held.add(), held.add(b"short")]
    dry = held.archive("far", dry_run=True)
    assert (dry.archived, dry.freed_bytes, held.row(uids[0]).store_name) == (2, len(TEXT) + 5, "local")
    assert held.archive("far", older_than_days=1).archived == 0
    report = held.archive("far")
    assert (report.archived, report.freed_bytes, report.skipped) == (2, len(TEXT) + 5, {})
    assert {held.row(uid).store_name for uid in uids} == {"far"}
    held.check_whole()
    assert held.archive("far").archived == 0
    # Whoever was told of the source still finds it; then it goes.
    assert held.store.size(held.row(uids[0]).storage_key) == len(TEXT)
    assert held.erase() == 2
    with pytest.raises(BlobMissing):
        held.store.size(held.row(uids[0]).storage_key)
    held.check_whole()


def test_bytes_are_packed_in_place_where_that_helps(held: Held) -> None:
    text, noise, short = held.add(), held.add(random.Random(1).randbytes(50_000)), held.add(b"short")
    report = held.archive()
    stored = held.row(text).stored_bytes or 0
    assert (report.archived, report.freed_bytes, report.skipped) == (1, len(TEXT) - stored, {"not_smaller": 1})
    assert held.row(text).storage_key.endswith(PACKED)
    assert 0 < stored < len(TEXT) / 10
    assert [held.row(uid).stored_bytes for uid in (noise, short)] == [None, None]
    held.check_whole()
    assert held.archive().skipped == {}  # what packing does not make smaller is not tried again
    held.erase()
    held.check_whole()
    assert held.archive("far").archived == 3
    held.erase()
    held.check_whole()
    assert held.row(text).storage_key.endswith(PACKED)


def test_bytes_that_come_back_to_where_they_were_are_not_erased_there(held: Held) -> None:
    uid = held.add()
    held.archive("far")
    assert held.archive("local").archived == 1
    assert held.row(uid).store_name == "local"
    held.erase()
    held.check_whole()
    assert held.archive("far").archived == 1
    held.erase()
    held.check_whole()


def test_only_what_is_meant_is_archived_and_nothing_that_is_on_hold(held: Held) -> None:
    kept = held.add(file_type="report", legal_hold=True)
    of_study = held.add(file_type="report", study_instance_uid="1.9")
    held.catalog.write(lambda conn: legal_holds.place(conn, legal_holds.Hold("1.9", "ann", "")))
    report, photo = held.add(file_type="report"), held.add(file_type="photo")
    done = held.archive("far", file_types=("report",))
    assert (done.archived, done.held) == (1, 2)
    assert {uid for uid in held.contents if held.row(uid).store_name == "far"} == {report}
    held.catalog.write(lambda conn: legal_holds.lift(conn, "1.9"))
    held.archive("far")
    assert {uid for uid in held.contents if held.row(uid).store_name == "far"} == {report, photo, of_study}
    assert held.row(kept).store_name == "local"
    with pytest.raises(InvalidForm, match="tape"):
        held.archive("tape")
    with pytest.raises(InvalidForm, match="film"):
        held.archive("far", file_types=("film",))


def test_damaged_bytes_are_not_archived(held: Held) -> None:
    uid = held.add()
    key = held.row(uid).storage_key
    held.store.delete(key)
    with held.spool.create() as writer:
        writer.write(TEXT[:-1] + b"?")
        held.store.put(writer.finish().path, key)
    assert held.archive("far").skipped == {"damaged": 1}
    assert held.archive().skipped == {"damaged": 1}
    assert held.row(uid).storage_key == key
    assert list(held.other.list("patients/")) == []


@pytest.mark.parametrize("held", ["files to files"], indirect=True)
@pytest.mark.parametrize("to", ["far", None])
@pytest.mark.parametrize("point", ["copying", "copied", "read back", "switched", "erasing"])
def test_a_crash_at_any_point_loses_nothing(held: Held, monkeypatch: pytest.MonkeyPatch, to: str | None, point: str) -> None:
    uid = held.add()
    target = held.other if to else held.store

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patched:
        if point == "copying":
            patched.setattr(target, "put", killed)
        elif point == "copied":
            patched.setattr("pacslite.core.relocation._is_whole", _second_time(killed) if to is None else killed)
        elif point == "read back":
            patched.setattr("pacslite.core.relocation._switch", killed)
        elif point == "switched":
            patched.setattr("pacslite.core.relocation.Relocated", killed)
        if point != "erasing":
            with pytest.raises(Killed):
                held.archive(to)
        else:
            held.archive(to)
            patched.setattr(held.store, "delete", killed)
            with pytest.raises(Killed):
                held.erase()
    assert held.read(uid) == TEXT
    for left in held.spool.directory.iterdir():
        left.unlink()  # swept by age
    held.archive(to)
    held.erase()
    held.check_whole()
    assert sum(1 for store in held.stores.all for _ in store.list("patients/")) == 1


def _second_time(then: Any) -> Any:
    from pacslite.core.relocation import _is_whole as real

    calls = []

    def second(*arguments: Any) -> Any:
        calls.append(arguments)
        return real(*arguments) if len(calls) == 1 else then()

    return second


def test_a_copy_that_a_crash_left_is_an_orphan_and_can_be_swept(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = held.add()
    with monkeypatch.context() as patched:
        patched.setattr("pacslite.core.relocation._switch", _raise)
        with pytest.raises(Killed):
            held.archive("far")
    key = held.row(uid).storage_key
    assert [found.row for found in take_stock(held.catalog, held.other)] == [None]
    assert not quarantine(held.catalog, held.store, key)
    assert quarantine(held.catalog, held.other, key)
    held.check_whole()


def _raise(*_: Any) -> None:
    raise Killed


def test_bytes_that_come_back_otherwise_than_they_went_are_not_switched_to(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    uid, real = held.add(), held.other.put

    def lossy(spool_file: Path, key: str) -> None:
        data = spool_file.read_bytes()
        spool_file.write_bytes(data[:-1] + b"?")
        real(spool_file, key)

    monkeypatch.setattr(held.other, "put", lossy)
    with pytest.raises(StorageError, match="other bytes"):
        held.archive("far")
    assert held.row(uid).store_name == "local"
    assert list(held.other.list("patients/")) == []


def test_a_blob_that_is_deleted_meanwhile_stays_deleted(held: Held) -> None:
    uid = held.add()
    row = held.row(uid)
    held.catalog.write(lambda conn: conn.execute(update(blob).where(blob.c.uid == uid).values(state="doomed", doomed_at="2020")))
    assert relocate(held, row, "far").outcome is Outcome.CHANGED
    assert list(held.other.list("patients/")) == []


def data_set_of(held: Held, item: retrieve.Item) -> bytes:
    """What a C-MOVE or C-GET would send."""
    ((_, opened),) = open_data_sets(held.stores, [(item, item.transfer_syntax_uid)], cast(Conversions, None))
    assert not isinstance(opened, PacsliteError), opened
    sent, room = b"", bytearray(1000)
    while not opened.finished:
        sent += room[: opened.read_into([memoryview(room)])]
    opened.close()
    assert len(sent) > item.size_bytes / 2
    return bytes(sent)


def test_instances_are_retrieved_from_the_archive_as_before(held: Held) -> None:
    of = over(held.settings.data, held.catalog, held.store)
    of = replace(of, ingest=Ingest(held.settings, held.catalog, held.store, held.spool, held.stores))
    data_set = slice_of("1.1", "1.1.1", "1.1.1.1", Modality="CT")
    of.accept(data_set)
    of.accept(slice_of("1.1", "1.1.2", "1.1.2.1", Modality="MR"))
    resource = retrieve.Resource("1.1", "1.1.1", "1.1.1.1")
    (before,) = retrieve.plan(held.catalog, resource)
    held.archive("far", modalities=("CT",))
    for _ in range(2):
        (item,) = retrieve.plan(held.catalog, resource)
        assert (item.sha256, item.size_bytes) == (before.sha256, before.size_bytes)
        assert b"".join(pieces_of(retrieve.stored(held.stores, item))) == part10(data_set)
        assert b"".join(pieces_of(retrieve.extent(held.stores, item, 128, 4))) == b"DICM"
        with retrieve.local_copy(held.stores, item, held.spool.directory) as path:
            assert path.read_bytes() == part10(data_set)
        assert len(retrieve.plan_whole(held.catalog, held.stores, retrieve.Resource("1.1"), 10)) == 2
        assert [len(b"".join(pieces_of(body))) for body in retrieve.stored_each(held.stores, [item])] == [item.size_bytes]
        assert part10(data_set).endswith(data_set_of(held, item))
        assert of.accept(data_set).outcome == "duplicate"
        held.erase()
        relocate(held, held.row(blob_uid(item.storage_key)), None)
    held.check_whole()
    stores = {item.sop_instance_uid: item.store_name for item in retrieve.plan(held.catalog, retrieve.Resource("1.1"))}
    assert stores == {"1.1.1.1": "far", "1.1.2.1": "local"}

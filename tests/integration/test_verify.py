"""Verification finds every row without its bytes, and nothing that is well."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from pacslite.catalog.changes import Origin
from pacslite.catalog.database import Catalog
from pacslite.catalog.models import metadata
from pacslite.core.erasure import erase_doomed
from pacslite.core.ingest import read_limits
from pacslite.core.removal import Target, remove
from pacslite.core.verify import Problem, Verifier, VerifyReport
from pacslite.errors import BlobMissing
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.s3 import S3Options, S3Store
from tests.support.archive import Archive, archive, slice_of
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY


@pytest.fixture(params=["filesystem", "s3"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    catalog.migrate()
    if request.param == "filesystem":
        yield archive(tmp_path / "data", catalog, FilesystemStore(tmp_path / "storage"))
    else:
        options = S3Options(BUCKET, request.getfixturevalue("s3_endpoint"), None, ACCESS_KEY, SECRET_KEY, None, tmp_path.name)
        store = S3Store(options)
        yield archive(tmp_path / "data", catalog, store)
        store.close()
    catalog.close()


def _verify(held: Archive, *, deep: bool = False, repair: bool = False, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    limits = read_limits(held.settings, held.spool.directory)
    return Verifier(held.catalog, held.stores, held.spool, limits).run(deep=deep, repair=repair, progress=progress)


def _keys(held: Archive, count: int = 4) -> list[str]:
    return [held.key_of(held.accept(slice_of("1.1", "1.1.1", f"1.1.1.{number}"))) for number in range(count)]


def _replace(held: Archive, tmp_path: Path, key: str, data: bytes) -> None:
    held.store.delete(key)
    (tmp_path / "source").write_bytes(data)
    held.store.put(tmp_path / "source", key)


def _bytes(held: Archive, key: str) -> bytes:
    with held.store.open(key) as stream:
        return stream.read()


@pytest.mark.parametrize("deep", [False, True])
def test_what_is_whole_is_told_as_whole(held: Archive, deep: bool) -> None:
    _keys(held)
    told: list[tuple[int, int]] = []
    report = _verify(held, deep=deep, progress=lambda done, total: told.append((done, total)))
    assert (report.checked, report.is_whole, report.orphan_count) == (4, True, 0)
    assert told[-1] == (4, 4)
    assert list(held.spool.directory.iterdir()) == []


def test_missing_and_cut_bytes_are_found_by_a_quick_look_and_changed_ones_by_a_deep_one(held: Archive, tmp_path: Path) -> None:
    missing, cut, changed, _ = _keys(held)
    held.store.delete(missing)
    _replace(held, tmp_path, cut, _bytes(held, cut)[:-2])
    _replace(held, tmp_path, changed, _bytes(held, changed)[:-2] + b"\xff\xff")
    quick, deep = _verify(held), _verify(held, deep=True)
    assert {d.key: d.problem for d in quick.damaged} == {missing: Problem.MISSING, cut: Problem.SIZE}
    assert {d.key: d.problem for d in deep.damaged} == {missing: Problem.MISSING, cut: Problem.SIZE, changed: Problem.HASH}
    assert {d.key: d.sop_instance_uid for d in deep.damaged} == {missing: "1.1.1.0", cut: "1.1.1.1", changed: "1.1.1.2"}
    assert not quick.is_whole


def test_repaired_damage_is_put_aside_and_whole_again_when_sent_again(held: Archive, tmp_path: Path) -> None:
    keys = _keys(held)
    held.store.delete(keys[0])
    _replace(held, tmp_path, keys[1], _bytes(held, keys[1])[:-2] + b"\xff\xff")
    assert _verify(held, deep=True, repair=True).repaired_count == 2
    assert held.store.size("quarantine/" + keys[1]) > 0
    with pytest.raises(BlobMissing):
        held.store.size(keys[1])
    assert [d.key for d in _verify(held).damaged] == keys[:2]
    for number in range(2):
        assert held.accept(slice_of("1.1", "1.1.1", f"1.1.1.{number}")).outcome == "repaired"
    assert _verify(held, deep=True).is_whole


def test_a_catalog_that_names_other_bytes_than_it_describes_is_found(held: Archive, tmp_path: Path) -> None:
    keys = _keys(held, 2)
    held.catalog.write(lambda conn: conn.execute(update(metadata).where(metadata.c.version_pk == 1).values(json=b"damaged")))
    report = _verify(held, deep=True, repair=True)
    assert [(d.key, d.problem) for d in report.damaged] == [(keys[0], Problem.HEADER)]
    assert report.repaired_count == 0
    assert held.store.size(keys[0]) > 0


def test_deleted_instances_are_neither_damage_nor_orphans_until_and_after_they_are_erased(held: Archive) -> None:
    keys = _keys(held)
    remove(held.catalog, Target("1.1", "1.1.1", "1.1.1.0"), Origin("api"))
    for erased in (0, 1):
        report = _verify(held, deep=True)
        assert (report.checked, report.is_whole, report.orphan_count) == (3, True, 0)
        assert erase_doomed(held.catalog, held.store, grace_s=-1) == 1 - erased
    with pytest.raises(BlobMissing):
        held.store.size(keys[0])


def test_nothing_is_erased_within_the_time_of_grace(held: Archive) -> None:
    keys = _keys(held, 1)
    remove(held.catalog, Target("1.1"), Origin("api"))
    assert erase_doomed(held.catalog, held.store, grace_s=60) == 0
    assert held.store.size(keys[0]) > 0


def test_old_bytes_without_a_row_are_orphans_and_repair_quarantines_them(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    catalog.migrate()
    held = archive(tmp_path / "data", catalog, FilesystemStore(tmp_path / "storage"))
    kept = _keys(held, 1)[0]
    orphans = ["radiology/1.1/1.2/1.3/0190a5e0-0000-7000-8000-000000000000.dcm", "radiology/9.9/odd.dcm"]
    for key in (*orphans, young := "radiology/1.1/1.2/1.3/0190a5e0-0000-7000-8000-000000000001.dcm"):
        (tmp_path / "source").write_bytes(b"bytes")
        held.store.put(tmp_path / "source", key)
        if key != young:
            os.utime(tmp_path / "storage" / key, (time.time() - 7200,) * 2)
    report = _verify(held)
    assert ([(o.key, o.size_bytes) for o in report.orphans], report.is_whole) == ([(key, 5) for key in orphans], True)
    assert _verify(held, repair=True).repaired_count == 2
    assert [info.key for info in held.store.list("radiology/")] == sorted([kept, young])
    assert _verify(held).orphan_count == 0
    catalog.close()


def test_an_instance_that_is_deleted_while_its_bytes_are_read_is_no_damage(held: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, real = _keys(held, 2), held.store.open

    def deleted_meanwhile(key: str, *rest: int) -> object:
        if key == keys[0]:
            remove(held.catalog, Target("1.1", "1.1.1", "1.1.1.0"), Origin("api"))
            erase_doomed(held.catalog, held.store, grace_s=-1)
        return real(key, *rest)

    monkeypatch.setattr(held.store, "open", deleted_meanwhile)
    assert _verify(held, deep=True).is_whole

"""What was deleted comes back within the time of grace as it was, and never when its bytes may be erased."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pacslite.catalog import inventory
from pacslite.catalog.changes import Origin
from pacslite.catalog.database import Catalog
from pacslite.catalog.statements import now_text
from pacslite.core import restoration
from pacslite.core.erasure import erase_doomed
from pacslite.core.journal import Journal
from pacslite.core.reindex import reindex
from pacslite.core.removal import Target, remove
from pacslite.core.restoration import Undeleted, undelete
from pacslite.core.verify import Verifier
from pacslite.errors import Busy, Gone, NotFound
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.s3 import S3Options, S3Store
from tests.support.archive import Archive, archive, slice_of
from tests.support.catalog_dump import dump
from tests.support.data_sets import part10
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, serve_s3

DOCTOR, ADMIN = Origin("dicomweb", actor="doctor"), Origin("api", actor="admin")
STUDY, SERIES, INSTANCE = Target("1.1"), Target("1.1", "1.1.1"), Target("1.1", "1.1.1", "1.1.1.1")
OF_THE_TIME = {"created_at", "updated_at", "change_seq", "author"}
LATE = datetime.now(UTC) + timedelta(days=2)


@pytest.fixture
def held(tmp_path: Path, catalog: Catalog) -> Archive:
    """A study of a series of two instances, the first with two versions, and a series of one."""
    made = archive(tmp_path / "data", catalog, FilesystemStore(tmp_path / "storage"))
    fill(made)
    return made


def fill(made: Archive) -> None:
    made.accept(slice_of("1.1", "1.1.1", "1.1.1.1", StudyDescription="first"))
    made.accept(slice_of("1.1", "1.1.1", "1.1.1.2", StudyDescription="first"))
    made.accept(slice_of("1.1", "1.1.2", "1.1.2.1", Modality="MR"))
    made.accept(slice_of("1.1", "1.1.1", "1.1.1.1", StudyDescription="second", PatientName="Ärztin^Ada"))


def told(of: Archive) -> dict[str, list[dict[str, Any]]]:
    """What the catalog says, but for when and by whom."""
    tables = {name: rows for name, rows in dump(of.catalog).items() if name not in ("change", "tombstone")}
    return {name: [{k: v for k, v in row.items() if k not in OF_THE_TIME} for row in rows] for name, rows in tables.items()}


def is_whole(of: Archive) -> bool:
    report = Verifier(of.catalog, of.stores, of.spool, of.ingest._limits).run(deep=True)
    return report.is_whole and not report.orphan_count


@pytest.mark.parametrize(
    ("target", "count"),
    [(STUDY, Undeleted(3, 4)), (SERIES, Undeleted(2, 3)), (INSTANCE, Undeleted(1, 2))],
)
def test_what_was_deleted_comes_back_as_it_was_with_all_its_versions(held: Archive, target: Target, count: Undeleted) -> None:
    before = told(held)
    for _ in range(2):
        remove(held.catalog, target, DOCTOR)
        assert told(held) != before
        assert undelete(held, target, ADMIN) == count
        assert told(held) == before
        assert undelete(held, target, ADMIN) == Undeleted()
    # Nothing of it is erased any more.
    assert erase_doomed(held.catalog, held.store, grace_s=-1) == 0
    assert is_whole(held)


def test_bytes_in_an_object_store_come_back_too(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    catalog.migrate()
    with serve_s3(tmp_path / "s3") as server:
        store = S3Store(S3Options(BUCKET, server.endpoint, None, ACCESS_KEY, SECRET_KEY, None, ""))
        made = archive(tmp_path / "data", catalog, store)
        fill(made)
        before = told(made)
        remove(catalog, STUDY, DOCTOR)
        assert undelete(made, STUDY, ADMIN) == Undeleted(3, 4)
        assert told(made) == before
        assert is_whole(made)
        assert not list((tmp_path / "data" / "spool").iterdir())
        store.close()
    catalog.close()


def test_after_the_time_of_grace_it_is_gone_erased_or_not(held: Archive) -> None:
    remove(held.catalog, STUDY, DOCTOR)
    for target in (STUDY, SERIES, INSTANCE):
        with pytest.raises(Gone):
            undelete(held, target, ADMIN, now=LATE)
    assert erase_doomed(held.catalog, held.store, grace_s=-1) == 4
    with pytest.raises(Gone):
        undelete(held, STUDY, ADMIN)


def test_what_never_was_is_not_found_and_what_is_there_stays(held: Archive) -> None:
    before = dump(held.catalog)
    with pytest.raises(NotFound):
        undelete(held, Target("7.7"), ADMIN)
    assert undelete(held, STUDY, ADMIN) == Undeleted()
    assert dump(held.catalog) == before


@pytest.mark.parametrize("claimed", [1, 4])
def test_bytes_that_are_claimed_by_their_erasure_do_not_come_back(held: Archive, monkeypatch: pytest.MonkeyPatch, claimed: int) -> None:
    remove(held.catalog, STUDY, DOCTOR)
    real = restoration._read

    def erasure_begins(*arguments: Any) -> Any:
        held.catalog.write(lambda conn: inventory.claim_doomed(conn, now_text(), held.store.name, claimed))
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(restoration, "_read", erasure_begins)
        if claimed == 1:
            assert undelete(held, STUDY, ADMIN) == Undeleted(3, 3, lost=1)
        else:
            with pytest.raises(Gone):
                undelete(held, STUDY, ADMIN)
    # What a crash has left claimed is erased by the next run, whatever its time of grace.
    assert erase_doomed(held.catalog, held.store, grace_s=3600) == claimed
    assert is_whole(held)


def test_an_instance_that_arrived_anew_stays_as_it_is(held: Archive) -> None:
    remove(held.catalog, STUDY, DOCTOR)
    held.accept(slice_of("1.1", "1.1.1", "1.1.1.1", StudyDescription="third"))
    assert undelete(held, STUDY, ADMIN) == Undeleted(2, 2, arrived_anew=1)
    numbers = [(row["instance_pk"][1], row["number"]) for row in dump(held.catalog)["version"]]
    assert sorted(numbers) == [("1.1.1.1", 1), ("1.1.1.2", 1), ("1.1.2.1", 1)]
    assert is_whole(held)


def test_a_study_comes_back_as_it_was_before_it_was_deleted_as_a_whole(held: Archive) -> None:
    remove(held.catalog, INSTANCE, DOCTOR)
    before = told(held)["instance"]
    remove(held.catalog, STUDY, DOCTOR)
    assert undelete(held, STUDY, ADMIN) == Undeleted(2, 2)
    assert told(held)["instance"] == before
    assert undelete(held, INSTANCE, ADMIN) == Undeleted(1, 2)


def test_a_study_that_was_deleted_part_by_part_comes_back_whole(held: Archive) -> None:
    before = told(held)
    remove(held.catalog, INSTANCE, DOCTOR)
    remove(held.catalog, Target("1.1", "1.1.2"), DOCTOR)
    remove(held.catalog, Target("1.1", "1.1.1", "1.1.1.2"), DOCTOR)
    assert undelete(held, STUDY, ADMIN) == Undeleted(3, 4)
    assert [(row["sop_instance_uid"], row["version_number"]) for row in told(held)["instance"]] == [
        (row["sop_instance_uid"], row["version_number"]) for row in before["instance"]
    ]


def test_a_part_of_a_deleted_study_comes_back_alone(held: Archive) -> None:
    remove(held.catalog, STUDY, DOCTOR)
    assert undelete(held, Target("1.1", "1.1.2"), ADMIN) == Undeleted(1, 1)
    assert undelete(held, INSTANCE, ADMIN) == Undeleted(1, 2)
    assert undelete(held, STUDY, ADMIN) == Undeleted(1, 1)


def test_of_several_deletions_of_an_instance_the_last_one_is_undone(held: Archive) -> None:
    remove(held.catalog, INSTANCE, DOCTOR)
    held.accept(slice_of("1.1", "1.1.1", "1.1.1.1", StudyDescription="third"))
    before = told(held)["version"]
    remove(held.catalog, STUDY, DOCTOR)
    assert undelete(held, SERIES, ADMIN) == Undeleted(2, 2)
    assert undelete(held, STUDY, ADMIN) == Undeleted(1, 1)
    assert told(held)["version"] == before


def test_damaged_and_missing_bytes_are_counted_and_the_rest_comes_back(held: Archive, tmp_path: Path) -> None:
    keys = sorted(info.key for info in held.store.list("radiology/"))
    remove(held.catalog, STUDY, DOCTOR)
    (tmp_path / "storage" / keys[2]).write_bytes(part10(slice_of("1.1", "1.1.1", "1.1.1.2")))
    held.store.delete(keys[3])
    assert undelete(held, STUDY, ADMIN) == Undeleted(1, 2, lost=2)


def test_an_undeletion_that_breaks_off_goes_on_when_asked_again(held: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    before = told(held)
    remove(held.catalog, STUDY, DOCTOR)
    real, writes = held.catalog.write, 0

    def breaks(*arguments: Any) -> Any:
        nonlocal writes
        writes += 1
        if writes > 1:
            raise Busy("no turn")
        return real(*arguments)

    monkeypatch.setattr(restoration, "_BATCH", 1)
    with monkeypatch.context() as broken:
        broken.setattr(held.catalog, "write", breaks)
        with pytest.raises(Busy):
            undelete(held, STUDY, ADMIN)
    assert undelete(held, STUDY, ADMIN).instances == 2
    assert told(held)["version"] == before["version"]


def test_a_catalog_made_anew_knows_deletions_and_undeletions(
    held: Archive, new_database: Callable[[], str], tmp_path: Path, new_catalogs: list[Catalog]
) -> None:
    remove(held.catalog, STUDY, DOCTOR)
    undelete(held, STUDY, ADMIN)
    remove(held.catalog, INSTANCE, DOCTOR)
    Journal(held.store, held.spool).write_new(held.catalog)
    before = dump(held.catalog)
    new_catalogs.append(Catalog(new_database(), pool_size=4))
    new_catalogs[0].migrate()
    new = archive(tmp_path / "new", new_catalogs[0], held.store)
    report = reindex(new)
    after = dump(new.catalog)
    for table in before:
        assert after[table] == before[table], table
    assert (report.refused, report.missing, report.not_journaled) == ([], [], [])
    assert undelete(new, INSTANCE, ADMIN) == Undeleted(1, 2)


@pytest.fixture
def new_catalogs() -> Iterator[list[Catalog]]:
    """Closed at the end."""
    made: list[Catalog] = []
    yield made
    for catalog in made:
        catalog.close()

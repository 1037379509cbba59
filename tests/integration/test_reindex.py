"""The catalog made anew from the storage alone is the catalog that was lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacslite.catalog import inventory
from pacslite.catalog.changes import Origin
from pacslite.core.erasure import erase_doomed
from pacslite.core.journal import Journal
from pacslite.core.reindex import reindex
from pacslite.core.removal import Target, remove
from pacslite.core.sweep import sweep
from pacslite.core.verify import Verifier
from pacslite.errors import StorageError
from tests.support.archive import Archive, slice_of
from tests.support.catalog_dump import dump
from tests.support.rebuilding import Empty

DIMSE = Origin("dimse", calling_aet="MODALITY", address="10.0.0.1", association_id="a7")


def _live(old: Archive) -> None:
    """A life: two patients, three studies, versions, a conflict, a correction of a name, a duplicate, deletions, a repair."""
    for number in range(1, 4):
        old.accept(slice_of("1.1", "1.1.1", f"1.1.1.{number}", PatientID="A", PatientName="Ärztin^Ada"), DIMSE)
    old.accept(slice_of("1.1", "1.1.2", "1.1.2.1", PatientID="A", Modality="MR", SeriesDescription="first"))
    old.accept(slice_of("1.1", "1.1.2", "1.1.2.1", PatientID="A", Modality="MR", SeriesDescription="second"))
    old.accept(slice_of("1.2", "1.2.1", "1.2.1.1", PatientID="", PatientName="Nobody"))
    old.accept(slice_of("1.2", "1.2.1", "1.1.1.1", PatientID="B"))
    old.accept(slice_of("1.3", "1.3.1", "1.3.1.1", PatientID="A", PatientName="Arzt^Ada"))
    old.accept(slice_of("1.3", "1.3.1", "1.3.1.1", PatientID="A", PatientName="Arzt^Ada"))
    old.accept(slice_of("1.4", "1.4.1", "1.4.1.1", PatientID="C"))
    remove(old.catalog, Target("1.4"), Origin("api", actor="admin"))
    remove(old.catalog, Target("1.1", "1.1.1", "1.1.1.2"), Origin("api", actor="admin"))
    broken = old.key_of(old.accept(slice_of("1.3", "1.3.1", "1.3.1.2", PatientID="A")))
    old.store.delete(broken)
    old.accept(slice_of("1.3", "1.3.1", "1.3.1.2", PatientID="A"))


def test_the_rebuilt_catalog_says_what_the_lost_one_said(anywhere: Archive, empty: Empty) -> None:
    _live(anywhere)
    Journal(anywhere.store, anywhere.spool).write_new(anywhere.catalog)
    before = dump(anywhere.catalog, numbers=True)
    assert len(before["study"]) == 3
    assert {row["kind"] for row in before["change"]} >= {"version_added", "instance_repaired", "study_deleted", "patient_updated"}
    new = empty(anywhere)
    report = reindex(new)
    after = dump(new.catalog, numbers=True)
    for table in before:
        assert after[table] == before[table], table
    assert (report.refused, report.missing, report.not_journaled, report.deleted) == ([], [], [], 2)
    assert Verifier(new.catalog, new.stores, new.spool, new.ingest._limits).run(deep=True).is_whole
    assert Journal(new.store, new.spool).write_new(new.catalog) == 0


def test_without_a_journal_versions_come_in_the_order_of_their_ids(local: Archive, empty: Empty, tmp_path: Path) -> None:
    _live(local)
    for study in ("1.2", "1.3", "1.1"):
        local.accept(slice_of(study, f"{study}.0", f"{study}.0.1", PatientID="Z", StudyDescription="last"))
    before = dump(local.catalog)
    new = empty(local)
    report = reindex(new)
    after = dump(new.catalog)

    def versions(tables: dict[str, list[dict[str, object]]], live: set[object]) -> list[tuple[object, ...]]:
        return [(row["instance_pk"], row["number"], row["blob_pk"]) for row in tables["version"] if row["blob_pk"] in live]

    live = {(row["uid"],) for row in before["blob"] if row["state"] == "live"}
    assert versions(after, live) == versions(before, live)
    # What was deleted and not erased yet is there again: only the catalog knew. It is listed, like all the rest.
    assert report.recorded == len(report.not_journaled) == len(live) + 2
    described = {row["study_instance_uid"]: row["study_description"] for row in after["study"]}
    assert described == {"1.1": "last", "1.2": "last", "1.3": "last", "1.4": None}


def test_reindexing_in_place_keeps_what_the_journal_had_not_reached(local: Archive) -> None:
    _live(local)
    before = dump(local.catalog)
    reindex(local)
    after = dump(local.catalog)
    assert after["version"] == before["version"]
    assert after["change"] == before["change"]
    assert after["tombstone"] == before["tombstone"]


def test_a_deletion_whose_bytes_are_erased_stays_a_deletion(local: Archive, empty: Empty) -> None:
    _live(local)
    assert erase_doomed(local.catalog, local.store, grace_s=-1) == 3
    Journal(local.store, local.spool).write_new(local.catalog)
    before = dump(local.catalog)
    new = empty(local)
    report = reindex(new)
    assert dump(new.catalog)["tombstone"] == before["tombstone"]
    assert dump(new.catalog)["version"] == before["version"]
    assert report.missing == []


def test_bytes_the_journal_tells_of_that_are_gone_are_listed(local: Archive, empty: Empty) -> None:
    _live(local)
    key = local.key_of(local.accept(slice_of("1.1", "1.1.1", "1.1.1.8", PatientID="A")))
    Journal(local.store, local.spool).write_new(local.catalog)
    local.store.delete(key)
    new = empty(local)
    assert reindex(new).missing == [key]


def test_a_later_version_keeps_its_number_when_an_earlier_one_is_lost(local: Archive, empty: Empty, tmp_path: Path) -> None:
    first = local.key_of(local.accept(slice_of("1.1", "1.2", "1.3", StudyDescription="one")))
    local.accept(slice_of("1.1", "1.2", "1.3", StudyDescription="two"))
    Journal(local.store, local.spool).write_new(local.catalog)
    local.store.delete(first)
    new = empty(local)
    reindex(new)
    assert [row["number"] for row in dump(new.catalog)["version"]] == [2]


def test_damaged_bytes_are_recorded_as_they_should_be_and_told(local: Archive, empty: Empty) -> None:
    key = local.key_of(local.accept(slice_of("1.1", "1.2", "1.3")))
    Journal(local.store, local.spool).write_new(local.catalog)
    path = local.store.local_path(key)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-2] + b"\xff\xff")
    new = empty(local)
    assert [refused for refused, _ in reindex(new).refused] == [key]
    assert [d.problem for d in Verifier(new.catalog, new.stores, new.spool, new.ingest._limits).run(deep=True).damaged] == ["hash"]
    assert new.accept(slice_of("1.1", "1.2", "1.3")).outcome == "repaired"


def test_what_is_no_instance_is_refused_and_the_rest_goes_on(local: Archive, tmp_path: Path) -> None:
    good = local.accept(slice_of("1.1", "1.2", "1.3"))
    keys = [
        "radiology/1.1/1.2/1.3/no-version.dcm",
        "radiology/1.1/1.2/1.9/0190a5e0-0000-7000-8000-000000000000.dcm",
        "radiology/1.1/1.2/1.8/0190a5e0-0000-7000-8000-000000000001.dcm",
    ]
    path = local.store.local_path(local.key_of(good))
    assert path is not None
    for key, content in zip(keys, [b"x", b"no DICOM", None], strict=True):
        source = tmp_path / "source"
        source.write_bytes(path.read_bytes() if content is None else content)
        local.store.put(source, key)
    report = reindex(local)
    reasons = dict(report.refused)
    assert sorted(reasons) == sorted(keys)
    assert "another instance" in reasons[keys[2]]
    assert report.recorded == 1


def test_an_unacknowledged_copy_is_left_to_the_sweep(local: Archive, tmp_path: Path) -> None:
    good = local.accept(slice_of("1.1", "1.2", "1.3"))
    path = local.store.local_path(local.key_of(good))
    assert path is not None
    (tmp_path / "source").write_bytes(path.read_bytes())
    local.store.put(tmp_path / "source", "radiology/1.1/1.2/1.3/0190a5e0-0000-7000-8000-000000000001.dcm")
    report = reindex(local)
    assert (report.recorded, report.copies) == (1, 1)


def test_a_rebuild_that_was_cut_off_begins_again_and_nothing_is_swept_meanwhile(
    local: Archive, empty: Empty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _live(local)
    Journal(local.store, local.spool).write_new(local.catalog)
    before = dump(local.catalog)
    new = empty(local)
    with monkeypatch.context() as patch:
        patch.setattr("pacslite.core.reindex._take", lambda *_: (_ for _ in ()).throw(StorageError("cut off")))
        local.store.put(_file(tmp_path, b"x"), "radiology/1.1/1.2/1.9/0190a5e0-0000-7000-8000-000000000000.dcm")
        with pytest.raises(StorageError, match="cut off"):
            reindex(new)
    with new.catalog.read() as conn:
        assert inventory.is_rebuilding(conn)
    with pytest.raises(StorageError, match="not rebuilt"):
        sweep(new.catalog, new.store, tmp_path / "sweep.json")
    reindex(new)
    assert dump(new.catalog)["version"] == before["version"]
    with new.catalog.read() as conn:
        assert not inventory.is_rebuilding(conn)


def _file(directory: Path, content: bytes) -> Path:
    path = directory / "file"
    path.write_bytes(content)
    return path


def test_progress_reaches_its_total(local: Archive) -> None:
    _live(local)
    told: list[tuple[int, int]] = []
    reindex(local, lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] == len(list(local.store.list("radiology/")))


def test_peers_stay(local: Archive) -> None:
    from sqlalchemy import insert

    from pacslite.catalog.models import peer

    row = {"ae_title": "X", "host": "h", "port": 104, "created_at": "", "updated_at": ""}
    local.catalog.write(lambda conn: conn.execute(insert(peer).values(row)))
    reindex(local)
    assert [row["ae_title"] for row in dump(local.catalog)["peer"]] == ["X"]

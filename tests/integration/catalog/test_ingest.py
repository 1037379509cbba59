"""What `Ingest.accept` makes of instances that are new, known, changed, damaged, raced or refused."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from sqlalchemy import update

from pacslite.catalog import instances, models
from pacslite.catalog.database import Catalog
from pacslite.core.ingest import Accepted, Expected, Ingest
from pacslite.core.removal import Target, remove
from pacslite.errors import (
    Busy,
    DuplicateRefused,
    MissingAttribute,
    NotDicom,
    OutcomeUnknown,
    OutOfSpace,
    SopClassMismatch,
    SopInstanceMismatch,
    StudyMismatch,
    TooManyVersions,
    TruncatedDataSet,
)
from pacslite.settings import Settings
from pacslite.storage.blob_store import BlobStore, Placing
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.spool import Spool, SpoolFile
from tests.integration.catalog.test_record import count, rows
from tests.support.arrivals import ORIGIN
from tests.support.data_sets import image, part10


class Bench:
    """An ingest over a catalog, a store and a spool of its own."""

    def __init__(self, catalog: Catalog, directory: Path) -> None:
        self.catalog = catalog
        self.directory = directory
        self.spool = Spool(directory / "spool")
        self.store = FilesystemStore(directory / "storage")
        self.ingest = self.with_settings()

    def with_settings(self, **changed: Any) -> Ingest:
        return Ingest(replace(Settings(data=self.directory), **changed), self.catalog, self.store, self.spool)

    def spooled(self, data: bytes) -> SpoolFile:
        with self.spool.create(".dcm") as writer:
            writer.write(data)
            return writer.finish()

    def send(self, what: Dataset | bytes, expected: Expected | None = None, ingest: Ingest | None = None) -> Accepted:
        data = what if isinstance(what, bytes) else part10(what)
        return (ingest or self.ingest).accept(self.spooled(data), ORIGIN, expected or Expected())

    @property
    def files(self) -> list[Path]:
        return sorted(p for p in (self.directory / "storage").rglob("*") if p.is_file())

    @property
    def left_in_spool(self) -> list[Path]:
        return list((self.directory / "spool").iterdir())

    def assert_nothing_kept(self) -> None:
        assert (self.files, self.left_in_spool, count(self.catalog, models.instance), count(self.catalog, models.blob)) == ([], [], 0, 0)


@pytest.fixture
def bench(catalog: Catalog, tmp_path: Path) -> Bench:
    return Bench(catalog, tmp_path)


def changed(ds: Dataset) -> Dataset:
    other = copy.deepcopy(ds)
    other.SeriesDescription = "changed"
    return other


def test_a_new_instance_is_stored_byte_by_byte_with_its_attributes(bench: Bench) -> None:
    ds = image()
    ds.PatientName = "Test^Patient"
    data = part10(ds)
    accepted = bench.send(data)
    assert (accepted.outcome, accepted.version_number, accepted.sop_instance_uid) == ("stored", 1, ds.SOPInstanceUID)
    assert [p.read_bytes() for p in bench.files] == [data]
    assert bench.left_in_spool == []
    assert rows(bench.catalog, models.patient, "patient_id", "patient_name_alphabetic") == [("T-1", "test^patient")]
    assert rows(bench.catalog, models.instance, "rows", "columns", "bits_allocated") == [("4", "6", "16")]
    assert all(rows(bench.catalog, models.metadata, "frame_index"))


def test_request_attributes_are_indexed(bench: Bench) -> None:
    ds, item = image(), Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID = "SPS", "RP"
    ds.RequestAttributesSequence = [item]
    bench.send(ds)
    assert rows(bench.catalog, models.request_attribute, "scheduled_procedure_step_id", "requested_procedure_id") == [("SPS", "RP")]


def test_the_same_instance_again_is_success_and_stores_nothing(bench: Bench) -> None:
    ds = image()
    bench.send(ds)
    assert bench.send(ds).outcome == "duplicate"
    assert len(bench.files) == count(bench.catalog, models.change) == 1


def test_other_file_meta_is_the_same_instance(bench: Bench) -> None:
    data = part10(image())
    bench.send(data)
    assert bench.send(b"\1" * 128 + data[128:]).outcome == "duplicate"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_the_same_data_set_in_another_native_syntax_is_the_same_instance(bench: Bench, syntax: str) -> None:
    ds = image()
    bench.send(ds)
    assert bench.send(part10(ds, syntax)).outcome == "duplicate"
    assert len(bench.files) == 1


def erase(bench: Bench) -> None:
    bench.files[0].unlink()


def cut(bench: Bench) -> None:
    bench.files[0].write_bytes(bench.files[0].read_bytes()[:-1])


def flip(bench: Bench) -> None:
    data = bytearray(bench.files[0].read_bytes())
    data[-1] ^= 1
    bench.files[0].write_bytes(data)


def quarantine(bench: Bench) -> None:
    bench.catalog.write(lambda conn: conn.execute(update(models.blob).values(state="quarantined")))


@pytest.mark.parametrize("damage", [erase, cut, flip, quarantine])
def test_damaged_bytes_are_whole_again_when_the_instance_is_sent_again(bench: Bench, damage: Callable[[Bench], None]) -> None:
    data = part10(image())
    bench.send(data)
    damage(bench)
    assert bench.send(data).outcome == "repaired"
    with bench.catalog.read() as conn:
        key = conn.execute(models.blob.select().where(models.blob.c.state == "live")).one().storage_key
    with bench.store.open(key) as stored:
        assert stored.read() == data
    assert rows(bench.catalog, models.version, "number") == [1]
    assert bench.send(data).outcome == "duplicate"


def test_other_content_becomes_a_new_version_and_the_old_one_is_kept(bench: Bench) -> None:
    ds = image()
    bench.send(ds)
    accepted = bench.send(changed(ds))
    assert (accepted.outcome, accepted.version_number) == ("new_version", 2)
    assert len(bench.files) == 2
    assert rows(bench.catalog, models.series, "series_description", "number_of_series_related_instances") == [("changed", 1)]


def test_policy_refuse_keeps_the_first_and_says_so(bench: Bench) -> None:
    ds, ingest = image(), bench.with_settings(duplicate_policy="refuse")
    bench.send(ds, ingest=ingest)
    with pytest.raises(DuplicateRefused):
        bench.send(changed(ds), ingest=ingest)
    assert bench.send(ds, ingest=ingest).outcome == "duplicate"
    assert len(bench.files) == 1
    assert bench.left_in_spool == []


def test_policy_keep_first_is_success_unless_the_first_is_damaged(bench: Bench) -> None:
    ds, ingest = image(), bench.with_settings(duplicate_policy="keep_first")
    bench.send(ds, ingest=ingest)
    assert bench.send(changed(ds), ingest=ingest).outcome == "kept_first"
    assert len(bench.files) == 1
    erase(bench)
    assert bench.send(changed(ds), ingest=ingest).outcome == "new_version"


def test_versions_are_bounded(bench: Bench) -> None:
    ds, ingest = image(), bench.with_settings(max_versions_per_instance=1)
    bench.send(ds, ingest=ingest)
    with pytest.raises(TooManyVersions):
        bench.send(changed(ds), ingest=ingest)
    assert bench.send(ds, ingest=ingest).outcome == "duplicate"


def test_what_contradicts_the_request_is_refused(bench: Bench) -> None:
    ds = image()
    for expected, error in (
        (Expected(study_instance_uid="1.2"), StudyMismatch),
        (Expected(sop_class_uid="1.2"), SopClassMismatch),
        (Expected(sop_instance_uid="1.2"), SopInstanceMismatch),
    ):
        with pytest.raises(error):
            bench.send(ds, expected)
    bench.assert_nothing_kept()
    assert bench.send(ds, Expected(ds.StudyInstanceUID, ds.SOPClassUID, ds.SOPInstanceUID)).outcome == "stored"


def test_what_cannot_be_read_is_refused_and_leaves_nothing(bench: Bench) -> None:
    ds, path = image(), image(study="1.2")
    data = part10(ds)
    path.StudyInstanceUID = "1.2"
    bad = part10(path).replace(b"\x20\x00\x0d\x00UI\x04\x001.2\0", b"\x20\x00\x0d\x00UI\x04\x00../a")
    del ds.SeriesInstanceUID
    for content, error in (
        (b"", NotDicom),
        (b"hello" * 100, NotDicom),
        (data[:-5], TruncatedDataSet),
        (part10(ds), MissingAttribute),
        (bad, MissingAttribute),
    ):
        with pytest.raises(error):
            bench.send(content)
    bench.assert_nothing_kept()


class Watched:
    """Bytes on their way into a store, with something else to happen after they are placed or before they settle."""

    def __init__(self, placing: Placing, placed: Callable[[], object], settling: Callable[[], object]) -> None:
        self._placing, self._placed, self._settling = placing, placed, settling

    def place(self, key: str) -> None:
        self._placing.place(key)
        self._placed()

    def settle(self) -> None:
        self._settling()
        self._placing.settle()


def after_placing(monkeypatch: pytest.MonkeyPatch, store: BlobStore, happens: Callable[[], object]) -> None:
    begin = store.begin
    monkeypatch.setattr(store, "begin", lambda spool_file, **more: Watched(begin(spool_file, **more), happens, lambda: None))


def before_settling(monkeypatch: pytest.MonkeyPatch, store: BlobStore, happens: Callable[[], object]) -> None:
    begin = store.begin
    monkeypatch.setattr(store, "begin", lambda spool_file, **more: Watched(begin(spool_file, **more), lambda: None, happens))


def in_parallel(work: Callable[[int], object], count: int) -> list[object]:
    barrier, results = threading.Barrier(count), [None] * count

    def run(i: int) -> None:
        barrier.wait()
        results[i] = work(i)  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_the_same_instance_from_many_at_once_is_stored_once(bench: Bench) -> None:
    data = part10(image())
    outcomes = Counter(in_parallel(lambda _: bench.send(data).outcome, 6))
    assert outcomes == {"stored": 1, "duplicate": 5}
    assert len(bench.files) == count(bench.catalog, models.blob) == count(bench.catalog, models.version) == 1
    assert bench.left_in_spool == []


def test_an_arrival_that_is_overtaken_after_its_bytes_were_put_leaves_no_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    data, rival = part10(image()), bench.with_settings()

    def overtake() -> None:
        monkeypatch.undo()
        assert bench.send(data, ingest=rival).outcome == "stored"

    after_placing(monkeypatch, bench.store, overtake)
    assert bench.send(data).outcome == "duplicate"
    assert len(bench.files) == count(bench.catalog, models.blob) == 1


def test_different_contents_at_once_each_become_a_version(bench: Bench) -> None:
    contents = []
    for i in range(4):
        ds = image(study="1.1", series="1.1.1", instance="1.1.1.1")
        ds.SeriesDescription = str(i)
        contents.append(part10(ds))
    accepted = in_parallel(lambda i: bench.send(contents[i]).version_number, 4)
    assert sorted(accepted) == [1, 2, 3, 4]  # type: ignore[type-var]
    assert len(bench.files) == 4


def test_an_arrival_whose_study_is_deleted_meanwhile_is_new(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = image()
    bench.send(ds)
    after_placing(monkeypatch, bench.store, lambda: remove(bench.catalog, Target(ds.StudyInstanceUID), ORIGIN))
    assert bench.send(changed(ds)).outcome == "stored"
    assert rows(bench.catalog, models.study, "number_of_study_related_instances") == [1]
    assert rows(bench.catalog, models.blob, "state") == ["doomed", "live"]


@pytest.mark.parametrize(
    ("error", "kept"), [(Busy("later"), 0), (OutOfSpace("full"), 0), (OutcomeUnknown("?"), 1), (KeyboardInterrupt(), 1)]
)
def test_bytes_are_erased_only_when_the_catalog_certainly_does_not_name_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: BaseException, kept: int
) -> None:
    def fail(*_arguments: object) -> instances.Recorded:
        raise error

    monkeypatch.setattr(instances, "record", fail)
    with pytest.raises(type(error)):
        bench.send(image())
    assert len(bench.files) == kept
    assert bench.left_in_spool == []
    assert count(bench.catalog, models.instance) == 0


@pytest.mark.parametrize("contended", [False, True])
def test_the_bytes_are_synced_before_the_lock_is_taken_where_others_want_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, contended: bool
) -> None:
    """A single sender syncs its file after its rows are written; not while writers of other processes wait for that."""
    steps: list[str] = []
    before_settling(monkeypatch, bench.store, lambda: steps.append("settle"))
    record = instances.record

    def recorded(*arguments: Any) -> instances.Recorded:
        steps.append("record")
        return record(*arguments)

    monkeypatch.setattr(instances, "record", recorded)
    monkeypatch.setattr(type(bench.catalog), "is_contended", property(lambda catalog: contended))
    bench.send(image(), ingest=bench.with_settings(write_ahead_bytes=0))
    assert steps[0] == ("settle" if contended else "record")
    assert "settle" in steps


@pytest.mark.parametrize("step", ["place", "settle"])
def test_nothing_is_recorded_when_the_bytes_cannot_be_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_arguments: object) -> None:
        raise OutOfSpace("full")

    if step == "place":
        monkeypatch.setattr(bench.store, "begin", lambda spool_file, **more: SimpleNamespace(place=fail))
    else:
        before_settling(monkeypatch, bench.store, fail)
    with pytest.raises(OutOfSpace):
        bench.send(image())
    bench.assert_nothing_kept()


def test_the_bytes_are_durable_before_the_catalog_names_them_and_both_before_the_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    write = bench.catalog.write

    def noted_write(work: Any, keys: Any, ready: Callable[[], None]) -> Any:
        def noted_ready() -> None:
            ready()
            steps.append("durable")

        result = write(work, keys, noted_ready)
        steps.append("committed")
        return result

    after_placing(monkeypatch, bench.store, lambda: steps.append("placed"))
    monkeypatch.setattr(bench.catalog, "write", noted_write)
    bench.send(image())
    assert steps == ["placed", "durable", "committed"]

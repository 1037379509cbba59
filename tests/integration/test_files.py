"""Files in both databases and both storages: bytes kept once, counted right whoever comes meanwhile, durable before they are named."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, update

from pacslite.catalog.changes import after
from pacslite.catalog.database import Catalog
from pacslite.catalog.file_models import blob_info, file, file_part, file_version, quota, rendition
from pacslite.catalog.models import blob
from pacslite.core import file_content, files
from pacslite.core.erasure import erase_doomed
from pacslite.core.file_content import Which
from pacslite.core.file_types import FileVersionType, MedicalFileType
from pacslite.core.files import Arrived, Description, FileRecord, Origin, Owner
from pacslite.errors import BlobMissing, Gone, InvalidForm, NotFound, StorageError, TooManyVersions
from pacslite.settings import Settings
from pacslite.storage.blob_store import BlobStore, Placing
from pacslite.storage.filesystem import FilesystemStore
from pacslite.storage.s3 import S3Options, S3Store
from tests.support.archive import Archive, archive
from tests.support.files import any_photo, new_patient
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY

ME = Owner(None, "tester")
ORIGIN = Origin("upload", actor="tester")


@pytest.fixture(params=["filesystem", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param == "filesystem":
        yield FilesystemStore(tmp_path / "storage")
        return
    made = S3Store(S3Options(BUCKET, request.getfixturevalue("s3_endpoint"), None, ACCESS_KEY, SECRET_KEY, None, tmp_path.name))
    yield made
    made.close()


@dataclass
class Kept:
    """The parts of a process, and a patient."""

    parts: Archive
    patient: int

    def arrived(self, data: bytes, name: str = "a.jpg") -> Arrived:
        with self.parts.spool.create() as writer:
            writer.write(data)
            return Arrived(writer.finish(), name)

    def add(self, *data: bytes, file_type: MedicalFileType = MedicalFileType.PHOTO) -> FileRecord:
        about = Description(self.patient, file_type)
        return files.add(self.parts, [self.arrived(one) for one in data], about, ME, ORIGIN)

    def version(self, file_id: str, data: bytes) -> FileRecord:
        return files.add_version(self.parts, file_id, [self.arrived(data)], FileVersionType.FOLLOWUP, None, ME, ORIGIN)

    def purge(self, file_id: str) -> None:
        files.purge(self.parts, file_id, ME, ORIGIN)

    def content(self, file_id: str, which: Which = Which()) -> bytes:  # noqa: B008  frozen
        found = file_content.find(self.parts, file_id, which)
        with self.parts.stores.open(found.blob) as stream:
            return stream.read()

    def blobs(self) -> list[tuple[str, int]]:
        """State and count of references of each blob that somebody brought."""
        with self.parts.catalog.read() as conn:
            return [(state, count) for state, count in conn.execute(select(blob.c.state, blob.c.reference_count).order_by(blob.c.pk))]

    def keys(self) -> list[str]:
        return [info.key for info in self.parts.store.list("patients/")]

    def erase(self) -> int:
        return erase_doomed(self.parts.catalog, self.parts.store, -1)

    def spooled(self) -> list[Path]:
        return [path for path in self.parts.spool.directory.iterdir() if path.is_file()]


@pytest.fixture
def kept(catalog: Catalog, store: BlobStore, tmp_path: Path) -> Kept:
    return Kept(archive(tmp_path / "data", catalog, store), new_patient(catalog, "P-1"))


def test_equal_bytes_are_kept_once_and_counted(kept: Kept) -> None:
    data = any_photo()
    first, second = kept.add(data), kept.add(data)
    kept.version(first.id, data)
    assert kept.blobs() == [("live", 3)]
    assert len(kept.keys()) == 1
    assert kept.keys()[0].startswith(f"patients/patient_{kept.patient}/photos/")
    assert kept.content(first.id) == kept.content(second.id) == data
    assert kept.spooled() == []


def test_equal_pictures_of_one_series_are_kept_once(kept: Kept) -> None:
    one, other = any_photo(), any_photo()
    made = kept.add(one, other, one, file_type=MedicalFileType.PHOTO_SERIES)
    assert kept.blobs() == [("live", 2), ("live", 1)]
    assert len(kept.keys()) == 2
    assert [kept.content(made.id, Which(item=item)) for item in range(3)] == [one, other, one]


def test_bytes_go_with_the_last_file_that_has_them(kept: Kept) -> None:
    data = any_photo()
    first, second = kept.add(data), kept.add(data)
    kept.version(second.id, any_photo())
    kept.purge(first.id)
    assert kept.erase() == 0
    assert kept.content(second.id, Which(version=1)) == data
    kept.purge(second.id)
    assert kept.blobs() == [("doomed", 0), ("doomed", 0)]
    assert kept.erase() == 2
    assert (kept.blobs(), kept.keys()) == ([], [])
    with kept.parts.catalog.read() as conn:
        for table in (file, file_version, file_part, rendition, blob_info):
            assert conn.execute(select(func.count()).select_from(table)).scalar() == 0, table


def test_bytes_stay_as_long_as_a_file_is_in_the_trash(kept: Kept) -> None:
    data = any_photo()
    made = kept.add(data)
    files.delete(kept.parts, made.id, ME, ORIGIN)
    assert kept.erase() == 0
    files.undelete(kept.parts, made.id, ME, ORIGIN)
    assert kept.content(made.id) == data


def test_doomed_bytes_never_come_back(kept: Kept) -> None:
    data = any_photo()
    kept.purge(kept.add(data).id)
    (old,) = kept.keys()
    again = kept.add(data)
    assert kept.blobs() == [("doomed", 0), ("live", 1)]
    assert kept.erase() == 1
    (new,) = kept.keys()
    assert new != old
    assert kept.content(again.id) == data


def test_a_blob_that_something_refers_to_is_not_erased_even_if_its_count_is_wrong(kept: Kept) -> None:
    made = kept.add(any_photo())

    def spoil(conn: Connection) -> None:
        conn.execute(update(blob).values(state="doomed", doomed_at="2000-01-01T00:00:00.000000Z", shared_sha256=None))

    kept.parts.catalog.write(spoil)
    assert kept.erase() == 0
    assert len(kept.keys()) == 1
    with pytest.raises(BlobMissing):
        kept.content(made.id)


def test_lost_bytes_are_repaired_for_everybody_by_the_next_upload(kept: Kept) -> None:
    data = any_photo()
    first = kept.add(data)
    (lost,) = kept.keys()
    kept.parts.store.delete(lost)
    second = kept.add(data)
    assert kept.content(first.id) == kept.content(second.id) == data
    assert kept.blobs() == [("live", 2)]
    with kept.parts.catalog.read() as conn:
        repaired = [change for change in after(conn, 0) if change.kind == "file_repaired"]
    assert [change.detail["was"] in lost for change in repaired] == [True]


def test_quarantined_bytes_are_repaired_by_the_next_upload(kept: Kept) -> None:
    data = any_photo()
    first = kept.add(data)
    kept.parts.catalog.write(lambda conn: conn.execute(update(blob).values(state="quarantined")))
    with pytest.raises(BlobMissing):
        kept.content(first.id)
    kept.add(data)
    assert kept.content(first.id) == data
    assert kept.blobs() == [("live", 2)]


def test_writers_and_deleters_at_the_same_time_keep_every_count_right(kept: Kept) -> None:
    """32 threads bring, version, restore and purge files of a few equal contents; meanwhile what is doomed is erased."""
    contents = [any_photo() for _ in range(3)]
    mine: list[list[str]] = [[] for _ in range(32)]
    stop = threading.Event()

    def erase() -> None:
        while not stop.wait(0.01):
            kept.erase()

    def work(number: int) -> None:
        rng = random.Random(number)
        for _ in range(4):
            if mine[number] and rng.random() < 0.5:
                kept.purge(mine[number].pop())
                continue
            made = kept.add(rng.choice(contents))
            mine[number].append(made.id)
            if rng.random() < 0.3:
                kept.version(made.id, rng.choice(contents))
            elif rng.random() < 0.3:
                files.restore(kept.parts, made.id, 1, ME, ORIGIN)

    eraser = threading.Thread(target=erase)
    eraser.start()
    try:
        with ThreadPoolExecutor(32) as pool:
            for done in [pool.submit(work, number) for number in range(32)]:
                done.result()
    finally:
        stop.set()
        eraser.join()
    _check_counts(kept)
    for file_id in (one for listed in mine for one in listed):
        assert kept.content(file_id) in contents
        kept.purge(file_id)
    kept.erase()
    assert (kept.blobs(), kept.keys(), kept.spooled()) == ([], [], [])
    with kept.parts.catalog.read() as conn:
        assert conn.execute(select(quota.c.used_bytes)).scalars().all() == [0]


def _check_counts(kept: Kept) -> None:
    """Every blob is referred to as often as it says, and what is stored is what live and doomed blobs name."""
    with kept.parts.catalog.read() as conn:
        referred = Counter(conn.execute(select(file_part.c.blob_pk)).scalars())
        found = conn.execute(select(blob.c.pk, blob.c.state, blob.c.reference_count, blob.c.storage_key)).all()
    assert {row.pk: row.reference_count for row in found if row.state == "live"} == dict(referred)
    assert {row.storage_key for row in found if row.state == "live"} <= set(kept.keys())
    assert set(kept.keys()) <= {row.storage_key for row in found}


class _Watching:
    """A placing that looks before and after its bytes become durable, or fails then."""

    def __init__(self, inner: Placing, settled: Callable[[], None]) -> None:
        self._inner, self._settled = inner, settled

    def place(self, key: str) -> None:
        self._inner.place(key)

    def settle(self) -> None:
        self._settled()
        self._inner.settle()


def _watch(kept: Kept, monkeypatch: pytest.MonkeyPatch, settled: Callable[[], None]) -> None:
    begin = kept.parts.store.begin
    monkeypatch.setattr(kept.parts.store, "begin", lambda path, **_: _Watching(begin(path), settled), raising=False)


def test_bytes_are_durable_before_the_catalog_names_them(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def look() -> None:
        with kept.parts.catalog.read() as conn:
            seen.append(conn.execute(select(func.count()).select_from(file_part)).scalar_one())

    _watch(kept, monkeypatch, look)
    made = kept.add(any_photo(), any_photo(), file_type=MedicalFileType.PHOTO_SERIES)
    assert seen
    assert set(seen) == {0}
    kept.version(made.id, any_photo())
    assert seen[-1] == 2


def test_what_cannot_be_made_durable_is_not_there(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise StorageError("the disk is broken")

    _watch(kept, monkeypatch, fail)
    with pytest.raises(StorageError):
        kept.add(any_photo())
    assert (kept.blobs(), kept.keys(), kept.spooled()) == ([], [], [])
    with kept.parts.catalog.read() as conn:
        assert [change for change in after(conn, 0) if change.kind.startswith("file")] == []


def test_a_refused_file_leaves_nothing(kept: Kept) -> None:
    with pytest.raises(InvalidForm):
        files.add(kept.parts, [kept.arrived(any_photo())], Description(kept.patient + 1, MedicalFileType.PHOTO), ME, ORIGIN)
    with pytest.raises(NotFound):
        kept.version("0190a3c4-0000-7000-8000-000000000000", any_photo())
    assert (kept.blobs(), kept.keys(), kept.spooled()) == ([], [], [])


def test_a_purged_file_is_gone_for_good(kept: Kept) -> None:
    made = kept.add(any_photo())
    kept.purge(made.id)
    for call in (files.get, lambda parts, file_id: files.undelete(parts, file_id, ME, ORIGIN)):
        with pytest.raises(Gone):
            call(kept.parts, made.id)


def test_versions_of_a_file_are_bounded(kept: Kept) -> None:
    kept.parts = Archive(Settings(data=kept.parts.settings.data, max_versions_per_file=2), *list(vars(kept.parts).values())[1:])
    made = kept.add(any_photo())
    kept.version(made.id, any_photo())
    with pytest.raises(TooManyVersions):
        kept.version(made.id, any_photo())
    assert len(kept.keys()) == 2


def test_the_feed_tells_where_the_bytes_of_a_version_are(kept: Kept) -> None:
    made = kept.add(any_photo())
    with kept.parts.catalog.read() as conn:
        (created,) = [change for change in after(conn, 0) if change.kind == "file_created"]
    assert (created.file_id, created.patient_id, created.version_number) == (made.id, kept.patient, 1)
    assert created.detail["file"]["file_type"] == "photo"
    assert [part["storage_key"] for part in created.detail["parts"]] == kept.keys()

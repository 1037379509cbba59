"""Taking over trees of other services: every file once, read back before it is erased, and nothing lost on the way."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pacslite import app
from pacslite.app import Pacs
from pacslite.catalog import blobs
from pacslite.catalog.changes import Origin
from pacslite.core import files, patients
from pacslite.core.file_archive import open_patient_archive
from pacslite.core.file_import import Summary, Wishes, import_tree
from pacslite.core.files import Owner
from pacslite.core.import_layouts import Layout
from pacslite.core.import_mapping import FileMapping
from pacslite.core.import_taking import Outcome
from pacslite.core.patients import About, Cause
from pacslite.core.retrieve import Resource, plan
from pacslite.errors import BadRequest, BlobMissing, NotFound, OutOfSpace
from pacslite.settings import load
from pacslite.storage.filesystem import FilesystemStore
from tests.support.file_samples import pdf
from tests.support.foreign_trees import dicom, jpeg, png, put, stl
from tests.support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, serve_s3

OWNER = Owner(None, "somebody")
LONG_AGO = datetime(2019, 3, 4, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    pacs = app.build(load(environment={}, data=tmp_path / "data"))
    pacs.catalog.migrate()
    yield pacs
    pacs.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "old service"
    path.mkdir()
    return path


def patient(pacs: Pacs, mrn: str) -> int:
    return patients.create(pacs, mrn, None, About(), Cause(Origin("api"))).id


class Import:
    """One run, and what it told."""

    def __init__(self, pacs: Pacs, root: Path, layout: Layout = Layout.PATIENTS, **wishes: Any) -> None:
        self.told: list[Outcome] = []
        self.summary: Summary = import_tree(pacs, root, Wishes(layout, **wishes), OWNER, note=self.told.append)

    @property
    def outcomes(self) -> dict[str, str]:
        return {one.path: one.outcome for one in self.told}

    def of(self, path: str) -> Outcome:
        [found] = [one for one in self.told if one.path == path]
        return found


def stored(pacs: Pacs) -> list[Path]:
    return sorted(path for path in pacs.settings.resolved_storage_root.rglob("*") if path.is_file())


def content(pacs: Pacs, file_id: str) -> bytes:
    record = files.get(pacs, file_id)
    with pacs.catalog.read() as conn:
        blob = blobs.find(conn, record.version.parts[0].blob_pk or 0)
    assert blob is not None
    with pacs.stores.open(blob) as stream:
        return stream.read()


def test_typed_folders_become_files_of_their_patients(pacs: Pacs, tree: Path) -> None:
    seven = patient(pacs, "7")
    put(
        tree,
        {
            "patients/patient_7/photos/20240517_photo_a.jpg": jpeg(1),
            "patients/patient_7/photos/large/20240517_photo_a.jpg": jpeg(2),
            "patients/patient_7/stl_models/upper.stl": stl(),
            "patients/patient_7/documents/2023/05/brief.pdf": pdf(),
        },
        LONG_AGO,
    )
    done = Import(pacs, tree)
    assert done.summary == Summary(stored=3, skipped=1, bytes=done.summary.bytes)
    found = {one.path.rpartition("/")[2]: (one.patient_id, one.file_type, one.study_date, one.dated_by) for one in done.told if one.file_id}
    assert found == {
        "20240517_photo_a.jpg": (seven, "photo", "2024-05-17", "name"),
        "upper.stl": (seven, "stl_model", "2019-03-04", "time"),
        "brief.pdf": (seven, "document", "2023-05-01", "month"),
    }
    photo = done.of("patients/patient_7/photos/20240517_photo_a.jpg")
    record = files.get(pacs, photo.file_id or "")
    assert (record.created_by, record.version.parts[0].original_filename) == ("somebody", "20240517_photo_a.jpg")
    assert content(pacs, record.id) == jpeg(1)
    assert photo.sha256 == hashlib.sha256(jpeg(1)).hexdigest()
    assert (tree / "patients/patient_7/photos/20240517_photo_a.jpg").read_bytes() == jpeg(1)


def test_numbers_are_of_the_institution_unless_said_otherwise(pacs: Pacs, tree: Path) -> None:
    """Our patient 1 is not the one that another service called 1."""
    one = patient(pacs, "M-17")
    put(tree, {f"patients/patient_{one}/photos/a.jpg": jpeg()})
    refused = Import(pacs, tree)
    assert (refused.summary.refused, refused.summary.exit_code) == (1, 1)
    assert "--create-patients" in refused.told[0].reason
    assert Import(pacs, tree, numbers="id").told[0].patient_id == one


def test_unknown_patients_are_made_when_that_is_wished_and_only_then(pacs: Pacs, tree: Path) -> None:
    put(tree, {f"patients/patient_{n}/photos/{k}.jpg": jpeg(10 * n + k) for n in (1, 2) for k in (1, 2, 3)})
    assert Import(pacs, tree).summary.refused == 6
    done = Import(pacs, tree, create_patients=True)
    assert (done.summary.stored, done.summary.patients_created) == (6, 2)
    made = {one.patient_id for one in done.told}
    assert {patients.get(pacs, pk or 0).mrn for pk in made} == {"1", "2"}


def test_a_mapping_tells_patients_and_makes_them(pacs: Pacs, tree: Path) -> None:
    put(tree, {"patients/patient_1/photos/a.jpg": jpeg(1), "patients/patient_1/photos/b.jpg": jpeg(2)})
    mapping = FileMapping(
        [
            {"number": "1", "mrn": "M1", "name": "Doe^Jane", "birth_date": "1970-01-02", "sex": "F"},
            {"path": "b.jpg", "mrn": "M2", "file_type": "xray", "study_date": "2020-02-02", "description": "links", "body_part": "HAND"},
        ]
    )
    done = Import(pacs, tree, mapping=mapping)
    first, second = (patients.get(pacs, one.patient_id or 0) for one in done.told)
    assert ((first.mrn, first.name, first.birth_date, first.sex), second.mrn) == (("M1", "Doe^Jane", "19700102", "F"), "M2")
    record = files.get(pacs, done.told[1].file_id or "")
    assert (record.file_type, record.study_date, record.description, record.body_part) == ("xray", "2020-02-02", "links", "HAND")


def test_the_same_again_takes_nothing_twice(pacs: Pacs, tree: Path) -> None:
    put(tree, {"patients/1/photos/a.jpg": jpeg(1), "patients/1/photos/copy of a.jpg": jpeg(1), "patients/2/photos/a.jpg": jpeg(1)})
    first = Import(pacs, tree, create_patients=True).summary
    assert (first.stored, first.duplicate) == (2, 1)
    again = Import(pacs, tree, create_patients=True, anew=True)
    assert (again.summary.stored, again.summary.duplicate, again.summary.exit_code) == (0, 3, 0)
    assert len(stored(pacs)) == 1


def test_a_file_in_the_trash_is_taken_again(pacs: Pacs, tree: Path) -> None:
    put(tree, {"patients/1/photos/a.jpg": jpeg(1)})
    done = Import(pacs, tree, create_patients=True)
    files.delete(pacs, done.told[0].file_id or "", OWNER, Origin("api"))
    assert Import(pacs, tree, create_patients=True).summary.stored == 1


class StopError(Exception):
    """Stands for Ctrl-C."""


def test_an_interrupted_import_goes_on_where_it_was(pacs: Pacs, tree: Path) -> None:
    put(tree, {f"patients/1/photos/{n:02}.jpg": jpeg(n) for n in range(20)})

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise StopError

    wishes = Wishes(Layout.PATIENTS, create_patients=True)
    with pytest.raises(StopError):
        import_tree(pacs, tree, wishes, OWNER, progress=stop)
    done = Import(pacs, tree, create_patients=True)
    assert done.summary.resumed >= 5
    assert done.summary.resumed + done.summary.stored + done.summary.duplicate == 20
    assert len(stored(pacs)) == 20
    assert not list(pacs.settings.data.glob("import-files-*"))


def test_moved_files_are_erased_after_they_were_read_back(pacs: Pacs, tree: Path) -> None:
    put(tree, {"patients/1/photos/a.jpg": jpeg(1), "patients/1/photos/thumbnails/a.jpg": jpeg(2), "patients/1/notes.exe": b"MZ"})
    done = Import(pacs, tree, create_patients=True, move=True)
    assert (done.summary.stored, done.summary.erased, done.summary.refused) == (1, 1, 1)
    left = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    assert left == ["patients/1/notes.exe", "patients/1/photos/thumbnails/a.jpg"]
    assert content(pacs, done.of("patients/1/photos/a.jpg").file_id or "") == jpeg(1)


def test_nothing_is_erased_that_is_not_stored_as_it_was_read(pacs: Pacs, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that gives back other bytes than it was given."""
    put(tree, {"patients/1/photos/a.jpg": jpeg(1)})
    whole = FilesystemStore.open

    def flipped(self: FilesystemStore, key: str, *extent: Any) -> Any:
        path = self.local_path(key)
        assert path is not None
        data = bytearray(path.read_bytes())
        data[50] ^= 1
        path.write_bytes(data)
        return whole(self, key, *extent)

    with monkeypatch.context() as patched:
        patched.setattr(FilesystemStore, "open", flipped)
        done = Import(pacs, tree, create_patients=True, move=True)
    assert (done.summary.refused, done.summary.erased) == (1, 0)
    assert "not those that were read" in done.told[0].reason
    assert (tree / "patients/1/photos/a.jpg").read_bytes() == jpeg(1)
    # Nor by the next run, which finds the damaged bytes.
    again = Import(pacs, tree, create_patients=True, move=True)
    assert (again.summary.refused, again.summary.erased) == (1, 0)


def test_a_file_that_changed_since_it_was_read_stays(pacs: Pacs, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tree, {"patients/1/photos/a.jpg": jpeg(1)})
    path, add = tree / "patients/1/photos/a.jpg", files.add

    def meanwhile(*given: Any) -> Any:
        path.write_bytes(jpeg(2))
        return add(*given)

    monkeypatch.setattr(files, "add", meanwhile)
    done = Import(pacs, tree, create_patients=True, move=True)
    assert "changed since" in done.told[0].reason
    assert path.read_bytes() == jpeg(2)


def test_a_folder_of_a_photo_series_is_one_file_in_its_order(pacs: Pacs, tree: Path) -> None:
    names = ("01.jpg", "02.jpg", "10.jpg")
    put(tree, {f"patients/1/photo_series/before/{name}": jpeg(n) for n, name in enumerate(names)})
    put(tree, {"patients/1/photo_series/before/large/01.jpg": jpeg(9), "patients/1/photo_series/after/01.jpg": jpeg(3)})
    put(tree, {"patients/1/photo_series/before/05 note.pdf": pdf()})
    done = Import(pacs, tree, create_patients=True, move=True)
    assert done.summary.refused == 0, done.told
    ids = {one.file_id for one in done.told if "before" in one.path and one.file_type == "photo_series"}
    assert len(ids) == 1
    record = files.get(pacs, ids.pop() or "")
    assert [part.original_filename for part in record.version.parts] == list(names)
    assert [part.original_sha256 for part in record.version.parts] == [hashlib.sha256(jpeg(n)).hexdigest() for n in range(3)]
    assert (done.summary.erased, done.of("patients/1/photo_series/before/05 note.pdf").file_type) == (5, "pdf")
    put(tree, {f"patients/1/photo_series/before/{name}": jpeg(n) for n, name in enumerate(names)})
    assert Import(pacs, tree, create_patients=True).summary.duplicate == 3


def test_what_lies_in_the_wrong_folder_is_filed_as_what_it_is(pacs: Pacs, tree: Path) -> None:
    put(tree, {"patients/1/photos/upper.stl": stl(), "patients/1/whatever/a.jpg": jpeg()})
    done = Import(pacs, tree, create_patients=True)
    assert [one.file_type for one in done.told] == ["stl_model", "photo"]


def test_a_type_that_a_mapping_names_is_not_bent(pacs: Pacs, tree: Path) -> None:
    put(tree, {"patients/1/photos/upper.stl": stl()})
    done = Import(pacs, tree, create_patients=True, mapping=FileMapping([{"path": "**", "file_type": "photo"}]))
    assert done.summary.refused == 1


def test_originals_by_month_of_one_patient(pacs: Pacs, tree: Path) -> None:
    put(tree, {"media/originals/2024/05/a.jpg": jpeg(1), "media/originals/2024/05/b.png": png(), "media/thumbnails/2024/05/a.jpg": jpeg(2)})
    nobody = Import(pacs, tree / "media", Layout.MEDIA)
    assert (nobody.summary.refused, nobody.summary.skipped) == (2, 1)
    assert "mapping" in nobody.told[0].reason
    assert [one.path for one in nobody.told] == ["originals/2024/05/a.jpg", "originals/2024/05/b.png", "thumbnails/2024/05/a.jpg"]
    whose = patient(pacs, "M1")
    done = Import(pacs, tree / "media", Layout.MEDIA, patient_id=whose)
    assert {(one.patient_id, one.study_date, one.dated_by) for one in done.told if one.file_id} == {(whose, "2024-05-01", "month")}


def test_pictures_by_user(pacs: Pacs, tree: Path) -> None:
    put(tree, {"images/user-12/2024/05/a.jpg": jpeg(1), "images/user-ab12/2024/06/a.jpg": jpeg(2)})
    done = Import(pacs, tree, Layout.IMAGES, create_patients=True)
    assert [(patients.get(pacs, one.patient_id or 0).mrn, one.study_date) for one in done.told] == [
        ("12", "2024-05-01"),
        ("ab12", "2024-06-01"),
    ]


def test_dicom_files_tell_their_patient_themselves(pacs: Pacs, tree: Path) -> None:
    ds, file = dicom("M5")
    put(tree, {"radiology/5f0c/9d1e/77aa/0b1c.dcm": file, "radiology/5f0c/9d1e/77ab/0b1d.png": png(1), "radiology/5f0c/DICOMDIR": b""})
    whose = patient(pacs, "M9")
    done = Import(pacs, tree, Layout.RADIOLOGY, move=True, mapping=FileMapping([{"path": "**/*.png", "mrn": "M9", "file_type": "xray"}]))
    assert done.outcomes["radiology/5f0c/9d1e/77aa/0b1c.dcm"] == "stored"
    uids = str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID)
    [item] = plan(pacs.catalog, Resource(*uids))
    assert item.sha256 == hashlib.sha256(file).hexdigest()
    picture = done.of("radiology/5f0c/9d1e/77ab/0b1d.png")
    assert (picture.patient_id, picture.file_type) == (whose, "xray")
    assert not (tree / "radiology/5f0c/9d1e/77aa/0b1c.dcm").exists()
    put(tree, {"radiology/x/y/z/again.dcm": file})
    assert Import(pacs, tree, Layout.RADIOLOGY).outcomes["radiology/x/y/z/again.dcm"] == "duplicate"


def test_a_dicom_file_in_the_folder_of_its_patient_is_a_file_and_an_instance(pacs: Pacs, tree: Path) -> None:
    ds, file = dicom("7")
    _, other = dicom("8")
    put(tree, {"patients/patient_7/dicoms/a.dcm": file, "patients/patient_7/dicoms/other.dcm": other})
    done = Import(pacs, tree, create_patients=True, move=True)
    mine = done.of("patients/patient_7/dicoms/a.dcm")
    assert (mine.outcome, mine.sop_instance_uid, mine.file_type, mine.erased) == ("stored", str(ds.SOPInstanceUID), "dicom", True)
    assert done.outcomes["patients/patient_7/dicoms/other.dcm"] == "refused"
    assert (tree / "patients/patient_7/dicoms/other.dcm").read_bytes() == other


def test_links_and_what_is_no_file_are_not_touched(pacs: Pacs, tree: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", {"secret.jpg": jpeg(1)})
    put(tree, {"patients/1/photos/a.jpg": jpeg(2)})
    (tree / "patients/1/photos/link.jpg").symlink_to(tmp_path / "elsewhere" / "secret.jpg")
    (tree / "patients/1/photos/folder").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tree / "patients/1/photos/pipe.jpg")
    done = Import(pacs, tree, create_patients=True, move=True)
    assert sorted(done.outcomes.values()) == ["refused", "skipped", "skipped", "stored"]
    assert (tmp_path / "elsewhere" / "secret.jpg").exists()


def test_hostile_names_are_names(pacs: Pacs, tree: Path) -> None:
    folder = tree / "patients/1/photos"
    folder.mkdir(parents=True)
    names = [b"\xff\xfe.jpg", b"new\nline.jpg", b"-rf.jpg", b"\xe2\x80\xaegpj.jpg", b"a" * 240 + b".jpg", b"..jpg"]
    for number, name in enumerate(names):
        (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).write_bytes(jpeg(number))
    done = Import(pacs, tree, create_patients=True, move=True)
    assert done.summary == Summary(stored=len(names), erased=len(names), patients_created=1, bytes=done.summary.bytes)
    assert all(one.path.isprintable() and one.path.encode() for one in done.told)


def test_a_dry_run_changes_nothing(pacs: Pacs, tree: Path) -> None:
    put(tree, {"patients/1/photos/a.jpg": jpeg(1), "patients/1/photos/b.exe": b"MZ", "patients/1/stl_models/c.stl": stl()})
    done = Import(pacs, tree, create_patients=True, move=True, dry_run=True)
    assert (done.summary.would_store, done.summary.refused, done.summary.patients_created) == (2, 1, 0)
    assert [one.file_type for one in done.told] == ["photo", None, "stl_model"]
    assert stored(pacs) == []
    assert len(list(tree.rglob("*.*"))) == 3
    with pytest.raises(NotFound):
        patients.get(pacs, 1)


def test_a_full_disk_ends_the_import_and_loses_nothing(pacs: Pacs, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tree, {f"patients/1/photos/{n}.jpg": jpeg(n) for n in range(10)})

    def full(*_: object) -> None:
        raise OutOfSpace("no room")

    monkeypatch.setattr("pacslite.storage.spool.Spool.check_space", full)
    with pytest.raises(OutOfSpace):
        Import(pacs, tree, create_patients=True, move=True)
    assert len(list(tree.rglob("*.jpg"))) == 10
    assert list(pacs.settings.spool_directory.iterdir()) == []


def test_the_storage_is_not_taken_in_from_itself(pacs: Pacs, tree: Path) -> None:
    put(tree, {"patients/1/photos/a.jpg": jpeg(1)})
    Import(pacs, tree, create_patients=True)
    with pytest.raises(BadRequest, match="storage"):
        Import(pacs, pacs.settings.resolved_storage_root / "patients", create_patients=True)
    assert Import(pacs, pacs.settings.data, create_patients=True, numbers="id").summary.stored == 0
    with pytest.raises(BadRequest, match="does not exist"):
        Import(pacs, tree / "absent")


def test_on_both_databases(new_database: Callable[[], str], tmp_path: Path, tree: Path) -> None:
    pacs = app.build(load(environment={}, data=tmp_path / "other", database_url=new_database()))
    pacs.catalog.migrate()
    put(tree, {f"patients/{n % 3}/photos/{n}.jpg": jpeg(n // 2) for n in range(1, 12)})
    try:
        first, second = (Import(pacs, tree, create_patients=True, anew=True).summary for _ in range(2))
        assert (first.stored + first.duplicate, first.refused, first.patients_created) == (11, 0, 3)
        assert (second.stored, second.duplicate) == (0, 11)
    finally:
        pacs.close()


def test_into_an_object_store_and_out_again_as_one_zip(tmp_path: Path, tree: Path) -> None:
    """Nothing is erased before it was read back over the network; bytes that are missing there are told before a ZIP begins."""
    with serve_s3(tmp_path / "objects") as s3:
        keys = {"s3_endpoint": s3.endpoint, "s3_bucket": BUCKET, "s3_access_key": ACCESS_KEY, "s3_secret_key": SECRET_KEY}
        pacs = app.build(load(environment={}, data=tmp_path / "other", storage="s3", **keys))
        try:
            pacs.catalog.migrate()
            _, slice_ = dicom("1")
            put(tree, {f"patients/1/photos/{n}.jpg": jpeg(n) for n in range(5)} | {"patients/1/dicoms/a.dcm": slice_})
            done = Import(pacs, tree, create_patients=True, move=True)
            assert (done.summary.stored, done.summary.erased, list(tree.rglob("*.*"))) == (6, 6, [])
            whose = done.told[0].patient_id or 0
            with zipfile.ZipFile(io.BytesIO(b"".join(open_patient_archive(pacs, whose).body.chunks()))) as found:
                assert {found.read(f"files/photos/{n}.jpg") for n in range(5)} == {jpeg(n) for n in range(5)}
                assert found.read("DICOM/SE000001/IM000001") == slice_
            [lost] = [key.key for key in pacs.store.list("patients/")][:1]
            pacs.store.delete(lost)
            with pytest.raises(BlobMissing, match="1 of 5 files"):
                open_patient_archive(pacs, whose)
        finally:
            pacs.close()

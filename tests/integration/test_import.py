"""Importing folders: everything that is an instance is taken in once, the user's files stay as they are."""

import os
import zipfile
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import MediaStorageDirectoryStorage, generate_uid

from pacslite import app
from pacslite.app import Pacs
from pacslite.core.importer import Summary, import_paths, walk
from pacslite.errors import BadRequest, OutOfSpace
from pacslite.settings import load
from pacslite.storage.spool import SpoolWriter


@pytest.fixture
def pacs(tmp_path: Path) -> Pacs:
    pacs = app.build(load(environment={}, data=tmp_path / "data"))
    pacs.catalog.migrate()
    yield pacs
    pacs.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "from here"
    path.mkdir()
    return path


def instance(path: Path, **attributes: str) -> Path:
    """A small CT instance of its own in a new file."""
    ds = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path)
    return path


def shipped(name: str) -> bytes:
    return Path(get_testdata_file(name, download=False)).read_bytes()


def stored(pacs: Pacs) -> list[Path]:
    return sorted(pacs.settings.resolved_storage_root.rglob("*.dcm"))


def test_nested_folders_mixed_with_other_files(pacs: Pacs, folder: Path) -> None:
    for number in range(6):
        instance(folder / ("deep/" * number) / f"{number}")
    (folder / "notes.txt").write_text("not an instance")
    (folder / "empty.dcm").touch()
    with zipfile.ZipFile(folder / "deep" / "more.zip", "w") as archive:
        archive.write(folder / "0", "0")
    summary = import_paths(pacs, [folder])
    assert summary == Summary(stored=6, not_dicom=3)
    assert summary.exit_code == 0
    assert len(stored(pacs)) == 6


def test_a_file_and_a_folder_in_one_call(pacs: Pacs, folder: Path, tmp_path: Path) -> None:
    instance(folder / "one")
    assert import_paths(pacs, [folder, instance(tmp_path / "two")]).stored == 2


def test_the_users_files_stay_as_they_are(pacs: Pacs, folder: Path) -> None:
    path = instance(folder / "one.dcm")
    path.chmod(0o444)
    before, content = path.stat(), path.read_bytes()
    import_paths(pacs, [folder])
    after = path.stat()
    assert path.read_bytes() == content
    assert (after.st_ino, after.st_nlink, after.st_mtime_ns, after.st_mode) == (before.st_ino, 1, before.st_mtime_ns, before.st_mode)
    assert stored(pacs)[0].read_bytes() == content


def test_the_same_again_stores_nothing(pacs: Pacs, folder: Path) -> None:
    instance(folder / "one")
    import_paths(pacs, [folder])
    again = import_paths(pacs, [folder])
    assert again == Summary(already_there=1)
    assert again.exit_code == 0
    assert len(stored(pacs)) == 1


def test_other_content_under_the_same_uid_is_a_new_version(pacs: Pacs, folder: Path) -> None:
    instance(folder / "one")
    import_paths(pacs, [folder])
    instance(folder / "one", SeriesDescription="another")
    assert import_paths(pacs, [folder]) == Summary(new_versions=1)


def test_refused_files_are_named_with_a_reason_and_the_others_taken(pacs: Pacs, folder: Path) -> None:
    instance(folder / "good")
    (folder / "cut").write_bytes(shipped("CT_small.dcm")[:3000])
    instance(folder / "anonymous", StudyInstanceUID="")
    summary = import_paths(pacs, [folder])
    assert (summary.stored, summary.refused, summary.exit_code) == (1, 2, 1)
    reasons = {refusal.path.name: refusal.reason for refusal in summary.refusals}
    assert "StudyInstanceUID" in reasons["anonymous"]
    assert reasons["cut"]
    assert list(pacs.settings.spool_directory.iterdir()) == []


def test_a_file_that_cannot_be_read_is_refused(pacs: Pacs, folder: Path) -> None:
    (folder / "broken disk").symlink_to("/proc/self/mem")
    summary = import_paths(pacs, [folder])
    assert [(refusal.path.name, refusal.reason) for refusal in summary.refusals] == [("broken disk", "cannot be read: Input/output error")]


def test_a_dicomdir_is_passed_over_whatever_its_name(pacs: Pacs, folder: Path) -> None:
    ds = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    ds.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    ds.save_as(folder / "INDEX")
    instance(folder / "one")
    assert import_paths(pacs, [folder]) == Summary(stored=1, dicomdirs=1)


def test_linked_folders_are_entered_once_and_loops_end(pacs: Pacs, folder: Path, tmp_path: Path) -> None:
    instance(folder / "a" / "one")
    instance(tmp_path / "elsewhere" / "two")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "outside").symlink_to(tmp_path / "elsewhere")
    (folder / "outside again").symlink_to(tmp_path / "elsewhere")
    (folder / "nowhere").symlink_to(folder / "absent")
    (folder / "itself").symlink_to(folder / "itself")
    summary = import_paths(pacs, [folder, folder / "a"])
    assert (summary.stored, summary.already_there) == (2, 0)


def test_pipes_are_not_opened(pacs: Pacs, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert import_paths(pacs, [folder]) == Summary()


def test_what_the_server_stores_is_not_imported_from_itself(pacs: Pacs, folder: Path) -> None:
    instance(folder / "one")
    import_paths(pacs, [folder])
    assert import_paths(pacs, [pacs.settings.resolved_storage_root]).found == 0
    assert import_paths(pacs, [pacs.settings.data]).found == 0


def test_nothing_found_and_nothing_there_are_told_apart_from_success(pacs: Pacs, folder: Path) -> None:
    assert import_paths(pacs, [folder]).exit_code == 2
    with pytest.raises(BadRequest, match="does not exist"):
        import_paths(pacs, [folder / "absent"])


@pytest.mark.parametrize("name", ["ExplVR_LitEndNoMeta.dcm", "ExplVR_BigEndNoMeta.dcm"])
def test_an_instance_without_preamble_becomes_a_whole_file(pacs: Pacs, folder: Path, name: str) -> None:
    (folder / name).write_bytes(shipped(name))
    summary = import_paths(pacs, [folder])
    assert summary.stored == 1, summary.refusals
    (path,) = stored(pacs)
    kept, given = pydicom.dcmread(path), pydicom.dcmread(folder / name, force=True)
    assert kept.file_meta.MediaStorageSOPInstanceUID == kept.SOPInstanceUID
    assert kept.PixelData == given.PixelData if "PixelData" in given else True
    assert import_paths(pacs, [folder]) == Summary(already_there=1)


class StopError(Exception):
    """Stands for Ctrl-C."""


def stop_after(count: int) -> object:
    def progress(done: int, total: int) -> None:
        if done == count:
            raise StopError

    return progress


def test_resume_passes_over_what_is_finished(pacs: Pacs, folder: Path) -> None:
    for number in range(30):
        instance(folder / f"{number:02}")
    with pytest.raises(StopError):
        import_paths(pacs, [folder], progress=stop_after(5))
    taken = len(stored(pacs))
    assert 5 <= taken < 30
    summary = import_paths(pacs, [folder], resume=True)
    assert (summary.resumed, summary.stored, summary.refused) == (taken, 30 - taken, 0)
    assert summary.exit_code == 0
    assert not (pacs.settings.data / "import.state").exists()


def test_resume_takes_changed_and_refused_files_again(pacs: Pacs, folder: Path) -> None:
    instance(folder / "same")
    instance(folder / "changes")
    (folder / "mended").write_bytes(shipped("CT_small.dcm")[:3000])
    assert import_paths(pacs, [folder]).refused == 1
    instance(folder / "changes", SeriesDescription="another")
    instance(folder / "mended")
    assert import_paths(pacs, [folder], resume=True) == Summary(resumed=1, new_versions=1, stored=1)


def test_without_resume_everything_is_looked_at_again(pacs: Pacs, folder: Path) -> None:
    instance(folder / "one")
    (folder / "cut").write_bytes(shipped("CT_small.dcm")[:3000])
    import_paths(pacs, [folder])
    assert import_paths(pacs, [folder]).already_there == 1


def test_a_full_disk_ends_the_import(pacs: Pacs, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: SpoolWriter, data: bytes) -> int:
        raise OutOfSpace("the spool cannot be written: No space left on device")

    for number in range(20):
        instance(folder / f"{number}")
    monkeypatch.setattr(SpoolWriter, "write", full)
    with pytest.raises(OutOfSpace):
        import_paths(pacs, [folder])
    assert list(pacs.settings.spool_directory.iterdir()) == []


def test_progress_counts_every_file_up_to_the_total(pacs: Pacs, folder: Path) -> None:
    for number in range(7):
        instance(folder / f"{number}")
    (folder / "notes.txt").touch()
    told: list[tuple[int, int]] = []
    import_paths(pacs, [folder], progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 8) for done in range(1, 9)]


def test_files_come_in_the_order_of_their_names(folder: Path) -> None:
    for name in ("b/2", "b/1", "a", "c"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert [str(path.relative_to(folder)) for path in walk([folder]) if isinstance(path, Path)] == ["a", "b/1", "b/2", "c"]

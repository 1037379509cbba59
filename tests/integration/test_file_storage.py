"""The files of patients in Python: what callers of such a service expect, on the same core as the server."""

from __future__ import annotations

import doctest
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from PIL import Image

import pacslite
from pacslite import FileStorageService, FileVersionType, MedicalFileType
from pacslite.errors import BadRequest, Gone, InvalidForm, NotFound, UnsupportedContent
from tests.support.data_sets import image, part10
from tests.support.file_samples import pdf, picture
from tests.support.foreign_trees import jpeg, stl
from tests.support.processes import environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[FileStorageService]:
    with FileStorageService(base_storage_path=tmp_path / "storage") as made:
        yield made


def test_the_page_about_it_runs_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("upper.stl").write_bytes(stl(1))
    Path("upper later.stl").write_bytes(stl(2))
    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", _closing(tmp_path, kept := []))
        found = doctest.testfile(str(ROOT / "docs/python.md"), module_relative=False)
    for file in kept:
        file.close()
    assert (found.failed, found.attempted > 15) == (0, True)


def _closing(_: Path, kept: list[io.IOBase]):  # type: ignore[no-untyped-def]
    whole = open

    def opened(*given: object, **named: object) -> object:
        kept.append(whole(*given, **named))  # type: ignore[arg-type, call-overload]
        return kept[-1]

    return opened


def test_importing_the_package_loads_none_of_it() -> None:
    code = "import pacslite, sys; assert not {'pacslite.file_storage', 'sqlalchemy'} & set(sys.modules); pacslite.FileStorageService"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0
    with pytest.raises(AttributeError):
        _ = pacslite.Nothing  # type: ignore[attr-defined]


def test_a_new_patient_has_folders_and_no_files(service: FileStorageService) -> None:
    folders = service.create_patient_directories(123)
    base = service.base_path / "patients" / "patient_123"
    assert folders["photo"] == base / "photos"
    assert all(path.is_dir() and (path / "thumbnails").is_dir() for path in folders.values())
    assert len(folders) == len(MedicalFileType)
    info = service.get_patient_storage_info(123)
    assert (info["patient_id"], info["file_count"], info["total_size_bytes"], info["total_size_mb"]) == (123, 0, 0, 0.0)
    assert service.create_patient_directories("123") == folders
    assert (service.base_path / "catalog.db").is_file()


def test_numbers_of_patients_are_kept_whatever_their_order(service: FileStorageService) -> None:
    service.create_patient_directories(500)
    service.create_patient_directories(7)
    record = service.create_with_version(jpeg(), 9, "photo", "a.jpg")
    assert record["patient_id"] == 9
    ds = image()
    ds.PatientID = "11"
    service.create_with_version(part10(ds), 11, "dicom", "a.dcm")
    assert service.get_patient_storage_info(11)["dicom"]["instances"] == 1


@pytest.mark.parametrize("number", [0, -1, "abc", "", True, 1.5, 2**63, "9" * 30, None])
def test_what_is_no_number_is_refused(service: FileStorageService, number: object) -> None:
    with pytest.raises(BadRequest):
        service.create_patient_directories(number)  # type: ignore[arg-type]


def test_nobody_has_no_storage(service: FileStorageService) -> None:
    with pytest.raises(NotFound):
        service.get_patient_storage_info(5)


def test_versions_from_bytes_paths_and_open_files(service: FileStorageService, tmp_path: Path) -> None:
    (tmp_path / "Röntgen.jpg").write_bytes(jpeg(2))
    first = service.create_with_version(
        jpeg(1), 1, MedicalFileType.PHOTO, "a.jpg", medical_category="clinical", study_date=date(2024, 5, 17)
    )
    assert (first["version_number"], first["version_type"], first["study_date"]) == (1, "baseline", "2024-05-17")
    second = service.create_with_version(tmp_path / "Röntgen.jpg", file_id=first["id"], version_type="final", version_description="done")
    assert (second["version_number"], second["original_filename"]) == (2, "Röntgen.jpg")
    third = service.create_with_version(io.BytesIO(jpeg(3)), file_id=first["id"], version_type=FileVersionType.SURGICAL)
    assert [one["version_type"] for one in service.get_versions(first["id"])] == ["surgical", "final", "baseline"]
    assert [service.get_file(first["id"], n) for n in (None, 1, 2)] == [jpeg(3), jpeg(1), jpeg(2)]
    assert third["id"] == first["id"]
    restored = service.restore_version(first["id"], 1)
    assert (restored["version_number"], service.get_file(first["id"])) == (4, jpeg(1))
    info = service.get_patient_storage_info(1)
    assert (info["file_count"], info["versions"]) == (1, 4)
    assert info["by_type"] == {"photo": {"count": 1, "size_bytes": sum(len(jpeg(n)) for n in (1, 2, 3))}}


def test_a_path_first_and_the_bytes_later(service: FileStorageService) -> None:
    path, name = service.generate_file_path(3, "photo", "IMG.JPG", datetime(2024, 5, 17, 23, 59, tzinfo=UTC))
    assert path == service.base_path / "patients" / "patient_3" / "photos" / name
    assert name.startswith("20240517_photo_")
    assert name.endswith(".jpg")
    assert not path.exists()
    assert service.generate_file_path(3, "photo", "IMG.JPG")[0] != path
    saved = service.save_file(jpeg(1), path, "IMG.JPG")
    assert (saved["path"], path.read_bytes(), saved["study_date"], saved["patient_id"]) == (path, jpeg(1), "2024-05-17", 3)
    again = service.save_file(jpeg(2), str(path))
    assert (again["id"], again["version_number"], service.get_file(path)) == (saved["id"], 2, jpeg(2))
    assert service.get_file(path.relative_to(service.base_path), version=1) == jpeg(1)
    assert service.get_file_info(path)["id"] == saved["id"]


def test_equal_bytes_lie_once_and_belong_to_both(service: FileStorageService) -> None:
    one, two = (service.generate_file_path(number, "photo", "a.jpg")[0] for number in (1, 2))
    first, second = service.save_file(jpeg(), one), service.save_file(jpeg(), two)
    assert first["path"] == second["path"] == one
    assert first["id"] != second["id"]
    assert service.delete_file(one, permanently=True)
    assert service.get_file(two) == jpeg()
    assert service.get_storage_stats()["file_count"] == 1


@pytest.mark.parametrize("path", ["/etc/passwd", "../catalog.db", "catalog.db", "patients/patient_1/photos/a.jpg", "", "x" * 5000, "a\0b"])
def test_other_paths_are_refused(service: FileStorageService, path: str) -> None:
    for call in (lambda: service.save_file(b"x", path), lambda: service.get_file(path), lambda: service.delete_file(path)):
        with pytest.raises(BadRequest):
            call()


def test_what_does_not_fit_is_refused_and_leaves_nothing(service: FileStorageService) -> None:
    for content, kind, name in ((b"MZ\x90", "photo", "a.jpg"), (jpeg(), "pdf", "a.pdf"), (b"", "photo", "a.jpg")):
        with pytest.raises(UnsupportedContent):
            service.create_with_version(content, 1, kind, name)
    with pytest.raises(BadRequest):
        service.create_with_version(jpeg(), 1, "foto", "a.jpg")
    with pytest.raises(BadRequest):
        service.create_with_version(jpeg(), 1, "photo", "a.jpg", colour="red")
    with pytest.raises(BadRequest):
        service.create_with_version(jpeg(), None, "photo", "a.jpg")
    with pytest.raises(BadRequest):
        service.create_with_version("no such file", 1, "photo")
    with pytest.raises(InvalidForm):
        service.create_with_version([jpeg(1), jpeg(2)], 1, "photo", ["a.jpg", "b.jpg"])
    assert list((service.base_path / "spool").iterdir()) == []
    assert service.get_storage_stats()["file_count"] == 0


def test_without_a_type_the_content_tells(service: FileStorageService) -> None:
    assert service.create_with_version(pdf(), 1, original_filename="a.pdf")["file_type"] == "pdf"
    assert service.create_with_version(stl(), 1, original_filename="a.stl")["file_type"] == "stl_model"


def test_a_photo_series_keeps_its_order(service: FileStorageService) -> None:
    record = service.create_with_version([jpeg(n) for n in (3, 1, 2)], 1, "photo_series", ["c.jpg", "a.jpg", "b.jpg"])
    assert [one["original_filename"] for one in record["items"]] == ["c.jpg", "a.jpg", "b.jpg"]
    assert service.get_file(record["id"], item=2) == jpeg(2)


def test_trash_and_erasure(service: FileStorageService) -> None:
    record = service.create_with_version(jpeg(), 1, "photo", "a.jpg")
    assert service.delete_file(record["id"])
    with pytest.raises(Gone):
        service.get_file(record["id"])
    assert not service.delete_file(record["id"])
    assert service.undelete_file(record["id"])["id"] == record["id"]
    assert [one["id"] for one in service.list_files(1, "photo")] == [record["id"]]
    assert service.delete_file(record["id"], permanently=True)
    assert list(service.list_files(1)) == []


def test_chunks_in_any_order_and_again(service: FileStorageService) -> None:
    data = bytes(range(256)) * 40
    for number in (3, 1, 4, 2, 1):
        state = service.save_chunk("s-1", number, data[2560 * (number - 1) : 2560 * number])
    assert state["received"] == [1, 2, 3, 4]
    assert service.assemble_chunks("s-1", 4).read_bytes() == data
    assert service.assemble_chunks("s-1").read_bytes() == data
    with pytest.raises(BadRequest, match="missing"):
        service.assemble_chunks("s-1", 5)
    with pytest.raises(BadRequest, match="not expected"):
        service.assemble_chunks("s-1", 3)
    assert service.cleanup_session("s-1") == 5
    assert service.cleanup_session("s-1") == 0
    with pytest.raises(NotFound):
        service.assemble_chunks("s-1")


@pytest.mark.parametrize("session", ["", "..", ".hidden", "a/b", "a\0", "x" * 200, "é"])
def test_names_of_sessions_stay_below_their_folder(service: FileStorageService, session: str) -> None:
    for call in (
        lambda: service.save_chunk(session, 0, b"x"),
        lambda: service.assemble_chunks(session),
        lambda: service.cleanup_session(session),
    ):
        with pytest.raises(BadRequest):
            call()


def test_chunks_of_several_threads(service: FileStorageService) -> None:
    parts = [bytes([n]) * 5000 for n in range(24)]
    threads = [threading.Thread(target=service.save_chunk, args=("many", n, part)) for n, part in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert service.assemble_chunks("many", 24).read_bytes() == b"".join(parts)


def test_what_was_left_behind_goes_by_its_age(service: FileStorageService) -> None:
    service.save_chunk("left", 0, b"12345")
    (service.base_path / "spool" / "left").write_bytes(b"123")
    kept = service.create_with_version(jpeg(), 1, "photo", "a.jpg")
    assert service.cleanup_temp_files(older_than_hours=1) == {"deleted_count": 0, "freed_bytes": 0}
    assert service.cleanup_temp_files(older_than_hours=0) == {"deleted_count": 2, "freed_bytes": 8}
    assert service.get_file(kept["id"]) == jpeg()


def test_room_and_sums(service: FileStorageService) -> None:
    assert service.has_enough_space(1)
    assert not service.has_enough_space(2**60)
    with pytest.raises(BadRequest):
        service.has_enough_space(-1)
    service.create_with_version(jpeg(1), 1, "photo", "a.jpg")
    service.create_with_version(jpeg(1), 2, "photo", "a.jpg")
    stats = service.get_storage_stats()
    assert (stats["file_count"], stats["total_size_bytes"], stats["dedup_saved_bytes"]) == (2, len(jpeg(1)), len(jpeg(1)))
    assert stats["by_type"]["photo"]["count"] == 2
    assert stats["available_bytes"] > 0


def test_thumbnails_made_and_given(service: FileStorageService) -> None:
    record = service.create_with_version(picture("JPEG", (640, 400)), 1, "photo", "a.jpg")
    made = service.save_thumbnail(record["id"])
    with Image.open(made) as found:
        assert (found.format, found.size) == ("JPEG", (200, 125))
    assert made.parent == service.base_path / "patients/patient_1/photos/thumbnails"
    model = service.create_with_version(stl(), 1, "stl_model", "a.stl")
    given = service.save_thumbnail(model["id"], picture("PNG", (400, 400)))
    with Image.open(given) as found:
        assert (found.format, found.size) == ("JPEG", (200, 200))
    assert service.save_thumbnail(model["id"]) == given
    document = service.create_with_version(b"just words\n", 1, "document", "a.txt")
    with pytest.raises(NotFound):
        service.save_thumbnail(document["id"])


def test_paths_of_later_versions_name_their_file_unless_several_share_the_bytes(service: FileStorageService) -> None:
    first = service.create_with_version(jpeg(1), 1, "photo", "a.jpg")
    later = service.create_with_version(jpeg(2), file_id=first["path"])
    assert service.get_file_info(later["path"])["id"] == first["id"]
    other = service.create_with_version(jpeg(2), 2, "photo", "b.jpg")
    assert other["path"] == later["path"]
    with pytest.raises(BadRequest, match="several"):
        service.delete_file(later["path"])


def test_opened_again_everything_is_there(tmp_path: Path) -> None:
    service = FileStorageService(str(tmp_path / "storage"))
    record = service.create_with_version(jpeg(), 1, "photo", "a.jpg")  # opened by itself
    service.close()
    assert service.get_file(record["id"]) == jpeg()
    service.close()
    with FileStorageService(tmp_path / "storage") as other:
        assert other.get_file(record["path"]) == jpeg()
    service.close()


def test_the_environment_of_a_server_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSLITE_DATA", str(tmp_path / "server"))
    with FileStorageService(tmp_path / "storage", max_upload_bytes=100) as service, pytest.raises(pacslite.errors.TooLarge):
        service.create_with_version(b"x" * 101, 1, "document", "a.txt")
    assert not (tmp_path / "server").exists()


def test_a_setting_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no setting max_uploads_bytes"):
        FileStorageService(tmp_path / "storage", max_uploads_bytes=100).initialize()
    assert not (tmp_path / "storage").exists()

"""ZIP files that are taken in entry by entry: what becomes of each, and archives that are made to do harm."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.protocol.test_files_dicom import instance
from tests.support import file_samples as samples
from tests.support.data_sets import part10
from tests.support.file_samples import zipped
from tests.support.file_site import Site, file_site
from tests.support.files import any_photo, new_patient, of_json
from tests.support.http import Answer

MOST_UNPACKED = 3 * 1024 * 1024


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with file_site(tmp_path_factory.mktemp("expand"), max_upload_bytes=str(MOST_UNPACKED)) as found:
        yield found


def send(site: Site, archive: bytes, name: str = "all.zip", **fields: Any) -> Answer:
    return site.post({"patient_id": site.patient, "expand": "true", **fields}, [(name, archive)])


def expanded(site: Site, archive: bytes, **fields: Any) -> dict[str, dict[str, Any]]:
    """What became of each entry, by its name."""
    items = of_json(send(site, archive, **fields), 200)["items"]
    assert site.spooled() == []
    return {item["name"]: item for item in items}


def problem_of(site: Site, archive: bytes, status: int = 400, **fields: Any) -> str:
    """What a refusal of the whole says; nothing of it stays."""
    problem = of_json(send(site, archive, **fields), status)
    assert site.spooled() == []
    return str(problem["detail"])


def with_photo(entries: Mapping[str, bytes | str]) -> bytes:
    return zipped({"good.jpg": any_photo(), **entries})


def test_every_entry_is_taken_as_what_it_is(site: Site) -> None:
    """DICOM goes to the DICOM catalog, the rest become files; the type is told from the content."""
    ds = instance(901)
    photo, text = any_photo(), "Befund: ünauffällig"
    entries: dict[str, bytes | str] = {
        "folder/Foto ü.jpg": photo,
        "folder/scan.stl": samples.binary_stl(),
        "bericht.txt": text,
        "report.pdf": samples.pdf(),
        "DICOM/IM000001": part10(ds),
    }
    items = expanded(site, zipped(entries), description="from the CD", study_date="2024-05-06")
    assert {name: item["outcome"] for name, item in items.items()} == dict.fromkeys(entries, "stored")
    found = {name: site.json("GET", item["file_id"]) for name, item in items.items() if "file_id" in item}
    assert {name: file["file_type"] for name, file in found.items()} == {
        "folder/Foto ü.jpg": "photo",
        "folder/scan.stl": "stl_model",
        "bericht.txt": "document",
        "report.pdf": "pdf",
    }
    assert found["folder/Foto ü.jpg"]["original_filename"] == "Foto ü.jpg"
    assert {(file["description"], file["study_date"]) for file in found.values()} == {("from the CD", "2024-05-06")}
    assert site.content(items["folder/Foto ü.jpg"]["file_id"]).body == photo
    assert site.content(items["bericht.txt"]["file_id"]).body == text.encode()
    assert items["DICOM/IM000001"]["sop_instance_uid"] == ds.SOPInstanceUID
    path = f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    assert site.status("GET", path) == 200


def test_what_is_there_already_is_a_duplicate(site: Site) -> None:
    archive = zipped({"a.jpg": any_photo(), "b.dcm": part10(instance(902))})
    first, second = expanded(site, archive), expanded(site, archive)
    assert {item["outcome"] for item in first.values()} == {"stored"}
    assert {item["outcome"] for item in second.values()} == {"duplicate"}
    assert second["a.jpg"]["file_id"] == first["a.jpg"]["file_id"]
    assert second["b.dcm"]["sop_instance_uid"] == first["b.dcm"]["sop_instance_uid"]
    assert site.status("DELETE", first["a.jpg"]["file_id"]) == 204
    third = expanded(site, archive)
    assert third["a.jpg"]["outcome"] == "stored"
    assert third["a.jpg"]["file_id"] != first["a.jpg"]["file_id"]


def test_a_type_that_is_given_counts_for_every_entry(site: Site) -> None:
    items = expanded(site, zipped({"a.png": samples.picture("PNG"), "b.txt": "text", "c.dcm": part10(instance(903))}), file_type="xray")
    assert {name: item["outcome"] for name, item in items.items()} == {"a.png": "stored", "b.txt": "refused", "c.dcm": "stored"}
    assert site.json("GET", items["a.png"]["file_id"])["file_type"] == "xray"
    assert "not taken as xray" in items["b.txt"]["problem"]


def test_the_images_of_somebody_else_are_refused(site: Site) -> None:
    new_patient(site.guarded.accounts.catalog, "P-904")
    items = expanded(site, with_photo({"a.dcm": part10(instance(904, patient="P-904"))}))
    assert items["a.dcm"]["outcome"] == "refused"
    assert "Patient ID" in items["a.dcm"]["problem"]
    ds = instance(904)
    assert site.status("GET", f"/dicom-web/studies/{ds.StudyInstanceUID}/metadata") == 404


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../../etc/passwd", "leads out"),
        ("folder/../../a.txt", "leads out"),
        ("..\\..\\a.txt", "leads out"),
        ("/etc/passwd", "absolute"),
        ("C:\\Windows\\a.txt", "absolute"),
        ("C:a.txt", "absolute"),
        ("\\\\server\\share\\a.txt", "absolute"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(site: Site, name: str, problem: str) -> None:
    """Checklist B41: a path in an archive escapes nothing."""
    items = expanded(site, with_photo({name: "text"}))
    assert items["good.jpg"]["outcome"] == "stored"
    refused = next(item for key, item in items.items() if key != "good.jpg")
    assert refused["outcome"] == "refused"
    assert problem in refused["problem"]


def test_links_are_refused(site: Site) -> None:
    out = io.BytesIO(with_photo({}))
    with zipfile.ZipFile(out, "a") as file:
        link = zipfile.ZipInfo("link.txt")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    assert "link" in expanded(site, out.getvalue())["link.txt"]["problem"]


def test_archives_within_archives_are_refused(site: Site) -> None:
    inner = zipped({"a.txt": "text"})
    items = expanded(
        site, with_photo({"inner.zip": inner, "inner": inner, "inner.gz": b"\x1f\x8b\x08" + bytes(20), "a.docx": samples.ooxml("docx")})
    )
    for name in ("inner.zip", "inner", "inner.gz"):
        assert "archives within archives" in items[name]["problem"], name
    assert items["a.docx"]["outcome"] == "stored"


def test_what_would_be_refused_alone_is_refused_here(site: Site) -> None:
    items = expanded(
        site, with_photo({"a.exe": b"MZ\x90\0" + bytes(100), "b.jpg": b"<html>", "c.html": "<html>", "d.jpg": b"", "e.stl": bytes(90)})
    )
    assert {name for name, item in items.items() if item["outcome"] == "refused"} == {"a.exe", "b.jpg", "c.html", "d.jpg", "e.stl"}


def test_what_systems_leave_in_archives_is_passed_over(site: Site) -> None:
    rubbish = dict.fromkeys(["__MACOSX/._good.jpg", ".DS_Store", "folder/Thumbs.db", "desktop.ini", "DICOMDIR", "a/._b.jpg"], b"rubbish")
    assert set(expanded(site, with_photo({"folder/": b"", **rubbish}))) == {"good.jpg"}


def test_an_entry_that_packs_too_well_is_refused(site: Site) -> None:
    items = expanded(site, with_photo({"bomb.txt": b" " * (2 * 1024 * 1024)}))
    assert "more than the 100 times" in items["bomb.txt"]["problem"]


def test_an_archive_that_unpacks_to_more_than_one_upload_may_have_is_refused_at_once(site: Site) -> None:
    pieces = {f"{number}.txt": os.urandom(150_000).hex().encode() for number in range(12)}
    archive = zipped(pieces)
    assert len(archive) < MOST_UNPACKED < sum(map(len, pieces.values()))
    assert "unpacks to" in problem_of(site, archive, 413)


def test_an_entry_that_is_longer_than_it_says_is_refused(site: Site) -> None:
    archive = bytearray(with_photo({"a.txt": b"abcd" * 50}))
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = archive.rfind(signature)
        archive[at + offset : at + offset + 4] = struct.pack("<I", 100)
    assert "more than it says" in expanded(site, bytes(archive))["a.txt"]["problem"]


def test_an_entry_with_another_checksum_is_refused(site: Site) -> None:
    archive = bytearray(with_photo({"a.txt": b"abcd" * 50}))
    for signature, offset in ((b"PK\3\4", 14), (b"PK\1\2", 16)):
        at = archive.rfind(signature)
        archive[at + offset : at + offset + 4] = b"\1\2\3\4"
    assert "checksum" in expanded(site, bytes(archive))["a.txt"]["problem"]


def test_encrypted_entries_are_refused(site: Site) -> None:
    archive = bytearray(with_photo({"a.txt": b"secret"}))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        archive[archive.rfind(signature) + offset] |= 1
    assert "encrypted" in expanded(site, bytes(archive))["a.txt"]["problem"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_second_entry_of_a_name_is_refused(site: Site) -> None:
    out = io.BytesIO()
    first = any_photo()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a.jpg", first)
        file.writestr("a.jpg", any_photo())
    items = of_json(send(site, out.getvalue()), 200)["items"]
    assert [item["outcome"] for item in items] == ["stored", "refused"]
    assert site.content(items[0]["file_id"]).body == first


class Unseekable(io.RawIOBase):
    """Somewhere a ZIP can only be streamed to: its entries then have their lengths behind them."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data)
        return len(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("large", [False, True])
def test_archives_of_every_make_are_read(site: Site, method: int, large: bool) -> None:
    """With data descriptors, ZIP64, and each method of packing."""
    out, photo = Unseekable(), any_photo()
    with zipfile.ZipFile(out, "w", method) as file:
        with file.open("a.jpg", "w", force_zip64=large) as entry:
            entry.write(photo)
        file.comment = b"a comment"
    items = expanded(site, bytes(out.data))
    assert items["a.jpg"]["outcome"] == "stored"
    assert site.content(items["a.jpg"]["file_id"]).body == photo


def test_a_zip64_end_record_is_read(site: Site) -> None:
    plain = zipped({"a.jpg": any_photo()})
    end = plain.rfind(b"PK\5\6")
    _, _, _, _, count, size, offset, _ = struct.unpack("<4sHHHHIIH", plain[end:])
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert expanded(site, plain[:end] + record + locator + last)["a.jpg"]["outcome"] == "stored"


def test_overlapping_entries_refuse_the_whole(site: Site) -> None:
    """What few bytes unpack to petabytes by: many entries of the same bytes."""
    plain = zipped({"a.txt": "text" * 100})
    end = plain.rfind(b"PK\5\6")
    size, offset = struct.unpack("<II", plain[end + 12 : end + 20])
    directory = plain[offset : offset + size] * 50
    record = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 50, 50, len(directory), offset, 0)
    assert "overlap" in problem_of(site, plain[:offset] + directory + record)


def test_more_entries_than_are_taken_refuse_the_whole(site: Site) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for number in range(10_001):
            file.writestr(f"{number}.txt", b"")
    assert "10001 entries" in problem_of(site, out.getvalue(), 413)


@pytest.mark.parametrize("harm", ["cut off", "directory elsewhere", "other name", "other count"])
def test_archives_that_contradict_themselves_are_refused(site: Site, harm: str) -> None:
    archive = bytearray(zipped({"a.jpg": any_photo(), "b.txt": "text"}))
    end = archive.rfind(b"PK\5\6")
    if harm == "cut off":
        del archive[end - 10 :]
    elif harm == "directory elsewhere":
        archive[end + 16] ^= 1
    elif harm == "other name":
        archive[archive.rfind(b"b.txt")] = ord("c")
    else:
        archive[end + 8 : end + 12] = struct.pack("<HH", 1, 1)
    assert "the archive is broken" in problem_of(site, bytes(archive))


def test_an_archive_of_which_nothing_can_be_taken_is_refused(site: Site) -> None:
    problem = of_json(send(site, zipped({"../a.txt": "text", "b.exe": b"MZ\x90\0" + bytes(99)})), 400)
    assert problem["type"] == "invalid-form"
    assert [error["message"].partition(":")[0] for error in problem["errors"]] == ["../a.txt", "b.exe"]
    assert "has none" in problem_of(site, zipped({}))
    assert "has none" in problem_of(site, zipped({"folder/": b"", ".DS_Store": b"x"}))


def test_what_is_no_archive_is_refused(site: Site) -> None:
    assert "no ZIP archive" in problem_of(site, any_photo(), 415)


def test_forms_that_do_not_fit_are_refused(site: Site) -> None:
    archive = zipped({"a.jpg": any_photo()})
    assert "no such patient" in problem_of(site, archive, patient_id=987654)
    assert "a series" in problem_of(site, archive, file_type="photo_series")
    assert "study_date" in problem_of(site, archive, study_date="2024-02-30")
    assert of_json(site.post({"patient_id": site.patient, "expand": "true"}, []), 400)["type"] == "invalid-form"
    two = site.post({"patient_id": site.patient, "expand": "true"}, [("a.zip", archive), ("b.zip", archive)])
    assert "one archive" in of_json(two, 400)["detail"]
    assert site.spooled() == []


def test_without_expand_an_archive_is_refused(site: Site) -> None:
    fields = {"patient_id": site.patient, "file_type": "document"}
    problem = of_json(site.post(fields, [("a.zip", zipped({"a.txt": "text"}))]), 415)
    assert problem["type"] == "unsupported-content"
    assert "expand=true" in problem["detail"]


def test_the_patient_has_what_was_taken_and_nothing_else(site: Site) -> None:
    patient = new_patient(site.guarded.accounts.catalog, "P-910")
    archive = zipped(
        {"a.jpg": any_photo(), "b.txt": "text", "c.exe": b"MZ\x90\0" + bytes(99), "d.dcm": part10(instance(910, patient="P-910"))}
    )
    expanded(site, archive, patient_id=patient)
    listed = site.json("GET", f"patient/{patient}/files")
    assert sorted(file["original_filename"] for file in listed["items"]) == ["a.jpg", "b.txt"]

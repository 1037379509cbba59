"""Studies, series and instances as ZIP files with DICOMDIR over the wire: PS3.18 8.7.3.1, PS3.10 8, PS3.3 annex F."""

from __future__ import annotations

import gc
import io
import json
import re
import shutil
import subprocess
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import JPEG2000, ExplicitVRLittleEndian

from tests.support.data_sets import CONTENT_TYPE, NATIVE, body, document, image, new_uid, part10
from tests.support.http import Answer
from tests.support.wado import WebArchive, path_of, series_of, study_of, web_archive

ZIP = "application/zip"
CODE_STREAM = b"\xff\x4f\xff\x51first\0"
# PS3.10 8.2 and 8.5: at most 8 components of at most 8 characters.
FILE_ID = re.compile(r"[A-Z0-9_]{1,8}(?:/[A-Z0-9_]{1,8}){0,7}")
SR, KEY_OBJECT, PRESENTATION, RT_PLAN = ("1.2.840.10008.5.1.4.1.1." + end for end in ("88.33", "88.59", "11.1", "481.5"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebArchive]:
    with web_archive(tmp_path_factory.mktemp("archives")) as made:
        yield made


def report(sop_class: str, **attributes: str) -> Dataset:
    """Something that is no image."""
    ds, title, modifier, text = image(), Dataset(), Dataset(), Dataset()
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "NumberOfFrames"):
        delattr(ds, keyword)
    ds.SOPClassUID = sop_class
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "126000", "DCM", "Imaging Measurement Report"
    ds.ConceptNameCodeSequence = [title]
    modifier.RelationshipType, modifier.ValueType, modifier.TextValue = "HAS CONCEPT MOD", "TEXT", "a modifier"
    text.RelationshipType, text.ValueType, text.TextValue = "CONTAINS", "TEXT", "a secret"
    ds.ContentSequence = [text, modifier]
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


@pytest.fixture(scope="module")
def study(archive: WebArchive) -> dict[str, bytes]:
    """The files of a study by SOP Instance UID: images in all native syntaxes, a compressed one, documents of several kinds."""
    uid, files = new_uid(), {}
    made = [(image(number=number), syntax) for number, syntax in enumerate(NATIVE, 1)]
    made.append((image(compressed=[CODE_STREAM]), JPEG2000))
    texts = {"ContentDate": "20260102", "ContentTime": "0304", "CompletionFlag": "COMPLETE", "VerificationFlag": "VERIFIED"}
    reports = [report(SR, **texts), report(KEY_OBJECT), report(PRESENTATION, ContentLabel="GSPS"), report(RT_PLAN, RTPlanLabel="Plan")]
    made += [(ds, ExplicitVRLittleEndian) for ds in (*reports, document(b"%PDF-1.4 x"))]
    series = [new_uid() for _ in range(4)]
    for number, (ds, syntax) in enumerate(made):
        ds.StudyInstanceUID, ds.SeriesInstanceUID = uid, series[number % 4]
        ds.SeriesNumber = number % 4 + 1
        ds.SpecificCharacterSet, ds.PatientName = "ISO_IR 192", "Müller^Jürgen"
        if "InstanceNumber" not in ds:
            ds.InstanceNumber = number
        files[str(ds.SOPInstanceUID)] = part10(ds, syntax)
    archive.store(*files.values())
    return {"": f"/studies/{uid}".encode(), **files}


def path_to(study: dict[str, bytes]) -> str:
    return study[""].decode()


def files_of(study: dict[str, bytes]) -> dict[str, bytes]:
    return {uid: file for uid, file in study.items() if uid}


def opened(answer: Answer) -> zipfile.ZipFile:
    assert (answer.status, answer.headers["content-type"]) == (200, ZIP), answer.body
    assert int(answer.headers["content-length"]) == len(answer.body)
    return zipfile.ZipFile(io.BytesIO(answer.body))


def read_by_pydicom(directory: Path) -> dict[str, bytes]:
    """The files that a file set lists, by SOP Instance UID."""
    with warnings.catch_warnings():
        # A FileSet leaves the directories that it makes for changes to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        file_set = FileSet(directory / "DICOMDIR")
        found = {str(one.SOPInstanceUID): Path(one.path).read_bytes() for one in file_set}
        del file_set
        gc.collect()
    return found


def test_a_study_is_a_zip_of_its_files_as_stored(archive: WebArchive, study: dict[str, bytes]) -> None:
    """B28: every file once, byte for byte, under names of media, with nothing of the patient in them."""
    answer = archive.get(path_to(study), ZIP)
    with opened(answer) as found:
        assert found.testzip() is None
        names = found.namelist()
        assert names[0] == "DICOMDIR"
        assert len(set(names)) == len(names) == 11
        assert all(FILE_ID.fullmatch(name) for name in names)
        assert sorted(map(found.read, names[1:])) == sorted(files_of(study).values())
    assert answer.headers["content-disposition"] == f'attachment; filename="{path_to(study)[9:]}.zip"'


def test_pydicom_reads_the_dicomdir_as_a_file_set(archive: WebArchive, study: dict[str, bytes], tmp_path: Path) -> None:
    opened(archive.get(path_to(study), ZIP)).extractall(tmp_path)
    assert read_by_pydicom(tmp_path) == files_of(study)
    directory = dcmread(tmp_path / "DICOMDIR")
    types = [record.DirectoryRecordType for record in directory.DirectoryRecordSequence]
    assert types[:3] == ["PATIENT", "STUDY", "SERIES"]
    assert {kind: types.count(kind) for kind in set(types)} == {
        **dict.fromkeys(("PATIENT", "STUDY", "SR DOCUMENT", "KEY OBJECT DOC", "PRESENTATION", "RT PLAN", "ENCAP DOC"), 1),
        "SERIES": 4,
        "IMAGE": 5,
    }
    [patient] = [record for record in directory.DirectoryRecordSequence if record.DirectoryRecordType == "PATIENT"]
    assert (patient.PatientName, patient.SpecificCharacterSet) == ("Müller^Jürgen", "ISO_IR 192")
    [of_report] = [record for record in directory.DirectoryRecordSequence if record.DirectoryRecordType == "SR DOCUMENT"]
    assert of_report.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurement Report"
    assert [item.TextValue for item in of_report.ContentSequence] == ["a modifier"]


def test_dcmtk_reads_the_dicomdir_and_adds_to_it(archive: WebArchive, study: dict[str, bytes], tmp_path: Path) -> None:
    if not shutil.which("dcmmkdir"):
        pytest.skip("dcmtk is not installed")
    opened(archive.get(path_to(study), ZIP)).extractall(tmp_path)
    dump = subprocess.run(["dcmdump", "+L", str(tmp_path / "DICOMDIR")], capture_output=True, text=True, check=True)
    assert "E:" not in dump.stderr
    assert "W:" not in dump.stderr
    assert dump.stdout.count("ReferencedFileID") == len(files_of(study))
    new = image(study=path_to(study)[9:])
    new.StudyID = new.AccessionNumber = "1"
    (tmp_path / "DICOM" / "NEW").write_bytes(part10(new))
    command = [
        "dcmmkdir",
        "--append",
        "--no-consistency-check",
        "+id",
        str(tmp_path),
        "+D",
        str(tmp_path / "DICOMDIR"),
    ]
    done = subprocess.run([*command, "DICOM/NEW"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read_by_pydicom(tmp_path)) == len(files_of(study)) + 1


def test_a_series_and_an_instance_are_archives_too(archive: WebArchive) -> None:
    uid = new_uid()
    made = [image(study=uid, series=new_uid()), image(study=uid)]
    archive.store(*map(part10, made))
    for path, wanted in ((study_of(made[0]), made), (series_of(made[0]), made[:1]), (path_of(made[1]), made[1:])):
        with opened(archive.get(path, ZIP)) as found:
            assert sorted(map(found.read, found.namelist()[1:])) == sorted(map(part10, wanted))
    over_rest = archive.rest("GET", f"/studies/{uid}/archive")
    assert over_rest.body == archive.get(f"/studies/{uid}", ZIP).body


def test_an_archive_is_chosen_by_its_quality_and_in_no_other_transfer_syntax(archive: WebArchive) -> None:
    """Checklist 5, 16: the range liked best wins; an archive of other transfer syntaxes than the stored ones is 406."""
    ds = image()
    archive.store(part10(ds))
    multipart = 'multipart/related; type="application/dicom"'
    for accept, kind in (
        (f"{ZIP}; q=0.5, {multipart}; q=0.8", "multipart/related"),
        (f"{ZIP}; q=0.8, {multipart}; q=0.5", ZIP),
        (f"{ZIP}; transfer-syntax=*", ZIP),
        (f"text/html, {ZIP}, */*; q=0.1", ZIP),
    ):
        answer = archive.get(study_of(ds), accept)
        assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, kind)
    assert archive.get(study_of(ds), f"{ZIP}; transfer-syntax={JPEG2000}").status == 406


def test_an_archive_is_the_same_each_time_until_the_study_changes(archive: WebArchive) -> None:
    """Checklist 32: a strong tag of the content; If-None-Match and HEAD."""
    ds = image()
    archive.store(part10(ds))
    path = study_of(ds)
    first, second = archive.get(path, ZIP), archive.get(path, ZIP)
    assert (first.body, first.headers["etag"]) == (second.body, second.headers["etag"])
    assert archive.get(path, ZIP, If_None_Match=first.headers["etag"]).status == 304
    head = archive.server.request("HEAD", path, headers={"Accept": ZIP})
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(first.body)))
    archive.store(part10(image(study=ds.StudyInstanceUID)))
    assert archive.get(path, ZIP).headers["etag"] != first.headers["etag"]


def test_a_download_that_broke_off_goes_on_with_a_range(archive: WebArchive, study: dict[str, bytes]) -> None:
    """Checklist 22: any range of an archive, also before the whole was ever read."""
    uid = new_uid()
    pixels = np.random.default_rng(5).integers(0, 65536, (1, 600, 700), dtype=np.uint16)
    archive.store(*(part10(image(pixels, study=uid, number=number)) for number in range(3)))
    path = f"/studies/{uid}"
    length = int(archive.server.request("HEAD", path, headers={"Accept": ZIP}).headers["content-length"])
    begins = (length - 10, length // 2, 250_000, 300, 1)
    ends = {begin: archive.get(path, ZIP, Range=f"bytes={begin}-") for begin in begins}
    whole = archive.get(path, ZIP)
    for begin, part in ends.items():
        assert (part.status, part.body) == (206, whole.body[begin:])
        assert part.headers["content-range"] == f"bytes {begin}-{length - 1}/{length}"
    pieces = [archive.get(path, ZIP, Range=f"bytes={at}-{at + 299_999}").body for at in range(0, length, 300_000)]
    assert b"".join(pieces) == whole.body
    assert archive.get(path, ZIP, Range=f"bytes={length}-").status == 416
    assert archive.get(path, ZIP, Range="bytes=5-", If_Range='"another"').status == 200


def test_an_archive_of_what_is_not_whole_is_refused(archive: WebArchive) -> None:
    """Checklist 23, 24: 500 with lost bytes, 404 and 410 for what is not there."""
    uid = new_uid()
    made = [image(study=uid, number=number) for number in range(2)]
    archive.store(*map(part10, made))
    archive.lose(made[1])
    answer = archive.get(f"/studies/{uid}", ZIP)
    assert (answer.status, json.loads(answer.body)["type"]) == (500, "blob-missing")
    assert archive.get("/studies/1.2.3", ZIP).status == 404
    assert archive.server.request("DELETE", f"/studies/{uid}").status == 204
    assert archive.get(f"/studies/{uid}", ZIP).status == 410
    assert archive.rest("GET", f"/studies/{uid}/archive").status == 410


def test_instances_without_usual_attributes_are_listed_all_the_same(archive: WebArchive, tmp_path: Path) -> None:
    ds = image()
    for keyword in ("PatientID", "StudyDate", "StudyTime", "Modality", "SeriesNumber", "InstanceNumber"):
        delattr(ds, keyword)
    archive.store(part10(ds))
    opened(archive.get(study_of(ds), ZIP)).extractall(tmp_path)
    assert list(read_by_pydicom(tmp_path)) == [ds.SOPInstanceUID]


@pytest.mark.full
def test_an_archive_of_thousands_of_instances_takes_little_memory(tmp_path: Path) -> None:
    """B28: what an archive of 3,000 instances takes beside the list of them is a few MiB, whatever their size."""
    uid, pixels = new_uid(), np.zeros((1, 100, 200), np.uint16)
    with web_archive(tmp_path) as archive:
        for begin in range(0, 3000, 250):
            archive.store(*(part10(image(pixels, study=uid, series=uid, number=begin + n)) for n in range(250)))
        before = peak_mib(archive)
        with opened(archive.get(f"/studies/{uid}", ZIP)) as found:
            assert len(found.namelist()) == 3001
        assert peak_mib(archive) - before < 40


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_files_of_many_vendors_are_listed_by_a_dicomdir_that_others_read(tmp_path: Path, corpus: Path) -> None:
    """B28: the archive of every study of the corpus is a file set to pydicom, and without a fault to dcmtk."""
    (tmp_path / "server").mkdir()
    with web_archive(tmp_path / "server") as archive:
        for file in sorted(file for file in corpus.rglob("*") if file.is_file()):
            # Some are damaged on purpose, and refused.
            archive.server.request("POST", "/studies", body([file.read_bytes()]), {"Content-Type": CONTENT_TYPE})
        studies = json.loads(archive.get("/studies?limit=5000", "application/dicom+json").body)
        assert len(studies) > 50
        for number, one in enumerate(studies):
            directory = tmp_path / str(number)
            with opened(archive.get(f"/studies/{one['0020000D']['Value'][0]}", ZIP)) as found:
                assert found.testzip() is None
                found.extractall(directory)
                assert len(read_by_pydicom(directory)) == len(found.namelist()) - 1
            if shutil.which("dcmdump"):
                dump = subprocess.run(["dcmdump", "+L", str(directory / "DICOMDIR")], capture_output=True, check=True)
                assert dump.stderr == b""


def peak_mib(archive: WebArchive) -> float:
    """The most memory that any process of the server has taken."""
    parent = archive.server.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    lines = [line for pid in (str(parent), *children) for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return max(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def test_more_instances_than_a_request_may_retrieve_are_413(tmp_path: Path) -> None:
    """Checklist 26: 413 with an explanation for too large a retrieve; its parts can be had."""
    uid, series = new_uid(), new_uid()
    made = [image(study=uid, series=series if number else None, number=number) for number in range(3)]
    with web_archive(tmp_path, max_retrieve_instances="2") as archive:
        archive.store(*map(part10, made))
        for accept in (ZIP, 'multipart/related; type="application/dicom"', 'multipart/related; type="application/octet-stream"'):
            answer = archive.get(f"/studies/{uid}", accept)
            assert (answer.status, json.loads(answer.body)["type"]) == (413, "too-large")
            assert archive.get(f"/studies/{uid}/series/{series}", accept).status == 200

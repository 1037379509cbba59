"""Patients and studies as ZIP files over the wire: instances with DICOMDIR (PS3.10 8), other files beside them, nothing that is hidden."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacslite import app
from pacslite.app import Pacs
from pacslite.catalog import blobs, restrictions
from pacslite.catalog.changes import Origin
from pacslite.catalog.restrictions import Named, Restriction, file_named, patient_named
from pacslite.core import files, patients
from pacslite.core.access import Right, Role
from pacslite.core.file_types import FileVersionType, MedicalFileType
from pacslite.core.files import Arrived, Description, FileRecord, Owner
from pacslite.core.patients import About, Cause
from pacslite.core.users import Change, change
from pacslite.dicom.attributes import Level
from pacslite.settings import load
from tests.support.accounts import Guarded, guarded
from tests.support.data_sets import image, new_uid, part10
from tests.support.file_samples import pdf
from tests.support.foreign_trees import jpeg, stl
from tests.support.http import Answer, WebServer, running

OWNER, ORIGIN = Owner(None, "somebody"), Origin("api")
PHOTO, STL, PDF, SERIES = MedicalFileType.PHOTO, MedicalFileType.STL_MODEL, MedicalFileType.PDF, MedicalFileType.PHOTO_SERIES


@dataclass(frozen=True)
class House:
    """A server, and the parts of a process beside it over the same data."""

    server: WebServer
    pacs: Pacs

    def get(self, path: str, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self.server, root="/api/v1").request("GET", path, headers=named)

    def patient(self, mrn: str = "") -> int:
        return patients.create(self.pacs, mrn or new_uid()[-20:], None, About(), Cause(ORIGIN)).id

    def file(
        self, patient_id: int, kind: MedicalFileType, *content: tuple[str, bytes], study: str | None = None, date: str | None = None
    ) -> FileRecord:
        about = Description(patient_id, kind, study_date=date, study_instance_uid=study)
        return files.add(self.pacs, [self.arrived(name, data) for name, data in content], about, OWNER, ORIGIN)

    def arrived(self, name: str, data: bytes) -> Arrived:
        with self.pacs.spool.create() as writer:
            writer.write(data)
            return Arrived(writer.finish(), name)

    def store(self, ds: Dataset) -> bytes:
        file = part10(ds)
        self.pacs.ingest.accept(self.arrived("", file).file, Origin("import"))
        return file


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    data = tmp_path_factory.mktemp("house")
    with running(data) as server:
        pacs = app.build(load(environment={}, data=data))
        yield House(server, pacs)
        pacs.close()


def opened(answer: Answer) -> zipfile.ZipFile:
    assert (answer.status, answer.headers["content-type"]) == (200, "application/zip"), answer.body[:500]
    assert int(answer.headers["content-length"]) == len(answer.body)
    found = zipfile.ZipFile(io.BytesIO(answer.body))
    assert found.testzip() is None
    return found


def instances_of(mrn: str, count: int = 2, study: str | None = None, name: str = "Someone^Secret") -> list[Dataset]:
    made, series = [], new_uid()
    for number in range(1, count + 1):
        made.append(image(study=study, series=series, number=number))
        study = study or str(made[0].StudyInstanceUID)
        made[-1].PatientID, made[-1].PatientName = mrn, name
    return made


def test_all_of_a_patient_is_one_zip(house: House, tmp_path: Path) -> None:
    """Every study under one DICOMDIR, files under their names in any language, a series in its order, newest versions only."""
    mrn = "Z-1"
    whose = house.patient(mrn)
    instances = [*instances_of(mrn), *instances_of(mrn, 1)]
    dicom = [house.store(ds) for ds in instances]
    house.file(whose, PHOTO, ("Röntgen 正面.jpg", jpeg(1)))
    house.file(whose, PHOTO, ("röntgen 正面.JPG", jpeg(2)))
    house.file(whose, STL, ("../../upper.stl", stl()))
    house.file(whose, SERIES, ("b.jpg", jpeg(4)), ("a.jpg", jpeg(3)), ("a.jpg", jpeg(5)), date="2024-05-17")
    old = house.file(whose, PDF, ("report.pdf", pdf()))
    newer = [house.arrived("report v2.pdf", pdf(more=b"% newer"))]
    files.add_version(house.pacs, old.id, newer, FileVersionType.FOLLOWUP, None, OWNER, ORIGIN)
    deleted = house.file(whose, PHOTO, ("deleted.jpg", jpeg(6)))
    files.delete(house.pacs, deleted.id, OWNER, ORIGIN)
    house.file(house.patient(), PHOTO, ("somebody else's.jpg", jpeg(7)))
    answer = house.get(f"/patients/{whose}/archive")
    with opened(answer) as found:
        names = found.namelist()
        assert names[0] == "DICOMDIR"
        assert sorted(found.read(name) for name in names if name.startswith("DICOM/")) == sorted(dicom)
        beside = {name: found.read(name) for name in names if name.startswith("files/")}
        assert beside == {
            "files/photos/Röntgen 正面.jpg": jpeg(1),
            "files/photos/röntgen 正面 (2).JPG": jpeg(2),
            "files/stl_models/upper.stl": stl(),
            "files/photo_series/20240517/001_b.jpg": jpeg(4),
            "files/photo_series/20240517/002_a.jpg": jpeg(3),
            "files/photo_series/20240517/003_a.jpg": jpeg(5),
            "files/pdfs/report v2.pdf": pdf(more=b"% newer"),
        }
        assert all(info.flag_bits & 0x800 for info in found.infolist())
        assert b"Secret" not in b"".join(name.encode() for name in names)
        found.extractall(tmp_path)
    assert answer.headers["content-disposition"] == f'attachment; filename="patient_{whose}.zip"'
    if shutil.which("dcmdump"):
        dump = subprocess.run(["dcmdump", "+L", str(tmp_path / "DICOMDIR")], capture_output=True, text=True, check=True)
        assert not any(word in dump.stderr for word in ("E:", "W:"))
        assert dump.stdout.count("[STUDY]") == 2
        assert dump.stdout.count("[PATIENT]") == 1
        for ds in instances:
            assert str(ds.SOPInstanceUID) in dump.stdout


def test_a_merged_patient_is_listed_once_under_each_number(house: House) -> None:
    """PS3.10 8, PS3.3 F.5.1: the directory has one record for a PatientID, however the studies came."""
    one, two = house.patient("Z-5"), house.patient("Z-6")
    for mrn in ("Z-5", "Z-6", "Z-5"):
        house.store(instances_of(mrn, 1)[0])
    house.file(two, PHOTO, ("of the other.jpg", jpeg(31)))
    patients.merge(house.pacs, two, one, Cause(ORIGIN))
    with opened(house.get(f"/patients/{one}/archive")) as found:
        directory = dcmread(io.BytesIO(found.read("DICOMDIR"))).DirectoryRecordSequence
        assert "files/photos/of the other.jpg" in found.namelist()
    kinds = [record.DirectoryRecordType for record in directory]
    assert (kinds.count("PATIENT"), kinds.count("STUDY")) == (2, 3)


def test_unzip_takes_it_apart(house: House, tmp_path: Path) -> None:
    if not shutil.which("unzip"):
        pytest.skip("unzip is not installed")
    whose = house.patient()
    house.file(whose, PHOTO, ("mañana ❤.jpg", jpeg(8)))
    (tmp_path / "a.zip").write_bytes(house.get(f"/patients/{whose}/archive").body)
    done = subprocess.run(["unzip", "-q", "a.zip"], cwd=tmp_path, capture_output=True, text=True, check=False, env={"LC_ALL": "C.UTF-8"})
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "files/photos/mañana ❤.jpg").read_bytes() == jpeg(8)


def test_a_dicom_file_is_in_it_once_as_an_instance(house: House) -> None:
    [ds] = instances_of("Z-2", 1)
    whose, file = house.patient("Z-2"), part10(ds)
    house.file(whose, MedicalFileType.DICOM, ("slice.dcm", file))
    with opened(house.get(f"/patients/{whose}/archive")) as found:
        assert found.namelist() == ["DICOMDIR", "DICOM/SE000001/IM000001"]
        assert found.read("DICOM/SE000001/IM000001") == file


def test_without_instances_there_is_no_dicomdir_and_without_anything_it_is_empty(house: House) -> None:
    whose = house.patient()
    with opened(house.get(f"/patients/{whose}/archive")) as found:
        assert found.namelist() == []
    house.file(whose, STL, ("upper.stl", stl(1)))
    with opened(house.get(f"/patients/{whose}/archive")) as found:
        assert found.namelist() == ["files/stl_models/upper.stl"]


@pytest.mark.parametrize("patient_id", ["999999", "0", "-1", "abc", "9" * 30, "1%2F.."])
def test_nobody_is_not_found(house: House, patient_id: str) -> None:
    answer = house.get(f"/patients/{patient_id}/archive")
    assert (answer.status, json.loads(answer.body)["status"]) == (404, 404)


def test_files_tied_to_a_study_are_in_its_archive(house: House) -> None:
    instances = instances_of("Z-3")
    study, whose = str(instances[0].StudyInstanceUID), house.patient("Z-3")
    stored = [house.store(ds) for ds in instances]
    house.file(whose, PHOTO, ("tied.jpg", jpeg(11)), study=study)
    house.file(whose, PHOTO, ("apart.jpg", jpeg(12)))
    with opened(house.get(f"/studies/{study}/archive")) as found:
        assert sorted(map(found.read, found.namelist()[1:])) == sorted([*stored, jpeg(11)])
        assert "files/photos/tied.jpg" in found.namelist()
    over_dicomweb = house.server.get(f"/studies/{study}", "application/zip")
    with opened(over_dicomweb) as found:
        assert len(found.namelist()) == 3


def test_a_download_that_broke_off_goes_on_and_what_is_the_same_is_not_sent_again(house: House) -> None:
    whose = house.patient("Z-4")
    house.store(instances_of("Z-4", 1)[0])
    house.file(whose, PHOTO, ("a.jpg", jpeg(13)))
    path = f"/patients/{whose}/archive"
    whole = house.get(path)
    tag, half = whole.headers["etag"], len(whole.body) // 2
    rest = house.get(path, Range=f"bytes={half}-", If_Range=tag)
    assert (rest.status, rest.body) == (206, whole.body[half:])
    assert house.get(path, If_None_Match=tag).status == 304
    house.file(whose, PHOTO, ("b.jpg", jpeg(14)))
    assert house.get(path, Range=f"bytes={half}-", If_Range=tag).status == 200


def test_missing_bytes_are_told_before_anything_is_sent(house: House) -> None:
    whose = house.patient()
    record = house.file(whose, PHOTO, ("a.jpg", jpeg(15)))
    with house.pacs.catalog.read() as conn:
        blob = blobs.find(conn, record.version.parts[0].blob_pk or 0)
    assert blob is not None
    path = house.pacs.stores.local_path(blob)
    assert path is not None
    path.unlink()
    answer = house.get(f"/patients/{whose}/archive")
    assert answer.status == 500
    assert json.loads(answer.body)["detail"].startswith("The stored bytes of 1 of 1 files are missing")


def test_an_export_is_on_record(house: House) -> None:
    whose = house.patient()
    house.get(f"/patients/{whose}/archive")
    found = json.loads(house.get("/audit?action=patient.export&limit=1000").body)["items"]
    assert str(whose) in [item["object_id"] for item in found]


@dataclass(frozen=True)
class Closed(House):
    """A server where people log in, and some of a patient is for the group of `insider`."""

    site: Guarded
    whose: int
    study: str
    limited: int

    def as_user(self, user: str, path: str) -> Answer:
        return self.site.ask("GET", f"/api/v1{path}", self.site.bearer(user))


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    data = tmp_path_factory.mktemp("closed")
    with guarded(data) as site:
        pacs = app.build(load(environment={}, data=data))
        house = House(site.server, pacs)
        whose, limited = house.patient("C-1"), house.patient("C-2")
        seen, hidden = instances_of("C-1", 1), instances_of("C-1", 1)
        for ds in (*seen, *hidden):
            house.store(ds)
        studies = [str(made[0].StudyInstanceUID) for made in (seen, hidden)]
        house.file(whose, PHOTO, ("open.jpg", jpeg(21)), study=studies[0])
        house.file(whose, PHOTO, ("of the hidden study.jpg", jpeg(22)), study=studies[1])
        alone = house.file(whose, PHOTO, ("hidden by itself.jpg", jpeg(23)), study=studies[0])
        house.file(limited, PHOTO, ("of somebody limited.jpg", jpeg(24)))

        def work(conn: Any) -> None:
            restrictions.add_group(conn, "heart")
            named = patient_named(conn, limited)
            assert named is not None
            for one in (Named(Level.STUDY, studies[1]), file_named(alone.id), named):
                restrictions.restrict(conn, one, Restriction(("heart",)))

        pacs.catalog.write(work, restrictions.KEYS)
        for user in ("insider", "outsider"):
            site.user(user, Role.CLINICIAN)
        change(site.accounts, site.ids["insider"], Change(groups=("heart",)))
        yield Closed(site.server, pacs, site, whose, studies[0], limited)
        pacs.close()


def test_what_is_hidden_is_not_in_it(closed: Closed) -> None:
    """An archive holds what its caller sees; for them the rest does not exist."""
    of_patient = {user: opened(closed.as_user(user, f"/patients/{closed.whose}/archive")).namelist() for user in ("insider", "outsider")}
    assert len(of_patient["insider"]) == 6
    assert of_patient["outsider"] == ["DICOMDIR", "DICOM/SE000001/IM000001", "files/photos/open.jpg"]
    of_study = {user: opened(closed.as_user(user, f"/studies/{closed.study}/archive")).namelist() for user in ("insider", "outsider")}
    assert [len(names) for names in of_study.values()] == [4, 3]
    assert closed.as_user("insider", f"/patients/{closed.limited}/archive").status == 200
    assert closed.as_user("outsider", f"/patients/{closed.limited}/archive").status == 404


def test_an_archive_holds_what_a_token_may_read(closed: Closed) -> None:
    """A token for images gets a study without its files, one for files a patient without studies."""
    site, study, patient = closed.site, f"/api/v1/studies/{closed.study}/archive", f"/api/v1/patients/{closed.whose}/archive"
    images, other = (site.api_token("clinician", frozenset({right})).secret for right in (Right.DICOMWEB_READ, Right.FILES_READ))
    assert opened(site.ask("GET", study, images)).namelist() == ["DICOMDIR", "DICOM/SE000001/IM000001"]
    assert opened(site.ask("GET", patient, other)).namelist() == ["files/photos/open.jpg"]
    assert site.ask("GET", patient, images).status == site.ask("GET", study, other).status == 403
    assert site.ask("GET", patient).status == 401

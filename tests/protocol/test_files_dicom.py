"""DICOM files brought as files: one and the same instance for DICOMweb and for files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.file_site import Site, file_site
from tests.support.files import any_photo, new_patient, of_json

STUDY = "1.2.826.0.7.{}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with file_site(tmp_path_factory.mktemp("dicom")) as found:
        yield found


def instance(number: int, patient: str = "P-1", **attributes: Any) -> Dataset:
    study = STUDY.format(number)
    made = image(study=study, series=f"{study}.1", instance=f"{study}.1.1")
    made.PatientID = patient
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def upload(site: Site, ds: Dataset, **fields: Any) -> dict[str, Any]:
    return site.upload(part10(ds), "image.dcm", file_type="dicom", **fields)


def store(site: Site, ds: Dataset) -> None:
    answer = site.ask("POST", "/dicom-web/studies", body([part10(ds)]), {"Content-Type": CONTENT_TYPE})
    assert answer.status == 200


def retrieved(site: Site, number: int) -> int:
    study = STUDY.format(number)
    return site.status("GET", f"/dicom-web/studies/{study}/series/{study}.1/instances/{study}.1.1")


def test_a_dicom_file_is_an_instance_of_the_archive_too(site: Site) -> None:
    ds = instance(1)
    sent = part10(ds)
    made = site.upload(sent, "image.dcm", file_type="dicom")
    assert made["study_instance_uid"] == STUDY.format(1)
    assert made["series_instance_uid"] == f"{STUDY.format(1)}.1"
    assert made["sop_instance_uid"] == f"{STUDY.format(1)}.1.1"
    assert (made["mime_type"], made["file_size"], made["file_hash"]) == ("application/dicom", len(sent), hashlib.sha256(sent).hexdigest())
    assert site.content(made["id"]).body == sent
    assert retrieved(site, 1) == 200


def test_its_bytes_are_stored_once_under_radiology(site: Site) -> None:
    upload(site, instance(2))
    stored = [path for path in (site.guarded.server.data / "storage").rglob("*") if path.is_file() and f"/{STUDY.format(2)}/" in str(path)]
    assert len(stored) == 1
    assert "/radiology/" in str(stored[0])
    assert not list((site.guarded.server.data / "storage").rglob("dicoms/*"))


def test_what_is_there_already_keeps_its_bytes(site: Site) -> None:
    ds = instance(3)
    store(site, ds)
    sent, stored = part10(ds, ImplicitVRLittleEndian), part10(ds)
    made = site.upload(sent, "image.dcm", file_type="dicom")
    assert (made["file_hash"], made["file_size"]) == (hashlib.sha256(stored).hexdigest(), len(stored))
    assert site.content(made["id"]).body == stored


def test_somebody_elses_image_is_refused(site: Site) -> None:
    answer = site.post({"patient_id": site.patient, "file_type": "dicom"}, [("a.dcm", part10(instance(4, "P-2")))])
    assert of_json(answer, 409)["type"] == "patient-mismatch"
    assert retrieved(site, 4) == 404


def test_an_image_of_another_study_than_the_form_says_is_refused(site: Site) -> None:
    answer = site.post({"patient_id": site.patient, "file_type": "dicom", "study_instance_uid": "1.2.3"}, [("a.dcm", part10(instance(5)))])
    assert answer.status == 409
    assert retrieved(site, 5) == 404


def test_a_version_of_it_is_a_version_of_the_instance(site: Site) -> None:
    made = upload(site, instance(6))
    newer = part10(instance(6, ImageComments="second"))
    version = site.version(made["id"], newer, "image.dcm")
    assert (version["version_number"], version["file_hash"]) == (2, hashlib.sha256(newer).hexdigest())
    study = STUDY.format(6)
    path = f"/api/v1/studies/{study}/series/{study}.1/instances/{study}.1.1/versions"
    assert [one["version_number"] for one in site.json("GET", path)["items"]] == [2, 1]
    assert site.content(made["id"]).body == newer
    assert site.content(made["id"], "?version=1").body == part10(instance(6))


def test_a_version_has_the_same_uids(site: Site) -> None:
    made = upload(site, instance(7))
    other = part10(instance(8))
    answer = site.post({"version_type": "final"}, [("a.dcm", other)], f"upload-version/{made['id']}")
    assert of_json(answer, 409)["type"] == "uid-mismatch"
    assert retrieved(site, 8) == 404
    assert site.post({"version_type": "final"}, [("a.jpg", any_photo())], f"upload-version/{made['id']}").status == 415


def test_restoring_a_version_restores_the_instance(site: Site) -> None:
    first = part10(instance(9))
    made = site.upload(first, "image.dcm", file_type="dicom")
    site.version(made["id"], part10(instance(9, ImageComments="second")), "image.dcm")
    restored = site.json("POST", f"{made['id']}/versions/1/restore", status=201)
    assert (restored["version_number"], restored["file_hash"]) == (3, hashlib.sha256(first).hexdigest())
    assert site.content(made["id"]).body == first


def test_deleting_the_file_leaves_the_instance(site: Site) -> None:
    made = upload(site, instance(10))
    assert site.status("DELETE", made["id"]) == 204
    assert retrieved(site, 10) == 200


def test_deleting_the_instance_makes_the_file_gone(site: Site) -> None:
    made = upload(site, instance(11))
    before = site.json("GET", f"patient/{site.patient}/files")["total"]
    study = STUDY.format(11)
    assert site.status("DELETE", f"/dicom-web/studies/{study}") == 204
    assert site.status("GET", made["id"]) == 410
    assert site.content(made["id"]).status == 410
    assert site.json("GET", f"patient/{site.patient}/files")["total"] == before - 1
    assert site.status("POST", f"/api/v1/studies/{study}/undelete") == 200
    assert site.content(made["id"]).body == part10(instance(11))


def test_the_last_record_takes_the_instance_along(site: Site) -> None:
    first, second = upload(site, instance(12)), upload(site, instance(12))
    assert site.ask("DELETE", f"{first['id']}?purge=true", bearer=site.admin).status == 204
    assert retrieved(site, 12) == 200
    assert site.ask("DELETE", f"{second['id']}?purge=true", bearer=site.admin).status == 204
    assert retrieved(site, 12) == 410


def test_purging_and_bringing_at_once_never_leaves_a_record_without_its_instance(site: Site) -> None:
    ds = instance(16)
    made = upload(site, ds)["id"]

    def bring(_: int) -> tuple[int, str]:
        answer = site.post({"patient_id": site.patient, "file_type": "dicom"}, [("a.dcm", part10(ds))])
        return answer.status, json.loads(answer.body).get("id", "")

    for _ in range(5):
        with ThreadPoolExecutor(3) as pool:
            purged = pool.submit(site.ask, "DELETE", f"{made}?purge=true", bearer=site.admin)
            brought = list(pool.map(bring, range(2)))
        assert purged.result().status == 204
        kept = [file_id for status, file_id in brought if status == 201]
        assert all(status in (201, 503) for status, _ in brought)
        for file_id in kept:
            assert site.status("GET", file_id) == 200
        made = kept[0] if kept else upload(site, ds)["id"]
        for file_id in kept[1:]:
            assert site.ask("DELETE", f"{file_id}?purge=true", bearer=site.admin).status == 204


def test_a_patient_stays_as_long_as_there_is_a_file(site: Site) -> None:
    """Their last study goes; they were not made by hand."""
    store(site, instance(13, "P-13"))
    found = site.json("GET", "/api/v1/patients?q=P-13", bearer=site.admin)["items"]
    patient = found[0]["id"]
    answer = site.post({"patient_id": patient, "file_type": "photo"}, [("a.jpg", any_photo())])
    made = of_json(answer, 201)
    assert site.status("DELETE", f"/dicom-web/studies/{STUDY.format(13)}") == 204
    assert site.json("GET", made["id"])["patient_id"] == patient


def test_an_issuer_counts_where_both_sides_name_one(site: Site) -> None:
    patient = new_patient(site.guarded.accounts.catalog, "P-14", "clinic")
    refused = site.post({"patient_id": patient, "file_type": "dicom"}, [("a.dcm", part10(instance(14, "P-14", IssuerOfPatientID="other")))])
    assert of_json(refused, 409)["type"] == "patient-mismatch"
    taken = site.post({"patient_id": patient, "file_type": "dicom"}, [("a.dcm", part10(instance(14, "P-14", IssuerOfPatientID="clinic")))])
    assert taken.status == 201


def test_a_broken_image_is_refused(site: Site) -> None:
    answer = site.post({"patient_id": site.patient, "file_type": "dicom"}, [("a.dcm", part10(instance(15))[:400])])
    assert answer.status in (409, 415)
    assert site.spooled() == []

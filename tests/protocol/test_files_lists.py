"""What a patient has in files: lists, the same by type, and how much it is."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.file_site import Site, file_site
from tests.support.files import any_photo, new_patient

PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"
PDF += b"xref\n0 3\n0000000000 65535 f \n0000000009 00000 n \n0000000052 00000 n \ntrailer<</Size 3/Root 1 0 R>>\nstartxref\n96\n%%EOF\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with file_site(tmp_path_factory.mktemp("lists")) as found:
        yield found


@pytest.fixture
def patient(site: Site, request: pytest.FixtureRequest) -> int:
    return new_patient(site.guarded.accounts.catalog, f"L-{request.node.name}")


def listed(site: Site, patient: int, query: str = "") -> list[str]:
    page = site.json("GET", f"patient/{patient}/files{query}")
    assert page["total"] == len(page["items"])
    return [one["id"] for one in page["items"]]


def test_a_list_is_newest_first_and_comes_in_pages(site: Site, patient: int) -> None:
    made = [site.upload(any_photo(), patient_id=patient)["id"] for _ in range(5)]
    assert listed(site, patient) == made[::-1]
    found: list[str] = []
    url = f"/api/v1/files/patient/{patient}/files?limit=2"
    while url:
        page = site.json("GET", url)
        assert page["total"] == 5
        found += [one["id"] for one in page["items"]]
        parts = urlsplit(page["next"] or "")
        url = f"{parts.path}?{parts.query}" if page["next"] else ""
    assert found == made[::-1]


def test_what_comes_meanwhile_moves_no_page(site: Site, patient: int) -> None:
    made = [site.upload(any_photo(), patient_id=patient)["id"] for _ in range(4)]
    first = site.json("GET", f"patient/{patient}/files?limit=2")
    site.upload(any_photo(), patient_id=patient)
    rest = site.json("GET", first["next"].partition("/files/")[2])
    assert [one["id"] for one in first["items"] + rest["items"]] == made[::-1]


def test_a_list_is_narrowed_by_type_category_and_day(site: Site, patient: int) -> None:
    old = site.upload(any_photo(), patient_id=patient, study_date="2020-01-31", medical_category="clinical")["id"]
    new = site.upload(any_photo(), patient_id=patient, study_date="2024-02-29", medical_category="surgical")["id"]
    report = site.upload(PDF, "a.pdf", patient_id=patient, file_type="pdf")["id"]
    for query, expected in {
        "?file_type=pdf": [report],
        "?file_type=photo": [new, old],
        "?medical_category=surgical": [new],
        "?study_date_from=2020-01-31": [new, old],
        "?study_date_from=2020-02-01": [new],
        "?study_date_to=2020-01-31": [old],
        "?study_date_from=2020-01-01&study_date_to=2024-02-29&file_type=photo&medical_category=clinical": [old],
        "?file_type=video": [],
    }.items():
        assert listed(site, patient, query) == expected, query
    by_type = site.json("GET", f"patient/{patient}/files/categorized")
    assert {kind: [one["id"] for one in found] for kind, found in by_type.items()} == {"pdf": [report], "photo": [new, old]}
    assert list(site.json("GET", f"patient/{patient}/files/categorized?medical_category=clinical")) == ["photo"]


@pytest.mark.parametrize(
    "query",
    [
        "file_type=sound",
        "medical_category=x",
        "study_date_from=2024-02-30",
        "study_date_to=20240228",
        "limit=0",
        "limit=1001",
        "x=1",
        "cursor=x",
        "state=all",
    ],
)
def test_a_query_that_means_nothing_is_refused(site: Site, query: str) -> None:
    assert site.status("GET", f"patient/{site.patient}/files?{query}") == 400


def test_nobody_has_files(site: Site) -> None:
    for path in ("files", "files/categorized", "storage-info"):
        for patient in ("999999", "x", "9" * 30):
            assert site.status("GET", f"patient/{patient}/{path}") == 404, path
    patient = new_patient(site.guarded.accounts.catalog, "L-none")
    assert listed(site, patient) == []
    assert site.json("GET", f"patient/{patient}/files/categorized") == {}
    assert info(site, patient) == (0, 0, 0, {})


def info(site: Site, patient: int) -> tuple[int, int, int, dict[str, Any]]:
    found = site.json("GET", f"patient/{patient}/storage-info")
    assert found["patient_id"] == patient
    assert found["total_size_mb"] == round(found["total_size_bytes"] / 1_048_576, 2)
    return found["file_count"], found["total_size_bytes"], found["versions"], found["by_type"]


def test_the_trash_is_in_no_list(site: Site, patient: int) -> None:
    kept, gone = (site.upload(any_photo(), patient_id=patient)["id"] for _ in range(2))
    site.status("DELETE", gone)
    assert listed(site, patient) == [kept]
    assert listed(site, patient, "?state=trash") == [gone]
    assert info(site, patient)[0] == 1


def test_all_versions_count_and_equal_bytes_once_in_a_file(site: Site, patient: int) -> None:
    first, second = any_photo(), any_photo()
    made = site.upload(first, patient_id=patient)
    site.version(made["id"], second)
    site.json("POST", f"{made['id']}/versions/1/restore", status=201)
    site.upload(first, patient_id=patient)
    size = len(first) + len(second) + len(first)
    assert info(site, patient) == (2, size, 4, {"photo": {"count": 2, "size_bytes": size}})


def test_studies_are_counted_apart(site: Site) -> None:
    patient = new_patient(site.guarded.accounts.catalog, "L-dicom")
    study = "1.2.826.0.8.1"
    made = [image(study=study, series=f"{study}.{n}", instance=f"{study}.{n}.1") for n in (1, 2)]
    for ds in made:
        ds.PatientID = "L-dicom"
    sent = [part10(ds) for ds in made]
    assert site.ask("POST", "/dicom-web/studies", body(sent), {"Content-Type": CONTENT_TYPE}).status == 200
    photo = any_photo()
    site.upload(photo, patient_id=patient)
    site.upload(sent[0], "a.dcm", patient_id=patient, file_type="dicom")
    assert info(site, patient)[:2] == (2, len(photo))
    found = site.json("GET", f"patient/{patient}/storage-info")["dicom"]
    assert found == {"studies": 1, "series": 2, "instances": 2, "size_bytes": sum(map(len, sent))}


def begin_upload(site: Site, patient: int) -> str:
    """An upload by tus of which some bytes have come."""
    named = {"patient_id": str(patient), "file_type": "photo", "filename": "a.jpg"}
    metadata = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in named.items())
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "1000", "Upload-Metadata": metadata}
    headers["Content-Type"] = "application/offset+octet-stream"
    answer = site.ask("POST", "uploads", b"x" * 100, headers)
    assert answer.status == 201, answer.body
    return urlsplit(answer.headers["location"]).path


def test_cleaning_up_ends_unfinished_uploads_of_the_patient_alone(site: Site) -> None:
    patients = [new_patient(site.guarded.accounts.catalog, f"L-clean-{n}") for n in (1, 2)]
    kept = site.upload(any_photo(), patient_id=patients[0])
    unfinished = [begin_upload(site, patient) for patient in patients]
    path = f"patient/{patients[0]}/cleanup"
    assert site.json("POST", path, {"older_than_hours": 1}) == {"deleted_count": 0, "freed_bytes": 0}
    assert site.json("POST", path, {"older_than_hours": 0}) == {"deleted_count": 1, "freed_bytes": 100}
    assert [site.ask("HEAD", one, None, {"Tus-Resumable": "1.0.0"}).status for one in unfinished] == [410, 200]
    assert site.status("GET", kept["id"]) == 200
    for form in ({}, {"older_than_hours": -1}, {"older_than_hours": "1"}, {"older_than_hours": 1, "x": 1}):
        site.json("POST", path, form, status=400)
    assert site.ask("POST", path, b"{}", bearer=site.guarded.bearer("viewer")).status == 403
    site.json("POST", "patient/999999/cleanup", {"older_than_hours": 0}, status=404)

"""The contract of files, patients, storage and operations in its own words, sentence by sentence, as a stranger reads it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pacslite import app, job_kinds
from pacslite.settings import load
from tests.support.data_sets import image, part10
from tests.support.file_site import Site, file_site
from tests.support.files import any_photo, form, new_patient, of_json
from tests.support.http import Answer
from tests.support.tus import Tus, encoded, stl

API = "/api/v1"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
FILE_FIELDS = {
    *("id", "patient_id", "file_type", "medical_category", "study_date", "body_part", "description", "original_filename", "mime_type"),
    *("file_size", "file_hash", "version_number", "versions_url", "content_url", "variants", "created_by", "created_at"),
    *("study_instance_uid", "sop_instance_uid"),
}
VERSION_FIELDS = {
    *("id", "version_number", "version_type", "version_description", "created_by", "created_at", "file_size", "file_hash", "mime_type"),
}
JOB_FIELDS = {"id", "kind", "state", "progress", "result", "error", "created_by", "created_at", "started_at", "ended_at"}
MOST_BYTES = 20_000_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with file_site(tmp_path_factory.mktemp("contract"), max_upload_bytes=str(MOST_BYTES)) as found:
        yield found


@pytest.fixture(scope="module")
def pacs(site: Site) -> Iterator[Any]:
    opened = app.build(load(environment={"PACSLITE_DATA": str(site.guarded.server.data)}))
    yield opened
    opened.close()


def work(pacs: Any) -> None:
    runner = job_kinds.runner(pacs, threading.Event())
    while runner.run_next():
        pass


def local(url: str) -> str:
    return re.sub(r"^http://[^/]+", "", url)


def problem(answer: Answer, status: int, *fields: str) -> dict[str, Any]:
    """The problem details of an answer, about these fields."""
    found: dict[str, Any] = of_json(answer, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert re.fullmatch(r"[a-z0-9-]+", found["type"])
    assert {"type", "title", "status", "detail", "request_id"} <= set(found)
    assert (found["status"], found["request_id"]) == (status, answer.headers["x-request-id"])
    assert {one["field"] for one in found.get("errors", [])} == set(fields)
    return found


def instance_of(mrn: str) -> Any:
    """A new instance of a patient."""
    ds = image()
    ds.PatientID = mrn
    return ds


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# The general part


def test_lists_answer_items_total_next_and_take_limit_and_cursor(site: Site) -> None:
    patient = new_patient(site.guarded.accounts.catalog, "LISTS")
    made = [site.upload(any_photo(), patient_id=patient)["id"] for _ in range(3)]
    page = site.json("GET", f"patient/{patient}/files?limit=2")
    assert (set(page), page["total"], len(page["items"])) == ({"items", "total", "next"}, 3, 2)
    rest = site.json("GET", local(page["next"]))
    assert (rest["next"], rest["total"]) == (None, 3)
    assert {one["id"] for one in page["items"] + rest["items"]} == set(made)
    for wrong in ("0", "1001", "x", "-1"):
        problem(site.ask("GET", f"patient/{patient}/files?limit={wrong}"), 400, "limit")
    assert site.status("GET", f"patient/{patient}/files?limit=1000") == 200
    problem(site.ask("GET", f"patient/{patient}/files?cursor=none"), 400, "cursor")


def test_unknown_fields_parameters_and_enum_values_are_400(site: Site) -> None:
    for fields, wrong in (
        ({"file_type": "photos"}, "file_type"),
        ({"medical_category": "dental"}, "medical_category"),
        ({"study_date": "20240101"}, "study_date"),
        ({"study_date": "2024-02-30"}, "study_date"),
        ({"colour": "red"}, "colour"),
        ({"patient_id": 999_999}, "patient_id"),
        ({"patient_id": "P-1"}, "patient_id"),
    ):
        given = {"patient_id": site.patient, "file_type": "photo", **fields}
        problem(site.post(given, [("a.jpg", any_photo())]), 400, wrong)
    made = site.upload(any_photo())
    for method, path, body, wrong in (
        ("PATCH", made["id"], {"colour": "red"}, "colour"),
        ("PATCH", made["id"], {"file_hash": "0" * 64}, "file_hash"),
        ("POST", f"{made['id']}/url", {"expires": 5}, "expires"),
        ("POST", f"{API}/patients", {"mrn": "1", "name": "A", "sex": "X"}, "sex"),
    ):
        problem(site.ask(method, path, json.dumps(body).encode(), {"Content-Type": "application/json"}), 400, wrong)
    problem(site.ask("GET", f"{made['id']}/content?size=large"), 400, "size")
    problem(site.ask("GET", f"patient/{site.patient}/files?file_type=photos"), 400, "file_type")


def test_all_that_is_wrong_with_a_form_is_told_at_once(site: Site) -> None:
    wrong = {"patient_id": site.patient, "file_type": "x", "medical_category": "y", "study_date": "z"}
    problem(site.post(wrong, [("a.jpg", any_photo())]), 400, "file_type", "medical_category", "study_date")


def test_a_form_without_its_file_is_400_however_the_client_sends_it(site: Site) -> None:
    body, headers = form({"patient_id": site.patient, "file_type": "photo"})
    problem(site.ask("POST", "upload", body, headers), 400, "file")
    plain = b"patient_id=%d&file_type=photo" % site.patient
    problem(site.ask("POST", "upload", plain, {"Content-Type": "application/x-www-form-urlencoded"}), 400, "file")


def test_a_nul_is_told_by_its_field(site: Site) -> None:
    """A form that does not validate names the fields at fault."""
    fields = {"patient_id": site.patient, "file_type": "photo", "description": "a\0b"}
    problem(site.post(fields, [("a.jpg", any_photo())]), 400, "description")
    body = json.dumps({"mrn": "N-1", "name": "a\0b", "sex": "\\u0000"}).encode()
    problem(site.ask("POST", f"{API}/patients", body, {"Content-Type": "application/json"}), 400, "name")


def test_a_browsers_form_in_which_nobody_chose_a_file_lacks_its_file(site: Site) -> None:
    """HTML, "constructing the entry list": such a field has an empty name and no bytes."""
    fields = {"patient_id": site.patient, "file_type": "photo"}
    problem(site.post(fields, [("", b"")]), 400, "file")
    problem(site.post({"version_type": "final"}, [("", b"")], f"upload-version/{site.upload(any_photo())['id']}"), 400, "file")
    assert of_json(site.post(fields, [("", b""), ("a.jpg", any_photo())]), 201)["original_filename"] == "a.jpg"
    assert not site.spooled()


def test_every_answer_has_a_request_id_the_callers_own_when_it_is_one(site: Site) -> None:
    for given, kept in (("A-z_0.9", True), ("a" * 128, True), ("a" * 129, False), ("a b", False)):
        answer = site.ask("GET", "none", None, {"X-Request-ID": given})
        assert (answer.headers["x-request-id"] == given) is kept
        problem(answer, 404)


def test_after_a_refusal_the_connection_goes_on_or_says_that_it_does_not(site: Site) -> None:
    """413 over a limit for one request; a client that keeps its connection is never left with one that is being closed."""
    connection = http.client.HTTPConnection("127.0.0.1", site.guarded.server.port, timeout=60)
    for more, said in ((500_000, "keep-alive"), (10_000_000, "close")):
        body, headers = form({"patient_id": site.patient, "file_type": "document"}, [("a.txt", b"x" * (MOST_BYTES + more))])
        connection.request("POST", f"{API}/files/upload", body, {**headers, "Authorization": f"Bearer {site.bearer}"})
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, answer.headers["Connection"]) == (413, said)
    connection.close()


# Files and their versions


def test_an_upload_answers_201_location_and_the_file(site: Site) -> None:
    data = any_photo()
    given = {
        "medical_category": "clinical",
        "study_date": "2024-05-06",
        "body_part": "HEAD",
        "description": "é",
        "study_instance_uid": "1.2.3.4",
    }
    answer = site.post({"patient_id": site.patient, "file_type": "photo", **given}, [("Ärm \N{SNOWMAN}.JPG", data)])
    file = of_json(answer, 201)
    assert local(answer.headers["location"]) == f"{API}/files/{file['id']}"
    assert set(file) >= FILE_FIELDS
    assert UUID.fullmatch(file["id"])
    assert TIME.fullmatch(file["created_at"])
    assert isinstance(file["patient_id"], int)
    assert {name: file[name] for name in given} == given
    assert (file["mime_type"], file["file_size"], file["file_hash"]) == ("image/jpeg", len(data), sha256(data))
    assert (file["version_number"], file["original_filename"], file["sop_instance_uid"]) == (1, "Ärm \N{SNOWMAN}.JPG", None)
    assert set(file["variants"]) == {"large", "medium", "thumbnail"}
    assert site.json("GET", file["id"])["file_hash"] == file["file_hash"]
    assert local(file["content_url"]) == f"{API}/files/{file['id']}/content"
    assert local(file["versions_url"]) == f"{API}/files/{file['id']}/versions"


def test_versions_are_added_listed_and_restored(site: Site) -> None:
    first, second = any_photo(), any_photo()
    file = site.upload(first)["id"]
    for fields, wrong in (({}, "version_type"), ({"version_type": "later"}, "version_type")):
        problem(site.post(fields, [("b.jpg", second)], f"upload-version/{file}"), 400, wrong)
    about = {"version_type": "followup", "version_description": "after"}
    stale = site.post(about, [("b.jpg", second)], f"upload-version/{file}", If_Match=f'"{sha256(second)}"')
    problem(stale, 412)
    made = of_json(site.post(about, [("b.jpg", second)], f"upload-version/{file}", If_Match=f'"{sha256(first)}"'), 201)
    assert set(made) >= VERSION_FIELDS
    assert (made["version_number"], made["version_type"], made["version_description"]) == (2, "followup", "after")
    problem(site.post(about, [("b.pdf", b"%PDF-1.4\n%%EOF\n")], f"upload-version/{file}"), 415)
    restored = site.json("POST", f"{file}/versions/1/restore", status=201)
    assert (restored["version_number"], restored["file_hash"]) == (3, sha256(first))
    versions = {one["version_number"]: one for one in site.json("GET", f"{file}/versions")["items"]}
    assert {number: one["file_hash"] for number, one in versions.items()} == {1: sha256(first), 2: sha256(second), 3: sha256(first)}
    assert versions[1]["version_type"] == "baseline"
    assert site.content(file, "?version=2").body == second
    problem(site.content(file, "?version=4"), 404)


def test_content_has_the_hash_as_etag_ranges_and_the_cache_rules(site: Site) -> None:
    data = any_photo()
    file = site.upload(data, "Ä b.jpg")["id"]
    answer = site.content(file)
    assert (answer.body, answer.headers["etag"], answer.headers["x-content-type-options"]) == (data, f'"{sha256(data)}"', "nosniff")
    assert answer.headers["cache-control"] == "private, no-cache"
    assert re.fullmatch(r"(inline|attachment); filename=\"[ -~]+\"; filename\*=UTF-8''[!-~]+", answer.headers["content-disposition"])
    assert site.content(file, "?version=1").headers["cache-control"] == "private, max-age=86400, immutable"
    assert site.content(file, headers={"If-None-Match": answer.headers["etag"]}).status == 304
    part = site.content(file, headers={"Range": "bytes=3-9"})
    assert (part.status, part.body, part.headers["content-range"]) == (206, data[3:10], f"bytes 3-9/{len(data)}")
    assert site.content(file, headers={"Range": f"bytes={len(data)}-"}).status == 416
    head = site.content(file, method="HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(data)), b"")


def test_trash_and_purge(site: Site) -> None:
    file = site.upload(any_photo())["id"]
    assert site.status("DELETE", file) == 204
    assert file not in {one["id"] for one in site.json("GET", f"patient/{site.patient}/files?limit=1000")["items"]}
    assert site.json("POST", f"{file}/undelete")["id"] == file
    problem(site.ask("DELETE", f"{file}?purge=true"), 403)
    assert site.status("DELETE", f"{file}?purge=true", bearer=site.admin) == 204
    for method, path in (("GET", ""), ("GET", "/content"), ("GET", "/versions"), ("DELETE", ""), ("POST", "/undelete")):
        problem(site.ask(method, file + path), 410)
    problem(site.ask("GET", "01234567-89ab-4cde-8f01-23456789abcd"), 404)


def test_variants_are_urls_or_null_jpeg_upright_and_without_exif(site: Site, pacs: Any) -> None:
    picture, exif, out = Image.new("RGB", (1600, 900), (9, 99, 199)), Image.Exif(), io.BytesIO()
    exif[0x0112], exif[0x010E] = 6, "whose it is"
    picture.save(out, "JPEG", exif=exif)
    file = site.upload(out.getvalue())
    assert file["variants"] == {"large": None, "medium": None, "thumbnail": None}
    assert site.content(file["id"], "?variant=large").status == 503
    work(pacs)
    for (name, url), most in zip(site.json("GET", file["id"])["variants"].items(), (1200, 800, 200), strict=True):
        answer = site.ask("GET", local(url))
        made = Image.open(io.BytesIO(answer.body))
        assert (name, made.format, made.size, dict(made.getexif())) == (name, "JPEG", (most * 9 // 16, most), {})
        assert answer.headers["etag"] == f'"{sha256(answer.body)}"'
        assert answer.headers["cache-control"] == "private, max-age=86400, immutable"
    problem(site.content(file["id"], "?variant=huge"), 400, "variant")
    words = site.upload(b"some words\n", "a.txt", file_type="document")["id"]
    problem(site.content(words, "?variant=large"), 404)


def test_a_photo_series_keeps_its_order(site: Site) -> None:
    pictures = [any_photo() for _ in range(3)]
    given = {"patient_id": site.patient, "file_type": "photo_series"}
    file = of_json(site.post(given, [(f"{n}.jpg", data) for n, data in enumerate(pictures)]), 201)
    fields = {"position", "original_filename", "file_hash", "file_size", "mime_type", "content_url", "variants"}
    assert all(set(item) >= fields for item in file["items"])
    assert [item["file_hash"] for item in file["items"]] == [sha256(data) for data in pictures]
    for item, data in zip(file["items"], pictures, strict=True):
        assert local(item["content_url"]) == f"{API}/files/{file['id']}/content?item={item['position']}"
        assert site.ask("GET", local(item["content_url"])).body == data
    problem(site.post(given, [("a.jpg", pictures[0]), ("b.jpg", b"%PDF-1.4\n%%EOF\n")]), 415)


def test_keys_are_those_of_the_contract_and_equal_bytes_lie_there_once(site: Site, pacs: Any) -> None:
    data = any_photo()
    patient, storage = new_patient(site.guarded.accounts.catalog, "KEYS"), site.guarded.server.data / "storage"
    for kind in ("photo", "xray"):
        site.upload(data, "A.JPG", patient_id=patient, file_type=kind, study_date="2024-05-06")
    site.upload(stl(1000, seed=7), "m.STL", patient_id=patient, file_type="stl_model", study_date="2024-05-07")
    work(pacs)
    found = sorted(str(path.relative_to(storage)) for path in (storage / f"patients/patient_{patient}").rglob("*") if path.is_file())
    photo_stem, model_stem = f"20240506_photo_{UUID.pattern}", f"20240507_stl_{UUID.pattern}"
    wanted = [rf"photos/{photo_stem}\.jpg", rf"stl_models/{model_stem}\.stl"]
    for size in ("large", "medium", "thumbnails"):
        wanted += [rf"photos/{size}/{photo_stem}\.jpg", rf"stl_models/{size}/{model_stem}\.jpg"]
    assert len(found) == len(wanted)
    for pattern in wanted:
        assert sum(bool(re.fullmatch(rf"patients/patient_{patient}/{pattern}", one)) for one in found) == 1, pattern


# Signed URLs


def test_signed_urls_need_no_login_and_not_one_byte_of_them_may_change(site: Site) -> None:
    data = any_photo()
    file = site.upload(data)["id"]
    for wrong in (0, 604_801, "x"):
        body = json.dumps({"expires_in": wrong}).encode()
        problem(site.ask("POST", f"{file}/url", body, {"Content-Type": "application/json"}), 400, "expires_in")
    answer = site.json("POST", f"{file}/url", {"expires_in": 60})
    assert TIME.fullmatch(answer["expires_at"])
    path = local(answer["url"])
    server = site.guarded.server
    assert server.request("GET", path).body == data
    assert server.request("HEAD", path).status == 200
    assert server.request("GET", path, None, {"Range": "bytes=0-1"}).body == data[:2]
    assert server.request("POST", path, b"").status == 405
    start = path.index(file)
    for at in (*range(start, start + len(file)), *range(path.index("?") + 1, len(path))):
        if path[at] in "-&=?":
            continue
        other = path[at].swapcase() if path[at].isalpha() else "9" if path[at] != "9" else "8"
        assert server.request("GET", path[:at] + other + path[at + 1 :]).status == 403, path[at:]


# Resumable uploads


def test_tus_completion_and_head_tell_the_path_of_the_file(site: Site) -> None:
    tus = Tus(site.guarded.server, site.patient, {"Authorization": f"Bearer {site.bearer}"})
    data = stl(2000, seed=3)
    path = tus.begun(len(data))
    assert tus.head(path).headers["upload-metadata"] == encoded(tus.metadata)
    assert "upload-expires" in tus.head(path).headers
    ended = tus.patch(path, 0, data)
    assert ended.status == 204
    assert re.fullmatch(f"{API}/files/{UUID.pattern}", ended.headers["content-location"])
    assert tus.head(path).headers["content-location"] == ended.headers["content-location"]
    at_once = tus.create(len(data), data)
    assert (at_once.status, at_once.headers["content-location"].startswith(f"{API}/files/")) == (201, True)
    halves = [tus.begun(len(half), Upload_Concat="partial", Upload_Metadata=None) for half in (data[:900], data[900:])]
    for half, begun in zip((data[900:], data[:900]), reversed(halves), strict=True):
        assert tus.patch(begun, 0, half).status == 204
    final = tus.ask("POST", f"{API}/files/uploads", Upload_Concat=f"final;{' '.join(halves)}", Upload_Metadata=encoded(tus.metadata))
    assert final.headers["content-location"].startswith(f"{API}/files/")
    assert tus.content(final) == data


def test_somebody_elses_upload_is_404_and_over_a_limit_is_413(site: Site) -> None:
    tus = Tus(site.guarded.server, site.patient, {"Authorization": f"Bearer {site.bearer}"})
    other = Tus(site.guarded.server, site.patient, {"Authorization": f"Bearer {site.admin}"})
    path = tus.begun(100)
    assert [other.head(path).status, other.patch(path, 0, b"x").status, other.ask("DELETE", path).status] == [404, 404, 404]
    problem(tus.create(MOST_BYTES + 1), 413)
    name = {"name": "a.stl", "type": "model/stl", "filetype": "model/stl", "relativePath": "null"}
    uppy = {"patient_id": str(site.patient), "file_type": "stl_model", **name}
    assert tus.create(200, metadata=uppy).status == 201


def test_quotas_count_announced_uploads_and_answer_507(site: Site) -> None:
    number, bearer = site.guarded.user("contract-quota"), ""
    site.json("PATCH", f"{API}/users/{number}", {"role": "clinician"}, bearer=site.admin)
    bearer = site.guarded.bearer("contract-quota")
    assert site.json("GET", f"{API}/users/{number}/quota", bearer=site.admin) == {"quota_bytes": None, "used_bytes": 0}
    assert site.json("PUT", f"{API}/users/{number}/quota", {"quota_bytes": 1000}, bearer=site.admin)["quota_bytes"] == 1000
    tus = Tus(site.guarded.server, site.patient, {"Authorization": f"Bearer {bearer}"})
    problem(tus.create(1001), 507)
    begun = tus.begun(900)
    problem(tus.create(200), 507)
    assert site.json("GET", f"{API}/users/{number}/quota", bearer=site.admin)["used_bytes"] == 900
    ended = site.json("POST", f"{API}/storage/cleanup", {"older_than_hours": 0}, bearer=site.admin)
    assert set(ended) == {"deleted_count", "freed_bytes"}
    assert tus.head(begun).status in (404, 410)


# DICOM files


def test_a_dicom_file_is_stored_once_and_is_the_instance(site: Site) -> None:
    number = new_patient(site.guarded.accounts.catalog, "DICOM-1")
    ds = instance_of("DICOM-1")
    data, uids = part10(ds), (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    file = site.upload(data, "a.dcm", patient_id=number, file_type="dicom")
    assert (file["study_instance_uid"], file["sop_instance_uid"]) == (uids[0], uids[2])
    assert (file["file_hash"], site.content(file["id"]).body) == (sha256(data), data)
    storage = site.guarded.server.data / "storage"
    assert len(list((storage / f"radiology/{uids[0]}/{uids[1]}/{uids[2]}").glob("*.dcm"))) == 1
    assert not (storage / f"patients/patient_{number}/dicoms").exists()
    other = site.post({"patient_id": site.patient, "file_type": "dicom"}, [("a.dcm", data)])
    assert problem(other, 409)["type"] == "patient-mismatch"
    wrong = site.post({"version_type": "final"}, [("b.dcm", part10(instance_of("DICOM-1")))], f"upload-version/{file['id']}")
    assert problem(wrong, 409)["type"] == "uid-mismatch"
    info = site.json("GET", f"patient/{number}/storage-info")
    assert (info["dicom"]["instances"], info["total_size_bytes"], info["file_count"]) == (1, 0, 1)
    assert site.status("DELETE", f"/dicom-web/studies/{uids[0]}/series/{uids[1]}/instances/{uids[2]}", bearer=site.admin) == 204
    problem(site.ask("GET", file["id"]), 410)


# Patients


def test_patients_and_what_is_told_of_one(site: Site) -> None:
    form_ = {"mrn": "NEW-1", "name": "Doe^Jane", "birth_date": "1980-02-03", "sex": "F"}
    made = site.json("POST", f"{API}/patients", form_, 201)
    assert isinstance(made["id"], int)
    assert {name: made[name] for name in form_} == form_
    assert [one["id"] for one in site.json("GET", f"{API}/patients?q=jane")["items"]] == [made["id"]]
    assert site.json("PATCH", f"{API}/patients/{made['id']}", {"name": "Doe^Joan"})["name"] == "Doe^Joan"
    problem(site.ask("GET", f"{API}/patients/999999"), 404)
    first = site.upload(any_photo(), patient_id=made["id"], study_date="2024-01-01", medical_category="clinical")
    site.version(first["id"], any_photo())
    second = site.upload(any_photo(), patient_id=made["id"], study_date="2024-06-01", file_type="xray")
    base = f"patient/{made['id']}"
    for query, wanted in (
        ("file_type=photo", [first["id"]]),
        ("medical_category=clinical", [first["id"]]),
        ("study_date_from=2024-01-02", [second["id"]]),
        ("study_date_to=2024-01-01", [first["id"]]),
        ("study_date_from=2024-01-01&study_date_to=2024-06-01", [second["id"], first["id"]]),
    ):
        assert [one["id"] for one in site.json("GET", f"{base}/files?{query}")["items"]] == wanted
    sorted_ = site.json("GET", f"{base}/files/categorized")
    assert {kind: [one["id"] for one in files] for kind, files in sorted_.items()} == {"photo": [first["id"]], "xray": [second["id"]]}
    info = site.json("GET", f"{base}/storage-info")
    sizes = [one["file_size"] for file in (first, second) for one in site.json("GET", f"{file['id']}/versions")["items"]]
    assert set(info) == {"patient_id", "file_count", "total_size_bytes", "total_size_mb", "by_type", "dicom", "versions"}
    assert (info["file_count"], info["versions"], info["total_size_bytes"]) == (2, 3, sum(sizes))
    assert info["total_size_mb"] == round(sum(sizes) / 1_048_576, 2)
    assert set(info["dicom"]) == {"studies", "series", "instances", "size_bytes"}
    assert site.json("POST", f"{base}/cleanup", {"older_than_hours": 0}) == {"deleted_count": 0, "freed_bytes": 0}
    for wrong in (-1, "1", None):
        body = json.dumps({"older_than_hours": wrong}).encode()
        problem(site.ask("POST", f"{base}/cleanup", body, {"Content-Type": "application/json"}), 400, "older_than_hours")
    assert [one["type"] for one in site.json("GET", f"{API}/patients/{made['id']}/timeline")["items"]] == ["file", "file"]


# Storage and operations


def job(site: Site, pacs: Any, path: str, body: dict[str, Any]) -> dict[str, Any]:
    sent, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
    answer = site.ask("POST", f"{API}{path}", sent, kind, site.admin)
    queued = of_json(answer, 202)
    assert (set(queued), queued["state"]) == (JOB_FIELDS, "queued")
    assert local(answer.headers["location"]) == f"{API}/jobs/{queued['id']}"
    assert set(queued["progress"]) == {"done", "total", "unit"}
    assert UUID.fullmatch(queued["id"])
    work(pacs)
    done: dict[str, Any] = site.json("GET", f"{API}/jobs/{queued['id']}", bearer=site.admin)
    assert (set(done), done["state"], done["error"]) == (JOB_FIELDS, "succeeded", None)
    assert TIME.fullmatch(done["started_at"])
    assert TIME.fullmatch(done["ended_at"])
    return done


def test_long_work_is_a_job_with_its_result(site: Site, pacs: Any) -> None:
    data = base64.b64encode(any_photo()) * 3
    file = site.upload(data, "a.txt", file_type="document")
    (path,) = [p for p in site.guarded.server.data.rglob("documents/*.txt") if p.read_bytes() == data]
    path.chmod(0o640)
    path.write_bytes(b"!" + data[1:])
    result = job(site, pacs, "/storage/verify", {})["result"]
    key = str(path.relative_to(site.guarded.server.data / "storage"))
    assert {"key": key, "file_id": file["id"], "problem": "hash"} in result["damaged"]
    assert result["checked"] > 0
    assert job(site, pacs, "/storage/orphans", {})["result"]["orphans"] == []
    archived = job(site, pacs, "/storage/archive", {"older_than_days": 10_000})
    assert {"archived", "freed_bytes"} <= set(archived["result"])
    for action in ("cancel", "retry"):
        problem(site.ask("POST", f"{API}/jobs/{archived['id']}/{action}", bearer=site.admin), 409)
    unknown = json.dumps({"older_than_days": 1, "to": "nowhere"}).encode()
    problem(site.ask("POST", f"{API}/storage/archive", unknown, {"Content-Type": "application/json"}, site.admin), 400, "to")
    queued = site.json("POST", f"{API}/storage/verify", {}, 202, site.admin)["id"]
    assert site.json("POST", f"{API}/jobs/{queued}/cancel", bearer=site.admin)["state"] == "cancelled"
    assert site.json("POST", f"{API}/jobs/{queued}/retry", status=202, bearer=site.admin)["id"] == queued


def test_storage_statistics_count_every_file_and_every_instance_once(site: Site) -> None:
    before = site.json("GET", f"{API}/storage/stats", bearer=site.admin)
    assert set(before) == {"total_size_bytes", "file_count", "available_bytes", "by_type", "dedup_saved_bytes", "backends"}
    fields = {"name", "kind", "active", "size_bytes", "encryption", "compression"}
    assert [set(one) for one in before["backends"]] == [fields]
    number, data = new_patient(site.guarded.accounts.catalog, "STATS"), part10(instance_of("STATS"))
    for kind in ("xray", "dicom", "xray"):
        site.upload(data, "a.dcm", patient_id=number, file_type=kind)
    second = part10(instance_of("STATS"))
    site.upload(second, "b.dcm", patient_id=number, file_type="dicom")
    after = site.json("GET", f"{API}/storage/stats", bearer=site.admin)["by_type"]
    none = {"count": 0, "size_bytes": 0}
    more = {
        name: {kind: after[kind][name] - before["by_type"].get(kind, none)[name] for kind in ("xray", "dicom")}
        for name in ("count", "size_bytes")
    }
    assert more == {"count": {"xray": 2, "dicom": 1}, "size_bytes": {"xray": 2 * len(data), "dicom": len(second)}}
    assert site.json("GET", f"{API}/storage/space?required_bytes=1", bearer=site.admin) == {"enough": True}
    assert site.json("GET", f"{API}/storage/space?required_bytes={10**18}", bearer=site.admin) == {"enough": False}
    problem(site.ask("GET", f"{API}/storage/stats"), 403)


def test_changes_come_in_order_and_name_their_types(site: Site) -> None:
    since = site.json("GET", f"{API}/changes?since=0&limit=1000", bearer=site.admin)["items"][-1]["seq"]
    file = site.upload(any_photo())["id"]
    site.version(file, any_photo())
    found = site.json("GET", f"{API}/changes?since={since}&limit=1000", bearer=site.admin)["items"]
    of_file = [one for one in found if one.get("file_id") == file]
    assert [one["type"] for one in of_file] == ["file.created", "file.version"]
    assert all({"seq", "at", "type", "id"} <= set(one) for one in found)
    assert [one["seq"] for one in found] == sorted(one["seq"] for one in found)


def test_metrics_have_the_names_of_the_contract(site: Site) -> None:
    text = site.ask("GET", f"{API}/metrics", bearer=site.admin).body.decode()
    for name in ("pacslite_file_versions_total", "pacslite_file_read_seconds", "pacslite_uploads_total"):  # others are the worker's
        assert re.search(rf"^# TYPE {name} ", text, re.MULTILINE), name
    assert site.guarded.server.request("GET", "/health/live").status == 200
    assert {"catalog", "storage", "spool"} <= set(json.loads(site.guarded.server.request("GET", "/health/ready").body)["checks"])


def test_the_python_api_lies_over_the_same_catalog(tmp_path: Path) -> None:
    """`create_patient_directories(123)` makes patient 123 if absent; the catalog lies in `<base_storage_path>/catalog.db`."""
    from pacslite import FileStorageService, FileVersionType, MedicalFileType

    with FileStorageService(base_storage_path=tmp_path) as service:
        service.create_patient_directories(123)
        path, name = service.generate_file_path(123, MedicalFileType.PHOTO, "A.JPG", "2024-05-06")
        assert re.fullmatch(rf"20240506_photo_{UUID.pattern}\.jpg", name)
        assert (path.name, path.parent) == (name, tmp_path / "patients/patient_123/photos")
        data = any_photo()
        made = service.create_with_version(data, 123, MedicalFileType.PHOTO, "a.jpg", FileVersionType.BASELINE)
        assert service.get_file(made["id"]) == data
        info = service.get_patient_storage_info(123)
        assert (info["file_count"], info["total_size_bytes"]) == (1, len(data))
        service.save_chunk("upload-1", 1, b"two")
        service.save_chunk("upload-1", 0, b"one")
        assert service.assemble_chunks("upload-1", 2).read_bytes() == b"onetwo"
        service.cleanup_session("upload-1")
        assert service.has_enough_space(1)
        assert not service.has_enough_space(10**18)
        assert isinstance(service.get_storage_stats()["backends"], list)
    assert (tmp_path / "catalog.db").exists()

"""Files over the wire: brought, versioned, described, deleted and brought back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.file_site import FILES, Site, file_site
from tests.support.files import any_photo, of_json

UNKNOWN = "0190a3c4-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with file_site(tmp_path_factory.mktemp("files")) as found:
        yield found


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_an_upload_answers_with_the_file_and_where_it_is(site: Site) -> None:
    data = any_photo()
    fields = {"medical_category": "clinical", "study_date": "2024-02-29", "body_part": "hand", "description": "left — é"}
    answer = site.post({"patient_id": site.patient, "file_type": "photo", **fields}, [("left hand.JPG", data)])
    made = of_json(answer, 201)
    assert answer.headers["location"].endswith(f"{FILES}/{made['id']}")
    assert {name: made[name] for name in fields} == fields
    assert made["patient_id"] == site.patient
    assert (made["file_type"], made["mime_type"]) == ("photo", "image/jpeg")
    assert made["original_filename"] == "left hand.JPG"
    assert (made["file_size"], made["file_hash"]) == (len(data), sha256(data))
    assert (made["version_number"], made["created_by"]) == (1, "clinician")
    assert set(made["variants"]) == {"large", "medium", "thumbnail"}
    assert made["study_instance_uid"] is None
    assert made["sop_instance_uid"] is None
    assert site.json("GET", made["id"]) == made
    content = site.ask("GET", f"{made['id']}/content")
    assert content.body == data


def test_a_new_version_is_what_everybody_sees_and_the_old_one_stays(site: Site) -> None:
    first, second = any_photo(), any_photo()
    made = site.upload(first)
    version = site.version(made["id"], second, version_type="treatment", version_description="after")
    assert (version["version_number"], version["version_type"], version["version_description"]) == (2, "treatment", "after")
    assert (version["file_hash"], version["file_size"], version["created_by"]) == (sha256(second), len(second), "clinician")
    now = site.json("GET", made["id"])
    assert (now["version_number"], now["file_hash"]) == (2, sha256(second))
    listed = site.json("GET", f"{made['id']}/versions")
    assert [(one["version_number"], one["version_type"], one["file_hash"]) for one in listed["items"]] == [
        (2, "treatment", sha256(second)),
        (1, "baseline", sha256(first)),
    ]
    assert listed["total"] == 2
    assert site.content(made["id"]).body == second
    assert site.content(made["id"], "?version=1").body == first


def test_versions_come_in_pages(site: Site) -> None:
    made = site.upload(any_photo())
    for _ in range(3):
        site.version(made["id"], any_photo())
    page = site.json("GET", f"{made['id']}/versions?limit=3")
    assert [one["version_number"] for one in page["items"]] == [4, 3, 2]
    rest = site.json("GET", page["next"].partition("/files/")[2])
    assert [one["version_number"] for one in rest["items"]] == [1]
    assert rest["next"] is None


def test_a_version_of_a_version_type_that_is_missing_or_unknown_is_refused(site: Site) -> None:
    made = site.upload(any_photo())
    for fields in ({}, {"version_type": "draft"}):
        answer = site.post(fields, [("a.jpg", any_photo())], f"upload-version/{made['id']}")
        assert of_json(answer, 400)["errors"][0]["field"] == "version_type"
    assert site.json("GET", made["id"])["version_number"] == 1


def test_a_version_is_of_the_same_type(site: Site) -> None:
    made = site.upload(any_photo())
    answer = site.post({"version_type": "final"}, [("a.pdf", b"%PDF-1.4\n%%EOF\n")], f"upload-version/{made['id']}")
    assert answer.status == 415


def test_if_match_lets_one_of_two_win(site: Site) -> None:
    made = site.upload(any_photo())
    etag = site.content(made["id"]).headers["etag"]
    assert etag == f'"{made["file_hash"]}"'
    path = f"upload-version/{made['id']}"
    with ThreadPoolExecutor(4) as pool:
        bodies = [any_photo() for _ in range(4)]
        answers = list(pool.map(lambda data: site.post({"version_type": "followup"}, [("b.jpg", data)], path, If_Match=etag), bodies))
    assert sorted(answer.status for answer in answers) == [201, 412, 412, 412]
    assert site.json("GET", made["id"])["version_number"] == 2
    assert site.post({"version_type": "followup"}, [("b.jpg", any_photo())], path, If_Match=etag).status == 412
    assert site.post({"version_type": "followup"}, [("b.jpg", any_photo())], path, If_Match="*").status == 201


def test_without_if_match_all_versions_count(site: Site) -> None:
    made = site.upload(any_photo())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: site.version(made["id"], any_photo()), range(6)))
    numbers = [one["version_number"] for one in site.json("GET", f"{made['id']}/versions")["items"]]
    assert numbers == [7, 6, 5, 4, 3, 2, 1]


def test_restoring_a_version_makes_a_new_one_with_the_same_bytes(site: Site) -> None:
    first = any_photo()
    made = site.upload(first)
    site.version(made["id"], any_photo())
    restored = site.json("POST", f"{made['id']}/versions/1/restore", status=201)
    assert (restored["version_number"], restored["file_hash"]) == (3, sha256(first))
    assert site.content(made["id"]).body == first
    assert site.status("POST", f"{made['id']}/versions/9/restore") == 404
    assert site.status("POST", f"{made['id']}/versions/x/restore") == 404


def test_what_is_said_of_a_file_can_be_changed(site: Site) -> None:
    made = site.upload(any_photo(), description="before", body_part="hand")
    changed = site.json("PATCH", made["id"], {"description": "after", "body_part": None, "medical_category": "surgical"})
    assert (changed["description"], changed["body_part"], changed["medical_category"]) == ("after", None, "surgical")
    assert (changed["version_number"], changed["file_hash"]) == (1, made["file_hash"])
    for wrong in ({"file_type": "pdf"}, {"study_date": "2024-02-30"}, {"medical_category": "other"}, {"study_instance_uid": "x"}):
        site.json("PATCH", made["id"], wrong, status=400)
    assert site.json("GET", made["id"]) == changed


def test_a_deleted_file_is_in_the_trash_and_comes_back(site: Site) -> None:
    data = any_photo()
    made = site.upload(data)
    assert site.status("DELETE", made["id"]) == 204
    for method, path in (("GET", ""), ("GET", "/content"), ("GET", "/versions"), ("DELETE", ""), ("POST", "/versions/1/restore")):
        assert site.status(method, made["id"] + path) == 410, path
    back = site.json("POST", f"{made['id']}/undelete")
    assert (back["id"], back["deleted_at"]) == (made["id"], None)
    assert site.content(made["id"]).body == data


def test_only_administrators_erase_for_good(site: Site) -> None:
    made = site.upload(any_photo())
    assert site.status("DELETE", f"{made['id']}?purge=true") == 403
    assert site.json("GET", made["id"])["id"] == made["id"]
    assert site.ask("DELETE", f"{made['id']}?purge=true", bearer=site.admin).status == 204
    for method, path in (("GET", ""), ("GET", "/content"), ("POST", "/undelete"), ("DELETE", "?purge=true")):
        assert site.ask(method, made["id"] + path, bearer=site.admin).status == 410, path


def test_a_file_in_the_trash_can_be_erased(site: Site) -> None:
    made = site.upload(any_photo())
    assert site.status("DELETE", made["id"]) == 204
    assert site.ask("DELETE", f"{made['id']}?purge=true", bearer=site.admin).status == 204
    assert site.status("POST", f"{made['id']}/undelete") == 410


def test_what_never_existed_is_not_found(site: Site) -> None:
    for file_id in (UNKNOWN, "nothing", "1", "%00"):
        for method, path in (("GET", ""), ("GET", "/content"), ("GET", "/versions"), ("DELETE", ""), ("POST", "/undelete")):
            assert site.status(method, f"{file_id}{path}") == 404, (file_id, path)
    assert site.post({"version_type": "final"}, [("a.jpg", any_photo())], f"upload-version/{UNKNOWN}").status == 404


def test_unknown_parameters_are_refused(site: Site) -> None:
    made = site.upload(any_photo())
    for path in ("?x=1", "/content?size=1", "/versions?order=up", "/content?variant=huge", "/content?version=0", "/content?version=x"):
        assert site.status("GET", made["id"] + path) == 400, path
    assert site.status("DELETE", f"{made['id']}?purge=yes") == 400


def test_readers_read_and_write_nothing(site: Site) -> None:
    made = site.upload(any_photo())
    viewer = site.guarded.bearer("viewer")
    assert site.ask("GET", f"{made['id']}/content", bearer=viewer).status == 200
    for method, path in (("DELETE", made["id"]), ("POST", f"{made['id']}/versions/1/restore"), ("PATCH", made["id"]), ("POST", "upload")):
        assert site.ask(method, path, bearer=viewer).status == 403, path
    assert site.guarded.server.request("GET", f"{FILES}/{made['id']}").status == 401


def test_pictures_of_a_series_stay_in_order(site: Site) -> None:
    pictures = [(f"{number}.jpg", any_photo()) for number in (3, 1, 2)]
    made = of_json(site.post({"patient_id": site.patient, "file_type": "photo_series"}, pictures), 201)
    assert [(one["position"], one["original_filename"]) for one in made["items"]] == [(0, "3.jpg"), (1, "1.jpg"), (2, "2.jpg")]
    assert [one["file_hash"] for one in made["items"]] == [sha256(data) for _, data in pictures]
    for one, (_, data) in zip(made["items"], pictures, strict=True):
        assert site.ask("GET", one["content_url"].partition("/files/")[2]).body == data
    assert site.status("GET", f"{made['id']}/content?item=3") == 404
    newer = [(f"{number}.jpg", any_photo()) for number in (1, 2)]
    version = of_json(site.post({"version_type": "final"}, newer, f"upload-version/{made['id']}"), 201)
    assert [one["file_hash"] for one in version["items"]] == [sha256(data) for _, data in newer]


def test_a_series_is_taken_whole_or_not_at_all(site: Site) -> None:
    before = site.json("GET", f"patient/{site.patient}/files")["total"]
    answer = site.post({"patient_id": site.patient, "file_type": "photo_series"}, [("1.jpg", any_photo()), ("2.jpg", b"no picture")])
    assert answer.status == 415
    assert site.json("GET", f"patient/{site.patient}/files")["total"] == before
    assert site.spooled() == []


def test_only_a_series_has_several_pictures(site: Site) -> None:
    answer = site.post({"patient_id": site.patient, "file_type": "photo"}, [("1.jpg", any_photo()), ("2.jpg", any_photo())])
    assert of_json(answer, 400)["errors"][0]["field"] == "file"


def test_changes_tell_of_files_in_order(site: Site) -> None:
    since = site.json("GET", "/api/v1/changes?limit=1")["last_seq"]
    made = site.upload(any_photo())
    site.version(made["id"], any_photo())
    site.json("PATCH", made["id"], {"description": "x"})
    site.status("DELETE", made["id"])
    site.json("POST", f"{made['id']}/undelete")
    site.ask("DELETE", f"{made['id']}?purge=true", bearer=site.admin)
    found = site.json("GET", f"/api/v1/changes?since={since}", bearer=site.admin)["items"]
    told = [one["type"] for one in found if one.get("file_id") == made["id"]]
    assert told == ["file.created", "file.version", "file.updated", "file.deleted", "file.undeleted", "file.purged"]


def test_everything_done_to_a_file_is_on_record(site: Site) -> None:
    made = site.upload(any_photo())
    site.version(made["id"], any_photo())
    site.json("POST", f"{made['id']}/versions/1/restore", status=201)
    site.content(made["id"])
    site.json("POST", f"{made['id']}/url", {})
    site.json("PATCH", made["id"], {"description": "x"})
    site.status("DELETE", made["id"])
    site.json("POST", f"{made['id']}/undelete")
    site.ask("DELETE", f"{made['id']}?purge=true", bearer=site.admin)
    found = site.json("GET", f"/api/v1/audit?patient_id={site.patient}&limit=1000", bearer=site.admin)["items"]
    told = {(one["action"], one["outcome"], one["actor"]) for one in found if one["object_id"] == made["id"]}
    actions = ("upload", "version", "restore", "read", "url", "update", "delete", "undelete")
    assert told == {(f"file.{action}", "success", "clinician") for action in actions} | {("file.purge", "success", "admin")}

"""`/api/v1/patients` over a real server: made by hand or by DICOM, found, merged and parted, with what there is of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from pacslite.core.access import Right, Role
from tests.support.accounts import Guarded, guarded
from tests.support.data_sets import CONTENT_TYPE, body, image, part10
from tests.support.files import form
from tests.support.http import Answer

ROOT = "/api/v1/patients"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server where people log in."""
    with guarded(tmp_path_factory.mktemp("patients"), default_issuer="HOSPITAL") as found:
        yield found


def _ask(site: Guarded, method: str, path: str, given: Any = None, user: str = "clinician") -> Answer:
    return site.ask(method, path, site.bearer(user), given)


def _told(answer: Answer, status: int = 200) -> Any:
    assert answer.status == status, answer.body
    return json.loads(answer.body)


def _made(site: Guarded, mrn: str, name: str = "Doe^Jane", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = _told(_ask(site, "POST", ROOT, {"mrn": mrn, "name": name, **more}), 201)
    return made


def _store(site: Guarded, study: str, mrn: str, number: int = 1, name: str = "Doe^Jane") -> None:
    ds = image(study=study, series=f"{study}.1", instance=f"{study}.1.{number}", number=number)
    ds.PatientID, ds.PatientName = mrn, name
    headers = {"Authorization": f"Bearer {site.bearer('clinician')}", "Content-Type": CONTENT_TYPE, "Accept": "application/dicom+json"}
    assert site.server.request("POST", "/dicom-web/studies", body([part10(ds)]), headers).status == 200


def _studies(site: Guarded, mrn: str) -> list[str]:
    answer = site.ask("GET", f"/dicom-web/studies?PatientID={mrn}", site.bearer("viewer"), Accept="application/dicom+json")
    return sorted(one["0020000D"]["Value"][0] for one in json.loads(answer.body)) if answer.status == 200 else []


def test_a_patient_is_made_read_and_changed(site: Guarded) -> None:
    given = {"mrn": " P-1 ", "name": "Doe^Jane=山田^花子", "birth_date": "1980-02-29", "sex": "F"}
    answer = _ask(site, "POST", ROOT, given)
    made = _told(answer, 201)
    assert answer.headers["location"].endswith(f"{ROOT}/{made['id']}")
    expected = {"mrn": "P-1", "issuer": "HOSPITAL", "birth_date": "1980-02-29", "sex": "F", "created_by": "clinician", "merged_into": None}
    assert expected.items() <= made.items()
    assert _told(_ask(site, "GET", f"{ROOT}/{made['id']}", user="viewer")) == made
    changed = _told(_ask(site, "PATCH", f"{ROOT}/{made['id']}", {"name": "Roe^Jane", "sex": None}))
    assert (changed["name"], changed["sex"], changed["birth_date"]) == ("Roe^Jane", None, "1980-02-29")
    found = _told(_ask(site, "GET", f"{ROOT}?q=" + quote("jane ROE")))
    assert [one["id"] for one in found["items"]] == [made["id"]]
    assert found["total"] == 1
    assert found["next"] is None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"mrn": ""}, "mrn"),
        ({"mrn": "a\\b"}, "mrn"),
        ({"mrn": "x" * 65}, "mrn"),
        ({"name": " ^ "}, "name"),
        ({"birth_date": "1980-02-30"}, "birth_date"),
        ({"sex": "X"}, "sex"),
        ({"height": 3}, "height"),
        ({"mrn": 7}, "mrn"),
    ],
)
def test_a_form_that_does_not_validate_names_its_field(site: Guarded, given: dict[str, Any], field: str) -> None:
    answer = _ask(site, "POST", ROOT, {"mrn": "F", "name": "A", **given})
    problem = _told(answer, 400)
    assert [one["field"] for one in problem["errors"]] == [field]
    if field != "mrn" and field != "height":
        made = _made(site, f"form-{field}-{given[field]}".replace(" ", ""))
        assert _ask(site, "PATCH", f"{ROOT}/{made['id']}", given).status == 400


def test_an_identity_is_not_changed_and_not_taken_twice(site: Guarded) -> None:
    made = _made(site, "TAKEN")
    assert _ask(site, "PATCH", f"{ROOT}/{made['id']}", {"mrn": "OTHER"}).status == 400
    for again in ({"mrn": "TAKEN"}, {"mrn": " TAKEN", "issuer": "HOSPITAL "}):
        assert _ask(site, "POST", ROOT, {"name": "A", **again}).status == 409
    assert _made(site, "TAKEN", issuer="ELSEWHERE")["id"] != made["id"]


def test_who_is_not_there_is_not_found(site: Guarded) -> None:
    for wrong in ("4711", "x", "1" * 30, "-1", "%00"):
        for method, path, given in (("GET", "", None), ("PATCH", "", {}), ("GET", "/timeline", None), ("POST", "/unmerge", None)):
            assert _ask(site, method, f"{ROOT}/{wrong}{path}", given).status == 404, (method, wrong, path)
        assert _ask(site, "POST", f"{ROOT}/{wrong}/merge", {"into": 1}).status == 404


def test_pages_of_a_search_hold_everything_once(site: Guarded) -> None:
    for n in range(5):
        _made(site, f"PAGE-{n}", f"Same^{n % 2}")
    told: list[str] = []
    path = f"{ROOT}?q=page-&limit=2"
    while path:
        page = _told(_ask(site, "GET", path))
        assert page["total"] == 5
        told += [one["mrn"] for one in page["items"]]
        path = page["next"] and page["next"].partition(f":{site.server.port}")[2]
    assert told == ["PAGE-0", "PAGE-2", "PAGE-4", "PAGE-1", "PAGE-3"]
    for wrong in ("cursor=!", "cursor=YQ", "cursor=%EF%BF%BF", "limit=0", "limit=1001", "colour=red"):
        assert _ask(site, "GET", f"{ROOT}?{wrong}").status == 400, wrong


def test_ingest_finds_whom_people_have_made_and_people_find_whom_ingest_made(site: Guarded) -> None:
    made = _made(site, "BOTH")
    _store(site, "1.2.826.7.1", "BOTH")
    told = _told(_ask(site, "GET", f"{ROOT}/{made['id']}/timeline"))
    assert [one["study"]["study_instance_uid"] for one in told["items"]] == ["1.2.826.7.1"]
    _store(site, "1.2.826.7.2", "INGESTED")
    (found,) = _told(_ask(site, "GET", f"{ROOT}?q=INGESTED"))["items"]
    assert found["created_by"] is None
    assert _ask(site, "POST", ROOT, {"mrn": "INGESTED", "name": "A"}).status == 409
    # Made by hand, somebody stays when the last study goes.
    for study in ("1.2.826.7.1", "1.2.826.7.2"):
        assert site.ask("DELETE", f"/dicom-web/studies/{study}", site.bearer("clinician")).status == 204
    assert _ask(site, "GET", f"{ROOT}/{made['id']}").status == 200
    assert _ask(site, "GET", f"{ROOT}/{found['id']}").status == 404


def test_a_merge_is_undone_with_what_arrived_meanwhile(site: Guarded) -> None:
    old, new = _made(site, "OLD"), _made(site, "NEW")
    _store(site, "1.2.826.8.1", "OLD")
    _store(site, "1.2.826.8.2", "NEW")
    merged = _told(_ask(site, "POST", f"{ROOT}/{old['id']}/merge", {"into": new["id"]}))
    assert (merged["id"], merged["merged_into"]) == (old["id"], new["id"])
    _store(site, "1.2.826.8.3", "OLD")
    assert _told(_ask(site, "GET", f"{ROOT}/{old['id']}"))["merged_into"] == new["id"]
    assert _studies(site, "NEW") == ["1.2.826.8.1", "1.2.826.8.2", "1.2.826.8.3"]
    assert _studies(site, "OLD") == []
    assert _told(_ask(site, "GET", f"{ROOT}/{new['id']}/timeline"))["total"] == 3
    assert _told(_ask(site, "GET", f"{ROOT}?q=OLD"))["items"][0]["id"] == new["id"]
    for path, given in (
        (f"{old['id']}/merge", {"into": new["id"]}),
        (f"{new['id']}/merge", {"into": old["id"]}),
        (f"{new['id']}/unmerge", None),
    ):
        assert _ask(site, "POST", f"{ROOT}/{path}", given).status == 409, path
    assert _ask(site, "PATCH", f"{ROOT}/{old['id']}", {"sex": "M"}).status == 409
    assert _ask(site, "POST", f"{ROOT}/{new['id']}/merge", {"into": new["id"]}).status == 400
    assert _ask(site, "POST", f"{ROOT}/{new['id']}/merge", {"into": 4711}).status == 400
    assert _told(_ask(site, "POST", f"{ROOT}/{old['id']}/unmerge"))["merged_into"] is None
    assert _studies(site, "NEW") == ["1.2.826.8.2"]
    assert _studies(site, "OLD") == ["1.2.826.8.1", "1.2.826.8.3"]


def test_a_dicom_file_with_the_old_number_is_taken_for_the_one_they_became(site: Guarded) -> None:
    old, new = _made(site, "FILE-OLD"), _made(site, "FILE-NEW")
    ds = image(study="1.2.826.9.1", series="1.2.826.9.1.1", instance="1.2.826.9.1.1.1")
    ds.PatientID = "FILE-OLD"
    content, headers = form({"patient_id": new["id"], "file_type": "dicom"}, [("a.dcm", part10(ds))])
    headers["Authorization"] = f"Bearer {site.bearer('clinician')}"
    assert site.server.request("POST", "/api/v1/files/upload", content, headers).status == 409
    assert _ask(site, "POST", f"{ROOT}/{old['id']}/merge", {"into": new["id"]}).status == 200
    file = _told(site.server.request("POST", "/api/v1/files/upload", content, headers), 201)
    assert file["patient_id"] == new["id"]
    assert _told(_ask(site, "GET", f"{ROOT}/{new['id']}/timeline"))["total"] == 2
    assert _ask(site, "POST", f"{ROOT}/{old['id']}/unmerge").status == 200
    told = _told(_ask(site, "GET", f"{ROOT}/{old['id']}/timeline"))["items"]
    assert {one["type"] for one in told} == {"study", "file"}, "it goes back with its study"
    assert _told(_ask(site, "GET", f"/api/v1/files/{file['id']}"))["patient_id"] == old["id"]


def test_who_may_read_and_who_may_write(site: Guarded) -> None:
    made, other = _made(site, "RIGHTS"), _made(site, "RIGHTS-2")
    one = f"{ROOT}/{made['id']}"
    reads = [("GET", ROOT, None), ("GET", one, None), ("GET", f"{one}/timeline", None)]
    writes = [
        ("POST", ROOT, {"mrn": "R", "name": "A"}),
        ("PATCH", one, {"sex": "M"}),
        ("POST", f"{one}/merge", {"into": other["id"]}),
        ("POST", f"{one}/unmerge", None),
    ]
    for method, path, given in (*reads, *writes):
        anonymous = site.ask(method, path, None, given)
        assert anonymous.status == 401
        assert anonymous.headers["www-authenticate"].startswith("Bearer")
        foreign = site.api_token("admin", frozenset({Right.DICOMWEB_READ, Right.DICOMWEB_WRITE, Right.JOBS})).secret
        assert site.ask(method, path, foreign, given).status == 403
    for method, path, given in reads:
        assert _ask(site, method, path, given, "viewer").status == 200
    for method, path, given in writes:
        assert _ask(site, method, path, given, "viewer").status == 403
    files_alone = site.api_token("clinician", frozenset({Right.FILES_READ, Right.FILES_WRITE})).secret
    assert site.ask("POST", f"{one}/merge", files_alone, {"into": other["id"]}).status == 403, "a merge moves studies"


def test_changes_and_audit_tell_of_it_without_names(site: Guarded) -> None:
    last = _told(_ask(site, "GET", "/api/v1/changes?limit=1"))["last_seq"]
    made, other = _made(site, "SEEN-1", "Secret^Name"), _made(site, "SEEN-2")
    one = f"{ROOT}/{made['id']}"
    _ask(site, "PATCH", one, {"name": "Secret^Other"})
    _ask(site, "POST", f"{one}/merge", {"into": other["id"]})
    _ask(site, "POST", f"{one}/unmerge")
    _ask(site, "GET", one, user="viewer")
    assert _ask(site, "PATCH", one, {"sex": "X"}).status == 400
    told = [
        change for change in _told(_ask(site, "GET", f"/api/v1/changes?since={last}"))["items"] if change.get("patient_id") == made["id"]
    ]
    assert [change["type"] for change in told] == ["patient.created", "patient.edited", "patient.merged", "patient.unmerged"]
    assert {change["id"] for change in told} == {str(made["id"])}
    without = site.api_token("clinician", frozenset({Right.DICOMWEB_READ})).secret
    assert json.loads(site.ask("GET", f"/api/v1/changes?since={last}", without).body)["items"] == []
    log = _told(_ask(site, "GET", f"/api/v1/audit?patient_id={made['id']}", user="admin"))["items"]
    noted = {(entry["action"], entry["outcome"], entry["actor"]) for entry in log}
    writes = {(f"patient.{verb}", "success", "clinician") for verb in ("create", "update", "merge", "unmerge")}
    assert writes | {("patient.update", "failed", "clinician"), ("patient.read", "success", "viewer")} <= noted
    assert len([entry for entry in log if entry["action"] == "patient.create"]) == 1
    assert "Secret" not in json.dumps(log) + json.dumps(told)


def test_a_hidden_patient_is_answered_as_one_who_never_was(site: Guarded) -> None:
    site.user("outsider", Role.CLINICIAN)
    hidden, other = _made(site, "HIDDEN", "Hidden^Patient"), _made(site, "PLAIN")
    assert _ask(site, "PUT", f"{ROOT}/{hidden['id']}/access", {"groups": []}, "admin").status == 200
    for method, path, given in (
        ("GET", "", None),
        ("PATCH", "", {"sex": "M"}),
        ("GET", "/timeline", None),
        ("POST", "/merge", {"into": other["id"]}),
        ("POST", "/unmerge", None),
    ):
        answers = [_ask(site, method, f"{ROOT}/{pk}{path}", given, "outsider") for pk in (hidden["id"], 4711)]
        problems = [json.loads(answer.body) | {"request_id": ""} for answer in answers]
        assert problems[0] == problems[1]
        assert answers[0].status == 404
    into = [_ask(site, "POST", f"{ROOT}/{other['id']}/merge", {"into": pk}, "outsider") for pk in (hidden["id"], 4711)]
    assert [answer.status for answer in into] == [400, 400]
    assert json.loads(into[0].body)["errors"] == json.loads(into[1].body)["errors"]
    assert _told(_ask(site, "GET", f"{ROOT}?q=HIDDEN", user="outsider")) == {"items": [], "total": 0, "next": None}
    assert _told(_ask(site, "GET", f"{ROOT}?q=HIDDEN", user="admin"))["total"] == 1
    changes = _told(_ask(site, "GET", "/api/v1/changes?limit=1000", user="outsider"))["items"]
    assert hidden["id"] not in {change.get("patient_id") for change in changes}
    # Whoever became part of another is limited there.
    merged = _made(site, "MERGED")
    assert _ask(site, "POST", f"{ROOT}/{merged['id']}/merge", {"into": hidden["id"]}, "admin").status == 409, "limited differently"
    assert _ask(site, "POST", f"{ROOT}/{merged['id']}/merge", {"into": other["id"]}).status == 200
    assert _ask(site, "PUT", f"{ROOT}/{merged['id']}/access", {"groups": []}, "admin").status == 409

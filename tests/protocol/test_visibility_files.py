"""Files and patients that are limited to a group are not there for others: every route that names one, and every list.

A file is hidden with its patient, with the study it is tied to, with the series it is an instance of, or by itself.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pacslite import app
from pacslite.catalog import restrictions
from pacslite.catalog.restrictions import Named, Restriction
from pacslite.core.access import Right, Role
from pacslite.core.users import Change, change
from pacslite.dicom.attributes import Level
from pacslite.web.messages import Route
from tests.protocol.test_visibility import HIDDEN, HIDDEN_PART, SEEN, UNKNOWN, _images, _store, name_of
from tests.support.accounts import Guarded, guarded
from tests.support.data_sets import part10
from tests.support.files import any_photo, form, of_json
from tests.support.http import Answer

ROUTES = app.routes()
NOBODY, NO_FILE = 4711, "0190a3c4-0000-7000-8000-000000000000"
of_files = [r for r in ROUTES if "<file_id>" in r.rule and r.right not in (Right.ADMIN, Right.PUBLIC)]
of_patients = [r for r in ROUTES if "<patient_id>" in r.rule and r.right is not Right.ADMIN]
BODIES: dict[str, Any] = {"url": {"expires_in": 60}, "cleanup": {"older_than_hours": 1000}}


@dataclass
class Kept:
    """Files by what hides them, and patients."""

    site: Guarded
    files: dict[str, str] = field(default_factory=dict)
    patients: dict[str, int] = field(default_factory=dict)

    def ask(self, user: str, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return self.site.ask(method, path, self.site.bearer(user), body, **headers)

    def post(self, user: str, path: str, fields: dict[str, Any], data: bytes, name: str = "a.jpg") -> Answer:
        content, headers = form(fields, [(name, data)])
        return self.site.server.request("POST", path, content, {**headers, "Authorization": f"Bearer {self.site.bearer(user)}"})

    def upload(self, patient: str, **fields: Any) -> str:
        data = fields.pop("data", None) or any_photo()
        told = "secret" if "description" in fields else "open"
        name = f"{told} name.dcm" if fields.get("file_type") == "dicom" else f"{told} name.jpg"
        given = {"patient_id": self.patients[patient], "file_type": "photo", **fields}
        return str(of_json(self.post("admin", "/api/v1/files/upload", given, data, name), 201)["id"])

    @property
    def hidden(self) -> dict[str, str]:
        return {why: uid for why, uid in self.files.items() if why != "open"}

    @property
    def secrets(self) -> list[str]:
        """What nobody else may read anywhere."""
        return [*self.hidden.values(), "secret words", "secret name", HIDDEN, HIDDEN_PART, "LIMITED-ID", "Limited^Patient"]


def _limit(kept: Kept) -> None:
    def work(conn: Any) -> None:
        restrictions.add_group(conn, "heart")
        limited = restrictions.patient_named(conn, kept.patients["limited"])
        assert limited is not None
        series = Named(Level.SERIES, SEEN, HIDDEN_PART)
        for named in (Named(Level.STUDY, HIDDEN), series, limited, restrictions.file_named(kept.files["itself"])):
            restrictions.restrict(conn, named, Restriction(("heart",)))

    kept.site.accounts.catalog.write(work, restrictions.KEYS)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """A patient whom nothing limits, with an open file and one that is hidden for each reason; and one who is limited."""
    with guarded(tmp_path_factory.mktemp("visibility")) as site:
        found = Kept(site)
        admin = site.bearer("admin")
        for study in (SEEN, HIDDEN):
            assert _store(site, admin, _images(study, "OPEN-ID", "Open^Patient")).status == 200
        found.patients["open"] = json.loads(found.ask("admin", "GET", "/api/v1/patients?q=OPEN-ID").body)["items"][0]["id"]
        made = found.ask("admin", "POST", "/api/v1/patients", {"mrn": "LIMITED-ID", "name": "Limited^Patient"})
        found.patients["limited"] = of_json(made, 201)["id"]
        secret = {"description": "secret words"}
        found.files["open"] = found.upload("open")
        found.files["patient"] = found.upload("limited", **secret)
        found.files["study"] = found.upload("open", study_instance_uid=HIDDEN, **secret)
        found.files["itself"] = found.upload("open", study_instance_uid=SEEN, **secret)
        instance = part10(_images(SEEN, "OPEN-ID", "Open^Patient")[1])
        found.files["series"] = found.upload("open", file_type="dicom", data=instance, **secret)
        _limit(found)
        for user in ("insider", "outsider"):
            site.user(user, Role.CLINICIAN)
        change(site.accounts, site.ids["insider"], Change(groups=("heart",)))
        yield found


def _path(route: Route, **arguments: object) -> str:
    given = {"number": "1", **arguments}
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda found: str(given[found[1]]), route.rule)


def _asked(kept: Kept, user: str, route: Route, **arguments: object) -> Answer:
    path, last = _path(route, **arguments), route.rule.rpartition("/")[2]
    if "upload-version" in route.rule:
        return kept.post(user, path, {"version_type": "followup"}, any_photo())
    body = {"into": kept.patients["open"]} if last == "merge" else BODIES.get(last, {} if route.method in ("PATCH", "PUT") else None)
    return kept.ask(user, route.method, path, body)


def _told(answer: Answer, *asked: object) -> tuple[Any, ...]:
    """What an answer tells: everything but times, the id of the request, and what was asked for."""
    headers = {k: v for k, v in answer.headers.items() if k not in ("date", "x-request-id")}
    content = re.sub(rb'"request_id":\s*"[^"]*"', b"", answer.body)
    for one in asked:
        content = content.replace(str(one).encode(), b"*")
    return answer.status, headers, content


def test_the_routes_are_there() -> None:
    assert len(of_files) > 8
    assert len(of_patients) > 8


@pytest.mark.parametrize("route", of_files, ids=name_of)
def test_a_hidden_file_is_answered_as_one_that_never_was(kept: Kept, route: Route) -> None:
    unknown = _asked(kept, "outsider", route, file_id=NO_FILE)
    assert unknown.status == 404, unknown.body
    for why, uid in kept.hidden.items():
        hidden = _asked(kept, "outsider", route, file_id=uid)
        assert _told(hidden, uid) == _told(unknown, NO_FILE), why
        if route.method == "GET":
            head = kept.ask("outsider", "HEAD", _path(route, file_id=uid))
            assert head.status == 404
            etag = kept.ask("insider", "GET", _path(route, file_id=uid)).headers.get("etag", '"x"')
            again = kept.ask("outsider", "GET", _path(route, file_id=uid), If_None_Match=etag, Range="bytes=0-3")
            assert _told(again, uid) == _told(unknown, NO_FILE)
            assert _asked(kept, "insider", route, file_id=uid).status == 200, why
        assert kept.ask("insider", "GET", f"/api/v1/files/{uid}").status == 200, "it is still there"
    for query in ("?variant=thumbnail", "?version=1", "?version=9", "?item=0"):
        if route.rule.endswith("/content"):
            for uid in kept.hidden.values():
                assert kept.ask("outsider", "GET", _path(route, file_id=uid) + query).status == 404
    if route.method == "GET":
        assert _asked(kept, "outsider", route, file_id=kept.files["open"]).status == 200


@pytest.mark.parametrize("route", of_patients, ids=name_of)
def test_a_hidden_patient_is_answered_as_one_who_never_was(kept: Kept, route: Route) -> None:
    hidden, unknown = (_asked(kept, "outsider", route, patient_id=pk) for pk in (kept.patients["limited"], NOBODY))
    assert _told(hidden, kept.patients["limited"]) == _told(unknown, NOBODY)
    assert unknown.status == 404, unknown.body
    if route.method == "GET":
        assert _asked(kept, "insider", route, patient_id=kept.patients["limited"]).status == 200


@pytest.mark.parametrize("route", [r for r in of_patients if r.method == "GET"], ids=name_of)
def test_what_there_is_of_a_patient_shows_and_counts_nothing_hidden(kept: Kept, route: Route) -> None:
    for user, sees in (("insider", True), ("outsider", False), ("insider", True), ("outsider", False)):
        answer = _asked(kept, user, route, patient_id=kept.patients["open"])
        assert answer.status == 200, answer.body
        shown = _unpacked(answer)
        if not sees:
            assert not [secret for secret in kept.secrets if secret in shown]
        if route.rule.endswith("storage-info"):
            told = json.loads(answer.body)
            # Open, tied to the study, by itself, of the series: four files; two studies of two series, one of them limited.
            assert told["file_count"] == (4 if sees else 1)
            assert told["dicom"]["studies"] == (2 if sees else 1)
            assert told["dicom"]["series"] == told["dicom"]["instances"] == (4 if sees else 1)
            assert told["versions"] == (4 if sees else 1)
            assert sum(one["count"] for one in told["by_type"].values()) == told["file_count"]
        elif route.rule.endswith(("/files", "/timeline")):
            listed = json.loads(answer.body)
            assert listed["total"] == len(listed["items"])


def test_a_url_that_nobody_signed_tells_nothing(kept: Kept) -> None:
    public = [r for r in ROUTES if "<file_id>" in r.rule and r.right is Right.PUBLIC]
    assert {r.rule for r in public} == {"/api/v1/files/<file_id>/signed"}, "say here what a public route shows of files"
    signed = of_json(kept.ask("outsider", "POST", f"/api/v1/files/{kept.files['open']}/url", {"expires_in": 60}))["url"]
    query = signed.partition("?")[2]
    for given in ("", f"?{query}", "?expires=9999999999&signature=x"):
        answers = [kept.site.ask("GET", f"/api/v1/files/{uid}/signed{given}") for uid in (NO_FILE, *kept.hidden.values())]
        assert len({str(_told(answer, NO_FILE, *kept.hidden.values())) for answer in answers}) == 1
        assert answers[0].status in (400, 403)


def _unpacked(answer: Answer) -> str:
    """An answer as text; of a ZIP its names, comments and contents."""
    if answer.headers["content-type"] != "application/zip":
        return answer.body.decode()
    with zipfile.ZipFile(io.BytesIO(answer.body)) as packed:
        return "\n".join(f"{name}\n{packed.read(name).decode('latin-1')}" for name in packed.namelist())


@pytest.mark.parametrize("path", ["/patients", "/changes?limit=1000", "/jobs", "/shares", f"/studies/{SEEN}/archive"])
def test_lists_show_nothing_hidden(kept: Kept, path: str) -> None:
    shown = _unpacked(kept.ask("outsider", "GET", f"/api/v1{path}"))
    assert not [secret for secret in kept.secrets if secret in shown]
    if path.startswith("/changes"):
        assert kept.files["open"] in shown
        assert all(uid in _unpacked(kept.ask("insider", "GET", f"/api/v1{path}")) for uid in kept.files.values())


def test_who_brings_a_file_learns_nothing_of_hidden_patients_and_studies(kept: Kept) -> None:
    def brought(patient: int, **more: str) -> Answer:
        return kept.post("outsider", "/api/v1/files/upload", {"patient_id": patient, "file_type": "photo", **more}, any_photo())

    assert _told(brought(kept.patients["limited"]), kept.patients["limited"]) == _told(brought(NOBODY), NOBODY)
    assert brought(NOBODY).status == 400
    # As instances are: into a hidden study as into one that is not there yet. It is hidden from then on.
    answers = []
    for study in (HIDDEN, UNKNOWN):
        tied = brought(kept.patients["open"], study_instance_uid=study)
        later = f"/api/v1/files/{of_json(brought(kept.patients['open']), 201)['id']}"
        moved = kept.ask("outsider", "PATCH", later, {"study_instance_uid": study})
        answers.append([(one.status, set(json.loads(one.body)), one.headers.keys()) for one in (tied, moved)])
        for path in (later, f"/api/v1/files/{json.loads(tied.body)['id']}"):
            assert kept.ask("outsider", "GET", path).status == (404 if study == HIDDEN else 200)
            assert kept.ask("admin", "DELETE", f"{path}?purge=true").status in (200, 204)
    assert answers[0] == answers[1]


def test_a_resumable_upload_tells_nothing_of_hidden_patients(kept: Kept) -> None:
    def created(patient: int) -> Answer:
        values = {"patient_id": str(patient), "file_type": "photo", "filename": "a.jpg"}
        metadata = ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in values.items())
        headers = {"Tus_Resumable": "1.0.0", "Upload_Length": "10", "Upload_Metadata": metadata}
        return kept.ask("outsider", "POST", "/api/v1/files/uploads", **headers)

    assert _told(created(kept.patients["limited"]), kept.patients["limited"]) == _told(created(NOBODY), NOBODY)
    assert created(NOBODY).status == 400


@pytest.mark.parametrize("route", [*of_files, *of_patients], ids=name_of)
def test_without_a_login_or_the_right_nothing_is_told_of_what_there_is(kept: Kept, route: Route) -> None:
    without = kept.site.api_token("admin", frozenset({Right.DICOMWEB_READ, Right.DICOMWEB_WRITE, Right.JOBS})).secret
    for uid, patient in ((kept.files["open"], kept.patients["open"]), (NO_FILE, NOBODY)):
        path = _path(route, file_id=uid, patient_id=patient)
        anonymous = kept.site.ask(route.method, path, None, {})
        assert anonymous.status == 401
        assert "www-authenticate" in anonymous.headers
        assert kept.site.ask(route.method, path, without, {}).status == 403
        if route.right is Right.FILES_WRITE:
            assert kept.ask("viewer", route.method, path, {}).status == 403


def test_a_limit_of_a_file_is_set_and_lifted(kept: Kept) -> None:
    uid = kept.upload("open")
    path = f"/api/v1/files/{uid}/access"
    assert kept.ask("outsider", "GET", f"/api/v1/files/{uid}").status == 200
    assert kept.ask("outsider", "PUT", path, {"groups": []}).status == 403
    told = of_json(kept.ask("admin", "PUT", path, {"groups": ["heart"], "labels": ["vip"]}))
    assert told == {"groups": ["heart"], "labels": ["vip"], "patient_id": kept.patients["open"]}
    assert of_json(kept.ask("admin", "GET", path)) == told
    assert kept.ask("outsider", "GET", f"/api/v1/files/{uid}").status == 404
    assert kept.ask("insider", "GET", f"/api/v1/files/{uid}").status == 200
    assert kept.ask("admin", "PUT", path, {}).status == 200
    assert kept.ask("outsider", "GET", f"/api/v1/files/{uid}").status == 200
    assert kept.ask("admin", "PUT", f"/api/v1/files/{NO_FILE}/access", {}).status == 404
    assert kept.ask("admin", "DELETE", f"/api/v1/files/{uid}?purge=true").status in (200, 204)

"""Files over the wire: brought, versioned, read, deleted, brought back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.accounts import Guarded, guarded
from tests.support.files import any_photo, form, new_patient, of_json
from tests.support.http import Answer

FILES = "/api/v1/files"


@dataclass
class Site:
    """A server with a patient, and its clinician."""

    guarded: Guarded
    patient: int
    bearer: str
    admin: str

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, bearer: str = "") -> Answer:
        sent = {"Authorization": f"Bearer {bearer or self.bearer}", **(headers or {})}
        return self.guarded.server.request(method, path if path.startswith("/") else f"{FILES}/{path}", body, sent)

    def json(self, method: str, path: str, body: Any = None, status: int = 200, bearer: str = "") -> Any:
        sent = None if body is None else json.dumps(body).encode()
        return of_json(self.ask(method, path, sent, {"Content-Type": "application/json"} if sent is not None else {}, bearer), status)

    def post(self, fields: dict[str, Any], files: list[tuple[str, bytes]], path: str = "upload", **headers: str) -> Answer:
        body, given = form(fields, files)
        return self.ask("POST", path, body, {**given, **{name.replace("_", "-"): value for name, value in headers.items()}})

    def upload(self, data: bytes, name: str = "a.jpg", **fields: Any) -> dict[str, Any]:
        made: dict[str, Any] = of_json(self.post({"patient_id": self.patient, "file_type": "photo", **fields}, [(name, data)]), 201)
        return made

    def version(self, file_id: str, data: bytes, name: str = "b.jpg", **fields: Any) -> dict[str, Any]:
        answer = self.post({"version_type": "followup", **fields}, [(name, data)], f"upload-version/{file_id}")
        made: dict[str, Any] = of_json(answer, 201)
        return made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with guarded(tmp_path_factory.mktemp("files"), file_rate_per_minute="100000") as found:
        patient = new_patient(found.accounts.catalog, "P-1")
        yield Site(found, patient, found.bearer("clinician"), found.bearer("admin"))


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

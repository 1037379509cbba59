"""A server for tests of files: somebody who brings them, an administrator, and a patient."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.accounts import Guarded, guarded
from tests.support.files import form, new_patient, of_json
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

    def content(self, file_id: str, query: str = "", headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
        return self.ask(method, f"{file_id}/content{query}", None, headers)

    def status(self, method: str, path: str, **given: Any) -> int:
        return self.ask(method, path, **given).status

    def spooled(self) -> list[str]:
        """Names of what is in the spool."""
        return sorted(path.name for path in (self.guarded.server.data / "spool").iterdir() if path.is_file())


@contextmanager
def file_site(data: Path, **settings: str) -> Iterator[Site]:
    """The server over a new data directory."""
    with guarded(data, **{"file_rate_per_minute": "1000000", **settings}) as found:
        patient = new_patient(found.accounts.catalog, "P-1")
        yield Site(found, patient, found.bearer("clinician"), found.bearer("admin"))

"""Files for tests: small ones of every kind made here, forms that carry them, and patients to bring them for."""

from __future__ import annotations

import io
import json
import os
from typing import Any

from PIL import Image
from sqlalchemy import insert

from pacslite.catalog.database import Catalog
from pacslite.catalog.models import patient
from pacslite.catalog.statements import now_text
from tests.support.http import Answer

CRLF = b"\r\n"


def photo(color: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG; another colour, other bytes."""
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "JPEG")
    return out.getvalue()


def any_photo() -> bytes:
    """A JPEG that nobody has yet."""
    out = io.BytesIO()
    Image.frombytes("RGB", (16, 16), os.urandom(16 * 16 * 3)).save(out, "JPEG", quality=95)
    return out.getvalue()


def new_patient(catalog: Catalog, mrn: str, issuer: str = "") -> int:
    """A patient made by hand; the number."""
    now = now_text()
    row = {"identity_id": mrn, "identity_issuer": issuer, "identity_study": "", "patient_id": mrn, "created_by": "tests"}
    statement = insert(patient).values(**row, created_at=now, updated_at=now).returning(patient.c.pk)
    made: int = catalog.write(lambda conn: conn.execute(statement).scalar_one())
    return made


def form(fields: dict[str, Any], files: list[tuple[str, bytes]] | None = None, boundary: str = "pieces") -> tuple[bytes, dict[str, str]]:
    """A multipart/form-data body with its header; files as (name, bytes), all as field `file`."""
    parts = [f'Content-Disposition: form-data; name="{name}"'.encode() + CRLF * 2 + str(value).encode() for name, value in fields.items()]
    for name, data in files or []:
        head = f'Content-Disposition: form-data; name="file"; filename="{name}"'.encode() + CRLF
        parts.append(head + b"Content-Type: application/octet-stream" + CRLF * 2 + data)
    delimiter = f"--{boundary}".encode()
    body = b"".join(delimiter + CRLF + part + CRLF for part in parts) + delimiter + b"--" + CRLF
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def of_json(answer: Answer, status: int = 200) -> Any:
    """The body of an answer that has to have this status."""
    assert answer.status == status, (answer.status, answer.body[:500])
    return json.loads(answer.body)

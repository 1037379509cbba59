"""Whether a patient has a file already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, select

from pacslite.catalog.file_models import file as _file
from pacslite.catalog.file_models import file_part as _part
from pacslite.catalog.file_models import file_version as _version
from pacslite.catalog.visibility import file_clauses

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.visibility import Sight

LIVE = "live"


def file_with(conn: Connection, patient_pk: int, file_type: str, sha256: str, sight: Sight | None) -> str | None:
    """The id of a file of this type, not in the trash, whose newest version is these bytes alone; the oldest of several."""
    newest = and_(_version.c.file_pk == _file.c.pk, _version.c.number == _file.c.version_number)
    found = conn.execute(
        select(_file.c.uid)
        .join(_version, newest)
        .join(_part, _part.c.version_pk == _version.c.pk)
        .where(_file.c.patient_pk == patient_pk, _file.c.file_type == file_type, _file.c.state == LIVE)
        .where(_file.c.dicom_sop_uid.is_(None), _part.c.sha256 == sha256, *file_clauses(sight))
        .order_by(_file.c.created_at, _file.c.pk)
        .limit(1)
    ).scalar()
    return None if found is None else str(found)

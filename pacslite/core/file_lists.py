"""What a patient has in files: lists, the same by type, and how much it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pacslite.catalog import file_lists as lists
from pacslite.catalog import files as rows
from pacslite.catalog.file_lists import DicomSum, Filters, StorageInfo, TypeSum
from pacslite.core import uploads
from pacslite.core.file_records import FileRecord, records_of
from pacslite.core.parts import WithCatalog, WithSpool
from pacslite.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog

__all__ = ["DicomSum", "Filters", "StorageInfo", "TypeSum", "categorized", "clean_up", "listed", "storage_info"]

MOST_OF_A_TYPE = 1000
"""Files of each type in one answer of `categorized`."""


def listed(catalog: Catalog, patient_id: int, filters: Filters, after: tuple[str, int] | None, limit: int) -> tuple[list[FileRecord], int]:
    """A page of a patient's files, newest first, and how many there are in all; raises NotFound for no patient."""
    with catalog.read() as conn:
        _check_patient(conn, catalog, patient_id)
        sight = catalog.sight(conn)
        found = lists.page(conn, patient_id, filters, after, limit, sight)
        return records_of(conn, found), lists.count(conn, patient_id, filters, sight)


def categorized(catalog: Catalog, patient_id: int, filters: Filters) -> dict[str, list[FileRecord]]:
    """A patient's files by type, newest first; of each type the newest thousand. Raises NotFound."""
    by_type: dict[str, list[FileRecord]] = {}
    with catalog.read() as conn:
        _check_patient(conn, catalog, patient_id)
        for record in records_of(conn, lists.newest_of_each_type(conn, patient_id, filters, MOST_OF_A_TYPE, catalog.sight(conn))):
            by_type.setdefault(record.file_type, []).append(record)
    return dict(sorted(by_type.items()))


def storage_info(catalog: Catalog, patient_id: int) -> StorageInfo:
    """How much of a patient is kept; raises NotFound."""
    with catalog.read() as conn:
        _check_patient(conn, catalog, patient_id)
        return lists.storage_info(conn, patient_id, catalog.sight(conn))


class Parts(WithCatalog, WithSpool, Protocol):
    """What cleaning up needs of a process."""


def clean_up(parts: Parts, patient_id: int, older_than_s: float) -> tuple[int, int]:
    """End uploads for a patient that nothing has come to for so long: how many, and the bytes freed. Raises NotFound."""
    with parts.catalog.read() as conn:
        _check_patient(conn, parts.catalog, patient_id)
    return uploads.expire(parts, older_than_s, patient_id)


def _check_patient(conn: Connection, catalog: Catalog, patient_id: int) -> None:
    if not rows.sees_patient(conn, patient_id, catalog.sight(conn)):
        raise NotFound("There is no such patient.")

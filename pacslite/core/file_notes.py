"""What is told of every change to a file: a line of the feed with all that only the catalog knows, and an entry of the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pacslite.catalog import blobs, changes
from pacslite.catalog.changes import Kind, Origin
from pacslite.catalog.files import FileRow
from pacslite.catalog.statements import now_text
from pacslite.core.access import Principal
from pacslite.core.audit import Event, note

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Owner:
    """Who brings files: whose name they carry, and whose quota they count for. `announced_bytes` count there already."""

    account_id: int | None
    username: str
    announced_bytes: int = 0


def owner_of(principal: Principal | None) -> Owner:
    """The owner of what somebody brings."""
    return Owner(principal.account_id, principal.username) if principal is not None else Owner(None, "")


def note_change(conn: Connection, kind: Kind, row: FileRow, origin: Origin, detail: Mapping[str, Any]) -> None:
    """A line of the feed about a file."""
    uids = row.uids or (row.study_instance_uid, None, None)
    changes.add(
        conn,
        kind,
        now_text(),
        origin,
        uids=(uids[0], uids[1], uids[2]),
        version_number=row.version_number,
        detail=detail,
        file_id=row.uid,
        patient_id=row.patient_pk,
    )


def note_event(conn: Connection, action: str, row: FileRow, owner: Owner, origin: Origin, **detail: Any) -> None:
    """An entry of the audit log about a file, in the transaction that changes it."""
    note(conn, event_of(action, row.uid, row.patient_pk, owner, origin, row.dicom_study_uid or row.study_instance_uid or "", detail))


def event_of(action: str, file_id: str, patient_id: int, owner: Owner, origin: Origin, study: str, detail: Mapping[str, Any]) -> Event:
    """An event about a file."""
    return Event(
        action,
        actor=owner.username,
        actor_id=owner.account_id,
        object_type="file",
        object_id=file_id,
        patient_id=patient_id,
        address=origin.address,
        request_id=origin.request_id,
        detail=detail,
        study_instance_uid=study,
        protocol="http" if origin.protocol in ("upload", "api") else origin.protocol,
    )


def described(row: FileRow) -> dict[str, Any]:
    return {name: value for name, value in row._asdict().items() if name not in ("pk", "patient_pk", "uid")}


def bytes_of(conn: Connection, blob_pk: int | None) -> dict[str, Any]:
    """Where bytes are, for a catalog made anew."""
    found = blobs.find(conn, blob_pk) if blob_pk is not None else None
    return {} if found is None else {"blob": found.uid, "storage_key": found.storage_key, "store": found.store_name}

"""What only a catalog made anew writes: rows with the numbers, the times and the places that a journal tells of."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, insert, select, text, update

from pacslite.catalog import blobs, patients
from pacslite.catalog.arrival import NewBlob, PatientIdentity
from pacslite.catalog.file_models import purged_file, quota
from pacslite.catalog.models import blob, patient


def highest_patient(conn: Connection) -> int:
    """The highest number of a patient."""
    return int(conn.execute(select(func.coalesce(func.max(patient.c.pk), 0))).scalar_one())


def number_from(conn: Connection, highest: int) -> None:
    """Let the numbers of patients go on behind this one and behind all that are there, where the database does not do so by itself."""
    if conn.dialect.name == "postgresql":
        given = max(highest, highest_patient(conn))
        sequence = text("SELECT setval(pg_get_serial_sequence('patient', 'pk'), :given, :used)")
        conn.execute(sequence, {"given": max(1, given), "used": given > 0})


def number_of(conn: Connection, identity: PatientIdentity, told: int, above: int) -> int:
    """The number of a patient who had `told`: that, unless they are there with another one already, or somebody else has it."""
    known = patients.of_identity(conn, identity)
    if known is not None:
        return known.id
    return told if patients.get(conn, told) is None else max(above, highest_patient(conn)) + 1


def take_blob(conn: Connection, new: NewBlob, at: str, stored_bytes: int | None) -> tuple[int, bool]:
    """A reference to bytes of files that the journal names: its number, and whether the row is new. `stored_bytes` of packed ones."""
    known = conn.execute(select(blob.c.pk).where(blob.c.uid == new.uid, blob.c.state != blobs.DOOMED)).scalar()
    if known is not None and blobs.link_again(conn, known) is not None:
        return int(known), False
    pk, is_new = blobs.insert_shared(conn, new)
    if is_new:
        packed: dict[str, Any] = {} if stored_bytes is None else {"encoding": "gzip", "stored_bytes": stored_bytes}
        conn.execute(update(blob).where(blob.c.pk == pk).values(created_at=at, **packed))
    return pk, is_new


def place_packed(conn: Connection, uid: str, stored_bytes: int) -> None:
    """The bytes of a row are packed where they lie."""
    conn.execute(update(blob).where(blob.c.uid == uid).values(encoding="gzip", stored_bytes=stored_bytes))


def live_of(conn: Connection, uids: list[str]) -> list[str]:
    """Those of these blobs that are in use."""
    return list(conn.execute(select(blob.c.uid).where(blob.c.uid.in_(uids), blob.c.state != blobs.DOOMED)).scalars())


def note_purged(conn: Connection, file_uid: str, patient_id: int, at: str) -> None:
    """A file was purged of which nothing else is known."""
    conn.execute(insert(purged_file).values(uid=file_uid, patient_id=patient_id, purged_at=at))


def forget_usage(conn: Connection) -> None:
    """Nobody keeps anything; limits stay."""
    conn.execute(update(quota).values(used_bytes=0))

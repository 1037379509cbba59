"""Legal holds: a study or a file on hold is neither deleted, nor thinned out by age, nor archived, until the hold is lifted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacslite.catalog import deletions, legal_holds
from pacslite.catalog.legal_holds import Hold
from pacslite.catalog.statements import now_text
from pacslite.core import files
from pacslite.core.audit import Event, change_of, note
from pacslite.dicom.uids import clean_uid
from pacslite.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.changes import Origin
    from pacslite.catalog.database import Catalog
    from pacslite.core.file_notes import Owner


def of_study(catalog: Catalog, study_instance_uid: str) -> Hold | None:
    """The hold on a study; raises NotFound when there is neither."""
    uid = clean_uid(study_instance_uid)
    with catalog.read() as conn:
        hold = legal_holds.of_study(conn, uid)
        if hold is None:
            _check_there(conn, catalog, uid)
    return hold


def set_of_study(catalog: Catalog, study_instance_uid: str, held: bool, cause: Event) -> Hold | None:
    """Put a study on hold, or lift that; raises NotFound."""
    uid = clean_uid(study_instance_uid)

    def work(conn: Connection) -> Hold | None:
        if held:
            _check_there(conn, catalog, uid)
            hold = legal_holds.place(conn, Hold(uid, cause.actor, now_text()))
            note(conn, change_of(cause, "study.hold", uid, legal_hold=True))
            return hold
        if not legal_holds.lift(conn, uid):
            _check_there(conn, catalog, uid)
        note(conn, change_of(cause, "study.hold", uid, legal_hold=False))
        return None

    return catalog.write(work, (f"study:{uid}",))


def _check_there(conn: Connection, catalog: Catalog, uid: str) -> None:
    if not deletions.is_there(conn, deletions.Target(uid), catalog.sight(conn)):
        raise NotFound("There is no such study.")


def set_of_file(parts: files.Parts, file_id: str, held: bool, owner: Owner, origin: Origin) -> bool:
    """Put a file on hold, or lift that; raises NotFound, Gone."""
    files.update(parts, file_id, {"legal_hold": held}, owner, origin)
    return held

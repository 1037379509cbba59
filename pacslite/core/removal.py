"""Removal of studies, series and instances. The catalog forgets them at once; `core.erasure` erases the bytes after a time of grace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacslite.catalog import legal_holds, retrieval
from pacslite.catalog.changes import Origin
from pacslite.catalog.deletions import Deleted, Target, delete_target
from pacslite.dicom.uids import clean_uid
from pacslite.errors import Gone, NotFound

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pacslite.catalog.database import Catalog

__all__ = ["Deleted", "Origin", "Target", "absent", "remove", "target_of"]


def target_of(study: str, series: str | None = None, instance: str | None = None) -> Target:
    """The target that UIDs of a request name; raises InvalidUid."""
    return Target(clean_uid(study), None if series is None else clean_uid(series), None if instance is None else clean_uid(instance))


def remove(catalog: Catalog, target: Target, origin: Origin) -> Deleted:
    """Remove a study, a series or an instance with all its versions; raises NotFound, or Gone when it was removed before.

    Conflict when the study is on legal hold.

    An instance that arrives while its study is removed comes either before it and goes along, or after it and is new.
    """

    def work(conn: Connection) -> Deleted | None:
        deleted = delete_target(conn, target, origin, sight=catalog.sight(conn))
        if deleted is not None:  # of what is not there, or not in sight, nothing is told
            legal_holds.refuse(conn, target.study_instance_uid)
        return deleted

    deleted = catalog.write(work, target.keys)
    if deleted is not None:
        return deleted
    raise absent(catalog, target)


def absent(catalog: Catalog, target: Target) -> NotFound | Gone:
    """The error that a target which is not there deserves."""
    with catalog.read() as conn:
        uids = target.study_instance_uid, target.series_instance_uid, target.sop_instance_uid
        known = retrieval.was_deleted(conn, *uids, sight=catalog.sight(conn))
    return Gone(f"The {target.kind} was deleted.") if known else NotFound(f"There is no such {target.kind}.")

"""Removal of studies, series and instances. The catalog forgets them at once; `core.erasure` erases the bytes after a time of grace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacslite.catalog import retrieval
from pacslite.catalog.deletions import Deleted, Target, delete_target
from pacslite.errors import Gone, NotFound

if TYPE_CHECKING:
    from pacslite.catalog.changes import Origin
    from pacslite.catalog.database import Catalog

__all__ = ["Deleted", "Target", "remove"]


def remove(catalog: Catalog, target: Target, origin: Origin) -> Deleted:
    """Remove a study, a series or an instance with all its versions; raises NotFound, or Gone when it was removed before.

    An instance that arrives while its study is removed comes either before it and goes along, or after it and is new.
    """
    deleted = catalog.write(lambda conn: delete_target(conn, target, origin), target.keys)
    if deleted is not None:
        return deleted
    uids = (target.study_instance_uid, target.series_instance_uid, target.sop_instance_uid)
    with catalog.read() as conn:
        known = retrieval.was_deleted(conn, *uids)
    kind = ("study", "series", "instance")[len(target.uids) - 1]
    raise Gone(f"The {kind} was deleted.") if known else NotFound(f"There is no such {kind}.")

"""Erases the bytes of what was deleted, after a time of grace.

The deletion is committed long before. Here the rows are claimed, which ends every chance to undelete them, then the bytes
go and the rows after them, so that a crash in between only means that erasing is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pacslite.catalog import inventory
from pacslite.catalog.holds import ERASURE_KEYS
from pacslite.catalog.statements import time_text
from pacslite.storage.keys import blob_uid

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog
    from pacslite.storage.blob_store import BlobStore

_BATCH = 200


@dataclass(frozen=True, slots=True)
class Erased:
    """How many blobs went, and how many bytes."""

    count: int = 0
    size_bytes: int = 0


def erase_doomed(catalog: Catalog, store: BlobStore, grace_s: float, now: datetime | None = None) -> int:
    """Erase the blobs of this store that were doomed more than `grace_s` ago and that nothing refers to; how many.

    None while a backup runs, which may yet need them (`catalog.holds`).
    """
    return erase(catalog, store, grace_s, now).count


def erase(catalog: Catalog, store: BlobStore, grace_s: float, now: datetime | None = None, uids: Sequence[str] | None = None) -> Erased:
    """The same, and how many bytes; with `uids` of these blobs alone."""
    until, erased = time_text((now or datetime.now(UTC)) - timedelta(seconds=grace_s)), Erased()
    while True:
        rows = catalog.write(lambda conn: inventory.claim_doomed(conn, until, store.name, _BATCH, uids), ERASURE_KEYS)
        if not rows:
            return erased
        for row in rows:
            store.delete(row.storage_key)
        catalog.write(lambda conn, pks=[row.pk for row in rows]: inventory.forget(conn, pks))  # type: ignore[misc]
        erased = Erased(erased.count + len(rows), erased.size_bytes + sum(row.size_stored for row in rows))


def erase_now(catalog: Catalog, store: BlobStore, keys: Sequence[str]) -> None:
    """Erase what lies at these keys of the store and was deleted, without any time of grace; what a backup needs yet stays till then."""
    erase(catalog, store, -1.0, uids=[blob_uid(key) for key in keys])

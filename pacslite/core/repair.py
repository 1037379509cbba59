"""What is done about damaged bytes: a second copy takes their place where there is one, else they are put out of use.

A second copy is the same blob in another storage, or packed where it was not, or another blob of the same digest. It is read whole
and compared before anything is moved; the damaged bytes go to quarantine, where a person may look at them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from pacslite.catalog import inventory
from pacslite.core.parts import WithCatalog, WithSpool, WithStores
from pacslite.core.stocktaking import Place
from pacslite.errors import BlobMissing, PacsliteError, StorageError
from pacslite.storage import packing
from pacslite.storage.digests import digests_of
from pacslite.storage.keys import PACKED, quarantine_key

if TYPE_CHECKING:
    from pacslite.catalog.inventory import BlobRow
    from pacslite.storage.spool import Spool, SpoolFile
    from pacslite.storage.stores import Located, Stores

_log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """What became of a damaged blob."""

    REPAIRED = "repaired"
    QUARANTINED = "quarantined"
    LEFT = "left"


class Parts(WithCatalog, WithStores, WithSpool, Protocol):
    """What this needs of a process."""


def mend(parts: Parts, row: BlobRow) -> Outcome:
    """Put a second copy in the place of damaged or missing bytes, or put them out of use; never both bad and in use."""
    for place in _copies(parts, row):
        file = _whole_copy(parts, row, place)
        if file is not None:
            _replace(parts, row, file)
            _log.warning("damaged bytes were replaced by a second copy", extra={"action": "storage.repair", "object_id": row.storage_key})
            return Outcome.REPAIRED
    if row.state != inventory.LIVE:
        return Outcome.LEFT
    if not parts.catalog.write(lambda conn: inventory.change_state(conn, row.pk, inventory.LIVE, inventory.QUARANTINED)):
        return Outcome.LEFT  # deleted meanwhile
    put_aside(parts.stores, row)
    return Outcome.QUARANTINED


def put_aside(stores: Stores, row: Located) -> None:
    """Move bytes to quarantine, in the place of what lay there of the same key; nothing happens when they are gone."""
    store, aside = stores.of(row), quarantine_key(row.storage_key)
    try:
        store.size(row.storage_key)
    except BlobMissing:
        return
    store.delete(aside)
    store.move(row.storage_key, aside)


def _copies(parts: Parts, row: BlobRow) -> Iterator[Located]:
    """Where a second copy may be, the likely ones first."""
    plain = row.storage_key.removesuffix(PACKED)
    for store in parts.stores.all:
        for key in (plain, plain + PACKED):
            if (store.name, key) != (row.store_name, row.storage_key):
                yield Place(key, store.name)
    with parts.catalog.read() as conn:
        twins = inventory.twins(conn, row)
    yield from twins


def _whole_copy(parts: Parts, row: BlobRow, place: Located) -> SpoolFile | None:
    """The copy in the spool, packed if the row says so, or None when it is not there or not whole."""
    spool = parts.stores.spool_of(row.store_name, parts.spool)
    try:
        if parts.stores.size(place) != row.size_bytes:
            return None
        if row.storage_key.endswith(PACKED):
            return _packed_copy(parts, row, place, spool)
        with parts.stores.open(place) as stream:
            file = spool.copy(stream, ".repair")
    except (BlobMissing, StorageError):
        return None  # that storage may be out of reach; another may not be
    if file.sha256 == row.sha256:
        return file
    file.discard()
    return None


def _packed_copy(parts: Parts, row: BlobRow, place: Located, spool: Spool) -> SpoolFile | None:
    with parts.stores.open(place) as stream:
        if digests_of(stream).sha256 != row.sha256:
            return None
    with parts.stores.open(place) as stream, spool.create(".repair") as writer:
        packing.pack(stream, row.size_bytes, writer.write)
        return writer.finish()


def _replace(parts: Parts, row: BlobRow, file: SpoolFile) -> None:
    """The same bytes under the same key again; a crash in between leaves missing bytes, which the next look repairs."""
    try:
        put_aside(parts.stores, row)
        parts.stores.of(row).put(file.path, row.storage_key)
    except PacsliteError:
        file.discard()
        raise
    stored = file.size_bytes if row.storage_key.endswith(PACKED) else None
    parts.catalog.write(lambda conn: inventory.mark_whole(conn, row.pk, stored))

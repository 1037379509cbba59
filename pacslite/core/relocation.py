"""Bytes move to another storage, or are packed where they lie: copied, read back, compared, and only then is their row switched.

A crash before the switch leaves a copy that no row names, which the next attempt takes up or the sweep removes; one after it leaves the
source, which a row names until erasure has taken it. Readers that were on their way to the source find it for a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from pacslite.catalog import relocation as rows
from pacslite.catalog.relocation import NewPlace
from pacslite.catalog.statements import time_text
from pacslite.core.parts import WithCatalog, WithSettings, WithSpool, WithStores
from pacslite.core.stocktaking import Place, is_needed, rows_at
from pacslite.errors import BlobMissing, StorageError
from pacslite.storage import packing
from pacslite.storage.digests import digests_of
from pacslite.storage.keys import PACKED, moved_uid

if TYPE_CHECKING:
    from pacslite.catalog.inventory import BlobRow
    from pacslite.storage.blob_store import BlobStore
    from pacslite.storage.spool import SpoolFile

LEFT_S = 300
"""How long the source stays for those who were told of it before the switch."""

_WORTH = 0.95  # packed bytes are kept when they are shorter than this share of the original
_SAMPLE_BYTES = 1024 * 1024


class Outcome(StrEnum):
    """What became of a blob that was to be moved."""

    MOVED = "moved"
    NOT_SMALLER = "not_smaller"  # packing gains nothing
    DAMAGED = "damaged"  # a copy would only hide it: for verification
    CHANGED = "changed"  # deleted or moved by somebody else meanwhile
    BUSY = "busy"  # the place it would go to is being cleared


@dataclass(frozen=True, slots=True)
class Relocated:
    """What became of it, and how many bytes the storage it was in has gained."""

    outcome: Outcome
    freed_bytes: int = 0


class Parts(WithSettings, WithCatalog, WithStores, WithSpool, Protocol):
    """What this needs of a process."""


def relocate(parts: Parts, row: BlobRow, to: str | None) -> Relocated:
    """Move the bytes of a blob to the storage `to`, as they lie, or pack them where they are; raises StorageError."""
    target = parts.stores.named(row.store_name if to is None else to)
    place = Place(row.storage_key if to is not None else row.storage_key + PACKED, target.name)
    if to is None and not _is_worth_packing(parts, row):
        return Relocated(Outcome.NOT_SMALLER)
    if not parts.catalog.write(lambda conn: rows.claim(conn, place.store_name, [place.storage_key])):
        return Relocated(Outcome.BUSY)
    if not _is_copied_already(parts, row, target, place):
        file = _copy(parts, row, target, pack=to is None)
        if file is None:
            return Relocated(Outcome.DAMAGED)
        if to is None and file.size_bytes >= _WORTH * row.size_bytes:
            file.discard()
            return Relocated(Outcome.NOT_SMALLER)
        try:
            target.put(file.path, place.storage_key)
        except StorageError:
            file.discard()
            raise
        if not _is_whole(parts, row, place):
            target.delete(place.storage_key)
            raise StorageError(f"the storage {target.name!r} gave back other bytes than it was given")
    return _switch(parts, row, target, place, to)


def _switch(parts: Parts, row: BlobRow, target: BlobStore, place: Place, to: str | None) -> Relocated:
    now, stored = datetime.now(UTC), target.size(place.storage_key)
    left_at = time_text(now - timedelta(seconds=max(0, parts.settings.removal_grace_s - LEFT_S)))
    is_packed = place.storage_key.endswith(PACKED)
    new = NewPlace(place.storage_key, place.store_name, packing.ENCODING if is_packed else None, stored if is_packed else None)
    uid = moved_uid(row.store_name, row.storage_key)
    if parts.catalog.write(lambda conn: rows.switch(conn, row, new, uid, left_at, time_text(now))):
        return Relocated(Outcome.MOVED, row.size_stored if to is not None else row.size_stored - stored)
    if not is_needed(parts.catalog, target, place.storage_key):
        target.delete(place.storage_key)
    return Relocated(Outcome.CHANGED)


def _is_copied_already(parts: Parts, row: BlobRow, target: BlobStore, place: Place) -> bool:
    """Whether an earlier attempt has left a whole copy; one that is not whole, and that no row names, is removed."""
    try:
        target.size(place.storage_key)
    except BlobMissing:
        return False
    if _is_whole(parts, row, place):
        return True
    with parts.catalog.read() as conn:
        taken = rows_at(conn, target, [place.storage_key])
    if taken:
        raise StorageError(f"{place.storage_key} holds other bytes in the storage {target.name!r}")
    target.delete(place.storage_key)
    return False


def _is_whole(parts: Parts, row: BlobRow, place: Place) -> bool:
    try:
        with parts.stores.open(place) as stream:
            digests = digests_of(stream)
    except BlobMissing:
        return False
    return (digests.sha256, digests.size_bytes) == (row.sha256, row.size_bytes)


def _copy(parts: Parts, row: BlobRow, target: BlobStore, *, pack: bool) -> SpoolFile | None:
    """The bytes in the spool of the target, packed or as they lie; None when they are missing or not what they should be."""
    spool = parts.stores.spool_of(target.name, parts.spool)
    spool.check_space(row.size_stored)
    try:
        if pack and not _is_whole(parts, row, Place(row.storage_key, row.store_name)):
            return None
        with parts.stores.of(row).open(row.storage_key) as stream:
            if not pack:
                file = spool.copy(stream, ".moved")
            else:
                with spool.create(".moved") as writer:
                    packing.pack(stream, row.size_bytes, writer.write)
                    return writer.finish()
    except BlobMissing:
        return None
    if row.storage_key.endswith(PACKED) or file.sha256 == row.sha256:
        return file  # what is packed is unpacked and compared when it is read back
    file.discard()
    return None


def _is_worth_packing(parts: Parts, row: BlobRow) -> bool:
    """Whether the beginning gets smaller: what is compressed already is told by it, and not packed in vain."""
    size = min(_SAMPLE_BYTES, row.size_bytes)
    packed = 0

    def count(piece: bytes) -> None:
        nonlocal packed
        packed += len(piece)

    try:
        with parts.stores.open(row, 0, size) as stream:
            packing.pack(stream, size, count)
    except BlobMissing:
        return True  # let the copy find out
    return packed < _WORTH * size

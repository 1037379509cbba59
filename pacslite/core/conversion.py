"""Instances in another transfer syntax than the stored one."""

from __future__ import annotations

from collections.abc import Iterator

from pacslite.codec import transfer_syntax
from pacslite.core.content import StreamBody
from pacslite.core.retrieve import IN_MEMORY_BYTES, Item, local_copy
from pacslite.dicom.limits import Limits
from pacslite.storage.blob_store import BlobStore


def converted(store: BlobStore, item: Item, target_uid: str, limits: Limits) -> bytes | StreamBody:
    """The Part 10 file in another native transfer syntax; larger ones are made while they are sent."""

    def pieces() -> Iterator[bytes]:
        with local_copy(store, item, limits.scratch) as path, path.open("rb") as file:
            yield from transfer_syntax.convert(file, target_uid, limits)

    return b"".join(pieces()) if item.size_bytes <= IN_MEMORY_BYTES else StreamBody(None, pieces)

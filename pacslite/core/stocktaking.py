"""The storage beside the catalog: which stored bytes belong to which row, and which to none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pacslite.catalog import inventory
from pacslite.storage.digests import Digests, digests_of
from pacslite.storage.keys import RADIOLOGY, blob_uid

if TYPE_CHECKING:
    from pacslite.catalog.database import Catalog
    from pacslite.catalog.inventory import BlobRow
    from pacslite.storage.blob_store import BlobInfo, BlobStore
    from pacslite.storage.spool import Spool
    from pacslite.storage.stores import Located, Stores

Progress = Callable[[int, int], None]
"""Told how many are done, and of how many."""

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Found:
    """Bytes that are in the storage, and the row that names exactly this key, if any."""

    info: BlobInfo
    row: BlobRow | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes are, for whoever has no row of them."""

    storage_key: str
    store_name: str


def take_stock(catalog: Catalog, store: BlobStore, prefix: str = RADIOLOGY) -> Iterator[Found]:
    """Everything stored under the prefix in the order of keys; one listing, one look-up per batch, bounded memory."""
    listing = store.list(prefix)
    while batch := list(islice(listing, _BATCH)):
        with catalog.read() as conn:
            rows = inventory.blobs_of(conn, [blob_uid(info.key) for info in batch])
        for info in batch:
            row = rows.get(blob_uid(info.key))
            yield Found(info, row if row is not None and row.storage_key == info.key and row.store_name == store.name else None)


@contextmanager
def as_file(stores: Stores, spool: Spool, row: Located) -> Iterator[tuple[Path, Digests]]:
    """The bytes of a blob as a file, and their digests; bytes that are no file here are fetched into the spool for the while."""
    local = stores.local_path(row)
    with stores.open(row) as stream:
        if local is not None:
            yield local, digests_of(stream)
            return
        with spool.create(".fetched") as writer:
            digests = digests_of(stream, writer.write)
            file = writer.finish()
    try:
        yield file.path, digests
    finally:
        file.discard()


def rows_of(catalog: Catalog) -> Iterator[BlobRow]:
    """Every blob of the catalog, page by page, no transaction open in between."""
    after = 0
    while True:
        with catalog.read() as conn:
            page = inventory.blobs_after(conn, after, _BATCH)
        if not page:
            return
        yield from page
        after = page[-1].pk
